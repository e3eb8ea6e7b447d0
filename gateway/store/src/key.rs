//! Names of records, leases, queues and shards, and the place that each belongs to.
//!
//! What changes together shares a slot: a pair's presence record, its session, its authorisation, its
//! dialogs and its transactions all carry the pair's slot. A slot belongs to one of [`SHARDS`] shards, and so
//! does every timer, queue and lease. A shard is what a backend keeps in one place: in Redis its number is
//! the hash tag of every key in it, so a Cluster has it on one node and one script can change a record
//! together with its timer, its queue and the lease that guards it. A [`crate::Batch`] that reaches beyond
//! one shard is refused by every backend, so that what works on one works on all.
//!
//! Two things are needed from every shard. The lease of a link is good everywhere
//! ([`LeaseName::everywhere`]): a backend with several nodes keeps a copy of it in each shard. Work for a
//! link or a process goes into the part of its queue that lies beside the record ([`QueueName::at`]); who
//! serves the queue takes from all parts. So the work of one pair keeps its order.

use std::fmt;

use compact_str::{CompactString, format_compact};
use isthmus_model::{BareAddress, Domain, PairId};

/// What a record is about. The codes and prefixes are written into stores: they are never given a new meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Anything without a kind of its own; the name starts with a class.
    Other,
    /// Presence of a pair: subscriptions both ways, last documents, last presence.
    Pair,
    /// Messages of a pair: the session, its dialogs, its queue.
    Session,
    /// A local user's policy list. Durable.
    User,
    /// What a local user decided about a remote user. Durable.
    Auth,
    /// A request that was answered, so that another process repeats the answer.
    Transaction,
    /// The exact spelling of an address.
    Address,
    /// From a Call-ID to thread and session.
    Thread,
    /// A dialog, or half of one before its peer answered.
    Dialog,
    /// A disposition notification that is expected.
    Receipt,
    /// What was learned about a peer domain.
    Peer,
}

const KINDS: [Kind; 11] = [
    Kind::Other,
    Kind::Pair,
    Kind::Session,
    Kind::User,
    Kind::Auth,
    Kind::Transaction,
    Kind::Address,
    Kind::Thread,
    Kind::Dialog,
    Kind::Receipt,
    Kind::Peer,
];

impl Kind {
    /// Returns the code that stands in envelopes and journals.
    pub fn code(self) -> u8 {
        match self {
            Self::Other => 0,
            Self::Pair => 1,
            Self::Session => 2,
            Self::User => 3,
            Self::Auth => 4,
            Self::Transaction => 5,
            Self::Address => 6,
            Self::Thread => 7,
            Self::Dialog => 8,
            Self::Receipt => 9,
            Self::Peer => 10,
        }
    }

    /// Reads [`Self::code`].
    pub fn from_code(code: u8) -> Option<Self> {
        KINDS.into_iter().find(|kind| kind.code() == code)
    }

    /// Returns the prefix of the key's text, also its name in metrics.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Other => "x",
            Self::Pair => "pair",
            Self::Session => "im",
            Self::User => "pol",
            Self::Auth => "auth",
            Self::Transaction => "tx",
            Self::Address => "addr",
            Self::Thread => "thr",
            Self::Dialog => "dlg",
            Self::Receipt => "imdn",
            Self::Peer => "peer",
        }
    }

    /// Tells whether the kind holds users' decisions: it may live without expiry and survives restarts.
    pub fn is_decision(self) -> bool {
        matches!(self, Self::User | Self::Auth)
    }
}

/// How many shards there are. All processes must agree, and stored names depend on it: it is fixed for ever.
pub const SHARDS: u16 = 64;

/// One part of everything that is stored. A process serves the due times of the shards whose lease it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(u16);

impl Shard {
    /// The shard with number 0.
    pub(crate) const FIRST: Self = Self(0);

    /// Returns the shard with this number, `None` from [`SHARDS`] on.
    pub fn new(number: u16) -> Option<Self> {
        (number < SHARDS).then_some(Self(number))
    }

    /// Lists all shards.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SHARDS).map(Self)
    }

    /// Returns the number, below [`SHARDS`].
    pub fn number(self) -> u16 {
        self.0
    }
}

/// What the records of one change share: a pair, a user, or a name of the caller's.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(CompactString);

impl Slot {
    /// The slot of everything about one pair of users.
    pub fn pair(pair: &PairId) -> Self {
        Self(CompactString::from(pair.as_str()))
    }

    /// The slot of everything about one user alone.
    pub fn user(user: &BareAddress) -> Self {
        Self::named(&format_compact!("{user}"))
    }

