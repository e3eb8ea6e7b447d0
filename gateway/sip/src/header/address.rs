//! Addresses: From, To, Contact, Route, Record-Route and their kin (RFC 3261 §20.10).

use std::borrow::Cow;
use std::fmt;

use super::params::unquote;
use super::{HeaderError, Params};
use crate::uri::Uri;
use crate::wire;

/// An address with display name and parameters, borrowed from its text.
///
/// Without angle brackets what follows the URI after a semicolon belongs to the header, and the URI has
/// no comma, question mark or semicolon (RFC 3261 §20).
#[derive(Debug, Clone, Copy)]
pub struct NameAddr<'a> {
    pub(crate) display: &'a str,
    pub(crate) uri: &'a str,
    pub(crate) params: Params<'a>,
    /// The value of the first `tag`, empty when it has none. It is asked for more often than all others together.
    pub(crate) tag: Option<&'a str>,
}

impl<'a> NameAddr<'a> {
    /// Reads one value.
    ///
    /// # Errors
    ///
    /// [`HeaderError::Syntax`] for an open quote, a missing `>` or text where none may be, otherwise what is wrong with
    /// the URI or a parameter.
    pub fn parse(text: &'a str) -> Result<Self, HeaderError> {
        let text = wire::trim(text);
        if text.starts_with('"') {
            let end = wire::quoted(text).ok_or(HeaderError::Syntax)?;
            let (display, rest) = wire::split(text, end);
            return Self::bracketed(display, wire::trim_start(rest));
        }
        let word = wire::run(text, wire::DISPLAY);
        let (display, rest) = wire::split(text, word);
        if rest.starts_with('<') {
            return Self::bracketed(wire::trim(display), rest);
        }
        let end = text.find([';', ',', '?', ' ', '\t', '<', '>', '"']).unwrap_or(text.len());
        let (uri, params) = wire::split(text, end);
        Self::of("", uri, params)
    }

    /// Reads from the opening bracket on.
    fn bracketed(display: &'a str, text: &'a str) -> Result<Self, HeaderError> {
        let text = text.strip_prefix('<').ok_or(HeaderError::Syntax)?;
        let (uri, params) = wire::split_once(text, b'>').ok_or(HeaderError::Syntax)?;
        Self::of(display, uri, params)
    }

    fn of(display: &'a str, uri: &'a str, params: &'a str) -> Result<Self, HeaderError> {
        Uri::parse(uri)?;
        let mut tag = None;
        let params = Params::parse_each(params, |name, value| {
            if tag.is_none() && name.eq_ignore_ascii_case("tag") {
                tag = Some(value.unwrap_or_default());
            }
        })?;
        Ok(Self { display, uri, params, tag })
    }

    /// The display name as spelled, with its quotes; empty when there is none.
    pub fn raw_display(&self) -> &'a str {
        self.display
    }

    /// The display name without quotes and escapes; `None` when it is absent or empty.
    pub fn display_name(&self) -> Option<Cow<'a, str>> {
        Some(unquote(self.display)).filter(|name| !name.is_empty())
    }

    /// The URI as spelled.
    pub fn uri_str(&self) -> &'a str {
        self.uri
    }

    /// The URI.
    ///
    /// # Errors
    ///
    /// Never for a value from [`NameAddr::parse`], which has read it once already.
    pub fn uri(&self) -> Result<Uri<'a>, HeaderError> {
        Ok(Uri::parse(self.uri)?)
    }

    /// The tag of From and To; `None` when absent or empty.
    pub fn tag(&self) -> Option<&'a str> {
        self.tag.filter(|tag| !tag.is_empty())
    }

    /// All header parameters, `epid` and other unknown ones too.
    pub fn params(&self) -> Params<'a> {
        self.params
    }
}

impl fmt::Display for NameAddr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.display.is_empty() {
            write!(f, "{} ", self.display)?;
        }
        write!(f, "<{}>{}", self.uri, self.params.as_str())
    }
}

/// One Contact value.
#[derive(Debug, Clone, Copy)]
pub enum Contact<'a> {
    /// `*`, which only a REGISTER may carry.
    Star,
    /// An address.
    Address(NameAddr<'a>),
}

impl<'a> Contact<'a> {
    /// Reads one value.
    ///
    /// # Errors
    ///
    /// As [`NameAddr::parse`].
    pub fn parse(text: &'a str) -> Result<Self, HeaderError> {
        match wire::trim(text) {
            "*" => Ok(Self::Star),
            text => NameAddr::parse(text).map(Self::Address),
        }
    }
}

/// An address of our own to be written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Address<'a> {
    /// Display name, not quoted; control characters in it are left out.
    pub display: Option<&'a str>,
    /// The URI, without brackets.
    pub uri: &'a str,
    /// The tag.
    pub tag: Option<&'a str>,
    /// Further parameters as they are to be written, from their first `;` on; empty for none.
    pub params: &'a str,
}

impl<'a> Address<'a> {
    /// An address that is only a URI.
    pub fn new(uri: &'a str) -> Self {
        Self { uri, ..Self::default() }
    }

    /// The same with a tag.
    #[must_use]
    pub fn with_tag(self, tag: &'a str) -> Self {
        Self { tag: Some(tag), ..self }
    }

    /// True if URI, tag and parameters can be written.
    pub(crate) fn is_sound(&self) -> bool {
        Uri::parse(self.uri).is_ok() && self.tag.is_none_or(wire::is_token) && Params::parse(self.params).is_ok()
    }
}

impl fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.display {
            write_display(f, name)?;
            f.write_str(" ")?;
        }
        write!(f, "<{}>", self.uri)?;
        if let Some(tag) = self.tag {
            write!(f, ";tag={tag}")?;
        }
        f.write_str(self.params)
    }
}

/// Writes text as a quoted string; control characters are left out.
pub(crate) fn write_display(out: &mut dyn fmt::Write, text: &str) -> fmt::Result {
    out.write_char('"')?;
    for c in text.chars().filter(|c| !c.is_control()) {
        if matches!(c, '"' | '\\') {
            out.write_char('\\')?;
        }
        out.write_char(c)?;
    }
    out.write_char('"')
}
