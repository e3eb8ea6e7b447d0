//! Sessions of messages: the session machine with store, edges and policy around it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isthmus_interwork::address;
use isthmus_interwork::error_map::{LocalFailure, SipAnswer};
use isthmus_interwork::peer::{PeerRecord, Refuses};
use isthmus_interwork::session::{
    Context, Outcome, OutgoingMessage, Output, Purpose, Session, SessionConfig, SessionRecord,
};
use isthmus_model::{Domain, EpochMillis, PairId};
use isthmus_policy::Sender;
use isthmus_sip::endpoint::Destination;
use isthmus_sip::{Message, Method, StatusCode, Transport};
use isthmus_store::{Batch, Condition, Key, Kind, Lifetime, Record, StoreError, TimerKind, record};
use isthmus_xmpp::{Stanza, StanzaError};

use super::inbound::Incoming;
use super::message::local_failure;
use super::presence::{PairUsers, leave_while_held, read_record};
use super::sender::Claim;
use super::spelling::read_spelling;
use super::turn::{Machine, Records, Reply, Turned};
use super::{Bridge, Runtime, timers};
use crate::edge::sip::flow::Flow;
use crate::edge::sip::outbound::{AckWay, ClientEvent};
use crate::edge::xmpp::Owner;
use crate::pods::Note;

const SESSION_FORMAT: u16 = 1;
const PEER_FORMAT: u16 = 1;
/// How many sessions that were accepted too late are remembered, and how long: 64·T1, while the 2xx is repeated.
const MAX_LATE: usize = 1024;
const LATE_MEMORY: Duration = Duration::from_secs(32);
/// How long a refusal is remembered (interworking specification §5.1).
const PEER_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// How long a session's record outlives its last deadline (interworking specification §6.8).
const SESSION_GRACE: Duration = Duration::from_secs(120);

impl Bridge {
    /// Takes INVITE, BYE, INFO and other requests of a session that passed the entry checks.
    pub(super) async fn sip_session(self: Arc<Self>, incoming: Incoming) {
        if !incoming.in_dialog() {
            // A store that is away is told of by the turn.
            if let Ok(records) = self.store.read(&[Key::address(&incoming.remote.bare)]).await {
                self.observe_spelling(&incoming, records.first().and_then(Option::as_ref)).await;
            }
        }
        let users = incoming.users();
        let tls = incoming.transport == Transport::Tls;
        let request = &incoming.request;
        let done = self
            .turn_for(&incoming, |session: &mut Session, ctx| match request.method() {
                Method::Invite => session.handle_invite(ctx, request, tls),
                Method::Bye => session.handle_bye(ctx, request),
                Method::Info => session.handle_info(ctx, request),
                _ => session.handle_other(ctx, request),
            })
            .await;
        self.answer_session(&incoming, &users, done);
    }

    /// Takes a MESSAGE inside a session.
    pub(super) async fn sip_session_message(self: Arc<Self>, incoming: Incoming) {
        let Some((permit, _)) = self.admit_message(&incoming).await else { return };
        let users = incoming.users();
        let id = permit.stanza_id().unwrap_or_else(|| self.next_stanza_id());
        let done = self
            .turn(&incoming.runtime, &users, |session: &mut Session, ctx| {
                session.check_message(ctx, &incoming.request, &id, permit.is_again())
            })
            .await;
        match done {
            Ok((Some(Ok(delivery)), outputs)) => {
                self.deliver_for(incoming, permit, delivery.stanza, true);
                self.perform_session(&users, outputs);
            }
            Ok((answer, outputs)) => {
                let gone = || incoming.answer(&SipAnswer::new(StatusCode::FORBIDDEN));
                let answer = answer.and_then(Result::err).unwrap_or_else(gone);
                self.conclude(permit, &incoming.asker, &incoming.request, answer);
                self.perform_session(&users, outputs);
            }
            Err(error) => {
                self.store_failed(&error);
                let answer = incoming.answer(&super::unavailable());
                self.withdraw(permit, &incoming.asker, &incoming.request, answer);
            }
        }
    }

