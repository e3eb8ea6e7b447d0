//! What real clients and servers send, clumsy as it is.

use isthmus_sip::{HeaderName, Host, Limits, Message, Method, StatusCode, Transport};

use crate::{parse, subscribe, wire};

#[test]
fn a_from_without_brackets_keeps_its_tag_for_itself() {
    let message = parse(
        "
SUBSCRIBE sip:juliet@corp.example SIP/2.0
Via: SIP/2.0/UDP 127.0.0.1:25101;rport;branch=z9hG4bKPjF
From: sip:ana@partner.example;tag=a1b2
To: sip:juliet@corp.example
Contact: <sip:ana@127.0.0.1:25101;ob>
Call-ID: xyz
CSeq: 5810 SUBSCRIBE
Event: presence
Expires: 600
Supported: replaces, 100rel, timer, norefersub, trickle-ice
Accept: application/pidf+xml, application/xpidf+xml
Content-Length:  0

",
    )
    .expect("valid");
    assert_eq!(message.from_().uri_str(), "sip:ana@partner.example");
    assert_eq!(message.from_().tag(), Some("a1b2"));
    assert_eq!(message.max_forwards().expect("no number is none"), None);
    assert_eq!(message.top_via().rport(), Some(None));
    assert_eq!(message.event().expect("readable").map(|e| e.package().to_owned()).as_deref(), Some("presence"));
    assert_eq!(message.supported().count(), 5);
    assert_eq!(message.expires(), Ok(Some(600)));
}

#[test]
fn headers_in_any_order_and_empty_ones_are_read() {
    let message = parse(
        "
NOTIFY sip:juliet@fed.corp.example:5060 SIP/2.0
Content-Length: 4
Content-Type: application/pidf+xml
To: <sip:juliet@corp.example>;tag=10.2
Supported:
CSeq: 2 NOTIFY
User-Agent: kamailio (5.6.3 (x86_64/linux))
Subscription-State: active;expires=600
Event: presence
From: <sip:bob@partner.example>;tag=k-1
Call-ID: 12
Via: SIP/2.0/UDP 127.0.0.1:25060;branch=z9hG4bK1.0

<p/>",
    )
    .expect("valid");
    assert_eq!(message.supported().count(), 0);
    let state = message.subscription_state().expect("readable").expect("there");
    assert!(state.is("Active"));
    assert_eq!((state.expires(), state.reason(), state.retry_after()), (Some(600), None, None));
    assert_eq!(&message.body()[..], b"<p/>");
}

#[test]
fn an_access_edge_sends_long_signed_routes_and_its_own_parameters() {
    let route = format!(
        "<sip:edge.blue.example:5061;transport=tls;opaque=state:Ex.Ci.R1a2b;lr;ms-route-sig={}==>;tag={}",
        "aB3/+".repeat(60),
        "C0FFEE".repeat(10)
    );
    let message = Message::parse(
        wire(&format!(
            "INVITE sip:noor@red.example SIP/2.0\n\
             Record-Route: {route}\n\
             Record-Route: <sip:pool.blue.example:5061;transport=tls;ms-fe=fe1.blue.example;lr;ms-key-info={}>\n\
             Via: SIP/2.0/TLS 192.0.2.9:49153;branch=z9hG4bK7.A;branched=FALSE;ms-internal-info=\"aa3d\"\n\
             Max-Forwards: 68\n\
             From: \"Dana\"<sip:dana@blue.example>;tag=7c21;epid=0a1b2c3d4e\n\
             To: <sip:noor@red.example>\n\
             Call-ID: 9f\n\
             CSeq: 1 INVITE\n\
             Contact: <sip:dana@blue.example;opaque=user:epid:Q1w2;gruu>\n\
             Proxy-Require: ms-benotify\n\
             ms-text-format: text/plain; charset=UTF-8;msgr=WAAtAE0A;ms-body=aGk=\n\
             EndPoints: \"Dana\" <sip:dana@blue.example>, <sip:noor@red.example>\n\
             ms-diagnostics: 1008;reason=\"Unable to resolve DNS SRV record\";source=\"sip.blue.example\"\n\
             Ms-Conversation-ID: 481516\n\
             Content-Length: 0\n\n",
            "MEYCIQ".repeat(80)
        )),
        &Limits::default(),
    )
    .expect("valid");
    assert_eq!(message.from_().params().get("epid"), Some("0a1b2c3d4e"));
    assert_eq!(message.headers(HeaderName::RecordRoute).next(), Some(route.as_str()));
    assert!(message.record_routes().all(|r| r.expect("readable").uri().expect("uri").is_loose_route()));
    let diagnostics = message.diagnostics().next().expect("there").expect("readable");
    assert_eq!(diagnostics.word, "1008");
    assert_eq!(diagnostics.params.text("reason").as_deref(), Some("Unable to resolve DNS SRV record"));
    assert_eq!(message.header(HeaderName::EndPoints).map(|e| e.matches("sip:").count()), Some(2));
    assert_eq!(message.headers_named("ms-conversation-id").next(), Some("481516"));
}

