//! Presence between one local user and one remote user: the pair machine.
//!
//! Four independent matters make up a pair (interworking specification §2.1): whether the local user holds or
//! awaits the remote user's authorization (`auth out`), our subscription that serves it (`sub out`), what was
//! decided about the remote user as watcher (`auth in`), and the watcher's subscriptions (`subs in`, one for each
//! device). Ending one never ends another.
//!
//! [`Pair`] is sans-io: one input, then take [`Pair::poll_output`] until `None`, then store
//! [`Pair::record`] (and [`Pair::auth`] when [`Pair::auth_changed`]) before the outputs are performed, and come
//! back at [`Pair::next_deadline`]. Policy is an input ([`Access`]); this module never asks for it.

mod notifier;
mod record;
mod subscriber;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use isthmus_model::{Access, BareAddress, DenyMode, EpochMillis, PairId, ResourcePresence};
use isthmus_sip::subscription::notifier::{ExpiresLimits, NotifierConfig};
use isthmus_sip::{Message, RequestWriter, StatusCode};

use crate::Dialect;
use crate::address::Spelling;

pub use record::{AuthIn, AuthOut, AuthRecord, PairRecord, RecordError};

/// A stale answer to a local probe is refreshed from the peer after this.
const PROBE_FRESH: Duration = Duration::from_secs(60);
/// A watcher's refresh asks the local server again when what is known is older than this.
const CACHE_FRESH: Duration = Duration::from_secs(600);
/// How long the first NOTIFY after a decision waits for the state that the local server sends along.
const STATE_WAIT: Duration = Duration::from_millis(400);
/// A pending request is shown to the local user again after this.
const PROMPT_AGAIN: Duration = Duration::from_secs(24 * 3600);
/// An `unsubscribed` this soon after our probe answers the probe.
const PROBE_ANSWER: Duration = Duration::from_secs(10);
/// A subscription that failed for good is tried again after this while the user still wants it.
const DAILY: Duration = Duration::from_secs(24 * 3600);

/// What the pair machine needs to know from configuration.
#[derive(Debug, Clone)]
pub struct PairConfig {
    /// The dialect of the peer.
    pub dialect: Dialect,
    /// The value of our Contact in dialogs of this local user, with angle brackets.
    pub contact: String,
    /// The lifetime that our SUBSCRIBE asks for, in seconds.
    pub expires_ask_secs: u32,
    /// The lifetimes that we grant.
    pub expires: ExpiresLimits,
    /// The rate rule of NOTIFY.
    pub notifier: NotifierConfig,
    /// What a denied watcher sees.
    pub deny_mode: DenyMode,
    /// How long a request may stay undecided.
    pub pending_max: Duration,
    /// 64·T1 of the SIP timers.
    pub timer_n: Duration,
    /// The most subscriptions of one watcher to one user.
    pub max_dialogs: usize,
    /// The spelling of the remote user's name that the peer uses, if it is known.
    pub spelling: Option<Spelling>,
}

/// Presence that the local server sends for the local user, towards the remote user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromLocal {
    /// The user wants the contact's presence.
    Subscribe,
    /// The user no longer wants it.
    Unsubscribe,
    /// The user (or the roster) lets the watcher see.
    Subscribed,
    /// The user does not.
    Unsubscribed,
    /// The server asks for the contact's presence, on behalf of a full or bare address.
    Probe,
    /// A resource's state, or `unavailable` of the bare address.
    State(ResourcePresence),
}

/// Presence to be sent to the local user, from the remote user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToLocal {
    /// The watcher wants to see; with its display name, if it gave one.
    Subscribe(Option<String>),
    /// The contact lets the user see.
    Subscribed,
    /// The contact does not, or no longer.
    Unsubscribed,
    /// What is the user's state?
    Probe,
    /// The state of one of the contact's resources; an empty resource is the bare address.
    State(ResourcePresence),
    /// A pending `subscribe` failed: the status and reason phrase of the peer, or no answer at all.
    Failed(Option<(StatusCode, String)>),
}

/// What a request of ours was for; it comes back with the outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// A SUBSCRIBE of the dialog with this tag of ours.
    Subscribe {
        /// Our tag.
        local_tag: String,
    },
    /// A NOTIFY of the dialog with this tag of ours.
    Notify {
        /// Our tag.
        local_tag: String,
        /// Its CSeq number.
        cseq: u32,
    },
}

