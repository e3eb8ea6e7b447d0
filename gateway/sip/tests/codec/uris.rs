//! URIs: parts, writing, equality.

use isthmus_sip::uri::{percent_decode, percent_encode_user};
use isthmus_sip::{Host, Scheme, SipUri, Uri, UriError};

fn uri(text: &str) -> Uri<'_> {
    Uri::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn every_part_is_found() {
    let uri = uri("sips:ana:p%20w@Partner.EXAMPLE:5061;transport=tls;lr;x=a=b?subject=x%20y&priority=urgent");
    assert_eq!(uri.scheme(), Scheme::Sips);
    assert_eq!((uri.user(), uri.password()), (Some("ana"), Some("p%20w")));
    assert_eq!((uri.host(), uri.port()), (Some(Host::Name("partner.example")), Some(5061)));
    assert_eq!(uri.param("Transport"), Some(Some("tls")));
    assert_eq!(uri.param("lr"), Some(None));
    assert_eq!(uri.param("x"), Some(Some("a=b")));
    assert_eq!(uri.param("y"), None);
    assert_eq!(uri.headers().collect::<Vec<_>>(), [("subject", "x%20y"), ("priority", "urgent")]);
}

#[test]
fn schemes_of_presence_and_messages_are_taken_apart_and_others_are_not() {
    assert_eq!(uri("im:ana@partner.example").user(), Some("ana"));
    assert_eq!(uri("PRES:ana@partner.example").scheme(), Scheme::Pres);
    assert_eq!(uri("tel:+49-30-1").host(), None);
    assert_eq!(uri("http://a@b/").scheme(), Scheme::Other("http"));
}

#[test]
fn what_is_no_uri_is_refused_with_the_part() {
    for (text, error) in [
        ("", UriError::Scheme),
        ("ana@partner.example", UriError::Scheme),
        ("9sip:a@b", UriError::Scheme),
        (":a@b", UriError::Scheme),
        ("sip:", UriError::Host),
        ("sip:@host", UriError::User),
        ("sip:a b@host", UriError::User),
        ("sip:a%4@host", UriError::User),
        ("sip:a%zz@host", UriError::User),
        ("sip:a\u{e9}@host", UriError::User),
        ("sip:a<b@host", UriError::User),
        ("sip:a\r\nb@host", UriError::User),
        ("sip:a:b:c@host", UriError::User),
        ("sip:a@b@host", UriError::Host),
        ("sip:a@", UriError::Host),
        ("sip:a@ho st", UriError::Host),
        ("sip:a@host..x", UriError::Host),
        ("sip:a@.host", UriError::Host),
        ("sip:a@1.2.3", UriError::Host),
        ("sip:a@1.2.3.256", UriError::Host),
        ("sip:a@[::1", UriError::Host),
        ("sip:a@[::1%25eth0]", UriError::Host),
        ("sip:a@::1", UriError::Host),
        ("sip:a@host:", UriError::Port),
        ("sip:a@host:65536", UriError::Port),
        ("sip:a@host:-1", UriError::Port),
        ("sip:a@host;", UriError::Param),
        ("sip:a@host;;lr", UriError::Param),
        ("sip:a@host;=x", UriError::Param),
        ("sip:a@host;a=\"x\"", UriError::Param),
        ("sip:a@host;a=<x>", UriError::Param),
        ("sip:a@host;a=b@evil.example", UriError::Param),
        ("sip:a@host?a=b@evil.example", UriError::Header),
        ("sip:a@host?x", UriError::Header),
        ("sip:a@host?=x", UriError::Header),
        ("tel:1 2", UriError::Character),
        ("foo:<x>", UriError::Character),
    ] {
        assert_eq!(Uri::parse(text).expect_err(text), error, "{text:?}");
    }
}

#[test]
fn parameters_and_headers_are_bounded_since_equality_looks_at_pairs() {
    let with = |times: usize| format!("sip:a@h{}?{}x=y", ";p".repeat(times), "x=y&".repeat(times - 1));
    assert!(Uri::parse(&with(64)).is_ok());
    assert_eq!(Uri::parse(&format!("sip:a@h{}", ";p".repeat(65))).expect_err("65"), UriError::Param);
    assert_eq!(Uri::parse(&format!("sip:a@h?{}x=y", "x=y&".repeat(64))).expect_err("65"), UriError::Header);
}

#[test]
fn the_first_at_sign_ends_the_user() {
    let uri = uri("sip:a;b=c?d=e@host;x=y");
    assert_eq!((uri.user(), uri.host()), (Some("a;b=c?d=e"), Some(Host::Name("host"))));
}

