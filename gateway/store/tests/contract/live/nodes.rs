//! Redis Cluster: promotion, moving slots, and leases that are good in every shard.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use isthmus_store::redis::Mode;
use isthmus_store::{Condition, HealthState, Key, LeaseName, RedisConfig, Shard, Store, StoreError};
use parking_lot::{Condvar, Mutex};

use super::connected;
#[cfg(target_arch = "x86_64")]
use super::servers::valkey;
use super::servers::{Offset, Server, free_port, redis};
use super::single::{LIMIT, PLAIN, put, recovered};
use crate::harness::{LONG, commit, pair, soon};

const START: Duration = Duration::from_secs(60);

/// Three primaries, perhaps with a replica each.
pub(crate) struct Cluster {
    pub(super) servers: Vec<Server>,
    offset: Arc<Offset>,
}

impl Cluster {
    /// `node_timeout` is after how many milliseconds a server counts as gone.
    fn start(replicas: usize, node_timeout: &str) -> Self {
        Self::start_with(redis(), replicas, node_timeout, Vec::new, &[], Server::address)
    }

    /// As [`Self::start`], of a program, where each server has more `options`, and redis-cli needs `words` to speak to its
    /// `address`.
    pub(super) fn start_with(
        program: &str,
        replicas: usize,
        node_timeout: &str,
        options: impl Fn() -> Vec<String>,
        words: &[&str],
        address: impl Fn(&Server) -> String,
    ) -> Self {
        let shared = tempfile::tempdir().unwrap();
        let offset = Offset::new(shared.path());
        let server = |_| {
            let dir = Arc::new(tempfile::tempdir().unwrap());
            let bus = free_port().to_string();
            let own = ["--cluster-enabled", "yes", "--cluster-node-timeout", node_timeout, "--cluster-port", &bus];
            let options = options();
            let options: Vec<_> = options.iter().map(String::as_str).collect();
            Server::start_in(&dir, &offset, &[program], &[&PLAIN[..], &own, &options].concat())
        };
        let servers: Vec<_> = (0..3 * (replicas + 1)).map(server).collect();
        let made = Command::new("redis-cli")
            .args(words)
            .args(["--cluster", "create"])
            .args(servers.iter().map(address))
            .args(["--cluster-replicas", &replicas.to_string(), "--cluster-yes"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
        let started = Instant::now();
        let complete = |server: &Server| {
            server.say(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
                && server.say(&["CLUSTER", "SLOTS"]).lines().count() >= 3 * (replicas + 1)
                && (server.say(&["ROLE"]).starts_with("master") || server.say(&["ROLE"]).contains("connected"))
        };
        while !servers.iter().all(complete) {
            assert!(started.elapsed() < START, "the Cluster does not come together");
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { servers, offset }
    }

    pub(crate) fn offset(&self) -> Arc<Offset> {
        Arc::clone(&self.offset)
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        self.servers.iter().map(Server::address).collect()
    }

    fn config(&self) -> RedisConfig {
        RedisConfig { timeout: LIMIT, ..RedisConfig::new(Mode::Cluster, self.addresses(), "cluster:") }
    }

    /// Runs a command on the server that has the key; returns which that is.
    pub(super) fn owner(&self, key: &str) -> usize {
        let slot = self.servers[0].say(&["CLUSTER", "KEYSLOT", key]);
        let has = |server: &Server| server.try_say(&["CLUSTER", "COUNTKEYSINSLOT", &slot]).is_some_and(|n| n != "0");
        self.servers.iter().position(|server| has(server) && server.say(&["ROLE"]).starts_with("master")).unwrap()
    }
}

/// The one Cluster of a program: not started, idle, or in use.
pub(crate) struct Shared {
    program: fn() -> &'static str,
    state: Mutex<State>,
    free: Condvar,
}

struct State {
    idle: Option<Cluster>,
    started: bool,
}

impl Shared {
    const fn new(program: fn() -> &'static str) -> Self {
        Self { program, state: Mutex::new(State { idle: None, started: false }), free: Condvar::new() }
    }

    pub(crate) fn take(&'static self) -> Borrowed {
        let mut state = self.state.lock();
        let cluster = loop {
            if let Some(cluster) = state.idle.take() {
                break cluster;
            }
            if !state.started {
                // The tests move the clock by hours: that is no reason for the servers to give each other up.
                let cluster = Cluster::start_with((self.program)(), 0, "1000000000", Vec::new, &[], Server::address);
                state.started = true;
                break cluster;
            }
            self.free.wait(&mut state);
        };
        cluster.servers.iter().for_each(|server| _ = server.say(&["FLUSHALL"]));
        Borrowed { cluster: Some(cluster), of: self }
    }
}

pub(crate) static REDIS: Shared = Shared::new(redis);
#[cfg(target_arch = "x86_64")]
pub(crate) static VALKEY: Shared = Shared::new(valkey);

/// The Cluster of the contract, which goes back for the next test.
pub(crate) struct Borrowed {
    cluster: Option<Cluster>,
    of: &'static Shared,
}

impl Borrowed {
    pub(crate) fn cluster(&self) -> &Cluster {
        self.cluster.as_ref().unwrap()
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        self.of.state.lock().idle = self.cluster.take();
        self.of.free.notify_one();
    }
}

/// A key in each shard.
pub(super) fn one_for_each_shard() -> Vec<Key> {
    let find = |shard| (0..100_000).map(|n| Key::thread(&format!("call{n}"))).find(|key| key.shard() == shard).unwrap();
    Shard::all().map(find).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_replica_serves_what_the_lost_primary_had() {
    let mut cluster = tokio::task::block_in_place(|| Cluster::start(1, "1000"));
    let store = connected(cluster.config());
    let keys = one_for_each_shard();
    for key in &keys {
        put(&store, key, LONG).await.unwrap();
    }
    let key = &keys[7];
    let lost = cluster.owner("cluster:{7}m");
    // The loss of what no replica has seen is another matter.
    assert_eq!(cluster.servers[lost].say(&["WAIT", "1", "5000"]), "1");
    let before = store.read(std::slice::from_ref(key)).await.unwrap()[0].as_ref().unwrap().version;
    drop(cluster.servers.remove(lost));
    // What other primaries have is served on, but for the moment in which they vote.
    let others = soon("the answer of another primary", async {
        loop {
            let mut served = 0;
            for key in &keys {
                served += usize::from(store.read(std::slice::from_ref(key)).await.is_ok());
            }
            if served > 0 {
                return served;
            }
        }
    })
    .await;
    assert!(others > 10, "{others}");
    assert!(recovered(&store, key).await > before);
    let read = soon("all records", async {
        loop {
            if let Ok(read) = store.read(&keys).await {
                return read;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(read.iter().all(Option::is_some));
    soon("health", async {
        while store.health().await.state == HealthState::Down {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_served_while_their_slot_moves() {
    let borrowed = tokio::task::block_in_place(|| REDIS.take());
    let cluster = borrowed.cluster();
    let store = Arc::new(connected(cluster.config()));
    let pair = pair("ana");
    let (key, other) = (Key::pair(&pair), Key::session(&pair));
    put(&*store, &key, LONG).await.unwrap();
    put(&*store, &other, LONG).await.unwrap();
    let tag = format!("{{{}}}", key.shard().number());
    let from = cluster.owner(&tag);
    let to = (from + 1) % 3;
    let (from, to) = (&cluster.servers[from], &cluster.servers[to]);
    let (from_id, to_id) = (from.say(&["CLUSTER", "MYID"]), to.say(&["CLUSTER", "MYID"]));
    let slot = from.say(&["CLUSTER", "KEYSLOT", &tag]);

    // A writer goes on all the time; what it was told to be there is there.
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = {
        let (store, key, stop) = (Arc::clone(&store), key.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut written = 0_u32;
            let mut version = None;
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                let condition = version.map_or(Condition::Any, Condition::Version);
                match commit(&*store, |b| _ = b.put(key.clone(), condition, "x", LONG)).await {
                    Ok(done) => {
                        assert!(version.is_none_or(|version| done.versions[0] > version));
                        version = Some(done.versions[0]);
                        written += 1;
                    }
                    // It may have happened, so the version is unknown.
                    Err(StoreError::Unavailable { .. }) => version = None,
                    Err(error) => panic!("{error}"),
                }
            }
            written
        })
    };
    to.say(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
    from.say(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
    let port = to.port.to_string();
    let name = format!("cluster:{tag}im:{{{pair}}}");
    from.say(&["MIGRATE", "127.0.0.1", &port, &name, "0", "5000"]);
    // One record is here and one there: each is found alone (ASK).
    for key in [&key, &other] {
        assert!(store.read(std::slice::from_ref(key)).await.unwrap()[0].is_some(), "{key}");
    }
    // A change that needs keys of both sides waits for the rest; then it is done.
    let both = {
        let (store, key, other) = (Arc::clone(&store), key.clone(), other.clone());
        tokio::spawn(async move {
            soon("the change of both", async {
                loop {
                    let done = commit(&*store, |b| {
                        b.touch(key.clone(), Condition::Any, LONG).touch(other.clone(), Condition::Any, LONG);
                    })
                    .await;
                    match done {
                        Ok(done) => return done.versions,
                        Err(StoreError::Unavailable { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            })
            .await
        })
    };
    loop {
        let keys = from.say(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]);
        if keys.is_empty() {
            break;
        }
        for name in keys.lines() {
            from.say(&["MIGRATE", "127.0.0.1", &port, name, "0", "5000"]);
        }
    }
    for server in [to, from].into_iter().chain(&cluster.servers) {
        server.say(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
    }
    assert!(both.await.unwrap().iter().all(|version| *version > 0));
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(writer.await.unwrap() > 0);
    let before = store.read(std::slice::from_ref(&key)).await.unwrap()[0].as_ref().unwrap().version;
    assert!(recovered(&*store, &key).await > before);
    assert_ne!(to.say(&["CLUSTER", "COUNTKEYSINSLOT", &slot]), "0");
    assert_eq!(from.say(&["CLUSTER", "COUNTKEYSINSLOT", &slot]), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lease_of_a_link_is_a_fence_in_every_shard() {
    let borrowed = tokio::task::block_in_place(|| REDIS.take());
    let (a, b) = (connected(borrowed.cluster().config()), connected(borrowed.cluster().config()));
    let name = LeaseName::link("127.0.0.1:5347", "partner.example");
    let lease = a.acquire(&name, "a", Duration::from_secs(60)).await.unwrap().granted().unwrap();
    let keys = one_for_each_shard();
    for key in &keys {
        commit(&a, |b| _ = b.put(key.clone(), Condition::Any, "a", LONG).fence(lease.fence.clone())).await.unwrap();
    }
    assert!(b.acquire(&name, "b", Duration::from_secs(60)).await.unwrap().granted().is_none());
    borrowed.cluster().offset().advance(Duration::from_secs(90));
    let taken = b.acquire(&name, "b", Duration::from_secs(60)).await.unwrap().granted().unwrap();
    for key in &keys {
        let late = commit(&a, |b| _ = b.put(key.clone(), Condition::Any, "a", LONG).fence(lease.fence.clone())).await;
        assert_eq!(late, Err(StoreError::FenceLost { lease: name.clone() }), "{key}");
        commit(&b, |b| _ = b.put(key.clone(), Condition::Any, "b", LONG).fence(taken.fence.clone())).await.unwrap();
    }
    assert!(a.renew(&lease, Duration::from_secs(60)).await.is_err());
    assert!(b.release(&taken).await.unwrap());
    let late = commit(&b, |b| _ = b.delete(keys[0].clone(), Condition::Any).fence(taken.fence.clone())).await;
    assert_eq!(late, Err(StoreError::FenceLost { lease: name }));
}
