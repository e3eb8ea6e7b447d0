//! The contract of a store.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures::future::{join, join_all};
use isthmus_model::EpochMillis;

use crate::batch::{Batch, Committed};
use crate::error::StoreError;
use crate::health::Health;
use crate::key::{Key, LeaseName, QueueName, Shard};
use crate::lease::{Acquisition, Fence, Holder, Lease};
use crate::queue::{Consumer, Item, ItemId};
use crate::record::Record;
use crate::timer::{Due, ShardClaim, TimerCursor, TimerPage};
use crate::wake::{Topic, Wake};

/// The result of an operation, when it comes.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// The outcomes of several changes, when they come, in their order.
pub type CommitEach<'a> = Pin<Box<dyn Future<Output = Vec<Result<Committed, StoreError>>> + Send + 'a>>;

/// The outcome of a change and that of a read, when both come.
pub type CommitAndRead<'a> =
    Pin<Box<dyn Future<Output = (Result<Committed, StoreError>, Result<Vec<Option<Record>>, StoreError>)> + Send + 'a>>;

/// A store, shared as `Arc<dyn Store>`.
///
/// Each method is one round trip. Nothing happens before the future is polled. A future that is dropped
/// half way may or may not have taken effect. All operations are linearizable: what one call returned, every
/// later call of any process sees.
pub trait Store: Send + Sync + 'static {
    /// Reads records, in the order of the keys. Keys may have different slots; each record is whole, but
    /// records of different slots may be of different moments.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    fn read<'a>(&'a self, keys: &'a [Key]) -> StoreFuture<'a, Vec<Option<Record>>>;

    /// Makes one atomic change. When it returns, decisions and items of durable queues in it are durable.
    ///
    /// Checked in this order, and the first failure is the error: the batch against the rules and limits on
    /// one thing, the fences, the conditions in order, the limits on the whole.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`]. After each but [`StoreError::Unavailable`] nothing has changed.
    fn commit(&self, batch: Batch) -> StoreFuture<'_, Committed>;

    /// Makes changes that have nothing to do with one another (no two of them name the same record, since which comes first is
    /// not said), each as if alone and with an outcome of its own, in as few round trips as the backend can.
    fn commit_each(&self, batches: Vec<Batch>) -> CommitEach<'_> {
        Box::pin(join_all(batches.into_iter().map(|batch| self.commit(batch))))
    }

    /// Makes a change and reads records side by side, as [`Self::commit`] and [`Self::read`] do: neither waits for the
    /// other, and which comes first is not said.
    fn commit_and_read<'a>(&'a self, batch: Batch, keys: &'a [Key]) -> CommitAndRead<'a> {
        Box::pin(join(self.commit(batch), self.read(keys)))
    }

    /// Asks for a lease. A holder that asks again gets a new token, and its old one is lost: `holder` must be
    /// different for each life of a process, and a living holder renews.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`], [`StoreError::Full`], [`StoreError::TooLarge`].
    fn acquire<'a>(&'a self, lease: &'a LeaseName, holder: &'a str, ttl: Duration) -> StoreFuture<'a, Acquisition>;

    /// Makes a lease last for `ttl` from now; the token stays.
    ///
    /// # Errors
    ///
    /// [`StoreError::FenceLost`] when it ran out, even if nobody else asked for it since;
    /// [`StoreError::Unavailable`].
    fn renew<'a>(&'a self, lease: &'a Lease, ttl: Duration) -> StoreFuture<'a, Lease>;

    /// Gives a lease back; tells whether it was still held.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    fn release<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, bool>;

    /// Tells who holds a lease now.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    fn holder<'a>(&'a self, lease: &'a LeaseName) -> StoreFuture<'a, Option<Holder>>;

    /// Tells when the next timer of the shards can be claimed; held claims count with the end of their hold.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    fn next_due<'a>(&'a self, shards: &'a [Shard]) -> StoreFuture<'a, Option<EpochMillis>>;

    /// Claims up to `max` timers that are due, earliest first within a shard. Each is held for `hold`; one
    /// that is then neither completed, set anew nor cancelled can be claimed again.
    ///
    /// # Errors
    ///
    /// [`StoreError::FenceLost`] when one of the shards is no longer the caller's, then nothing is claimed;
    /// [`StoreError::Unavailable`].
    fn claim_due<'a>(&'a self, shards: &'a [ShardClaim], max: usize, hold: Duration) -> StoreFuture<'a, Vec<Due>>;

    /// Names the timers of a shard, a page at a time: what is due, what is not, and what is claimed. A walk begins with
    /// no cursor and goes on with that of the page before; every timer that exists during the whole walk is named at
    /// least once, whatever happens to its due time. A page has about `max` names: a server that keeps few timers in
    /// one piece names them all at once (Redis by default up to 512).
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    fn timers<'a>(&'a self, shard: Shard, after: Option<&'a TimerCursor>, max: usize) -> StoreFuture<'a, TimerPage>;

    /// Takes up to `max` items in order, after those that the same consumer has taken. See [`crate::queue`]
    /// for who is the consumer; others get nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError::FenceLost`], [`StoreError::Unavailable`].
    fn take<'a>(
        &'a self,
        queue: &'a QueueName,
        consumer: &'a Consumer,
        max: usize,
        hold: Duration,
    ) -> StoreFuture<'a, Vec<Item>>;

    /// Tells whether several processes may work on it at the same time. One that is embedded in a process says no, and
    /// spares that process what only serves the others.
    fn is_shared(&self) -> bool;

    /// Tells whether it answers late or has nearly as much in flight as it may: new work is better refused until that is over
    /// (interworking specification §6.11). A store that is away is not strained.
    fn is_strained(&self) -> bool {
        false
    }

    /// Tells whether so much is in flight that whoever can let others wait does, before they ask for more than may be.
    fn is_busy(&self) -> bool {
        false
    }

    /// Registers for wake-ups.
    fn wake(&self, topic: Topic) -> Wake;

    /// Registers for takeovers: another server answers from now on, or the same began anew, so that what other processes wrote
    /// last may be gone. What this process wrote is written again where the backend can do that.
    fn takeovers(&self) -> Wake {
        Wake::new(tokio::sync::watch::channel(0).1)
    }

    /// Looks at itself.
    fn health(&self) -> Pin<Box<dyn Future<Output = Health> + Send + '_>>;

    /// Reports a claimed timer as done, when there is nothing else to commit.
    ///
    /// # Errors
    ///
    /// Those of [`Self::commit`].
    fn complete(&self, due: Due) -> StoreFuture<'_, Committed> {
        let mut batch = Batch::new();
        batch.complete(due);
        self.commit(batch)
    }

    /// Reports items as done, when there is nothing else to commit.
    ///
    /// # Errors
    ///
    /// Those of [`Self::commit`].
    fn ack(&self, queue: &QueueName, items: &[ItemId], fence: Option<&Fence>) -> StoreFuture<'_, Committed> {
        let mut batch = Batch::new();
        batch.fences.extend(fence.cloned());
        batch.acks.extend(items.iter().map(|item| (queue.clone(), *item)));
        self.commit(batch)
    }
}
