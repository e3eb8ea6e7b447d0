//! Inputs in any order: nothing panics, everything is forgotten in the end, and the common path hardly allocates.

use isthmus_sip::endpoint::{ClientTxId, Event, ServerTxId};
use isthmus_sip::{Message, Transport};
use proptest::prelude::*;

use crate::side::{Sent, Side, answer, outgoing, reply, request, source};

const TRANSPORTS: [Transport; 3] = [Transport::Udp, Transport::Tcp, Transport::Tls];

#[derive(Debug, Clone, Copy)]
enum Input {
    Request { method: usize, branch: u8, cseq: u8, inside: bool, transport: usize },
    Respond { which: usize, code: u16 },
    Send { method: usize, transport: usize },
    Reply { which: usize, code: u16, tag: u8, transport: usize },
    Ack { which: usize },
    Cancel { which: usize },
    Retry { which: usize },
    Fail { which: usize },
    Close { transport: usize },
    Wait { ms: u64 },
}

fn input() -> impl Strategy<Value = Input> {
    let code = prop_oneof![Just(100_u16), Just(180), Just(200), Just(404), Just(486), Just(503), Just(408)];
    prop_oneof![
        4 => (0..8_usize, 0..4_u8, 0..3_u8, any::<bool>(), 0..3_usize).prop_map(
            |(method, branch, cseq, inside, transport)| Input::Request { method, branch, cseq, inside, transport }
        ),
        3 => (any::<usize>(), code.clone()).prop_map(|(which, code)| Input::Respond { which, code }),
        2 => (0..6_usize, 0..3_usize).prop_map(|(method, transport)| Input::Send { method, transport }),
        4 => (any::<usize>(), code, 0..12_u8, 0..3_usize)
            .prop_map(|(which, code, tag, transport)| Input::Reply { which, code, tag, transport }),
        1 => any::<usize>().prop_map(|which| Input::Ack { which }),
        1 => any::<usize>().prop_map(|which| Input::Cancel { which }),
        1 => any::<usize>().prop_map(|which| Input::Retry { which }),
        1 => any::<usize>().prop_map(|which| Input::Fail { which }),
        1 => (0..3_usize).prop_map(|transport| Input::Close { transport }),
        3 => prop_oneof![0..700_u64, 0..40_000_u64].prop_map(|ms| Input::Wait { ms }),
    ]
}

fn pick<T: Clone>(from: &[T], which: usize) -> Option<T> {
    from.get(which.checked_rem(from.len())?).cloned()
}

#[derive(Default)]
struct Seen {
    servers: Vec<(ServerTxId, Message)>,
    clients: Vec<ClientTxId>,
    requests: Vec<Sent>,
    all: Vec<Sent>,
}

impl Seen {
    fn take(&mut self, side: &mut Side) {
        for sent in side.take_sent() {
            if sent.message().is_request() {
                self.requests.push(sent.clone());
            }
            self.all.push(sent);
        }
        for (_, event) in std::mem::take(&mut side.events) {
            if let Event::Request { tx, message, .. } = event {
                self.servers.push((tx, message));
            }
        }
    }
}

