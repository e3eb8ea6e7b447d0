//! URIs that own their text.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use super::{Host, Uri, UriError, percent_encode_user};
use crate::wire;

/// A URI that owns its text; it was read or built so that [`SipUri::as_uri`] always succeeds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SipUri {
    text: String,
}

impl SipUri {
    /// Reads a URI.
    ///
    /// # Errors
    ///
    /// As [`Uri::parse`].
    pub fn parse(text: &str) -> Result<Self, UriError> {
        Uri::parse(text).map(|uri| Self::of(&uri))
    }

    pub(super) fn of(uri: &Uri<'_>) -> Self {
        Self { text: uri.as_str().to_owned() }
    }

    /// Builds `sip:user@host` from a decoded user; without one, `sip:host`.
    ///
    /// # Errors
    ///
    /// [`UriError::User`] for an empty user, [`UriError::Host`] for a host that is none; IPv6 addresses
    /// come in brackets.
    pub fn new(user: Option<&str>, host: &str) -> Result<Self, UriError> {
        let host = Host::parse(host)?;
        let mut text = String::from("sip:");
        if let Some(user) = user {
            if user.is_empty() {
                return Err(UriError::User);
            }
            text.push_str(&percent_encode_user(user));
            text.push('@');
        }
        // writing to a String does not fail
        let _ = write!(text, "{host}");
        Ok(Self { text })
    }

    /// The same URI with a port, which replaces another; a URI without a host stays as it is.
    #[must_use]
    pub fn with_port(self, port: u16) -> Self {
        if self.as_uri().host().is_none() {
            return self;
        }
        let (head, rest) = wire::split(&self.text, host_end(&self.text));
        let tail = match rest.strip_prefix(':') {
            Some(rest) => rest.trim_start_matches(|c: char| c.is_ascii_digit()),
            None => rest,
        };
        Self { text: format!("{head}:{port}{tail}") }
    }

    /// The same URI with one more parameter. `value` is taken as it is to be written.
    ///
    /// # Errors
    ///
    /// [`UriError::Param`] when name or value hold characters that must be escaped first; [`UriError::Scheme`] for a URI
    /// that is not taken apart.
    pub fn with_param(self, name: &str, value: Option<&str>) -> Result<Self, UriError> {
        if self.as_uri().host().is_none() {
            return Err(UriError::Scheme);
        }
        let sound = |part: &str| !part.is_empty() && !part.contains(['?', ';', '=', '@', ',']);
        if !sound(name) || !value.is_none_or(|v| !v.is_empty() && !v.contains(['?', ';', '@', ','])) {
            return Err(UriError::Param);
        }
        let (head, headers) = match self.text.find('?').filter(|&at| at >= host_end(&self.text)) {
            Some(at) => self.text.split_at(at),
            None => (self.text.as_str(), ""),
        };
        let param: Cow<'_, str> = match value {
            Some(value) => Cow::Owned(format!("{name}={value}")),
            None => Cow::Borrowed(name),
        };
        let text = format!("{head};{param}{headers}");
        Uri::parse(&text).map_err(|_| UriError::Param)?;
        Ok(Self { text })
    }

    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The parts.
    pub fn as_uri(&self) -> Uri<'_> {
        // the text was checked when this was made, so the other arm is never taken
        Uri::parse(&self.text).unwrap_or_else(|_| Uri::opaque(&self.text))
    }
}

/// Where the host of a checked `sip:` URI ends.
fn host_end(text: &str) -> usize {
    let start = text.find('@').or_else(|| text.find(':')).map_or(0, |at| at + 1);
    let rest = text.get(start..).unwrap_or("");
    let length = if rest.starts_with('[') {
        rest.find(']').map_or(rest.len(), |at| at + 1)
    } else {
        rest.find([':', ';', '?']).unwrap_or(rest.len())
    };
    start + length
}

impl fmt::Display for SipUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl AsRef<str> for SipUri {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl std::str::FromStr for SipUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        Self::parse(text)
    }
}
