//! Which server an operation goes to.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use redis::{Cmd, Value, cmd};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::config::{Mode, RedisConfig, join, split};
use super::link::{Failure, Node, Target, Trouble, text};
use super::recent::Recent;
use super::script::{Call, Script};
use super::strain::Strain;
use crate::error::{Bound, StoreError};
use crate::key::{SHARDS, Shard};

/// How long to wait before asking again a server that said so.
const AGAIN: Duration = Duration::from_millis(25);
/// How often the layout of a Cluster is looked at when nothing seems wrong, and how often at most.
const LAYOUT: Duration = Duration::from_secs(30);
const LAYOUT_MIN: Duration = Duration::from_millis(100);
/// When to try again after a server was away.
const RETRY: Duration = Duration::from_secs(1);

/// All servers of a store.
pub(super) struct Router {
    config: Arc<RedisConfig>,
    route: Route,
    in_flight: Semaphore,
    strain: Strain,
}

enum Route {
    Single(Node),
    Cluster(Cluster),
}

impl Router {
    /// Starts connecting; `takeovers` counts how often another server took over, or the same began anew.
    pub(super) fn start(config: &Arc<RedisConfig>, recent: Arc<Recent>, takeovers: Arc<watch::Sender<u64>>) -> Self {
        let route = match config.mode {
            Mode::Standalone | Mode::Sentinel { .. } => {
                Route::Single(Node::start(Arc::clone(config), Target::Configured, Some(recent)))
            }
            Mode::Cluster => Route::Cluster(Cluster::start(Arc::clone(config), takeovers)),
        };
        Self { config: Arc::clone(config), route, in_flight: Semaphore::new(config.in_flight), strain: Strain::new() }
    }

    /// Groups shards so that one script can reach all of a group.
    pub(super) fn groups<T>(&self, shards: Vec<T>) -> Vec<Vec<T>> {
        match &self.route {
            Route::Single(_) if shards.is_empty() => Vec::new(),
            Route::Single(_) => vec![shards],
            Route::Cluster(_) => shards.into_iter().map(|shard| vec![shard]).collect(),
        }
    }

    /// Tells whether one script can reach all shards.
    pub(super) fn reaches_all(&self) -> bool {
        matches!(self.route, Route::Single(_))
    }

    /// Waits until the first attempt to connect ended.
    pub(super) async fn tried(&self) {
        match &self.route {
            Route::Single(node) => node.tried().await,
            Route::Cluster(cluster) => {
                let _ = cluster.layout.clone().wait_for(|layout| layout.tried).await;
                for node in self.primaries() {
                    node.tried().await;
                }
            }
        }
    }

    /// Returns an address to which there is a connection.
    pub(super) fn address(&self) -> Option<String> {
        match &self.route {
            Route::Single(node) => node.address(),
            Route::Cluster(cluster) => cluster.layout.borrow().nodes.values().find_map(|node| node.address()),
        }
    }

    /// Tells whether there is a connection to this address.
    pub(super) fn reaches(&self, address: &str) -> bool {
        let is_there = |node: &Node| node.address().is_some_and(|own| own == address);
        match &self.route {
            Route::Single(node) => is_there(node),
            Route::Cluster(cluster) => cluster.layout.borrow().nodes.values().any(|node| is_there(node)),
        }
    }

