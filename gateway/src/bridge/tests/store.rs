//! A store that a test can stop.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use isthmus_model::EpochMillis;
use isthmus_store::batch::Change;
use isthmus_store::{
    Acquisition, Batch, Bound, Committed, Consumer, Due, Health, Holder, Item, Key, Kind, Lease, LeaseName, QueueName,
    Record, Shard, ShardClaim, Slot, Store, StoreError, StoreFuture, TimerCursor, TimerPage, Topic, Wake,
};
use tokio::sync::watch;
use tokio::time::timeout;

use super::rig::SOON;

/// What a test does with commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Commits {
    /// They happen.
    Pass,
    /// They wait.
    Wait,
    /// They are refused.
    Refuse,
    /// They are refused, and so are reads.
    Away,
    /// They happen; reads are refused.
    Blind,
    /// They happen, but those that queue something wait.
    NoLetters,
    /// They happen, but nobody is told so, nor of renewed leases: as if the process stood still.
    Still,
    /// They happen; what waited in [`Self::Still`] for its lease is told that the store is away.
    Unanswered,
    /// They happen, and so does the taking of items, of which nobody is told.
    Mute,
    /// They happen, but those that queue something are refused.
    NoQueue,
    /// They happen, and nobody hears of those that queue something.
    Unheard,
    /// They happen, and nobody hears of them.
    Lost,
    /// Those that need memory are refused.
    Full,
    /// They happen, but those of users' lists are refused.
    NoLists,
    /// They happen, but whoever reads the list of processes waits.
    NoMembers,
}

/// A store whose commits can be held up and refused.
pub(crate) struct TestStore {
    pub(super) inner: Arc<dyn Store>,
    /// Whether it says that other processes use it too.
    shared: bool,
    mode: watch::Sender<Commits>,
    /// Commits that were asked for.
    asked: watch::Sender<u64>,
    reads: AtomicU32,
    /// Reads and writes of pairs' presence.
    pair_reads: AtomicU32,
    pair_writes: AtomicU32,
    strained: AtomicBool,
    busy: AtomicBool,
    claims: AtomicU32,
    takeovers: watch::Sender<u64>,
}

impl TestStore {
    pub(crate) fn over(inner: Arc<dyn Store>) -> Arc<Self> {
        Self::made(inner, false)
    }

    /// As [`Self::over`], for a store that several bridges use.
    pub(crate) fn shared_over(inner: Arc<dyn Store>) -> Arc<Self> {
        Self::made(inner, true)
    }

    fn made(inner: Arc<dyn Store>, shared: bool) -> Arc<Self> {
        Arc::new(Self {
            inner,
            shared,
            mode: watch::Sender::new(Commits::Pass),
            asked: watch::Sender::new(0),
            reads: AtomicU32::new(0),
            pair_reads: AtomicU32::new(0),
            pair_writes: AtomicU32::new(0),
            strained: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            claims: AtomicU32::new(0),
            takeovers: watch::Sender::new(0),
        })
    }

    pub(crate) fn set(&self, mode: Commits) {
        self.mode.send_replace(mode);
    }

    /// Says whether much is in flight.
    pub(crate) fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::SeqCst);
    }

    /// Says whether it keeps up.
    pub(super) fn set_strained(&self, strained: bool) {
        self.strained.store(strained, Ordering::SeqCst);
    }

    /// Says that another server of it took over.
    pub(super) fn take_over(&self) {
        self.takeovers.send_modify(|count| *count += 1);
    }

    /// Returns how often due times were claimed so far.
    pub(super) fn claims(&self) -> u32 {
        self.claims.load(Ordering::SeqCst)
    }

    /// Returns how many commits were asked for so far.
    pub(crate) fn asked(&self) -> u64 {
        *self.asked.borrow()
    }

    /// Returns how many reads were asked for so far.
    pub(super) fn reads(&self) -> u32 {
        self.reads.load(Ordering::SeqCst)
    }

    /// Returns how often the presence of pairs was written and read so far.
    pub(super) fn pairs(&self) -> (u32, u32) {
        (self.pair_writes.load(Ordering::SeqCst), self.pair_reads.load(Ordering::SeqCst))
    }

    /// Waits until more than `before` commits were asked for.
    pub(crate) async fn wait_asked(&self, before: u64) {
        let mut asked = self.asked.subscribe();
        timeout(SOON, asked.wait_for(|asked| *asked > before)).await.expect("no commit").unwrap();
    }

    fn is_away(&self) -> bool {
        *self.mode.borrow() == Commits::Away
    }

    async fn moves(&self) {
        let mut mode = self.mode.subscribe();
        mode.wait_for(|mode| *mode != Commits::Still).await.unwrap();
    }

    /// Reads the record whose key is given, past all modes.
    pub(crate) async fn stored(&self, key: Key) -> Option<Record> {
        self.inner.read(&[key]).await.unwrap().remove(0)
    }
}

fn away() -> StoreError {
    StoreError::Unavailable { reason: "test".to_owned(), retry_after: Duration::from_secs(7) }
}

