//! Records: versions, conditions, lifetimes, rules.

use bytes::Bytes;
use isthmus_store::{
    Batch, Bound, Committed, Condition, Key, LeaseName, Lifetime, QueueName, Record, Slot, StoreError, Timer, TimerKind,
};

use crate::harness::{LONG, New, conflict, lives, pair, span, user};

pub(crate) async fn what_is_written_is_read_in_the_order_of_the_keys(new: New) {
    let h = new();
    let (pair, list) = (pair("ana"), Key::user(&user("lee@corp.example")));
    let (presence, session) = (Key::pair(&pair), Key::session(&pair));
    let first = h
        .commit(|b| {
            b.put(presence.clone(), Condition::Absent, "presence", LONG);
            b.put(session.clone(), Condition::Any, "", LONG);
        })
        .await
        .unwrap();
    let second = h.commit(|b| _ = b.put(list.clone(), Condition::Absent, "list", Lifetime::Durable)).await.unwrap();
    let keys = [list, Key::auth(&pair), session, presence];
    let read = h.store.read(&keys).await.unwrap();
    let contents: Vec<_> = read.iter().map(|r| r.as_ref().map(|r| (r.bytes.clone(), r.version))).collect();
    let expected = [
        Some((Bytes::from_static(b"list"), second.versions[0])),
        None,
        Some((Bytes::new(), first.versions[1])),
        Some((Bytes::from_static(b"presence"), first.versions[0])),
    ];
    assert_eq!(contents, expected);
    assert_eq!(read[0].as_ref().unwrap().expires_at, None);
    assert!(read[3].as_ref().unwrap().expires_at.is_some());
    assert!(h.store.read(&[]).await.unwrap().is_empty());
}

pub(crate) async fn changes_that_leave_together_have_outcomes_of_their_own(new: New) {
    let h = new();
    let keys: Vec<Key> = (0..6).map(|n| Key::pair(&pair(&format!("ana{n}")))).collect();
    let put = |key: &Key, condition, content: &'static str| {
        let mut batch = Batch::new();
        batch.put(key.clone(), condition, content, LONG);
        batch
    };
    let mut crossing = put(&keys[0], Condition::Any, "x");
    crossing.put(Key::user(&user("lee@corp.example")), Condition::Any, "x", LONG);
    let batches = vec![
        put(&keys[0], Condition::Absent, "one"),
        put(&keys[1], Condition::Version(7), "two"),
        Batch::new(),
        crossing,
        put(&keys[2], Condition::Absent, "three"),
    ];
    let outcomes = h.store.commit_each(batches).await;
    let [first, second, nothing, misuse, third] = &outcomes[..] else { panic!("{outcomes:?}") };
    let first = first.as_ref().unwrap().versions[0];
    assert_eq!(conflict(second.clone()).key, keys[1]);
    assert_eq!(*nothing, Ok(Committed::default()));
    assert!(matches!(misuse, Err(StoreError::Misuse { .. })), "{misuse:?}");
    let third = third.as_ref().unwrap().versions[0];
    let mut fourth = h.store.commit_each(vec![put(&keys[0], Condition::Absent, "four")]).await;
    let current = conflict(fourth.remove(0)).current.unwrap();
    assert_eq!((current.version, &current.bytes[..]), (first, &b"one"[..]));
    assert_eq!(h.get(&keys[2]).await.unwrap().version, third);
    assert!(h.store.commit_each(Vec::new()).await.is_empty());

    // What takes a record away, and what does more than one thing, among very many.
    let mut deletion = Batch::new();
    deletion.delete(keys[2].clone(), Condition::Version(third));
    let mut too_late = Batch::new();
    too_late.delete(keys[2].clone(), Condition::Version(third));
    let mut with_more = put(&keys[5], Condition::Absent, "more");
    with_more.read(keys[5].clone());
    let many = |n: u32| {
        let mut batch = Batch::new();
        batch.put(Key::pair(&pair(&format!("many{n}"))), Condition::Absent, n.to_string(), LONG);
        batch
    };
    let mut batches: Vec<Batch> = (0..150).map(many).collect();
    batches.insert(70, deletion);
    batches.insert(71, with_more);
    let mut outcomes = h.store.commit_each(batches).await;
    let mut refused = h.store.commit_each(vec![too_late]).await;
    assert_eq!(conflict(refused.remove(0)).current, None);
    let more = outcomes.remove(71).unwrap();
    assert_eq!(more.records[0].as_ref().unwrap().version, more.versions[0]);
    assert_eq!(outcomes.remove(70).unwrap().versions, [0]);
    for (n, outcome) in (0..150).zip(outcomes) {
        let record = h.get(&Key::pair(&pair(&format!("many{n}")))).await.unwrap();
        assert_eq!((record.version, &record.bytes[..]), (outcome.unwrap().versions[0], n.to_string().as_bytes()));
    }
    let more = more.versions[0];

    // The record that is written is not among those read, since nobody says which comes first.
    let read = [keys[5].clone(), keys[3].clone(), keys[0].clone()];
    let (written, records) = h.store.commit_and_read(put(&keys[4], Condition::Absent, "five"), &read).await;
    assert_eq!(h.get(&keys[4]).await.unwrap().version, written.unwrap().versions[0]);
    let versions: Vec<_> = records.unwrap().into_iter().map(|record| Some(record?.version)).collect();
    assert_eq!(versions, [Some(more), None, Some(first)]);
    let (refused, records) = h.store.commit_and_read(put(&keys[4], Condition::Absent, "six"), &read[..1]).await;
    assert_eq!(conflict(refused).current.unwrap().bytes[..], b"five"[..]);
    assert_eq!(records.unwrap()[0].as_ref().unwrap().version, more);
    let (nothing, records) = h.store.commit_and_read(Batch::new(), &[]).await;
    assert_eq!((nothing, records), (Ok(Committed::default()), Ok(Vec::new())));

    // Very many at once, every third of them on what another one has written or is about to write.
    let claims = (0..200).map(|n: usize| {
        let claimed = Key::pair(&pair(&format!("claim{}", n - n % 3 / 2)));
        let (store, read, content) = (&h.store, &read, n.to_string());
        async move {
            let mut batch = Batch::new();
            batch.put(claimed.clone(), Condition::Absent, content.clone(), LONG);
            let (written, records) = store.commit_and_read(batch, &read[n % 3..]).await;
            let there = records.unwrap().iter().map(Option::is_some).collect::<Vec<_>>();
            assert_eq!(there, [true, false, true][n % 3..]);
            (claimed, content, written)
        }
    });
    let mut winners = std::collections::HashMap::new();
    let mut losers = Vec::new();
    for (key, content, written) in futures::future::join_all(claims).await {
        match written {
            Ok(written) => assert!(winners.insert(key, (written.versions[0], content)).is_none()),
            refused => losers.push((key, conflict(refused))),
        }
    }
    assert_eq!((winners.len(), losers.len()), (134, 66));
    for (key, lost) in losers {
        let (version, content) = &winners[&key];
        let current = lost.current.unwrap();
        assert_eq!((lost.key, current.version, &current.bytes[..]), (key, *version, content.as_bytes()));
    }
}

