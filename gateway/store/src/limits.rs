//! How much a store may hold, and what a batch may be.

use crate::batch::{Batch, Change, Lifetime, TimerChange};
use crate::error::{Bound, StoreError};
use crate::key::{Key, QueueName};
use crate::timer::TimerKind;

/// How much a store may hold. Reaching a limit is [`StoreError::Full`] or [`StoreError::TooLarge`].
///
/// Limits on the whole (`records`, `bytes`, `queues`, `timers`, `leases`) and on the journal are the memory
/// store's; a server has a memory limit of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Records. Default 1,000,000: 160,000 pairs with six records each.
    pub records: usize,
    /// Octets of records and queued items with their bookkeeping. Default 512 MiB.
    pub bytes: usize,
    /// Octets of one record or item. Default 256 KiB: a message of 64 KiB fits with all its markup.
    pub record_bytes: usize,
    /// Octets of all content in one batch. Default 1 MiB, at most 4 MiB.
    pub batch_bytes: usize,
    /// Parts of one batch. Default 256.
    pub batch_parts: usize,
    /// Octets of one name. Default 4096: a JID has at most 1023 + 1 + 1023.
    pub name_bytes: usize,
    /// Items of one queue. Default 1000.
    pub queue_items: usize,
    /// Items of one queue of [`QueueName::unanswered`]. Default 32,768: what a partner who falls silent leaves open of 1000
    /// messages a second.
    pub unanswered_items: usize,
    /// Queues that are not empty. Default 100,000.
    pub queues: usize,
    /// Timers. Default 1,000,000.
    pub timers: usize,
    /// Leases. Default 200,000.
    pub leases: usize,
    /// Octets from which the journal may be written anew while running, once it is also four times the size
    /// of what lives. Default 1 MiB.
    pub journal_bytes: u64,
}

impl Limits {
    /// Returns how many items a queue may hold.
    pub(crate) fn items_of(&self, queue: &QueueName) -> usize {
        if queue.is_unanswered() { self.unanswered_items } else { self.queue_items }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            records: 1_000_000,
            bytes: 512 << 20,
            record_bytes: 256 << 10,
            batch_bytes: 1 << 20,
            batch_parts: 256,
            name_bytes: 4096,
            queue_items: 1000,
            unanswered_items: 32_768,
            queues: 100_000,
            timers: 1_000_000,
            leases: 200_000,
            journal_bytes: 1 << 20,
        }
    }
}

/// What a batch may hold whatever is configured, so that one journal frame can hold it.
const BATCH_BYTES_CAP: usize = 4 << 20;

impl Limits {
    /// Checks a name.
    pub(crate) fn check_name(&self, size: usize) -> Result<(), StoreError> {
        at_most(Bound::NameBytes, size, self.name_bytes)
    }

    /// Checks everything about a batch that needs no look at the state.
    pub(crate) fn check_batch(&self, batch: &Batch) -> Result<(), StoreError> {
        at_most(Bound::BatchParts, batch.len(), self.batch_parts)?;
        let mut total = 0_usize;
        let mut slots = batch.writes.iter().map(|write| &write.key).chain(&batch.reads).map(Key::slot);
        if slots.next().is_some_and(|first| slots.any(|slot| slot != first)) {
            return Err(StoreError::Misuse { rule: "the records of a batch share one slot" });
        }
        batch.shard()?;
        for (n, write) in batch.writes.iter().enumerate() {
            self.check_name(write.key.len())?;
            if batch.writes.iter().take(n).any(|other| other.key == write.key) {
                return Err(StoreError::Misuse { rule: "a record occurs once in a batch" });
            }
            let lifetime = match &write.change {
                Change::Put { bytes, lifetime } => {
                    at_most(Bound::RecordBytes, bytes.len(), self.record_bytes)?;
                    total += bytes.len();
                    Some(lifetime)
                }
                Change::Touch { lifetime } => Some(lifetime),
                Change::Delete | Change::Check => None,
            };
            if lifetime == Some(&Lifetime::Durable) && !write.key.kind().is_decision() {
                return Err(StoreError::Misuse { rule: "only users' decisions live without an end" });
            }
        }
        for enqueue in &batch.enqueues {
            self.check_name(enqueue.queue.len())?;
            at_most(Bound::RecordBytes, enqueue.bytes.len(), self.record_bytes)?;
            total += enqueue.bytes.len();
        }
        at_most(Bound::BatchBytes, total, self.batch_bytes.min(BATCH_BYTES_CAP))?;
        for (n, change) in batch.timers.iter().enumerate() {
            let Some(name) = timer_name(change) else { continue };
            self.check_name(name.1.len())?;
            if batch.timers.iter().take(n).any(|other| timer_name(other) == Some(name)) {
                return Err(StoreError::Misuse { rule: "a timer is set or cancelled once in a batch" });
            }
        }
        Ok(())
    }
}

fn timer_name(change: &TimerChange) -> Option<(TimerKind, &Key)> {
    match change {
        TimerChange::Set(timer) => Some((timer.kind, &timer.key)),
        TimerChange::Cancel { kind, key } => Some((*kind, key)),
        TimerChange::Complete(_) => None,
    }
}

fn at_most(bound: Bound, size: usize, limit: usize) -> Result<(), StoreError> {
    if size > limit { Err(StoreError::TooLarge { bound, size, limit }) } else { Ok(()) }
}
