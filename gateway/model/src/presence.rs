//! Presence as both protocols can express it.

use compact_str::CompactString;

use crate::time::EpochMillis;

/// The `<show/>` of an available resource; its absence is plain availability (RFC 6121 §4.7.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Show {
    /// Free for chat.
    Chat,
    /// Temporarily away.
    Away,
    /// Away for an extended period.
    Xa,
    /// Do not disturb.
    Dnd,
}

impl Show {
    /// Returns the token of RFC 6121.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Away => "away",
            Self::Xa => "xa",
            Self::Dnd => "dnd",
        }
    }

    /// Reads the token of RFC 6121; anything else is `None`.
    pub fn parse(token: &str) -> Option<Self> {
        match token {
            "chat" => Some(Self::Chat),
            "away" => Some(Self::Away),
            "xa" => Some(Self::Xa),
            "dnd" => Some(Self::Dnd),
            _ => None,
        }
    }
}

/// The priority of a resource, -128 to 127 (RFC 6121 §4.7.2.3).
pub type Priority = i8;

/// A human-readable text with its optional language tag.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LangText {
    /// The `xml:lang`, `None` when none is in force.
    pub lang: Option<CompactString>,
    /// The text.
    pub text: String,
}

impl LangText {
    /// Makes a text without a language.
    pub fn plain(text: impl Into<String>) -> Self {
        Self { lang: None, text: text.into() }
    }
}

/// What one resource (XMPP) or tuple (PIDF) of a presentity says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourcePresence {
    /// The resource or tuple name; empty for presence of the bare address.
    pub resource: CompactString,
    /// Whether the resource can be reached.
    pub available: bool,
    /// The availability detail.
    pub show: Option<Show>,
    /// Status texts, one per language, in order.
    pub statuses: Vec<LangText>,
    /// The priority, if given.
    pub priority: Option<Priority>,
    /// When this state began, as the presentity's side stamped it.
    pub stamp: Option<EpochMillis>,
    /// When it was received here.
    pub received: EpochMillis,
}

impl ResourcePresence {
    /// Makes the plain state of a resource that is available or not.
    pub fn new(resource: &str, available: bool, received: EpochMillis) -> Self {
        Self {
            resource: CompactString::from(resource),
            available,
            show: None,
            statuses: Vec::new(),
            priority: None,
            stamp: None,
            received,
        }
    }
}
