//! How remote users spell themselves (interworking specification §1.3): SIP compares user parts with case, and what is
//! sent to a user is spelled as the user's last request was.

use std::time::Duration;

use bytes::Bytes;
use isthmus_interwork::address::Spelling;
use isthmus_model::BareAddress;
use isthmus_store::{Batch, Condition, Key, Kind, Lifetime, Record, record};

use super::Bridge;
use super::inbound::Incoming;

/// A spelling is remembered so long after it was last seen.
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// Format of the record.
const FORMAT: u16 = 1;

/// Reads a remembered spelling of `remote`; one that does not fit is none.
pub(super) fn read_spelling(stored: Option<&Record>, remote: &BareAddress) -> Option<Spelling> {
    Spelling::restore(std::str::from_utf8(&text_of(stored?)?).ok()?, remote)
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
            (Some(seen), _) => batch.put(key, Condition::Any, bytes_of(&seen), Lifetime::For(LIFETIME)),
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
    fresh && text_of(stored).is_some_and(|known| *known == *seen.as_str().as_bytes())
}

fn bytes_of(spelling: &Spelling) -> Bytes {
    record::encode(Kind::Address, FORMAT, spelling.as_str().as_bytes())
}

/// The text of a record, which is part of the record's bytes: it is looked at for each message.
fn text_of(stored: &Record) -> Option<Bytes> {
    record::decode_as(Kind::Address, FORMAT, &stored.bytes).ok().map(|envelope| envelope.payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spelling_that_an_earlier_release_wrote_is_read() {
        let remote = BareAddress::from_jid("ana.maria@partner.example").unwrap();
        let uri = isthmus_sip::Uri::parse("sip:Ana.Maria@partner.example").unwrap();
        let spelling = Spelling::observe(&uri, &remote).unwrap();
        let bytes = bytes_of(&spelling);
        assert_eq!(bytes, FROZEN, "{bytes:?}");
        let stored = Record { version: 1, bytes: FROZEN.to_vec().into(), expires_at: None };
        assert_eq!(read_spelling(Some(&stored), &remote).as_ref().map(Spelling::as_str), Some(spelling.as_str()));
        assert!(is_current(&stored, &spelling));
    }

    const FROZEN: &[u8] = b"I\x01\x06\0\x01Ana.Maria";
}
