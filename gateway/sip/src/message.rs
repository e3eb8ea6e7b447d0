//! A received message: the bytes it came in and where things are in them.
//!
//! [`Message::parse`] checks the start line, the form of every header line, the limits, and reads the headers
//! without which no message can be answered or matched: Via, From, To, Call-ID, CSeq. What it accepts has no
//! CR or LF in any value, because folded lines are unfolded (RFC 3261 §7.3.1). All other headers are
//! read when asked for, so that a broken Warning does not cost a NOTIFY.

mod access;
mod parse;
mod partial;

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use smallvec::SmallVec;

use crate::header::HeaderName;
use crate::status::StatusCode;

pub(crate) use parse::{Length, Lines};
pub use partial::Partial;

/// A range of the message's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Positions above 4 GiB cannot occur, since the limits are far below; they would give an empty span.
    pub(crate) fn new(start: usize, end: usize) -> Self {
        match (u32::try_from(start), u32::try_from(end)) {
            (Ok(start), Ok(end)) => Self { start, end },
            _ => Self::default(),
        }
    }

    /// Where `part` is inside of `whole`, of which it must be a slice.
    pub(crate) fn of(whole: &[u8], part: &str) -> Self {
        let start = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
        Self::new(start, start.saturating_add(part.len()))
    }

    /// The text of this range, cut out of the text of a range around it: cheaper than a look at the bytes again.
    pub(crate) fn within(self, around: Self, text: &str) -> &str {
        let (start, end) = (self.start.wrapping_sub(around.start), self.end.wrapping_sub(around.start));
        text.get(start as usize..end as usize).unwrap_or_default()
    }

    pub(crate) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// One header line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) header: HeaderName,
    pub(crate) name: Span,
    pub(crate) value: Span,
}

/// Header lines while they are found.
pub(crate) type Entries = SmallVec<[Entry; 20]>;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Start {
    Request { method: Span, uri: Span },
    Response { status: StatusCode, reason: Span },
}

/// Where the parts of the top Via are.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ViaSpans {
    /// The whole value.
    value: Span,
    transport: Span,
    sent_by: Span,
    host: Span,
    port: Option<u16>,
    params: Span,
}

/// Where the parts of From or To are.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AddrSpans {
    /// The whole value.
    value: Span,
    display: Span,
    uri: Span,
    params: Span,
    tag: Span,
}

/// An immutable SIP message over one buffer. Clones share the buffer.
#[derive(Debug, Clone)]
pub struct Message {
    bytes: Bytes,
    /// Start line and headers, in the same buffer.
    head: ByteString,
    start: Start,
    /// Shared, since messages are moved and cloned more often than read.
    entries: Arc<[Entry]>,
    top_via: ViaSpans,
    from: AddrSpans,
    to: AddrSpans,
    call_id: Span,
    cseq: (u32, Span),
    body: Span,
    source: Option<SocketAddr>,
}

/// Why a message was refused, and what of it can still be answered.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{kind}")]
pub struct ParseError {
    /// What is wrong.
    pub kind: ParseErrorKind,
    /// What an answer needs, when the message is a request and all of that could be read. Boxed, since the
    /// good path should not carry its size.
    pub partial: Option<Box<Partial>>,
}

/// What is wrong with a message. The peer is at fault in every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseErrorKind {
    /// Nothing but line breaks: a keep-alive, no message.
    #[error("no message")]
    Empty,
    /// The empty line after the headers is missing.
    #[error("header block is not complete")]
    Truncated,
    /// The header block exceeds its limit.
    #[error("header block too large")]
    HeaderBlockTooLarge,
    /// The body exceeds its limit.
    #[error("body too large")]
    BodyTooLarge,
    /// More header lines than the limit.
    #[error("too many header lines")]
    TooManyHeaders,
    /// The Request-URI exceeds its limit.
    #[error("Request-URI too long")]
    UriTooLong,
    /// A CR or LF alone, or a NUL that no backslash escapes.
    #[error("stray control character")]
    ControlCharacter,
    /// The header block is not UTF-8.
    #[error("header block is not UTF-8")]
    Utf8,
    /// The first line is neither a request line nor a status line.
    #[error("bad start line")]
    StartLine,
    /// The Request-URI cannot be read.
    #[error("bad Request-URI")]
    RequestUri,
    /// Another version than SIP/2.0.
    #[error("SIP version not supported")]
    Version,
    /// A line without a header name and colon.
    #[error("bad header line")]
    HeaderLine,
    /// A header that may be there once is there twice.
    #[error("duplicate {0}")]
    Duplicate(HeaderName),
    /// A header that must be there is not.
    #[error("missing {0}")]
    Missing(HeaderName),
    /// A header that must be readable is not.
    #[error("bad {0}")]
    Bad(HeaderName),
    /// The method of CSeq is not that of the request.
    #[error("CSeq method does not match")]
    MethodMismatch,
    /// Content-Length promises more than there is.
    #[error("body shorter than Content-Length")]
    BodyTruncated,
}

impl ParseError {
    /// The status to answer a request with; `None` when it cannot be answered.
    pub fn status(&self) -> Option<StatusCode> {
        self.partial.as_ref().map(|_| self.kind.status())
    }
}

impl ParseErrorKind {
    /// The status that says so to the sender of a request.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Version => StatusCode::VERSION_NOT_SUPPORTED,
            Self::HeaderBlockTooLarge | Self::BodyTooLarge | Self::TooManyHeaders => StatusCode::MESSAGE_TOO_LARGE,
            Self::UriTooLong => StatusCode::REQUEST_URI_TOO_LONG,
            Self::Empty
            | Self::Truncated
            | Self::ControlCharacter
            | Self::Utf8
            | Self::StartLine
            | Self::RequestUri
            | Self::HeaderLine
            | Self::Duplicate(_)
            | Self::Missing(_)
            | Self::Bad(_)
            | Self::MethodMismatch
            | Self::BodyTruncated => StatusCode::BAD_REQUEST,
        }
    }

    /// A short word for metrics and logs, of a bounded set.
    pub fn label(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Truncated => "truncated",
            Self::HeaderBlockTooLarge => "header-block-too-large",
            Self::BodyTooLarge => "body-too-large",
            Self::TooManyHeaders => "too-many-headers",
            Self::UriTooLong => "uri-too-long",
            Self::ControlCharacter => "control-character",
            Self::Utf8 => "utf8",
            Self::StartLine => "start-line",
            Self::RequestUri => "request-uri",
            Self::Version => "version",
            Self::HeaderLine => "header-line",
            Self::Duplicate(_) => "duplicate-header",
            Self::Missing(_) => "missing-header",
            Self::Bad(_) => "bad-header",
            Self::MethodMismatch => "method-mismatch",
            Self::BodyTruncated => "body-truncated",
        }
    }
}
