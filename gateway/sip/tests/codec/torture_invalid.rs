//! The classes of RFC 4475 §3.1.2 to §3.3: what must be refused, how, and what is tolerated here though it is odd.

use isthmus_sip::{HeaderError, HeaderName, ParseErrorKind as Kind, StatusCode};

use crate::parse;

const GOOD: &str = "
INVITE sip:user@example.com SIP/2.0
Max-Forwards: 80
To: sip:j.user@example.com
From: sip:caller@example.net;tag=93942939o2
Contact: <sip:caller@hungry.example.net>
Call-ID: torture.0ha0isndaksdj
CSeq: 8 INVITE
Via: SIP/2.0/UDP 192.0.2.15;branch=z9hG4bKkdjuw
Expires: 3600
Content-Type: application/sdp
Content-Length: 5

v=0
";

/// Replaces one part and gives the kind of error and the status to answer with.
fn refused(from: &str, to: &str) -> (Kind, Option<StatusCode>) {
    assert!(GOOD.contains(from), "{from}");
    let error = parse(&GOOD.replacen(from, to, 1)).expect_err(to);
    (error.kind, error.status())
}

const ANSWERED: Option<StatusCode> = Some(StatusCode::BAD_REQUEST);

#[test]
fn the_message_that_the_others_are_made_from_is_valid() {
    parse(GOOD).expect("valid");
}

#[test]
fn badinv01_empty_parameters() {
    let via = "SIP/2.0/UDP 192.0.2.15;branch=z9hG4bKkdjuw";
    assert_eq!(refused(via, "SIP/2.0/UDP 192.0.2.15;;,;,,"), (Kind::Bad(HeaderName::Via), None));
    let message =
        parse(&GOOD.replace("Contact: <sip:caller@hungry.example.net>", "Contact: \"J\" <sip:j@h.example>;;;;"));
    assert_eq!(message.expect("only Contact is bad").contact().expect_err("bad"), HeaderError::Param);
}

#[test]
fn clerr_content_length_larger_than_the_datagram() {
    assert_eq!(refused("Content-Length: 5", "Content-Length: 9999"), (Kind::BodyTruncated, ANSWERED));
}

#[test]
fn ncl_negative_content_length() {
    let bad = Kind::Bad(HeaderName::ContentLength);
    assert_eq!(refused("Content-Length: 5", "Content-Length: -5"), (bad, ANSWERED));
    assert_eq!(refused("Content-Length: 5", "Content-Length: +5"), (bad, ANSWERED));
    assert_eq!(refused("Content-Length: 5", "Content-Length: 99999999999999999999999"), (bad, ANSWERED));
}

#[test]
fn scalar02_numbers_too_large_for_their_header() {
    let bad = (Kind::Bad(HeaderName::CSeq), ANSWERED);
    assert_eq!(refused("CSeq: 8 INVITE", "CSeq: 36893488147419103232 INVITE"), bad);
    assert_eq!(refused("CSeq: 8 INVITE", "CSeq: 2147483648 INVITE"), bad);
    parse(&GOOD.replace("CSeq: 8", "CSeq: 2147483647")).expect("the largest one");
    let odd = GOOD.replace("Max-Forwards: 80", "Max-Forwards: 300").replace("Expires: 3600", "Expires: 10000000000");
    let message = parse(&odd).expect("the user agent decides about these");
    assert_eq!(message.max_forwards(), Err(HeaderError::Number));
    assert_eq!(message.expires(), Ok(Some(u32::MAX)));
}

#[test]
fn scalarlg_numbers_too_large_in_a_response() {
    let response = GOOD.replace("INVITE sip:user@example.com SIP/2.0", "SIP/2.0 503 Service Unavailable");
    parse(&response).expect("valid");
    let error = parse(&response.replace("CSeq: 8", "CSeq: 9292394834772304023312")).expect_err("too large");
    assert_eq!((error.kind, error.status()), (Kind::Bad(HeaderName::CSeq), None), "a response is not answered");
    let message = parse(&response.replace("Expires: 3600", "Retry-After: 949302838503028349304023988")).expect("read");
    assert_eq!(message.retry_after().expect("number").map(|r| r.seconds), Some(u32::MAX));
}

