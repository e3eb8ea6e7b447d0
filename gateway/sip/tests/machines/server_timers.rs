//! Timers of server transactions (RFC 3261 §17.2, RFC 6026 §7.1, RFC 4320), each on a datagram and on a stream.

use isthmus_sip::StatusCode;
use isthmus_sip::endpoint::{Event, RespondError};
use isthmus_sip::timer::TimerReason;

use crate::side::{Side, answer, request, tls, udp, with_headers};

/// The ACK of a refusal: same branch, with the tag of the answer.
fn ack(branch: &str, tag: &str) -> String {
    request("ACK", branch).replace("To: <sip:lee@corp.example>", &format!("To: <sip:lee@corp.example>;tag={tag}"))
}

// S-19
#[test]
fn timer_g_doubles_up_to_t2_and_h_ends_a_refused_invite_over_udp() {
    let mut side = Side::new();
    side.receive(udp(), &request("INVITE", "z9hG4bKa"));
    let (tx, invite) = side.request();
    side.respond(tx, &invite, 488);
    side.run_to(100_000);
    assert_eq!(
        side.log(),
        "488@0 488@500 488@1500 488@3500 488@7500 488@11500 488@15500 488@19500 488@23500 488@27500 488@31500"
    );
    assert_eq!(side.endpoint.server_transactions(), 0);
    assert!(side.events.is_empty());
}

// S-19
#[test]
fn a_stream_has_timer_h_but_no_timer_g() {
    let mut side = Side::new();
    side.receive(tls(), &request("INVITE", "z9hG4bKa"));
    let (tx, invite) = side.request();
    side.respond(tx, &invite, 488);
    assert_eq!(side.endpoint.poll_timeout().unwrap().1, TimerReason::H);
    side.run_to(31_999);
    assert_eq!(side.endpoint.server_transactions(), 1);
    side.run_to(32_000);
    assert_eq!(side.log(), "488@0");
    assert_eq!(side.endpoint.server_transactions(), 0);
}

// S-19
#[test]
fn timer_i_absorbs_acks_for_t4_over_udp_and_is_zero_on_streams() {
    for (source, reason) in [(udp(), TimerReason::I), (tls(), TimerReason::Forget)] {
        let mut side = Side::new();
        side.receive(source, &request("INVITE", "z9hG4bKa"));
        let (tx, invite) = side.request();
        side.respond(tx, &invite, 488);
        side.run_to(100);
        side.receive(source, &ack("z9hG4bKa", "our-tag"));
        let (at, next) = side.endpoint.poll_timeout().unwrap();
        assert_eq!(next, reason);
        if reason == TimerReason::I {
            assert_eq!((at - side.now()).as_millis(), 5000);
        }
        side.receive(source, &ack("z9hG4bKa", "our-tag"));
        side.run_to(100_000);
        assert_eq!(side.log(), "488@0", "an ACK stops the repetition");
        assert!(side.events.is_empty(), "the ACK of a refusal concerns nobody");
        assert_eq!(side.endpoint.server_transactions(), 0);
    }
}

// S-19
#[test]
fn timer_j_answers_repeated_requests_for_32_s_over_udp() {
    let mut side = Side::new();
    side.receive(udp(), &request("MESSAGE", "z9hG4bKa"));
    let (tx, message) = side.request();
    side.respond(tx, &message, 200);
    assert_eq!(side.endpoint.poll_timeout().unwrap().1, TimerReason::J);
    side.run_to(31_999);
    side.receive(udp(), &request("MESSAGE", "z9hG4bKa"));
    let sent = side.take_sent();
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].text, sent[1].text);
    assert!(side.events.is_empty());
    side.run_to(32_000);
    assert_eq!(side.endpoint.server_transactions(), 0);
}

