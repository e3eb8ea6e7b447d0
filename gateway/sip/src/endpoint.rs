//! All transactions of a process behind one sans-io interface.
//!
//! Feed it messages, commands and time; then take [`Endpoint::poll_output`] until `None`, and come
//! back at [`Endpoint::poll_timeout`]. One mutation, drain, next mutation. It absorbs and answers repetitions, runs the
//! timers of RFC 3261 §17 with RFC 6026 and RFC 4320, and refuses by itself what no user could serve: loops,
//! exhausted Max-Forwards, merged requests, malformed requests, overload. Dialogs are the user's
//! ([`crate::dialog`]).
//!
//! A transaction on a stream ends at once where the RFC says so (timers D, I, J and K are zero), but
//! what was answered is remembered for 64·T1 on every transport: the same request may come again by another
//! connection, and must not be executed twice.

mod again;
pub mod checks;
mod client;
mod config;
mod output;
mod receive;
mod respond;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use isthmus_model::Entropy;

pub use crate::transaction::client::SendError;
pub use crate::transaction::server::RespondError;
pub use crate::transaction::{ClientTxId, ServerTxId};
pub use again::Repeatable;
pub use config::{EndpointConfig, EndpointStats, SentBy};
pub use output::{CancelOutcome, Destination, Event, FlowId, Origin, Outgoing, Output, Source};

use crate::timer::{Entry, TimerReason, Timers};
use crate::transaction::TxRef;
use crate::transaction::client::ClientTx;
use crate::transaction::key::{Fingerprint, Mixer, Seed, Table};
use crate::transaction::server::ServerTx;
use crate::transaction::slab::{Key, Slab};
use config::OwnNames;

/// How long an INVITE may wait for its own side or for the peer after a provisional answer.
const INVITE_CAP: Duration = Duration::from_mins(3);

/// Purposes of fingerprints.
mod purpose {
    pub(super) const SERVER: u8 = 1;
    pub(super) const SERVER_OLD: u8 = 2;
    pub(super) const MERGE: u8 = 3;
    pub(super) const ACK: u8 = 4;
    pub(super) const CLIENT: u8 = 5;
    pub(super) const TAG: u8 = 6;
}

/// All transactions of a process, see the module's text.
pub struct Endpoint {
    config: EndpointConfig,
    own: OwnNames,
    entropy: Box<dyn Entropy + Send>,
    seed: Seed,
    /// The latest time seen; time does not go backwards in here.
    now: Option<Instant>,
    overloaded: bool,
    /// Open stream connections that requests came by.
    flows: BTreeSet<FlowId>,
    servers: Slab<ServerTx>,
    server_keys: Table<Key>,
    merge_keys: Table<Key>,
    ack_keys: Table<Key>,
    clients: Slab<ClientTx>,
    client_keys: Table<Key>,
    /// Requests of ours that wait for an answer, by the stream connection that carried them.
    client_flows: BTreeMap<FlowId, BTreeSet<Key>>,
    timers: Timers<TxRef>,
    outputs: VecDeque<Output>,
    stats: EndpointStats,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("servers", &self.servers.len())
            .field("clients", &self.clients.len())
            .field("server_keys", &self.server_keys.len())
            .field("merge_keys", &self.merge_keys.len())
            .field("ack_keys", &self.ack_keys.len())
            .field("client_keys", &self.client_keys.len())
            .field("client_flows", &self.client_flows.len())
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Makes an endpoint without transactions. `entropy` makes branches and the secret of its tables.
    pub fn new(config: EndpointConfig, mut entropy: Box<dyn Entropy + Send>) -> Self {
        let seed = Seed([entropy.next_u64(), entropy.next_u64()]);
        Self {
            own: OwnNames::new(&config.own_names),
            config,
            entropy,
            seed,
            now: None,
            overloaded: false,
            flows: BTreeSet::new(),
            servers: Slab::new(),
            server_keys: Table::default(),
            merge_keys: Table::default(),
            ack_keys: Table::default(),
            clients: Slab::new(),
            client_keys: Table::default(),
            client_flows: BTreeMap::new(),
            timers: Timers::new(),
            outputs: VecDeque::new(),
            stats: EndpointStats::default(),
        }
    }

    /// Replaces the names that are ours. Transactions under an old name go on.
    pub fn set_own_names(&mut self, names: &[SentBy]) {
        self.own = OwnNames::new(names);
        self.config.own_names = names.to_vec();
    }

