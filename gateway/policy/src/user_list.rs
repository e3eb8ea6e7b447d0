//! A local user's own list of whom to allow and whom to block.
//!
//! The list lives in the state store, one record per user; this module owns its content and its bytes.
//! It says who may see and reach the user, so it is asked about inbound traffic. Precedence
//! (interworking specification §3.1, design §6.5): an entry for the exact user before one for the
//! user's domain; at the same level explicit entries (the user's or an administrator's) before recorded
//! ones; among those, block before allow. A block recorded from `unsubscribed` governs presence only.

use isthmus_model::{BareAddress, Domain, EpochMillis, Feature};
use minicbor::{Decode, Encode};

/// The version of the stored form.
const VERSION: u8 = 1;

/// Whom an entry is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// One remote user.
    User(BareAddress),
    /// Every user of exactly this remote domain, none of its subdomains.
    Domain(Domain),
}

/// What an entry does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListAction {
    /// Let through.
    Allow,
    /// Keep out.
    Block,
}

/// Where an entry comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The user, by an ad-hoc command.
    User,
    /// An administrator on the user's behalf.
    Admin,
    /// Recorded from `subscribed` or `unsubscribed` of the user's client.
    Xmpp,
}

/// One line of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListEntry {
    /// Whom it is about.
    pub subject: Subject,
    /// What it does.
    pub action: ListAction,
    /// Where it comes from.
    pub source: Source,
    /// Who made it: a bare JID, for the eyes of people only.
    pub by: String,
    /// When it was made.
    pub created: EpochMillis,
}

/// What the list says about someone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListMatch<'a> {
    /// The entry that decides.
    pub entry: &'a ListEntry,
}

/// Why an entry was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// The list has as many entries as the configuration allows.
    #[error("the list is full ({limit} entries); remove an entry first")]
    Full {
        /// The limit.
        limit: usize,
    },
}

/// Why stored bytes are not a list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListDecodeError {
    /// The bytes are no CBOR of the expected shape.
    #[error("user list is not readable: {0}")]
    Malformed(String),
    /// The bytes were written by a newer release.
    #[error("user list has version {found}, this release reads up to {VERSION}")]
    Newer {
        /// The version found.
        found: u8,
    },
    /// An entry names no valid user or domain.
    #[error("user list names an invalid subject")]
    Subject,
}

/// The entries of one local user, at most one per subject and source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserList {
    // Sorted by subject, then source.
    entries: Vec<ListEntry>,
}

impl UserList {
    /// The list of a user who never decided anything.
    pub const EMPTY: Self = Self { entries: Vec::new() };

    /// The default cap on entries of one list (design §5: every list is bounded).
    pub const DEFAULT_LIMIT: usize = 1000;

    /// Returns all entries, users first, in the order of their addresses.
    pub fn entries(&self) -> &[ListEntry] {
        &self.entries
    }

    /// Tells whether nothing was decided.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Finds the entry that decides about a remote user for one kind of traffic.
    pub fn decide(&self, remote: &BareAddress, feature: Feature) -> Option<&ListEntry> {
        self.strongest(feature, |subject| match subject {
            Subject::User(user) => user.cmp(remote),
            Subject::Domain(_) => std::cmp::Ordering::Greater,
        })
        .or_else(|| self.decide_domain(&remote.domain, feature))
    }

    /// Finds the entry that decides about a remote domain as a whole.
    pub fn decide_domain(&self, remote: &Domain, feature: Feature) -> Option<&ListEntry> {
        self.strongest(feature, |subject| match subject {
            Subject::User(_) => std::cmp::Ordering::Less,
            Subject::Domain(domain) => domain.cmp(remote),
        })
    }

