//! The contract against real servers, and what only real servers can show.

use std::sync::Arc;
use std::time::Duration;

use isthmus_model::EpochMillis;
use isthmus_store::redis::Mode;
use isthmus_store::{Clock, RedisConfig, RedisStore, SystemClock};
use parking_lot::Mutex;

use crate::harness::{Advance, Harness, limits};
use servers::{Offset, Server};

mod guarded;
mod nodes;
mod sentinels;
mod servers;
mod single;
mod takeover;
mod tls;

/// What tests of the contract use of a server and give back: a server, or with its Sentinel. They are stopped with the process.
struct Pool<T: 'static> {
    program: fn() -> &'static str,
    idle: Mutex<Vec<T>>,
}

impl<T> Pool<T> {
    const fn new(program: fn() -> &'static str) -> Self {
        Self { program, idle: Mutex::new(Vec::new()) }
    }

    /// Takes one that no test uses at the moment, or makes one.
    fn take(&'static self, start: impl FnOnce(&str) -> T) -> Borrowed<T> {
        let idle = self.idle.lock().pop();
        Borrowed { one: Some(idle.unwrap_or_else(|| start((self.program)()))), of: self }
    }
}

/// One out of the pool, which goes back to it.
struct Borrowed<T: 'static> {
    one: Option<T>,
    of: &'static Pool<T>,
}

impl<T> Borrowed<T> {
    fn get(&self) -> &T {
        self.one.as_ref().unwrap()
    }
}

impl<T> Drop for Borrowed<T> {
    fn drop(&mut self) {
        self.of.idle.lock().extend(self.one.take());
    }
}

/// The clock that the servers of a test have.
struct ServerClock(Arc<Offset>);

impl Clock for ServerClock {
    fn now(&self) -> EpochMillis {
        SystemClock.now().plus(self.0.read())
    }
}

/// A server of Valkey looks at the clock once in a millisecond.
const UNSEEN: Duration = Duration::from_millis(3);

fn advance(offset: &Arc<Offset>) -> Advance {
    let offset = Arc::clone(offset);
    Box::new(move |by| {
        offset.advance(by);
        Box::pin(tokio::time::sleep(UNSEEN))
    })
}

/// Starts a store and waits until it is connected.
fn connected(config: RedisConfig) -> RedisStore {
    let store = RedisStore::start(config).unwrap();
    tokio::task::block_in_place(|| {
        let ready = store.ready(Duration::from_secs(20));
        assert!(tokio::runtime::Handle::current().block_on(ready), "no connection to the server");
    });
    store
}

fn start(program: &str) -> Server {
    Server::start_of(program, &["--save", "", "--appendonly", "no"])
}

fn alone(pool: &'static Pool<Server>) -> Harness {
    let borrowed = pool.take(start);
    let server = borrowed.get();
    server.say(&["FLUSHALL"]);
    let offset = server.offset();
    let clock: Arc<dyn Clock> = Arc::new(ServerClock(Arc::clone(&offset)));
    let config = RedisConfig {
        limits: limits(),
        clock: Arc::clone(&clock),
        database: 3,
        ..RedisConfig::new(Mode::Standalone, vec![server.address()], "contract:")
    };
    let store = Arc::new(connected(config));
    Harness { store, clock, advance: advance(&offset), cases: 60, _keep: Box::new(borrowed) }
}

fn watched(pool: &'static Pool<(Server, Server)>) -> Harness {
    let borrowed = pool.take(|program| {
        let server = start(program);
        let sentinel = sentinels::sentinel(program, &server);
        (server, sentinel)
    });
    let (server, sentinel) = borrowed.get();
    server.say(&["FLUSHALL"]);
    let (offset, address) = (server.offset(), sentinel.address());
    let clock: Arc<dyn Clock> = Arc::new(ServerClock(Arc::clone(&offset)));
    let mode = Mode::Sentinel { master: "isthmus".to_owned() };
    let config = RedisConfig {
        limits: limits(),
        clock: Arc::clone(&clock),
        ..RedisConfig::new(mode, vec![address], "contract:")
    };
    let store = Arc::new(connected(config));
    Harness { store, clock, advance: advance(&offset), cases: 20, _keep: Box::new(borrowed) }
}

fn split(clusters: &'static nodes::Shared) -> Harness {
    let borrowed = tokio::task::block_in_place(|| clusters.take());
    let offset = borrowed.cluster().offset();
    let clock: Arc<dyn Clock> = Arc::new(ServerClock(Arc::clone(&offset)));
    let addresses = borrowed.cluster().addresses();
    let config = RedisConfig {
        limits: limits(),
        clock: Arc::clone(&clock),
        ..RedisConfig::new(Mode::Cluster, addresses, "contract:")
    };
    let store = Arc::new(connected(config));
    Harness { store, clock, advance: advance(&offset), cases: 20, _keep: Box::new(borrowed) }
}

/// One Redis server.
pub(crate) fn redis() -> Harness {
    static POOL: Pool<Server> = Pool::new(servers::redis);
    alone(&POOL)
}

/// One Redis server that a Sentinel names.
pub(crate) fn sentinel() -> Harness {
    static POOL: Pool<(Server, Server)> = Pool::new(servers::redis);
    watched(&POOL)
}

/// Redis Cluster with three primaries. There is one, and one test at a time has it.
pub(crate) fn cluster() -> Harness {
    split(&nodes::REDIS)
}

/// One Valkey server.
#[cfg(target_arch = "x86_64")]
pub(crate) fn valkey() -> Harness {
    static POOL: Pool<Server> = Pool::new(servers::valkey);
    alone(&POOL)
}

/// One Valkey server that a Sentinel of Valkey names.
#[cfg(target_arch = "x86_64")]
pub(crate) fn valkey_sentinel() -> Harness {
    static POOL: Pool<(Server, Server)> = Pool::new(servers::valkey);
    watched(&POOL)
}

/// A Valkey Cluster, as [`cluster`].
#[cfg(target_arch = "x86_64")]
pub(crate) fn valkey_cluster() -> Harness {
    split(&nodes::VALKEY)
}

contract!(live: redis, sentinel, cluster);
// `make install` has a Valkey for these machines only.
#[cfg(target_arch = "x86_64")]
contract!(live: valkey, valkey_sentinel, valkey_cluster);
