//! The records of a memory store.

use std::collections::HashMap;

use bytes::Bytes;
use isthmus_model::EpochMillis;

use crate::key::Key;
use crate::record::Record;

/// What a record or item costs beside its name and content: map slots, the agenda's entry, allocations.
pub(super) const OVERHEAD: usize = 160;

/// A record in memory.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) version: u64,
    pub(super) bytes: Bytes,
    pub(super) expires_at: Option<EpochMillis>,
}

impl Entry {
    /// Tells whether the record is still there for others.
    pub(super) fn is_live(&self, now: EpochMillis) -> bool {
        self.expires_at.is_none_or(|at| at > now)
    }

    /// Returns what the record counts for against the limit on octets.
    pub(super) fn cost(&self, key: &Key) -> usize {
        cost(key, self.bytes.len())
    }

    /// Returns the record as readers see it.
    pub(super) fn to_record(&self) -> Record {
        Record { version: self.version, bytes: self.bytes.clone(), expires_at: self.expires_at }
    }
}

/// Returns what a record of this size counts for.
pub(super) fn cost(key: &Key, len: usize) -> usize {
    key.len() + len + OVERHEAD
}

/// All records. Decisions are apart, since the journal is written anew from them.
#[derive(Debug, Default)]
pub(super) struct Records {
    volatile: HashMap<Key, Entry>,
    decisions: HashMap<Key, Entry>,
}

impl Records {
    /// Returns the record if others may see it.
    pub(super) fn live(&self, key: &Key, now: EpochMillis) -> Option<&Entry> {
        self.stored(key).filter(|entry| entry.is_live(now))
    }

    /// Returns the record even if its time is over.
    pub(super) fn stored(&self, key: &Key) -> Option<&Entry> {
        if key.kind().is_decision() { self.decisions.get(key) } else { self.volatile.get(key) }
    }

    /// Returns the record for change, even if its time is over.
    pub(super) fn stored_mut(&mut self, key: &Key) -> Option<&mut Entry> {
        if key.kind().is_decision() { self.decisions.get_mut(key) } else { self.volatile.get_mut(key) }
    }

    pub(super) fn insert(&mut self, key: Key, entry: Entry) -> Option<Entry> {
        if key.kind().is_decision() { self.decisions.insert(key, entry) } else { self.volatile.insert(key, entry) }
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Entry> {
        if key.kind().is_decision() { self.decisions.remove(key) } else { self.volatile.remove(key) }
    }

    pub(super) fn len(&self) -> usize {
        self.volatile.len() + self.decisions.len()
    }

    /// Lists the decisions, in no order.
    pub(super) fn decisions(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.decisions.iter()
    }
}
