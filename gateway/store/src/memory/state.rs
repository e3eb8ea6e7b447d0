//! Everything that a memory store keeps, changed under one lock.
//!
//! One lock is enough: a change takes well under a microsecond or two, and only with one lock is a batch over
//! records, timers and queues atomic for every reader.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use isthmus_model::EpochMillis;

use super::journal::{Content, Op, Pending};
use super::queues::{Gone, Kept, Queues, item_cost};
use super::records::{Entry, Records, cost};
use super::timers::Timers;
use crate::batch::{Batch, Change, Committed, Condition, Enqueue, Lifetime, TimerChange, Write};
use crate::error::{Bound, Conflict, StoreError};
use crate::key::{Key, LeaseName, QueueName};
use crate::lease::{Acquisition, Fence, Holder, Lease};
use crate::limits::Limits;
use crate::queue::{Consumer, Item, ItemId};
use crate::record::Record;
use crate::timer::{Due, ShardClaim};

/// How many ended things one operation clears away at most, so that none is slow; more than one operation
/// usually adds.
const SWEEP: usize = 16;

/// What ends at some time.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ends {
    Record(Key),
    Item(QueueName, ItemId),
    Lease(LeaseName),
}

/// What a commit leaves to do once the lock is released.
#[derive(Debug, Default)]
pub(super) struct After {
    /// A timer became the earliest of its shard.
    pub(super) timers: bool,
    /// The number of the journal entry to wait for.
    pub(super) journal: Option<u64>,
}

/// The state.
#[derive(Debug, Default)]
pub(super) struct State {
    records: Records,
    timers: Timers,
    queues: Queues,
    leases: HashMap<LeaseName, Holder>,
    agenda: BTreeSet<(EpochMillis, Ends)>,
    /// Octets of records and items.
    bytes: usize,
    /// The last version, token and item id given out. One counter each for the whole store, so that none is
    /// used twice for one name however often that is deleted.
    version: u64,
    token: u64,
    item: u64,
    expired_items: u64,
    /// What waits for the journal, if there is one.
    pub(super) pending: Option<Pending>,
}

/// Numbers for [`crate::Health`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    pub(super) records: usize,
    pub(super) bytes: usize,
    pub(super) timers: usize,
    pub(super) queued: usize,
    pub(super) leases: usize,
    pub(super) expired_items: u64,
}

impl State {
    /// Clears away up to `max` things whose time is over.
    pub(super) fn sweep(&mut self, now: EpochMillis, max: usize) {
        for _ in 0..max {
            if self.agenda.first().is_none_or(|(at, _)| *at > now) {
                return;
            }
            let Some((_, ends)) = self.agenda.pop_first() else { return };
            match ends {
                Ends::Record(key) => {
                    if let Some(entry) = self.records.remove(&key) {
                        self.bytes = self.bytes.saturating_sub(entry.cost(&key));
                    }
                }
                Ends::Item(queue, id) => {
                    if let Some(Gone { len, .. }) = self.queues.remove(&queue, id) {
                        self.bytes = self.bytes.saturating_sub(item_cost(&queue, len));
                        self.expired_items += 1;
                    }
                }
                Ends::Lease(name) => {
                    self.leases.remove(&name);
                }
            }
        }
    }

    pub(super) fn read(&mut self, keys: &[Key], now: EpochMillis) -> Vec<Option<Record>> {
        self.sweep(now, SWEEP);
        keys.iter().map(|key| self.records.live(key, now).map(Entry::to_record)).collect()
    }