    /// Lists the primaries that are known. Empty while the layout of a Cluster is unknown.
    pub(super) fn primaries(&self) -> Vec<NodeRef<'_>> {
        match &self.route {
            Route::Single(node) => vec![NodeRef::Single(node)],
            Route::Cluster(cluster) => {
                let layout = cluster.layout.borrow();
                layout.nodes.values().map(|node| NodeRef::Shared(Arc::clone(node))).collect()
            }
        }
    }

    /// Returns why there is no primary at all.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        match &self.route {
            Route::Single(_) => None,
            Route::Cluster(cluster) => cluster.layout.borrow().trouble.clone(),
        }
    }

    /// Does an operation on a shard. `make` builds the command, for a server that does not know the script with
    /// the whole of its text.
    pub(super) async fn call(&self, shard: Shard, make: impl Fn(bool) -> Cmd) -> Result<Value, StoreError> {
        let _permit = self.enter()?;
        self.call_within(shard, make).await
    }

    /// Counts an operation as in flight for as long as the permit lives, if there is room.
    pub(super) fn enter(&self) -> Result<SemaphorePermit<'_>, StoreError> {
        self.in_flight.try_acquire().map_err(|_| self.too_many())
    }

    /// Tells whether answers come late, or three quarters of what may be in flight is.
    pub(super) fn is_strained(&self) -> bool {
        self.in_flight.available_permits() < self.config.in_flight.div_ceil(4) || self.strain.is_late()
    }

    /// Tells whether a quarter of what may be in flight is: enough to keep the servers at work.
    pub(super) fn is_busy(&self) -> bool {
        self.config.in_flight - self.in_flight.available_permits() >= self.config.in_flight.div_ceil(4)
    }

    /// As [`Self::call`], for operations that are counted already, or are not to be.
    pub(super) async fn call_within(&self, shard: Shard, make: impl Fn(bool) -> Cmd) -> Result<Value, StoreError> {
        let asked = Instant::now();
        let deadline = asked + self.config.timeout;
        let mut whole = false;
        let mut elsewhere: Option<(Arc<Node>, bool)> = None;
        loop {
            let (node, asking) = match elsewhere.take() {
                Some((node, asking)) => (NodeRef::Shared(node), asking),
                None => (self.place(shard, deadline).await?, false),
            };
            let (code, detail, address) = match node.send(&make(whole), asking, deadline).await {
                Ok(value) => {
                    self.strain.note(asked);
                    return Ok(value);
                }
                Err(Failure::Away(reason)) => {
                    self.look_again();
                    return Err(unavailable(reason));
                }
                Err(Failure::Refused { code, detail, elsewhere }) => (code, detail, elsewhere),
            };
            match (code.as_str(), &self.route, address) {
                ("NOSCRIPT", ..) if !whole => {
                    whole = true;
                    if asking && let NodeRef::Shared(node) = node {
                        elsewhere = Some((node, true));
                    }
                }
                ("MOVED" | "ASK", Route::Cluster(cluster), Some(address)) => {
                    let address = match split(&address) {
                        Some(_) => address,
                        // No host means the same host.
                        None => same_host(&node, &address).ok_or_else(|| unavailable(format!("{code} {detail}")))?,
                    };
                    if code == "MOVED" {
                        self.look_again();
                    }
                    elsewhere = Some((cluster.node(&address), code == "ASK"));
                    if Instant::now() >= deadline {
                        return Err(unavailable(format!("{code} {detail}")));
                    }
                }
                // Nothing happened, and it may be over in a moment.
                ("TRYAGAIN" | "CLUSTERDOWN" | "READONLY" | "MASTERDOWN", ..) => {
                    if code != "TRYAGAIN" {
                        node.suspect();
                        self.look_again();
                    }
                    if Instant::now() + AGAIN >= deadline {
                        return Err(unavailable(format!("{code} {detail}")));
                    }
                    sleep(AGAIN).await;
                }
                _ => return Err(refusal(&code, &detail)),
            }
        }
    }

    /// Does operations that have nothing to do with one another, and gives their outcomes in order. With one server several go
    /// in one piece, and so do the answers.
    pub(super) async fn call_together(&self, operations: &[Operation<'_>]) -> Vec<Result<Value, StoreError>> {
        let one = async |operation: &Operation<'_>| self.call(operation.shard, |whole| operation.command(whole)).await;
        let (Route::Single(node), [_, _, ..]) = (&self.route, operations) else {
            return join_all(operations.iter().map(one)).await;
        };
        let answers = {
            let count = u32::try_from(operations.len()).unwrap_or(u32::MAX);
            let Ok(_permits) = self.in_flight.try_acquire_many(count) else {
                return all(operations, || self.too_many());
            };
            let asked = Instant::now();
            let deadline = asked + self.config.timeout;
            let commands = operations.iter().map(|operation| operation.command(false));
            node.send_together(commands, deadline).await.inspect(|_| self.strain.note(asked))
        };
        let answers = match answers {
            Ok(answers) => answers,
            Err(Failure::Away(reason)) => return all(operations, || unavailable(reason.clone())),
            Err(Failure::Refused { code, detail, .. }) => return all(operations, || refusal(&code, &detail)),
        };
        let mut outcomes = Vec::with_capacity(answers.len());
        for (operation, answer) in operations.iter().zip(answers) {
            outcomes.push(match answer {
                Ok(value) => Ok(value),
                Err(Failure::Away(reason)) => Err(unavailable(reason)),
                // Nothing of this one happened; what can be done about that is done for it alone.
                Err(Failure::Refused { .. }) => one(operation).await,
            });
        }
        outcomes
    }

    fn too_many(&self) -> StoreError {
        unavailable(format!("{} operations are in flight already", self.config.in_flight))
    }

    async fn place(&self, shard: Shard, deadline: Instant) -> Result<NodeRef<'_>, StoreError> {
        let cluster = match &self.route {
            Route::Single(node) => return Ok(NodeRef::Single(node)),
            Route::Cluster(cluster) => cluster,
        };
        let mut layout = cluster.layout.clone();
        if !layout.borrow().tried {
            let _ = tokio::time::timeout_at(deadline, layout.wait_for(|layout| layout.tried)).await;
        }
        let layout = layout.borrow();
        if let Some(node) = layout.places.get(usize::from(shard.number())).and_then(Option::as_ref) {
            return Ok(NodeRef::Shared(Arc::clone(node)));
        }
        cluster.look.notify_one();
        let reason = layout.trouble.as_ref().map(Trouble::text);
        Err(unavailable(reason.unwrap_or_else(|| "no server of the Cluster has the slot".to_owned())))
    }

    /// Has the layout of a Cluster looked at.
    fn look_again(&self) {
        if let Route::Cluster(cluster) = &self.route {
            cluster.look.notify_one();
        }
    }
}

