//! How remote users spell themselves (interworking specification §1.3): SIP compares user parts with case, and what is
//! sent to a user is spelled as the user's last request was.

use std::time::Duration;

use isthmus_interwork::address::Spelling;
use isthmus_model::BareAddress;
use isthmus_store::{Batch, Condition, Key, Lifetime, Record};

use super::Bridge;
use super::inbound::Incoming;

/// A spelling is remembered so long after it was last seen.
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// Reads a remembered spelling of `remote`; one that does not fit is none.
pub(super) fn read_spelling(stored: Option<&Record>, remote: &BareAddress) -> Option<Spelling> {
    Spelling::restore(std::str::from_utf8(&stored?.bytes).ok()?, remote)
}

impl Bridge {
    /// Remembers how the sender of a request is spelled. `stored` is what is remembered already: nothing is written when
    /// that is the same and not half forgotten, so a partner's messages do not cost a commit each.
    pub(super) async fn observe_spelling(&self, incoming: &Incoming, stored: Option<&Record>) {
        let from = incoming.request.from_();
        let Ok(uri) = from.uri() else { return };
        let key = Key::address(&incoming.remote.bare);
        let mut batch = Batch::new();
        match (Spelling::observe(&uri, &incoming.remote.bare), stored) {
            (None, None) => return,
            // The sender writes itself as we would now.
            (None, Some(_)) => batch.delete(key, Condition::Any),
            (Some(seen), Some(stored)) if is_current(stored, &seen) => return,
            (Some(seen), _) => {
                batch.put(key, Condition::Any, seen.as_str().to_owned().into_bytes(), Lifetime::For(LIFETIME))
            }
        };
        let done = self.store.commit(batch).await;
        self.remembered.forget(&[Key::address(&incoming.remote.bare)]);
        if let Err(error) = done {
            self.store_failed(&error);
        }
    }
}

fn is_current(stored: &Record, seen: &Spelling) -> bool {
    let fresh = stored.expires_at.is_none_or(|at| at.since(super::now().epoch) > LIFETIME / 2);
    fresh && *stored.bytes == *seen.as_str().as_bytes()
}
