//! SDP of message sessions (RFC 8866; media line of MS-SIP and SIPE usage, see `write`).
//!
//! The reader keeps what decides about a session: the media lines, and which types the peer accepts. Ports and
//! addresses mean nothing here, since messages travel inside the dialog. A media line may have any protocol
//! and any format, `null` and `sip:user@host` too.

mod write;

pub use write::{AnswerError, Description, Origin};

use crate::header::MediaType;
use crate::status::StatusCode;

/// Bounds of a session description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SdpLimits {
    /// Lines. Default 256: an offer with many codecs has about 100.
    pub lines: usize,
    /// Media lines. Default 16.
    pub media: usize,
    /// Accepted types of one media line. Default 64.
    pub accept_types: usize,
}

impl Default for SdpLimits {
    fn default() -> Self {
        Self { lines: 256, media: 16, accept_types: 64 }
    }
}

/// Why a session description cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SdpError {
    /// Not UTF-8, or a NUL.
    #[error("session description is not text")]
    Text,
    /// The first line is not `v=0`.
    #[error("session description does not start with v=0")]
    Version,
    /// A line that is not a letter, `=` and a value.
    #[error("line {0} is no SDP line")]
    Line(usize),
    /// A media line without port, protocol or format, or with a bad port.
    #[error("line {0} is no media line")]
    Media(usize),
    /// More lines, media lines or accepted types than the limit.
    #[error("session description has too many {0}")]
    TooMany(&'static str),
}

/// A session description as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session<'a> {
    /// The value of `o=`, if there is one.
    pub origin: Option<&'a str>,
    /// The media lines in order.
    pub media: Vec<Media<'a>>,
}

/// One media line with its attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media<'a> {
    /// `message`, `x-ms-message`, `audio` and so on, as spelled.
    pub name: &'a str,
    /// The port; 0 refuses or ends the stream.
    pub port: u16,
    /// The protocol: `sip`, `TCP/MSRP`, `RTP/AVP` and so on, as spelled.
    pub proto: &'a str,
    /// The formats as written.
    pub formats: &'a str,
    /// The types of `a=accept-types` (RFC 4975 §8.6); `None` when the attribute is absent, which stands for text/plain only.
    pub accept_types: Option<Vec<&'a str>>,
}

/// Why an offer is refused (§5.3 of the interworking rules).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is MSRP, which is not spoken here.
    #[error("MSRP is not supported")]
    Msrp,
    /// No media line for messages inside of the dialog.
    #[error("no message media")]
    NoMessageMedia,
    /// The peer accepts none of the types that are sent.
    #[error("no accepted content type")]
    NoContentType,
}

impl Refusal {
    /// The status: 488 for all.
    pub fn status(self) -> StatusCode {
        StatusCode::NOT_ACCEPTABLE_HERE
    }

    /// The Warning code (RFC 3261 §20.43).
    pub fn warning(self) -> u16 {
        match self {
            Self::Msrp => 302,
            Self::NoMessageMedia => 304,
            Self::NoContentType => 305,
        }
    }
}

impl<'a> Session<'a> {
    /// Reads a description. Lines may end with LF alone.
    ///
    /// # Errors
    ///
    /// [`SdpError`] names the line, counted from 1.
    pub fn parse(body: &'a [u8], limits: &SdpLimits) -> Result<Self, SdpError> {
        let text = std::str::from_utf8(body).map_err(|_| SdpError::Text)?;
        if text.contains('\0') {
            return Err(SdpError::Text);
        }
        let mut session = Self { origin: None, media: Vec::new() };
        let mut first = true;
        for (index, line) in text.split('\n').enumerate() {
            let number = index + 1;
            if number > limits.lines {
                return Err(SdpError::TooMany("lines"));
            }
            let line = line.strip_suffix('\r').unwrap_or(line);
            if line.is_empty() {
                continue;
            }
            let (letter, value) = match line.split_once('=') {
                Some((letter, value)) if letter.len() == 1 && !value.contains('\r') => (letter, value),
                _ => return Err(SdpError::Line(number)),
            };
            if first && (letter, value.trim_ascii_end()) != ("v", "0") {
                return Err(SdpError::Version);
            }
            first = false;
            match letter {
                "o" => session.origin = Some(value),
                "m" if session.media.len() >= limits.media => return Err(SdpError::TooMany("media lines")),
                "m" => session.media.push(Media::parse(value).ok_or(SdpError::Media(number))?),
                "a" => {
                    if let (Some(media), Some(types)) = (session.media.last_mut(), value.strip_prefix("accept-types:"))
                    {
                        media.accept(types, limits)?;
                    }
                }
                _ => {}
            }
        }
        if first { Err(SdpError::Version) } else { Ok(session) }
    }

    /// The media line that carries messages, with its position.
    ///
    /// # Errors
    ///
    /// [`Refusal`] with the status and warning to answer with.
    pub fn message_media(&self) -> Result<(usize, &Media<'a>), Refusal> {
        let found = self.media.iter().enumerate().find(|(_, media)| media.is_message());
        let (at, media) = found.ok_or_else(|| {
            let msrp = self.media.iter().any(Media::is_msrp);
            if msrp { Refusal::Msrp } else { Refusal::NoMessageMedia }
        })?;
        if ["text/plain", "text/html", "multipart/alternative"].iter().any(|essence| media.accepts(essence)) {
            Ok((at, media))
        } else {
            Err(Refusal::NoContentType)
        }
    }
}

impl<'a> Media<'a> {
    fn parse(value: &'a str) -> Option<Self> {
        let mut words = value.splitn(4, ' ');
        let (name, port, proto) = (words.next()?, words.next()?, words.next()?);
        let formats = words.next()?.trim_ascii();
        // `port/number of ports` is for layered RTP streams
        let port = port.split_once('/').map_or(port, |(port, _)| port);
        let port = crate::wire::number(port)?;
        let word = |text: &str| crate::wire::all(text, crate::wire::VISIBLE);
        (word(name) && word(proto) && !formats.is_empty()).then_some(Self {
            name,
            port,
            proto,
            formats,
            accept_types: None,
        })
    }

    fn accept(&mut self, types: &'a str, limits: &SdpLimits) -> Result<(), SdpError> {
        let list = self.accept_types.get_or_insert_default();
        for word in types.split_ascii_whitespace() {
            if list.len() >= limits.accept_types {
                return Err(SdpError::TooMany("accepted types"));
            }
            list.push(word);
        }
        Ok(())
    }

    /// True for a line that carries messages inside of the dialog and is not refused by port 0.
    pub fn is_message(&self) -> bool {
        (self.name.eq_ignore_ascii_case("message") || self.name.eq_ignore_ascii_case("x-ms-message"))
            && self.proto.eq_ignore_ascii_case("sip")
            && self.port != 0
    }

    fn is_msrp(&self) -> bool {
        self.proto.to_ascii_uppercase().contains("MSRP")
    }

    /// True if the peer accepts `type/subtype`.
    pub fn accepts(&self, essence: &str) -> bool {
        match &self.accept_types {
            None => essence.eq_ignore_ascii_case("text/plain"),
            Some(types) => types
                .iter()
                .any(|range| *range == "*" || MediaType::parse(range).is_ok_and(|range| range.covers(essence))),
        }
    }
}