    /// Makes one atomic change. The batch was checked against [`Limits::check_batch`].
    pub(super) fn commit(
        &mut self,
        batch: Batch,
        now: EpochMillis,
        limits: &Limits,
    ) -> Result<(Committed, After), StoreError> {
        self.sweep(now, SWEEP);
        self.check(&batch, now)?;
        if let Err(full) = self.check_room(&batch, now, limits) {
            // Only now is it worth clearing away everything that ended.
            self.sweep(now, usize::MAX);
            self.check_room(&batch, now, limits).map_err(|_| full)?;
        }
        // From here on nothing fails.
        let Batch { fences: _, writes, reads, timers, enqueues, acks } = batch;
        let mut after = After::default();
        let mut log = Vec::new();
        let versions = writes.into_iter().map(|write| self.apply(write, now, &mut log)).collect();
        for change in timers {
            match change {
                TimerChange::Set(timer) => after.timers |= self.timers.set(timer),
                TimerChange::Cancel { kind, key } => self.timers.cancel(kind, key),
                TimerChange::Complete(due) => self.timers.complete(due),
            }
        }
        for (queue, id) in acks {
            if self.remove_item(&queue, id) && self.pending.is_some() && queue.is_durable() {
                Op::Done { queue: &queue, id }.write(&mut log);
            }
        }
        let items = enqueues.into_iter().map(|enqueue| self.enqueue(enqueue, now, &mut log)).collect();
        let records = reads.iter().map(|key| self.records.live(key, now).map(Entry::to_record)).collect();
        if let Some(pending) = self.pending.as_mut().filter(|_| !log.is_empty()) {
            after.journal = Some(pending.push(log));
        }
        Ok((Committed { versions, records, items }, after))
    }

    fn check(&self, batch: &Batch, now: EpochMillis) -> Result<(), StoreError> {
        for fence in &batch.fences {
            self.check_fence(fence, now)?;
        }
        for write in &batch.writes {
            let current = self.records.live(&write.key, now);
            let holds = match write.condition {
                Condition::Any => true,
                Condition::Absent => current.is_none(),
                Condition::Version(version) => current.is_some_and(|entry| entry.version == version),
            };
            if !holds {
                let current = current.map(Entry::to_record);
                return Err(StoreError::Conflict(Box::new(Conflict { key: write.key.clone(), current })));
            }
        }
        Ok(())
    }

    fn check_fence(&self, fence: &Fence, now: EpochMillis) -> Result<(), StoreError> {
        match self.leases.get(&fence.lease) {
            Some(holder) if holder.token == fence.token && holder.expires_at > now => Ok(()),
            _ => Err(StoreError::FenceLost { lease: fence.lease.clone() }),
        }
    }

    fn check_room(&mut self, batch: &Batch, now: EpochMillis, limits: &Limits) -> Result<(), StoreError> {
        let mut records = self.records.len();
        let mut bytes = self.bytes;
        let mut queues = self.queues.len();
        for Write { key, change, .. } in &batch.writes {
            if let Change::Put { bytes: content, .. } = change {
                let old = self.records.stored(key);
                records += usize::from(old.is_none());
                bytes = bytes.saturating_sub(old.map_or(0, |old| old.cost(key))) + cost(key, content.len());
            }
        }
        for (n, enqueue) in batch.enqueues.iter().enumerate() {
            bytes += item_cost(&enqueue.queue, enqueue.bytes.len());
            let earlier = batch.enqueues.iter().take(n).filter(|other| other.queue == enqueue.queue).count();
            let mut present = self.queues.items_of(&enqueue.queue);
            let most = limits.items_of(&enqueue.queue);
            if present.unwrap_or(0) + earlier >= most {
                self.drop_expired_items(&enqueue.queue, now);
                present = self.queues.items_of(&enqueue.queue);
            }
            at_most(Bound::Queue(enqueue.queue.clone()), present.unwrap_or(0) + earlier + 1, most)?;
            if present.is_none() && earlier == 0 {
                queues += 1;
                at_most(Bound::Queues, queues, limits.queues)?;
            }
        }
        if records > self.records.len() {
            at_most(Bound::Records, records, limits.records)?;
        }
        if bytes > self.bytes {
            at_most(Bound::Bytes, bytes, limits.bytes)?;
        }
        let sets = batch.timers.iter().filter_map(|change| match change {
            TimerChange::Set(timer) => Some(timer),
            TimerChange::Cancel { .. } | TimerChange::Complete(_) => None,
        });
        if self.timers.len() + sets.clone().count() > limits.timers {
            let new = sets.filter(|timer| !self.timers.contains(timer.kind, &timer.key)).count();
            if new > 0 {
                at_most(Bound::Timers, self.timers.len() + new, limits.timers)?;
            }
        }
        Ok(())
    }

