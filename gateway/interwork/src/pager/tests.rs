use isthmus_sip::Limits;
use isthmus_xmpp::{Element, Ns, name, ns};

use super::*;
use crate::error_map::SipAnswer;

fn lee() -> Address {
    Address::from_jid("lee@corp.example/balcony & more").unwrap()
}

fn ana() -> Address {
    Address::from_jid("ana@partner.example").unwrap()
}

fn stanza(kind: MessageType) -> isthmus_xmpp::Message {
    isthmus_xmpp::Message::new(kind, "lee@corp.example/balcony", "ana@partner.example")
}

fn envelope<'a>(from: &'a Address, to: &'a Address) -> Envelope<'a> {
    Envelope {
        dialect: Dialect::Standard,
        from,
        to: &to.bare,
        spelling: None,
        call_id: "call-1",
        from_tag: "tag1",
        cseq: 1,
        sent_by_bytes: 22,
        max_bytes: 1300,
    }
}

fn text(text: &str) -> OutgoingText<'_> {
    OutgoingText { text, lang: None, subject: None, thread: None }
}

fn parse(bytes: &Bytes) -> Message {
    let with_via = [&b"MESSAGE"[..], bytes.strip_prefix(b"MESSAGE").unwrap()].concat();
    let text = String::from_utf8(with_via).unwrap();
    let (line, rest) = text.split_once("\r\n").unwrap();
    let text = format!("{line}\r\nVia: SIP/2.0/TLS gw.corp.example;branch=z9hG4bK1\r\n{rest}");
    Message::parse(Bytes::from(text), &Limits::default()).unwrap()
}

fn sent(text: &OutgoingText<'_>, envelope: &Envelope<'_>) -> Message {
    parse(&request(text, envelope).unwrap())
}

