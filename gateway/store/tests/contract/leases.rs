//! Leases and fences.

use std::time::Duration;

use isthmus_store::{
    Acquisition, Condition, Consumer, Key, Lease, LeaseName, QueueName, StoreError, Timer, TimerKind, Topic,
};

use crate::harness::{Harness, LONG, New, QUIET, pair, soon, span};

pub(crate) async fn granted(h: &Harness, name: &LeaseName, holder: &str, ttl: Duration) -> Lease {
    h.store.acquire(name, holder, ttl).await.unwrap().granted().unwrap()
}

pub(crate) async fn one_holder_at_a_time(new: New) {
    let h = new();
    let name = LeaseName::link("127.0.0.1:5347", "partner.example");
    assert_eq!(h.store.holder(&name).await.unwrap(), None);
    let a = granted(&h, &name, "a", span(2)).await;
    let Acquisition::Held(holder) = h.store.acquire(&name, "b", span(2)).await.unwrap() else {
        panic!("granted twice")
    };
    assert_eq!((holder.name.as_str(), holder.token, holder.expires_at), ("a", a.fence.token, a.expires_at));
    assert_eq!(h.store.holder(&name).await.unwrap(), Some(holder));
    assert_eq!(granted(&h, &LeaseName::link("127.0.0.1:5347", "other.example"), "b", span(2)).await.holder, "b");

    // A renewed one lasts from then on.
    h.steps(2).await;
    let a = h.store.renew(&a, span(2)).await.unwrap();
    h.steps(2).await;
    assert!(h.store.acquire(&name, "b", span(2)).await.unwrap().granted().is_none());
    assert!(h.store.release(&a).await.unwrap());
    assert!(!h.store.release(&a).await.unwrap());
    granted(&h, &name, "b", span(2)).await;
    // One that ran out is free.
    h.steps(3).await;
    assert_eq!(h.store.holder(&name).await.unwrap(), None);
    granted(&h, &name, "c", span(2)).await;
}

pub(crate) async fn tokens_grow_with_each_grant(new: New) {
    let h = new();
    let name = LeaseName::send(&pair("ana"), "t");
    let mut last = 0;
    for round in 0..6 {
        let lease = granted(&h, &name, "same", span(1)).await;
        assert!(lease.fence.token > last);
        last = lease.fence.token;
        match round % 3 {
            0 => _ = h.store.release(&lease).await.unwrap(),
            1 => h.steps(2).await,
            // The same holder asks again while it has it: its earlier self is fenced off.
            _ => {
                let again = granted(&h, &name, "same", span(1)).await;
                assert!(again.fence.token > last);
                last = again.fence.token;
                let old = h.store.renew(&lease, span(1)).await;
                assert!(matches!(old, Err(StoreError::FenceLost { .. })), "{old:?}");
                assert!(!h.store.release(&lease).await.unwrap());
                assert!(h.store.release(&again).await.unwrap());
            }
        }
    }
}

pub(crate) async fn a_lapsed_lease_cannot_be_renewed(new: New) {
    let h = new();
    let name = LeaseName::send(&pair("ana"), "t");
    let lease = granted(&h, &name, "a", span(1)).await;
    h.steps(2).await;
    let late = h.store.renew(&lease, span(1)).await;
    assert_eq!(late, Err(StoreError::FenceLost { lease: name.clone() }));
    assert!(!h.store.release(&lease).await.unwrap());
    assert_eq!(h.store.holder(&name).await.unwrap(), None);
}

pub(crate) async fn a_holder_that_lost_its_lease_can_write_nothing(new: New) {
    enum Loss {
        Lapsed,
        Taken,
        Released,
        Reacquired,
    }
    for loss in [Loss::Lapsed, Loss::Taken, Loss::Released, Loss::Reacquired] {
        let h = new();
        let pair = pair("ana");
        let (key, decision, queue) = (Key::pair(&pair), Key::auth(&pair), QueueName::pair(&pair));
        let name = LeaseName::send(&pair, "t");
        let lease = granted(&h, &name, "a", span(1)).await;
        let timer = Timer { kind: TimerKind(1), key: key.clone(), due: h.now(), generation: 1 };
        let item = h
            .commit(|b| {
                b.put(key.clone(), Condition::Absent, "mine", LONG);
                b.enqueue(queue.clone(), "work", span(50)).set_timer(timer.clone()).fence(lease.fence.clone());
            })
            .await
            .unwrap()
            .items[0];
        match loss {
            Loss::Lapsed => h.steps(2).await,
            Loss::Taken => {
                h.steps(2).await;
                granted(&h, &name, "b", span(50)).await;
            }
            Loss::Released => _ = h.store.release(&lease).await.unwrap(),
            Loss::Reacquired => _ = granted(&h, &name, "a", span(50)).await,
        }
        let before = h.get(&key).await;
        let fence = || lease.fence.clone();
        let results = [
            h.commit(|b| _ = b.put(key.clone(), Condition::Any, "late", LONG).fence(fence())).await,
            h.commit(|b| _ = b.put(decision.clone(), Condition::Any, "late", LONG).fence(fence())).await,
            h.commit(|b| _ = b.delete(key.clone(), Condition::Any).fence(fence())).await,
            h.commit(|b| _ = b.touch(key.clone(), Condition::Any, LONG).fence(fence())).await,
            h.commit(|b| _ = b.enqueue(queue.clone(), "late", span(9)).fence(fence())).await,
            h.commit(|b| _ = b.cancel_timer(TimerKind(1), key.clone()).fence(fence())).await,
            h.commit(|b| _ = b.set_timer(Timer { generation: 2, ..timer.clone() }).fence(fence())).await,
            h.store.ack(&queue, &[item], Some(&fence())).await,
        ];
        for result in results {
            assert_eq!(result, Err(StoreError::FenceLost { lease: name.clone() }));
        }
        let consumer = Consumer { name: "a".to_owned(), fence: Some(fence()) };
        let taken = h.store.take(&queue, &consumer, 9, span(1)).await;
        assert_eq!(taken, Err(StoreError::FenceLost { lease: name.clone() }));
        assert_eq!(h.get(&key).await, before);
        assert_eq!(h.get(&decision).await, None);
        let health = h.store.health().await;
        assert_eq!((health.queued, health.timers), (1, 1));
    }
}

pub(crate) async fn a_released_lease_wakes_who_waits(new: New) {
    let h = new();
    let name = LeaseName::send(&pair("ana"), "t");
    let lease = granted(&h, &name, "a", span(50)).await;
    let mut wake = h.store.wake(Topic::Lease(name.clone()));
    assert!(tokio::time::timeout(QUIET, wake.changed()).await.is_err());
    // Released between looking and waiting: the wake-up is not missed.
    assert!(h.store.acquire(&name, "b", span(1)).await.unwrap().granted().is_none());
    h.store.release(&lease).await.unwrap();
    soon("the wake-up", wake.changed()).await;
    granted(&h, &name, "b", span(1)).await;
}
