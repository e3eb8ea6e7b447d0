//! Elements to bytes.

use bytes::{BufMut as _, Bytes, BytesMut};
use smallvec::SmallVec;

use super::{Header, StreamKind};
use crate::element::{Attribute, Element, Node, Start};
use crate::ns::{self, Ns};
use crate::stream::StreamError;
use crate::xml;

/// Why something cannot be written. Nothing of it has been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A character that XML cannot carry, in an identifier or in an element that is passed on.
    #[error("value has a character that XML cannot carry")]
    IllegalCharacter,
    /// An attribute is in a namespace for which a prefix would have to be invented more often than allowed.
    #[error("element has more than {limit} namespaced attributes")]
    TooManyPrefixes {
        /// The most that are written.
        limit: usize,
    },
}

/// Attributes with a namespace of their own on one element.
const PREFIXES: usize = 26;

/// A writer of one stream. It writes into a buffer that the caller drains.
///
/// Every function leaves either a complete piece in the buffer or nothing.
#[derive(Debug)]
pub struct StreamEncoder {
    kind: StreamKind,
    pub(crate) out: BytesMut,
}

impl StreamEncoder {
    /// Makes a writer with an empty buffer.
    pub fn new(kind: StreamKind) -> Self {
        Self { kind, out: BytesMut::new() }
    }

    /// The kind of the stream.
    pub fn kind(&self) -> StreamKind {
        self.kind
    }

    /// Bytes in the buffer.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// True if there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Takes everything that was written.
    pub fn take(&mut self) -> Bytes {
        self.out.split().freeze()
    }

    /// Writes an XML declaration and a stream header.
    ///
    /// # Errors
    ///
    /// [`EncodeError::IllegalCharacter`].
    pub fn header(&mut self, header: &Header) -> Result<(), EncodeError> {
        let Header { from, to, id, version, lang, dialback } = header;
        self.whole(|this| {
            this.raw("<?xml version='1.0'?><stream:stream xmlns=\"");
            this.raw(this.kind.namespace());
            this.raw("\" xmlns:stream=\"");
            this.raw(ns::STREAMS);
            this.raw("\"");
            if *dialback {
                this.raw(" xmlns:db=\"");
                this.raw(ns::DIALBACK);
                this.raw("\"");
            }
            for (name, value) in [("from", from), ("to", to), ("id", id), ("version", version), ("xml:lang", lang)] {
                this.optional_attribute(name, value.as_deref())?;
            }
            this.raw(">");
            Ok(())
        })
    }

    /// Writes an element as a first-level element of the stream.
    ///
    /// # Errors
    ///
    /// [`EncodeError`].
    pub fn element(&mut self, element: &Element) -> Result<(), EncodeError> {
        self.whole(|this| this.nodes(element.nodes()))
    }

    /// Writes a space, which keeps a connection alive.
    pub fn whitespace(&mut self) {
        self.raw(" ");
    }

    /// Writes a stream error; its text loses what XML cannot carry.
    pub fn stream_error(&mut self, error: &StreamError) {
        self.raw("<stream:error><");
        self.raw(error.condition.as_str());
        self.raw(" xmlns=\"");
        self.raw(ns::STREAM_ERRORS);
        self.raw("\"/>");
        if let Some(text) = &error.text {
            self.raw("<text xmlns=\"");
            self.raw(ns::STREAM_ERRORS);
            self.raw("\">");
            self.text(text);
            self.raw("</text>");
        }
        self.raw("</stream:error>");
    }

    /// Writes the end of the stream.
    pub fn footer(&mut self) {
        self.raw("</stream:stream>");
    }

    /// Runs `write` and takes back what it wrote when it fails.
    pub(crate) fn whole(
        &mut self,
        write: impl FnOnce(&mut Self) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let before = self.out.len();
        write(self).inspect_err(|_| self.out.truncate(before))
    }

    /// Writes markup that is known when this is compiled, or text known to need no escaping.
    pub(crate) fn raw(&mut self, markup: &str) {
        self.out.put_slice(markup.as_bytes());
    }

    /// Writes an attribute whose value is refused when XML cannot carry it.
    pub(crate) fn attribute(&mut self, name: &str, value: &str) -> Result<(), EncodeError> {
        if !xml::is_legal_text(value) {
            return Err(EncodeError::IllegalCharacter);
        }
        self.raw(" ");
        self.raw(name);
        self.raw("=\"");
        xml::escape_attribute(&mut self.out, value);
        self.raw("\"");
        Ok(())
    }

