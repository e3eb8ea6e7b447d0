use isthmus_model::{EpochMillis, LangText, Show};
use proptest::prelude::*;

use super::*;
use crate::payload::{ChatState, Delay, Encryption, GroupChat, Receipt, Stamp};
use crate::stream::codec::{EncodeError, Limits, StreamEncoder, StreamKind, read_element};
use crate::{Element, Ns, name, ns};

fn read(text: &str) -> Stanza {
    let element = read_element(text.as_bytes(), &Limits::COMPONENT).unwrap();
    Stanza::read(element).unwrap()
}

fn message(text: &str) -> Message {
    match read(text) {
        Stanza::Message(message) => message,
        other => panic!("{other:?}"),
    }
}

fn presence(text: &str) -> Presence {
    match read(text) {
        Stanza::Presence(presence) => presence,
        other => panic!("{other:?}"),
    }
}

fn write(stanza: &Stanza) -> String {
    let mut encoder = StreamEncoder::new(StreamKind::Component);
    encoder.stanza(stanza).unwrap();
    String::from_utf8(encoder.take().to_vec()).unwrap()
}

fn problem(text: &str) -> UnreadableStanza {
    Stanza::read(read_element(text.as_bytes(), &Limits::COMPONENT).unwrap()).unwrap_err()
}

fn lang(lang: &str, text: &str) -> LangText {
    LangText { lang: Some(lang.into()), text: text.into() }
}

#[test]
fn a_chat_message_as_prosody_sends_it_is_read() {
    let message = message(
        "<message to='ana@partner.example' type='chat' id='c7d' xml:lang='en' from='juliet@corp.example/home'>\
         <body>hi</body><body xml:lang='de'>hallo</body><subject>s</subject><thread>t1</thread>\
         <active xmlns='http://jabber.org/protocol/chatstates'/><request xmlns='urn:xmpp:receipts'/>\
         <replace id='c6' xmlns='urn:xmpp:message-correct:0'/>\
         <delay xmlns='urn:xmpp:delay' from='corp.example' stamp='2026-01-02T03:04:05Z'>Offline</delay>\
         <origin-id xmlns='urn:xmpp:sid:0' id='c7d'/></message>",
    );
    assert_eq!((message.from(), message.to()), (Some("juliet@corp.example/home"), Some("ana@partner.example")));
    assert_eq!((message.kind, message.id.as_deref()), (MessageType::Chat, Some("c7d")));
    assert_eq!(message.bodies, [lang("en", "hi"), lang("de", "hallo")]);
    assert_eq!(message.subjects, [lang("en", "s")]);
    assert_eq!(message.thread.as_deref(), Some("t1"));
    assert_eq!(message.chat_state, Some(ChatState::Active));
    assert_eq!(message.receipt, Some(Receipt::Request));
    assert_eq!(message.replace.as_deref(), Some("c6"));
    let delay = message.delay.as_ref().unwrap();
    assert_eq!((delay.from.as_deref(), delay.at()), (Some("corp.example"), EpochMillis(1_767_323_045_000)));

    assert!(message.payloads[0].is(ns::SID, "origin-id"));
    assert_eq!(message.payloads.len(), 1);
}

#[test]
fn the_body_to_carry_is_the_one_in_the_messages_own_language_else_the_first() {
    let body = |text: &str| message(text).body().map(|body| body.text.clone());
    let two = "<body xml:lang='sv'>hej</body><body>hi</body>";
    assert_eq!(body(&format!("<message xml:lang='en'>{two}</message>")).as_deref(), Some("hi"));
    assert_eq!(body(&format!("<message xml:lang='sv'>{two}</message>")).as_deref(), Some("hej"));
    assert_eq!(body("<message xml:lang='en'><body xml:lang='sv'>hej</body></message>").as_deref(), Some("hej"));
    assert_eq!(body("<message><subject>s</subject></message>"), None);
}

