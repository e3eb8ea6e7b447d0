//! From one way of sending messages to the other (interworking specification §5.1).

use super::rig::{Rig, attribute, header};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_refuses_single_messages_gets_sessions_for_a_day() {
    let mut rig = Rig::start("Auto").await;
    rig.server.message("m1", "one");
    rig.partner.refuse("MESSAGE ", "405 Method Not Allowed").await;
    let invite = rig.partner.accept_session().await;
    let message = rig.partner.accept_message("one").await;
    assert_eq!(header(&message, "Call-ID"), header(&invite, "Call-ID"));
    rig.server.message("m2", "two");
    rig.partner.accept_message("two").await;
    // Another user of the domain is not tried as single messages any more.
    rig.until_refusal_is_known().await;
    rig.server.send(
        "<message from='romeo@corp.example/home' to='bob@partner.example' type='chat' id='m3'><body>three</body></message>",
    );
    rig.partner.accept_session().await;
    rig.partner.accept_message("three").await;
    rig.partner.nothing_came().await;
    assert!(rig.server.rest().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_too_long_for_one_request_goes_in_a_session_and_the_next_follows_it() {
    let mut rig = Rig::start("Auto").await;
    let long = "long ".repeat(400);
    rig.server.message("m1", &long);
    rig.partner.accept_session().await;
    rig.partner.accept_message(&long).await;
    rig.server.message("m2", "short");
    rig.partner.accept_message("short").await;
    // It says nothing about the domain: others still get single messages.
    rig.server.send(
        "<message from='romeo@corp.example/home' to='bob@partner.example' type='chat' id='m3'><body>three</body></message>",
    );
    let message = rig.partner.accept_message("three").await;
    assert!(!header(&message, "To").contains("tag="), "{message}");
    rig.partner.nothing_came().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_both_ways_is_one_error() {
    let mut rig = Rig::start("Auto").await;
    rig.server.message("m1", "one");
    rig.partner.refuse("MESSAGE ", "501 Not Implemented").await;
    rig.partner.refuse("INVITE ", "488 No Sessions Either").await;
    let error = rig.server.stanza().await;
    assert_eq!((attribute(&error, "type"), attribute(&error, "id")), ("error".to_owned(), "m1".to_owned()));
    assert!(error.contains("No Sessions Either"), "{error}");
    rig.partner.nothing_came().await;
    assert!(rig.server.rest().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_explicit_mode_never_falls_back() {
    for (mut rig, method, status) in [
        (Rig::start("Pager").await, "MESSAGE ", "405 Method Not Allowed"),
        (Rig::start("Session").await, "INVITE ", "488 Not Acceptable Here"),
    ] {
        rig.server.message("m1", "one");
        rig.partner.refuse(method, status).await;
        let error = rig.server.stanza().await;
        assert_eq!(attribute(&error, "type"), "error", "{error}");
        rig.partner.nothing_came().await;
        assert!(rig.server.rest().is_empty());
    }
}