/// A command on a shard.
pub(super) struct Operation<'a> {
    pub(super) shard: Shard,
    pub(super) what: What<'a>,
}

/// What a command is.
pub(super) enum What<'a> {
    Script(&'static Script, &'a Call),
    Plain(Cmd),
}

impl Operation<'_> {
    fn command(&self, whole: bool) -> Cmd {
        match &self.what {
            What::Script(script, call) => script.command(call, whole),
            What::Plain(command) => command.clone(),
        }
    }
}

fn all<T>(operations: &[Operation<'_>], error: impl Fn() -> StoreError) -> Vec<Result<T, StoreError>> {
    operations.iter().map(|_| Err(error())).collect()
}

/// A node, however it is kept.
pub(super) enum NodeRef<'a> {
    Single(&'a Node),
    Shared(Arc<Node>),
}

impl std::ops::Deref for NodeRef<'_> {
    type Target = Node;

    fn deref(&self) -> &Node {
        match self {
            Self::Single(node) => node,
            Self::Shared(node) => node,
        }
    }
}

fn same_host(node: &Node, address: &str) -> Option<String> {
    let own = node.address()?;
    let (host, _) = split(&own)?;
    Some(join(host, address.rsplit_once(':')?.1.parse().ok()?))
}

/// An error for what may be over soon.
pub(super) fn unavailable(reason: String) -> StoreError {
    StoreError::Unavailable { reason, retry_after: RETRY }
}

/// Says what a refusal means.
fn refusal(code: &str, detail: &str) -> StoreError {
    match code {
        "OOM" => StoreError::Full { bound: Bound::Bytes, limit: 0 },
        "WRONGTYPE" => StoreError::Corrupt { place: "a key of ours".to_owned(), what: detail.to_owned() },
        "NOPERM" | "NOAUTH" | "WRONGPASS" => StoreError::Unavailable {
            reason: format!("the state store refuses our user: {code} {detail}"),
            retry_after: 5 * RETRY,
        },
        _ => unavailable(format!("{code} {detail}")),
    }
}

