//! How much of something is under way, by pair.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use isthmus_model::PairId;
use parking_lot::Mutex;

/// Counts by pair; a pair of which nothing is under way costs nothing.
#[derive(Default)]
pub(super) struct PairCounts(Mutex<HashMap<PairId, usize>>);

impl PairCounts {
    /// Tells whether nothing is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Tells whether something is under way for a pair.
    pub(super) fn has(&self, pair: PairId) -> bool {
        self.0.lock().contains_key(&pair)
    }

    /// Counts one more.
    pub(super) fn add(&self, pair: PairId) {
        *self.0.lock().entry(pair).or_default() += 1;
    }

    /// Counts one less.
    pub(super) fn remove(&self, pair: PairId) {
        if let Entry::Occupied(mut count) = self.0.lock().entry(pair) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}
