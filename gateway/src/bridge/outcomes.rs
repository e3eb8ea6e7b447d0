//! What became of requests of pairs, on its way to their machines.
//!
//! A dialog has one request under way at a time. When its outcome is lost, everything that follows waits until the time of the
//! transaction is over, 32 s later. So an outcome that the store does not take is kept here until it does. Nothing else of
//! the dialog leaves meanwhile, so what is kept is never more than what was under way when the store failed.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use isthmus_model::PairId;

use super::Bridge;

/// The pause after the store failed.
const PAUSE: Duration = Duration::from_millis(500);
/// How long an outcome is kept. The machine finds out for itself that a request is over.
const KEPT: Duration = Duration::from_secs(3600);

/// The outcomes that wait for the store.
#[derive(Default)]
pub(super) struct Outcomes {
    kept: AtomicUsize,
}

impl Outcomes {
    /// Tells whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.load(Ordering::Relaxed) == 0
    }
}

impl Bridge {
    /// Has an outcome taken in the pair's lane: `turn` tells whether it is stored, or never will be, and runs again when it is
    /// not.
    pub(super) fn take_outcome<O, F>(self: &Arc<Self>, pair: PairId, outcome: Arc<O>, turn: fn(Arc<Self>, Arc<O>) -> F)
    where
        O: Send + Sync + 'static,
        F: Future<Output = bool> + Send + 'static,
    {
        self.try_outcome(pair, outcome, turn, Instant::now());
    }

    fn try_outcome<O, F>(
        self: &Arc<Self>,
        pair: PairId,
        outcome: Arc<O>,
        turn: fn(Arc<Self>, Arc<O>) -> F,
        since: Instant,
    ) where
        O: Send + Sync + 'static,
        F: Future<Output = bool> + Send + 'static,
    {
        let (bridge, kept) = (Arc::clone(self), Arc::clone(&outcome));
        let submitted = self.lanes.submit(pair, async move {
            if !turn(Arc::clone(&bridge), Arc::clone(&outcome)).await {
                bridge.keep_outcome(pair, outcome, turn, since);
            }
        });
        if submitted.is_err() {
            self.metrics.refused("lane_full");
            self.keep_outcome(pair, kept, turn, since);
        }
    }

    fn keep_outcome<O, F>(
        self: &Arc<Self>,
        pair: PairId,
        outcome: Arc<O>,
        turn: fn(Arc<Self>, Arc<O>) -> F,
        since: Instant,
    ) where
        O: Send + Sync + 'static,
        F: Future<Output = bool> + Send + 'static,
    {
        if since.elapsed() > KEPT {
            self.metrics.refused("outcome_lost");
            return;
        }
        let bridge = Arc::clone(self);
        self.outcomes.kept.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            tokio::time::sleep(PAUSE).await;
            if bridge.store.is_shared() {
                bridge.outage.is_over().await;
            }
            bridge.try_outcome(pair, outcome, turn, since);
            bridge.outcomes.kept.fetch_sub(1, Ordering::Relaxed);
        });
    }
}
