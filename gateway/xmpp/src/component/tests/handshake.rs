use super::*;

#[test]
fn the_digest_of_id_and_secret_is_sent_and_an_empty_handshake_means_ready() {
    // T-17, X-96
    let mut lab = Lab::new();
    assert_eq!(lab.sent(), SENT_HEADER);
    lab.receive(HEADER);
    assert_eq!(lab.sent(), HANDSHAKE);
    assert!(!lab.link.is_ready());
    lab.receive("<handshake></handshake>");
    assert_eq!(lab.events(), [Event::Ready]);
    assert!(lab.link.is_ready());
}

#[test]
fn the_digest_is_that_of_other_programs() {
    // T-17
    // the example of XEP-0114, whose secret is "test", and one computed with sha1sum
    let digest = |secret: &str, id: &str| Secret::new(secret).handshake(id);
    assert_eq!(digest("test", "3BF96D32"), "aaee83c26aeeafcbabeabfcbcd50df997e0a2a1e");
    assert_eq!(
        digest("s3cret\u{e4}", "3377f4e6-8a4f-4c25-bb28-7ef8be5d1d9c"),
        "38500742e06c03023a36261f6238202f2de1fb4f"
    );
}

#[test]
fn our_header_names_the_component_and_no_version_and_theirs_needs_none() {
    //
    let mut lab = Lab::new();
    let sent = lab.sent();
    assert!(sent.contains(" to=\"partner.example\"") && !sent[21..].contains("version"), "{sent}");
    assert!(!HEADER[22..].contains("version"));
    lab.receive(HEADER);
    lab.receive("<handshake/>");
    assert!(lab.link.is_ready());
}

#[test]
fn a_server_that_speaks_of_versions_and_features_is_understood() {
    let mut lab = Lab::new();
    lab.receive(HEADER.replace(" id=", " version='1.0' id="));
    lab.receive("<stream:features/>\n<handshake/>");
    assert!(lab.link.is_ready());
}

#[test]
fn ten_seconds_without_a_handshake_end_the_link() {
    //
    for header in [false, true] {
        let mut lab = Lab::new();
        lab.pass(secs(6));
        if header {
            lab.receive(HEADER);
        }
        lab.pass(Duration::from_millis(3999));
        assert!(!lab.disconnected, "the limit counts from the connection");
        lab.pass(Duration::from_millis(1));
        assert!(lab.sent().ends_with(
            "<stream:error><connection-timeout xmlns=\"urn:ietf:params:xml:ns:xmpp-streams\"/></stream:error></stream:stream>"
        ));
        let (reason, retry) = lab.closed();
        assert_eq!((reason, range(retry)), (CloseReason::NegotiationTimeout, (0, 1)));
    }
}

#[test]
fn anything_but_an_empty_handshake_ends_the_link() {
    //
    for answer in
        ["<handshake>x</handshake>", "<handshake><a/></handshake>", "<message/>", "<handshake xmlns='urn:x'/>"]
    {
        let mut lab = Lab::new();
        lab.receive(HEADER);
        lab.receive(answer);
        assert_eq!(lab.closed().0, CloseReason::UnexpectedElement, "{answer}");
    }
}

#[test]
fn refusals_of_prosody_tell_when_to_come_back() {
    let cases = [
        ("conflict", (5, 30), false),
        ("not-authorized", (60, 60), true),
        ("host-unknown", (60, 60), true),
        ("see-other-host", (0, 1), false),
        ("system-shutdown", (0, 1), false),
        ("made-up", (0, 1), false),
    ];
    for (condition, expected, configuration) in cases {
        let mut lab = Lab::new();
        lab.receive(HEADER);
        lab.receive(format!(
            "<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>\
             <text xmlns='urn:ietf:params:xml:ns:xmpp-streams'>no</text></stream:error></stream:stream>"
        ));
        let (reason, retry) = lab.closed();
        assert_eq!((range(retry), reason.is_configuration()), (expected, configuration), "{condition}");
        let CloseReason::StreamError(error) = reason else { panic!("{reason:?}") };
        assert_eq!(error.text.as_deref(), Some("no"));
        assert!(lab.sent().ends_with("</stream:stream>"));
    }
}

#[test]
fn host_unknown_comes_with_an_empty_id_and_gets_no_handshake() {
    let mut lab = Lab::new();
    lab.sent();
    lab.receive(HEADER.replace("a1b2c3", ""));
    assert_eq!(lab.sent(), "");
    lab.receive(
        "<stream:error><host-unknown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>",
    );
    let (reason, retry) = lab.closed();
    assert_eq!((reason.label(), range(retry)), ("host-unknown", (60, 60)));
}

#[test]
fn the_secret_is_not_shown() {
    let config = LinkConfig::new("partner.example", "corp.example", Secret::new("s3cret"));
    assert!(!format!("{config:?}").contains("s3cret"));
    assert!(!format!("{:?}", Link::new(config, 1)).contains("s3cret"));
}

#[test]
fn pauses_are_drawn_from_the_whole_range() {
    let range = RetryRange { min: secs(1), max: secs(30) };
    assert_eq!(range.pick(0), secs(1));
    assert_eq!(range.pick(u64::MAX), Duration::from_millis(29_999));
    assert_eq!(range.pick(u64::MAX / 2), Duration::from_millis(15_499));
}
