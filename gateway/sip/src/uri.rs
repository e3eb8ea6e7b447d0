//! URIs of SIP, `im:` and `pres:` (RFC 3261 §19.1, RFC 3860, RFC 3859); others are kept as they are.

mod compare;
mod escape;
mod host;
mod owned;
use std::fmt;

pub use escape::{percent_decode, percent_encode_user};
pub use host::Host;
pub use owned::SipUri;

use crate::wire;

/// Why a text is no URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UriError {
    /// No scheme before a colon.
    #[error("no URI scheme")]
    Scheme,
    /// A character that must be escaped, or a broken escape, in the user part.
    #[error("bad user part in URI")]
    User,
    /// Not a host name, IPv4 address or IPv6 reference.
    #[error("bad host in URI")]
    Host,
    /// Not a number up to 65535.
    #[error("bad port in URI")]
    Port,
    /// A parameter without a name or with a character that cannot be there, or more than 64.
    #[error("bad parameter in URI")]
    Param,
    /// A header without `=`, or with a character that cannot be there, or more than 64.
    #[error("bad header in URI")]
    Header,
    /// White space, a delimiter or a control character where an opaque URI goes on.
    #[error("bad character in URI")]
    Character,
}

/// The scheme of a URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scheme<'a> {
    /// `sip:`
    Sip,
    /// `sips:`
    Sips,
    /// `im:` (RFC 3860)
    Im,
    /// `pres:` (RFC 3859)
    Pres,
    /// `tel:` (RFC 3966); its number is not taken apart.
    Tel,
    /// Any other, as spelled.
    Other(&'a str),
}

impl<'a> Scheme<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        if text == "sip" {
            return Some(Self::Sip);
        }
        let mut bytes = text.bytes();
        if !bytes.next()?.is_ascii_alphabetic()
            || !bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
        {
            return None;
        }
        let known = [Self::Sip, Self::Sips, Self::Im, Self::Pres, Self::Tel];
        Some(known.into_iter().find(|s| s.as_str().eq_ignore_ascii_case(text)).unwrap_or(Self::Other(text)))
    }

    /// The scheme without the colon; lower case for known ones.
    pub fn as_str(&self) -> &'a str {
        match *self {
            Self::Sip => "sip",
            Self::Sips => "sips",
            Self::Im => "im",
            Self::Pres => "pres",
            Self::Tel => "tel",
            Self::Other(text) => text,
        }
    }

    fn has_host(&self) -> bool {
        matches!(self, Self::Sip | Self::Sips | Self::Im | Self::Pres)
    }
}

/// A URI that borrows the text it was read from.
#[derive(Debug, Clone, Copy)]
pub struct Uri<'a> {
    text: &'a str,
    scheme: Scheme<'a>,
    user: Option<&'a str>,
    password: Option<&'a str>,
    host: Option<Host<'a>>,
    port: Option<u16>,
    params: &'a str,
    headers: &'a str,
}

impl<'a> Uri<'a> {
    /// Reads a URI that is the whole of `text`, without angle brackets.
    ///
    /// # Errors
    ///
    /// [`UriError`] names the part that is wrong. A URI of a scheme that is not taken apart is accepted
    /// when it has no space, quote or angle bracket: it is answered with 416, not 400.
    pub fn parse(text: &'a str) -> Result<Self, UriError> {
        let (scheme, rest) = wire::split_once(text, b':').ok_or(UriError::Scheme)?;
        let scheme = Scheme::parse(scheme).ok_or(UriError::Scheme)?;
        let mut uri = Self { scheme, ..Self::opaque(text) };
        if !scheme.has_host() {
            if !wire::all(rest, wire::VISIBLE) || rest.contains(['<', '>', '"']) {
                return Err(UriError::Character);
            }
            return Ok(uri);
        }
        let (user, behind) = wire::split(rest, wire::run(rest, wire::USER));
        let rest = match behind.strip_prefix('@') {
            // most users have no password and no escape
            Some(rest) if !user.is_empty() => {
                uri.user = Some(user);
                rest
            }
            _ => uri.userinfo(rest)?,
        };
        let (host, port, rest) = host::host_port(rest)?;
        uri.host = Some(host);
        uri.port = port;
        if rest.is_empty() {
            return Ok(uri);
        }
        let (params, headers) = match wire::split_once(rest, b'?') {
            Some((params, headers)) => (params, Some(headers)),
            None => (rest, None),
        };
        uri.params = check_params(params)?;
        if let Some(headers) = headers {
            uri.headers = check_headers(headers)?;
        }
        Ok(uri)
    }

