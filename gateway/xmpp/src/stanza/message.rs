//! Messages (RFC 6121 §5).

use compact_str::CompactString;
use isthmus_model::LangText;

use super::{StanzaError, some};
use crate::element::{Attribute, Element};
use crate::payload::{ChatState, Delay, Encryption, GroupChat, Receipt};

/// The type of a message (RFC 6121 §5.2.2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageType {
    /// A single message; also what no type and an unknown type mean.
    #[default]
    Normal,
    /// One of a conversation between two.
    Chat,
    /// One of a room.
    Groupchat,
    /// One that expects no answer.
    Headline,
    /// An error.
    Error,
}

impl MessageType {
    /// The attribute's value; `None` where none is written.
    pub fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Normal => None,
            Self::Chat => Some("chat"),
            Self::Groupchat => Some("groupchat"),
            Self::Headline => Some("headline"),
            Self::Error => Some("error"),
        }
    }

    /// Reads the attribute's value.
    pub fn parse(value: Option<&str>) -> Self {
        match value {
            Some("chat") => Self::Chat,
            Some("groupchat") => Self::Groupchat,
            Some("headline") => Self::Headline,
            Some("error") => Self::Error,
            _ => Self::Normal,
        }
    }
}

/// A message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Who sends it.
    pub from: Option<CompactString>,
    /// Whom it is for.
    pub to: Option<CompactString>,
    /// Its identifier.
    pub id: Option<CompactString>,
    /// The type.
    pub kind: MessageType,
    /// The language of what names none itself.
    pub lang: Option<CompactString>,
    /// The texts, usually one, each with the language in force for it.
    pub bodies: Vec<LangText>,
    /// The subjects, each with the language in force for it.
    pub subjects: Vec<LangText>,
    /// The conversation it belongs to.
    pub thread: Option<CompactString>,
    /// The sender's chat state (XEP-0085).
    pub chat_state: Option<ChatState>,
    /// What it says about receipts (XEP-0184).
    pub receipt: Option<Receipt>,
    /// When it was first sent, if it was held back (XEP-0203).
    pub delay: Option<Delay>,
    /// The message that this one corrects (XEP-0308).
    pub replace: Option<CompactString>,
    /// The error, when the type says so.
    pub error: Option<StanzaError>,
    /// Everything else, unchanged.
    pub payloads: Vec<Element>,
    /// Attributes other than those above, unchanged.
    pub other_attributes: Vec<Attribute>,
}

impl Message {
    /// A message without content.
    pub fn new(kind: MessageType, from: &str, to: &str) -> Self {
        Self { kind, from: some(from), to: some(to), ..Self::default() }
    }

    /// Sets the identifier.
    #[must_use]
    pub fn with_id(mut self, id: &str) -> Self {
        self.id = some(id);
        self
    }

    /// Adds a text in the message's own language.
    #[must_use]
    pub fn with_body(mut self, text: impl Into<String>) -> Self {
        self.bodies.push(LangText { lang: self.lang.clone(), text: text.into() });
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

    /// The text to carry where only one can be: that in the message's own language, else the first.
    pub fn body(&self) -> Option<&LangText> {
        self.bodies.iter().find(|body| body.lang == self.lang).or_else(|| self.bodies.first())
    }

    /// The subject to carry where only one can be.
    pub fn subject(&self) -> Option<&LangText> {
        self.subjects.iter().find(|subject| subject.lang == self.lang).or_else(|| self.subjects.first())
    }

    /// How it is encrypted, if it is.
    pub fn encryption(&self) -> Option<Encryption> {
        Encryption::of(self)
    }

    /// What it has to do with multi-user chat, if anything.
    pub fn group_chat(&self) -> Option<GroupChat> {
        GroupChat::of(self)
    }

    /// True if there is nothing in it that a person reads: a chat state, a receipt, hints.
    pub fn is_signal(&self) -> bool {
        let carries = |payload: &Element| !matches!(payload.ns().as_str(), crate::ns::HINTS | crate::ns::SID);
        self.bodies.is_empty()
            && self.subjects.is_empty()
            && (self.chat_state.is_some() || self.receipt.is_some() || !self.payloads.is_empty())
            && !self.payloads.iter().any(carries)
    }

    pub(super) fn error_reply(&self, error: StanzaError) -> Option<Self> {
        if matches!(self.kind, MessageType::Error | MessageType::Headline) || self.is_signal() {
            return None;
        }
        Some(Self {
            kind: MessageType::Error,
            from: self.to.clone(),
            to: self.from.clone(),
            id: self.id.clone(),
            error: Some(error),
            ..Self::default()
        })
    }
}
