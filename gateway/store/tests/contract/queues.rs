//! Queues: order, acknowledgement, take-over, bounds.

use isthmus_store::{Bound, Condition, Consumer, Fence, Item, ItemId, Key, LeaseName, QueueName, StoreError, Topic};

use crate::harness::{Harness, LONG, New, QUEUE_ITEMS, QUIET, pair, soon, span};
use crate::leases::granted;

fn consumer(name: &str, fence: Option<&Fence>) -> Consumer {
    Consumer { name: name.to_owned(), fence: fence.cloned() }
}

async fn enqueue(h: &Harness, queue: &QueueName, items: &[&'static str]) -> Vec<ItemId> {
    h.commit(|b| items.iter().for_each(|item| _ = b.enqueue(queue.clone(), *item, span(50)))).await.unwrap().items
}

async fn take(h: &Harness, queue: &QueueName, by: &Consumer, max: usize) -> Vec<Item> {
    h.store.take(queue, by, max, span(2)).await.unwrap()
}

fn texts(items: &[Item]) -> Vec<(&str, u32)> {
    items.iter().map(|item| (std::str::from_utf8(&item.bytes).unwrap(), item.attempt)).collect()
}

pub(crate) async fn items_come_in_order_until_they_are_acknowledged(new: New) {
    let h = new();
    let (queue, other, a) = (QueueName::pair(&pair("ana")), QueueName::pair(&pair("bob")), consumer("a", None));
    assert!(take(&h, &queue, &a, 9).await.is_empty());
    let ids = enqueue(&h, &queue, &["1", "2", "3"]).await;
    assert!(ids.is_sorted());
    enqueue(&h, &other, &["x"]).await;
    let first = take(&h, &queue, &a, 2).await;
    assert_eq!(texts(&first), [("1", 1), ("2", 1)]);
    assert_eq!(first[0].id, ids[0]);
    // The next come while the first are still in work.
    enqueue(&h, &queue, &["4"]).await;
    assert_eq!(texts(&take(&h, &queue, &a, 9).await), [("3", 1), ("4", 1)]);
    assert!(take(&h, &queue, &a, 9).await.is_empty());
    h.store.ack(&queue, &[ids[1], ids[1]], None).await.unwrap();
    h.store.ack(&queue, &[ids[1], ItemId(u64::MAX)], None).await.unwrap();
    // What is not acknowledged comes again, first things first.
    h.steps(3).await;
    assert_eq!(texts(&take(&h, &queue, &a, 9).await), [("1", 2), ("3", 2), ("4", 2)]);
    assert_eq!(texts(&take(&h, &other, &a, 9).await), [("x", 1)]);
}

pub(crate) async fn a_second_consumer_waits_until_the_hold_is_over(new: New) {
    let h = new();
    let (queue, a, b) = (QueueName::pair(&pair("ana")), consumer("a", None), consumer("b", None));
    let ids = enqueue(&h, &queue, &["1", "2"]).await;
    assert_eq!(texts(&take(&h, &queue, &a, 1).await), [("1", 1)]);
    // Giving it the second would break the order.
    assert!(take(&h, &queue, &b, 9).await.is_empty());
    // Once all that was taken is done, anybody may go on.
    h.store.ack(&queue, &[ids[0]], None).await.unwrap();
    assert_eq!(texts(&take(&h, &queue, &b, 9).await), [("2", 1)]);
    assert!(take(&h, &queue, &a, 9).await.is_empty());
    h.steps(3).await;
    assert_eq!(texts(&take(&h, &queue, &a, 9).await), [("2", 2)]);
    assert!(take(&h, &queue, &b, 9).await.is_empty());
}

pub(crate) async fn a_newer_token_takes_over_at_once(new: New) {
    let h = new();
    let queue = QueueName::link("server", "partner.example");
    let lease = LeaseName::link("server", "partner.example");
    enqueue(&h, &queue, &["1", "2", "3"]).await;
    let old = granted(&h, &lease, "a", span(1)).await;
    let a = consumer("a", Some(&old.fence));
    assert_eq!(texts(&h.store.take(&queue, &a, 2, span(40)).await.unwrap()), [("1", 1), ("2", 1)]);
    h.steps(2).await;
    let new = granted(&h, &lease, "b", span(40)).await;
    let b = consumer("b", Some(&new.fence));
    assert_eq!(texts(&take(&h, &queue, &b, 9).await), [("1", 2), ("2", 2), ("3", 1)]);
    // A token of another lease is no reason to take over.
    let foreign = granted(&h, &LeaseName::link("server", "other.example"), "c", span(40)).await;
    assert!(take(&h, &queue, &consumer("c", Some(&foreign.fence)), 9).await.is_empty());
    assert!(take(&h, &queue, &consumer("d", None), 9).await.is_empty());
}

pub(crate) async fn a_consumer_that_lost_its_lease_gets_nothing(new: New) {
    let h = new();
    let queue = QueueName::link("server", "partner.example");
    let lease = LeaseName::link("server", "partner.example");
    let ids = enqueue(&h, &queue, &["1"]).await;
    let old = granted(&h, &lease, "a", span(1)).await;
    h.steps(2).await;
    let lost = Err(StoreError::FenceLost { lease });
    assert_eq!(h.store.take(&queue, &consumer("a", Some(&old.fence)), 9, span(2)).await, lost);
    assert_eq!(h.store.ack(&queue, &ids, Some(&old.fence)).await.map(|_| Vec::new()), lost);
    assert_eq!(texts(&take(&h, &queue, &consumer("b", None), 9).await), [("1", 1)]);
}

pub(crate) async fn an_item_ends_with_its_lifetime(new: New) {
    let h = new();
    let (queue, a) = (QueueName::pair(&pair("ana")), consumer("a", None));
    h.commit(|b| {
        b.enqueue(queue.clone(), "1", span(1)).enqueue(queue.clone(), "2", span(9)).enqueue(
            queue.clone(),
            "3",
            span(1),
        );
    })
    .await
    .unwrap();
    h.steps(2).await;
    assert_eq!(texts(&take(&h, &queue, &a, 9).await), [("2", 1)]);
    let health = h.store.health().await;
    assert_eq!((health.queued, health.expired_items), (1, 2));
    // Also when it was taken.
    h.steps(8).await;
    assert!(take(&h, &queue, &a, 9).await.is_empty());
    assert_eq!(h.store.health().await.queued, 0);
}

pub(crate) async fn new_work_wakes_who_waits(new: New) {
    let h = new();
    let (queue, other) = (QueueName::pair(&pair("ana")), QueueName::pair(&pair("bob")));
    let mut wake = h.store.wake(Topic::Queue(queue.clone()));
    let mut second = h.store.wake(Topic::Queue(queue.clone()));
    enqueue(&h, &other, &["x"]).await;
    assert!(tokio::time::timeout(QUIET, wake.changed()).await.is_err());
    enqueue(&h, &queue, &["1"]).await;
    soon("the wake-up", wake.changed()).await;
    soon("the other's wake-up", second.changed()).await;
    enqueue(&h, &queue, &["2"]).await;
    soon("the next wake-up", wake.changed()).await;
}

pub(crate) async fn a_full_queue_refuses_the_whole_commit(new: New) {
    let h = new();
    let (queue, key) = (QueueName::pair(&pair("ana")), Key::pair(&pair("ana")));
    h.commit(|b| (1..QUEUE_ITEMS).for_each(|_| _ = b.enqueue(queue.clone(), "x", span(1)))).await.unwrap();
    let full = h
        .commit(|b| {
            b.put(key.clone(), Condition::Any, "x", LONG);
            b.enqueue(queue.clone(), "one", span(9)).enqueue(queue.clone(), "too many", span(9));
        })
        .await
        .unwrap_err();
    assert_eq!(full, StoreError::Full { bound: Bound::Queue(queue.clone()), limit: QUEUE_ITEMS });
    assert!(full.retryable());
    assert_eq!(h.get(&key).await, None);
    assert_eq!(h.store.health().await.queued, QUEUE_ITEMS - 1);
    enqueue(&h, &queue, &["last"]).await;
    assert!(h.commit(|b| _ = b.enqueue(queue.clone(), "x", span(9))).await.is_err());
    // Room comes from acknowledging, and from what ends.
    let taken = take(&h, &queue, &consumer("a", None), 1).await;
    h.store.ack(&queue, &[taken[0].id], None).await.unwrap();
    enqueue(&h, &queue, &["again"]).await;
    assert!(h.commit(|b| _ = b.enqueue(queue.clone(), "x", span(9))).await.is_err());
    h.steps(2).await;
    enqueue(&h, &queue, &["after expiry"]).await;
    assert_eq!(h.store.health().await.queued, 3);
}
