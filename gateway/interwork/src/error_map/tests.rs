use isthmus_sip::{Limits, Method, RequestWriter};

use super::*;

/// Makes one test for each row from SIP to XMPP: the statuses of the row, its condition and type.
macro_rules! from_sip {
    ($($name:ident: $codes:expr => $condition:ident, $kind:ident;)+) => {
        mod from_sip {
            $(
                #[test]
                fn $name() {
                    for code in $codes {
                        super::is_mapped(code, None, super::ErrorCondition::$condition, super::ErrorType::$kind);
                    }
                }
            )+
        }
    };
}

// E-01, E-02
from_sip! {
    redirections: [300, 302, 305, 303, 399] => Redirect, Modify;
    moved_permanently: [301] => Gone, Cancel;
    alternative_service: [380] => NotAcceptable, Modify;
    bad_request_and_other_4xx: [400, 402, 411, 412, 417, 422, 428, 433, 469, 470, 494, 499] => BadRequest, Modify;
    unauthorized: [401] => NotAuthorized, Auth;
    forbidden: [403] => Forbidden, Auth;
    not_found: [404] => ItemNotFound, Cancel;
    method_extension_or_path_not_supported: [405, 420, 439] => FeatureNotImplemented, Cancel;
    not_acceptable_or_unsupported: [406, 415, 416, 421] => NotAcceptable, Modify;
    proxy_authentication_required: [407] => RegistrationRequired, Auth;
    timeouts: [408, 504] => RemoteServerTimeout, Wait;
    gone: [410] => Gone, Cancel;
    too_large_or_too_long: [413, 414, 440] => PolicyViolation, Modify;
    interval_too_brief: [423] => ResourceConstraint, Wait;
    flow_failed_and_temporarily_unavailable: [430, 480] => RecipientUnavailable, Wait;
    no_such_dialog: [481] => ItemNotFound, Cancel;
    loops: [482, 483] => NotAcceptable, Modify;
    address_incomplete_or_ambiguous: [484, 485] => ItemNotFound, Cancel;
    busy_here_and_terminated: [486, 487] => RecipientUnavailable, Wait;
    not_acceptable_here: [488] => NotAcceptable, Modify;
    bad_event: [489] => PolicyViolation, Modify;
    request_pending: [491] => UnexpectedRequest, Wait;
    undecipherable: [493] => BadRequest, Modify;
    server_errors_and_other_5xx: [500, 503, 506, 555, 580, 599] => InternalServerError, Cancel;
    not_implemented: [501] => FeatureNotImplemented, Cancel;
    bad_gateway: [502] => RemoteServerNotFound, Cancel;
    version_not_supported: [505] => NotAcceptable, Modify;
    message_too_large: [513] => PolicyViolation, Modify;
    busy_everywhere_declined_and_other_6xx: [600, 603, 607, 699] => RecipientUnavailable, Wait;
    does_not_exist_anywhere: [604] => ItemNotFound, Cancel;
    not_acceptable_anywhere: [606] => NotAcceptable, Modify;
}

fn is_mapped(code: u16, retry_after: Option<u32>, condition: ErrorCondition, kind: ErrorType) {
    let error = status_to_xmpp(StatusCode::new(code).unwrap(), "Because", retry_after, None);
    assert_eq!((error.condition, error.kind), (condition, kind), "{code}");
    assert_eq!(error.text.unwrap().text, "Because", "{code}");
}

#[test]
fn a_server_error_with_retry_after_is_worth_waiting_for() {
    // E-01
    for code in [500, 503, 599] {
        is_mapped(code, Some(5), ErrorCondition::InternalServerError, ErrorType::Wait);
    }
    is_mapped(404, Some(5), ErrorCondition::ItemNotFound, ErrorType::Cancel);
}

