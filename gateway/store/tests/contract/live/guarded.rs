//! A group with Sentinels and a Cluster that want TLS and passwords from everybody.

use std::sync::Arc;

use isthmus_store::redis::{Credentials, Mode};
use isthmus_store::{HealthState, Key, RedisConfig, Shard, Store as _};

use super::connected;
use super::nodes::Cluster;
use super::sentinels::{promoted, settled};
use super::servers::{Server, free_port, redis};
use super::single::{LIMIT, PLAIN, RIGHTS, put, recovered};
use super::tls::{Authority, Shown, trusting};
use crate::harness::{LONG, pair};

/// What servers and administrators say to one another, and what the gateways say.
const INSIDE: &str = "inside";
const OURS: &str = "ours";

/// The options of a server of a group in which nothing is said without TLS and a password.
fn guarded(shown: &Shown, port: u16) -> Vec<String> {
    let rest = ["--requirepass", INSIDE, "--masterauth", INSIDE, "--tls-replication", "yes"].map(str::to_owned);
    shown.options(port, "no").into_iter().chain(rest).collect()
}

/// Lets the gateways in, with no more rights than they need.
fn let_in(server: &Server, more: &[&str]) {
    let user = ["ACL", "SETUSER", "isthmus", "on", ">ours", "~guarded:*", "&guarded:*"];
    server.say(&[&user[..], &RIGHTS, more].concat());
}

fn config(authority: &Authority, mode: Mode, ports: &[u16]) -> RedisConfig {
    let credentials = || Some(Credentials { user: Some("isthmus".to_owned()), password: OURS.to_owned() });
    let addresses = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    RedisConfig {
        tls: Some(trusting(authority)),
        timeout: LIMIT,
        credentials: Arc::new(credentials),
        ..RedisConfig::new(mode, addresses, "guarded:")
    }
}

/// A sentinel that asks for `password`; returns its TLS port, too.
fn sentinel(shown: &Shown, primary: u16, like: &Server, password: &str) -> (u16, Server) {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let (file, port) = (dir.path().join("sentinel.conf"), free_port());
    let text = format!(
        "sentinel monitor isthmus 127.0.0.1 {primary} 2\nsentinel auth-pass isthmus {INSIDE}\n\
         sentinel down-after-milliseconds isthmus 1000\nsentinel failover-timeout isthmus 3000\n\
         sentinel sentinel-pass {password}\n"
    );
    std::fs::write(&file, text).unwrap();
    let mut options = shown.options(port, "no");
    options.extend(["--tls-replication", "yes", "--requirepass", password].map(str::to_owned));
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let program = [redis(), file.to_str().unwrap(), "--sentinel"];
    (port, Server::start_in(&dir, &like.offset(), &program, &options))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_and_servers_with_tls_and_passwords_are_followed() {
    let authority = Authority::new("ours");
    let shown = Shown::by(&authority);
    let ports = [free_port(), free_port()];
    let (first, second, sentinels) = tokio::task::block_in_place(|| {
        let start = |port: u16, more: &[&str]| {
            let options = guarded(&shown, port);
            let options: Vec<_> = options.iter().map(String::as_str).collect();
            let server = Server::start(&[&PLAIN[..], &options, more].concat());
            let_in(&server, &[]);
            server
        };
        let first = start(ports[0], &[]);
        let second = start(ports[1], &["--replicaof", "127.0.0.1", &ports[0].to_string()]);
        // They have no users, and the password of ours.
        let sentinels: Vec<_> = (0..3).map(|_| sentinel(&shown, ports[0], &first, OURS)).collect();
        (first, second, sentinels)
    });
    let speaker = &sentinels[0].1;
    settled(speaker, 1).await;
    let asked: Vec<_> = sentinels.iter().map(|(port, _)| *port).collect();
    let store = connected(config(&authority, Mode::Sentinel { master: "isthmus".to_owned() }, &asked));
    let key = Key::pair(&pair("ana"));
    let version = put(&store, &key, LONG).await.unwrap();
    assert_ne!(store.health().await.state, HealthState::Down);
    assert_eq!(first.say(&["WAIT", "1", "5000"]), "1");
    speaker.say(&["SENTINEL", "FAILOVER", "isthmus"]);
    promoted(&second).await;
    assert!(recovered(&store, &key).await > version);
    // With another password the sentinels let nobody in, and it is said who refuses.
    let wrong = || Some(Credentials { user: Some("isthmus".to_owned()), password: "wrong".to_owned() });
    let settings = config(&authority, Mode::Sentinel { master: "isthmus".to_owned() }, &asked);
    let store = isthmus_store::RedisStore::start(RedisConfig { credentials: Arc::new(wrong), ..settings }).unwrap();
    super::single::reason(&store, "AuthenticationFailed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_with_tls_and_passwords_is_followed() {
    let authority = Authority::new("ours");
    let shown = Shown::by(&authority);
    let ports = parking_lot::Mutex::new(Vec::new());
    let options = || {
        let port = free_port();
        ports.lock().push(port);
        let cluster = ["--tls-cluster", "yes"].map(str::to_owned);
        guarded(&shown, port).into_iter().chain(cluster).collect()
    };
    let mut cluster = tokio::task::block_in_place(|| {
        let ca = shown.file("ca");
        let words = ["--tls", "--cacert", &ca, "--sni", "redis.example", "-a", INSIDE, "--no-auth-warning"];
        let tls_port = |server: &Server| server.say(&["CONFIG", "GET", "tls-port"]).lines().nth(1).unwrap().to_owned();
        Cluster::start_with(redis(), 1, "1000", options, &words, |server| format!("127.0.0.1:{}", tls_port(server)))
    });
    cluster.servers.iter().for_each(|server| let_in(server, &["+cluster|slots"]));
    let ports = ports.into_inner();
    // A port of a server that did not start may be among them, and one of those that answer is enough.
    let store = connected(config(&authority, Mode::Cluster, &ports));
    let keys = super::nodes::one_for_each_shard();
    for key in &keys {
        put(&store, key, LONG).await.unwrap();
    }
    let shard = Shard::all().nth(7).unwrap();
    let lost = cluster.owner(&format!("guarded:{{{}}}m", shard.number()));
    assert_eq!(cluster.servers[lost].say(&["WAIT", "1", "5000"]), "1");
    drop(cluster.servers.remove(lost));
    let key = keys.iter().find(|key| key.shard() == shard).unwrap();
    recovered(&store, key).await;
    assert_ne!(store.health().await.state, HealthState::Down);
}
