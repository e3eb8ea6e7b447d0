//! Timers: claims, generations, shards.

use isthmus_model::EpochMillis;
use isthmus_store::batch::TimerChange;
use isthmus_store::{
    Condition, Due, Key, LeaseName, Shard, ShardClaim, StoreError, Timer, TimerKind, TimerPage, Topic,
};

use crate::harness::{Harness, LONG, New, QUIET, STEP, pair, soon, span};
use crate::leases::granted;

fn timer(key: &Key, kind: u16, due: EpochMillis, generation: u64) -> Timer {
    Timer { kind: TimerKind(kind), key: key.clone(), due, generation }
}

/// A time in the middle of a step.
fn at(h: &Harness, steps: u32) -> EpochMillis {
    h.now().plus(span(steps))
}

async fn claim(h: &Harness, max: usize) -> Vec<Due> {
    h.store.claim_due(&ShardClaim::all(), max, span(2)).await.unwrap()
}

fn generations(due: &[Due]) -> Vec<u64> {
    due.iter().map(|due| due.timer.generation).collect()
}

async fn next_due(h: &Harness) -> Option<EpochMillis> {
    let shards: Vec<_> = Shard::all().collect();
    h.store.next_due(&shards).await.unwrap()
}

pub(crate) async fn due_timers_are_claimed_in_order_and_only_once(new: New) {
    let h = new();
    let key = Key::pair(&pair("ana"));
    let (first, second, late) = (at(&h, 0), at(&h, 1), at(&h, 5));
    h.commit(|b| {
        b.set_timer(timer(&key, 2, second, 2)).set_timer(timer(&key, 1, first, 1)).set_timer(timer(&key, 3, late, 3));
    })
    .await
    .unwrap();
    assert_eq!(next_due(&h).await, Some(first));
    assert!(claim(&h, 9).await.is_empty());
    h.steps(2).await;
    let one = claim(&h, 1).await;
    assert_eq!(generations(&one), [1]);
    assert_eq!((one[0].attempt, one[0].timer.kind, &one[0].timer.key), (1, TimerKind(1), &key));
    assert_eq!(generations(&claim(&h, 9).await), [2]);
    assert!(claim(&h, 9).await.is_empty());
    assert!(claim(&h, 0).await.is_empty());
}

pub(crate) async fn a_claim_that_is_not_completed_comes_again(new: New) {
    let h = new();
    let key = Key::pair(&pair("ana"));
    h.commit(|b| _ = b.set_timer(timer(&key, 1, at(&h, 0), 7))).await.unwrap();
    h.steps(1).await;
    let first = claim(&h, 9).await.pop().unwrap();
    assert_eq!(next_due(&h).await, Some(first.held_until));
    h.steps(2).await;
    assert!(claim(&h, 9).await.is_empty());
    h.steps(1).await;
    let second = claim(&h, 9).await.pop().unwrap();
    assert_eq!((second.attempt, &second.timer), (2, &first.timer));
    assert_ne!(second.claim, first.claim);
    h.store.complete(second).await.unwrap();
    h.steps(9).await;
    assert!(claim(&h, 9).await.is_empty());
    assert_eq!(next_due(&h).await, None);
    assert_eq!(h.store.health().await.timers, 0);
}

pub(crate) async fn setting_a_timer_again_replaces_it(new: New) {
    let h = new();
    let key = Key::pair(&pair("ana"));
    let later = at(&h, 3);
    h.commit(|b| _ = b.set_timer(timer(&key, 1, at(&h, 0), 1))).await.unwrap();
    h.commit(|b| _ = b.set_timer(timer(&key, 1, later, 2))).await.unwrap();
    assert_eq!(next_due(&h).await, Some(later));
    h.steps(2).await;
    assert!(claim(&h, 9).await.is_empty());
    h.commit(|b| _ = b.set_timer(timer(&key, 1, h.now(), 3))).await.unwrap();
    assert_eq!(generations(&claim(&h, 9).await), [3]);
    // Also while it is claimed.
    h.commit(|b| _ = b.set_timer(timer(&key, 1, h.now(), 4))).await.unwrap();
    let due = claim(&h, 9).await;
    assert_eq!((generations(&due), due[0].attempt), (vec![4], 1));
    assert_eq!(h.store.health().await.timers, 1);
}

