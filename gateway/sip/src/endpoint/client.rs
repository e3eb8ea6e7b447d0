//! Requests that go out, and the responses to them.

use std::time::Instant;

use bytes::Bytes;

use super::config::is_sent_by;
use super::{
    CancelOutcome, ClientTxId, Destination, Endpoint, Event, FlowId, INVITE_CAP, Origin, Outgoing, SendError, Source,
};
use crate::header::HeaderName;
use crate::message::Message;
use crate::method::Method;
use crate::status::StatusCode;
use crate::timer::TimerReason;
use crate::transaction::TxRef;
use crate::transaction::client::{
    Cancelling, ClientKind, ClientState, ClientTx, MAX_FORKS, SentAck, ack_of, cancel_of, own_message, with_via,
};
use crate::transaction::slab::Key;

impl Endpoint {
    /// Sends a request and keeps its transaction.
    ///
    /// # Errors
    ///
    /// [`SendError::TooMany`] at the configured bound; the others tell a mistake of the caller. Nothing was sent then.
    pub fn send_request(&mut self, now: Instant, outgoing: Outgoing) -> Result<ClientTxId, SendError> {
        let now = self.advance(now);
        let branch = self.new_branch();
        let (bytes, message) = check_outgoing(&outgoing, &branch)?;
        let kind = match message.method() {
            Method::Ack | Method::Cancel => return Err(SendError::Method),
            Method::Invite => ClientKind::Invite,
            _ => ClientKind::NonInvite,
        };
        if self.clients.len() >= self.config.max_client {
            return Err(SendError::TooMany);
        }
        self.launch(now, outgoing, &branch, message.method(), bytes, kind).map(ClientTxId)
    }

    /// Sends the same request to another target, with a new branch, after a failure, a timeout or a 503
    /// (RFC 3263 §4.3). The new transaction has the old one's correlation.
    ///
    /// # Errors
    ///
    /// [`SendError::NotFailed`], or [`SendError::Gone`] when it was forgotten: T4 after the failure.
    pub fn retry_on(
        &mut self,
        now: Instant,
        tx: ClientTxId,
        destination: Destination,
    ) -> Result<ClientTxId, SendError> {
        let failed = self.clients.get_mut(tx.0).ok_or(SendError::Gone)?;
        if !failed.retryable {
            return Err(SendError::NotFailed);
        }
        let outgoing = Outgoing { destination, ..failed.outgoing.clone() };
        let next = self.send_request(now, outgoing)?;
        if let Some(failed) = self.clients.get_mut(tx.0) {
            failed.retryable = false;
        }
        Ok(next)
    }

    /// Sends the ACK of a 2xx. It goes out again for each repetition of that 2xx while `tx` lives; `None` sends it
    /// once, for a 2xx that came too late for its transaction.
    ///
    /// # Errors
    ///
    /// [`SendError::Method`] for another request; the others tell a mistake of the caller.
    pub fn send_ack(&mut self, now: Instant, tx: Option<ClientTxId>, ack: &Outgoing) -> Result<(), SendError> {
        self.advance(now);
        let branch = self.new_branch();
        let (bytes, message) = check_outgoing(ack, &branch)?;
        if message.method() != Method::Ack {
            return Err(SendError::Method);
        }
        let sent = Some((bytes.clone(), ack.destination));
        if let (Some(tx), Some(to_tag)) = (tx.and_then(|tx| self.clients.get_mut(tx.0)), message.to().tag()) {
            let known = tx.acks.iter().position(|known| known.to_tag == to_tag);
            if let Some(known) = known.and_then(|at| tx.acks.get_mut(at)) {
                known.ack = sent;
            } else if tx.acks.len() < MAX_FORKS {
                tx.acks.push(SentAck { to_tag: to_tag.to_owned(), ack: sent });
            }
        }
        self.transmit(ack.destination, bytes, tx.map_or(Origin::Stateless, Origin::Client));
        Ok(())
    }

    /// Cancels an INVITE, at once or with its first provisional answer. Its final answer still comes: 487, or a
    /// 2xx that was quicker.
    pub fn cancel(&mut self, now: Instant, tx: ClientTxId) -> CancelOutcome {
        let now = self.advance(now);
        let Some(invite) = self.clients.get_mut(tx.0).filter(|tx| tx.kind == ClientKind::Invite) else {
            return CancelOutcome::TooLate;
        };
        match (invite.state, invite.cancelling) {
            (ClientState::Calling | ClientState::Proceeding, Cancelling::Sent) => CancelOutcome::Sent,
            (ClientState::Calling, _) => {
                invite.cancelling = Cancelling::Wanted;
                CancelOutcome::Deferred
            }
            (ClientState::Proceeding, _) => {
                self.send_cancel(now, tx.0);
                CancelOutcome::Sent
            }
            _ => CancelOutcome::TooLate,
        }
    }

