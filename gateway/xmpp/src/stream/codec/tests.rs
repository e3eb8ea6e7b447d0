use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::element::{Attribute, Element};
use crate::ns::{self, Ns};
use crate::stream::{StreamCondition, StreamError};
use crate::{ElementRef, name};

const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' \
    xmlns:stream='http://etherx.jabber.org/streams' from='partner.example' id='3BF96D32' xml:lang='en'>";
const PLAIN_HEADER: &str = "<stream:stream xmlns='jabber:component:accept' \
    xmlns:stream='http://etherx.jabber.org/streams'>";

type Outcome = (Vec<StreamEvent>, Option<StreamDecodeError>);

/// Decodes bytes that come in the given pieces; neighbouring blanks are one event whatever the pieces.
fn decode_pieces<'a>(limits: LimitSet, pieces: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let mut decoder = StreamDecoder::new(StreamKind::Component, limits);
    let mut events = Vec::new();
    for mut piece in pieces {
        loop {
            match decoder.decode(&mut piece) {
                Ok(None) => break,
                Ok(Some(StreamEvent::Whitespace)) if events.last() == Some(&StreamEvent::Whitespace) => {}
                Ok(Some(event)) => events.push(event),
                Err(error) => {
                    assert_eq!(decoder.decode(&mut &b"<a/>"[..]), Err(error), "an error is final");
                    return (events, Some(error));
                }
            }
        }
        assert!(piece.is_empty(), "everything is used up");
    }
    (events, None)
}

fn decode(text: impl AsRef<[u8]>) -> Outcome {
    decode_pieces(LimitSet::COMPONENT, std::iter::once(text.as_ref()))
}

/// Decodes what follows a header, with the limits for authenticated peers.
fn decode_after_header(text: impl AsRef<[u8]>) -> Outcome {
    let limits = LimitSet { before: Limits::COMPONENT, after: Limits::COMPONENT };
    let mut bytes = PLAIN_HEADER.as_bytes().to_vec();
    bytes.extend_from_slice(text.as_ref());
    let (mut events, error) = decode_pieces(limits, std::iter::once(&bytes[..]));
    assert!(matches!(events.remove(0), StreamEvent::Header(_)));
    (events, error)
}

fn element(text: &str) -> Element {
    match decode_after_header(text) {
        (events, None) => match events.into_iter().next() {
            Some(StreamEvent::Element(element)) => element,
            other => panic!("{other:?}"),
        },
        (_, Some(error)) => panic!("{error}"),
    }
}

fn error(text: impl AsRef<[u8]>) -> StreamDecodeError {
    decode_after_header(text).1.expect("the stream is refused")
}

fn encode(element: &Element) -> String {
    let mut encoder = StreamEncoder::new(StreamKind::Component);
    encoder.element(element).unwrap();
    String::from_utf8(encoder.take().to_vec()).unwrap()
}

#[test]
fn a_stream_is_its_header_its_elements_and_its_footer() {
    let (events, error) = decode(format!("{HEADER}<handshake/> \n<presence from='a'/></stream:stream> junk <"));
    assert_eq!(error, None);
    let [StreamEvent::Header(header), StreamEvent::Element(handshake), StreamEvent::Whitespace, presence, footer] =
        &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(header.from.as_deref(), Some("partner.example"));
    assert_eq!(header.id.as_deref(), Some("3BF96D32"));
    assert_eq!(header.lang.as_deref(), Some("en"));
    assert_eq!((header.version.as_deref(), header.to.as_deref(), header.dialback), (None, None, false));
    assert!(handshake.is(ns::CLIENT, "handshake"));
    let StreamEvent::Element(presence) = presence else { panic!("{presence:?}") };
    assert_eq!(presence.attribute("from"), Some("a"));
    assert_eq!(presence.root().lang(), Some("en"), "the header's language is inherited");
    assert_eq!(footer, &StreamEvent::Footer);
}

#[test]
fn a_header_without_version_and_with_an_empty_id_is_a_header() {
    //
    // XEP-0114 knows no version; Prosody sends an empty id with host-unknown
    let text = PLAIN_HEADER.replace('>', " id=''>");
    let (events, error) = decode(text);
    assert_eq!(error, None);
    let StreamEvent::Header(header) = &events[0] else { panic!("{events:?}") };
    assert_eq!((header.id.as_deref(), header.version.as_deref()), (Some(""), None));
}

