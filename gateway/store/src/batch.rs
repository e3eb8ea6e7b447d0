//! One atomic change.

use std::time::Duration;

use bytes::Bytes;

use crate::error::StoreError;
use crate::key::{Key, LeaseName, QueueName, Shard};
use crate::lease::Fence;
use crate::queue::ItemId;
use crate::record::Record;
use crate::timer::{Due, Timer, TimerKind};

/// What must be true of a record for the batch to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// There is no such record.
    Absent,
    /// The record has this version.
    Version(u64),
    /// Nothing is asked.
    Any,
}

impl Condition {
    /// Returns the condition that the record is as it was read.
    pub fn unchanged(read: Option<&Record>) -> Self {
        read.map_or(Self::Absent, |record| Self::Version(record.version))
    }
}

/// How long a record stays after the write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Until this much time passed without another write or touch.
    For(Duration),
    /// Until it is deleted. Only for users' decisions ([`crate::Kind::is_decision`]).
    Durable,
}

/// What happens to one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// New content.
    Put {
        /// The content.
        bytes: Bytes,
        /// How long it stays.
        lifetime: Lifetime,
    },
    /// The record goes.
    Delete,
    /// The lifetime starts anew; version and content stay. Without a record nothing happens.
    Touch {
        /// How long it stays from now.
        lifetime: Lifetime,
    },
    /// Nothing; only the condition is checked.
    Check,
}

/// A change of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The record.
    pub key: Key,
    /// What must be true before.
    pub condition: Condition,
    /// What happens.
    pub change: Change,
}

/// A change of the due times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimerChange {
    /// Sets the timer, in place of one with the same kind and key.
    Set(Timer),
    /// Removes the timer.
    Cancel {
        /// What it was for.
        kind: TimerKind,
        /// The record it was about.
        key: Key,
    },
    /// Removes the timer that was claimed, unless it was set anew or claimed again since.
    Complete(Due),
}

/// Work to put into a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enqueue {
    /// The queue.
    pub queue: QueueName,
    /// The work.
    pub bytes: Bytes,
    /// How long it may wait. After that it disappears and is counted; a sender that must know sets a timer.
    pub lifetime: Duration,
}

/// One atomic change: all of it happens, or none.
///
/// The records of a batch share one slot, and none occurs twice. Timers and queues are of the shard of that
/// slot, and so are leases unless they are good everywhere ([`crate::key`]). Order within the batch has no meaning but for items of one queue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct Batch {
    /// Leases that must be held.
    pub fences: Vec<Fence>,
    /// Changes of records.
    pub writes: Vec<Write>,
    /// Records to read in the same round trip, as they are after the change.
    pub reads: Vec<Key>,
    /// Changes of due times.
    pub timers: Vec<TimerChange>,
    /// Work for queues.
    pub enqueues: Vec<Enqueue>,
    /// Work that is done.
    pub acks: Vec<(QueueName, ItemId)>,
}

impl Batch {
    /// Starts an empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stores new content.
    pub fn put(&mut self, key: Key, condition: Condition, bytes: impl Into<Bytes>, lifetime: Lifetime) -> &mut Self {
        self.writes.push(Write { key, condition, change: Change::Put { bytes: bytes.into(), lifetime } });
        self
    }

    /// Deletes a record; deleting what is not there is no error under [`Condition::Any`].
    pub fn delete(&mut self, key: Key, condition: Condition) -> &mut Self {
        self.writes.push(Write { key, condition, change: Change::Delete });
        self
    }

    /// Starts a record's lifetime anew without changing content or version.
    pub fn touch(&mut self, key: Key, condition: Condition, lifetime: Lifetime) -> &mut Self {
        self.writes.push(Write { key, condition, change: Change::Touch { lifetime } });
        self
    }

    /// Makes the batch depend on a record that it does not change.
    pub fn check(&mut self, key: Key, condition: Condition) -> &mut Self {
        self.writes.push(Write { key, condition, change: Change::Check });
        self
    }