    /// A slot with a name of the caller's.
    pub fn named(name: &str) -> Self {
        if name.is_empty() {
            // Redis takes an empty tag for none.
            return Self(CompactString::const_new("%00"));
        }
        if !name.bytes().any(|b| matches!(b, b'{' | b'}' | b'%')) {
            return Self(CompactString::from(name));
        }
        let mut text = CompactString::with_capacity(name.len() + 8);
        for c in name.chars() {
            match c {
                '{' => text.push_str("%7b"),
                '}' => text.push_str("%7d"),
                '%' => text.push_str("%25"),
                _ => text.push(c),
            }
        }
        Self(text)
    }

    /// Returns the text; braces never occur in it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the shard that the slot is in (FNV-1a, fixed for ever).
    pub fn shard(&self) -> Shard {
        let hash = self
            .0
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let folded = (hash >> 32) ^ (hash & 0xffff_ffff);
        Shard(u16::try_from(folded % u64::from(SHARDS)).unwrap_or(0))
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a record.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    kind: Kind,
    slot: Slot,
    name: CompactString,
}

impl Key {
    /// Presence of a pair.
    pub fn pair(pair: &PairId) -> Self {
        Self::new(Kind::Pair, Slot::pair(pair), "")
    }

    /// Messages of a pair.
    pub fn session(pair: &PairId) -> Self {
        Self::new(Kind::Session, Slot::pair(pair), "")
    }

    /// The decisions between a pair, both directions in one record.
    pub fn auth(pair: &PairId) -> Self {
        Self::new(Kind::Auth, Slot::pair(pair), "")
    }

    /// A local user's policy list.
    pub fn user(user: &BareAddress) -> Self {
        Self::new(Kind::User, Slot::user(user), "")
    }

    /// An answered request of a pair; `hash` stands for Call-ID, From tag, CSeq number and method.
    pub fn transaction(pair: &PairId, hash: &str) -> Self {
        Self::new(Kind::Transaction, Slot::pair(pair), hash)
    }

    /// One dialog of a pair, or the half of one; `tag` is the gateway's own tag.
    pub fn dialog(pair: &PairId, tag: &str) -> Self {
        Self::new(Kind::Dialog, Slot::pair(pair), tag)
    }

    /// The exact spelling of an address.
    pub fn address(user: &BareAddress) -> Self {
        Self::new(Kind::Address, Slot::user(user), "")
    }

    /// The thread that a Call-ID belongs to.
    pub fn thread(call_id: &str) -> Self {
        Self::new(Kind::Thread, Slot::named(call_id), "")
    }

    /// A disposition notification that is expected for a message of a pair.
    pub fn receipt(pair: &PairId, message_id: &str) -> Self {
        Self::new(Kind::Receipt, Slot::pair(pair), message_id)
    }

    /// What was learned about a peer domain.
    pub fn peer(domain: &Domain) -> Self {
        Self::new(Kind::Peer, Slot::named(domain.as_str()), "")
    }

    /// A record without a kind of its own; `class` keeps such names apart and holds no colon.
    pub fn other(class: &'static str, slot: Slot, name: &str) -> Self {
        Self::new(Kind::Other, slot, &format_compact!("{class}:{name}"))
    }

    fn new(kind: Kind, slot: Slot, name: &str) -> Self {
        Self { kind, slot, name: CompactString::from(name) }
    }

    /// Puts a key together from its parts, for backends that stored them apart.
    pub fn from_parts(kind: Kind, slot: &str, name: &str) -> Option<Self> {
        if slot.is_empty() || slot.contains(['{', '}']) {
            return None;
        }
        Some(Self::new(kind, Slot(CompactString::from(slot)), name))
    }

    /// Reads the text that [`Self`] displays as, without a prefix.
    pub fn parse(text: &str) -> Option<Self> {
        let (prefix, rest) = text.split_once(":{")?;
        let kind = KINDS.into_iter().find(|kind| kind.prefix() == prefix)?;
        let (slot, name) = rest.split_once('}')?;
        let name = match name.strip_prefix(':') {
            Some("") => return None,
            Some(name) => name,
            None if name.is_empty() => "",
            None => return None,
        };
        Self::from_parts(kind, slot, name)
    }

    /// Returns what the record is about.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the slot.
    pub fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Returns the shard that it is in.
    pub fn shard(&self) -> Shard {
        self.slot.shard()
    }

