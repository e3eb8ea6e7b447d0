//! Requests that leave: where to, over which connection, and what became of them.
//!
//! An exchange is one request from the first attempt to its final outcome. Targets come from static next
//! hops or DNS; a target that cannot be reached, does not answer or says 503 is followed by the next one,
//! with a new branch (RFC 3263 §4.3). A connection belongs to one (federated domain, local domain) pair and
//! is used for no other (RFC 5923 §9.3); before it carries a request its certificate must state a name that
//! the domain accepts (RFC 5922 §7.3).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use ipnet::IpNet;
use isthmus_model::Domain;
use isthmus_policy::FederatedDomain;
use isthmus_sip::endpoint::{ClientTxId, Destination, Event, Outgoing, SendError, SentBy};
use isthmus_sip::{Message, Transport, Uri};
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::flow::{Flow, Opener, Peer};
use super::listener::Place;
use super::{SipEdge, reach};
use crate::dns::{Discovery, LocateError, Locator, Target};
use crate::tls::CertificateNames;

/// How long a TCP connection may take to open, and a TLS handshake after it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long more 2xx of an INVITE may follow the first: Timer M (RFC 6026 §7.2).
const FORK_WAIT: Duration = Duration::from_secs(32);

/// Where a federated domain is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whereabouts {
    /// Fixed next hops, host and port, in order.
    Static(Vec<(String, u16)>),
    /// Service records, always over TLS.
    Dns(Discovery),
}

/// Everything that sending to one federated domain on behalf of one local domain needs.
#[derive(Debug, Clone)]
pub struct PeerRoute {
    /// The federated domain.
    pub peer: Domain,
    /// The local domain for which we speak.
    pub local: Domain,
    /// Our name and port in Via; the certificate that we show covers the name.
    pub sent_by: SentBy,
    /// Where the domain is.
    pub whereabouts: Whereabouts,
    /// How it is reached; DNS always leads to TLS.
    pub transport: Transport,
    /// Decides which certificate names are the domain's.
    pub domain: Arc<FederatedDomain>,
}

/// Why a request did not reach the peer. Nothing was processed by anyone, but perhaps for [`Self::Lost`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendFailure {
    /// The peer's address is not to be found.
    #[error(transparent)]
    Locate(#[from] LocateError),
    /// The next hop of the dialog lies outside the peer's names.
    #[error("next hop {hop} does not belong to {peer}")]
    ForeignHop {
        /// The host that the peer named.
        hop: String,
        /// The federated domain.
        peer: Domain,
    },
    /// The address is not public, and the pool does not allow it.
    #[error(
        "{addr} of {peer} is not a public address: to dial it, add it to allowedRanges of the pool, \
         for example \"{}\"", IpNet::from(addr.ip().to_canonical())
    )]
    NotAllowed {
        /// The address that was found for the domain.
        addr: SocketAddr,
        /// The federated domain.
        peer: Domain,
    },
    /// No connection could be opened.
    #[error("cannot connect to {addr}: {cause}")]
    Connect {
        /// The last address tried.
        addr: SocketAddr,
        /// What the system said.
        cause: String,
    },
    /// TLS failed; there is no way around it over TCP or UDP.
    #[error("TLS with {addr} failed: {cause}")]
    Tls {
        /// The last address tried.
        addr: SocketAddr,
        /// What rustls said.
        cause: String,
    },
    /// The certificate states none of the accepted names.
    #[error("the certificate of {addr} states {stated:?}, none of the accepted {accepted:?}")]
    Identity {
        /// The address.
        addr: SocketAddr,
        /// What the certificate states.
        stated: Vec<String>,
        /// What the configuration accepts.
        accepted: Vec<String>,
    },
    /// The request itself cannot be written.
    #[error("request cannot be written: {0}")]
    Unwritable(String),
    /// The connection broke before an answer came.
    #[error("connection lost before an answer came")]
    Lost,
    /// The transaction layer holds as many transactions as it may.
    #[error("too many transactions are open")]
    Overload,
}

/// What an exchange tells its owner.
#[derive(Debug)]
pub enum ClientEvent {
    /// A 1xx; the exchange goes on.
    Provisional(Message),
    /// A final response; for an INVITE more 2xx of other branches may follow.
    Final(Message),
    /// Nobody answered in time; the request may have been processed.
    Timeout,
    /// The request reached nobody.
    Failed(SendFailure),
    /// When it was about to leave, it might not any more.
    Withdrawn {
        /// It went to another target before, and may have been processed there.
        has_left: bool,
    },
}