#[test]
fn quotbal_a_quote_that_is_not_closed() {
    let to = "To: sip:j.user@example.com";
    assert_eq!(refused(to, "To: \"Mr. J. User <sip:j.user@example.com>"), (Kind::Bad(HeaderName::To), ANSWERED));
}

#[test]
fn ltgtruri_angle_brackets_around_the_request_uri() {
    assert_eq!(refused("INVITE sip:user@example.com", "INVITE <sip:user@example.com>"), (Kind::RequestUri, ANSWERED));
}

#[test]
fn lwsruri_white_space_inside_of_the_request_uri() {
    let odd = "INVITE sip:user@example.com; lr";
    assert_eq!(refused("INVITE sip:user@example.com", odd), (Kind::RequestUri, ANSWERED));
}

#[test]
fn lwsstart_more_than_one_space_in_the_start_line() {
    let odd = "INVITE  sip:user@example.com  SIP/2.0";
    assert_eq!(refused("INVITE sip:user@example.com SIP/2.0", odd).1, ANSWERED);
}

#[test]
fn trws_a_space_after_the_version() {
    assert_eq!(refused("SIP/2.0\nMax", "SIP/2.0  \nMax"), (Kind::StartLine, ANSWERED));
}

#[test]
fn escruri_headers_in_the_request_uri_are_kept_and_mean_nothing() {
    let message = parse(&GOOD.replace("user@example.com SIP", "user@example.com?Route=%3Csip:example.com%3E SIP"));
    assert_eq!(message.expect("read").routes().count(), 0);
}

#[test]
fn regbadct_a_question_mark_in_an_address_without_brackets() {
    let odd = "Contact: sip:user@example.com?Route=%3Csip:sip.example.com%3E";
    let message = parse(&GOOD.replace("Contact: <sip:caller@hungry.example.net>", odd)).expect("only Contact is bad");
    assert!(message.contact().is_err());
}

#[test]
fn badaspec_spaces_inside_of_brackets() {
    let odd = "To: \"Watson, Thomas\" < sip:t.watson@example.org >";
    assert_eq!(refused("To: sip:j.user@example.com", odd), (Kind::Bad(HeaderName::To), ANSWERED));
}

#[test]
fn baddn_a_comma_in_a_display_name_without_quotes() {
    let odd = "From: Bell, Alexander <sip:a.g.bell@example.com>;tag=43";
    let from = "From: sip:caller@example.net;tag=93942939o2";
    assert_eq!(refused(from, odd), (Kind::Bad(HeaderName::From), ANSWERED));
}

#[test]
fn badvers_another_version_is_answered_with_505() {
    let version = (Kind::Version, Some(StatusCode::VERSION_NOT_SUPPORTED));
    assert_eq!(refused("SIP/2.0\nMax", "SIP/7.0\nMax"), version);
    assert_eq!(refused("SIP/2.0\nMax", "SIP/2.1\nMax"), version);
    assert_eq!(refused("SIP/2.0\nMax", "HTTP/1.1\nMax"), (Kind::StartLine, ANSWERED));
}

#[test]
fn mismatch01_and_02_the_method_of_cseq_is_another() {
    assert_eq!(refused("CSeq: 8 INVITE", "CSeq: 8 OPTIONS"), (Kind::MethodMismatch, ANSWERED));
    assert_eq!(refused("INVITE sip:user", "NEWMETHOD sip:user"), (Kind::MethodMismatch, ANSWERED));
    assert_eq!(refused("CSeq: 8 INVITE", "CSeq: 8 invite"), (Kind::MethodMismatch, ANSWERED), "methods have case");
}

#[test]
fn bigcode_a_status_that_is_no_status() {
    for code in ["4294967301", "099", "700", "20", "2x0", ""] {
        let line = format!("SIP/2.0 {code} better not");
        let error = parse(&GOOD.replace("INVITE sip:user@example.com SIP/2.0", &line)).expect_err(code);
        assert_eq!((error.kind, error.status()), (Kind::StartLine, None));
    }
}

