//! Presence: the pair machine with store, edges and policy around it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use isthmus_interwork::authorization::{
    AuthRecord, Context, FromLocal, Outcome, Output, Pair, PairConfig, PairRecord, Purpose, ToLocal,
};
use isthmus_interwork::error_map::{self, SipAnswer};
use isthmus_model::{
    Access, Address, BareAddress, Direction, EpochMillis, Feature, PairId, Protocol, ResourcePresence,
};
use isthmus_policy::{ListAction, Question, UserList};
use isthmus_sip::{StatusCode, Transport};
use isthmus_store::{Batch, Condition, Key, Kind, Lifetime, Record, Retry, StoreError, TimerKind, record};
use isthmus_xmpp::stanza::{Presence, PresenceType};
use isthmus_xmpp::{ErrorCondition, Stanza, StanzaError, jid};

use super::inbound::Incoming;
use super::spelling::read_spelling;
use super::turn::{Beside, Machine, Records, Reply, Turned};
use super::{Bridge, CONFLICT_RETRIES, Runtime, timers};
use crate::edge::sip::outbound::{ClientEvent, Leave};
use crate::edge::xmpp::Links;

/// Formats of the stored payloads.
const PAIR_FORMAT: u16 = 1;
const AUTH_FORMAT: u16 = 1;
/// How long a pair's record outlives its last deadline.
const PAIR_GRACE: Duration = Duration::from_secs(24 * 3600);
/// The longest status text of a stanza that is kept.
const MAX_STATUSES: usize = 16;

/// Who the work is about.
#[derive(Debug, Clone)]
pub(super) struct PairUsers {
    pub(super) local: BareAddress,
    pub(super) remote: BareAddress,
}

impl PairUsers {
    pub(super) fn id(&self) -> PairId {
        PairId::of(&self.local, &self.remote)
    }

    /// Reads the users of a stanza from its addresses.
    pub(super) fn of_jids(local: Option<&str>, remote: Option<&str>) -> Option<Self> {
        let bare = |jid: Option<&str>| Some(Address::from_jid(jid?).ok()?.bare);
        Some(Self { local: bare(local)?, remote: bare(remote)? })
    }
}

impl Bridge {
    /// Takes a SUBSCRIBE that passed the entry checks.
    pub(super) async fn sip_subscribe(self: Arc<Self>, incoming: Incoming) {
        let users = incoming.users();
        if !incoming.in_dialog() {
            let records = match self.store.read(&[Key::address(&users.remote)]).await {
                Ok(records) => records,
                Err(error) => return self.store_is_away(&incoming, &error),
            };
            self.observe_spelling(&incoming, records.first().and_then(Option::as_ref)).await;
        }
        // What the user took back comes first.
        if self.wishes_wait(&users).await {
            return self.refuse_for_now(&incoming);
        }
        let tls = incoming.transport == Transport::Tls;
        let list = Beside::new(Key::user(&users.local), |list| self.access(&incoming.runtime, &users, list));
        let done = self
            .turn_for_with(&incoming, list, |pair: &mut Pair, ctx, access| {
                pair.handle_subscribe(ctx, access, &incoming.request, tls).finish(b"")
            })
            .await;
        self.answer_pair(&incoming, &users, done);
    }

    /// Takes a NOTIFY that passed the entry checks.
    pub(super) async fn sip_notify(self: Arc<Self>, incoming: Incoming) {
        let users = incoming.users();
        let done = self
            .turn_for(&incoming, |pair: &mut Pair, ctx| pair.handle_notify(ctx, &incoming.request).finish(b""))
            .await;
        self.answer_pair(&incoming, &users, done);
    }

    fn answer_pair(self: &Arc<Self>, incoming: &Incoming, users: &PairUsers, done: Turned<Pair, Reply>) {
        match done {
            Ok((answer, outputs)) => {
                // The answer goes first: what follows belongs to the dialog that it opens.
                self.answer_turn(incoming, answer);
                self.perform(users, outputs);
            }
            Err(error) => self.store_is_away(incoming, &error),
        }
    }

    pub(super) fn store_is_away(self: &Arc<Self>, incoming: &Incoming, error: &StoreError) {
        self.store_failed(error);
        self.refuse_for_now(incoming);
    }