#[test]
fn blanks_before_the_header_and_between_elements_are_not_kept_and_not_counted() {
    let blanks = " \r\n\t".repeat(300_000);
    let (events, error) = decode(format!("{blanks}{HEADER}{blanks}<a/>{blanks}<b/>{blanks}"));
    assert_eq!(error, None);
    assert_eq!(events.len(), 6);
    let mut decoder = StreamDecoder::new(StreamKind::Component, LimitSet::COMPONENT);
    let mut bytes = HEADER.as_bytes();
    while decoder.decode(&mut bytes).unwrap().is_some() {}
    // a blank is told at once, not when the next element comes
    assert_eq!(decoder.decode(&mut &b" "[..]), Ok(Some(StreamEvent::Whitespace)));
    assert!(!decoder.is_inside_element());
    assert_eq!(decoder.decode(&mut &b" <"[..]), Ok(Some(StreamEvent::Whitespace)));
}

#[test]
fn inherited_content_is_content_and_declared_content_is_not() {
    let stanza = element(
        "<message xml:lang='de'><body>hi</body><forwarded xmlns='urn:xmpp:forward:0'>\
         <message xmlns='jabber:client'><body>in</body></message></forwarded></message>",
    );
    assert!(stanza.ns().is_content());
    assert!(stanza.child(ns::CLIENT, "body").unwrap().ns().is_content());
    let forwarded = stanza.child(ns::FORWARD, "forwarded").unwrap().child(ns::CLIENT, "message").unwrap();
    assert!(!forwarded.ns().is_content());
    assert!(!forwarded.child(ns::CLIENT, "body").unwrap().ns().is_content());
    assert_eq!(
        encode(&stanza),
        "<message xml:lang=\"de\"><body>hi</body><forwarded xmlns=\"urn:xmpp:forward:0\">\
         <message xmlns=\"jabber:client\"><body>in</body></message></forwarded></message>"
    );
}

#[test]
fn stanzas_that_declare_another_streams_namespace_are_content() {
    // jabberd2 writes so on component streams
    for text in [
        "<message xmlns='jabber:client'><body>hi</body></message>",
        "<message xmlns='jabber:server'><body>hi</body></message>",
        "<c:message xmlns:c='jabber:client'><body>hi</body></c:message>",
    ] {
        let stanza = element(text);
        assert!(stanza.ns().is_content(), "{text}");
        assert_eq!(encode(&stanza), "<message><body>hi</body></message>", "{text}");
    }
}

#[test]
fn prefixes_and_undeclared_defaults_resolve_as_xml_says() {
    let tree =
        element("<iq xmlns:x='urn:one'><x:a x:k='1' k='2' xmlns:x='urn:two'><b xmlns=''/><x:c/></x:a><x:d/></iq>");
    let a = tree.child("urn:two", "a").unwrap();
    let attributes: Vec<_> = a.attributes().iter().map(|a| (a.ns().as_str(), a.name(), a.value())).collect();
    assert_eq!(attributes, [("urn:two", "k", "1"), ("", "k", "2")]);
    let names = |e: ElementRef<'_>| e.children().map(|c| (c.ns().as_str().to_owned(), c.name().to_owned())).collect();
    let inside: Vec<_> = names(a);
    assert_eq!(inside, [(String::new(), "b".into()), ("urn:two".into(), "c".into())]);
    assert!(tree.child("urn:one", "d").is_some());
    assert_eq!(element(&encode(&tree)), tree);
}

#[test]
fn references_sections_and_line_ends_become_text() {
    let tree = element("<a b='&lt;&#x41;&apos;\n'>x &amp; <![CDATA[<y>]]>&#13;\r\nz]]&gt;</a>");
    assert_eq!(tree.attribute("b"), Some("<A' "));
    assert_eq!(tree.text(), "x & <y>\r\nz]]>");
    assert_eq!(tree.nodes().len(), 2, "one element with one text");
    assert_eq!(element(&encode(&tree)), tree);
}

