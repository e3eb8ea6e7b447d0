//! Bytes to elements.

use compact_str::CompactString;
use rxml::error::EndOrError;
use rxml::{NcName, Options, Parse as _, RawEvent, RawParser, WithOptions as _};
use smallvec::SmallVec;

use super::limits::{LimitSet, Limits};
use super::scope::{Declarations, Scopes};
use super::{Header, StreamKind};
use crate::element::{Attribute, Attributes, Element, Name, Node, Start};
use crate::ns::{self, Ns};
use crate::stream::StreamCondition;

/// What a stream brings, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEvent {
    /// The stream opened.
    Header(Header),
    /// A first-level element is complete. Stanzas without `xml:lang` have got the header's.
    Element(Element),
    /// The stream ended; what follows is not read.
    Footer,
    /// Blanks between elements, as peers send to keep a connection alive.
    Whitespace,
}

/// Why a stream cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamDecodeError {
    /// [`Limits::header_bytes`].
    #[error("stream header exceeds {limit} bytes")]
    HeaderTooLarge {
        /// The limit in force.
        limit: usize,
    },
    /// [`Limits::element_bytes`].
    #[error("element exceeds {limit} bytes")]
    ElementTooLarge {
        /// The limit in force.
        limit: usize,
    },
    /// [`Limits::depth`].
    #[error("element is nested deeper than {limit}")]
    TooDeep {
        /// The limit in force.
        limit: usize,
    },
    /// [`Limits::attributes`].
    #[error("element has more than {limit} attributes")]
    TooManyAttributes {
        /// The limit in force.
        limit: usize,
    },
    /// [`Limits::token_bytes`].
    #[error("name or attribute value exceeds {limit} bytes")]
    TokenTooLong {
        /// The limit in force.
        limit: usize,
    },
    /// [`Limits::children`].
    #[error("element has more than {limit} elements inside")]
    TooManyChildren {
        /// The limit in force.
        limit: usize,
    },
    /// [`Limits::namespace_declarations`].
    #[error("element declares more than {limit} namespaces")]
    TooManyDeclarations {
        /// The limit in force.
        limit: usize,
    },
    /// A document type declaration, entity, comment or processing instruction (RFC 6120 §11.1).
    #[error("stream uses XML that is not allowed in streams")]
    Restricted,
    /// An encoding other than UTF-8 is declared.
    #[error("stream is not in UTF-8")]
    Encoding,
    /// A prefix that is not declared.
    #[error("prefix is not declared")]
    UndeclaredPrefix,
    /// The first element is no stream header, or its content namespace is another one.
    #[error("stream has the wrong namespace")]
    WrongNamespace,
    /// Text between first-level elements.
    #[error("text between stanzas")]
    StrayText,
    /// XML that is not well-formed.
    #[error("stream is not well-formed")]
    NotWellFormed(#[source] rxml::Error),
}

impl StreamDecodeError {
    /// The stream error to send. All but the limits are the peer's misbehaviour beyond doubt.
    pub fn condition(self) -> StreamCondition {
        match self {
            Self::HeaderTooLarge { .. }
            | Self::ElementTooLarge { .. }
            | Self::TooDeep { .. }
            | Self::TooManyAttributes { .. }
            | Self::TokenTooLong { .. }
            | Self::TooManyChildren { .. }
            | Self::TooManyDeclarations { .. } => StreamCondition::PolicyViolation,
            Self::Restricted => StreamCondition::RestrictedXml,
            Self::Encoding => StreamCondition::UnsupportedEncoding,
            Self::UndeclaredPrefix => StreamCondition::BadNamespacePrefix,
            Self::WrongNamespace => StreamCondition::InvalidNamespace,
            Self::StrayText => StreamCondition::BadFormat,
            Self::NotWellFormed(_) => StreamCondition::NotWellFormed,
        }
    }

    /// True if a limit was reached rather than a rule broken.
    pub fn is_limit(self) -> bool {
        self.condition() == StreamCondition::PolicyViolation
    }
}

/// Where in the stream the next byte belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the header, or inside it.
    Header,
    /// Between first-level elements.
    Between,
    /// Inside a first-level element, or the stream's end tag.
    Inside,
    /// After the end tag.
    Ended,
}

/// The start tag that is being read.
#[derive(Debug)]
struct Tag {
    prefix: Option<NcName>,
    name: NcName,
    declarations: Declarations,
    attributes: SmallVec<[(Option<NcName>, NcName, String); 6]>,
}

