//! What users took back while the store was away.
//!
//! A `subscribe` that cannot be stored is refused with an error, and a `subscribed` is asked for again when the link's pairs are
//! gone through. To `unsubscribe` and `unsubscribed` there is no answer, and the user's server has done its part already: a lost
//! one would leave a subscription that nobody wants, or a watcher who may see nothing any more. So they are kept until the store
//! takes them, before whatever else the user wishes of the contact by then.

use std::collections::HashMap;
use std::sync::Arc;

use isthmus_model::PairId;
use isthmus_xmpp::stanza::{Presence, PresenceType};
use parking_lot::Mutex;

use super::Bridge;
use super::presence::{PairUsers, event_of};

/// For how many pairs wishes are kept. Of more, they are counted and lost.
const MOST: usize = 20_000;

/// The wishes that are kept, oldest first, the last one of each type.
#[derive(Default)]
pub(super) struct Wishes(Mutex<HashMap<PairId, Vec<Presence>>>);

impl Wishes {
    /// Tells whether wishes of a pair are kept.
    fn has(&self, pair: PairId) -> bool {
        self.0.lock().contains_key(&pair)
    }

    /// Keeps a wish; tells whether it is the pair's first one, `None` when there is no room.
    fn keep(&self, pair: PairId, wish: Presence) -> Option<bool> {
        let mut kept = self.0.lock();
        if kept.len() >= MOST && !kept.contains_key(&pair) {
            return None;
        }
        let wishes = kept.entry(pair).or_default();
        let is_first = wishes.is_empty();
        wishes.retain(|other| other.kind != wish.kind);
        wishes.push(wish);
        Some(is_first)
    }

    /// Puts back what was taken and not served, before what came meanwhile.
    fn put_back(&self, pair: PairId, unserved: Vec<Presence>) {
        let mut kept = self.0.lock();
        let wishes = kept.entry(pair).or_default();
        let newer = std::mem::replace(wishes, unserved);
        wishes.retain(|wish| newer.iter().all(|other| other.kind != wish.kind));
        wishes.extend(newer);
    }

    fn take(&self, pair: PairId) -> Vec<Presence> {
        self.0.lock().remove(&pair).unwrap_or_default()
    }
}

/// Tells whether a user's presence is a wish of which nobody can be told that it was lost.
fn is_kept(stanza: &Presence) -> bool {
    matches!(stanza.kind, PresenceType::Unsubscribe | PresenceType::Unsubscribed)
}

impl Bridge {
    /// Keeps a wish until it can be served; tells whether it is one that is kept.
    pub(super) fn keep_wish(self: &Arc<Self>, users: &PairUsers, stanza: &Presence) -> bool {
        if !is_kept(stanza) {
            return false;
        }
        // What else stands in it changes nothing.
        let wish = Presence::new(stanza.kind, stanza.from().unwrap_or_default(), stanza.to().unwrap_or_default());
        match self.wishes.keep(users.id(), wish) {
            // Not at once: it was just tried.
            Some(true) => {
                self.keep_unstored(users.id(), Arc::new(users.clone()), Self::serve_wishes);
            }
            Some(false) => {}
            None => {
                self.metrics.refused("wish_lost");
                tracing::error!(%users.local, %users.remote, "a wish of a user is lost: too many wait for the store");
            }
        }
        true
    }

    /// Serves what is kept of a pair's wishes before other work of its lane; tells whether that has to wait for them.
    pub(super) async fn wishes_wait(self: &Arc<Self>, users: &PairUsers) -> bool {
        self.wishes.has(users.id()) && !Arc::clone(self).serve_wishes(Arc::new(users.clone())).await
    }

    /// Serves what is kept of a pair's wishes; tells whether nothing is left.
    async fn serve_wishes(self: Arc<Self>, users: Arc<PairUsers>) -> bool {
        let mut wishes = self.wishes.take(users.id()).into_iter();
        while let Some(wish) = wishes.next() {
            let Some(event) = event_of(&wish) else { continue };
            if self.runtime().pair_config(&users.local, &users.remote, None).is_none() {
                // The domain left the configuration, and its pairs with it.
                continue;
            }
            let Err(error) = self.serve_presence(&users, &wish, &event).await else { continue };
            self.store_failed(&error);
            if !error.is_final() {
                self.wishes.put_back(users.id(), std::iter::once(wish).chain(wishes).collect());
                return false;
            }
        }
        true
    }
}