    fn answer_session(self: &Arc<Self>, incoming: &Incoming, users: &PairUsers, done: Turned<Session, Reply>) {
        match done {
            Ok((answer, outputs)) => {
                self.answer_turn(incoming, answer);
                self.perform_session(users, outputs);
            }
            Err(error) => self.store_is_away(incoming, &error),
        }
    }

    /// Takes the ACK of a 2xx. There is nobody to answer, so one that fits no session is dropped.
    pub(super) fn sip_ack(self: &Arc<Self>, ack: Message, given_here: bool) {
        self.work_on_ack(ack, given_here, given_here);
    }

    /// As [`Self::sip_ack`], where another process took the ACK.
    pub(super) fn pod_ack(self: &Arc<Self>, ack: Message) {
        let given_here = self.edge.take_ack(&ack);
        self.work_on_ack(ack, given_here, true);
    }

    /// Works on an ACK. One that ended the repeats of its 2xx does not come again, so it is `kept` until the store takes it. Anybody
    /// can send others; what they are for is still repeated, and brings them again.
    fn work_on_ack(self: &Arc<Self>, ack: Message, given_here: bool, kept: bool) {
        let Some(pair) = ack.to().tag().and_then(PairId::from_tag) else { return };
        let work = Arc::new(Acknowledged { pair, ack, given_here });
        if kept {
            return self.until_stored(pair, work, Self::acknowledge_session);
        }
        let bridge = Arc::clone(self);
        let submitted = self.lanes.submit(pair, async move {
            bridge.acknowledge_session(work).await;
        });
        if submitted.is_err() {
            self.metrics.refused("lane_full");
        }
    }

    async fn acknowledge_session(self: Arc<Self>, acknowledged: Arc<Acknowledged>) -> bool {
        let Acknowledged { pair, ack, given_here } = &*acknowledged;
        let over = match self.home_of_session(*pair, |session| session.has_dialog_of(ack)).await {
            Ok(Home::Here(users)) => {
                let done = self.with_session(&users, |session, ctx| session.handle_ack(ctx, ack)).await;
                self.finish_session(&users, done)
            }
            Ok(Home::Elsewhere(life)) => {
                return self.send_note(&life, &Note::Ack { message: ack.as_bytes().to_vec() }).await;
            }
            // The 2xx of a session that is over is repeated no more either.
            Ok(Home::Nowhere) => true,
            Err(over) => return over,
        };
        if over {
            self.stop_repeating(ack, *given_here);
        }
        over
    }

    /// A 2xx of ours was never acknowledged: the session is ended.
    pub(super) fn sip_never_acknowledged(self: &Arc<Self>, call_id: String, local_tag: String) {
        let Some(pair) = PairId::from_tag(&local_tag) else { return };
        self.until_stored(pair, Arc::new((pair, call_id, local_tag)), Self::end_unacknowledged);
    }

    async fn end_unacknowledged(self: Arc<Self>, session: Arc<(PairId, String, String)>) -> bool {
        let (pair, call_id, local_tag) = &*session;
        let users = match self.home_of_session(*pair, |_| true).await {
            Ok(Home::Here(users)) => users,
            Ok(Home::Elsewhere(life)) => {
                let note = Note::NeverAcknowledged { call_id: call_id.clone(), local_tag: local_tag.clone() };
                return self.send_note(&life, &note).await;
            }
            Ok(Home::Nowhere) => return true,
            Err(over) => return over,
        };
        let done =
            self.with_session(&users, |session, ctx| session.handle_never_acknowledged(ctx, call_id, local_tag)).await;
        self.finish_session(&users, done)
    }