#[test]
fn types_that_nobody_defined_are_normal_messages() {
    assert_eq!(message("<message type='wild'/>").kind, MessageType::Normal);
    assert_eq!(message("<message/>").kind, MessageType::Normal);
    for kind in ["chat", "groupchat", "headline", "error"] {
        assert_eq!(message(&format!("<message type='{kind}'/>")).kind.as_str(), Some(kind));
    }
}

#[test]
fn what_is_not_read_is_written_again_as_it_came() {
    let text = "<message from=\"a@b\" to=\"c@d\" nq:x=\"1\" odd=\"2\"><body>b</body>\
        <x xmlns=\"urn:x\" a=\"1\"><y>z<w/></y></x><body2>c</body2><thread>t</thread></message>";
    let text = text.replace("nq:x=\"1\"", "xmlns:nq=\"urn:q\" nq:x=\"1\"");
    let stanza = read(&text);
    let written = write(&stanza);
    assert_eq!(read(&written), stanza);
    assert!(written.contains("<x xmlns=\"urn:x\" a=\"1\"><y>z<w/></y></x>"), "{written}");
    assert!(written.contains("<body2>c</body2>") && written.contains("odd=\"2\""), "{written}");
}

#[test]
fn malformed_extensions_stay_payloads_and_harm_nothing() {
    let message = message(
        "<message><delay xmlns='urn:xmpp:delay' stamp='yesterday'/><delay xmlns='urn:xmpp:delay'/>\
         <received xmlns='urn:xmpp:receipts'/><replace xmlns='urn:xmpp:message-correct:0'/>\
         <wild xmlns='http://jabber.org/protocol/chatstates'/><body>b<b>c</b>d</body><thread/></message>",
    );
    assert_eq!(message.payloads.len(), 5);
    assert_eq!((message.delay, message.receipt, message.replace, message.chat_state), (None, None, None, None));
    assert_eq!(message.bodies[0].text, "bd");
    assert_eq!(message.thread, None);
}

#[test]
fn receipts_name_the_message_that_arrived() {
    let text = "<message><received xmlns='urn:xmpp:receipts' id='m1'/></message>";
    assert_eq!(message(text).receipt, Some(Receipt::Received("m1".into())));
    assert!(write(&read(text)).contains("<received xmlns=\"urn:xmpp:receipts\" id=\"m1\"/>"));
}

#[test]
fn encrypted_messages_are_known_by_their_marks() {
    let encryption = |inside: &str| message(&format!("<message><body>note</body>{inside}</message>")).encryption();
    let eme = |of: &str| format!("<encryption xmlns='urn:xmpp:eme:0' namespace='{of}'/>");
    assert_eq!(encryption("<encrypted xmlns='eu.siacs.conversations.axolotl'/>"), Some(Encryption::Omemo));
    assert_eq!(encryption("<encrypted xmlns='urn:xmpp:omemo:2'/>"), Some(Encryption::Omemo));
    assert_eq!(encryption("<openpgp xmlns='urn:xmpp:openpgp:0'/>"), Some(Encryption::OpenPgp));
    assert_eq!(encryption("<x xmlns='jabber:x:encrypted'/>"), Some(Encryption::OpenPgp));
    assert_eq!(encryption(&eme("eu.siacs.conversations.axolotl")), Some(Encryption::Omemo));
    assert_eq!(encryption(&eme("urn:xmpp:otr:0")), Some(Encryption::Otr));
    assert_eq!(encryption(&eme("urn:new")), Some(Encryption::Other));
    assert_eq!(encryption(""), None);
    let body = |text: &str| message(&format!("<message><body>{text}</body></message>")).encryption();
    assert_eq!(body("?OTR:AAMC..."), Some(Encryption::Otr));
    assert_eq!(body("?OTRv23? wants to chat"), Some(Encryption::Otr));
    assert_eq!(body("?OTR is old, is it not"), None);
}

