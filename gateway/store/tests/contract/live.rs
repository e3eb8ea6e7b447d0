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

/// Servers that no test uses at the moment. They are stopped with the process.
static IDLE: Mutex<Vec<Server>> = Mutex::new(Vec::new());

/// A server out of the pool, which goes back to it.
struct Borrowed(Option<Server>);

impl Borrowed {
    fn take() -> Self {
        let server = IDLE.lock().pop().unwrap_or_else(|| Server::start(&["--save", "", "--appendonly", "no"]));
        server.say(&["FLUSHALL"]);
        Self(Some(server))
    }

    fn server(&self) -> &Server {
        self.0.as_ref().unwrap()
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        IDLE.lock().extend(self.0.take());
    }
}

/// The clock that the servers of a test have.
struct ServerClock(Arc<Offset>);

impl Clock for ServerClock {
    fn now(&self) -> EpochMillis {
        SystemClock.now().plus(self.0.read())
    }
}

fn advance(offset: &Arc<Offset>) -> Advance {
    let offset = Arc::clone(offset);
    Box::new(move |by| {
        offset.advance(by);
        Box::pin(std::future::ready(()))
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

/// One Redis server.
pub(crate) fn redis() -> Harness {
    let borrowed = Borrowed::take();
    let offset = borrowed.server().offset();
    let clock: Arc<dyn Clock> = Arc::new(ServerClock(Arc::clone(&offset)));
    let config = RedisConfig {
        limits: limits(),
        clock: Arc::clone(&clock),
        database: 3,
        ..RedisConfig::new(Mode::Standalone, vec![borrowed.server().address()], "contract:")
    };
    let store = Arc::new(connected(config));
    Harness { store, clock, advance: advance(&offset), cases: 60, _keep: Box::new(borrowed) }
}

/// A server with its Sentinel, which no test uses at the moment.
static WATCHED: Mutex<Vec<(Server, Server)>> = Mutex::new(Vec::new());

/// A server and its Sentinel out of the pool.
struct Watched(Option<(Server, Server)>);

impl Drop for Watched {
    fn drop(&mut self) {
        WATCHED.lock().extend(self.0.take());
    }
}

/// One Redis server that a Sentinel names.
pub(crate) fn sentinel() -> Harness {
    let idle = WATCHED.lock().pop();
    let (server, sentinel) = idle.unwrap_or_else(|| {
        let server = Server::start(&["--save", "", "--appendonly", "no"]);
        let sentinel = sentinels::sentinel(&server);
        (server, sentinel)
    });
    server.say(&["FLUSHALL"]);
    let (offset, address) = (server.offset(), sentinel.address());
    let keep = Watched(Some((server, sentinel)));
    let clock: Arc<dyn Clock> = Arc::new(ServerClock(Arc::clone(&offset)));
    let mode = Mode::Sentinel { master: "isthmus".to_owned() };
    let config = RedisConfig {
        limits: limits(),
        clock: Arc::clone(&clock),
        ..RedisConfig::new(mode, vec![address], "contract:")
    };
    let store = Arc::new(connected(config));
    Harness { store, clock, advance: advance(&offset), cases: 20, _keep: Box::new(keep) }
}

/// Redis Cluster with three primaries. There is one, and one test at a time has it.
pub(crate) fn cluster() -> Harness {
    let borrowed = tokio::task::block_in_place(nodes::Borrowed::take);
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

contract!(live: redis, sentinel, cluster);
