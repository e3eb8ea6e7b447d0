//! The backend for several processes: Redis or Valkey, alone, with Sentinels or as a Cluster.
//!
//! Each operation is one script and so one round trip and atomic; [`Store::read`] is one `MGET`. Everything of one
//! shard ([`crate::key`]) has the shard's number as its hash tag, in all modes alike (the names are in the private
//! module `names`), and since a batch never leaves its shard, a Cluster can do what one server can. What has to
//! reach several shards is sent to all of them at once: reads, claims, and the copies of a lease that is good
//! everywhere. In a Cluster such a lease is granted by its own shard, then copied; who gets it is told when all copies
//! are made, so from then on no shard takes a write of the holder before. With one server every script sees the lease itself.
//!
//! All time is the server's. A number that is given out (version, token, item, claim) is the microsecond at which that
//! happened, or one more than the last, so none comes twice even after the data was lost or a replica took over
//! that had not seen the last ones.
//!
//! What Redis acknowledges can be lost in two ways: with `appendfsync everysec` up to two seconds of it when the server
//! dies, and what had not reached the replica that takes over. Fences hold after both, since later tokens are higher. The
//! process that was told of a change writes it again then (the private module `recent`), unless it is a Cluster that lost it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use isthmus_model::EpochMillis;
use redis::{Cmd, Value};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use self::config::{Credentials, CredentialsSource, Mode, RedisConfig, RedisConfigError, Tls, is_redis_address};
use self::gather::Gathering;
use self::names::{Names, corrupt};
use self::recent::Recent;
use self::reply::{Parts, odd};
use self::route::{Operation, Router, What, unavailable};
use self::script::{CLAIM, COPY, Call, LEASE, LOOK, NEXT, PAGE, RESTORE, Script, TAKE};
use crate::batch::{Batch, Committed};
use crate::error::StoreError;
use crate::health::Health;
use crate::key::{Key, LeaseName, QueueName, Shard};
use crate::lease::{Acquisition, Fence, Holder, Lease};
use crate::queue::{Consumer, Item, ItemId};
use crate::record::Record;
use crate::store::{CommitAndRead, CommitEach, Store, StoreFuture};
use crate::timer::{Due, ShardClaim, Timer, TimerCursor, TimerKind, TimerPage};
use crate::wake::{Topic, Wake};
use crate::wakes::Wakes;

mod commit;
mod config;
mod gather;
mod health;
mod link;
mod names;
mod recent;
mod reply;
mod route;
mod script;
mod strain;
mod tls;
mod wake;

/// The latest due time that a server can sort, in milliseconds since 1970.
const LATEST: u64 = 1 << 53;

/// What the store and its tasks share.
struct Shared {
    config: Arc<RedisConfig>,
    names: Arc<Names>,
    router: Router,
    gathering: Gathering,
    recent: Arc<Recent>,
    wakes: Wakes<String>,
    takeovers: Arc<watch::Sender<u64>>,
}

/// A store in Redis. It connects by itself, and keeps trying as long as it lives.
pub struct RedisStore {
    shared: Arc<Shared>,
    subscribed: watch::Receiver<bool>,
    listener: JoinHandle<()>,
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl RedisStore {
    /// Starts connecting, and returns without waiting for it. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// Any [`RedisConfigError`].
    pub fn start(config: RedisConfig) -> Result<Self, RedisConfigError> {
        config.check()?;
        let config = Arc::new(config);
        let names = Arc::new(Names::new(&config.prefix, config.mode == Mode::Cluster));
        let takeovers = Arc::new(watch::Sender::new(0));
        let recent = Arc::new(Recent::new(Arc::clone(&names), Arc::clone(&takeovers)));
        let router = Router::start(&config, Arc::clone(&recent), Arc::clone(&takeovers));
        let (gathering, wakes) = (Gathering::default(), Wakes::default());
        let shared = Arc::new(Shared { config, names, router, gathering, recent, wakes, takeovers });
        let (sender, subscribed) = watch::channel(false);
        let listener = tokio::spawn(wake::listen(Arc::clone(&shared), sender));
        Ok(Self { shared, subscribed, listener })
    }

    /// Waits until the store is connected and hears wake-ups, at most for `limit`; tells whether it is.
    pub async fn ready(&self, limit: Duration) -> bool {
        let mut subscribed = self.subscribed.clone();
        tokio::time::timeout(limit, subscribed.wait_for(|subscribed| *subscribed))
            .await
            .is_ok_and(|waited| waited.is_ok())
    }
}

impl Shared {
    async fn run(&self, shard: Shard, script: &Script, call: &Call) -> Result<Parts, StoreError> {
        Parts::of(self.router.call(shard, |whole| script.command(call, whole)).await?)
    }

