//! Several processes on one store.

use isthmus_store::clock::ManualClock;
use isthmus_store::{Limits, MemoryStore, SystemClock};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::bridge::tests::store::{Commits, TestStore};

const SOON: Duration = Duration::from_secs(10);

struct Inbox(mpsc::UnboundedSender<Note>);

impl NoteHandler for Inbox {
    fn note(&self, note: Note) {
        self.0.send(note).unwrap();
    }
}

/// Written by version 0.1.0; the next release must read it.
const MEMBERS: &[u8] = b"\x82\x81\x85ba1esip/0\x07\x19\x01,\xf5\t";

#[test]
fn frozen_bytes_are_written_and_read() {
    let member = Member { life: "a1".into(), node: "sip/0".into(), started: 7, beat: 300, draining: true };
    let list = Members { members: vec![member.clone()], begun: 9 };
    let bytes = minicbor::to_vec(&list).unwrap();
    assert_eq!(bytes.escape_ascii().to_string(), MEMBERS.escape_ascii().to_string());
    let read: Members = minicbor::decode(MEMBERS).unwrap();
    assert_eq!((read.members, read.begun), (vec![member], 9));
}

fn store() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)))
}

/// Starts the part of a process that takes notes, and gives what comes.
pub(crate) fn pods(inner: &Arc<MemoryStore>, life: &str) -> (Arc<Pods>, mpsc::UnboundedReceiver<Note>) {
    let store = TestStore::shared_over(Arc::clone(inner) as Arc<dyn Store>);
    let pods = Pods::start(store, life, "sip/0", Arc::new(Metrics::new()));
    let (sender, notes) = mpsc::unbounded_channel();
    pods.set_handler(Arc::new(Inbox(sender)));
    (pods, notes)
}

async fn until(mut condition: impl FnMut() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(SOON * 10, met).await.expect("the condition is never met");
}

