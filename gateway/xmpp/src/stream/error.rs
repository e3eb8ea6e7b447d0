//! Stream errors (RFC 6120 §4.9.3).

use compact_str::CompactString;

use crate::element::ElementRef;
use crate::ns;

macro_rules! conditions {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),* $(,)?) => {
        /// The condition of a stream error (RFC 6120 §4.9.3).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum StreamCondition {
            $($(#[$doc])* $variant,)*
        }

        impl StreamCondition {
            /// All conditions.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The element's name.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Reads an element's name.
            pub fn parse(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

conditions! {
    /// XML that cannot be processed.
    BadFormat = "bad-format",
    /// A prefix that is missing or not the expected one.
    BadNamespacePrefix = "bad-namespace-prefix",
    /// Another stream of the same name exists, or took this one's place.
    Conflict = "conflict",
    /// The other side fell silent.
    ConnectionTimeout = "connection-timeout",
    /// The domain was served here once.
    HostGone = "host-gone",
    /// The domain is not served here.
    HostUnknown = "host-unknown",
    /// A stanza without a usable to or from.
    ImproperAddressing = "improper-addressing",
    /// A fault of the sender of this error.
    InternalServerError = "internal-server-error",
    /// A from that was not authenticated.
    InvalidFrom = "invalid-from",
    /// A wrong stream or content namespace.
    InvalidNamespace = "invalid-namespace",
    /// XML that is not valid where validity is checked.
    InvalidXml = "invalid-xml",
    /// Not authenticated.
    NotAuthorized = "not-authorized",
    /// XML that is not well-formed.
    NotWellFormed = "not-well-formed",
    /// A limit or rule of the receiver.
    PolicyViolation = "policy-violation",
    /// A third server could not be reached.
    RemoteConnectionFailed = "remote-connection-failed",
    /// The stream must be negotiated anew.
    Reset = "reset",
    /// Too busy.
    ResourceConstraint = "resource-constraint",
    /// Document type declaration, entity, comment or processing instruction.
    RestrictedXml = "restricted-xml",
    /// Served elsewhere.
    SeeOtherHost = "see-other-host",
    /// The server is going down.
    SystemShutdown = "system-shutdown",
    /// Something else, told by an application's own condition.
    UndefinedCondition = "undefined-condition",
    /// Not UTF-8.
    UnsupportedEncoding = "unsupported-encoding",
    /// A feature that the receiver needs and the sender lacks.
    UnsupportedFeature = "unsupported-feature",
    /// A first-level element that is not known.
    UnsupportedStanzaType = "unsupported-stanza-type",
    /// A version of XMPP that is not known.
    UnsupportedVersion = "unsupported-version",
}

/// A stream error as received or sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamError {
    /// The condition; one that is not known reads as [`StreamCondition::UndefinedCondition`].
    pub condition: StreamCondition,
    /// The text for people, if any.
    pub text: Option<CompactString>,
}

impl StreamError {
    /// An error without text.
    pub fn new(condition: StreamCondition) -> Self {
        Self { condition, text: None }
    }

    /// Reads `<stream:error/>`; `None` when the element is another one.
    ///
    /// Servers that declare no namespace on the condition are understood as well.
    pub fn read(element: ElementRef<'_>) -> Option<Self> {
        if !element.is(ns::STREAMS, "error") {
            return None;
        }
        let condition = element.children().find_map(|child| StreamCondition::parse(child.name()));
        let text = element.child(ns::STREAM_ERRORS, "text").map(|text| text.text());
        Some(Self { condition: condition.unwrap_or(StreamCondition::UndefinedCondition), text })
    }
}
