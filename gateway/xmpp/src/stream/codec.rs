//! The codec of XML streams: bytes in pieces to bounded elements, and elements to bytes.
//!
//! It knows what is well-formed and how large anything may be. It does not know who may send what:
//! that is the machine's that drives it. The decoder holds at most one element and one token.

mod decode;
mod encode;
mod limits;
mod scope;

pub use decode::{StreamDecodeError, StreamDecoder, StreamEvent, read_element};
pub use encode::{EncodeError, StreamEncoder};
pub use limits::{LimitSet, Limits};

use compact_str::CompactString;

use crate::ns;

/// What a stream carries, which is named by its default namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamKind {
    /// An external component's stream, `jabber:component:accept` (XEP-0114).
    Component,
    /// A server-to-server stream, `jabber:server`.
    Server,
    /// A client's stream, `jabber:client`.
    Client,
}

impl StreamKind {
    /// The namespace of the stream's content.
    pub fn namespace(self) -> &'static str {
        match self {
            Self::Component => ns::COMPONENT,
            Self::Server => ns::SERVER,
            Self::Client => ns::CLIENT,
        }
    }
}

/// The attributes of a stream header. Absent ones are `None`; unknown ones are not kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// Who sends the header.
    pub from: Option<CompactString>,
    /// Whom it is for.
    pub to: Option<CompactString>,
    /// The stream's identifier. Servers send an empty one with `host-unknown`.
    pub id: Option<CompactString>,
    /// The version of XMPP; XEP-0114 knows none.
    pub version: Option<CompactString>,
    /// The language of everything that names none itself.
    pub lang: Option<CompactString>,
    /// Whether the namespace of server dialback is declared (XEP-0220 §2).
    pub dialback: bool,
}

#[cfg(test)]
mod tests;
