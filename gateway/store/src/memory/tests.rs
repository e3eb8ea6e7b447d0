use std::time::Duration;

use isthmus_model::{BareAddress, PairId};

use super::*;
use crate::batch::{Condition, Lifetime};
use crate::clock::ManualClock;
use crate::error::{Bound, Retry};
use crate::timer::{Timer, TimerKind};

const LIFE: Duration = Duration::from_secs(60);

fn pair(n: u32) -> PairId {
    let remote = format!("user{n}@partner.example");
    PairId::of(&BareAddress::from_jid("lee@corp.example").unwrap(), &BareAddress::from_jid(&remote).unwrap())
}

fn store(limits: Limits) -> (MemoryStore, ManualClock) {
    let clock = ManualClock::new(EpochMillis(1_000_000));
    (MemoryStore::new(limits, Arc::new(clock.clone())), clock)
}

async fn commit(store: &MemoryStore, fill: impl FnOnce(&mut Batch)) -> Result<Committed, StoreError> {
    let mut batch = Batch::new();
    fill(&mut batch);
    store.commit(batch).await
}

fn put(batch: &mut Batch, key: Key) {
    batch.put(key, Condition::Any, "content", Lifetime::For(LIFE));
}

fn bound(result: Result<Committed, StoreError>) -> Bound {
    match result {
        Err(error @ StoreError::Full { .. }) => {
            assert!(matches!(error.retry(), Retry::After(_)));
            let StoreError::Full { bound, .. } = error else { unreachable!() };
            bound
        }
        other => panic!("expected a full store, got {other:?}"),
    }
}

// S-45
#[tokio::test]
async fn nothing_is_left_of_what_ended_was_deleted_or_done() {
    let (store, clock) = store(Limits::default());
    let queue = QueueName::pod("p");
    let lease = LeaseName::new("l", crate::Slot::named("l"), "");
    for round in 0..50 {
        for n in 0..20 {
            let key = Key::pair(&pair(n));
            let timer = Timer { kind: TimerKind(1), key: key.clone(), due: EpochMillis(0), generation: 1 };
            let done = commit(&store, |b| {
                put(b, key.clone());
                put(b, Key::session(&pair(n)));
                b.touch(Key::auth(&pair(n)), Condition::Any, Lifetime::Durable).set_timer(timer);
                let part = queue.clone().at(key.shard());
                b.enqueue(part.clone(), "work", LIFE).enqueue(part, "late", LIFE / 2);
            })
            .await
            .unwrap();
            commit(&store, |b| _ = b.touch(key.clone(), Condition::Any, Lifetime::For(LIFE * 2))).await.unwrap();
            store.ack(&queue.clone().at(key.shard()), &done.items[..1], None).await.unwrap();
            let _ = store.acquire(&lease, &format!("h{round}"), LIFE / 2).await.unwrap();
            if n % 2 == 0 {
                commit(&store, |b| _ = b.delete(key.clone(), Condition::Any)).await.unwrap();
            }
            commit(&store, |b| _ = b.cancel_timer(TimerKind(1), key)).await.unwrap();
        }
        clock.advance(LIFE / 3);
    }
    clock.advance(LIFE * 3);
    let health = store.health().await;
    assert_eq!(
        (health.records, health.bytes, health.timers, health.queued, health.leases),
        (0, 0, 0, 0, 0),
        "{health:?}"
    );
    assert_eq!(health.expired_items, 1000);
    assert_eq!(store.with(|state, _| state.agenda_len()), 0);
}

#[tokio::test]
async fn ordinary_traffic_clears_away_what_ended() {
    let (store, clock) = store(Limits::default());
    for n in 0..1000 {
        commit(&store, |b| put(b, Key::pair(&pair(n)))).await.unwrap();
    }
    clock.advance(LIFE * 2);
    for n in 0..100 {
        store.read(&[Key::session(&pair(n))]).await.unwrap();
    }
    assert_eq!(store.with(|state, _| (state.counts().records, state.counts().bytes)), (0, 0));
}

