//! Messages between one local user and one remote user in session mode: INVITE, MESSAGE in the dialog, BYE
//! (interworking specification §5.1 to §5.8).
//!
//! A pair has one session that both sides use. It may consist of several dialogs for a while: ours that crossed the
//! peer's, an older one beside a newer one, one that is being closed. A `Call` is such a dialog.
//!
//! [`Session`] is sans-io: one input, then take [`Session::poll_output`] until `None`, then store
//! [`Session::record`] before the outputs are performed, and come back at [`Session::next_deadline`]. Who may talk to
//! whom is decided before; this module never asks.

mod callee;
mod caller;
mod offer;
mod record;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use isthmus_model::{BareAddress, EpochMillis, PairId};
use isthmus_sip::sdp::SdpLimits;
use isthmus_sip::{Message, StatusCode, WriteError};
use isthmus_xmpp::payload::{ChatState, Receipt};
use isthmus_xmpp::{ErrorCondition, MessageType, StanzaError};

use crate::Dialect;
use crate::address::Spelling;
use crate::content::ContentLimits;
use crate::error_map::{self, LocalFailure};
use crate::pager::{self, FromXmpp, MessageRefusal, OutgoingText};

use record::{Call, Phase, Waiting};
pub use record::{SessionRecord, SessionRecordError};

/// How much longer than its transaction a request is waited for, when the process that sent it may be gone.
const GRACE: Duration = Duration::from_secs(8);

/// What the session machine needs to know from configuration.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// The dialect of the peer.
    pub dialect: Dialect,
    /// The value of our Contact in dialogs of this local user, with angle brackets.
    pub contact: String,
    /// The address in session descriptions; it routes nothing.
    pub sdp_address: IpAddr,
    /// The port in session descriptions; it routes nothing.
    pub sdp_port: u16,
    /// Our name in Warning headers: a host.
    pub agent: String,
    /// A session without traffic ends after this. Default 600 s.
    pub idle: Duration,
    /// How long the peer may ring before our INVITE is cancelled. Default 60 s.
    pub answer_wait: Duration,
    /// 64·T1 of the SIP timers: when a transaction has failed.
    pub transaction_timeout: Duration,
    /// The most messages that wait for a session. Default 20.
    pub queue_messages: usize,
    /// The most bytes of messages that wait for a session. Default 64 KiB.
    pub queue_bytes: usize,
    /// The most dialogs of one pair, those that are being closed included. Default 8.
    pub max_dialogs: usize,
    /// A 200 to a MESSAGE counts as the receipt that its sender asked for.
    pub receipt_on_200: bool,
    /// Tell each side when the other one types.
    pub typing: bool,
    /// The end of typing is `paused` for XMPP clients instead of `active`.
    pub idle_as_paused: bool,
    /// Open a session for a message when there is none; else the message is handed back as [`Output::Pager`].
    pub new_sessions: bool,
    /// Where the peer refuses sessions as such, hand the messages back as [`Output::Pager`].
    pub pager_fallback: bool,
    /// Bounds of received messages.
    pub content: ContentLimits,
    /// Bounds of received session descriptions.
    pub sdp: SdpLimits,
    /// The spelling of the remote user's name that the peer uses, if it is known.
    pub spelling: Option<Spelling>,
}

impl SessionConfig {
    /// The defaults for a dialect; `contact` is with angle brackets.
    pub fn new(dialect: Dialect, contact: String, sdp_address: IpAddr, sdp_port: u16, agent: String) -> Self {
        Self {
            dialect,
            contact,
            sdp_address,
            sdp_port,
            agent,
            idle: Duration::from_mins(10),
            answer_wait: Duration::from_mins(1),
            transaction_timeout: Duration::from_secs(32),
            queue_messages: 20,
            queue_bytes: 64 * 1024,
            max_dialogs: 8,
            receipt_on_200: true,
            typing: true,
            idle_as_paused: false,
            new_sessions: true,
            pager_fallback: false,
            content: ContentLimits::default(),
            sdp: SdpLimits::default(),
            spelling: None,
        }
    }
}

/// A message of the local user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingMessage {
    /// The stanza's id; without one there are no receipts.
    pub id: Option<String>,
    /// The full JID that sent it and gets its errors.
    pub from: String,
    /// The JID that it was sent to, from which its errors come.
    pub to: String,
    /// The text; `None` for a chat state alone.
    pub body: Option<String>,
    /// The language of the text.
    pub lang: Option<String>,
    /// The subject.
    pub subject: Option<String>,
    /// The thread.
    pub thread: Option<String>,
    /// The sender asks for a receipt.
    pub wants_receipt: bool,
    /// The sender's chat state.
    pub chat_state: Option<ChatState>,
}

