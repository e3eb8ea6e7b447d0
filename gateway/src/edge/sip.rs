//! The SIP side: sockets around the sans-io transaction layer.
//!
//! The [`Endpoint`] lives under one mutex. Whoever has an input (a socket task, the timer task, the bridge
//! with an answer) locks it, feeds it, takes out what it says, unlocks and performs it: no task stands
//! between a datagram and its answer. Requests for the users of the transaction layer go to a [`SipHandler`].

pub mod answers;
pub mod connection;
pub mod flow;
pub mod listener;
pub mod outbound;
pub mod proxy;
pub mod reach;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use ipnet::IpNet;
use isthmus_sip::endpoint::{
    ClientTxId, Destination, Endpoint, EndpointConfig, Event, FlowId, Origin, Outgoing, Output, RespondError, SentBy,
    ServerTxId, Source,
};
use isthmus_sip::{Limits, Message, Method, ParseError, ResponseWriter, StatusCode, Transport, WriteError};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, mpsc, watch};
use tokio_rustls::TlsAcceptor;

use crate::metrics::{Metrics, State};
use crate::tls::{self, CertificateSet, TlsConfigError};
use answers::Answers;
use flow::{Flow, Flows, Opener, Peer, Queued};
use listener::Admission;
use outbound::{Exchanges, Pool};

/// Stands for the flows of other processes; never used up by our own.
const ELSEWHERE: FlowId = FlowId(u64::MAX);
/// How long a connection that is given up may wait for a moment in which nobody waits for an answer on it.
const QUIET: Duration = Duration::from_secs(1);
/// How long it takes at most to give up connections: those of peers that do not read, either, are left to the end of the process.
pub const GIVING_UP: Duration = QUIET.saturating_add(connection::LINGER.saturating_mul(2));
/// How many messages may wait for a slow peer's socket.
const SEND_QUEUE: usize = 1024;

/// Whether the edge goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It does.
    No,
    /// No new connections; open transactions are finished.
    Draining,
    /// Everything is closed.
    Now,
}

/// Bounds on connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Stream connections in all.
    pub total: usize,
    /// Stream connections from one address.
    pub per_address: usize,
    /// Closed after so long without a message.
    pub idle: Duration,
}

/// What may change while the edge runs.
#[derive(Debug, Clone)]
pub struct EdgeSettings {
    /// Bounds of messages.
    pub limits: Limits,
    /// Bounds on connections.
    pub connections: ConnectionLimits,
    /// Ranges of peers that may be dialed although they are not public.
    pub allowed_ranges: Vec<IpNet>,
    /// Ranges of balancers whose connections begin with a PROXY header.
    pub trusted_proxies: Vec<IpNet>,
}

/// What connections that we open need: whom we trust, and what we show.
#[derive(Debug, Clone)]
pub struct ClientTrust {
    /// The realm's trust anchors.
    pub anchors: Arc<rustls::RootCertStore>,
    /// Our certificates.
    pub certificates: Arc<CertificateSet>,
}

/// TLS of both directions.
#[derive(Debug, Clone)]
pub struct EdgeTls {
    /// For connections that peers open.
    pub server: Arc<rustls::ServerConfig>,
    /// For connections that we open.
    pub client: ClientTrust,
}

/// Who acts on requests and acknowledgements.
pub trait SipHandler: Send + Sync + 'static {
    /// A request that opened a server transaction; it must be answered with [`SipEdge::respond`].
    fn request(&self, tx: ServerTxId, flow: &Arc<Flow>, remote: SocketAddr, request: Message);
    /// An ACK for a 2xx; `given_here` tells whether this process sent that, and has stopped repeating it.
    fn ack(&self, ack: Message, given_here: bool);
    /// An INVITE was cancelled before it was answered; its 487 is on its way already.
    fn cancelled(&self, tx: ServerTxId);
    /// A 2xx to an INVITE was never acknowledged: the session with this Call-ID and tag of ours must be ended.
    fn never_acknowledged(&self, call_id: String, local_tag: String);
    /// A response that answers no request of this process; tells whether it was given to another one whose it is.
    fn foreign_response(&self, flow: &Arc<Flow>, remote: SocketAddr, response: &Message) -> bool;
    /// A 2xx to an INVITE of ours whose transaction is over, or was another process's: it is to be acknowledged, and
    /// the session ended unless it is wanted. It comes again until the ACK has arrived.
    fn late_acceptance(&self, flow: &Arc<Flow>, remote: SocketAddr, response: Message);
}

