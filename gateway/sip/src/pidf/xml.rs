//! Bounded XML of SIP bodies: a small tree, with every dimension capped.
//!
//! Presence documents, composing notices and their Microsoft relatives are a few kilobytes of XML from a
//! peer. They are read whole into [`Element`]s, because their readers look at parts in any order. What XML
//! allows and these formats never use is refused before anything is expanded: document type declarations,
//! entities, processing instructions (interworking specification §1.5).

use rxml::error::EndOrError;
use rxml::parser::CommentMode;
use rxml::{Event, Namespace, Options, Parse as _, Parser, WithOptions as _};

/// Bounds of one XML body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XmlLimits {
    /// Bytes of the document. Default 64 KiB.
    pub bytes: usize,
    /// Elements inside one another. Default 32.
    pub depth: usize,
    /// Elements and attributes together. Default 4096: a document of 64 KiB that says something has far fewer.
    pub nodes: usize,
}

impl Default for XmlLimits {
    fn default() -> Self {
        Self { bytes: 64 * 1024, depth: 32, nodes: 4096 }
    }
}

/// Why a body is no XML document that is read here.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum XmlError {
    /// Longer than [`XmlLimits::bytes`].
    #[error("document exceeds {limit} bytes")]
    TooLarge {
        /// The limit in force.
        limit: usize,
    },
    /// Deeper than [`XmlLimits::depth`].
    #[error("document is nested deeper than {limit} elements")]
    TooDeep {
        /// The limit in force.
        limit: usize,
    },
    /// More elements and attributes than [`XmlLimits::nodes`].
    #[error("document has more than {limit} elements and attributes")]
    TooManyNodes {
        /// The limit in force.
        limit: usize,
    },
    /// The text is not UTF-8, whatever its declaration says.
    #[error("document is not UTF-8")]
    NotUtf8,
    /// A document type declaration.
    #[error("document has a document type declaration")]
    Dtd,
    /// A reference to an entity other than the five of XML.
    #[error("document refers to an entity")]
    Entity,
    /// Not well-formed, or with a construct that is refused (processing instruction).
    #[error("document is not well-formed")]
    Malformed(#[source] rxml::Error),
    /// The document ends early, or holds nothing.
    #[error("document is incomplete")]
    Incomplete,
}

/// An attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Attribute {
    namespace: Namespace<'static>,
    name: String,
    value: String,
}

/// An element with its attributes, text and child elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    namespace: Namespace<'static>,
    name: String,
    lang: Option<String>,
    attributes: Vec<Attribute>,
    text: String,
    children: Vec<Self>,
}

impl Element {
    /// Reads a whole document. An encoding declaration is ignored: Microsoft servers declare `utf-16` on
    /// what is UTF-8.
    ///
    /// # Errors
    ///
    /// [`XmlError`]; nothing is kept of a document that is refused.
    pub fn parse(body: &[u8], limits: &XmlLimits) -> Result<Self, XmlError> {
        if body.len() > limits.bytes {
            return Err(XmlError::TooLarge { limit: limits.bytes });
        }
        let text = std::str::from_utf8(body).map_err(|_| XmlError::NotUtf8)?;
        let text = prologue(text)?;
        Builder::new(limits).run(text.as_bytes())
    }

    /// The namespace name, empty when there is none.
    pub fn namespace(&self) -> &str {
        self.namespace.as_str()
    }

    /// The local name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// True if this is the element `name` of `namespace`.
    pub fn is(&self, namespace: &str, name: &str) -> bool {
        self.name == name && self.namespace() == namespace
    }

    /// The `xml:lang` in force here, declared on the element or above it.
    pub fn lang(&self) -> Option<&str> {
        self.lang.as_deref()
    }

    /// The attribute `name` that has no namespace.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|a| a.name == name && a.namespace.as_str().is_empty()).map(|a| a.value.as_str())
    }

    /// The character data directly inside, in one piece.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The child elements in order.
    pub fn children(&self) -> impl Iterator<Item = &Self> {
        self.children.iter()
    }

    /// The first child element `name` of `namespace`.
    pub fn child(&self, namespace: &str, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.is(namespace, name))
    }
}

