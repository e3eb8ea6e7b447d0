//! What a link says, and why it refuses.

use bytes::Bytes;

use super::{BarrierToken, CloseReason, Delivery, RetryRange};
use crate::stanza::{Stanza, StanzaProblem};
use crate::stream::codec::EncodeError;

/// What the caller is to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Write these bytes to the connection.
    Transmit(Bytes),
    /// Close the connection once everything is written.
    Disconnect,
    /// Something happened.
    Event(Event),
}

/// What happened on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The server accepted the component: stanzas can be sent.
    Ready,
    /// A stanza arrived that is for the component's domain.
    Stanza(Box<Stanza>),
    /// What became of a message sent with a token. Each token is told exactly once.
    Delivery(BarrierToken, Delivery),
    /// Something arrived that is not handled; it has been answered where an answer is due.
    Ignored(Ignored),
    /// The link is over; always the last event.
    Closed {
        /// Why.
        reason: CloseReason,
        /// How long to wait before the next attempt; `None` when we ended it ourselves.
        retry_after: Option<RetryRange>,
    },
}

/// What is not handled on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignored {
    /// A first-level element that is no stanza, or a stanza that cannot be read.
    Unreadable(StanzaProblem),
    /// A stanza without a sender or a recipient.
    Unaddressed,
    /// A stanza for a domain that is not the component's.
    ForeignRecipient,
}

/// Why a stanza was not sent. Nothing of it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The link is not ready yet, or no longer.
    #[error("component link is not ready")]
    NotReady,
    /// It has no `from`, or one outside the component's domain.
    #[error("stanza is not from the component's domain")]
    ForeignFrom,
    /// It has no `to`.
    #[error("stanza has no recipient")]
    NoRecipient,
    /// It has no id, which a barrier needs.
    #[error("message has no id")]
    NoId,
    /// It is larger than the server would take.
    #[error("stanza exceeds {limit} bytes")]
    TooLarge {
        /// [`LinkConfig::send_max_bytes`](super::LinkConfig::send_max_bytes).
        limit: usize,
    },
    /// Too much is waiting to be written.
    #[error("component link is busy")]
    Full,
    /// Too many messages await their barrier.
    #[error("too many messages await delivery")]
    TooManyOutstanding {
        /// [`LinkConfig::outstanding_max`](super::LinkConfig::outstanding_max).
        limit: usize,
    },
    /// It cannot be written as XML.
    #[error("stanza cannot be written")]
    Encode(#[from] EncodeError),
}

impl SendError {
    /// True if the stanza itself is at fault, so that trying again is of no use.
    pub fn is_permanent(self) -> bool {
        match self {
            Self::NotReady | Self::Full | Self::TooManyOutstanding { .. } => false,
            Self::ForeignFrom | Self::NoRecipient | Self::NoId | Self::TooLarge { .. } | Self::Encode(_) => true,
        }
    }
}

/// Which timer runs out next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimerReason {
    /// The header and handshake take too long.
    Negotiation,
    /// One element takes too long to come.
    Element,
    /// A blank is due so that nobody takes the connection for dead.
    KeepAlive,
    /// Nothing was read for long; a ping is due.
    Silence,
    /// The ping was not answered.
    Ping,
    /// A barrier was not answered, or has settled.
    Barrier,
    /// The drain takes too long.
    Drain,
    /// The server does not close its side.
    Close,
}
