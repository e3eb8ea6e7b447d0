//! Sessions that we open.

use super::*;

#[test]
fn the_first_message_opens_a_session_and_goes_into_it() {
    // I-01, I-02, I-06, I-26
    let mut lab = lab(Dialect::Microsoft);
    lab.say("m1", "Lunch at a museum");
    let invite = lab.sent(Method::Invite);
    lab.quiet();
    assert_eq!(invite.request_uri(), "sip:ana@partner.example");
    assert_eq!(PairId::from_tag(invite.from_().tag().unwrap()), Some(lab.session.id));
    assert_eq!(invite.header(HeaderName::Contact), Some("<sip:lee@sip.corp.example:5061;transport=tls>"));
    assert_eq!(invite.header(HeaderName::Allow), Some("INVITE"));
    assert_eq!(invite.headers_named("Ms-Conversation-ID").count(), 1);
    assert!(body(&invite).contains("m=message 5061 sip null\r\na=accept-types:text/plain "), "{}", body(&invite));
    assert!(body(&invite).contains("c=IN IP4 192.0.2.10\r\n"));
    lab.answer(&invite, 180, "", "");
    lab.quiet();
    lab.accept(&invite);
    let message = lab.sent(Method::Message);
    assert_eq!(message.request_uri(), "sip:ana@edge.partner.example");
    assert_eq!((body(&message).as_str(), message.cseq().number), ("Lunch at a museum", 2));
    assert_eq!(message.header(HeaderName::ContentType), Some("text/plain;charset=utf-8"));
    assert_eq!(message.header(HeaderName::Contact), None);
    lab.answer(&message, 200, "", "");
    lab.quiet();
    let stanza = lab.receive(&message, 7, "Content-Type: text/plain\r\n", "which one?").unwrap();
    assert_eq!(stanza.to(), Some("lee@corp.example/desk"));
    lab.say("m2", "the old one");
    let second = lab.sent(Method::Message);
    assert_eq!((second.call_id(), second.cseq().number), (invite.call_id(), 3));
    lab.quiet();
}

#[test]
fn conversation_ids_are_fresh_and_for_the_microsoft_dialect() {
    let mut ids = Vec::new();
    let mut lab_ms = lab(Dialect::Microsoft);
    for id in ["m1", "m2"] {
        lab_ms.say(id, "x");
        let invite = lab_ms.sent(Method::Invite);
        ids.extend(invite.headers_named("Ms-Conversation-ID").map(str::to_owned));
        lab_ms.answer(&invite, 486, "", "");
        lab_ms.told();
    }
    assert!(ids.len() == 2 && ids.first() != ids.last(), "{ids:?}");
    let mut standard = lab(Dialect::Standard);
    standard.say("m1", "x");
    assert_eq!(standard.sent(Method::Invite).headers_named("Ms-Conversation-ID").count(), 0);
}

#[test]
fn what_waits_is_sent_in_order_one_after_the_other() {
    // I-03, I-07
    let mut lab = lab(Dialect::Microsoft);
    for id in ["m1", "m2", "m3"] {
        lab.say(id, id);
    }
    let invite = lab.sent(Method::Invite);
    lab.quiet();
    lab.accept(&invite);
    for id in ["m1", "m2", "m3"] {
        let message = lab.sent(Method::Message);
        assert_eq!(body(&message), id);
        lab.quiet();
        lab.answer(&message, 200, "", "");
    }
    lab.quiet();
}

#[test]
fn the_queue_is_bounded_in_messages_and_bytes() {
    let mut lab = lab(Dialect::Microsoft);
    for _ in 0..20 {
        lab.say("fits", "x");
    }
    lab.sent(Method::Invite);
    lab.quiet();
    lab.say("m21", "x");
    lab.failed("m21", ErrorCondition::ResourceConstraint, "too many messages are waiting");
    let mut lab = self::lab(Dialect::Microsoft);
    lab.say("large", &"x".repeat(60 * 1024));
    lab.sent(Method::Invite);
    lab.say("small", &"x".repeat(5 * 1024));
    lab.failed("small", ErrorCondition::ResourceConstraint, "too many messages are waiting");
    lab.quiet();
}

