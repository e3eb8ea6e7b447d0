//! Dialogs (RFC 3261 §12, RFC 6665 §4.4).

use isthmus_sip::dialog::{Dialog, DialogError, DialogState, NewDialog, RefuseInDialog};
use isthmus_sip::{Address, Host, Message, Method, StatusCode};

use crate::side::{parse, request, with_headers};

const ROUTES: &str = "Record-Route: <sip:p2.partner.example;lr>, <sip:p1.partner.example;lr>;x=\"a,b\"\r\n\
                      Record-Route: <sip:edge.partner.example:5061;transport=tls;lr>\r\n";

fn opening(method: &str, headers: &str) -> Message {
    parse(&with_headers(method, "z9hG4bKa", headers))
}

fn uas(headers: &str) -> Dialog {
    Dialog::uas(&opening("INVITE", headers), "g44", "<sip:lee@fed.corp.example:5061;transport=tls>", true).unwrap()
}

/// A request of the peer inside the dialog of [`uas`].
fn inside(method: &str, cseq: u32, contact: &str) -> Message {
    let text = request(method, "z9hG4bKb")
        .replace("To: <sip:lee@corp.example>", "To: <sip:lee@corp.example>;tag=g44")
        .replace("CSeq: 5", &format!("CSeq: {cseq}"))
        .replace("Contact: <sip:ana@edge.partner.example>", contact);
    parse(&text)
}

fn half() -> Dialog {
    Dialog::half(&NewDialog {
        call_id: "0d6b",
        local_tag: "7c1e",
        local: Address { display: Some("Lee \"the\" Li"), ..Address::new("sip:lee@corp.example") },
        remote: Address::new("sip:ana@partner.example"),
        target: "sip:ana@partner.example",
        local_contact: "<sip:lee@fed.corp.example>",
        secure: false,
    })
}

fn sent(writer: isthmus_sip::RequestWriter) -> Message {
    let mut text = String::from_utf8(writer.finish(b"").unwrap().to_vec()).unwrap();
    // the endpoint adds Via
    text = text.replacen("\r\n", "\r\nVia: SIP/2.0/TLS fed.corp.example;branch=z9hG4bKours\r\n", 1);
    parse(&text)
}

fn routes(message: &Message) -> Vec<String> {
    message.routes().map(|route| route.unwrap().uri_str().to_owned()).collect()
}

// S-16, S-18, S-33
#[test]
fn a_request_of_the_callee_has_route_target_tags_and_the_next_cseq() {
    let mut dialog = uas(ROUTES);
    for cseq in 1..4 {
        let message = sent(dialog.request(Method::Message));
        assert_eq!(message.request_uri(), "sip:ana@edge.partner.example");
        let spelled: Vec<_> = message.headers(isthmus_sip::HeaderName::Route).collect();
        assert_eq!(
            spelled,
            [
                "<sip:p2.partner.example;lr>",
                "<sip:p1.partner.example;lr>;x=\"a,b\"",
                "<sip:edge.partner.example:5061;transport=tls;lr>"
            ]
        );
        assert_eq!(message.from_().to_string(), "<sip:lee@corp.example>;tag=g44");
        assert_eq!(message.to().to_string(), "<sip:ana@partner.example>;tag=w91");
        assert_eq!(message.call_id(), "9d1f");
        assert_eq!(message.cseq().number, cseq);
        assert_eq!(message.max_forwards(), Ok(Some(70)));
    }
}

#[test]
fn contact_is_in_requests_and_answers_that_refresh_the_target_only() {
    let mut dialog = uas("");
    for method in [Method::Invite, Method::Subscribe, Method::Notify] {
        let message = sent(dialog.request(method));
        assert_eq!(message.header(isthmus_sip::HeaderName::Contact), Some(dialog.local_contact()));
    }
    for method in [Method::Message, Method::Bye, Method::Info] {
        assert!(sent(dialog.request(method)).contact().unwrap().is_none(), "{method}");
    }
    for (method, has) in [("MESSAGE", false), ("BYE", false), ("INVITE", true), ("SUBSCRIBE", true)] {
        let answer = dialog.answer(&inside(method, 9, ""), StatusCode::OK).finish(b"").unwrap();
        let answer = parse(std::str::from_utf8(&answer).unwrap());
        assert_eq!(answer.contact().unwrap().is_some(), has, "{method}");
    }
}

