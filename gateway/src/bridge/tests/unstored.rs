//! What became of requests, while the store does not take it.

use std::sync::Arc;

use bytes::Bytes;
use isthmus_model::{BareAddress, PairId};
use isthmus_sip::{Limits as SipLimits, Message};
use isthmus_store::{Key, Limits, MemoryStore, SystemClock};

use super::reconcile::{be_watched, cseq, presence};
use super::rig::{Rig, attribute};
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
async fn a_notify_that_may_be_stored_and_never_left_is_sent_when_presence_is_asked_for_again() {
    let store = Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)));
    let mut rig = Rig::with_shared_store("Session", store).await;
    let first = be_watched(&mut rig).await;
    rig.store.set(Commits::Lost);
    rig.server.send(&presence("dnd"));
    rig.until_store_is_missed().await;
    rig.store.set(Commits::Pass);
    assert_eq!(attribute(&rig.server.stanza().await, "type"), "probe");
    rig.server.send(&presence("dnd"));
    let next = rig.partner.request("NOTIFY").await;
    assert!(next.contains("dnd"), "{next}");
    assert!(cseq(&next) > cseq(&first), "{next}");
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

/// The peer acknowledges our 200 once, and a message for its session waits for that.
async fn acknowledge_meanwhile(mode: Commits) {
    let mut rig = Rig::start("Session").await;
    let dialog = rig.partner.ask_for_session().await;
    rig.store.set(mode);
    rig.partner.in_dialog(&dialog, "ACK", 1, "", "").await;
    rig.until("it is kept", || rig.bridge.unfinished().contains(&"work that is to be stored")).await;
    rig.store.set(Commits::Pass);
    rig.server.message("m1", "Lunch?");
    rig.partner.accept_message("Lunch?").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_ack_could_not_be_stored_goes_on_when_it_is() {
    acknowledge_meanwhile(Commits::Refuse).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_ack_came_while_the_store_was_away_goes_on_when_it_is_back() {
    acknowledge_meanwhile(Commits::Away).await;
}

// S-09
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ack_that_the_store_did_not_take_reaches_the_process_that_works_for_the_session() {
    let store = Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)));
    let rig = Rig::with_shared_store("Session", store).await;
    rig.leased().await;
    let mut other = rig.beside("overrides: {imMode: Session}").await;
    let dialog = other.partner.ask_for_session().await;
    other.store.set(Commits::NoQueue);
    other.partner.in_dialog(&dialog, "ACK", 1, "", "").await;
    other.until("it is kept", || other.bridge.unfinished().contains(&"work that is to be stored")).await;
    other.store.set(Commits::Pass);
    rig.server.message("m1", "Lunch?");
    rig.partner.accept_message("Lunch?").await;
}

// S-10
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ack_that_another_process_hands_over_is_kept_while_the_store_takes_nothing() {
    let mut rig = Rig::start("Session").await;
    let dialog = rig.partner.ask_for_session().await;
    let ack = format!(
        "ACK sip:juliet@corp.example SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKa\r\nMax-Forwards: 70\r\n\
         {dialog}CSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n"
    );
    let ack = Message::parse(Bytes::from(ack), &SipLimits::default()).unwrap();
    rig.store.set(Commits::Refuse);
    rig.bridge.pod_ack(ack);
    rig.until("it is kept", || rig.bridge.unfinished().contains(&"work that is to be stored")).await;
    rig.store.set(Commits::Pass);
    rig.server.message("m1", "Lunch?");
    rig.partner.accept_message("Lunch?").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_acks_while_the_store_is_away_is_not_kept() {
    let mut rig = Rig::start("Session").await;
    let dialog = rig.partner.ask_for_session().await;
    rig.store.set(Commits::Away);
    for number in 2..20 {
        // Of the dialog, but of no INVITE that was answered here.
        rig.partner.in_dialog(&dialog, "ACK", number, "", "").await;
    }
    rig.partner.nothing_came().await;
    assert!(!rig.bridge.unfinished().contains(&"work that is to be stored"));
}

/// Lets commits happen of which the gateway hears nothing, until it keeps what it cannot know.
async fn lost(rig: &Rig, cause: impl Future<Output = ()>) {
    rig.store.set(Commits::Lost);
    cause.await;
    rig.until("it is kept", || rig.bridge.unfinished().contains(&"work that is to be stored")).await;
    rig.store.set(Commits::Pass);
}

// S-12
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_may_be_stored_and_was_refused_keeps_nothing_from_its_way() {
    let mut rig = Rig::start("Session").await;
    rig.server.message("m1", "Lunch?");
    rig.partner.accept_session().await;
    let first = rig.partner.accept_message("Lunch?").await;
    lost(&rig, async { rig.server.message("m2", "At noon?") }).await;
    let refused = rig.server.stanza().await;
    assert!(refused.contains("resource-constraint") && attribute(&refused, "id") == "m2", "{refused}");
    rig.server.message("m3", "At one?");
    let third = rig.partner.accept_message("At one?").await;
    assert_eq!(cseq(&third), cseq(&first) + 1);
    rig.partner.nothing_came().await;
    assert_eq!(rig.server.rest(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_may_be_stored_and_was_refused_is_opened_by_the_next_message() {
    let mut rig = Rig::start("Session").await;
    lost(&rig, async { rig.server.message("m1", "Lunch?") }).await;
    assert!(rig.server.stanza().await.contains("resource-constraint"));
    rig.server.message("m2", "At noon?");
    rig.partner.accept_session().await;
    rig.partner.accept_message("At noon?").await;
    rig.partner.nothing_came().await;
    assert_eq!(rig.server.rest(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_answer_leads_to_is_done_once_though_it_may_be_stored_already() {
    let mut rig = Rig::start("Session").await;
    rig.server.message("m1", "Lunch?");
    rig.partner.accept_session().await;
    let first = rig.partner.request("MESSAGE").await;
    let before = rig.store.asked();
    rig.server.message("m2", "At noon?");
    rig.store.wait_asked(before).await;
    rig.until("it waits in the session", || rig.bridge.is_idle()).await;
    // The next message was on its way with this commit.
    lost(&rig, rig.partner.answer(&first, "415 Unsupported Media Type", "", "", "")).await;
    let refused = rig.server.stanza().await;
    assert!(attribute(&refused, "type") == "error" && attribute(&refused, "id") == "m1", "{refused}");
    rig.partner.accept_message("At noon?").await;
    rig.partner.nothing_came().await;
    assert_eq!(rig.server.rest(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_session_is_told_of_though_its_end_may_be_stored_already() {
    // Of what is kept, one or the other comes first.
    for _ in 0..4 {
        let mut rig = Rig::start("Session").await;
        rig.server.message("m1", "Lunch?");
        let invite = rig.partner.request("INVITE").await;
        lost(&rig, rig.partner.answer(&invite, "486 Busy Here", "far", "", "")).await;
        rig.partner.answered("ACK ").await;
        let refused = rig.server.stanza().await;
        assert!(attribute(&refused, "type") == "error" && attribute(&refused, "id") == "m1", "{refused}");
        rig.until("all is settled", || rig.bridge.is_idle()).await;
        let bare = |jid| BareAddress::from_jid(jid).unwrap();
        let pair = PairId::of(&bare("juliet@corp.example"), &bare("ana@partner.example"));
        assert_eq!(rig.store.stored(Key::session(&pair)).await, None);
        rig.server.message("m2", "At noon?");
        rig.partner.accept_session().await;
        rig.partner.accept_message("At noon?").await;
        assert_eq!(rig.server.rest(), Vec::<String>::new());
    }
}
