//! Requests that come again at another process get the same answer, and nothing is done twice (interworking
//! specification §6.3).
//!
//! A process remembers its own transactions; between processes a record of 32 s does. Requests that one turn of a machine
//! answers have it written in the turn's own commit, so that change and answer are one step. A MESSAGE has an effect
//! outside of the store, the stanza: it is claimed first, beside the reads, and finished when it was answered. Nothing
//! of this happens with a store that serves one process.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use isthmus_interwork::error_map::SipAnswer;
use isthmus_interwork::session::Answer;
use isthmus_model::PairId;
use isthmus_sip::endpoint::Repeatable;
use isthmus_sip::{Message, StatusCode};
use isthmus_store::{Batch, Committed, Condition, Key, Kind, Lifetime, Record, Retry, StoreError, record};
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use super::inbound::{Asker, Incoming};
use super::{Bridge, CONFLICT_RETRIES};

const FORMAT: u16 = 1;
/// How long an answer is kept: 64·T1, after which nobody repeats the request (interworking specification §6.8).
const LIFETIME: Duration = Duration::from_secs(32);
/// The longest answer that is kept, in bytes; copies of a request with a longer one are refused.
const MAX_ANSWER: usize = 64 * 1024;
/// A process that is gone is noticed after more than this, one that is new after less.
const UNKNOWN_YET: Duration = Duration::from_secs(10);
/// How many answers wait for a store that is away: 32 s of them at 1000 a second.
const MAX_UNWRITTEN: usize = 32_768;
/// An answer that was given is written after so long at most, together with the others of that time: they leave in one piece
/// and come back in one, which spares most of what they cost. Until then copies are absorbed, as while the request runs.
const TOGETHER: Duration = Duration::from_millis(10);
/// The pause before a store that was away is tried again. Short: until the answers are written, a copy runs again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Tells whether a life of a process still goes on, in place of the list of processes.
#[cfg(test)]
type Alive = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// What is the same in all copies of a request, and by which way this one came.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    key: Key,
    /// The client transaction, shortened.
    branch: u64,
    in_dialog: bool,
}

impl Identity {
    /// Reads the identity of a request of a pair.
    pub(super) fn of(pair: &PairId, request: &Message) -> Self {
        let cseq = request.cseq();
        let hash = digest(&[
            pair.as_str(),
            request.call_id(),
            request.from_().tag().unwrap_or_default(),
            &cseq.number.to_string(),
            cseq.method.as_str(),
        ]);
        let via = request.top_via();
        let branch = match via.rfc3261_branch() {
            Some(branch) => digest(&[branch, &via.sent_by().to_ascii_lowercase()]),
            None => digest(&[request.top_via_value()]),
        };
        let mut name = String::with_capacity(24);
        // Writing to a string cannot fail.
        let _ = write!(name, "{:024x}", hash >> 32);
        Self {
            key: Key::transaction(pair, &name),
            branch: u64::try_from(branch >> 64).unwrap_or_default(),
            in_dialog: request.to().tag().is_some(),
        }
    }

    /// Names the record.
    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Adds to a turn's batch that the request has this answer. `read` is the record as the turn read it, so that of two
    /// turns for one request only the first happens.
    pub(super) fn write_answer(&self, batch: &mut Batch, read: Option<&Record>, life: &str, answer: &Answer) {
        // Told of an unknown dialog or the like, in the words of the request and with its own tag: so would everybody.
        if batch.is_empty() && self.in_dialog {
            return;
        }
        let entry = Entry::finished(self.branch, life, answer);
        batch.put(self.key.clone(), Condition::unchanged(read), entry.to_bytes(), Lifetime::For(LIFETIME));
    }
}

/// The first 128 bits of a hash over parts that hold no NUL.
fn digest(parts: &[&str]) -> u128 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.finalize().iter().take(16).fold(0, |sum, byte| sum << 8 | u128::from(*byte))
}

/// What is stored about a request.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct Entry<'a> {
    /// The client transaction that was served.
    #[n(0)]
    branch: u64,
    /// The life of the process that serves it.
    #[n(1)]
    life: Cow<'a, str>,
    /// The final answer; none while the request runs.
    #[n(2)]
    answer: Option<Kept<'a>>,
}

