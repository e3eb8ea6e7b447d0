//! The queues of a memory store.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use isthmus_model::EpochMillis;

use crate::key::QueueName;
use crate::queue::{Consumer, Item, ItemId};

use super::records::OVERHEAD;

#[derive(Debug)]
struct Entry {
    id: ItemId,
    bytes: Bytes,
    attempt: u32,
    enqueued_at: EpochMillis,
    expires_at: EpochMillis,
    /// Until when the consumer has it; `None` while it waits.
    held_until: Option<EpochMillis>,
}

/// One queue. The items that were taken are always the first ones.
#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Entry>,
    consumer: Option<Consumer>,
}

/// An item of a durable queue as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) bytes: Bytes,
    pub(super) enqueued_at: EpochMillis,
    pub(super) expires_at: EpochMillis,
}

impl Kept {
    /// Returns what the item counts for against the limit on octets.
    pub(super) fn cost(&self, queue: &QueueName) -> usize {
        item_cost(queue, self.bytes.len())
    }
}

/// Returns what an item of this size counts for.
pub(super) fn item_cost(queue: &QueueName, len: usize) -> usize {
    queue.len() + len + OVERHEAD
}

/// An item that left its queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gone {
    pub(super) expires_at: EpochMillis,
    pub(super) len: usize,
}

/// All queues; an empty one is not kept.
#[derive(Debug, Default)]
pub(super) struct Queues {
    queues: HashMap<QueueName, Queue>,
    items: usize,
}

impl Queues {
    /// Counts the queues.
    pub(super) fn len(&self) -> usize {
        self.queues.len()
    }

    /// Counts the items of all queues.
    pub(super) fn items(&self) -> usize {
        self.items
    }

    /// Counts the items of one queue; `None` if it is not kept.
    pub(super) fn items_of(&self, name: &QueueName) -> Option<usize> {
        self.queues.get(name).map(|queue| queue.items.len())
    }

    pub(super) fn push(
        &mut self,
        name: QueueName,
        id: ItemId,
        bytes: Bytes,
        enqueued_at: EpochMillis,
        expires_at: EpochMillis,
    ) {
        let entry = Entry { id, bytes, attempt: 0, enqueued_at, expires_at, held_until: None };
        self.queues.entry(name).or_default().items.push_back(entry);
        self.items += 1;
    }

    /// Lists the items of durable queues, in no order of queues.
    pub(super) fn durable(&self) -> impl Iterator<Item = ((QueueName, ItemId), Kept)> {
        self.queues.iter().filter(|(name, _)| name.is_durable()).flat_map(|(name, queue)| {
            queue.items.iter().map(|entry| {
                let Entry { id, bytes, enqueued_at, expires_at, .. } = entry;
                let kept = Kept { bytes: bytes.clone(), enqueued_at: *enqueued_at, expires_at: *expires_at };
                ((name.clone(), *id), kept)
            })
        })
    }

    /// Removes an item.
    pub(super) fn remove(&mut self, name: &QueueName, id: ItemId) -> Option<Gone> {
        let queue = self.queues.get_mut(name)?;
        let at = queue.items.binary_search_by_key(&id, |entry| entry.id).ok()?;
        let entry = queue.items.remove(at)?;
        self.items -= 1;
        if queue.items.is_empty() {
            self.queues.remove(name);
        }
        Some(Gone { expires_at: entry.expires_at, len: entry.bytes.len() })
    }

    /// Lists the items of one queue whose time is over.
    pub(super) fn expired(&self, name: &QueueName, now: EpochMillis) -> Vec<ItemId> {
        let items = self.queues.get(name).into_iter().flat_map(|queue| &queue.items);
        items.filter(|entry| entry.expires_at <= now).map(|entry| entry.id).collect()
    }

    /// Takes items for a consumer whose fence was checked.
    pub(super) fn take(
        &mut self,
        name: &QueueName,
        consumer: &Consumer,
        max: usize,
        now: EpochMillis,
        hold: Duration,
    ) -> Vec<Item> {
        let Some(queue) = self.queues.get_mut(name) else { return Vec::new() };
        let held = queue.items.front().and_then(|entry| entry.held_until);
        if let (Some(held_until), Some(current)) = (held, &queue.consumer) {
            let starts_over = held_until <= now || supersedes(consumer, current);
            if starts_over {
                queue.items.iter_mut().for_each(|entry| entry.held_until = None);
            } else if current != consumer {
                return Vec::new();
            }
        }
        let held_until = now.plus(hold);
        let waiting = queue.items.iter_mut().skip_while(|entry| entry.held_until.is_some()).take(max);
        let taken: Vec<_> = waiting
            .map(|entry| {
                entry.held_until = Some(held_until);
                entry.attempt = entry.attempt.saturating_add(1);
                Item {
                    id: entry.id,
                    bytes: entry.bytes.clone(),
                    attempt: entry.attempt,
                    enqueued_at: entry.enqueued_at,
                }
            })
            .collect();
        if !taken.is_empty() {
            queue.consumer = Some(consumer.clone());
        }
        taken
    }
}

/// Tells whether a consumer took the place of another under the same lease.
fn supersedes(new: &Consumer, old: &Consumer) -> bool {
    match (&new.fence, &old.fence) {
        (Some(new), Some(old)) => new.lease == old.lease && new.token > old.token,
        _ => false,
    }
}