    /// Adds an explicit entry; what the same side said before about the subject, and what was recorded, goes.
    ///
    /// Returns whether the list changed. An entry with [`Source::Xmpp`] is recorded as by [`Self::record`].
    ///
    /// # Errors
    ///
    /// [`ListError::Full`] when the list would grow beyond `limit`.
    pub fn add(&mut self, entry: ListEntry, limit: usize) -> Result<bool, ListError> {
        match (entry.source, &entry.subject) {
            (Source::Xmpp, Subject::User(user)) => {
                let user = user.clone();
                self.record(user, entry.action, entry.by, entry.created, limit)
            }
            (source, _) => {
                let same = |other: &ListEntry| {
                    other.subject == entry.subject && (other.source == source || other.source == Source::Xmpp)
                };
                self.replace(entry.clone(), same, limit)
            }
        }
    }

    /// Records what the user's client answered to a request: allow for `subscribed`, block for `unsubscribed`.
    ///
    /// A recorded answer replaces the former one. A refusal also replaces the user's own explicit allow
    /// (interworking row L14); an approval never weakens an explicit block. Returns whether the list changed.
    ///
    /// # Errors
    ///
    /// [`ListError::Full`] when the list would grow beyond `limit`.
    pub fn record(
        &mut self,
        remote: BareAddress,
        action: ListAction,
        by: String,
        created: EpochMillis,
        limit: usize,
    ) -> Result<bool, ListError> {
        let subject = Subject::User(remote);
        let blocked = self.of(&subject).any(|entry| entry.source != Source::Xmpp && entry.action == ListAction::Block);
        if blocked {
            return Ok(false);
        }
        let entry = ListEntry { subject, action, source: Source::Xmpp, by, created };
        let same = |other: &ListEntry| {
            other.subject == entry.subject
                && (other.source == Source::Xmpp || (other.source == Source::User && action == ListAction::Block))
        };
        self.replace(entry.clone(), same, limit)
    }

    /// Removes what is said about a subject; a user cannot remove an administrator's entry.
    ///
    /// Returns the removed entries.
    pub fn remove(&mut self, subject: &Subject, by: Source) -> Vec<ListEntry> {
        let goes = |entry: &ListEntry| {
            entry.subject == *subject
                && match by {
                    Source::Admin => true,
                    Source::User => entry.source != Source::Admin,
                    Source::Xmpp => entry.source == Source::Xmpp,
                }
        };
        let removed = self.entries.iter().filter(|e| goes(e)).cloned().collect();
        self.entries.retain(|entry| !goes(entry));
        removed
    }

    /// Writes the list for the store.
    pub fn encode(&self) -> Vec<u8> {
        let wire = WireList { version: VERSION, entries: self.entries.iter().map(WireEntry::from).collect() };
        let mut out = Vec::with_capacity(16 + 64 * self.entries.len());
        // Writing to a vector cannot fail (its error type is uninhabited).
        match minicbor::encode(&wire, &mut out) {
            Ok(()) => out,
            Err(_) => Vec::new(),
        }
    }

    /// Reads a stored list.
    ///
    /// # Errors
    ///
    /// Any [`ListDecodeError`]; a block must never be lost by skipping what cannot be read.
    pub fn decode(bytes: &[u8]) -> Result<Self, ListDecodeError> {
        let wire: WireList = minicbor::decode(bytes).map_err(|error| ListDecodeError::Malformed(error.to_string()))?;
        if wire.version > VERSION {
            return Err(ListDecodeError::Newer { found: wire.version });
        }
        let mut entries = wire.entries.into_iter().map(ListEntry::try_from).collect::<Result<Vec<_>, _>>()?;
        entries.sort_by(order);
        Ok(Self { entries })
    }

    fn of<'a>(&'a self, subject: &'a Subject) -> impl Iterator<Item = &'a ListEntry> {
        self.entries.iter().filter(move |e| e.subject == *subject)
    }

