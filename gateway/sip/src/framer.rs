//! Cuts a byte stream into messages (RFC 3261 §18.3, RFC 5626 §5.4).
//!
//! One mutation, then drain: after each [`Framer::push`], call [`Framer::poll`] until it gives nothing. The
//! buffer holds at most one message of the largest size and what was pushed behind it.

use bytes::{Buf, BytesMut};

use crate::limits::Limits;
use crate::message::{Length, Lines, Message, ParseError, ParseErrorKind};

/// How much may be pushed beyond one message before the framer is drained: a pipelining peer's next messages
/// arrive in the same read.
const SLACK: usize = 64 * 1024;

/// The answer to [`Frame::Ping`].
pub const PONG: &[u8] = b"\r\n";

/// What came out of the stream.
#[derive(Debug, Clone)]
pub enum Frame {
    /// A double line break: a keep-alive that is to be answered with one line break at once (RFC 5626 §5.4).
    Ping,
    /// A single line break while an answer to our own ping was due.
    Pong,
    /// A message.
    Message(Box<Message>),
    /// A message whose end was found but that cannot be read. The stream goes on.
    Malformed(ParseError),
}

/// Why the stream cannot go on. Each is final: the connection is to be closed, after an answer where there is
/// a partial request.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FramerError {
    /// The header block cannot be taken apart or is too large.
    #[error(transparent)]
    Header(ParseError),
    /// No Content-Length, so nobody knows where the message ends.
    #[error("message without Content-Length on a stream")]
    LengthMissing(ParseError),
    /// Content-Length is no number, or there are two.
    #[error("bad Content-Length on a stream")]
    LengthBad(ParseError),
    /// The body exceeds its limit.
    #[error("body of {length} bytes exceeds {limit}")]
    BodyTooLarge {
        /// What Content-Length says.
        length: usize,
        /// The configured limit.
        limit: usize,
        /// What an answer needs.
        error: ParseError,
    },
    /// More was pushed than the framer holds; the caller did not drain it.
    #[error("framer buffer exceeds {limit} bytes")]
    Overflow {
        /// What it holds at most.
        limit: usize,
    },
    /// An earlier error ended the stream.
    #[error("stream has failed before")]
    Failed,
}

impl FramerError {
    /// The parse error with what is needed for a last answer.
    pub fn parse_error(&self) -> Option<&ParseError> {
        match self {
            Self::Header(error)
            | Self::LengthMissing(error)
            | Self::LengthBad(error)
            | Self::BodyTooLarge { error, .. } => Some(error),
            Self::Overflow { .. } | Self::Failed => None,
        }
    }
}

/// Cuts a stream into messages.
#[derive(Debug)]
pub struct Framer {
    buffer: BytesMut,
    limits: Limits,
    /// Bytes that were searched for the end of the header block already.
    searched: usize,
    /// Lines of a message whose body is not complete, and the length of both.
    waiting: Option<(Lines, usize)>,
    pong_due: bool,
    failed: bool,
}

impl Framer {
    /// An empty framer.
    pub fn new(limits: Limits) -> Self {
        Self { buffer: BytesMut::new(), limits, searched: 0, waiting: None, pong_due: false, failed: false }
    }