/// J is zero on streams: what is kept then is the memory of §6.4, for requests that come by another connection.
// S-03, S-19
#[test]
fn on_streams_the_answer_is_remembered_for_32_s() {
    let mut side = Side::new();
    side.receive(tls(), &request("MESSAGE", "z9hG4bKa"));
    let (tx, message) = side.request();
    side.respond(tx, &message, 200);
    assert_eq!(side.endpoint.poll_timeout().unwrap().1, TimerReason::Forget);
    let mut other = tls();
    other.flow.0 += 1;
    side.run_to(31_999);
    side.receive(other, &request("MESSAGE", "z9hG4bKa"));
    let sent = side.take_sent();
    assert_eq!((sent.len(), &sent[0].text), (2, &sent[1].text));
    assert_eq!(sent[1].destination, other.into(), "on the connection that it came by");
    side.run_to(32_000);
    assert_eq!(side.endpoint.server_transactions(), 0);
    assert!(side.events.is_empty());
}

// I-23, S-19, S-20
#[test]
fn a_2xx_to_invite_is_repeated_for_32_s_on_every_transport_and_its_state_survives() {
    for source in [udp(), tls()] {
        let mut side = Side::new();
        side.receive(source, &request("INVITE", "z9hG4bKa"));
        let (tx, invite) = side.request();
        side.respond(tx, &invite, 200);
        side.run_to(10_000);
        // RFC 6026 §7.1: absorbed, neither executed nor answered by the transaction
        side.receive(source, &request("INVITE", "z9hG4bKa"));
        assert_eq!(side.endpoint.stats().repeated_requests, 1);
        side.run_to(31_999);
        assert_eq!(side.endpoint.server_transactions(), 1);
        side.run_to(100_000);
        assert_eq!(
            side.log(),
            "200@0 200@500 200@1500 200@3500 200@7500 200@11500 200@15500 200@19500 200@23500 200@27500 200@31500"
        );
        let [(32_000, Event::AckTimeout { tx: unacknowledged, call_id, local_tag, remote_tag })] = &side.events[..]
        else {
            panic!("{:?}", side.events);
        };
        assert_eq!((*unacknowledged, &call_id[..], &local_tag[..], &remote_tag[..]), (tx, "9d1f", "our-tag", "w91"));
        assert_eq!(side.endpoint.server_transactions(), 0);
    }
}

// I-23, S-20
#[test]
fn the_ack_of_a_2xx_ends_its_repetition_and_is_reported_once() {
    let mut side = Side::new();
    side.receive(udp(), &request("INVITE", "z9hG4bKa"));
    let (tx, invite) = side.request();
    side.respond(tx, &invite, 200);
    side.run_to(700);
    for branch in ["z9hG4bKb", "z9hG4bKb", "z9hG4bKc"] {
        side.receive(udp(), &ack(branch, "our-tag"));
    }
    // RFC 6026: the INVITE is still absorbed, for 32 s
    side.receive(udp(), &request("INVITE", "z9hG4bKa"));
    side.run_to(31_999);
    assert_eq!(side.endpoint.server_transactions(), 1);
    side.run_to(100_000);
    assert_eq!(side.log(), "200@0 200@500");
    let [(700, Event::Ack { tx: acknowledged, .. })] = &side.events[..] else {
        panic!("{:?}", side.events);
    };
    assert_eq!(*acknowledged, Some(tx));
}

#[test]
fn the_ack_of_another_dialog_does_not_end_the_repetition() {
    let mut side = Side::new();
    side.receive(udp(), &request("INVITE", "z9hG4bKa"));
    let (tx, invite) = side.request();
    side.respond(tx, &invite, 200);
    side.receive(udp(), &ack("z9hG4bKb", "another-tag"));
    side.receive(udp(), &ack("z9hG4bKc", "our-tag").replace("CSeq: 5", "CSeq: 6"));
    side.run_to(600);
    assert_eq!(side.log(), "200@0 200@500");
    assert!(side.events.iter().all(|(_, event)| matches!(event, Event::Ack { tx: None, .. })));
    assert_eq!(side.events.len(), 2);
}

