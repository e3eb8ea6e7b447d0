//! Requests that come in: matching, ways of answers, refusals (interworking specification §6.1-6.3, §6.11).

use bytes::Bytes;
use isthmus_sip::endpoint::checks::{answer_options, refuse_method, refuse_require};
use isthmus_sip::endpoint::{Destination, EndpointConfig, Event, FlowId, Origin, RespondError, SentBy, Source};
use isthmus_sip::{Limits, Message, Transport};

use crate::side::{
    Sent, Side, address, answer, config, outgoing, parse, reply, request, source, tls, udp, with_headers,
};

// S-06
#[test]
fn received_and_rport_are_filled_and_steer_udp_answers() {
    for (via, filled, port) in [
        (";branch=z9hG4bKa", ";branch=z9hG4bKa;received=192.0.2.20", 5062),
        (";rport;branch=z9hG4bKa", ";branch=z9hG4bKa;received=192.0.2.20;rport=5070", 5070),
    ] {
        let mut side = Side::new();
        side.receive(udp(), &request("MESSAGE", "z9hG4bKa").replace(";branch=z9hG4bKa", via));
        let (tx, message) = side.request();
        side.respond(tx, &message, 200);
        let sent = side.take_sent().pop().unwrap();
        assert_eq!(sent.header("Via"), [format!("SIP/2.0/UDP edge.partner.example:5062{filled}")]);
        let remote = address(&format!("192.0.2.20:{port}"));
        assert_eq!(sent.destination, Destination::Flow { flow: FlowId(7), transport: Transport::Udp, remote });
    }
    let mut side = Side::new();
    let same = request("MESSAGE", "z9hG4bKa").replace("edge.partner.example:5062", "192.0.2.20");
    side.receive(udp(), &same);
    let (tx, message) = side.request();
    side.respond(tx, &message, 200);
    let sent = side.take_sent().pop().unwrap();
    assert_eq!(sent.header("Via"), ["SIP/2.0/UDP 192.0.2.20;branch=z9hG4bKa"]);
    assert_eq!(sent.destination.remote(), address("192.0.2.20:5060"));
}

// S-04, S-05
#[test]
fn an_answer_leaves_on_the_request_s_connection_while_that_is_open() {
    let mut side = Side::new();
    let text = request("MESSAGE", "z9hG4bKa").replace("SIP/2.0/UDP", "SIP/2.0/TLS");
    side.receive(tls(), &text);
    let (tx, message) = side.request();
    side.respond(tx, &message, 200);
    assert_eq!(side.take_sent().pop().unwrap().destination, tls().into());

    side.endpoint.handle_flow_closed(side.now(), tls().flow);
    side.receive(source(Transport::Udp), &text);
    // a repetition from nowhere does not matter; what counts is the next request whose connection goes
    side.take_sent();
    for (sent_by, port) in [("edge.partner.example:5062", 5062), ("edge.partner.example", 5061)] {
        let mut side = Side::new();
        side.receive(tls(), &text.replace("edge.partner.example:5062", sent_by));
        let (tx, message) = side.request();
        side.endpoint.handle_flow_closed(side.now(), tls().flow);
        side.respond(tx, &message, 200);
        let remote = address(&format!("192.0.2.20:{port}"));
        let expected = Destination::Address { transport: Transport::Tls, remote, instead_of: tls().flow };
        assert_eq!(side.take_sent().pop().unwrap().destination, expected);
    }
}

// S-05
#[test]
fn an_answer_that_could_not_be_sent_is_tried_once_by_a_new_connection() {
    let mut side = Side::new();
    side.receive(tls(), &request("MESSAGE", "z9hG4bKa"));
    let (tx, message) = side.request();
    side.respond(tx, &message, 200);
    let failed = side.take_sent().pop().unwrap();
    side.endpoint.handle_send_failed(side.now(), failed.origin);
    side.drain();
    let again = side.take_sent().pop().unwrap();
    assert_eq!(again.text, failed.text);
    let remote = address("192.0.2.20:5062");
    assert_eq!(again.destination, Destination::Address { transport: Transport::Tls, remote, instead_of: tls().flow });
    side.endpoint.handle_send_failed(side.now(), again.origin);
    side.drain();
    assert!(side.sent.is_empty());
    assert_eq!(side.endpoint.stats().lost_responses, 1);
    assert_eq!(again.origin, Origin::Server(tx));
}

