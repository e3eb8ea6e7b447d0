//! The embedded backend: one process, no server.
//!
//! Everything is in memory under one lock. With a state directory users' decisions and the items of durable queues
//! are also in a journal there, and a commit that changes one returns when the change is on the disk; all else is
//! lost with the process and comes back with the next refresh. One directory serves one process.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use isthmus_model::EpochMillis;
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use self::journal::{Content, Journal, Loaded, Pending, Progress};
use self::state::State;
use crate::batch::{Batch, Committed};
use crate::clock::Clock;
use crate::error::{OpenError, StoreError};
use crate::health::{Finding, Health, HealthState};
use crate::key::{Key, LeaseName, QueueName, Shard};
use crate::lease::{Acquisition, Holder, Lease};
pub use crate::limits::Limits;
use crate::queue::{Consumer, Item};
use crate::record::Record;
use crate::store::{Store, StoreFuture};
use crate::timer::{Due, ShardClaim, TimerCursor, TimerPage};
use crate::wake::{Topic, Wake};
use crate::wakes::Wakes;

mod journal;
mod queues;
mod records;
mod state;
mod timers;

/// When to try again after the journal could not be written.
const JOURNAL_RETRY: Duration = Duration::from_secs(5);

/// What the store and the journal's writer share.
struct Shared {
    state: Mutex<State>,
    /// Tells the writer that changes wait.
    work: Condvar,
    clock: Arc<dyn Clock>,
    limits: Limits,
}

/// The journal's writer.
struct Writer {
    thread: Option<JoinHandle<()>>,
    progress: watch::Receiver<Progress>,
}

/// A store in memory, optionally with a journal of users' decisions and the items of durable queues.
///
/// Dropping it waits until the journal is written.
pub struct MemoryStore {
    shared: Arc<Shared>,
    wakes: Wakes<Topic>,
    writer: Option<Writer>,
}

impl MemoryStore {
    /// Makes an empty store that keeps nothing over a restart.
    pub fn new(limits: Limits, clock: Arc<dyn Clock>) -> Self {
        Self::build(State::default(), limits, clock)
    }

    /// Makes a store whose users' decisions and durable queues are kept in `dir`. Reads the journal, so it blocks.
    ///
    /// # Errors
    ///
    /// Any [`OpenError`]. A journal that is there stays as it was then.
    pub fn open(limits: Limits, clock: Arc<dyn Clock>, dir: &Path) -> Result<Self, OpenError> {
        let loaded = Journal::open(dir, &limits, &*clock)?;
        Self::start(loaded, limits, clock).map_err(|source| OpenError::Io {
            action: "start the writer for",
            path: dir.to_path_buf(),
            source,
        })
    }

    /// Takes over what a journal held, and starts its writer.
    fn start(loaded: Loaded, limits: Limits, clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        let Loaded { journal, content: Content { decisions, items } } = loaded;
        let mut state = State::default();
        state.pending = Some(Pending::default());
        for (key, entry) in decisions {
            state.insert(key, entry);
        }
        for ((queue, id), item) in items {
            state.insert_item(queue, id, item);
        }
        let mut store = Self::build(state, limits, clock);
        let (sender, progress) = watch::channel(Progress::default());
        let shared = Arc::clone(&store.shared);
        let thread = std::thread::Builder::new()
            .name("isthmus-journal".to_owned())
            .spawn(move || journal.run(&shared, &sender))?;
        store.writer = Some(Writer { thread: Some(thread), progress });
        Ok(store)
    }

    fn build(state: State, limits: Limits, clock: Arc<dyn Clock>) -> Self {
        let shared = Shared { state: Mutex::new(state), work: Condvar::new(), clock, limits };
        Self { shared: Arc::new(shared), wakes: Wakes::default(), writer: None }
    }

    /// Runs `f` on the state at the present time.
    fn with<R>(&self, f: impl FnOnce(&mut State, EpochMillis) -> R) -> R {
        let mut state = self.shared.state.lock();
        // The clock is read under the lock, so that time never runs backwards from one operation to the next.
        let now = self.shared.clock.now();
        f(&mut state, now)
    }

    /// Waits until the journal has the entry.
    async fn journaled(&self, entry: u64) -> Result<(), StoreError> {
        let Some(writer) = &self.writer else { return Ok(()) };
        self.shared.work.notify_one();
        let mut progress = writer.progress.clone();
        let reason = match progress.wait_for(|progress| progress.tried >= entry).await {
            Ok(progress) if progress.durable >= entry => return Ok(()),
            Ok(progress) => progress.failure.as_deref().unwrap_or("unknown failure").to_owned(),
            Err(_) => "the writer stopped".to_owned(),
        };
        let reason = format!("cannot write the journal: {reason}");
        Err(StoreError::Unavailable { reason, retry_after: JOURNAL_RETRY })
    }

