//! Presence (RFC 6121 §3, §4).

use compact_str::CompactString;
use isthmus_model::presence::Priority;
use isthmus_model::{LangText, Show};

use super::{StanzaError, some};
use crate::element::{Attribute, Element};
use crate::payload::Delay;

/// The type of a presence (RFC 6121 §4.7.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PresenceType {
    /// No type: available.
    #[default]
    Available,
    /// No longer available.
    Unavailable,
    /// Wants to see the recipient's presence.
    Subscribe,
    /// Lets the recipient see the sender's.
    Subscribed,
    /// No longer wants to.
    Unsubscribe,
    /// No longer lets, or refuses.
    Unsubscribed,
    /// Asks for the current state.
    Probe,
    /// An error.
    Error,
}

impl PresenceType {
    /// The attribute's value; `None` where none is written.
    pub fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Available => None,
            Self::Unavailable => Some("unavailable"),
            Self::Subscribe => Some("subscribe"),
            Self::Subscribed => Some("subscribed"),
            Self::Unsubscribe => Some("unsubscribe"),
            Self::Unsubscribed => Some("unsubscribed"),
            Self::Probe => Some("probe"),
            Self::Error => Some("error"),
        }
    }

    /// Reads the attribute's value; one that is unknown is `None`.
    pub fn parse(value: Option<&str>) -> Option<Self> {
        Some(match value {
            None | Some("available" | "") => Self::Available,
            Some("unavailable") => Self::Unavailable,
            Some("subscribe") => Self::Subscribe,
            Some("subscribed") => Self::Subscribed,
            Some("unsubscribe") => Self::Unsubscribe,
            Some("unsubscribed") => Self::Unsubscribed,
            Some("probe") => Self::Probe,
            Some("error") => Self::Error,
            Some(_) => return None,
        })
    }
}

/// A presence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Presence {
    /// Who sends it.
    pub from: Option<CompactString>,
    /// Whom it is for.
    pub to: Option<CompactString>,
    /// Its identifier.
    pub id: Option<CompactString>,
    /// The type.
    pub kind: PresenceType,
    /// The language of what names none itself.
    pub lang: Option<CompactString>,
    /// The availability detail. jabberd2 leaves one on `unavailable`, where it means nothing.
    pub show: Option<Show>,
    /// The status texts, each with the language in force for it.
    pub statuses: Vec<LangText>,
    /// The priority of the resource.
    pub priority: Option<Priority>,
    /// When the state began, if it is told later (XEP-0203).
    pub delay: Option<Delay>,
    /// The sender's name for people (XEP-0172).
    pub nick: Option<String>,
    /// The error, when the type says so.
    pub error: Option<StanzaError>,
    /// Everything else, unchanged.
    pub payloads: Vec<Element>,
    /// Attributes other than those above, unchanged.
    pub other_attributes: Vec<Attribute>,
}

impl Presence {
    /// A presence without content.
    pub fn new(kind: PresenceType, from: &str, to: &str) -> Self {
        Self { kind, from: some(from), to: some(to), ..Self::default() }
    }

    /// Sets the identifier.
    #[must_use]
    pub fn with_id(mut self, id: &str) -> Self {
        self.id = some(id);
        self
    }

    /// Who sends it.
    pub fn from(&self) -> Option<&str> {
        self.from.as_deref()
    }

    /// Whom it is for.
    pub fn to(&self) -> Option<&str> {
        self.to.as_deref()
    }

    pub(super) fn error_reply(&self, error: StanzaError) -> Option<Self> {
        if matches!(self.kind, PresenceType::Error | PresenceType::Unavailable | PresenceType::Probe) {
            return None;
        }
        Some(Self {
            kind: PresenceType::Error,
            from: self.to.clone(),
            to: self.from.clone(),
            id: self.id.clone(),
            error: Some(error),
            ..Self::default()
        })
    }
}