// S-05
#[test]
fn answers_to_what_comes_on_a_connection_that_is_closed_for_us_leave_by_another_one() {
    let mut side = Side::new();
    let remote = address("192.0.2.20:5062");
    let expected = Destination::Address { transport: Transport::Tls, remote, instead_of: tls().flow };
    let closed = Source { takes_answers: false, ..tls() };
    side.receive(closed, &request("MESSAGE", "z9hG4bKa"));
    let (tx, message) = side.request();
    side.respond(tx, &message, 200);
    assert_eq!(side.take_sent().pop().unwrap().destination, expected);
    // Also those that need no transaction.
    side.receive(closed, &request("MESSAGE", "z9hG4bKb").replace("Max-Forwards: 70", "Max-Forwards: 0"));
    let refused = side.take_sent().pop().unwrap();
    assert_eq!((refused.what(), refused.destination), ("483", expected));
}

// S-02
#[test]
fn the_same_request_by_another_way_gets_482_while_the_first_runs() {
    let mut side = Side::new();
    side.receive(udp(), &request("MESSAGE", "z9hG4bKa"));
    side.request();
    side.receive(udp(), &request("MESSAGE", "z9hG4bKb"));
    assert_eq!(side.log(), "482@0");
    assert!(side.events.is_empty());
}

// S-03
#[test]
fn afterwards_it_gets_the_same_answer_with_its_own_via() {
    for source in [udp(), tls()] {
        let mut side = Side::new();
        side.receive(source, &request("MESSAGE", "z9hG4bKa"));
        let (tx, message) = side.request();
        side.respond(tx, &message, 404);
        let first = side.take_sent().pop().unwrap();
        side.run_to(31_999);
        let second = request("MESSAGE", "z9hG4bKb").replace("edge.partner", "other.partner");
        side.receive(source, &second);
        let again = side.take_sent().pop().unwrap();
        assert_eq!(again.header("Via"), ["SIP/2.0/UDP other.partner.example:5062;branch=z9hG4bKb;received=192.0.2.20"]);
        assert_eq!(again.what(), "404");
        assert_eq!(again.header("To"), first.header("To"));
        assert!(side.events.is_empty(), "not executed again");
        side.run_to(32_000);
        side.receive(source, &second);
        side.request();
    }
}

#[test]
fn another_cseq_tag_or_method_is_another_request() {
    let mut side = Side::new();
    let text = request("MESSAGE", "z9hG4bKa");
    side.receive(udp(), &text);
    side.request();
    for (branch, from, to) in
        [("b", "CSeq: 5", "CSeq: 6"), ("c", "tag=w91", "tag=w92"), ("d", "Call-ID: 9d1f", "Call-ID: 9d1e")]
    {
        side.receive(udp(), &request("MESSAGE", &format!("z9hG4bK{branch}")).replace(from, to));
        side.request();
    }
    side.receive(udp(), &request("INFO", "z9hG4bKe"));
    side.request();
    assert_eq!(side.log(), "");
}

#[test]
fn a_branch_without_the_cookie_is_matched_by_the_older_rules() {
    let mut side = Side::new();
    let invite = request("INVITE", "1");
    side.receive(udp(), &invite);
    let (tx, message) = side.request();
    side.respond(tx, &message, 486);
    side.receive(udp(), &invite);
    let ack = request("ACK", "1").replace("To: <sip:lee@corp.example>", "To: <sip:lee@corp.example>;tag=our-tag");
    side.receive(udp(), &ack);
    side.run_to(3000);
    assert_eq!(side.log(), "486@0 486@0");
    // clients of that age use one branch for all their requests
    side.receive(udp(), &request("INVITE", "1").replace("CSeq: 5", "CSeq: 6"));
    side.request();
}

