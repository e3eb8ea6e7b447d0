//! The due times of a memory store.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use isthmus_model::EpochMillis;

use crate::key::{Key, SHARDS, Shard};
use crate::timer::{Due, Timer, TimerKind};

#[derive(Debug)]
struct Entry {
    timer: Timer,
    /// When it can be claimed: the due time, or the end of the hold.
    at: EpochMillis,
    /// The claim that stands, 0 for none.
    claim: u64,
    attempt: u32,
}

/// All timers.
#[derive(Debug)]
pub(super) struct Timers {
    entries: HashMap<(TimerKind, Key), Entry>,
    shards: Vec<BTreeSet<(EpochMillis, TimerKind, Key)>>,
    claims: u64,
}

impl Default for Timers {
    fn default() -> Self {
        Self { entries: HashMap::new(), shards: vec![BTreeSet::new(); usize::from(SHARDS)], claims: 0 }
    }
}

impl Timers {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn contains(&self, kind: TimerKind, key: &Key) -> bool {
        // The tuple key costs a clone; it is paid only when the store is nearly full.
        self.entries.contains_key(&(kind, key.clone()))
    }

    /// Sets a timer; tells whether it is now the earliest of its shard.
    pub(super) fn set(&mut self, timer: Timer) -> bool {
        let (name, shard, at) = ((timer.kind, timer.key.clone()), usize::from(timer.shard().number()), timer.due);
        let old = self.entries.insert(name.clone(), Entry { timer, at, claim: 0, attempt: 0 });
        let Some(set) = self.shards.get_mut(shard) else { return false };
        if let Some(old) = old {
            set.remove(&(old.at, name.0, name.1.clone()));
        }
        let earliest = set.first().is_none_or(|(first, ..)| at < *first);
        set.insert((at, name.0, name.1));
        earliest
    }

    pub(super) fn cancel(&mut self, kind: TimerKind, key: Key) {
        self.remove((kind, key), |_| true);
    }

    pub(super) fn complete(&mut self, due: Due) {
        self.remove((due.timer.kind, due.timer.key), |entry| entry.claim == due.claim);
    }

    fn remove(&mut self, name: (TimerKind, Key), which: impl FnOnce(&Entry) -> bool) {
        let Some(entry) = self.entries.get(&name).filter(|entry| which(entry)) else { return };
        let (shard, at) = (entry.timer.shard(), entry.at);
        self.entries.remove(&name);
        if let Some(set) = self.shards.get_mut(usize::from(shard.number())) {
            set.remove(&(at, name.0, name.1));
        }
    }

    pub(super) fn next_due(&self, shards: &[Shard]) -> Option<EpochMillis> {
        let sets = shards.iter().filter_map(|shard| self.shards.get(usize::from(shard.number())));
        sets.filter_map(|set| set.first().map(|(at, ..)| *at)).min()
    }

    /// Claims what is due in one shard, up to `max` in all of `out`.
    pub(super) fn claim(&mut self, shard: Shard, now: EpochMillis, hold: Duration, max: usize, out: &mut Vec<Due>) {
        let Some(set) = self.shards.get_mut(usize::from(shard.number())) else { return };
        let held_until = now.plus(hold);
        let mut held = Vec::new();
        while out.len() < max && set.first().is_some_and(|(at, ..)| *at <= now) {
            let Some((_, kind, key)) = set.pop_first() else { break };
            let name = (kind, key);
            let Some(entry) = self.entries.get_mut(&name) else { continue };
            self.claims += 1;
            entry.claim = self.claims;
            entry.at = held_until;
            entry.attempt = entry.attempt.saturating_add(1);
            out.push(Due { timer: entry.timer.clone(), claim: entry.claim, attempt: entry.attempt, held_until });
            held.push((held_until, name.0, name.1));
        }
        // Put back after the loop, so that a hold of zero cannot make it endless.
        set.extend(held);
    }
}