    /// Keeps a change that was confirmed until no fail-over can take it any more; `takeover` is what [`Recent::takeovers`] said
    /// when it was sent.
    fn note(self: &Arc<Self>, takeover: u64, batch: Batch, outcome: &Result<Committed, StoreError>) {
        let (Ok(done), true) = (outcome, self.router.reaches_all()) else { return };
        if !self.recent.note(takeover, batch, done) {
            let shared = Arc::clone(self);
            tokio::spawn(async move {
                for (shard, call) in shared.recent.late_calls() {
                    shared.restore_late(shard, &call).await;
                }
            });
        }
    }

    /// Writes something again at a server that may not serve yet.
    async fn restore_late(&self, shard: Shard, call: &Call) {
        let mut tries = 0;
        while let Err(error) = self.router.call(shard, |whole| RESTORE.command(call, whole)).await {
            tries += 1;
            if !error.retryable() || tries > 10 {
                tracing::error!(%error, "a change that the state store had confirmed is lost");
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Record>>, StoreError> {
        let groups = self.reads(keys);
        let operations: Vec<_> = groups.iter().map(|(shard, places)| self.read_of(keys, *shard, places)).collect();
        let answers = self.router.call_together(&operations).await;
        sort_in(keys, &groups, answers.into_iter())
    }

    /// Groups the places of keys so that one command can read all of a group.
    fn reads(&self, keys: &[Key]) -> Vec<(Shard, Vec<usize>)> {
        let mut places: Vec<(Shard, usize)> = keys.iter().map(Key::shard).zip(0..).collect();
        places.sort_unstable();
        let shards = places.chunk_by(|one, other| one.0 == other.0).collect();
        let group = |group: Vec<&[(Shard, usize)]>| {
            let places = group.concat();
            Some((places.first()?.0, places.into_iter().map(|(_, at)| at).collect()))
        };
        self.router.groups(shards).into_iter().filter_map(group).collect()
    }

    fn read_of(&self, keys: &[Key], shard: Shard, places: &[usize]) -> Operation<'static> {
        let mut command = Cmd::with_capacity(1 + places.len(), 80 * places.len());
        command.arg("MGET");
        for key in places.iter().filter_map(|at| keys.get(*at)) {
            command.arg(self.names.record(key));
        }
        Operation { shard, what: What::Plain(command) }
    }

    /// Runs the script for leases. However much is in flight, they must not run out for that.
    async fn lease(
        &self,
        lease: &LeaseName,
        what: &str,
        holder: &str,
        ttl: Duration,
        token: u64,
    ) -> Result<Parts, StoreError> {
        let shard = lease.place();
        let mut call = Call::default();
        call.key(self.names.counters(shard));
        call.key(self.names.lease(lease, shard));
        call.key(self.names.leases(shard));
        call.arg(what);
        call.arg(self.names.channel());
        call.shown(lease);
        call.arg(holder);
        call.shown(millis(ttl));
        call.shown(token);
        Parts::of(self.router.call_within(shard, |whole| LEASE.command(&call, whole)).await?)
    }

    /// Brings the copies of a lease up to date; an end of 0 takes them away.
    async fn copy(&self, lease: &LeaseName, token: u64, end: u64, holder: &str) -> Result<(), StoreError> {
        if !self.names.is_copied(lease) {
            return Ok(());
        }
        let others = Shard::all().filter(|shard| *shard != lease.place());
        let results = join_all(others.map(async |shard| {
            let mut call = Call::default();
            call.key(self.names.lease(lease, shard));
            call.shown(token);
            call.shown(end);
            call.arg(holder);
            self.router.call_within(shard, |whole| COPY.command(&call, whole)).await.map(|_| ())
        }))
        .await;
        results.into_iter().collect()
    }

    /// Adds what a claim needs of each shard.
    fn add_claims(&self, call: &mut Call, claims: &[&ShardClaim]) {
        for claim in claims {
            call.key(self.names.counters(claim.shard));
            call.key(self.names.due_times(claim.shard));
            call.key(self.names.timers(claim.shard));
            match &claim.fence {
                Some(fence) => call.key(self.names.lease(&fence.lease, claim.shard)),
                None => call.key(self.names.counters(claim.shard)),
            }
        }
        for claim in claims {
            match &claim.fence {
                Some(fence) => call.shown(fence.token),
                None => call.arg(""),
            }
        }
    }

    async fn claim(&self, claims: &[&ShardClaim], max: usize, hold: Duration) -> Result<Vec<Due>, StoreError> {
        let Some(first) = claims.first() else { return Ok(Vec::new()) };
        let mut call = Call::default();
        call.shown(max);
        call.shown(millis(hold));
        self.add_claims(&mut call, claims);
        let mut reply = self.run(first.shard, &CLAIM, &call).await?;
        if reply.word()? == "fence" {
            return Err(lost_of(claims, reply.number()?));
        }
        reply.parts()?.map(|claimed| read_due(Parts::of(claimed)?)).collect()
    }

    /// Counts what is due, to know how much to claim where.
    async fn count_due(&self, claims: &[&ShardClaim]) -> Result<u64, StoreError> {
        let Some(first) = claims.first() else { return Ok(0) };
        let mut call = Call::default();
        self.add_claims(&mut call, claims);
        let mut reply = self.run(first.shard, &LOOK, &call).await?;
        if reply.word()? == "fence" {
            return Err(lost_of(claims, reply.number()?));
        }
        let mut counts = reply.parts()?;
        (0..claims.len()).map(|_| counts.number()).sum()
    }

    async fn claim_due(&self, shards: &[ShardClaim], max: usize, hold: Duration) -> Result<Vec<Due>, StoreError> {
        let groups = self.router.groups(shards.iter().collect());
        if let [all] = groups.as_slice() {
            return self.claim(all, max, hold).await;
        }
        // Nothing may be claimed when one fence is lost, nor more than asked for: so look before.
        let counts = join_all(groups.iter().map(|group| self.count_due(group))).await;
        let mut left = max;
        let mut wanted = Vec::new();
        for (group, count) in groups.iter().zip(counts) {
            let count = usize::try_from(count?).unwrap_or(usize::MAX).min(left);
            left -= count;
            if count > 0 {
                wanted.push((group, count));
            }
        }
        let claimed = join_all(wanted.iter().map(|(group, count)| self.claim(group, *count, hold))).await;
        Ok(claimed.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
    }

    async fn next_due(&self, shards: &[Shard]) -> Result<Option<EpochMillis>, StoreError> {
        let groups = self.router.groups(shards.to_vec());
        let answers = join_all(groups.iter().map(async |group| {
            let Some(first) = group.first() else { return Ok(Value::Nil) };
            let mut call = Call::default();
            for shard in group {
                call.key(self.names.due_times(*shard));
            }
            self.router.call(*first, |whole| NEXT.command(&call, whole)).await
        }))
        .await;
        let mut earliest: Option<EpochMillis> = None;
        for answer in answers {
            let at = match answer? {
                Value::Int(at) => EpochMillis(u64::try_from(at).map_err(|_| odd())?),
                Value::Nil => continue,
                _ => return Err(odd()),
            };
            earliest = Some(earliest.map_or(at, |earliest| earliest.min(at)));
        }
        Ok(earliest)
    }

    async fn timers(&self, shard: Shard, after: Option<&TimerCursor>, max: usize) -> Result<TimerPage, StoreError> {
        let mut call = Call::default();
        call.key(self.names.timers(shard));
        let (server, cursor) = after.and_then(|cursor| cursor.0.split_once(' ')).unwrap_or(("", "0"));
        call.arg(server);
        call.arg(cursor);
        call.shown(max.max(1));
        let mut reply = self.run(shard, &PAGE, &call).await?;
        let (server, cursor) = (reply.word()?, reply.word()?);
        let names = reply.parts()?.map(|name| match name {
            Value::BulkString(name) => read_name(&name),
            _ => Err(odd()),
        });
        let next = (cursor != "0").then(|| TimerCursor(format!("{server} {cursor}")));
        Ok(TimerPage { timers: names.collect::<Result<_, _>>()?, next })
    }

    async fn take(
        &self,
        queue: &QueueName,
        consumer: &Consumer,
        max: usize,
        hold: Duration,
    ) -> Result<Vec<Item>, StoreError> {
        let shard = queue.place();
        let mut call = Call::default();
        call.key(self.names.counters(shard));
        call.key(self.names.queues(shard));
        call.key(self.names.list(queue));
        call.key(self.names.items(queue));
        call.shown(queue);
        match &consumer.fence {
            None => {
                call.key(self.names.counters(shard));
                call.arg("");
                call.arg("");
            }
            Some(Fence { lease, token }) => {
                if !lease.everywhere() && lease.place() != shard {
                    return Err(StoreError::Misuse { rule: "a queue is taken from under a lease of its shard" });
                }
                call.key(self.names.lease(lease, shard));
                call.shown(*token);
                call.shown(lease);
            }
        }
        call.arg(consumer.name.as_str());
        call.shown(max);
        call.shown(millis(hold));
        let mut reply = self.run(shard, &TAKE, &call).await?;
        match (reply.word()?.as_str(), &consumer.fence) {
            ("fence", Some(fence)) => return Err(StoreError::FenceLost { lease: fence.lease.clone() }),
            ("ok", _) => {}
            _ => return Err(odd()),
        }
        let item = |item: Value| {
            let mut item = Parts::of(item)?;
            let (id, bytes) = (ItemId(item.number()?), item.bytes()?.into());
            let attempt = u32::try_from(item.number()?).map_err(|_| odd())?;
            Ok(Item { id, bytes, attempt, enqueued_at: EpochMillis(item.number()?) })
        };
        reply.parts()?.map(item).collect()
    }
}

/// Puts what groups of keys were answered with into the order of the keys.
fn sort_in(
    keys: &[Key],
    groups: &[(Shard, Vec<usize>)],
    answers: impl Iterator<Item = Result<Value, StoreError>>,
) -> Result<Vec<Option<Record>>, StoreError> {
    let mut records = vec![None; keys.len()];
    for ((_, places), answer) in groups.iter().zip(answers) {
        for (at, value) in places.iter().zip(Parts::of(answer?)?) {
            let (Some(record), Some(key)) = (records.get_mut(*at), keys.get(*at)) else { continue };
            *record = match value {
                Value::BulkString(bytes) => Some(names::value(key, bytes)?),
                Value::Nil => None,
                _ => return Err(odd()),
            };
        }
    }
    Ok(records)
}

impl Store for RedisStore {
    fn read<'a>(&'a self, keys: &'a [Key]) -> StoreFuture<'a, Vec<Option<Record>>> {
        Box::pin(self.shared.read(keys))
    }

    fn commit(&self, batch: Batch) -> StoreFuture<'_, Committed> {
        Box::pin(async {
            let takeover = self.shared.recent.takeovers();
            let outcome = self.shared.commit(&batch).await;
            self.shared.note(takeover, batch, &outcome);
            outcome
        })
    }

    fn commit_each(&self, batches: Vec<Batch>) -> CommitEach<'_> {
        Box::pin(async {
            let takeover = self.shared.recent.takeovers();
            let outcomes = self.shared.commit_each(&batches).await;
            for (batch, outcome) in batches.into_iter().zip(&outcomes) {
                self.shared.note(takeover, batch, outcome);
            }
            outcomes
        })
    }

    fn commit_and_read<'a>(&'a self, batch: Batch, keys: &'a [Key]) -> CommitAndRead<'a> {
        Box::pin(async {
            let takeover = self.shared.recent.takeovers();
            let (outcome, read) = self.shared.commit_and_read(&batch, keys).await;
            self.shared.note(takeover, batch, &outcome);
            (outcome, read)
        })
    }

    fn acquire<'a>(&'a self, lease: &'a LeaseName, holder: &'a str, ttl: Duration) -> StoreFuture<'a, Acquisition> {
        Box::pin(async move {
            self.shared.config.limits.check_name(lease.len())?;
            self.shared.config.limits.check_name(holder.len())?;
            let asked = Instant::now();
            let mut reply = self.shared.lease(lease, "acquire", holder, ttl, 0).await?;
            if reply.word()? == "held" {
                return Ok(Acquisition::Held(read_holder(lease, &reply.bytes()?)?));
            }
            let (token, end) = (reply.number()?, reply.number()?);
            self.shared.copy(lease, token, end, holder).await?;
            if asked.elapsed() >= ttl {
                return Err(unavailable("the lease ran out before it was granted".to_owned()));
            }
            let fence = Fence { lease: lease.clone(), token };
            Ok(Acquisition::Granted(Lease { fence, holder: holder.to_owned(), expires_at: EpochMillis(end) }))
        })
    }

