//! Conversations with the servers of the lab, as they were seen to behave.

mod barriers;
mod handshake;
mod life;
mod sending;
mod servers;

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::stanza::{Presence, PresenceType, StanzaProblem};
use crate::stream::codec::StreamDecodeError;
use crate::{Ns, name};

const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' \
    xmlns:stream='http://etherx.jabber.org/streams' from='partner.example' id='a1b2c3' xml:lang='en'>";
const SENT_HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns=\"jabber:component:accept\" \
    xmlns:stream=\"http://etherx.jabber.org/streams\" to=\"partner.example\">";
/// SHA-1 of "a1b2c3s3cret", computed with another program.
const HANDSHAKE: &str = "<handshake>a7efd07b7757b95e95852545850ffad598fd6c2a</handshake>";

/// A link with its own clock, and everything that came out of it.
struct Lab {
    link: Link,
    now: Instant,
    sent: String,
    events: Vec<Event>,
    disconnected: bool,
}

impl Lab {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut LinkConfig)) -> Self {
        let mut config = LinkConfig::new("partner.example", "corp.example", Secret::new("s3cret"));
        change(&mut config);
        let mut lab = Self {
            link: Link::new(config, 0xfeed),
            now: start(),
            sent: String::new(),
            events: Vec::new(),
            disconnected: false,
        };
        lab.link.handle_connected(lab.now);
        lab.drain_outputs();
        lab
    }

    fn ready() -> Self {
        Self::ready_with(|_| {})
    }

    fn ready_with(change: impl FnOnce(&mut LinkConfig)) -> Self {
        let mut lab = Self::with(change);
        lab.receive(HEADER);
        lab.receive("<handshake/>");
        assert_eq!(lab.events(), [Event::Ready]);
        lab.sent();
        lab
    }

    fn receive(&mut self, text: impl AsRef<[u8]>) {
        self.link.handle_bytes(self.now, text.as_ref());
        self.drain_outputs();
    }

    /// Lets time pass, waking the link when it asks for it, as the caller would.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((at, _)) = self.link.poll_timeout().filter(|(at, _)| *at <= end) {
            self.now = self.now.max(at);
            self.link.handle_timeout(self.now);
            self.drain_outputs();
            assert!(self.link.poll_timeout().is_none_or(|(next, _)| next > self.now), "a timer fires once");
        }
        self.now = end;
    }

    fn send(&mut self, stanza: impl Into<Stanza>) -> Result<(), SendError> {
        let outcome = self.link.send(self.now, &stanza.into());
        self.drain_outputs();
        outcome
    }

    /// Sends a message with a token and leaves the outputs where they are.
    fn message(&mut self, number: u64) -> Result<(), SendError> {
        let message = Message::new(MessageType::Chat, "ana@partner.example", "juliet@corp.example")
            .with_id(&format!("m{number}"))
            .with_body("hi");
        self.link.send_with_barrier(self.now, &message, BarrierToken(number))
    }

    fn drain_outputs(&mut self) {
        while let Some(output) = self.link.poll_output() {
            match output {
                Output::Transmit(bytes) => {
                    assert!(!self.disconnected, "nothing is written after the end");
                    self.sent.push_str(std::str::from_utf8(&bytes).unwrap());
                }
                Output::Disconnect => self.disconnected = true,
                Output::Event(event) => self.events.push(event),
            }
        }
    }

    fn sent(&mut self) -> String {
        std::mem::take(&mut self.sent)
    }

    fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn closed(&mut self) -> (CloseReason, Option<RetryRange>) {
        assert!(self.disconnected);
        assert_eq!(self.link.poll_timeout(), None);
        match self.events().pop() {
            Some(Event::Closed { reason, retry_after }) => (reason, retry_after),
            other => panic!("{other:?}"),
        }
    }

    /// The id of the only ping that was sent, and all that was sent before it.
    fn ping(&mut self) -> (String, String) {
        let sent = self.sent();
        let (before, ping) = sent.split_once("<iq ").unwrap_or_else(|| panic!("no ping in {sent}"));
        assert!(ping.ends_with("type=\"get\"><ping xmlns=\"urn:xmpp:ping\"/></iq>"), "{ping}");
        assert!(ping.starts_with("from=\"partner.example\" to=\"corp.example\" id=\""), "{ping}");
        let id = ping.split('"').nth(5).unwrap().to_owned();
        (id, before.to_owned())
    }

    fn pong(&mut self, id: &str) {
        self.receive(format!("<iq type='result' id='{id}' from='corp.example' to='partner.example'/>"));
    }
}

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
fn start() -> Instant {
    Instant::now()
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn stanzas(events: &[Event]) -> Vec<&Stanza> {
    events
        .iter()
        .map(|event| match event {
            Event::Stanza(stanza) => stanza.as_ref(),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn kinds(events: &[Event]) -> Vec<(PresenceType, &str)> {
    stanzas(events)
        .into_iter()
        .map(|stanza| match stanza {
            Stanza::Presence(presence) => (presence.kind, presence.from().unwrap_or_default()),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn delivered(number: u64) -> Event {
    Event::Delivery(BarrierToken(number), Delivery::Delivered)
}

fn unknown(number: u64) -> Event {
    Event::Delivery(BarrierToken(number), Delivery::Unknown)
}

fn range(retry: Option<RetryRange>) -> (u64, u64) {
    retry.map(|range| (range.min.as_secs(), range.max.as_secs())).unwrap()
}

/// What the outside may do to a link.
#[derive(Debug, Clone)]
enum Act {
    Message,
    Bounce(u64),
    Answer,
    Bytes(Vec<u8>),
    Pass(u64),
    Drain,
    Close,
    Lose,
}

fn acts() -> impl Strategy<Value = Act> {
    let bytes = prop::sample::select(vec![
        " ",
        "<a",
        "<a/>",
        "</stream:stream>",
        "<message/>",
        "<iq type='get' id='1'/>",
        "\u{1}",
    ]);
    prop_oneof![
        8 => Just(Act::Message),
        4 => (0..20_u64).prop_map(Act::Bounce),
        6 => Just(Act::Answer),
        2 => bytes.prop_map(|text| Act::Bytes(text.as_bytes().to_vec())),
        3 => (0..40_u64).prop_map(Act::Pass),
        1 => Just(Act::Drain),
        1 => Just(Act::Close),
        1 => Just(Act::Lose),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn whatever_happens_each_token_is_told_exactly_once(acts in prop::collection::vec(acts(), 0..40), settle in 0..2_u64) {
        let mut lab = Lab::ready_with(|config| config.barrier_settle = secs(settle));
        let mut next = 0;
        let mut all = String::new();
        for act in acts {
            match act {
                Act::Message => {
                    if lab.message(next).is_ok() {
                        next += 1;
                    }
                    lab.drain_outputs();
                }
                Act::Bounce(number) => lab.receive(format!(
                    "<message type='error' id='m{number}' from='juliet@corp.example' to='ana@partner.example'/>"
                )),
                Act::Answer => {
                    all.push_str(&lab.sent());
                    let id = all.rsplit_once("-b").and_then(|(_, rest)| rest.split('"').next()).map(str::to_owned);
                    if let Some(id) = id {
                        lab.pong(&format!("{:016x}-b{id}", 0xfeed));
                    }
                }
                Act::Bytes(bytes) => lab.receive(bytes),
                Act::Pass(time) => lab.pass(secs(time)),
                Act::Drain => lab.link.drain(lab.now),
                Act::Close => lab.link.close(lab.now),
                Act::Lose => lab.link.handle_closed(lab.now),
            }
            lab.drain_outputs();
        }
        lab.link.handle_closed(lab.now);
        lab.drain_outputs();
        let mut told: Vec<u64> = Vec::new();
        for event in &lab.events {
            if let Event::Delivery(token, _) = event {
                told.push(token.0);
            }
        }
        told.sort_unstable();
        prop_assert_eq!(told, (0..next).collect::<Vec<_>>());
        let closed = lab.events.iter().filter(|event| matches!(event, Event::Closed { .. })).count();
        prop_assert_eq!(closed, 1);
        let ends = matches!(lab.events.last(), Some(Event::Closed { .. }));
        prop_assert!(ends);
    }
}