/// Where the shards are.
#[derive(Clone, Default)]
struct Layout {
    tried: bool,
    places: Vec<Option<Arc<Node>>>,
    nodes: HashMap<String, Arc<Node>>,
    trouble: Option<Trouble>,
}

struct Cluster {
    config: Arc<RedisConfig>,
    layout: watch::Receiver<Layout>,
    sender: Arc<watch::Sender<Layout>>,
    look: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Cluster {
    fn start(config: Arc<RedisConfig>, takeovers: Arc<watch::Sender<u64>>) -> Self {
        let (sender, layout) = watch::channel(Layout::default());
        let (sender, look) = (Arc::new(sender), Arc::new(Notify::new()));
        let task = tokio::spawn(follow(Arc::clone(&config), Arc::clone(&sender), Arc::clone(&look), takeovers));
        Self { config, layout, sender, look, task }
    }

    /// Returns the node of an address, which need not be in the layout yet.
    fn node(&self, address: &str) -> Arc<Node> {
        if let Some(node) = self.layout.borrow().nodes.get(address) {
            return Arc::clone(node);
        }
        let mut found = None;
        self.sender.send_modify(|layout| {
            let start = || Arc::new(Node::start(Arc::clone(&self.config), Target::Address(address.to_owned()), None));
            found = Some(Arc::clone(layout.nodes.entry(address.to_owned()).or_insert_with(start)));
        });
        // The closure above always ran.
        found.unwrap_or_else(|| {
            Arc::new(Node::start(Arc::clone(&self.config), Target::Address(address.to_owned()), None))
        })
    }
}

/// Keeps the layout up to date.
async fn follow(
    config: Arc<RedisConfig>,
    sender: Arc<watch::Sender<Layout>>,
    look: Arc<Notify>,
    takeovers: Arc<watch::Sender<u64>>,
) {
    loop {
        let found = find_layout(&config, &sender).await;
        let before = sender.borrow().places.clone();
        sender.send_modify(|layout| match found {
            Ok(places) => {
                let mut nodes = HashMap::new();
                layout.places = places
                    .into_iter()
                    .map(|address| {
                        let address = address?;
                        let node = nodes.entry(address.clone()).or_insert_with(|| {
                            layout.nodes.get(&address).cloned().unwrap_or_else(|| {
                                Arc::new(Node::start(Arc::clone(&config), Target::Address(address), None))
                            })
                        });
                        Some(Arc::clone(node))
                    })
                    .collect();
                // Servers without slots are forgotten, and their connections close.
                *layout = Layout { tried: true, places: std::mem::take(&mut layout.places), nodes, trouble: None };
            }
            Err(trouble) => {
                layout.tried = true;
                layout.trouble = Some(trouble);
            }
        });
        if is_elsewhere(&before, &sender.borrow().places) {
            takeovers.send_modify(|count| *count += 1);
        }
        let wait = if sender.borrow().trouble.is_some() { RETRY } else { LAYOUT };
        sleep(LAYOUT_MIN).await;
        let _ = timeout(wait, look.notified()).await;
    }
}

/// Tells whether a shard has another server than before.
fn is_elsewhere(before: &[Option<Arc<Node>>], now: &[Option<Arc<Node>>]) -> bool {
    before.iter().zip(now).any(|places| matches!(places, (Some(one), Some(other)) if !Arc::ptr_eq(one, other)))
}

/// Asks one server after the other for the layout.
async fn find_layout(
    config: &Arc<RedisConfig>,
    sender: &watch::Sender<Layout>,
) -> Result<Vec<Option<String>>, Trouble> {
    let known: Vec<_> = sender.borrow().nodes.values().filter(|node| node.hello().is_ok()).cloned().collect();
    let mut trouble = Trouble::Away("no server of the Cluster is known".to_owned());
    for node in known {
        match ask_layout(config, &node).await {
            Ok(places) => return Ok(places),
            Err(found) => trouble = found,
        }
    }
    for address in &config.addresses {
        let node = Node::start(Arc::clone(config), Target::Seed(address.clone()), None);
        node.tried().await;
        match node.hello() {
            Ok(_) => match ask_layout(config, &node).await {
                Ok(places) => return Ok(places),
                Err(found) => trouble = found,
            },
            Err(found) => trouble = found,
        }
    }
    Err(trouble)
}

async fn ask_layout(config: &RedisConfig, node: &Node) -> Result<Vec<Option<String>>, Trouble> {
    let mut ask = cmd("CLUSTER");
    ask.arg("SLOTS");
    let reply = node.send(&ask, false, Instant::now() + config.timeout).await;
    let reply = reply.map_err(|failure| match failure {
        Failure::Away(reason) => Trouble::Away(reason),
        Failure::Refused { code, detail, .. } if code == "NOPERM" => Trouble::Forbidden(detail),
        Failure::Refused { code, detail, .. } => Trouble::Away(format!("{code} {detail}")),
    })?;
    let own = node.address().unwrap_or_default();
    let ranges = parse_slots(&reply, split(&own).map_or("", |(host, _)| host));
    if ranges.is_empty() {
        return Err(Trouble::Away("the Cluster has no slots yet".to_owned()));
    }
    let place = |number: u16| {
        let slot = crc16(number.to_string().as_bytes()) % 16384;
        let range = ranges.iter().find(|(first, last, _)| (*first..=*last).contains(&i64::from(slot)))?;
        Some(range.2.clone())
    };
    Ok((0..SHARDS).map(place).collect())
}

/// Reads the answer to CLUSTER SLOTS: first slot, last slot, address of the primary.
fn parse_slots(reply: &Value, own_host: &str) -> Vec<(i64, i64, String)> {
    let Value::Array(ranges) = reply else { return Vec::new() };
    let range = |range: &Value| {
        let Value::Array(parts) = range else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(primary), ..] = parts.as_slice() else { return None };
        let [host, Value::Int(port), ..] = primary.as_slice() else { return None };
        let host = text(host).filter(|host| !host.is_empty() && *host != "?").unwrap_or(own_host);
        Some((*first, *last, join(host, u16::try_from(*port).ok()?)))
    };
    ranges.iter().filter_map(range).collect()
}