#[test]
fn an_invite_gets_100_after_200_ms_and_repeats_it() {
    let mut side = Side::new();
    side.receive(udp(), &request("INVITE", "z9hG4bKa"));
    let (tx, invite) = side.request();
    side.run_to(500);
    side.receive(udp(), &request("INVITE", "z9hG4bKa"));
    side.respond(tx, &invite, 180);
    side.run_to(1500);
    side.receive(udp(), &request("INVITE", "z9hG4bKa"));
    assert_eq!(side.log(), "100@200 100@500 180@500 180@1500");
}

// S-21, S-22
#[test]
fn a_non_invite_gets_100_after_3_5_s_and_not_before() {
    for source in [udp(), tls()] {
        let mut side = Side::new();
        side.receive(source, &request("MESSAGE", "z9hG4bKa"));
        let (tx, message) = side.request();
        side.run_to(500);
        side.receive(source, &request("MESSAGE", "z9hG4bKa"));
        side.run_to(3499);
        assert_eq!(side.log(), "", "a repetition before the answer is absorbed");
        side.run_to(5000);
        let sent = side.take_sent();
        assert_eq!((sent.len(), sent[0].what(), sent[0].at), (1, "100", 3500));
        assert_eq!(sent[0].header("To"), ["<sip:lee@corp.example>"], "100 has no tag");
        side.receive(source, &request("MESSAGE", "z9hG4bKa"));
        side.respond(tx, &message, 200);
        assert_eq!(side.log(), "100@5000 200@5000");
    }
}

// E-05, E-06, N-03, S-21
#[test]
fn forbidden_answers_are_not_sent() {
    for (method, codes) in [
        ("MESSAGE", &[100, 180, 183, 199, 401, 407, 408][..]),
        ("SUBSCRIBE", &[100, 202, 401, 407, 408]),
        ("NOTIFY", &[100, 202, 401, 407, 408]),
        ("INVITE", &[100, 401, 407]),
    ] {
        let mut side = Side::new();
        side.receive(udp(), &request(method, "z9hG4bKa"));
        let (tx, message) = side.request();
        for &code in codes {
            let status = StatusCode::new(code).unwrap();
            let refused = side.endpoint.respond(side.now(), tx, answer(&message, code));
            assert_eq!(refused, Err(RespondError::Forbidden(status)), "{method} {code}");
        }
        side.drain();
        assert_eq!(side.log(), "");
        // the transaction is still there to be answered
        side.respond(tx, &message, 200);
        assert_eq!(side.log(), "200@0");
    }
    let mut side = Side::new();
    side.receive(udp(), &request("INVITE", "z9hG4bKa"));
    let (tx, message) = side.request();
    side.respond(tx, &message, 408);
    assert_eq!(side.log(), "408@0", "an INVITE may get 408");
}

// E-05
#[test]
fn a_non_invite_that_nobody_serves_ends_silently_after_32_s() {
    let mut side = Side::new();
    side.receive(udp(), &request("MESSAGE", "z9hG4bKa"));
    let (tx, message) = side.request();
    side.run_to(100_000);
    assert_eq!(side.log(), "100@3500");
    assert_eq!(side.endpoint.server_transactions(), 0);
    assert_eq!(side.endpoint.respond(side.now(), tx, answer(&message, 200)), Err(RespondError::Gone));
}

#[test]
fn an_invite_that_nobody_serves_is_refused_after_three_minutes() {
    let mut side = Side::new();
    side.receive(tls(), &request("INVITE", "z9hG4bKa"));
    side.request();
    side.run_to(180_000);
    assert_eq!(side.log(), "100@200 500@180000");
}

#[test]
fn a_second_final_answer_is_refused() {
    let mut side = Side::new();
    side.receive(udp(), &with_headers("MESSAGE", "z9hG4bKa", ""));
    let (tx, message) = side.request();
    side.respond(tx, &message, 200);
    assert_eq!(side.endpoint.respond(side.now(), tx, answer(&message, 404)), Err(RespondError::Answered));
    assert_eq!(side.endpoint.respond(side.now(), tx, b"MESSAGE x".to_vec().into()), Err(RespondError::NotResponse));
    side.drain();
    assert_eq!(side.log(), "200@0");
}