fn step(side: &mut Side, seen: &mut Seen, input: Input) {
    let methods = ["INVITE", "MESSAGE", "SUBSCRIBE", "BYE", "OPTIONS", "INFO", "ACK", "CANCEL"];
    let now = side.now();
    match input {
        Input::Request { method, branch, cseq, inside, transport } => {
            let cookie = if branch == 0 { "" } else { "z9hG4bK" };
            let mut text =
                request(methods[method], &format!("{cookie}{branch}")).replace("CSeq: 5", &format!("CSeq: {cseq}"));
            if inside {
                text = text.replace("To: <sip:lee@corp.example>", "To: <sip:lee@corp.example>;tag=our-tag");
            }
            side.receive(source(TRANSPORTS[transport]), &text);
        }
        Input::Respond { which, code } => {
            if let Some((tx, message)) = pick(&seen.servers, which) {
                // refusals of the endpoint are part of the play
                let _ = side.endpoint.respond(now, tx, answer(&message, code));
            }
        }
        Input::Send { method, transport } => {
            let request = outgoing(methods[method], TRANSPORTS[transport]);
            seen.clients.extend(side.endpoint.send_request(now, request));
        }
        Input::Reply { which, code, tag, transport } => {
            if let Some(sent) = pick(&seen.requests, which) {
                side.receive(source(TRANSPORTS[transport]), &reply(&sent, code, &format!("t{tag}")));
            }
        }
        Input::Ack { which } => {
            let _ = side.endpoint.send_ack(now, pick(&seen.clients, which), &outgoing("ACK", Transport::Udp));
        }
        Input::Cancel { which } => {
            if let Some(tx) = pick(&seen.clients, which) {
                side.endpoint.cancel(now, tx);
            }
        }
        Input::Retry { which } => {
            if let Some(tx) = pick(&seen.clients, which) {
                let destination = source(Transport::Tls).into();
                seen.clients.extend(side.endpoint.retry_on(now, tx, destination));
            }
        }
        Input::Fail { which } => {
            if let Some(sent) = pick(&seen.all, which) {
                side.endpoint.handle_send_failed(now, sent.origin);
            }
        }
        Input::Close { transport } => {
            side.endpoint.handle_flow_closed(now, source(TRANSPORTS[transport]).flow);
        }
        Input::Wait { ms } => side.run_to(side.at() + ms),
    }
    side.drain();
    seen.take(side);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn inputs_in_any_order_leave_nothing_behind(inputs in proptest::collection::vec(input(), 0..60)) {
        let mut side = Side::new();
        let mut seen = Seen::default();
        for input in inputs {
            step(&mut side, &mut seen, input);
        }
        side.run_to(side.at() + 600_000);
        side.drain();
        prop_assert_eq!(side.endpoint.poll_timeout(), None);
        let left = format!("{:?}", side.endpoint);
        let nothing = "Endpoint { servers: 0, clients: 0, server_keys: 0, merge_keys: 0, ack_keys: 0, client_keys: 0, client_flows: 0,";
        prop_assert!(left.starts_with(nothing), "{}", left);
    }

    /// The same inputs give the same outputs (style: the sans-io contract).
    #[test]
    fn the_same_inputs_give_the_same_outputs(inputs in proptest::collection::vec(input(), 0..40)) {
        let play = || {
            let mut side = Side::new();
            let mut seen = Seen::default();
            for input in inputs.clone() {
                step(&mut side, &mut seen, input);
            }
            seen.all.iter().map(|sent| (sent.at, sent.text.clone())).collect::<Vec<_>>()
        };
        prop_assert_eq!(play(), play());
    }
}

/// Once its tables have grown, a request over UDP and its answer cost the endpoint one allocation: that by which
/// [`bytes::Bytes`] starts to share the request's buffer.
#[test]
fn the_common_path_allocates_once() {
    let mut side = Side::new();
    let numbered = |n: u32| request("MESSAGE", &format!("z9hG4bK{n}")).replace("CSeq: 5", &format!("CSeq: {n}"));
    let exchange = |side: &mut Side, n: u32| {
        let message = crate::side::parse(&numbered(n));
        let now = side.now();
        let response = answer(&message, 200);
        allocation_counter::measure(|| {
            side.endpoint.handle_message(now, source(Transport::Udp), message);
            let Some(isthmus_sip::endpoint::Output::Event(Event::Request { tx, message, .. })) =
                side.endpoint.poll_output()
            else {
                panic!("no request");
            };
            side.endpoint.respond(now, tx, response).unwrap();
            assert!(side.endpoint.poll_output().is_some());
            assert!(side.endpoint.poll_timeout().is_some());
            drop(message);
        })
        .count_total
    };
    for n in 0..1500 {
        exchange(&mut side, n);
    }
    side.run_to(40_000);
    let allocations: u64 = (2000..3000).map(|n| exchange(&mut side, n)).sum();
    assert!(allocations <= 1000, "{allocations}");
}