    /// Answers a request with what its turn gave.
    pub(super) fn answer_turn(self: &Arc<Self>, incoming: &Incoming, reply: Option<Reply>) {
        let answer = match reply {
            Some(Reply::First(answer)) => answer,
            Some(Reply::Known(known)) => return self.answer_known(incoming, known),
            // The domain left the configuration a moment ago.
            None => incoming.answer(&SipAnswer::new(StatusCode::FORBIDDEN)),
        };
        self.respond(&incoming.asker, &incoming.request, answer);
    }

    /// Takes presence from the local server.
    pub(super) fn local_presence(self: &Arc<Self>, users: PairUsers, stanza: Presence) {
        self.blind_answered(&users.id());
        let Some(event) = event_of(&stanza) else {
            self.metrics.presence("xmpp_to_sip", "ignored");
            return;
        };
        // Outward requests need the domain's permission (row L20); the others only concern what exists already.
        if matches!(event, FromLocal::Subscribe | FromLocal::Probe) {
            let snapshot = Arc::clone(&self.runtime().snapshot);
            let decision = snapshot.decide(&Question {
                direction: Direction::Outbound,
                feature: Feature::Presence,
                protocol: None,
                remote: (&users.remote).into(),
                local: (&users.local).into(),
                user_list: &UserList::EMPTY,
            });
            if decision.access != Access::Allow {
                self.metrics.refused(decision.cause.label());
                return self.refuse_wish(&users, stanza, StanzaError::new(ErrorCondition::NotAllowed));
            }
        }
        let bridge = Arc::clone(self);
        let lane = users.id();
        let (busy, wish) = (users.clone(), stanza.clone());
        let submitted = self.lanes.submit(lane, async move {
            if bridge.wishes_wait(&users).await {
                return bridge.not_taken(&users, stanza, super::not_stored());
            }
            if let Err(error) = bridge.serve_presence(&users, &stanza, &event).await {
                bridge.store_failed(&error);
                bridge.not_taken(&users, stanza, super::not_stored());
            }
        });
        if submitted.is_err() {
            self.metrics.presence("xmpp_to_sip", "lane_full");
            self.not_taken(&busy, wish, super::too_busy());
        }
    }

    /// Serves presence of a local user, or gives it to whoever has its link by now.
    pub(super) async fn serve_presence(
        self: &Arc<Self>,
        users: &PairUsers,
        stanza: &Presence,
        event: &FromLocal,
    ) -> Result<(), StoreError> {
        // What was before it in the lane may have taken until the link was another's.
        if !self.works_for(users) && self.passed_on(users, stanza).await {
            return Ok(());
        }
        self.take_presence(users, event).await
    }

    /// Tells a user whose `subscribe` led to nothing, and keeps the other wishes. States are asked for when they can be stored.
    pub(super) fn not_taken(self: &Arc<Self>, users: &PairUsers, stanza: Presence, error: StanzaError) {
        if !self.keep_wish(users, &stanza) {
            self.refuse_wish(users, stanza, error);
        }
    }

    /// Gives presence that came over a link to its next holder; tells whether somebody has it, or its sender was told that nobody
    /// has. Nothing that came over a link is worked on without it: whoever has it next may know better.
    async fn passed_on(self: &Arc<Self>, users: &PairUsers, stanza: &Presence) -> bool {
        if self.home_of(&users.local.domain, &users.remote.domain).await.is_none() {
            if self.works_for(users) {
                return false;
            }
            self.not_taken(users, stanza.clone(), super::not_stored());
            return true;
        }
        self.hand_over_from_local(users, &Stanza::Presence(stanza.clone()))
    }

    async fn take_presence(self: &Arc<Self>, users: &PairUsers, event: &FromLocal) -> Result<(), StoreError> {
        let runtime = self.runtime();
        let (_, outputs) = match event {
            // The list has no say in it; it is only read to be known when the store is away.
            FromLocal::State(state) if !self.store.is_shared() || self.lists.knows(&users.local) => {
                let act = |pair: &mut Pair, ctx: &mut Context<'_>| pair.handle_state(ctx, state);
                self.turn(&runtime, users, act).await?
            }
            event => {
                let list = Beside::new(Key::user(&users.local), |list| self.access(&runtime, users, list));
                let act =
                    |pair: &mut Pair, ctx: &mut Context<'_>, access| pair.handle_local(ctx, access, event.clone());
                self.turn_with(&runtime, users, list, act).await?
            }
        };
        let decided = outputs.iter().find_map(|output| match output {
            Output::Decided(allow) => Some(*allow),
            _ => None,
        });
        self.perform(users, outputs);
        if let Some(allow) = decided {
            self.decide(users, allow).await;
        }
        Ok(())
    }