#[test]
fn what_streams_may_not_use_is_refused_before_anything_is_expanded() {
    for text in [
        "<!DOCTYPE a>",
        "<!DOCTYPE lolz [<!ENTITY lol 'lol'><!ENTITY lol1 '&lol;&lol;'>]><a>&lol1;</a>",
        "<!ENTITY a 'b'>",
        "<a><!-- comment --></a>",
        "<!-- comment -->",
        "<?php echo ?>",
        "<a><?pi?></a>",
        "<?xml version='1.0'?>",
        "<a>&unknown;</a>",
        "<a b='&unknown;'/>",
    ] {
        assert_eq!(error(text).condition(), StreamCondition::RestrictedXml, "{text}");
    }
    let (events, error) = decode(format!("<!DOCTYPE a>{HEADER}"));
    assert_eq!((events.len(), error), (0, Some(StreamDecodeError::Restricted)));
}

#[test]
fn each_fault_has_its_stream_error() {
    let cases: [(&[u8], StreamCondition); 14] = [
        (b"<a></b>", StreamCondition::NotWellFormed),
        (b"<a b='1' b='2'/>", StreamCondition::NotWellFormed),
        (b"<a xmlns:x='u' xmlns:y='u' x:b='1' y:b='2'/>", StreamCondition::NotWellFormed),
        (b"<a xmlns:x='u' xmlns:x='v'/>", StreamCondition::NotWellFormed),
        (b"<a b=1/>", StreamCondition::NotWellFormed),
        (b"<a b='<'/>", StreamCondition::NotWellFormed),
        (b"<a>\x01</a>", StreamCondition::NotWellFormed),
        (b"<a>&#1;</a>", StreamCondition::NotWellFormed),
        (b"<a>\xff</a>", StreamCondition::NotWellFormed),
        (b"<a>\xc3</a>", StreamCondition::NotWellFormed),
        (b"<a>\xed\xa0\x80</a>", StreamCondition::NotWellFormed),
        (b"<x:a/>", StreamCondition::BadNamespacePrefix),
        (b"<a x:b='1'/>", StreamCondition::BadNamespacePrefix),
        (b"stray <a/>", StreamCondition::BadFormat),
    ];
    for (text, condition) in cases {
        assert_eq!(error(text).condition(), condition, "{}", String::from_utf8_lossy(text));
    }
}

#[test]
fn headers_of_other_streams_and_encodings_are_refused() {
    let condition = |text: &str| decode(text).1.map(StreamDecodeError::condition);
    let component = Some(StreamCondition::InvalidNamespace);
    assert_eq!(condition(&PLAIN_HEADER.replace("jabber:component:accept", "jabber:server")), component);
    assert_eq!(condition(&PLAIN_HEADER.replace("http://etherx.jabber.org/streams", "urn:x")), component);
    assert_eq!(condition("<stream xmlns='jabber:component:accept'>"), component);
    assert_eq!(condition("<html>"), component);
    assert_eq!(condition("<?xml version='1.0' encoding='iso-8859-1'?>"), Some(StreamCondition::UnsupportedEncoding));
    assert_eq!(condition("HTTP/1.1 400 Bad Request\r\n"), Some(StreamCondition::NotWellFormed));
    assert_eq!(condition("\u{feff}<"), Some(StreamCondition::NotWellFormed));
    assert_eq!(condition("<?xml version='1.0' encoding='UTF-8'?>"), None);
}

#[test]
fn an_element_deeper_than_the_limit_is_refused_before_it_is_built() {
    let deepest = |limits: LimitSet, levels: usize| {
        let text = format!("{HEADER}{}", "<a>".repeat(levels));
        decode_pieces(limits, std::iter::once(text.as_bytes())).1
    };
    let roomy = LimitSet { before: Limits::COMPONENT, after: Limits::COMPONENT };
    assert_eq!(deepest(LimitSet::COMPONENT, 16), None);
    assert_eq!(deepest(LimitSet::COMPONENT, 17), Some(StreamDecodeError::TooDeep { limit: 16 }));
    assert_eq!(deepest(roomy, 64), None);
    assert_eq!(deepest(roomy, 65), Some(StreamDecodeError::TooDeep { limit: 64 }));
    // the 105 kB that abort other implementations
    assert_eq!(deepest(roomy, 35_000), Some(StreamDecodeError::TooDeep { limit: 64 }));
    // and with the limit lifted it still exhausts no stack
    let lifted = Limits { depth: usize::MAX, children: usize::MAX, ..Limits::COMPONENT };
    let text = format!("{HEADER}{}{}", "<a>".repeat(70_000), "</a>".repeat(70_000));
    let (events, error) = decode_pieces(LimitSet { before: lifted, after: lifted }, std::iter::once(text.as_bytes()));
    assert_eq!((events.len(), error), (2, None));
}

