//! What the fuzz target calls, and an ordinary test calls on the committed corpus.
//!
//! Each function takes arbitrary bytes, must not panic, and asserts what must hold for every input.

use std::time::{Duration, Instant};

use crate::component::{BarrierToken, Event, Link, LinkConfig, Output, Secret};
use crate::stanza::{Message, MessageType, Stanza};
use crate::stream::codec::{
    EncodeError, LimitSet, Limits, StreamDecodeError, StreamDecoder, StreamEncoder, StreamEvent, StreamKind,
    read_element,
};

const HEADER: &[u8] = b"<stream:stream xmlns='jabber:component:accept' \
    xmlns:stream='http://etherx.jabber.org/streams' id='1' xml:lang='en'><handshake/>";

/// What a server sends on a component stream.
///
/// The first byte says how the rest is cut into pieces and whether a good header goes before it. `start` is
/// any instant; time passes from there.
pub fn component_stream(data: &[u8], start: Instant) {
    let Some((first, rest)) = data.split_first() else { return };
    let piece = usize::from(first & 0x3f) + 1;
    let mut input = if first & 0x40 == 0 { HEADER.to_vec() } else { Vec::new() };
    input.extend_from_slice(rest);
    decode(&input, piece);
    drive(&input, piece, start);
}

/// The events do not depend on the pieces, and every element survives being written.
fn decode(input: &[u8], piece: usize) {
    let limits = LimitSet { before: Limits::COMPONENT, after: Limits::COMPONENT };
    let (whole, outcome) = events(input.len().max(1), input, limits);
    let (pieces, outcome_of_pieces) = events(piece, input, limits);
    assert!(whole == pieces, "the events depend on the pieces");
    assert_eq!(outcome.map(StreamDecodeError::condition), outcome_of_pieces.map(StreamDecodeError::condition));
    for event in whole {
        let StreamEvent::Element(element) = event else { continue };
        let mut encoder = StreamEncoder::new(StreamKind::Client);
        match encoder.element(&element) {
            Ok(()) => {
                // what was content by inheritance inside other namespaces now declares itself
                let written = encoder.take();
                let roomy = Limits { element_bytes: usize::MAX, ..Limits::COMPONENT };
                if let Ok(again) = read_element(&written, &roomy) {
                    assert_eq!(again.root().attributes(), element.root().attributes());
                    assert_eq!((again.name(), again.text()), (element.name(), element.text()));
                }
            }
            Err(error) => {
                let expected = matches!(error, EncodeError::TooManyPrefixes { .. });
                assert!(expected, "what was read cannot be written");
            }
        }
        if let Ok(stanza) = Stanza::read(element) {
            check(&stanza);
        }
    }
}

fn events(piece: usize, input: &[u8], limits: LimitSet) -> (Vec<StreamEvent>, Option<StreamDecodeError>) {
    let mut decoder = StreamDecoder::new(StreamKind::Component, limits);
    let mut events = Vec::new();
    for mut piece in input.chunks(piece) {
        loop {
            match decoder.decode(&mut piece) {
                Ok(None) => break,
                Ok(Some(StreamEvent::Whitespace)) => {}
                Ok(Some(event)) => events.push(event),
                Err(error) => return (events, Some(error)),
            }
        }
    }
    (events, None)
}

/// A stanza survives being written and read once more.
fn check(stanza: &Stanza) {
    let mut encoder = StreamEncoder::new(StreamKind::Client);
    if encoder.stanza(stanza).is_err() {
        return;
    }
    let roomy = Limits { element_bytes: usize::MAX, ..Limits::COMPONENT };
    if let Ok(element) = read_element(&encoder.take(), &roomy) {
        let again = Stanza::read(element);
        let again = again.as_ref().ok().map(|again| (again.from(), again.to(), again.id()));
        assert_eq!(again, Some((stanza.from(), stanza.to(), stanza.id())));
    }
}

/// Whatever the server sends, every token is told once and the link ends once.
fn drive(input: &[u8], piece: usize, start: Instant) {
    let config = LinkConfig::new("partner.example", "corp.example", Secret::new("s3cret"));
    let mut link = Link::new(config, 0);
    let mut told = 0;
    let mut closed = 0;
    let mut sent = 0;
    let mut now = start;
    link.handle_connected(now);
    for bytes in input.chunks(piece) {
        now += Duration::from_millis(100);
        link.handle_bytes(now, bytes);
        if link.is_ready() && sent < 4 {
            let message = Message::new(MessageType::Chat, "a@partner.example", "b@corp.example").with_id("m");
            sent += u64::from(link.send_with_barrier(now, &message, BarrierToken(sent)).is_ok());
        }
        drain(&mut link, &mut told, &mut closed);
    }
    now += Duration::from_secs(3600);
    link.handle_timeout(now);
    link.handle_closed(now);
    drain(&mut link, &mut told, &mut closed);
    assert_eq!((told, closed), (sent, 1));
}

fn drain(link: &mut Link, told: &mut u64, closed: &mut u32) {
    while let Some(output) = link.poll_output() {
        match output {
            Output::Event(Event::Delivery(..)) => *told += 1,
            Output::Event(Event::Closed { .. }) => *closed += 1,
            Output::Event(Event::Ready | Event::Stanza(_) | Event::Ignored(_)) => assert_eq!(*closed, 0),
            Output::Transmit(bytes) => assert!(std::str::from_utf8(&bytes).is_ok()),
            Output::Disconnect => {}
        }
    }
}
