//! New work is refused while the store does not keep up with what there is (interworking specification §6.11): what goes on
//! in dialogs is still served, and who is refused comes back later (503 with Retry-After).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Bridge;

/// How often the store is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long it must have kept up before new work is let in again.
const CALM: Duration = Duration::from_secs(1);

/// Watches the store for ever.
pub(super) async fn run(bridge: Arc<Bridge>) {
    let mut strained_at: Option<Instant> = None;
    loop {
        tokio::time::sleep(LOOK).await;
        if bridge.store.is_strained() {
            if strained_at.replace(Instant::now()).is_none() {
                tracing::warn!("the state store does not keep up; new requests are refused");
                bridge.edge.set_overloaded(true);
                bridge.metrics.overloaded.set(1);
            }
        } else if strained_at.is_some_and(|at| at.elapsed() >= CALM) {
            strained_at = None;
            tracing::info!("the state store keeps up again");
            bridge.edge.set_overloaded(false);
            bridge.metrics.overloaded.set(0);
        }
    }
}