    /// Returns the part that tells apart the records of one kind and slot, often empty.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the length of the text in octets.
    pub(crate) fn len(&self) -> usize {
        self.slot.0.len() + self.name.len() + 8
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [self.kind.prefix(), ":{", &self.slot.0, "}"] {
            f.write_str(part)?;
        }
        if !self.name.is_empty() {
            f.write_str(":")?;
            f.write_str(&self.name)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The class of what belongs to a link.
const LINK: &str = "link";

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            class: &'static str,
            slot: Slot,
            name: CompactString,
            /// Where it is, if not where its slot is.
            part: Option<Shard>,
        }

        impl $name {
            /// A name of the caller's; `class` keeps such names apart and holds no brace or colon.
            pub fn new(class: &'static str, slot: Slot, name: &str) -> Self {
                Self { class, slot, name: CompactString::from(name), part: None }
            }

            /// The name for the link to an XMPP server under one component name.
            pub fn link(server: &str, component: &str) -> Self {
                Self::new(LINK, Slot::named(&format_compact!("{server},{component}")), "")
            }

            /// Returns the slot.
            pub fn slot(&self) -> &Slot {
                &self.slot
            }

            /// Returns the shard that it is in.
            pub fn place(&self) -> Shard {
                self.part.unwrap_or_else(|| self.slot.shard())
            }

            /// Returns the length of the text in octets.
            pub(crate) fn len(&self) -> usize {
                self.slot.0.len() + self.name.len() + self.class.len()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}:{{{}}}", self.class, self.slot.0)?;
                if !self.name.is_empty() {
                    write!(f, ":{}", self.name)?;
                }
                if let Some(part) = self.part {
                    write!(f, "@{}", part.0)?;
                }
                Ok(())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

name! {
    /// The name of a lease.
    LeaseName
}

name! {
    /// The name of a queue of work.
    QueueName
}

impl LeaseName {
    /// The right to send within a dialog (interworking specification §6.6).
    pub fn send(pair: &PairId, tag: &str) -> Self {
        Self::new("send", Slot::pair(pair), tag)
    }

    /// The right to serve a shard of the due times.
    pub fn shard(shard: Shard) -> Self {
        Self { part: Some(shard), ..Self::new("shard", Slot::named(&format_compact!("t{}", shard.number())), "") }
    }

    /// Tells whether the lease is good as a fence in every shard, and not only in its own. Backends with
    /// several nodes pay for that with a copy in each shard at every grant and renewal.
    pub fn everywhere(&self) -> bool {
        self.class == LINK
    }
}

/// The class of the queues whose items survive the process.
const LETTERS: &str = "letters";
/// The class of the queues of notes about messages.
const UNANSWERED: &str = "una";

impl QueueName {
    /// Messages that were accepted from a partner and are not confirmed by the local server yet. Durable.
    ///
    /// `component` is the name of the link that carries them. Whoever holds the link's lease consumes it, in all
    /// its parts ([`Self::at`]).
    pub fn letters(local: &Domain, component: &Domain) -> Self {
        Self::new(LETTERS, Slot::named(&format_compact!("{local},{component}")), "")
    }

    /// Tells whether items survive the process where the store has a place for that, like users' decisions.
    pub fn is_durable(&self) -> bool {
        self.class == LETTERS
    }

    /// Puts the name of a durable queue together from its parts, for backends that stored them apart.
    pub fn durable_from_parts(slot: &str, name: &str) -> Option<Self> {
        if slot.is_empty() || slot.contains(['{', '}']) {
            return None;
        }
        let part = |text: &str| Shard::new(text.parse().ok()?);
        let (name, part) = match name.rsplit_once('@') {
            Some((name, text)) => (name, Some(part(text)?)),
            None => (name, None),
        };
        Some(Self { class: LETTERS, slot: Slot(CompactString::from(slot)), name: CompactString::from(name), part })
    }

    /// Returns what tells apart the queues of one class and slot, often empty.
    pub fn name(&self) -> CompactString {
        match self.part {
            Some(part) => format_compact!("{}@{}", self.name, part.0),
            None => self.name.clone(),
        }
    }

    /// What waits to be sent for a pair.
    pub fn pair(pair: &PairId) -> Self {
        Self::new("out", Slot::pair(pair), "")
    }

    /// What local users are told about messages that a process had, once it is gone.
    pub fn unanswered(pod: &str) -> Self {
        Self::new(UNANSWERED, Slot::named(pod), "")
    }

    pub(crate) fn is_unanswered(&self) -> bool {
        self.class == UNANSWERED
    }

    /// What waits for one process.
    pub fn pod(pod: &str) -> Self {
        Self::new("pod", Slot::named(pod), "")
    }

    /// The part of the queue that lies in a shard: a queue of its own, with its own order.
    #[must_use]
    pub fn at(self, shard: Shard) -> Self {
        Self { part: Some(shard), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(jid: &str) -> BareAddress {
        BareAddress::from_jid(jid).unwrap()
    }

    #[test]
    fn what_changes_together_shares_a_slot() {
        let pair = PairId::of(&user("lee@corp.example"), &user("ana@partner.example"));
        let keys = [
            Key::pair(&pair),
            Key::session(&pair),
            Key::auth(&pair),
            Key::transaction(&pair, "77"),
            Key::dialog(&pair, "t-1"),
            Key::receipt(&pair, "m1"),
        ];
        for key in &keys {
            assert_eq!(key.slot(), keys[0].slot());
        }
        assert_eq!(LeaseName::send(&pair, "t-1").slot(), keys[0].slot());
        assert_eq!(QueueName::pair(&pair).slot(), keys[0].slot());
        assert_eq!(keys[3].to_string(), format!("tx:{{{pair}}}:77"));
    }

    #[test]
    fn a_queue_has_a_part_in_every_shard_and_a_shard_its_own_lease() {
        let queue = QueueName::link("127.0.0.1:5347", "partner.example");
        let parts: Vec<_> = Shard::all().map(|shard| queue.clone().at(shard)).collect();
        assert!(parts.iter().zip(Shard::all()).all(|(part, shard)| part.place() == shard && *part != queue));
        assert_eq!(parts[7].to_string(), "link:{127.0.0.1:5347,partner.example}@7");
        assert!(Shard::all().all(|shard| LeaseName::shard(shard).place() == shard));
        assert!(LeaseName::link("s", "c").everywhere() && !LeaseName::shard(Shard(3)).everywhere());
    }

    #[test]
    fn texts_are_frozen_and_lead_back_to_their_keys() {
        let keys = [
            (Key::user(&user("lee@corp.example")), "pol:{lee@corp.example}"),
            (Key::address(&user("a{b}@corp.example")), "addr:{a%7bb%7d@corp.example}"),
            (Key::thread("1}2:3@host"), "thr:{1%7d2:3@host}"),
            (Key::other("half", Slot::named(""), "a}:b"), "x:{%00}:half:a}:b"),
        ];
        for (key, text) in keys {
            assert_eq!(key.to_string(), text);
            assert_eq!(Key::parse(text), Some(key));
        }
        for bad in ["", "pol", "pol:{", "pol:{}", "pol:{a}b", "pol:{a}:", "zzz:{a}", "pol:{a{b}"] {
            assert_eq!(Key::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_letters_are_durable_and_their_name_is_frozen() {
        let domain = |name| Domain::parse(name).unwrap();
        let letters = QueueName::letters(&domain("corp.example"), &domain("partner.example"));
        assert_eq!(letters.to_string(), "letters:{corp.example,partner.example}");
        assert!(letters.is_durable());
        assert_eq!(QueueName::durable_from_parts(letters.slot().as_str(), &letters.name()), Some(letters.clone()));
        let part = letters.at(Shard(7));
        assert!(part.is_durable());
        assert_eq!(QueueName::durable_from_parts(part.slot().as_str(), &part.name()), Some(part));
        assert_eq!(QueueName::durable_from_parts("a", "@64"), None);
        assert_eq!(QueueName::durable_from_parts("a}b", ""), None);
        assert!(!QueueName::pod("sip-0").is_durable());
    }

    #[test]
    fn kinds_have_their_frozen_codes() {
        let codes: Vec<_> = KINDS.iter().map(|kind| (kind.code(), kind.prefix())).collect();
        let frozen = [
            (0, "x"),
            (1, "pair"),
            (2, "im"),
            (3, "pol"),
            (4, "auth"),
            (5, "tx"),
            (6, "addr"),
            (7, "thr"),
            (8, "dlg"),
            (9, "imdn"),
            (10, "peer"),
        ];
        assert_eq!(codes, frozen);
        assert!(KINDS.iter().all(|kind| Kind::from_code(kind.code()) == Some(*kind)));
        assert_eq!(Kind::from_code(11), None);
    }

    #[test]
    fn shards_are_frozen_and_even() {
        assert_eq!(Slot::named("lee@corp.example").shard().number(), 52);
        let mut counts = [0_u32; SHARDS as usize];
        for n in 0..6400 {
            counts[usize::from(Slot::named(&format!("user{n}@corp.example")).shard().number())] += 1;
        }
        assert!(counts.iter().all(|count| (50..200).contains(count)), "{counts:?}");
        assert_eq!(Shard::new(SHARDS), None);
        assert_eq!(Shard::all().count(), usize::from(SHARDS));
    }
}
