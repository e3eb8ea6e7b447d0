//! Timers of client transactions (RFC 3261 §17.1, RFC 6026 §7.2), each on a datagram and on a stream.

use isthmus_sip::Transport::{Tcp, Tls, Udp};
use isthmus_sip::endpoint::{Destination, Event, FlowId, Origin, SendError};
use isthmus_sip::timer::TimerReason;

use crate::side::{Side, address, outgoing, reply, source};

// S-19
#[test]
fn timer_a_doubles_and_b_ends_an_invite_over_udp() {
    let mut side = Side::new();
    side.send(outgoing("INVITE", Udp));
    side.run_to(100_000);
    assert_eq!(side.log(), "INVITE@0 INVITE@500 INVITE@1500 INVITE@3500 INVITE@7500 INVITE@15500 INVITE@31500");
    assert_eq!(side.client_log(), "timeout(false)@32000");
    assert_eq!(side.endpoint.client_transactions(), 0);
}

// S-19
#[test]
fn a_stream_has_timer_b_but_no_timer_a() {
    for transport in [Tcp, Tls] {
        let mut side = Side::new();
        side.send(outgoing("INVITE", transport));
        assert_eq!(side.endpoint.poll_timeout().unwrap().1, TimerReason::B);
        side.run_to(100_000);
        assert_eq!(side.log(), "INVITE@0");
        assert_eq!(side.client_log(), "timeout(false)@32000");
    }
}

// S-19
#[test]
fn timer_e_doubles_up_to_t2_and_f_ends_a_request_over_udp() {
    let mut side = Side::new();
    side.send(outgoing("MESSAGE", Udp));
    side.run_to(100_000);
    assert_eq!(
        side.log(),
        "MESSAGE@0 MESSAGE@500 MESSAGE@1500 MESSAGE@3500 MESSAGE@7500 MESSAGE@11500 MESSAGE@15500 \
         MESSAGE@19500 MESSAGE@23500 MESSAGE@27500 MESSAGE@31500"
    );
    assert_eq!(side.client_log(), "timeout(false)@32000");
}

// S-19
#[test]
fn a_stream_has_timer_f_but_no_timer_e() {
    let mut side = Side::new();
    side.send(outgoing("NOTIFY", Tls));
    side.run_to(100_000);
    assert_eq!(side.log(), "NOTIFY@0");
    assert_eq!(side.client_log(), "timeout(false)@32000");
}

// S-19
#[test]
fn after_a_provisional_answer_timer_e_waits_t2_and_f_goes_on() {
    let mut side = Side::new();
    side.send(outgoing("MESSAGE", Udp));
    side.run_to(100);
    let trying = reply(&side.sent[0], 100, "t");
    side.receive(source(Udp), &trying);
    side.run_to(100_000);
    assert_eq!(
        side.log(),
        "MESSAGE@0 MESSAGE@500 MESSAGE@4500 MESSAGE@8500 MESSAGE@12500 MESSAGE@16500 MESSAGE@20500 \
         MESSAGE@24500 MESSAGE@28500"
    );
    assert_eq!(side.client_log(), "100@100 timeout(true)@32000");
}

// S-19
#[test]
fn timer_k_absorbs_repeated_answers_for_t4_over_udp() {
    let mut side = Side::new();
    side.send(outgoing("MESSAGE", Udp));
    let ok = reply(&side.sent[0], 200, "t");
    side.receive(source(Udp), &ok);
    assert_eq!(side.endpoint.poll_timeout().unwrap().1, TimerReason::K);
    side.run_to(4999);
    side.receive(source(Udp), &ok);
    assert_eq!(side.client_log(), "200@0");
    assert_eq!(side.endpoint.client_transactions(), 1);
    side.run_to(5000);
    assert_eq!(side.endpoint.client_transactions(), 0);
    assert_eq!(side.log(), "MESSAGE@0");
}

// S-19
#[test]
fn timers_d_and_k_are_zero_on_streams() {
    for method in ["INVITE", "MESSAGE"] {
        let mut side = Side::new();
        side.send(outgoing(method, Tls));
        let refusal = reply(&side.sent[0], 486, "t");
        side.receive(source(Tls), &refusal);
        assert_eq!(side.client_log(), "486@0");
        assert_eq!(side.endpoint.client_transactions(), 0, "{method}");
        assert_eq!(side.endpoint.poll_timeout(), None, "{method}");
    }
}

