//! Work that the store did not take, and of which nobody can be told so.
//!
//! What came from a peer is refused when it cannot be stored, and what is due comes again. The rest is kept here until the store
//! takes it. Most of it is what became of requests: a dialog has one request under way at a time, and when its outcome is lost,
//! everything that follows waits until the time of the transaction is over, 32 s later. Nothing else of the dialog leaves
//! meanwhile, so what is kept is never much more than what was under way when the store failed. Of ACKs only those are kept that are
//! for a 2xx of ours.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isthmus_model::PairId;

use super::Bridge;

/// The pause after the store failed, at least; what was kept does not all come back at the same moment.
const PAUSE: Duration = Duration::from_millis(500);
/// How long work is kept.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// Work of a pair, and the turn that does it: it tells whether that is stored, or never will be.
struct Job<W, F> {
    pair: PairId,
    work: Arc<W>,
    turn: fn(Arc<Bridge>, Arc<W>) -> F,
    since: Instant,
}

impl<W, F> Job<W, F>
where
    W: Send + Sync + 'static,
    F: Future<Output = bool> + Send + 'static,
{
    fn submit(self, bridge: &Arc<Bridge>) {
        let Self { pair, work, turn, since } = self;
        let (at_work, again) = (Arc::clone(bridge), Self { pair, work: Arc::clone(&work), turn, since });
        let submitted = bridge.lanes.submit(pair, async move {
            if !turn(Arc::clone(&at_work), Arc::clone(&work)).await {
                Self { pair, work, turn, since }.keep(&at_work);
            }
        });
        if submitted.is_err() {
            bridge.metrics.refused("lane_full");
            again.keep(bridge);
        }
    }

    fn keep(self, bridge: &Arc<Bridge>) {
        if self.since.elapsed() > KEPT {
            bridge.metrics.refused("unstored_lost");
            tracing::error!("work of a pair is given up: the store has not taken it for a day");
            return;
        }
        let (bridge, pair) = (Arc::clone(bridge), self.pair);
        bridge.unstored.add(pair);
        tokio::spawn(async move {
            tokio::time::sleep(PAUSE.mul_f64(rand::random_range(1.0..1.5))).await;
            if bridge.store.is_shared() {
                bridge.outage.is_over().await;
            }
            self.submit(&bridge);
            bridge.unstored.remove(pair);
        });
    }
}

impl Bridge {
    /// Does work in the pair's lane, as often as it takes: `turn` tells whether it is stored, or never will be.
    pub(super) fn until_stored<W, F>(self: &Arc<Self>, pair: PairId, work: Arc<W>, turn: fn(Arc<Self>, Arc<W>) -> F)
    where
        W: Send + Sync + 'static,
        F: Future<Output = bool> + Send + 'static,
    {
        Job { pair, work, turn, since: Instant::now() }.submit(self);
    }

    /// As [`Self::until_stored`], with work that the store has just not taken.
    pub(super) fn keep_unstored<W, F>(self: &Arc<Self>, pair: PairId, work: Arc<W>, turn: fn(Arc<Self>, Arc<W>) -> F)
    where
        W: Send + Sync + 'static,
        F: Future<Output = bool> + Send + 'static,
    {
        Job { pair, work, turn, since: Instant::now() }.keep(self);
    }
}