#[test]
fn room_messages_and_invitations_are_known_by_their_marks() {
    let group = |text: &str| message(text).group_chat();
    assert_eq!(group("<message type='groupchat'><body>x</body></message>"), Some(GroupChat::Occupant));
    assert_eq!(
        group("<message><x xmlns='jabber:x:conference' jid='room@muc.example'/></message>"),
        Some(GroupChat::Invitation)
    );
    let user = "http://jabber.org/protocol/muc#user";
    assert_eq!(
        group(&format!("<message><x xmlns='{user}'><invite from='a@b'/></x></message>")),
        Some(GroupChat::Invitation)
    );
    assert_eq!(group(&format!("<message type='chat'><x xmlns='{user}'/></message>")), Some(GroupChat::Occupant));
    assert_eq!(group("<message type='chat'><body>x</body></message>"), None);
}

#[test]
fn presence_of_every_kind_is_read_and_written() {
    let text = "<presence from=\"juliet@corp.example/home\" to=\"ana@partner.example\" xml:lang=\"en\"><show>dnd</show>\
        <status>busy</status><status xml:lang=\"de\">besch\u{e4}ftigt</status><priority>-5</priority>\
        <delay xmlns=\"urn:xmpp:delay\" from=\"corp.example\" stamp=\"2026-01-02T03:04:05Z\"/>\
        <nick xmlns=\"http://jabber.org/protocol/nick\">Jule</nick>\
        <c xmlns=\"http://jabber.org/protocol/caps\" ver=\"x\"/></presence>";
    let stanza = read(text);
    assert_eq!(write(&stanza), text);
    let Stanza::Presence(presence_read) = stanza else { panic!() };
    assert_eq!(presence_read.kind, PresenceType::Available);
    assert_eq!((presence_read.show, presence_read.priority), (Some(Show::Dnd), Some(-5)));
    assert_eq!(presence_read.statuses, [lang("en", "busy"), lang("de", "besch\u{e4}ftigt")]);
    assert_eq!(presence_read.nick.as_deref(), Some("Jule"));
    for kind in ["unavailable", "subscribe", "subscribed", "unsubscribe", "unsubscribed", "probe"] {
        let text = format!("<presence from=\"a@b\" to=\"c@d\" id=\"i\" type=\"{kind}\"></presence>");
        assert_eq!(write(&read(&text)), text);
    }
    let clumsy = presence("<presence><show> away </show><show>dnd</show><priority> 7\n</priority></presence>");
    assert_eq!((clumsy.show, clumsy.priority), (Some(Show::Away), Some(7)));
    let wild = presence("<presence><show>online</show><priority>300</priority></presence>");
    assert_eq!((wild.show, wild.priority), (None, None));
}

#[test]
fn requests_and_answers_are_read_and_answered() {
    let Stanza::Iq(ping) =
        read("<iq type='get' from='corp.example' to='partner.example' id='p1'><ping xmlns='urn:xmpp:ping'/></iq>")
    else {
        panic!()
    };
    assert!(ping.is_ping());
    let result = ping.result(None).unwrap();
    assert_eq!(
        write(&result.clone().into()),
        "<iq from=\"partner.example\" to=\"corp.example\" id=\"p1\" type=\"result\"></iq>"
    );
    assert_eq!(result.result(None), None, "answers are not answered");
    assert_eq!(Stanza::Iq(result).error_reply(StanzaError::new(ErrorCondition::Conflict)), None);
    let Some(Stanza::Iq(refusal)) = Stanza::Iq(ping).error_reply(StanzaError::new(ErrorCondition::ServiceUnavailable))
    else {
        panic!()
    };
    assert_eq!(
        (refusal.from(), refusal.to(), refusal.id.as_str()),
        (Some("partner.example"), Some("corp.example"), "p1")
    );
    let text = write(&refusal.into());
    assert!(text.contains("<error type=\"cancel\"><service-unavailable xmlns="), "{text}");
}

