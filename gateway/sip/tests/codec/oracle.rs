//! An independent codec reads the same out of the same bytes.

use bytes::Bytes;
use isthmus_sip::{HeaderName, Limits, Message};
use sipx_sip::headers::{CSeq, CallId, From, To, Via};
use sipx_sip::parser::{self, Limits as OracleLimits};

use crate::{subscribe, torture_valid};

fn samples() -> Vec<(&'static str, Bytes)> {
    let mut samples = torture_valid::all();
    samples.push(("subscribe", Bytes::from_static(include_bytes!("../../benches/subscribe.sip"))));
    samples.push(("small", subscribe("Event: presence\nAccept: application/pidf+xml\n", "")));
    samples.push(("message", subscribe("Content-Type: text/plain\nSubject: a\n  b\n", "Lunch?\r\n")));
    samples
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

#[test]
fn both_codecs_read_the_same_out_of_every_valid_message() {
    for (name, bytes) in samples() {
        let ours = Message::parse(bytes.clone(), &Limits::default()).expect(name);
        let theirs = parser::parse_datagram(bytes, &OracleLimits::datagram()).expect(name);
        assert_eq!(ours.is_request(), theirs.as_request().is_some(), "{name}");
        assert_eq!(ours.body(), theirs.body(), "{name}");
        let headers = theirs.headers();
        assert_eq!(ours.lines().count(), headers.len(), "{name}");

        let vias: Vec<Via> = headers.typed_all().collect::<Result<_, _>>().expect(name);
        assert_eq!(ours.vias().flatten().count(), vias.len(), "{name}");
        for (our, their) in ours.vias().flatten().zip(&vias) {
            assert_eq!(our.branch().map(str::as_bytes), their.branch(), "{name}");
        }
        let from: From = headers.typed().expect(name).expect(name);
        assert_eq!(ours.from_().tag().map(str::as_bytes), from.tag(), "{name}");
        let to: To = headers.typed().expect(name).expect(name);
        assert_eq!(ours.to().tag().map(str::as_bytes), to.tag(), "{name}");
        let cseq: CSeq = headers.typed().expect(name).expect(name);
        assert_eq!(ours.cseq().number, cseq.sequence, "{name}");
        assert_eq!(ours.cseq().method.as_str(), text(cseq.method.as_bytes()), "{name}");
        let call_id: CallId = headers.typed().expect(name).expect(name);
        assert_eq!(ours.call_id(), text(&call_id.0), "{name}");

        if let Some(request) = theirs.as_request() {
            assert_eq!(ours.method().as_str(), text(request.method.as_bytes()), "{name}");
        }
        if let Some(response) = theirs.as_response() {
            assert_eq!(ours.status().map(isthmus_sip::StatusCode::code), Some(response.status.code()), "{name}");
        }
    }
}

#[test]
fn what_we_write_the_other_codec_reads() {
    for (name, bytes) in samples() {
        let Ok(written) = Message::parse(bytes, &Limits::default()).expect(name).rewrite() else {
            assert_eq!(name, "intmeth", "only the escaped NUL is not written");
            continue;
        };
        let ours = Message::parse(written.clone(), &Limits::default()).expect(name);
        let theirs = parser::parse_datagram(written, &OracleLimits::datagram()).expect(name);
        assert_eq!(theirs.body(), &ours.body(), "{name}");
        let subject = theirs.headers().value(&sipx_sip::HeaderName::Subject);
        let ours = ours.header(HeaderName::Subject).map(|s| s.split_ascii_whitespace().collect::<String>());
        let theirs = subject.map(|s| text(&s).split_ascii_whitespace().collect::<String>());
        assert_eq!(ours, theirs, "{name}");
    }
}
