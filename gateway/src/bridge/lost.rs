//! What is done when the shared store has lost its data: subscriptions of local users are made again.
//!
//! Watchers of the partners come back by themselves: their refresh gets 481, and they subscribe anew. Nobody but this
//! process knows which contacts its users watch, so it remembers them, and asks for them again; slowly, since a partner
//! bounds what it takes in a second, and the processes of a realm all do it at the same time. A link may be another's by
//! then, since the lease was lost with the rest: that process is asked by probes, which subscribe where nothing is known.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isthmus_interwork::authorization::Pair;
use isthmus_model::{Domain, PairId};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::Bridge;
use super::presence::PairUsers;
use crate::edge::xmpp::Owner;
use crate::metrics::Reason;

/// How many pairs are remembered; users of the others have their subscriptions with the next probe.
const MOST: usize = 200_000;
/// The processes of a realm do not begin at the same moment.
const BEGIN: Duration = Duration::from_secs(2);
/// A link that another process took so shortly before the loss was noticed went with the data, and nobody there knows what
/// was wanted here. One that was lost earlier says nothing: users may have changed their minds at its new holder.
const LATELY: Duration = Duration::from_secs(10);
/// The pause after the store failed or a pair had too much to do.
const PAUSE: Duration = Duration::from_millis(500);

/// Pairs whose local user wants the contact's presence, as far as this process had to do with them.
#[derive(Default)]
pub(super) struct Wanted(Mutex<HashMap<PairId, PairUsers>>);

impl Wanted {
    /// Takes notice of how a pair is now.
    pub(super) fn note(&self, users: &PairUsers, wanted: bool) {
        let mut pairs = self.0.lock();
        if !wanted {
            pairs.remove(&users.id());
        } else if pairs.len() < MOST {
            pairs.entry(users.id()).or_insert_with(|| users.clone());
        }
    }

    /// Tells whether a pair is remembered.
    pub(super) fn has(&self, users: &PairUsers) -> bool {
        self.0.lock().contains_key(&users.id())
    }

    fn by_partner(&self) -> HashMap<Domain, Vec<PairUsers>> {
        let mut partners: HashMap<Domain, Vec<PairUsers>> = HashMap::new();
        for users in self.0.lock().values() {
            partners.entry(users.remote.domain.clone()).or_default().push(users.clone());
        }
        partners
    }
}

/// Makes subscriptions again whenever the store has lost its data.
pub(super) async fn run(bridge: Arc<Bridge>) {
    let mut lost = bridge.pods.watch_state_lost();
    let mut partners = JoinSet::new();
    while lost.changed().await.is_ok() {
        bridge.metrics.state_lost.inc();
        bridge.remembered.clear();
        // What is left of the last time begins anew.
        partners.abort_all();
        while partners.join_next().await.is_some() {}
        for (_, pairs) in bridge.wanted.by_partner() {
            partners.spawn(Arc::clone(&bridge).subscribe_again(pairs));
        }
    }
}

impl Bridge {
    /// Nothing is stored of a pair that was wanted here. It is forgotten, unless the store has lost its data, which is found
    /// out at once.
    pub(super) fn forget_unless_lost(self: &Arc<Self>, users: PairUsers) {
        let bridge = Arc::clone(self);
        tokio::spawn(async move {
            if !bridge.pods.has_lost_state().await {
                bridge.wanted.note(&users, false);
            }
        });
    }

    async fn subscribe_again(self: Arc<Self>, pairs: Vec<PairUsers>) {
        let noticed = Instant::now();
        tokio::time::sleep(BEGIN.mul_f64(rand::random_range(0.0..1.0))).await;
        for users in pairs {
            let mut outcome = self.subscribe_pair_again(&users).await;
            if outcome == "elsewhere" && self.ask_next_holder(&users, LATELY + noticed.elapsed()) {
                outcome = "handed_over";
            }
            self.metrics.resubscriptions.get_or_create(&Reason { reason: outcome }).inc();
            // The other process sends as it is asked, at this pace.
            let now = super::now().epoch;
            if matches!(outcome, "sent" | "handed_over")
                && let Some(at) = self.pace.take(&users.remote.domain, now)
            {
                tokio::time::sleep(at.since(now)).await;
            }
        }
    }

    async fn subscribe_pair_again(self: &Arc<Self>, users: &PairUsers) -> &'static str {
        loop {
            match self.links.owner(&users.local.domain, &users.remote.domain) {
                Owner::Mine(_) => {}
                // The lease is gone with the data, and taken anew in a moment.
                Owner::Nobody if self.links.ready(&users.local.domain, &users.remote.domain).is_some() => {}
                _ => {
                    self.wanted.note(users, false);
                    return "elsewhere";
                }
            }
            let (tell, done) = oneshot::channel();
            let (bridge, of) = (Arc::clone(self), users.clone());
            let submitted = self.lanes.submit(users.id(), async move {
                if tell.is_closed() {
                    return;
                }
                let outcome = match bridge.with_pair(&of, Pair::handle_state_lost).await {
                    Ok((missing, outputs)) => {
                        bridge.perform(&of, outputs);
                        Some(if missing == Some(true) { "sent" } else { "not_missing" })
                    }
                    Err(error) => {
                        bridge.store_failed(&error);
                        None
                    }
                };
                let _ = tell.send(outcome);
            });
            if submitted.is_ok()
                && let Ok(Some(outcome)) = done.await
            {
                return outcome;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