/// The SIP side of the process.
pub struct SipEdge {
    own: Weak<Self>,
    endpoint: Mutex<Endpoint>,
    pub(crate) flows: Flows,
    pub(crate) admission: Arc<Admission>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) exchanges: Exchanges,
    pub(crate) pool: Pool,
    pub(crate) answers: Answers,
    pub(crate) stop: watch::Sender<Stop>,
    client_trust: ArcSwap<ClientTrust>,
    settings: ArcSwap<EdgeSettings>,
    acceptor: ArcSwap<TlsAcceptorSlot>,
    handler: OnceLock<Arc<dyn SipHandler>>,
    timer_moved: Notify,
    /// Requests that wait for an answer of ours.
    waiting: AtomicUsize,
}

/// `TlsAcceptor` is no `Debug`; this is.
pub struct TlsAcceptorSlot(TlsAcceptor);

impl std::fmt::Debug for SipEdge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SipEdge").finish_non_exhaustive()
    }
}

impl SipEdge {
    /// Makes an edge without listeners; [`Self::listen`] adds them.
    pub fn new(endpoint: EndpointConfig, settings: EdgeSettings, tls: EdgeTls, metrics: Arc<Metrics>) -> Arc<Self> {
        let edge = Arc::new_cyclic(|own| Self {
            own: Weak::clone(own),
            endpoint: Mutex::new(Endpoint::new(endpoint, Box::new(rand::random::<u64>))),
            flows: Flows::default(),
            admission: Arc::default(),
            metrics,
            exchanges: Exchanges::default(),
            pool: Pool::default(),
            answers: Answers::default(),
            stop: watch::Sender::new(Stop::No),
            settings: ArcSwap::from_pointee(settings),
            acceptor: ArcSwap::from_pointee(TlsAcceptorSlot(TlsAcceptor::from(tls.server))),
            client_trust: ArcSwap::from_pointee(tls.client),
            handler: OnceLock::new(),
            timer_moved: Notify::new(),
            waiting: AtomicUsize::new(0),
        });
        tokio::spawn(run_timers(Arc::clone(&edge)));
        edge
    }

    /// Says who acts on requests; called once, before the first listener opens.
    pub fn set_handler(&self, handler: Arc<dyn SipHandler>) {
        let _ = self.handler.set(handler);
    }

    /// Takes new bounds, for what arrives from now on.
    pub fn set_settings(&self, settings: EdgeSettings) {
        self.settings.store(Arc::new(settings));
    }

    /// Takes new certificates and trust anchors, for new handshakes; connections live on.
    pub fn set_tls(&self, tls: EdgeTls) {
        self.acceptor.store(Arc::new(TlsAcceptorSlot(TlsAcceptor::from(tls.server))));
        self.client_trust.store(Arc::new(tls.client));
    }

    pub(crate) fn client_tls(&self, own_name: &str) -> Result<Arc<rustls::ClientConfig>, TlsConfigError> {
        let trust = self.client_trust.load();
        tls::client_config(Arc::clone(&trust.anchors), &trust.certificates, own_name)
    }

    /// Takes new names under which peers know us, for loop and response checks.
    pub fn set_own_names(&self, names: &[SentBy]) {
        self.drive(|endpoint, _| endpoint.set_own_names(names));
    }

    pub(crate) fn settings(&self) -> arc_swap::Guard<Arc<EdgeSettings>> {
        self.settings.load()
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.load().0.clone()
    }

    /// Answers a request. An answer that cannot be written becomes a plain 500, so that none stays out.
    pub fn respond(&self, tx: ServerTxId, request: &Message, response: Result<Bytes, WriteError>) {
        self.answer_with(request, response, |endpoint, now, bytes| endpoint.respond(now, tx, bytes));
    }

    /// As [`Self::respond`], where another process gave this answer before and repeats it if that is needed.
    pub fn respond_once(&self, tx: ServerTxId, request: &Message, response: Result<Bytes, WriteError>) {
        self.answer_with(request, response, |endpoint, now, bytes| endpoint.respond_once(now, tx, bytes));
    }

    fn answer_with(
        &self,
        request: &Message,
        response: Result<Bytes, WriteError>,
        give: impl FnOnce(&mut Endpoint, Instant, Bytes) -> Result<(), RespondError>,
    ) {
        let bytes = response.or_else(|error| {
            tracing::error!(%error, "answer could not be written");
            ResponseWriter::for_request(request, StatusCode::SERVER_INTERNAL_ERROR, None, None).finish(b"")
        });
        if let Ok(bytes) = bytes
            && let Err(error) = self.drive(|endpoint, now| give(endpoint, now, bytes))
        {
            tracing::debug!(%error, "answer came too late");
        }
        // Only now: who waits for nothing to be unanswered must not close what the answer takes.
        self.waiting.fetch_sub(1, Ordering::Release);
    }

    /// Leaves a request without an answer of ours: another process works on it.
    pub fn absorb(&self, tx: ServerTxId) {
        if let Err(error) = self.drive(|endpoint, now| endpoint.absorb(now, tx)) {
            tracing::debug!(%error, "nothing to absorb");
        }
        self.waiting.fetch_sub(1, Ordering::Release);
    }

