//! Messages of local users of which a partner says nothing yet, for the case that this process dies.
//!
//! A component link confirms nothing: the local server has forgotten a message once this process has read it. A partner may take
//! 32 s for its answer, and other messages wait behind that one. So what is not over soon is noted in the store, as the error
//! that its sender gets when nobody else is there to tell them. Once a process is gone, the others pass its errors on. Whether the
//! partner has the message is not known then, and it is not sent again (interworking specification §5.2, §6.6). A process that only
//! seemed gone does not send what the others may have told of, either.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use isthmus_interwork::error_map::{self, LocalFailure};
use isthmus_interwork::letter::Letter;
use isthmus_interwork::session::OutgoingMessage;
use isthmus_model::Address;
use isthmus_store::{Batch, Consumer, ItemId, Kind, QueueName, StoreError, record};
use isthmus_xmpp::Message;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::{Bridge, DomainPair};

const FORMAT: u16 = 1;
/// What is over sooner is not noted: nearly everything, and it costs nothing then.
const SOON: Duration = Duration::from_millis(200);
/// How long a note lives: longer than a full lane waits for a silent partner.
const LIFETIME: Duration = Duration::from_secs(3 * 3600);
/// How many are noted, or passed on, at once.
const AT_ONCE: usize = 32;
/// How many notes are read at once, how often at most, and how long they are not read again: not as long as the pause after a
/// failure.
const PAGE: usize = 4096;
const PAGES: usize = 16;
const READ: Duration = Duration::from_millis(500);
/// How often is looked for what is not over, and for processes that are gone.
const TICK: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_secs(1);
/// The pause after the store failed.
const PAUSE: Duration = Duration::from_secs(1);
/// A process that is not in the list may be about to put itself there again: after a loss of the store's data all do.
const SETTLE: Duration = Duration::from_secs(3);
/// How long notes that were taken are not taken again, and when to look again in case that their taker died, too.
const HOLD: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_secs(9);

/// A message that is not over.
struct Open {
    since: Instant,
    /// What its sender gets if this process does not tell them more.
    error: Message,
    noted: Noted,
    /// When a note was begun that the store has, or may have.
    noted_at: Option<Instant>,
}

enum Noted {
    No,
    /// On its way into the store.
    Soon,
    As(ItemId),
}

#[derive(Default)]
struct State {
    next: u64,
    /// By number, oldest first.
    open: BTreeMap<u64, Open>,
    /// Notes of messages that are over.
    over: Vec<ItemId>,
    /// The store may have notes of which it could not tell.
    unsure: bool,
}

/// The messages that are not over, and the notes about them.
#[derive(Default)]
pub(super) struct Unanswered {
    state: Mutex<State>,
    added: Notify,
}

impl Unanswered {
    /// Tells whether nothing is open, and no note is to be taken back.
    pub(super) fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.open.is_empty() && state.over.is_empty() && !state.unsure
    }
}

/// Holds a message open for as long as it lives.
pub(super) struct Waiting(Option<(Arc<Bridge>, u64)>);

impl Waiting {
    /// Tells whether another process may have told the sender that nobody knows what became of the message: it was noted, and the others
    /// heard nothing of this process for long, which stood still or was alone without the store.
    pub(super) fn may_be_told_elsewhere(&self) -> bool {
        let Some((bridge, number)) = &self.0 else { return false };
        let noted_at = bridge.unanswered.state.lock().open.get(number).and_then(|open| open.noted_at);
        noted_at.is_some_and(|at| bridge.pods.may_seem_gone_since(at))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some((bridge, number)) = &self.0 else { return };
        let mut state = bridge.unanswered.state.lock();
        if let Some(Open { noted: Noted::As(item), .. }) = state.open.remove(number) {
            state.over.push(item);
        }
    }
}

impl Bridge {
    /// Holds a message open until its sender knows what became of it, or need not be told.
    pub(super) fn hold_open(self: &Arc<Self>, message: &OutgoingMessage) -> Waiting {
        if !self.store.is_shared() || message.body.is_none() {
            return Waiting(None);
        }
        let error = error_map::failure_to_xmpp(LocalFailure::Timeout)
            .with_text("the gateway that had the message ended; nobody knows whether it arrived");
        let open = Open {
            since: Instant::now(),
            error: super::session::returned(message, error),
            noted: Noted::No,
            noted_at: None,
        };
        let mut state = self.unanswered.state.lock();
        state.next += 1;
        let number = state.next;
        let is_first = state.open.is_empty();
        state.open.insert(number, open);
        drop(state);
        if is_first {
            self.unanswered.added.notify_one();
        }
        Waiting(Some((Arc::clone(self), number)))
    }

    /// Takes back the notes of what is over, and notes what is not.
    async fn keep_notes(&self, queue: &QueueName) -> Result<(), StoreError> {
        if self.unanswered.state.lock().unsure {
            self.take_back_unknown(queue).await?;
            self.unanswered.state.lock().unsure = false;
        }
        // First: where the queue is full, this makes room.
        self.take_back(queue).await?;
        self.note_unanswered(queue).await?;
        self.take_back(queue).await
    }