/// A MESSAGE from Ana to Lee.
fn incoming(headers: &str, body: &str) -> Message {
    let text = format!(
        "MESSAGE sip:lee@corp.example SIP/2.0\r\nVia: SIP/2.0/TLS sip.partner.example;branch=z9hG4bK1\r\n\
         From: <sip:ana@partner.example>;tag=a\r\nTo: <sip:lee@corp.example>\r\nCall-ID: 711609sa@10.0.0.1\r\n\
         CSeq: 1 MESSAGE\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    Message::parse(Bytes::from(text), &Limits::default()).unwrap()
}

fn arrival<'a>(from: &'a Address, to: &'a Address, mode: Mode) -> Arrival<'a> {
    Arrival { mode, from, to, id: "s1", thread: None, chat_states: false, now: EpochMillis(1_741_079_702_000) }
}

fn arrived(request: &Message) -> isthmus_xmpp::Message {
    let (from, to) = (ana(), Address::from_jid("lee@corp.example").unwrap());
    match to_xmpp(request, &arrival(&from, &to, Mode::Pager), &ContentLimits::default()) {
        Ok(ToXmpp::Stanza(stanza)) => stanza,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stanza_becomes_a_message_outside_of_dialogs() {
    // I-26, I-30
    let mut stanza = stanza(MessageType::Normal);
    stanza.lang = Some("cs".into());
    stanza.bodies = vec![
        LangText { lang: Some("en".into()), text: "Neither".to_owned() },
        LangText { lang: Some("cs".into()), text: "Ani jedno\nžádné".to_owned() },
    ];
    stanza.subjects = vec![LangText { lang: Some("cs".into()), text: "Otázka".to_owned() }];
    stanza.thread = Some("thread-12345".into());
    let Ok(FromXmpp::Text(text)) = from_xmpp(&stanza) else { panic!() };
    assert_eq!(text.thread, Some("thread-12345"));
    let (lee, ana) = (lee(), ana());
    let message = sent(&text, &envelope(&lee, &ana));
    assert_eq!(message.request_uri(), "sip:ana@partner.example");
    assert_eq!(message.to().to_string(), "<sip:ana@partner.example>");
    assert_eq!(message.header(HeaderName::From), Some("<sip:lee@corp.example;gr=balcony%20&%20more>;tag=tag1"));
    assert_eq!(message.header(HeaderName::Subject), Some("Otázka"));
    assert_eq!(message.header(HeaderName::ContentLanguage), Some("cs"));
    assert_eq!(message.header(HeaderName::ContentType), Some("text/plain;charset=utf-8"));
    assert_eq!(message.call_id(), "call-1");
    assert_eq!(message.header(HeaderName::Contact), None);
    assert_eq!(&message.body()[..], "Ani jedno\nžádné".as_bytes());
}

#[test]
fn the_microsoft_dialect_gets_no_resource_and_the_remembered_spelling_is_used() {
    //
    let (lee, ana) = (lee(), ana());
    let spelling = Spelling::restore("Ana", &ana.bare).unwrap();
    let envelope = Envelope { dialect: Dialect::Microsoft, spelling: Some(&spelling), ..envelope(&lee, &ana) };
    let message = sent(&text("hi"), &envelope);
    assert_eq!(message.from_().uri_str(), "sip:lee@corp.example");
    assert_eq!((message.request_uri(), message.to().uri_str()), ("sip:Ana@partner.example", "sip:Ana@partner.example"));
}

#[test]
fn the_whole_request_counts_towards_the_largest_size() {
    // I-28
    let (lee, ana) = (lee(), ana());
    let fixed = request(&text(""), &envelope(&lee, &ana)).unwrap().len();
    // Content-Length gets three digits instead of one
    let room = 1300 - 22 - VIA_BYTES - fixed - 2;
    assert!(request(&text(&"x".repeat(room)), &envelope(&lee, &ana)).is_ok());
    let error = request(&text(&"x".repeat(room + 2)), &envelope(&lee, &ana)).unwrap_err().stanza_error();
    assert_eq!(error.condition, ErrorCondition::PolicyViolation);
    let subject = "s".repeat(room);
    let with_subject = OutgoingText { subject: Some(&subject), ..text("x") };
    assert_eq!(
        request(&with_subject, &envelope(&lee, &ana)).unwrap_err().stanza_error().condition,
        ErrorCondition::PolicyViolation
    );
    let on_stream = Envelope { max_bytes: 64 * 1024, ..envelope(&lee, &ana) };
    assert!(request(&text(&"x".repeat(room + 2)), &on_stream).is_ok());
    let large = "x".repeat(SESSION_TEXT_MAX + 1);
    assert_eq!(
        text(&large).check_session_size().unwrap_err().stanza_error().condition,
        ErrorCondition::PolicyViolation
    );
    assert_eq!(text(&large[1..]).check_session_size(), Ok(()));
}

#[test]
fn what_cannot_stand_in_a_header_is_left_out_and_the_text_still_goes() {
    let (lee, ana) = (lee(), ana());
    let evil = OutgoingText {
        subject: Some("a\r\nX-Evil: 1\0\u{7f}\tb"),
        lang: Some("en\r\nX-Evil: 2"),
        ..text("hello\r\n\r\nMESSAGE")
    };
    let message = sent(&evil, &envelope(&lee, &ana));
    assert_eq!(message.header(HeaderName::Subject), Some("a  X-Evil: 1 b"));
    assert_eq!(message.header(HeaderName::ContentLanguage), None);
    assert_eq!(message.headers_named("X-Evil").count(), 0);
    assert_eq!(&message.body()[..], b"hello\r\n\r\nMESSAGE");
    let blank = OutgoingText { subject: Some(" \r\n "), ..text("x") };
    assert_eq!(sent(&blank, &envelope(&lee, &ana)).header(HeaderName::Subject), None);
}

#[test]
fn group_chat_with_sip_users_is_refused() {
    // I-19
    let invite =
        Element::new(Ns::of(ns::MUC_USER), name!("x")).with_child(Element::new(Ns::of(ns::MUC_USER), name!("invite")));
    let direct = Element::new(Ns::of(ns::CONFERENCE), name!("x")).with_attribute(name!("jid"), "room@muc.corp.example");
    let occupant = Element::new(Ns::of(ns::MUC_USER), name!("x"));
    let with = |payload| isthmus_xmpp::Message { payloads: vec![payload], ..stanza(MessageType::Chat).with_body("hi") };
    for message in [stanza(MessageType::Groupchat).with_body("hi"), with(invite), with(direct), with(occupant)] {
        let error = from_xmpp(&message).unwrap_err().stanza_error();
        assert_eq!((error.condition, error.kind), (ErrorCondition::FeatureNotImplemented, ErrorType::Cancel));
    }
}

#[test]
fn encrypted_messages_are_refused() {
    // I-44
    let omemo = Element::new(Ns::of(ns::OMEMO_LEGACY), name!("encrypted"));
    let fallback = stanza(MessageType::Chat).with_body("I sent you an OMEMO message");
    let without = isthmus_xmpp::Message { payloads: vec![omemo.clone()], ..stanza(MessageType::Chat) };
    let with = isthmus_xmpp::Message { payloads: vec![omemo], ..fallback };
    for message in [without, with, stanza(MessageType::Chat).with_body("?OTR:AAMC...")] {
        assert_eq!(from_xmpp(&message).unwrap_err().stanza_error().condition, ErrorCondition::NotAcceptable);
    }
}

#[test]
fn stanzas_without_a_text_are_dropped_or_only_a_chat_state() {
    assert_eq!(from_xmpp(&stanza(MessageType::Headline).with_body("news")), Ok(FromXmpp::Nothing));
    assert_eq!(from_xmpp(&stanza(MessageType::Error).with_body("hi")), Ok(FromXmpp::Nothing));
    assert_eq!(from_xmpp(&stanza(MessageType::Chat)), Ok(FromXmpp::Nothing));
    assert_eq!(from_xmpp(&stanza(MessageType::Chat).with_body("")), Ok(FromXmpp::Nothing));
    let composing = isthmus_xmpp::Message { chat_state: Some(ChatState::Composing), ..stanza(MessageType::Chat) };
    assert_eq!(from_xmpp(&composing), Ok(FromXmpp::ChatState(ChatState::Composing)));
    let correction =
        isthmus_xmpp::Message { replace: Some("1".into()), ..stanza(MessageType::Chat).with_body("fixed") };
    assert_eq!(from_xmpp(&correction), Ok(FromXmpp::Text(text("fixed"))));
    let foreign = isthmus_xmpp::Message {
        bodies: vec![LangText { lang: Some("en".into()), text: "first".to_owned() }],
        ..stanza(MessageType::Chat)
    };
    assert_eq!(from_xmpp(&foreign), Ok(FromXmpp::Text(OutgoingText { lang: Some("en"), ..text("first") })));
}

#[test]
fn a_message_arrives_without_type_from_pager_mode_and_as_chat_in_a_session() {
    // I-05, I-27
    let request = incoming("Content-Type: text/plain\r\n", "Hallo");
    assert_eq!(arrived(&request).kind, MessageType::Normal);
    assert_eq!(arrived(&request).chat_state, None);
    let (from, to) = (Address::from_jid("ana@partner.example/u7-k2").unwrap(), lee());
    let session = Arrival { chat_states: true, ..arrival(&from, &to, Mode::Session) };
    let Ok(ToXmpp::Stanza(stanza)) = to_xmpp(&request, &session, &ContentLimits::default()) else { panic!() };
    assert_eq!((stanza.kind, stanza.chat_state), (MessageType::Chat, Some(ChatState::Active)));
    assert_eq!(stanza.from(), Some("ana@partner.example/u7-k2"));
    assert_eq!(stanza.to(), Some("lee@corp.example/balcony & more"));
    assert_eq!((stanza.id.as_deref(), stanza.bodies.len()), (Some("s1"), 1));
}

#[test]
fn subject_thread_and_language_arrive() {
    // I-30
    let request = incoming(
        "Subject: Großer Plan\r\nContent-Language: de\r\nContent-Type: text/plain;charset=utf-8\r\n",
        "Hallo\r\nLee",
    );
    let stanza = arrived(&request);
    let german = |text: &str| LangText { lang: Some("de".into()), text: text.to_owned() };
    assert_eq!(stanza.subjects, [german("Großer Plan")]);
    assert_eq!(stanza.bodies, [german("Hallo\nLee")]);
    assert_eq!((stanza.lang.as_deref(), stanza.thread.as_deref()), (Some("de"), Some("711609sa@10.0.0.1")));
    let (from, to) = (ana(), lee());
    let known = Arrival { thread: Some("täglich"), ..arrival(&from, &to, Mode::Pager) };
    let Ok(ToXmpp::Stanza(stanza)) = to_xmpp(&request, &known, &ContentLimits::default()) else { panic!() };
    assert_eq!(stanza.thread.as_deref(), Some("täglich"));
    let plain = arrived(&incoming("Subject: \r\n", "x"));
    assert!(plain.subjects.is_empty() && plain.lang.is_none());
}

#[test]
fn a_message_that_is_no_text_is_taken_or_refused() {
    // I-32
    let (from, to) = (ana(), lee());
    let arrival = arrival(&from, &to, Mode::Session);
    let become_of = |headers: &str, body: &str| to_xmpp(&incoming(headers, body), &arrival, &ContentLimits::default());
    assert_eq!(become_of("Content-Type: text/plain\r\n", "\r\n"), Ok(ToXmpp::Nothing));
    let typing =
        become_of("Content-Type: application/im-iscomposing+xml\r\n", "<isComposing><state>idle</state></isComposing>");
    assert_eq!(typing, Ok(ToXmpp::Typing(Typing::Idle)));
    let refused = SipAnswer::from(become_of("Content-Type: text/rtf\r\n", "{\\rtf1}").unwrap_err());
    assert_eq!(refused.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(refused.companion(), Some((HeaderName::Accept, content::ACCEPT)));
    let encoded =
        SipAnswer::from(become_of("Content-Type: text/plain\r\nContent-Encoding: gzip\r\n", "x").unwrap_err());
    assert_eq!(encoded.companion(), Some((HeaderName::AcceptEncoding, "identity")));
}

#[test]
fn an_expired_message_is_taken_and_dropped() {
    let (from, to) = (ana(), lee());
    let arrival = arrival(&from, &to, Mode::Pager);
    let become_of = |headers: &str| to_xmpp(&incoming(headers, "x"), &arrival, &ContentLimits::default());
    let now_minus_2 = "Date: Tue, 04 Mar 2025 09:13:02 GMT\r\n";
    assert_eq!(become_of(&format!("{now_minus_2}Expires: 60\r\n")), Ok(ToXmpp::Nothing));
    for live in [
        &format!("{now_minus_2}Expires: 600\r\n")[..],
        now_minus_2,
        "Expires: 0\r\n",
        "Date: yesterday\r\nExpires: 1\r\n",
    ] {
        assert!(matches!(become_of(live), Ok(ToXmpp::Stanza(_))), "{live}");
    }
    assert_eq!(date::parse("Sat, 13 Nov 2010 23:29:00 GMT"), Some(EpochMillis(1_289_690_940_000)));
    for wrong in ["", "Sat, 13 Nov 2010 23:29:00 CET", "13 Nov 2010 23:29:00 GMT", "Sat, 13 Foo 2010 23:29:00 GMT"] {
        assert_eq!(date::parse(wrong), None, "{wrong}");
    }
}

#[test]
fn an_old_wrapped_message_is_marked_as_delayed() {
    let cpim = |time: &str| {
        let body = format!("DateTime: {time}\r\n\r\nContent-Type: text/plain\r\n\r\nx");
        arrived(&incoming("Content-Type: message/cpim\r\n", &body)).delay.map(|delay| delay.at().0)
    };
    assert_eq!(cpim("2025-03-04T09:13:02Z"), Some(1_741_079_582_000));
    assert_eq!((cpim("2025-03-04T09:14:32Z"), cpim("2025-03-04T10:00:00Z")), (None, None));
}

#[test]
fn the_answer_has_neither_contact_nor_body() {
    // I-26
    for (delivered, status) in [(true, 200), (false, 202)] {
        let bytes = accept(&incoming("Contact: <sip:ana@10.0.0.1>\r\n", "x"), delivered, Some("t")).unwrap();
        let answer = Message::parse(bytes, &Limits::default()).unwrap();
        assert_eq!(answer.status().map(StatusCode::code), Some(status));
        assert!(answer.header(HeaderName::Contact).is_none() && answer.body().is_empty());
        assert_eq!(answer.to().tag(), Some("t"));
    }
}

#[test]
fn an_endless_subject_is_cut_and_the_text_is_sent() {
    let subject = "é".repeat(20_000);
    let long = OutgoingText { subject: Some(&subject), ..text("hi") };
    let (from, to) = (lee(), ana());
    let message = sent(&long, &Envelope { max_bytes: 64 * 1024, ..envelope(&from, &to) });
    assert_eq!(message.header(HeaderName::Subject).map(str::len), Some(SUBJECT_MAX));
    assert_eq!(&message.body()[..], b"hi");
}