#[test]
fn ten_minutes_without_traffic_end_the_session() {
    // I-08
    let mut lab = lab(Dialect::Microsoft);
    let invite = lab.up();
    lab.wait(599);
    lab.quiet();
    assert!(lab.receive(&invite, 1, "", "still here").is_ok());
    lab.wait(599);
    lab.quiet();
    lab.wait(1);
    let bye = lab.sent(Method::Bye);
    assert_eq!((bye.call_id(), bye.cseq().number), (invite.call_id(), 3));
    lab.answer(&bye, 200, "", "");
    lab.quiet();
    assert!(lab.session.is_idle());
}

#[test]
fn gone_ends_the_session_behind_what_still_waits() {
    // I-09
    let mut lab = lab(Dialect::Microsoft);
    lab.up();
    lab.state(ChatState::Gone);
    lab.sent(Method::Bye);
    lab.quiet();
    let mut lab = self::lab(Dialect::Microsoft);
    lab.up();
    lab.say("m1", "bye then");
    let message = lab.sent(Method::Message);
    lab.state(ChatState::Gone);
    lab.quiet();
    lab.answer(&message, 200, "", "");
    lab.sent(Method::Bye);
    lab.quiet();
}

#[test]
fn a_chat_state_alone_opens_no_session() {
    let mut lab = lab(Dialect::Microsoft);
    for state in [ChatState::Composing, ChatState::Active, ChatState::Gone] {
        lab.state(state);
    }
    lab.quiet();
    assert!(lab.session.is_idle());
}

#[test]
fn bye_of_the_peer_is_gone_for_clients_with_chat_states_and_ends_the_session() {
    // I-09, I-10
    let mut lab = lab(Dialect::Microsoft);
    let invite = lab.up();
    assert_eq!(status(&lab.request(&invite, "BYE", 1, "", "")), 200);
    lab.quiet();
    assert!(lab.session.is_idle());
    assert_eq!(status(&lab.receive(&invite, 2, "", "late").unwrap_err()), 481);
    lab.say("m1", "once more");
    let second = lab.sent(Method::Invite);
    assert_ne!((second.call_id(), second.from_().tag()), (invite.call_id(), invite.from_().tag()));
    lab.accept(&second);
    let message = lab.sent(Method::Message);
    assert_eq!(body(&message), "once more");
    lab.answer(&message, 200, "", "");
    lab.state(ChatState::Active);
    assert_eq!(status(&lab.request(&second, "BYE", 1, "", "")), 200);
    let gone = lab.told();
    assert_eq!((gone.chat_state, gone.to()), (Some(ChatState::Gone), Some("lee@corp.example/desk")));
    lab.quiet();
}

#[test]
fn bye_between_messages_moves_the_rest_to_a_new_session() {
    // I-10
    let mut lab = lab(Dialect::Microsoft);
    let invite = lab.up();
    lab.say("m1", "first");
    lab.say("m2", "second");
    let first = lab.sent(Method::Message);
    assert_eq!(status(&lab.request(&invite, "BYE", 1, "", "")), 200);
    // The first has an answer yet to come; nothing overtakes it.
    lab.quiet();
    lab.answer(&first, 200, "", "");
    let next = lab.sent(Method::Invite);
    lab.accept(&next);
    assert_eq!(body(&lab.sent(Method::Message)), "second");
    lab.quiet();
}

#[test]
fn a_lost_dialog_costs_one_new_session_and_one_repetition() {
    // I-11
    let mut lab = lab(Dialect::Microsoft);
    let invite = lab.up();
    lab.say("m1", "are you there");
    let message = lab.sent(Method::Message);
    lab.answer(&message, 481, "", "");
    let second = lab.sent(Method::Invite);
    lab.quiet();
    assert_ne!(second.from_().tag(), invite.from_().tag());
    lab.accept(&second);
    let again = lab.sent(Method::Message);
    assert_eq!((body(&again).as_str(), again.call_id()), ("are you there", second.call_id()));
    lab.answer(&again, 481, "", "");
    lab.failed("m1", ErrorCondition::ItemNotFound, "Reason 481");
    lab.quiet();
    assert!(lab.session.is_idle());
}