#[test]
fn sizes_are_counted_in_raw_bytes_and_the_limit_itself_is_allowed() {
    let limit = Limits::BEFORE_AUTHENTICATION.element_bytes;
    let of_size = |size: usize| format!("<a>{}</a>", "&#65;".repeat(size / 5) + &"x".repeat(size % 5));
    let fits = of_size(limit - "<a></a>".len());
    assert_eq!(fits.len(), limit);
    let (events, error) = decode(format!("{HEADER} {fits}{fits}"));
    assert_eq!((events.len(), error), (4, None));
    let (events, error) = decode(format!("{HEADER}{}", of_size(limit - "<a></a>".len() + 1)));
    assert_eq!((events.len(), error), (1, Some(StreamDecodeError::ElementTooLarge { limit })));
    let (_, error) = decode(format!("{HEADER}<a>{}", "x".repeat(600_000)));
    assert_eq!(error, Some(StreamDecodeError::ElementTooLarge { limit }));
    let header = PLAIN_HEADER.replace('>', &format!(" a='{}'", "x".repeat(4000)));
    assert_eq!(decode(header).1, Some(StreamDecodeError::HeaderTooLarge { limit: 4096 }));
    assert_eq!(decode("<".to_owned() + &"x".repeat(9000)).1, Some(StreamDecodeError::HeaderTooLarge { limit: 4096 }));
}

#[test]
fn limits_grow_with_authentication() {
    let mut decoder = StreamDecoder::new(StreamKind::Component, LimitSet::COMPONENT);
    let mut bytes = HEADER.as_bytes();
    while decoder.decode(&mut bytes).unwrap().is_some() {}
    decoder.authenticated();
    let large = format!("<a>{}</a>", "x".repeat(500_000));
    assert!(matches!(decoder.decode(&mut large.as_bytes()), Ok(Some(StreamEvent::Element(_)))));
    let huge = format!("<a>{}</a>", "x".repeat(600_000));
    assert_eq!(decoder.decode(&mut huge.as_bytes()), Err(StreamDecodeError::ElementTooLarge { limit: 524_288 }));
}

#[test]
fn attributes_children_declarations_and_tokens_are_bounded() {
    let many = |count: usize, one: &dyn Fn(usize) -> String| (0..count).map(one).collect::<String>();
    let attributes = |count| format!("<a {}/>", many(count, &|n| format!("a{n}='' ")));
    assert_eq!(decode_after_header(attributes(64)).1, None);
    assert_eq!(error(attributes(65)), StreamDecodeError::TooManyAttributes { limit: 64 });
    assert_eq!(error(attributes(40_000)), StreamDecodeError::TooManyAttributes { limit: 64 });
    let declarations = |count| format!("<a {}/>", many(count, &|n| format!("xmlns:a{n}='u' ")));
    assert_eq!(decode_after_header(declarations(32)).1, None);
    assert_eq!(error(declarations(33)), StreamDecodeError::TooManyDeclarations { limit: 32 });
    let children = |count| format!("<a>{}</a>", many(count, &|_| "<b/>".into()));
    assert_eq!(decode_after_header(children(4096)).1, None);
    assert_eq!(error(children(4097)), StreamDecodeError::TooManyChildren { limit: 4096 });
    // the count begins anew with each element
    assert_eq!(decode_after_header(children(4000) + &children(4000)).1, None);
    let token = StreamDecodeError::TokenTooLong { limit: 8192 };
    assert_eq!(decode_after_header(format!("<a b='{}'/>", "x".repeat(8192))).1, None);
    assert_eq!(error(format!("<a b='{}'/>", "x".repeat(8193))), token);
    assert_eq!(error(format!("<{}/>", "x".repeat(8193))), token);
    assert_eq!(error(format!("<a {}=''/>", "x".repeat(8193))), token);
    // before authentication less is allowed
    let (_, error) = decode(format!("{HEADER}<a b='{}'/>", "x".repeat(4097)));
    assert_eq!(error, Some(StreamDecodeError::TokenTooLong { limit: 4096 }));
    for limit in [token, StreamDecodeError::TooDeep { limit: 1 }] {
        assert_eq!(limit.condition(), StreamCondition::PolicyViolation);
        assert!(limit.is_limit());
    }
}

