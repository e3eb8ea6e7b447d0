//! Turns of which the store did not say whether it took them.
//!
//! When the connection to the store breaks, or the answer comes too late, a commit may have happened. Nothing that its turn wanted
//! was done, and whoever asked for it was refused or asks again; yet the record may say that a request is under way which never
//! left, and everything behind it would wait until its time is over. So what such a turn wrote is remembered, and the next turn
//! that finds exactly that begins from what was there before, as if it had never been. What another process wrote meanwhile looks
//! otherwise, since every turn writes times, numbers and tags of its own.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use isthmus_model::PairId;
use isthmus_store::Record;
use parking_lot::Mutex;

/// How many turns in a row are remembered for a pair. Each of them had found the store at work.
const IN_A_ROW: usize = 8;

/// What turns wrote, perhaps.
struct Attempts {
    /// The record before them.
    before: Option<Record>,
    /// What each would have left; `None` for nothing.
    written: Vec<Option<Bytes>>,
    since: Instant,
}

/// The record before turns that may have happened, if there was one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Before(pub(super) Option<Record>);

/// Turns that may have happened, by pair.
#[derive(Default)]
pub(super) struct Undecided(Mutex<HashMap<PairId, Attempts>>);

impl Undecided {
    /// Tells whether nothing is in doubt, which is nearly always so.
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Notes what a turn that began then may have `written` in place of the record `before` it; tells whether it is the pair's first.
    pub(super) fn note(&self, pair: PairId, before: Option<&Record>, written: Option<Bytes>, since: Instant) -> bool {
        let mut pairs = self.0.lock();
        let is_first = !pairs.contains_key(&pair);
        let attempts = pairs.entry(pair).or_insert_with(|| Attempts {
            before: before.cloned(),
            written: Vec::with_capacity(1),
            since,
        });
        if attempts.written.len() == IN_A_ROW {
            attempts.written.remove(0);
        }
        attempts.written.push(written);
        is_first
    }

    /// Returns the record before such turns, if what is `stored` is what one of them wrote. That nothing is there proves that only
    /// as long as no other process could take it away: `is_ours` tells so for a time until now.
    pub(super) fn undo(
        &self,
        pair: PairId,
        stored: Option<&Record>,
        is_ours: impl FnOnce(Duration) -> bool,
    ) -> Option<Before> {
        let mut pairs = self.0.lock();
        let attempts = pairs.get_mut(&pair)?;
        let is_stored = |written: &Option<Bytes>| written.as_ref() == stored.map(|record| &record.bytes);
        if let Some(place) = attempts.written.iter().position(is_stored)
            && (stored.is_some() || is_ours(attempts.since.elapsed()))
        {
            // The last one is the last to be dropped.
            let found = attempts.written.remove(place);
            attempts.written.push(found);
            return Some(Before(attempts.before.clone()));
        }
        // Where nothing has changed, what was on its way may still come.
        if stored.map(|record| record.version) != attempts.before.as_ref().map(|record| record.version) {
            pairs.remove(&pair);
        }
        None
    }

    /// A turn is done: nothing of the ones before it is in doubt any more.
    pub(super) fn forget(&self, pair: PairId) {
        self.0.lock().remove(&pair);
    }
}

#[cfg(test)]
mod tests {
    use isthmus_model::BareAddress;

    use super::*;

    fn pair() -> PairId {
        let bare = |jid| BareAddress::from_jid(jid).unwrap();
        PairId::of(&bare("juliet@corp.example"), &bare("ana@partner.example"))
    }

    fn record(version: u64, text: &'static str) -> Record {
        Record { version, bytes: Bytes::from_static(text.as_bytes()), expires_at: None }
    }

    #[test]
    fn what_turns_in_a_row_wrote_is_undone_to_what_was_before_the_first() {
        let (undecided, now) = (Undecided::default(), Instant::now());
        let before = record(1, "before");
        assert!(undecided.note(pair(), Some(&before), Some(Bytes::from_static(b"one")), now));
        assert_eq!(undecided.undo(pair(), Some(&record(2, "one")), |_| false), Some(Before(Some(before.clone()))));
        assert!(!undecided.note(pair(), Some(&before), Some(Bytes::from_static(b"two")), now));
        for (version, text) in [(2, "one"), (3, "two")] {
            assert_eq!(
                undecided.undo(pair(), Some(&record(version, text)), |_| false),
                Some(Before(Some(before.clone())))
            );
        }
        undecided.forget(pair());
        assert_eq!(undecided.undo(pair(), Some(&record(3, "two")), |_| true), None);
    }

    #[test]
    fn what_another_process_wrote_stands() {
        let (undecided, now) = (Undecided::default(), Instant::now());
        for stored in [Some(record(2, "another's")), None] {
            undecided.note(pair(), Some(&record(1, "before")), Some(Bytes::from_static(b"ours")), now);
            assert_eq!(undecided.undo(pair(), stored.as_ref(), |_| true), None);
            // Nor is it asked about again.
            assert_eq!(undecided.undo(pair(), Some(&record(3, "ours")), |_| true), None);
        }
    }

    #[test]
    fn what_was_still_on_its_way_is_undone_when_it_has_come() {
        let (undecided, now) = (Undecided::default(), Instant::now());
        for before in [Some(record(1, "before")), None] {
            undecided.note(pair(), before.as_ref(), Some(Bytes::from_static(b"ours")), now);
            assert_eq!(undecided.undo(pair(), before.as_ref(), |_| true), None);
            assert_eq!(undecided.undo(pair(), Some(&record(3, "ours")), |_| true), Some(Before(before)));
            undecided.forget(pair());
        }
    }

    #[test]
    fn what_is_stored_is_remembered_however_many_turns_follow() {
        let (undecided, now) = (Undecided::default(), Instant::now());
        let before = record(1, "before");
        undecided.note(pair(), Some(&before), Some(Bytes::from_static(b"stored")), now);
        for number in 0..3 * IN_A_ROW {
            assert!(undecided.undo(pair(), Some(&record(2, "stored")), |_| false).is_some());
            undecided.note(pair(), Some(&before), Some(number.to_string().into()), now);
        }
    }

    #[test]
    fn a_deletion_is_undone_only_while_nobody_else_could_do_it() {
        let (undecided, now) = (Undecided::default(), Instant::now());
        let before = record(1, "before");
        undecided.note(pair(), Some(&before), None, now);
        assert_eq!(undecided.undo(pair(), None, |_| true), Some(Before(Some(before))));
        assert_eq!(undecided.undo(pair(), None, |_| false), None);
    }
}
