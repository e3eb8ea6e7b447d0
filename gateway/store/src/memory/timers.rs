//! The due times of a memory store.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use isthmus_model::EpochMillis;

use crate::key::{Key, SHARDS, Shard};
use crate::timer::{Due, Timer, TimerCursor, TimerKind, TimerPage};

#[derive(Debug)]
struct Entry {
    timer: Timer,
    /// When it can be claimed: the due time, or the end of the hold.
    at: EpochMillis,
    /// The claim that stands, 0 for none.
    claim: u64,
    attempt: u32,
}

/// The timers of one shard.
#[derive(Debug, Default)]
struct Part {
    /// By name, so that a walk over them is not led astray when a due time moves.
    entries: BTreeMap<(TimerKind, Key), Entry>,
    order: BTreeSet<(EpochMillis, TimerKind, Key)>,
}

/// All timers.
#[derive(Debug)]
pub(super) struct Timers {
    shards: Vec<Part>,
    len: usize,
    claims: u64,
}

impl Default for Timers {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Part::default()).collect(), len: 0, claims: 0 }
    }
}

impl Timers {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn part(&self, shard: Shard) -> Option<&Part> {
        self.shards.get(usize::from(shard.number()))
    }

    pub(super) fn contains(&self, kind: TimerKind, key: &Key) -> bool {
        // The tuple key costs a clone; it is paid only when the store is nearly full.
        self.part(key.shard()).is_some_and(|part| part.entries.contains_key(&(kind, key.clone())))
    }

    /// Sets a timer; tells whether it is now the earliest of its shard.
    pub(super) fn set(&mut self, timer: Timer) -> bool {
        let (name, shard, at) = ((timer.kind, timer.key.clone()), usize::from(timer.shard().number()), timer.due);
        let Some(part) = self.shards.get_mut(shard) else { return false };
        match part.entries.insert(name.clone(), Entry { timer, at, claim: 0, attempt: 0 }) {
            Some(old) => _ = part.order.remove(&(old.at, name.0, name.1.clone())),
            None => self.len += 1,
        }
        let earliest = part.order.first().is_none_or(|(first, ..)| at < *first);
        part.order.insert((at, name.0, name.1));
        earliest
    }

    pub(super) fn cancel(&mut self, kind: TimerKind, key: Key) {
        self.remove((kind, key), |_| true);
    }

    pub(super) fn complete(&mut self, due: Due) {
        self.remove((due.timer.kind, due.timer.key), |entry| entry.claim == due.claim);
    }

    fn remove(&mut self, name: (TimerKind, Key), which: impl FnOnce(&Entry) -> bool) {
        let Some(part) = self.shards.get_mut(usize::from(name.1.shard().number())) else { return };
        let Some(entry) = part.entries.get(&name).filter(|entry| which(entry)) else { return };
        let at = entry.at;
        part.entries.remove(&name);
        part.order.remove(&(at, name.0, name.1));
        self.len -= 1;
    }

    /// Names timers of a shard, in the order of their names.
    pub(super) fn page(&self, shard: Shard, after: Option<&TimerCursor>, max: usize) -> TimerPage {
        let Some(part) = self.part(shard) else { return TimerPage::default() };
        let from = after.and_then(|cursor| parse_name(&cursor.0));
        let rest = match &from {
            Some(name) => part.entries.range((Bound::Excluded(name), Bound::Unbounded)),
            None => part.entries.range(..),
        };
        let mut names = rest.map(|(name, _)| name);
        let timers: Vec<_> = names.by_ref().take(max.max(1)).cloned().collect();
        let last = names.next().and_then(|_| timers.last());
        TimerPage { next: last.map(|(kind, key)| TimerCursor(format!("{}:{key}", kind.0))), timers }
    }

    pub(super) fn next_due(&self, shards: &[Shard]) -> Option<EpochMillis> {
        let sets = shards.iter().filter_map(|shard| self.part(*shard));
        sets.filter_map(|part| part.order.first().map(|(at, ..)| *at)).min()
    }

    /// Claims what is due in one shard, up to `max` in all of `out`.
    pub(super) fn claim(&mut self, shard: Shard, now: EpochMillis, hold: Duration, max: usize, out: &mut Vec<Due>) {
        let Some(Part { entries, order: set }) = self.shards.get_mut(usize::from(shard.number())) else { return };
        let held_until = now.plus(hold);
        let mut held = Vec::new();
        while out.len() < max && set.first().is_some_and(|(at, ..)| *at <= now) {
            let Some((_, kind, key)) = set.pop_first() else { break };
            let name = (kind, key);
            let Some(entry) = entries.get_mut(&name) else { continue };
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

/// Reads the name in a cursor.
fn parse_name(text: &str) -> Option<(TimerKind, Key)> {
    let (kind, key) = text.split_once(':')?;
    Some((TimerKind(kind.parse().ok()?), Key::parse(key)?))
}
