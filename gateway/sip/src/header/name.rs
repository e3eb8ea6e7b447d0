//! The header names that the gateway reads or writes.

use std::fmt;

macro_rules! names {
    ($($len:literal { $($variant:ident = $text:literal $(/ $short:literal)? $(: $kind:ident)?,)* })*) => {
        /// A header name; case does not matter and compact forms are the same name (RFC 3261 §7.3.3).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        #[non_exhaustive]
        #[expect(missing_docs, reason = "the variants are the names of the headers")]
        pub enum HeaderName {
            $($($variant,)*)*
            /// Any other; see [`crate::Message::headers_named`].
            Other,
        }

        impl HeaderName {
            /// Recognises a name in its long or compact form.
            pub fn parse(text: &str) -> Self {
                Self::of(text.as_bytes())
            }

            /// Recognises a name that was not checked to be text.
            pub(crate) fn of(text: &[u8]) -> Self {
                match text.len() {
                    1 => Self::compact(text),
                    $($len => {
                        $(if same(text, $text) { return Self::$variant; })*
                        Self::Other
                    })*
                    _ => Self::Other,
                }
            }

            fn compact(text: &[u8]) -> Self {
                $($($(if same(text, $short) { return Self::$variant; })?)*)*
                Self::Other
            }

            /// The long form; empty for [`HeaderName::Other`].
            pub fn as_str(self) -> &'static str {
                match self {
                    $($(Self::$variant => $text,)*)*
                    Self::Other => "",
                }
            }

            /// The long form with its colon and a space, as a line starts.
            pub(crate) fn prefix(self) -> &'static str {
                match self {
                    $($(Self::$variant => concat!($text, ": "),)*)*
                    Self::Other => "",
                }
            }

            fn kind(self) -> Kind {
                match self {
                    $($($(Self::$variant => Kind::$kind,)?)*)*
                    _ => Kind::Free,
                }
            }
        }

        #[cfg(test)]
        const ALL: &[(usize, HeaderName)] = &[$($(($len, HeaderName::$variant),)*)*];
    };
}

/// Compares a name with one of the table. Most names of one length differ in their first or last letter, which
/// costs less to look at than the whole; 0x20 is what the cases of a letter differ in. Most spell it as the table does.
#[inline]
fn same(text: &[u8], name: &str) -> bool {
    let name = name.as_bytes();
    let alike = |a: Option<&u8>, b: Option<&u8>| matches!((a, b), (Some(a), Some(b)) if (a ^ b) & !0x20 == 0);
    alike(text.first(), name.first())
        && alike(text.last(), name.last())
        && (text == name || text.eq_ignore_ascii_case(name))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Values may be joined by commas or repeated.
    List,
    /// At most one line; a second one makes the message malformed, since two readers could each follow another.
    Single,
    /// Each line is one value, and repeated ones are tolerated.
    Free,
}