pub(crate) async fn completing_a_stale_claim_does_nothing(new: New) {
    let h = new();
    let key = Key::pair(&pair("ana"));
    h.commit(|b| _ = b.set_timer(timer(&key, 1, h.now(), 1))).await.unwrap();
    let stale = claim(&h, 9).await.pop().unwrap();
    h.steps(3).await;
    let current = claim(&h, 9).await.pop().unwrap();
    h.store.complete(stale.clone()).await.unwrap();
    assert_eq!(h.store.health().await.timers, 1);
    h.commit(|b| _ = b.set_timer(timer(&key, 1, h.now(), 2))).await.unwrap();
    h.store.complete(current).await.unwrap();
    h.store.complete(stale).await.unwrap();
    assert_eq!(generations(&claim(&h, 9).await), [2]);
}

pub(crate) async fn cancelled_timers_never_fire(new: New) {
    let h = new();
    let key = Key::pair(&pair("ana"));
    h.commit(|b| _ = b.set_timer(timer(&key, 1, h.now(), 1)).set_timer(timer(&key, 2, h.now(), 2))).await.unwrap();
    h.commit(|b| _ = b.cancel_timer(TimerKind(1), key.clone())).await.unwrap();
    let due = claim(&h, 9).await;
    assert_eq!(generations(&due), [2]);
    h.commit(|b| _ = b.cancel_timer(TimerKind(2), key.clone()).cancel_timer(TimerKind(3), key.clone())).await.unwrap();
    h.steps(9).await;
    assert!(claim(&h, 9).await.is_empty());
    assert_eq!(h.store.health().await.timers, 0);
}

pub(crate) async fn shards_are_served_under_their_leases(new: New) {
    let h = new();
    // Two records in different shards.
    let one = Key::pair(&pair("ana"));
    let mut names = (0..).map(|n| Key::pair(&pair(&format!("user{n}"))));
    let other = names.find(|key| key.slot().shard() != one.slot().shard()).unwrap();
    let due = h.now();
    h.commit(|b| _ = b.set_timer(timer(&one, 1, due, 1))).await.unwrap();
    h.commit(|b| _ = b.set_timer(timer(&other, 1, due, 2))).await.unwrap();
    let (own, foreign) = (one.slot().shard(), other.slot().shard());
    let lease = granted(&h, &LeaseName::shard(own), "a", span(1)).await;
    let lost = granted(&h, &LeaseName::shard(foreign), "a", span(50)).await;
    let claims = |shard, fence: &isthmus_store::Lease| ShardClaim { shard, fence: Some(fence.fence.clone()) };
    assert_eq!(h.store.next_due(&[own]).await.unwrap(), h.store.next_due(&[foreign]).await.unwrap());
    granted(&h, &LeaseName::shard(foreign), "a", span(50)).await;
    // One shard lost: nothing is claimed of either.
    let both = h.store.claim_due(&[claims(own, &lease), claims(foreign, &lost)], 9, span(2)).await;
    assert_eq!(both, Err(StoreError::FenceLost { lease: LeaseName::shard(foreign) }));
    let due = h.store.claim_due(&[claims(own, &lease)], 9, span(2)).await.unwrap();
    assert_eq!(generations(&due), [1]);
    assert_eq!(due[0].timer.shard(), own);
    h.steps(2).await;
    let lapsed = h.store.claim_due(&[claims(own, &lease)], 9, span(2)).await;
    assert!(matches!(lapsed, Err(StoreError::FenceLost { .. })), "{lapsed:?}");
}