    /// Records what a user decided in a chat client (rows L9, L10, L14), before the next request of the watcher is judged.
    async fn decide(self: &Arc<Self>, users: &PairUsers, allow: bool) {
        let decision = Arc::new(Decision { users: users.clone(), allow });
        self.decisions.lock().insert(users.id(), Arc::clone(&decision));
        if !Arc::clone(self).record_decision(Arc::clone(&decision)).await {
            self.keep_unstored(users.id(), decision, Self::record_decision);
        }
    }

    /// Asks policy about the remote user as watcher, with the local user's stored list.
    fn access(&self, runtime: &Runtime, users: &PairUsers, list: Option<&Record>) -> Result<Access, StoreError> {
        self.note_list(&users.local, list);
        Ok(presence_access(runtime, users, &super::read_list(list)?))
    }

    /// Tells a user whose `subscribe` led to nothing. Other presence is no wish that could be refused.
    fn refuse_wish(self: &Arc<Self>, users: &PairUsers, stanza: Presence, error: StanzaError) {
        if stanza.kind != PresenceType::Subscribe {
            return;
        }
        if let Some(reply) = Stanza::Presence(stanza).error_reply(error) {
            self.send_to_local(users, reply);
        }
    }

    /// Tells whether the turn is over: it was stored and done, or never will be.
    fn finish(self: &Arc<Self>, users: &PairUsers, done: Turned<Pair, ()>) -> bool {
        match done {
            Ok((_, outputs)) => {
                self.perform(users, outputs);
                true
            }
            Err(error) => {
                self.store_failed(&error);
                error.is_final()
            }
        }
    }

    /// Tells whether outcomes of requests are awaited.
    #[cfg(test)]
    pub(super) fn awaits_outcomes(&self) -> bool {
        !self.exchanges.is_empty()
    }

    /// Tells whether this process awaits the outcome of a request of a pair.
    pub(super) fn awaits(&self, pair: PairId) -> bool {
        self.exchanges.has(pair)
    }

    /// Does what is due for a pair; false when it is still to be done.
    pub(super) async fn pair_timeout(self: &Arc<Self>, users: &PairUsers) -> bool {
        let awaiting = self.awaits(users.id());
        let done = self
            .with_pair(users, |pair, ctx| {
                if awaiting {
                    pair.handle_awaiting(ctx);
                }
                if pair.is_late(ctx)
                    && let Some(at) = self.pace.take(&users.remote.domain, ctx.now.epoch)
                {
                    pair.put_off(ctx, at);
                }
                pair.handle_timeout(ctx);
            })
            .await;
        self.finish(users, done)
    }