/// Asked right before a request leaves, which finding its target and connecting may have delayed: whether it still may.
pub type Leave = Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>;

/// A request under way.
#[derive(Debug)]
pub struct Exchange {
    events: mpsc::UnboundedReceiver<ClientEvent>,
    control: Control,
}

/// The attempt of an exchange that is under way.
type Current = Arc<Mutex<Option<(ClientTxId, Destination)>>>;

/// A hand on an exchange that somebody else follows.
#[derive(Debug, Clone)]
pub struct Control {
    current: Current,
    edge: Arc<SipEdge>,
    sent_by: SentBy,
}

/// The way of an ACK to a 2xx.
#[derive(Debug, Clone)]
pub enum AckWay {
    /// That of its INVITE.
    Invite(Control),
    /// That on which the 2xx came, when nothing is known of its INVITE any more.
    Back {
        /// Where it came from.
        destination: Destination,
        /// Our name in Via.
        sent_by: SentBy,
    },
}

impl SipEdge {
    /// Sends the ACK of a 2xx.
    pub fn acknowledge_over(&self, way: &AckWay, ack: Bytes) {
        match way {
            AckWay::Invite(control) => control.acknowledge(ack),
            AckWay::Back { destination, sent_by } => {
                let (destination, sent_by) = (*destination, sent_by.clone());
                let ack = Outgoing { request: ack, destination, sent_by, alias: false, correlation: 0 };
                self.acknowledge(None, &ack);
            }
        }
    }
}

impl Control {
    /// Cancels an INVITE; the transaction layer sends the CANCEL once a 1xx has come (RFC 3261 §9.1).
    pub fn cancel(&self) {
        if let Some((tx, _)) = *self.current.lock() {
            self.edge.drive(|endpoint, now| endpoint.cancel(now, tx));
        }
    }

    /// Acknowledges the 2xx to an INVITE over the way that the INVITE took; the next hop of the dialog is
    /// behind the same connection, since a peer's connection serves no other peer.
    pub fn acknowledge(&self, ack: Bytes) {
        let Some((tx, destination)) = *self.current.lock() else { return };
        let ack = Outgoing { request: ack, destination, sent_by: self.sent_by.clone(), alias: false, correlation: 0 };
        self.edge.acknowledge(Some(tx), &ack);
    }
}

impl Exchange {
    /// Waits for the next thing that happens; `None` after the end.
    pub async fn next(&mut self) -> Option<ClientEvent> {
        self.events.recv().await
    }

    /// Waits for the final outcome, passing over provisional responses.
    pub async fn outcome(mut self) -> ClientEvent {
        loop {
            match self.next().await {
                Some(ClientEvent::Provisional(_)) => {}
                Some(event) => return event,
                None => return ClientEvent::Failed(SendFailure::Lost),
            }
        }
    }

    /// Returns a hand on the exchange, for whoever does not follow it.
    pub fn control(&self) -> Control {
        self.control.clone()
    }
}

/// Exchanges by their correlation number.
#[derive(Debug, Default)]
pub struct Exchanges {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Open>>,
}

/// An exchange that hears of what happens.
#[derive(Debug)]
struct Open {
    tell: mpsc::UnboundedSender<Event>,
    /// It has its answer; an INVITE may get more of them for a while.
    answered: bool,
}

impl Exchanges {
    pub(super) fn open(&self) -> (u64, mpsc::UnboundedReceiver<Event>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (tell, receiver) = mpsc::unbounded_channel();
        self.open.lock().insert(number, Open { tell, answered: false });
        (number, receiver)
    }

    /// Counts exchanges without an answer.
    pub(super) fn unanswered(&self) -> usize {
        self.open.lock().values().filter(|exchange| !exchange.answered).count()
    }

    fn answered(&self, number: u64) {
        if let Some(exchange) = self.open.lock().get_mut(&number) {
            exchange.answered = true;
        }
    }

    fn close(&self, number: u64) {
        self.open.lock().remove(&number);
    }