    async fn note_unanswered(&self, queue: &QueueName) -> Result<(), StoreError> {
        let mut at_once = AT_ONCE;
        loop {
            let now = Instant::now();
            let (numbers, batch) = {
                let mut state = self.unanswered.state.lock();
                let late = |open: &Open| matches!(open.noted, Noted::No) && open.since.elapsed() >= SOON;
                let (mut numbers, mut batch) = (Vec::new(), Batch::new());
                for (number, open) in state.open.iter_mut().filter(|(_, open)| late(open)).take(at_once) {
                    open.noted = Noted::Soon;
                    open.noted_at.get_or_insert(now);
                    // What cannot be written could not be sent, either.
                    if let Ok(letter) = Letter::new(&open.error, super::now().epoch, false) {
                        batch.enqueue(queue.clone(), record::encode(Kind::Other, FORMAT, &letter.to_bytes()), LIFETIME);
                        numbers.push(*number);
                    }
                }
                (numbers, batch)
            };
            if numbers.is_empty() {
                return Ok(());
            }
            let done = self.store.commit(batch).await;
            let mut state = self.unanswered.state.lock();
            let items = done.as_ref().map(|done| done.items.as_slice()).unwrap_or_default();
            // One that has not room for all says so, and took none.
            let is_full = matches!(done, Err(StoreError::Full { .. }));
            for (at, number) in numbers.iter().enumerate() {
                let item = items.get(at).copied();
                match (state.open.get_mut(number), item) {
                    (Some(open), item) => {
                        open.noted = item.map_or(Noted::No, Noted::As);
                        open.noted_at.take_if(|began| is_full && *began == now);
                    }
                    (None, Some(item)) => state.over.push(item),
                    (None, None) => {}
                }
            }
            state.unsure = done.is_err() && !is_full;
            drop(state);
            if is_full && at_once > 1 {
                at_once = 1;
            } else {
                done?;
            }
        }
    }

    async fn take_back(&self, queue: &QueueName) -> Result<(), StoreError> {
        let over = std::mem::take(&mut self.unanswered.state.lock().over);
        if over.is_empty() {
            return Ok(());
        }
        let taken = self.store.ack(queue, &over, None).await;
        if taken.is_err() {
            self.unanswered.state.lock().over.extend(over);
        }
        taken.map(|_| ())
    }

    /// Takes back what the store has and this process does not know of: a message that is over would come back one day, when this
    /// process is gone. One that is still open is noted anew.
    async fn take_back_unknown(&self, queue: &QueueName) -> Result<(), StoreError> {
        let me = Consumer { name: self.pods.life().to_owned(), fence: None };
        for _ in 0..PAGES {
            let page = self.store.take(queue, &me, PAGE, READ).await?;
            let unknown: Vec<ItemId> = {
                let state = self.unanswered.state.lock();
                let of = |open: &Open| if let Noted::As(item) = open.noted { Some(item) } else { None };
                let known: BTreeSet<ItemId> =
                    state.open.values().filter_map(of).chain(state.over.iter().copied()).collect();
                page.iter().map(|item| item.id).filter(|item| !known.contains(item)).collect()
            };
            self.store.ack(queue, &unknown, None).await?;
            if page.len() < PAGE {
                break;
            }
        }
        Ok(())
    }

    /// Passes on what a process that is gone left open.
    async fn tell_for(self: &Arc<Self>, life: &str) -> Result<(), StoreError> {
        let queue = QueueName::unanswered(life);
        let me = Consumer { name: self.pods.life().to_owned(), fence: None };
        loop {
            let items = self.store.take(&queue, &me, AT_ONCE, HOLD).await?;
            if items.is_empty() {
                return Ok(());
            }
            let mut told = Vec::with_capacity(items.len());
            for item in items {
                match read(&item.bytes) {
                    Ok((domains, error)) => {
                        self.keep_as_letter(&domains, &error).await?;
                        self.metrics.message("xmpp_to_sip", "unknown_outcome");
                        told.push(item.id);
                    }
                    // Of a newer release, perhaps, which will read it.
                    Err(error) => tracing::error!(%error, life, "a note about an unanswered message cannot be read"),
                }
            }
            self.store.ack(&queue, &told, None).await?;
        }
    }
}

/// Reads a note: the error, and the domains of the link that it leaves on.
fn read(bytes: &bytes::Bytes) -> Result<(DomainPair, Message), String> {
    let envelope = record::decode_as(Kind::Other, FORMAT, bytes).map_err(|error| error.to_string())?;
    let letter = Letter::from_bytes(&envelope.payload).map_err(|error| error.to_string())?;
    let error = letter.stanza(super::now().epoch).map_err(|error| error.to_string())?;
    let domain = |jid: Option<&str>| Address::from_jid(jid?).ok().map(|address| address.bare.domain);
    let domains = domain(error.to()).zip(domain(error.from())).ok_or("it is from or for nobody")?;
    Ok((domains, error))
}

/// Notes what is not over soon, and passes on what processes that are gone left open.
pub(super) async fn run(bridge: Arc<Bridge>) {
    let queue = QueueName::unanswered(bridge.pods.life());
    let mut known = BTreeSet::new();
    let mut gone: Vec<(Instant, String)> = Vec::new();
    let mut looked = Instant::now();
    loop {
        if bridge.unanswered.is_empty() {
            let _ = timeout(LOOK, bridge.unanswered.added.notified()).await;
        } else {
            sleep(TICK).await;
        }
        let mut done = bridge.keep_notes(&queue).await;
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            let listed: BTreeSet<String> = bridge.pods.members().into_iter().map(|member| member.life).collect();
            for life in known.difference(&listed).filter(|life| **life != bridge.pods.life()) {
                gone.extend([SETTLE, AGAIN].map(|pause| (looked + pause, life.clone())));
            }
            known = listed;
        }
        let due = |(at, _): &mut (Instant, String)| *at <= looked;
        for (_, life) in gone.extract_if(.., due).collect::<Vec<_>>() {
            if !bridge.pods.is_alive(&life)
                && let Err(error) = bridge.tell_for(&life).await
            {
                done = Err(error);
                // Not before what was taken can be taken again.
                gone.push((Instant::now() + HOLD + PAUSE, life));
            }
        }
        if let Err(error) = done {
            bridge.store_failed(&error);
            sleep(PAUSE).await;
        }
    }
}