pub(crate) async fn versions_grow_and_are_never_used_twice(new: New) {
    let h = new();
    for key in [Key::pair(&pair("ana")), Key::auth(&pair("ana"))] {
        let mut last = 0;
        for round in 0..4 {
            for _ in 0..3 {
                let version =
                    h.commit(|b| _ = b.put(key.clone(), Condition::Any, "x", lives(1))).await.unwrap().versions[0];
                assert!(version > last, "{version} after {last}");
                assert_eq!(h.get(&key).await.unwrap().version, version);
                last = version;
            }
            if round % 2 == 0 {
                let deleted = h.commit(|b| _ = b.delete(key.clone(), Condition::Version(last))).await.unwrap();
                assert_eq!(deleted.versions, [0]);
            } else {
                h.steps(2).await;
            }
            assert_eq!(h.get(&key).await, None);
        }
    }
}

pub(crate) async fn a_condition_that_fails_changes_nothing_and_shows_the_record(new: New) {
    let h = new();
    let (key, gone) = (Key::pair(&pair("ana")), Key::session(&pair("ana")));
    let version = h.commit(|b| _ = b.put(key.clone(), Condition::Absent, "one", LONG)).await.unwrap().versions[0];
    let read = h.get(&key).await;
    for condition in [Condition::Absent, Condition::Version(version + 1), Condition::Version(version - 1)] {
        let failed = conflict(h.commit(|b| _ = b.put(key.clone(), condition, "two", LONG)).await);
        assert_eq!((failed.key, failed.current), (key.clone(), read.clone()));
        conflict(h.commit(|b| _ = b.delete(key.clone(), condition)).await);
        conflict(h.commit(|b| _ = b.touch(key.clone(), condition, lives(1))).await);
        conflict(h.commit(|b| _ = b.check(key.clone(), condition)).await);
    }
    for fill in [Condition::Version(version), Condition::Version(0)] {
        let failed = conflict(h.commit(|b| _ = b.touch(gone.clone(), fill, LONG)).await);
        assert_eq!(failed.current, None);
    }
    assert_eq!(h.get(&key).await, read);
    let checked = h.commit(|b| _ = b.check(key.clone(), Condition::unchanged(read.as_ref()))).await.unwrap();
    assert_eq!(checked.versions, [version]);
    h.commit(|b| _ = b.check(gone.clone(), Condition::unchanged(None))).await.unwrap();
    h.commit(|b| _ = b.delete(gone.clone(), Condition::Any)).await.unwrap();
}