    /// Hands an event of a client transaction to its exchange.
    pub(super) fn handle(&self, event: Event) {
        let number = match &event {
            Event::Response { correlation, .. }
            | Event::Timeout { correlation, .. }
            | Event::SendFailed { correlation, .. } => *correlation,
            _ => return,
        };
        let tell = self.open.lock().get(&number).map(|exchange| exchange.tell.clone());
        if let Some(tell) = tell {
            // The receiver may be gone: nobody waits for this answer any more.
            let _ = tell.send(event);
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PoolKey {
    peer: Domain,
    local: Domain,
    addr: SocketAddr,
    transport: Transport,
}

/// Who must be at the other end of a connection with TLS, and who we are there.
pub(super) struct Identity<'a> {
    /// Whom we ask for (SNI).
    pub(super) asked: ServerName<'static>,
    /// The name that our certificate covers.
    pub(super) own_name: &'a str,
    /// Whether a name in the peer's certificate is a right one.
    pub(super) accepts: &'a (dyn Fn(&String) -> bool + Sync),
    /// The right ones, for whoever reads that there was none.
    pub(super) accepted: &'a [String],
}

/// A place for one connection: whoever needs it first opens it, the others wait.
type PoolSlot = Arc<tokio::sync::Mutex<Option<Arc<Flow>>>>;

/// Connections that we opened, by what they may be used for.
#[derive(Debug, Default)]
pub struct Pool {
    slots: Mutex<HashMap<PoolKey, PoolSlot>>,
}

impl Pool {
    fn slot(&self, key: &PoolKey) -> PoolSlot {
        let mut slots = self.slots.lock();
        if slots.len() > 1024 {
            slots.retain(|_, slot| {
                Arc::strong_count(slot) > 1
                    || slot.try_lock().is_ok_and(|flow| flow.as_ref().is_some_and(|flow| flow.is_open()))
            });
        }
        Arc::clone(slots.entry(key.clone()).or_default())
    }
}

impl SipEdge {
    /// Sends a request and reports what becomes of it. `hop` is the dialog's next hop (top Route, or remote
    /// target), `None` outside dialogs.
    pub fn exchange(
        self: &Arc<Self>,
        locator: Locator,
        route: Arc<PeerRoute>,
        hop: Option<String>,
        request: Bytes,
        leave: Option<Leave>,
    ) -> Exchange {
        let (tell, events) = mpsc::unbounded_channel();
        let current = Current::default();
        let sent_by = route.sent_by.clone();
        let attempt = Attempt {
            edge: Arc::clone(self),
            locator,
            route,
            hop,
            leave,
            current: Arc::clone(&current),
            tell,
            invite: request.starts_with(b"INVITE "),
        };
        tokio::spawn(attempt.run(request));
        Exchange { events, control: Control { current, edge: Arc::clone(self), sent_by } }
    }

    async fn flow_to(self: &Arc<Self>, route: &PeerRoute, target: &Target) -> Result<Arc<Flow>, SendFailure> {
        if !reach::may_dial(target.addr.ip(), &self.settings().allowed_ranges) {
            self.metrics.refused("private_address");
            return Err(SendFailure::NotAllowed { addr: target.addr, peer: route.peer.clone() });
        }
        if target.transport == Transport::Udp {
            return self.flows.socket_for(target.addr).ok_or_else(|| SendFailure::Connect {
                addr: target.addr,
                cause: "no UDP socket of this address family: set expose.ports.sipPlain".to_owned(),
            });
        }
        let key = PoolKey {
            peer: route.peer.clone(),
            local: route.local.clone(),
            addr: target.addr,
            transport: target.transport,
        };
        let slot = self.pool.slot(&key);
        let mut slot = slot.lock().await;
        if let Some(flow) = slot.as_ref().filter(|flow| flow.is_open()) {
            return Ok(Arc::clone(flow));
        }
        let flow = self.connect(route, target).await?;
        *slot = Some(Arc::clone(&flow));
        Ok(flow)
    }

    async fn connect(self: &Arc<Self>, route: &PeerRoute, target: &Target) -> Result<Arc<Flow>, SendFailure> {
        let targets = [target.host.clone()];
        let identity = Identity {
            // SNI is the name that is verified: the domain that was looked up (RFC 5922 §7.3).
            asked: ServerName::try_from(route.peer.as_str().to_owned())
                .map_err(|error| SendFailure::Tls { addr: target.addr, cause: error.to_string() })?,
            own_name: &route.sent_by.host,
            accepts: &|name| route.domain.identities.accept(name, &route.peer, &targets),
            accepted: route.domain.identities.names(),
        };
        self.open_stream(target.transport, target.addr, &identity, None).await
    }

    /// Opens a connection over TCP or TLS, which holds its place among all connections, if it needs one, as long as it lasts.
    pub(super) async fn open_stream(
        self: &Arc<Self>,
        transport: Transport,
        addr: SocketAddr,
        identity: &Identity<'_>,
        place: Option<Place>,
    ) -> Result<Arc<Flow>, SendFailure> {
        let failed = |cause: String| SendFailure::Connect { addr, cause };
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(addr))
            .await
            .map_err(|_| failed("no answer in 10 s".to_owned()))?
            .map_err(|error| failed(error.to_string()))?;
        let _ = stream.set_nodelay(true);
        let local = stream.local_addr().map_err(|error| failed(error.to_string()))?;
        if transport == Transport::Tcp {
            return Ok(self.begin_to_carry(stream, transport, (addr, local), Peer::Address, place));
        }
        let broken = |cause: String| SendFailure::Tls { addr, cause };
        let config = self.client_tls(identity.own_name).map_err(|error| broken(error.to_string()))?;
        let stream = timeout(CONNECT_TIMEOUT, TlsConnector::from(config).connect(identity.asked.clone(), stream))
            .await
            .map_err(|_| broken("no answer in 10 s".to_owned()))?
            .map_err(|error| broken(error.to_string()))?;
        let names = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).map(CertificateNames::of);
        let names = names.unwrap_or_default();
        if !names.as_slice().iter().any(|name| (identity.accepts)(name)) {
            self.metrics.refused("tls_identity");
            let (stated, accepted) = (names.as_slice().to_vec(), identity.accepted.to_vec());
            return Err(SendFailure::Identity { addr, stated, accepted });
        }
        let peer = Peer::Certificate { names: Arc::new(names), asked_for: None };
        Ok(self.begin_to_carry(stream, transport, (addr, local), peer, place))
    }

