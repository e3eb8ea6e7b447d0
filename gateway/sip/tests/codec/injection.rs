//! No value can start a header of its own, whatever writes it.

use isthmus_sip::sdp::{Description, Origin};
use isthmus_sip::{
    Address, HeaderName, Limits, Message, Method, RequestWriter, ResponseWriter, SipUri, StatusCode, Transport,
    ViaSpec, WriteError,
};
use proptest::prelude::*;

/// What an attacker may get into a value.
const EVIL: [&str; 6] =
    ["x\r\nEvil: 1", "x\nEvil: 1", "x\rEvil: 1", "x\0", "\r\n\r\nINVITE sip:a SIP/2.0", "x\r\n folded"];

fn writer() -> RequestWriter {
    RequestWriter::new(Method::Message, "sip:ana@partner.example")
}

type Attack = fn(&mut RequestWriter, &str);

/// Every way to put a text of somebody else into a request.
const ATTACKS: [(&str, Attack); 18] = [
    ("header", |w, v| {
        w.header(HeaderName::Subject, v);
    }),
    ("display", |w, v| {
        w.display(HeaderName::Subject, format_args!("a{v}"));
    }),
    ("extension value", |w, v| {
        w.extension("X-Thing", v);
    }),
    ("extension name", |w, v| {
        w.extension(v, "x");
    }),
    ("via host", |w, v| {
        w.via(&ViaSpec {
            transport: Transport::Tls,
            host: v,
            port: None,
            branch: "z9hG4bK1",
            rport: true,
            alias: false,
        });
    }),
    ("via branch", |w, v| {
        w.via(&ViaSpec { transport: Transport::Tls, host: "h", port: Some(1), branch: v, rport: true, alias: true });
    }),
    ("from uri", |w, v| {
        w.from(&Address::new(v));
    }),
    ("from tag", |w, v| {
        w.from(&Address::new("sip:a@b.example").with_tag(v));
    }),
    ("contact params", |w, v| {
        w.contact(&Address { uri: "sip:a@b.example", params: v, ..Address::default() });
    }),
    ("route", |w, v| {
        w.routes([v]);
    }),
    ("route parameter", |w, v| {
        w.routes([format!("<sip:p.example;lr>;x=\"{v}\"").as_str()]);
    }),
    ("call-id", |w, v| {
        w.call_id(v);
    }),
    ("cseq method", |w, v| {
        w.cseq(1, Method::Other(v));
    }),
    ("warning agent", |w, v| {
        w.warning(399, v, "text");
    }),
    ("to", |w, v| {
        w.address(HeaderName::To, &Address::new(v));
    }),
    ("request-uri", |w, v| *w = RequestWriter::new(Method::Message, v)),
    ("request-uri user", |w, v| *w = RequestWriter::new(Method::Message, &format!("sip:{v}@partner.example"))),
    ("method", |w, v| *w = RequestWriter::new(Method::Other(v), "sip:ana@partner.example")),
];

#[test]
fn line_breaks_and_nul_are_refused_by_every_writer() {
    for (name, attack) in ATTACKS {
        for evil in EVIL {
            let mut writer = writer();
            attack(&mut writer, evil);
            let written = writer.finish(b"");
            assert!(written.is_err(), "{name} wrote {evil:?}: {written:?}");
        }
    }
}

#[test]
fn display_names_and_warning_texts_lose_their_control_characters() {
    for evil in EVIL {
        let mut writer = writer();
        writer.from(&Address { display: Some(evil), uri: "sip:a@b.example", ..Address::default() });
        writer.warning(399, "gw", evil);
        let written = writer.finish(b"").expect("harmless");
        let text = String::from_utf8(written.to_vec()).expect("text");
        assert_eq!(text.lines().count(), 5, "{text}");
        assert!(!text.contains('\0'));
    }
}

#[test]
fn a_reason_phrase_cannot_break_the_status_line() {
    for evil in EVIL {
        let written = ResponseWriter::new(StatusCode::OK, Some(evil)).finish(b"");
        assert_eq!(written, Err(WriteError::ControlCharacter("reason phrase")));
    }
}

#[test]
fn content_length_is_nobody_elses() {
    let mut writer = writer();
    writer.header(HeaderName::ContentLength, "5");
    assert_eq!(writer.finish(b""), Err(WriteError::Name));
    for name in ["Content-Length", "l", "content-length"] {
        let mut writer = self::writer();
        writer.extension(name, "5");
        assert_eq!(writer.finish(b""), Err(WriteError::Name));
    }
}

#[test]
fn a_description_has_no_line_that_was_not_asked_for() {
    let origin = Origin { session_id: 1, version: 1, address: [192, 0, 2, 1].into(), port: 5061 };
    for evil in EVIL {
        assert!(Description { origin, accept_types: &["text/plain", evil] }.offer().is_err());
        let offer = Description { origin, accept_types: &["text/plain"] }.offer().expect("sound");
        let offer = isthmus_sip::sdp::Session::parse(offer.as_bytes(), &isthmus_sip::sdp::SdpLimits::default())
            .expect("own offer");
        assert!(Description { origin, accept_types: &["text/plain"] }.answer(&offer, evil).is_err());
    }
}

proptest! {
    #[test]
    fn whatever_is_written_has_the_headers_that_were_asked_for(value in "\\PC*|[\\x00-\\x7f]{0,20}", at in 0..ATTACKS.len()) {
        let mut writer = writer();
        let (name, attack) = ATTACKS[at];
        attack(&mut writer, &value);
        if let Ok(written) = writer.finish(b"") {
            let text = String::from_utf8(written.to_vec()).expect("text");
            let lines = text.split("\r\n").count();
            // start line, at most one header, Content-Length, empty line, nothing
            prop_assert!(lines <= 5, "{name}: {text:?}");
            prop_assert!(!text.replace("\r\n", "").contains(['\r', '\n', '\0']), "{name}: {text:?}");
        }
    }

    #[test]
    fn an_address_with_any_names_is_read_as_written(user in "\\PC{1,20}", display in "\\PC{0,20}") {
        let uri = SipUri::new(Some(&user), "corp.example").expect("sound");
        let mut writer = writer();
        let spec = ViaSpec { transport: Transport::Udp, host: "h.example", port: None, branch: "z9hG4bK1", rport: true, alias: false };
        writer.via(&spec).from(&Address { display: Some(&display), uri: uri.as_str(), tag: Some("1"), params: ";epid=1" });
        writer.to(&Address::new("sip:ana@partner.example")).call_id("1").cseq(1, Method::Message);
        let message = Message::parse(writer.finish(b"").expect("sound"), &Limits::default()).expect("readable");
        prop_assert_eq!(message.from_().display_name().unwrap_or_default(), display);
        prop_assert_eq!(message.from_().uri().expect("uri").percent_decode_user().expect("text"), user);
        prop_assert_eq!(message.from_().params().get("epid"), Some("1"));
    }
}
