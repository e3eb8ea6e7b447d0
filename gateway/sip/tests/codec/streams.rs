//! The framer.

use bytes::Bytes;
use isthmus_sip::{Frame, Framer, FramerError, Limits, Message, ParseError, ParseErrorKind, StatusCode};

use crate::subscribe;

fn drain(framer: &mut Framer) -> Vec<Frame> {
    std::iter::from_fn(|| framer.poll().expect("stream goes on")).collect()
}

fn message(frame: &Frame) -> &Message {
    match frame {
        Frame::Message(message) => message,
        other => panic!("{other:?}"),
    }
}

fn poll_error(framer: &mut Framer) -> FramerError {
    loop {
        if let Err(error) = framer.poll().map(|frame| frame.expect("an error before the end")) {
            return error;
        }
    }
}

// S-39
#[test]
fn bytes_behind_a_message_are_the_next_message() {
    let (first, second) = (subscribe("X: 1\n", "body"), subscribe("X: 2\n", ""));
    let mut framer = Framer::new(Limits::default());
    framer.push(&[&first[..], &second[..], b"SUBSCR"].concat()).expect("room");
    let frames = drain(&mut framer);
    assert_eq!(frames.len(), 2);
    assert_eq!(message(&frames[0]).as_bytes(), &first);
    assert_eq!(&message(&frames[0]).body()[..], b"body");
    assert_eq!(message(&frames[1]).as_bytes(), &second);
    assert_eq!(framer.buffered(), 6);
}

// S-39
#[test]
fn a_message_without_content_length_ends_the_stream_and_can_be_answered() {
    let text = String::from_utf8(subscribe("", "").to_vec()).expect("text").replace("Content-Length: 0\r\n", "");
    let mut framer = Framer::new(Limits::default());
    framer.push(text.as_bytes()).expect("room");
    let error = poll_error(&mut framer);
    assert!(matches!(error, FramerError::LengthMissing(_)), "{error:?}");
    assert_eq!(error.parse_error().and_then(ParseError::status).map(StatusCode::code), Some(400));
    assert!(matches!(framer.poll(), Err(FramerError::Failed)));
    assert!(framer.push(b"x").is_err());
    assert_eq!(framer.buffered(), 0, "memory is given back");
}

#[test]
fn two_or_unreadable_lengths_end_the_stream() {
    for lines in ["Content-Length: 0\n", "l: 0\n"] {
        let mut framer = Framer::new(Limits::default());
        framer.push(&subscribe(lines, "")).expect("room");
        assert!(matches!(poll_error(&mut framer), FramerError::LengthBad(_)));
    }
    let text = String::from_utf8(subscribe("", "").to_vec()).expect("text");
    for length in ["-1", "1x", "", "99999999999999999999"] {
        let mut framer = Framer::new(Limits::default());
        framer.push(text.replace("Length: 0", &format!("Length: {length}")).as_bytes()).expect("room");
        assert!(matches!(poll_error(&mut framer), FramerError::LengthBad(_)), "{length}");
    }
}

// S-30
#[test]
fn a_line_break_behind_a_message_is_no_message_under_way() {
    let mut framer = Framer::new(Limits::default());
    framer.push(&[&subscribe("", "")[..], b"\r\n"].concat()).expect("room");
    assert_eq!(drain(&mut framer).len(), 1);
    assert_eq!(framer.buffered(), 0, "nothing is waited for");
    framer.push(b"\r").expect("room");
    assert_eq!((drain(&mut framer).len(), framer.buffered()), (0, 0));
    framer.push(b"\n").expect("room");
    assert!(matches!(drain(&mut framer)[..], [Frame::Ping]), "both halves of a ping");
    framer.push(b"\r\nSUB").expect("room");
    assert_eq!((drain(&mut framer).len(), framer.buffered()), (0, 3));
}

// S-39
#[test]
fn a_stream_cut_anywhere_gives_the_same_messages() {
    let stream: Vec<u8> = [
        b"\r\n".to_vec(),
        subscribe("Subject: a\n b\n", "one").to_vec(),
        b"\r\n\r\n".to_vec(),
        subscribe("", "").to_vec(),
    ]
    .concat();
    for step in 1..stream.len() {
        let mut framer = Framer::new(Limits::default());
        let mut frames = Vec::new();
        for piece in stream.chunks(step) {
            framer.push(piece).expect("room");
            frames.extend(drain(&mut framer));
        }
        assert_eq!(frames.len(), 3, "step {step}");
        assert_eq!(&message(&frames[0]).body()[..], b"one");
        assert!(matches!(frames[1], Frame::Ping));
        assert!(message(&frames[2]).body().is_empty());
    }
}