#[test]
fn failures_of_our_own_have_their_errors() {
    // E-01
    for (failure, condition, kind) in [
        (LocalFailure::Dns, ErrorCondition::RemoteServerNotFound, ErrorType::Cancel),
        (LocalFailure::Identity, ErrorCondition::RemoteServerTimeout, ErrorType::Cancel),
        (LocalFailure::Connect, ErrorCondition::RemoteServerTimeout, ErrorType::Wait),
        (LocalFailure::Timeout, ErrorCondition::RemoteServerTimeout, ErrorType::Wait),
    ] {
        let error = failure_to_xmpp(failure);
        assert_eq!((error.condition, error.kind), (condition, kind), "{failure:?}");
        assert!(error.text.is_some());
    }
}

#[test]
fn new_addresses_are_named_as_local_users_reach_them() {
    // E-01
    let uri = |code, contact| status_to_xmpp(StatusCode::new(code).unwrap(), "", None, contact).uri;
    assert_eq!(uri(301, Some("sip:Ana@new.example;transport=tls")).as_deref(), Some("xmpp:ana@new.example"));
    assert_eq!(uri(302, Some("sip:o'n%20x@new.example")).as_deref(), Some("xmpp:o%5C27n%5C20x@new.example"));
    assert_eq!(uri(410, Some("sip:ana@new.example")), None);
    assert_eq!(uri(404, Some("sip:ana@new.example")), None);
    assert_eq!(uri(302, Some("tel:+1555")), None);
    assert_eq!(uri(301, None), None);
}

#[test]
fn a_whole_response_is_mapped_with_its_headers() {
    // E-01, E-08
    let response = |text: &str| {
        let head = "Via: SIP/2.0/TLS gw.corp.example;branch=z9hG4bK1\r\nFrom: <sip:lee@corp.example>;tag=a\r\n\
                    To: <sip:ana@partner.example>;tag=b\r\nCall-ID: 1\r\nCSeq: 1 MESSAGE\r\n";
        let (line, more) = text.split_once('\n').unwrap_or((text, ""));
        let bytes = format!("SIP/2.0 {line}\r\n{head}{more}Content-Length: 0\r\n\r\n");
        to_xmpp(&Message::parse(Bytes::from(bytes), &Limits::default()).unwrap())
    };
    let moved = response("302 Über den Fluss\nContact: <sip:ana@new.example>\r\n");
    assert_eq!((moved.condition, moved.uri.as_deref()), (ErrorCondition::Redirect, Some("xmpp:ana@new.example")));
    assert_eq!(moved.text.unwrap().text, "Über den Fluss");
    let later = response("503 Busy\nRetry-After: 30\r\n");
    assert_eq!((later.condition, later.kind), (ErrorCondition::InternalServerError, ErrorType::Wait));
    assert_eq!(response("486 ").text.unwrap().text, "Busy Here");
}

/// Makes one test for each row from XMPP to SIP: conditions, then the statuses for an INVITE and for a MESSAGE,
/// each for the error of a full and of a bare JID.
macro_rules! to_sip_rows {
    ($($name:ident: [$($condition:ident),+] => $invite:expr, $message:expr;)+) => {
        mod to_sip {
            $(
                #[test]
                fn $name() {
                    for condition in [$(super::ErrorCondition::$condition),+] {
                        super::is_answered(condition, $invite, $message);
                    }
                }
            )+
        }
    };
}

// E-03
to_sip_rows! {
    bad_request_and_its_kin:
        [BadRequest, Conflict, JidMalformed, SubscriptionRequired, UndefinedCondition] => (400, 400), (400, 400);
    feature_not_implemented: [FeatureNotImplemented] => (405, 501), (405, 501);
    forbidden: [Forbidden] => (403, 603), (403, 603);
    gone_without_address: [Gone] => (410, 410), (410, 410);
    internal_server_error_and_resource_constraint: [InternalServerError, ResourceConstraint] => (500, 500), (500, 500);
    item_not_found: [ItemNotFound] => (404, 604), (404, 604);
    not_acceptable: [NotAcceptable] => (488, 606), (406, 606);
    not_allowed_and_policy_violation: [NotAllowed, PolicyViolation] => (403, 403), (403, 403);
    not_authorized: [NotAuthorized] => (403, 403), (403, 403);
    recipient_unavailable: [RecipientUnavailable] => (480, 480), (480, 480);
    redirect_without_address: [Redirect] => (480, 480), (480, 480);
    registration_required: [RegistrationRequired] => (403, 403), (403, 403);
    remote_server_not_found: [RemoteServerNotFound] => (404, 404), (404, 404);
    remote_server_timeout: [RemoteServerTimeout] => (408, 408), (504, 504);
    service_unavailable: [ServiceUnavailable] => (480, 480), (480, 480);
    unexpected_request: [UnexpectedRequest] => (400, 400), (400, 400);
}

