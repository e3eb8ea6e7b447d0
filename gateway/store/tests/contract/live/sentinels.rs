//! Sentinels: a primary that steps down and one that dies.

use std::sync::Arc;
use std::time::Duration;

use isthmus_store::redis::Mode;
use isthmus_store::{Key, LeaseName, Lifetime, RedisConfig, Store, Topic};

use super::connected;
use super::servers::{Server, redis};
use super::single::{LIMIT, PLAIN, put, reason, recovered};
use crate::harness::{LONG, pair, soon};

pub(super) fn sentinel(program: &str, primary: &Server) -> Server {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let file = dir.path().join("sentinel.conf");
    let text = format!(
        "sentinel monitor isthmus 127.0.0.1 {} 2\nsentinel down-after-milliseconds isthmus 1000\n\
         sentinel failover-timeout isthmus 3000\n",
        primary.port
    );
    std::fs::write(&file, text).unwrap();
    Server::start_in(&dir, &primary.offset(), &[program, file.to_str().unwrap(), "--sentinel"], &[])
}

/// Waits until a sentinel knows the others and the replicas.
pub(super) async fn settled(sentinel: &Server, replicas: usize) {
    soon("the sentinels' agreement", async {
        loop {
            let state = sentinel.say(&["SENTINEL", "MASTER", "isthmus"]);
            let lines: Vec<_> = state.lines().collect();
            let value = |name: &str| lines.iter().position(|line| *line == name).map(|at| lines[at + 1]);
            let replicas = replicas.to_string();
            let flags = value("flags") == Some("master");
            if flags && value("num-other-sentinels") == Some("2") && value("num-slaves") == Some(&replicas) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

/// Waits until a copy is the primary.
pub(super) async fn promoted(server: &Server) {
    soon("the promotion", async {
        while !server.say(&["ROLE"]).starts_with("master") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// Starts a primary with one copy and three sentinels that know both.
pub(super) async fn group() -> (Server, Server, Vec<Server>) {
    let (first, second, sentinels) = tokio::task::block_in_place(|| {
        let first = Server::start(&PLAIN);
        let second = Server::start(&[&PLAIN[..], &["--replicaof", "127.0.0.1", &first.port.to_string()]].concat());
        let sentinels: Vec<_> = (0..3).map(|_| sentinel(redis(), &first)).collect();
        (first, second, sentinels)
    });
    settled(&sentinels[0], 1).await;
    (first, second, sentinels)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_primary_is_found_whether_the_old_one_steps_down_or_dies() {
    let (first, second, sentinels) = group().await;
    let mode = Mode::Sentinel { master: "isthmus".to_owned() };
    let addresses: Vec<_> = sentinels.iter().map(Server::address).collect();
    let config = RedisConfig { timeout: LIMIT, ..RedisConfig::new(mode.clone(), addresses.clone(), "sentinel:") };
    let store = connected(config);
    let (key, decision) = (Key::pair(&pair("ana")), Key::auth(&pair("ana")));
    let version = put(&store, &key, LONG).await.unwrap();
    put(&store, &decision, Lifetime::Durable).await.unwrap();
    assert_eq!(first.say(&["WAIT", "1", "5000"]), "1");

    // The old primary lives on as a replica.
    sentinels[0].say(&["SENTINEL", "FAILOVER", "isthmus"]);
    promoted(&second).await;
    let version = {
        let next = recovered(&store, &key).await;
        assert!(next > version);
        next
    };
    soon("the first as replica", async {
        while !first.say(&["ROLE"]).contains("connected") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    settled(&sentinels[0], 1).await;
    // Only what the primary has counts: the write did not end with the old one.
    let next = recovered(&store, &key).await;
    assert!(next > version);
    assert!(store.read(std::slice::from_ref(&decision)).await.unwrap()[0].is_some());

    // The new primary dies; what was written since is on the replica.
    assert_eq!(second.say(&["WAIT", "1", "5000"]), "1");
    let lease = LeaseName::send(&pair("ana"), "t");
    let mut wake = store.wake(Topic::Lease(lease.clone()));
    drop(second);
    assert!(recovered(&store, &key).await > next);
    assert!(store.read(&[decision]).await.unwrap()[0].is_some());
    soon("a wake-up after the loss of the subscription", wake.changed()).await;
    let held = store.acquire(&lease, "a", Duration::from_secs(60)).await.unwrap().granted().unwrap();
    assert!(store.release(&held).await.unwrap());
    soon("a wake-up by the new primary", wake.changed()).await;

    // A name that the sentinels do not know is a wrong setting.
    let unknown = Mode::Sentinel { master: "other".to_owned() };
    let store = isthmus_store::RedisStore::start(RedisConfig::new(unknown, addresses, "sentinel:")).unwrap();
    reason(&store, "WrongMode").await;
}

// Sentinel makes the old primary a replica only 8 s after the fail-over; what is written there meanwhile is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_was_replaced_gets_no_writes_while_it_still_takes_them() {
    let (first, second, sentinels) = group().await;
    let addresses = sentinels.iter().map(Server::address).collect();
    let mode = Mode::Sentinel { master: "isthmus".to_owned() };
    let store = connected(RedisConfig { timeout: LIMIT, ..RedisConfig::new(mode, addresses, "sentinel:") });
    put(&store, &Key::pair(&pair("ana")), LONG).await.unwrap();
    sentinels[0].say(&["SENTINEL", "FAILOVER", "isthmus"]);
    soon("another name from the sentinels", async {
        let port = second.port.to_string();
        while !sentinels[0].say(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "isthmus"]).contains(&port) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let end = std::time::Instant::now() + Duration::from_secs(4);
    let records = |server: &Server| server.say(&["DBSIZE"]).trim().to_owned();
    for number in 0.. {
        let before = records(&second);
        if put(&store, &Key::pair(&pair(&format!("u{number}"))), LONG).await.is_ok() && records(&second) != before {
            break;
        }
        assert!(std::time::Instant::now() < end, "the store still writes to the old primary");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(first.say(&["ROLE"]).starts_with("master"), "the old primary was made a replica too soon for this test");
}