pub(crate) async fn a_handler_commits_its_work_and_its_claim_at_once(new: New) {
    let h = new();
    let key = Key::pair(&pair("ana"));
    let version = h
        .commit(|b| _ = b.put(key.clone(), Condition::Any, "1", LONG).set_timer(timer(&key, 1, h.now(), 1)))
        .await
        .unwrap()
        .versions[0];
    let due = claim(&h, 9).await.pop().unwrap();
    let conflicted =
        h.commit(|b| _ = b.put(key.clone(), Condition::Version(version + 1), "2", LONG).complete(due.clone())).await;
    assert!(conflicted.is_err());
    assert_eq!(h.store.health().await.timers, 1);
    h.commit(|b| _ = b.put(key.clone(), Condition::Version(version), "2", LONG).complete(due)).await.unwrap();
    assert_eq!(h.store.health().await.timers, 0);
}

pub(crate) async fn an_earlier_timer_wakes_who_sleeps(new: New) {
    let h = new();
    let key = Key::pair(&pair("ana"));
    let mut wake = h.store.wake(Topic::Timers);
    let (late, early) = (h.now().plus(STEP * 100), h.now().plus(STEP * 50));
    h.commit(|b| _ = b.set_timer(timer(&key, 1, late, 1))).await.unwrap();
    soon("the first wake-up", wake.changed()).await;
    assert!(tokio::time::timeout(QUIET, wake.changed()).await.is_err());
    h.commit(|b| _ = b.set_timer(timer(&key, 2, early, 1))).await.unwrap();
    soon("the second wake-up", wake.changed()).await;
    assert_eq!(next_due(&h).await, Some(early));
}

/// A pair's timers, all in one shard.
fn crowd(names: std::ops::Range<u32>, due: EpochMillis) -> Vec<Timer> {
    names.map(|n| timer(&Key::dialog(&pair("ana"), &n.to_string()), 1, due, 1)).collect()
}

async fn set_all(h: &Harness, timers: Vec<Timer>) {
    for some in timers.chunks(200) {
        h.commit(|b| b.timers.extend(some.iter().cloned().map(TimerChange::Set))).await.unwrap();
    }
}

pub(crate) async fn a_walk_names_every_timer_that_stays(new: New) {
    let h = new();
    let shard = Key::pair(&pair("ana")).shard();
    assert_eq!(h.store.timers(shard, None, 9).await.unwrap(), TimerPage::default());
    // More than a server keeps in one piece, at times of all kinds.
    set_all(&h, crowd(0..700, at(&h, 0))).await;
    set_all(&h, crowd(700..1500, at(&h, 9))).await;
    let (mut seen, mut cursor, mut round) = (Vec::new(), None, 0);
    loop {
        let page = h.store.timers(shard, cursor.as_ref(), 50).await.unwrap();
        assert!(page.timers.len() <= 562, "{}", page.timers.len());
        seen.extend(page.timers);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
        // Meanwhile all of them move, some come and some go.
        set_all(&h, crowd(0..1000, at(&h, if round % 2 == 0 { 20 } else { 1 }))).await;
        claim(&h, 100).await;
        let new = 2000 + round * 10;
        set_all(&h, crowd(new..new + 10, at(&h, 3))).await;
        h.commit(|b| _ = b.cancel_timer(TimerKind(1), Key::dialog(&pair("ana"), &(1400 + round).to_string())))
            .await
            .unwrap();
        round += 1;
        assert!(round < 400, "the walk does not end");
    }
    assert!(round > 4, "{round}");
    let missed = (0..1400).filter(|n| !seen.contains(&(TimerKind(1), Key::dialog(&pair("ana"), &n.to_string()))));
    assert_eq!(missed.count(), 0);
    // Another shard is another walk.
    let other = Shard::all().find(|other| *other != shard).unwrap();
    assert!(h.store.timers(other, None, 9).await.unwrap().timers.is_empty());
}