// Grouped by length, which is what the lookup goes by.
names! {
    2 { To = "To" / "t": Single, }
    3 { Via = "Via" / "v": List, }
    4 { From = "From" / "f": Single, CSeq = "CSeq": Single, Date = "Date", Path = "Path": List, RSeq = "RSeq", RAck = "RAck", }
    5 { Event = "Event" / "o": Single, Route = "Route": List, Allow = "Allow": List, }
    6 { Accept = "Accept": List, MinSe = "Min-SE", Server = "Server", Reason = "Reason": List, }
    7 { CallId = "Call-ID" / "i": Single, Contact = "Contact" / "m": List, Expires = "Expires": Single, Require = "Require": List,
        Subject = "Subject" / "s", Warning = "Warning": List, Privacy = "Privacy", }
    8 { Priority = "Priority", Replaces = "Replaces", ReferTo = "Refer-To" / "r", Reply = "Reply-To",
        Identity = "Identity" / "y", SipEtag = "SIP-ETag", }
    9 { Supported = "Supported" / "k": List, CallInfo = "Call-Info": List, Timestamp = "Timestamp", EndPoints = "EndPoints", }
    10 { UserAgent = "User-Agent", FlowTimer = "Flow-Timer", }
    11 { RetryAfter = "Retry-After", MinExpires = "Min-Expires", Unsupported = "Unsupported": List, InReplyTo = "In-Reply-To": List,
        ReferredBy = "Referred-By" / "b", }
    12 { RecordRoute = "Record-Route": List, ContentType = "Content-Type" / "c": Single, MaxForwards = "Max-Forwards": Single,
        AllowEvents = "Allow-Events" / "u": List, MimeVersion = "MIME-Version", SipIfMatch = "SIP-If-Match", Organization = "Organization", }
    13 { ProxyRequire = "Proxy-Require": List, Authorization = "Authorization", ServiceRoute = "Service-Route": List, }
    14 { ContentLength = "Content-Length" / "l": Single, MsDiagnostics = "ms-diagnostics", RosterManager = "Roster-Manager",
        MsTextFormat = "ms-text-format", }
    15 { AcceptEncoding = "Accept-Encoding": List, AcceptLanguage = "Accept-Language": List, SessionExpires = "Session-Expires" / "x",
        TriggeredInvite = "TriggeredInvite", ConversationId = "Conversation-ID", }
    16 { ContentEncoding = "Content-Encoding" / "e": List, ContentLanguage = "Content-Language": List, WwwAuthenticate = "WWW-Authenticate", }
    17 { SuppressIfMatch = "Suppress-If-Match", }
    18 { SubscriptionState = "Subscription-State": Single, ProxyAuthenticate = "Proxy-Authenticate", MsConversationId = "Ms-Conversation-ID", }
    19 { ContentDisposition = "Content-Disposition", ProxyAuthorization = "Proxy-Authorization",
        PAssertedIdentity = "P-Asserted-Identity": List, }
    20 { PPreferredIdentity = "P-Preferred-Identity": List, MsSplitDomainInfo = "ms-split-domain-info", }
    21 { MsDiagnosticsPublic = "ms-diagnostics-public", }
    27 { MsEdgeProxyMessageTrust = "ms-edge-proxy-message-trust", }
}

impl HeaderName {
    /// True if values of this header may be joined by commas.
    pub fn is_list(self) -> bool {
        self.kind() == Kind::List
    }

    /// True if a message may have this header once only.
    pub fn is_single(self) -> bool {
        self.kind() == Kind::Single
    }

    /// A bit for sets of names.
    pub(crate) fn bit(self) -> u128 {
        1u128.checked_shl(self as u32).unwrap_or(0)
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_stands_under_its_length_and_is_found_in_any_case() {
        for &(len, name) in ALL {
            assert_eq!(name.as_str().len(), len, "{name}");
            assert_eq!(HeaderName::parse(name.as_str()), name);
            assert_eq!(HeaderName::parse(&name.as_str().to_ascii_uppercase()), name);
            assert_ne!(name.bit(), 0, "{name}");
        }
        assert!((HeaderName::Other as u32) < 128);
    }

    // S-38
    #[test]
    fn compact_forms_are_the_same_header() {
        for (short, name) in [
            ("v", HeaderName::Via),
            ("F", HeaderName::From),
            ("t", HeaderName::To),
            ("i", HeaderName::CallId),
            ("m", HeaderName::Contact),
            ("c", HeaderName::ContentType),
            ("L", HeaderName::ContentLength),
            ("e", HeaderName::ContentEncoding),
            ("s", HeaderName::Subject),
            ("k", HeaderName::Supported),
            ("o", HeaderName::Event),
            ("u", HeaderName::AllowEvents),
            ("r", HeaderName::ReferTo),
            ("b", HeaderName::ReferredBy),
            ("x", HeaderName::SessionExpires),
        ] {
            assert_eq!(HeaderName::parse(short), name, "{short}");
        }
        assert_eq!(HeaderName::parse("q"), HeaderName::Other);
    }
}
