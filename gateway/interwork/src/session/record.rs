//! What is stored of a session.

use std::collections::VecDeque;

use isthmus_model::{BareAddress, EpochMillis};
use isthmus_sip::Message;
use isthmus_sip::dialog::Dialog;
use minicbor::{Decode, Encode};

use super::{OutgoingMessage, SessionConfig};
use crate::pager::OutgoingText;

/// Stored bytes that this version cannot read.
#[derive(Debug, thiserror::Error)]
#[error("stored session record cannot be read: {0}")]
pub struct SessionRecordError(#[from] minicbor::decode::Error);

/// The session of a pair; lost, the next message opens a new one.
#[derive(Debug, Clone, PartialEq, Default, Encode, Decode)]
pub struct SessionRecord {
    /// The bare JIDs of the local and the remote user: whoever finds only this record knows whose it is.
    #[n(0)]
    pub(super) users: (String, String),
    /// The dialogs, oldest first.
    #[n(1)]
    pub(super) calls: Vec<Call>,
    /// Messages that were never sent, or not accepted.
    #[n(2)]
    pub(super) queue: VecDeque<Waiting>,
    /// The full JID that last sent a message.
    #[n(3)]
    pub(super) device: Option<String>,
    /// The local client has used chat states.
    #[n(4)]
    pub(super) chat_states: bool,
    /// The chat state that the local client knows.
    #[n(5)]
    pub(super) told_state: Option<String>,
    /// When the peer's typing is no longer believed.
    #[n(6)]
    pub(super) typing_until: Option<u64>,
    /// Whether the local user types, to be told to the peer.
    #[n(7)]
    pub(super) typing: Option<bool>,
    /// The thread of the conversation.
    #[n(8)]
    pub(super) thread: Option<String>,
    /// The subject of an INVITE, for the next stanza.
    #[n(9)]
    pub(super) subject: Option<String>,
    /// The local user left: end the session when nothing is waiting.
    #[n(10)]
    pub(super) leaving: bool,
    /// Whether the peer is told that a message of its failed after it was accepted; once in a conversation.
    #[n(11)]
    pub(super) notice: Option<Notice>,
}

/// Word to the peer that a message could not be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub(super) enum Notice {
    /// It is to be sent.
    #[n(0)]
    Due,
    /// It was sent.
    #[n(1)]
    Sent,
}

impl SessionRecord {
    /// Writes the record.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Writing to a Vec cannot fail.
        let _ = minicbor::encode(self, &mut bytes);
        bytes
    }

    /// Reads a record.
    ///
    /// # Errors
    ///
    /// [`SessionRecordError`] when the bytes are of another kind or damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SessionRecordError> {
        Ok(minicbor::decode(bytes)?)
    }

    /// The local and the remote user; `None` when the record does not name them.
    pub fn users(&self) -> Option<(BareAddress, BareAddress)> {
        let (local, remote) = &self.users;
        Some((BareAddress::from_jid(local).ok()?, BareAddress::from_jid(remote).ok()?))
    }

    /// Tells whether a request of the peer belongs to one of its dialogs.
    pub fn has_dialog_of(&self, request: &Message) -> bool {
        self.calls.iter().any(|call| call.dialog.matches_request(request))
    }

    /// Forgets what belongs to one conversation. Waiting messages are for the next one.
    pub(super) fn end_conversation(&mut self) {
        self.device = None;
        self.chat_states = false;
        self.told_state = None;
        self.typing_until = None;
        self.typing = None;
        self.thread = None;
        self.subject = None;
        self.leaving = false;
        self.notice = None;
    }

    /// Tells whether one more message may wait.
    pub(super) fn has_room(&self, message: &Waiting, config: &SessionConfig) -> bool {
        let waiting: usize = self.queue.iter().map(Waiting::bytes).sum();
        self.queue.is_empty()
            || (self.queue.len() < config.queue_messages
                && waiting.saturating_add(message.bytes()) <= config.queue_bytes)
    }
}

/// How far a dialog is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) enum Phase {
    /// Our INVITE is unanswered.
    #[n(0)]
    Inviting {
        /// When to give up.
        #[n(0)]
        until: u64,
        /// A provisional answer has come.
        #[n(1)]
        rings: bool,
    },
    /// Our INVITE is unanswered and no longer wanted.
    #[n(1)]
    Cancelled {
        /// When to forget it.
        #[n(0)]
        until: u64,
        /// CANCEL still waits for a provisional answer.
        #[n(1)]
        due: bool,
    },
    /// We answered 200 and wait for ACK.
    #[n(2)]
    Unacknowledged {
        /// When to give up.
        #[n(0)]
        until: u64,
    },
    /// Messages can go.
    #[n(3)]
    Up,
    /// One side said BYE.
    #[n(4)]
    Over {
        /// When to forget it.
        #[n(0)]
        until: u64,
    },
}