#[test]
fn errors_as_servers_send_them_are_read() {
    let error = |text: &str| read(text).error().cloned().unwrap();
    let prosody = error(
        "<message type='error' id='m' from='x@corp.example' to='ana@partner.example' xml:lang='en'><error type='wait'>\
         <remote-server-timeout xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
         <text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>Component unavailable</text>\
         <not-connected xmlns='xmpp:prosody.im/protocol/component'/></error></message>",
    );
    assert_eq!((prosody.kind, prosody.condition), (ErrorType::Wait, ErrorCondition::RemoteServerTimeout));
    assert_eq!(prosody.text, Some(lang("en", "Component unavailable")));
    assert_eq!(prosody.others.len(), 1);
    let jabberd2 = error(
        "<message xmlns='jabber:client' type='error'><body>echo</body><error code='503' type='cancel'>\
         <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>",
    );
    assert_eq!((jabberd2.kind, jabberd2.condition), (ErrorType::Cancel, ErrorCondition::ServiceUnavailable));
    let old = error("<presence type='error'><error code='404'>Not found</error></presence>");
    assert_eq!((old.kind, old.condition), (ErrorType::Cancel, ErrorCondition::ItemNotFound));
    for bare in ["<message type='error'/>", "<presence type='error'/>", "<iq type='error' id='1'/>"] {
        assert_eq!(error(bare).condition, ErrorCondition::UndefinedCondition);
    }
    let gone = error(
        "<iq type='error' id='1'><error type='cancel' by='b'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>\
         xmpp:new@b</gone></error></iq>",
    );
    assert_eq!((gone.uri.as_deref(), gone.by.as_deref()), (Some("xmpp:new@b"), Some("b")));
}

#[test]
fn every_condition_and_type_survives_the_wire() {
    assert_eq!(ErrorCondition::ALL.len(), 22);
    for condition in ErrorCondition::ALL {
        let mut error = StanzaError::new(*condition).with_text("t < u").with_by("b.example");
        if matches!(condition, ErrorCondition::Gone | ErrorCondition::Redirect) {
            error = error.with_uri("sip:a@b;x=1&y");
        }
        for kind in [ErrorType::Auth, ErrorType::Cancel, ErrorType::Continue, ErrorType::Modify, ErrorType::Wait] {
            let error = error.clone().with_type(kind);
            let mut stanza = Message::new(MessageType::Error, "a@b", "c@d");
            stanza.error = Some(error.clone());
            assert_eq!(read(&write(&stanza.into())).error(), Some(&error));
        }
    }
}

#[test]
fn usual_types_are_those_of_the_rfc() {
    for (condition, kind) in [
        (ErrorCondition::BadRequest, ErrorType::Modify),
        (ErrorCondition::Forbidden, ErrorType::Auth),
        (ErrorCondition::Gone, ErrorType::Cancel),
        (ErrorCondition::ItemNotFound, ErrorType::Cancel),
        (ErrorCondition::RecipientUnavailable, ErrorType::Wait),
        (ErrorCondition::RemoteServerTimeout, ErrorType::Wait),
        (ErrorCondition::SubscriptionRequired, ErrorType::Auth),
        (ErrorCondition::Redirect, ErrorType::Modify),
    ] {
        assert_eq!(condition.usual_type(), kind, "{}", condition.as_str());
    }
}

#[test]
fn errors_answer_only_what_may_be_answered_and_echo_nothing() {
    let reply = |text: &str| read(text).error_reply(StanzaError::new(ErrorCondition::ItemNotFound).with_by("d"));
    let answered = reply("<message from='a@b/r' to='c@d' id='1' type='chat'><body>secret</body></message>").unwrap();
    assert_eq!((answered.from(), answered.to(), answered.id()), (Some("c@d"), Some("a@b/r"), Some("1")));
    let text = write(&answered);
    assert!(!text.contains("secret") && text.contains("type=\"error\"") && text.contains("by=\"d\""), "{text}");
    for kind in ["subscribe", "subscribed", "unsubscribe", "unsubscribed"] {
        assert!(reply(&format!("<presence from='a@b' to='c@d' type='{kind}'/>")).is_some(), "{kind}");
    }
    assert!(reply("<presence from='a@b' to='c@d'/>").is_some());
    assert!(reply("<message from='a@b' to='c@d'><chat xmlns='urn:x'/></message>").is_some());
    for silent in [
        "<message from='a@b' to='c@d' type='error'/>",
        "<message from='a@b' to='c@d' type='headline'><body>x</body></message>",
        "<message to='c@d'><body>no sender</body></message>",
        "<message from='a@b' to='c@d'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>",
        "<message from='a@b' to='c@d'><received xmlns='urn:xmpp:receipts' id='1'/></message>",
        "<message from='a@b' to='c@d'><store xmlns='urn:xmpp:hints'/></message>",
        "<presence from='a@b' to='c@d' type='unavailable'/>",
        "<presence from='a@b' to='c@d' type='probe'/>",
        "<presence from='a@b' to='c@d' type='error'/>",
        "<iq from='a@b' to='c@d' type='result' id='1'/>",
        "<iq from='a@b' to='c@d' type='error' id='1'/>",
    ] {
        assert_eq!(reply(silent), None, "{silent}");
    }
}