fn answer(error: &StanzaError, full: bool, request: RequestKind) -> SipAnswer {
    to_sip(error, if full { "lee@corp.example/desk" } else { "lee@corp.example" }, request)
}

fn is_answered(condition: ErrorCondition, invite: (u16, u16), message: (u16, u16)) {
    let error = StanzaError::new(condition);
    let codes =
        |request| (answer(&error, true, request).status().code(), answer(&error, false, request).status().code());
    assert_eq!(codes(RequestKind::Invite), invite, "{condition:?}");
    assert_eq!(codes(RequestKind::Message), message, "{condition:?}");
    if condition != ErrorCondition::ServiceUnavailable {
        assert_eq!(codes(RequestKind::Subscribe), message, "{condition:?}");
    }
}

#[test]
fn addresses_of_gone_and_redirect_become_contacts() {
    // E-03
    for (condition, status) in [(ErrorCondition::Gone, 301), (ErrorCondition::Redirect, 302)] {
        for (uri, contact) in [
            ("xmpp:Lee@new.example?message", "sip:lee@new.example"),
            ("xmpp:a%5C20b@new.example/desk", "sip:a%20b@new.example"),
            ("sip:lee@new.example", "sip:lee@new.example"),
        ] {
            let answer = answer(&StanzaError::new(condition).with_uri(uri), false, RequestKind::Message);
            assert_eq!((answer.status().code(), answer.contact()), (status, Some(contact)), "{uri}");
        }
        for uri in ["xmpp:new.example", "https://new.example/", "xmpp:a\r\nb@new.example", ""] {
            let answer = answer(&StanzaError::new(condition).with_uri(uri), false, RequestKind::Message);
            assert!(answer.status().class() != 3 && answer.contact().is_none(), "{uri}");
        }
    }
}

#[test]
fn what_the_conditions_leave_open_is_decided_by_type_text_and_request() {
    // E-03
    let waiting = |condition| StanzaError::new(condition).with_type(ErrorType::Wait);
    let unresolvable = waiting(ErrorCondition::RemoteServerNotFound);
    assert_eq!(answer(&unresolvable, false, RequestKind::Invite).status().code(), 408);
    assert_eq!(answer(&unresolvable, false, RequestKind::Message).status().code(), 504);
    let busy = answer(&waiting(ErrorCondition::ResourceConstraint), false, RequestKind::Message);
    assert_eq!((busy.status().code(), busy.retry_after()), (500, Some(RETRY_AFTER_SECS)));
    let broken = answer(&StanzaError::new(ErrorCondition::InternalServerError), false, RequestKind::Message);
    assert_eq!(broken.retry_after(), None);
    let large = StanzaError::new(ErrorCondition::PolicyViolation).with_text("Stanza is too large");
    assert_eq!(answer(&large, false, RequestKind::Message).status().code(), 413);
    assert_eq!(answer(&large, false, RequestKind::Invite).status().code(), 403);
    let unserved = StanzaError::new(ErrorCondition::ServiceUnavailable);
    assert_eq!(answer(&unserved, false, RequestKind::Subscribe).status().code(), 403);
    assert_eq!((no_link().status().code(), no_link().retry_after()), (480, Some(RETRY_AFTER_SECS)));
}

#[test]
fn no_error_becomes_a_status_that_must_not_be_sent() {
    // E-04, E-05, E-06
    for condition in ErrorCondition::ALL {
        for kind in [ErrorType::Auth, ErrorType::Cancel, ErrorType::Continue, ErrorType::Modify, ErrorType::Wait] {
            for request in [RequestKind::Invite, RequestKind::Message, RequestKind::Subscribe] {
                for full in [true, false] {
                    let status = answer(&StanzaError::new(*condition).with_type(kind), full, request).status().code();
                    assert!(status >= 400 && ![401, 407, 503].contains(&status), "{condition:?} {status}");
                    assert!(status != 408 || request == RequestKind::Invite, "{condition:?}");
                }
            }
        }
    }
}