pub(crate) async fn a_batch_is_all_or_nothing(new: New) {
    let h = new();
    let pair = pair("ana");
    let (presence, session, queue) = (Key::pair(&pair), Key::session(&pair), QueueName::pair(&pair));
    let timer = Timer { kind: TimerKind(1), key: presence.clone(), due: h.now(), generation: 1 };
    let result = h
        .commit(|b| {
            b.put(presence.clone(), Condition::Absent, "presence", LONG);
            b.set_timer(timer.clone());
            b.enqueue(queue.clone(), "work", span(9));
            b.check(session.clone(), Condition::Version(1));
        })
        .await;
    assert_eq!(conflict(result).key, session);
    assert_eq!(h.get(&presence).await, None);
    let health = h.store.health().await;
    assert_eq!((health.records, health.timers, health.queued), (0, 0, 0));
    h.commit(|b| {
        b.put(presence.clone(), Condition::Absent, "presence", LONG);
        b.set_timer(timer);
        b.enqueue(queue, "work", span(9));
    })
    .await
    .unwrap();
    let health = h.store.health().await;
    assert_eq!((health.records, health.timers, health.queued), (1, 1, 1));
}

pub(crate) async fn a_touch_moves_the_end_and_nothing_else(new: New) {
    let h = new();
    for key in [Key::pair(&pair("ana")), Key::auth(&pair("ana"))] {
        let version = h.commit(|b| _ = b.put(key.clone(), Condition::Any, "x", lives(2))).await.unwrap().versions[0];
        for _ in 0..3 {
            h.steps(2).await;
            let touched = h.commit(|b| _ = b.touch(key.clone(), Condition::Version(version), lives(2))).await.unwrap();
            assert_eq!(touched.versions, [version]);
        }
        assert_eq!(&h.get(&key).await.unwrap().bytes[..], b"x");
        h.commit(|b| _ = b.touch(key.clone(), Condition::Any, lives(0))).await.unwrap();
        h.steps(1).await;
        assert_eq!(h.get(&key).await, None);
        assert_eq!(h.commit(|b| _ = b.touch(key.clone(), Condition::Any, LONG)).await.unwrap().versions, [0]);
        assert_eq!(h.get(&key).await, None);
    }
}

// S-45
pub(crate) async fn every_record_but_a_decision_ends_with_its_lifetime(new: New) {
    let h = new();
    let pair = pair("ana");
    let lee = user("lee@corp.example");
    let volatile = [
        Key::pair(&pair),
        Key::session(&pair),
        Key::transaction(&pair, "1"),
        Key::dialog(&pair, "t"),
        Key::receipt(&pair, "m"),
        Key::address(&lee),
        Key::thread("call"),
        Key::peer(&lee.domain),
        Key::other("class", Slot::named("s"), "n"),
    ];
    for key in &volatile {
        let result = h.commit(|b| _ = b.put(key.clone(), Condition::Any, "x", Lifetime::Durable)).await;
        assert!(matches!(result, Err(StoreError::Misuse { .. })), "{key}: {result:?}");
        // The last write counts, whether it comes earlier or later than the one before.
        h.commit(|b| _ = b.put(key.clone(), Condition::Any, "x", LONG)).await.unwrap();
        h.commit(|b| _ = b.put(key.clone(), Condition::Any, "x", lives(2))).await.unwrap();
        let result = h.commit(|b| _ = b.touch(key.clone(), Condition::Any, Lifetime::Durable)).await;
        assert!(matches!(result, Err(StoreError::Misuse { .. })), "{key}: {result:?}");
    }
    let decisions = [Key::user(&lee), Key::auth(&pair)];
    for key in &decisions {
        h.commit(|b| _ = b.put(key.clone(), Condition::Any, "x", Lifetime::Durable)).await.unwrap();
    }
    h.steps(2).await;
    assert!(h.store.read(&volatile).await.unwrap().iter().all(Option::is_some));
    h.steps(1).await;
    assert_eq!(h.store.read(&volatile).await.unwrap(), vec![None::<Record>; volatile.len()]);
    for key in &volatile {
        h.commit(|b| _ = b.check(key.clone(), Condition::Absent)).await.unwrap();
    }
    h.steps(100).await;
    assert!(h.store.read(&decisions).await.unwrap().iter().all(Option::is_some));
    assert_eq!(h.store.health().await.records, decisions.len());
}