    /// Takes a 2xx to an INVITE of ours of which the transaction layer knows nothing any more.
    pub(super) fn sip_late_acceptance(self: &Arc<Self>, flow: &Arc<Flow>, remote: SocketAddr, response: Message) {
        let (Ok(local), Ok(peer)) =
            (address::from_name_addr(&response.from_()), address::from_name_addr(&response.to()))
        else {
            return self.metrics.refused("stray_response");
        };
        let users = PairUsers { local: local.bare, remote: peer.bare };
        let runtime = self.runtime();
        // Only the tag that we chose can name the pair, and only the peer may speak for its user.
        let ours = response.from_().tag().and_then(PairId::from_tag) == Some(users.id());
        // Nothing is looked up for a response, so that behind a next hop with a name it is not taken.
        let sender = Claim::by_domain(flow, remote, &users.remote.domain).decide(&runtime);
        let refused = matches!(sender, Sender::Refused(_) | Sender::NeedsHopAddresses);
        let route = runtime.route(&users.remote.domain, &users.local.domain);
        let Some(route) = route.filter(|_| ours && !refused) else { return self.metrics.refused("stray_response") };
        let way = AckWay::Back {
            destination: Destination::Flow { flow: flow.id, transport: flow.transport, remote },
            sent_by: route.sent_by.clone(),
        };
        let bridge = Arc::clone(self);
        let submitted = self.lanes.submit(users.id(), async move {
            let repeated = bridge.ended_late_before(&response);
            let done = bridge
                .with_session(&users, |session, ctx| session.handle_late_acceptance(ctx, &response, repeated))
                .await;
            match done {
                Ok((_, outputs)) => bridge.perform_session_over(&users, outputs, Some(&way)),
                // Nothing was done for it: that is left to its next copy.
                Err(error) => {
                    bridge.store_failed(&error);
                    bridge.forget_ended_late(&response);
                }
            }
        });
        if submitted.is_err() {
            self.metrics.refused("lane_full");
        }
    }

    /// Tells whether this 2xx came before, and notes it. A repetition is acknowledged, but ends nothing again.
    fn ended_late_before(&self, response: &Message) -> bool {
        let (call_id, tag) = (response.call_id(), response.to().tag().unwrap_or_default());
        let now = Instant::now();
        let mut ended = self.ended_late.lock();
        while ended.len() >= MAX_LATE || ended.front().is_some_and(|(at, ..)| *at + LATE_MEMORY < now) {
            ended.pop_front();
        }
        if ended.iter().any(|(_, known, of)| known == call_id && of == tag) {
            return true;
        }
        ended.push_back((now, call_id.to_owned(), tag.to_owned()));
        false
    }

    fn forget_ended_late(&self, response: &Message) {
        let (call_id, tag) = (response.call_id(), response.to().tag().unwrap_or_default());
        self.ended_late.lock().retain(|(_, known, of)| known != call_id || of != tag);
    }

    /// Finds out who works for a session, if there is one and it `is_meant`. Where the store does not say, `Err` tells whether it
    /// never will.
    async fn home_of_session(&self, pair: PairId, is_meant: impl FnOnce(&SessionRecord) -> bool) -> Result<Home, bool> {
        let found = async {
            let records = self.store.read(&[Key::session(&pair)]).await?;
            let stored = records.into_iter().next().flatten();
            read_record(Kind::Session, SESSION_FORMAT, stored.as_ref(), SessionRecord::from_bytes)
        };
        let session = found.await.map_err(|error: StoreError| {
            self.store_failed(&error);
            error.is_final()
        })?;
        let users = session.filter(is_meant).and_then(|session| session.users());
        let Some((local, remote)) = users else { return Ok(Home::Nowhere) };
        Ok(match self.elsewhere(&local.domain, &remote.domain) {
            Some(life) => Home::Elsewhere(life),
            None => Home::Here(PairUsers { local, remote }),
        })
    }

    /// Sends a message of a local user in the pair's session, which is opened when there is none.
    /// One that was `refused` as a single message gets one in any case.
    pub(super) fn send_in_session(self: &Arc<Self>, users: PairUsers, message: OutgoingMessage, refused: bool) {
        let bridge = Arc::clone(self);
        let lane = users.id();
        let full = message.clone();
        let busy = users.clone();
        let submitted = self.lanes.submit(lane, async move {
            let done = bridge
                .with_session(&users, |session, ctx| {
                    if refused {
                        session.handle_refused_single(ctx, message.clone());
                    } else {
                        session.handle_stanza(ctx, message.clone());
                    }
                })
                .await;
            if done.is_err() {
                // Without the store no dialog can be kept (interworking specification §6.8).
                bridge.refuse_outgoing(&users, &message, super::not_stored(), "refused");
            }
            bridge.finish_session(&users, done);
        });
        if submitted.is_err() {
            self.refuse_outgoing(&busy, &full, super::too_busy(), "queue_full");
        }
    }

