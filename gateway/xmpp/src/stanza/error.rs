//! Stanza errors (RFC 6120 §8.3).

use compact_str::CompactString;
use isthmus_model::LangText;

use crate::element::Element;

/// What the sender may do about an error (RFC 6120 §8.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorType {
    /// Provide credentials and try again.
    Auth,
    /// Do not try again.
    Cancel,
    /// Go on; it was a warning.
    Continue,
    /// Change what was sent and try again.
    Modify,
    /// Try again later.
    Wait,
}

impl ErrorType {
    /// The attribute's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Cancel => "cancel",
            Self::Continue => "continue",
            Self::Modify => "modify",
            Self::Wait => "wait",
        }
    }

    /// Reads the attribute's value.
    pub fn parse(value: &str) -> Option<Self> {
        [Self::Auth, Self::Cancel, Self::Continue, Self::Modify, Self::Wait].into_iter().find(|t| t.as_str() == value)
    }
}

macro_rules! conditions {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $kind:ident, $legacy:literal;)*) => {
        /// The condition of a stanza error (RFC 6120 §8.3.3).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCondition {
            $($(#[$doc])* $variant,)*
        }

        impl ErrorCondition {
            /// All conditions, in the order of the RFC.
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

            /// The error type that the RFC associates with the condition; where it leaves a choice, the first.
            pub fn usual_type(self) -> ErrorType {
                match self {
                    $(Self::$variant => ErrorType::$kind,)*
                }
            }

            /// Reads the numeric code of servers older than RFC 3920 (XEP-0086).
            pub fn from_legacy_code(code: &str) -> Option<Self> {
                let code: u16 = code.parse().ok()?;
                // several conditions share a code; the first in the table is the most general one
                [$((Self::$variant, $legacy)),*].into_iter().find(|(_, legacy)| *legacy == code).map(|(c, _)| c)
            }
        }
    };
}

conditions! {
    /// XML that cannot be processed.
    BadRequest = "bad-request", Modify, 400;
    /// Something of that name exists.
    Conflict = "conflict", Cancel, 409;
    /// The feature is not there.
    FeatureNotImplemented = "feature-not-implemented", Cancel, 501;
    /// The sender may not do this.
    Forbidden = "forbidden", Auth, 403;
    /// Can no longer be found at this address; [`StanzaError::uri`] may name the new one.
    Gone = "gone", Cancel, 302;
    /// A fault at the receiver.
    InternalServerError = "internal-server-error", Cancel, 500;
    /// The address or item does not exist.
    ItemNotFound = "item-not-found", Cancel, 404;
    /// An address that is malformed.
    JidMalformed = "jid-malformed", Modify, 0;
    /// Understood, but outside what the receiver accepts.
    NotAcceptable = "not-acceptable", Modify, 406;
    /// Nobody may do this.
    NotAllowed = "not-allowed", Cancel, 405;
    /// Credentials are needed.
    NotAuthorized = "not-authorized", Auth, 401;
    /// A policy of the receiver is violated.
    PolicyViolation = "policy-violation", Modify, 0;
    /// The recipient is not there for the moment.
    RecipientUnavailable = "recipient-unavailable", Wait, 0;
    /// Ask at [`StanzaError::uri`] for the time being.
    Redirect = "redirect", Modify, 0;
    /// Registration is needed.
    RegistrationRequired = "registration-required", Auth, 407;
    /// The remote server does not exist.
    RemoteServerNotFound = "remote-server-not-found", Cancel, 0;
    /// The remote server cannot be reached.
    RemoteServerTimeout = "remote-server-timeout", Wait, 504;
    /// Too busy.
    ResourceConstraint = "resource-constraint", Wait, 0;
    /// The service is not offered.
    ServiceUnavailable = "service-unavailable", Cancel, 503;
    /// A subscription is needed.
    SubscriptionRequired = "subscription-required", Auth, 0;
    /// Something else.
    UndefinedCondition = "undefined-condition", Modify, 0;
    /// Not at this moment.
    UnexpectedRequest = "unexpected-request", Wait, 0;
}

/// A stanza error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StanzaError {
    /// What the sender may do about it.
    pub kind: ErrorType,
    /// What happened.
    pub condition: ErrorCondition,
    /// The text for people, if any.
    pub text: Option<LangText>,
    /// Who detected it, if that is told.
    pub by: Option<CompactString>,
    /// The new address of [`ErrorCondition::Gone`] and [`ErrorCondition::Redirect`].
    pub uri: Option<String>,
    /// Conditions of applications, as they came.
    pub others: Vec<Element>,
}

impl StanzaError {
    /// An error of the condition's usual type, without text.
    pub fn new(condition: ErrorCondition) -> Self {
        Self { kind: condition.usual_type(), condition, text: None, by: None, uri: None, others: Vec::new() }
    }

    /// Sets the type.
    #[must_use]
    pub fn with_type(mut self, kind: ErrorType) -> Self {
        self.kind = kind;
        self
    }

    /// Sets the text, without a language.
    #[must_use]
    pub fn with_text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(LangText::plain(text));
        self
    }

    /// Sets who detected it.
    #[must_use]
    pub fn with_by(mut self, by: &str) -> Self {
        self.by = Some(CompactString::from(by));
        self
    }

    /// Sets the new address.
    #[must_use]
    pub fn with_uri(mut self, uri: impl Into<String>) -> Self {
        self.uri = Some(uri.into());
        self
    }
}
