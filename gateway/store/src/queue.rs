//! Work for other processes: bounded, in order, acknowledged.
//!
//! Work gets into a queue only as part of a commit. It stays until it is acknowledged or its lifetime ends.
//! A queue has one consumer at a time, since two could not keep the order: the one that took last, until
//! what it took is acknowledged or was held too long. A consumer under a newer token of the same lease
//! takes over at once. What the consumer before it took and did not acknowledge comes again, first things
//! first, with a higher `attempt`. The end of a hold wakes nobody: who wants to take over without a newer
//! token looks again after it.
//!
//! Items of a durable queue ([`crate::QueueName::is_durable`]) are kept like users' decisions: when the commit
//! returns they survive the process, as far as the store survives it. Items of other queues may be lost with it.
//! `attempt` may begin again at 1 after that.

use bytes::Bytes;
use isthmus_model::EpochMillis;

use crate::lease::Fence;

/// Names an item within its queue; later items have higher ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId(pub u64);

/// Who takes work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    /// A name that no other process and no earlier life of this one has.
    pub name: String,
    /// The lease under which it takes, if the queue belongs to one.
    pub fence: Option<Fence>,
}

/// Work that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its name for [`crate::Batch::ack`].
    pub id: ItemId,
    /// What was put in.
    pub bytes: Bytes,
    /// How often it was taken, from 1; above 1 it may have been done already.
    pub attempt: u32,
    /// When it was put in.
    pub enqueued_at: EpochMillis,
}