    fn new_branch(&mut self) -> String {
        let (high, low) = (self.entropy.next_u64(), self.entropy.next_u64() >> 32);
        format!("z9hG4bK{high:016x}{low:08x}.{}", self.config.pod)
    }

    /// Names the process whose request a response answers: what stands behind the random part of its branch, as
    /// [`super::EndpointConfig::pod`] says.
    pub fn process_of(response: &Message) -> Option<&str> {
        let random = response.top_via().rfc3261_branch()?.split_once('.')?;
        (!random.1.is_empty()).then_some(random.1)
    }

    fn launch(
        &mut self,
        now: Instant,
        outgoing: Outgoing,
        branch: &str,
        method: Method<'_>,
        bytes: Bytes,
        kind: ClientKind,
    ) -> Result<Key, SendError> {
        let timers = self.config.timers;
        let destination = outgoing.destination;
        let key = self.client_key(branch, method.as_str());
        let tx = ClientTx {
            key,
            kind,
            state: ClientState::Calling,
            outgoing,
            bytes: bytes.clone(),
            cancelling: Cancelling::No,
            cancel: None,
            ack: Bytes::new(),
            acks: Vec::new(),
            retryable: false,
            interval: timers.t1,
            short: None,
            long: None,
        };
        let id = self.clients.insert(tx).ok_or(SendError::TooMany)?;
        let (repeat, end) = match kind {
            ClientKind::Invite => (TimerReason::A, TimerReason::B),
            ClientKind::NonInvite | ClientKind::Cancel => (TimerReason::E, TimerReason::F),
        };
        let short = (!destination.transport().is_reliable())
            .then(|| self.timers.start(now, timers.t1, TxRef::Client(id), repeat));
        let long = self.timers.start(now, timers.timeout(), TxRef::Client(id), end);
        if let Some(tx) = self.clients.get_mut(id) {
            tx.short = short;
            tx.long = Some(long);
        }
        self.client_keys.insert(key, id);
        if let Some(flow) = stream_of(destination) {
            self.client_flows.entry(flow).or_default().insert(id);
        }
        self.transmit(destination, bytes, Origin::Client(ClientTxId(id)));
        Ok(id)
    }

    fn send_cancel(&mut self, now: Instant, id: Key) {
        let timers = self.config.timers;
        let Some(tx) = self.clients.get_mut(id) else {
            return;
        };
        let Some((invite, bytes)) =
            own_message(tx.bytes.clone()).and_then(|invite| cancel_of(&invite).ok().map(|bytes| (invite, bytes)))
        else {
            return;
        };
        tx.cancelling = Cancelling::Sent;
        // an INVITE whose peer does not answer after a CANCEL is over (RFC 3261 §9.1)
        tx.long = Some(self.timers.start(now, timers.timeout(), TxRef::Client(id), TimerReason::Cancelled));
        let outgoing = Outgoing { request: Bytes::new(), ..tx.outgoing.clone() };
        let via = invite.top_via();
        let branch = via.branch().unwrap_or_default();
        let cancel = self.launch(now, outgoing, branch, Method::Cancel, bytes, ClientKind::Cancel).ok();
        if let Some(tx) = self.clients.get_mut(id) {
            tx.cancel = cancel;
        }
    }

    pub(super) fn handle_response(&mut self, now: Instant, source: Source, message: Message) {
        let via = message.top_via();
        // a second Via means that the response is not for us (RFC 3261 §8.1.3.3)
        let several = message.headers(HeaderName::Via).nth(1).is_some();
        let branch = via.rfc3261_branch().filter(|_| !several);
        let Some((branch, status)) = branch.zip(message.status()) else {
            self.stats.discarded_responses += 1;
            return;
        };
        let key = self.client_key(branch, message.cseq().method.as_str());
        match self.client_keys.get(&key).copied() {
            Some(id) if self.clients.get(id).is_some_and(|tx| is_sent_by(&via, &tx.outgoing.sent_by)) => {
                self.matched_response(now, id, status, message);
            }
            None if self.own.has(&via) => self.event(Event::StrayResponse { source, message }),
            _ => self.stats.discarded_responses += 1,
        }
    }

    fn matched_response(&mut self, now: Instant, id: Key, status: StatusCode, message: Message) {
        let Some((kind, state)) = self.clients.get(id).map(|tx| (tx.kind, tx.state)) else {
            return;
        };
        let open = matches!(state, ClientState::Calling | ClientState::Proceeding);
        match kind {
            _ if !open => self.repeated_answer(id, status, message),
            ClientKind::Invite if status.is_provisional() => self.invite_provisional(now, id, status, message),
            ClientKind::Invite if status.is_success() => self.invite_accepted(now, id, status, message),
            ClientKind::Invite => self.invite_refused(now, id, status, message),
            ClientKind::NonInvite | ClientKind::Cancel => self.non_invite_answer(now, id, status, message),
        }
    }