#[test]
fn silence_after_a_message_is_an_error_and_no_repetition() {
    // I-12
    for code in [None, Some(408)] {
        let mut lab = lab(Dialect::Microsoft);
        lab.up();
        lab.say("m1", "hello?");
        let message = lab.sent(Method::Message);
        match code {
            None => {
                lab.no_answer(&message);
                lab.failed("m1", ErrorCondition::RemoteServerTimeout, "SIP server did not answer");
            }
            Some(code) => {
                lab.answer(&message, code, "", "");
                lab.failed("m1", ErrorCondition::RemoteServerTimeout, "Reason 408");
            }
        }
        let bye = lab.sent(Method::Bye);
        lab.no_answer(&bye);
        lab.quiet();
        assert!(lab.session.is_idle());
    }
}

#[test]
fn the_next_process_returns_what_its_predecessor_had_sent_and_goes_on_in_the_dialog() {
    let mut lab = lab(Dialect::Standard);
    lab.up();
    lab.say("m1", "no answer is heard");
    let first = lab.sent(Method::Message);
    lab.say("m2", "waits");
    lab.quiet();
    lab.wait(1);
    // What was sent afterwards is the successor's own.
    lab.act(|session, ctx| {
        let before = ctx.now.epoch.minus(Duration::from_secs(2));
        session.handle_sender_gone(ctx, before);
        session.handle_timeout(ctx);
    });
    lab.quiet();
    lab.act(|session, ctx| {
        session.handle_sender_gone(ctx, ctx.now.epoch);
        session.handle_timeout(ctx);
    });
    lab.failed("m1", ErrorCondition::RemoteServerTimeout, "SIP server did not answer");
    let second = lab.sent(Method::Message);
    assert_eq!((second.call_id(), second.cseq().number), (first.call_id(), first.cseq().number + 1));
    lab.answer(&second, 200, "", "");
    lab.quiet();
}

#[test]
fn what_was_withdrawn_is_made_anew_at_once_by_the_next_process() {
    // S-12, S-13
    let mut lab = lab(Dialect::Standard);
    // An invitation: the next one is for the same message.
    lab.say("m1", "first");
    let withdrawn = lab.sent(Method::Invite);
    lab.withdraw_last();
    lab.quiet();
    lab.wait(0);
    let invite = lab.sent(Method::Invite);
    assert_ne!(invite.from_().tag(), withdrawn.from_().tag());
    lab.accept(&invite);
    // A message: it is the first again, and the session is as it was.
    let first = lab.sent(Method::Message);
    lab.say("m2", "second");
    let former = lab.withdraw_last();
    lab.quiet();
    lab.wait(1);
    let again = lab.sent(Method::Message);
    assert_eq!((again.call_id(), &again.body()[..]), (invite.call_id(), &b"first"[..]));
    assert_eq!(again.cseq(), first.cseq());
    // The word of the former process may come twice; it is not about this one.
    lab.act(|session, ctx| session.handle_withdrawn(ctx, &former, false));
    lab.wait(0);
    lab.quiet();
    lab.answer(&again, 200, "", "");
    let second = lab.sent(Method::Message);
    assert_eq!(&second.body()[..], b"second");
    assert_eq!(second.cseq().number, first.cseq().number + 1);
    lab.answer(&second, 200, "", "");
    // Word of a failed delivery, which has no writer.
    lab.act(Session::handle_late_bounce);
    let notice = lab.sent(Method::Message);
    lab.withdraw_last();
    lab.wait(0);
    let again = lab.sent(Method::Message);
    assert_eq!(again.body(), notice.body());
    lab.answer(&again, 200, "", "");
    // That somebody types is told with what they write next.
    lab.state(ChatState::Composing);
    let typing = lab.sent(Method::Message);
    lab.withdraw_last();
    lab.wait(0);
    lab.quiet();
    lab.state(ChatState::Composing);
    let again = lab.sent(Method::Message);
    assert_eq!((again.body(), again.cseq()), (typing.body(), typing.cseq()));
    // Who left meanwhile ends the session at once.
    lab.state(ChatState::Gone);
    lab.quiet();
    lab.withdraw_last();
    lab.wait(0);
    let last = lab.sent(Method::Message);
    assert_eq!(last.body(), typing.body());
    lab.answer(&last, 200, "", "");
    lab.sent(Method::Bye);
    lab.quiet();
}

