use super::*;

#[test]
fn prosody_accepts_a_subscription() {
    let mut lab = Lab::ready();
    lab.send(Presence::new(PresenceType::Subscribe, "ana@partner.example", "juliet@corp.example")).unwrap();
    assert_eq!(
        lab.sent(),
        "<presence from=\"ana@partner.example\" to=\"juliet@corp.example\" type=\"subscribe\"></presence>"
    );
    lab.receive("<presence type='unavailable' from='juliet@corp.example' to='ana@partner.example'/>");
    lab.receive(
        "<presence type='subscribed' from='juliet@corp.example' to='ana@partner.example'/>\
         <presence to='ana@partner.example' from='juliet@corp.example/home' xml:lang='en'><show>dnd</show>\
         <delay xmlns='urn:xmpp:delay' from='corp.example' stamp='2026-01-02T03:04:05Z'/></presence>\
         <presence type='probe' from='juliet@corp.example' to='ana@partner.example'/>",
    );
    let events = lab.events();
    assert_eq!(
        kinds(&events),
        [
            (PresenceType::Unavailable, "juliet@corp.example"),
            (PresenceType::Subscribed, "juliet@corp.example"),
            (PresenceType::Available, "juliet@corp.example/home"),
            (PresenceType::Probe, "juliet@corp.example"),
        ]
    );
}

#[test]
fn prosody_removes_a_contact_from_a_full_address() {
    let mut lab = Lab::ready();
    for kind in ["unsubscribed", "unavailable", "unsubscribe"] {
        lab.receive(format!("<presence type='{kind}' to='ana@partner.example' from='juliet@corp.example/home'/>"));
    }
    let events = lab.events();
    assert_eq!(kinds(&events).len(), 3);
    assert!(kinds(&events).iter().all(|(_, from)| *from == "juliet@corp.example/home"));
}

#[test]
fn several_stanzas_in_one_read_and_one_stanza_in_many_reads() {
    let mut lab = Lab::ready();
    let one = "<message type='chat' from='juliet@corp.example/home' to='ana@partner.example' id='x1' xml:lang='en'>\
        <body>h\u{e4}</body></message>";
    lab.receive(format!("{one} {one}\n{one}"));
    assert_eq!(stanzas(&lab.events()).len(), 3);
    for byte in one.as_bytes() {
        assert_eq!(lab.events(), []);
        lab.receive([*byte]);
    }
    assert_eq!(stanzas(&lab.events()).len(), 1);
}

#[test]
fn jabberd2_writes_client_stanzas_and_asks_for_disco() {
    let mut lab = Lab::ready();
    lab.receive(
        "<iq xmlns='jabber:client' type='get' from='sm' to='partner.example' id='d1'>\
         <query xmlns='http://jabber.org/protocol/disco#info'/></iq>\
         <presence xmlns='jabber:client' from='juliet@corp.example/home' to='ana@partner.example'><show>away</show>\
         <status>x</status></presence>\
         <presence xmlns='jabber:client' type='subscribed' from='juliet@corp.example' to='ana@partner.example'/>\
         <presence xmlns='jabber:client' type='unavailable' from='juliet@corp.example' to='ana@partner.example'>\
         <show>away</show></presence>",
    );
    let events = lab.events();
    let [Stanza::Iq(iq), presences @ ..] = &stanzas(&events)[..] else { panic!("{events:?}") };
    assert!(iq.request().unwrap().1.is(ns::DISCO_INFO, "query"));
    assert_eq!(presences.len(), 3);
    // the answer is the caller's; it can be made of our types
    let info = crate::payload::DiscoInfo {
        node: None,
        identities: vec![crate::payload::Identity { category: "gateway".into(), kind: "simple".into(), name: None }],
        features: vec![crate::payload::Feature { namespace: ns::PING.into() }],
    };
    let answer = iq.result(Some(Element::write(&info).unwrap())).unwrap();
    lab.send(answer).unwrap();
    assert_eq!(
        lab.sent(),
        "<iq from=\"partner.example\" to=\"sm\" id=\"d1\" type=\"result\">\
         <query xmlns=\"http://jabber.org/protocol/disco#info\"><identity category=\"gateway\" type=\"simple\"/>\
         <feature var=\"urn:xmpp:ping\"/></query></iq>"
    );
}

#[test]
fn ejabberd_returns_errors_with_the_original_body() {
    let mut lab = Lab::ready();
    lab.message(1).unwrap();
    lab.drain_outputs();
    let (id, _) = lab.ping();
    lab.receive(
        "<message to='ana@partner.example' from='juliet@corp.example' type='error' id='m1' xml:lang='en'><body>hi</body>\
         <error code='503' type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
         <text xml:lang='en' xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>User session not found</text></error></message>",
    );
    lab.pong(&id);
    let [Event::Delivery(BarrierToken(1), Delivery::Bounced(error))] = &lab.events()[..] else { panic!() };
    assert_eq!(error.condition, ErrorCondition::ServiceUnavailable);
    assert_eq!(error.text.as_ref().unwrap().text, "User session not found");
}

#[test]
fn pings_to_the_component_are_answered() {
    let mut lab = Lab::ready();
    lab.receive(
        "<iq type='get' id='p' from='juliet@corp.example/h' to='partner.example'><ping xmlns='urn:xmpp:ping'/></iq>",
    );
    assert_eq!(lab.sent(), "<iq from=\"partner.example\" to=\"juliet@corp.example/h\" id=\"p\" type=\"result\"></iq>");
    assert_eq!(lab.events(), []);
    // one to a person there is the caller's
    lab.receive(
        "<iq type='get' id='p' from='a@corp.example' to='ana@partner.example'><ping xmlns='urn:xmpp:ping'/></iq>",
    );
    assert_eq!(stanzas(&lab.events()).len(), 1);
}

#[test]
fn stanzas_for_another_domain_get_item_not_found_from_the_component() {
    let mut lab = Lab::ready();
    lab.receive("<message from='juliet@corp.example' to='x@other.example' id='1'><body>x</body></message>");
    let sent = lab.sent();
    assert!(
        sent.starts_with("<message from=\"partner.example\" to=\"juliet@corp.example\" id=\"1\" type=\"error\">"),
        "{sent}"
    );
    assert!(sent.contains("<item-not-found "), "{sent}");
    lab.receive("<presence type='probe' from='juliet@corp.example' to='sub.partner.example'/>");
    assert_eq!(lab.sent(), "", "a probe is not answered");
    assert_eq!(lab.events(), [Event::Ignored(Ignored::ForeignRecipient), Event::Ignored(Ignored::ForeignRecipient)]);
}

#[test]
fn unknown_elements_and_broken_stanzas_do_not_end_the_link() {
    let mut lab = Lab::ready();
    lab.receive("<wild xmlns='urn:x'><a/></wild><handshake/><message/><presence from='a@b' to='c@partner.example' type='wild'/>");
    lab.receive("<iq from='a@corp.example' to='partner.example' type='get' id='7'/>");
    let unreadable = |problem| Event::Ignored(Ignored::Unreadable(problem));
    assert_eq!(
        lab.events(),
        [
            unreadable(StanzaProblem::NotAStanza),
            unreadable(StanzaProblem::NotAStanza),
            Event::Ignored(Ignored::Unaddressed),
            unreadable(StanzaProblem::UnknownType),
            unreadable(StanzaProblem::NoRequest),
        ]
    );
    let sent = lab.sent();
    assert!(sent.contains("id=\"7\" type=\"error\"") && sent.contains("<bad-request "), "{sent}");
    assert!(lab.link.is_ready());
}