/// A final answer without what a copy of its request brings along.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct Kept<'a> {
    #[n(0)]
    status: u16,
    #[n(1)]
    reason: Cow<'a, str>,
    #[n(2)]
    to_tag: Option<Cow<'a, str>>,
    #[n(3)]
    headers: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    #[cbor(n(4), with = "minicbor::bytes")]
    body: Cow<'a, [u8]>,
}

impl<'a> Kept<'a> {
    fn of(answer: &'a Answer) -> Self {
        let Ok(bytes) = answer else { return Self::bare(StatusCode::SERVER_INTERNAL_ERROR) };
        match Repeatable::of(bytes).filter(|_| bytes.len() <= MAX_ANSWER) {
            Some(answer) => Self {
                status: answer.status.code(),
                reason: answer.reason.into(),
                to_tag: answer.to_tag.map(Cow::from),
                headers: answer.headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
                body: answer.body.into(),
            },
            None => Self::bare(StatusCode::LOOP_DETECTED),
        }
    }

    fn bare(status: StatusCode) -> Self {
        let reason = status.reason().to_string().into();
        Self { status: status.code(), reason, to_tag: None, headers: Vec::new(), body: Cow::default() }
    }

    fn answer(&self, request: &Message, to_tag: &str) -> Answer {
        let answer = Repeatable {
            status: StatusCode::new(self.status).unwrap_or(StatusCode::LOOP_DETECTED),
            reason: &self.reason,
            to_tag: Some(self.to_tag.as_deref().unwrap_or(to_tag)),
            headers: self.headers.iter().map(|(name, value)| (&**name, &**value)).collect(),
            body: &self.body,
        };
        answer.answer(request)
    }
}

impl<'a> Entry<'a> {
    fn running(branch: u64, life: &'a str) -> Self {
        Self { branch, life: life.into(), answer: None }
    }

    fn finished(branch: u64, life: &'a str, answer: &'a Answer) -> Self {
        Self { branch, life: life.into(), answer: Some(Kept::of(answer)) }
    }

    fn to_bytes(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(256);
        // Writing to a Vec cannot fail.
        let _ = minicbor::encode(self, &mut bytes);
        record::encode(Kind::Transaction, FORMAT, &bytes)
    }

    /// Reads a record; one that cannot be read is as good as none.
    fn read(stored: &Record) -> Option<Entry<'static>> {
        let entry = record::decode_as(Kind::Transaction, FORMAT, &stored.bytes)
            .map_err(|error| error.to_string())
            .and_then(|envelope| minicbor::decode(&envelope.payload).map_err(|error| error.to_string()));
        entry.inspect_err(|error| tracing::error!(%error, "what was answered cannot be read")).ok()
    }
}

/// What is to be done with a request that another process knows already.
#[derive(Debug)]
pub(super) enum Known {
    /// It gets this answer.
    Answered(Answer),
    /// Another process works on this very request and will answer it.
    Running,
}

impl Known {
    /// Judges a request by its record; `None` when it is to be served.
    pub(super) fn of(
        incoming: &Incoming,
        identity: &Identity,
        stored: &Record,
        gone: impl Fn(&str) -> bool,
    ) -> Option<Self> {
        let entry = Entry::read(stored)?;
        match entry.answer {
            Some(answer) => Some(Self::Answered(answer.answer(&incoming.request, &incoming.to_tag))),
            None if gone(&entry.life) => None,
            None if entry.branch == identity.branch => Some(Self::Running),
            // RFC 3261 §8.2.2.2
            None => Some(Self::Answered(incoming.answer(&SipAnswer::new(StatusCode::LOOP_DETECTED)))),
        }
    }
}

/// Tells whether a record was written so lately that its process may be too new to be known.
fn is_young(stored: &Record) -> bool {
    stored.expires_at.is_some_and(|at| at.since(super::now().epoch) > LIFETIME.saturating_sub(UNKNOWN_YET))
}

/// The right to work on a MESSAGE. It ends with [`Bridge::conclude`] or [`Bridge::withdraw`].
#[derive(Debug)]
#[must_use]
pub(super) struct Permit(Option<Held>);

#[derive(Debug)]
struct Held {
    identity: Identity,
    /// What the record must be for the answer to be written.
    condition: Condition,
    /// It was another's, who is gone.
    again: bool,
}

impl Permit {
    /// Returns the id for the request's stanza, the same for each copy of the request; `None` when nobody else could run
    /// one.
    pub(super) fn stanza_id(&self) -> Option<String> {
        self.0.as_ref().map(|held| format!("r{}", held.identity.key.name()))
    }