fn request() -> Message {
    let mut writer = RequestWriter::new(Method::Message, "sip:lee@corp.example");
    writer
        .header(HeaderName::Via, "SIP/2.0/TLS sip.partner.example;branch=z9hG4bK1")
        .header(HeaderName::From, "<sip:ana@partner.example>;tag=a")
        .header(HeaderName::To, "<sip:lee@corp.example>")
        .call_id("1")
        .cseq(1, Method::Message);
    Message::parse(writer.finish(b"").unwrap(), &Limits::default()).unwrap()
}

fn written(answer: &SipAnswer) -> Message {
    let bytes = answer.respond(&request(), Some("t"), "gw.corp.example").unwrap();
    Message::parse(bytes, &Limits::default()).unwrap()
}

#[test]
fn answers_carry_what_their_status_demands() {
    // E-07
    for (answer, name, value) in [
        (SipAnswer::new(StatusCode::METHOD_NOT_ALLOWED), HeaderName::Allow, "INVITE"),
        (SipAnswer::new(StatusCode::UNSUPPORTED_MEDIA_TYPE), HeaderName::Accept, "text/plain"),
        (ContentRefusal::UnsupportedEncoding.into(), HeaderName::AcceptEncoding, "identity"),
        (ContentRefusal::UnsupportedType.into(), HeaderName::Accept, "text/plain"),
        (SipAnswer::bad_extension(["timer", "x\r\ny"]), HeaderName::Unsupported, "timer"),
        (SipAnswer::interval_too_brief(60), HeaderName::MinExpires, "60"),
        (SipAnswer::new(StatusCode::BAD_EVENT), HeaderName::AllowEvents, "presence"),
        (SipAnswer::new(StatusCode::SERVICE_UNAVAILABLE), HeaderName::RetryAfter, "30"),
        (no_link(), HeaderName::RetryAfter, "30"),
        (AddressRefusal::Sips.into(), HeaderName::Warning, "380 gw.corp.example \"SIPS Not Allowed\""),
    ] {
        let message = written(&answer);
        assert_eq!(message.status(), Some(answer.status()));
        assert_eq!(message.header(name), Some(value), "{answer:?}");
    }
    let unacceptable = to_sip(&StanzaError::new(ErrorCondition::NotAcceptable), "a@b/c", RequestKind::Invite);
    assert!(written(&unacceptable).header(HeaderName::Warning).is_some());
    let moved = StanzaError::new(ErrorCondition::Gone).with_uri("xmpp:lee@new.example");
    let moved = written(&to_sip(&moved, "a@b", RequestKind::Message));
    assert_eq!(moved.header(HeaderName::Contact), Some("<sip:lee@new.example>"));
    let feature = to_sip(&StanzaError::new(ErrorCondition::FeatureNotImplemented), "a@b/c", RequestKind::Message);
    assert_eq!(written(&feature).raw(HeaderName::Allow).next(), Some(ALLOW));
}

#[test]
fn texts_are_carried_across_in_one_harmless_line() {
    // E-08
    let error = StanzaError::new(ErrorCondition::ItemNotFound).with_text("  Nobody\r\nVia: evil\0\u{1b}\there — ok  ");
    let answer = to_sip(&error, "a@b", RequestKind::Message);
    assert_eq!(answer.reason(), Some("Nobody Via: evil here — ok"));
    assert_eq!(written(&answer).reason(), "Nobody Via: evil here — ok");
    let long = StanzaError::new(ErrorCondition::ItemNotFound).with_text("é".repeat(300));
    assert_eq!(to_sip(&long, "a@b", RequestKind::Message).reason().map(str::len), Some(256));
    let blank = StanzaError::new(ErrorCondition::ItemNotFound).with_text("\r\n");
    assert_eq!(written(&to_sip(&blank, "a@b", RequestKind::Message)).reason(), "Does Not Exist Anywhere");
}