#[test]
fn elements_that_are_no_stanzas_are_told_apart_and_bad_requests_answered() {
    for text in ["<handshake/>", "<message xmlns='urn:x'/>", "<a xmlns=''/>", "<presence2/>"] {
        assert_eq!(problem(text).problem, StanzaProblem::NotAStanza, "{text}");
    }
    assert_eq!(problem("<presence type='wild' from='a@b'/>").problem, StanzaProblem::UnknownType);
    assert_eq!(problem("<iq type='get' from='a@b'><q xmlns='urn:q'/></iq>").problem, StanzaProblem::NoId);
    for (text, expected) in [
        ("<iq type='get' id='1' from='a@b' to='c'/>", StanzaProblem::NoRequest),
        ("<iq type='set' id='1' from='a@b' to='c'> </iq>", StanzaProblem::NoRequest),
        ("<iq type='wild' id='1' from='a@b' to='c'/>", StanzaProblem::UnknownType),
        ("<iq id='1' from='a@b' to='c'><q xmlns='urn:q'/></iq>", StanzaProblem::UnknownType),
    ] {
        let UnreadableStanza { problem, reply } = problem(text);
        assert_eq!(problem, expected, "{text}");
        let reply = reply.unwrap();
        assert_eq!((reply.from(), reply.to(), reply.id()), (Some("c"), Some("a@b"), Some("1")));
        assert_eq!(reply.error().unwrap().condition, ErrorCondition::BadRequest);
    }
    assert_eq!(problem("<iq type='get' id='1'/>").reply, None, "nobody to answer");
}

#[test]
fn identifiers_that_xml_cannot_carry_are_refused_and_text_loses_them() {
    let mut encoder = StreamEncoder::new(StreamKind::Component);
    let plain = Message::new(MessageType::Chat, "a@b", "c@d");
    for bad in [
        Message { from: Some("a\0@b".into()), ..plain.clone() },
        Message { to: Some("c@d/\u{1f}".into()), ..plain.clone() },
        plain.clone().with_id("\u{ffff}"),
        Message { lang: Some("e\u{b}n".into()), ..plain.clone() },
        Message { receipt: Some(Receipt::Received("\0".into())), ..plain.clone() },
    ] {
        assert_eq!(encoder.message(&bad), Err(EncodeError::IllegalCharacter), "{bad:?}");
        assert!(encoder.is_empty());
    }
    let text = write(&plain.with_body("a\0b\u{7}<c>").into());
    assert!(text.contains("<body>ab&lt;c&gt;</body>"), "{text}");
}

#[test]
fn line_breaks_and_quotes_in_values_cannot_leave_them() {
    let id = "x\" to=\"evil@b\"/><message>\r\n";
    let stanza = Stanza::Message(Message::new(MessageType::Chat, "a@b", "c@d").with_id(id).with_body("</body>&amp;"));
    let text = write(&stanza);
    assert!(!text.contains("evil@b\"/>"), "{text}");
    assert_eq!(read(&text), stanza);
}

/// Text that XML can carry.
fn text(most: usize) -> impl Strategy<Value = String> {
    let legal = prop::char::any().prop_filter("legal in XML", |c| crate::xml::is_legal(*c));
    let awkward = prop::sample::select(vec!['\r', '\n', '\t', ' ', '<', '&', '"', '\'', ']', '>']);
    prop::collection::vec(prop_oneof![legal, awkward], 0..most).prop_map(String::from_iter)
}

