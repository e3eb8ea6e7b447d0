//! Presence changes without a read, and what happens when what is remembered is not true any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use isthmus_interwork::authorization::{AuthRecord, Context, Output, Pair, Purpose};
use isthmus_model::{BareAddress, EpochMillis, LangText, ResourcePresence};
use isthmus_store::{Batch, Condition, Key, Kind, Lifetime, Limits, MemoryStore, Store, SystemClock, record};

use super::reconcile::{be_watched, cseq, presence};
use super::rig::Rig;
use super::store::Commits;
use crate::bridge::presence::PairUsers;

fn users() -> PairUsers {
    let bare = |jid| BareAddress::from_jid(jid).unwrap();
    PairUsers { local: bare("juliet@corp.example"), remote: bare("ana@partner.example") }
}

fn shared() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)))
}

/// A process where ana watches juliet and knows that she is away; gives the number of the last NOTIFY.
async fn watched(store: Arc<dyn Store>) -> (Rig, u32) {
    let mut rig = Rig::with_shared_store("Session", store).await;
    rig.leased().await;
    let notify = be_watched(&mut rig).await;
    settled(&rig).await;
    (rig, cseq(&notify))
}

/// Waits until nothing is under way, and what the last turn stored is remembered.
async fn settled(rig: &Rig) {
    rig.until("nothing is under way", || rig.bridge.lanes.is_idle() && !rig.bridge.awaits_outcomes()).await;
}

/// Lets juliet change and waits until that is stored; gives how often pairs were written and read for it.
async fn change(rig: &Rig, show: &str) -> (u32, u32) {
    let before = rig.store.pairs();
    rig.server.send(&presence(show));
    rig.until("the change is stored", || rig.store.pairs().0 > before.0).await;
    settled(rig).await;
    let after = rig.store.pairs();
    (after.0 - before.0, after.1 - before.1)
}

/// Juliet's presence `later` than now, in a turn without a stanza: gives how often the machine acted, and the number of the
/// NOTIFY that it wants sent.
async fn turn(rig: &Rig, status: &str, later: Duration) -> (u32, Vec<u32>) {
    let mut state = ResourcePresence::new("home", true, EpochMillis(1));
    state.statuses = vec![LangText::plain(status)];
    let mut runs = 0;
    let act = |pair: &mut Pair, ctx: &mut Context<'_>| {
        runs += 1;
        ctx.now.epoch = ctx.now.epoch.plus(later);
        pair.handle_timeout(ctx);
        pair.handle_state(ctx, &state);
    };
    let (_, outputs) = rig.bridge.with_pair(&users(), act).await.unwrap();
    let number = |output: &Output| match output {
        Output::Request { purpose: Purpose::Notify { cseq, .. }, .. } => Some(*cseq),
        _ => None,
    };
    (runs, outputs.iter().filter_map(number).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_presence_change_and_the_answer_to_its_notify_are_one_commit_each_and_no_read() {
    let (rig, last) = watched(shared()).await;
    assert_eq!(change(&rig, "dnd").await, (1, 0));
    assert_eq!(change(&rig, "xa").await, (1, 0));
    // Watchers are told every few seconds at most, so this one is due later.
    let notify = rig.partner.request("NOTIFY").await;
    assert_eq!(cseq(&notify), last + 1);
    let before = rig.store.pairs();
    rig.partner.answer(&notify, "200 OK", "", "", "").await;
    rig.until("the outcome is stored", || rig.store.pairs().0 > before.0).await;
    settled(&rig).await;
    assert_eq!(rig.store.pairs(), (before.0 + 1, before.1));
}

// S-12
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_process_told_a_watcher_is_not_told_with_the_same_number() {
    let store = shared();
    let (rig, last) = watched(Arc::clone(&store)).await;
    let other = Rig::with_shared_store("Session", store).await;
    other.leased().await;
    settled(&other).await;
    // As if each had the link in turn; what was sent before is over by then.
    let minutes = |minutes: u32| Duration::from_secs(60 * u64::from(minutes));
    assert_eq!(turn(&rig, "a", minutes(1)).await.1, [last + 1]);
    assert_eq!(turn(&other, "ab", minutes(2)).await.1, [last + 2]);
    // The first run was on what this process stored itself, and led to nothing.
    assert_eq!(turn(&rig, "abc", minutes(3)).await, (2, vec![last + 3]));
    assert_eq!(turn(&rig, "abcd", minutes(4)).await, (1, vec![last + 4]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_pair_that_the_store_lost_nobody_is_told_from_memory() {
    let (mut rig, _) = watched(shared()).await;
    let id = users().id();
    let mut batch = Batch::new();
    batch.delete(Key::pair(&id), Condition::Any).delete(Key::auth(&id), Condition::Any);
    rig.store.inner.commit(batch).await.unwrap();
    rig.server.send(&presence("dnd"));
    rig.partner.nothing_came().await;
    settled(&rig).await;
    assert_eq!(rig.store.stored(Key::pair(&id)).await, None);
    assert!(rig.bridge.remembered.recall(&[Key::pair(&id)], Instant::now()).is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_with_the_same_content_but_another_version_is_read() {
    let (rig, last) = watched(shared()).await;
    let key = Key::pair(&users().id());
    let stored = rig.store.stored(key.clone()).await.unwrap();
    let mut batch = Batch::new();
    batch.put(key, Condition::Any, stored.bytes, Lifetime::For(Duration::from_secs(600)));
    rig.store.inner.commit(batch).await.unwrap();
    // One commit that was refused, and one more.
    assert_eq!(change(&rig, "dnd").await, (2, 1));
    // From then on it is known again.
    assert_eq!(change(&rig, "xa").await, (1, 0));
    assert_eq!(cseq(&rig.partner.request("NOTIFY").await), last + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_that_was_written_elsewhere_counts_though_the_pair_is_unchanged() {
    let (mut rig, _) = watched(shared()).await;
    let key = Key::auth(&users().id());
    let mut batch = Batch::new();
    let nothing = record::encode(Kind::Auth, 1, &AuthRecord::default().to_bytes());
    batch.put(key, Condition::Any, nothing, Lifetime::Durable);
    rig.store.inner.commit(batch).await.unwrap();
    rig.server.send(&presence("dnd"));
    rig.partner.nothing_came().await;
}

// K-80
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_commit_that_failed_nothing_is_remembered() {
    let (rig, last) = watched(shared()).await;
    rig.store.set(Commits::Refuse);
    let before = rig.store.asked();
    rig.server.send(&presence("dnd"));
    rig.store.wait_asked(before).await;
    rig.until("the turn ended", || rig.bridge.lanes.is_idle()).await;
    assert!(rig.bridge.remembered.recall(&[Key::pair(&users().id())], Instant::now()).is_none());
    rig.store.set(Commits::Pass);
    rig.server.send(&presence("xa"));
    assert_eq!(cseq(&rig.partner.request("NOTIFY").await), last + 1);
}
