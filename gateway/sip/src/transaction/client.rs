//! One request that we sent.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::key::Fingerprint;
use super::slab;
use crate::endpoint::{Destination, Outgoing, SentBy};
use crate::header::{HeaderName, ViaSpec};
use crate::limits::Limits;
use crate::message::Message;
use crate::method::Method;
use crate::timer::Token;
use crate::write::{RequestWriter, WriteError};

/// Where a client transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientState {
    /// Nothing was answered (`Calling` or `Trying` in RFC 3261).
    Calling,
    /// A provisional answer came.
    Proceeding,
    /// A final answer came; other than 2xx if it is an INVITE.
    Completed,
    /// A 2xx came (INVITE, RFC 6026 §7.2).
    Accepted,
    /// It is over; the request is kept for a try at another target.
    Over,
}

impl ClientState {
    /// True while the final answer is to come.
    pub(crate) fn is_open(self) -> bool {
        matches!(self, Self::Calling | Self::Proceeding)
    }
}

/// What a client transaction carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientKind {
    Invite,
    NonInvite,
    /// The CANCEL of an INVITE: its answers concern nobody.
    Cancel,
}

/// Whether an INVITE is to be cancelled (RFC 3261 §9.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cancelling {
    No,
    /// As soon as a provisional answer comes.
    Wanted,
    Sent,
}

/// An ACK for a 2xx, or the place for it.
#[derive(Debug)]
pub(crate) struct SentAck {
    pub(crate) to_tag: String,
    pub(crate) ack: Option<(Bytes, Destination)>,
}

/// Forked 2xx answers that one INVITE remembers.
pub(crate) const MAX_FORKS: usize = 8;

/// One client transaction, see the module's text.
#[derive(Debug)]
pub(crate) struct ClientTx {
    pub(crate) key: Fingerprint,
    pub(crate) kind: ClientKind,
    pub(crate) state: ClientState,
    pub(crate) outgoing: Outgoing,
    /// The request with its Via.
    pub(crate) bytes: Bytes,
    pub(crate) cancelling: Cancelling,
    /// The CANCEL's own transaction.
    pub(crate) cancel: Option<slab::Key>,
    /// ACK for a final answer other than 2xx.
    pub(crate) ack: Bytes,
    pub(crate) acks: Vec<SentAck>,
    /// Another target may be tried.
    pub(crate) retryable: bool,
    pub(crate) interval: Duration,
    pub(crate) short: Option<Token>,
    pub(crate) long: Option<Token>,
}

/// Why a request was not sent. It is always our own mistake or a bound of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// As many client transactions as configured are open.
    #[error("too many client transactions")]
    TooMany,
    /// The bytes are no request, or have a Via already.
    #[error("not a request without Via")]
    NotRequest,
    /// An ACK or CANCEL, which have commands of their own.
    #[error("ACK and CANCEL are not sent as requests")]
    Method,
    /// The transaction is over and forgotten.
    #[error("transaction is gone")]
    Gone,
    /// It did not fail, so that there is nothing to try elsewhere.
    #[error("transaction did not fail")]
    NotFailed,
    /// The Via cannot be written: our own name is no host.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Bounds of what we write ourselves: none that matters, since the writers bound nothing either.
const OWN: Limits = Limits { header_block: 1 << 24, body: 1 << 28, header_lines: 10_000, uri: 1 << 20 };

/// Reads a request of our own.
pub(crate) fn own_message(bytes: Bytes) -> Option<Message> {
    Message::parse(bytes, &OWN).ok()
}

/// Puts a Via in front of the headers of a request that has none.
pub(crate) fn with_via(outgoing: &Outgoing, branch: &str) -> Result<Bytes, SendError> {
    let request = outgoing.request.as_ref();
    let end = memchr::memmem::find(request, b"\r\n").ok_or(SendError::NotRequest)? + 2;
    let (start_line, rest) = request.split_at_checked(end).ok_or(SendError::NotRequest)?;
    let SentBy { host, port } = &outgoing.sent_by;
    let via = ViaSpec {
        transport: outgoing.destination.transport(),
        host,
        port: *port,
        branch,
        rport: true,
        alias: outgoing.alias,
    };
    // what cannot be read back must not be written
    if !via.is_sound() {
        return Err(WriteError::Value("Via").into());
    }
    let via = via.to_string();
    let mut bytes = BytesMut::with_capacity(request.len() + via.len() + 8);
    bytes.extend_from_slice(start_line);
    bytes.extend_from_slice(b"Via: ");
    bytes.extend_from_slice(via.as_bytes());
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(rest);
    Ok(bytes.freeze())
}

/// Writes the CANCEL of an INVITE: same Request-URI, Via, Route, From, To, Call-ID and CSeq number (RFC 3261 §9.1).
pub(crate) fn cancel_of(invite: &Message) -> Result<Bytes, WriteError> {
    let mut writer = same_hop(invite, Method::Cancel);
    writer.copy(invite, HeaderName::To);
    writer.finish(b"")
}

/// Writes the ACK of a final answer other than 2xx (RFC 3261 §17.1.1.3).
pub(crate) fn ack_of(invite: &Message, response: &Message) -> Result<Bytes, WriteError> {
    let mut writer = same_hop(invite, Method::Ack);
    writer.copy(response, HeaderName::To);
    writer.finish(b"")
}

fn same_hop(invite: &Message, method: Method<'_>) -> RequestWriter {
    let mut writer = RequestWriter::new(method, invite.request_uri());
    writer
        .header(HeaderName::Via, invite.top_via_value())
        .max_forwards(70)
        .copy(invite, HeaderName::Route)
        .copy(invite, HeaderName::From)
        .call_id(invite.call_id())
        .cseq(invite.cseq().number, method);
    writer
}
