//! CANCEL on both sides (RFC 3261 §9).

use isthmus_sip::Transport::{Tls, Udp};
use isthmus_sip::endpoint::{CancelOutcome, Event, RespondError};

use crate::side::{Side, answer, outgoing, reply, request, source, tls, udp};

// I-24, S-24
#[test]
fn a_cancel_waits_for_a_provisional_answer() {
    let mut side = Side::new();
    let tx = side.send(outgoing("INVITE", Tls));
    assert_eq!(side.endpoint.cancel(side.now(), tx), CancelOutcome::Deferred);
    side.run_to(3000);
    let invite = side.sent[0].clone();
    assert_eq!(side.log(), "INVITE@0");
    side.receive(source(Tls), &reply(&invite, 180, "peer"));
    let cancel = side.take_sent().pop().unwrap();
    assert_eq!((cancel.what(), cancel.at), ("CANCEL", 3000));
    // RFC 3261 §9.1: all of it as in the INVITE
    assert!(cancel.text.starts_with("CANCEL sip:ana@partner.example SIP/2.0\r\n"));
    for header in ["Via", "Route", "From", "To", "Call-ID"] {
        assert_eq!(cancel.header(header), invite.header(header), "{header}");
    }
    assert_eq!(cancel.header("CSeq"), ["3 CANCEL"]);
    assert_eq!(cancel.destination, invite.destination);
    assert_eq!(side.endpoint.cancel(side.now(), tx), CancelOutcome::Sent);

    side.receive(source(Tls), &reply(&cancel, 200, "peer"));
    side.receive(source(Tls), &reply(&invite, 487, "peer"));
    assert_eq!(side.client_log(), "180@3000 487@3000");
    assert_eq!(side.log(), "ACK@3000");
    assert_eq!(side.endpoint.cancel(side.now(), tx), CancelOutcome::TooLate);
    assert_eq!(side.endpoint.client_transactions(), 0);
}

#[test]
fn a_cancel_over_udp_is_repeated_by_itself() {
    let mut side = Side::new();
    let tx = side.send(outgoing("INVITE", Udp));
    let invite = side.sent[0].clone();
    side.receive(source(Udp), &reply(&invite, 100, "peer"));
    assert_eq!(side.endpoint.cancel(side.now(), tx), CancelOutcome::Sent);
    side.drain();
    side.run_to(1000);
    let cancel = side.sent[1].clone();
    side.receive(source(Udp), &reply(&cancel, 200, "peer"));
    side.run_to(20_000);
    assert_eq!(side.log(), "INVITE@0 CANCEL@0 CANCEL@500");
    side.run_to(100_000);
    assert_eq!(side.client_log(), "100@0 timeout(true)@32000", "a peer that never ends the INVITE is given up");
    assert_eq!(side.endpoint.client_transactions(), 0);
}

#[test]
fn a_2xx_may_be_quicker_than_the_cancel() {
    let mut side = Side::new();
    let tx = side.send(outgoing("INVITE", Tls));
    let invite = side.sent[0].clone();
    side.endpoint.cancel(side.now(), tx);
    side.receive(source(Tls), &reply(&invite, 200, "peer"));
    assert_eq!(side.client_log(), "200@0");
    assert_eq!(side.log(), "INVITE@0");
}

#[test]
fn an_invite_that_only_rings_ends_after_three_minutes() {
    let mut side = Side::new();
    side.send(outgoing("INVITE", Tls));
    let invite = side.sent[0].clone();
    side.run_to(20_000);
    side.receive(source(Tls), &reply(&invite, 180, "peer"));
    side.run_to(300_000);
    assert_eq!(side.client_log(), "180@20000 timeout(true)@200000");
}

// I-25
#[test]
fn a_cancelled_invite_gets_487_and_its_cancel_200() {
    for early in [false, true] {
        let mut side = Side::new();
        side.receive(udp(), &request("INVITE", "z9hG4bKa"));
        let (tx, invite) = side.request();
        if early {
            side.respond(tx, &invite, 180);
        }
        side.take_sent();
        side.receive(udp(), &request("CANCEL", "z9hG4bKa"));
        let sent = side.take_sent();
        assert_eq!(sent.iter().map(crate::side::Sent::what).collect::<Vec<_>>(), ["200", "487"]);
        assert_eq!(sent[0].header("CSeq"), ["5 CANCEL"]);
        assert_eq!(sent[1].header("CSeq"), ["5 INVITE"]);
        assert_eq!(sent[0].header("To"), sent[1].header("To"));
        if early {
            assert_eq!(sent[1].header("To"), ["<sip:lee@corp.example>;tag=our-tag"], "the tag of the early dialog");
        }
        let [(0, Event::Cancelled { tx: cancelled })] = side.events[..] else {
            panic!("{:?}", side.events);
        };
        assert_eq!(cancelled, tx);
        // its own side comes too late
        let late = side.endpoint.respond(side.now(), tx, answer(&invite, 200));
        assert_eq!(late, Err(RespondError::Answered));
        side.receive(udp(), &request("CANCEL", "z9hG4bKa"));
        side.run_to(600);
        assert_eq!(side.log(), "200@0 487@500");
        assert_eq!(side.events.len(), 1);
    }
}

// I-25
#[test]
fn a_cancel_after_the_final_answer_has_no_effect() {
    let mut side = Side::new();
    side.receive(tls(), &request("INVITE", "z9hG4bKa"));
    let (tx, invite) = side.request();
    side.respond(tx, &invite, 200);
    side.receive(tls(), &request("CANCEL", "z9hG4bKa"));
    assert_eq!(side.log(), "200@0 200@0");
    assert!(side.events.is_empty());
}

// I-25
#[test]
fn a_cancel_of_nothing_gets_481() {
    let mut side = Side::new();
    side.receive(udp(), &request("INVITE", "z9hG4bKa"));
    side.request();
    side.receive(udp(), &request("CANCEL", "z9hG4bKb"));
    assert_eq!(side.log(), "481@0");
    assert!(side.events.is_empty());
}

// S-40
#[test]
fn a_cancel_of_subscribe_or_notify_is_answered_and_does_nothing() {
    for method in ["SUBSCRIBE", "NOTIFY", "MESSAGE"] {
        let mut side = Side::new();
        side.receive(udp(), &request(method, "z9hG4bKa"));
        let (tx, message) = side.request();
        side.receive(udp(), &request("CANCEL", "z9hG4bKa"));
        assert_eq!(side.log(), "200@0");
        assert!(side.events.is_empty());
        side.respond(tx, &message, 200);
        let sent = side.take_sent().pop().unwrap();
        assert_eq!(sent.header("CSeq"), [format!("5 {method}")]);
    }
}
