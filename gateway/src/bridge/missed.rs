//! NOTIFYs that were refused because the store was away, or whoever works for their pair.
//!
//! Not every peer sends a NOTIFY again that got 503. Once the store takes it, the next refresh of such a subscription is
//! put forward, which brings the present state; it is a due time like any other, so whoever works for the pair by then
//! sends it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use isthmus_interwork::authorization::{Context, Pair};
use isthmus_model::PairId;
use isthmus_sip::Method;
use isthmus_store::Retry;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Bridge;
use super::inbound::Incoming;
use super::presence::PairUsers;

/// How many pairs are remembered. The others are current again with their next change or refresh.
const MOST: usize = 100_000;
/// One NOTIFY that was refused is seldom the last one.
const STEADY: Duration = Duration::from_secs(1);

/// Pairs whose user may see an old state of the contact.
#[derive(Default)]
pub(super) struct Missed {
    pairs: Mutex<HashMap<PairId, PairUsers>>,
    came: Notify,
}

impl Missed {
    fn note(&self, users: PairUsers) {
        let mut pairs = self.pairs.lock();
        if pairs.len() < MOST {
            pairs.insert(users.id(), users);
            self.came.notify_one();
        }
    }

    fn take(&self) -> HashMap<PairId, PairUsers> {
        std::mem::take(&mut *self.pairs.lock())
    }
}

impl Bridge {
    /// Refuses a request that cannot be served at the moment (503 with Retry-After).
    pub(super) fn refuse_for_now(self: &Arc<Self>, incoming: &Incoming) {
        if incoming.request.method() == Method::Notify && incoming.in_dialog() {
            self.missed.note(incoming.users());
        }
        self.respond(&incoming.asker, &incoming.request, incoming.answer(&super::unavailable()));
    }

    async fn refresh_soon(self: &Arc<Self>, users: &PairUsers) {
        let mut place = None;
        loop {
            let refresh = |pair: &mut Pair, ctx: &mut Context<'_>| {
                if pair.is_subscribed() {
                    let now = ctx.now.epoch;
                    let at = *place.get_or_insert_with(|| self.pace.take(&users.remote.domain, now).unwrap_or(now));
                    pair.handle_notify_missed(at);
                }
            };
            let Err(error) = self.with_pair(users, refresh).await else { return };
            self.store_failed(&error);
            if error.retry() == Retry::Never {
                return;
            }
            tokio::time::sleep(STEADY).await;
        }
    }
}

/// Has what was missed asked for again, with the pace that partners bear.
pub(super) async fn run(bridge: Arc<Bridge>) {
    loop {
        bridge.missed.came.notified().await;
        tokio::time::sleep(STEADY).await;
        for users in bridge.missed.take().into_values() {
            bridge.refresh_soon(&users).await;
        }
    }
}