// S-19, S-24
#[test]
fn timer_d_answers_repeated_refusals_with_the_same_ack_for_32_s_over_udp() {
    let mut side = Side::new();
    side.send(outgoing("INVITE", Udp));
    let invite = side.sent[0].clone();
    let refusal = reply(&invite, 486, "peer");
    side.receive(source(Udp), &refusal);
    side.run_to(31_999);
    side.receive(source(Udp), &refusal);
    assert_eq!(side.client_log(), "486@0");
    side.run_to(32_001);
    side.receive(source(Udp), &refusal);
    assert!(matches!(side.events.pop(), Some((32_001, Event::StrayResponse { .. }))));

    let sent = side.take_sent();
    let acks: Vec<_> = sent.iter().skip(1).collect();
    assert_eq!(acks.iter().map(|ack| (ack.what(), ack.at)).collect::<Vec<_>>(), [("ACK", 0), ("ACK", 31_999)]);
    let ack = acks[0];
    assert_eq!(ack.text, acks[1].text);
    // RFC 3261 §17.1.1.3
    assert_eq!(ack.destination, invite.destination);
    assert!(ack.text.starts_with("ACK sip:ana@partner.example SIP/2.0\r\n"));
    assert_eq!(ack.header("Via"), invite.header("Via"));
    assert_eq!(ack.header("Route"), ["<sip:edge.partner.example;lr>"]);
    assert_eq!(ack.header("From"), invite.header("From"));
    assert_eq!(ack.header("To"), ["<sip:ana@partner.example>;tag=peer"]);
    assert_eq!(ack.header("CSeq"), ["3 ACK"]);
    assert_eq!(ack.header("Call-ID"), ["6b7f"]);
}

// S-19
#[test]
fn timer_m_keeps_an_accepted_invite_for_32_s_on_every_transport() {
    for transport in [Udp, Tls] {
        let mut side = Side::new();
        let tx = side.send(outgoing("INVITE", transport));
        let ok = reply(&side.sent[0], 200, "peer");
        side.receive(source(transport), &ok);
        assert_eq!(side.endpoint.poll_timeout().unwrap().1, TimerReason::M);
        // without an ACK of ours yet, a repeated 2xx is absorbed
        side.receive(source(transport), &ok);
        let mut ack = outgoing("ACK", transport);
        let text = String::from_utf8(ack.request.to_vec())
            .unwrap()
            .replace("To: <sip:ana@partner.example>", "To: <sip:ana@partner.example>;tag=peer");
        ack.request = text.into();
        side.endpoint.send_ack(side.now(), Some(tx), &ack).unwrap();
        side.drain();
        side.run_to(31_000);
        side.receive(source(transport), &ok);
        side.run_to(32_000);
        assert_eq!(side.endpoint.client_transactions(), 0);
        assert_eq!(side.client_log(), "200@0");
        let sent = side.take_sent();
        let log: Vec<_> = sent.iter().map(|sent| (sent.what(), sent.at)).collect();
        assert_eq!(log, [("INVITE", 0), ("ACK", 0), ("ACK", 31_000)]);
        assert_eq!(sent[1].text, sent[2].text);
        assert_ne!(sent[1].branch(), sent[0].branch());
    }
}

#[test]
fn a_forked_2xx_is_reported_once_and_acknowledged_by_itself() {
    let mut side = Side::new();
    side.send(outgoing("INVITE", Udp));
    let invite = side.sent[0].clone();
    for tag in ["a", "b", "a", "b"] {
        side.receive(source(Udp), &reply(&invite, 200, tag));
    }
    assert_eq!(side.client_log(), "200@0 200@0");
    for fork in 0..100 {
        side.receive(source(Udp), &reply(&invite, 200, &format!("fork{fork}")));
    }
    assert_eq!(side.events.len(), 6, "the number of forks is bounded");
}

