//! Names of keys, and the form of a record in Redis.
//!
//! Every key is `<prefix>{<shard>}<rest>`, the same in all modes. The number of the shard in braces is the hash tag, so a
//! Cluster keeps all of a shard in one of its slots. The rest is:
//!
//! | rest | type | what |
//! |---|---|---|
//! | the key's own text (`pair:{…}`) | string | a record, see [`value`] |
//! | `m` | hash | `v` the last number given out, `x` how many items ended untaken; one a shard in a Cluster, or else only in shard 0, for all |
//! | `due` | sorted set | timers by when they can be claimed; a member is `<kind>:<key>` |
//! | `tmr` | hash | member to generation, and once claimed due time, claim and attempt |
//! | `ls:<lease>` | string | `token:end:holder` of a lease, or in a Cluster its copy in a shard that is not its own |
//! | `lr` | sorted set | leases of the shard by their end |
//! | `ql:<queue>` | list | ids of items in order |
//! | `qi:<queue>` | hash | content and state of items, see `common.lua` |
//! | `qs` | sorted set | queues of the shard by when the next item ends |
//! | `sv` | hash | only in shard 0: `r` the name of the server's process, `t` since when it gives numbers out, `v` the last number that it knew by then (not in a Cluster) |
//!
//! `m`, `due`, `tmr`, `qs`, `lr` and `sv` have no expiry: the first two of a timer go when it is done, the registers hold
//! what has an expiry of its own, `m` is one small hash a shard at most, and `sv` one hash.

use std::fmt;

use bytes::Bytes;
use isthmus_model::EpochMillis;
use redis::{RedisWrite, ToRedisArgs};

use crate::error::StoreError;
use crate::key::{Key, LeaseName, QueueName, Shard};
use crate::record::Record;
use crate::timer::TimerKind;

/// The name of a key; it is written where it is needed.
#[derive(Clone, Copy)]
pub(super) struct Name<'a, R> {
    /// Prefix and hash tag.
    start: &'a str,
    rest: R,
}

impl<R: fmt::Display> fmt::Display for Name<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.start)?;
        self.rest.fmt(f)
    }
}

impl<R: fmt::Display> ToRedisArgs for Name<'_, R> {
    fn write_redis_args<W: RedisWrite + ?Sized>(&self, out: &mut W) {
        out.write_arg_fmt(self);
    }
}

/// What a key is, and whose.
#[derive(Clone, Copy)]
pub(super) struct Of<'a, T>(&'static str, &'a T);

impl<T: fmt::Display> fmt::Display for Of<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)?;
        self.1.fmt(f)
    }
}

/// Makes names of keys.
#[derive(Debug)]
pub(super) struct Names {
    prefix: String,
    /// Of each shard how its keys begin: written once, since every operation names some.
    starts: Vec<String>,
    /// Whether a shard sees only what is in it.
    apart: bool,
}

impl Names {
    /// Makes the names of a store; `apart` tells that a script reaches one shard only, as in a Cluster.
    pub(super) fn new(prefix: &str, apart: bool) -> Self {
        let starts = Shard::all().map(|shard| format!("{prefix}{{{}}}", shard.number())).collect();
        Self { prefix: prefix.to_owned(), starts, apart }
    }