    /// Tells whether a process that is gone had the request before.
    pub(super) fn is_again(&self) -> bool {
        self.0.as_ref().is_some_and(|held| held.again)
    }
}

/// An answer on its way into the store, or a claim on its way out.
struct Unwritten {
    key: Key,
    condition: Condition,
    entry: Option<Bytes>,
    until: Instant,
}

impl Unwritten {
    fn batch(&self, lifetime: Duration) -> Batch {
        let mut batch = Batch::new();
        let (key, condition) = (self.key.clone(), self.condition);
        match &self.entry {
            Some(entry) => batch.put(key, condition, entry.clone(), Lifetime::For(lifetime)),
            None => batch.delete(key, condition),
        };
        batch
    }
}

/// What the process knows about answers that others may have to repeat.
#[derive(Default)]
pub(super) struct Repeats {
    /// Answers that were given a moment ago.
    held: Mutex<Vec<Unwritten>>,
    /// How many answers are held or being written.
    open: AtomicUsize,
    /// Answers that the store did not take while it was away, oldest first.
    unwritten: Mutex<VecDeque<Unwritten>>,
    added: Notify,
    #[cfg(test)]
    alive: std::sync::OnceLock<Alive>,
}

impl Repeats {
    /// Tells whether every answer is written, or known to wait for a store that is away.
    pub(super) fn are_written(&self) -> bool {
        self.open.load(Ordering::Acquire) == 0
    }
}

impl Bridge {
    /// Counts the answers that wait for a store that is away.
    #[cfg(test)]
    pub(super) fn unwritten_answers(&self) -> usize {
        self.repeats.unwritten.lock().len()
    }

    /// Says who lives, in place of the list of processes.
    #[cfg(test)]
    pub(super) fn set_alive(&self, alive: impl Fn(&str) -> bool + Send + Sync + 'static) {
        let _ = self.repeats.alive.set(Box::new(alive));
    }

    fn is_alive(&self, life: &str) -> bool {
        #[cfg(test)]
        if let Some(alive) = self.repeats.alive.get() {
            return alive(life);
        }
        self.pods.is_alive(life)
    }

    /// Tells whether the process that began to work on a request will not go on.
    fn is_gone(&self, incoming: &Incoming, life: &str, stored: &Record) -> bool {
        if life == self.pods.life() {
            return false;
        }
        // Whoever lost the link sends nothing over it any more; who gave it back finishes what it began.
        let loser = self.links.loser(&incoming.local.bare.domain, &incoming.remote.bare.domain);
        loser.is_some_and(|(loser, _)| loser == life) || !self.is_alive(life) && !is_young(stored)
    }

    /// Judges a request by what a turn read about it.
    pub(super) fn known(&self, incoming: &Incoming, identity: &Identity, stored: &Record) -> Option<Known> {
        Known::of(incoming, identity, stored, |life| self.is_gone(incoming, life, stored))
    }

    /// Claims a MESSAGE for this process, and reads records beside. Without the store it is served all the same (design §6.11),
    /// and its answer is written when the store is back.
    pub(super) async fn claim_and_read(
        &self,
        incoming: &Incoming,
        keys: &[Key],
    ) -> (Result<Permit, Known>, Result<Vec<Option<Record>>, StoreError>) {
        if !self.store.is_shared() {
            return (Ok(Permit(None)), self.store.read(keys).await);
        }
        let identity = Identity::of(&incoming.pair, &incoming.request);
        let entry = Entry::running(identity.branch, self.pods.life()).to_bytes();
        let claim = |condition| {
            let mut batch = Batch::new();
            batch.put(identity.key.clone(), condition, entry.clone(), Lifetime::For(LIFETIME));
            batch
        };
        let (mut claimed, records) = self.store.commit_and_read(claim(Condition::Absent), keys).await;
        let mut again = false;
        for _ in 0..CONFLICT_RETRIES {
            let condition = match claimed {
                Ok(done) => Condition::Version(done.versions.first().copied().unwrap_or_default()),
                Err(StoreError::Conflict(conflict)) => {
                    let current = conflict.current;
                    let known = current.as_ref().and_then(|current| self.known(incoming, &identity, current));
                    if let Some(known) = known {
                        return (Err(known), records);
                    }
                    again = current.is_some();
                    claimed = self.store.commit(claim(Condition::unchanged(current.as_ref()))).await;
                    continue;
                }
                Err(error) => {
                    self.store_failed(&error);
                    Condition::Any
                }
            };
            return (Ok(Permit(Some(Held { identity, condition, again }))), records);
        }
        // Others were first each time, so one of them runs it.
        (Err(Known::Running), records)
    }