impl OutgoingMessage {
    /// The text with what belongs to it; `None` for a chat state alone.
    pub fn text(&self) -> Option<OutgoingText<'_>> {
        let Self { body, lang, subject, thread, .. } = self;
        let (lang, subject, thread) = (lang.as_deref(), subject.as_deref(), thread.as_deref());
        Some(OutgoingText { text: body.as_deref()?, lang, subject, thread })
    }

    /// Reads a stanza; `None` when there is nothing in it for a SIP user.
    ///
    /// # Errors
    ///
    /// [`MessageRefusal`] for what cannot be sent at all.
    pub fn of(stanza: &isthmus_xmpp::Message) -> Result<Option<Self>, MessageRefusal> {
        let text = match pager::from_xmpp(stanza)? {
            FromXmpp::Text(text) => {
                text.check_session_size()?;
                Some(text)
            }
            FromXmpp::ChatState(_) => None,
            FromXmpp::Nothing => return Ok(None),
        };
        let (Some(from), Some(to)) = (stanza.from(), stanza.to()) else { return Ok(None) };
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Ok(Some(Self {
            id: owned(stanza.id.as_deref()),
            from: from.to_owned(),
            to: to.to_owned(),
            body: text.map(|text| text.text.to_owned()),
            lang: owned(text.and_then(|text| text.lang)),
            subject: owned(text.and_then(|text| text.subject)),
            thread: owned(stanza.thread.as_deref()),
            wants_receipt: stanza.receipt == Some(Receipt::Request),
            chat_state: stanza.chat_state,
        }))
    }
}

/// What a request of ours was for; it comes back with the outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// The INVITE of the dialog with this tag of ours.
    Invite {
        /// Our tag.
        local_tag: String,
    },
    /// A MESSAGE in the dialog with this tag of ours.
    Message {
        /// Our tag.
        local_tag: String,
        /// Its `CSeq` number.
        cseq: u32,
        /// Until when its answer is awaited, milliseconds since the epoch.
        until: u64,
        /// The id of the stanza that it carries, if it carries one.
        stanza_id: Option<String>,
    },
    /// The BYE of the dialog with this tag of ours.
    Bye {
        /// Our tag.
        local_tag: String,
    },
}

/// What is to be done.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "outputs are few and short-lived")]
pub enum Output {
    /// Send a request to the peer.
    Request {
        /// The request, without Via.
        request: Bytes,
        /// The dialog's next hop; `None` outside of dialogs.
        hop: Option<String>,
        /// What it is for.
        purpose: Purpose,
    },
    /// Acknowledge the 2xx that was just handed in.
    Ack {
        /// The ACK, without Via.
        request: Bytes,
        /// The dialog's next hop.
        hop: String,
        /// Our tag, which names the INVITE.
        local_tag: String,
    },
    /// Cancel an INVITE; a provisional answer to it has come.
    CancelInvite {
        /// Our tag, which names the INVITE.
        local_tag: String,
    },
    /// Send a message to the local user.
    ToLocal(isthmus_xmpp::Message),
    /// Send this message outside of dialogs.
    Pager(OutgoingMessage),
    /// The peer refused sessions as such, which is worth remembering.
    NoSessions,
    /// A request of ours could not be written: an administrator should know.
    Alarm(&'static str),
}

/// The final outcome of a request of ours.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// A final response.
    Answer(&'a Message),
    /// No answer in time, or the peer could not be reached.
    Failed(LocalFailure),
}

impl Outcome<'_> {
    fn status(&self) -> Option<StatusCode> {
        match self {
            Outcome::Answer(message) => message.status(),
            Outcome::Failed(_) => None,
        }
    }

    fn error(&self) -> StanzaError {
        match self {
            Outcome::Answer(message) => error_map::to_xmpp(message),
            Outcome::Failed(failure) => error_map::failure_to_xmpp(*failure),
        }
    }
}

/// A whole answer to a request of the peer.
pub type Answer = Result<Bytes, WriteError>;

/// A message of the peer on its way to the local user. When it is delivered, or failed to be, the MESSAGE is answered
/// with [`pager::accept`] or a [`error_map::SipAnswer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The stanza, with the id that the caller gave.
    pub stanza: isthmus_xmpp::Message,
}

/// What every input brings along.
pub type Context<'a> = crate::context::Context<'a, SessionConfig>;

impl Context<'_> {
    /// When something that starts now is over.
    fn after(&self, wait: Duration) -> u64 {
        self.now.epoch.plus(wait).0
    }

    /// When a transaction that starts now has failed, even if nobody is left to say so.
    fn transaction_end(&self) -> u64 {
        self.after(self.config.transaction_timeout + GRACE)
    }

    fn stanza_id(&mut self) -> String {
        format!("{:016x}", self.entropy.next_u64())
    }
}

