use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn body<'a>(content_type: &'a str, bytes: &'a [u8]) -> Body<'a> {
    Body { content_type: Some(content_type), bytes, ..Body::default() }
}

fn received(content_type: &str, bytes: &[u8]) -> Result<Received, ContentRefusal> {
    read(&body(content_type, bytes), &ContentLimits::default())
}

fn text(content_type: &str, bytes: &[u8]) -> String {
    match received(content_type, bytes) {
        Ok(Received::Text(text)) => text.text,
        other => panic!("{content_type}: {other:?}"),
    }
}

#[test]
fn every_character_set_arrives_as_the_same_text() {
    // I-33
    let wanted = "Grüße €".to_owned();
    assert_eq!(text("text/plain", wanted.as_bytes()), wanted);
    assert_eq!(text("text/plain;charset=UTF-8", wanted.as_bytes()), wanted);
    assert_eq!(text("text/plain; charset=\"us-ascii\"", b"plain"), "plain");
    assert_eq!(text("text/plain;charset=iso-8859-1", b"Gr\xfc\xdfe"), "Grüße");
    assert_eq!(text("Text/Plain;CHARSET=Latin1", b"\xe9"), "é");
    let le: Vec<u8> = wanted.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let be: Vec<u8> = wanted.encode_utf16().flat_map(u16::to_be_bytes).collect();
    assert_eq!(text("text/plain;charset=utf-16", &[b"\xff\xfe", &le[..]].concat()), wanted);
    assert_eq!(text("text/plain;charset=utf-16", &[b"\xfe\xff", &be[..]].concat()), wanted);
    assert_eq!(text("text/plain;charset=utf-16", &be), wanted);
    assert_eq!(text("text/plain;charset=utf-16le", &le), wanted);
    assert_eq!(text("text/plain;charset=utf-16be", &be), wanted);
    assert_eq!(text("text/plain; charset=UTF-8; msgr=WAAtAE0A", b"hello"), "hello");
}

#[test]
fn unknown_character_sets_and_broken_texts_are_refused() {
    assert_eq!(received("text/plain;charset=koi8-r", b"x"), Err(ContentRefusal::UnsupportedType));
    assert_eq!(received("text/plain", b"\xff\xfe"), Err(ContentRefusal::Malformed));
    assert_eq!(received("text/plain;charset=utf-16", b"abc"), Err(ContentRefusal::Malformed));
    assert_eq!(received("text/plain;charset=utf-16be", b"\xd8\x00\x00\x41"), Err(ContentRefusal::Malformed));
    assert_eq!(received("nonsense", b"x"), Err(ContentRefusal::Malformed));
}

#[test]
fn an_unsupported_type_is_415_with_what_would_be_taken() {
    // I-32
    for kind in
        ["text/rtf", "image/png", "text/x-msmsgsinvite", "application/octet-stream", "multipart/mixed;boundary=b"]
    {
        let refusal = received(kind, b"x").unwrap_err();
        assert_eq!(refusal.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind}");
        let (name, value) = refusal.companion().unwrap();
        assert_eq!(name, HeaderName::Accept);
        for taken in ["text/plain", "text/html", "multipart/alternative", "message/cpim"] {
            assert!(value.contains(taken), "{value}");
        }
    }
}

