use super::*;

#[test]
fn nothing_is_written_for_a_sender_outside_the_domain() {
    //
    let mut lab = Lab::ready();
    let chat = |from: &str| Message::new(MessageType::Chat, from, "juliet@corp.example").with_id("1");
    for from in
        ["ana@other.example", "ana@sub.partner.example", "partner.example.evil", "", "partner.example@corp.example/x"]
    {
        assert_eq!(lab.send(chat(from)), Err(SendError::ForeignFrom), "{from}");
        let by_barrier = lab.link.send_with_barrier(lab.now, &chat(from), BarrierToken(1));
        assert_eq!(by_barrier, Err(SendError::ForeignFrom));
        let tree = Element::new(Ns::CONTENT, name!("message")).with_attribute(name!("from"), from);
        assert_eq!(lab.link.send_element(lab.now, &tree), Err(SendError::ForeignFrom));
    }
    let nobody = Message { from: None, ..chat("ana@partner.example") };
    assert_eq!(lab.send(nobody), Err(SendError::ForeignFrom));
    let to_nobody = Message { to: None, ..chat("ana@partner.example") };
    assert_eq!(lab.send(to_nobody), Err(SendError::NoRecipient));
    lab.drain_outputs();
    assert_eq!((lab.sent().as_str(), lab.link.outstanding()), ("", 0));
    lab.send(chat("ana@partner.example/phone")).unwrap();
    lab.send(chat("partner.example")).unwrap();
    assert_eq!(lab.sent().matches("<message ").count(), 2);
}

#[test]
fn nothing_is_sent_before_and_after_the_link_is_ready() {
    let mut lab = Lab::new();
    assert_eq!(lab.message(1), Err(SendError::NotReady));
    lab.receive(HEADER);
    assert_eq!(lab.message(1), Err(SendError::NotReady));
    let mut lab = Lab::ready();
    lab.link.close(lab.now);
    lab.drain_outputs();
    assert_eq!(lab.sent(), "</stream:stream>");
    assert_eq!(lab.message(1), Err(SendError::NotReady));
    assert!(!SendError::NotReady.is_permanent() && SendError::ForeignFrom.is_permanent());
}

#[test]
fn what_is_too_large_or_cannot_be_written_is_refused_whole() {
    let mut lab = Lab::ready_with(|config| config.send_max_bytes = 1000);
    let message = |text: String| {
        Message::new(MessageType::Chat, "ana@partner.example", "juliet@corp.example").with_id("1").with_body(text)
    };
    assert_eq!(lab.send(message("x".repeat(1000))), Err(SendError::TooLarge { limit: 1000 }));
    assert_eq!(lab.send(message("&".repeat(200))), Err(SendError::TooLarge { limit: 1000 }));
    let illegal = message(String::new()).with_id("\0");
    assert_eq!(lab.send(illegal), Err(SendError::Encode(EncodeError::IllegalCharacter)));
    assert_eq!(lab.sent(), "");
    lab.send(message("x".repeat(800))).unwrap();
    assert!(lab.sent().len() > 800);
}

#[test]
fn bytes_that_nobody_takes_are_bounded() {
    let mut lab = Lab::ready_with(|config| config.buffer_max_bytes = 10_000);
    let sent = (0..1000).take_while(|number| lab.message(*number).is_ok()).count();
    assert!((50..150).contains(&sent), "{sent}");
    assert_eq!(lab.message(1000), Err(SendError::Full));
    // replies to what comes in are bounded as well
    let ping = "<iq type='get' id='p' from='a@corp.example' to='partner.example'><ping xmlns='urn:xmpp:ping'/></iq>";
    lab.link.handle_bytes(lab.now, ping.repeat(1000).as_bytes());
    lab.drain_outputs();
    assert!(lab.sent().len() < 11_000);
    assert_eq!(lab.message(1000), Ok(()));
}

#[test]
fn a_tree_from_elsewhere_is_sent_as_it_is() {
    let mut lab = Lab::ready();
    let text = "<message from=\"ana@partner.example\" to=\"juliet@corp.example\"><body>x</body></message>";
    let tree = crate::codec::read_element(text.as_bytes(), &crate::codec::Limits::COMPONENT).unwrap();
    lab.link.send_element(lab.now, &tree).unwrap();
    lab.drain_outputs();
    assert_eq!(lab.sent(), text);
}