// S-38
#[test]
fn repeated_lines_and_joined_values_are_the_same_list() {
    let joined = subscribe("Require: a, b ,c\nAccept: text/plain;x=\",\", text/html\n", "");
    let repeated = subscribe("Require: a\nRequire: b\nAccept: text/plain;x=\",\"\nRequire: c\nAccept:text/html\n", "");
    for message in [joined, repeated] {
        let message = Message::parse(message, &Limits::default()).expect("valid");
        assert_eq!(message.require().collect::<Vec<_>>(), ["a", "b", "c"]);
        let accept: Vec<_> = message.accept().map(|a| a.expect("readable").sub.to_owned()).collect();
        assert_eq!(accept, ["plain", "html"]);
    }
}

#[test]
fn a_comma_in_a_header_that_is_no_list_separates_nothing() {
    let message = subscribe("Subject: one, two\nDate: Sat, 13 Nov 2010 23:29:00 GMT\n", "");
    let message = Message::parse(message, &Limits::default()).expect("valid");
    assert_eq!(message.headers(HeaderName::Subject).collect::<Vec<_>>(), ["one, two"]);
    assert_eq!(message.headers(HeaderName::Date).count(), 1);
}

#[test]
fn ipv6_is_read_in_every_place() {
    let message = parse(
        "
OPTIONS sip:user@[2001:db8::10]:5070;maddr=[2001:db8::11] SIP/2.0
Via: SIP/2.0/UDP [2001:db8::9:1]:5062;received=[2001:db8::9:255];branch=z9hG4bKas3-111
Via: SIP/2.0/TCP [2001:0db8:0:0:0:0:9:1] : 5063;received=2001:db8::9:256;branch=z9hG4bK2
From: <sip:u@[2001:db8::9:1]>;tag=1
To: sip:user@[2001:db8::10]
Call-ID: 9bb@[2001:db8::9:1]
CSeq: 1 OPTIONS
Max-Forwards: 70
Content-Length: 0

",
    )
    .expect("valid");
    let ip = |text: &str| Some(text.parse().expect("address"));
    let vias: Vec<_> = message.vias().map(|via| via.expect("readable")).collect();
    assert_eq!((vias[0].host().ip(), vias[0].port()), (ip("2001:db8::9:1"), Some(5062)));
    assert_eq!((vias[1].host(), vias[1].port()), (vias[0].host(), Some(5063)));
    assert_eq!(vias[0].received(), ip("2001:db8::9:255"));
    assert_eq!(vias[1].received(), ip("2001:db8::9:256"));
    let uri = isthmus_sip::Uri::parse(message.request_uri()).expect("uri");
    assert_eq!((uri.host(), uri.port()), (Some(Host::V6("2001:db8::10".parse().expect("address"))), Some(5070)));
    assert_eq!(message.to().uri().expect("uri").host().map(|h| h.to_string()).as_deref(), Some("[2001:db8::10]"));
}

