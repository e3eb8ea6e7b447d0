//! Work that the store did not take, and of which nobody can be told so.
//!
//! What came from a peer is refused when it cannot be stored, and what is due comes again. The rest is kept here until the store
//! takes it. Most of it is what became of requests: a dialog has one request under way at a time, and when its outcome is lost,
//! everything that follows waits until the time of the transaction is over, 32 s later. Nothing else of the dialog leaves
//! meanwhile, so what is kept is never much more than what was under way when the store failed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isthmus_model::PairId;
use parking_lot::Mutex;

use super::Bridge;

/// The pause after the store failed, at least; what was kept does not all come back at the same moment.
const PAUSE: Duration = Duration::from_millis(500);
/// How long work is kept.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// The work that waits for the store.
#[derive(Default)]
pub(super) struct Unstored(Mutex<HashMap<PairId, usize>>);

impl Unstored {
    /// Tells whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Tells whether some waits for a pair.
    pub(super) fn has(&self, pair: PairId) -> bool {
        self.0.lock().contains_key(&pair)
    }

    fn add(&self, pair: PairId) {
        *self.0.lock().entry(pair).or_default() += 1;
    }

    fn remove(&self, pair: PairId) {
        if let Entry::Occupied(mut count) = self.0.lock().entry(pair) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl Bridge {
    /// Does work in the pair's lane, as often as it takes: `turn` tells whether it is stored, or never will be.
    pub(super) fn until_stored<W, F>(self: &Arc<Self>, pair: PairId, work: Arc<W>, turn: fn(Arc<Self>, Arc<W>) -> F)
    where
        W: Send + Sync + 'static,
        F: Future<Output = bool> + Send + 'static,
    {
        self.try_to_store(pair, work, turn, Instant::now());
    }

    fn try_to_store<W, F>(
        self: &Arc<Self>,
        pair: PairId,
        work: Arc<W>,
        turn: fn(Arc<Self>, Arc<W>) -> F,
        since: Instant,
    ) where
        W: Send + Sync + 'static,
        F: Future<Output = bool> + Send + 'static,
    {
        let (bridge, kept) = (Arc::clone(self), Arc::clone(&work));
        let submitted = self.lanes.submit(pair, async move {
            if !turn(Arc::clone(&bridge), Arc::clone(&work)).await {
                bridge.keep_unstored(pair, work, turn, since);
            }
        });
        if submitted.is_err() {
            self.metrics.refused("lane_full");
            self.keep_unstored(pair, kept, turn, since);
        }
    }

    /// Keeps work that the store has not taken `since` then, and does it when it does.
    pub(super) fn keep_unstored<W, F>(
        self: &Arc<Self>,
        pair: PairId,
        work: Arc<W>,
        turn: fn(Arc<Self>, Arc<W>) -> F,
        since: Instant,
    ) where
        W: Send + Sync + 'static,
        F: Future<Output = bool> + Send + 'static,
    {
        if since.elapsed() > KEPT {
            self.metrics.refused("unstored_lost");
            tracing::error!("work of a pair is given up: the store has not taken it for a day");
            return;
        }
        let bridge = Arc::clone(self);
        self.unstored.add(pair);
        tokio::spawn(async move {
            tokio::time::sleep(PAUSE.mul_f64(rand::random_range(1.0..1.5))).await;
            if bridge.store.is_shared() {
                bridge.outage.is_over().await;
            }
            bridge.try_to_store(pair, work, turn, since);
            bridge.unstored.remove(pair);
        });
    }
}
