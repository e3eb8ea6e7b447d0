//! What one batch costs with Redis, beside the memory store in the same run; needs `redis-server` and starts one.
//!
//! Printed are processor time on our side and on the server's, the time until the answer, and octets a pair.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark may")]

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use isthmus_model::{BareAddress, EpochMillis, PairId};
use isthmus_store::redis::Mode;
use isthmus_store::{
    Batch, Condition, Key, Lifetime, Limits, MemoryStore, RedisConfig, RedisStore, Store, SystemClock, Timer, TimerKind,
};

const PAIRS: usize = 20_000;
const ROUNDS: usize = 20_000;
const TOGETHER: usize = 100;
const LIFE: Lifetime = Lifetime::For(Duration::from_secs(3600));
/// What a pair's record with two subscriptions and their last documents holds.
const CONTENT: usize = 300;
/// A pair shall take at most so many octets in Redis.
const WANTED: usize = 1024;

/// The server; stopped when dropped.
struct Server {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--dir"])
            .arg(dir.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed (`make install`)");
        Self { child, port, _dir: dir }
    }

    /// Processor time so far, of all threads.
    fn spent(&self) -> Duration {
        spent(&self.child.id().to_string())
    }
}

/// Processor time of a process so far; a tick of the kernel's is 10 ms.
fn spent(process: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let ticks: u64 = after_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

fn batch(pair: &PairId, n: usize) -> Batch {
    let mut batch = Batch::new();
    batch.put(Key::pair(pair), Condition::Any, vec![7_u8; CONTENT], LIFE).read(Key::session(pair));
    let due = EpochMillis(4_000_000_000_000 + u64::try_from(n).unwrap());
    batch.set_timer(Timer { kind: TimerKind(1), key: Key::pair(pair), due, generation: due.0 });
    batch
}

struct Cost {
    ours: Duration,
    server: Duration,
    wall: Duration,
}

async fn measure(what: &str, store: &Arc<dyn Store>, server: &Server, pairs: &[PairId], together: usize) -> Cost {
    let (ours, theirs, started) = (spent("self"), server.spent(), Instant::now());
    for n in (0..ROUNDS).step_by(together) {
        let commits = (n..n + together).map(|n| store.commit(batch(&pairs[n * 7919 % PAIRS], n)));
        for done in futures::future::join_all(commits).await {
            done.unwrap();
        }
    }
    let each = |time: Duration| time / u32::try_from(ROUNDS).unwrap();
    let cost = Cost {
        ours: each(spent("self").saturating_sub(ours)),
        server: each(server.spent().saturating_sub(theirs)),
        wall: each(started.elapsed()),
    };
    let Cost { ours, server, wall } = &cost;
    println!("{what:<46} {ours:>10.1?} ours {server:>10.1?} server {wall:>10.1?} until the answer");
    cost
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let server = Server::start();
    let config = RedisConfig::new(Mode::Standalone, vec![format!("127.0.0.1:{}", server.port)], "isthmus:im-edge:");
    let store = RedisStore::start(config).unwrap();
    assert!(store.ready(Duration::from_secs(20)).await, "no connection to redis-server");
    let redis: Arc<dyn Store> = Arc::new(store);
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)));
    let lee = BareAddress::from_jid("lee@corp.example").unwrap();
    let remote = |n: usize| BareAddress::from_jid(&format!("user{n}@partner.example")).unwrap();
    let pairs: Vec<_> = (0..PAIRS).map(|n| PairId::of(&lee, &remote(n))).collect();

    let before = redis.health().await.bytes;
    for some in pairs.chunks(TOGETHER) {
        let commits = some.iter().map(|pair| {
            let mut batch = batch(pair, 0);
            batch.put(Key::auth(pair), Condition::Absent, "I\x01\x04\0\x01allowed", Lifetime::Durable);
            redis.commit(batch)
        });
        for done in futures::future::join_all(commits).await {
            done.unwrap();
        }
    }
    let octets = redis.health().await.bytes.saturating_sub(before) / PAIRS;
    let verdict = if octets <= WANTED { "holds" } else { "DOES NOT HOLD" };
    println!(
        "a pair with a record of {CONTENT} octets, a decision and a timer: {octets} octets in Redis, at most {WANTED} wanted, \
         {verdict}\n"
    );
    println!("one batch: put a record, set its timer, read another");
    let plain = measure("memory", &memory, &server, &pairs, 1).await;
    let alone = measure("redis, one after the other", &redis, &server, &pairs, 1).await;
    let many = measure("redis, 100 together", &redis, &server, &pairs, TOGETHER).await;
    let ratio = |cost: &Cost| cost.ours.as_secs_f64() / plain.ours.as_secs_f64().max(1e-9);
    println!(
        "\nprocessor time on our side, to that of the memory store: {:.1} alone, {:.1} together",
        ratio(&alone),
        ratio(&many)
    );
}