    /// Tells the sender of a message that it did not go through; one without text was none.
    pub(super) fn refuse_outgoing(
        self: &Arc<Self>,
        users: &PairUsers,
        message: &OutgoingMessage,
        error: StanzaError,
        outcome: &'static str,
    ) {
        self.metrics.message("xmpp_to_sip", outcome);
        if message.body.is_none() {
            return;
        }
        self.send_to_local(users, Stanza::Message(returned(message, error)));
    }

    /// Tells a peer in its session that a message was not delivered though it was accepted.
    pub(super) fn tell_late_bounce(self: &Arc<Self>, users: PairUsers) {
        self.until_stored(users.id(), Arc::new(users), Self::late_bounce);
    }

    async fn late_bounce(self: Arc<Self>, users: Arc<PairUsers>) -> bool {
        let done = self.with_session(&users, Session::handle_late_bounce).await;
        self.finish_session(&users, done)
    }

    /// Does what is due for a session.
    pub(super) async fn session_timeout(self: &Arc<Self>, users: &PairUsers) -> bool {
        // An answer that waits for the store comes first.
        if self.unstored.has(users.id()) {
            return false;
        }
        let done = self.with_session(users, Session::handle_timeout).await;
        self.finish_session(users, done)
    }

    /// Begins from what was there before a turn that may be stored though the store did not say so.
    async fn settle_session(self: Arc<Self>, users: Arc<PairUsers>) -> bool {
        let done = self.with_session(&users, |_, _| ()).await;
        self.finish_session(&users, done)
    }

    /// Tells whether the turn is over: it was stored and done, or never will be.
    fn finish_session(self: &Arc<Self>, users: &PairUsers, done: Turned<Session, ()>) -> bool {
        match done {
            Ok((_, outputs)) => {
                self.perform_session(users, outputs);
                true
            }
            Err(error) => {
                self.store_failed(&error);
                error.is_final()
            }
        }
    }

    /// Gives the session machine a turn under the configuration of this moment.
    async fn with_session<R>(
        self: &Arc<Self>,
        users: &PairUsers,
        mut act: impl FnMut(&mut Session, &mut Context<'_>) -> R,
    ) -> Turned<Session, R> {
        let gone = self.links.loser(&users.local.domain, &users.remote.domain).map(|(_, since)| since.elapsed());
        let act = |session: &mut Session, ctx: &mut Context<'_>| {
            if let Some(for_so_long) = gone {
                let since = ctx.now.epoch.minus(for_so_long);
                session.handle_sender_gone(ctx, since);
            }
            act(session, ctx)
        };
        self.turn(&self.runtime(), users, act).await
    }

    /// Remembers for a day what a peer refused as such.
    pub(super) fn learn_refusal(self: &Arc<Self>, domain: Domain, refuses: Refuses) {
        tracing::info!(%domain, ?refuses, "peer refuses a way of sending messages; the other one is used for a day");
        let bridge = Arc::clone(self);
        tokio::spawn(async move {
            let mut batch = Batch::new();
            let bytes = record::encode(Kind::Peer, PEER_FORMAT, &PeerRecord { refuses: Some(refuses) }.to_bytes());
            batch.put(Key::peer(&domain), Condition::Any, bytes, Lifetime::For(PEER_LIFETIME));
            if let Err(error) = bridge.store.commit(batch).await {
                bridge.store_failed(&error);
            }
        });
    }

    /// Does what the session machine wants, in order.
    fn perform_session(self: &Arc<Self>, users: &PairUsers, outputs: Vec<Output>) {
        self.perform_session_over(users, outputs, None);
    }