    fn look(&self) -> Health {
        let (counts, limits) = (
            self.with(|state, now| {
                state.sweep(now, usize::MAX);
                state.counts()
            }),
            &self.shared.limits,
        );
        let mut state = HealthState::Ready;
        let mut findings = Vec::new();
        let failure = match &self.writer {
            None => {
                findings.push(Finding {
                    reason: "StateNotDurable",
                    message: "users' decisions and accepted messages are lost when the process ends".to_owned(),
                    remedy: "give a state directory on a disk that stays, or configure a state store".to_owned(),
                });
                None
            }
            Some(writer) if writer.progress.has_changed().is_err() => Some("the writer stopped".to_owned()),
            Some(writer) => writer.progress.borrow().failure.as_deref().map(str::to_owned),
        };
        if let Some(failure) = failure {
            state = HealthState::Degraded;
            findings.push(Finding {
                reason: "JournalFailing",
                message: format!("users' decisions and accepted messages cannot be written: {failure}"),
                remedy: "make room on the disk of the state directory, or repair it".to_owned(),
            });
        }
        for (what, size, limit) in [
            ("records", counts.records, limits.records),
            ("octets", counts.bytes, limits.bytes),
            ("timers", counts.timers, limits.timers),
            ("leases", counts.leases, limits.leases),
        ] {
            if size >= limit - limit / 10 {
                state = HealthState::Degraded;
                findings.push(Finding {
                    reason: "NearlyFull",
                    message: format!("{size} of {limit} {what} are used"),
                    remedy: "give the process more memory and raise the limit, or use a state store of its own"
                        .to_owned(),
                });
            }
        }
        Health {
            state,
            durable: self.writer.is_some(),
            findings,
            records: counts.records,
            bytes: counts.bytes,
            timers: counts.timers,
            queued: counts.queued,
            leases: counts.leases,
            expired_items: counts.expired_items,
        }
    }
}

impl Store for MemoryStore {
    fn read<'a>(&'a self, keys: &'a [Key]) -> StoreFuture<'a, Vec<Option<Record>>> {
        Box::pin(async move { Ok(self.with(|state, now| state.read(keys, now))) })
    }

    fn commit(&self, batch: Batch) -> StoreFuture<'_, Committed> {
        Box::pin(async move {
            let limits = &self.shared.limits;
            limits.check_batch(&batch)?;
            let queues: Vec<_> = batch.enqueues.iter().map(|enqueue| Topic::Queue(enqueue.queue.clone())).collect();
            let (committed, after) = self.with(|state, now| state.commit(batch, now, limits))?;
            if after.timers {
                self.wakes.notify(&Topic::Timers);
            }
            for queue in &queues {
                self.wakes.notify(queue);
            }
            if let Some(entry) = after.journal {
                self.journaled(entry).await?;
            }
            Ok(committed)
        })
    }

    fn acquire<'a>(&'a self, lease: &'a LeaseName, holder: &'a str, ttl: Duration) -> StoreFuture<'a, Acquisition> {
        Box::pin(async move {
            let limits = &self.shared.limits;
            limits.check_name(lease.len())?;
            limits.check_name(holder.len())?;
            self.with(|state, now| state.acquire(lease, holder, now, ttl, limits))
        })
    }

    fn renew<'a>(&'a self, lease: &'a Lease, ttl: Duration) -> StoreFuture<'a, Lease> {
        Box::pin(async move { self.with(|state, now| state.renew(lease, now, ttl)) })
    }

    fn release<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let released = self.with(|state, now| state.release(lease, now));
            if released {
                self.wakes.notify(&Topic::Lease(lease.fence.lease.clone()));
            }
            Ok(released)
        })
    }

    fn holder<'a>(&'a self, lease: &'a LeaseName) -> StoreFuture<'a, Option<Holder>> {
        Box::pin(async move { Ok(self.with(|state, now| state.holder(lease, now))) })
    }

    fn next_due<'a>(&'a self, shards: &'a [Shard]) -> StoreFuture<'a, Option<EpochMillis>> {
        Box::pin(async move { Ok(self.with(|state, _| state.timers().next_due(shards))) })
    }

    fn claim_due<'a>(&'a self, shards: &'a [ShardClaim], max: usize, hold: Duration) -> StoreFuture<'a, Vec<Due>> {
        Box::pin(async move { self.with(|state, now| state.claim_due(shards, max, now, hold)) })
    }

    fn timers<'a>(&'a self, shard: Shard, after: Option<&'a TimerCursor>, max: usize) -> StoreFuture<'a, TimerPage> {
        Box::pin(async move { Ok(self.with(|state, _| state.timers().page(shard, after, max))) })
    }

    fn take<'a>(
        &'a self,
        queue: &'a QueueName,
        consumer: &'a Consumer,
        max: usize,
        hold: Duration,
    ) -> StoreFuture<'a, Vec<Item>> {
        Box::pin(async move { self.with(|state, now| state.take(queue, consumer, max, now, hold)) })
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn wake(&self, topic: Topic) -> Wake {
        self.wakes.register(topic)
    }

    fn health(&self) -> Pin<Box<dyn Future<Output = Health> + Send + '_>> {
        Box::pin(async move { self.look() })
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        let Some(thread) = self.writer.as_mut().and_then(|writer| writer.thread.take()) else { return };
        if let Some(pending) = &mut self.shared.state.lock().pending {
            pending.close();
        }
        self.shared.work.notify_one();
        // A panic of the writer was reported when it happened.
        let _ = thread.join();
    }
}

#[cfg(test)]
mod tests;
