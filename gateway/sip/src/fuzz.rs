//! What the fuzz targets call, and an ordinary test calls on the committed corpus.
//!
//! Each function takes arbitrary bytes, must not panic, and asserts what must hold for every input.

use bytes::Bytes;

use crate::framer::{Frame, Framer};
use crate::header::{Contact, HeaderName, NameAddr};
use crate::limits::Limits;
use crate::message::Message;
use crate::sdp::{SdpLimits, Session};
use crate::status::StatusCode;
use crate::uri::Uri;
use crate::write::ResponseWriter;

/// A datagram: parse, read every typed value, write, parse again, answer.
pub fn sip_message(data: &[u8]) {
    let limits = Limits::default();
    match Message::parse(Bytes::copy_from_slice(data), &limits) {
        Ok(message) => check_message(message, &limits),
        Err(error) => {
            if let Some(partial) = error.partial {
                let answer = ResponseWriter::for_partial(&partial, error.kind.status(), None, Some("t"));
                let _ = answer.finish(b"");
            }
        }
    }
}

fn check_message(mut message: Message, limits: &Limits) {
    touch(&message);
    for (_, _, value) in message.lines() {
        assert!(!value.contains(['\r', '\n']), "line break in a value");
    }
    if let Ok(written) = message.rewrite() {
        let again = Message::parse(written, limits);
        // long names and one more header can exceed the limit
        if let Ok(again) = again {
            assert!(again == message, "what was written reads differently");
        } else {
            assert!(message.as_bytes().len() + 4096 > limits.header_block, "what was written cannot be read");
        }
    }
    if message.is_request() {
        message.set_source(([192, 0, 2, 1], 5060).into());
        let answer = ResponseWriter::for_request(&message, StatusCode::OK, None, Some("t")).finish(b"");
        if let Ok(answer) = answer
            && let Ok(answer) = Message::parse(answer, limits)
        {
            assert_eq!(answer.call_id(), message.call_id());
            assert_eq!(answer.top_via().branch(), message.top_via().branch());
            assert!(answer.to().tag().is_some());
        }
    }
}

fn touch(message: &Message) {
    let _ = (message.top_via().host(), message.from_().display_name(), message.to().uri(), message.cseq());
    let _ = message.vias().flatten().count() + message.contacts().flatten().count();
    let _ = message.record_routes().flatten().count() + message.routes().flatten().count();
    let _ = message.accept().flatten().count() + message.warnings().count();
    let _ = (message.max_forwards(), message.expires(), message.event(), message.subscription_state());
    let _ = (message.content_type(), message.retry_after(), message.diagnostics().count());
    let _ = message.headers(HeaderName::Supported).count();
}

/// A stream: the first byte says how it is cut into pieces; the frames may not depend on that.
pub fn sip_framer(data: &[u8]) {
    let Some((&step, stream)) = data.split_first() else { return };
    let whole = frames(stream, stream.len().max(1));
    let pieces = frames(stream, usize::from(step).max(1));
    assert_eq!(whole, pieces, "frames depend on how the stream was cut");
}

/// A short word for each frame.
fn frames(stream: &[u8], step: usize) -> Vec<String> {
    let mut framer = Framer::new(Limits::default());
    let mut out = Vec::new();
    for piece in stream.chunks(step.min(16 * 1024)) {
        if framer.push(piece).is_err() {
            return out;
        }
        loop {
            match framer.poll() {
                Ok(Some(Frame::Message(message))) => out.push(format!("message {}", message.as_bytes().len())),
                Ok(Some(Frame::Malformed(error))) => out.push(format!("malformed {error}")),
                Ok(Some(Frame::Ping)) => out.push("ping".to_owned()),
                Ok(Some(Frame::Pong)) => out.push("pong".to_owned()),
                Ok(None) => break,
                Err(error) => {
                    out.push(format!("error {error}"));
                    return out;
                }
            }
        }
    }
    out
}

/// A URI, alone and inside of an address.
pub fn sip_uri(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(uri) = Uri::parse(text) {
        let owned = uri.to_owned();
        assert!(uri == owned.as_uri(), "a URI differs from its copy");
        assert_eq!(owned.as_str(), text);
        let _ = (uri.percent_decode_user(), uri.params().count(), uri.headers().count(), uri.param("lr"));
        if let Ok(more) = uri.to_owned().with_param("x", Some("1")) {
            assert!(more.as_uri().param("x").is_some());
        }
    }
    if let Ok(address) = NameAddr::parse(text) {
        let _ = (address.display_name(), address.tag());
        assert!(NameAddr::parse(&address.to_string()).is_ok(), "an address cannot be read back");
    }
    let _ = Contact::parse(text);
}

/// A session description: parse, answer, parse the answer.
pub fn sdp(data: &[u8]) {
    use crate::sdp::{Description, Origin};

    let limits = SdpLimits::default();
    let Ok(session) = Session::parse(data, &limits) else { return };
    let origin = Origin { session_id: 1, version: 1, address: [192, 0, 2, 1].into(), port: 5061 };
    let description = Description { origin, accept_types: &["text/plain"] };
    if let Ok(answer) = description.answer(&session, "sip:a@corp.example") {
        let read = Session::parse(answer.as_bytes(), &limits);
        assert_eq!(read.map(|s| s.media.len()), Ok(session.media.len()), "the answer has other media lines");
    }
}