// S-23
#[test]
fn a_timeout_a_failure_and_a_503_allow_another_target_with_a_new_branch() {
    for case in ["timeout", "failed", "503 over UDP", "503 over TLS"] {
        let mut side = Side::new();
        let transport = if case.ends_with("TLS") { Tls } else { Udp };
        let tx = side.send(outgoing("MESSAGE", transport));
        let first = side.sent[0].clone();
        assert_eq!(side.endpoint.retry_on(side.now(), tx, first.destination), Err(SendError::NotFailed));
        match case {
            "timeout" => side.run_to(32_000),
            "failed" => side.endpoint.handle_send_failed(side.now(), first.origin),
            _ => side.receive(source(transport), &reply(&first, 503, "t")),
        }
        side.drain();
        side.take_sent();
        let next = Destination::Address { transport: Tls, remote: address("192.0.2.21:5061"), instead_of: FlowId(8) };
        let retried = side.endpoint.retry_on(side.now(), tx, next).unwrap();
        assert_ne!(retried, tx);
        side.drain();
        let second = side.take_sent().pop().unwrap();
        assert_eq!(second.destination, next, "{case}");
        assert_ne!(second.branch(), first.branch());
        assert_eq!(second.message().top_via().transport(), Some(Tls));
        for header in ["Call-ID", "From", "To", "CSeq"] {
            assert_eq!(second.header(header), first.header(header), "{case}");
        }
        assert_eq!(side.endpoint.retry_on(side.now(), tx, next), Err(SendError::NotFailed), "one failure is one retry");
        side.events.clear();
        side.receive(source(Tls), &reply(&second, 200, "t"));
        assert_eq!(side.events.len(), 1, "{case}");
    }
}

#[test]
fn a_failed_request_can_be_retried_for_t4_only() {
    let mut side = Side::new();
    let tx = side.send(outgoing("MESSAGE", Tls));
    let destination = side.sent[0].destination;
    side.endpoint.handle_send_failed(side.now(), Origin::Client(tx));
    side.drain();
    assert_eq!(side.client_log(), "failed@0");
    side.run_to(5000);
    assert_eq!(side.endpoint.retry_on(side.now(), tx, destination), Err(SendError::Gone));
}

#[test]
fn a_refusal_that_is_no_503_allows_no_other_target() {
    let mut side = Side::new();
    let tx = side.send(outgoing("MESSAGE", Udp));
    let sent = side.sent[0].clone();
    side.receive(source(Udp), &reply(&sent, 404, "t"));
    assert_eq!(side.endpoint.retry_on(side.now(), tx, sent.destination), Err(SendError::NotFailed));
}

#[test]
fn a_closed_connection_does_not_end_a_request_that_was_sent() {
    let mut side = Side::new();
    side.send(outgoing("MESSAGE", Tls));
    side.endpoint.handle_flow_closed(side.now(), source(Tls).flow);
    side.run_to(1000);
    let mut other = source(Tls);
    other.flow.0 += 1;
    let ok = reply(&side.sent[0], 200, "t");
    side.receive(other, &ok);
    assert_eq!(side.client_log(), "200@1000");
}

#[test]
fn a_request_whose_connection_broke_waits_t4_for_an_answer_by_another() {
    for (method, heard, expected) in [
        ("MESSAGE", false, "timeout(false)@5200"),
        ("INVITE", false, "timeout(false)@5200"),
        ("MESSAGE", true, "100@100 timeout(true)@32000"),
    ] {
        let mut side = Side::new();
        side.send(outgoing(method, Tls));
        side.run_to(100);
        if heard {
            // somebody works on it: the connection may break meanwhile
            let trying = reply(&side.sent[0], 100, "t");
            side.receive(source(Tls), &trying);
        }
        side.run_to(200);
        // another connection, and the same one twice: nothing changes
        side.endpoint.handle_flow_closed(side.now(), FlowId(source(Tls).flow.0 + 1));
        side.endpoint.handle_flow_closed(side.now(), source(Tls).flow);
        side.run_to(1000);
        side.endpoint.handle_flow_closed(side.now(), source(Tls).flow);
        side.run_to(34_000);
        assert_eq!(side.client_log(), expected, "{method}");
        assert!(format!("{:?}", side.endpoint).contains("client_flows: 0"), "{method}");
    }
}