    /// Sends the ACK of a 2xx to an INVITE of ours, over the way that the INVITE took.
    pub fn acknowledge(&self, invite: Option<ClientTxId>, ack: &Outgoing) {
        if let Err(error) = self.drive(|endpoint, now| endpoint.send_ack(now, invite, ack)) {
            tracing::warn!(%error, "ACK could not be sent");
        }
    }

    /// While set, new requests outside of dialogs are refused.
    pub(crate) fn set_overloaded(&self, overloaded: bool) {
        self.endpoint.lock().set_overloaded(overloaded);
    }

    /// Takes a message that arrived on `flow`.
    pub(crate) fn receive(&self, flow: &Arc<Flow>, remote: SocketAddr, message: Message) {
        let source = source(flow, remote);
        self.drive(|endpoint, now| endpoint.handle_message(now, source, message));
    }

    /// Takes a response to a request of ours that reached another process.
    pub(crate) fn take_response(&self, transport: Transport, remote: SocketAddr, response: Message) {
        let source = Source { flow: ELSEWHERE, transport, remote, local: remote, takes_answers: true };
        self.drive(|endpoint, now| endpoint.handle_message(now, source, response));
    }

    /// Takes the ACK of a 2xx of ours that reached another process; tells whether that was given here.
    pub(crate) fn take_ack(&self, ack: &Message) -> bool {
        self.drive(|endpoint, now| endpoint.take_ack(now, ack))
    }

    /// Takes what could not be parsed; whatever can be answered is.
    pub(crate) fn receive_malformed(&self, flow: &Arc<Flow>, remote: SocketAddr, error: &ParseError) {
        self.metrics.malformed(error.kind.label());
        tracing::debug!(peer = %remote, %error, "malformed SIP message");
        let source = source(flow, remote);
        if let (Some(status), Some(partial)) = (error.status(), error.partial.clone()) {
            self.drive(|endpoint, now| endpoint.handle_partial(now, source, *partial, status));
        }
    }

    /// Carries a stream connection until it ends.
    pub(crate) async fn carry<S>(
        self: &Arc<Self>,
        stream: S,
        transport: Transport,
        remote: SocketAddr,
        local: SocketAddr,
        peer: Peer,
        opened_by: Opener,
    ) where
        S: AsyncRead + AsyncWrite,
    {
        let (queue, outgoing) = mpsc::channel(SEND_QUEUE);
        let flow = self.flows.add_stream(transport, remote, local, peer, opened_by, queue);
        self.carry_flow(flow, stream, outgoing).await;
    }

    /// Counts stream connections that are open.
    fn connections(&self, opened_by: Opener) -> Gauge {
        self.metrics.sip_connections.get_or_create(&State { state: opened_by.label() }).clone()
    }

    /// As [`Self::carry`], for a flow that exists already. Messages that the connection did not take before its
    /// end are reported as not sent.
    pub(crate) async fn carry_flow<S>(
        self: &Arc<Self>,
        flow: Arc<Flow>,
        stream: S,
        mut outgoing: mpsc::Receiver<Queued>,
    ) where
        S: AsyncRead + AsyncWrite,
    {
        let open = self.connections(flow.opened_by());
        open.inc();
        let settings = self.settings.load_full();
        let (limits, idle) = (settings.limits, settings.connections.idle);
        let stop = self.stop.subscribe();
        let ended =
            connection::run(Arc::clone(self), Arc::clone(&flow), stream, &mut outgoing, stop, limits, idle).await;
        open.dec();
        self.flows.remove(flow.id);
        tracing::debug!(peer = %flow.remote, transport = %flow.transport, ?ended, "SIP connection ended");
        // Nothing enters a closed queue any more, so that nothing stays behind in it unnoticed.
        outgoing.close();
        while let Ok(unsent) = outgoing.try_recv() {
            if let Queued::Message { origin, .. } = unsent {
                self.drive(|endpoint, now| endpoint.handle_send_failed(now, origin));
            }
        }
        self.drive(|endpoint, now| endpoint.handle_flow_closed(now, flow.id));
    }

    /// Feeds the transaction layer and performs what it says.
    pub(crate) fn drive<R>(&self, input: impl FnOnce(&mut Endpoint, Instant) -> R) -> R {
        let mut outputs: SmallVec<[Output; 4]> = SmallVec::new();
        let (result, earlier) = {
            let mut endpoint = self.endpoint.lock();
            let before = endpoint.poll_timeout().map(|(at, _)| at);
            let result = input(&mut endpoint, Instant::now());
            while let Some(output) = endpoint.poll_output() {
                outputs.push(output);
            }
            let after = endpoint.poll_timeout().map(|(at, _)| at);
            (result, after.is_some_and(|after| before.is_none_or(|before| after < before)))
        };
        if earlier {
            self.timer_moved.notify_one();
        }
        for output in outputs {
            self.perform(output);
        }
        result
    }