// S-15, S-17
#[test]
fn the_opening_answer_copies_record_route_in_order_and_adds_none() {
    for headers in [ROUTES, ""] {
        let invite = opening("INVITE", headers);
        let dialog = uas(headers);
        let answer = dialog.opening_answer(&invite, StatusCode::OK).finish(b"").unwrap();
        let answer = parse(std::str::from_utf8(&answer).unwrap());
        let of = |message: &Message| -> Vec<String> {
            message.headers(isthmus_sip::HeaderName::RecordRoute).map(str::to_owned).collect()
        };
        assert_eq!(of(&answer), of(&invite));
        assert_eq!(answer.to().tag(), Some("g44"));
        assert_eq!(answer.header(isthmus_sip::HeaderName::Contact), Some(dialog.local_contact()));
    }
    assert_eq!(sent(uas(ROUTES).request(Method::Invite)).record_routes().count(), 0);
}

// S-16
#[test]
fn a_strict_router_gets_the_rewritten_form() {
    let mut dialog =
        uas("Record-Route: <sip:strict.partner.example;method=INVITE;x=1?Subject=a>, <sip:p1.partner.example;lr>\r\n");
    let message = sent(dialog.request(Method::Bye));
    assert_eq!(message.request_uri(), "sip:strict.partner.example;x=1");
    assert_eq!(routes(&message), ["sip:p1.partner.example;lr", "sip:ana@edge.partner.example"]);
    assert_eq!(dialog.next_hop(), "sip:strict.partner.example;method=INVITE;x=1?Subject=a");
}

#[test]
fn addresses_keep_the_spelling_of_the_first_request() {
    let text = with_headers("SUBSCRIBE", "z9hG4bKa", "")
        .replace(
            "From: <sip:ana@partner.example>;tag=w91",
            "From: \"Ana, \\\"A\\\"\" <sip:Ana@Partner.example;x=y>;epid=01;tag=w91;q",
        )
        .replace("To: <sip:lee@corp.example>", "To: sip:Lee@corp.EXAMPLE;z=1");
    let mut dialog = Dialog::uas(&parse(&text), "g44", "<sip:lee@fed.corp.example>", false).unwrap();
    let message = sent(dialog.request(Method::Notify));
    let raw = |name| message.header(name).unwrap().to_owned();
    assert_eq!(raw(isthmus_sip::HeaderName::To), "\"Ana, \\\"A\\\"\" <sip:Ana@Partner.example;x=y>;epid=01;q;tag=w91");
    assert_eq!(raw(isthmus_sip::HeaderName::From), "<sip:Lee@corp.EXAMPLE>;z=1;tag=g44");
    let mut half = half();
    assert_eq!(half.local(), "\"Lee \\\"the\\\" Li\" <sip:lee@corp.example>");
    assert_eq!(sent(half.request(Method::Subscribe)).to().tag(), None);
}