/// What is to be done.
#[derive(Debug, Clone)]
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
    /// Send presence to the local user.
    ToLocal(ToLocal),
    /// The user decided in a chat client: `true` for allow. To be recorded in the user's list.
    Decided(bool),
    /// A NOTIFY's body could not be used, and why; it was answered 200 all the same.
    BadDocument(String),
    /// The peer wants credentials, or requests go in a circle: an administrator should know.
    Alarm(&'static str),
}

/// The final outcome of a request of ours.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// A final response.
    Answer(&'a Message),
    /// No answer in time, or the peer could not be reached.
    NoAnswer,
}

impl Outcome<'_> {
    fn status(&self) -> Option<StatusCode> {
        match self {
            Outcome::Answer(message) => message.status(),
            Outcome::NoAnswer => None,
        }
    }

    fn retry_after(&self) -> Option<u32> {
        match self {
            Outcome::Answer(message) => message.retry_after().ok().flatten().map(|after| after.seconds),
            Outcome::NoAnswer => None,
        }
    }
}

/// What every input brings along.
pub type Context<'a> = crate::context::Context<'a, PairConfig>;

/// The presence of one pair.
#[derive(Debug)]
pub struct Pair {
    local: BareAddress,
    remote: BareAddress,
    id: PairId,
    auth: AuthRecord,
    record: PairRecord,
    auth_changed: bool,
    outputs: VecDeque<Output>,
}

impl Pair {
    /// Makes the machine from what is stored; nothing stored is a pair that never met.
    pub fn new(local: BareAddress, remote: BareAddress, auth: Option<AuthRecord>, record: Option<PairRecord>) -> Self {
        let id = PairId::of(&local, &remote);
        let mut record = record.unwrap_or_default();
        record.users = (local.to_jid(), remote.to_jid());
        Self {
            local,
            remote,
            id,
            auth: auth.unwrap_or_default(),
            record,
            auth_changed: false,
            outputs: VecDeque::new(),
        }
    }

    /// The local user.
    pub fn local(&self) -> &BareAddress {
        &self.local
    }

    /// The remote user.
    pub fn remote(&self) -> &BareAddress {
        &self.remote
    }

    /// The record that outlives the input: dialogs, caches, deadlines.
    pub fn record(&self) -> &PairRecord {
        &self.record
    }

    /// The record of decisions, which outlives restarts.
    pub fn auth(&self) -> &AuthRecord {
        &self.auth
    }

    /// Tells whether [`Self::auth`] differs from what was loaded.
    pub fn auth_changed(&self) -> bool {
        self.auth_changed
    }

    /// Takes the next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Takes presence from the local side. `access` is policy's word on the remote user as watcher.
    pub fn handle_local(&mut self, ctx: &mut Context<'_>, access: Access, event: FromLocal) {
        match event {
            FromLocal::Subscribe => self.local_subscribes(ctx),
            FromLocal::Unsubscribe => self.local_unsubscribes(ctx),
            FromLocal::Probe => self.local_probes(ctx),
            FromLocal::Subscribed => self.local_allows(ctx, access),
            FromLocal::Unsubscribed => self.local_denies(ctx, access),
            FromLocal::State(state) => return self.handle_state(ctx, &state),
        }
        self.notify_watchers(ctx);
    }

    /// Takes the presence of one of the local user's resources. Policy has no say in it: who may see was decided when
    /// the watchers subscribed.
    pub fn handle_state(&mut self, ctx: &mut Context<'_>, state: &ResourcePresence) {
        self.local_state(ctx, state);
        self.notify_watchers(ctx);
    }

    /// Takes the final outcome of a request of ours.
    pub fn handle_outcome(&mut self, ctx: &mut Context<'_>, purpose: &Purpose, outcome: &Outcome<'_>) {
        match purpose {
            Purpose::Subscribe { local_tag } => self.subscribe_outcome(ctx, local_tag, outcome),
            Purpose::Notify { local_tag, cseq } => self.notify_outcome(ctx, local_tag, *cseq, outcome),
        }
        self.notify_watchers(ctx);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, ctx: &mut Context<'_>) {
        self.subscriber_timeout(ctx);
        self.notifier_timeout(ctx);
        self.notify_watchers(ctx);
    }

    /// This process works for the pair since `since`, in place of one that is gone: what that one sent before and waits
    /// for an answer, nobody hears of.
    pub fn handle_sender_gone(&mut self, ctx: &mut Context<'_>, since: EpochMillis) {
        for watcher in &mut self.record.watchers {
            watcher.notifier.handle_sender_gone(since);
        }
        self.notify_watchers(ctx);
        self.subscriber_gone(ctx, since);
    }