#[test]
fn what_was_withdrawn_after_another_target_may_have_it_is_returned_and_the_session_goes_on() {
    let mut lab = lab(Dialect::Standard);
    let invite = lab.up();
    lab.say("m1", "perhaps there");
    let first = lab.sent(Method::Message);
    lab.say("m2", "next");
    let purpose = lab.last.take().unwrap();
    lab.act(|session, ctx| session.handle_withdrawn(ctx, &purpose, true));
    lab.failed("m1", ErrorCondition::RemoteServerTimeout, "SIP server did not answer");
    lab.wait(0);
    let next = lab.sent(Method::Message);
    assert_eq!((next.call_id(), &next.body()[..]), (invite.call_id(), &b"next"[..]));
    assert_eq!(next.cseq().number, first.cseq().number + 1);
    // An invitation that may be answered has no session behind it any more.
    let mut lab = self::lab(Dialect::Standard);
    lab.say("m1", "hello?");
    let invite = lab.sent(Method::Invite);
    let purpose = lab.last.take().unwrap();
    lab.act(|session, ctx| session.handle_withdrawn(ctx, &purpose, true));
    lab.failed("m1", ErrorCondition::RemoteServerTimeout, "SIP server did not answer");
    assert!(lab.session.is_idle());
    lab.accept(&invite);
    lab.sent(Method::Bye);
    lab.quiet();
}

#[test]
fn a_withdrawn_message_does_not_hold_an_ended_dialog() {
    let mut lab = lab(Dialect::Standard);
    let invite = lab.up();
    lab.say("m1", "to be sent");
    lab.sent(Method::Message);
    assert_eq!(status(&lab.request(&invite, "BYE", 1, "", "")), 200);
    lab.withdraw_last();
    lab.quiet();
    assert!(lab.session.record().calls.is_empty());
    lab.wait(0);
    let next = lab.sent(Method::Invite);
    lab.accept(&next);
    assert_eq!(&lab.sent(Method::Message).body()[..], b"to be sent");
}

#[test]
fn a_message_whose_sender_died_with_the_process_is_an_error_too() {
    // I-12, S-41
    let mut lab = lab(Dialect::Microsoft);
    lab.up();
    lab.say("m1", "hello?");
    lab.sent(Method::Message);
    lab.wait(39);
    lab.quiet();
    lab.wait(1);
    lab.failed("m1", ErrorCondition::RemoteServerTimeout, "SIP server did not answer");
    lab.sent(Method::Bye);
    lab.quiet();
    // And nobody hears of the BYE: it is forgotten.
    assert!(!lab.session.is_idle());
    lab.wait(40);
    lab.quiet();
    assert!(lab.session.is_idle());
}

#[test]
fn other_refusals_of_a_message_are_its_own_or_end_the_session() {
    for (code, condition, ends) in [
        (415, ErrorCondition::NotAcceptable, false),
        (486, ErrorCondition::RecipientUnavailable, false),
        (606, ErrorCondition::NotAcceptable, false),
        (480, ErrorCondition::RecipientUnavailable, true),
        (404, ErrorCondition::ItemNotFound, true),
        (603, ErrorCondition::RecipientUnavailable, true),
    ] {
        let mut lab = lab(Dialect::Microsoft);
        lab.up();
        lab.say("m1", "hello?");
        let message = lab.sent(Method::Message);
        lab.answer(&message, code, "", "");
        lab.failed("m1", condition, &format!("Reason {code}"));
        if ends {
            lab.sent(Method::Bye);
        }
        lab.quiet();
        assert_eq!(lab.session.is_up(), !ends, "{code}");
    }
}

