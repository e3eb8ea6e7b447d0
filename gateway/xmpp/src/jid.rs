//! XMPP addresses taken apart by syntax alone (RFC 7622 §3.2).
//!
//! Nothing is mapped, folded or judged here: which spellings are the same person is decided by
//! `isthmus_model::address` and nowhere else. [`same_domain`] is the one exception, and only for names that
//! a server echoes back to us.

/// An address in its three parts, borrowed from the text it was written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JidParts<'a> {
    /// Before the `@`; `None` without one.
    pub localpart: Option<&'a str>,
    /// The domain; empty in malformed addresses.
    pub domain: &'a str,
    /// After the first `/`; `None` without one.
    pub resource: Option<&'a str>,
}

/// Takes an address apart. The resource begins at the first slash, the localpart ends at the first `@`
/// before it.
pub fn split(jid: &str) -> JidParts<'_> {
    let (bare, resource) = match jid.split_once('/') {
        Some((bare, resource)) => (bare, Some(resource)),
        None => (jid, None),
    };
    let (localpart, domain) = match bare.split_once('@') {
        Some((localpart, domain)) => (Some(localpart), domain),
        None => (None, bare),
    };
    JidParts { localpart, domain, resource }
}

/// The address without its resource.
pub fn bare(jid: &str) -> &str {
    jid.split_once('/').map_or(jid, |(bare, _)| bare)
}

/// The domain of the address.
pub fn domain(jid: &str) -> &str {
    split(jid).domain
}

/// The resource of the address.
pub fn resource(jid: &str) -> Option<&str> {
    split(jid).resource
}

/// True if both domains are spelled alike but for the case of ASCII letters.
///
/// Enough to compare what we once sent with what a server answers; not an identity of people.
pub fn same_domain(a: &str, b: &str) -> bool {
    a.trim_end_matches('.').eq_ignore_ascii_case(b.trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_apart_at_the_first_slash_and_the_first_at_before_it() {
        let parts = |localpart, domain, resource| JidParts { localpart, domain, resource };
        assert_eq!(split("a@b/c"), parts(Some("a"), "b", Some("c")));
        assert_eq!(split("b"), parts(None, "b", None));
        assert_eq!(split("b/x@y/z"), parts(None, "b", Some("x@y/z")));
        assert_eq!(split("a@b@c"), parts(Some("a"), "b@c", None));
        assert_eq!(split(""), parts(None, "", None));
        assert_eq!(bare("a@b/c/d"), "a@b");
        assert_eq!(domain("juliet@corp.example/home"), "corp.example");
        assert_eq!(resource("juliet@corp.example/home"), Some("home"));
    }

    #[test]
    fn domains_compare_without_case_and_final_dot() {
        assert!(same_domain("Corp.Example.", "corp.example"));
        assert!(!same_domain("corp.example", "corp.example.net"));
    }
}