    /// A response after the final one.
    fn repeated_answer(&mut self, id: Key, status: StatusCode, message: Message) {
        let Some(tx) = self.clients.get_mut(id) else {
            return;
        };
        let origin = Origin::Client(ClientTxId(id));
        match tx.state {
            ClientState::Completed if tx.kind == ClientKind::Invite && status.is_final() && !status.is_success() => {
                let (destination, ack) = (tx.outgoing.destination, tx.ack.clone());
                self.transmit(destination, ack, origin);
            }
            ClientState::Accepted if status.is_success() => {
                let to_tag = message.to().tag().unwrap_or_default();
                if let Some(known) = tx.acks.iter().find(|known| known.to_tag == to_tag) {
                    if let Some((ack, destination)) = known.ack.clone() {
                        self.transmit(destination, ack, origin);
                    }
                } else if tx.acks.len() < MAX_FORKS {
                    tx.acks.push(SentAck { to_tag: to_tag.to_owned(), ack: None });
                    let correlation = tx.outgoing.correlation;
                    self.event(Event::Response { tx: ClientTxId(id), correlation, status, message });
                } else {
                    self.stats.discarded_responses += 1;
                }
            }
            _ => {}
        }
    }

    fn invite_provisional(&mut self, now: Instant, id: Key, status: StatusCode, message: Message) {
        let Some(tx) = self.clients.get_mut(id) else {
            return;
        };
        if tx.state == ClientState::Calling {
            tx.state = ClientState::Proceeding;
            tx.short = None;
            tx.long = Some(self.timers.start(now, INVITE_CAP, TxRef::Client(id), TimerReason::Abandoned));
        }
        let wanted = tx.cancelling == Cancelling::Wanted;
        let correlation = tx.outgoing.correlation;
        self.event(Event::Response { tx: ClientTxId(id), correlation, status, message });
        if wanted {
            self.send_cancel(now, id);
        }
    }

    fn invite_accepted(&mut self, now: Instant, id: Key, status: StatusCode, message: Message) {
        let timeout = self.config.timers.timeout();
        let Some(tx) = self.clients.get_mut(id) else {
            return;
        };
        tx.state = ClientState::Accepted;
        tx.short = None;
        tx.long = Some(self.timers.start(now, timeout, TxRef::Client(id), TimerReason::M));
        tx.acks.push(SentAck { to_tag: message.to().tag().unwrap_or_default().to_owned(), ack: None });
        let correlation = tx.outgoing.correlation;
        self.event(Event::Response { tx: ClientTxId(id), correlation, status, message });
    }

    fn invite_refused(&mut self, now: Instant, id: Key, status: StatusCode, message: Message) {
        let timers = self.config.timers;
        let Some(tx) = self.clients.get_mut(id) else {
            return;
        };
        let ack = own_message(tx.bytes.clone()).and_then(|invite| ack_of(&invite, &message).ok());
        let destination = tx.outgoing.destination;
        let correlation = tx.outgoing.correlation;
        tx.state = ClientState::Completed;
        tx.short = None;
        tx.retryable = status == StatusCode::SERVICE_UNAVAILABLE;
        if let Some(ack) = ack {
            tx.ack = ack.clone();
            self.transmit(destination, ack, Origin::Client(ClientTxId(id)));
        }
        if destination.transport().is_reliable() {
            self.end_client(now, id);
        } else if let Some(tx) = self.clients.get_mut(id) {
            tx.long = Some(self.timers.start(now, timers.timeout(), TxRef::Client(id), TimerReason::D));
        }
        self.event(Event::Response { tx: ClientTxId(id), correlation, status, message });
    }

    fn non_invite_answer(&mut self, now: Instant, id: Key, status: StatusCode, message: Message) {
        let timers = self.config.timers;
        let Some(tx) = self.clients.get_mut(id) else {
            return;
        };
        let (kind, correlation) = (tx.kind, tx.outgoing.correlation);
        if status.is_provisional() {
            tx.state = ClientState::Proceeding;
        } else {
            tx.state = ClientState::Completed;
            tx.short = None;
            tx.retryable = status == StatusCode::SERVICE_UNAVAILABLE;
            if tx.outgoing.destination.transport().is_reliable() {
                self.end_client(now, id);
            } else {
                tx.long = Some(self.timers.start(now, timers.t4, TxRef::Client(id), TimerReason::K));
            }
        }
        if kind == ClientKind::NonInvite {
            self.event(Event::Response { tx: ClientTxId(id), correlation, status, message });
        }
    }

