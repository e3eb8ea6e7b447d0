//! The other typed values.

use std::borrow::Cow;

use super::params::unquote;
use super::{HeaderError, Params};
use crate::method::Method;
use crate::wire;

/// The sequence number and method of a request (RFC 3261 §20.16).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CSeq<'a> {
    /// Below 2^31.
    pub number: u32,
    /// The method.
    pub method: Method<'a>,
}

impl<'a> CSeq<'a> {
    /// Reads the value.
    ///
    /// # Errors
    ///
    /// [`HeaderError::Number`] from 2^31 on, [`HeaderError::Syntax`] without a method.
    pub fn parse(text: &'a str) -> Result<Self, HeaderError> {
        let text = wire::trim(text);
        let space = text.bytes().position(|b| matches!(b, b' ' | b'\t')).ok_or(HeaderError::Syntax)?;
        let (number, method) = wire::split(text, space);
        let number: u32 = wire::number(number).filter(|&n| n < 1 << 31).ok_or(HeaderError::Number)?;
        let method = Method::parse(wire::trim_start(method)).ok_or(HeaderError::Syntax)?;
        Ok(Self { number, method })
    }
}

/// A token with parameters: Event, Subscription-State, ms-diagnostics and others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tagged<'a> {
    /// The word before the parameters.
    pub word: &'a str,
    /// What follows it.
    pub params: Params<'a>,
}

impl<'a> Tagged<'a> {
    /// Reads one value.
    ///
    /// # Errors
    ///
    /// [`HeaderError::Syntax`] when it does not start with a token, [`HeaderError::Param`] for a bad parameter.
    pub fn parse(text: &'a str) -> Result<Self, HeaderError> {
        let text = wire::trim(text);
        let (word, rest) = wire::split(text, wire::run(text, wire::TOKEN));
        if word.is_empty() {
            return Err(HeaderError::Syntax);
        }
        Ok(Self { word, params: Params::parse(rest)? })
    }
}

/// The event package (RFC 6665 §8.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a>(pub Tagged<'a>);

impl<'a> Event<'a> {
    /// The package with its templates; compares with case.
    pub fn package(&self) -> &'a str {
        self.0.word
    }

    /// The `id` that tells subscriptions of one dialog apart.
    pub fn id(&self) -> Option<&'a str> {
        self.0.params.get("id")
    }
}

/// The state of a subscription (RFC 6665 §8.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscriptionState<'a>(pub Tagged<'a>);

impl<'a> SubscriptionState<'a> {
    /// `active`, `pending`, `terminated` or an extension, as spelled.
    pub fn state(&self) -> &'a str {
        self.0.word
    }

    /// Compares the state; case does not matter.
    pub fn is(&self, state: &str) -> bool {
        self.0.word.eq_ignore_ascii_case(state)
    }

    /// Seconds that remain.
    pub fn expires(&self) -> Option<u32> {
        self.0.params.get("expires").and_then(wire::delta_seconds)
    }

    /// Why it ended.
    pub fn reason(&self) -> Option<&'a str> {
        self.0.params.get("reason")
    }

    /// Seconds to wait before another try.
    pub fn retry_after(&self) -> Option<u32> {
        self.0.params.get("retry-after").and_then(wire::delta_seconds)
    }
}

/// A media type or range of Content-Type and Accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaType<'a> {
    /// The type, or `*`.
    pub main: &'a str,
    /// The subtype, or `*`.
    pub sub: &'a str,
    /// What follows.
    pub params: Params<'a>,
}

impl<'a> MediaType<'a> {
    /// Reads one value.
    ///
    /// # Errors
    ///
    /// [`HeaderError::Syntax`] when it is not `type/subtype`, [`HeaderError::Param`] for a bad parameter.
    pub fn parse(text: &'a str) -> Result<Self, HeaderError> {
        let main = Tagged::parse_word(text)?;
        let rest = wire::trim_start(main.1).strip_prefix('/').ok_or(HeaderError::Syntax)?;
        let sub = Tagged::parse_word(rest)?;
        Ok(Self { main: main.0, sub: sub.0, params: Params::parse(sub.1)? })
    }

    /// Compares with `type/subtype`; case and parameters do not matter.
    pub fn is(&self, essence: &str) -> bool {
        essence
            .split_once('/')
            .is_some_and(|(main, sub)| self.main.eq_ignore_ascii_case(main) && self.sub.eq_ignore_ascii_case(sub))
    }

    /// True if this range covers `type/subtype`.
    pub fn covers(&self, essence: &str) -> bool {
        essence.split_once('/').is_some_and(|(main, sub)| {
            (self.main == "*" || self.main.eq_ignore_ascii_case(main))
                && (self.sub == "*" || self.sub.eq_ignore_ascii_case(sub))
        })
    }

    /// The character set, without quotes.
    pub fn charset(&self) -> Option<Cow<'a, str>> {
        self.params.text("charset")
    }

    /// The boundary of a multipart type, without quotes.
    pub fn boundary(&self) -> Option<Cow<'a, str>> {
        self.params.text("boundary")
    }
}

impl<'a> Tagged<'a> {
    fn parse_word(text: &'a str) -> Result<(&'a str, &'a str), HeaderError> {
        let text = wire::trim_start(text);
        let (word, rest) = wire::split(text, wire::run(text, wire::TOKEN));
        if word.is_empty() { Err(HeaderError::Syntax) } else { Ok((word, rest)) }
    }
}

/// When to come again (RFC 3261 §20.33).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryAfter {
    /// Seconds from now.
    pub seconds: u32,
    /// How long the callee will be reachable then, in seconds.
    pub duration: Option<u32>,
}

impl RetryAfter {
    /// Reads the value; a comment in parentheses is passed over.
    ///
    /// # Errors
    ///
    /// [`HeaderError::Number`] when it does not start with seconds.
    pub fn parse(text: &str) -> Result<Self, HeaderError> {
        let text = wire::trim(text);
        let digits = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
        let (seconds, rest) = wire::split(text, digits);
        let seconds = wire::delta_seconds(seconds).ok_or(HeaderError::Number)?;
        let params = rest.rfind(')').map_or(rest, |at| wire::after(rest, at + 1));
        let duration = Params::parse(params)?.get("duration").and_then(wire::delta_seconds);
        Ok(Self { seconds, duration })
    }
}

/// One Warning value (RFC 3261 §20.43).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning<'a> {
    /// Three digits.
    pub code: u16,
    /// Who warns.
    pub agent: &'a str,
    /// The text without quotes.
    pub text: Cow<'a, str>,
}

impl<'a> Warning<'a> {
    /// Reads one value.
    ///
    /// # Errors
    ///
    /// [`HeaderError::Number`] for the code, [`HeaderError::Syntax`] for the rest.
    pub fn parse(text: &'a str) -> Result<Self, HeaderError> {
        let text = wire::trim(text);
        let (code, rest) = text.split_once(' ').ok_or(HeaderError::Syntax)?;
        let code = wire::number(code).filter(|c| (100..1000).contains(c)).ok_or(HeaderError::Number)?;
        let (agent, rest) = wire::trim_start(rest).split_once(' ').ok_or(HeaderError::Syntax)?;
        let rest = wire::trim_start(rest);
        if wire::quoted(rest) != Some(rest.len()) {
            return Err(HeaderError::Syntax);
        }
        Ok(Self { code, agent, text: unquote(rest) })
    }
}
