//! One server: away, back, emptied, full, and with access lists.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use isthmus_store::redis::{Credentials, Mode};
use isthmus_store::{
    Acquisition, Batch, Bound, Condition, Consumer, HealthState, Key, LeaseName, Lifetime, QueueName, RedisConfig,
    RedisStore, Shard, ShardClaim, Store, StoreError, Topic,
};
use parking_lot::Mutex;

use super::connected;
use super::servers::Server;
use crate::harness::{DEADLINE, LONG, commit, pair, soon};

const DURABLE: [&str; 6] = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"];
pub(super) const PLAIN: [&str; 4] = ["--save", "", "--appendonly", "no"];
/// The rights that README asks for.
pub(super) const RIGHTS: [&str; 7] = ["+@read", "+@write", "+@scripting", "+@pubsub", "+@connection", "+info", "+time"];
/// How long an operation may take in these tests.
pub(super) const LIMIT: Duration = Duration::from_millis(500);

fn config(server: &Server) -> RedisConfig {
    RedisConfig { timeout: LIMIT, ..RedisConfig::new(Mode::Standalone, vec![server.address()], "single:") }
}

pub(super) async fn put(store: &dyn Store, key: &Key, lifetime: Lifetime) -> Result<u64, StoreError> {
    commit(store, |b| _ = b.put(key.clone(), Condition::Any, "x", lifetime)).await.map(|done| done.versions[0])
}

