//! What became of requests, while the store does not take it.

use std::sync::Arc;

use isthmus_store::{Limits, MemoryStore, SystemClock};

use super::reconcile::{be_watched, cseq, presence};
use super::rig::Rig;
use super::store::Commits;

/// Lets the store take nothing until `answer` has been refused by it.
async fn unstored(rig: &Rig, answer: impl Future<Output = ()>) {
    rig.store.set(Commits::Refuse);
    answer.await;
    rig.until("it is kept", || rig.bridge.unfinished().contains(&"work that is to be stored")).await;
    rig.store.set(Commits::Pass);
}

async fn be_told_of_the_next_state(mut rig: Rig) {
    be_watched(&mut rig).await;
    rig.server.send(&presence("dnd"));
    let notify = rig.partner.request("NOTIFY").await;
    unstored(&rig, rig.partner.answer(&notify, "200 OK", "", "", "")).await;
    rig.server.send(&presence("xa"));
    let next = rig.partner.request("NOTIFY").await;
    assert_eq!(cseq(&next), cseq(&notify) + 1);
    assert!(next.contains("xa"), "{next}");
}

// K-80
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notify_whose_answer_could_not_be_stored_is_followed_by_another_one() {
    be_told_of_the_next_state(Rig::start("Session").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notify_whose_answer_a_shared_store_did_not_take_is_followed_by_another_one() {
    let store = Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)));
    be_told_of_the_next_state(Rig::with_shared_store("Session", store).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_goes_on_after_an_answer_that_could_not_be_stored() {
    let mut rig = Rig::start("Session").await;
    rig.server.message("m1", "Lunch?");
    rig.partner.accept_session().await;
    let message = rig.partner.request("MESSAGE").await;
    unstored(&rig, rig.partner.answer(&message, "200 OK", "", "", "")).await;
    rig.server.message("m2", "At noon?");
    rig.partner.accept_message("At noon?").await;
    assert!(rig.server.rest().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_acceptance_could_not_be_stored_is_acknowledged_when_it_is() {
    let rig = Rig::start("Session").await;
    rig.server.message("m1", "Lunch?");
    let invite = rig.partner.request("INVITE").await;
    unstored(&rig, rig.partner.accept(&invite)).await;
    rig.partner.answered("ACK ").await;
    rig.partner.accept_message("Lunch?").await;
}
