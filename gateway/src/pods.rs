//! The processes of a realm that share its store: who they are, and what they tell each other.
//!
//! Each process keeps its name in one record that all of them write in turn, and has an inbox: a bounded queue in the
//! store from which it alone takes. With an embedded store there is one process, and nothing of this runs.

mod note;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use isthmus_model::EpochMillis;
use isthmus_store::wake::Topic;
use isthmus_store::{
    Batch, Condition, Consumer, ItemId, Key, Kind, Lifetime, QueueName, Record, Retry, Slot, Store, StoreError, record,
};
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use tokio::sync::{SetOnce, watch};
use tokio::time::{Instant, timeout};

pub use note::{Note, NoteError, Way};

use crate::metrics::{Metrics, NoteOutcome, Reason};

/// How often a process says that it lives.
const BEAT: Duration = Duration::from_secs(1);
/// A process that said nothing for so long is not counted on: others do what is due in its place within 10 s of its death (S-41), of which
/// the next beat and the next look at the shares take up to 3 s.
const QUIET: Duration = Duration::from_millis(3500);
/// A process that could say nothing for so long may soon be gone for the others, who count from what they heard last.
const SILENT: Duration = Duration::from_secs(10);
/// What is written so long after a process was heard last may still reach the store: the pause between two beats, and the time limits of
/// an operation and of a connection.
const REACHED: Duration = Duration::from_secs(6);
/// A process that said nothing for so long is gone (interworking specification §6.8).
const GONE: Duration = Duration::from_secs(15);
/// How long a process takes the links that nobody holds for those of processes before it.
const YOUNG: Duration = Duration::from_secs(30);
/// How long a walk of a young process waits for the list of processes, which may be unreadable.
const LISTED: Duration = Duration::from_secs(5);
/// How long the list of processes outlives the last of them.
const LIFETIME: Duration = Duration::from_secs(3600);
/// How many processes a realm can have.
const MOST: usize = 1024;
/// Format of the list.
const FORMAT: u16 = 1;
/// How often the list is read and written anew when another process was faster.
const RETRIES: usize = 20;
/// How many notes without acknowledgement are remembered.
const MOST_BEGUN: usize = 16_384;
/// How many notes are taken at once.
const ROUND: usize = 128;
/// When notes come again whose taking was not answered: only this process takes them, and it knows those that it has begun.
const HOLD: Duration = Duration::from_secs(1);
/// A wake-up may be lost when the store fails over.
const LOOK: Duration = Duration::from_secs(2);
/// The pause after the store failed.
const PAUSE: Duration = Duration::from_millis(500);

/// A process of the realm.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Member {
    /// The name of this life of the process.
    #[n(0)]
    pub life: String,
    /// Pool and number of the node.
    #[n(1)]
    pub node: String,
    /// When it started, in milliseconds since the epoch by its own clock.
    #[n(2)]
    pub started: u64,
    /// Grows while it lives.
    #[n(3)]
    pub beat: u64,
    /// It is about to end and takes no new work.
    #[n(4)]
    pub draining: bool,
}

#[derive(Debug, Default, Encode, Decode)]
struct Members {
    #[n(0)]
    members: Vec<Member>,
    /// Drawn when the list was begun: another one means that the former list was lost.
    #[n(1)]
    #[cbor(default)]
    begun: u64,
}

impl Members {
    /// Reads the list. One that a newer release wrote is let alone: what this one would write in its place is a list
    /// that has lost something to the others.
    fn read(stored: &Record) -> Result<Self, StoreError> {
        let corrupt = |what: String| StoreError::Corrupt { place: "the list of processes".to_owned(), what };
        let envelope =
            record::decode_as(Kind::Other, FORMAT, &stored.bytes).map_err(|error| corrupt(error.to_string()))?;
        minicbor::decode(&envelope.payload).map_err(|error| corrupt(error.to_string()))
    }
}

/// Who acts on notes.
pub trait NoteHandler: Send + Sync + 'static {
    /// Takes a note. Notes come in the order in which they were written; what takes time is begun here and done elsewhere.
    fn note(&self, note: Note);
}

