//! What is done when the store is back after it was away, or had no room, and when another server of it took over.
//!
//! Presence that came meanwhile could not be stored and was told to nobody, and a server that took over may lack what a
//! process wrote that is dead by now. So the pairs of every link that this process holds are gone through as if the link had
//! been lost for that time ([`super::reconcile`]).

use std::sync::Arc;
use std::time::Duration;

use isthmus_model::EpochMillis;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Bridge;

/// How often a store that is away is asked whether it is back.
const LOOK: Duration = Duration::from_millis(500);
/// A store that comes and goes is given some time before all pairs are gone through.
const STEADY: Duration = Duration::from_secs(1);

/// Since when the store is away.
#[derive(Default)]
pub(super) struct Outage {
    since: Mutex<Option<EpochMillis>>,
    began: Notify,
    ended: Notify,
}

impl Outage {
    /// An operation failed because the store is away or full, or the store may have forgotten something.
    pub(super) fn note(&self) {
        let mut since = self.since.lock();
        if since.is_none() {
            *since = Some(super::now().epoch);
            self.began.notify_one();
        }
    }

    /// Waits until the store is there, if it is away.
    pub(super) async fn is_over(&self) {
        loop {
            let ended = self.ended.notified();
            if self.since.lock().is_none() {
                return;
            }
            ended.await;
        }
    }
}

/// Waits for the end of each outage.
pub(super) async fn run(bridge: Arc<Bridge>) {
    let mut takeovers = bridge.store.takeovers();
    loop {
        tokio::select! {
            () = bridge.outage.began.notified() => {}
            () = takeovers.changed() => {
                bridge.outage.note();
                continue;
            }
        }
        tokio::time::sleep(STEADY).await;
        // It may give what it has and take nothing.
        while !bridge.pods.can_write().await {
            tokio::time::sleep(LOOK).await;
        }
        let since = bridge.outage.since.lock().take();
        bridge.outage.ended.notify_waiters();
        tracing::info!("the state store is back, or another server serves in its place");
        for link in bridge.links.ready_ones() {
            tracing::info!(component = %link.name, "presence is asked for again");
            bridge.handle_link_ready(&link, since);
        }
    }
}
