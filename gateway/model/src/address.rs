//! The one place that decides identity: SIP user and host to JID and back.
//!
//! The rules are those of RFC 7247 §6.4 and §6.5 with the full set of XEP-0106 escapes (interworking
//! specification §1.1 and §1.2). Parsing of SIP URIs is not done here: callers give the raw user part,
//! host and `gr` value.

use std::fmt;

use compact_str::CompactString;
use precis_core::profile::PrecisFastInvocation as _;
use precis_profiles::{OpaqueString, UsernameCaseMapped};
use unicode_normalization::UnicodeNormalization as _;

use crate::domain::{Domain, DomainError};

/// The longest localpart or resource in octets (RFC 7622 §3.3, §3.4).
const MAX_PART: usize = 1023;

/// The characters that XEP-0106 escapes besides the backslash, with their two hex digits.
const ESCAPES: [(char, &str); 9] = [
    (' ', "20"),
    ('"', "22"),
    ('&', "26"),
    ('\'', "27"),
    ('/', "2f"),
    (':', "3a"),
    ('<', "3c"),
    ('>', "3e"),
    ('@', "40"),
];

/// Why an address could not be mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// The user part is missing or empty.
    #[error("address has no user part")]
    NoUser,
    /// The user part is no valid UTF-8 after percent-decoding, or holds control characters.
    #[error("user part does not decode to valid text")]
    UndecodableUser,
    /// The user part is no valid localpart (PRECIS UsernameCaseMapped, escaped blank at an end, too long).
    #[error("user part is not a valid localpart")]
    InvalidLocalpart,
    /// The resource is empty, too long or holds control characters.
    #[error("resource is not valid")]
    InvalidResource,
    /// The host is an IP literal, which is no federatable identity.
    #[error("host is an IP literal")]
    IpLiteral,
    /// The host is no domain name.
    #[error("host is not a domain name")]
    InvalidDomain,
}

impl From<DomainError> for AddressError {
    fn from(error: DomainError) -> Self {
        match error {
            DomainError::IpLiteral => Self::IpLiteral,
            DomainError::Invalid => Self::InvalidDomain,
        }
    }
}

/// A folded, escaped JID localpart (RFC 7622 §3.3, XEP-0106).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Localpart(CompactString);

impl Localpart {
    /// Maps the raw user part of a SIP URI (still percent-encoded, without password).
    ///
    /// # Errors
    ///
    /// [`AddressError::NoUser`], [`AddressError::UndecodableUser`] or [`AddressError::InvalidLocalpart`];
    /// all of them are answered 404 in a Request-URI.
    pub fn from_sip_user(raw: &str) -> Result<Self, AddressError> {
        if is_simple_user(raw) {
            let mut local = CompactString::from(raw);
            local.make_ascii_lowercase();
            return Ok(Self(local));
        }
        let decoded = percent_decode(raw)?;
        if decoded.is_empty() {
            return Err(AddressError::NoUser);
        }
        if decoded.chars().any(char::is_control) {
            return Err(AddressError::UndecodableUser);
        }
        // Folding comes before escaping: an upper-case `\5C` would turn into an escape code later.
        let folded: String = decoded.to_lowercase().nfc().collect();
        Self::enforce(&escape(&folded))
    }

    /// Maps the localpart of a JID as it came from an XMPP server.
    ///
    /// # Errors
    ///
    /// [`AddressError::NoUser`] or [`AddressError::InvalidLocalpart`].
    pub fn from_jid_localpart(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::NoUser);
        }
        if text.chars().any(|c| ESCAPES.iter().any(|(e, _)| *e == c)) {
            return Err(AddressError::InvalidLocalpart);
        }
        Self::enforce(text)
    }

    fn enforce(text: &str) -> Result<Self, AddressError> {
        if text.len() > MAX_PART || text.starts_with("\\20") || text.ends_with("\\20") {
            return Err(AddressError::InvalidLocalpart);
        }
        if text.bytes().all(|b| (0x21..0x7f).contains(&b)) {
            let mut local = CompactString::from(text);
            local.make_ascii_lowercase();
            return Ok(Self(local));
        }
        let enforced = UsernameCaseMapped::enforce(text).map_err(|_| AddressError::InvalidLocalpart)?;
        if enforced.is_empty() || enforced.len() > MAX_PART {
            return Err(AddressError::InvalidLocalpart);
        }
        Ok(Self(CompactString::from(enforced.as_ref())))
    }

    /// Returns the localpart as JIDs carry it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the user part of the SIP URI: unescaped, percent-encoded (RFC 3261 §25 `user`).
    pub fn to_sip_user(&self) -> CompactString {
        if is_simple_user(&self.0) {
            return self.0.clone();
        }
        percent_encode(&unescape(&self.0), is_user_char)
    }
}