    /// Carries a connection of ours in a task of its own.
    fn begin_to_carry(
        self: &Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Send + 'static,
        transport: Transport,
        (remote, local): (SocketAddr, SocketAddr),
        peer: Peer,
        place: Option<Place>,
    ) -> Arc<Flow> {
        let (queue, outgoing) = mpsc::channel(super::SEND_QUEUE);
        let flow = self.flows.add_stream(transport, remote, local, peer, Opener::Here, queue);
        let (edge, carried) = (Arc::clone(self), Arc::clone(&flow));
        tokio::spawn(async move {
            edge.carry_flow(carried, stream, outgoing).await;
            drop(place);
        });
        flow
    }
}

/// One exchange at work.
struct Attempt {
    edge: Arc<SipEdge>,
    locator: Locator,
    route: Arc<PeerRoute>,
    hop: Option<String>,
    leave: Option<Leave>,
    current: Current,
    tell: mpsc::UnboundedSender<ClientEvent>,
    invite: bool,
}

impl Attempt {
    async fn run(self, request: Bytes) {
        let (number, mut events) = self.edge.exchanges.open();
        self.try_targets(number, &mut events, request).await;
        self.edge.exchanges.close(number);
    }

    /// Tells the owner, who may have lost interest.
    fn tell(&self, event: ClientEvent) {
        let _ = self.tell.send(event);
    }

    async fn try_targets(&self, number: u64, events: &mut mpsc::UnboundedReceiver<Event>, request: Bytes) {
        let targets = match self.targets().await {
            Ok(targets) => targets,
            Err(failure) => return self.tell(ClientEvent::Failed(failure)),
        };
        let mut failure = SendFailure::Lost;
        let last = targets.len().saturating_sub(1);
        for (place, target) in targets.iter().enumerate() {
            let flow = match self.edge.flow_to(&self.route, target).await {
                Ok(flow) => flow,
                Err(error) => {
                    tracing::info!(peer = %self.route.peer, %error, "target failed");
                    failure = error;
                    continue;
                }
            };
            if let Some(leave) = &self.leave
                && !leave().await
            {
                let has_left = self.current.lock().is_some();
                return self.tell(ClientEvent::Withdrawn { has_left });
            }
            let destination = Destination::Flow { flow: flow.id, transport: flow.transport, remote: target.addr };
            if let Err(error) = self.start(number, destination, &request) {
                return self.tell(ClientEvent::Failed(error));
            }
            match self.follow(number, events, place == last).await {
                Followed::Done => return,
                Followed::Next(next) => failure = next,
            }
        }
        self.tell(ClientEvent::Failed(failure));
    }