/// CRC-16/XMODEM, by which a Cluster places hash tags.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        (0..8).fold(
            crc ^ (u16::from(*byte) << 8),
            |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_cluster_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        // Where three equal primaries would have the shards.
        let mut counts = [0; 3];
        for number in 0..SHARDS {
            counts[usize::from(crc16(number.to_string().as_bytes()) % 16384 / 5462)] += 1;
        }
        assert!(counts.iter().all(|count| (10..35).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_layout_is_read_and_what_is_strange_is_left_out() {
        let server = |host: &str, port| Value::Array(vec![Value::BulkString(host.into()), Value::Int(port)]);
        let range = |first, last, server| Value::Array(vec![Value::Int(first), Value::Int(last), server]);
        let reply = Value::Array(vec![
            range(0, 99, server("10.0.0.1", 7000)),
            range(100, 199, server("", 7001)),
            range(200, 299, server("::1", 7002)),
            range(300, 399, server("h", 70000)),
            Value::Int(3),
        ]);
        let expected = [(0, 99, "10.0.0.1:7000"), (100, 199, "own:7001"), (200, 299, "[::1]:7002")];
        let expected = expected.map(|(first, last, address)| (first, last, address.to_owned()));
        assert_eq!(parse_slots(&reply, "own"), expected);
        assert!(parse_slots(&Value::Nil, "own").is_empty());
    }

    #[test]
    fn refusals_have_their_meaning() {
        assert!(matches!(refusal("OOM", "x"), StoreError::Full { bound: Bound::Bytes, .. }));
        assert!(matches!(refusal("WRONGTYPE", "x"), StoreError::Corrupt { .. }));
        for code in ["NOPERM", "LOADING", "MISCONF", "NOREPLICAS", "BUSY", "ERR"] {
            assert!(matches!(refusal(code, "x"), StoreError::Unavailable { .. }), "{code}");
        }
    }
}
