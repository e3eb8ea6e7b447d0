//! Answers to requests whose connection is gone.
//!
//! They go to the address of the connection and the port of the request's Via, over a new connection (RFC 3261 §18.2.2).
//! With TLS that one must belong to the peer that sent the request: its certificate states a name that the former one stated.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use isthmus_sip::Transport;
use isthmus_sip::endpoint::Origin;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::time::timeout;

use super::flow::{Flow, Peer};
use super::outbound::{Identity, SendFailure};
use super::{SipEdge, reach};

/// To how many addresses connections are opened at a time, of them on one host, and how many answers may wait for each. Anybody
/// can ask for an answer to their own address.
const AT_ONCE: usize = 64;
const OF_ONE_HOST: usize = 4;
const WAITING: usize = 256;
/// How long a new connection may take: the peer has waited for its answer already.
const OPENING: Duration = Duration::from_secs(5);

/// Addresses to which a connection is being opened. Who has an answer for the same one waits, and takes that connection, or
/// shares its failure.
#[derive(Debug, Default)]
pub struct Answers {
    opening: Mutex<HashMap<(Transport, SocketAddr), Turn>>,
}

/// When the last attempt failed.
type Turn = Arc<tokio::sync::Mutex<Option<Instant>>>;

impl Answers {
    fn turn(&self, to: (Transport, SocketAddr)) -> Option<Turn> {
        let mut opening = self.opening.lock();
        opening.retain(|_, turn| Arc::strong_count(turn) > 1);
        if let Some(turn) = opening.get(&to) {
            return (Arc::strong_count(turn) <= WAITING).then(|| Arc::clone(turn));
        }
        let of_host = opening.keys().filter(|(_, other)| other.ip() == to.1.ip()).count();
        let has_room = opening.len() < AT_ONCE && of_host < OF_ONE_HOST;
        has_room.then(|| Arc::clone(opening.entry(to).or_default()))
    }
}

impl SipEdge {
    /// Sends an answer for a peer whose connection is gone over a new one; tells whether that is tried.
    pub(super) fn answer_anew(
        &self,
        transport: Transport,
        remote: SocketAddr,
        former: Peer,
        answer: &Bytes,
        origin: Origin,
    ) -> bool {
        let Some(edge) = self.own.upgrade() else { return false };
        let Some(turn) = self.answers.turn((transport, remote)) else {
            self.metrics.refused("answer_connections");
            return false;
        };
        let (answer, asked) = (answer.clone(), Instant::now());
        // The request is not answered before the answer has left.
        self.waiting.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let mut failed = turn.lock().await;
            let flow = match edge.flows.stream_to(transport, remote, &former) {
                Some(flow) => Ok(flow),
                None if failed.is_some_and(|at| at > asked) => Err("the last attempt failed".to_owned()),
                None => {
                    let opened = timeout(OPENING, edge.connect_to_former(transport, remote, &former)).await;
                    opened.map_err(|_| "no answer in 5 s".to_owned()).and_then(|r| r.map_err(|error| error.to_string()))
                }
            };
            if flow.is_err() && failed.is_none_or(|at| at <= asked) {
                *failed = Some(Instant::now());
            }
            drop(failed);
            let sent = flow.and_then(|flow| flow.send(remote, answer, origin).map_err(|error| error.to_string()));
            if let Err(error) = sent {
                tracing::info!(to = %remote, error, "an answer is lost: its connection is gone, and there is no other");
                edge.drive(|endpoint, now| endpoint.handle_send_failed(now, origin));
            }
            edge.waiting.fetch_sub(1, Ordering::Release);
        });
        true
    }

    async fn connect_to_former(
        self: &Arc<Self>,
        transport: Transport,
        remote: SocketAddr,
        former: &Peer,
    ) -> Result<Arc<Flow>, SendFailure> {
        let refused = |cause: &str| SendFailure::Connect { addr: remote, cause: cause.to_owned() };
        let settings = self.settings().clone();
        if !reach::may_dial(remote.ip(), &settings.allowed_ranges) {
            self.metrics.refused("private_address");
            return Err(refused("it is no public address: to dial it, add it to allowedRanges of the pool"));
        }
        let limits = settings.connections;
        let Some(place) = self.admission.enter(remote.ip(), limits.total, limits.per_address) else {
            self.metrics.refused("connection_limit");
            return Err(refused("there are as many connections as may be: see limits of the pool"));
        };
        let (stated, own_name) = match former {
            Peer::Certificate { names, asked_for } => (names.as_slice(), asked_for.as_deref()),
            Peer::Address => (&[][..], None),
        };
        let named = stated.iter().find_map(|name| ServerName::try_from(name.clone()).ok());
        let identity = Identity {
            asked: named.unwrap_or_else(|| ServerName::from(remote.ip())),
            own_name: own_name.unwrap_or_default(),
            accepts: &|name| stated.contains(name),
            accepted: stated,
        };
        self.open_stream(transport, remote, &identity, Some(place)).await
    }
}