// S-30
#[test]
fn a_double_line_break_is_a_ping_at_once() {
    let mut framer = Framer::new(Limits::default());
    framer.push(b"\r\n\r").expect("room");
    assert!(drain(&mut framer).is_empty(), "half a ping is none");
    framer.push(b"\n").expect("room");
    assert!(matches!(drain(&mut framer)[..], [Frame::Ping]), "nothing more is waited for");
    framer.push(b"\r\n\r\n\r\n\r\n").expect("room");
    assert!(matches!(drain(&mut framer)[..], [Frame::Ping, Frame::Ping]));
    framer.push(&subscribe("", "")).expect("room");
    assert!(matches!(drain(&mut framer)[..], [Frame::Message(_)]));
    assert_eq!(isthmus_sip::framer::PONG, b"\r\n");
}

#[test]
fn a_single_line_break_answers_our_ping_and_is_nothing_otherwise() {
    let mut framer = Framer::new(Limits::default());
    framer.ping_sent();
    framer.push(b"\r\n").expect("room");
    assert!(matches!(drain(&mut framer)[..], [Frame::Pong]));
    framer.push(b"\r\n").expect("room");
    assert!(drain(&mut framer).is_empty());
    framer.push(&subscribe("", "")).expect("room");
    assert!(matches!(drain(&mut framer)[..], [Frame::Message(_)]));
}

#[test]
fn a_message_that_cannot_be_read_does_not_end_the_stream() {
    let bad = String::from_utf8(subscribe("", "body").to_vec()).expect("text").replace("CSeq: 1 S", "CSeq: x S");
    let mut framer = Framer::new(Limits::default());
    framer.push(bad.as_bytes()).expect("room");
    framer.push(&subscribe("", "")).expect("room");
    let frames = drain(&mut framer);
    let [Frame::Malformed(error), Frame::Message(_)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!(error.kind, ParseErrorKind::Bad(isthmus_sip::HeaderName::CSeq));
    assert_eq!(error.status().map(StatusCode::code), Some(400));
}

#[test]
fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let limits = Limits { body: 100, ..Limits::default() };
    let text = String::from_utf8(subscribe("", "").to_vec()).expect("text").replace("Length: 0", "Length: 101");
    let mut framer = Framer::new(limits);
    framer.push(text.as_bytes()).expect("room");
    let error = poll_error(&mut framer);
    assert!(matches!(error, FramerError::BodyTooLarge { length: 101, limit: 100, .. }), "{error:?}");
    assert_eq!(error.parse_error().and_then(ParseError::status).map(StatusCode::code), Some(513));
}

#[test]
fn a_header_block_without_an_end_is_refused_at_its_limit() {
    let limits = Limits { header_block: 1000, ..Limits::default() };
    let mut framer = Framer::new(limits);
    let head = subscribe("", "");
    framer.push(&head[..head.len() - 2]).expect("room");
    let line = b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n";
    let error = loop {
        match framer.poll() {
            Ok(None) => framer.push(line).expect("refused by poll first"),
            Ok(Some(frame)) => panic!("{frame:?}"),
            Err(error) => break error,
        }
    };
    let error = error.parse_error().expect("header");
    assert_eq!(error.kind, ParseErrorKind::HeaderBlockTooLarge);
    assert_eq!(error.status().map(StatusCode::code), Some(513), "what came first was enough for an answer");
}

#[test]
fn a_caller_that_never_drains_is_stopped() {
    let limits = Limits { header_block: 1000, body: 1000, ..Limits::default() };
    let mut framer = Framer::new(limits);
    let mut pushed = 0;
    while framer.push(&[b'x'; 1000]).is_ok() {
        pushed += 1000;
        assert!(pushed < 100_000);
    }
    assert_eq!(framer.buffered(), 0);
}

#[test]
fn a_message_shares_the_bytes_of_the_stream() {
    let mut framer = Framer::new(Limits::default());
    framer.push(&subscribe("", "body")).expect("room");
    let frames = drain(&mut framer);
    let (body, whole): (Bytes, &Bytes) = (message(&frames[0]).body(), message(&frames[0]).as_bytes());
    assert_eq!(body.as_ptr(), whole[whole.len() - 4..].as_ptr());
}