    /// Gives the pair machine a turn under the configuration of this moment.
    pub(super) async fn with_pair<R>(
        self: &Arc<Self>,
        users: &PairUsers,
        act: impl FnMut(&mut Pair, &mut Context<'_>) -> R,
    ) -> Turned<Pair, R> {
        self.turn(&self.runtime(), users, act).await
    }

    /// Does what the pair machine wants, in order.
    pub(super) fn perform(self: &Arc<Self>, users: &PairUsers, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Request { request, hop, purpose } => self.send_for_pair(users, request, hop, purpose),
                Output::ToLocal(presence) => {
                    self.metrics.presence("sip_to_xmpp", "sent");
                    let stanza = self.stanza_of(users, presence);
                    self.send_to_local(users, stanza);
                }
                // The turn of the user's own stanza waits for it.
                Output::Decided(_) => {}
                Output::BadDocument(why) => {
                    self.metrics.malformed("pidf");
                    tracing::info!(remote = %users.remote.domain, %why, "presence document cannot be used");
                }
                Output::Alarm(what) => tracing::warn!(remote = %users.remote.domain, what, "peer needs attention"),
            }
        }
    }

    fn send_for_pair(self: &Arc<Self>, users: &PairUsers, request: Bytes, hop: Option<String>, purpose: Purpose) {
        let runtime = self.runtime();
        if matches!(purpose, Purpose::Notify { .. }) {
            self.metrics.presence("xmpp_to_sip", "notified");
        }
        // Until it leaves the link may go to another process, whose requests would overtake it.
        let leave = self.fence(users).map(|_| leave_while_held(&self.links, users));
        let exchange = runtime
            .route(&users.remote.domain, &users.local.domain)
            .map(|route| self.edge.exchange(runtime.locator.clone(), route, hop, request, leave));
        let (bridge, users) = (Arc::clone(self), users.clone());
        let awaited = Awaited::new(self, users.id());
        tokio::spawn(async move {
            let event = match exchange {
                Some(exchange) => exchange.outcome().await,
                None => ClientEvent::Timeout,
            };
            // Whoever has the link now tells the state anew.
            if matches!(event, ClientEvent::Withdrawn { .. }) {
                return;
            }
            let pair = users.id();
            let answered = Arc::new(Answered { users, purpose, event, _awaited: awaited });
            bridge.until_stored(pair, answered, Self::pair_outcome);
        });
    }

    /// Hands the pair what became of a request; tells whether that is over.
    async fn pair_outcome(self: Arc<Self>, answered: Arc<Answered>) -> bool {
        let Answered { users, purpose, event, .. } = &*answered;
        let outcome = match event {
            ClientEvent::Final(response) => Outcome::Answer(response),
            ClientEvent::Failed(failure) => {
                tracing::info!(remote = %users.remote.domain, %failure, "request could not be sent");
                Outcome::NoAnswer
            }
            ClientEvent::Timeout | ClientEvent::Provisional(_) | ClientEvent::Withdrawn { .. } => Outcome::NoAnswer,
        };
        let done = self.with_pair(users, |pair, ctx| pair.handle_outcome(ctx, purpose, &outcome)).await;
        self.finish(users, done)
    }

    /// Writes a decision into the user's list; tells whether that is over.
    async fn record_decision(self: Arc<Self>, decision: Arc<Decision>) -> bool {
        let pair = decision.users.id();
        // The user has thought better of it since.
        if !self.decisions.lock().get(&pair).is_some_and(|last| Arc::ptr_eq(last, &decision)) {
            return true;
        }
        let done = self.write_decision(&decision.users, decision.allow).await;
        let is_over = done.as_ref().err().is_none_or(StoreError::is_final);
        if let Err(error) = done {
            self.store_failed(&error);
        }
        if is_over {
            self.decisions.lock().remove(&pair);
        }
        is_over
    }

    async fn write_decision(&self, users: &PairUsers, allow: bool) -> Result<(), StoreError> {
        let runtime = self.runtime();
        let home = runtime.snapshot.local(&users.local.domain);
        if !home.is_some_and(|home| home.policy.record_decisions) {
            return Ok(());
        }
        let key = Key::user(&users.local);
        let action = if allow { ListAction::Allow } else { ListAction::Block };
        let mut retries = 0;
        loop {
            let stored = self.store.read(std::slice::from_ref(&key)).await?.into_iter().next().flatten();
            let mut list = super::read_list(stored.as_ref())?;
            let by = users.local.to_jid();
            match list.record(users.remote.clone(), action, by, super::now().epoch, UserList::DEFAULT_LIMIT) {
                Ok(false) => return Ok(()),
                Ok(true) => {}
                Err(error) => {
                    tracing::warn!(user = %users.local, %error, "decision not recorded in the policy list");
                    return Ok(());
                }
            }
            let mut batch = Batch::new();
            let bytes = record::encode(Kind::User, super::LIST_FORMAT, &list.encode());
            batch.put(key.clone(), Condition::unchanged(stored.as_ref()), bytes.clone(), Lifetime::Durable);
            match self.store.commit(batch).await {
                Ok(done) => {
                    let version = done.versions.first().copied().unwrap_or_default();
                    self.note_list(&users.local, Some(&Record { version, bytes, expires_at: None }));
                    return Ok(());
                }
                Err(error) if error.retry() == Retry::Reload && retries < CONFLICT_RETRIES => retries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a stanza to the pair's local server; one that cannot be sent is counted.
    pub(super) fn send_to_local(self: &Arc<Self>, users: &PairUsers, stanza: Stanza) {
        let stanza = match stanza {
            Stanza::Message(error) if error.error.is_some() => {
                return self.return_to_sender((users.local.domain.clone(), users.remote.domain.clone()), error);
            }
            other => other,
        };
        // Another process may hold the link.
        if self.hand_over_stanza(users, &stanza) {
            return;
        }
        if let Err(error) = self.links.send(&users.local.domain, &users.remote.domain, stanza) {
            self.metrics.presence("sip_to_xmpp", "no_link");
            tracing::debug!(%error, "stanza not sent");
        }
    }

    fn stanza_of(&self, users: &PairUsers, presence: ToLocal) -> Stanza {
        let (from, to) = (users.remote.to_jid(), users.local.to_jid());
        let plain = |kind| Presence::new(kind, &from, &to);
        let stanza = match presence {
            ToLocal::Subscribe(name) => {
                let id = self.next_stanza_id();
                Presence { nick: name, ..plain(PresenceType::Subscribe).with_id(&id) }
            }
            ToLocal::Subscribed => plain(PresenceType::Subscribed),
            ToLocal::Unsubscribed => plain(PresenceType::Unsubscribed),
            ToLocal::Probe => plain(PresenceType::Probe),
            ToLocal::State(state) => state_stanza(&from, &to, state),
            ToLocal::Failed(refusal) => {
                let error = match refusal {
                    Some((status, reason)) => error_map::status_to_xmpp(status, &reason, None, None),
                    None => error_map::failure_to_xmpp(error_map::LocalFailure::Timeout),
                };
                Presence { error: Some(error), ..plain(PresenceType::Error) }
            }
        };
        Stanza::Presence(stanza)
    }
}

/// What a user decided about a watcher. Only the last one of a pair is written.
pub(super) struct Decision {
    users: PairUsers,
    allow: bool,
}

/// What became of a request of a pair.
struct Answered {
    users: PairUsers,
    purpose: Purpose,
    event: ClientEvent,
    _awaited: Awaited,
}

/// Counts an exchange of a pair until its outcome is taken.
struct Awaited(Arc<Bridge>, PairId);

impl Awaited {
    fn new(bridge: &Arc<Bridge>, pair: PairId) -> Self {
        bridge.exchanges.add(pair);
        Self(Arc::clone(bridge), pair)
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.exchanges.remove(self.1);
    }
}

/// Lets a request leave as long as this process holds the link of its pair, or finishes what it began before it gave the link back.
pub(super) fn leave_while_held(links: &Arc<Links>, users: &PairUsers) -> Leave {
    let (links, local, remote) = (Arc::clone(links), users.local.domain.clone(), users.remote.domain.clone());
    Box::new(move || {
        let (links, local, remote) = (Arc::clone(&links), local.clone(), remote.clone());
        Box::pin(async move { links.acts(&local, &remote).await })
    })
}

/// Asks policy about the remote user as watcher.
fn presence_access(runtime: &Runtime, users: &PairUsers, user_list: &UserList) -> Access {
    let question = Question {
        direction: Direction::Inbound,
        feature: Feature::Presence,
        protocol: Some(Protocol::Sip),
        remote: (&users.remote).into(),
        local: (&users.local).into(),
        user_list,
    };
    let decision = runtime.snapshot.decide(&question);
    if tracing::enabled!(tracing::Level::DEBUG) {
        let why = runtime.snapshot.explain(&question).lines.join("; ");
        tracing::debug!(local = %users.local, remote = %users.remote, access = ?decision.access, why, "presence");
    }
    decision.access
}

impl Machine for Pair {
    type Config = PairConfig;
    type Output = Output;
    const KIND: Kind = Kind::Pair;
    const FORMAT: u16 = PAIR_FORMAT;
    const TIMER: TimerKind = timers::PAIR;
    const REMEMBERED: bool = true;

    fn keys(users: &PairUsers) -> [Key; 3] {
        let id = users.id();
        [Key::pair(&id), Key::auth(&id), Key::address(&users.remote)]
    }

    fn load(runtime: &Runtime, users: &PairUsers, records: &Records) -> Result<Option<(Self, PairConfig)>, StoreError> {
        let [stored, auth, spelling] = records;
        let spelling = read_spelling(spelling.as_ref(), &users.remote);
        let Some(config) = runtime.pair_config(&users.local, &users.remote, spelling) else { return Ok(None) };
        let auth = read_record(Kind::Auth, AUTH_FORMAT, auth.as_ref(), AuthRecord::from_bytes)?;
        let record = read_record(Self::KIND, Self::FORMAT, stored.as_ref(), PairRecord::from_bytes)?;
        Ok(Some((Self::new(users.local.clone(), users.remote.clone(), auth, record), config)))
    }

    fn is_idle(&self) -> bool {
        self.is_idle()
    }

    fn deadline(&self, now: EpochMillis, config: &PairConfig) -> Option<EpochMillis> {
        self.next_deadline(now, config)
    }

    fn to_bytes(&self) -> Vec<u8> {
        self.record().to_bytes()
    }

    fn lifetime(wait: Option<Duration>, _config: &PairConfig) -> Duration {
        wait.unwrap_or_default() + PAIR_GRACE
    }

    fn next_output(&mut self) -> Option<Output> {
        self.poll_output()
    }

    fn write_more(&self, batch: &mut Batch, [_, auth, _]: &Records, [_, key, _]: &[Key; 3], config: &PairConfig) {
        if !self.auth_changed() {
            return;
        }
        let condition = Condition::unchanged(auth.as_ref());
        if self.auth().is_empty() {
            batch.delete(key.clone(), condition);
        } else {
            let bytes = record::encode(Kind::Auth, AUTH_FORMAT, &self.auth().to_bytes());
            // Who was only asked may never answer (interworking specification §6.8). They are not asked again for each watcher of a day, so
            // that the last one may wait for so much longer.
            let undecided = Lifetime::For(config.pending_max + PAIR_GRACE);
            let lifetime = if self.auth().is_decided() { Lifetime::Durable } else { undecided };
            batch.put(key.clone(), condition, bytes, lifetime);
        }
    }

    fn is_done_by_next_holder(output: &Output) -> bool {
        match output {
            Output::Request { .. } | Output::ToLocal(_) => true,
            Output::Decided(_) | Output::BadDocument(_) | Output::Alarm(_) => false,
        }
    }

    fn stored(&self, bridge: &Arc<Bridge>, users: &PairUsers, [_, auth, _]: &Records) {
        if !bridge.store.is_shared() {
            return;
        }
        if auth.is_none() && !self.is_wanted() && bridge.wanted.has(users) {
            // Taken back at another process, or lost with everything else.
            return bridge.forget_unless_lost(users.clone());
        }
        bridge.wanted.note(users, self.is_wanted());
    }
}

fn state_stanza(from: &str, to: &str, state: ResourcePresence) -> Presence {
    let from = if state.resource.is_empty() { from.to_owned() } else { format!("{from}/{}", state.resource) };
    let kind = if state.available { PresenceType::Available } else { PresenceType::Unavailable };
    Presence { show: state.show, statuses: state.statuses, priority: state.priority, ..Presence::new(kind, &from, to) }
}

/// Reads what a presence stanza of a local user is about; errors and the like are nothing.
pub(super) fn event_of(stanza: &Presence) -> Option<FromLocal> {
    Some(match stanza.kind {
        PresenceType::Subscribe => FromLocal::Subscribe,
        PresenceType::Unsubscribe => FromLocal::Unsubscribe,
        PresenceType::Subscribed => FromLocal::Subscribed,
        PresenceType::Unsubscribed => FromLocal::Unsubscribed,
        PresenceType::Probe => FromLocal::Probe,
        PresenceType::Available | PresenceType::Unavailable => {
            let resource = stanza.from().and_then(jid::resource).unwrap_or_default();
            let available = stanza.kind == PresenceType::Available;
            let mut state = ResourcePresence::new(resource, available, super::now().epoch);
            if available {
                state.show = stanza.show;
                state.statuses = stanza.statuses.iter().take(MAX_STATUSES).cloned().collect();
                state.priority = stanza.priority;
                state.stamp = stanza.delay.as_ref().map(|delay| delay.stamp.0);
            }
            FromLocal::State(state)
        }
        PresenceType::Error => return None,
    })
}

pub(super) fn read_record<T, E: std::fmt::Display>(
    kind: Kind,
    format: u16,
    stored: Option<&Record>,
    read: impl Fn(&[u8]) -> Result<T, E>,
) -> Result<Option<T>, StoreError> {
    let Some(stored) = stored else { return Ok(None) };
    // What cannot be read is rebuilt from the next refresh, except decisions: those must not be guessed.
    let read = record::decode_as(kind, format, &stored.bytes)
        .map_err(|error| error.to_string())
        .and_then(|envelope| read(&envelope.payload).map_err(|error| error.to_string()));
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error) if !kind.is_decision() => {
            tracing::error!(%error, kind = kind.prefix(), "stored state cannot be read; it is rebuilt");
            Ok(None)
        }
        Err(error) => {
            tracing::error!(%error, "stored decision cannot be read");
            Err(StoreError::Corrupt { place: kind.prefix().to_owned(), what: error })
        }
    }
}
