use super::*;

#[test]
fn a_space_is_sent_after_a_minute_without_sending() {
    let mut lab = Lab::ready();
    lab.pass(secs(59));
    assert_eq!(lab.sent(), "");
    lab.pass(secs(1));
    assert_eq!(lab.sent(), " ");
    lab.pass(secs(30));
    lab.send(Presence::new(PresenceType::Probe, "ana@partner.example", "juliet@corp.example")).unwrap();
    lab.sent();
    lab.pass(secs(59));
    assert_eq!(lab.sent(), "");
}

#[test]
fn five_minutes_of_silence_lead_to_a_ping_and_thirty_seconds_more_to_the_end() {
    let mut lab = Lab::ready();
    lab.pass(secs(299));
    assert_eq!(lab.sent().trim(), "");
    lab.pass(secs(1));
    lab.sent = lab.sent.trim_start().to_owned();
    lab.ping();
    lab.pass(secs(29));
    assert!(!lab.disconnected);
    lab.pass(secs(1));
    let (reason, retry) = lab.closed();
    assert_eq!((reason, range(retry)), (CloseReason::Silent, (0, 1)));
    assert!(lab.sent().contains("<connection-timeout "));
}

#[test]
fn any_answer_and_any_byte_prove_that_the_server_is_there() {
    for error in [false, true] {
        let mut lab = Lab::ready();
        lab.pass(secs(300));
        lab.sent = lab.sent.trim_start().to_owned();
        let (id, _) = lab.ping();
        lab.pass(secs(10));
        if error {
            lab.receive(format!("<iq type='error' id='{id}' from='corp.example' to='partner.example'/>"));
        } else {
            lab.receive(" ");
            lab.pass(secs(60));
            lab.pong(&id);
        }
        assert_eq!(lab.events(), []);
        lab.pass(secs(200));
        assert!(lab.link.is_ready());
    }
}

#[test]
fn an_idle_link_whose_server_answers_stays_for_hours() {
    //
    let mut lab = Lab::ready();
    for _ in 0..3600 * 3 {
        lab.pass(secs(1));
        if lab.sent().contains("<iq ") {
            lab.receive(" ");
        }
    }
    assert_eq!(lab.events(), []);
    lab.message(1).unwrap();
    lab.drain_outputs();
    let (id, _) = lab.ping();
    lab.pong(&id);
    assert_eq!(lab.events(), [delivered(1)]);
}

#[test]
fn an_element_that_does_not_end_is_not_waited_for() {
    let mut lab = Lab::new();
    lab.receive(HEADER);
    lab.receive("<handsha");
    lab.pass(secs(10));
    assert_eq!(lab.closed().0, CloseReason::NegotiationTimeout);
    let mut lab = Lab::ready();
    lab.receive("<message><body>");
    for _ in 0..59 {
        lab.pass(secs(1));
        lab.receive("x");
    }
    assert!(lab.link.is_ready());
    lab.pass(secs(1));
    assert_eq!(lab.closed().0, CloseReason::ElementTimeout);
}

#[test]
fn slow_elements_one_after_the_other_are_no_slow_element() {
    let mut lab = Lab::ready();
    for _ in 0..10 {
        lab.receive("<wild/><wi");
        lab.pass(secs(40));
        lab.receive("ld/>");
    }
    assert!(lab.link.is_ready());
}

#[test]
fn the_servers_footer_is_answered_and_what_waits_goes_out_first() {
    let mut lab = Lab::ready();
    lab.message(1).unwrap();
    lab.link.handle_bytes(lab.now, b"</stream:stream>");
    lab.drain_outputs();
    let sent = lab.sent();
    assert!(sent.starts_with("<message ") && sent.ends_with("</stream:stream>"), "{sent}");
    let events = lab.events();
    assert_eq!(events[0], unknown(1));
    assert!(matches!(&events[1], Event::Closed { reason: CloseReason::PeerClosed, .. }));
}

#[test]
fn a_close_of_ours_waits_for_the_servers_footer_and_not_for_ever() {
    let mut lab = Lab::ready();
    lab.link.close(lab.now);
    lab.drain_outputs();
    lab.receive("<message from='juliet@corp.example' to='ana@partner.example'><body>late</body></message>");
    assert_eq!(stanzas(&lab.events()).len(), 1, "what was on its way is not lost");
    lab.receive("</stream:stream>");
    assert_eq!(lab.sent(), "</stream:stream>");
    assert_eq!(lab.closed(), (CloseReason::Requested, None));

    let mut lab = Lab::ready();
    lab.link.close(lab.now);
    lab.drain_outputs();
    lab.pass(Duration::from_millis(4999));
    assert!(!lab.disconnected);
    lab.pass(Duration::from_millis(1));
    assert_eq!(lab.closed(), (CloseReason::Requested, None));
}

#[test]
fn a_drain_takes_no_more_and_ends_when_every_fate_is_known() {
    let mut lab = Lab::ready();
    lab.message(1).unwrap();
    lab.link.drain(lab.now);
    lab.drain_outputs();
    let (id, _) = lab.ping();
    assert_eq!(lab.message(2), Err(SendError::NotReady));
    lab.pong(&id);
    assert_eq!(lab.events(), [delivered(1)]);
    assert_eq!(lab.sent(), "</stream:stream>");
    lab.receive("</stream:stream>");
    assert_eq!(lab.closed().0, CloseReason::Requested);

    let mut lab = Lab::ready();
    lab.message(1).unwrap();
    lab.link.drain(lab.now);
    lab.drain_outputs();
    lab.pass(secs(10));
    assert_eq!(lab.events()[0], unknown(1));
    assert!(lab.disconnected);
}

#[test]
fn an_idle_or_unready_link_drains_at_once() {
    let mut lab = Lab::ready();
    lab.link.drain(lab.now);
    lab.drain_outputs();
    assert_eq!(lab.sent(), "</stream:stream>");
    let mut lab = Lab::new();
    lab.link.drain(lab.now);
    lab.link.handle_closed(lab.now);
    lab.drain_outputs();
    assert_eq!(lab.closed(), (CloseReason::Requested, None));
}

#[test]
fn hostile_input_ends_the_link_with_the_right_error() {
    let cases: [(String, &str); 6] = [
        ("<a>".repeat(35_000), "policy-violation"),
        (format!("<a>{}", "x".repeat(600_000)), "policy-violation"),
        (format!("<a {}/>", "b='' ".repeat(2)), "not-well-formed"),
        ("<!DOCTYPE a [<!ENTITY x 'y'>]>".into(), "restricted-xml"),
        ("<a></b>".into(), "not-well-formed"),
        ("junk".into(), "bad-format"),
    ];
    for (text, condition) in cases {
        let mut lab = Lab::ready();
        lab.message(1).unwrap();
        lab.receive(&text);
        let sent = lab.sent();
        assert!(sent.contains(&format!("<stream:error><{condition} ")) && sent.ends_with("</stream:stream>"), "{sent}");
        assert_eq!(lab.events()[0], unknown(1));
        lab.receive(&text);
        assert_eq!((lab.sent().as_str(), lab.events().len()), ("", 0));
    }
    let mut lab = Lab::new();
    lab.receive("HTTP/1.1 400 Bad Request\r\n\r\n");
    let (reason, retry) = lab.closed();
    assert!(matches!(reason, CloseReason::Undecodable(StreamDecodeError::NotWellFormed(_))));
    assert_eq!(range(retry), (0, 1));
}