    fn renew<'a>(&'a self, lease: &'a Lease, ttl: Duration) -> StoreFuture<'a, Lease> {
        Box::pin(async move {
            let Lease { fence: Fence { lease: name, token }, holder, .. } = lease;
            let mut reply = self.shared.lease(name, "renew", holder, ttl, *token).await?;
            if reply.word()? != "ok" {
                return Err(StoreError::FenceLost { lease: name.clone() });
            }
            let end = reply.number().and_then(|_| reply.number())?;
            self.shared.copy(name, *token, end, holder).await?;
            Ok(Lease { expires_at: EpochMillis(end), ..lease.clone() })
        })
    }

    fn release<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let Lease { fence: Fence { lease: name, token }, holder, .. } = lease;
            let mut reply = self.shared.lease(name, "release", holder, Duration::ZERO, *token).await?;
            if reply.word()? != "ok" {
                return Ok(false);
            }
            self.shared.copy(name, *token, 0, holder).await?;
            Ok(true)
        })
    }

    fn holder<'a>(&'a self, lease: &'a LeaseName) -> StoreFuture<'a, Option<Holder>> {
        Box::pin(async move {
            let mut reply = self.shared.lease(lease, "look", "", Duration::ZERO, 0).await?;
            reply.word()?;
            reply.optional()?.map(|value| read_holder(lease, &value)).transpose()
        })
    }

    fn next_due<'a>(&'a self, shards: &'a [Shard]) -> StoreFuture<'a, Option<EpochMillis>> {
        Box::pin(self.shared.next_due(shards))
    }

    fn claim_due<'a>(&'a self, shards: &'a [ShardClaim], max: usize, hold: Duration) -> StoreFuture<'a, Vec<Due>> {
        Box::pin(self.shared.claim_due(shards, max, hold))
    }

    fn timers<'a>(&'a self, shard: Shard, after: Option<&'a TimerCursor>, max: usize) -> StoreFuture<'a, TimerPage> {
        Box::pin(self.shared.timers(shard, after, max))
    }

    fn take<'a>(
        &'a self,
        queue: &'a QueueName,
        consumer: &'a Consumer,
        max: usize,
        hold: Duration,
    ) -> StoreFuture<'a, Vec<Item>> {
        Box::pin(self.shared.take(queue, consumer, max, hold))
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn is_strained(&self) -> bool {
        self.shared.router.is_strained()
    }

    fn is_busy(&self) -> bool {
        self.shared.router.is_busy()
    }

    fn wake(&self, topic: Topic) -> Wake {
        self.shared.wakes.register(wake::text(&topic))
    }

    fn takeovers(&self) -> Wake {
        Wake::new(self.shared.takeovers.subscribe())
    }

    fn health(&self) -> Pin<Box<dyn Future<Output = Health> + Send + '_>> {
        Box::pin(async move {
            self.shared.router.tried().await;
            health::look(&self.shared).await
        })
    }
}