impl fmt::Display for Localpart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Localpart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A JID resource (RFC 7622 §3.4), the value of a public GRUU's `gr` parameter on the SIP side.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource(CompactString);

impl Resource {
    /// Checks and normalizes a resource (PRECIS OpaqueString).
    ///
    /// # Errors
    ///
    /// [`AddressError::InvalidResource`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() || text.len() > MAX_PART {
            return Err(AddressError::InvalidResource);
        }
        if text.bytes().all(|b| (0x20..0x7f).contains(&b)) {
            return Ok(Self(CompactString::from(text)));
        }
        let enforced = OpaqueString::enforce(text).map_err(|_| AddressError::InvalidResource)?;
        if enforced.is_empty() || enforced.len() > MAX_PART {
            return Err(AddressError::InvalidResource);
        }
        Ok(Self(CompactString::from(enforced.as_ref())))
    }

    /// Maps the value of a `gr` URI parameter, still percent-encoded.
    ///
    /// # Errors
    ///
    /// [`AddressError::InvalidResource`].
    pub fn from_gr(raw: &str) -> Result<Self, AddressError> {
        let decoded = percent_decode(raw).map_err(|_| AddressError::InvalidResource)?;
        Self::parse(&decoded)
    }

    /// Returns the value for a `gr` URI parameter (RFC 5627, `pvalue` of RFC 3261 §25).
    pub fn to_gr(&self) -> CompactString {
        percent_encode(&self.0, is_param_char)
    }

    /// Returns the resource as JIDs carry it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A user without resource: a bare JID, or an address of record on the SIP side.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BareAddress {
    /// The user.
    pub local: Localpart,
    /// The domain that serves the user.
    pub domain: Domain,
}

impl BareAddress {
    /// Maps the raw user and host of a SIP, IM or PRES URI.
    ///
    /// # Errors
    ///
    /// Any [`AddressError`] but `InvalidResource`.
    pub fn from_sip(user: &str, host: &str) -> Result<Self, AddressError> {
        Ok(Self { local: Localpart::from_sip_user(user)?, domain: Domain::parse(host)? })
    }

    /// Maps a bare or full JID, leaving out the resource.
    ///
    /// # Errors
    ///
    /// Any [`AddressError`]; `NoUser` for the JID of a server.
    pub fn from_jid(text: &str) -> Result<Self, AddressError> {
        let bare = text.split_once('/').map_or(text, |(bare, _)| bare);
        let (local, domain) = bare.split_once('@').ok_or(AddressError::NoUser)?;
        Ok(Self { local: Localpart::from_jid_localpart(local)?, domain: Domain::parse(domain)? })
    }

    /// Returns the bare JID, with U-labels (RFC 7622 §3.2).
    pub fn to_jid(&self) -> String {
        format!("{}@{}", self.local, self.domain.to_unicode())
    }

    /// Returns the address of record as `sip:` URI, lower-case spelling, A-labels.
    pub fn to_sip_uri(&self) -> String {
        format!("sip:{}@{}", self.local.to_sip_user(), self.domain)
    }

    /// Adds a resource.
    #[must_use]
    pub fn with_resource(self, resource: Option<Resource>) -> Address {
        Address { bare: self, resource }
    }
}

impl fmt::Display for BareAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local, self.domain)
    }
}

impl fmt::Debug for BareAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A user, perhaps at one resource: a full JID, or a public GRUU on the SIP side.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The user.
    pub bare: BareAddress,
    /// The device, if one is meant.
    pub resource: Option<Resource>,
}