/// One dialog of the session.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) struct Call {
    #[n(0)]
    pub(super) dialog: Dialog,
    #[n(1)]
    pub(super) phase: Phase,
    /// Identifies our session description.
    #[n(2)]
    pub(super) sdp_id: u64,
    /// Our 200 had an offer; the ACK has to bring the answer.
    #[n(3)]
    pub(super) offered: bool,
    /// The stream was removed: BYE after the ACK.
    #[n(4)]
    pub(super) ends_on_ack: bool,
    /// The thread of the stanza that opened the dialog.
    #[n(5)]
    pub(super) thread: Option<String>,
    /// The peer takes notices of typing.
    #[n(6)]
    pub(super) takes_typing: bool,
    /// Whether the peer was last told that somebody types.
    #[n(7)]
    pub(super) told_typing: bool,
    /// When there was last traffic.
    #[n(8)]
    pub(super) active_at: u64,
    /// The MESSAGE that has no answer yet.
    #[n(9)]
    pub(super) flight: Option<Flight>,
    /// The number of the peer's last INVITE, which its ACK has too (RFC 3261 §13.2.2.4).
    #[n(10)]
    pub(super) invite: Option<u32>,
}

impl Call {
    pub(super) fn new(dialog: Dialog, phase: Phase, sdp_id: u64, now: EpochMillis) -> Self {
        Self {
            dialog,
            phase,
            sdp_id,
            offered: false,
            ends_on_ack: false,
            thread: None,
            takes_typing: false,
            told_typing: false,
            active_at: now.0,
            flight: None,
            invite: None,
        }
    }

    /// When something about it is due, milliseconds since the epoch.
    pub(super) fn deadline(&self, config: &SessionConfig) -> Option<u64> {
        let flight = self.flight.as_ref().map(|flight| flight.until);
        let phase = match self.phase {
            Phase::Inviting { until, .. } | Phase::Cancelled { until, .. } | Phase::Unacknowledged { until } => {
                Some(until)
            }
            // What is outstanding is traffic.
            Phase::Up => flight.is_none().then(|| EpochMillis(self.active_at).plus(config.idle).0),
            // The answer to a MESSAGE is awaited beyond the dialog's end.
            Phase::Over { until } => flight.is_none().then_some(until),
        };
        phase.into_iter().chain(flight).min()
    }
}

/// A MESSAGE without answer.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) struct Flight {
    #[n(0)]
    pub(super) cseq: u32,
    /// When to stop waiting.
    #[n(1)]
    pub(super) until: u64,
    /// What it carries; `None` for a notice of ours.
    #[n(2)]
    pub(super) message: Option<Waiting>,
    /// It tells whether somebody types.
    #[n(3)]
    pub(super) typing: Option<bool>,
}

/// A message of the local user.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) struct Waiting {
    #[n(0)]
    pub(super) id: Option<String>,
    #[n(1)]
    pub(super) from: String,
    #[n(2)]
    pub(super) to: String,
    #[n(3)]
    pub(super) body: String,
    #[n(4)]
    pub(super) lang: Option<String>,
    #[n(5)]
    pub(super) subject: Option<String>,
    #[n(6)]
    pub(super) thread: Option<String>,
    #[n(7)]
    pub(super) wants_receipt: bool,
    /// The peer did not know its dialog; it is sent once more and no more.
    #[n(8)]
    pub(super) resent: bool,
}

impl Waiting {
    pub(super) fn text(&self) -> OutgoingText<'_> {
        OutgoingText {
            text: &self.body,
            lang: self.lang.as_deref(),
            subject: self.subject.as_deref(),
            thread: self.thread.as_deref(),
        }
    }

    fn bytes(&self) -> usize {
        let optional = [&self.id, &self.lang, &self.subject, &self.thread];
        let optional: usize = optional.iter().filter_map(|text| text.as_ref().map(String::len)).sum();
        self.body.len() + optional
    }

    pub(super) fn into_outgoing(self) -> OutgoingMessage {
        OutgoingMessage {
            id: self.id,
            from: self.from,
            to: self.to,
            body: Some(self.body),
            lang: self.lang,
            subject: self.subject,
            thread: self.thread,
            wants_receipt: self.wants_receipt,
            chat_state: None,
        }
    }
}
