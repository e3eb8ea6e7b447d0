//! Responses written for requests, whole and broken.

use bytes::Bytes;
use isthmus_sip::{HeaderName, Limits, Message, ResponseWriter, StatusCode};

use crate::wire;

fn request(vias: &str) -> Message {
    let message = Message::parse(
        wire(&format!(
            "INVITE sip:noor@red.example SIP/2.0\n\
             {vias}\n\
             Record-Route: <sip:p3.example;lr>, <sip:p2.example;lr;x=\"a,b\">\n\
             Max-Forwards: 70\n\
             From: \"Dana\"<sip:dana@blue.example>;tag=7c21;epid=0a1b\n\
             Record-Route: <sip:p1.example;lr>\n\
             To: sip:noor@red.example;x=y\n\
             Call-ID: 9f@blue\n\
             CSeq: 7 INVITE\n\
             Content-Length: 0\n\n"
        )),
        &Limits::default(),
    );
    message.expect("valid")
}

fn read(written: Bytes) -> Message {
    Message::parse(written, &Limits::default()).expect("what was written is valid")
}

/// The top Via of an answer to a request that came from 192.0.2.7:4711.
fn answered_via(via: &str) -> String {
    let mut request = request(&format!("Via: {via}"));
    request.set_source("192.0.2.7:4711".parse().expect("address"));
    let answer = ResponseWriter::for_request(&request, StatusCode::OK, None, None).finish(b"").expect("written");
    read(answer).raw(HeaderName::Via).next().expect("via").to_owned()
}

#[test]
fn an_answer_copies_what_it_must_and_adds_a_tag() {
    let request =
        request("Via: SIP/2.0/TLS a.example;branch=z9hG4bK1, SIP/2.0/TLS b.example;branch=z9hG4bK2\nv: SIP/2.0/UDP c");
    let answer = ResponseWriter::for_request(&request, StatusCode::RINGING, None, Some("t1")).finish(b"").expect("ok");
    assert_eq!(
        answer,
        wire(
            "SIP/2.0 180 Ringing\n\
             Via: SIP/2.0/TLS a.example;branch=z9hG4bK1, SIP/2.0/TLS b.example;branch=z9hG4bK2\n\
             Via: SIP/2.0/UDP c\n\
             From: \"Dana\"<sip:dana@blue.example>;tag=7c21;epid=0a1b\n\
             To: sip:noor@red.example;x=y;tag=t1\n\
             Call-ID: 9f@blue\n\
             CSeq: 7 INVITE\n\
             Content-Length: 0\n\n"
        )
    );
}

#[test]
fn a_tag_that_is_there_stays_and_100_gets_none() {
    let request = request("Via: SIP/2.0/TLS a.example;branch=z9hG4bK1");
    let trying = ResponseWriter::for_request(&request, StatusCode::TRYING, None, Some("t1")).finish(b"").expect("ok");
    assert_eq!(read(trying).to().tag(), None);
    let text = String::from_utf8(request.as_bytes().to_vec()).expect("text").replace(";x=y", ";tag=old");
    let in_dialog = read(text.into_bytes().into());
    let answer = ResponseWriter::for_request(&in_dialog, StatusCode::OK, None, Some("t1")).finish(b"").expect("ok");
    assert_eq!(read(answer).raw(HeaderName::To).collect::<Vec<_>>(), ["sip:noor@red.example;tag=old"]);
}

// S-06
#[test]
fn received_and_rport_say_where_the_request_came_from() {
    assert_eq!(
        answered_via("SIP/2.0/UDP host.example:5060;branch=z9hG4bK1;rport"),
        "SIP/2.0/UDP host.example:5060;branch=z9hG4bK1;received=192.0.2.7;rport=4711"
    );
    assert_eq!(
        answered_via("SIP/2.0/UDP 192.0.2.7;rport;branch=z9hG4bK1;alias"),
        "SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK1;alias;received=192.0.2.7;rport=4711",
        "with rport always"
    );
    assert_eq!(
        answered_via("SIP/2.0/UDP 192.0.2.8;branch=z9hG4bK1"),
        "SIP/2.0/UDP 192.0.2.8;branch=z9hG4bK1;received=192.0.2.7"
    );
    assert_eq!(
        answered_via("SIP/2.0/UDP 192.0.2.7:5070;branch=z9hG4bK1"),
        "SIP/2.0/UDP 192.0.2.7:5070;branch=z9hG4bK1",
        "nothing differs"
    );
    assert_eq!(
        answered_via("SIP/2.0/UDP 192.0.2.8;received=10.0.0.1;rport=9;branch=z9hG4bK1"),
        "SIP/2.0/UDP 192.0.2.8;branch=z9hG4bK1;received=192.0.2.7;rport=4711",
        "what the sender put there does not count"
    );
    assert_eq!(
        answered_via("SIP/2.0/UDP h;x=\"a,b\";branch=z9hG4bK1 , SIP/2.0/UDP i;rport;branch=z9hG4bK2"),
        "SIP/2.0/UDP h;x=\"a,b\";branch=z9hG4bK1;received=192.0.2.7 , SIP/2.0/UDP i;rport;branch=z9hG4bK2",
        "only the top one"
    );
}

// S-15
#[test]
fn record_route_is_copied_in_order_and_byte_for_byte() {
    let request = request("Via: SIP/2.0/TLS a.example;branch=z9hG4bK1");
    let mut writer = ResponseWriter::for_request(&request, StatusCode::OK, None, Some("t1"));
    writer.record_routes_of(&request);
    let answer = read(writer.finish(b"").expect("written"));
    assert_eq!(
        answer.headers(HeaderName::RecordRoute).collect::<Vec<_>>(),
        ["<sip:p3.example;lr>", "<sip:p2.example;lr;x=\"a,b\">", "<sip:p1.example;lr>"]
    );
    let refusal = ResponseWriter::for_request(&request, StatusCode::FORBIDDEN, None, Some("t1")).finish(b"");
    assert_eq!(read(refusal.expect("written")).record_routes().count(), 0, "only when asked for");
}