    /// As [`Self::attribute`]; nothing for `None`.
    pub(crate) fn optional_attribute(&mut self, name: &str, value: Option<&str>) -> Result<(), EncodeError> {
        value.map_or(Ok(()), |value| self.attribute(name, value))
    }

    /// Writes human-readable text; what XML cannot carry is left out.
    pub(crate) fn text(&mut self, text: &str) {
        xml::escape_text(&mut self.out, &xml::drop_illegal(text));
    }

    /// Writes a list of nodes that is one element, or several, in the stream's default namespace.
    pub(crate) fn nodes(&mut self, nodes: &[Node]) -> Result<(), EncodeError> {
        let mut open: SmallVec<[Open<'_>; 8]> = SmallVec::new();
        for (at, node) in nodes.iter().enumerate() {
            self.close_ended(&mut open, at);
            match node {
                Node::Text(text) if xml::is_legal_text(text) => xml::escape_text(&mut self.out, text),
                Node::Text(_) => return Err(EncodeError::IllegalCharacter),
                Node::Start(start) => {
                    let around = open.last().map_or(&Ns::CONTENT, |outer| outer.default);
                    self.start(start, around)?;
                    if start.span > 1 {
                        self.raw(">");
                        // an element with a prefix declares no default, so what is inside inherits from outside
                        let default = if is_stream_element(start) { around } else { &start.ns };
                        open.push(Open { end: at + start.span, start, default });
                    } else {
                        self.raw("/>");
                    }
                }
            }
        }
        self.close_ended(&mut open, nodes.len());
        Ok(())
    }

    fn close_ended(&mut self, open: &mut SmallVec<[Open<'_>; 8]>, at: usize) {
        while let Some(Open { end, start, .. }) = open.last() {
            if *end > at {
                break;
            }
            self.raw("</");
            self.tag_name(start);
            self.raw(">");
            open.pop();
        }
    }

    /// Writes a start tag without its end.
    fn start(&mut self, start: &Start, around: &Ns) -> Result<(), EncodeError> {
        self.raw("<");
        self.tag_name(start);
        if !is_stream_element(start) && start.ns != *around {
            let name = if start.ns.is_content() { self.kind.namespace() } else { start.ns.as_str() };
            self.attribute("xmlns", name)?;
        }
        self.attributes(&start.attributes)
    }

    /// Writes attributes, inventing a prefix for each that has a namespace.
    pub(crate) fn attributes(&mut self, attributes: &[Attribute]) -> Result<(), EncodeError> {
        let mut prefix = b'a';
        for Attribute { ns, name, value } in attributes {
            if ns.is_none() {
                self.attribute(name, value)?;
            } else if ns.as_str() == ns::XML {
                self.raw(" xml:");
                self.attribute_after_prefix(name, value)?;
            } else {
                if prefix >= b'a' + u8::try_from(PREFIXES).unwrap_or(0) {
                    return Err(EncodeError::TooManyPrefixes { limit: PREFIXES });
                }
                let letter = [b'n', prefix];
                let letter = std::str::from_utf8(&letter).unwrap_or("n");
                self.raw(" xmlns:");
                let namespace = if ns.is_content() { self.kind.namespace() } else { ns.as_str() };
                self.attribute_after_prefix(letter, namespace)?;
                self.raw(" ");
                self.raw(letter);
                self.raw(":");
                self.attribute_after_prefix(name, value)?;
                prefix += 1;
            }
        }
        Ok(())
    }

    fn attribute_after_prefix(&mut self, name: &str, value: &str) -> Result<(), EncodeError> {
        if !xml::is_legal_text(value) {
            return Err(EncodeError::IllegalCharacter);
        }
        self.raw(name);
        self.raw("=\"");
        xml::escape_attribute(&mut self.out, value);
        self.raw("\"");
        Ok(())
    }

    fn tag_name(&mut self, start: &Start) {
        if is_stream_element(start) {
            self.raw("stream:");
        }
        self.raw(&start.name);
    }
}

/// Elements of the stream itself are written with the prefix of the header, as every peer expects.
fn is_stream_element(start: &Start) -> bool {
    start.ns.as_str() == ns::STREAMS
}

/// An element whose end tag is still to be written.
struct Open<'a> {
    /// The entry before which it ends.
    end: usize,
    start: &'a Start,
    /// The default namespace inside it.
    default: &'a Ns,
}
