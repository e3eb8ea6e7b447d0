//! Offers and answers of message sessions.
//!
//! The media line is `m=message <port> sip null` in an offer and `m=message <port> sip <uri>` in an answer, with the
//! media name that was offered (`x-ms-message` for peers of the 2005 generation).

use std::fmt::Write as _;
use std::net::IpAddr;

use super::{Media, Refusal, Session};
use crate::uri::Uri;
use crate::write::WriteError;

/// What `o=` and `c=` say. None of it routes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Identifies the session; random.
    pub session_id: u64,
    /// Grows with each description of the same session.
    pub version: u64,
    /// Our address.
    pub address: IpAddr,
    /// Our port.
    pub port: u16,
}

/// A description of our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description<'a> {
    /// Who offers or answers.
    pub origin: Origin,
    /// The types that may be sent to us, `type/subtype` each.
    pub accept_types: &'a [&'a str],
}

impl Description<'_> {
    /// Writes an offer.
    ///
    /// # Errors
    ///
    /// [`WriteError::Value`] when an accepted type is no word.
    pub fn offer(&self) -> Result<String, WriteError> {
        let mut out = self.head();
        self.message_line(&mut out, "message", "null")?;
        Ok(out)
    }

    /// Writes the answer to `offer`: the first usable message line is taken with its own name, every other line is
    /// answered with port 0. `uri` is our address for the session.
    ///
    /// # Errors
    ///
    /// [`AnswerError`]: the offer is refused, or a value of ours cannot be written.
    pub fn answer(&self, offer: &Session<'_>, uri: &str) -> Result<String, AnswerError> {
        let (chosen, _) = offer.message_media()?;
        if Uri::parse(uri).is_err() {
            return Err(WriteError::Uri.into());
        }
        let mut out = self.head();
        for (at, media) in offer.media.iter().enumerate() {
            if at == chosen {
                self.message_line(&mut out, media.name, uri)?;
            } else {
                refused_line(&mut out, media);
            }
        }
        Ok(out)
    }

    fn head(&self) -> String {
        let Origin { session_id, version, address, .. } = self.origin;
        let family = if address.is_ipv4() { "IP4" } else { "IP6" };
        let mut out = String::with_capacity(256);
        // writing to a String does not fail
        let _ = write!(
            out,
            "v=0\r\no=- {session_id} {version} IN {family} {address}\r\ns=im\r\nc=IN {family} {address}\r\nt=0 0\r\n"
        );
        out
    }

    fn message_line(&self, out: &mut String, name: &str, format: &str) -> Result<(), WriteError> {
        let _ = write!(out, "m={name} {} sip {format}\r\na=accept-types:", self.origin.port);
        for (at, accepted) in self.accept_types.iter().enumerate() {
            if !crate::wire::all(accepted, crate::wire::VISIBLE) {
                return Err(WriteError::Value("accept-types"));
            }
            if at > 0 {
                out.push(' ');
            }
            out.push_str(accepted);
        }
        out.push_str("\r\n");
        Ok(())
    }
}

/// Refuses one stream: the same line with port 0 (RFC 3264 §6).
fn refused_line(out: &mut String, media: &Media<'_>) {
    let _ = write!(out, "m={} 0 {} {}\r\n", media.name, media.proto, media.formats);
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The offer is refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A value of ours cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}