pub(crate) async fn reads_in_a_commit_see_its_writes(new: New) {
    let h = new();
    let pair = pair("ana");
    let (presence, session, tx) = (Key::pair(&pair), Key::session(&pair), Key::transaction(&pair, "1"));
    let before = h.commit(|b| _ = b.put(session.clone(), Condition::Any, "old", LONG)).await.unwrap();
    let done = h
        .commit(|b| {
            b.put(tx.clone(), Condition::Absent, "running", LONG);
            b.delete(presence.clone(), Condition::Any);
            b.read(session).read(tx).read(presence);
        })
        .await
        .unwrap();
    let seen: Vec<_> = done.records.iter().map(|r| r.as_ref().map(|r| (r.version, r.bytes.clone()))).collect();
    let old = Some((before.versions[0], Bytes::from_static(b"old")));
    assert_eq!(seen, [old, Some((done.versions[0], Bytes::from_static(b"running"))), None]);
}

pub(crate) async fn rules_of_a_batch_are_kept(new: New) {
    let h = new();
    let (one, other) = (Key::pair(&pair("ana")), Key::pair(&pair("bob")));
    let timer = Timer { kind: TimerKind(1), key: one.clone(), due: h.now(), generation: 1 };
    let mut others = (0..).map(|n| pair(&format!("user{n}")));
    let away = others.find(|pair| Key::pair(pair).shard() != one.shard()).unwrap();
    let far = Key::pair(&away);
    let fence = isthmus_store::Fence { lease: LeaseName::send(&away, "t"), token: 1 };
    let refused = [
        h.commit(|b| _ = b.put(one.clone(), Condition::Any, "", LONG).put(other.clone(), Condition::Any, "", LONG))
            .await,
        h.commit(|b| _ = b.put(one.clone(), Condition::Any, "", LONG).read(other.clone())).await,
        h.commit(|b| _ = b.put(one.clone(), Condition::Any, "", LONG).delete(one.clone(), Condition::Any)).await,
        h.commit(|b| _ = b.set_timer(timer.clone()).cancel_timer(TimerKind(1), one.clone())).await,
        // What is beyond the shard could not change in one step everywhere.
        h.commit(|b| _ = b.put(one.clone(), Condition::Any, "", LONG).cancel_timer(TimerKind(1), far.clone())).await,
        h.commit(|b| _ = b.put(one.clone(), Condition::Any, "", LONG).enqueue(QueueName::pair(&away), "", span(1)))
            .await,
        h.commit(|b| _ = b.put(one.clone(), Condition::Any, "", LONG).fence(fence)).await,
    ];
    for result in refused {
        assert!(matches!(result, Err(StoreError::Misuse { .. })), "{result:?}");
    }
    assert_eq!(h.store.health().await.records, 0);
    assert_eq!(h.store.commit(Batch::new()).await.unwrap(), Committed::default());
}

pub(crate) async fn what_is_too_large_is_refused(new: New) {
    let h = new();
    let key = Key::pair(&pair("ana"));
    let long = "n".repeat(5000);
    let refused = [
        (
            h.commit(|b| _ = b.put(key.clone(), Condition::Any, vec![0; (256 << 10) + 1], LONG)).await,
            Bound::RecordBytes,
        ),
        (h.commit(|b| _ = b.enqueue(QueueName::pod("p"), vec![0; (256 << 10) + 1], span(1))).await, Bound::RecordBytes),
        (h.commit(|b| _ = b.put(Key::thread(&long), Condition::Any, "", LONG)).await, Bound::NameBytes),
        (h.commit(|b| (0..300).for_each(|_| _ = b.read(key.clone()))).await, Bound::BatchParts),
        (
            h.commit(|b| {
                for n in 0..5 {
                    let key = Key::transaction(&pair("ana"), &n.to_string());
                    b.put(key, Condition::Any, vec![0; 256 << 10], LONG);
                }
            })
            .await,
            Bound::BatchBytes,
        ),
    ];
    for (result, expected) in refused {
        assert!(matches!(&result, Err(StoreError::TooLarge { bound, .. }) if *bound == expected), "{result:?}");
        assert!(!result.unwrap_err().retryable());
    }
    let whole = vec![7; 256 << 10];
    h.commit(|b| _ = b.put(key.clone(), Condition::Any, whole.clone(), LONG)).await.unwrap();
    assert_eq!(h.get(&key).await.unwrap().bytes, whole);
}

pub(crate) async fn errors_come_in_the_promised_order(new: New) {
    let h = new();
    let key = Key::pair(&pair("ana"));
    let lease = LeaseName::send(&pair("ana"), "t");
    let fence = isthmus_store::Fence { lease, token: 1 };
    let all_wrong = h
        .commit(|b| {
            b.put(key.clone(), Condition::Version(9), "", Lifetime::Durable).fence(fence.clone());
        })
        .await;
    assert!(matches!(all_wrong, Err(StoreError::Misuse { .. })), "{all_wrong:?}");
    let two_wrong = h.commit(|b| _ = b.put(key.clone(), Condition::Version(9), "", LONG).fence(fence)).await;
    assert!(matches!(two_wrong, Err(StoreError::FenceLost { .. })), "{two_wrong:?}");
}