/// Why a note was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendNoteError {
    /// Too much waits for the other process.
    #[error("too much waits for process {life}")]
    Full {
        /// The other process.
        life: String,
    },
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// When processes were last heard of.
#[derive(Default)]
struct Heard {
    /// The beat of each, and since when it is the same.
    beats: HashMap<String, (u64, Instant)>,
}

/// The processes of the realm, seen from this one.
pub struct Pods {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    me: Mutex<Member>,
    life: String,
    members: Mutex<Vec<Member>>,
    heard: Mutex<Heard>,
    handler: OnceLock<Arc<dyn NoteHandler>>,
    state_lost: watch::Sender<u64>,
    /// When that was noticed last.
    lost_at: Mutex<Option<Instant>>,
    /// Which list this process was written into, 0 before that.
    begun: AtomicU64,
    /// This process is no member any more.
    left: AtomicBool,
    said: Mutex<Said>,
    /// When this process began, and when the realm was heard of last before that.
    began: Instant,
    heard_before: SetOnce<Option<EpochMillis>>,
}

/// What the others heard of this process.
#[derive(Debug, Default)]
struct Said {
    /// When it said last that it lives.
    last: Option<Instant>,
    /// Since when it was silent, the last time that it found itself struck off the list.
    gone_since: Option<Instant>,
}

impl std::fmt::Debug for Pods {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pods").field("life", &self.life).finish_non_exhaustive()
    }
}

impl Pods {
    /// Joins the processes that share the store. `life` is a name that no other process and no earlier life of this one
    /// has; `node` is shown to people.
    pub fn start(store: Arc<dyn Store>, life: &str, node: &str, metrics: Arc<Metrics>) -> Arc<Self> {
        let me = Member {
            life: life.to_owned(),
            node: node.to_owned(),
            started: crate::bridge::now().epoch.0,
            beat: 0,
            draining: false,
        };
        let pods = Arc::new(Self {
            store,
            metrics,
            life: life.to_owned(),
            members: Mutex::new(vec![me.clone()]),
            me: Mutex::new(me),
            heard: Mutex::default(),
            handler: OnceLock::new(),
            state_lost: watch::Sender::new(0),
            lost_at: Mutex::default(),
            begun: AtomicU64::new(0),
            left: AtomicBool::new(false),
            said: Mutex::default(),
            began: Instant::now(),
            heard_before: SetOnce::new(),
        });
        if pods.is_shared() {
            tokio::spawn(keep_listed(Arc::clone(&pods)));
        }
        pods
    }

    /// Says who acts on notes, and begins to take them.
    pub fn set_handler(self: &Arc<Self>, handler: Arc<dyn NoteHandler>) {
        if self.handler.set(handler).is_ok() && self.is_shared() {
            tokio::spawn(take_notes(Arc::clone(self)));
        }
    }

    /// Returns the name of this life of the process.
    pub fn life(&self) -> &str {
        &self.life
    }

    /// Tells whether there can be other processes.
    pub fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    /// Tells whether a process lives, as far as this one knows. While the store is away the last state stands.
    pub fn is_alive(&self, life: &str) -> bool {
        life == self.life || self.members.lock().iter().any(|member| member.life == life)
    }

    /// Tells whether the others may have taken this process for gone since it wrote something at this moment.
    pub fn may_seem_gone_since(&self, moment: std::time::Instant) -> bool {
        let said = self.said.lock();
        let is_silent = said.last.filter(|last| last.elapsed() >= SILENT);
        // What was written deep in a silence did not reach the store.
        [is_silent, said.gone_since].into_iter().flatten().any(|since| since + REACHED > moment.into())
    }

    /// This process finds itself in the list, or not; `is_new` says that the store has lost the list that it was in, and all notes.
    fn find_itself(&self, is_listed: bool, is_new: bool) {
        let mut said = self.said.lock();
        let silent = said.last.is_some_and(|last| last.elapsed() >= SILENT);
        if !is_listed && (silent || !is_new) {
            said.gone_since = said.last.or(said.gone_since);
        }
    }