    /// As [`Self::perform_session`], where a 2xx was handed in: its ACK takes the given way.
    fn perform_session_over(self: &Arc<Self>, users: &PairUsers, outputs: Vec<Output>, way: Option<&AckWay>) {
        for output in outputs {
            match output {
                Output::Request { request, hop, purpose } => self.send_for_session(users, request, hop, purpose),
                Output::Ack { request, .. } => {
                    if let Some(way) = way {
                        self.edge.acknowledge_over(way, request);
                    } else {
                        tracing::error!("an ACK without the 2xx that it is for");
                    }
                }
                Output::CancelInvite { local_tag } => {
                    let control = self.invites.lock().get(&local_tag).cloned();
                    if let Some(control) = control {
                        control.cancel();
                    }
                }
                Output::ToLocal(message) => {
                    let outcome = if message.error.is_some() { "bounced" } else { "sent" };
                    self.metrics.message("xmpp_to_sip", outcome);
                    self.send_to_local(users, Stanza::Message(message));
                }
                Output::Pager(message) => self.send_single(users.clone(), message),
                Output::NoSessions => self.learn_refusal(users.remote.domain.clone(), Refuses::Sessions),
                Output::Alarm(what) => tracing::warn!(remote = %users.remote.domain, what, "peer needs attention"),
            }
        }
    }

    fn send_for_session(
        self: &Arc<Self>,
        users: &PairUsers,
        request: bytes::Bytes,
        hop: Option<String>,
        purpose: Purpose,
    ) {
        let runtime = self.runtime();
        let Some(route) = runtime.route(&users.remote.domain, &users.local.domain) else {
            return self.session_event(users, &purpose, ClientEvent::Timeout, None);
        };
        // A process that stood still since it stored the request may come after the one that has the link by then, and after what
        // that one sent. A BYE ends its dialog at any time.
        let is_bound = !matches!(purpose, Purpose::Bye { .. })
            && self.pods.is_shared()
            && !matches!(self.links.owner(&users.local.domain, &users.remote.domain), Owner::Nobody);
        let leave = is_bound.then(|| leave_while_held(&self.links, users));
        let mut exchange = self.edge.exchange(runtime.locator.clone(), route, hop, request, leave);
        let invite = match &purpose {
            Purpose::Invite { local_tag } => {
                self.invites.lock().insert(local_tag.clone(), exchange.control());
                Some(local_tag.clone())
            }
            Purpose::Message { .. } | Purpose::Bye { .. } => None,
        };
        let (bridge, users) = (Arc::clone(self), users.clone());
        let way = AckWay::Invite(exchange.control());
        tokio::spawn(async move {
            let mut answered = false;
            while let Some(event) = exchange.next().await {
                answered |= !matches!(event, ClientEvent::Provisional(_));
                bridge.session_event(&users, &purpose, event, Some(way.clone()));
            }
            if !answered {
                bridge.session_event(&users, &purpose, ClientEvent::Timeout, None);
            }
            if let Some(local_tag) = invite {
                bridge.invites.lock().remove(&local_tag);
            }
        });
    }

    /// Hands what became of a request to the session, in the pair's lane.
    fn session_event(self: &Arc<Self>, users: &PairUsers, purpose: &Purpose, event: ClientEvent, way: Option<AckWay>) {
        let is_provisional = matches!(event, ClientEvent::Provisional(_));
        let happened = Arc::new(Happened { users: users.clone(), purpose: purpose.clone(), event, way });
        if !is_provisional {
            return self.until_stored(users.id(), happened, Self::session_outcome);
        }
        // That there will be an answer need not be known later.
        let bridge = Arc::clone(self);
        let submitted = self.lanes.submit(users.id(), async move {
            bridge.session_outcome(happened).await;
        });
        if submitted.is_err() {
            self.metrics.refused("lane_full");
        }
    }