#[test]
fn one_branch_of_two_senders_is_two_requests() {
    let mut side = Side::new();
    side.receive(udp(), &request("MESSAGE", "z9hG4bKa"));
    side.request();
    let other = request("MESSAGE", "z9hG4bKa").replace("edge.partner", "edge2.partner").replace("9d1f", "77");
    side.receive(udp(), &other);
    side.request();
    let shouted = request("MESSAGE", "z9hG4bKa").replace("edge.partner", "EDGE.Partner");
    side.receive(udp(), &shouted);
    assert!(side.events.is_empty(), "sent-by compares without case");
}

// S-33
#[test]
fn max_forwards_zero_gets_483_but_options_may_pass() {
    let mut side = Side::new();
    side.receive(udp(), &with_headers("MESSAGE", "z9hG4bKa", "Max-Forwards: 0\r\n"));
    assert_eq!(side.log(), "483@0");
    assert!(side.events.is_empty());
    side.receive(udp(), &with_headers("OPTIONS", "z9hG4bKb", "Max-Forwards: 0\r\n"));
    side.request();
    side.receive(udp(), &with_headers("MESSAGE", "z9hG4bKc", ""));
    side.request();
    side.receive(udp(), &with_headers("INFO", "z9hG4bKd", "Max-Forwards: 1\r\n"));
    side.request();
    side.receive(udp(), &with_headers("BYE", "z9hG4bKe", "Max-Forwards: many\r\n"));
    assert_eq!(side.log(), "400@0");
}

// S-34
#[test]
fn our_own_name_in_any_via_gets_482() {
    for via in [
        "Via: SIP/2.0/TLS fed.corp.example:5061;branch=z9hG4bKx\r\n",
        "Via: SIP/2.0/UDP one.example;branch=z9hG4bKx, SIP/2.0/TCP FED.corp.example;branch=z9hG4bKy\r\n",
    ] {
        let mut side = Side::new();
        side.receive(udp(), &with_headers("MESSAGE", "z9hG4bKa", via));
        assert_eq!(side.log(), "482@0", "{via}");
        assert!(side.events.is_empty());
    }
    let mut side = Side::new();
    side.receive(udp(), &with_headers("MESSAGE", "z9hG4bKa", "Via: SIP/2.0/TLS xfed.corp.example;branch=z9hG4bKx\r\n"));
    side.request();
    side.endpoint.set_own_names(&[SentBy::new("EDGE.partner.example", Some(5062))]);
    side.receive(udp(), &request("INFO", "z9hG4bKb"));
    assert_eq!(side.log(), "482@0");
    side.endpoint.set_own_names(&[SentBy::new("edge.partner.example", Some(5061))]);
    side.receive(udp(), &request("INFO", "z9hG4bKb"));
    side.request();
}

// S-07
#[test]
fn a_response_with_a_foreign_name_or_two_vias_is_discarded() {
    let mut side = Side::new();
    side.send(outgoing("MESSAGE", Transport::Udp));
    let ok = reply(&side.sent[0], 200, "t");
    for bad in [
        ok.replace("fed.corp.example:5061", "fed.other.example:5061"),
        ok.replace("fed.corp.example:5061", "fed.corp.example:5062"),
        ok.replace("From:", "Via: SIP/2.0/UDP edge.partner.example;branch=z9hG4bKq\r\nFrom:"),
        ok.replace("branch=z9hG4bK", "branch=zzzzzzz"),
    ] {
        assert_ne!(bad, ok);
        side.receive(udp(), &bad);
        assert!(side.events.is_empty(), "{bad}");
    }
    assert_eq!(side.endpoint.stats().discarded_responses, 4);
    // one of another transaction, under our name, may concern another process
    side.receive(udp(), &ok.replace("CSeq: 3 MESSAGE", "CSeq: 3 INFO"));
    assert!(matches!(side.events.pop(), Some((_, Event::StrayResponse { .. }))));
    side.receive(udp(), &ok);
    assert_eq!(side.client_log(), "200@0");
}