/// Waits until a record can be written again.
pub(super) async fn recovered(store: &dyn Store, key: &Key) -> u64 {
    soon("recovery", async {
        loop {
            match put(store, key, LONG).await {
                Ok(version) => return version,
                Err(StoreError::Unavailable { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await
}

/// Waits until health has a finding.
pub(super) async fn reason(store: &dyn Store, reason: &str) -> HealthState {
    let end = Instant::now() + DEADLINE;
    loop {
        let health = store.health().await;
        if let Some(finding) = health.findings.iter().find(|finding| finding.reason == reason) {
            assert!(!finding.remedy.is_empty());
            return health.state;
        }
        assert!(Instant::now() < end, "no {reason} in {health:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(super) fn unavailable<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Err(error @ StoreError::Unavailable { .. }) if error.retryable() => error.to_string(),
        other => panic!("expected the store to be away, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_gives_errors_in_time_and_is_used_again() {
    let server = Server::start(&PLAIN);
    let store = Arc::new(connected(config(&server)));
    let key = Key::pair(&pair("ana"));
    put(&*store, &key, LONG).await.unwrap();
    server.signal("STOP");
    let started = Instant::now();
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let (store, key) = (Arc::clone(&store), key.clone());
            tokio::spawn(async move { put(&*store, &key, LONG).await })
        })
        .collect();
    for one in waiting {
        unavailable(soon("an answer", one).await.unwrap());
    }
    assert!(started.elapsed() < LIMIT * 4, "{:?}", started.elapsed());
    assert_eq!(reason(&*store, "Unreachable").await, HealthState::Down);
    // Once it is known, nobody waits.
    soon("an immediate answer", async {
        loop {
            let started = Instant::now();
            unavailable(put(&*store, &key, LONG).await);
            if started.elapsed() < Duration::from_millis(100) {
                return;
            }
        }
    })
    .await;
    server.signal("CONT");
    recovered(&*store, &key).await;
    assert_ne!(store.health().await.state, HealthState::Down);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_comes_back_with_all_that_was_committed() {
    let server = Server::start(&DURABLE);
    let store = connected(config(&server));
    let (key, decision, queue) = (Key::pair(&pair("ana")), Key::auth(&pair("ana")), QueueName::pair(&pair("ana")));
    let before = put(&store, &key, LONG).await.unwrap();
    put(&store, &decision, Lifetime::Durable).await.unwrap();
    commit(&store, |b| _ = b.enqueue(queue.clone(), "work", Duration::from_secs(600))).await.unwrap();
    assert_eq!(store.health().await.state, HealthState::Ready);
    assert!(store.health().await.durable);
    let mut wake = store.wake(Topic::Queue(queue.clone()));
    let server = server.restart(&DURABLE);
    // The server knows none of the scripts now.
    assert!(recovered(&store, &key).await > before);
    server.say(&["SCRIPT", "FLUSH"]);
    let batch = |n: u32| {
        let mut batch = Batch::new();
        batch.put(Key::pair(&pair(&format!("ana{n}"))), Condition::Absent, "x", LONG);
        batch
    };
    for outcome in store.commit_each(vec![batch(1), batch(2)]).await {
        outcome.unwrap();
    }
    server.say(&["SCRIPT", "FLUSH"]);
    let (written, read) = store.commit_and_read(batch(3), std::slice::from_ref(&key)).await;
    assert_eq!((written.unwrap().versions.len(), read.unwrap()[0].is_some()), (1, true));
    assert!(store.read(&[decision]).await.unwrap()[0].is_some());
    let me = Consumer { name: "me".to_owned(), fence: None };
    assert_eq!(store.take(&queue, &me, 9, Duration::from_secs(9)).await.unwrap().len(), 1);
    // What happened meanwhile may have been missed, so who waits is woken.
    soon("the wake-up after the loss", wake.changed()).await;
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_loss_of_all_data_no_version_and_no_token_comes_again() {
    let server = Server::start(&PLAIN);
    let store = connected(config(&server));
    let (key, name) = (Key::pair(&pair("ana")), LeaseName::send(&pair("ana"), "t"));
    let before = put(&store, &key, LONG).await.unwrap();
    let lease = store.acquire(&name, "a", Duration::from_secs(60)).await.unwrap().granted().unwrap();
    server.say(&["FLUSHALL"]);
    let stale = commit(&store, |b| _ = b.put(key.clone(), Condition::Version(before), "x", LONG)).await;
    assert!(matches!(stale, Err(StoreError::Conflict(_))), "{stale:?}");
    assert!(put(&store, &key, LONG).await.unwrap() > before);
    let again = store.acquire(&name, "b", Duration::from_secs(60)).await.unwrap().granted().unwrap();
    assert!(again.fence.token > lease.fence.token);
    let late = commit(&store, |b| _ = b.delete(key.clone(), Condition::Any).fence(lease.fence.clone())).await;
    assert_eq!(late, Err(StoreError::FenceLost { lease: name }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_process_commits_another_sees_and_is_woken_for() {
    let server = Server::start(&PLAIN);
    let (a, b) = (connected(config(&server)), connected(config(&server)));
    let (pair, queue) = (pair("ana"), QueueName::pair(&pair("ana")));
    let key = Key::pair(&pair);
    let version = put(&a, &key, LONG).await.unwrap();
    assert_eq!(b.read(std::slice::from_ref(&key)).await.unwrap()[0].as_ref().unwrap().version, version);
    let mut wake = b.wake(Topic::Queue(queue.clone()));
    commit(&a, |b| _ = b.enqueue(queue.clone(), "work", Duration::from_secs(60))).await.unwrap();
    soon("the wake-up of the other", wake.changed()).await;
    // S-45: a queue that nobody looks at any more ends by itself, some minutes after its last item.
    for kind in ["ql", "qi"] {
        let names = server.say(&["KEYS", &format!("single:*{kind}:*")]);
        let rest: u64 = server.say(&["PTTL", names.trim()]).parse().unwrap_or_else(|_| panic!("{kind}: {names:?}"));
        assert!((60_000..=660_000).contains(&rest), "{kind} ends in {rest} ms");
    }
    let name = LeaseName::link("127.0.0.1:5347", "partner.example");
    let lease = a.acquire(&name, "a", Duration::from_secs(60)).await.unwrap().granted().unwrap();
    let mut wake = b.wake(Topic::Lease(name.clone()));
    assert!(b.acquire(&name, "b", Duration::from_secs(60)).await.unwrap().granted().is_none());
    assert!(a.release(&lease).await.unwrap());
    soon("the wake-up for the lease", wake.changed()).await;
    assert!(b.acquire(&name, "b", Duration::from_secs(60)).await.unwrap().granted().is_some());
    // The former holder writes nothing, in whatever shard.
    let late = commit(&a, |b| _ = b.put(key.clone(), Condition::Any, "late", LONG).fence(lease.fence.clone())).await;
    assert_eq!(late, Err(StoreError::FenceLost { lease: name }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_one_command_and_so_is_a_read() {
    let server = Server::start(&PLAIN);
    let store = connected(config(&server));
    let pair = pair("ana");
    let lease = LeaseName::link("127.0.0.1:5347", "partner.example");
    let fence = store.acquire(&lease, "a", Duration::from_secs(60)).await.unwrap().granted().unwrap().fence;
    put(&store, &Key::pair(&pair), LONG).await.unwrap();
    server.say(&["CONFIG", "RESETSTAT"]);
    commit(&store, |b| {
        b.put(Key::pair(&pair), Condition::Any, "presence", LONG).put(
            Key::dialog(&pair, "t"),
            Condition::Any,
            "d",
            LONG,
        );
        b.read(Key::session(&pair)).fence(fence);
        b.enqueue(QueueName::link("s", "c").at(Key::pair(&pair).shard()), "work", Duration::from_secs(60));
    })
    .await
    .unwrap();
    store.read(&[Key::pair(&pair), Key::session(&pair), Key::thread("elsewhere")]).await.unwrap();
    let stats = server.say(&["INFO", "commandstats"]);
    assert!(stats.contains("cmdstat_evalsha:calls=1,") && stats.contains("cmdstat_mget:calls=1,"), "{stats}");
    assert!(!stats.contains("cmdstat_eval:"), "{stats}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_password_needs_no_restart() {
    let server = Server::start(&PLAIN);
    let user = |words: &[&str]| server.say(&[&["ACL", "SETUSER", "isthmus"][..], words].concat());
    user(&[&["on", ">old", "~single:*", "&single:*"][..], &RIGHTS].concat());
    let secret = Arc::new(Mutex::new("old"));
    let read = Arc::clone(&secret);
    let credentials =
        move || Some(Credentials { user: Some("isthmus".to_owned()), password: (*read.lock()).to_owned() });
    let store = connected(RedisConfig { credentials: Arc::new(credentials), ..config(&server) });
    let key = Key::pair(&pair("ana"));
    put(&store, &key, LONG).await.unwrap();
    // All that the store does is within these rights.
    let health = store.health().await;
    assert_eq!((health.state, health.records), (HealthState::Degraded, 1), "{health:?}");
    user(&["resetpass", ">new"]);
    server.say(&["CLIENT", "KILL", "USER", "isthmus"]);
    assert_eq!(reason(&store, "AuthenticationFailed").await, HealthState::Down);
    let refused = unavailable(put(&store, &key, LONG).await);
    assert!(!refused.contains("old") && !refused.contains("new"), "{refused}");
    *secret.lock() = "new";
    recovered(&store, &key).await;
    // Rights that were taken away are named. Without that to its channel nothing is done by halves.
    user(&["resetchannels"]);
    let queue = QueueName::pair(&pair("ana"));
    commit(&store, |b| _ = b.enqueue(queue.clone(), "work", Duration::from_secs(600))).await.unwrap();
    assert_eq!(reason(&store, "AuthenticationFailed").await, HealthState::Degraded);
    let findings = store.health().await.findings;
    assert!(findings.iter().any(|f| f.message.contains("NOPERM") && f.remedy.contains("&<prefix>")), "{findings:?}");
    user(&["-@scripting"]);
    assert!(unavailable(put(&store, &key, LONG).await).contains("NOPERM"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_memory_refuses_what_needs_more_and_nothing_else() {
    let server = Server::start(&PLAIN);
    let store = connected(config(&server));
    let (queue, name) = (QueueName::pair(&pair("ana")), LeaseName::link("s", "c"));
    let key = Key::pair(&pair("ana"));
    let lease = store.acquire(&name, "a", Duration::from_secs(600)).await.unwrap().granted().unwrap();
    let version = put(&store, &key, LONG).await.unwrap();
    commit(&store, |b| _ = b.enqueue(queue.clone(), "work", Duration::from_secs(600))).await.unwrap();
    server.say(&["CONFIG", "SET", "maxmemory", "1000000"]);
    let full = put(&store, &Key::pair(&pair("bob")), LONG).await.unwrap_err();
    assert!(matches!(full, StoreError::Full { bound: Bound::Bytes, .. }) && full.retryable(), "{full:?}");
    assert_eq!(store.read(std::slice::from_ref(&key)).await.unwrap()[0].as_ref().unwrap().version, version);
    let mut more = Batch::new();
    more.put(Key::pair(&pair("bob")), Condition::Absent, "more", LONG);
    let (full, read) = store.commit_and_read(more, std::slice::from_ref(&key)).await;
    assert!(matches!(full, Err(StoreError::Full { bound: Bound::Bytes, .. })), "{full:?}");
    assert_eq!(read.unwrap()[0].as_ref().unwrap().version, version);
    store.renew(&lease, Duration::from_secs(600)).await.unwrap();
    let me = Consumer { name: "me".to_owned(), fence: None };
    let items = store.take(&queue, &me, 9, Duration::from_secs(9)).await.unwrap();
    store.ack(&queue, &[items[0].id], None).await.unwrap();
    commit(&store, |b| _ = b.delete(key.clone(), Condition::Any)).await.unwrap();
    assert_eq!(reason(&store, "NearlyFull").await, HealthState::Degraded);
    server.say(&["CONFIG", "SET", "maxmemory", "0"]);
    put(&store, &key, LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn claims_of_one_moment_are_one_call_and_a_foreign_key_spoils_only_its_own() {
    let server = Server::start(&PLAIN);
    let store = Arc::new(connected(config(&server)));
    let own = Key::auth(&pair("ana"));
    put(&*store, &own, Lifetime::Durable).await.unwrap();
    // By the only worker, so that nothing is sent before all are there.
    let claims = async |numbers: std::ops::Range<u32>| {
        let (store, own) = (Arc::clone(&store), own.clone());
        let all = async move {
            let claim = async |n: u32| {
                let mut batch = Batch::new();
                batch.put(Key::pair(&pair(&format!("ana{n}"))), Condition::Absent, "claimed", LONG);
                store.commit_and_read(batch, std::slice::from_ref(&own)).await
            };
            join_all(numbers.map(claim)).await
        };
        tokio::spawn(all).await.unwrap()
    };
    claims(0..1).await;
    let calls = || {
        let told = server.say(&["INFO", "commandstats"]);
        let line = told.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")).unwrap();
        line.split(',').next().unwrap().parse::<u32>().unwrap()
    };
    let before = calls();
    for (written, read) in claims(1..50).await {
        assert_eq!((written.unwrap().versions.len(), read.unwrap()[0].is_some()), (1, true));
    }
    assert_eq!(calls() - before, 1);
    // More than go in one call, and one of them meets what is none of ours, of a type of which nothing can be read.
    let foreign = Key::pair(&pair("ana77"));
    let name = format!("single:{{{}}}{foreign}", foreign.shard().number());
    server.say(&["RPUSH", &name, "x"]);
    for (n, (written, read)) in (50..).zip(claims(50..250).await) {
        assert_eq!(matches!(written, Err(StoreError::Corrupt { .. })), n == 77, "{n}: {written:?}");
        assert_eq!((written.is_ok(), read.unwrap()[0].is_some()), (n != 77, true), "{n}");
    }
    assert_eq!(server.say(&["LRANGE", &name, "0", "-1"]), "x");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_settings_are_found_with_their_reasons() {
    let server = Server::start(&PLAIN);
    let store = connected(config(&server));
    assert_eq!(reason(&store, "StateNotDurable").await, HealthState::Degraded);
    server.say(&["CONFIG", "SET", "appendonly", "yes"]);
    assert_eq!(store.health().await.findings, []);
    server.say(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    assert_eq!(reason(&store, "EvictionPolicyUnsafe").await, HealthState::Degraded);
    server.offset().advance(Duration::from_secs(5));
    assert_eq!(reason(&store, "ClockDifference").await, HealthState::Degraded);

    let sentinel = Mode::Sentinel { master: "isthmus".to_owned() };
    let not_ready = async |config: RedisConfig| {
        let store = RedisStore::start(config).unwrap();
        assert_eq!(reason(&store, "WrongMode").await, HealthState::Down);
        unavailable(put(&store, &Key::pair(&pair("ana")), LONG).await)
    };
    not_ready(RedisConfig { mode: sentinel, ..config(&server) }).await;
    not_ready(RedisConfig { mode: Mode::Cluster, ..config(&server) }).await;
    let replica = Server::start(&[&PLAIN[..], &["--replicaof", "127.0.0.1", &server.port.to_string()]].concat());
    assert!(not_ready(config(&replica)).await.contains("replica"));
    // With the primary in the list too, it is found.
    let both = RedisConfig { addresses: vec![replica.address(), server.address()], ..config(&server) };
    put(&connected(both), &Key::pair(&pair("ana")), LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_operations_than_may_be_in_flight_are_refused() {
    let server = Server::start(&PLAIN);
    let store = Arc::new(connected(RedisConfig { in_flight: 1, ..config(&server) }));
    let key = Key::pair(&pair("ana"));
    // The first is in flight for as long as it may be.
    server.signal("STOP");
    let (one, other) = tokio::join!(put(&*store, &key, LONG), put(&*store, &key, LONG));
    assert!(!unavailable(one).contains("in flight"));
    assert!(unavailable(other).contains("in flight"));
    server.signal("CONT");
    recovered(&*store, &key).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_does_not_run_out_for_what_else_is_in_flight() {
    let server = Server::start(&PLAIN);
    let store = connected(RedisConfig { in_flight: 0, ..config(&server) });
    assert!(unavailable(put(&store, &Key::pair(&pair("ana")), LONG).await).contains("in flight"));
    let name = LeaseName::link("127.0.0.1:5347", "partner.example");
    let Acquisition::Granted(lease) = store.acquire(&name, "one", DEADLINE).await.unwrap() else {
        panic!("it is free")
    };
    let lease = store.renew(&lease, DEADLINE).await.unwrap();
    assert_eq!(store.holder(&name).await.unwrap().unwrap().name, "one");
    assert!(store.release(&lease).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_keep_up_is_a_strain_until_it_does() {
    let server = Server::start(&PLAIN);
    let limit = Duration::from_secs(5);
    let store = connected(RedisConfig { in_flight: 40, timeout: limit, ..config(&server) });
    let key = Key::pair(&pair("ana"));
    put(&store, &key, LONG).await.unwrap();
    assert!(!store.is_strained());
    // Most of what may be in flight is.
    server.signal("STOP");
    let many = join_all((0..35).map(|_| put(&store, &key, LONG)));
    let seen = async {
        while !store.is_strained() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(store.is_busy());
        // By now the answers are late, too.
        tokio::time::sleep(Duration::from_millis(700)).await;
        server.signal("CONT");
    };
    let (done, ()) = tokio::join!(many, soon("the strain", seen));
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    assert!(store.is_strained(), "the answers came late");
    assert!(!store.is_busy(), "nothing is in flight");
    for _ in 0..20 {
        put(&store, &key, LONG).await.unwrap();
    }
    assert!(!store.is_strained());
}

// Two releases share them while one takes the place of the other. Times of 2023 and 2099, in milliseconds.
const FROZEN: &str = r"
local put, ends, none = '\001\139\207\229\104\000', '\003\186\155\011\040\000', '\000\000\000\000\000\000'
redis.call('RPUSH', KEYS[1], '7', '8')
redis.call('HSET', KEYS[2], '7', 'taken', '7m', put .. ends .. put .. '\000\000\000\002')
redis.call('HSET', KEYS[2], '8', 'untaken', '8m', put .. ends .. none .. '\000\000\000\000')
redis.call('HSET', KEYS[2], 'e', '4100000000000', 'x', '4100000000000', 'c', '3:\0former')
redis.call('ZADD', KEYS[3], '1700000000000', ARGV[1], '1700000000001', ARGV[2])
redis.call('HSET', KEYS[4], ARGV[1], '\000\000\000\000\000\000\000\042')
redis.call('HSET', KEYS[4], ARGV[2], '\000\000\000\000\000\000\000\043\000\001\139\207\229\104\001\000\000\000\000\000\000\009\000\000\000\002')
redis.call('SET', KEYS[5], '5:4100000000000:former')
return 'written'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_due_times_and_leases_of_version_0_1_0_are_read() {
    let server = Server::start(&PLAIN);
    let store = connected(config(&server));
    let (queue, key) = (QueueName::link("127.0.0.1:5347", "partner.example"), Key::pair(&pair("ana")));
    let lease = LeaseName::link("127.0.0.1:5347", "partner.example");
    let name = |shard: Shard, rest: &str| format!("single:{{{}}}{rest}", shard.number());
    let (of_queue, of_timers) = (queue.place(), key.shard());
    let keys = [
        name(of_queue, &format!("ql:{queue}")),
        name(of_queue, &format!("qi:{queue}")),
        name(of_timers, "due"),
        name(of_timers, "tmr"),
        name(lease.place(), &format!("ls:{lease}")),
    ];
    let mut words = vec!["EVAL", FROZEN, "5"];
    words.extend(keys.iter().map(String::as_str));
    let names = [format!("1:{key}"), format!("2:{key}")];
    words.extend(names.iter().map(String::as_str));
    assert_eq!(server.say(&words), "written");

    let me = Consumer { name: "me".to_owned(), fence: None };
    let items = store.take(&queue, &me, 9, Duration::from_secs(1)).await.unwrap();
    let items: Vec<_> = items.iter().map(|item| (&item.bytes[..], item.attempt, item.enqueued_at.0)).collect();
    assert_eq!(items, [(&b"taken"[..], 3, 1_700_000_000_000), (b"untaken", 1, 1_700_000_000_000)]);
    let due = store.claim_due(&ShardClaim::all(), 9, Duration::from_secs(1)).await.unwrap();
    let due: Vec<_> =
        due.iter().map(|due| (due.timer.kind.0, due.timer.generation, due.timer.due.0, due.attempt)).collect();
    assert_eq!(due, [(1, 42, 1_700_000_000_000, 1), (2, 43, 1_700_000_000_001, 3)]);
    let holder = store.holder(&lease).await.unwrap().unwrap();
    assert_eq!((holder.name.as_str(), holder.token, holder.expires_at.0), ("former", 5, 4_100_000_000_000));
}
