//! Errors for local users when the link that they should leave on is away.

use std::sync::Arc;

use isthmus_model::Domain;
use isthmus_store::{Limits, MemoryStore, SystemClock};
use isthmus_xmpp::stanza::MessageType;
use isthmus_xmpp::{ErrorCondition, Message, StanzaError};

use super::rig::{Rig, attribute};
use super::store::Commits;

fn is_error_of(stanza: &str, id: &str) -> bool {
    stanza.starts_with("<message") && attribute(stanza, "type") == "error" && attribute(stanza, "id") == id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_that_finds_the_link_down_is_told_when_it_is_back() {
    let mut rig = Rig::start("Pager").await;
    rig.server.message("out-1", "Lunch?");
    let request = rig.partner.answered("MESSAGE ").await;
    rig.cut_link().await;
    rig.partner.answer(&request, "480 Temporarily Unavailable", "far", "", "").await;
    let told = rig.server.stanza().await;
    assert!(is_error_of(&told, "out-1"), "{told}");
    rig.until_queued(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_link_and_store_a_refusal_waits() {
    let mut rig = Rig::start("Pager").await;
    rig.server.message("out-1", "Lunch?");
    let request = rig.partner.answered("MESSAGE ").await;
    rig.store.set(Commits::Refuse);
    rig.cut_link().await;
    rig.partner.answer(&request, "480 Temporarily Unavailable", "far", "", "").await;
    let told = rig.server.stanza().await;
    assert!(is_error_of(&told, "out-1"), "{told}");
    rig.until("nothing is under way", || rig.bridge.is_idle()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_that_went_down_with_the_link_is_told_again() {
    let mut rig = Rig::start("Pager").await;
    rig.server.answer_pings(false);
    rig.server.message("out-1", "Lunch?");
    rig.partner.refuse("MESSAGE ", "480 Temporarily Unavailable").await;
    let told = rig.server.stanza().await;
    assert!(is_error_of(&told, "out-1"), "{told}");
    rig.until("the ping after it", || rig.server.unanswered_pings() > 0).await;
    rig.server.answer_pings(true);
    rig.break_link().await;
    assert_eq!(rig.server.stanza().await, told);
    rig.until_queued(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_told_over_the_link_that_another_process_has_by_then() {
    let store = Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)));
    let mut rig = Rig::with_shared_store("Pager", store).await;
    rig.leased().await;
    let other = rig.beside("overrides: {imMode: Pager}").await;
    rig.server.message("out-1", "Lunch?");
    let request = rig.partner.answered("MESSAGE ").await;
    rig.bridge.links.give_back();
    other.leased().await;
    rig.partner.answer(&request, "480 Temporarily Unavailable", "far", "", "").await;
    let told = rig.server.stanza().await;
    assert!(is_error_of(&told, "out-1"), "{told}");
    rig.until("nothing is under way", || rig.bridge.is_idle()).await;
}

// Whoever stores it may not know yet who has the link.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_that_was_stored_elsewhere_is_told_soon_by_the_links_holder() {
    let store = Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)));
    let mut rig = Rig::with_shared_store("Pager", store).await;
    rig.leased().await;
    rig.link_ready().await;
    let other = rig.beside("overrides: {imMode: Pager}").await;
    let domains = (Domain::parse("corp.example").unwrap(), Domain::parse("partner.example").unwrap());
    let mut error = Message::new(MessageType::Error, "ana@partner.example", "juliet@corp.example");
    error.id = Some("out-1".into());
    error.error = Some(StanzaError::new(ErrorCondition::RecipientUnavailable));
    other.bridge.keep_as_letter(&domains, &error).await.unwrap();
    let told = rig.server.stanza().await;
    assert!(is_error_of(&told, "out-1"), "{told}");
}
