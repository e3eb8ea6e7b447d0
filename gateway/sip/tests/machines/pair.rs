//! Two endpoints and the wire between them, with its own clock, latency and loss.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use isthmus_sip::endpoint::{
    ClientTxId, Destination, Endpoint, EndpointConfig, Event, FlowId, Outgoing, Output, SentBy, ServerTxId, Source,
};
use isthmus_sip::{Limits, Message, Method, StatusCode, Transport};
use proptest::prelude::*;

use crate::side::{address, answer, entropy};

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    A,
    B,
}

impl Who {
    fn other(self) -> Self {
        if self == Self::A { Self::B } else { Self::A }
    }

    pub(crate) fn host(self) -> &'static str {
        if self == Self::A { "fed.corp.example" } else { "edge.partner.example" }
    }
}

/// Decides what is lost: by the number on the wire, and by what it is.
type Loss = Box<dyn FnMut(usize, &Message) -> bool>;

pub(crate) struct Pair {
    a: Endpoint,
    b: Endpoint,
    start: Instant,
    pub(crate) now: Instant,
    transport: Transport,
    latency: Duration,
    lose: Loss,
    count: usize,
    wire: BTreeMap<(Instant, usize), (Who, Bytes)>,
    pub(crate) events: Vec<(u64, Who, Event)>,
    pub(crate) transcript: String,
}

impl Pair {
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
    pub(crate) fn new(transport: Transport, lose: impl FnMut(usize, &Message) -> bool + 'static) -> Self {
        let start = Instant::now();
        let endpoint = |who: Who, seed| {
            let config = EndpointConfig {
                own_names: vec![SentBy::new(who.host(), None)],
                pod: String::from("p1"),
                ..EndpointConfig::default()
            };
            Endpoint::new(config, Box::new(entropy(seed)))
        };
        Self {
            a: endpoint(Who::A, 1),
            b: endpoint(Who::B, 2),
            start,
            now: start,
            transport,
            latency: Duration::from_millis(20),
            lose: Box::new(lose),
            count: 0,
            wire: BTreeMap::new(),
            events: vec![],
            transcript: String::new(),
        }
    }

    pub(crate) fn endpoint(&mut self, who: Who) -> &mut Endpoint {
        if who == Who::A { &mut self.a } else { &mut self.b }
    }

    fn source(&self, who: Who) -> Source {
        let ip = |who| if who == Who::A { "192.0.2.10:5060" } else { "192.0.2.20:5060" };
        Source {
            flow: FlowId(1),
            transport: self.transport,
            remote: address(ip(who)),
            local: address(ip(who.other())),
            takes_answers: true,
        }
    }

    pub(crate) fn at(&self) -> u64 {
        u64::try_from((self.now - self.start).as_millis()).unwrap()
    }

    pub(crate) fn outgoing(&self, from: Who, request: Bytes, correlation: u64) -> Outgoing {
        Outgoing {
            request,
            destination: Destination::from(self.source(from.other())),
            sent_by: SentBy::new(from.host(), None),
            alias: false,
            correlation,
        }
    }

    pub(crate) fn send(&mut self, from: Who, request: Bytes) -> ClientTxId {
        let outgoing = self.outgoing(from, request, 0);
        let now = self.now;
        self.endpoint(from).send_request(now, outgoing).unwrap()
    }

    pub(crate) fn respond(&mut self, who: Who, tx: ServerTxId, response: Bytes) {
        let now = self.now;
        self.endpoint(who).respond(now, tx, response).unwrap();
    }

    fn acknowledge(&mut self, tx: Option<ClientTxId>) {
        let ack = std::str::from_utf8(&message("ACK"))
            .unwrap()
            .replace("partner.example>\r\nCall", "partner.example>;tag=our-tag\r\nCall");
        let ack = self.outgoing(Who::A, ack.into(), 0);
        self.a.send_ack(self.now, tx, &ack).unwrap();
    }

    fn drain(&mut self) {
        for who in [Who::A, Who::B] {
            while let Some(output) = self.endpoint(who).poll_output() {
                match output {
                    Output::Event(event) => self.events.push((self.at(), who, event)),
                    Output::Transmit { bytes, .. } => self.transmit(who, bytes),
                }
            }
        }
    }

    fn transmit(&mut self, from: Who, bytes: Bytes) {
        let message = Message::parse(bytes.clone(), &Limits::default()).unwrap();
        let lost = (self.lose)(self.count, &message);
        self.count += 1;
        let to = from.other();
        let text = std::str::from_utf8(&bytes).unwrap().replace("\r\n", "\n");
        let mark = if lost { ", lost" } else { "" };
        let at = self.at();
        let _ = writeln!(self.transcript, "---- {}.{:03} s, {from:?} to {to:?}{mark}\n{text}", at / 1000, at % 1000);
        if !lost {
            self.wire.insert((self.now + self.latency, self.count), (to, bytes));
        }
    }

