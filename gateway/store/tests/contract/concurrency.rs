//! Many at once.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use isthmus_store::{
    Condition, Consumer, Key, LeaseName, Lifetime, QueueName, ShardClaim, Store, StoreError, Timer, TimerKind,
};

use crate::harness::{LONG, New, commit, pair, soon, span};

const TASKS: u64 = 8;

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().unwrap())
}

async fn together<F>(task: impl Fn(u64) -> F) -> Vec<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let tasks: Vec<_> = (0..TASKS).map(|n| tokio::spawn(task(n))).collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(soon("the end of a task", task).await.unwrap());
    }
    results
}

/// Adds one, however often others are first.
async fn increment(store: &dyn Store, key: &Key, lifetime: Lifetime) {
    let mut current = store.read(std::slice::from_ref(key)).await.unwrap().pop().unwrap();
    loop {
        let next = current.as_ref().map_or(0, |record| number(&record.bytes)) + 1;
        let condition = Condition::unchanged(current.as_ref());
        let bytes = next.to_be_bytes().to_vec();
        match commit(store, |b| _ = b.put(key.clone(), condition, bytes, lifetime)).await {
            Ok(_) => return,
            Err(StoreError::Conflict(conflict)) => current = conflict.current,
            Err(error) => panic!("{error}"),
        }
    }
}

pub(crate) async fn racing_writers_lose_no_update(new: New) {
    let h = new();
    let keys = [(Key::pair(&pair("ana")), LONG), (Key::auth(&pair("ana")), Lifetime::Durable)];
    for (key, lifetime) in keys {
        together(|_| {
            let (store, key) = (Arc::clone(&h.store), key.clone());
            async move {
                for _ in 0..25 {
                    increment(&*store, &key, lifetime).await;
                }
            }
        })
        .await;
        assert_eq!(number(&h.get(&key).await.unwrap().bytes), TASKS * 25);
    }
}

pub(crate) async fn racing_holders_never_both_write(new: New) {
    let h = new();
    let (key, name) = (Key::pair(&pair("ana")), LeaseName::send(&pair("ana"), "t"));
    // Each write is unconditional, so only the fence keeps an update from being lost.
    let done = together(|n| {
        let (store, key, name) = (Arc::clone(&h.store), key.clone(), name.clone());
        async move {
            let mut done = 0;
            while done < 20 {
                let Some(lease) = store.acquire(&name, &format!("h{n}"), span(1000)).await.unwrap().granted() else {
                    tokio::task::yield_now().await;
                    continue;
                };
                let read = store.read(std::slice::from_ref(&key)).await.unwrap().pop().unwrap();
                let next = read.map_or(0, |record| number(&record.bytes)) + 1;
                tokio::task::yield_now().await;
                let bytes = next.to_be_bytes().to_vec();
                let fence = lease.fence.clone();
                commit(&*store, |b| _ = b.put(key.clone(), Condition::Any, bytes, LONG).fence(fence)).await.unwrap();
                assert!(store.release(&lease).await.unwrap());
                let late = commit(&*store, |b| {
                    b.put(key.clone(), Condition::Any, vec![0; 8], LONG).fence(lease.fence.clone());
                })
                .await;
                assert!(matches!(late, Err(StoreError::FenceLost { .. })), "{late:?}");
                done += 1;
            }
            done
        }
    })
    .await;
    assert_eq!(number(&h.get(&key).await.unwrap().bytes), done.iter().sum::<u64>());
}

pub(crate) async fn racing_claims_share_the_timers(new: New) {
    let h = new();
    let now = h.now();
    for n in 0..200_u64 {
        let key = Key::pair(&pair(&format!("user{n}")));
        let timer = Timer { kind: TimerKind(1), key, due: now, generation: n };
        h.commit(|b| _ = b.set_timer(timer)).await.unwrap();
    }
    let claimed = together(|_| {
        let store = Arc::clone(&h.store);
        async move {
            let mut mine = Vec::new();
            loop {
                let due = store.claim_due(&ShardClaim::all(), 3, Duration::from_secs(600)).await.unwrap();
                if due.is_empty() {
                    return mine;
                }
                for due in due {
                    mine.push(due.timer.generation);
                    store.complete(due).await.unwrap();
                }
            }
        }
    })
    .await;
    let all: Vec<_> = claimed.into_iter().flatten().collect();
    assert_eq!(all.len(), 200);
    assert_eq!(all.into_iter().collect::<HashSet<_>>().len(), 200);
    assert_eq!(h.store.health().await.timers, 0);
}

pub(crate) async fn racing_producers_keep_the_order_of_each(new: New) {
    const EACH: u64 = 40;
    let h = new();
    let queue = QueueName::pair(&pair("ana"));
    let consumer = {
        let (store, queue) = (Arc::clone(&h.store), queue.clone());
        let mut wake = store.wake(isthmus_store::Topic::Queue(queue.clone()));
        tokio::spawn(async move {
            let me = Consumer { name: "c".to_owned(), fence: None };
            let mut got = vec![0_u64; usize::try_from(TASKS).unwrap()];
            let mut count = 0;
            while count < TASKS * EACH {
                let items = store.take(&queue, &me, 3, Duration::from_secs(600)).await.unwrap();
                if items.is_empty() {
                    wake.changed().await;
                }
                for item in items {
                    let value = number(&item.bytes);
                    let (producer, n) = (usize::try_from(value / 1000).unwrap(), value % 1000);
                    assert_eq!((n, item.attempt), (got[producer], 1));
                    got[producer] += 1;
                    count += 1;
                    store.ack(&queue, &[item.id], None).await.unwrap();
                }
            }
        })
    };
    together(|producer| {
        let (store, queue) = (Arc::clone(&h.store), queue.clone());
        async move {
            for n in 0..EACH {
                let bytes = (producer * 1000 + n).to_be_bytes().to_vec();
                while let Err(error) =
                    commit(&*store, |b| _ = b.enqueue(queue.clone(), bytes.clone(), span(1000))).await
                {
                    // The queue is bounded, so a producer must be able to wait.
                    assert!(matches!(error, StoreError::Full { .. }), "{error}");
                    tokio::task::yield_now().await;
                }
            }
        }
    })
    .await;
    soon("the consumer's end", consumer).await.unwrap();
    assert_eq!(h.store.health().await.queued, 0);
}