    /// Answers a request that another process knows already.
    pub(super) fn answer_known(self: &Arc<Self>, incoming: &Incoming, known: Known) {
        match known {
            Known::Answered(answer) => self.repeat(&incoming.asker, &incoming.request, answer),
            Known::Running => self.absorb(&incoming.asker),
        }
    }

    /// Gives a MESSAGE its final answer, and writes it down for others.
    pub(super) fn conclude(self: &Arc<Self>, permit: Permit, asker: &Asker, request: &Message, answer: Answer) {
        let Some(held) = permit.0 else { return self.respond(asker, request, answer) };
        // Before the answer leaves: whoever has it may look whether this process is idle.
        self.repeats.open.fetch_add(1, Ordering::AcqRel);
        self.respond(asker, request, answer.clone());
        self.write_soon(Unwritten {
            entry: Some(Entry::finished(held.identity.branch, self.pods.life(), &answer).to_bytes()),
            key: held.identity.key,
            condition: held.condition,
            until: Instant::now() + LIFETIME,
        });
    }

    /// Refuses a MESSAGE of which nothing was done, so that another process may serve it.
    pub(super) fn withdraw(self: &Arc<Self>, permit: Permit, asker: &Asker, request: &Message, answer: Answer) {
        let held = permit.0.filter(|held| held.condition != Condition::Any);
        if held.is_some() {
            self.repeats.open.fetch_add(1, Ordering::AcqRel);
        }
        self.respond(asker, request, answer);
        if let Some(held) = held {
            let (key, condition) = (held.identity.key, held.condition);
            let unwritten = Unwritten { entry: None, key, condition, until: Instant::now() + LIFETIME };
            let bridge = Arc::clone(self);
            // Another process may have the next copy at once.
            tokio::spawn(async move { bridge.write_or_keep(vec![unwritten]).await });
        }
    }

