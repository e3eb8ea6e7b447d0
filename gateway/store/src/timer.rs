//! Due times that outlive a process.
//!
//! A timer is named by kind and record; setting it again moves it. Whoever serves the shard claims what is
//! due. A claim that is not completed while it is held comes again, so a timer fires at least once, and its
//! handler first compares `generation` with the record and drops what is stale.

use std::time::Duration;

use isthmus_model::EpochMillis;

use crate::key::{Key, Shard};
use crate::lease::Fence;

/// What a timer is for, numbered by the gateway. Numbers are stored: they are never given a new meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerKind(pub u16);

/// A due time of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timer {
    /// What is to be done.
    pub kind: TimerKind,
    /// The record that it is about.
    pub key: Key,
    /// When.
    pub due: EpochMillis,
    /// What the record says when the timer still matters.
    pub generation: u64,
}

impl Timer {
    /// Returns the shard that the timer is in: that of its record's slot.
    pub fn shard(&self) -> Shard {
        self.key.slot().shard()
    }
}

/// A timer that is due, claimed by the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The timer.
    pub timer: Timer,
    /// Names this claim for [`crate::Batch::complete`].
    pub claim: u64,
    /// How often the timer was claimed since it was set, from 1.
    pub attempt: u32,
    /// Until when nobody else gets it.
    pub held_until: EpochMillis,
}

/// Where a walk over the timers of a shard goes on ([`crate::Store::timers`]). Its text belongs to the backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimerCursor(pub(crate) String);

/// A part of a shard's timers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TimerPage {
    /// Names of timers, in no particular order; possibly none, though more follow.
    pub timers: Vec<(TimerKind, Key)>,
    /// Where to go on; `None` at the end.
    pub next: Option<TimerCursor>,
}

/// A shard to claim from, with the proof that it is the caller's to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardClaim {
    /// The shard.
    pub shard: Shard,
    /// The fence of its lease; `None` where one process serves all.
    pub fence: Option<Fence>,
}

impl ShardClaim {
    /// Claims all shards without fences, for the one process of an embedded store.
    pub fn all() -> Vec<Self> {
        Shard::all().map(|shard| Self { shard, fence: None }).collect()
    }
}

/// How long a claim should be held when the caller has no better idea: long enough for a handler to write, and short enough
/// that what a process claimed before it died is done by another one within 10 s (interworking specification S-41). A
/// handler that takes longer is asked again, and finds in the record that it is at work.
pub const CLAIM_HOLD: Duration = Duration::from_secs(8);