#[test]
fn a_refused_invitation_fails_each_waiting_message_once() {
    // I-13
    let mut lab = lab(Dialect::Microsoft);
    lab.say("m1", "one");
    lab.say("m2", "two");
    let invite = lab.sent(Method::Invite);
    lab.answer_as("far", &invite, "486 On the phone", "", "");
    lab.failed("m1", ErrorCondition::RecipientUnavailable, "On the phone");
    lab.failed("m2", ErrorCondition::RecipientUnavailable, "On the phone");
    lab.quiet();
    assert!(lab.session.is_idle());
    lab.say("m3", "three");
    let invite = lab.sent(Method::Invite);
    lab.no_answer(&invite);
    lab.failed("m3", ErrorCondition::RemoteServerTimeout, "SIP server did not answer");
    lab.quiet();
}

#[test]
fn a_peer_without_sessions_gets_single_messages_where_that_is_configured() {
    let mut lab = lab(Dialect::Standard);
    lab.config.pager_fallback = true;
    lab.say("m1", "one");
    let invite = lab.sent(Method::Invite);
    lab.answer(&invite, 488, "", "");
    assert!(matches!(lab.outputs.pop_front(), Some(Output::NoSessions)));
    lab.handed_over("m1", "one");
    lab.say("m2", "two");
    let invite = lab.sent(Method::Invite);
    lab.answer(&invite, 404, "", "");
    lab.failed("m2", ErrorCondition::ItemNotFound, "Reason 404");
    lab.quiet();
}

#[test]
fn single_messages_come_first_where_that_is_configured_but_a_session_that_is_there_is_used() {
    let mut lab = lab_without_sessions();
    lab.say("m1", "one");
    lab.handed_over("m1", "one");
    // A chat state alone goes nowhere without a session.
    lab.state(ChatState::Composing);
    lab.quiet();
    // The peer did not take it: a session is opened for it, and what follows goes there too.
    lab.refused_single("m1", "one");
    let invite = lab.sent(Method::Invite);
    lab.say("m2", "two");
    lab.accept(&invite);
    for text in ["one", "two"] {
        let message = lab.sent(Method::Message);
        assert_eq!(&message.body()[..], text.as_bytes());
        lab.answer(&message, 200, "", "");
    }
    lab.quiet();
    // Refused as a session too, it is an error: there is no third way.
    let mut lab = lab_without_sessions();
    lab.refused_single("m1", "one");
    let invite = lab.sent(Method::Invite);
    lab.answer(&invite, 488, "", "");
    lab.failed("m1", ErrorCondition::NotAcceptable, "Reason 488");
    lab.quiet();
}

fn lab_without_sessions() -> Lab {
    let mut lab = lab(Dialect::Standard);
    lab.config.new_sessions = false;
    lab
}

#[test]
fn an_acceptance_without_messages_is_acknowledged_and_ended() {
    let mut lab = lab(Dialect::Microsoft);
    lab.say("m1", "one");
    let invite = lab.sent(Method::Invite);
    let audio = "v=0\r\nm=audio 4000 RTP/AVP 0\r\n";
    lab.answer(&invite, 200, "Contact: <sip:ana@e.partner.example>\r\nContent-Type: application/sdp\r\n", audio);
    lab.sent(Method::Ack);
    lab.sent(Method::Bye);
    assert_eq!(lab.told().error.unwrap().condition, ErrorCondition::NotAcceptable);
    lab.quiet();
}