#[test]
fn content_length_is_last_and_right() {
    let request = request("Via: SIP/2.0/TLS a.example;branch=z9hG4bK1");
    let mut writer = ResponseWriter::for_request(&request, StatusCode::OK, Some("Fine"), Some("t1"));
    writer.header(HeaderName::ContentType, "text/plain").expires(60);
    let answer = writer.finish("h\u{e9}llo".as_bytes()).expect("written");
    assert!(answer.ends_with("Expires: 60\r\nContent-Length: 6\r\n\r\nh\u{e9}llo".as_bytes()), "{answer:?}");
    let answer = read(answer);
    assert_eq!((answer.reason(), answer.content_length()), ("Fine", Ok(Some(6))));
}

#[test]
fn a_folded_display_name_with_nul_is_answered_without_it() {
    let message = wire(
        "OPTIONS sip:a@b.example SIP/2.0\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\nFrom: <sip:x@y.example>;tag=1\nTo: \"NUL\n \\\u{0}\" <sip:a@b.example>\nCall-ID: 1\nCSeq: 1 OPTIONS\n\n",
    );
    let message = Message::parse(message, &Limits::default()).expect("valid by the grammar");
    assert!(message.rewrite().is_err(), "NUL is never written");
    let answer = ResponseWriter::for_request(&message, StatusCode::OK, None, Some("t")).finish(b"").expect("answered");
    assert!(!answer.contains(&0));
    assert_eq!(read(answer).raw(HeaderName::To).collect::<Vec<_>>(), ["<sip:a@b.example>;tag=t"]);
}

/// An escaped NUL may stand in quoted strings, and is never written. A request that was read must be answerable all the
/// same: nothing would ever close its transaction.
#[test]
fn whatever_was_read_can_be_answered() {
    let text = wire(
        "INVITE sip:a@b.example SIP/2.0\nVia: SIP/2.0/UDP h;x=\"q\";branch=z9hG4bK1, SIP/2.0/UDP i;x=\"q\"\n\
         v: SIP/2.0/TCP j;x=\"q\"\nFrom: \"q\" <sip:x@y.example;x=q>;x=\"q\";tag=1\nTo: \"q\" <sip:a@b.example>;x=\"q\"\n\
         Call-ID: 1\nCSeq: 1 INVITE\nRecord-Route: \"q\" <sip:r.example;lr>\nSubject: q\n\n",
    );
    let mut read_at = 0;
    for at in 0..text.len() {
        let odd = [&text[..at], b"\\\0", &text[at..]].concat();
        let Ok(mut message) = Message::parse(odd.into(), &Limits::default()) else { continue };
        read_at += 1;
        message.set_source("192.0.2.7:4711".parse().expect("address"));
        let answer = ResponseWriter::for_request(&message, StatusCode::OK, None, Some("t")).finish(b"");
        assert!(answer.is_ok_and(|bytes| !bytes.contains(&0)), "at {at}: {message:?}");
    }
    assert!(read_at > 10, "display names and other headers may hold it");
}

#[test]
fn a_malformed_request_is_answered_from_what_could_be_read() {
    let message = wire(
        "INVITE <sip:noor@red.example> SIP/2.0\n\
         v: SIP/2.0/UDP host.example;rport\n  ;branch=z9hG4bK1\n\
         f: sip:dana@blue.example;tag=1\n\
         t: \"open <sip:noor@red.example>\n\
         i: 9f\n\
         CSeq: 99999999999 INVITE\n\
         no header at all\n\n",
    );
    let mut error = Message::parse(message, &Limits::default()).expect_err("malformed");
    let status = error.status().expect("can be answered");
    let partial = error.partial.as_mut().expect("can be answered");
    assert_eq!(partial.method(), isthmus_sip::Method::Invite);
    assert_eq!(partial.top_via().and_then(|via| via.branch()), Some("z9hG4bK1"));
    partial.set_source("192.0.2.7:4711".parse().expect("address"));
    let answer = ResponseWriter::for_partial(partial, status, None, Some("t")).finish(b"").expect("written");
    assert_eq!(
        answer,
        wire(
            "SIP/2.0 400 Bad Request\n\
             Via: SIP/2.0/UDP host.example;branch=z9hG4bK1;received=192.0.2.7;rport=4711\n\
             From: sip:dana@blue.example;tag=1\n\
             To: \"open <sip:noor@red.example>\n\
             Call-ID: 9f\n\
             CSeq: 99999999999 INVITE\n\
             Content-Length: 0\n\n"
        )
    );
}

#[test]
fn nobody_answers_a_malformed_ack_or_response() {
    let text = "X sip:a SIP/2.0\nVia: SIP/2.0/UDP h\nFrom: a\nTo: b\nCall-ID: c\nCSeq: 1 X\n\n";
    let partial = |text: &str| Message::parse(wire(text), &Limits::default()).expect_err("malformed").partial;
    assert!(partial(text).is_some());
    assert!(partial(&text.replace('X', "ACK")).is_none());
    assert!(partial(&text.replace("X sip:a SIP/2.0", "SIP/2.0 200 OK")).is_none());
    assert!(partial(&text.replace("Via: SIP/2.0/UDP h", "Via: h")).is_none(), "nowhere to send it");
    assert!(partial(&text.replace("From: a", "From: \u{0}")).is_none());
}