    /// As if the others had taken this process for gone.
    #[cfg(test)]
    pub(crate) fn seem_gone(&self) {
        self.find_itself(false, false);
    }

    /// Counts the processes that said lately that they live and go on, this one among them; 0 once this one is about to
    /// end.
    pub fn active(&self) -> usize {
        if self.me.lock().draining {
            return 0;
        }
        let heard = self.heard.lock();
        let members = self.members.lock();
        let active = |member: &&Member| {
            let fresh = heard.beats.get(&member.life).is_some_and(|(_, since)| since.elapsed() < QUIET);
            member.life != self.life && !member.draining && fresh
        };
        1 + members.iter().filter(active).count()
    }

    /// Lists the living processes, this one among them.
    pub fn members(&self) -> Vec<Member> {
        self.members.lock().clone()
    }

    /// Notifies when the store has lost its data: the list was there, and is gone.
    pub fn watch_state_lost(&self) -> watch::Receiver<u64> {
        self.state_lost.subscribe()
    }

    /// Tells whether the store takes writes: this process says that it lives.
    pub async fn can_write(&self) -> bool {
        self.beat().await.is_ok()
    }

    /// Looks whether the store has lost its data lately; also when that was noticed before, or the store is away.
    pub async fn has_lost_state(&self) -> bool {
        if self.lost_at.lock().is_none_or(|at| at.elapsed() > GONE) && self.beat().await.is_err() {
            return true;
        }
        self.lost_at.lock().is_some_and(|at| at.elapsed() <= GONE)
    }

    /// Sends a note; it is of no use any more after `lifetime`.
    ///
    /// # Errors
    ///
    /// [`SendNoteError`]; the note was not sent, but for a store that became unavailable meanwhile: then nobody knows.
    pub async fn send(&self, life: &str, note: &Note, lifetime: Duration) -> Result<(), SendNoteError> {
        let sent = self.put(life, std::slice::from_ref(note), lifetime).await;
        self.count(note, &sent);
        sent
    }

    /// Sends several notes in order, in one piece where the other process has room for all.
    ///
    /// # Errors
    ///
    /// For each note, those of [`Self::send`].
    pub async fn send_all(&self, life: &str, notes: &[Note], lifetime: Duration) -> Vec<Result<(), SendNoteError>> {
        let sent = self.put(life, notes, lifetime).await;
        let mut outcomes = Vec::with_capacity(notes.len());
        let is_away = matches!(sent, Err(SendNoteError::Store(StoreError::Unavailable { .. })));
        for note in notes {
            if sent.is_ok() || is_away {
                self.count(note, &sent);
                outcomes.push(sent.clone());
            } else {
                // One that is too much keeps no other from its way.
                outcomes.push(self.send(life, note, lifetime).await);
            }
        }
        outcomes
    }

    async fn put(&self, life: &str, notes: &[Note], lifetime: Duration) -> Result<(), SendNoteError> {
        let mut batch = Batch::new();
        for note in notes {
            batch.enqueue(QueueName::pod(life), note.to_bytes(), lifetime);
        }
        match self.store.commit(batch).await {
            Ok(_) => Ok(()),
            Err(StoreError::Full { .. }) => Err(SendNoteError::Full { life: life.to_owned() }),
            Err(error) => Err(error.into()),
        }
    }

    fn count(&self, note: &Note, sent: &Result<(), SendNoteError>) {
        let outcome = match sent {
            Ok(()) => "sent",
            Err(SendNoteError::Full { .. }) => "full",
            Err(SendNoteError::Store(_)) => "failed",
        };
        self.metrics.pod_notes.get_or_create(&NoteOutcome { kind: note.label(), outcome }).inc();
    }

    /// Tells the others that this process is about to end.
    pub async fn drain(&self) {
        self.me.lock().draining = true;
        if self.is_shared() {
            self.beat_and_note().await;
        }
    }