    fn perform(&self, output: Output) {
        match output {
            Output::Transmit { destination, bytes, origin } => self.transmit(destination, bytes, origin),
            Output::Event(event) => self.dispatch(event),
        }
    }

    fn transmit(&self, destination: Destination, bytes: Bytes, origin: Origin) {
        let flow = match destination {
            Destination::Flow { flow, .. } => self.flows.find(flow),
            Destination::Address { transport: Transport::Udp, remote, .. } => self.flows.socket_for(remote),
            Destination::Address { transport, remote, instead_of } => {
                let former = self.flows.peer_of(instead_of);
                let open = former.as_ref().and_then(|peer| self.flows.stream_to(transport, remote, peer));
                if let (None, Some(former)) = (&open, former)
                    && self.answer_anew(transport, remote, former, &bytes, origin)
                {
                    return;
                }
                open
            }
        };
        let sent = flow.is_some_and(|flow| flow.send(destination.remote(), bytes, origin).is_ok());
        if !sent {
            tracing::debug!(to = %destination.remote(), "message could not be sent");
            self.drive(|endpoint, now| endpoint.handle_send_failed(now, origin));
        }
    }

    fn dispatch(&self, event: Event) {
        let Some(handler) = self.handler.get() else { return };
        match event {
            Event::Request { tx, source, message } => {
                if let Some(flow) = self.flows.find(source.flow) {
                    flow.note_request();
                    self.waiting.fetch_add(1, Ordering::Relaxed);
                    handler.request(tx, &flow, source.remote, message);
                }
            }
            Event::Ack { tx, source, message } => {
                if self.flows.find(source.flow).is_some() {
                    handler.ack(message, tx.is_some());
                }
            }
            Event::Cancelled { tx } => handler.cancelled(tx),
            Event::AckTimeout { call_id, local_tag, .. } => handler.never_acknowledged(call_id, local_tag),
            Event::StrayResponse { source, message } => {
                // One that another process handed over has no flow here, and goes nowhere else.
                let Some(flow) = self.flows.find(source.flow) else { return };
                if handler.foreign_response(&flow, source.remote, &message) {
                    return;
                }
                if accepts_invite(&message) {
                    return handler.late_acceptance(&flow, source.remote, message);
                }
                tracing::debug!(peer = %source.remote, "response matches no transaction");
            }
            event @ (Event::Response { .. } | Event::Timeout { .. } | Event::SendFailed { .. }) => {
                self.exchanges.handle(event);
            }
        }
    }

    /// Begins the end: no new connections, `/readyz` is the caller's.
    pub fn drain(&self) {
        self.stop.send_replace(Stop::Draining);
    }

    /// Tells how many requests, of either side, wait for their answer.
    pub fn unanswered(&self) -> usize {
        self.waiting.load(Ordering::Acquire) + self.exchanges.unanswered()
    }

    /// Gives up the stream connections that `opened_by` opened: each is closed for what we write when nobody waits for an answer
    /// on it, or after a second, and read until the peer has closed it, too. Later answers to what came with it leave over other
    /// connections.
    pub async fn give_up_connections(&self, opened_by: Opener) {
        let begun = Instant::now();
        while self.connections(opened_by).get() > 0 && begun.elapsed() < GIVING_UP {
            let mut waiting = BTreeSet::new();
            if begun.elapsed() < QUIET {
                waiting = self.endpoint.lock().waiting_flows();
            }
            self.flows.end_streams(opened_by, &waiting);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Closes everything.
    pub fn close(&self) {
        self.stop.send_replace(Stop::Now);
        self.timer_moved.notify_one();
    }
}

fn accepts_invite(response: &Message) -> bool {
    response.cseq().method == Method::Invite && response.status().is_some_and(StatusCode::is_success)
}

fn source(flow: &Flow, remote: SocketAddr) -> Source {
    let takes_answers = flow.is_open();
    Source { flow: flow.id, transport: flow.transport, remote, local: flow.local, takes_answers }
}

/// Wakes the transaction layer when its next timer is due.
async fn run_timers(edge: Arc<SipEdge>) {
    loop {
        let due = edge.endpoint.lock().poll_timeout().map(|(at, _)| at);
        let moved = edge.timer_moved.notified();
        match due {
            None => moved.await,
            Some(at) => {
                tokio::select! {
                    () = moved => {}
                    () = tokio::time::sleep_until(at.into()) => edge.drive(Endpoint::handle_timeout),
                }
            }
        }
        if *edge.stop.borrow() == Stop::Now {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