#[test]
fn the_caller_s_routes_are_those_of_the_2xx_reversed() {
    let mut dialog = half();
    let invite = sent(dialog.request(Method::Invite));
    assert_eq!((dialog.state(), dialog.local_cseq()), (DialogState::Half, 1));
    let ok = |tag: &str, headers: &str| {
        let text =
            isthmus_sip::ResponseWriter::for_request(&invite, StatusCode::OK, None, Some(tag)).finish(b"").unwrap();
        let text =
            String::from_utf8(text.to_vec()).unwrap().replace("Content-Length", &format!("{headers}Content-Length"));
        parse(&text)
    };
    let contact = "Contact: <sip:ana@10.0.0.9:5062>;expires=3\r\n";
    let dialog = dialog.confirmed_by(&ok("e2f7", &format!("{ROUTES}{contact}"))).unwrap();
    assert_eq!(dialog.state(), DialogState::Confirmed);
    assert_eq!((dialog.remote_tag(), dialog.remote_target()), ("e2f7", "sip:ana@10.0.0.9:5062"));
    assert_eq!(dialog.next_hop(), "sip:edge.partner.example:5061;transport=tls;lr");

    // RFC 3261 §13.2.2.4: the ACK has the INVITE's number, whatever was sent since
    let mut dialog = dialog;
    dialog.request(Method::Message);
    let ack = sent(dialog.ack());
    assert_eq!((ack.cseq().number, ack.method(), ack.request_uri()), (1, Method::Ack, "sip:ana@10.0.0.9:5062"));
    assert_eq!(ack.to().tag(), Some("e2f7"));
    assert!(ack.contact().unwrap().is_none());

    assert_eq!(dialog.confirmed_by(&ok("e2f7", "")), Err(DialogError::Contact));
    assert_eq!(dialog.confirmed_by(&ok("e2f7", "Contact: *\r\n")), Err(DialogError::Contact));
    assert_eq!(dialog.confirmed_by(&ok("e2f7", "Contact: <tel:+1>\r\n")), Err(DialogError::ContactScheme));
    let foreign = format!("{contact}Record-Route: <mailto:x@y>\r\n");
    assert_eq!(dialog.confirmed_by(&ok("e2f7", &foreign)), Err(DialogError::RecordRoute));
}

// P-28
#[test]
fn the_subscriber_s_routes_are_those_of_the_notify_in_order() {
    let half = half();
    let notify = |headers: &str| {
        parse(
            &with_headers("NOTIFY", "z9hG4bKn", headers)
                .replace("Call-ID: 9d1f", "Call-ID: 0d6b")
                .replace("To: <sip:lee@corp.example>", "To: <sip:lee@corp.example>;tag=7c1e"),
        )
    };
    assert!(half.matches_request(&notify("")));
    let mut dialog = half.subscribed_by(&notify(ROUTES)).unwrap();
    assert_eq!(dialog.next_hop(), "sip:p2.partner.example;lr");
    assert_eq!(dialog.route_set().len(), 3);
    assert_eq!((dialog.remote_tag(), dialog.remote_target()), ("w91", "sip:ana@edge.partner.example"));
    assert_eq!(dialog.remote_cseq(), Some(5));

    // another notifier's NOTIFY is of no dialog of ours any more (P-27)
    let other = parse(&String::from_utf8(notify("").as_bytes().to_vec()).unwrap().replace("tag=w91", "tag=w92"));
    assert!(half.matches_request(&other));
    assert!(!dialog.matches_request(&other));

    // the routes of a later NOTIFY do not matter, its Contact does (S-18)
    let next = String::from_utf8(notify("Record-Route: <sip:new.example;lr>\r\n").as_bytes().to_vec()).unwrap();
    let next =
        next.replace("CSeq: 5", "CSeq: 6").replace("<sip:ana@edge.partner.example>", "<sip:ana@edge2.partner.example>");
    dialog.accept_request(&parse(&next)).unwrap();
    assert_eq!(dialog.route_set().len(), 3);
    assert_eq!(dialog.remote_target(), "sip:ana@edge2.partner.example");
}

// S-11
#[test]
fn a_lower_cseq_gets_500_and_a_gap_is_accepted() {
    let mut dialog = uas("");
    assert_eq!(dialog.accept_request(&inside("MESSAGE", 4, "")), Err(RefuseInDialog::OutOfOrder));
    assert_eq!(RefuseInDialog::OutOfOrder.status().code(), 500);
    assert_eq!(dialog.accept_request(&inside("MESSAGE", 5, "")), Err(RefuseInDialog::Repeated));
    assert_eq!(dialog.accept_request(&inside("MESSAGE", 9, "")), Ok(()));
    assert_eq!(dialog.accept_request(&inside("MESSAGE", 8, "")), Err(RefuseInDialog::OutOfOrder));
    assert_eq!(dialog.remote_cseq(), Some(9));
}