/// A decoder of one stream, from its first byte to its last.
///
/// It is of no further use after an error, which it then repeats.
#[derive(Debug)]
pub struct StreamDecoder {
    parser: RawParser,
    kind: StreamKind,
    limits: Limits,
    after: Limits,
    place: Place,
    /// Bytes of the header or of the element that is being read.
    bytes: usize,
    scopes: Scopes,
    tag: Option<Tag>,
    nodes: Vec<Node>,
    /// Indexes of the starts that are open in `nodes`.
    open: Vec<usize>,
    /// Elements in `nodes`.
    elements: usize,
    /// Whether the last node is text of the innermost open element.
    in_text: bool,
    lang: Option<CompactString>,
    failed: Option<StreamDecodeError>,
}

impl StreamDecoder {
    /// Makes a decoder that has seen nothing yet.
    pub fn new(kind: StreamKind, limits: LimitSet) -> Self {
        let token_bytes = limits.before.token_bytes.max(limits.after.token_bytes);
        let options = Options { max_token_length: token_bytes, ..Options::default() };
        Self {
            parser: RawParser::with_options(options),
            kind,
            limits: limits.before,
            after: limits.after,
            place: Place::Header,
            bytes: 0,
            scopes: Scopes::default(),
            tag: None,
            nodes: Vec::new(),
            open: Vec::new(),
            elements: 0,
            in_text: false,
            lang: None,
            failed: None,
        }
    }

    /// Puts the limits for authenticated peers in force.
    pub fn authenticated(&mut self) {
        self.limits = self.after;
    }

    /// True while a first-level element has begun and not ended.
    pub fn is_inside_element(&self) -> bool {
        self.place == Place::Inside
    }

