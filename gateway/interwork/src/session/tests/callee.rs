//! Sessions that the peer opens, and those that cross.

use super::*;

#[test]
fn an_invitation_is_answered_at_once_and_its_messages_become_stanzas() {
    // I-02, I-04, I-05, I-26
    let mut lab = lab(Dialect::Microsoft);
    let ok = lab.invited("Subject: museum\r\nSession-Expires: 1800\r\n", OFFER);
    assert_eq!(status(&ok), 200);
    assert_eq!(PairId::from_tag(ok.to().tag().unwrap()), Some(lab.session.id));
    assert_eq!(ok.header(HeaderName::RecordRoute), Some("<sip:edge.partner.example;transport=tls;lr>"));
    assert_eq!(ok.header(HeaderName::Contact), Some("<sip:lee@sip.corp.example:5061;transport=tls>"));
    assert!(ok.header(HeaderName::Allow).is_some() && ok.header(HeaderName::AllowEvents).is_some());
    assert_eq!(ok.header(HeaderName::SessionExpires), None);
    assert!(body(&ok).contains("m=message 5061 sip sip:lee@corp.example\r\n"), "{}", body(&ok));
    lab.quiet();
    lab.ack(&ok, "");
    let stanza =
        lab.receive(&ok, 2, "Content-Type: text/plain\r\nContent-Language: en\r\n", "this afternoon?").unwrap();
    assert_eq!(stanza.kind, MessageType::Chat);
    assert_eq!((stanza.from(), stanza.to()), (Some("ana@partner.example"), Some("lee@corp.example")));
    assert_eq!((stanza.id.as_deref(), stanza.thread.as_deref()), (Some("s1"), Some("call-in")));
    assert_eq!(stanza.body().map(|body| body.text.as_str()), Some("this afternoon?"));
    assert_eq!((stanza.subject().unwrap().text.as_str(), stanza.lang.as_deref()), ("museum", Some("en")));
    let next = lab.receive(&ok, 3, "Content-Type: text/plain\r\n", "or later").unwrap();
    assert_eq!(next.subject(), None);
    lab.quiet();
    lab.say("m1", "later");
    let message = lab.sent(Method::Message);
    assert_eq!(message.request_uri(), "sip:ana@inner.partner.example");
    assert_eq!(message.header(HeaderName::Route), Some("<sip:edge.partner.example;transport=tls;lr>"));
    assert_eq!((message.to().tag(), message.call_id()), (Some("w91"), "call-in"));
    assert_eq!(message.header(HeaderName::Contact), None);
    lab.quiet();
}

#[test]
fn requests_outside_of_every_dialog_are_refused() {
    let mut lab = lab(Dialect::Microsoft);
    let ok = lab.invited("", OFFER);
    lab.ack(&ok, "");
    let foreign = parse(&std::str::from_utf8(ok.as_bytes()).unwrap().replace("tag=w91", "tag=w92"));
    assert_eq!(status(&lab.receive(&foreign, 1, "", "hi").unwrap_err()), 481);
    assert_eq!(status(&lab.request(&foreign, "BYE", 1, "", "")), 481);
    assert!(lab.receive(&ok, 5, "", "hi").is_ok());
    assert_eq!(status(&lab.receive(&ok, 4, "", "late").unwrap_err()), 500);
    assert_eq!(status(&lab.receive(&ok, 6, "Content-Type: text/rtf\r\n", "x").unwrap_err()), 415);
    assert!(lab.session.is_up());
}

#[test]
fn other_requests_in_the_dialog_get_their_answers() {
    let mut lab = lab(Dialect::Microsoft);
    let invite = lab.up();
    let info = "Content-Type: application/dtmf\r\n";
    let cases = [("OPTIONS", 200), ("REFER", 405), ("UPDATE", 405), ("SUBSCRIBE", 403), ("NOTIFY", 481), ("FOO", 501)];
    for (at, (method, code)) in (1..).zip(cases) {
        assert_eq!(status(&lab.request(&invite, method, at, "", "")), code, "{method}");
    }
    let refused = lab.request(&invite, "INFO", 20, info, "1");
    assert_eq!((status(&refused), refused.header(HeaderName::Accept)), (415, Some("application/xml")));
    let refused = lab.request(&invite, "OPTIONS", 21, "Require: timer\r\n", "");
    assert_eq!((status(&refused), refused.header(HeaderName::Unsupported)), (420, Some("timer")));
    assert!(lab.session.is_up());
    lab.quiet();
}