    /// Leaves the list.
    pub async fn leave(&self) {
        if !self.is_shared() {
            return;
        }
        self.left.store(true, Ordering::Relaxed);
        let left = self.update(|members, _| members.retain(|member| member.life != self.life)).await;
        if let Err(error) = left {
            tracing::debug!(%error, "this process stays in the list until it is found to be gone");
        }
    }

    /// Says no more that this process lives, as if it had been killed.
    #[cfg(test)]
    pub(crate) fn die(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    async fn beat_and_note(&self) {
        if let Err(error) = self.beat().await {
            self.metrics.store_errors.get_or_create(&Reason { reason: error.reason() }).inc();
            if matches!(error, StoreError::Corrupt { .. }) {
                tracing::error!(%error, "this process cannot say that it lives; do all run releases that know each other?");
            } else {
                tracing::debug!(%error, "this process cannot say that it lives");
            }
        }
    }

    /// Says that this process lives, and learns who else does.
    async fn beat(&self) -> Result<(), StoreError> {
        let me = {
            let mut me = self.me.lock();
            me.beat += 1;
            me.clone()
        };
        let asked = Instant::now();
        let listed = self
            .update(|members, is_new| {
                self.find_itself(members.iter().any(|member| member.life == me.life), is_new);
                let alive = self.hear(members);
                members.retain(|member| alive.contains(&member.life));
                members.retain(|member| member.life != me.life);
                // It may have left since it began to say that it lives.
                if self.left.load(Ordering::Relaxed) {
                    return;
                }
                if members.len() < MOST {
                    members.push(me.clone());
                } else {
                    tracing::error!(limit = MOST, "too many processes share the store");
                }
            })
            .await?;
        self.said.lock().last = Some(asked);
        self.metrics.pods.set(i64::try_from(listed.len()).unwrap_or(i64::MAX));
        *self.members.lock() = listed;
        Ok(())
    }

    /// Tells until when others were there before this process, as long as it is young: a link that nobody holds then was lost with
    /// the last of them. After an hour nobody knows any more. Waits a while for the list to be read.
    pub async fn heard_before(&self) -> Option<EpochMillis> {
        if !self.is_shared() || self.began.elapsed() >= YOUNG {
            return None;
        }
        let heard = timeout(LISTED, self.heard_before.wait()).await;
        heard.ok().copied().flatten()
    }

    /// Takes note of the beats, and returns who lives. Clocks of different machines are not compared: a process is gone
    /// when its beat stayed the same for so long by the clock of this one. Of the time in which this one could say nothing itself,
    /// since the store was away or full, nothing follows about the others.
    fn hear(&self, members: &[Member]) -> Vec<String> {
        let now = Instant::now();
        let deaf = self.said.lock().last.is_some_and(|last| now.duration_since(last) > QUIET);
        let mut heard = self.heard.lock();
        if deaf {
            heard.beats.values_mut().for_each(|(_, since)| *since = now);
        }
        heard.beats.retain(|life, _| members.iter().any(|member| member.life == *life));
        let mut alive = Vec::with_capacity(members.len());
        for member in members {
            let (beat, since) = heard.beats.entry(member.life.clone()).or_insert((member.beat, now));
            if *beat != member.beat {
                (*beat, *since) = (member.beat, now);
            }
            if now.duration_since(*since) < GONE {
                alive.push(member.life.clone());
            }
        }
        alive
    }

    /// Changes the list, as often as it takes; `change` is told whether the one that this process knew was lost.
    async fn update(&self, mut change: impl FnMut(&mut Vec<Member>, bool)) -> Result<Vec<Member>, StoreError> {
        let key = Key::other("pods", Slot::named("realm"), "members");
        let (mut retries, mut is_new) = (0, false);
        loop {
            let stored = self.store.read(std::slice::from_ref(&key)).await?.pop().flatten();
            let end = stored.as_ref().and_then(|stored| stored.expires_at).map(|end| end.minus(LIFETIME));
            // It is refused where that is known already.
            let _ = self.heard_before.set(end);
            let Members { mut members, begun } = match &stored {
                Some(stored) => Members::read(stored)?,
                None => Members::default(),
            };
            // Whoever comes first begins a new list.
            let before = self.begun.load(Ordering::Relaxed);
            if before != 0 && before != begun {
                is_new = true;
                self.begun.store(0, Ordering::Relaxed);
                tracing::error!("the state store has lost its data; subscriptions are made anew");
                *self.lost_at.lock() = Some(Instant::now());
                self.state_lost.send_modify(|times| *times += 1);
            }
            let begun = if begun == 0 { rand::random_range(1..=u64::MAX) } else { begun };
            change(&mut members, is_new);
            let mut payload = Vec::new();
            // Writing to a Vec cannot fail.
            let _ = minicbor::encode(Members { members: members.clone(), begun }, &mut payload);
            let mut batch = Batch::new();
            let bytes = record::encode(Kind::Other, FORMAT, &payload);
            batch.put(key.clone(), Condition::unchanged(stored.as_ref()), bytes, Lifetime::For(LIFETIME));
            match self.store.commit(batch).await {
                Ok(_) => {
                    self.begun.store(begun, Ordering::Relaxed);
                    return Ok(members);
                }
                Err(error) if error.retry() == Retry::Reload && retries < RETRIES => retries += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

/// Says again and again that this process lives.
async fn keep_listed(pods: Arc<Pods>) {
    while !pods.left.load(Ordering::Relaxed) {
        pods.beat_and_note().await;
        // Not all at the same moment.
        let pause = BEAT.mul_f64(rand::random_range(0.9..1.1));
        tokio::time::sleep(pause).await;
    }
}

/// Notes that this process began to work on, and of which the store may not know that yet: they come again. Their
/// number tells nothing, since it can fall back when another server takes over or the data is lost.
#[derive(Default)]
struct Begun(BTreeSet<ItemId>);

impl Begun {
    fn is_first(&mut self, id: ItemId) -> bool {
        let first = self.0.insert(id);
        // What ended in the store before it was acknowledged is forgotten some time.
        if self.0.len() > MOST_BEGUN {
            self.0.pop_first();
        }
        first
    }

    fn forget(&mut self, acknowledged: &[ItemId]) {
        for id in acknowledged {
            self.0.remove(id);
        }
    }
}

/// Takes what others write to this process.
async fn take_notes(pods: Arc<Pods>) {
    let queue = QueueName::pod(&pods.life);
    let consumer = Consumer { name: pods.life.clone(), fence: None };
    let mut wake = pods.store.wake(Topic::Queue(queue.clone()));
    let mut begun = Begun::default();
    loop {
        match pods.store.take(&queue, &consumer, ROUND, HOLD).await {
            Ok(items) if items.is_empty() => {
                tokio::select! {
                    () = wake.changed() => {}
                    () = tokio::time::sleep(LOOK) => {}
                }
            }
            Ok(items) => {
                let mut done = Vec::with_capacity(items.len());
                for item in items {
                    done.push(item.id);
                    if begun.is_first(item.id) {
                        pods.hand_in(Note::from_bytes(&item.bytes));
                    }
                }
                match pods.store.ack(&queue, &done, None).await {
                    Ok(_) => begun.forget(&done),
                    Err(error) => {
                        pods.metrics.store_errors.get_or_create(&Reason { reason: error.reason() }).inc();
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
            Err(error) => {
                tracing::debug!(%error, "notes of other processes cannot be read");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

impl Pods {
    fn hand_in(&self, note: Result<Note, NoteError>) {
        let (kind, outcome) = match note {
            Ok(note) => {
                let kind = note.label();
                if let Some(handler) = self.handler.get() {
                    handler.note(note);
                }
                (kind, "taken")
            }
            Err(error) => {
                tracing::error!(%error, "a note of another process is lost; do all of them run releases that know each other?");
                ("unknown", "unreadable")
            }
        };
        self.metrics.pod_notes.get_or_create(&NoteOutcome { kind, outcome }).inc();
    }
}

#[cfg(test)]
pub(crate) mod tests;