    fn at<R>(&self, shard: Shard, rest: R) -> Name<'_, R> {
        Name { start: self.starts.get(usize::from(shard.number())).map_or("", String::as_str), rest }
    }

    pub(super) fn record<'a>(&'a self, key: &'a Key) -> Name<'a, &'a Key> {
        self.at(key.shard(), key)
    }

    /// The counters of a shard: its own where a script reaches that only, or else those of the whole store.
    pub(super) fn counters(&self, shard: Shard) -> Name<'_, &'static str> {
        self.at(if self.has_counters(shard) { shard } else { Shard::FIRST }, "m")
    }

    /// Tells whether a shard has counters of its own, or is the one that has them for all.
    pub(super) fn has_counters(&self, shard: Shard) -> bool {
        self.apart || shard == Shard::FIRST
    }

    /// What is known about the server.
    pub(super) fn server(&self) -> Name<'_, &'static str> {
        Name { start: self.starts.first().map_or("", String::as_str), rest: "sv" }
    }

    pub(super) fn due_times(&self, shard: Shard) -> Name<'_, &'static str> {
        self.at(shard, "due")
    }

    pub(super) fn timers(&self, shard: Shard) -> Name<'_, &'static str> {
        self.at(shard, "tmr")
    }

    pub(super) fn queues(&self, shard: Shard) -> Name<'_, &'static str> {
        self.at(shard, "qs")
    }

    pub(super) fn leases(&self, shard: Shard) -> Name<'_, &'static str> {
        self.at(shard, "lr")
    }

    /// Tells whether a lease needs a copy in each shard.
    pub(super) fn is_copied(&self, lease: &LeaseName) -> bool {
        self.apart && lease.everywhere()
    }

    /// The lease as it is seen from a shard.
    pub(super) fn lease<'a>(&'a self, lease: &'a LeaseName, from: Shard) -> Name<'a, Of<'a, LeaseName>> {
        let shard = if self.is_copied(lease) { from } else { lease.place() };
        self.at(shard, Of("ls:", lease))
    }

    pub(super) fn list<'a>(&'a self, queue: &'a QueueName) -> Name<'a, Of<'a, QueueName>> {
        self.at(queue.place(), Of("ql:", queue))
    }

    pub(super) fn items<'a>(&'a self, queue: &'a QueueName) -> Name<'a, Of<'a, QueueName>> {
        self.at(queue.place(), Of("qi:", queue))
    }

    /// How the names of lists and of items begin.
    pub(super) fn queue_starts(&self, shard: Shard) -> [Name<'_, &'static str>; 2] {
        [self.at(shard, "ql:"), self.at(shard, "qi:")]
    }

    /// The channel of wake-ups.
    pub(super) fn channel(&self) -> String {
        format!("{}wake", self.prefix)
    }

    /// A pattern of all keys.
    pub(super) fn pattern(&self) -> String {
        let mut text = String::new();
        for c in self.prefix.chars() {
            if matches!(c, '*' | '?' | '[' | ']' | '\\' | '^') {
                text.push('\\');
            }
            text.push(c);
        }
        text + "{*"
    }

    /// Tells whether a key is that of a record.
    pub(super) fn is_record(&self, name: &str) -> bool {
        name.strip_prefix(&self.prefix)
            .and_then(|rest| rest.strip_prefix('{'))
            .and_then(|rest| rest.split_once('}'))
            .is_some_and(|(_, rest)| Key::parse(rest).is_some())
    }
}

/// The name of a timer within its shard.
pub(super) fn timer(kind: TimerKind, key: &Key) -> impl fmt::Display + '_ {
    fmt::from_fn(move |f| write!(f, "{}:{key}", kind.0))
}

/// Reads [`timer`].
pub(super) fn parse_timer(name: &[u8]) -> Option<(TimerKind, Key)> {
    let (kind, key) = std::str::from_utf8(name).ok()?.split_once(':')?;
    Some((TimerKind(kind.parse().ok()?), Key::parse(key)?))
}

/// The version of the form of a record.
const FORM: u8 = 1;
/// Form (1 octet), version (7, big-endian), end in milliseconds since 1970 (6, big-endian; 0 for none).
const HEADER: usize = 14;

/// Reads a record as the scripts write it: a header, then what the owner stored.
pub(super) fn value(place: &Key, bytes: Vec<u8>) -> Result<Record, StoreError> {
    let number = |part: &[u8]| part.iter().fold(0_u64, |number, octet| number << 8 | u64::from(*octet));
    let Some((header, _)) = bytes.split_first_chunk::<HEADER>() else {
        return Err(corrupt(place, "a record without a header"));
    };
    let [form, rest @ ..] = header;
    if *form != FORM {
        return Err(corrupt(place, &format!("a record of form {form}, this release knows {FORM}")));
    }
    let (version, end) = rest.split_at(7);
    let (version, end) = (number(version), number(end));
    let expires_at = (end != 0).then_some(EpochMillis(end));
    Ok(Record { version, bytes: Bytes::from(bytes).slice(HEADER..), expires_at })
}