// S-33
#[test]
fn requests_leave_with_our_name_rport_and_a_fresh_branch() {
    let mut side = Side::new();
    let mut first = outgoing("MESSAGE", Transport::Tls);
    first.alias = true;
    side.send(first);
    side.send(outgoing("MESSAGE", Transport::Udp));
    let sent = side.take_sent();
    let branches: Vec<_> = sent.iter().map(Sent::branch).collect();
    assert_ne!(branches[0], branches[1]);
    for branch in &branches {
        let random = branch.strip_prefix("z9hG4bK").unwrap().strip_suffix(".p1").unwrap();
        assert_eq!(random.len() * 4, 96);
        assert!(random.bytes().all(|b| b.is_ascii_hexdigit()));
    }
    assert_eq!(
        sent[0].header("Via"),
        [format!("SIP/2.0/TLS fed.corp.example:5061;rport;alias;branch={}", branches[0])]
    );
    assert_eq!(sent[1].header("Via"), [format!("SIP/2.0/UDP fed.corp.example:5061;rport;branch={}", branches[1])]);
    assert!(sent[0].text.starts_with("MESSAGE sip:ana@partner.example SIP/2.0\r\nVia: "));
}

#[test]
fn what_is_no_request_is_not_sent() {
    use isthmus_sip::endpoint::SendError;
    let mut side = Side::new();
    let good = String::from_utf8(outgoing("MESSAGE", Transport::Udp).request.to_vec()).unwrap();
    for (text, error) in [
        ("", SendError::NotRequest),
        ("nonsense\r\n\r\n", SendError::NotRequest),
        (&good.replace("Route: <", "Via: SIP/2.0/UDP h;branch=z9hG4bKx\r\nRoute: <"), SendError::NotRequest),
        (&good.replace("MESSAGE", "ACK"), SendError::Method),
        (&good.replace("MESSAGE", "CANCEL"), SendError::Method),
    ] {
        let mut bad = outgoing("MESSAGE", Transport::Udp);
        bad.request = Bytes::copy_from_slice(text.as_bytes());
        assert_eq!(side.endpoint.send_request(side.now(), bad), Err(error), "{text}");
    }
    for host in ["bad name", "a\r\nX: y", "", "h;branch=z9hG4bKq"] {
        let mut bad = outgoing("MESSAGE", Transport::Udp);
        bad.sent_by.host = host.to_owned();
        assert!(side.endpoint.send_request(side.now(), bad).is_err(), "{host:?}");
    }
    side.drain();
    assert!(side.sent.is_empty());
}

// S-35
#[test]
fn a_full_endpoint_refuses_new_requests_first_and_serves_dialogs() {
    let mut side = Side::with(EndpointConfig { max_server: 10, ..config("fed.corp.example") });
    let new = |n: u32| request("MESSAGE", &format!("z9hG4bK{n}")).replace("CSeq: 5", &format!("CSeq: {n}"));
    let inside = |n: u32| new(n).replace("To: <sip:lee@corp.example>", "To: <sip:lee@corp.example>;tag=x");
    for n in 0..9 {
        side.receive(udp(), &new(n));
        side.request();
    }
    side.receive(udp(), &new(9));
    let refused = side.take_sent().pop().unwrap();
    assert_eq!(refused.what(), "503");
    let after: u32 = refused.header("Retry-After")[0].parse().unwrap();
    assert!((5..=30).contains(&after));
    side.receive(udp(), &new(0));
    assert!(side.events.is_empty() && side.sent.is_empty(), "a repetition is no new request");
    side.receive(udp(), &inside(10));
    side.request();
    side.receive(udp(), &inside(11));
    assert_eq!(side.log(), "503@0");
    assert_eq!(side.endpoint.server_transactions(), 10);
    assert_eq!(side.endpoint.stats().refused_full, 2);
}

