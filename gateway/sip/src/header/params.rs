//! Parameters of headers.

use std::borrow::Cow;

use super::HeaderError;
use crate::wire;

/// The parameters after a header value, `;name[=value]` each; already checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Params<'a> {
    text: &'a str,
}

impl<'a> Params<'a> {
    /// Reads parameters that are the whole of `text`: nothing, or `;` and what follows.
    ///
    /// # Errors
    ///
    /// [`HeaderError::Param`] for an empty or unnamed parameter, [`HeaderError::Syntax`] for an open quote
    /// and for text that is no parameter.
    pub fn parse(text: &'a str) -> Result<Self, HeaderError> {
        Self::parse_each(text, |_, _| {})
    }

    /// Reads parameters and shows each on the way, so that one look serves both.
    #[inline]
    pub(crate) fn parse_each(
        text: &'a str,
        mut look: impl FnMut(&'a str, Option<&'a str>),
    ) -> Result<Self, HeaderError> {
        let text = wire::trim(text);
        let mut rest = text;
        while !rest.is_empty() {
            let (name, value, tail) = take(rest)?;
            look(name, value);
            rest = tail;
        }
        Ok(Self { text })
    }

    /// Text that [`Params::parse`] accepted before.
    pub(crate) fn checked(text: &'a str) -> Self {
        Self { text }
    }

    /// The parameters as written, from the first `;`.
    pub fn as_str(&self) -> &'a str {
        self.text
    }

    /// Names and raw values in order; quotes are left on.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> + use<'a> {
        let mut rest = self.text;
        std::iter::from_fn(move || {
            let (name, value, tail) = take(rest).ok()?;
            rest = tail;
            Some((name, value))
        })
    }

    /// The parameter `name` (case does not matter): absent, without a value, or with its raw one.
    pub fn find(&self, name: &str) -> Option<Option<&'a str>> {
        self.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The raw value of `name`, if it is there with one.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.find(name).flatten()
    }

    /// The value of `name` without quotes and escapes.
    pub fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        self.get(name).map(unquote)
    }
}

/// Removes the quotes and backslashes of a quoted string; other text stays.
pub(crate) fn unquote(text: &str) -> Cow<'_, str> {
    let Some(inner) = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')) else {
        return Cow::Borrowed(text);
    };
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        out.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    Cow::Owned(out)
}

/// Takes one parameter: name, raw value, rest. `text` is not empty.
fn take(text: &str) -> Result<(&str, Option<&str>, &str), HeaderError> {
    let rest = wire::trim_start(text).strip_prefix(';').ok_or(HeaderError::Syntax)?;
    let rest = wire::trim_start(rest);
    let (name, rest) = wire::split(rest, wire::run(rest, wire::TOKEN));
    if name.is_empty() {
        return Err(HeaderError::Param);
    }
    let rest = wire::trim_start(rest);
    let Some(rest) = rest.strip_prefix('=') else {
        return Ok((name, None, rest));
    };
    let rest = wire::trim_start(rest);
    let length = if rest.starts_with('"') {
        wire::quoted(rest).ok_or(HeaderError::Syntax)?
    } else {
        wire::run(rest, wire::PARAM_VALUE)
    };
    let (value, rest) = wire::split(rest, length);
    Ok((name, Some(value), wire::trim_start(rest)))
}
