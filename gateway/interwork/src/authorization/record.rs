//! What is stored of a pair.

use std::collections::BTreeSet;

use compact_str::CompactString;
use isthmus_model::{BareAddress, EpochMillis, LangText, ResourcePresence, Show};
use isthmus_sip::dialog::Dialog;
use isthmus_sip::subscription::subscriber::SubscriberState;
use isthmus_sip::subscription::{Backoff, Notifier, Subscriber};
use minicbor::{Decode, Encode};

/// Stored bytes that this version cannot read.
#[derive(Debug, thiserror::Error)]
#[error("stored pair record cannot be read: {0}")]
pub struct RecordError(#[from] minicbor::decode::Error);

/// Whether the local user holds the remote user's authorization (RFC 8048 §5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum AuthOut {
    /// Not asked for.
    #[default]
    #[n(0)]
    None,
    /// Asked for.
    #[n(1)]
    Pending,
    /// Given.
    #[n(2)]
    Granted,
    /// Refused.
    #[n(3)]
    Denied,
}

/// What was decided about the remote user as watcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub enum AuthIn {
    /// Nothing yet; nobody was asked.
    #[default]
    #[n(0)]
    None,
    /// The local user was asked.
    #[n(1)]
    Pending {
        /// When first, milliseconds since the epoch.
        #[n(0)]
        since: u64,
        /// When last.
        #[n(1)]
        asked: u64,
    },
    /// The watcher may see.
    #[n(2)]
    Allowed,
    /// The watcher may not see.
    #[n(3)]
    Blocked,
}

impl AuthIn {
    /// Tells whether the watcher may see.
    pub fn is_allowed(self) -> bool {
        self == Self::Allowed
    }

    /// Tells whether the local user was asked and has not answered.
    pub fn is_pending(self) -> bool {
        matches!(self, Self::Pending { .. })
    }
}

/// The decisions of a pair, kept until they are revoked, and what was only asked, kept for some days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct AuthRecord {
    /// About the contact whom the local user watches.
    #[n(0)]
    pub out: AuthOut,
    /// About the watcher.
    #[n(1)]
    pub inbound: AuthIn,
}

impl AuthRecord {
    /// Writes the record.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a record.
    ///
    /// # Errors
    ///
    /// [`RecordError`] when the bytes are of another kind or damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        Ok(minicbor::decode(bytes)?)
    }

    /// Tells whether there is nothing to remember.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Tells whether the local user decided anything of it. That somebody asked them is no decision.
    pub fn is_decided(&self) -> bool {
        self.out != AuthOut::None || matches!(self.inbound, AuthIn::Allowed | AuthIn::Blocked)
    }
}

/// Everything of a pair that a subscription needs; lost, it can be rebuilt from the next refresh.
#[derive(Debug, Clone, PartialEq, Default, Encode, Decode)]
pub struct PairRecord {
    /// Our subscription to the contact.
    #[n(0)]
    pub(super) subscription: Option<Subscription>,
    /// When to try to subscribe again.
    #[n(1)]
    pub(super) retry_at: Option<u64>,
    /// How long the next wait is.
    #[n(2)]
    pub(super) backoff: Backoff,
    /// What the local user sees of the contact.
    #[n(3)]
    pub(super) contact: Vec<CachedPresence>,
    /// When announced presence ends if no new subscription has brought any.
    #[n(4)]
    pub(super) withdraw_at: Option<u64>,
    /// When the contact's state was last confirmed by the peer.
    #[n(5)]
    pub(super) contact_at: u64,
    /// The watcher's subscriptions.
    #[n(6)]
    pub(super) watchers: Vec<Watcher>,
    /// What the local server said about the local user.
    #[n(7)]
    pub(super) presentity: Vec<CachedPresence>,
    /// When it last said so; `None` before it ever did.
    #[n(8)]
    pub(super) presentity_at: Option<u64>,
    /// The timestamp of the last document.
    #[n(9)]
    pub(super) last_timestamp: Option<u64>,
    /// The watcher may see from now on; the first NOTIFY waits until then for the state.
    #[n(10)]
    pub(super) activate_at: Option<u64>,
    /// When we last probed.
    #[n(11)]
    pub(super) probed_at: Option<u64>,
    /// The lifetime that the peer demanded by a 423.
    #[n(12)]
    pub(super) min_expires: Option<u32>,
    /// When we last tried to subscribe.
    #[n(13)]
    pub(super) tried_at: u64,
    /// The contact's state will never change (`reason=invariant`): it is served without a subscription.
    #[n(14)]
    pub(super) is_static: bool,
    /// The bare JIDs of the local and the remote user: whoever finds only this record knows whose it is.
    #[n(15)]
    pub(super) users: (String, String),
}