    /// Does one write; returns the version after it, and adds to `log` what the journal must know.
    fn apply(&mut self, write: Write, now: EpochMillis, log: &mut Vec<u8>) -> u64 {
        let Write { key, condition: _, change } = write;
        let logged = self.pending.is_some() && key.kind().is_decision();
        match change {
            Change::Put { bytes, lifetime } => {
                self.version += 1;
                let version = self.version;
                let expires_at = end_of(lifetime, now);
                // A copy, since what comes in may be a small part of a big network buffer.
                let bytes = Bytes::copy_from_slice(&bytes);
                if logged {
                    Op::Put { key: &key, version, expires_at, bytes: &bytes }.write(log);
                }
                self.insert(key, Entry { version, bytes, expires_at });
                version
            }
            Change::Delete => {
                if let Some(entry) = self.records.remove(&key) {
                    self.bytes = self.bytes.saturating_sub(entry.cost(&key));
                    if logged {
                        Op::Delete { key: &key }.write(log);
                    }
                    self.forget(entry.expires_at, Ends::Record(key));
                }
                0
            }
            Change::Touch { lifetime } => {
                let Some(entry) = self.records.stored_mut(&key).filter(|entry| entry.is_live(now)) else { return 0 };
                let (old, version) = (entry.expires_at, entry.version);
                let new = end_of(lifetime, now);
                if old != new {
                    entry.expires_at = new;
                    if logged {
                        Op::Touch { key: &key, expires_at: new }.write(log);
                    }
                    self.forget(old, Ends::Record(key.clone()));
                    self.remember(new, Ends::Record(key));
                }
                version
            }
            Change::Check => self.records.live(&key, now).map_or(0, |entry| entry.version),
        }
    }

    /// Stores a record with all its bookkeeping, in place of one of the same name.
    pub(super) fn insert(&mut self, key: Key, entry: Entry) {
        self.version = self.version.max(entry.version);
        self.bytes += entry.cost(&key);
        let new = entry.expires_at;
        let old = self.records.insert(key.clone(), entry);
        if let Some(old) = old {
            self.bytes = self.bytes.saturating_sub(old.cost(&key));
            if old.expires_at == new {
                return;
            }
            if old.expires_at.is_some() {
                self.forget(old.expires_at, Ends::Record(key.clone()));
            }
        }
        if new.is_some() {
            self.remember(new, Ends::Record(key));
        }
    }

    fn remember(&mut self, at: Option<EpochMillis>, ends: Ends) {
        if let Some(at) = at {
            self.agenda.insert((at, ends));
        }
    }

    fn forget(&mut self, at: Option<EpochMillis>, ends: Ends) {
        if let Some(at) = at {
            self.agenda.remove(&(at, ends));
        }
    }

    fn enqueue(&mut self, enqueue: Enqueue, now: EpochMillis, log: &mut Vec<u8>) -> ItemId {
        let Enqueue { queue, bytes, lifetime } = enqueue;
        let (id, expires_at) = (ItemId(self.item + 1), now.plus(lifetime));
        if self.pending.is_some() && queue.is_durable() {
            Op::Enqueue { queue: &queue, id, enqueued_at: now, expires_at, bytes: &bytes }.write(log);
        }
        let bytes = Bytes::copy_from_slice(&bytes);
        self.insert_item(queue, id, Kept { bytes, enqueued_at: now, expires_at });
        id
    }

    /// Puts an item behind what its queue holds, with all its bookkeeping. Its number is above theirs.
    pub(super) fn insert_item(&mut self, queue: QueueName, id: ItemId, item: Kept) {
        let Kept { bytes, enqueued_at, expires_at } = item;
        self.item = self.item.max(id.0);
        self.bytes += item_cost(&queue, bytes.len());
        self.remember(Some(expires_at), Ends::Item(queue.clone(), id));
        self.queues.push(queue, id, bytes, enqueued_at, expires_at);
    }

    fn remove_item(&mut self, queue: &QueueName, id: ItemId) -> bool {
        let Some(Gone { expires_at, len }) = self.queues.remove(queue, id) else { return false };
        self.bytes = self.bytes.saturating_sub(item_cost(queue, len));
        self.forget(Some(expires_at), Ends::Item(queue.clone(), id));
        true
    }

    fn drop_expired_items(&mut self, queue: &QueueName, now: EpochMillis) {
        for id in self.queues.expired(queue, now) {
            self.expired_items += u64::from(self.remove_item(queue, id));
        }
    }

