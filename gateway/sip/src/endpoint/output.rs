//! What goes in and out of the endpoint.

use std::net::SocketAddr;

use bytes::Bytes;

use super::config::SentBy;
use crate::header::Transport;
use crate::message::Message;
use crate::status::StatusCode;
use crate::transaction::{ClientTxId, ServerTxId};

/// One open connection, or one UDP socket. Numbers are never given twice in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub u64);

/// Where a message came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// The connection, or the UDP socket.
    pub flow: FlowId,
    /// Its transport.
    pub transport: Transport,
    /// The peer's address.
    pub remote: SocketAddr,
    /// Our address.
    pub local: SocketAddr,
    /// Whether answers can leave over the connection: not when this side has closed it for what it writes.
    pub takes_answers: bool,
}

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// Over an open connection, or from a UDP socket to an address.
    Flow {
        /// The connection or socket.
        flow: FlowId,
        /// Its transport.
        transport: Transport,
        /// The peer's address.
        remote: SocketAddr,
    },
    /// To an address; the sender opens a connection or takes one that it knows to be good.
    Address {
        /// The transport.
        transport: Transport,
        /// The address.
        remote: SocketAddr,
        /// The connection that this one takes the place of: whoever is there must be who was here.
        instead_of: FlowId,
    },
}

impl Destination {
    /// The transport.
    pub fn transport(&self) -> Transport {
        match *self {
            Self::Flow { transport, .. } | Self::Address { transport, .. } => transport,
        }
    }

    /// The peer's address.
    pub fn remote(&self) -> SocketAddr {
        match *self {
            Self::Flow { remote, .. } | Self::Address { remote, .. } => remote,
        }
    }
}

impl From<Source> for Destination {
    /// Back to where a message came from.
    fn from(source: Source) -> Self {
        let Source { flow, transport, remote, .. } = source;
        Self::Flow { flow, transport, remote }
    }
}

/// A request to be sent.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// A whole request from [`crate::RequestWriter`], without Via: the endpoint adds it.
    pub request: Bytes,
    /// Where it goes. Repetitions, CANCEL and the ACK of a refusal go there too (RFC 3263 §4).
    pub destination: Destination,
    /// Our name in Via: that of the local domain for which it is sent.
    pub sent_by: SentBy,
    /// Offers the connection for requests in the other direction (RFC 5923 §6); only on mutually
    /// authenticated TLS, and only to peers configured so.
    pub alias: bool,
    /// A number of the caller's that comes back with every event of the transaction.
    pub correlation: u64,
}

/// What a transmission belongs to; it goes back into [`super::Endpoint::handle_send_failed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A request of ours, its ACK or CANCEL.
    Client(ClientTxId),
    /// An answer of ours.
    Server(ServerTxId),
    /// An answer or ACK that nobody remembers.
    Stateless,
}

/// What the endpoint wants done.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "requests are the common case, and boxing them costs an allocation each")]
pub enum Output {
    /// Send these bytes.
    Transmit {
        /// Where to.
        destination: Destination,
        /// One whole message.
        bytes: Bytes,
        /// What it belongs to.
        origin: Origin,
    },
    /// Something happened.
    Event(Event),
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A new request; it wants [`super::Endpoint::respond`].
    Request {
        /// Its transaction.
        tx: ServerTxId,
        /// Where it came from.
        source: Source,
        /// The request; answers written for it carry `received` and `rport` as they must.
        message: Message,
    },
    /// An ACK for a 2xx, the first one.
    Ack {
        /// The INVITE, if it was answered here; `None` means that another process may know the dialog
        /// (Call-ID, To tag, From tag and CSeq number of the message name it), or nobody does.
        tx: Option<ServerTxId>,
        /// Where it came from.
        source: Source,
        /// The ACK, which may carry an answer to an offer.
        message: Message,
    },
    /// An INVITE was cancelled before its final answer; it has got 487 already.
    Cancelled {
        /// The INVITE.
        tx: ServerTxId,
    },
    /// An answer to a request of ours. After a 2xx to an INVITE an ACK is due; a second 2xx with another To tag
    /// is a fork, to be acknowledged and ended by BYE.
    Response {
        /// The request.
        tx: ClientTxId,
        /// The caller's number.
        correlation: u64,
        /// Provisional, or the final one.
        status: StatusCode,
        /// The answer.
        message: Message,
    },
    /// A response that matches none of our transactions, though it carries our name: a late 2xx to an INVITE, or
    /// one for another process.
    StrayResponse {
        /// Where it came from.
        source: Source,
        /// The response.
        message: Message,
    },
    /// Nobody answered in time (timers B and F, or a cancelled INVITE without an end).
    Timeout {
        /// The request; [`super::Endpoint::retry_on`] is possible for T4 from now on.
        tx: ClientTxId,
        /// The caller's number.
        correlation: u64,
        /// A provisional answer had come: the peer is alive, another target is pointless.
        provisional_seen: bool,
    },
    /// The request could not be sent.
    SendFailed {
        /// The request; [`super::Endpoint::retry_on`] is possible for T4 from now on.
        tx: ClientTxId,
        /// The caller's number.
        correlation: u64,
    },
    /// No ACK came for a 2xx to an INVITE within 64·T1: the session is to be ended by BYE (RFC 3261 §13.3.1.4).
    AckTimeout {
        /// The INVITE.
        tx: ServerTxId,
        /// Its Call-ID.
        call_id: String,
        /// Our tag.
        local_tag: String,
        /// The peer's tag.
        remote_tag: String,
    },
}

/// What became of a wish to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelOutcome {
    /// The CANCEL was sent.
    Sent,
    /// It will be sent with the first provisional answer (RFC 3261 §9.1).
    Deferred,
    /// The final answer has come, or the transaction is gone: nothing to cancel.
    TooLate,
}
