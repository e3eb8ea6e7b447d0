//! Between the edges: every request, stanza and timer is decided, mapped and answered here.
//!
//! Decisions are the policy's, mappings the interwork crate's, state the store's; the bridge brings them
//! together and keeps nothing of its own but what ends with the process: work in progress. Work of one
//! pair of users is done in its order ([`lanes`]); pairs do not wait for each other.

mod blind;
mod counts;
mod delivery;
mod forward;
mod inbound;
pub mod lanes;
mod letters;
mod lists;
mod lost;
mod message;
mod missed;
mod outage;
mod overload;
mod pace;
mod presence;
mod rates;
mod reconcile;
mod remembered;
mod repeats;
mod returned;
mod runtime;
mod sender;
mod session;
mod sparing;
mod spelling;
#[cfg(test)]
pub(crate) mod tests;
mod timers;
mod turn;
mod unanswered;
mod undecided;
mod unstored;
mod wishes;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use bytes::Bytes;
use isthmus_interwork::error_map::SipAnswer;
use isthmus_model::{BareAddress, Domain, EpochMillis, Now, PairId};
use isthmus_policy::UserList;
use isthmus_sip::endpoint::ServerTxId;
use isthmus_sip::{Message, StatusCode, WriteError};
use isthmus_store::error::Bound;
use isthmus_store::{Kind, Record, Store, StoreError, record};
use isthmus_xmpp::component::{BarrierToken, Delivery};
use isthmus_xmpp::{ErrorCondition, Stanza, StanzaError};
use parking_lot::Mutex;

use crate::edge::sip::flow::Flow;
use crate::edge::sip::outbound::Control;
use crate::edge::sip::{SipEdge, SipHandler};
use crate::edge::xmpp::{LinkSpec, Links, XmppHandler};
use crate::metrics::Metrics;
use crate::pods::Pods;
use blind::Blind;
use counts::PairCounts;
use delivery::Deliveries;
use forward::Forwards;
use inbound::Asker;
use lanes::Lanes;
use letters::Letters;
use lists::Lists;
use lost::Wanted;
use missed::Missed;
use outage::Outage;
use pace::Pace;
use rates::Rates;
use reconcile::Walks;
use remembered::Remembered;
use repeats::Repeats;
use returned::Returns;
use sender::Senders;
use sparing::Sparing;
use unanswered::Unanswered;
use undecided::Undecided;
use wishes::Wishes;

pub use blind::BlindTimes;
pub use runtime::Runtime;

/// How many jobs may wait for one pair.
const LANE_DEPTH: usize = 256;
/// Format of a stored policy list.
const LIST_FORMAT: u16 = 1;
/// How often an operation starts anew when another process changed the record meanwhile.
const CONFLICT_RETRIES: usize = 5;

/// A pair of domains: local, federated.
type DomainPair = (Domain, Domain);

/// The bridge of the process.
pub struct Bridge {
    pub(crate) edge: Arc<SipEdge>,
    pub(crate) links: Arc<Links>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) metrics: Arc<Metrics>,
    runtime: ArcSwap<Runtime>,
    lanes: Arc<Lanes>,
    rates: Rates,
    deliveries: Deliveries,
    letters: Letters,
    returns: Returns,
    unanswered: Unanswered,
    lists: Lists,
    remembered: Remembered,
    repeats: Repeats,
    pods: Arc<Pods>,
    forwards: Forwards,
    /// Requests of pairs whose outcome this process awaits.
    exchanges: PairCounts,
    /// Work of pairs that waits for the store.
    unstored: PairCounts,
    /// Turns of sessions of which the store did not say whether it took them.
    undecided: Undecided,
    wishes: Wishes,
    /// The last decisions of users that are not in their lists yet.
    decisions: Mutex<HashMap<PairId, Arc<presence::Decision>>>,
    missed: Missed,
    outage: Outage,
    pace: Pace,
    /// Keeps the log readable while the store fails.
    store_lines: Sparing,
    walks: Walks,
    wanted: Wanted,
    blind: Blind,
    /// INVITEs of ours whose exchange is under way, by our tag.
    invites: Mutex<HashMap<String, Control>>,
    /// Sessions that were accepted too late and ended, by Call-ID and the peer's tag, with the time.
    ended_late: Mutex<VecDeque<(Instant, String, String)>>,
    senders: Senders,
    /// Requests whose sender is looked up, in their order, by sender.
    sender_lanes: Arc<Lanes>,
    stanza_ids: AtomicU64,
    cseq: AtomicU32,
}

impl std::fmt::Debug for Bridge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bridge").finish_non_exhaustive()
    }
}