fn millis(duration: Duration) -> u64 {
    // A script counts in doubles.
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(LATEST / 2)
}

fn lost_of(claims: &[&ShardClaim], at: u64) -> StoreError {
    let claim = usize::try_from(at).ok().and_then(|at| claims.get(at)).and_then(|claim| claim.fence.as_ref());
    claim.map_or_else(odd, |fence| StoreError::FenceLost { lease: fence.lease.clone() })
}

/// Reads `token:end:holder`.
fn read_holder(lease: &LeaseName, value: &[u8]) -> Result<Holder, StoreError> {
    let parse = || {
        let mut parts = std::str::from_utf8(value).ok()?.splitn(3, ':');
        let (token, end) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Holder { name: parts.next()?.to_owned(), token, expires_at: EpochMillis(end) })
    };
    parse().ok_or_else(|| corrupt(lease, "a lease without token, end and holder"))
}

fn read_name(name: &[u8]) -> Result<(TimerKind, Key), StoreError> {
    names::parse_timer(name).ok_or_else(|| corrupt("a timer", "a name that is none of ours"))
}

fn read_due(mut parts: Parts) -> Result<Due, StoreError> {
    let (kind, key) = read_name(&parts.bytes()?)?;
    let due = EpochMillis(parts.number()?);
    let generation = parts.bytes()?.try_into().map(u64::from_be_bytes).map_err(|_| odd())?;
    let (claim, attempt) = (parts.number()?, u32::try_from(parts.number()?).unwrap_or(u32::MAX));
    let held_until = EpochMillis(parts.number()?);
    Ok(Due { timer: Timer { kind, key, due, generation }, claim, attempt, held_until })
}
