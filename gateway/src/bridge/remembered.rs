//! Records as this process read or wrote them last, so that a turn of a pair it works for need not read them first.
//!
//! What is remembered is never believed: the commit of a turn asks that the pair's own record and everything beside it in
//! its slot is still what the turn was given, and a turn that was given something else changed nothing, sends nothing and
//! is run again with what the store says. A version is never used twice, not even after the data was lost, so nobody can
//! bring an old one back. Records of other slots cannot be asked about in the same commit; of those that a turn needs there
//! is only the spelling of a remote user, which this process writes itself when it hears another one.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use isthmus_store::{Key, Record};
use parking_lot::Mutex;

/// The most that is remembered, in bytes; half of it is forgotten when there is more.
const MOST: usize = 32 * 1024 * 1024;
/// What an entry takes beside its content, in bytes.
const OVERHEAD: usize = 256;
/// A record is remembered so long after it was read or written.
const FRESH: Duration = Duration::from_secs(3600);

/// What a record was, and when.
struct Known {
    record: Option<Record>,
    at: Instant,
}

impl Known {
    fn size(&self) -> usize {
        OVERHEAD + self.record.as_ref().map_or(0, |record| record.bytes.len())
    }
}

#[derive(Default)]
struct Generation {
    records: HashMap<Key, Known>,
    bytes: usize,
}

impl Generation {
    fn insert(&mut self, key: Key, known: Known) {
        self.bytes += known.size();
        if let Some(former) = self.records.insert(key, known) {
            self.bytes -= former.size();
        }
    }

    fn remove(&mut self, key: &Key) -> Option<Known> {
        let known = self.records.remove(key)?;
        self.bytes -= known.size();
        Some(known)
    }
}

#[derive(Default)]
struct Generations {
    young: Generation,
    old: Generation,
}

impl Generations {
    fn insert(&mut self, key: Key, known: Known) {
        if self.young.bytes >= MOST / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, known);
    }
}

/// The records that were read or written last.
#[derive(Default)]
pub(super) struct Remembered(Mutex<Generations>);

impl Remembered {
    /// Returns records in the order of their keys; `None` when one of them is not known, or the first is known to be
    /// absent: a turn on nothing may write nothing, and then nobody would ask whether that is true.
    pub(super) fn recall(&self, keys: &[Key], now: Instant) -> Option<Vec<Option<Record>>> {
        let mut generations = self.0.lock();
        let mut found = Vec::with_capacity(keys.len() + 1);
        for key in keys {
            if !generations.young.records.contains_key(key) {
                let known = generations.old.remove(key)?;
                generations.insert(key.clone(), known);
            }
            let known = generations.young.records.get(key)?;
            if now.saturating_duration_since(known.at) > FRESH || found.is_empty() && known.record.is_none() {
                return None;
            }
            found.push(known.record.clone());
        }
        Some(found)
    }

    /// Takes note of a record that was read or written. One that is known already to have been written later stays.
    pub(super) fn note(&self, key: &Key, record: Option<Record>, now: Instant) {
        let mut generations = self.0.lock();
        let former = generations.young.records.get(key).or_else(|| generations.old.records.get(key));
        let version = |record: &Option<Record>| record.as_ref().map(|record| record.version);
        if former.is_some_and(|former| version(&former.record) > version(&record) && record.is_some()) {
            return;
        }
        generations.insert(key.clone(), Known { record, at: now });
    }

    /// Forgets records of which it is not known any more what they are.
    pub(super) fn forget(&self, keys: &[Key]) {
        let mut generations = self.0.lock();
        for key in keys {
            generations.young.remove(key);
            generations.old.remove(key);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        *self.0.lock() = Generations::default();
    }
}

#[cfg(test)]
mod tests {
    use isthmus_model::{BareAddress, PairId};

    use super::*;

    fn key(n: usize) -> Key {
        let bare = |jid: &str| BareAddress::from_jid(jid).unwrap();
        Key::pair(&PairId::of(&bare("juliet@corp.example"), &bare(&format!("u{n}@partner.example"))))
    }

    fn record(version: u64, size: usize) -> Record {
        Record { version, bytes: vec![b'x'; size].into(), expires_at: None }
    }

    #[test]
    fn records_are_recalled_together_or_not_at_all() {
        let (remembered, now) = (Remembered::default(), Instant::now());
        let keys = [key(1), key(2)];
        remembered.note(&keys[0], Some(record(7, 1)), now);
        assert_eq!(remembered.recall(&keys, now), None);
        remembered.note(&keys[1], None, now);
        assert_eq!(remembered.recall(&keys, now), Some(vec![Some(record(7, 1)), None]));
        // Nothing is done on the word of a memory that there is nothing.
        assert_eq!(remembered.recall(&[key(2), key(1)], now), None);
        assert_eq!(remembered.recall(&keys, now + FRESH + Duration::from_millis(1)), None);
        remembered.forget(&keys[1..]);
        assert_eq!(remembered.recall(&keys, now), None);
        assert_eq!(remembered.recall(&keys[..1], now), Some(vec![Some(record(7, 1))]));
        remembered.clear();
        assert_eq!(remembered.recall(&keys[..1], now), None);
    }

    #[test]
    fn of_two_turns_the_later_write_is_remembered_whichever_tells_first() {
        let (remembered, now) = (Remembered::default(), Instant::now());
        for version in [7, 9, 8] {
            remembered.note(&key(1), Some(record(version, 1)), now);
        }
        assert_eq!(remembered.recall(&[key(1)], now), Some(vec![Some(record(9, 1))]));
        remembered.note(&key(1), None, now);
        assert_eq!(remembered.recall(&[key(1)], now), None);
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        const SIZE: usize = 100_000;
        let (remembered, now) = (Remembered::default(), Instant::now());
        let many = 3 * MOST / SIZE;
        for n in 0..many {
            remembered.note(&key(n), Some(record(1, SIZE)), now);
            assert!(remembered.recall(&[key(0)], now).is_some());
        }
        let generations = remembered.0.lock();
        assert!(generations.young.bytes + generations.old.bytes <= MOST + 2 * (SIZE + OVERHEAD));
        drop(generations);
        assert!(remembered.recall(&[key(many - 1)], now).is_some());
        assert_eq!(remembered.recall(&[key(1)], now), None);
    }
}