#[tokio::test]
async fn limits_hold_and_expiry_makes_room() {
    let limits = Limits { records: 10, timers: 3, leases: 2, queues: 2, ..Limits::default() };
    let (store, clock) = store(limits);
    for n in 0..10 {
        commit(&store, |b| put(b, Key::pair(&pair(n)))).await.unwrap();
    }
    assert_eq!(bound(commit(&store, |b| put(b, Key::pair(&pair(10)))).await), Bound::Records);
    assert_eq!(store.health().await.state, HealthState::Degraded);
    // What is there can be changed, and deleted to make room.
    commit(&store, |b| put(b, Key::pair(&pair(3)))).await.unwrap();
    commit(&store, |b| _ = b.delete(Key::pair(&pair(3)), Condition::Any)).await.unwrap();
    commit(&store, |b| put(b, Key::pair(&pair(10)))).await.unwrap();

    let timer = |n| Timer { kind: TimerKind(n), key: Key::pair(&pair(0)), due: EpochMillis(0), generation: 1 };
    commit(&store, |b| _ = b.set_timer(timer(1)).set_timer(timer(2)).set_timer(timer(3))).await.unwrap();
    assert_eq!(bound(commit(&store, |b| _ = b.set_timer(timer(3)).set_timer(timer(4))).await), Bound::Timers);
    commit(&store, |b| _ = b.set_timer(timer(3))).await.unwrap();

    let part = Key::pair(&pair(0)).shard();
    let three = |b: &mut Batch| {
        for pod in ["a", "b", "c"] {
            b.enqueue(QueueName::pod(pod).at(part), "", LIFE);
        }
    };
    assert_eq!(bound(commit(&store, three).await), Bound::Queues);
    for pod in ["a", "b"] {
        commit(&store, |b| _ = b.enqueue(QueueName::pod(pod), "", LIFE)).await.unwrap();
    }
    assert_eq!(bound(commit(&store, |b| _ = b.enqueue(QueueName::pod("c"), "", LIFE)).await), Bound::Queues);
    commit(&store, |b| _ = b.enqueue(QueueName::pod("a"), "", LIFE)).await.unwrap();

    let lease = |n: u32| LeaseName::new("l", crate::Slot::named(&n.to_string()), "");
    for n in 0..2 {
        assert!(store.acquire(&lease(n), "h", LIFE).await.unwrap().granted().is_some());
    }
    let full = store.acquire(&lease(2), "h", LIFE).await;
    assert_eq!(full, Err(StoreError::Full { bound: Bound::Leases, limit: 2 }));

    clock.advance(LIFE * 2);
    commit(&store, |b| put(b, Key::pair(&pair(11)))).await.unwrap();
    commit(&store, |b| _ = b.enqueue(QueueName::pod("c"), "", LIFE)).await.unwrap();
    assert!(store.acquire(&lease(2), "h", LIFE).await.unwrap().granted().is_some());
    assert_eq!(store.health().await.state, HealthState::Degraded);
    commit(&store, |b| _ = b.cancel_timer(TimerKind(3), Key::pair(&pair(0)))).await.unwrap();
    assert_eq!(store.health().await.state, HealthState::Ready);
}

#[tokio::test]
async fn octets_are_limited_for_records_and_items_together() {
    let (store, clock) = store(Limits { bytes: 10_000, ..Limits::default() });
    commit(&store, |b| _ = b.put(Key::pair(&pair(0)), Condition::Any, vec![0; 5000], Lifetime::For(LIFE)))
        .await
        .unwrap();
    commit(&store, |b| _ = b.enqueue(QueueName::pod("p"), vec![0; 4000], LIFE)).await.unwrap();
    let item = commit(&store, |b| _ = b.enqueue(QueueName::pod("p"), vec![0; 4000], LIFE)).await;
    assert_eq!(bound(item), Bound::Bytes);
    let grown =
        commit(&store, |b| _ = b.put(Key::pair(&pair(0)), Condition::Any, vec![0; 9000], Lifetime::For(LIFE))).await;
    assert_eq!(bound(grown), Bound::Bytes);
    commit(&store, |b| _ = b.put(Key::pair(&pair(0)), Condition::Any, "small", Lifetime::For(LIFE))).await.unwrap();
    commit(&store, |b| _ = b.enqueue(QueueName::pod("p"), vec![0; 4000], LIFE)).await.unwrap();
    clock.advance(LIFE * 2);
    commit(&store, |b| _ = b.enqueue(QueueName::pod("p"), vec![0; 9000], LIFE)).await.unwrap();
}

#[tokio::test]
async fn registrations_that_nobody_holds_are_forgotten() {
    let (store, _) = store(Limits::default());
    let kept = store.wake(Topic::Timers);
    for n in 0..1000 {
        drop(store.wake(Topic::Queue(QueueName::pod(&n.to_string()))));
    }
    assert!(store.wakes.topics() <= 64, "{}", store.wakes.topics());
    drop(kept);
}

#[tokio::test]
async fn a_record_keeps_no_bigger_buffer_alive() {
    let (store, _) = store(Limits::default());
    let buffer = bytes::Bytes::from(vec![1; 64 << 10]);
    let key = Key::pair(&pair(0));
    commit(&store, |b| _ = b.put(key.clone(), Condition::Any, buffer.slice(..10), Lifetime::For(LIFE))).await.unwrap();
    commit(&store, |b| _ = b.enqueue(QueueName::pod("p"), buffer.slice(..10), LIFE)).await.unwrap();
    // Only this test still refers to the buffer.
    assert!(buffer.is_unique());
}

#[tokio::test]
async fn without_a_directory_the_store_says_that_decisions_are_not_durable() {
    let (store, _) = store(Limits::default());
    let health = store.health().await;
    assert!(!health.durable);
    assert_eq!(health.state, HealthState::Ready);
    assert_eq!(health.findings.iter().map(|f| f.reason).collect::<Vec<_>>(), ["StateNotDurable"]);
}

#[tokio::test]
async fn nothing_happens_before_a_future_is_polled() {
    let (store, _) = store(Limits::default());
    let mut batch = Batch::new();
    put(&mut batch, Key::pair(&pair(0)));
    drop(store.commit(batch));
    assert_eq!(store.health().await.records, 0);
}