    /// Reads on in `input` and returns the next event, or `None` when all of `input` is used up.
    ///
    /// # Errors
    ///
    /// [`StreamDecodeError`]; the rest of `input` is then of no use.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Option<StreamEvent>, StreamDecodeError> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        self.advance(input).inspect_err(|error| self.failed = Some(*error))
    }

    fn advance(&mut self, input: &mut &[u8]) -> Result<Option<StreamEvent>, StreamDecodeError> {
        loop {
            let blanks = match self.place {
                Place::Header if self.bytes == 0 => skip_blanks(input),
                Place::Between => skip_blanks(input),
                Place::Header | Place::Inside => 0,
                Place::Ended => {
                    *input = &[];
                    return Ok(None);
                }
            };
            if blanks > 0 && self.place == Place::Between {
                return Ok(Some(StreamEvent::Whitespace));
            }
            match (self.place, input.first()) {
                (Place::Between, Some(b'<')) => {
                    self.place = Place::Inside;
                    self.bytes = 0;
                }
                (Place::Between, Some(_)) => return Err(StreamDecodeError::StrayText),
                // told at once, where the parser would wait for the first tag
                (Place::Header, Some(byte)) if self.bytes == 0 && *byte != b'<' => {
                    return Err(StreamDecodeError::NotWellFormed(rxml::Error::InvalidSyntax("no stream header")));
                }
                _ => {}
            }
            // without input as well: one byte can be worth several events
            match self.step(input)? {
                Step::Event(event) => return Ok(Some(event)),
                Step::Goes => {}
                Step::Starved => return Ok(None),
            }
        }
    }

    /// Gives the parser as much as the byte limit leaves and takes one event from it.
    fn step(&mut self, input: &mut &[u8]) -> Result<Step, StreamDecodeError> {
        let limit = if self.place == Place::Header { self.limits.header_bytes } else { self.limits.element_bytes };
        let room = limit.saturating_sub(self.bytes);
        let (mut piece, _) = input.split_at(room.min(input.len()));
        let offered = piece.len();
        let outcome = self.parser.parse(&mut piece, false);
        let used = offered - piece.len();
        self.bytes += used;
        *input = input.get(used..).unwrap_or_default();
        match outcome {
            Ok(Some(event)) => self.take(event),
            Ok(None) => {
                self.place = Place::Ended;
                Ok(Step::Goes)
            }
            Err(EndOrError::NeedMoreData) if !input.is_empty() => Err(match self.place {
                Place::Header => StreamDecodeError::HeaderTooLarge { limit },
                _ => StreamDecodeError::ElementTooLarge { limit },
            }),
            Err(EndOrError::NeedMoreData) => Ok(Step::Starved),
            Err(EndOrError::Error(error)) => Err(self.judge(error)),
        }
    }

    fn take(&mut self, event: RawEvent) -> Result<Step, StreamDecodeError> {
        match event {
            RawEvent::XmlDeclaration(..) => {}
            RawEvent::ElementHeadOpen(_, (prefix, name)) => self.begin_tag(prefix, name)?,
            RawEvent::Attribute(_, (prefix, name), value) => self.take_attribute(prefix, name, value)?,
            RawEvent::ElementHeadClose(_) => return self.finish_tag(),
            RawEvent::Text(_, text) => self.take_text(text)?,
            RawEvent::ElementFoot(_) => return Ok(self.close()),
        }
        Ok(Step::Goes)
    }

    fn begin_tag(&mut self, prefix: Option<NcName>, name: NcName) -> Result<(), StreamDecodeError> {
        let depth = self.scopes.depth();
        if depth > self.limits.depth {
            return Err(StreamDecodeError::TooDeep { limit: self.limits.depth });
        }
        if depth > 1 {
            self.elements += 1;
            if self.elements > self.limits.children {
                return Err(StreamDecodeError::TooManyChildren { limit: self.limits.children });
            }
        }
        self.check_token(prefix.as_ref().map_or(0, |prefix| prefix.len() + 1) + name.len())?;
        self.tag = Some(Tag { prefix, name, declarations: Declarations::new(), attributes: SmallVec::new() });
        Ok(())
    }

    fn take_attribute(&mut self, prefix: Option<NcName>, name: NcName, value: String) -> Result<(), StreamDecodeError> {
        self.check_token(prefix.as_ref().map_or(0, |prefix| prefix.len() + 1) + name.len())?;
        self.check_token(value.len())?;
        let Some(tag) = &mut self.tag else { return Ok(()) };
        let declared = match &prefix {
            None if name.as_str() == "xmlns" => Some(None),
            Some(prefix) if prefix.as_str() == "xmlns" => Some(Some(name.clone())),
            _ => None,
        };
        if let Some(declared) = declared {
            if tag.declarations.len() >= self.limits.namespace_declarations {
                return Err(StreamDecodeError::TooManyDeclarations { limit: self.limits.namespace_declarations });
            }
            if tag.declarations.iter().any(|(prefix, _)| *prefix == declared) {
                return Err(StreamDecodeError::NotWellFormed(rxml::Error::DuplicateAttribute));
            }
            tag.declarations.push((declared, value));
            return Ok(());
        }
        if tag.attributes.len() >= self.limits.attributes {
            return Err(StreamDecodeError::TooManyAttributes { limit: self.limits.attributes });
        }
        tag.attributes.push((prefix, name, value));
        Ok(())
    }

    fn check_token(&self, bytes: usize) -> Result<(), StreamDecodeError> {
        let limit = self.limits.token_bytes;
        if bytes > limit { Err(StreamDecodeError::TokenTooLong { limit }) } else { Ok(()) }
    }

    fn finish_tag(&mut self) -> Result<Step, StreamDecodeError> {
        let Some(Tag { prefix, name, declarations, attributes: raw }) = self.tag.take() else { return Ok(Step::Goes) };
        let level = self.scopes.depth();
        self.scopes.push(self.kind, declarations);
        let mut ns = self.scopes.element(prefix.as_ref()).ok_or(StreamDecodeError::UndeclaredPrefix)?;
        if level == 1 && prefix.is_some() && matches!(ns.as_str(), ns::COMPONENT | ns::CLIENT | ns::SERVER) {
            ns = Ns::CONTENT;
        }
        let mut attributes = Attributes::with_capacity(raw.len());
        for (prefix, name, value) in raw {
            let ns = self.scopes.attribute(prefix.as_ref()).ok_or(StreamDecodeError::UndeclaredPrefix)?;
            let name = Name::from(&name);
            if attributes.iter().any(|a: &Attribute| a.ns == ns && a.name == name) {
                return Err(StreamDecodeError::NotWellFormed(rxml::Error::DuplicateAttribute));
            }
            attributes.push(Attribute { ns, name, value });
        }
        if level == 0 {
            return self.open_stream(&ns, &name, attributes);
        }
        self.in_text = false;
        self.open.push(self.nodes.len());
        self.nodes.push(Node::Start(Start { ns, name: Name::from(&name), attributes, span: 1 }));
        Ok(Step::Goes)
    }

    fn open_stream(&mut self, ns: &Ns, name: &NcName, attributes: Attributes) -> Result<Step, StreamDecodeError> {
        let default = self.scopes.element(None);
        if ns.as_str() != ns::STREAMS || name.as_str() != "stream" || !default.is_some_and(|ns| ns.is_content()) {
            return Err(StreamDecodeError::WrongNamespace);
        }
        let mut header = Header { dialback: self.scopes.declares(ns::DIALBACK), ..Header::default() };
        for Attribute { ns, name, value } in attributes {
            let field = match (ns.as_str(), name.as_str()) {
                ("", "from") => &mut header.from,
                ("", "to") => &mut header.to,
                ("", "id") => &mut header.id,
                ("", "version") => &mut header.version,
                (ns::XML, "lang") => &mut header.lang,
                _ => continue,
            };
            *field = Some(CompactString::from(value));
        }
        self.lang = header.lang.clone().filter(|lang| !lang.is_empty());
        self.place = Place::Between;
        Ok(Step::Event(StreamEvent::Header(header)))
    }

    fn take_text(&mut self, text: String) -> Result<(), StreamDecodeError> {
        if self.open.is_empty() {
            return Err(StreamDecodeError::StrayText);
        }
        match self.nodes.last_mut() {
            Some(Node::Text(last)) if self.in_text => last.push_str(&text),
            _ => self.nodes.push(Node::Text(text)),
        }
        self.in_text = true;
        Ok(())
    }

    fn close(&mut self) -> Step {
        self.in_text = false;
        self.scopes.pop();
        let Some(at) = self.open.pop() else {
            self.place = Place::Ended;
            return Step::Event(StreamEvent::Footer);
        };
        let span = self.nodes.len() - at;
        if let Some(Node::Start(start)) = self.nodes.get_mut(at) {
            start.span = span;
        }
        if !self.open.is_empty() {
            return Step::Goes;
        }
        self.place = Place::Between;
        self.elements = 0;
        let mut element = Element::from_nodes(std::mem::take(&mut self.nodes));
        if let (Some(lang), true, None) = (&self.lang, element.ns().is_content(), element.root().lang()) {
            element.set_attribute(Ns::XML, crate::name!("lang"), lang.to_string());
        }
        Step::Event(StreamEvent::Element(element))
    }

    /// Sorts what the parser refuses.
    fn judge(&self, error: rxml::Error) -> StreamDecodeError {
        match error {
            rxml::Error::RestrictedXml(what) if what.starts_with("long name") => {
                StreamDecodeError::TokenTooLong { limit: self.limits.token_bytes }
            }
            rxml::Error::RestrictedXml(what) if what.contains("utf-8") => StreamDecodeError::Encoding,
            // `<!` that begins neither a comment nor a CDATA section begins a declaration
            rxml::Error::InvalidSyntax(what) if what.ends_with("section start") => StreamDecodeError::Restricted,
            rxml::Error::RestrictedXml(_) | rxml::Error::UndeclaredEntity => StreamDecodeError::Restricted,
            rxml::Error::UndeclaredNamespacePrefix(_) => StreamDecodeError::UndeclaredPrefix,
            other => StreamDecodeError::NotWellFormed(other),
        }
    }
}