    /// Takes user and password, if an `@` says that they are there, and gives back what follows.
    fn userinfo(&mut self, text: &'a str) -> Result<&'a str, UriError> {
        let Some((userinfo, rest)) = wire::split_once(text, b'@') else { return Ok(text) };
        let (user, password) = match wire::split_once(userinfo, b':') {
            Some((user, password)) => (user, Some(password)),
            None => (userinfo, None),
        };
        if user.is_empty() || !escape::valid(user) || !password.is_none_or(escape::valid) {
            return Err(UriError::User);
        }
        self.user = Some(user);
        self.password = password;
        Ok(rest)
    }

    /// A URI none of whose parts are known.
    fn opaque(text: &'a str) -> Self {
        let scheme = Scheme::Other("");
        Self { text, scheme, user: None, password: None, host: None, port: None, params: "", headers: "" }
    }

    /// The text it was read from.
    pub fn as_str(&self) -> &'a str {
        self.text
    }

    /// The scheme.
    pub fn scheme(&self) -> Scheme<'a> {
        self.scheme
    }

    /// The user part, still escaped.
    pub fn user(&self) -> Option<&'a str> {
        self.user
    }

    /// The user part with its escapes decoded; `None` when there is no user or it is not UTF-8.
    pub fn percent_decode_user(&self) -> Option<std::borrow::Cow<'a, str>> {
        percent_decode(self.user?)
    }

    /// The password, still escaped.
    pub fn password(&self) -> Option<&'a str> {
        self.password
    }

    /// The host; `None` for `tel:` and other schemes that are not taken apart.
    pub fn host(&self) -> Option<Host<'a>> {
        self.host
    }

    /// The port, if one is written.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The parameters in order, each with its value if it has one, still escaped.
    pub fn params(&self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> + use<'a> {
        self.params.split(';').filter(|p| !p.is_empty()).map(|param| match param.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (param, None),
        })
    }

    /// The parameter `name` (case does not matter): absent, without a value, or with one.
    pub fn param(&self, name: &str) -> Option<Option<&'a str>> {
        self.params().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// True if a loose router wrote this route (RFC 3261 §16.12).
    pub fn is_loose_route(&self) -> bool {
        self.param("lr").is_some()
    }

    /// The headers after `?`, name and value, still escaped.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.headers.split('&').filter_map(|header| header.split_once('='))
    }

    /// An owned copy.
    pub fn to_owned(&self) -> SipUri {
        SipUri::of(self)
    }
}

impl fmt::Display for Uri<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

/// Parameters, and headers, of one URI: ten times what is seen. Equality looks at each pair of them.
const MAX_PARTS: usize = 64;

/// Takes `;name[=value]...` and gives it back when every part is sound.
fn check_params(text: &str) -> Result<&str, UriError> {
    let Some(list) = text.strip_prefix(';') else {
        return if text.is_empty() { Ok(text) } else { Err(UriError::Host) };
    };
    for (count, param) in list.split(';').enumerate() {
        if count >= MAX_PARTS || !wire::all(param, wire::URI_PARAM) || param.starts_with('=') {
            return Err(UriError::Param);
        }
    }
    Ok(list)
}

/// Takes `name=value[&...]` and gives it back when every part is sound.
fn check_headers(text: &str) -> Result<&str, UriError> {
    for (count, header) in text.split('&').enumerate() {
        let (name, value) = header.split_once('=').ok_or(UriError::Header)?;
        let sound = |part: &str| part.bytes().all(|b| wire::is(b, wire::URI_PARAM) || b == b'?');
        if count >= MAX_PARTS || name.is_empty() || !sound(name) || !sound(value) {
            return Err(UriError::Header);
        }
    }
    Ok(text)
}
