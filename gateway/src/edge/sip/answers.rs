//! Answers to requests whose connection is gone.
//!
//! They go to the address of the connection and the port of the request's Via, over a new connection (RFC 3261 §18.2.2).
//! With TLS that one must belong to the peer that sent the request: its certificate states a name that the former one stated.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use isthmus_sip::Transport;
use isthmus_sip::endpoint::{FlowId, Origin};
use parking_lot::Mutex;
use rustls::pki_types::ServerName;

use super::flow::{Flow, Peer};
use super::outbound::{Identity, SendFailure};
use super::{SipEdge, reach};

/// To how many addresses connections are opened at a time. Anybody can ask for an answer to their own address.
const AT_ONCE: usize = 64;

/// Addresses to which a connection is being opened. Who has an answer for the same one waits, and takes that connection.
#[derive(Debug, Default)]
pub struct Answers {
    opening: Mutex<HashMap<(Transport, SocketAddr), Turn>>,
}

type Turn = Arc<tokio::sync::Mutex<()>>;

impl Answers {
    fn turn(&self, to: (Transport, SocketAddr)) -> Option<Turn> {
        let mut opening = self.opening.lock();
        if opening.len() >= AT_ONCE {
            opening.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        let is_full = opening.len() >= AT_ONCE && !opening.contains_key(&to);
        (!is_full).then(|| Arc::clone(opening.entry(to).or_default()))
    }
}

impl SipEdge {
    /// Sends an answer over a new connection; tells whether somebody takes care of it.
    pub(super) fn answer_anew(
        &self,
        transport: Transport,
        remote: SocketAddr,
        instead_of: Option<FlowId>,
        answer: &Bytes,
        origin: Origin,
    ) -> bool {
        let Some((edge, former)) = self.own.upgrade().zip(instead_of.and_then(|flow| self.flows.recall(flow))) else {
            return false;
        };
        let Some(turn) = self.answers.turn((transport, remote)) else {
            self.metrics.refused("answer_connections");
            return false;
        };
        let answer = answer.clone();
        // The request is not answered before the answer has left.
        self.waiting.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let turn = turn.lock().await;
            let flow = match edge.flows.stream_to(transport, remote) {
                Some(flow) => Ok(flow),
                None => edge.connect_to_former(transport, remote, &former).await,
            };
            drop(turn);
            let sent = match flow {
                Ok(flow) => flow.send(remote, answer, origin).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
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
        former: &Flow,
    ) -> Result<Arc<Flow>, SendFailure> {
        if !reach::may_dial(remote.ip(), &self.settings().allowed_ranges) {
            self.metrics.refused("private_address");
            let cause = "it is no public address: to dial it, add it to allowedRanges of the pool".to_owned();
            return Err(SendFailure::Connect { addr: remote, cause });
        }
        let (stated, own_name) = match &former.peer {
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
        self.open_stream(transport, remote, &identity).await
    }
}
