//! Answers that go out, and the timers of server transactions.

use std::time::Instant;

use bytes::Bytes;

use super::{Endpoint, Event, Origin, RespondError, ServerTxId, Source, purpose};
use crate::header::HeaderName;
use crate::message::Message;
use crate::status::StatusCode;
use crate::timer::TimerReason;
use crate::transaction::TxRef;
use crate::transaction::client::own_message;
use crate::transaction::server::{ReplyPath, ServerState, status_of};
use crate::transaction::slab::Key;
use crate::write::ResponseWriter;

impl Endpoint {
    /// Answers a request with a whole response from [`ResponseWriter::for_request`].
    ///
    /// It leaves on the connection of the request while that is open, else to the source address and the
    /// port of sent-by. What has to be repeated is repeated by the endpoint.
    ///
    /// # Errors
    ///
    /// [`RespondError::Answered`] after a final answer, also one that the endpoint gave to a cancelled request,
    /// [`RespondError::Gone`] when the client must have given up, [`RespondError::Forbidden`] for a status that this
    /// request must not get, [`RespondError::NotResponse`] for other bytes. Nothing was sent then.
    pub fn respond(&mut self, now: Instant, tx: ServerTxId, response: Bytes) -> Result<(), RespondError> {
        let now = self.advance(now);
        let state = self.servers.get(tx.0).ok_or(RespondError::Gone)?;
        let status = status_of(&response).ok_or(RespondError::NotResponse)?;
        state.may_answer(status)?;
        self.answer(now, tx.0, status, response);
        Ok(())
    }

    /// Answers a request with what another process has answered it already, as [`Self::respond`] does, but once and
    /// without a transaction: what has to be repeated is repeated there, and a further copy is a new request here.
    ///
    /// # Errors
    ///
    /// Those of [`Self::respond`].
    pub fn respond_once(&mut self, now: Instant, tx: ServerTxId, response: Bytes) -> Result<(), RespondError> {
        let state = self.servers.get(tx.0).ok_or(RespondError::Gone)?;
        // Over a connection no copy comes, and an answer that finds its connection closed is sent again.
        if state.reply.source.transport.is_reliable() && !state.invite {
            return self.respond(now, tx, response);
        }
        self.advance(now);
        let state = self.servers.get(tx.0).ok_or(RespondError::Gone)?;
        let status = status_of(&response).ok_or(RespondError::NotResponse)?;
        state.may_answer(status)?;
        let open = self.flows.contains(&state.reply.source.flow);
        self.transmit(state.reply.destination(open), response, Origin::Stateless);
        self.forget_server(tx.0);
        Ok(())
    }

    /// Forgets a request that has no answer: another process works on it and will give one. A further copy is a new
    /// request.
    ///
    /// # Errors
    ///
    /// [`RespondError::Answered`] and [`RespondError::Gone`] when there is nothing to forget.
    pub fn absorb(&mut self, now: Instant, tx: ServerTxId) -> Result<(), RespondError> {
        self.advance(now);
        let state = self.servers.get(tx.0).ok_or(RespondError::Gone)?;
        if !state.state.is_open() {
            return Err(RespondError::Answered);
        }
        self.stats.repeated_requests += 1;
        self.forget_server(tx.0);
        Ok(())
    }

    fn answer(&mut self, now: Instant, id: Key, status: StatusCode, response: Bytes) {
        let timers = self.config.timers;
        let accepted = match self.servers.get(id) {
            Some(tx) if tx.invite && status.is_success() => self.expected_ack(&response),
            Some(_) => None,
            None => return,
        };
        let Some(tx) = self.servers.get_mut(id) else {
            return;
        };
        tx.response = response;
        tx.short = None;
        if status.is_provisional() {
            tx.state = ServerState::Proceeding;
            self.send(id);
            return;
        }
        tx.request = Bytes::new();
        let reliable = tx.reply.source.transport.is_reliable();
        let key = TxRef::Server(id);
        let (state, short, long) = if !tx.invite {
            if reliable {
                (ServerState::Remembered, None, TimerReason::Forget)
            } else {
                (ServerState::Completed, None, TimerReason::J)
            }
        } else if status.is_success() {
            (ServerState::Accepted, Some(TimerReason::Success), TimerReason::L)
        } else {
            (ServerState::Completed, (!reliable).then_some(TimerReason::G), TimerReason::H)
        };
        tx.state = state;
        tx.interval = timers.t1;
        tx.ack = accepted;
        tx.short = short.map(|reason| self.timers.start(now, timers.t1, key, reason));
        tx.long = Some(self.timers.start(now, timers.timeout(), key, long));
        if let Some(ack) = accepted {
            self.ack_keys.insert(ack, id);
        }
        self.send(id);
    }

    /// The key of the ACK for a 2xx of ours.
    fn expected_ack(&self, response: &Bytes) -> Option<u128> {
        let response = own_message(response.clone())?;
        let to_tag = response.to().tag()?;
        Some(self.ack_key(response.call_id(), to_tag, response.from_().tag(), response.cseq().number))
    }

    /// The ACK of a refusal came.
    pub(super) fn confirm(&mut self, now: Instant, id: Key) {
        let timers = self.config.timers;
        let key = TxRef::Server(id);
        let Some(tx) = self.servers.get_mut(id) else {
            return;
        };
        if tx.reply.source.transport.is_reliable() {
            tx.state = ServerState::Remembered;
            tx.short = None;
        } else {
            tx.state = ServerState::Confirmed;
            tx.short = Some(self.timers.start(now, timers.t4, key, TimerReason::I));
        }
        tx.long = Some(self.timers.start(now, timers.timeout(), key, TimerReason::Forget));
    }

