//! What operations of the memory store cost, printed as nanoseconds of processor time each, so that other
//! work on the machine counts little.
//!
//! The frame is a pager message: one read of three records, mostly no commit.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark may")]

use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use isthmus_model::{BareAddress, EpochMillis, PairId};
use isthmus_store::{
    Batch, Condition, Consumer, Key, LeaseName, Lifetime, Limits, MemoryStore, QueueName, ShardClaim, Store,
    SystemClock, Timer, TimerKind,
};

const PAIRS: usize = 160_000;
const ROUNDS: usize = 400_000;
const LIFE: Lifetime = Lifetime::For(Duration::from_secs(3600));

/// Runs a future that never waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("the memory store waits for nothing but its journal"),
    }
}

/// Returns the processor time of this thread so far, in nanoseconds; wall time where the system does not tell.
fn spent(start: Instant) -> u128 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let told = told.and_then(|text| text.split_whitespace().next()?.parse().ok());
    told.unwrap_or_else(|| start.elapsed().as_nanos())
}

fn measure(what: &str, mut one: impl FnMut(usize)) {
    let start = Instant::now();
    let before = spent(start);
    for n in 0..ROUNDS {
        // A stride that is prime to the number of pairs, so that caches see what traffic would show them.
        one(n * 7919 % PAIRS);
    }
    let each = (spent(start) - before) / u128::try_from(ROUNDS).unwrap();
    println!("{what:<58} {each:>6} ns");
}

fn main() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)));
    let lee = BareAddress::from_jid("lee@corp.example").unwrap();
    let remote = |n: usize| BareAddress::from_jid(&format!("user{n}@partner.example")).unwrap();
    let pairs: Vec<_> = (0..PAIRS).map(|n| PairId::of(&lee, &remote(n))).collect();
    let keys: Vec<_> = pairs.iter().map(|pair| [Key::pair(pair), Key::session(pair), Key::auth(pair)]).collect();
    let content = vec![7_u8; 300];

    let start = Instant::now();
    let before = spent(start);
    for [pair, session, auth] in &keys {
        let mut batch = Batch::new();
        batch.put(pair.clone(), Condition::Absent, content.clone(), LIFE);
        batch.put(session.clone(), Condition::Absent, content.clone(), LIFE);
        batch.put(auth.clone(), Condition::Absent, "allowed", Lifetime::Durable);
        let due = EpochMillis(4_000_000_000_000);
        batch.set_timer(Timer { kind: TimerKind(1), key: pair.clone(), due, generation: 1 });
        now(store.commit(batch)).unwrap();
    }
    let health = now(store.health());
    println!(
        "{PAIRS} pairs with three records and a timer: {} ms, {} octets counted for each pair\n",
        (spent(start) - before) / 1_000_000,
        health.bytes / PAIRS
    );

    measure("name a pair (SHA-256) and its three records", |n| {
        let pair = PairId::of(&lee, black_box(&lee));
        black_box([Key::pair(&pair), Key::session(&pair), Key::auth(&pairs[n])]);
    });
    measure("read 3 records of one of 160,000 pairs", |n| {
        black_box(now(store.read(&keys[n])).unwrap());
    });
    measure("read 3 records of one of 200 pairs", |n| {
        black_box(now(store.read(&keys[n % 200])).unwrap());
    });
    measure("read 1 record that is not there", |n| {
        black_box(now(store.read(&[Key::dialog(&pairs[n], "t")])).unwrap());
    });
    measure("commit: put a record of 300 octets, one of 160,000", |n| {
        let mut batch = Batch::new();
        batch.put(keys[n][0].clone(), Condition::Any, content.clone(), LIFE);
        black_box(now(store.commit(batch)).unwrap());
    });
    measure("commit: put a record of 300 octets, one of 200", |n| {
        let mut batch = Batch::new();
        batch.put(keys[n % 200][0].clone(), Condition::Any, content.clone(), LIFE);
        black_box(now(store.commit(batch)).unwrap());
    });
    measure("commit: touch a record", |n| {
        let mut batch = Batch::new();
        batch.touch(keys[n][1].clone(), Condition::Any, LIFE);
        black_box(now(store.commit(batch)).unwrap());
    });
    let lease = LeaseName::link("server", "partner.example");
    let lease = now(store.acquire(&lease, "bench", Duration::from_secs(3600))).unwrap().granted().unwrap();
    measure("commit: put, move a timer, check a fence, read a record", |n| {
        let [pair, session, _] = &keys[n];
        let mut batch = Batch::new();
        batch.put(pair.clone(), Condition::Any, content.clone(), LIFE).read(session.clone());
        let due = EpochMillis(4_000_000_000_000 + u64::try_from(n).unwrap());
        batch.set_timer(Timer { kind: TimerKind(1), key: pair.clone(), due, generation: 2 });
        batch.fence(lease.fence.clone());
        black_box(now(store.commit(batch)).unwrap());
    });
    let claims = ShardClaim::all();
    measure("claim from 64 shards where nothing is due", |_| {
        black_box(now(store.claim_due(&claims, 10, Duration::from_secs(40))).unwrap());
    });
    let queue = QueueName::link("server", "partner.example");
    let consumer = Consumer { name: "bench".to_owned(), fence: Some(lease.fence.clone()) };
    measure("enqueue, take and acknowledge an item of 300 octets", |_| {
        let mut batch = Batch::new();
        batch.enqueue(queue.clone(), content.clone(), Duration::from_secs(60));
        now(store.commit(batch)).unwrap();
        let items = now(store.take(&queue, &consumer, 1, Duration::from_secs(60))).unwrap();
        now(store.ack(&queue, &[items[0].id], None)).unwrap();
    });
}