#[test]
fn warnings_and_retry_after_are_read_with_their_parts() {
    let message = parse(
        "
SIP/2.0 480 Temporarily Unavailable
Via: SIP/2.0/TLS fed.corp.example:5061;branch=z9hG4bK1
From: <sip:lee@corp.example>;tag=1
To: <sip:ana@partner.example>;tag=2
Call-ID: 1
CSeq: 1 INVITE
Warning: 380 gw.example \"SIPS Not \\\"Allowed\\\"\", 399 [2001:db8::1]:5060 \"x, y\"
Retry-After: 120 (I'm in a meeting) ;duration=3600
Min-Expires: 90
Content-Length: 0

",
    )
    .expect("valid");
    assert_eq!(message.status(), Some(StatusCode::TEMPORARILY_UNAVAILABLE));
    let warnings: Vec<_> = message.warnings().map(|w| w.expect("readable")).collect();
    assert_eq!((warnings[0].code, warnings[0].agent, &*warnings[0].text), (380, "gw.example", "SIPS Not \"Allowed\""));
    assert_eq!((warnings[1].code, &*warnings[1].text), (399, "x, y"));
    let retry = message.retry_after().expect("readable").expect("there");
    assert_eq!((retry.seconds, retry.duration), (120, Some(3600)));
    assert_eq!(message.min_expires(), Ok(Some(90)));
    assert_eq!(message.method(), Method::Invite);
    assert_eq!(message.top_via().transport(), Some(Transport::Tls));
}

#[test]
fn a_display_name_in_another_script_needs_no_quotes() {
    let text = String::from_utf8(subscribe("", "").to_vec()).expect("text");
    let text = text.replace("From: <", "From: J\u{f6}rg M\u{fc}ller <");
    let message = Message::parse(text.into_bytes().into(), &Limits::default()).expect("tolerated");
    assert_eq!(message.from_().display_name().as_deref(), Some("J\u{f6}rg M\u{fc}ller"));
}

#[test]
fn limits_are_reached_with_their_own_kind() {
    use isthmus_sip::ParseErrorKind as Kind;
    let limits = Limits { header_block: 600, body: 10, header_lines: 12, uri: 40 };
    let parse = |message| Message::parse(message, &limits).map_err(|e| (e.kind, e.status().map(StatusCode::code)));
    parse(subscribe("", "0123456789")).expect("all at the limit");
    assert_eq!(parse(subscribe("", "01234567890")).expect_err("body"), (Kind::BodyTooLarge, Some(513)));
    let lines = "X: y\n".repeat(20);
    assert_eq!(parse(subscribe(&lines, "")).expect_err("lines"), (Kind::TooManyHeaders, Some(513)));
    let long = format!("X: {}\n", "y".repeat(600));
    assert_eq!(parse(subscribe(&long, "")).expect_err("block"), (Kind::HeaderBlockTooLarge, Some(513)));
    let text = String::from_utf8(subscribe("", "").to_vec()).expect("text");
    let text = text.replace("SUBSCRIBE sip:juliet", &format!("SUBSCRIBE sip:juliet{}", "t".repeat(30)));
    assert_eq!(parse(text.into_bytes().into()).expect_err("uri"), (Kind::UriTooLong, Some(414)));
}

#[test]
fn a_header_block_at_its_limit_is_read_and_one_byte_more_is_not() {
    let message = subscribe("", "");
    let at = |header_block| Message::parse(message.clone(), &Limits { header_block, ..Limits::default() });
    at(message.len()).expect("exactly");
    at(message.len() - 1).expect_err("one too many");
}

#[test]
fn a_body_without_length_is_the_rest_of_the_datagram() {
    let text = String::from_utf8(subscribe("", "abc").to_vec()).expect("text").replace("Content-Length: 3\r\n", "");
    let message = Message::parse(text.into_bytes().into(), &Limits::default()).expect("valid");
    assert_eq!(&message.body()[..], b"abc");
}