    fn replace(
        &mut self,
        entry: ListEntry,
        same: impl Fn(&ListEntry) -> bool,
        limit: usize,
    ) -> Result<bool, ListError> {
        let replaced = self.entries.iter().filter(|e| same(e)).count();
        if self.entries.len() - replaced >= limit {
            return Err(ListError::Full { limit });
        }
        let unchanged = replaced == 1
            && self.entries.iter().any(|other| {
                other.subject == entry.subject && other.source == entry.source && other.action == entry.action
            });
        if unchanged {
            return Ok(false);
        }
        self.entries.retain(|other| !same(other));
        let at = self.entries.partition_point(|other| order(other, &entry).is_lt());
        self.entries.insert(at, entry);
        Ok(true)
    }

    /// Returns the strongest entry among those of one subject that speak about `feature`.
    fn strongest(&self, feature: Feature, compare: impl Fn(&Subject) -> std::cmp::Ordering) -> Option<&ListEntry> {
        let start = self.entries.partition_point(|entry| compare(&entry.subject).is_lt());
        self.entries
            .get(start..)?
            .iter()
            .take_while(|entry| compare(&entry.subject).is_eq())
            .filter(|entry| entry.governs(feature))
            .max_by_key(|entry| (entry.source != Source::Xmpp, entry.action))
    }
}

impl ListEntry {
    /// Tells whether the entry speaks about `feature`: a recorded refusal is about presence alone.
    pub fn governs(&self, feature: Feature) -> bool {
        feature == Feature::Presence || self.source != Source::Xmpp || self.action == ListAction::Allow
    }
}

fn order(a: &ListEntry, b: &ListEntry) -> std::cmp::Ordering {
    a.subject.cmp(&b.subject).then_with(|| a.source.cmp(&b.source))
}

/// The stored form. Numbers are never used again for another meaning; unknown ones are skipped.
#[derive(Encode, Decode)]
#[cbor(map)]
struct WireList {
    #[n(0)]
    version: u8,
    #[n(1)]
    entries: Vec<WireEntry>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct WireEntry {
    /// `user@domain` or `domain`.
    #[n(0)]
    subject: String,
    #[n(1)]
    action: WireAction,
    #[n(2)]
    source: WireSource,
    #[n(3)]
    by: String,
    /// Milliseconds since the epoch.
    #[n(4)]
    created: u64,
}

#[derive(Encode, Decode)]
#[cbor(index_only)]
enum WireAction {
    #[n(0)]
    Allow,
    #[n(1)]
    Block,
}

#[derive(Encode, Decode)]
#[cbor(index_only)]
enum WireSource {
    #[n(0)]
    User,
    #[n(1)]
    Admin,
    #[n(2)]
    Xmpp,
}

impl From<&ListEntry> for WireEntry {
    fn from(entry: &ListEntry) -> Self {
        Self {
            subject: match &entry.subject {
                Subject::User(user) => user.to_string(),
                Subject::Domain(domain) => domain.to_string(),
            },
            action: match entry.action {
                ListAction::Allow => WireAction::Allow,
                ListAction::Block => WireAction::Block,
            },
            source: match entry.source {
                Source::User => WireSource::User,
                Source::Admin => WireSource::Admin,
                Source::Xmpp => WireSource::Xmpp,
            },
            by: entry.by.clone(),
            created: entry.created.0,
        }
    }
}

impl TryFrom<WireEntry> for ListEntry {
    type Error = ListDecodeError;

    fn try_from(wire: WireEntry) -> Result<Self, Self::Error> {
        let subject = if wire.subject.contains('@') {
            BareAddress::from_jid(&wire.subject).map(Subject::User).ok()
        } else {
            Domain::parse(&wire.subject).map(Subject::Domain).ok()
        };
        Ok(Self {
            subject: subject.ok_or(ListDecodeError::Subject)?,
            action: match wire.action {
                WireAction::Allow => ListAction::Allow,
                WireAction::Block => ListAction::Block,
            },
            source: match wire.source {
                WireSource::User => Source::User,
                WireSource::Admin => Source::Admin,
                WireSource::Xmpp => Source::Xmpp,
            },
            by: wire.by,
            created: EpochMillis(wire.created),
        })
    }
}

#[cfg(test)]
mod tests;