impl Bridge {
    /// Makes the bridge and starts its clocks.
    pub fn start(
        edge: Arc<SipEdge>,
        links: Arc<Links>,
        store: Arc<dyn Store>,
        pods: Arc<Pods>,
        metrics: Arc<Metrics>,
        runtime: Runtime,
    ) -> Arc<Self> {
        let (forwards, notes) = Forwards::new();
        let bridge = Arc::new(Self {
            edge,
            links,
            store,
            metrics,
            runtime: ArcSwap::from_pointee(runtime),
            lanes: Lanes::new(LANE_DEPTH),
            rates: Rates::default(),
            deliveries: Deliveries::default(),
            letters: Letters::default(),
            returns: Returns::default(),
            unanswered: Unanswered::default(),
            lists: Lists::default(),
            remembered: Remembered::default(),
            repeats: Repeats::default(),
            senders: Senders::default(),
            sender_lanes: Lanes::new(LANE_DEPTH),
            pods,
            forwards,
            exchanges: PairCounts::default(),
            unstored: PairCounts::default(),
            undecided: Undecided::default(),
            wishes: Wishes::default(),
            decisions: Mutex::default(),
            missed: Missed::default(),
            outage: Outage::default(),
            pace: Pace::default(),
            store_lines: Sparing::default(),
            walks: Walks::default(),
            wanted: Wanted::default(),
            blind: Blind::default(),
            invites: Mutex::default(),
            ended_late: Mutex::default(),
            stanza_ids: AtomicU64::new(rand::random::<u32>().into()),
            // Above every number that an earlier process used for the same Call-ID, far below the limit of 2^31.
            cseq: AtomicU32::new(u32::try_from(now().epoch.secs() % 1_000_000_000).unwrap_or(1)),
        });
        tokio::spawn(timers::run(Arc::clone(&bridge)));
        tokio::spawn(delivery::run(Arc::clone(&bridge)));
        tokio::spawn(missed::run(Arc::clone(&bridge)));
        if bridge.store.is_shared() {
            tokio::spawn(repeats::run(Arc::clone(&bridge)));
            tokio::spawn(outage::run(Arc::clone(&bridge)));
            tokio::spawn(overload::run(Arc::clone(&bridge)));
            tokio::spawn(letters::run(Arc::clone(&bridge)));
            tokio::spawn(unanswered::run(Arc::clone(&bridge)));
            tokio::spawn(lost::run(Arc::clone(&bridge)));
            for notes in notes {
                tokio::spawn(forward::send_notes(Arc::clone(&bridge), notes));
            }
            bridge.pods.set_handler(Arc::new(BridgeHandle(Arc::clone(&bridge))));
        }
        bridge
    }

    /// Tells whether everything that was begun is done.
    pub fn is_idle(&self) -> bool {
        self.unfinished().is_empty()
    }

    /// Names what is not done of what was begun.
    pub fn unfinished(&self) -> Vec<&'static str> {
        let kinds = [
            ("work of pairs", self.lanes.is_idle()),
            ("senders that are looked up", self.sender_lanes.is_idle()),
            ("messages that the local server has to deal with", self.deliveries.is_empty()),
            ("errors for local users", self.returns.is_empty()),
            ("messages that a partner has to answer", self.unanswered.is_empty()),
            ("answers that are to be stored", self.repeats.are_written()),
            ("work that is to be stored", self.unstored.is_empty()),
            ("work given to other processes", self.has_nothing_forwarded()),
        ];
        kinds.into_iter().filter(|(_, done)| !done).map(|(kind, _)| kind).collect()
    }

    /// Takes a new configuration, for what arrives from now on.
    pub fn set_runtime(&self, runtime: Runtime) {
        self.runtime.store(Arc::new(runtime));
        self.senders.clear();
    }

    pub(crate) fn runtime(&self) -> Arc<Runtime> {
        self.runtime.load_full()
    }

    fn next_stanza_id(&self) -> String {
        format!("i{:x}", self.stanza_ids.fetch_add(1, Ordering::Relaxed))
    }

    fn next_cseq(&self) -> u32 {
        self.cseq.fetch_add(1, Ordering::Relaxed)
    }

    /// Gives a request its final answer.
    fn respond(self: &Arc<Self>, asker: &Asker, request: &Message, answer: Result<Bytes, WriteError>) {
        match asker {
            Asker::Here(tx) => self.edge.respond(*tx, request, answer),
            Asker::Pod { life, id } => self.respond_to_pod(life, *id, request, answer),
        }
    }

    /// Gives a copy of a request the answer that its record names. The next copy asks the record again, and the 2xx of
    /// an INVITE is repeated by the process that gave it.
    fn repeat(self: &Arc<Self>, asker: &Asker, request: &Message, answer: Result<Bytes, WriteError>) {
        match asker {
            Asker::Here(tx) => self.edge.respond_once(*tx, request, answer),
            Asker::Pod { life, id } => self.respond_to_pod(life, *id, request, answer),
        }
    }

    /// Leaves a copy of a request without an answer: another process works on it and gives one.
    fn absorb(self: &Arc<Self>, asker: &Asker) {
        match asker {
            Asker::Here(tx) => self.edge.absorb(*tx),
            Asker::Pod { life, id } => self.absorb_for_pod(life, *id),
        }
    }

    /// Remembers a list as it was read, for when the store is away.
    fn note_list(&self, user: &BareAddress, list: Option<&Record>) {
        if self.store.is_shared() {
            self.lists.note(user, list);
        }
    }

    fn store_failed(&self, error: &StoreError) {
        // What could not be stored was told to nobody.
        if matches!(error, StoreError::Unavailable { .. } | StoreError::Full { bound: Bound::Bytes, .. }) {
            self.outage.note();
        }
        self.metrics.store_errors.get_or_create(&crate::metrics::Reason { reason: error.reason() }).inc();
        if let Some(left_out) = self.store_lines.line(error.reason(), Instant::now()) {
            tracing::warn!(%error, left_out, "state store");
        }
    }
}

