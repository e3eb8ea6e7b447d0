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
        match Self::prefix(text)? {
            (host, "") => Ok(host),
            _ => Err(UriError::Host),
        }
    }

    /// Reads a host at the front of `text` and gives back what follows it.
    pub(crate) fn prefix(text: &'a str) -> Result<(Self, &'a str), UriError> {
        let bytes = text.as_bytes();
        if bytes.first() == Some(&b'[') {
            let (inner, rest) = wire::split_once(wire::after(text, 1), b']').ok_or(UriError::Host)?;
            return inner.parse().map(|ip| (Self::V6(ip), rest)).map_err(|_| UriError::Host);
        }
        let (mut end, mut dot, mut gap) = (0, true, false);
        for &byte in bytes {
            if !wire::is(byte, wire::HOST) {
                break;
            }
            gap |= dot && byte == b'.';
            dot = byte == b'.';
            end += 1;
        }
        let (host, rest) = wire::split(text, end);
        // a name may end with the dot of the root
        let name = host.as_bytes().strip_suffix(b".").unwrap_or(host.as_bytes());
        // only a long name can have a long label
        if gap || name.is_empty() || end > 63 && !short_labels(name) {
            return Err(UriError::Host);
        }
        if name.last().is_some_and(u8::is_ascii_digit) && numeric_end(name) {
            return host.parse().map(|ip| (Self::V4(ip), rest)).map_err(|_| UriError::Host);
        }
        Ok((Self::Name(host), rest))
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

/// The limits of DNS: 63 bytes a label, 255 in all.
fn short_labels(name: &[u8]) -> bool {
    name.len() <= 255 && name.split(|&b| b == b'.').all(|label| label.len() <= 63)
}

/// True if the last label is a number, which no top-level domain is: the text is an address then, or nothing.
fn numeric_end(name: &[u8]) -> bool {
    name.rsplit(|&b| b == b'.').next().is_some_and(|label| label.iter().all(u8::is_ascii_digit))
}

/// Reads `host[:port]` at the front of `text` and gives back what follows.
pub(super) fn host_port(text: &str) -> Result<(Host<'_>, Option<u16>, &str), UriError> {
    let (host, rest) = Host::prefix(text)?;
    let Some(rest) = rest.strip_prefix(':') else {
        return Ok((host, None, rest));
    };
    let digits = rest.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
    let (port, rest) = wire::split(rest, digits);
    let port = wire::number(port).ok_or(UriError::Port)?;
    Ok((host, Some(port), rest))
}
