//! Requests that come in (interworking specification §6.3).

use std::time::Instant;

use super::{Endpoint, Event, INVITE_CAP, Origin, Repeatable, ServerTxId, Source, purpose};
use crate::header::{HeaderName, Via};
use crate::message::{Message, Partial};
use crate::method::Method;
use crate::status::StatusCode;
use crate::timer::{INVITE_TRYING, TimerReason};
use crate::transaction::TxRef;
use crate::transaction::client::own_message;
use crate::transaction::key::{Fingerprint, Mixer};
use crate::transaction::server::{ReplyPath, ServerState, ServerTx};
use crate::transaction::slab::Key;
use crate::write::ResponseWriter;

/// Methods of transactions that a CANCEL may name, the sensible one first.
const CANCELLABLE: [Method<'static>; 14] = [
    Method::Invite,
    Method::Subscribe,
    Method::Notify,
    Method::Message,
    Method::Bye,
    Method::Info,
    Method::Options,
    Method::Refer,
    Method::Update,
    Method::Prack,
    Method::Publish,
    Method::Register,
    Method::Service,
    Method::Benotify,
];

impl Endpoint {
    /// Takes a message.
    pub fn handle_message(&mut self, now: Instant, source: Source, mut message: Message) {
        let now = self.advance(now);
        if source.transport.is_reliable() {
            self.flows.insert(source.flow);
        }
        if !message.is_request() {
            self.handle_response(now, source, message);
            return;
        }
        message.set_source(source.remote);
        match message.method() {
            Method::Ack => self.handle_ack(now, source, message),
            Method::Cancel => self.handle_cancel(now, source, &message),
            _ => self.handle_request(now, source, message),
        }
    }

    /// Takes what is left of a request that could not be parsed, and answers it with `status`
    /// ([`crate::ParseError::status`]): 400, 414, 505, 513.
    pub fn handle_partial(&mut self, now: Instant, source: Source, mut partial: Partial, status: StatusCode) {
        self.advance(now);
        if source.transport.is_reliable() {
            self.flows.insert(source.flow);
        }
        partial.set_source(source.remote);
        self.stats.refused_requests += 1;
        let Some(reply) = partial.top_via().map(|via| ReplyPath::new(source, &via)) else {
            return;
        };
        // malformed requests have no tag worth keeping stable: their senders do not come back with an ACK
        let tag = format!("{:016x}", self.entropy.next_u64());
        let mut writer = ResponseWriter::for_partial(&partial, status, None, Some(&tag));
        self.sign(&mut writer);
        if let Ok(bytes) = writer.finish(b"") {
            self.transmit(reply.destination(true), bytes, Origin::Stateless);
        }
    }

    fn handle_request(&mut self, now: Instant, source: Source, message: Message) {
        let key = self.server_key(&message, message.method());
        if let Some(&tx) = self.server_keys.get(&key) {
            self.repeat(tx, source);
            return;
        }
        if let Some(status) = self.refusal(&message) {
            self.refuse(source, &message, status);
            return;
        }
        let merge = self.merge_key(&message);
        if let Some(&tx) = self.merge_keys.get(&merge) {
            self.merged(tx, source, &message);
            return;
        }
        if self.is_full_for(&message) {
            self.stats.refused_full += 1;
            self.refuse(source, &message, StatusCode::SERVICE_UNAVAILABLE);
            return;
        }
        self.open(now, source, message, key, merge);
    }

    /// Refusals that need no transaction: nonsense, exhausted hops, loops.
    fn refusal(&self, message: &Message) -> Option<StatusCode> {
        match message.max_forwards() {
            Err(_) => return Some(StatusCode::BAD_REQUEST),
            // OPTIONS with 0 asks for the element that it reached (RFC 3261 §11)
            Ok(Some(0)) if message.method() != Method::Options => return Some(StatusCode::TOO_MANY_HOPS),
            Ok(_) => {}
        }
        let mut lower = message.headers(HeaderName::Via).skip(1).filter_map(|via| Via::parse(via).ok());
        let looped = self.own.has(&message.top_via()) || lower.any(|via| self.own.has(&via));
        looped.then_some(StatusCode::LOOP_DETECTED)
    }