    pub(super) fn client_timer(&mut self, now: Instant, id: Key, reason: TimerReason) {
        let timers = self.config.timers;
        match reason {
            TimerReason::A | TimerReason::E => {
                let Some(tx) = self.clients.get_mut(id) else {
                    return;
                };
                tx.interval = match (reason, tx.state) {
                    (TimerReason::A, _) => tx.interval.saturating_mul(2),
                    (_, ClientState::Proceeding) => timers.t2,
                    _ => timers.next_up_to_t2(tx.interval),
                };
                tx.short = Some(self.timers.start(now, tx.interval, TxRef::Client(id), reason));
                let (destination, bytes) = (tx.outgoing.destination, tx.bytes.clone());
                self.stats.retransmissions += 1;
                self.transmit(destination, bytes, Origin::Client(ClientTxId(id)));
            }
            TimerReason::B | TimerReason::F | TimerReason::Abandoned | TimerReason::Cancelled | TimerReason::Broken => {
                self.client_timed_out(now, id);
            }
            _ => self.forget_client(id),
        }
    }

    fn client_timed_out(&mut self, now: Instant, id: Key) {
        let Some(tx) = self.clients.get_mut(id) else {
            return;
        };
        if tx.kind == ClientKind::Cancel {
            self.forget_client(id);
            return;
        }
        let provisional_seen = tx.state == ClientState::Proceeding;
        let correlation = tx.outgoing.correlation;
        tx.retryable = true;
        self.stats.timeouts += 1;
        self.end_client(now, id);
        self.event(Event::Timeout { tx: ClientTxId(id), correlation, provisional_seen });
    }

    /// The connection that carried the request is gone.
    pub(super) fn client_flow_closed(&mut self, now: Instant, id: Key) {
        let t4 = self.config.timers.t4;
        if let Some(tx) = self.clients.get_mut(id).filter(|tx| tx.state == ClientState::Calling) {
            tx.long = Some(self.timers.start(now, t4, TxRef::Client(id), TimerReason::Broken));
        }
    }

    pub(super) fn client_send_failed(&mut self, now: Instant, id: Key) {
        let Some(tx) = self.clients.get_mut(id) else {
            return;
        };
        // once a final answer is here, only its ACK can have failed: the peer repeats the answer, we the ACK
        if !matches!(tx.state, ClientState::Calling | ClientState::Proceeding) {
            return;
        }
        if tx.kind == ClientKind::Cancel {
            self.forget_client(id);
            return;
        }
        let correlation = tx.outgoing.correlation;
        tx.retryable = true;
        self.end_client(now, id);
        self.event(Event::SendFailed { tx: ClientTxId(id), correlation });
    }

    /// Ends a transaction; what may be tried elsewhere is kept for T4.
    fn end_client(&mut self, now: Instant, id: Key) {
        let t4 = self.config.timers.t4;
        let Some(tx) = self.clients.get_mut(id) else {
            return;
        };
        if !tx.retryable {
            self.forget_client(id);
            return;
        }
        tx.state = ClientState::Over;
        tx.short = None;
        tx.long = Some(self.timers.start(now, t4, TxRef::Client(id), TimerReason::Forget));
        let (key, destination) = (tx.key, tx.outgoing.destination);
        self.client_keys.remove(&key);
        self.leave_flow(id, destination);
    }

    fn forget_client(&mut self, id: Key) {
        let Some(tx) = self.clients.remove(id) else {
            return;
        };
        if self.client_keys.get(&tx.key) == Some(&id) {
            self.client_keys.remove(&tx.key);
        }
        self.leave_flow(id, tx.outgoing.destination);
    }

    fn leave_flow(&mut self, id: Key, destination: Destination) {
        if let Some(flow) = stream_of(destination)
            && let Some(waiting) = self.client_flows.get_mut(&flow)
        {
            waiting.remove(&id);
            if waiting.is_empty() {
                self.client_flows.remove(&flow);
            }
        }
    }
}

/// The stream connection that a destination names, if it does.
fn stream_of(destination: Destination) -> Option<FlowId> {
    match destination {
        Destination::Flow { flow, transport, .. } if transport.is_reliable() => Some(flow),
        _ => None,
    }
}

/// Adds the Via and reads the result, which must be a request with that Via alone.
fn check_outgoing(outgoing: &Outgoing, branch: &str) -> Result<(Bytes, Message), SendError> {
    let bytes = with_via(outgoing, branch)?;
    let message = own_message(bytes.clone()).ok_or(SendError::NotRequest)?;
    if !message.is_request() || message.vias().count() != 1 {
        return Err(SendError::NotRequest);
    }
    Ok((bytes, message))
}