    /// Goes on until something happened that someone must see, or `ms` since the start.
    pub(crate) fn run_to(&mut self, ms: u64) -> Option<(u64, Who, Event)> {
        let until = self.start + Duration::from_millis(ms);
        loop {
            self.drain();
            if !self.events.is_empty() {
                return Some(self.events.remove(0));
            }
            let arrival = self.wire.keys().next().map(|(at, _)| *at);
            let a = self.a.poll_timeout().map(|(at, _)| at);
            let b = self.b.poll_timeout().map(|(at, _)| at);
            let Some(next) = [arrival, a, b].into_iter().flatten().min().filter(|at| *at <= until) else {
                self.now = until;
                return None;
            };
            self.now = next;
            if arrival == Some(next)
                && let Some((_, (to, bytes))) = self.wire.pop_first()
            {
                let message = Message::parse(bytes, &Limits::default()).unwrap();
                let source = self.source(to.other());
                self.endpoint(to).handle_message(next, source, message);
            } else {
                self.endpoint(if a == Some(next) { Who::A } else { Who::B }).handle_timeout(next);
            }
        }
    }
}

fn message(method: &str) -> Bytes {
    Bytes::from(format!(
        "{method} sip:ana@partner.example SIP/2.0\r\nMax-Forwards: 70\r\nFrom: <sip:lee@corp.example>;tag=a1\r\n\
         To: <sip:ana@partner.example>\r\nCall-ID: pair\r\nCSeq: 1 {method}\r\nContact: <sip:lee@fed.corp.example>\r\n\
         Content-Length: 0\r\n\r\n"
    ))
}

/// What one request came to, however many messages were lost.
#[derive(Debug, Default)]
struct Outcome {
    executed: usize,
    finals: usize,
    timeouts: usize,
    acks: usize,
    ack_timeouts: usize,
}

fn play(transport: Transport, method: &'static str, code: u16, delay_ms: u64, lost: Vec<bool>) -> Outcome {
    let mut pair = Pair::new(transport, move |n, _| lost.get(n).copied().unwrap_or(false));
    pair.send(Who::A, message(method));
    let mut outcome = Outcome::default();
    let mut waiting = None;
    while let Some((at, who, event)) =
        pair.run_to(waiting.as_ref().map_or(400_000, |(due, _, _): &(u64, ServerTxId, Message)| *due)).or_else(|| {
            let (due, tx, request) = waiting.take()?;
            let response = answer(&request, code);
            // a client that gave up in between is no error
            let now = pair.now;
            let _ = pair.b.respond(now, tx, response);
            assert_eq!(pair.at(), due);
            pair.run_to(400_000)
        })
    {
        match event {
            Event::Request { tx, message, .. } => {
                assert_eq!(who, Who::B);
                outcome.executed += 1;
                waiting = Some((at + delay_ms, tx, message));
            }
            Event::Response { tx, status, message, .. } => {
                assert_eq!(who, Who::A);
                if status.is_final() {
                    outcome.finals += 1;
                    assert_eq!(status.code(), code);
                }
                if status.is_success() && message.method() == Method::Invite {
                    pair.acknowledge(Some(tx));
                }
            }
            Event::StrayResponse { message, .. } => {
                assert_eq!(who, Who::A);
                assert_eq!(outcome.timeouts, 1, "only what comes after the end is stray");
                // RFC 3261 §13.2.2.4: a late 2xx is acknowledged all the same
                if message.method() == Method::Invite && message.status().is_some_and(StatusCode::is_success) {
                    pair.acknowledge(None);
                }
            }
            Event::Timeout { .. } => outcome.timeouts += 1,
            Event::Ack { tx, .. } => {
                assert!(tx.is_some());
                outcome.acks += 1;
            }
            Event::AckTimeout { .. } => outcome.ack_timeouts += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(pair.a.client_transactions() + pair.b.server_transactions(), 0, "everything is forgotten in the end");
    assert!(pair.a.poll_timeout().is_none() && pair.b.poll_timeout().is_none());
    outcome
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is lost: executed at most once, one outcome at the client.
    #[test]
    fn any_loss_leaves_one_execution_and_one_outcome(
        lost in proptest::collection::vec(any::<bool>(), 0..40),
        invite in any::<bool>(),
        code in prop_oneof![Just(200_u16), Just(404), Just(486)],
        delay_ms in prop_oneof![Just(0_u64), 0_u64..10_000],
    ) {
        let method = if invite { "INVITE" } else { "MESSAGE" };
        let outcome = play(Transport::Udp, method, code, delay_ms, lost);
        prop_assert!(outcome.executed <= 1, "{outcome:?}");
        prop_assert_eq!(outcome.finals + outcome.timeouts, 1, "{:?}", outcome);
        if invite && code == 200 && outcome.executed == 1 {
            prop_assert_eq!(outcome.acks + outcome.ack_timeouts, 1, "{:?}", outcome);
        } else {
            prop_assert_eq!(outcome.acks + outcome.ack_timeouts, 0, "{:?}", outcome);
        }
    }
}

#[test]
fn without_loss_nothing_is_repeated_on_any_transport() {
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        for (method, code, acks) in [("INVITE", 200, 1), ("INVITE", 486, 0), ("MESSAGE", 200, 0)] {
            let outcome = play(transport, method, code, 10, vec![]);
            assert_eq!((outcome.executed, outcome.finals, outcome.timeouts), (1, 1, 0), "{outcome:?}");
            assert_eq!((outcome.acks, outcome.ack_timeouts), (acks, 0));
        }
    }
}