#[test]
fn an_invitation_that_crosses_ours_is_taken_and_nothing_is_lost() {
    // I-14, I-24
    let mut lab = lab(Dialect::Microsoft);
    lab.say("m1", "one");
    let ours = lab.sent(Method::Invite);
    let ok = lab.invited("", OFFER);
    assert_eq!(status(&ok), 200);
    // No CANCEL before a provisional answer, no message before the ACK.
    lab.quiet();
    lab.answer(&ours, 180, "", "");
    assert!(matches!(lab.outputs.pop_front(), Some(Output::CancelInvite { .. })));
    lab.answer(&ours, 183, "", "");
    lab.quiet();
    lab.ack(&ok, "");
    let message = lab.sent(Method::Message);
    assert_eq!((body(&message).as_str(), message.call_id()), ("one", "call-in"));
    lab.quiet();
    // Ours is accepted all the same.
    lab.accept(&ours);
    let bye = lab.sent(Method::Bye);
    assert_eq!(bye.call_id(), ours.call_id());
    lab.quiet();
    lab.answer(&message, 200, "", "");
    lab.answer(&bye, 200, "", "");
    lab.quiet();
    lab.say("m2", "two");
    assert_eq!(lab.sent(Method::Message).call_id(), "call-in");
    // Or it is not, which hurts nobody.
    let mut lab = self::lab(Dialect::Microsoft);
    lab.say("m1", "one");
    let ours = lab.sent(Method::Invite);
    let ok = lab.invited("", OFFER);
    lab.answer(&ours, 487, "", "");
    lab.quiet();
    lab.ack(&ok, "");
    assert_eq!(body(&lab.sent(Method::Message)), "one");
    lab.quiet();
}

#[test]
fn a_crossing_session_that_never_comes_up_gives_the_messages_back() {
    // I-14
    let mut lab = lab(Dialect::Microsoft);
    lab.say("m1", "one");
    let ours = lab.sent(Method::Invite);
    let ok = lab.invited("", OFFER);
    lab.answer(&ours, 487, "", "");
    let tag = ok.to().tag().unwrap().to_owned();
    lab.act(|session, ctx| session.handle_never_acknowledged(ctx, "call-in", &tag));
    assert_eq!(lab.sent(Method::Bye).call_id(), "call-in");
    let again = lab.sent(Method::Invite);
    lab.accept(&again);
    assert_eq!(body(&lab.sent(Method::Message)), "one");
    lab.quiet();
}

#[test]
fn the_newest_dialog_of_the_peer_is_the_one_to_send_in() {
    let mut lab = lab(Dialect::Microsoft);
    let old = lab.up();
    let ok = lab.invited("", OFFER);
    lab.say("m1", "where?");
    lab.quiet();
    lab.ack(&ok, "");
    let message = lab.sent(Method::Message);
    assert_eq!(message.call_id(), "call-in");
    assert!(lab.receive(&old, 1, "", "still heard").is_ok());
    lab.answer(&message, 200, "", "");
    lab.wait(600);
    lab.sent(Method::Bye);
    lab.sent(Method::Bye);
    lab.quiet();
}

#[test]
fn the_number_of_dialogs_is_bounded() {
    let mut lab = lab(Dialect::Microsoft);
    lab.config.max_dialogs = 2;
    let headers = "Content-Type: application/sdp\r\n";
    let first = lab.invite_with("c1", "", 1, headers, OFFER);
    lab.invite_with("c2", "", 1, headers, OFFER);
    let refused = lab.invite_with("c3", "", 1, headers, OFFER);
    assert_eq!((status(&refused), refused.header(HeaderName::RetryAfter)), (503, Some("30")));
    lab.ack(&first, "");
    assert_eq!(status(&lab.invite_with("c4", "", 1, headers, OFFER)), 200);
    assert_eq!(lab.sent(Method::Bye).call_id(), "c1");
    lab.quiet();
}

#[test]
fn the_answer_has_the_name_of_the_media_that_was_offered() {
    // I-15
    let mut lab = lab(Dialect::Microsoft);
    let offer = OFFER.replace("m=message", "m=audio 4000 RTP/AVP 0\r\nm=x-ms-message");
    let ok = lab.invited("", &offer);
    assert_eq!(status(&ok), 200);
    let answer = body(&ok);
    let lines: Vec<&str> = answer.lines().filter(|line| line.starts_with("m=")).collect();
    assert_eq!(lines, ["m=audio 0 RTP/AVP 0", "m=x-ms-message 5061 sip sip:lee@corp.example"]);
}