    /// Opens the transaction, or repeats its request with a new branch towards another target.
    fn start(&self, number: u64, destination: Destination, request: &Bytes) -> Result<(), SendFailure> {
        let former = self.current.lock().map(|(tx, _)| tx);
        let started = self.edge.drive(|endpoint, now| {
            let retried = former.map(|former| endpoint.retry_on(now, former, destination));
            match retried {
                // The former attempt was forgotten meanwhile, while the next connection took its time.
                None | Some(Err(SendError::Gone)) => endpoint.send_request(
                    now,
                    Outgoing {
                        request: request.clone(),
                        destination,
                        sent_by: self.route.sent_by.clone(),
                        alias: false,
                        correlation: number,
                    },
                ),
                Some(retried) => retried,
            }
        });
        match started {
            Ok(tx) => {
                *self.current.lock() = Some((tx, destination));
                Ok(())
            }
            Err(SendError::TooMany) => Err(SendFailure::Overload),
            Err(error) => Err(SendFailure::Unwritable(error.to_string())),
        }
    }

    /// Hands on what happens until this target is done with.
    async fn follow(&self, number: u64, events: &mut mpsc::UnboundedReceiver<Event>, last: bool) -> Followed {
        let mut heard = false;
        let mut answered = false;
        loop {
            let next = if answered { timeout(FORK_WAIT, events.recv()).await } else { Ok(events.recv().await) };
            let Ok(Some(event)) = next else { return Followed::Done };
            match event {
                Event::Response { message, status, .. } => {
                    heard = true;
                    if status.is_provisional() {
                        self.tell(ClientEvent::Provisional(message));
                    } else if status.code() == 503 && !last && !answered {
                        return Followed::Next(SendFailure::Lost);
                    } else {
                        answered = true;
                        let ended = !self.invite || !status.is_success();
                        self.tell(ClientEvent::Final(message));
                        if ended {
                            return Followed::Done;
                        }
                        self.edge.exchanges.answered(number);
                    }
                }
                Event::Timeout { .. } if !heard && !last => return Followed::Next(SendFailure::Lost),
                Event::Timeout { .. } => {
                    self.tell(ClientEvent::Timeout);
                    return Followed::Done;
                }
                Event::SendFailed { .. } if !heard => return Followed::Next(SendFailure::Lost),
                Event::SendFailed { .. } => {
                    self.tell(ClientEvent::Timeout);
                    return Followed::Done;
                }
                _ => {}
            }
        }
    }

    async fn targets(&self) -> Result<Vec<Target>, SendFailure> {
        let route = &self.route;
        match (&route.whereabouts, &self.hop) {
            // A static route is the next hop of everything (interworking specification §6.7, step 0).
            (Whereabouts::Static(hops), _) => {
                let mut targets = Vec::new();
                let mut failure = None;
                for (host, port) in hops {
                    match self.locator.host(host, *port, route.transport).await {
                        Ok(found) => targets.extend(found),
                        Err(error) => failure = Some(error),
                    }
                }
                match failure {
                    Some(error) if targets.is_empty() => Err(error.into()),
                    _ => Ok(targets),
                }
            }
            (Whereabouts::Dns(discovery), None) => Ok(self.locator.locate(route.peer.as_str(), *discovery).await?),
            (Whereabouts::Dns(discovery), Some(hop)) => self.hop_targets(hop, *discovery).await,
        }
    }

    /// Resolves a dialog's next hop, which must belong to the peer (interworking specification §1.5).
    async fn hop_targets(&self, hop: &str, discovery: Discovery) -> Result<Vec<Target>, SendFailure> {
        let route = &self.route;
        let foreign = || SendFailure::ForeignHop { hop: hop.to_owned(), peer: route.peer.clone() };
        let uri = Uri::parse(hop).map_err(|_| foreign())?;
        let host = uri.host().ok_or_else(foreign)?.to_string();
        let named = Domain::parse(&host).ok();
        let own = named.as_ref().is_some_and(|name| {
            name.is_within(&route.peer) || route.domain.identities.accept(name.as_str(), &route.peer, &[])
        });
        if own && uri.port().is_none() && named.as_ref() == Some(&route.peer) {
            return Ok(self.locator.locate(route.peer.as_str(), discovery).await?);
        }
        let port = uri.port().unwrap_or_else(|| Transport::Tls.default_port());
        if own {
            return Ok(self.locator.host(&host, port, Transport::Tls).await?);
        }
        // Another name or a numeric hop is the peer's when the peer's own records lead to the same machine.
        let known = self.locator.locate(route.peer.as_str(), discovery).await?;
        let asked = self.locator.host(&host, port, Transport::Tls).await?;
        let targets: Vec<Target> =
            asked.into_iter().filter(|target| known.iter().any(|known| known.addr.ip() == target.addr.ip())).collect();
        if targets.is_empty() { Err(foreign()) } else { Ok(targets) }
    }
}

enum Followed {
    Done,
    Next(SendFailure),
}
