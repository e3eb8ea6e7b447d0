use super::*;

#[test]
fn a_message_is_delivered_when_the_ping_after_it_is_answered() {
    let mut lab = Lab::ready();
    lab.message(1).unwrap();
    lab.drain_outputs();
    let (id, before) = lab.ping();
    assert!(before.starts_with("<message ") && before.ends_with("</message>"), "the ping follows: {before}");
    assert_eq!(lab.events(), []);
    lab.pong(&id);
    assert_eq!(lab.events(), [delivered(1)]);
    assert_eq!((lab.link.outstanding(), lab.sent().as_str()), (0, ""));
}

#[test]
fn an_error_to_the_ping_is_as_good_as_a_result() {
    let mut lab = Lab::ready();
    lab.message(1).unwrap();
    lab.drain_outputs();
    let (id, _) = lab.ping();
    lab.receive(format!(
        "<iq type='error' id='{id}' from='corp.example' to='partner.example'><error type='cancel'>\
         <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
    ));
    assert_eq!(lab.events(), [delivered(1)]);
}

#[test]
fn many_messages_share_one_ping_and_one_is_out_at_a_time() {
    let mut lab = Lab::ready();
    for number in 0..100 {
        lab.message(number).unwrap();
    }
    lab.drain_outputs();
    let (first, before) = lab.ping();
    assert_eq!(before.matches("<message ").count(), 100);
    for number in 100..200 {
        lab.message(number).unwrap();
        lab.drain_outputs();
    }
    assert!(!lab.sent().contains("<iq "), "the first is still out");
    lab.pong(&first);
    assert_eq!(lab.events(), (0..100).map(delivered).collect::<Vec<_>>());
    let (second, _) = lab.ping();
    assert_ne!(first, second);
    lab.pong(&first);
    assert_eq!(stanzas(&lab.events()).len(), 1, "an old answer is nothing to us");
    lab.pong(&second);
    assert_eq!(lab.events(), (100..200).map(delivered).collect::<Vec<_>>());
    assert_eq!(lab.sent(), "");
}

#[test]
fn a_bounced_message_is_not_delivered_and_the_others_are() {
    let mut lab = Lab::ready();
    for number in 1..=3 {
        lab.message(number).unwrap();
    }
    lab.drain_outputs();
    let (id, _) = lab.ping();
    lab.receive(
        "<message type='error' id='m2' to='ana@partner.example' from='juliet@corp.example'><error type='cancel'>\
         <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>",
    );
    let [Event::Delivery(BarrierToken(2), Delivery::Bounced(error))] = &lab.events()[..] else { panic!() };
    assert_eq!(error.condition, ErrorCondition::ServiceUnavailable);
    lab.pong(&id);
    assert_eq!(lab.events(), [delivered(1), delivered(3)]);
}

#[test]
fn an_error_that_comes_after_the_barrier_is_an_ordinary_stanza() {
    let mut lab = Lab::ready();
    lab.message(1).unwrap();
    lab.drain_outputs();
    let (id, _) = lab.ping();
    lab.pong(&id);
    lab.receive("<message type='error' id='m1' to='ana@partner.example' from='juliet@corp.example'/>");
    assert!(matches!(&lab.events()[..], [Event::Delivery(..), Event::Stanza(_)]));
}