    /// Reads a record in the same round trip, as it is after the change.
    pub fn read(&mut self, key: Key) -> &mut Self {
        self.reads.push(key);
        self
    }

    /// Makes the batch depend on a lease.
    pub fn fence(&mut self, fence: Fence) -> &mut Self {
        self.fences.push(fence);
        self
    }

    /// Sets a timer, in place of one with the same kind and key.
    pub fn set_timer(&mut self, timer: Timer) -> &mut Self {
        self.timers.push(TimerChange::Set(timer));
        self
    }

    /// Removes a timer.
    pub fn cancel_timer(&mut self, kind: TimerKind, key: Key) -> &mut Self {
        self.timers.push(TimerChange::Cancel { kind, key });
        self
    }

    /// Reports a claimed timer as done; it has no effect on one that was set anew or claimed again since.
    pub fn complete(&mut self, due: Due) -> &mut Self {
        self.timers.push(TimerChange::Complete(due));
        self
    }

    /// Puts work into a queue, behind what is there. In a durable queue it is durable when the commit returns.
    pub fn enqueue(&mut self, queue: QueueName, bytes: impl Into<Bytes>, lifetime: Duration) -> &mut Self {
        self.enqueues.push(Enqueue { queue, bytes: bytes.into(), lifetime });
        self
    }

    /// Reports work as done; it has no effect on what is gone already.
    pub fn ack(&mut self, queue: QueueName, item: ItemId) -> &mut Self {
        self.acks.push((queue, item));
        self
    }

    /// Returns the one shard that the batch is about; `None` when it names no place.
    ///
    /// # Errors
    ///
    /// [`StoreError::Misuse`] when there are several.
    pub fn shard(&self) -> Result<Option<Shard>, StoreError> {
        let Self { fences, writes, reads, timers, enqueues, acks } = self;
        let timers = timers.iter().map(|change| match change {
            TimerChange::Set(timer) => timer.shard(),
            TimerChange::Cancel { key, .. } => key.shard(),
            TimerChange::Complete(due) => due.timer.shard(),
        });
        // The records share a slot, so one of them speaks for all.
        let record = writes.first().map(|write| &write.key).or_else(|| reads.first()).map(Key::shard);
        let queues = enqueues.iter().map(|enqueue| &enqueue.queue).chain(acks.iter().map(|(queue, _)| queue));
        let leases = fences.iter().map(|fence| &fence.lease).filter(|lease| !lease.everywhere());
        let mut shards =
            record.into_iter().chain(timers).chain(queues.map(QueueName::place)).chain(leases.map(LeaseName::place));
        let first = shards.next();
        if shards.any(|shard| Some(shard) != first) {
            return Err(StoreError::Misuse {
                rule: "records, timers, queues and leases of a batch share one shard; QueueName::at names the part of a queue there",
            });
        }
        Ok(first)
    }

    /// Tells whether the batch would do nothing.
    pub fn is_empty(&self) -> bool {
        let Self { fences, writes, reads, timers, enqueues, acks } = self;
        fences.is_empty()
            && writes.is_empty()
            && reads.is_empty()
            && timers.is_empty()
            && enqueues.is_empty()
            && acks.is_empty()
    }

    /// Counts the parts.
    pub fn len(&self) -> usize {
        let Self { fences, writes, reads, timers, enqueues, acks } = self;
        fences.len() + writes.len() + reads.len() + timers.len() + enqueues.len() + acks.len()
    }
}

/// What a commit did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Committed {
    /// The version of each written record after the change, in the order of the writes; 0 where there is none.
    pub versions: Vec<u64>,
    /// The records that were read, in the order of the reads.
    pub records: Vec<Option<Record>>,
    /// The names of the new items, in the order of the enqueues.
    pub items: Vec<ItemId>,
}