#[test]
fn an_encoded_body_is_415_and_identity_is_none() {
    let gzip = Body { encoding: Some("gzip"), ..body("text/plain", b"x") };
    let refusal = read(&gzip, &ContentLimits::default()).unwrap_err();
    assert_eq!(refusal.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(refusal.companion(), Some((HeaderName::AcceptEncoding, "identity")));
    let identity = Body { encoding: Some("Identity"), ..body("text/plain", b"x") };
    assert!(read(&identity, &ContentLimits::default()).is_ok());
}

#[test]
fn an_oversized_body_is_513() {
    // I-43
    let limits = ContentLimits { bytes: 10, ..ContentLimits::default() };
    assert!(read(&body("text/plain", b"0123456789"), &limits).is_ok());
    let refusal = read(&body("text/plain", b"0123456789a"), &limits).unwrap_err();
    assert_eq!(refusal.status(), StatusCode::MESSAGE_TOO_LARGE);
    // ten bytes that are twenty as UTF-8
    let refusal = read(&body("text/plain;charset=iso-8859-1", &[0xe9; 10]), &limits).unwrap_err();
    assert_eq!(refusal.status(), StatusCode::MESSAGE_TOO_LARGE);
}

#[test]
fn a_blank_text_is_nothing() {
    for blank in [&b""[..], b" \r\n\t", b"\0\x0b"] {
        assert_eq!(received("text/plain", blank), Ok(Received::Nothing));
    }
    assert_eq!(received("text/html", b"<p> <br></p>"), Ok(Received::Nothing));
    assert_eq!(received("message/imdn+xml", b"<imdn/>"), Ok(Received::Nothing));
    assert_eq!(read(&Body::default(), &ContentLimits::default()), Ok(Received::Nothing));
}

#[test]
fn line_breaks_become_line_feeds_and_control_characters_are_left_out() {
    assert_eq!(text("text/plain", b"a\r\nb\rc\nd\x07\x1b[31m\xef\xbf\xbe"), "a\nb\nc\nd[31m");
    assert!(matches!(clean("plain\n"), Cow::Borrowed(_)));
}

#[test]
fn the_language_is_carried_when_it_is_one() {
    // I-30
    let lang = |language| match read(&Body { language, ..body("text/plain", b"x") }, &ContentLimits::default()) {
        Ok(Received::Text(text)) => text.lang,
        other => panic!("{other:?}"),
    };
    assert_eq!(lang(Some("de-AT")).as_deref(), Some("de-AT"));
    assert_eq!(lang(Some("mi, en")).as_deref(), Some("mi"));
    assert_eq!((lang(Some("no way")), lang(None)), (None, None));
}

#[test]
fn html_becomes_the_text_that_a_reader_sees() {
    for (html, plain) in [
        ("<b>bold</b> and <i class='a>b'>it</i>", "bold and it"),
        ("one<br>two<BR/>three", "one\ntwo\nthree"),
        ("<div>one</div><div>two</div>", "one\ntwo"),
        ("<p>one</p>\r\n<p>two</p>", "one\ntwo"),
        ("<ul><li>a</li><li>b</li></ul>", "a\nb"),
        ("&lt;b&gt; &amp;amp; &#233;&#xE9;&nbsp;&quot;x&apos;", "<b> &amp; éé\u{a0}\"x'"),
        ("<head><title>no</title><style>p{}</style></head><body>yes</body>", "yes"),
        ("<script>if (a</b>) </scr</script>yes", "yes"),
        ("<!-- <b>no --> yes <!DOCTYPE x>", "yes"),
        ("a < b & c &unknown; &#0; &#xD800;", "a < b & c &unknown; &#0; &#xD800;"),
        ("  much \n\t space ", "much space"),
        ("a<br><br>b", "a\n\nb"),
        ("<<<<>>", "<<<<>>"),
        ("cut <b", "cut"),
        ("cut <script>never ends", "cut"),
    ] {
        assert_eq!(html::to_plain(html), plain, "{html}");
    }
    assert_eq!(text("text/html;charset=iso-8859-1", b"<p>caf\xe9"), "café");
}

const ALTERNATIVE: &str = "multipart/alternative; boundary=\"--=_b 1\"";

#[test]
fn of_several_renderings_the_plain_one_is_taken_once() {
    // I-34
    let parts = "preamble\r\n----=_b 1\r\nContent-Type: text/html\r\n\r\n<b>rich</b>\r\n----=_b 1\r\n\
                 Content-Type: text/plain; charset=utf-8\r\nContent-Language: da\r\n\r\nplain\r\ntwo\r\n----=_b 1--\r\nepilogue";
    assert_eq!(text(ALTERNATIVE, parts.as_bytes()), "plain\ntwo");
    let html_only = "----=_b 1\r\nContent-Type: image/png\r\n\r\nPNG\r\n----=_b 1\r\nContent-Type: text/html\r\n\r\n<b>rich</b>\r\n----=_b 1--";
    assert_eq!(text(ALTERNATIVE, html_only.as_bytes()), "rich");
    let no_type = "----=_b 1\n\njust text\n----=_b 1--\n";
    assert_eq!(text(ALTERNATIVE, no_type.as_bytes()), "just text");
    let cut = "----=_b 1\r\n\r\nno end";
    assert_eq!(text(ALTERNATIVE, cut.as_bytes()), "no end");
    let Ok(Received::Text(found)) = received(ALTERNATIVE, parts.as_bytes()) else { panic!() };
    assert_eq!(found.lang.as_deref(), Some("da"));
}

#[test]
fn bad_and_endless_multipart_bodies_are_refused() {
    assert_eq!(received("multipart/alternative", b"--b\r\n\r\nx"), Err(ContentRefusal::Malformed));
    assert_eq!(received(ALTERNATIVE, b"no boundary"), Err(ContentRefusal::Malformed));
    assert_eq!(received(ALTERNATIVE, b"----=_b 1\r\nContent-Type: text/plain"), Err(ContentRefusal::Malformed));
    let only_images = b"----=_b 1\r\nContent-Type: image/png\r\n\r\nPNG\r\n----=_b 1--";
    assert_eq!(received(ALTERNATIVE, only_images), Err(ContentRefusal::UnsupportedType));
    let base64 = b"----=_b 1\r\nContent-Transfer-Encoding: base64\r\n\r\neA==\r\n----=_b 1--";
    assert_eq!(received(ALTERNATIVE, base64), Err(ContentRefusal::UnsupportedEncoding));
    let many = "----=_b 1\r\n\r\nx\r\n".repeat(17) + "----=_b 1--";
    assert_eq!(received(ALTERNATIVE, many.as_bytes()), Err(ContentRefusal::TooLarge));
    let mut nested = String::from("x");
    for level in 0..6 {
        nested = format!(
            "--b{level}\r\nContent-Type: multipart/alternative;boundary=b{}\r\n\r\n{nested}\r\n--b{level}--",
            level - 1
        );
    }
    assert!(received("multipart/alternative;boundary=b5", nested.as_bytes()).is_err());
}

#[test]
fn cpim_is_unwrapped_with_its_time() {
    let cpim = "From: Eve <im:eve@evil.example>\r\nTo: <im:lee@corp.example>\r\nDateTime: 2025-03-04T09:15:02Z\r\n\
                NS: imdn <urn:ietf:params:imdn>\r\nimdn.Message-ID: 1\r\n\r\n\
                Content-Type: text/plain; charset=utf-8\r\n\r\nHello";
    let Ok(Received::Text(text)) = received("message/cpim", cpim.as_bytes()) else { panic!() };
    assert_eq!((text.text.as_str(), text.written), ("Hello", timestamp::parse("2025-03-04T09:15:02Z")));
    let strange = cpim.replace("text/plain", "image/png");
    assert_eq!(received("message/cpim", strange.as_bytes()), Err(ContentRefusal::UnsupportedType));
    assert_eq!(received("message/cpim", b"From: x"), Err(ContentRefusal::Malformed));
    let nested = "\r\nContent-Type: message/cpim\r\n\r\n".repeat(6);
    assert_eq!(received("message/cpim", nested.as_bytes()), Err(ContentRefusal::TooLarge));
}

#[test]
fn typing_is_recognised_as_such() {
    let composing = chat_state::is_composing(true);
    let typing = Typing::Active { refresh: Duration::from_secs(90) };
    assert_eq!(received("application/im-iscomposing+xml", composing.as_bytes()), Ok(Received::Typing(typing)));
    assert_eq!(received("application/im-iscomposing+xml", b"<x"), Err(ContentRefusal::Malformed));
}

proptest! {
    #[test]
    fn no_body_makes_the_reader_panic_and_texts_stay_within_bounds(
        kind in prop::sample::select(vec![
            "text/plain", "text/html", "text/plain;charset=utf-16", "multipart/alternative;boundary=b", "message/cpim",
        ]),
        bytes in "(--b\r?\n|\r\n|Content-Type: (text/html|message/cpim|multipart/alternative;boundary=b)\r\n|<[a-z/!]{0,6}|&#?[x0-9a-z]{0,4};?|--|>|\\PC|.){0,30}",
    ) {
        if let Ok(Received::Text(text)) = received(kind, bytes.as_bytes()) {
            prop_assert!(!text.text.trim().is_empty());
            prop_assert!(text.text.chars().all(|c| c != '\r' && is_xml_char(c)));
        }
    }
}
