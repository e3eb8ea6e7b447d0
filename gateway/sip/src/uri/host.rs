//! Hosts: names, IPv4 addresses, IPv6 references.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::UriError;
use crate::wire;

/// A host as it appears in URIs and in Via.
///
/// Names compare without regard to case; addresses by value, so `[2001:db8::1]` equals
/// `[2001:0db8:0:0:0:0:0:1]` (RFC 5118 §3).
#[derive(Debug, Clone, Copy)]
pub enum Host<'a> {
    /// A name, as spelled.
    Name(&'a str),
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address; written in brackets.
    V6(Ipv6Addr),
}

impl<'a> Host<'a> {
    /// Reads a host that is the whole of `text`.
    ///
    /// # Errors
    ///
    /// [`UriError::Host`] for an IPv6 address without brackets or with a zone, for a name whose last
    /// label is a number, and for characters that names do not have.
    pub fn parse(text: &'a str) -> Result<Self, UriError> {
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(UriError::Host)?;
            return inner.parse().map(Self::V6).map_err(|_| UriError::Host);
        }
        if text.is_empty() || text.len() > 255 || !wire::all(text, wire::HOST) {
            return Err(UriError::Host);
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let last = name.rsplit('.').next().unwrap_or(name);
        if last.bytes().all(|b| b.is_ascii_digit()) {
            return text.parse().map(Self::V4).map_err(|_| UriError::Host);
        }
        if name.split('.').any(|label| label.is_empty() || label.len() > 63) {
            return Err(UriError::Host);
        }
        Ok(Self::Name(text))
    }

    /// The address, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match *self {
            Self::Name(_) => None,
            Self::V4(ip) => Some(ip.into()),
            Self::V6(ip) => Some(ip.into()),
        }
    }

    /// The name, if it is one.
    pub fn name(&self) -> Option<&'a str> {
        match *self {
            Self::Name(name) => Some(name),
            Self::V4(_) | Self::V6(_) => None,
        }
    }
}

impl From<IpAddr> for Host<'_> {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::V4(ip),
            IpAddr::V6(ip) => Self::V6(ip),
        }
    }
}

impl PartialEq for Host<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Name(a), Self::Name(b)) => a.eq_ignore_ascii_case(b),
            (Self::V4(a), Self::V4(b)) => a == b,
            (Self::V6(a), Self::V6(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Host<'_> {}

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::V4(ip) => ip.fmt(f),
            Self::V6(ip) => write!(f, "[{ip}]"),
        }
    }
}

/// Reads `host[:port]` at the front of `text` and gives back what follows.
pub(super) fn host_port(text: &str) -> Result<(Host<'_>, Option<u16>, &str), UriError> {
    let end =
        if text.starts_with('[') { text.find(']').ok_or(UriError::Host)? + 1 } else { wire::run(text, wire::HOST) };
    let (host, rest) = wire::split(text, end);
    let host = Host::parse(host)?;
    let Some(rest) = rest.strip_prefix(':') else {
        return Ok((host, None, rest));
    };
    let digits = rest.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
    let (port, rest) = wire::split(rest, digits);
    let port = wire::number(port).ok_or(UriError::Port)?;
    Ok((host, Some(port), rest))
}