    /// While set, new requests outside of dialogs get 503 with Retry-After (RFC 3261 §21.5.4).
    pub fn set_overloaded(&mut self, overloaded: bool) {
        self.overloaded = overloaded;
    }

    /// Counts since the start.
    pub fn stats(&self) -> EndpointStats {
        self.stats
    }

    /// Requests received and not yet forgotten.
    pub fn server_transactions(&self) -> usize {
        self.servers.len()
    }

    /// Requests sent and not yet forgotten.
    pub fn client_transactions(&self) -> usize {
        self.clients.len()
    }

    /// Takes the next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Tells when to call [`Self::handle_timeout`], and why.
    pub fn poll_timeout(&mut self) -> Option<(Instant, TimerReason)> {
        let Self { timers, servers, clients, .. } = self;
        timers.next(|entry| is_live(servers, clients, entry))
    }

    /// Runs all timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.advance(now);
        loop {
            let Self { timers, servers, clients, .. } = self;
            let Some(entry) = timers.take_due(now, |entry| is_live(servers, clients, entry)) else {
                return;
            };
            match entry.key {
                TxRef::Server(key) => self.server_timer(now, key, entry.reason),
                TxRef::Client(key) => self.client_timer(now, key, entry.reason),
            }
        }
    }

    /// Takes that a connection was closed. Answers to requests that came by it go to their source
    /// address on a new connection (RFC 3261 §18.2.2). Our own requests to which nobody has said anything wait
    /// for T4 more: a peer that lives may answer by a new connection (§18.1.1), and one that died never will.
    pub fn handle_flow_closed(&mut self, now: Instant, flow: FlowId) {
        let now = self.advance(now);
        self.flows.remove(&flow);
        for id in self.client_flows.remove(&flow).unwrap_or_default() {
            self.client_flow_closed(now, id);
        }
    }

    /// Names the connections on which somebody waits for an answer, the peer or this side.
    pub fn waiting_flows(&self) -> BTreeSet<FlowId> {
        let theirs = self.servers.values().filter(|tx| tx.state.is_open()).map(|tx| tx.reply.source.flow);
        let waits = |id: &Key| self.clients.get(*id).is_some_and(|tx| tx.state.is_open());
        let ours = self.client_flows.iter().filter(|(_, ids)| ids.iter().any(waits)).map(|(flow, _)| *flow);
        theirs.chain(ours).collect()
    }

    /// Takes that a transmission could not be sent, as far as the sender knows.
    ///
    /// A request of ours fails; an answer is tried once more at the request's source address.
    pub fn handle_send_failed(&mut self, now: Instant, origin: Origin) {
        let now = self.advance(now);
        match origin {
            Origin::Client(ClientTxId(key)) => self.client_send_failed(now, key),
            Origin::Server(ServerTxId(key)) => self.server_send_failed(key),
            Origin::Stateless => self.stats.lost_responses += 1,
        }
    }

    /// Notes the time, which never goes backwards.
    fn advance(&mut self, now: Instant) -> Instant {
        let now = self.now.map_or(now, |last| last.max(now));
        self.now = Some(now);
        let Self { timers, servers, clients, .. } = self;
        timers.sweep(|entry| is_live(servers, clients, entry));
        now
    }

    fn fingerprint(&self, purpose: u8) -> Mixer {
        self.seed.start(purpose)
    }

    fn client_key(&self, branch: &str, method: &str) -> Fingerprint {
        self.fingerprint(purpose::CLIENT).part(branch.as_bytes()).part(method.as_bytes()).finish()
    }

    fn transmit(&mut self, destination: Destination, bytes: Bytes, origin: Origin) {
        self.outputs.push_back(Output::Transmit { destination, bytes, origin });
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }
}

fn is_live(servers: &Slab<ServerTx>, clients: &Slab<ClientTx>, entry: &Entry<TxRef>) -> bool {
    let (short, long) = match entry.key {
        TxRef::Server(key) => match servers.get(key) {
            Some(tx) => (tx.short, tx.long),
            None => return false,
        },
        TxRef::Client(key) => match clients.get(key) {
            Some(tx) => (tx.short, tx.long),
            None => return false,
        },
    };
    short == Some(entry.token) || long == Some(entry.token)
}