pub(super) fn corrupt(place: impl fmt::Display, what: &str) -> StoreError {
    StoreError::Corrupt { place: place.to_string(), what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Slot;

    #[test]
    fn a_shard_is_the_hash_tag_of_all_its_keys() {
        let names = Names::new("isthmus:im-edge:", true);
        let key = Key::thread("call@host");
        let shard = key.shard();
        let tag = format!("isthmus:im-edge:{{{}}}", shard.number());
        assert_eq!(names.record(&key).to_string(), format!("{tag}thr:{{call@host}}"));
        let link = LeaseName::link("127.0.0.1:5347", "partner.example");
        let queue = QueueName::link("127.0.0.1:5347", "partner.example").at(shard);
        let all = [
            names.counters(shard).to_string(),
            names.due_times(shard).to_string(),
            names.timers(shard).to_string(),
            names.queues(shard).to_string(),
            names.leases(shard).to_string(),
            names.lease(&link, shard).to_string(),
            names.list(&queue).to_string(),
            names.items(&queue).to_string(),
        ];
        assert!(all.iter().all(|name| name.starts_with(&tag) && !names.is_record(name)), "{all:?}");
        assert_eq!(names.list(&queue).to_string(), format!("{}{queue}", names.queue_starts(shard)[0]));
        assert!(names.is_record(&names.record(&key).to_string()));
        let own = LeaseName::new("send", Slot::named("call@host"), "t");
        assert!(names.lease(&own, Shard::new(0).unwrap()).to_string().starts_with(&tag));
        assert_eq!(Names::new("a*b:", true).pattern(), "a\\*b:{*");
        // Where one script reaches all shards, there is one lease and no copy, and the same counters for all.
        let whole = Names::new("isthmus:im-edge:", false);
        let of_all: Vec<_> = Shard::all().map(|shard| whole.lease(&link, shard).to_string()).collect();
        assert!(of_all.iter().all(|name| *name == names.lease(&link, link.place()).to_string()), "{of_all:?}");
        assert!(Shard::all().all(|shard| whole.counters(shard).to_string() == "isthmus:im-edge:{0}m"));
    }

    #[test]
    fn names_of_timers_lead_back_to_them() {
        let key = Key::thread("1:2}3");
        assert_eq!(parse_timer(timer(TimerKind(7), &key).to_string().as_bytes()), Some((TimerKind(7), key.clone())));
        for bad in [&b"7"[..], b"x:thr:{a}", b"7:zzz:{a}", b"70000:thr:{a}", b"\xff:thr:{a}"] {
            assert_eq!(parse_timer(bad), None);
        }
    }

    /// Written by version 0.1.0; must be readable for ever.
    const FROZEN: &[u8] = b"\x01\x06\x5b\x73\x27\x6d\xce\x80\x01\x99\xc5\x0b\xad\x00I\x01\x01\x00\x01payload";

    #[test]
    fn frozen_bytes_decode() {
        let key = Key::thread("c");
        let record = value(&key, FROZEN.to_vec()).unwrap();
        assert_eq!((record.version, record.expires_at), (1_789_400_001_138_304, Some(EpochMillis(1_759_947_500_800))));
        let envelope = crate::record::decode(&record.bytes).unwrap();
        assert_eq!((envelope.format, &envelope.payload[..]), (1, &b"payload"[..]));
        let durable = value(&key, [&FROZEN[..8], &[0; 6]].concat()).unwrap();
        assert_eq!((durable.expires_at, durable.bytes.len()), (None, 0));
        for bad in [&b""[..], &FROZEN[..13], &[&[2], &FROZEN[1..]].concat()] {
            assert!(matches!(value(&key, bad.to_vec()), Err(StoreError::Corrupt { .. })));
        }
    }
}
