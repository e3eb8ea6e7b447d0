//! Equality of URIs (RFC 3261 §19.1.4).

use super::{Scheme, Uri, escape};
use crate::wire;

/// Parameters that make two URIs differ when only one has them. `transport` is not in the RFC's list but
/// in its examples.
const SIGNIFICANT: [&str; 5] = ["user", "ttl", "method", "maddr", "transport"];

impl PartialEq for Uri<'_> {
    fn eq(&self, other: &Self) -> bool {
        if !matches!((self.scheme, other.scheme), (Scheme::Other(a), Scheme::Other(b)) if a.eq_ignore_ascii_case(b))
            && self.scheme != other.scheme
        {
            return false;
        }
        if self.host.is_none() {
            let opaque = |uri: &Self| uri.text.split_once(':').map_or("", |(_, rest)| rest);
            return opaque(self) == opaque(other);
        }
        same_optional(self.user, other.user, true)
            && same_optional(self.password, other.password, true)
            && self.host == other.host
            && self.port == other.port
            && params_match(self, other)
            && params_match(other, self)
            && headers_match(self, other)
            && headers_match(other, self)
    }
}

impl Eq for Uri<'_> {}

fn same_optional(a: Option<&str>, b: Option<&str>, case: bool) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => same_text(a, b, case),
        (None, None) => true,
        _ => false,
    }
}

/// Every parameter of `a` either has an equal in `b`, or its name is absent there and does not matter. A name that is there
/// twice, which the grammar forbids, must find both.
fn params_match(a: &Uri<'_>, b: &Uri<'_>) -> bool {
    a.params().all(|(name, value)| {
        let mut others = b.params().filter(|(other, _)| same_text(name, other, false)).peekable();
        match others.peek() {
            Some(_) => others.any(|(_, other)| same_optional(value, other, false)),
            None => !SIGNIFICANT.iter().any(|s| same_text(s, name, false)),
        }
    })
}

/// Every header of `a` has an equal in `b`.
fn headers_match(a: &Uri<'_>, b: &Uri<'_>) -> bool {
    a.headers().all(|(name, value)| b.headers().any(|(n, v)| same_text(name, n, false) && same_text(value, v, false)))
}

/// Compares escaped texts: an escape equals the character it stands for, unless that one is reserved.
fn same_text(a: &str, b: &str, case: bool) -> bool {
    let (mut a, mut b) = (Units(a), Units(b));
    loop {
        match (a.next(), b.next()) {
            (None, None) => return true,
            (Some((x, rx)), Some((y, ry))) if rx == ry && (x == y || !case && x.eq_ignore_ascii_case(&y)) => {}
            _ => return false,
        }
    }
}

/// Octets of an escaped text; the flag marks an escaped reserved character, which differs from a bare one.
struct Units<'a>(&'a str);

impl Iterator for Units<'_> {
    type Item = (u8, bool);

    fn next(&mut self) -> Option<(u8, bool)> {
        let first = *self.0.as_bytes().first()?;
        if let Some(octet) = escape::pair(self.0) {
            self.0 = wire::after(self.0, 3);
            return Some((octet, b";/?:@&=+$,".contains(&octet)));
        }
        // only ASCII gets into a URI, so this is a character boundary
        self.0 = wire::after(self.0, 1);
        Some((first, false))
    }
}
