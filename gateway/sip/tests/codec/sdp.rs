//! Session descriptions of message sessions.

use isthmus_sip::sdp::{AnswerError, Description, Origin, Refusal, SdpError, SdpLimits, Session};

const ORIGIN: Origin = Origin {
    session_id: 77120,
    version: 1,
    address: std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10)),
    port: 5061,
};
const OURS: Description<'static> = Description { origin: ORIGIN, accept_types: &["text/plain", "text/html"] };
const HEAD: &str = "v=0\r\no=- 0 0 IN IP4 203.0.113.9\r\ns=session\r\nc=IN IP4 203.0.113.9\r\nt=0 0\r\n";

fn session(media: &str) -> Session<'static> {
    let text = format!("{HEAD}{media}").replace("\r\n", "\n").replace('\n', "\r\n");
    Session::parse(Box::leak(text.into_boxed_str()).as_bytes(), &SdpLimits::default()).expect("readable")
}

fn refusal(media: &str) -> Refusal {
    session(media).message_media().expect_err(media)
}

#[test]
fn an_offer_is_written_as_the_microsoft_partner_expects() {
    assert_eq!(
        OURS.offer().expect("sound"),
        "v=0\r\no=- 77120 1 IN IP4 192.0.2.10\r\ns=im\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
         m=message 5061 sip null\r\na=accept-types:text/plain text/html\r\n"
    );
}

#[test]
fn an_offer_with_null_or_a_uri_as_format_is_read() {
    for format in ["null", "sip:dana@blue.example", "*"] {
        let session = session(&format!(
            "m=message 5060 sip {format}\na=accept-types:text/plain text/html image/gif multipart/alternative\na=x\n"
        ));
        let (at, media) = session.message_media().expect("usable");
        assert_eq!((at, media.formats, media.port), (0, format, 5060));
        assert!(media.accepts("TEXT/HTML") && media.accepts("image/gif") && !media.accepts("text/rtf"));
    }
}

#[test]
fn the_answer_has_the_name_of_the_offer_and_refuses_other_lines() {
    let offer = session(
        "m=audio 49170/2 RTP/AVP 0 8\na=accept-types:text/html\nm=x-ms-message 5060 sip null\nm=message 5060 sip null\nm=data 1 udp x y\n",
    );
    let answer = OURS.answer(&offer, "sip:noor@red.example").expect("usable");
    let lines: Vec<_> = answer.lines().filter(|l| l.starts_with("m=")).collect();
    assert_eq!(
        lines,
        [
            "m=audio 0 RTP/AVP 0 8",
            "m=x-ms-message 5061 sip sip:noor@red.example",
            "m=message 0 sip null",
            "m=data 0 udp x y",
        ]
    );
    let read = Session::parse(answer.as_bytes(), &SdpLimits::default()).expect("own answer");
    assert!(read.message_media().expect("usable").1.accepts("text/html"));
}

#[test]
fn without_accept_types_only_plain_text_is_accepted() {
    let session = session("m=message 5060 sip null\n");
    let media = session.message_media().expect("usable").1;
    assert!(media.accepts("text/plain") && !media.accepts("text/html"));
}

#[test]
fn ranges_of_types_are_understood() {
    assert!(session("m=message 5060 sip null\na=accept-types:*\n").message_media().is_ok());
    assert!(session("m=message 5060 sip null\na=accept-types:image/gif text/*\n").message_media().is_ok());
    assert!(session("m=message 5060 sip null\na=accept-types:multipart/alternative\n").message_media().is_ok());
}

#[test]
fn each_refusal_has_its_own_warning() {
    assert_eq!(refusal("m=audio 49170 RTP/AVP 0\n"), Refusal::NoMessageMedia);
    assert_eq!(refusal(""), Refusal::NoMessageMedia);
    assert_eq!(refusal("m=message 0 sip null\n"), Refusal::NoMessageMedia);
    assert_eq!(refusal("m=message 7654 TCP/MSRP *\na=path:msrp://h:7654/x;tcp\n"), Refusal::Msrp);
    assert_eq!(refusal("m=message 7654 TCP/TLS/MSRP *\n"), Refusal::Msrp);
    assert_eq!(refusal("m=message 5060 sip null\na=accept-types:image/gif\n"), Refusal::NoContentType);
    let answer = OURS.answer(&session("m=audio 49170 RTP/AVP 0\n"), "sip:a@b.example");
    assert_eq!(answer, Err(AnswerError::Refused(Refusal::NoMessageMedia)));
    for (refusal, warning) in [(Refusal::Msrp, 302), (Refusal::NoMessageMedia, 304), (Refusal::NoContentType, 305)] {
        assert_eq!((refusal.warning(), refusal.status().code()), (warning, 488));
    }
}

#[test]
fn what_is_no_description_is_refused_with_its_line() {
    fn parse(text: &str) -> Result<Session<'_>, SdpError> {
        Session::parse(text.as_bytes(), &SdpLimits::default())
    }
    assert_eq!(parse(""), Err(SdpError::Version));
    assert_eq!(parse("o=x\r\n"), Err(SdpError::Version));
    assert_eq!(parse("v=1\r\n"), Err(SdpError::Version));
    assert_eq!(parse("v=0\r\nnonsense\r\n"), Err(SdpError::Line(2)));
    assert_eq!(parse("v=0\r\nxx=1\r\n"), Err(SdpError::Line(2)));
    assert_eq!(parse("v=0\r\ns=a\rb\r\n"), Err(SdpError::Line(2)));
    assert_eq!(parse("v=0\r\ns=\0\r\n"), Err(SdpError::Text));
    assert_eq!(Session::parse(b"v=0\r\ns=\xff\r\n", &SdpLimits::default()), Err(SdpError::Text));
    for line in [
        "m=message",
        "m=message 1",
        "m=message 1 sip",
        "m=message x sip null",
        "m=message 65536 sip null",
        "m= 1 sip null",
        "m=a 1 sip  ",
    ] {
        assert_eq!(parse(&format!("v=0\r\n{line}\r\n")), Err(SdpError::Media(2)), "{line}");
    }
}

#[test]
fn lists_are_bounded() {
    let limits = SdpLimits { lines: 8, media: 2, accept_types: 3 };
    let parse = |media: &str| Session::parse(format!("v=0\n{media}").as_bytes(), &limits).map(|_| ());
    assert_eq!(parse(&"s=x\n".repeat(8)), Err(SdpError::TooMany("lines")));
    assert_eq!(parse(&"m=a 1 b c\n".repeat(3)), Err(SdpError::TooMany("media lines")));
    let types = "m=message 1 sip null\na=accept-types:a/a b/b\na=accept-types:c/c d/d\n";
    assert_eq!(parse(types), Err(SdpError::TooMany("accepted types")));
}
