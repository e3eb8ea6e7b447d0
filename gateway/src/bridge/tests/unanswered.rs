//! What a local user hears of a message whose process is gone.

use std::sync::Arc;
use std::time::Duration;

use isthmus_interwork::letter::Letter;
use isthmus_store::clock::ManualClock;
use isthmus_store::{Batch, Consumer, Kind, Limits, MemoryStore, QueueName, Store as _, SystemClock, record};
use isthmus_xmpp::{ErrorCondition, Message, MessageType, StanzaError};

use super::rig::{Rig, attribute};
use super::store::Commits;
use crate::pods::tests::pods;

const LIFE: &str = "0123456789abcdef";

fn shared() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_noted_only_while_the_partner_is_slow_and_the_note_is_taken_back() {
    let mut rig = Rig::with_shared_store("Pager", shared()).await;
    rig.server.message("fast", "Lunch?");
    let request = rig.partner.answered("MESSAGE ").await;
    rig.partner.answer(&request, "200 OK", "far", "", "").await;
    rig.until("it is over", || rig.bridge.is_idle()).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(rig.bridge.store.health().await.queued, 0);

    rig.server.message("slow", "Lunch?");
    let request = rig.partner.answered("MESSAGE ").await;
    rig.server.message("behind", "Or dinner?");
    rig.until_queued(2).await;
    rig.partner.answer(&request, "200 OK", "far", "", "").await;
    let request = rig.partner.answered("MESSAGE ").await;
    rig.until_queued(1).await;
    rig.partner.answer(&request, "200 OK", "far", "", "").await;
    rig.until_queued(0).await;
    rig.until("all is over", || rig.bridge.is_idle()).await;
    assert_eq!(rig.server.rest(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_note_waits_for_a_store_that_is_away_and_so_does_its_end() {
    let mut rig = Rig::with_shared_store("Pager", shared()).await;
    rig.store.set(Commits::Refuse);
    rig.server.message("slow", "Lunch?");
    let request = rig.partner.answered("MESSAGE ").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    rig.store.set(Commits::Pass);
    rig.until_queued(1).await;
    rig.partner.answer(&request, "200 OK", "far", "", "").await;
    rig.until_queued(0).await;
    rig.until("it is over", || rig.bridge.is_idle()).await;
    assert_eq!(rig.server.rest(), Vec::<String>::new());
}

// Such a note would be told to the sender when this process is gone, though the message is long over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_note_of_which_the_store_could_not_tell_is_taken_back_too() {
    let mut rig = Rig::with_shared_store("Pager", shared()).await;
    rig.store.set(Commits::Unheard);
    rig.server.message("slow", "Lunch?");
    let request = rig.partner.answered("MESSAGE ").await;
    rig.until_queued(1).await;
    rig.partner.answer(&request, "200 OK", "far", "", "").await;
    rig.store.set(Commits::Pass);
    rig.until_queued(0).await;
    rig.until("it is over", || rig.bridge.is_idle()).await;
    assert_eq!(rig.server.rest(), Vec::<String>::new());
}

// Those that are over make room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notes_that_find_no_room_are_written_when_there_is_some() {
    let limits = Limits { unanswered_items: 2, ..Limits::default() };
    let store = Arc::new(MemoryStore::new(limits, Arc::new(SystemClock)));
    let rig = Rig::with_shared_store("Pager", Arc::clone(&store) as _).await;
    for id in ["one", "two", "three", "four"] {
        rig.server.message(id, id);
    }
    let full = "isthmus_store_errors_total{reason=\"full\"}";
    rig.until(full, || rig.metrics.render().contains(full)).await;
    assert_eq!(store.health().await.queued, 2);
    let queue = QueueName::unanswered(rig.bridge.pods.life());
    let me = Consumer { name: "me".to_owned(), fence: None };
    for (answered, noted) in [("one", ["two", "three"]), ("two", ["three", "four"])] {
        rig.partner.accept_message(answered).await;
        let are_noted = async {
            loop {
                let items = store.take(&queue, &me, 9, Duration::from_millis(1)).await.unwrap();
                let texts: Vec<_> =
                    items.iter().map(|item| String::from_utf8_lossy(&item.bytes).into_owned()).collect();
                if noted.iter().all(|id| texts.iter().any(|text| text.contains(id))) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), are_noted).await.expect("a note is missing");
    }
}

fn note() -> bytes::Bytes {
    let mut error = Message::new(MessageType::Error, "ana@partner.example", "juliet@corp.example/home");
    error.id = Some("out-1".into());
    error.error = Some(StanzaError::new(ErrorCondition::RemoteServerTimeout));
    let letter = Letter::new(&error, crate::bridge::now().epoch, false).unwrap();
    record::encode(Kind::Other, 1, &letter.to_bytes())
}

// S-41
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sender_of_a_message_whose_process_is_gone_hears_so_once() {
    let store = shared();
    let mut rig = Rig::with_shared_store("Pager", Arc::clone(&store) as _).await;
    let other = rig.beside("overrides: {imMode: Pager}").await;
    let (dying, _notes) = pods(&store, LIFE);
    rig.until("all are known", || [&rig, &other].iter().all(|rig| rig.bridge.pods.is_alive(LIFE))).await;
    let mut batch = Batch::new();
    batch.enqueue(QueueName::unanswered(LIFE), note(), Duration::from_secs(3600));
    store.commit(batch).await.unwrap();
    // Nobody speaks for a process that lives.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!((store.health().await.queued, rig.server.rest()), (1, Vec::new()));
    dying.leave().await;
    let told = rig.server.stanza().await;
    assert!(told.contains("<remote-server-timeout"), "{told}");
    assert_eq!((attribute(&told, "id"), attribute(&told, "to")), ("out-1".into(), "juliet@corp.example/home".into()));
    rig.until_queued(0).await;
    assert_eq!(rig.server.rest(), Vec::<String>::new());
}

// The others may have told the sender: this process stood still, or was alone without the store.
// S-13
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_seemed_gone_sends_nothing_that_was_noted_before() {
    let mut rig = Rig::with_shared_store("Pager", shared()).await;
    rig.server.message("slow", "Lunch?");
    let slow = rig.partner.answered("MESSAGE ").await;
    rig.server.message("behind", "Or dinner?");
    rig.until_queued(2).await;
    rig.bridge.pods.seem_gone();
    rig.partner.answer(&slow, "200 OK", "far", "", "").await;
    let error = rig.server.stanza().await;
    assert!(attribute(&error, "id") == "behind" && error.contains("remote-server-timeout"), "{error}");
    rig.partner.nothing_came().await;
    rig.server.message("next", "Tea?");
    let next = rig.partner.answered("MESSAGE ").await;
    assert!(next.ends_with("Tea?"), "{next}");
    rig.partner.answer(&next, "200 OK", "far", "", "").await;
    rig.until_queued(0).await;
}

// A note that was begun deep in the outage is in no store, and nobody tells of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_while_the_store_is_away_for_long_is_sent() {
    let mut rig = Rig::with_shared_store("Pager", shared()).await;
    rig.leased().await;
    rig.store.set(Commits::Away);
    tokio::time::sleep(Duration::from_secs(8)).await;
    rig.server.message("slow", "Lunch?");
    let slow = rig.partner.answered("MESSAGE ").await;
    rig.server.message("behind", "Or dinner?");
    tokio::time::sleep(Duration::from_secs(3)).await;
    rig.partner.answer(&slow, "200 OK", "far", "", "").await;
    loop {
        let next = rig.partner.request("MESSAGE").await;
        if next.ends_with("Or dinner?") {
            rig.partner.answer(&next, "200 OK", "far", "", "").await;
            break;
        }
        rig.partner.answer(&slow, "200 OK", "far", "", "").await;
    }
    rig.store.set(Commits::Pass);
    rig.until("all is over", || rig.bridge.is_idle()).await;
    assert_eq!(rig.server.rest(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_note_that_was_taken_and_could_not_be_passed_on_is_passed_on_later() {
    let store = shared();
    let mut rig = Rig::with_shared_store("Pager", Arc::clone(&store) as _).await;
    let (dying, _notes) = pods(&store, LIFE);
    rig.until("it is known", || rig.bridge.pods.is_alive(LIFE)).await;
    let mut batch = Batch::new();
    batch.enqueue(QueueName::unanswered(LIFE), note(), Duration::from_secs(3600));
    store.commit(batch).await.unwrap();
    // Who is gone is known by who was there at one of the looks before, one a second.
    tokio::time::sleep(Duration::from_secs(3)).await;
    dying.leave().await;
    rig.until("it is gone", || !rig.bridge.pods.is_alive(LIFE)).await;
    rig.store.set(Commits::NoQueue);
    // Longer than until both looks: the first of them takes the note, and the second finds it held or fails as well.
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(rig.server.rest(), Vec::<String>::new());
    rig.store.set(Commits::Pass);
    // Until the note is free, and the next look.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let told = rig.server.stanza().await;
    assert_eq!(attribute(&told, "id"), "out-1");
}

// S-45
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_note_about_a_message_ends_after_three_hours() {
    let clock = ManualClock::new(crate::bridge::now().epoch);
    let store = Arc::new(MemoryStore::new(Limits::default(), Arc::new(clock.clone())));
    let rig = Rig::with_shared_store("Pager", Arc::clone(&store) as _).await;
    rig.server.message("slow", "Lunch?");
    rig.partner.answered("MESSAGE ").await;
    rig.until_queued(1).await;
    let queue = QueueName::unanswered(rig.bridge.pods.life());
    let me = Consumer { name: "me".to_owned(), fence: None };
    clock.advance(Duration::from_secs(3 * 3600 - 5));
    assert_eq!(store.take(&queue, &me, 9, Duration::from_millis(1)).await.unwrap().len(), 1);
    clock.advance(Duration::from_secs(10));
    assert_eq!(store.take(&queue, &me, 9, Duration::from_secs(1)).await.unwrap().len(), 0);
}