/// What one parser event led to.
enum Step {
    /// Nothing to tell yet.
    Goes,
    /// Nothing to tell until more input comes.
    Starved,
    /// Something to tell.
    Event(StreamEvent),
}

/// Drops leading blanks and says how many there were.
fn skip_blanks(input: &mut &[u8]) -> usize {
    let rest = input.trim_ascii_start();
    let blanks = input.len() - rest.len();
    *input = rest;
    blanks
}

/// Reads one element that stands alone, as another pod wrote it with [`StreamEncoder`](super::StreamEncoder):
/// what has no namespace declaration is content.
///
/// # Errors
///
/// [`StreamDecodeError`], also when the element is cut short or something follows it.
pub fn read_element(bytes: &[u8], limits: &Limits) -> Result<Element, StreamDecodeError> {
    const HEADER: &[u8] = b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
    let limits = Limits { header_bytes: HEADER.len(), ..*limits };
    let mut decoder = StreamDecoder::new(StreamKind::Client, LimitSet { before: limits, after: limits });
    let mut header = HEADER;
    decoder.decode(&mut header)?;
    let mut rest = bytes.trim_ascii();
    match decoder.decode(&mut rest)? {
        Some(StreamEvent::Element(element)) if rest.is_empty() => Ok(element),
        _ => Err(StreamDecodeError::NotWellFormed(rxml::Error::InvalidEof(None))),
    }
}