#[test]
fn badbranch_a_cookie_alone_is_no_branch_of_this_standard() {
    let message = parse(&GOOD.replace("z9hG4bKkdjuw", "z9hG4bK")).expect("read");
    assert_eq!(message.top_via().rfc3261_branch(), None);
}

#[test]
fn insuf_a_header_without_which_nothing_goes() {
    for (line, name) in [
        ("To: sip:j.user@example.com\n", HeaderName::To),
        ("From: sip:caller@example.net;tag=93942939o2\n", HeaderName::From),
        ("Call-ID: torture.0ha0isndaksdj\n", HeaderName::CallId),
        ("CSeq: 8 INVITE\n", HeaderName::CSeq),
        ("Via: SIP/2.0/UDP 192.0.2.15;branch=z9hG4bKkdjuw\n", HeaderName::Via),
    ] {
        assert_eq!(refused(line, ""), (Kind::Missing(name), None), "there is nothing to copy");
    }
}

#[test]
fn multi01_and_mcl01_headers_that_may_be_there_once() {
    for (line, name) in [
        ("To: sip:j.user@example.com", HeaderName::To),
        ("From: sip:caller@example.net;tag=93942939o2", HeaderName::From),
        ("Call-ID: torture.0ha0isndaksdj", HeaderName::CallId),
        ("CSeq: 8 INVITE", HeaderName::CSeq),
        ("Max-Forwards: 80", HeaderName::MaxForwards),
        ("Content-Length: 5", HeaderName::ContentLength),
        ("Content-Type: application/sdp", HeaderName::ContentType),
        ("Expires: 3600", HeaderName::Expires),
    ] {
        assert_eq!(refused(line, &format!("{line}\n{line}")), (Kind::Duplicate(name), ANSWERED));
    }
}

#[test]
fn line_breaks_of_other_systems_and_nul_are_refused() {
    let text = GOOD.trim_start_matches('\n').replace('\n', "\r\n");
    let parse = |text: String| {
        isthmus_sip::Message::parse(text.into_bytes().into(), &isthmus_sip::Limits::default()).map_err(|e| e.kind)
    };
    parse(text.clone()).expect("valid");
    for (from, to) in [
        ("Expires: 3600\r\n", "Expires: 3600\n"),
        ("Expires: 3600\r\n", "Expires: 3600\r"),
        ("Expires: 3600\r\n", "Expires: 3600\r\r\n"),
        ("Expires: 3600\r\n", "Expires: 36\0\r\n"),
    ] {
        assert_eq!(parse(text.replace(from, to)), Err(Kind::ControlCharacter), "{to:?}");
    }
    assert_eq!(parse(text.replace("Expires: 3600", "\0")), Err(Kind::HeaderLine));
}

#[test]
fn lines_that_are_no_headers_are_refused() {
    for odd in ["Expires 3600", ": 3600", "Exp ires: 3600", "Expires\u{e9}: 3600", "\"Expires\": 3600"] {
        assert_eq!(refused("Expires: 3600", odd).0, Kind::HeaderLine, "{odd}");
    }
    assert_eq!(refused("Max-Forwards: 80", " Max-Forwards: 80").0, Kind::HeaderLine, "nothing to continue");
}

#[test]
fn a_tag_without_a_value_is_refused() {
    for odd in ["tag=", "tag", "tag=\"x\"", "tag=a@b"] {
        assert_eq!(refused("tag=93942939o2", odd).0, Kind::Bad(HeaderName::From), "{odd}");
    }
}

#[test]
fn an_ipv6_address_needs_its_brackets() {
    assert_eq!(refused("INVITE sip:user@example.com", "INVITE sip:2001:db8::10").0, Kind::RequestUri);
    assert_eq!(refused("INVITE sip:user@example.com", "INVITE sip:[2001:db8::10").0, Kind::RequestUri);
    parse(&GOOD.replace("INVITE sip:user@example.com", "INVITE sip:[2001:db8::10]")).expect("valid");
}