/// The messages of one pair.
#[derive(Debug)]
pub struct Session {
    local: BareAddress,
    remote: BareAddress,
    id: PairId,
    record: SessionRecord,
    outputs: VecDeque<Output>,
}

impl Session {
    /// Makes the machine from what is stored; nothing stored is a pair without session.
    pub fn new(local: BareAddress, remote: BareAddress, record: Option<SessionRecord>) -> Self {
        let id = PairId::of(&local, &remote);
        let mut record = record.unwrap_or_default();
        record.users = (local.to_jid(), remote.to_jid());
        Self { local, remote, id, record, outputs: VecDeque::new() }
    }

    /// The local user.
    pub fn local(&self) -> &BareAddress {
        &self.local
    }

    /// The remote user.
    pub fn remote(&self) -> &BareAddress {
        &self.remote
    }

    /// The record that outlives the input: dialogs, waiting messages, deadlines.
    pub fn record(&self) -> &SessionRecord {
        &self.record
    }

    /// Takes the next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Tells whether there is nothing left to remember.
    pub fn is_idle(&self) -> bool {
        self.record.calls.is_empty() && self.record.queue.is_empty()
    }

    /// Tells whether a dialog exists in which messages can go.
    pub fn is_up(&self) -> bool {
        self.record.calls.iter().any(|call| call.phase == Phase::Up)
    }

    /// Tells whether a message has a session to wait for or to go into.
    fn has_session(&self) -> bool {
        !self.record.queue.is_empty() || self.record.calls.iter().any(caller::is_usable)
    }

    /// Tells whether a request of the peer belongs to a dialog of this session.
    pub fn knows_dialog(&self, request: &Message) -> bool {
        self.find(request).is_some()
    }

    /// Tells when to call [`Self::handle_timeout`].
    pub fn next_deadline(&self, config: &SessionConfig) -> Option<EpochMillis> {
        if self.is_to_pump() {
            // What was withdrawn waits for nothing.
            return self.record.calls.iter().map(|call| call.active_at).max().or(Some(0)).map(EpochMillis);
        }
        let calls = self.record.calls.iter().filter_map(|call| call.deadline(config));
        calls.chain(self.record.typing_until).min().map(EpochMillis)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, ctx: &mut Context<'_>) {
        let now = ctx.epoch().0;
        if self.record.typing_until.is_some_and(|at| at <= now) {
            self.tell_typing_ended(ctx);
        }
        let due = |call: &Call| call.deadline(ctx.config).is_some_and(|at| at <= now);
        let tags: Vec<String> =
            self.record.calls.iter().filter(|call| due(call)).map(|call| call.dialog.local_tag().to_owned()).collect();
        for tag in tags {
            self.call_is_due(ctx, &tag);
        }
        self.pump(ctx);
    }

    /// The place of the dialog that a request of the peer belongs to.
    fn find(&self, request: &Message) -> Option<usize> {
        self.record.calls.iter().position(|call| call.dialog.matches_request(request))
    }

    fn place_of(&self, local_tag: &str) -> Option<usize> {
        self.record.calls.iter().position(|call| call.dialog.local_tag() == local_tag)
    }

    fn tell(&mut self, message: isthmus_xmpp::Message) {
        self.outputs.push_back(Output::ToLocal(message));
    }

    /// Tells the sender of a message that it did not arrive.
    fn fail(&mut self, waiting: &Waiting, error: StanzaError) {
        let mut message = isthmus_xmpp::Message::new(MessageType::Error, &waiting.to, &waiting.from);
        message.id = waiting.id.as_deref().map(Into::into);
        message.error = Some(error);
        self.tell(message);
    }

    /// Where messages for the local user go: the device that last spoke here, else all.
    fn recipient(&self) -> String {
        self.record.device.clone().unwrap_or_else(|| self.local.to_jid())
    }

    /// Sends a chat state alone, unless the client does not use them or knows it already.
    fn tell_state(&mut self, ctx: &mut Context<'_>, state: ChatState) {
        let name = state.as_str();
        if !self.record.chat_states || self.record.told_state.as_deref() == Some(name) {
            return;
        }
        self.record.told_state = Some(name.to_owned());
        let (from, to) = (self.remote.to_jid(), self.recipient());
        let mut message = isthmus_xmpp::Message::new(MessageType::Chat, &from, &to).with_id(&ctx.stanza_id());
        message.chat_state = Some(state);
        message.thread = self.record.thread.as_deref().map(Into::into);
        self.tell(message);
    }

    fn forget(&mut self, place: usize) {
        if place < self.record.calls.len() {
            self.record.calls.remove(place);
        }
    }
}

fn overflow() -> StanzaError {
    StanzaError::new(ErrorCondition::ResourceConstraint).with_text("too many messages are waiting")
}