#[test]
fn offers_that_are_not_for_us_are_refused_with_the_reason() {
    // I-16
    let media = |lines: &str| format!("v=0\r\ns=x\r\nt=0 0\r\n{lines}");
    for (offer, code) in [
        (media("m=message 9 TCP/MSRP *\r\na=accept-types:text/plain\r\n"), 302),
        (media("m=audio 4000 RTP/AVP 0\r\n"), 304),
        (media("m=message 5060 sip null\r\na=accept-types:image/png\r\n"), 305),
    ] {
        let mut lab = lab(Dialect::Microsoft);
        let refused = lab.invited("", &offer);
        assert_eq!((status(&refused), warning(&refused)), (488, code));
        assert!(lab.session.is_idle());
    }
    let mut lab = lab(Dialect::Microsoft);
    assert_eq!(status(&lab.invited("", "m=message 5060 sip null\r\n")), 400);
    let refused = lab.invite_with("c", "", 1, "Content-Type: text/plain\r\n", "hi");
    assert_eq!((status(&refused), refused.header(HeaderName::Accept)), (415, Some("application/sdp")));
    assert!(lab.session.is_idle());
    lab.quiet();
}

#[test]
fn the_description_is_found_among_several_parts() {
    let mut lab = lab(Dialect::Microsoft);
    let several = format!(
        "--b1\r\nContent-Type: text/plain\r\n\r\nhi\r\n--b1\r\nContent-Type: application/sdp\r\n\r\n{OFFER}\r\n--b1--\r\n"
    );
    let ok = lab.invite_with("c", "", 1, "Content-Type: multipart/alternative;boundary=b1\r\n", &several);
    assert_eq!(status(&ok), 200);
    assert!(body(&ok).contains("m=message 5061 sip "));
    let refused = lab.invite_with("d", "", 1, "Content-Type: multipart/mixed;boundary=b2\r\n", &several);
    assert_eq!(status(&refused), 415);
}

#[test]
fn a_text_in_the_invitation_is_not_taken() {
    // I-17
    let mut lab = lab(Dialect::Microsoft);
    let headers = "Supported: ms-text-format\r\nms-text-format: text/plain; charset=UTF-8;ms-body=aGVsbG8=\r\n";
    let ok = lab.invited(headers, OFFER);
    assert_eq!((status(&ok), ok.header(HeaderName::Supported)), (200, None));
    lab.ack(&ok, "");
    lab.quiet();
    let refused = lab.invite_with("c", "", 1, "Require: ms-text-format, timer\r\n", "");
    let unsupported: Vec<&str> = refused.headers(HeaderName::Unsupported).collect();
    assert_eq!((status(&refused), unsupported), (420, vec!["ms-text-format", "timer"]));
}

#[test]
fn invitations_of_groups_are_refused() {
    // I-18
    let sdp = "Content-Type: application/sdp\r\n";
    let three = "EndPoints: \"B, A\" <sip:a@x.example>, <sip:b@x.example>, <sip:c@x.example>\r\n";
    for headers in [
        format!("{three}{sdp}"),
        format!("TriggeredInvite: TRUE\r\n{sdp}"),
        "Content-Type: application/ms-conf-invite+xml\r\n".to_owned(),
    ] {
        let mut lab = lab(Dialect::Microsoft);
        let refused = lab.invite_with("c", "", 1, &headers, OFFER);
        assert_eq!((status(&refused), warning(&refused)), (488, 399), "{headers}");
        assert!(lab.session.is_idle());
    }
    let mut lab = lab(Dialect::Microsoft);
    let refused = lab.invited("Require: com.microsoft.rtc-multiparty\r\n", OFFER);
    assert_eq!(
        (status(&refused), refused.header(HeaderName::Unsupported)),
        (420, Some("com.microsoft.rtc-multiparty"))
    );
    let two = "EndPoints: \"B, A\" <sip:a@x.example>, <sip:lee@corp.example>\r\n";
    assert_eq!(status(&lab.invited(two, OFFER)), 200);
}

#[test]
fn an_invitation_without_offer_gets_ours_and_needs_an_answer() {
    // I-20
    let mut lab = lab(Dialect::Microsoft);
    let ok = lab.invite_with("c1", "", 1, "", "");
    assert_eq!(status(&ok), 200);
    assert!(body(&ok).contains("m=message 5061 sip null\r\n"), "{}", body(&ok));
    lab.ack(&ok, &OFFER.replace("null", "sip:ana@partner.example"));
    lab.quiet();
    assert!(lab.session.is_up());
    for answer in ["", "v=0\r\nm=message 0 sip null\r\n"] {
        let ok = lab.invite_with("c2", "", 1, "", "");
        lab.ack(&ok, answer);
        let bye = lab.sent(Method::Bye);
        assert_eq!(bye.call_id(), "c2");
        lab.answer(&bye, 200, "", "");
        lab.quiet();
    }
}