impl Address {
    /// Maps the parts of a SIP URI; `gr` is the parameter's value, `None` without one or without value.
    ///
    /// # Errors
    ///
    /// Any [`AddressError`].
    pub fn from_sip(user: &str, host: &str, gr: Option<&str>) -> Result<Self, AddressError> {
        Ok(Self { bare: BareAddress::from_sip(user, host)?, resource: gr.map(Resource::from_gr).transpose()? })
    }

    /// Maps a bare or full JID.
    ///
    /// # Errors
    ///
    /// Any [`AddressError`]; `NoUser` for the JID of a server.
    pub fn from_jid(text: &str) -> Result<Self, AddressError> {
        let resource = match text.split_once('/') {
            Some((_, resource)) => Some(Resource::parse(resource)?),
            None => None,
        };
        Ok(Self { bare: BareAddress::from_jid(text)?, resource })
    }

    /// Returns the bare or full JID, with U-labels.
    pub fn to_jid(&self) -> String {
        match &self.resource {
            Some(resource) => format!("{}/{resource}", self.bare.to_jid()),
            None => self.bare.to_jid(),
        }
    }

    /// Returns the `sip:` URI, with the resource as `gr` (RFC 7247 §6.5, RFC 5627).
    pub fn to_sip_uri(&self) -> String {
        match &self.resource {
            Some(resource) => format!("{};gr={}", self.bare.to_sip_uri(), resource.to_gr()),
            None => self.bare.to_sip_uri(),
        }
    }
}

/// Tells whether `user` maps to itself but for case: no escapes, no percent-encoding.
fn is_simple_user(user: &str) -> bool {
    !user.is_empty()
        && user.len() <= MAX_PART
        && user
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+' | b'~' | b'!' | b'='))
}

/// The characters that may stand unescaped in the user part (RFC 3261 §25: unreserved, user-unreserved).
fn is_user_char(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(&b)
}

/// The characters that may stand unescaped in a URI parameter (RFC 3261 §25: unreserved, param-unreserved).
fn is_param_char(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-_.!~*'()[]/:&+$".contains(&b)
}

fn percent_decode(raw: &str) -> Result<String, AddressError> {
    let mut out = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(b) = bytes.next() {
        if b != b'%' {
            out.push(b);
            continue;
        }
        let mut digit = || bytes.next().and_then(|d| char::from(d).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(AddressError::UndecodableUser);
        };
        out.push(u8::try_from(high * 16 + low).map_err(|_| AddressError::UndecodableUser)?);
    }
    String::from_utf8(out).map_err(|_| AddressError::UndecodableUser)
}

fn percent_encode(text: &str, keep: impl Fn(u8) -> bool) -> CompactString {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = CompactString::with_capacity(text.len());
    for b in text.bytes() {
        if keep(b) {
            out.push(char::from(b));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(b >> 4)]));
            out.push(char::from(HEX[usize::from(b & 15)]));
        }
    }
    out
}

/// Escapes folded text (XEP-0106 §4.2): first backslashes that would read as an escape, then the nine characters.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for (at, c) in text.char_indices() {
        if c == '\\' {
            let rest = &text[at + 1..];
            out.push_str(if escape_code(rest).is_some() { "\\5c" } else { "\\" });
        } else if let Some((_, code)) = ESCAPES.iter().find(|(escaped, _)| *escaped == c) {
            out.push('\\');
            out.push_str(code);
        } else {
            out.push(c);
        }
    }
    out
}

/// Undoes [`escape`] in one pass from left to right, so that `\5c27` yields `\27`.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match escape_code(rest) {
            Some(c) => {
                out.push(c);
                rest = &rest[2..];
            }
            None => out.push('\\'),
        }
    }
    out.push_str(rest);
    out
}

/// Reads the two hex digits of an escape sequence at the start of `rest`.
fn escape_code(rest: &str) -> Option<char> {
    let code = rest.get(..2)?;
    if code == "5c" {
        return Some('\\');
    }
    ESCAPES.iter().find(|(_, digits)| *digits == code).map(|(c, _)| *c)
}

#[cfg(test)]
mod tests;