    /// Hands the session what became of a request; tells whether that is over.
    async fn session_outcome(self: Arc<Self>, happened: Arc<Happened>) -> bool {
        let Happened { users, purpose, event, way } = &*happened;
        let act = |session: &mut Session, ctx: &mut Context<'_>| match event {
            ClientEvent::Provisional(_) => session.handle_provisional(ctx, purpose),
            ClientEvent::Final(response) => session.handle_outcome(ctx, purpose, &Outcome::Answer(response)),
            ClientEvent::Timeout => session.handle_outcome(ctx, purpose, &Outcome::Failed(LocalFailure::Timeout)),
            ClientEvent::Withdrawn { has_left } => session.handle_withdrawn(ctx, purpose, *has_left),
            ClientEvent::Failed(failure) => {
                session.handle_outcome(ctx, purpose, &Outcome::Failed(local_failure(failure)));
            }
        };
        match self.with_session(users, act).await {
            Ok((_, outputs)) => {
                self.perform_session_over(users, outputs, way.as_ref());
                true
            }
            Err(error) => {
                self.store_failed(&error);
                error.is_final()
            }
        }
    }
}

/// The ACK of a 2xx.
struct Acknowledged {
    pair: PairId,
    ack: Message,
    /// This process repeated the 2xx.
    given_here: bool,
}

/// Who works for a session.
enum Home {
    /// This process.
    Here(PairUsers),
    /// Another one, by the name of its life.
    Elsewhere(String),
    /// There is no such session.
    Nowhere,
}

/// What became of a request of a session.
struct Happened {
    users: PairUsers,
    purpose: Purpose,
    event: ClientEvent,
    way: Option<AckWay>,
}

impl Machine for Session {
    type Config = SessionConfig;
    type Output = Output;
    const KIND: Kind = Kind::Session;
    const FORMAT: u16 = SESSION_FORMAT;
    const TIMER: TimerKind = timers::SESSION;
    const UNDOES: bool = true;

    fn doubted(bridge: &Arc<Bridge>, users: &PairUsers) {
        bridge.keep_unstored(users.id(), Arc::new(users.clone()), Bridge::settle_session);
    }

    fn keys(users: &PairUsers) -> [Key; 3] {
        [Key::session(&users.id()), Key::address(&users.remote), Key::peer(&users.remote.domain)]
    }

    fn load(
        runtime: &Runtime,
        users: &PairUsers,
        records: &Records,
    ) -> Result<Option<(Self, SessionConfig)>, StoreError> {
        let [stored, spelling, peer] = records;
        let spelling = read_spelling(spelling.as_ref(), &users.remote);
        let refuses = read_refusal(peer.as_ref())?;
        let config = runtime.session_config(&users.local, &users.remote, spelling, refuses);
        let Some(config) = config else { return Ok(None) };
        let record = read_record(Self::KIND, Self::FORMAT, stored.as_ref(), SessionRecord::from_bytes)?;
        Ok(Some((Self::new(users.local.clone(), users.remote.clone(), record), config)))
    }

    fn is_idle(&self) -> bool {
        self.is_idle()
    }

    fn deadline(&self, _now: EpochMillis, config: &SessionConfig) -> Option<EpochMillis> {
        self.next_deadline(config)
    }

    fn to_bytes(&self) -> Vec<u8> {
        self.record().to_bytes()
    }

    fn lifetime(wait: Option<Duration>, config: &SessionConfig) -> Duration {
        // What is due now may have to wait for the store.
        wait.filter(|wait| !wait.is_zero()).unwrap_or(config.idle) + SESSION_GRACE
    }

    fn next_output(&mut self) -> Option<Output> {
        self.poll_output()
    }
}

/// Reads what was learned about a peer.
pub(super) fn read_refusal(stored: Option<&Record>) -> Result<Option<Refuses>, StoreError> {
    let peer = read_record(Kind::Peer, PEER_FORMAT, stored, PeerRecord::from_bytes)?;
    Ok(peer.and_then(|peer| peer.refuses))
}

/// The message as it comes back to its sender with an error.
pub(super) fn returned(message: &OutgoingMessage, error: StanzaError) -> isthmus_xmpp::Message {
    let kind = isthmus_xmpp::stanza::MessageType::Error;
    let mut reply = isthmus_xmpp::Message::new(kind, &message.to, &message.from);
    reply.id = message.id.as_deref().map(Into::into);
    reply.error = Some(error);
    reply
}