#[test]
fn a_second_branch_is_acknowledged_and_ended_and_the_first_goes_on() {
    let mut lab = lab(Dialect::Microsoft);
    lab.say("m1", "one");
    let invite = lab.sent(Method::Invite);
    lab.accept(&invite);
    let message = lab.sent(Method::Message);
    let headers = "Contact: <sip:ana@phone.partner.example>\r\nContent-Type: application/sdp\r\n";
    lab.answer_as("other", &invite, "200 OK", headers, OFFER);
    assert_eq!(lab.sent(Method::Ack).to().tag(), Some("other"));
    let bye = lab.sent(Method::Bye);
    assert_eq!((bye.to().tag(), bye.request_uri()), (Some("other"), "sip:ana@phone.partner.example"));
    // The first one again is only acknowledged again.
    lab.accept(&invite);
    lab.answer(&bye, 200, "", "");
    lab.quiet();
    lab.answer(&message, 200, "", "");
    lab.say("m2", "two");
    assert_eq!(lab.sent(Method::Message).to().tag(), Some("far"));
}

#[test]
fn ringing_for_a_minute_is_cancelled_and_a_late_acceptance_is_ended() {
    // I-24
    let mut lab = lab(Dialect::Microsoft);
    lab.say("m1", "one");
    let invite = lab.sent(Method::Invite);
    lab.wait(5);
    lab.answer(&invite, 180, "", "");
    lab.wait(59);
    lab.quiet();
    lab.wait(1);
    let tag = invite.from_().tag().unwrap();
    assert!(matches!(lab.outputs.pop_front(), Some(Output::CancelInvite { local_tag }) if local_tag == tag));
    lab.failed("m1", ErrorCondition::RemoteServerTimeout, "SIP server did not answer");
    lab.quiet();
    lab.accept(&invite);
    let bye = lab.sent(Method::Bye);
    lab.answer(&bye, 200, "", "");
    lab.quiet();
    assert!(lab.session.is_idle());
}

#[test]
fn answers_carry_the_thread_that_opened_the_session() {
    // I-31
    for (thread, is_call_id) in [("thread-0001", true), ("täglich, mit Blank", false)] {
        let mut lab = lab(Dialect::Microsoft);
        lab.say_in("m1", "one", Some(thread));
        let invite = lab.sent(Method::Invite);
        assert_eq!(invite.call_id() == thread, is_call_id);
        lab.accept(&invite);
        let message = lab.sent(Method::Message);
        lab.answer(&message, 481, "", "");
        // The thread lasts beyond the dialog, whose Call-ID may not come again while it is remembered.
        let again = lab.sent(Method::Invite);
        lab.accept(&again);
        lab.sent(Method::Message);
        let stanza = lab.receive(&again, 1, "", "yes").unwrap();
        assert_eq!(stanza.thread.as_deref(), Some(thread));
    }
}

#[test]
fn typing_goes_both_ways_only_where_it_is_wanted() {
    // I-36, I-37, I-38, I-39
    let mut lab = lab(Dialect::Microsoft);
    let invite = lab.up();
    let keyboard = "Content-Type: application/xml\r\n";
    let types = crate::chat_state::keyboard_activity(true);
    assert_eq!(status(&lab.request(&invite, "INFO", 1, keyboard, &types)), 200);
    lab.quiet();
    lab.state(ChatState::Composing);
    let typing = lab.sent(Method::Message);
    let kind = typing.header(HeaderName::ContentType);
    assert_eq!(kind, Some("application/im-iscomposing+xml"));
    let read = |message: &Message| crate::content::read_message(message, &ContentLimits::default()).unwrap();
    assert!(matches!(read(&typing), Received::Typing(crate::chat_state::Typing::Active { .. })));
    lab.state(ChatState::Paused);
    lab.quiet();
    lab.answer(&typing, 200, "", "");
    let idle = lab.sent(Method::Message);
    assert_eq!(read(&idle), Received::Typing(crate::chat_state::Typing::Idle));
    lab.answer(&idle, 200, "", "");
    lab.state(ChatState::Inactive);
    lab.quiet();
    assert_eq!(status(&lab.request(&invite, "INFO", 2, keyboard, &types)), 200);
    assert_eq!(lab.told().chat_state, Some(ChatState::Composing));
    assert_eq!(status(&lab.request(&invite, "INFO", 3, keyboard, &types)), 200);
    lab.quiet();
    lab.wait(119);
    lab.quiet();
    lab.wait(1);
    assert_eq!(lab.told().chat_state, Some(ChatState::Active));
    let composing = crate::chat_state::is_composing(true);
    let refused = lab.receive(&invite, 4, "Content-Type: application/im-iscomposing+xml\r\n", &composing).unwrap_err();
    assert_eq!((status(&refused), refused.header(HeaderName::Contact)), (200, None));
    assert_eq!(lab.told().chat_state, Some(ChatState::Composing));
    let text = lab.receive(&invite, 5, "", "done").unwrap();
    assert_eq!(text.chat_state, Some(ChatState::Active));
    lab.wait(120);
    lab.quiet();
    lab.state(ChatState::Composing);
    let typing = lab.sent(Method::Message);
    lab.answer(&typing, 415, "", "");
    lab.state(ChatState::Active);
    lab.state(ChatState::Composing);
    lab.quiet();
    assert!(lab.session.is_up());
}