//
#[test]
fn every_octet_outside_the_user_set_is_escaped_with_upper_case_hex() {
    for octet in 1..=127u8 {
        let c = char::from(octet);
        let text = c.to_string();
        let expected = if c.is_ascii_alphanumeric() || "-_.!~*'()&=+$,;?/".contains(c) {
            text.clone()
        } else {
            format!("%{octet:02X}")
        };
        assert_eq!(percent_encode_user(&text), expected, "{octet}");
    }
    assert_eq!(percent_encode_user("j\u{f8}rn"), "j%C3%B8rn");
    assert_eq!(percent_encode_user("a#b%\u{1f600}"), "a%23b%25%F0%9F%98%80");
    let built = SipUri::new(Some("x@y \u{f8}:"), "Partner.example").expect("sound");
    assert_eq!(built.as_str(), "sip:x%40y%20%C3%B8%3A@Partner.example");
    assert_eq!(built.as_uri().percent_decode_user().as_deref(), Some("x@y \u{f8}:"));
}

#[test]
fn decoding_gives_nothing_for_octets_that_are_no_text() {
    assert_eq!(percent_decode("a%5Cb").as_deref(), Some("a\\b"));
    assert_eq!(percent_decode("%ff"), None);
    assert_eq!(percent_decode("%4"), None);
}

//
#[test]
fn hosts_compare_without_case_and_users_with_it() {
    assert_eq!(uri("sip:ana@Partner.EXAMPLE"), uri("SIP:ana@partner.example"));
    assert_ne!(uri("sip:Ana@partner.example"), uri("sip:ana@partner.example"));
    assert_eq!(uri("sip:ana@[2001:db8::1]"), uri("sip:ana@[2001:0DB8:0::0:1]"));
}

#[test]
fn equality_is_that_of_the_examples_of_the_standard() {
    for (a, b) in [
        ("sip:%61lice@atlanta.example;transport=TCP", "sip:alice@AtlanTa.example;Transport=tcp"),
        ("sip:carol@chicago.example", "sip:carol@chicago.example;newparam=5"),
        ("sip:carol@chicago.example", "sip:carol@chicago.example;security=on"),
        ("sip:carol@chicago.example;x=1;x=2", "sip:carol@chicago.example;x=2;x=1"),
        ("sip:carol@chicago.example;%6Cr;x=%61", "sip:carol@chicago.example;lr;x=a"),
        ("sip:carol@chicago.example;security=on", "sip:carol@chicago.example;newparam=5"),
        (
            "sip:biloxi.example;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.example",
            "sip:biloxi.example;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.example",
        ),
        (
            "sip:alice@atlanta.example?subject=project%20x&priority=urgent",
            "sip:alice@atlanta.example?priority=urgent&subject=project%20x",
        ),
    ] {
        assert_eq!(uri(a), uri(b));
        assert_eq!(uri(b), uri(a));
    }
    for (a, b) in [
        ("SIP:ALICE@AtLanTa.example;Transport=udp", "sip:alice@AtLanTa.example;Transport=UDP"),
        ("sip:bob@biloxi.example", "sip:bob@biloxi.example:5060"),
        ("sip:bob@biloxi.example", "sip:bob@biloxi.example;transport=udp"),
        ("sip:bob@biloxi.example", "sip:bob@biloxi.example:6000;transport=tcp"),
        ("sip:carol@chicago.example", "sip:carol@chicago.example?Subject=next%20meeting"),
        ("sip:bob@phone21.example", "sip:bob@192.0.2.4"),
        ("sip:bob@biloxi.example", "sips:bob@biloxi.example"),
        ("sip:a%3Bb@biloxi.example", "sip:a;b@biloxi.example"),
        ("sip:a@biloxi.example;maddr=x", "sip:a@biloxi.example"),
        ("sip:a@biloxi.example;security=on", "sip:a@biloxi.example;security=off"),
        ("sip:a:b@biloxi.example", "sip:a@biloxi.example"),
        ("sip:a@biloxi.example;x=1;x=2", "sip:a@biloxi.example;x=1"),
    ] {
        assert_ne!(uri(a), uri(b));
        assert_ne!(uri(b), uri(a));
    }
}

#[test]
fn an_owned_uri_takes_a_port_and_parameters() {
    let built = SipUri::new(Some("lee"), "fed.corp.example").expect("sound").with_port(5061);
    let built = built.with_param("transport", Some("tls")).expect("sound");
    assert_eq!(built.as_str(), "sip:lee@fed.corp.example:5061;transport=tls");
    let moved = SipUri::parse("sip:a@[2001:db8::1]:5060;lr?x=y").expect("sound").with_port(5062);
    assert_eq!(moved.with_param("ob", None).expect("sound").as_str(), "sip:a@[2001:db8::1]:5062;lr;ob?x=y");
    for (name, value) in [("a b", None), ("", None), ("a", Some("")), ("a", Some("x;y")), ("a", Some("x\r\ny"))] {
        assert!(SipUri::new(None, "h.example").expect("sound").with_param(name, value).is_err(), "{name:?} {value:?}");
    }
    assert!(SipUri::new(Some(""), "h.example").is_err());
    assert!(SipUri::new(Some("a"), "h example").is_err());
    assert!(SipUri::new(Some("a"), "h.example:5060").is_err());
}