// S-35
#[test]
fn overload_refuses_new_requests_only() {
    let mut side = Side::new();
    side.endpoint.set_overloaded(true);
    side.receive(udp(), &request("SUBSCRIBE", "z9hG4bKa"));
    let refused = side.take_sent().pop().unwrap();
    assert_eq!((refused.what(), refused.header("Retry-After").len()), ("503", 1));
    side.receive(udp(), &with_headers("SUBSCRIBE", "z9hG4bKb", "Expires: 0\r\n"));
    side.request();
    side.receive(udp(), &request("BYE", "z9hG4bKc").replace("corp.example>\r\nCall", "corp.example>;tag=x\r\nCall"));
    side.request();
    side.endpoint.set_overloaded(false);
    side.receive(udp(), &request("SUBSCRIBE", "z9hG4bKd").replace("CSeq: 5", "CSeq: 6"));
    side.request();
}

#[test]
fn as_many_requests_as_configured_are_open() {
    use isthmus_sip::endpoint::SendError;
    let mut side = Side::with(EndpointConfig { max_client: 2, ..config("fed.corp.example") });
    side.send(outgoing("MESSAGE", Transport::Tls));
    side.send(outgoing("MESSAGE", Transport::Tls));
    let third = side.endpoint.send_request(side.now(), outgoing("MESSAGE", Transport::Tls));
    assert_eq!(third, Err(SendError::TooMany));
    let ok = reply(&side.sent[0], 200, "t");
    side.receive(tls(), &ok);
    side.send(outgoing("MESSAGE", Transport::Tls));
}

#[test]
fn malformed_requests_get_their_status_with_the_via_filled() {
    for (bad, code) in [
        (request("MESSAGE", "z9hG4bKa").replace("SIP/2.0\r\nVia", "SIP/3.0\r\nVia"), "505"),
        (request("MESSAGE", "z9hG4bKa").replace("CSeq: 5 MESSAGE", "CSeq: 5 INFO"), "400"),
        (request("MESSAGE", "z9hG4bKa").replace("Max-Forwards", "Max Forwards"), "400"),
    ] {
        let mut side = Side::new();
        let error = Message::parse(Bytes::from(bad), &Limits::default()).unwrap_err();
        let status = error.status().unwrap();
        side.endpoint.handle_partial(side.now(), udp(), *error.partial.unwrap(), status);
        side.drain();
        let sent = side.take_sent().pop().unwrap();
        assert_eq!(sent.what(), code);
        assert_eq!(sent.header("Via"), ["SIP/2.0/UDP edge.partner.example:5062;branch=z9hG4bKa;received=192.0.2.20"]);
        assert_eq!(sent.header("Server"), ["Isthmus/0"]);
        assert_eq!(sent.destination.remote(), address("192.0.2.20:5062"));
    }
}

#[test]
fn stateless_refusals_of_one_request_have_one_tag() {
    let mut side = Side::new();
    for _ in 0..2 {
        side.receive(udp(), &with_headers("INVITE", "z9hG4bKa", "Max-Forwards: 0\r\n"));
    }
    let sent = side.take_sent();
    assert_eq!(sent[0].header("To"), sent[1].header("To"));
    assert!(sent[0].header("To")[0].contains(";tag="));
    assert_eq!(side.endpoint.server_transactions(), 0);
}