    /// Writes an answer down that counts as open, together with others that are given about now.
    fn write_soon(self: &Arc<Self>, unwritten: Unwritten) {
        let is_first = {
            let mut held = self.repeats.held.lock();
            held.push(unwritten);
            held.len() == 1
        };
        if is_first {
            let bridge = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(TOGETHER).await;
                let held = std::mem::take(&mut *bridge.repeats.held.lock());
                bridge.write_or_keep(held).await;
            });
        }
    }

    async fn write_or_keep(&self, answers: Vec<Unwritten>) {
        let batches = answers.iter().map(|unwritten| unwritten.batch(LIFETIME)).collect();
        let outcomes = self.store.commit_each(batches).await;
        for (unwritten, outcome) in answers.into_iter().zip(outcomes) {
            if !self.is_written(outcome) {
                self.write_later(unwritten);
            }
            self.repeats.open.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Judges how the writing of an answer came out; false when the store is away.
    fn is_written(&self, outcome: Result<Committed, StoreError>) -> bool {
        match outcome {
            // Taken over, or written by an attempt of which nobody knew that it had succeeded.
            Ok(_) | Err(StoreError::Conflict(_)) => true,
            Err(error) => {
                self.store_failed(&error);
                !matches!(error.retry(), Retry::After(_))
            }
        }
    }

    fn write_later(&self, unwritten: Unwritten) {
        let mut waiting = self.repeats.unwritten.lock();
        if waiting.len() >= MAX_UNWRITTEN {
            waiting.pop_front();
            self.metrics.store_errors.get_or_create(&crate::metrics::Reason { reason: "answer_forgotten" }).inc();
        }
        waiting.push_back(unwritten);
        drop(waiting);
        self.repeats.added.notify_one();
    }
}

/// Tells whether a record holds an answer.
#[cfg(test)]
pub(super) fn is_finished(stored: &Record) -> bool {
    Entry::read(stored).is_some_and(|entry| entry.answer.is_some())
}

/// Writes answers down that the store did not take while it was away.
pub(super) async fn run(bridge: Arc<Bridge>) {
    loop {
        let next = bridge.repeats.unwritten.lock().pop_front();
        let Some(unwritten) = next else {
            bridge.repeats.added.notified().await;
            continue;
        };
        let left = unwritten.until.saturating_duration_since(Instant::now());
        if !left.is_zero() && !bridge.is_written(bridge.store.commit(unwritten.batch(left)).await) {
            bridge.repeats.unwritten.lock().push_front(unwritten);
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry<'static> {
        let kept = Kept {
            status: 200,
            reason: "OK".into(),
            to_tag: Some("t".into()),
            headers: vec![("Expires".into(), "60".into())],
            body: b"v".into(),
        };
        Entry { branch: 7, life: "a1".into(), answer: Some(kept) }
    }

    /// Written by version 0.1.0; the next release must read them.
    const RUNNING: &[u8] = b"I\x01\x05\x00\x01\x82\x07\x62a1";
    const FINISHED: &[u8] = b"I\x01\x05\x00\x01\x83\x07\x62a1\x85\x18\xc8\x62OK\x61t\x81\x82\x67Expires\x6260\x41v";

    #[test]
    fn frozen_bytes_are_written_and_read() {
        let running = Entry { answer: None, ..entry() };
        for (entry, frozen) in [(running, RUNNING), (entry(), FINISHED)] {
            assert_eq!(entry.to_bytes(), frozen, "{:?}", entry.to_bytes());
            let stored = Record { version: 1, bytes: Bytes::from_static(frozen), expires_at: None };
            assert_eq!(Entry::read(&stored), Some(entry));
        }
        let newer =
            Record { version: 1, bytes: Bytes::from_static(b"I\x01\x05\x00\x02\x82\x07\x62a1"), expires_at: None };
        assert_eq!(Entry::read(&newer), None);
    }

    fn request(text: &str) -> Message {
        let text = format!(
            "MESSAGE sip:juliet@corp.example SIP/2.0\r\n{text}Max-Forwards: 70\r\nTo: <sip:juliet@corp.example>\r\n\
             Content-Length: 0\r\n\r\n"
        );
        Message::parse(Bytes::from(text), &isthmus_sip::Limits::default()).unwrap()
    }

    #[test]
    fn copies_share_their_name_whatever_their_way() {
        let bare = |jid| isthmus_model::BareAddress::from_jid(jid).unwrap();
        let pair = PairId::of(&bare("juliet@corp.example"), &bare("ana@partner.example"));
        let other = PairId::of(&bare("romeo@corp.example"), &bare("ana@partner.example"));
        let via = "Via: SIP/2.0/UDP a.example;branch=z9hG4bK1\r\n";
        let rest = "From: <sip:ana@partner.example>;tag=a\r\nCall-ID: c1\r\nCSeq: 1 MESSAGE\r\n";
        let of = |pair, via: &str, rest: &str| Identity::of(pair, &request(&format!("{via}{rest}")));
        let first = of(&pair, via, rest);
        assert_eq!(first.key.name().len(), 24);
        for (via, same) in [
            ("Via: SIP/2.0/UDP A.example;branch=z9hG4bK1;rport\r\n", true),
            ("Via: SIP/2.0/UDP a.example;branch=z9hG4bK2\r\n", false),
            ("Via: SIP/2.0/UDP b.example;branch=z9hG4bK1\r\n", false),
            ("Via: SIP/2.0/UDP a.example;branch=old\r\n", false),
        ] {
            let copy = of(&pair, via, rest);
            assert_eq!(copy.key, first.key);
            assert_eq!(copy.branch == first.branch, same, "{via}");
        }
        for change in [("tag=a", "tag=b"), ("c1", "c2"), ("CSeq: 1", "CSeq: 11")] {
            assert_ne!(of(&pair, via, &rest.replace(change.0, change.1)).key, first.key);
        }
        assert_ne!(of(&other, via, rest).key.name(), first.key.name());
    }

    #[test]
    fn an_answer_too_long_to_be_kept_refuses_the_copies() {
        let request = request(
            "Via: SIP/2.0/UDP a.example;branch=z9hG4bK1\r\nFrom: <sip:ana@partner.example>;tag=a\r\nCall-ID: c1\r\nCSeq: 1 MESSAGE\r\n",
        );
        let writer = isthmus_sip::ResponseWriter::for_request(&request, StatusCode::OK, None, Some("t"));
        let answer = writer.finish(&vec![b'x'; MAX_ANSWER]);
        let kept = Kept::of(&answer);
        assert_eq!((kept.status, kept.body.len()), (482, 0));
        let again = kept.answer(&request, "fresh").unwrap();
        assert!(again.starts_with(b"SIP/2.0 482 "));
    }
}