#[test]
fn nobody_else_can_bounce_a_message_or_answer_a_ping() {
    let mut lab = Lab::ready();
    lab.message(1).unwrap();
    lab.drain_outputs();
    let (id, _) = lab.ping();
    for from in ["evil@corp.example", "juliet@evil.example", "juliet@corp.example.evil"] {
        lab.receive(format!("<message type='error' id='m1' to='ana@partner.example' from='{from}'/>"));
    }
    lab.receive("<message type='error' id='m1' to='other@partner.example' from='juliet@corp.example'/>");
    lab.receive("<message type='error' id='m2' to='ana@partner.example' from='juliet@corp.example'/>");
    lab.receive(format!("<iq type='result' id='{id}' from='evil@corp.example' to='partner.example'/>"));
    lab.receive(format!("<iq type='get' id='{id}' from='corp.example' to='partner.example'><q xmlns='urn:q'/></iq>"));
    assert_eq!(stanzas(&lab.events()).len(), 7);
    for from in ["Juliet@CORP.example", "juliet@corp.example", "corp.example"] {
        let mut lab = Lab::ready();
        lab.message(1).unwrap();
        lab.drain_outputs();
        lab.receive(format!("<message type='error' id='m1' to='ana@partner.example' from='{from}'/>"));
        assert!(matches!(&lab.events()[..], [Event::Delivery(BarrierToken(1), Delivery::Bounced(_))]), "{from}");
    }
}

#[test]
fn a_broken_link_leaves_every_open_message_unknown_exactly_once() {
    let mut lab = Lab::ready();
    lab.message(1).unwrap();
    lab.drain_outputs();
    lab.message(2).unwrap();
    lab.link.handle_closed(lab.now);
    lab.drain_outputs();
    let closed = Event::Closed {
        reason: CloseReason::ConnectionLost,
        retry_after: Some(RetryRange { min: Duration::from_millis(100), max: secs(1) }),
    };
    assert_eq!(lab.events(), [unknown(1), unknown(2), closed]);
    lab.link.handle_closed(lab.now);
    lab.receive("<x/>");
    assert_eq!(lab.events(), []);
}

#[test]
fn the_messages_whose_fate_is_open_are_bounded() {
    let mut lab = Lab::ready_with(|config| config.outstanding_max = 3);
    for number in 0..3 {
        lab.message(number).unwrap();
    }
    assert_eq!(lab.message(3), Err(SendError::TooManyOutstanding { limit: 3 }));
    lab.drain_outputs();
    let (id, _) = lab.ping();
    lab.pong(&id);
    lab.message(3).unwrap();
}

#[test]
fn a_ping_that_stays_unanswered_gives_its_messages_up_and_makes_room_for_another() {
    let mut lab = Lab::ready();
    lab.message(1).unwrap();
    lab.drain_outputs();
    let (first, _) = lab.ping();
    lab.message(2).unwrap();
    lab.drain_outputs();
    lab.sent();
    lab.pass(secs(29));
    assert_eq!(lab.events(), []);
    lab.pass(secs(1));
    assert_eq!(lab.events(), [unknown(1)]);
    let (second, _) = lab.ping();
    lab.pong(&second);
    assert_eq!(lab.events(), [delivered(2)]);
    lab.pong(&first);
    assert_eq!(stanzas(&lab.events()).len(), 1);
}

#[test]
fn with_a_settling_time_an_error_may_overtake_the_answer() {
    let mut lab = Lab::ready_with(|config| config.barrier_settle = Duration::from_millis(200));
    lab.message(1).unwrap();
    lab.message(2).unwrap();
    lab.drain_outputs();
    let (id, _) = lab.ping();
    lab.pong(&id);
    assert_eq!(lab.events(), []);
    lab.message(3).unwrap();
    lab.drain_outputs();
    let (second, _) = lab.ping();
    lab.pass(Duration::from_millis(100));
    lab.receive("<message type='error' id='m1' to='ana@partner.example' from='juliet@corp.example'/>");
    lab.pong(&second);
    assert_eq!(lab.events().len(), 1);
    lab.pass(Duration::from_millis(100));
    assert_eq!(lab.events(), [delivered(2)]);
    lab.pass(Duration::from_millis(100));
    assert_eq!(lab.events(), [delivered(3)]);
}

#[test]
fn a_message_without_an_id_cannot_have_a_barrier() {
    let mut lab = Lab::ready();
    let message = Message::new(MessageType::Chat, "ana@partner.example", "juliet@corp.example");
    assert_eq!(lab.link.send_with_barrier(lab.now, &message, BarrierToken(1)), Err(SendError::NoId));
    lab.drain_outputs();
    assert_eq!(lab.sent(), "");
}