    pub(super) fn take(
        &mut self,
        queue: &QueueName,
        consumer: &Consumer,
        max: usize,
        now: EpochMillis,
        hold: Duration,
    ) -> Result<Vec<Item>, StoreError> {
        if let Some(fence) = &consumer.fence {
            self.check_fence(fence, now)?;
        }
        self.drop_expired_items(queue, now);
        Ok(self.queues.take(queue, consumer, max, now, hold))
    }

    pub(super) fn claim_due(
        &mut self,
        shards: &[ShardClaim],
        max: usize,
        now: EpochMillis,
        hold: Duration,
    ) -> Result<Vec<Due>, StoreError> {
        for fence in shards.iter().filter_map(|claim| claim.fence.as_ref()) {
            self.check_fence(fence, now)?;
        }
        let mut due = Vec::new();
        for claim in shards {
            self.timers.claim(claim.shard, now, hold, max, &mut due);
        }
        Ok(due)
    }

    pub(super) fn timers(&self) -> &Timers {
        &self.timers
    }

    pub(super) fn acquire(
        &mut self,
        name: &LeaseName,
        holder: &str,
        now: EpochMillis,
        ttl: Duration,
        limits: &Limits,
    ) -> Result<Acquisition, StoreError> {
        if let Some(current) = self.holder(name, now) {
            if current.name != holder {
                return Ok(Acquisition::Held(current));
            }
        } else if !self.leases.contains_key(name) && self.leases.len() >= limits.leases {
            self.sweep(now, usize::MAX);
            at_most(Bound::Leases, self.leases.len() + 1, limits.leases)?;
        }
        self.token += 1;
        let (token, expires_at) = (self.token, now.plus(ttl));
        let old = self.leases.insert(name.clone(), Holder { name: holder.to_owned(), token, expires_at });
        self.forget(old.map(|old| old.expires_at), Ends::Lease(name.clone()));
        self.remember(Some(expires_at), Ends::Lease(name.clone()));
        let fence = Fence { lease: name.clone(), token };
        Ok(Acquisition::Granted(Lease { fence, holder: holder.to_owned(), expires_at }))
    }

    pub(super) fn renew(&mut self, lease: &Lease, now: EpochMillis, ttl: Duration) -> Result<Lease, StoreError> {
        self.check_fence(&lease.fence, now)?;
        let (name, expires_at) = (&lease.fence.lease, now.plus(ttl));
        let old = self.leases.get_mut(name).map(|holder| std::mem::replace(&mut holder.expires_at, expires_at));
        self.forget(old, Ends::Lease(name.clone()));
        self.remember(Some(expires_at), Ends::Lease(name.clone()));
        Ok(Lease { expires_at, ..lease.clone() })
    }

    pub(super) fn release(&mut self, lease: &Lease, now: EpochMillis) -> bool {
        if self.check_fence(&lease.fence, now).is_err() {
            return false;
        }
        let name = &lease.fence.lease;
        let old = self.leases.remove(name);
        self.forget(old.map(|old| old.expires_at), Ends::Lease(name.clone()));
        true
    }

    pub(super) fn holder(&self, name: &LeaseName, now: EpochMillis) -> Option<Holder> {
        self.leases.get(name).filter(|holder| holder.expires_at > now).cloned()
    }

    /// Copies everything that the journal keeps.
    pub(super) fn durable(&self) -> Content {
        Content {
            decisions: self.records.decisions().map(|(key, entry)| (key.clone(), entry.clone())).collect(),
            items: self.queues.durable().collect(),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            records: self.records.len(),
            bytes: self.bytes,
            timers: self.timers.len(),
            queued: self.queues.items(),
            leases: self.leases.len(),
            expired_items: self.expired_items,
        }
    }

    /// Counts what still has an end ahead, to see that nothing is left behind.
    #[cfg(test)]
    pub(super) fn agenda_len(&self) -> usize {
        self.agenda.len()
    }
}

fn end_of(lifetime: Lifetime, now: EpochMillis) -> Option<EpochMillis> {
    match lifetime {
        Lifetime::For(duration) => Some(now.plus(duration)),
        Lifetime::Durable => None,
    }
}

fn at_most(bound: Bound, size: usize, limit: usize) -> Result<(), StoreError> {
    if size > limit { Err(StoreError::Full { bound, limit }) } else { Ok(()) }
}