impl Store for TestStore {
    fn commit(&self, batch: Batch) -> StoreFuture<'_, Committed> {
        self.asked.send_modify(|asked| *asked += 1);
        if batch.writes.iter().any(|write| write.key.kind() == Kind::Pair) {
            self.pair_writes.fetch_add(1, Ordering::SeqCst);
        }
        Box::pin(async move {
            let mut mode = self.mode.subscribe();
            let letters = !batch.enqueues.is_empty();
            let goes = |mode: &Commits| match mode {
                Commits::Wait => false,
                Commits::NoLetters => !letters,
                _ => true,
            };
            let mode = *mode.wait_for(goes).await.unwrap();
            if matches!(mode, Commits::Refuse | Commits::Away) || mode == Commits::NoQueue && letters {
                return Err(away());
            }
            if mode == Commits::NoLists && batch.writes.iter().any(|write| write.key.kind() == Kind::User) {
                return Err(away());
            }
            let grows = batch.writes.iter().any(|write| matches!(write.change, Change::Put { .. }));
            if mode == Commits::Full && (grows || letters) {
                return Err(StoreError::Full { bound: Bound::Bytes, limit: 0 });
            }
            let committed = self.inner.commit(batch).await;
            self.moves().await;
            let is_lost = mode == Commits::Lost || mode == Commits::Unheard && letters;
            if is_lost { Err(away()) } else { committed }
        })
    }

    fn read<'a>(&'a self, keys: &'a [Key]) -> StoreFuture<'a, Vec<Option<Record>>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if keys.iter().any(|key| key.kind() == Kind::Pair) {
            self.pair_reads.fetch_add(1, Ordering::SeqCst);
        }
        if matches!(*self.mode.borrow(), Commits::Away | Commits::Blind) {
            return Box::pin(async { Err(away()) });
        }
        let members = Key::other("pods", Slot::named("realm"), "members");
        if keys != [members] {
            return self.inner.read(keys);
        }
        Box::pin(async move {
            self.mode.subscribe().wait_for(|mode| *mode != Commits::NoMembers).await.unwrap();
            self.inner.read(keys).await
        })
    }

    fn acquire<'a>(&'a self, lease: &'a LeaseName, holder: &'a str, ttl: Duration) -> StoreFuture<'a, Acquisition> {
        if self.is_away() {
            return Box::pin(async { Err(away()) });
        }
        self.inner.acquire(lease, holder, ttl)
    }

    fn renew<'a>(&'a self, lease: &'a Lease, ttl: Duration) -> StoreFuture<'a, Lease> {
        if self.is_away() {
            return Box::pin(async { Err(away()) });
        }
        Box::pin(async move {
            let stands_still = *self.mode.borrow() == Commits::Still;
            self.moves().await;
            if stands_still && *self.mode.borrow() == Commits::Unanswered {
                return Err(away());
            }
            self.inner.renew(lease, ttl).await
        })
    }

    fn release<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, bool> {
        if self.is_away() {
            return Box::pin(async { Err(away()) });
        }
        self.inner.release(lease)
    }

    fn holder<'a>(&'a self, lease: &'a LeaseName) -> StoreFuture<'a, Option<Holder>> {
        if self.is_away() {
            return Box::pin(async { Err(away()) });
        }
        self.inner.holder(lease)
    }

    fn next_due<'a>(&'a self, shards: &'a [Shard]) -> StoreFuture<'a, Option<EpochMillis>> {
        if self.is_away() {
            return Box::pin(async { Err(away()) });
        }
        self.inner.next_due(shards)
    }

    fn claim_due<'a>(&'a self, shards: &'a [ShardClaim], max: usize, hold: Duration) -> StoreFuture<'a, Vec<Due>> {
        self.claims.fetch_add(1, Ordering::SeqCst);
        if self.is_away() {
            return Box::pin(async { Err(away()) });
        }
        self.inner.claim_due(shards, max, hold)
    }

    fn timers<'a>(&'a self, shard: Shard, after: Option<&'a TimerCursor>, max: usize) -> StoreFuture<'a, TimerPage> {
        if self.is_away() {
            return Box::pin(async { Err(away()) });
        }
        self.inner.timers(shard, after, max)
    }

    fn take<'a>(
        &'a self,
        queue: &'a QueueName,
        consumer: &'a Consumer,
        max: usize,
        hold: Duration,
    ) -> StoreFuture<'a, Vec<Item>> {
        Box::pin(async move {
            let taken = self.inner.take(queue, consumer, max, hold).await;
            if *self.mode.borrow() == Commits::Mute { Err(away()) } else { taken }
        })
    }

    fn is_strained(&self) -> bool {
        self.strained.load(Ordering::SeqCst)
    }

    fn is_busy(&self) -> bool {
        self.busy.load(Ordering::SeqCst)
    }

    fn is_shared(&self) -> bool {
        self.shared
    }

    fn takeovers(&self) -> Wake {
        Wake::new(self.takeovers.subscribe())
    }

    fn wake(&self, topic: Topic) -> Wake {
        self.inner.wake(topic)
    }

    fn health(&self) -> Pin<Box<dyn Future<Output = Health> + Send + '_>> {
        self.inner.health()
    }
}
