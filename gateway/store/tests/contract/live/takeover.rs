//! What was confirmed and a fail-over or a restart would take away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use isthmus_model::{Domain, EpochMillis};
use isthmus_store::redis::{Credentials, Mode};
use isthmus_store::{
    Batch, Condition, Consumer, Key, Lifetime, QueueName, RedisConfig, RedisStore, Store, StoreError, Timer, TimerKind,
};

use super::connected;
use super::sentinels::group;
use super::servers::Server;
use super::single::{LIMIT, put, recovered};
use crate::harness::{LONG, commit, pair, soon};

/// It keeps what it was told to save, and nothing else.
const SAVED: [&str; 4] = ["--save", "", "--appendonly", "no"];
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

fn config(server: &Server) -> RedisConfig {
    RedisConfig { timeout: LIMIT, ..RedisConfig::new(Mode::Standalone, vec![server.address()], "takeover:") }
}

fn key(name: &str) -> Key {
    Key::pair(&pair(name))
}

async fn read(store: &RedisStore, key: &Key) -> Option<isthmus_store::Record> {
    store.read(std::slice::from_ref(key)).await.unwrap().pop().flatten()
}

fn domain(name: &str) -> Domain {
    name.parse().unwrap()
}

fn timer(name: &str) -> Timer {
    Timer { kind: TimerKind(7), key: key(name), due: EpochMillis(4_000_000_000_000), generation: 5 }
}

async fn timers(store: &RedisStore, name: &str) -> Vec<Key> {
    let page = store.timers(key(name).shard(), None, 1000).await.unwrap();
    page.timers.into_iter().map(|(_, key)| key).collect()
}