    /// New requests outside of dialogs are refused first, so that open dialogs can still be served and ended.
    fn is_full_for(&self, message: &Message) -> bool {
        let open = self.servers.len();
        let outside = message.to().tag().is_none() && !matches!(message.expires(), Ok(Some(0)));
        open >= self.config.max_server
            || (outside && (self.overloaded || open >= self.config.max_server - self.config.max_server / 10))
    }

    fn open(&mut self, now: Instant, source: Source, message: Message, key: Fingerprint, merge: Fingerprint) {
        let invite = message.method() == Method::Invite;
        let timers = self.config.timers;
        let tx = ServerTx {
            key,
            merge,
            ack: None,
            acked: false,
            invite,
            state: ServerState::Trying,
            request: message.as_bytes().clone(),
            reply: ReplyPath::new(source, &message.top_via()),
            response: bytes::Bytes::new(),
            interval: timers.t1,
            short: None,
            long: None,
        };
        let Some(id) = self.servers.insert(tx) else {
            self.stats.refused_full += 1;
            self.refuse(source, &message, StatusCode::SERVICE_UNAVAILABLE);
            return;
        };
        let (trying, cap) =
            if invite { (INVITE_TRYING, INVITE_CAP) } else { (timers.non_invite_trying(), timers.timeout()) };
        let short = self.timers.start(now, trying, TxRef::Server(id), TimerReason::Trying);
        let long = self.timers.start(now, cap, TxRef::Server(id), TimerReason::Abandoned);
        if let Some(tx) = self.servers.get_mut(id) {
            tx.short = Some(short);
            tx.long = Some(long);
        }
        self.server_keys.insert(key, id);
        self.merge_keys.insert(merge, id);
        self.stats.requests += 1;
        self.event(Event::Request { tx: ServerTxId(id), source, message });
    }

    /// The same request again: what was answered goes out again by the way that it came, and no further.
    fn repeat(&mut self, id: Key, source: Source) {
        self.stats.repeated_requests += 1;
        let Some(tx) = self.servers.get_mut(id) else {
            return;
        };
        if source.transport.is_reliable() && tx.reply.source.transport == source.transport {
            tx.reply.source.flow = source.flow;
            tx.reply.source.remote = source.remote;
            tx.reply.flow_failed = false;
        }
        // RFC 6026 §7.1: after a 2xx only its own timer repeats it; after the ACK nothing is due
        let silent = matches!(tx.state, ServerState::Accepted | ServerState::Confirmed) || tx.response.is_empty();
        if !silent {
            self.send(id);
        }
    }

    /// The same request by another way (RFC 3261 §8.2.2.2): refused while it runs; afterwards its sender, or
    /// a proxy that lost a path, learns what was answered.
    fn merged(&mut self, id: Key, source: Source, message: &Message) {
        self.stats.merged_requests += 1;
        let answer = match self.servers.get(id) {
            Some(tx) if !tx.state.is_open() => {
                Repeatable::of(&tx.response).and_then(|answer| answer.answer(message).ok())
            }
            _ => None,
        };
        match answer {
            Some(bytes) => {
                let reply = ReplyPath::new(source, &message.top_via());
                self.transmit(reply.destination(true), bytes, Origin::Stateless);
            }
            None => self.refuse(source, message, StatusCode::LOOP_DETECTED),
        }
    }

    fn handle_cancel(&mut self, now: Instant, source: Source, message: &Message) {
        let start = self.server_key_start(message);
        let found = CANCELLABLE.iter().find_map(|method| {
            let key = start.clone().part(method.as_str().as_bytes()).finish();
            self.server_keys.get(&key).copied()
        });
        let Some(id) = found else {
            self.refuse(source, message, StatusCode::CALL_DOES_NOT_EXIST);
            return;
        };
        let tag = self.server_tag(id).unwrap_or_else(|| self.stateless_tag(message));
        let mut writer = ResponseWriter::for_request(message, StatusCode::OK, None, Some(&tag));
        self.sign(&mut writer);
        if let Ok(bytes) = writer.finish(b"") {
            let reply = ReplyPath::new(source, &message.top_via());
            self.transmit(reply.destination(true), bytes, Origin::Stateless);
        }
        // to anything but an INVITE without its final answer a CANCEL does nothing (RFC 3261 §9.2)
        if self.servers.get(id).is_some_and(|tx| tx.invite && tx.state.is_open())
            && self.answer_itself(now, id, StatusCode::REQUEST_TERMINATED, &tag)
        {
            self.event(Event::Cancelled { tx: ServerTxId(id) });
        }
    }