    /// The link to the local server is up again, or this process has taken it over. The server sends nothing by
    /// itself, so it is asked for the state of a user who is being watched. What the user sees of the contact is said
    /// again: whoever stored it may have died before saying it. And a user who wants the contact's presence and has no
    /// subscription for it gets one.
    pub fn handle_link_ready(&mut self, ctx: &mut Context<'_>) {
        if self.auth.inbound.is_allowed() && self.is_watched() {
            self.probe(ctx);
        } else {
            // What the user showed meanwhile came to nobody, so whoever watches next asks.
            self.record.presentity_at = None;
        }
        // The question may have been lost with the link; a server that has it already asks nobody twice.
        if self.auth.inbound.is_pending() && self.is_watched() {
            self.tell(ToLocal::Subscribe(None));
        }
        // A subscription that has brought nothing yet will.
        let awaited = self.record.subscription.as_ref().is_some_and(|subscription| !subscription.is_active());
        if self.auth.out == AuthOut::Granted && !(awaited && self.record.contact.is_empty()) {
            self.tell_cached();
        }
        self.handle_start(ctx);
    }

    /// A user who wants a contact's presence, has no subscription for it and waits for none, gets one.
    pub fn handle_start(&mut self, ctx: &mut Context<'_>) {
        if self.is_to_subscribe() {
            self.subscribe(ctx);
        }
    }

    /// Tells whether [`Self::handle_start`] would subscribe.
    pub fn is_to_subscribe(&self) -> bool {
        let served = self.record.subscription.is_some() || self.record.retry_at.is_some() || self.record.is_static;
        self.is_wanted() && !served
    }

    /// The user wanted the contact's presence, and the store has lost its data since. Subscribes again if nothing is known
    /// of the pair any more; tells whether it did.
    pub fn handle_state_lost(&mut self, ctx: &mut Context<'_>) -> bool {
        let missing = self.auth.out == AuthOut::None && self.record.subscription.is_none();
        if missing {
            self.change_auth(|auth| auth.out = AuthOut::Pending);
            self.subscribe(ctx);
        }
        missing
    }

    /// A NOTIFY of the contact was refused because it could not be stored. Whoever sent it may never send it again, so the
    /// subscription, if there is one, is refreshed by `at`.
    pub fn handle_notify_missed(&mut self, at: EpochMillis) {
        if let Some(subscription) = &mut self.record.subscription {
            subscription.subscriber.refresh_by(at);
        }
    }

    /// Tells whether there is a subscription to the contact.
    pub fn is_subscribed(&self) -> bool {
        self.record.subscription.is_some()
    }

    /// Tells whether the user wants the contact's presence.
    pub fn is_wanted(&self) -> bool {
        matches!(self.auth.out, AuthOut::Pending | AuthOut::Granted)
    }

    /// Tells when to call [`Self::handle_timeout`].
    pub fn next_deadline(&self, now: EpochMillis, config: &PairConfig) -> Option<EpochMillis> {
        self.subscriber_deadline().into_iter().chain(self.notifier_deadline(now, config)).min()
    }

    /// Tells whether nothing about the pair is worth keeping in the volatile record.
    pub fn is_idle(&self) -> bool {
        let record = &self.record;
        record.subscription.is_none() && record.watchers.is_empty() && record.retry_at.is_none()
    }

    /// Tells whether the remote user has a live subscription to the local user.
    pub fn is_watched(&self) -> bool {
        self.record.watchers.iter().any(|watcher| !watcher.notifier.is_over())
    }

    /// Tells what is known about the contact, for status documents: `pending`, `active` or `none`.
    pub fn subscription_state(&self) -> &'static str {
        match &self.record.subscription {
            None => "none",
            Some(subscription) if subscription.is_active() => "active",
            Some(_) => "pending",
        }
    }

    fn tell(&mut self, presence: ToLocal) {
        self.outputs.push_back(Output::ToLocal(presence));
    }

    fn change_auth(&mut self, change: impl FnOnce(&mut AuthRecord)) {
        change(&mut self.auth);
        self.auth_changed = true;
    }

    /// Finishes a request. What cannot be written is our own mistake: it is reported and nothing is sent.
    fn send(&mut self, writer: RequestWriter, body: &[u8], hop: Option<String>, purpose: Purpose) -> bool {
        if let Ok(request) = writer.finish(body) {
            self.outputs.push_back(Output::Request { request, hop, purpose });
            true
        } else {
            self.outputs.push_back(Output::Alarm("request could not be written"));
            false
        }
    }
}