/// Skips the byte order mark, blanks and the XML declaration; refuses a document type declaration.
///
/// The declaration is not shown to the parser, which would refuse a wrong encoding in it.
fn prologue(text: &str) -> Result<&str, XmlError> {
    let mut text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_ascii_start();
    if let Some(rest) = text.strip_prefix("<?xml").filter(|rest| rest.starts_with(|c: char| c.is_ascii_whitespace())) {
        let (_, rest) = rest.split_once("?>").ok_or(XmlError::Incomplete)?;
        text = rest.trim_ascii_start();
    }
    let mut rest = text;
    while let Some(comment) = rest.strip_prefix("<!--") {
        rest = comment.split_once("-->").ok_or(XmlError::Incomplete)?.1.trim_ascii_start();
    }
    if rest.starts_with("<!") {
        return Err(XmlError::Dtd);
    }
    if rest.is_empty() {
        return Err(XmlError::Incomplete);
    }
    Ok(rest)
}

/// Builds the tree from parser events.
struct Builder<'a> {
    limits: &'a XmlLimits,
    nodes: usize,
    open: Vec<Element>,
    root: Option<Element>,
}

impl<'a> Builder<'a> {
    fn new(limits: &'a XmlLimits) -> Self {
        Self { limits, nodes: 0, open: Vec::new(), root: None }
    }

    fn run(mut self, mut input: &[u8]) -> Result<Element, XmlError> {
        let options = Options { comments: CommentMode::Discard, ..Options::default() };
        let mut parser = Parser::with_options(options);
        loop {
            match parser.parse(&mut input, true) {
                Ok(Some(event)) => self.take(event)?,
                Ok(None) | Err(EndOrError::NeedMoreData) => break,
                Err(EndOrError::Error(rxml::Error::UndeclaredEntity)) => return Err(XmlError::Entity),
                Err(EndOrError::Error(rxml::Error::InvalidEof(_))) => return Err(XmlError::Incomplete),
                Err(EndOrError::Error(error)) => return Err(XmlError::Malformed(error)),
            }
        }
        self.root.ok_or(XmlError::Incomplete)
    }

    fn take(&mut self, event: Event) -> Result<(), XmlError> {
        match event {
            Event::XmlDeclaration(..) => {}
            Event::StartElement(_, (namespace, name), attributes) => {
                if self.open.len() >= self.limits.depth {
                    return Err(XmlError::TooDeep { limit: self.limits.depth });
                }
                self.nodes += 1 + attributes.len();
                if self.nodes > self.limits.nodes {
                    return Err(XmlError::TooManyNodes { limit: self.limits.nodes });
                }
                let inherited = self.open.last().and_then(|parent| parent.lang.clone());
                let mut element = Element {
                    namespace,
                    name: name.as_str().to_owned(),
                    lang: inherited,
                    attributes: Vec::with_capacity(attributes.len()),
                    text: String::new(),
                    children: Vec::new(),
                };
                for ((namespace, name), value) in attributes {
                    if namespace == Namespace::XML && name == "lang" {
                        element.lang = language(&value);
                    } else {
                        element.attributes.push(Attribute { namespace, name: name.as_str().to_owned(), value });
                    }
                }
                self.open.push(element);
            }
            Event::Text(_, text) => {
                if let Some(element) = self.open.last_mut() {
                    element.text.push_str(&text);
                }
            }
            Event::EndElement(_) => {
                let Some(element) = self.open.pop() else { return Ok(()) };
                match self.open.last_mut() {
                    Some(parent) => parent.children.push(element),
                    None => self.root = Some(element),
                }
            }
        }
        Ok(())
    }
}

/// Takes a language tag; what is none, and the empty one, mean that no language is known.
pub fn language(tag: &str) -> Option<String> {
    let tag = tag.trim_ascii();
    let sound = !tag.is_empty()
        && tag.len() <= 35
        && tag
            .split('-')
            .all(|part| !part.is_empty() && part.len() <= 8 && part.bytes().all(|b| b.is_ascii_alphanumeric()));
    sound.then(|| tag.to_owned())
}

/// Appends character data: what XML cannot hold is left out, what has a meaning is escaped.
pub fn push_text(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            // Readers turn a bare CR into LF (XML §2.11).
            '\r' => out.push_str("&#13;"),
            _ if !is_xml_char(c) => {}
            _ => out.push(c),
        }
    }
}

/// Appends an attribute value, for double quotes.
pub fn push_attribute(out: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '"' => out.push_str("&quot;"),
            // Readers turn bare blanks other than the space into spaces (XML §3.3.3).
            '\t' => out.push_str("&#9;"),
            '\n' => out.push_str("&#10;"),
            '\r' => out.push_str("&#13;"),
            _ if !is_xml_char(c) => {}
            _ => out.push(c),
        }
    }
}

/// True for what may stand in an XML 1.0 document (XML §2.2).
pub fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}