    pub(super) fn server_timer(&mut self, now: Instant, id: Key, reason: TimerReason) {
        match reason {
            TimerReason::Trying => self.send_trying(id),
            TimerReason::G | TimerReason::Success => {
                let timers = self.config.timers;
                if let Some(tx) = self.servers.get_mut(id) {
                    tx.interval = timers.next_up_to_t2(tx.interval);
                    tx.short = Some(self.timers.start(now, tx.interval, TxRef::Server(id), reason));
                    self.stats.retransmissions += 1;
                    self.send(id);
                }
            }
            TimerReason::I => {
                if let Some(tx) = self.servers.get_mut(id) {
                    tx.short = None;
                    tx.state = ServerState::Remembered;
                }
            }
            TimerReason::L => {
                self.report_missing_ack(id);
                self.forget_server(id);
            }
            TimerReason::Abandoned if self.servers.get(id).is_some_and(|tx| tx.invite) => {
                let tag = format!("{:016x}", self.entropy.next_u64());
                if !self.answer_itself(now, id, StatusCode::SERVER_INTERNAL_ERROR, &tag) {
                    self.forget_server(id);
                }
            }
            // after 64·T1 a non-INVITE's client has given up, and an answer would only cost (RFC 4320 §4.2)
            _ => self.forget_server(id),
        }
    }

    fn send_trying(&mut self, id: Key) {
        let Some(tx) = self.servers.get_mut(id) else {
            return;
        };
        tx.short = None;
        let Some(mut request) = own_message(tx.request.clone()).filter(|_| tx.state == ServerState::Trying) else {
            return;
        };
        request.set_source(tx.reply.source.remote);
        let writer = ResponseWriter::for_request(&request, StatusCode::TRYING, None, None);
        if let Ok(bytes) = writer.finish(b"") {
            tx.state = ServerState::Proceeding;
            tx.response = bytes;
            self.send(id);
        }
    }

    fn report_missing_ack(&mut self, id: Key) {
        let Some(tx) = self.servers.get(id).filter(|tx| !tx.acked) else {
            return;
        };
        let Some(response) = own_message(tx.response.clone()) else {
            return;
        };
        let event = Event::AckTimeout {
            tx: ServerTxId(id),
            call_id: response.call_id().to_owned(),
            local_tag: response.to().tag().unwrap_or_default().to_owned(),
            remote_tag: response.from_().tag().unwrap_or_default().to_owned(),
        };
        self.event(event);
    }

    fn forget_server(&mut self, id: Key) {
        if let Some(tx) = self.servers.remove(id) {
            self.server_keys.remove(&tx.key);
            self.merge_keys.remove(&tx.merge);
            if let Some(ack) = tx.ack {
                self.ack_keys.remove(&ack);
            }
        }
    }

    /// Gives a final answer of the endpoint's own; false if it could not be made.
    pub(super) fn answer_itself(&mut self, now: Instant, id: Key, status: StatusCode, tag: &str) -> bool {
        let Some(tx) = self.servers.get(id) else {
            return false;
        };
        let source = tx.reply.source.remote;
        let Some(mut request) = own_message(tx.request.clone()) else {
            return false;
        };
        request.set_source(source);
        let mut writer = ResponseWriter::for_request(&request, status, None, Some(tag));
        self.sign(&mut writer);
        let Ok(bytes) = writer.finish(b"") else {
            return false;
        };
        self.answer(now, id, status, bytes);
        true
    }

    /// Refuses a request without remembering it; the same request gets the same tag again (RFC 3261 §8.2.7).
    pub(super) fn refuse(&mut self, source: Source, message: &Message, status: StatusCode) {
        self.stats.refused_requests += 1;
        let tag = self.stateless_tag(message);
        let mut writer = ResponseWriter::for_request(message, status, None, Some(&tag));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            // 5 to 30 s, so that refused peers do not all come back at once
            writer.display(HeaderName::RetryAfter, 5 + self.entropy.next_u64() % 26);
        }
        self.sign(&mut writer);
        if let Ok(bytes) = writer.finish(b"") {
            let reply = ReplyPath::new(source, &message.top_via());
            self.transmit(reply.destination(true), bytes, Origin::Stateless);
        }
    }

    pub(super) fn sign(&self, writer: &mut ResponseWriter) {
        if let Some(product) = &self.config.product {
            writer.header(HeaderName::Server, product);
        }
    }

    pub(super) fn stateless_tag(&self, message: &Message) -> String {
        let tag = self
            .fingerprint(purpose::TAG)
            .part(message.call_id().as_bytes())
            .part(message.from_().tag().unwrap_or_default().as_bytes())
            .number(message.cseq().number.into())
            .part(message.top_via().branch().unwrap_or_default().as_bytes())
            .finish();
        format!("{:016x}", tag >> 64)
    }

    /// Sends the last answer, for the first time or again.
    pub(super) fn send(&mut self, id: Key) {
        if let Some(tx) = self.servers.get(id) {
            let open = self.flows.contains(&tx.reply.source.flow);
            let destination = tx.reply.destination(open);
            let bytes = tx.response.clone();
            self.transmit(destination, bytes, Origin::Server(ServerTxId(id)));
        }
    }

    pub(super) fn server_send_failed(&mut self, id: Key) {
        let Some(tx) = self.servers.get_mut(id) else {
            return;
        };
        let failed_before = std::mem::replace(&mut tx.reply.flow_failed, true);
        let open = self.flows.contains(&tx.reply.source.flow);
        if failed_before || !open || !tx.reply.source.transport.is_reliable() {
            self.stats.lost_responses += 1;
        } else {
            self.send(id);
        }
    }
}