// S-18
#[test]
fn only_some_methods_move_the_target_and_none_the_routes() {
    let mut dialog = uas(ROUTES);
    let mut cseq = 5;
    for (method, moves) in
        [("INVITE", true), ("SUBSCRIBE", true), ("NOTIFY", true), ("MESSAGE", false), ("INFO", false), ("BYE", false)]
    {
        cseq += 1;
        let contact = format!("Contact: <sip:ana@h{cseq}.partner.example>\r\nRecord-Route: <sip:evil.example;lr>");
        dialog.accept_request(&inside(method, cseq, &contact)).unwrap();
        assert_eq!(dialog.remote_target() == format!("sip:ana@h{cseq}.partner.example"), moves, "{method}");
        assert_eq!(dialog.next_hop(), "sip:p2.partner.example;lr");
    }
    let before = dialog.clone();
    let bad = dialog.accept_request(&inside("INVITE", 90, "Contact: *"));
    assert_eq!(bad, Err(RefuseInDialog::Target(DialogError::Contact)));
    assert_eq!(dialog, before);
}

#[test]
fn a_next_hop_outside_of_the_peer_s_names_is_refused() {
    let own = |host: Host<'_>| host.name().is_some_and(|name| name.ends_with("partner.example"));
    assert_eq!(uas("").check_next_hop(own), Ok(()));
    assert_eq!(uas(ROUTES).check_next_hop(own), Ok(()));
    let foreign = uas("Record-Route: <sip:victim.example;lr>\r\n").check_next_hop(own).unwrap_err();
    assert_eq!(foreign.uri, "sip:victim.example;lr");
    let mut dialog = uas("");
    dialog.accept_request(&inside("INVITE", 6, "Contact: <sip:ana@192.0.2.66>")).unwrap();
    assert_eq!(dialog.check_next_hop(own).unwrap_err().uri, "sip:ana@192.0.2.66");
}

#[test]
fn a_request_without_tag_or_contact_makes_no_dialog() {
    let text = request("INVITE", "z9hG4bKa");
    for (from, to, error) in [
        (";tag=w91", "", DialogError::Tag),
        ("Contact: <sip:ana@edge.partner.example>\r\n", "", DialogError::Contact),
        ("edge.partner.example>\r\nMax", "edge.partner.example>, <sip:b@c>\r\nMax", DialogError::Contact),
        ("Contact: <sip", "Contact: <mailto", DialogError::ContactScheme),
    ] {
        let message = parse(&text.replace(from, to));
        assert_eq!(Dialog::uas(&message, "g44", "<sip:us>", false), Err(error), "{from}");
    }
}

#[test]
fn a_secure_dialog_is_one_of_sips_over_tls() {
    let sips = parse(&request("INVITE", "z9hG4bKa").replace("INVITE sip:", "INVITE sips:"));
    assert!(Dialog::uas(&sips, "t", "<sips:us>", true).unwrap().is_secure());
    assert!(!Dialog::uas(&sips, "t", "<sips:us>", false).unwrap().is_secure());
    assert!(!uas("").is_secure());
}

#[test]
fn dialogs_match_by_their_three_names() {
    let dialog = uas("");
    assert!(dialog.matches("9d1f", "g44", Some("w91")));
    for (call_id, local, remote) in [
        ("9D1F", "g44", Some("w91")),
        ("9d1f", "g45", Some("w91")),
        ("9d1f", "g44", Some("w92")),
        ("9d1f", "g44", None),
    ] {
        assert!(!dialog.matches(call_id, local, remote));
    }
}

#[test]
fn a_record_survives_the_store_and_goes_on_counting() {
    let mut dialog = uas(ROUTES);
    dialog.request(Method::Notify);
    let bytes = minicbor::to_vec(&dialog).unwrap();
    let mut read: Dialog = minicbor::decode(&bytes).unwrap();
    assert_eq!(read, dialog);
    assert_eq!(sent(read.request(Method::Notify)).cseq().number, 2);
    assert!(minicbor::decode::<Dialog>(&bytes[..bytes.len() - 1]).is_err());
}