impl PairRecord {
    /// Writes the record.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a record.
    ///
    /// # Errors
    ///
    /// [`RecordError`] when the bytes are of another kind or damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        Ok(minicbor::decode(bytes)?)
    }

    /// The local and the remote user; `None` when the record does not name them.
    pub fn users(&self) -> Option<(BareAddress, BareAddress)> {
        let (local, remote) = &self.users;
        Some((BareAddress::from_jid(local).ok()?, BareAddress::from_jid(remote).ok()?))
    }

    pub(super) fn announced(&self) -> BTreeSet<CompactString> {
        self.contact
            .iter()
            .filter(|presence| presence.available)
            .map(|presence| presence.resource.as_str().into())
            .collect()
    }

    pub(super) fn resources(&self) -> Vec<ResourcePresence> {
        self.presentity.iter().map(CachedPresence::to_model).collect()
    }
}

fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to a Vec cannot fail.
    let _ = minicbor::encode(value, &mut bytes);
    bytes
}

/// One subscription of ours.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) struct Subscription {
    #[n(0)]
    pub(super) dialog: Dialog,
    #[n(1)]
    pub(super) subscriber: Subscriber,
}

impl Subscription {
    /// Tells whether presence flows.
    pub(super) fn is_active(&self) -> bool {
        self.subscriber.state() == SubscriberState::Active && !self.subscriber.is_closing()
    }
}

/// One subscription of the watcher.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) struct Watcher {
    #[n(0)]
    pub(super) dialog: Dialog,
    #[n(1)]
    pub(super) notifier: Notifier,
    /// Sees the OFFLINE document instead of the state.
    #[n(2)]
    pub(super) shadow: bool,
    /// Has been told a real state.
    #[n(3)]
    pub(super) told: bool,
    /// Since when it waits for a decision.
    #[n(4)]
    pub(super) since: u64,
    /// It only asked once, with `Expires: 0`.
    #[n(5)]
    pub(super) poll: bool,
}

/// [`ResourcePresence`] as it is stored.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) struct CachedPresence {
    #[n(0)]
    pub(super) resource: String,
    #[n(1)]
    pub(super) available: bool,
    #[n(2)]
    show: Option<u8>,
    #[n(3)]
    statuses: Vec<(Option<String>, String)>,
    #[n(4)]
    priority: Option<i8>,
    #[n(5)]
    stamp: Option<u64>,
    #[n(6)]
    received: u64,
}

const SHOWS: [Show; 4] = [Show::Chat, Show::Away, Show::Xa, Show::Dnd];

impl CachedPresence {
    pub(super) fn of(presence: &ResourcePresence) -> Self {
        let place = |show: Show| SHOWS.iter().position(|other| *other == show).and_then(|at| u8::try_from(at).ok());
        Self {
            resource: presence.resource.to_string(),
            available: presence.available,
            show: presence.show.and_then(place),
            statuses: presence
                .statuses
                .iter()
                .map(|status| (status.lang.as_ref().map(ToString::to_string), status.text.clone()))
                .collect(),
            priority: presence.priority,
            stamp: presence.stamp.map(|stamp| stamp.0),
            received: presence.received.0,
        }
    }

    /// Tells whether both say the same, whenever it was.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        let timeless = |presence: &Self| Self { stamp: None, received: 0, ..presence.clone() };
        timeless(self) == timeless(other)
    }

    pub(super) fn to_model(&self) -> ResourcePresence {
        ResourcePresence {
            resource: self.resource.as_str().into(),
            available: self.available,
            show: self.show.and_then(|show| SHOWS.get(usize::from(show)).copied()),
            statuses: self
                .statuses
                .iter()
                .map(|(lang, text)| LangText { lang: lang.as_deref().map(Into::into), text: text.clone() })
                .collect(),
            priority: self.priority,
            stamp: self.stamp.map(EpochMillis),
            received: EpochMillis(self.received),
        }
    }
}