    fn handle_ack(&mut self, now: Instant, source: Source, message: Message) {
        let key = self.server_key(&message, Method::Invite);
        if let Some(&id) = self.server_keys.get(&key) {
            let state = self.servers.get(id).map(|tx| tx.state);
            if state == Some(ServerState::Completed) {
                self.confirm(now, id);
            }
            // a client that keeps the branch for the ACK of a 2xx is served below
            if state != Some(ServerState::Accepted) {
                return;
            }
        }
        let Some(to_tag) = message.to().tag() else {
            return;
        };
        let ack = self.ack_key(message.call_id(), to_tag, message.from_().tag(), message.cseq().number);
        let mut tx = None;
        if let Some(&id) = self.ack_keys.get(&ack)
            && let Some(invite) = self.servers.get_mut(id)
        {
            if std::mem::replace(&mut invite.acked, true) {
                return;
            }
            invite.short = None;
            tx = Some(ServerTxId(id));
        }
        self.event(Event::Ack { tx, source, message });
    }

    /// Takes the ACK of a 2xx of ours that reached another process: the 2xx is not repeated any more. Tells whether it
    /// was given here.
    pub fn take_ack(&mut self, now: Instant, ack: &Message) -> bool {
        self.advance(now);
        let Some(to_tag) = ack.to().tag() else { return false };
        let key = self.ack_key(ack.call_id(), to_tag, ack.from_().tag(), ack.cseq().number);
        let Some(invite) = self.ack_keys.get(&key).and_then(|&id| self.servers.get_mut(id)) else { return false };
        invite.acked = true;
        invite.short = None;
        true
    }

    /// The parts that name a server transaction but for its method (RFC 3261 §17.2.3).
    fn server_key_start(&self, message: &Message) -> Mixer {
        let via = message.top_via();
        match via.rfc3261_branch() {
            Some(branch) => self.fingerprint(purpose::SERVER).part(branch.as_bytes()).part_any_case(via.sent_by()),
            // RFC 2543: the To tag is left out, since an ACK has one that the INVITE did not have
            None => self
                .fingerprint(purpose::SERVER_OLD)
                .part(message.request_uri().as_bytes())
                .part(message.from_().tag().unwrap_or_default().as_bytes())
                .part(message.call_id().as_bytes())
                .number(message.cseq().number.into())
                .part(message.top_via_value().as_bytes()),
        }
    }

    fn server_key(&self, message: &Message, method: Method<'_>) -> Fingerprint {
        self.server_key_start(message).part(method.as_str().as_bytes()).finish()
    }

    /// What is the same in one request by two ways.
    fn merge_key(&self, message: &Message) -> Fingerprint {
        self.fingerprint(purpose::MERGE)
            .part(message.call_id().as_bytes())
            .part(message.from_().tag().unwrap_or_default().as_bytes())
            .part(message.to().tag().unwrap_or_default().as_bytes())
            .number(message.cseq().number.into())
            .part(message.method().as_str().as_bytes())
            .finish()
    }

    /// What the ACK of a 2xx has in common with it.
    pub(super) fn ack_key(&self, call_id: &str, to_tag: &str, from_tag: Option<&str>, cseq: u32) -> Fingerprint {
        self.fingerprint(purpose::ACK)
            .part(call_id.as_bytes())
            .part(to_tag.as_bytes())
            .part(from_tag.unwrap_or_default().as_bytes())
            .number(cseq.into())
            .finish()
    }

    /// The tag that an earlier answer of the transaction carried.
    fn server_tag(&self, id: Key) -> Option<String> {
        let response = self.servers.get(id)?.response.clone();
        own_message(response)?.to().tag().map(str::to_owned)
    }
}