/// Reads a stored policy list. A block must never be lost, so what cannot be read is an error.
fn read_list(stored: Option<&Record>) -> Result<UserList, StoreError> {
    let Some(stored) = stored else { return Ok(UserList::EMPTY) };
    let corrupt = |what: String| StoreError::Corrupt { place: Kind::User.prefix().to_owned(), what };
    let envelope =
        record::decode_as(Kind::User, LIST_FORMAT, &stored.bytes).map_err(|error| corrupt(error.to_string()))?;
    UserList::decode(&envelope.payload).map_err(|error| corrupt(error.to_string()))
}

/// The refusal of a request for now, by 5 to 30 s, so that those who are refused do not all come back at once
/// (interworking specification §6.11).
fn unavailable() -> SipAnswer {
    SipAnswer::new(StatusCode::SERVICE_UNAVAILABLE).with_retry_after(rand::random_range(5..=30))
}

/// The error for a user whose request could not be stored; nothing of it left.
fn not_stored() -> StanzaError {
    StanzaError::new(ErrorCondition::ResourceConstraint)
        .with_text("the gateway's state store is not available, so this cannot be stored: try again later")
}

/// The error for a user for whom too much is waiting.
fn too_busy() -> StanzaError {
    StanzaError::new(ErrorCondition::ResourceConstraint).with_text("too much is waiting for this contact")
}

/// Reads both clocks.
pub(crate) fn now() -> Now {
    let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { instant: Instant::now(), epoch: EpochMillis(u64::try_from(epoch.as_millis()).unwrap_or(u64::MAX)) }
}

/// The handlers need shared ownership of the bridge to start work that outlives the call.
#[derive(Debug, Clone)]
pub struct BridgeHandle(pub Arc<Bridge>);

impl SipHandler for BridgeHandle {
    fn request(&self, tx: ServerTxId, flow: &Arc<Flow>, remote: SocketAddr, request: Message) {
        self.0.handle_request(tx, flow, remote, request);
    }

    fn ack(&self, ack: Message, given_here: bool) {
        self.0.sip_ack(ack, given_here);
    }

    fn cancelled(&self, _tx: ServerTxId) {}

    fn never_acknowledged(&self, call_id: String, local_tag: String) {
        self.0.sip_never_acknowledged(call_id, local_tag);
    }

    fn foreign_response(&self, flow: &Arc<Flow>, remote: SocketAddr, response: &Message) -> bool {
        self.0.hand_over_response(flow.transport, remote, response)
    }

    fn late_acceptance(&self, flow: &Arc<Flow>, remote: SocketAddr, response: Message) {
        self.0.sip_late_acceptance(flow, remote, response);
    }
}

impl XmppHandler for BridgeHandle {
    fn stanza(&self, link: &LinkSpec, stanza: Stanza) {
        self.0.handle_stanza(link, stanza);
    }

    fn delivery(&self, token: BarrierToken, delivery: Delivery) {
        self.0.handle_delivery(token, delivery);
    }

    fn not_sent(&self, token: BarrierToken) {
        self.0.handle_not_sent(token);
    }

    fn unsent(&self, stanza: Stanza) {
        self.0.send_by_next_holder(stanza);
    }

    fn link_ready(&self, link: &LinkSpec, lost_at: Option<EpochMillis>) {
        self.0.handle_link_ready(link, lost_at);
    }
}