fn lang_texts() -> impl Strategy<Value = Vec<LangText>> {
    let lang = prop_oneof![Just(None), Just(Some(CompactString::from("en"))), Just(Some(CompactString::from("de-CH")))];
    prop::collection::vec((lang, text(6)).prop_map(|(lang, text)| LangText { lang, text }), 0..3)
}

fn address() -> impl Strategy<Value = Option<CompactString>> {
    prop_oneof![Just(None), text(30).prop_map(|text| Some(text.into()))]
}

prop_compose! {
    fn errors()(
        condition in prop::sample::select(ErrorCondition::ALL),
        texts in lang_texts(),
        by in address(),
        uri in "[a-z:@.]{1,20}",
    ) -> StanzaError {
        let moved = matches!(condition, ErrorCondition::Gone | ErrorCondition::Redirect);
        let mut error = StanzaError::new(condition);
        error.text = texts.into_iter().next();
        error.by = by;
        error.uri = moved.then_some(uri);
        error
    }
}

prop_compose! {
    fn messages()(
        (from, to, id) in (address(), address(), address()),
        lang in prop_oneof![Just(None), Just(some("en"))],
        (bodies, subjects) in (lang_texts(), lang_texts()),
        thread in "[a-z0-9]{1,30}",
        chat_state in prop_oneof![Just(None), Just(Some(ChatState::Gone)), Just(Some(ChatState::Composing))],
        receipt in prop_oneof![Just(None), Just(Some(Receipt::Request)), text(9).prop_map(|id| Some(Receipt::Received(id)))],
        stamp in prop_oneof![Just(None), (0..253_402_300_799_999_u64).prop_map(Some)],
        error in errors(),
        kind in prop::sample::select(vec![
            MessageType::Normal, MessageType::Chat, MessageType::Groupchat, MessageType::Headline, MessageType::Error,
        ]),
        payload in any::<bool>(),
    ) -> Message {
        let payloads = payload.then(|| Element::new(Ns::new("urn:x"), name!("x")).with_text("y")).into_iter().collect();
        Message {
            from, to, id, kind, lang, bodies, subjects, chat_state, receipt, payloads,
            thread: Some(thread.into()),
            delay: stamp.map(|at| Delay { from: None, stamp: Stamp(EpochMillis(at)) }),
            replace: None,
            error: (kind == MessageType::Error).then_some(error),
            other_attributes: Vec::new(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn messages_survive_the_wire(message in messages()) {
        let stanza = Stanza::Message(message);
        prop_assert_eq!(read(&write(&stanza)), stanza);
    }

    #[test]
    fn reading_arbitrary_children_never_panics_and_writing_them_loses_nothing(
        parts in prop::collection::vec(prop::sample::select(vec![
            "<body>a<b/>c</body>", "<body xml:lang=''/>", "<subject/>", "<thread>t</thread>", "<error/>", "text",
            "<error type='auth'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>", "<show>xa</show>",
            "<status>s</status>", "<priority>1</priority>", "<delay xmlns='urn:xmpp:delay' stamp='x'/>",
            "<delay xmlns='urn:xmpp:delay' stamp='2026-01-02T03:04:05Z'/>", "<nick xmlns='http://jabber.org/protocol/nick'/>",
            "<active xmlns='http://jabber.org/protocol/chatstates'/>", "<request xmlns='urn:xmpp:receipts'/>",
            "<x xmlns='urn:x'><y>z</y></x>", "<ping xmlns='urn:xmpp:ping'/>",
        ]), 0..6),
        name in prop::sample::select(vec!["message", "presence", "iq"]),
        kind in prop::sample::select(vec!["", "error", "chat", "get", "result", "subscribe"]),
    ) {
        let text = format!("<{name} id='1' from='a@b' to='c@d' type='{kind}'>{}</{name}>", parts.concat());
        let element = read_element(text.as_bytes(), &Limits::COMPONENT).unwrap();
        if let Ok(stanza) = Stanza::read(element) {
            prop_assert_eq!(read(&write(&stanza)), stanza);
        }
    }
}