/// Waits until a store has met a server that was started again.
async fn met(store: &RedisStore) {
    soon("the server that is back", async {
        while store.read(&[key("nobody")]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

// S-43
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_forgot_is_written_again_as_it_was() {
    let server = Server::start(&SAVED);
    let store = connected(config(&server));
    let (letters, note) =
        (QueueName::letters(&domain("corp.example"), &domain("partner.example")), QueueName::pod("other"));
    let consumer = Consumer { name: "me".to_owned(), fence: None };
    for name in ["changed", "deleted"] {
        put(&store, &key(name), LONG).await.unwrap();
    }
    commit(&store, |b| _ = b.put(key("undone"), Condition::Any, "x", LONG).set_timer(timer("undone"))).await.unwrap();
    commit(&store, |b| _ = b.enqueue(letters.clone(), "sent", WEEK)).await.unwrap();
    let sent = store.take(&letters, &consumer, 9, LONG_HOLD).await.unwrap();
    // This one was made again after it had been deleted, and that one was deleted together with a write.
    let gone = put(&store, &key("again"), LONG).await.unwrap();
    commit(&store, |b| _ = b.delete(key("again"), Condition::Version(gone))).await.unwrap();
    let again = put(&store, &key("again"), LONG).await.unwrap();
    let (one, other) = (Key::pair(&pair("moved")), Key::auth(&pair("moved")));
    let moved = put(&store, &one, LONG).await.unwrap();
    let done = commit(&store, |b| {
        _ = b.delete(one.clone(), Condition::Version(moved)).put(other.clone(), Condition::Absent, "m", LONG);
    });
    let moved = Condition::Version(done.await.unwrap().versions[1]);
    commit(&store, |b| _ = b.delete(other.clone(), moved)).await.unwrap();
    server.say(&["SAVE"]);

    let changed = read(&store, &key("changed")).await;
    let deleted = Condition::unchanged(read(&store, &key("deleted")).await.as_ref());
    let undone = Condition::unchanged(read(&store, &key("undone")).await.as_ref());
    let mut versions = Vec::new();
    for text in ["once", "twice"] {
        let condition = Condition::unchanged(read(&store, &key("changed")).await.as_ref());
        let done = commit(&store, |b| _ = b.put(key("changed"), condition, text, LONG)).await.unwrap();
        versions.extend(done.versions);
    }
    commit(&store, |b| _ = b.put(key("new"), Condition::Absent, "n", LONG).set_timer(timer("new"))).await.unwrap();
    commit(&store, |b| _ = b.delete(key("deleted"), deleted)).await.unwrap();
    commit(&store, |b| _ = b.put(key("undone"), undone, "y", LONG).cancel_timer(TimerKind(7), key("undone")))
        .await
        .unwrap();
    let decision = Key::auth(&pair("new"));
    put(&store, &decision, Lifetime::Durable).await.unwrap();
    store.ack(&letters, &[sent[0].id], None).await.unwrap();
    commit(&store, |b| _ = b.enqueue(letters.clone(), "waits", WEEK)).await.unwrap();
    commit(&store, |b| _ = b.enqueue(note.clone(), "asks", WEEK)).await.unwrap();
    // Small changes go their own ways.
    let small = |name: &str| {
        let mut batch = Batch::new();
        batch.put(key(name), Condition::Absent, "s", LONG);
        batch
    };
    for done in store.commit_each(vec![small("each1"), small("each2")]).await {
        done.unwrap();
    }
    store.commit_and_read(small("beside"), &[key("new")]).await.0.unwrap();
    let mut takeovers = store.takeovers();

    let server = server.restart(&SAVED);
    soon("word of it", takeovers.changed()).await;
    met(&store).await;
    let now = read(&store, &key("changed")).await.unwrap();
    assert_eq!((&now.bytes[..], now.version), (&b"twice"[..], versions[1]));
    assert!(now.version > changed.unwrap().version);
    for name in ["new", "each1", "each2", "beside"] {
        let record = read(&store, &key(name)).await.unwrap();
        assert!(record.expires_at.is_some(), "{name}");
    }
    assert_eq!(read(&store, &decision).await.unwrap().expires_at, None);
    assert_eq!(read(&store, &key("deleted")).await, None);
    assert_eq!(read(&store, &key("again")).await.map(|record| record.version), Some(again));
    assert_eq!((read(&store, &one).await, read(&store, &other).await), (None, None));
    assert!(timers(&store, "new").await.contains(&key("new")));
    assert!(!timers(&store, "undone").await.contains(&key("undone")));
    let waiting =
        store.take(&letters, &Consumer { name: "other".to_owned(), fence: None }, 9, LONG_HOLD).await.unwrap();
    assert_eq!(waiting.iter().map(|item| &item.bytes[..]).collect::<Vec<_>>(), [b"waits"]);
    // Whoever sends a note waits for its answer, and sends it no more by then.
    assert!(store.take(&note, &consumer, 9, LONG_HOLD).await.unwrap().is_empty());
    // New numbers are above those that were given out before.
    assert!(put(&store, &key("changed"), LONG).await.unwrap() > versions[1]);

    // A server that has lost everything stays as empty as it is: that is somebody else's to mend.
    std::fs::remove_file(server.file("dump.rdb")).unwrap();
    let _server = server.restart(&SAVED);
    soon("word of it", takeovers.changed()).await;
    met(&store).await;
    assert_eq!(read(&store, &key("changed")).await, None);
}

/// How long what was taken is held.
const LONG_HOLD: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_changed_since_at_the_next_server_stays() {
    let server = Server::start(&SAVED);
    let admit = ["ACL", "SETUSER", "late", "on", ">pw", "~*", "&*", "+@all"];
    server.say(&admit);
    let late = Credentials { user: Some("late".to_owned()), password: "pw".to_owned() };
    let late = connected(RedisConfig { credentials: Arc::new(move || Some(late.clone())), ..config(&server) });
    let (ours, theirs) = (key("ours"), key("theirs"));
    for key in [&ours, &theirs] {
        put(&late, key, LONG).await.unwrap();
    }
    server.say(&["SAVE"]);
    let version = put(&late, &ours, LONG).await.unwrap();
    let lost = put(&late, &theirs, LONG).await.unwrap();

    // The server that comes back does not know that user.
    let server = server.restart(&SAVED);
    let early = connected(config(&server));
    let found = read(&early, &theirs).await.unwrap();
    assert!(found.version < lost);
    let mut batch = Batch::new();
    batch.put(theirs.clone(), Condition::Version(found.version), "early", LONG);
    let newer = early.commit(batch).await.unwrap().versions[0];
    server.say(&admit);
    met(&late).await;
    let (ours, theirs_now) = (read(&late, &ours).await.unwrap(), read(&late, &theirs).await.unwrap());
    assert_eq!(ours.version, version);
    assert_eq!((theirs_now.version, &theirs_now.bytes[..]), (newer, &b"early"[..]));
    let mut batch = Batch::new();
    batch.put(theirs, Condition::Version(lost), "late", LONG);
    assert!(matches!(late.commit(batch).await, Err(StoreError::Conflict(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fail_over_of_a_living_primary_takes_nothing_that_was_confirmed() {
    let (first, second, sentinels) = group().await;
    let addresses = sentinels.iter().map(Server::address).collect();
    let mode = Mode::Sentinel { master: "isthmus".to_owned() };
    let config = RedisConfig { timeout: LIMIT, ..RedisConfig::new(mode, addresses, "takeover:") };
    let store = Arc::new(connected(config));
    put(&*store, &key("begin"), LONG).await.unwrap();
    assert_eq!(first.say(&["WAIT", "1", "10000"]), "1");
    let ends = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (store, ends) = (Arc::clone(&store), Arc::clone(&ends));
            tokio::spawn(async move {
                let mut confirmed = Vec::new();
                for number in 0.. {
                    if ends.load(Ordering::Relaxed) {
                        break;
                    }
                    let key = key(&format!("w{writer}n{number}"));
                    match put(&*store, &key, LONG).await {
                        Ok(version) => confirmed.push((key, version)),
                        Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                confirmed
            })
        })
        .collect();
    let mut takeovers = store.takeovers();
    tokio::time::sleep(Duration::from_millis(300)).await;
    sentinels[0].say(&["SENTINEL", "FAILOVER", "isthmus"]);
    soon("another server", takeovers.changed()).await;
    recovered(&*store, &key("end")).await;
    let until = Instant::now() + Duration::from_millis(500);
    tokio::time::sleep_until(until.into()).await;
    ends.store(true, Ordering::Relaxed);
    let mut missing = Vec::new();
    let mut all = 0;
    for writer in writers {
        for (key, version) in writer.await.unwrap() {
            all += 1;
            if read(&store, &key).await.map(|record| record.version) != Some(version) {
                missing.push(key);
            }
        }
    }
    assert!(all > 100, "{all}");
    assert!(missing.is_empty(), "{} of {all} are gone, the first is {:?}", missing.len(), missing.first());
    drop((first, second));
}
