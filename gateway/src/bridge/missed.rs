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
use crate::metrics::Reason;

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
    /// Remembers a pair; false when there is no room for it.
    fn note(&self, users: PairUsers) -> bool {
        let (id, mut pairs) = (users.id(), self.pairs.lock());
        let has_room = pairs.len() < MOST || pairs.contains_key(&id);
        if has_room {
            pairs.insert(id, users);
            self.came.notify_one();
        }
        has_room
    }

    fn take(&self) -> HashMap<PairId, PairUsers> {
        std::mem::take(&mut *self.pairs.lock())
    }
}

impl Bridge {
    /// Refuses a request that cannot be served at the moment (503 with Retry-After).
    pub(super) fn refuse_for_now(self: &Arc<Self>, incoming: &Incoming) {
        let is_notify = incoming.request.method() == Method::Notify && incoming.in_dialog();
        if is_notify && !self.missed.note(incoming.users()) {
            self.metrics.store_errors.get_or_create(&Reason { reason: "notify_forgotten" }).inc();
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

#[cfg(test)]
mod tests {
    use isthmus_model::BareAddress;

    use super::*;

    #[test]
    fn a_pair_for_which_there_is_no_room_is_told_of() {
        let users = |number: usize| PairUsers {
            local: BareAddress::from_jid("juliet@corp.example").unwrap(),
            remote: BareAddress::from_jid(&format!("user{number}@partner.example")).unwrap(),
        };
        let missed = Missed::default();
        for number in 0..MOST {
            assert!(missed.note(users(number)));
        }
        assert!(!missed.note(users(MOST)), "one too many");
        assert!(missed.note(users(0)), "one that is there already");
        assert_eq!(missed.take().len(), MOST);
        assert!(missed.note(users(MOST)));
    }
}