    /// Takes bytes from the stream.
    ///
    /// # Errors
    ///
    /// [`FramerError::Overflow`] when more than 64 KiB lie behind the largest message, which cannot happen to
    /// a caller that drains after each read of at most 64 KiB.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), FramerError> {
        let limit = self.limits.header_block.saturating_add(self.limits.body).saturating_add(SLACK);
        if self.failed || self.buffer.len().saturating_add(bytes.len()) > limit {
            self.fail();
            return Err(FramerError::Overflow { limit });
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Says that we sent a ping, so that the next line break is its answer.
    pub fn ping_sent(&mut self) {
        self.pong_due = true;
    }

    /// Bytes that wait for the rest of a message. Line breaks between messages begin none.
    pub fn buffered(&self) -> usize {
        if b"\r\n\r".starts_with(&self.buffer) { 0 } else { self.buffer.len() }
    }

    /// Gives the next frame, or `None` when more bytes are needed.
    ///
    /// # Errors
    ///
    /// [`FramerError`] when the stream cannot go on; every later call gives [`FramerError::Failed`].
    pub fn poll(&mut self) -> Result<Option<Frame>, FramerError> {
        if self.failed {
            return Err(FramerError::Failed);
        }
        if self.waiting.is_none() {
            if let Some(frame) = self.line_breaks() {
                return Ok(Some(frame));
            }
            match self.head() {
                Ok(Some(waiting)) => self.waiting = Some(waiting),
                Ok(None) => return Ok(None),
                Err(error) => {
                    self.fail();
                    return Err(error);
                }
            }
        }
        match self.waiting.take() {
            Some((lines, length)) if self.buffer.len() >= length => {
                self.searched = 0;
                let bytes = self.buffer.split_to(length).freeze();
                Ok(Some(match Message::from_lines(bytes, lines, &self.limits) {
                    Ok(message) => Frame::Message(Box::new(message)),
                    Err(error) => Frame::Malformed(error),
                }))
            }
            waiting => {
                self.waiting = waiting;
                Ok(None)
            }
        }
    }

    fn fail(&mut self) {
        self.failed = true;
        self.waiting = None;
        self.buffer = BytesMut::new();
    }

    /// Takes line breaks between messages. A single one at the end of the buffer stays, since it may be half of a ping.
    fn line_breaks(&mut self) -> Option<Frame> {
        loop {
            if self.buffer.starts_with(b"\r\n\r\n") {
                self.buffer.advance(4);
                return Some(Frame::Ping);
            }
            if !self.buffer.starts_with(b"\r\n") {
                return None;
            }
            let open = matches!(self.buffer.get(2..), Some(b"" | b"\r"));
            if self.pong_due && self.buffer.len() == 2 || !open {
                self.buffer.advance(2);
                if std::mem::take(&mut self.pong_due) {
                    return Some(Frame::Pong);
                }
                continue;
            }
            return None;
        }
    }

    /// Finds the end of the header block, its lines and the length of the whole message.
    fn head(&mut self) -> Result<Option<(Lines, usize)>, FramerError> {
        if self.buffer.starts_with(b"\r\n") || *self.buffer == b"\r"[..] {
            return Ok(None);
        }
        let from = self.searched.saturating_sub(3);
        let unseen = self.buffer.get(from..).unwrap_or_default();
        let end = memchr::memmem::find(unseen, b"\r\n\r\n").map(|at| from + at + 4);
        self.searched = self.buffer.len();
        let limit = self.limits.header_block;
        if end.is_none_or(|end| end > limit) {
            if self.buffer.len() > limit {
                return Err(FramerError::Header(self.error(ParseErrorKind::HeaderBlockTooLarge)));
            }
            return Ok(None);
        }
        let lines = match Lines::split(&self.buffer, &self.limits) {
            Ok(lines) => lines,
            Err(kind) => return Err(FramerError::Header(self.error(kind))),
        };
        let missing = ParseErrorKind::Missing(crate::header::HeaderName::ContentLength);
        let bad = ParseErrorKind::Bad(crate::header::HeaderName::ContentLength);
        match lines.content_length(&self.buffer) {
            Length::Missing => Err(FramerError::LengthMissing(self.error(missing))),
            Length::Bad => Err(FramerError::LengthBad(self.error(bad))),
            Length::Is(length) if length > self.limits.body => {
                let error = self.error(ParseErrorKind::BodyTooLarge);
                Err(FramerError::BodyTooLarge { length, limit: self.limits.body, error })
            }
            Length::Is(length) => {
                let whole = lines.end + length;
                Ok(Some((lines, whole)))
            }
        }
    }

    fn error(&self, kind: ParseErrorKind) -> ParseError {
        ParseError::new(kind, &self.buffer, &self.limits)
    }
}