#[test]
fn every_split_of_a_stream_gives_the_same_events() {
    let text = format!(
        "{HEADER}<handshake/>\n <message xmlns='jabber:client' to='a@b'><body xml:lang='sv'>h\u{e4}\u{20ac}\u{1f600}\
         &amp;&#228;]]&gt;\r\n<![CDATA[x]]y]]></body><x:e xmlns:x='urn:x' x:y='&quot;'/></message> <iq/></stream:stream>"
    );
    let whole = decode(&text);
    assert_eq!((whole.0.len(), whole.1), (7, None));
    for at in 0..=text.len() {
        let (a, b) = text.as_bytes().split_at(at);
        assert_eq!(decode_pieces(LimitSet::COMPONENT, [a, b].into_iter()), whole, "split at {at}");
    }
    assert_eq!(decode_pieces(LimitSet::COMPONENT, text.as_bytes().chunks(1)), whole);
}

#[test]
fn one_element_alone_is_read_and_nothing_else() {
    let read = |text: &str| read_element(text.as_bytes(), &Limits::COMPONENT);
    let element = read(" <message to='a'><body>x</body></message>\n").unwrap();
    assert!(element.ns().is_content());
    assert_eq!(encode(&element), "<message to=\"a\"><body>x</body></message>");
    for wrong in ["", "<a>", "<a/><b/>", "<a/>x", "</stream:stream>", "x", "</a>"] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn streams_are_opened_closed_and_failed_as_the_rfc_writes_them() {
    let mut encoder = StreamEncoder::new(StreamKind::Component);
    let header = Header { to: Some("partner.example".into()), ..Header::default() };
    encoder.header(&header).unwrap();
    assert_eq!(
        encoder.take(),
        "<?xml version='1.0'?><stream:stream xmlns=\"jabber:component:accept\" \
         xmlns:stream=\"http://etherx.jabber.org/streams\" to=\"partner.example\">"
    );
    let mut error = StreamError::new(StreamCondition::PolicyViolation);
    error.text = Some("a < b\u{1}".into());
    encoder.stream_error(&error);
    encoder.footer();
    let sent = encoder.take();
    assert_eq!(
        sent,
        "<stream:error><policy-violation xmlns=\"urn:ietf:params:xml:ns:xmpp-streams\"/>\
         <text xmlns=\"urn:ietf:params:xml:ns:xmpp-streams\">a &lt; b</text></stream:error></stream:stream>"
    );
    let (events, _) = decode([HEADER.as_bytes(), &sent].concat());
    let StreamEvent::Element(element) = &events[1] else { panic!("{events:?}") };
    error.text = Some("a < b".into());
    assert_eq!(StreamError::read(element.root()), Some(error));
    for condition in StreamCondition::ALL {
        assert_eq!(StreamCondition::parse(condition.as_str()), Some(*condition));
    }
}

#[test]
fn dialback_declared_on_a_header_is_seen() {
    let mut encoder = StreamEncoder::new(StreamKind::Server);
    let header = Header {
        from: Some("a".into()),
        to: Some("b".into()),
        version: Some("1.0".into()),
        lang: Some("en".into()),
        id: Some("i".into()),
        dialback: true,
    };
    encoder.header(&header).unwrap();
    let mut decoder = StreamDecoder::new(StreamKind::Server, LimitSet::SERVER);
    assert_eq!(decoder.decode(&mut &encoder.take()[..]), Ok(Some(StreamEvent::Header(header))));
}

#[test]
fn what_cannot_be_written_leaves_nothing_behind() {
    let mut encoder = StreamEncoder::new(StreamKind::Component);
    encoder.whitespace();
    let bad_text = Element::new(Ns::CONTENT, name!("a"))
        .with_text("fine")
        .with_child(Element::new(Ns::new("urn:x"), name!("b")).with_text("\0"));
    let bad_attribute = Element::new(Ns::CONTENT, name!("a")).with_attribute(name!("b"), "x\u{ffff}");
    for element in [bad_text, bad_attribute] {
        assert_eq!(encoder.element(&element), Err(EncodeError::IllegalCharacter));
    }
    let header = Header { to: Some("a\u{b}".into()), ..Header::default() };
    assert_eq!(encoder.header(&header), Err(EncodeError::IllegalCharacter));
    assert_eq!(encoder.take(), " ");
}

#[test]
fn content_inside_other_namespaces_is_written_in_the_streams_namespace() {
    let inner = Element::new(Ns::CONTENT, name!("b")).with_child(Element::new(Ns::CONTENT, name!("c")));
    let tree =
        Element::new(Ns::CONTENT, name!("a")).with_child(Element::new(Ns::new("urn:x"), name!("x")).with_child(inner));
    assert_eq!(encode(&tree), "<a><x xmlns=\"urn:x\"><b xmlns=\"jabber:component:accept\"><c/></b></x></a>");
}

/// Trees that a stream can carry so that they come back the same: content only inside content, and no
/// content namespace under its own name on the first level.
fn trees() -> impl Strategy<Value = Element> {
    let names = prop::sample::select(vec![name!("a"), name!("body"), name!("x-y.z"), name!("_q")]);
    let namespaces = prop::sample::select(vec!["urn:one", "urn:two", ns::DELAY, ns::FORWARD, ""]);
    let attribute = (prop_oneof![Just(""), Just("urn:one"), Just(ns::XML)], names.clone(), text());
    let attributes = prop::collection::vec(attribute, 0..4);
    let node = (any::<bool>(), namespaces, names, attributes, text(), text());
    let leaf = node.prop_map(|(content, ns, name, attributes, before, after)| {
        (if content { Ns::CONTENT } else { Ns::new(ns) }, name, attributes, before, after)
    });
    let leaf = leaf.prop_map(|(ns, name, attributes, before, after)| {
        let mut element = Element::new(ns, name).with_text(before);
        for (ns, name, value) in attributes {
            element.set_attribute(Ns::new(ns), name, value);
        }
        (element, after)
    });
    leaf.prop_recursive(4, 24, 4, |inner| {
        (inner.clone(), prop::collection::vec(inner, 0..4)).prop_map(|((parent, after), children)| {
            let content = parent.ns().is_content();
            let children = children.into_iter().filter(|(child, _)| content || !child.ns().is_content());
            let parent = children.fold(parent, |parent, (child, after)| parent.with_child(child).with_text(after));
            (parent, after)
        })
    })
    .prop_map(|(element, _)| element)
}

fn text() -> impl Strategy<Value = String> {
    let characters = prop::char::any().prop_filter("legal in XML", |c| crate::xml::is_legal(*c));
    let awkward =
        prop::sample::select(vec!['\r', '\n', '\t', ' ', '<', '>', '&', '"', '\'', ']', '\u{85}', '\u{2028}']);
    prop::collection::vec(prop_oneof![characters, awkward], 0..8).prop_map(String::from_iter)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn what_is_written_is_read_as_it_was(tree in trees(), chunk in 1..40_usize) {
        let mut bytes = PLAIN_HEADER.as_bytes().to_vec();
        let mut encoder = StreamEncoder::new(StreamKind::Component);
        encoder.element(&tree).unwrap();
        bytes.extend_from_slice(&encoder.take());
        let (events, error) = decode_pieces(LimitSet::COMPONENT, bytes.chunks(chunk));
        prop_assert_eq!(error, None);
        prop_assert_eq!(events.get(1), Some(&StreamEvent::Element(tree)));
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_do_not_depend_on_their_pieces(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b"<>/='\"&;!?[]- \r\nax:"[..])], 0..80),
        chunk in 1..9_usize,
        within in any::<bool>(),
    ) {
        let mut input = if within { PLAIN_HEADER.as_bytes().to_vec() } else { Vec::new() };
        input.extend_from_slice(&bytes);
        let whole = decode(&input);
        let pieces = decode_pieces(LimitSet::COMPONENT, input.chunks(chunk));
        prop_assert_eq!(pieces.0, whole.0);
        prop_assert_eq!(pieces.1.map(StreamDecodeError::condition), whole.1.map(StreamDecodeError::condition));
    }
}

#[test]
fn namespaced_attributes_beyond_the_prefixes_are_refused() {
    let mut text = "<a".to_owned();
    for n in 0..27 {
        write!(text, " xmlns:p{n}='urn:{n}' p{n}:k='v'").unwrap();
    }
    let tree = element(&(text + "/>"));
    assert_eq!(tree.root().attributes().iter().map(Attribute::value).collect::<String>(), "v".repeat(27));
    let refused = StreamEncoder::new(StreamKind::Component).element(&tree);
    assert_eq!(refused, Err(EncodeError::TooManyPrefixes { limit: 26 }));
}