#[test]
fn a_receipt_follows_200_and_not_202() {
    // I-40
    for (code, wanted) in [(200, true), (202, false)] {
        let mut lab = lab(Dialect::Microsoft);
        lab.up();
        lab.stanza("m1", |stanza| {
            *stanza = stanza.clone().with_body("read this");
            stanza.receipt = Some(Receipt::Request);
        });
        let message = lab.sent(Method::Message);
        lab.answer(&message, code, "", "");
        if wanted {
            let receipt = lab.told();
            assert_eq!(receipt.receipt, Some(Receipt::Received("m1".to_owned())));
            assert_eq!(receipt.to(), Some("lee@corp.example/desk"));
        }
        lab.answer(&message, code, "", "");
        lab.quiet();
    }
}

#[test]
fn a_late_bounce_is_told_once_in_a_session_and_never_without_one() {
    let mut lab = lab(Dialect::Microsoft);
    lab.act(Session::handle_late_bounce);
    lab.quiet();
    let dialog = lab.up();
    // Behind a message that is out.
    lab.say("m2", "Lunch?");
    let message = lab.sent(Method::Message);
    lab.act(Session::handle_late_bounce);
    lab.quiet();
    lab.answer(&message, 200, "", "");
    let notice = lab.sent(Method::Message);
    assert_eq!(&notice.body()[..], b"Your message could not be delivered.");
    assert_eq!(notice.call_id(), dialog.call_id());
    // What becomes of it is told to nobody, and changes nothing.
    lab.answer(&notice, 415, "", "");
    lab.act(Session::handle_late_bounce);
    lab.quiet();
    lab.say("m3", "Dinner?");
    assert_eq!(&lab.sent(Method::Message).body()[..], b"Dinner?");
}

#[test]
fn an_acceptance_that_nobody_waits_for_any_more_is_acknowledged_and_ended() {
    let mut lab = lab(Dialect::Standard);
    lab.say("m1", "one");
    let invite = lab.sent(Method::Invite);
    lab.wait(41);
    assert_eq!(lab.told().kind, MessageType::Error);
    assert!(lab.session.is_idle());
    lab.answer_as("late", &invite, "200 OK", "Contact: <sip:ana@inner.partner.example>\r\n", "");
    for method in [Method::Ack, Method::Bye] {
        let request = lab.sent(method);
        assert_eq!((request.call_id(), request.to().tag()), (invite.call_id(), Some("late")));
    }
    lab.quiet();
    // Its repetition is only acknowledged.
    let again = response("late", &invite, "200 OK", "Contact: <sip:ana@inner.partner.example>\r\n", "");
    lab.act(|session, ctx| session.handle_late_acceptance(ctx, &again, true));
    lab.sent(Method::Ack);
    lab.quiet();
}
