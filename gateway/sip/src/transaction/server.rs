//! One request that we received.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::key::Fingerprint;
use crate::endpoint::{Destination, Source};
use crate::header::Via;
use crate::method::Method;
use crate::status::StatusCode;
use crate::timer::Token;

/// Where a server transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerState {
    /// Nothing was answered.
    Trying,
    /// A provisional answer was sent.
    Proceeding,
    /// A final answer was sent: any to a non-INVITE, other than 2xx to an INVITE.
    Completed,
    /// The ACK of that answer came (INVITE).
    Confirmed,
    /// A 2xx was sent (INVITE, RFC 6026 §7.1).
    Accepted,
    /// The transaction is over; its answer is kept for copies of the request that took another way.
    Remembered,
}

impl ServerState {
    /// True while the final answer is due.
    pub(crate) fn is_open(self) -> bool {
        matches!(self, Self::Trying | Self::Proceeding)
    }
}

/// One server transaction, see the module's text.
#[derive(Debug)]
pub(crate) struct ServerTx {
    pub(crate) key: Fingerprint,
    pub(crate) merge: Fingerprint,
    /// Key of the ACK that a 2xx waits for.
    pub(crate) ack: Option<Fingerprint>,
    pub(crate) acked: bool,
    pub(crate) invite: bool,
    pub(crate) state: ServerState,
    /// The request; dropped with the final answer, after which nobody needs it.
    pub(crate) request: Bytes,
    pub(crate) reply: ReplyPath,
    /// The last answer.
    pub(crate) response: Bytes,
    pub(crate) interval: Duration,
    /// Timer of retransmissions, of the 100, or I.
    pub(crate) short: Option<Token>,
    /// Timer that ends the state.
    pub(crate) long: Option<Token>,
}

/// Where answers to a request go (RFC 3261 §18.2.2, RFC 3581 §4).
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReplyPath {
    pub(crate) source: Source,
    /// Port to answer to: of sent-by, or on UDP the source port when `rport` asks for it.
    port: u16,
    /// The flow failed us; answers go to the address.
    pub(crate) flow_failed: bool,
}

impl ReplyPath {
    pub(crate) fn new(source: Source, via: &Via<'_>) -> Self {
        let sent_by = via.port().unwrap_or_else(|| source.transport.default_port());
        let port = match via.rport() {
            Some(_) if !source.transport.is_reliable() => source.remote.port(),
            _ => sent_by,
        };
        Self { source, port, flow_failed: !source.takes_answers }
    }

    /// The request's own connection while it is open, else its source address with the port of sent-by.
    pub(crate) fn destination(&self, flow_open: bool) -> Destination {
        let Source { flow, transport, remote, .. } = self.source;
        let answer_to = SocketAddr::new(remote.ip(), self.port);
        if !transport.is_reliable() {
            return Destination::Flow { flow, transport, remote: answer_to };
        }
        if flow_open && !self.flow_failed {
            return Destination::Flow { flow, transport, remote };
        }
        Destination::Address { transport, remote: answer_to, instead_of: flow }
    }
}

/// Why an answer was not sent. It is always our own mistake or a race of ours, never the peer's doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RespondError {
    /// The transaction is over and forgotten.
    #[error("transaction is gone")]
    Gone,
    /// A final answer was sent before, perhaps because the request was cancelled.
    #[error("request has its final answer")]
    Answered,
    /// The bytes do not start with a status line.
    #[error("not a response")]
    NotResponse,
    /// This status must not be the answer to this request.
    #[error("status {0} must not be sent here")]
    Forbidden(StatusCode),
}

impl ServerTx {
    /// Tells whether `status` may be sent.
    ///
    /// Never 408 to a non-INVITE (RFC 4320 §4.2), no provisional answer to it but the 100 that the endpoint sends by
    /// itself (§4.1), never 202 to SUBSCRIBE and NOTIFY (RFC 6665 §8.3.1), and never a challenge, since
    /// peers are known by their connection (interworking specification D10).
    pub(crate) fn may_answer(&self, status: StatusCode) -> Result<(), RespondError> {
        if !self.state.is_open() {
            return Err(RespondError::Answered);
        }
        let subscription = self.is_method(Method::Subscribe) || self.is_method(Method::Notify);
        let forbidden = match status.code() {
            401 | 407 => true,
            100 => true,
            408 | 101..200 => !self.invite,
            202 => subscription,
            _ => false,
        };
        if forbidden { Err(RespondError::Forbidden(status)) } else { Ok(()) }
    }

    fn is_method(&self, method: Method<'_>) -> bool {
        let name = method.as_str().as_bytes();
        self.request.starts_with(name) && self.request.get(name.len()) == Some(&b' ')
    }
}

/// Reads the status of a response that we wrote.
pub(crate) fn status_of(response: &[u8]) -> Option<StatusCode> {
    let code = response.strip_prefix(b"SIP/2.0 ")?.get(..3)?;
    std::str::from_utf8(code).ok()?.parse().ok().and_then(StatusCode::new)
}