#[test]
fn a_reinvite_keeps_changes_or_ends_the_session() {
    // I-21
    let mut lab = lab(Dialect::Microsoft);
    let ok = lab.invited("", OFFER);
    lab.ack(&ok, "");
    let tag = format!(";tag={}", ok.to().tag().unwrap());
    let sdp = "Content-Type: application/sdp\r\n";
    let kept = lab.invite_with("call-in", &tag, 2, sdp, OFFER);
    assert_eq!((status(&kept), body(&kept)), (200, body(&ok)));
    assert_eq!(kept.to().tag(), ok.to().tag());
    lab.ack(&kept, "");
    lab.quiet();
    let refused = lab.invite_with("call-in", &tag, 3, sdp, "v=0\r\nm=audio 4000 RTP/AVP 0\r\n");
    assert_eq!((status(&refused), warning(&refused)), (488, 304));
    assert!(lab.receive(&ok, 4, "", "still here").is_ok());
    lab.say("m1", "so am I");
    let message = lab.sent(Method::Message);
    lab.answer(&message, 200, "", "");
    let removed = lab.invite_with("call-in", &tag, 5, sdp, &OFFER.replace("5060", "0"));
    assert_eq!(status(&removed), 200);
    assert!(body(&removed).contains("m=message 0 sip null\r\n"), "{}", body(&removed));
    lab.quiet();
    lab.ack(&removed, "");
    lab.sent(Method::Bye);
    lab.quiet();
    assert_eq!(status(&lab.invite_with("call-in", ";tag=none", 6, sdp, OFFER)), 481);
}

#[test]
fn a_late_ack_of_an_earlier_invite_says_nothing_about_the_last_one() {
    let mut lab = lab(Dialect::Microsoft);
    let ok = lab.invited("", OFFER);
    lab.ack(&ok, "");
    let tag = format!(";tag={}", ok.to().tag().unwrap());
    // Without an offer: its ACK has to bring the answer to ours.
    let again = lab.invite_with("call-in", &tag, 2, "", "");
    lab.ack(&ok, "");
    lab.quiet();
    lab.ack(&again, OFFER);
    lab.quiet();
    assert!(lab.session.is_up());
}

#[test]
fn a_reinvite_in_a_dialog_that_we_are_opening_has_to_wait() {
    // I-22
    let mut lab = lab(Dialect::Microsoft);
    lab.say_in("m1", "one", Some("thread-0001"));
    let invite = lab.sent(Method::Invite);
    let tag = format!(";tag={}", invite.from_().tag().unwrap());
    let refused = lab.invite_with("thread-0001", &tag, 1, "Content-Type: application/sdp\r\n", OFFER);
    assert_eq!(status(&refused), 491);
    lab.accept(&invite);
    assert_eq!(body(&lab.sent(Method::Message)), "one");
    lab.quiet();
}

#[test]
fn a_session_that_nobody_acknowledges_is_ended() {
    let mut lab = lab(Dialect::Microsoft);
    let ok = lab.invited("", OFFER);
    let tag = ok.to().tag().unwrap().to_owned();
    lab.act(|session, ctx| session.handle_never_acknowledged(ctx, "call-other", &tag));
    lab.quiet();
    lab.act(|session, ctx| session.handle_never_acknowledged(ctx, "call-in", &tag));
    assert_eq!(lab.sent(Method::Bye).call_id(), "call-in");
    // The process that waited for the ACK may be gone.
    let mut lab = self::lab(Dialect::Microsoft);
    lab.invited("", OFFER);
    lab.wait(39);
    lab.quiet();
    lab.wait(1);
    assert_eq!(lab.sent(Method::Bye).call_id(), "call-in");
    lab.quiet();
}

#[test]
fn a_request_in_a_session_stands_for_its_lost_ack() {
    let mut lab = lab(Dialect::Microsoft);
    let ok = lab.invited("", OFFER);
    lab.say("m1", "waits");
    lab.quiet();
    lab.receive(&ok, 2, "Content-Type: text/plain\r\n", "hello?").unwrap();
    assert_eq!(body(&lab.sent(Method::Message)), "waits");
    // One that carries the peer's description is not dispensable.
    let mut lab = self::lab(Dialect::Microsoft);
    let ok = lab.invited("", "");
    lab.say("m1", "waits");
    lab.receive(&ok, 2, "Content-Type: text/plain\r\n", "hello?").unwrap();
    lab.quiet();
    lab.ack(&ok, OFFER);
    assert_eq!(body(&lab.sent(Method::Message)), "waits");
}
