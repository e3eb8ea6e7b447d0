//! Stanzas as the gateway reads and writes them (RFC 6120 §8, RFC 6121).
//!
//! Reading is tolerant of clumsy servers: what is unknown stays in `payloads` and `other_attributes` and is
//! written again as it came. Addresses are the strings of the wire; `isthmus_model::address` maps them.

mod error;
mod iq;
mod message;
mod presence;
mod read;
mod write;

pub use error::{ErrorCondition, ErrorType, StanzaError};
pub use iq::{Iq, IqKind};
pub use message::{Message, MessageType};
pub use presence::{Presence, PresenceType};
pub use read::{StanzaProblem, UnreadableStanza};

use compact_str::CompactString;

/// One stanza.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stanza {
    /// A message.
    Message(Message),
    /// A presence.
    Presence(Presence),
    /// A request or its answer.
    Iq(Iq),
}

impl Stanza {
    /// Who sends it.
    pub fn from(&self) -> Option<&str> {
        match self {
            Self::Message(Message { from, .. }) | Self::Presence(Presence { from, .. }) | Self::Iq(Iq { from, .. }) => {
                from.as_deref()
            }
        }
    }

    /// Whom it is for.
    pub fn to(&self) -> Option<&str> {
        match self {
            Self::Message(Message { to, .. }) | Self::Presence(Presence { to, .. }) | Self::Iq(Iq { to, .. }) => {
                to.as_deref()
            }
        }
    }

    /// Its identifier.
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Message(Message { id, .. }) | Self::Presence(Presence { id, .. }) => id.as_deref(),
            Self::Iq(Iq { id, .. }) => Some(id),
        }
    }

    /// The error inside, when it is of type error.
    pub fn error(&self) -> Option<&StanzaError> {
        match self {
            Self::Message(Message { error, .. }) | Self::Presence(Presence { error, .. }) => error.as_ref(),
            Self::Iq(Iq { kind: IqKind::Error { error, .. }, .. }) => Some(error),
            Self::Iq(_) => None,
        }
    }

    /// Makes the error that answers this stanza, or `None` where none may be sent.
    ///
    /// Errors, results and stanzas without a sender are never answered; neither are headlines, messages that
    /// are only a chat state or a receipt, `unavailable` and probes. The answer has swapped addresses and
    /// the same id and echoes nothing (server-to-server specification §11).
    pub fn error_reply(&self, error: StanzaError) -> Option<Self> {
        self.from()?;
        match self {
            Self::Message(message) => message.error_reply(error).map(Self::Message),
            Self::Presence(presence) => presence.error_reply(error).map(Self::Presence),
            Self::Iq(iq) => iq.error_reply(error).map(Self::Iq),
        }
    }
}

impl From<Message> for Stanza {
    fn from(message: Message) -> Self {
        Self::Message(message)
    }
}

impl From<Presence> for Stanza {
    fn from(presence: Presence) -> Self {
        Self::Presence(presence)
    }
}

impl From<Iq> for Stanza {
    fn from(iq: Iq) -> Self {
        Self::Iq(iq)
    }
}

/// Shortens the making of optional strings.
#[expect(clippy::unnecessary_wraps, reason = "the fields are optional")]
fn some(text: &str) -> Option<CompactString> {
    Some(CompactString::from(text))
}

#[cfg(test)]
mod tests;
