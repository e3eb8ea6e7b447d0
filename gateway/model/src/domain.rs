//! Domain names in one canonical form.

use std::fmt;

use compact_str::CompactString;

/// A domain name as lower-case A-labels without a trailing dot, at most 253 octets.
///
/// Two spellings of one domain (`BÜCHER.example`, `xn--bcher-kva.example.`) are equal. IP literals are
/// not domains: they cannot be federated (interworking specification §1.1 rule 6).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(CompactString);

/// Why a text is not a federatable domain name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DomainError {
    /// The text is an IPv4 or IPv6 literal.
    #[error("an IP literal is not a federatable domain")]
    IpLiteral,
    /// The text is no domain name under RFC 5890 and RFC 1123.
    #[error("not a valid domain name")]
    Invalid,
}

impl Domain {
    /// Parses A-labels or U-labels in any case, with or without the trailing dot.
    ///
    /// # Errors
    ///
    /// [`DomainError::IpLiteral`] for addresses, [`DomainError::Invalid`] for everything that is no name.
    pub fn parse(text: &str) -> Result<Self, DomainError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.starts_with('[') || text.parse::<std::net::IpAddr>().is_ok() {
            return Err(DomainError::IpLiteral);
        }
        if is_plain_ldh(text) {
            let mut name = CompactString::from(text);
            name.make_ascii_lowercase();
            return Ok(Self(name));
        }
        let ascii = idna::domain_to_ascii_strict(text).map_err(|_| DomainError::Invalid)?;
        if ascii.parse::<std::net::IpAddr>().is_ok() {
            return Err(DomainError::IpLiteral);
        }
        Ok(Self(CompactString::from(ascii)))
    }

    /// Returns the A-label form, as SIP and DNS want it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the U-label form, as XMPP addresses want it (RFC 7622 §3.2).
    pub fn to_unicode(&self) -> CompactString {
        if self.0.contains("xn--") {
            let (unicode, result) = idna::domain_to_unicode(&self.0);
            if result.is_ok() {
                return CompactString::from(unicode);
            }
        }
        self.0.clone()
    }

    /// Tells whether `self` equals `ancestor` or lies below it.
    pub fn is_within(&self, ancestor: &Self) -> bool {
        self.0.strip_suffix(ancestor.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    /// Returns the name without its first label, or `None` at the top.
    pub fn parent(&self) -> Option<&str> {
        self.0.split_once('.').map(|(_, rest)| rest)
    }
}

/// Tells whether `text` needs no IDNA processing: letters, digits, hyphens, no A-label.
fn is_plain_ldh(text: &str) -> bool {
    if text.is_empty() || text.len() > 253 {
        return false;
    }
    text.split('.').all(|label| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && label.as_bytes().get(2..4) != Some(b"--")
    })
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Domain {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl std::borrow::Borrow<str> for Domain {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Domain {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_domain_are_equal() {
        //
        let ascii = Domain::parse("XN--BCHER-KVA.example.").unwrap();
        assert_eq!(Domain::parse("bücher.EXAMPLE").unwrap(), ascii);
        assert_eq!(ascii.to_unicode(), "bücher.example");
        assert_eq!(ascii.as_str(), "xn--bcher-kva.example");
    }

    #[test]
    fn ip_literals_and_bad_names_are_refused() {
        for ip in ["192.0.2.1", "[2001:db8::7]", "2001:db8::7"] {
            assert_eq!(Domain::parse(ip), Err(DomainError::IpLiteral), "{ip}");
        }
        let long = format!("{}.example", "a".repeat(64));
        for bad in ["", ".", "a..b", "-a.example", "a_b.example", "a b.example", "a\u{0}.example", &long] {
            assert_eq!(Domain::parse(bad), Err(DomainError::Invalid), "{bad:?}");
        }
    }

    #[test]
    fn subdomains_match_whole_labels_only() {
        let parent = Domain::parse("partner.example").unwrap();
        assert!(Domain::parse("a.partner.example").unwrap().is_within(&parent));
        assert!(parent.is_within(&parent));
        assert!(!Domain::parse("xpartner.example").unwrap().is_within(&parent));
    }
}