#[tokio::test(start_paused = true)]
async fn processes_learn_of_each_other_and_of_their_end() {
    let inner = store();
    let (one, _) = pods(&inner, "one");
    let (two, _) = pods(&inner, "two");
    until(|| one.is_alive("two") && two.is_alive("one")).await;
    assert_eq!(one.members().len(), 2);
    two.drain().await;
    until(|| one.members().iter().any(|member| member.life == "two" && member.draining)).await;
    two.leave().await;
    until(|| !one.is_alive("two")).await;
    assert!(one.is_alive("one") && !two.is_alive("three"));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_says_nothing_any_more_is_gone() {
    let inner = store();
    let (one, _) = pods(&inner, "one");
    let silent = Pods::start(TestStore::over(Arc::clone(&inner) as _), "two", "sip/1", Arc::new(Metrics::new()));
    silent.beat().await.unwrap();
    until(|| one.is_alive("two")).await;
    let seen = Instant::now();
    until(|| !one.is_alive("two")).await;
    assert!(seen.elapsed() + BEAT * 2 > GONE && seen.elapsed() < GONE + BEAT * 3, "{:?}", seen.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_lost_its_data_is_noticed() {
    let inner = store();
    let (one, _) = pods(&inner, "one");
    let (two, _) = pods(&inner, "two");
    let (mut lost, mut also) = (one.watch_state_lost(), two.watch_state_lost());
    until(|| [&one, &two].iter().all(|pods| pods.begun.load(Ordering::Relaxed) != 0)).await;
    assert!(timeout(BEAT * 3, lost.changed()).await.is_err());
    let mut batch = Batch::new();
    batch.delete(Key::other("pods", Slot::named("realm"), "members"), Condition::Any);
    inner.commit(batch).await.unwrap();
    timeout(BEAT * 3, lost.changed()).await.unwrap().unwrap();
    // Also by the one that finds a new list already.
    timeout(BEAT * 3, also.changed()).await.unwrap().unwrap();
    assert!(timeout(BEAT * 3, also.changed()).await.is_err(), "it is lost once");
    assert!(timeout(BEAT * 3, lost.changed()).await.is_err(), "it is lost once");
    assert!(one.is_alive("one"));
}

// The others may have told of what it noted before.
#[tokio::test(start_paused = true)]
async fn a_process_that_was_struck_off_the_list_knows_that_and_one_whose_list_was_lost_was_not() {
    let inner = store();
    let (one, _) = pods(&inner, "one");
    until(|| one.begun.load(Ordering::Relaxed) != 0).await;
    let noted = Instant::now().into_std();
    tokio::time::sleep(BEAT * 3).await;
    assert!(!one.may_seem_gone_since(noted));
    one.update(|members, _| members.clear()).await.unwrap();
    tokio::time::sleep(BEAT * 2).await;
    assert!(one.may_seem_gone_since(noted));
    tokio::time::sleep(REACHED).await;
    let noted = Instant::now().into_std();
    assert!(!one.may_seem_gone_since(noted), "it was noted since then");
    let mut batch = Batch::new();
    batch.delete(Key::other("pods", Slot::named("realm"), "members"), Condition::Any);
    inner.commit(batch).await.unwrap();
    tokio::time::sleep(BEAT * 3).await;
    assert!(one.is_alive("one") && !one.may_seem_gone_since(noted), "with the list all notes are lost");
    // One that can say nothing counts what is noted as told before it is.
    one.die();
    tokio::time::sleep(SILENT + BEAT).await;
    assert!(one.may_seem_gone_since(noted));
}

#[tokio::test(start_paused = true)]
async fn notes_arrive_in_order_and_once() {
    let inner = store();
    let (one, _) = pods(&inner, "one");
    let (_two, mut notes) = pods(&inner, "two");
    for id in 0..300 {
        one.send("two", &Note::Absorbed { id }, SOON).await.unwrap();
    }
    for id in 0..300 {
        assert_eq!(timeout(SOON, notes.recv()).await.unwrap(), Some(Note::Absorbed { id }));
    }
    assert!(timeout(SOON, notes.recv()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn notes_that_leave_together_keep_their_order_and_only_those_without_room_fail() {
    let limits = Limits { queue_items: 4, ..Limits::default() };
    let inner = Arc::new(MemoryStore::new(limits, Arc::new(SystemClock)));
    let (one, _) = pods(&inner, "one");
    let many: Vec<Note> = (0..6).map(|id| Note::Absorbed { id }).collect();
    let outcomes = one.send_all("two", &many[..2], SOON).await;
    assert_eq!(outcomes, [Ok(()), Ok(())]);
    let full = || Err(SendNoteError::Full { life: "two".to_owned() });
    assert_eq!(one.send_all("two", &many[2..], SOON).await, [Ok(()), Ok(()), full(), full()]);
    let (_two, mut notes) = pods(&inner, "two");
    for id in 0..4 {
        assert_eq!(timeout(SOON, notes.recv()).await.unwrap(), Some(Note::Absorbed { id }));
    }
    assert!(timeout(SOON, notes.recv()).await.is_err());
}

#[tokio::test]
async fn notes_whose_taking_was_not_answered_come_again() {
    let inner = store();
    let (one, _) = pods(&inner, "one");
    let store = TestStore::shared_over(Arc::clone(&inner) as Arc<dyn Store>);
    store.set(Commits::Mute);
    let two = Pods::start(Arc::clone(&store) as _, "two", "sip/0", Arc::new(Metrics::new()));
    let (sender, mut notes) = mpsc::unbounded_channel();
    two.set_handler(Arc::new(Inbox(sender)));
    one.send("two", &Note::Absorbed { id: 7 }, SOON * 2).await.unwrap();
    tokio::time::sleep(PAUSE * 3).await;
    store.set(Commits::Pass);
    assert_eq!(timeout(SOON, notes.recv()).await.expect("it is lost"), Some(Note::Absorbed { id: 7 }));
    assert!(timeout(HOLD * 2, notes.recv()).await.is_err(), "it is handed in twice");
}

#[test]
fn a_note_is_handed_in_once_whatever_its_number() {
    let mut begun = Begun::default();
    assert!(begun.is_first(ItemId(9)) && !begun.is_first(ItemId(9)));
    assert!(begun.is_first(ItemId(3)), "the store's clock fell back");
    begun.forget(&[ItemId(9), ItemId(3)]);
    assert!(begun.is_first(ItemId(9)), "the number came anew");
    for id in 0..2 * MOST_BEGUN as u64 {
        begun.is_first(ItemId(id));
    }
    assert!(begun.0.len() <= MOST_BEGUN);
}

#[tokio::test(start_paused = true)]
async fn a_list_of_a_newer_release_is_let_alone() {
    let inner = store();
    let key = Key::other("pods", Slot::named("realm"), "members");
    let newer = record::encode(Kind::Other, FORMAT + 1, b"?");
    let mut batch = Batch::new();
    batch.put(key.clone(), Condition::Absent, newer.clone(), Lifetime::For(LIFETIME));
    inner.commit(batch).await.unwrap();
    let pods = Pods::start(TestStore::over(Arc::clone(&inner) as _), "one", "sip/0", Arc::new(Metrics::new()));
    assert!(matches!(pods.beat().await, Err(StoreError::Corrupt { .. })));
    assert_eq!(inner.read(&[key]).await.unwrap().remove(0).unwrap().bytes, newer);
    assert!(!pods.watch_state_lost().has_changed().unwrap());
}

#[tokio::test(start_paused = true)]
async fn an_inbox_that_nobody_empties_is_full_some_time() {
    let inner = Arc::new(MemoryStore::new(Limits { queue_items: 5, ..Limits::default() }, Arc::new(SystemClock)));
    let (one, _) = pods(&inner, "one");
    for id in 0..5 {
        one.send("gone", &Note::Absorbed { id }, SOON).await.unwrap();
    }
    let refused = one.send("gone", &Note::Absorbed { id: 5 }, SOON).await;
    assert_eq!(refused, Err(SendNoteError::Full { life: "gone".to_owned() }));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_taken_for_dead_because_the_store_was_away() {
    let inner = store();
    // Their beats are made by hand.
    let join = |life: &str| {
        let store = TestStore::over(Arc::clone(&inner) as Arc<dyn Store>);
        (Pods::start(Arc::clone(&store) as Arc<dyn Store>, life, "sip/0", Arc::new(Metrics::new())), store)
    };
    let ((one, store), (two, _)) = (join("one"), join("two"));
    two.beat().await.unwrap();
    one.beat().await.unwrap();
    store.set(Commits::Away);
    for _ in 0..20 {
        tokio::time::sleep(BEAT).await;
        one.beat().await.unwrap_err();
        assert!(one.is_alive("two"));
    }
    store.set(Commits::Pass);
    one.beat().await.unwrap();
    assert!(one.is_alive("two"), "nobody could say that it lives");
    // Whoever says nothing from then on is gone as always.
    let back = Instant::now();
    while one.is_alive("two") {
        assert!(back.elapsed() < GONE + BEAT * 3, "never found to be gone");
        tokio::time::sleep(BEAT).await;
        one.beat().await.unwrap();
    }
    assert!(back.elapsed() + BEAT > GONE, "{:?}", back.elapsed());
}

// S-45
#[tokio::test]
async fn the_list_of_processes_ends_an_hour_after_the_last_of_them_spoke() {
    let clock = ManualClock::new(crate::bridge::now().epoch);
    let inner = Arc::new(MemoryStore::new(Limits::default(), Arc::new(clock.clone())));
    let key = Key::other("pods", Slot::named("realm"), "members");
    let listed = async || inner.read(std::slice::from_ref(&key)).await.unwrap().remove(0).is_some();
    // Its beats are made by hand.
    let pods = Pods::start(TestStore::over(Arc::clone(&inner) as _), "one", "sip/0", Arc::new(Metrics::new()));
    let almost = Duration::from_millis(3_599_900);
    for _ in 0..2 {
        pods.beat().await.unwrap();
        clock.advance(almost);
        assert!(listed().await, "the last beat counts");
    }
    clock.advance(Duration::from_millis(100));
    assert!(!listed().await);
}