// S-32
#[test]
fn options_are_answered_with_what_we_can() {
    let options = parse(&request("OPTIONS", "z9hG4bKa"));
    let text = String::from_utf8(answer_options(&options, "t").finish(b"").unwrap().to_vec()).unwrap();
    for line in [
        "SIP/2.0 200 OK\r\n",
        "Allow: INVITE, ACK, CANCEL, BYE, MESSAGE, INFO, OPTIONS, SUBSCRIBE, NOTIFY\r\n",
        "Accept: application/sdp, application/pidf+xml, text/plain\r\n",
        "Allow-Events: presence\r\n",
    ] {
        assert!(text.contains(line), "{line}");
    }
}

#[test]
fn methods_that_are_not_served_get_405_or_501_with_allow() {
    for (method, code) in [("REFER", 405), ("UPDATE", 405), ("PUBLISH", 405), ("JUGGLE", 501)] {
        let message = parse(&request(method, "z9hG4bKa"));
        let text = refuse_method(&message, "t").unwrap().finish(b"").unwrap();
        let answer = parse(std::str::from_utf8(&text).unwrap());
        assert_eq!(answer.status().unwrap().code(), code);
        assert!(answer.allow().any(|allowed| allowed == "INVITE"));
    }
    for method in ["INVITE", "MESSAGE", "NOTIFY", "OPTIONS"] {
        assert!(refuse_method(&parse(&request(method, "z9hG4bKa")), "t").is_none());
    }
}

// S-37
#[test]
fn required_extensions_get_420_and_proxy_require_nothing() {
    let required = parse(&with_headers("INVITE", "z9hG4bKa", "Require: timer, com.microsoft.rtc-multiparty\r\n"));
    let text = refuse_require(&required, "t").unwrap().finish(b"").unwrap();
    let answer = parse(std::str::from_utf8(&text).unwrap());
    assert_eq!(answer.status().unwrap().code(), 420);
    let unsupported: Vec<_> = answer.headers(isthmus_sip::HeaderName::Unsupported).collect();
    assert_eq!(unsupported, ["timer", "com.microsoft.rtc-multiparty"]);
    let proxy = parse(&with_headers("INVITE", "z9hG4bKa", "Proxy-Require: sec-agree\r\nSupported: timer\r\n"));
    assert!(refuse_require(&proxy, "t").is_none());
}

#[test]
fn an_answer_of_another_process_leaves_once_and_leaves_nothing_behind() {
    for source in [udp(), tls()] {
        let mut side = Side::new();
        for n in 1..=2 {
            side.receive(source, &request("INVITE", "z9hG4bKa"));
            let (tx, invite) = side.request();
            side.endpoint.respond_once(side.now(), tx, answer(&invite, 200)).unwrap();
            side.drain();
            assert_eq!(side.endpoint.server_transactions(), 0);
            let late = side.endpoint.respond(side.now(), tx, answer(&invite, 486));
            assert_eq!(late, Err(RespondError::Gone));
            side.run_to(n * 100_000);
            let sent = side.take_sent();
            assert_eq!(
                sent.iter().map(Sent::what).collect::<Vec<_>>(),
                ["200"],
                "it is not repeated, and no ACK is missed"
            );
            assert!(side.events.is_empty());
        }
    }
}

#[test]
fn an_absorbed_request_gets_nothing_and_its_next_copy_is_a_new_one() {
    for method in ["MESSAGE", "INVITE"] {
        let mut side = Side::new();
        for n in 1..=2 {
            side.receive(udp(), &request(method, "z9hG4bKa"));
            let (tx, _) = side.request();
            side.endpoint.absorb(side.now(), tx).unwrap();
            assert_eq!(side.endpoint.absorb(side.now(), tx), Err(RespondError::Gone));
            side.run_to(n * 300_000);
            assert!(side.take_sent().is_empty() && side.events.is_empty());
        }
        side.receive(udp(), &request(method, "z9hG4bKa"));
        let (tx, message) = side.request();
        side.respond(tx, &message, 480);
        assert_eq!(side.endpoint.absorb(side.now(), tx), Err(RespondError::Answered));
        assert_eq!(side.take_sent().pop().unwrap().what(), "480");
    }
}
