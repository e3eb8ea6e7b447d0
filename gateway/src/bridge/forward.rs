//! Work for pairs whose link another process holds.
//!
//! Any process takes a request from a partner and checks who sent it. The work of a pair is done by the process that
//! holds the pair's link to the local server, in the pair's lane there; so what belongs to a pair keeps its order, and
//! one process at a time sends in a dialog (interworking specification §6.6). Its answer comes back and leaves the way
//! that the request came. Should that process die or lose the link meanwhile, the request is given to whoever has it
//! next; the records of requests that were served ([`super::repeats`]) keep it from running twice.

use std::collections::{HashMap, VecDeque};
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use isthmus_interwork::address;
use isthmus_interwork::error_map::SipAnswer;
use isthmus_model::{Address, Domain, PairId};
use isthmus_sip::{Limits, Message, Method, StatusCode, Transport, WriteError};
use isthmus_store::Key;
use isthmus_xmpp::codec::{Limits as StanzaLimits, StreamEncoder, StreamKind, read_element};
use isthmus_xmpp::stanza::{Presence, PresenceType};
use isthmus_xmpp::{ErrorCondition, Stanza, StanzaError};
use parking_lot::Mutex;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout_at;

use super::inbound::{Asker, Incoming, local_of};
use super::rates::take_one;
use super::{Bridge, DomainPair, presence::PairUsers};
use crate::edge::xmpp::Owner;
use crate::pods::{Note, NoteHandler, SendNoteError, Way};

/// How long a request waits for a link to be somebody's: longer than a lease outlives its holder.
const SETTLE: Duration = Duration::from_secs(5);
/// How long other processes may take for an answer, before the peer gives up (64·T1 = 32 s, RFC 3261 §17.1.2.2).
const PATIENCE: Duration = Duration::from_secs(25);
/// The pause before a request is given on again that somebody else seems to work on.
const AGAIN: Duration = Duration::from_millis(500);
/// How long a note to another process is of use.
const NOTE_LIFETIME: Duration = Duration::from_secs(30);
/// How many notes may wait for the store, besides requests, and how many are written at once.
const OUTBOX: usize = 8192;
const NOTES_AT_ONCE: usize = 64;
/// How many responses to other processes' requests are given to them in a second. Anybody can send some: the name of the
/// process stands in the Via of its requests.
const STRAYS_PER_SECOND: u32 = 2000;
/// How many ACKs of which nobody knows who awaits them are told to all processes in a second.
const STRAY_ACKS_PER_SECOND: u32 = 100;
/// How many of both may wait for the store.
const STRAYS: usize = 1024;
/// Sessions whose 2xx another process repeats: how many are remembered, and how long (timer L).
const MAX_REPEATED: usize = 4096;
const REPEATED: Duration = Duration::from_secs(32);

/// What another process says about a request that was given to it.
#[derive(Debug)]
enum Reply {
    /// The answer.
    Answer(Vec<u8>),
    /// The same request is being answered on another way.
    Absorbed,
    /// The link is not its own any more.
    Elsewhere,
}

/// Notes with the processes that they are for.
type Outbox = mpsc::Sender<(String, Note)>;
pub(super) type Outgoing = mpsc::Receiver<(String, Note)>;

/// Requests that other processes work on, and notes on their way.
pub(super) struct Forwards {
    next: AtomicU64,
    open: Mutex<HashMap<u64, oneshot::Sender<Reply>>>,
    outbox: Outbox,
    /// How many notes are not written yet.
    waiting: AtomicUsize,
    /// Responses and ACKs for other processes that anybody can send; they must not keep anything else from them.
    strays: Outbox,
    stray_rate: Mutex<Option<Instant>>,
    stray_ack_rate: Mutex<Option<Instant>>,
    /// Which process repeats the 2xx of a session, by our tag in it.
    repeaters: Mutex<VecDeque<(Instant, String, String)>>,
}

impl Forwards {
    /// Makes the place for them; each receiver is for [`send_notes`].
    pub(super) fn new() -> (Self, [Outgoing; 2]) {
        let ((outbox, notes), (strays, responses)) = (mpsc::channel(OUTBOX), mpsc::channel(STRAYS));
        let forwards = Self {
            next: AtomicU64::new(1),
            open: Mutex::default(),
            outbox,
            waiting: AtomicUsize::new(0),
            strays,
            stray_rate: Mutex::default(),
            stray_ack_rate: Mutex::default(),
            repeaters: Mutex::default(),
        };
        (forwards, [notes, responses])
    }

    fn open(&self) -> (u64, oneshot::Receiver<Reply>) {
        let (sender, receiver) = oneshot::channel();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.lock().insert(id, sender);
        (id, receiver)
    }

    fn close(&self, id: u64) -> Option<oneshot::Sender<Reply>> {
        self.open.lock().remove(&id)
    }

    /// Notes who repeats a 2xx.
    fn remember_repeater(&self, life: &str, local_tag: &str) {
        let now = Instant::now();
        let mut known = self.repeaters.lock();
        while known.len() >= MAX_REPEATED || known.front().is_some_and(|(at, ..)| *at + REPEATED < now) {
            known.pop_front();
        }
        known.push_back((now, local_tag.to_owned(), life.to_owned()));
    }

    fn repeater(&self, local_tag: &str) -> Option<String> {
        let known = self.repeaters.lock();
        known.iter().rev().find(|(_, tag, _)| tag == local_tag).map(|(.., life)| life.clone())
    }
}

/// Writes notes to other processes, in their order; many of one moment leave together.
pub(super) async fn send_notes(bridge: Arc<Bridge>, mut outgoing: Outgoing) {
    let mut some = Vec::new();
    while outgoing.recv_many(&mut some, NOTES_AT_ONCE).await > 0 {
        let mut by_life: Vec<(String, Vec<Note>)> = Vec::new();
        for (life, note) in some.drain(..) {
            match by_life.iter_mut().find(|(known, _)| *known == life) {
                Some((_, notes)) => notes.push(note),
                None => by_life.push((life, vec![note])),
            }
        }
        for (life, notes) in by_life {
            let outcomes = bridge.pods.send_all(&life, &notes, NOTE_LIFETIME).await;
            for (note, outcome) in notes.into_iter().zip(outcomes) {
                if let Err(error) = outcome {
                    bridge.note_not_sent(&life, note, &error);
                }
                bridge.forwards.waiting.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }
}

impl Bridge {
    /// Works on a request in the lane of its pair, here or where its pair's link is.
    pub(super) async fn route(self: Arc<Self>, incoming: Box<Incoming>) {
        let home = self.home_of(&incoming.local.bare.domain, &incoming.remote.bare.domain).await;
        match (home, &incoming.asker) {
            (None, _) => self.work(incoming).await,
            // Whoever took the request from its peer knows better by now.
            (Some(_), Asker::Pod { life, id }) => self.write_note(life.clone(), Note::Elsewhere { id: *id }),
            (Some(life), Asker::Here(_)) => Box::pin(self.hand_over(*incoming, life)).await,
        }
    }

    /// Names the other process that works for pairs of these domains, `None` if it is this one, or nobody. While a link
    /// goes from one process to another this waits.
    pub(super) async fn home_of(&self, local: &Domain, remote: &Domain) -> Option<String> {
        if !self.pods.is_shared() {
            return None;
        }
        let settled = Instant::now() + SETTLE;
        let mut owners = None;
        loop {
            match self.links.owner(local, remote) {
                // A link that was just taken over connects in a moment.
                Owner::Mine(_) if self.links.is_coming(local, remote) => {}
                Owner::Mine(_) => return None,
                Owner::Other(life) | Owner::Former(Some(life)) => return Some(life),
                Owner::Nobody | Owner::Former(None) => {}
            }
            match &mut owners {
                // What changed before this is seen in the next round.
                None => owners = Some(self.links.watch_owners()),
                Some(owners) => {
                    if !matches!(timeout_at(settled.into(), owners.changed()).await, Ok(Ok(()))) {
                        return None;
                    }
                }
            }
        }
    }

    /// Gives a request to another process. It is written down in the order of the lane; its answer is waited for outside.
    async fn hand_over(self: Arc<Self>, incoming: Incoming, life: String) {
        let (id, reply) = self.forwards.open();
        let source = incoming.request.source().unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
        let note = Note::Request {
            from: self.pods.life().to_owned(),
            id,
            message: incoming.request.as_bytes().to_vec(),
            way: Way::from(incoming.transport),
            source,
            to_tag: incoming.to_tag.clone(),
        };
        match self.pods.send(&life, &note, NOTE_LIFETIME).await {
            Ok(()) => {
                tokio::spawn(self.await_reply(incoming, life, id, reply));
            }
            Err(error) => {
                self.forwards.close(id);
                match error {
                    SendNoteError::Store(error) => self.store_is_away(&incoming, &error),
                    SendNoteError::Full { .. } => {
                        self.metrics.refused("pod_busy");
                        self.refuse_for_now(&incoming);
                    }
                }
            }
        }
    }

    async fn await_reply(
        self: Arc<Self>,
        incoming: Incoming,
        life: String,
        id: u64,
        mut reply: oneshot::Receiver<Reply>,
    ) {
        let mut owners = self.links.watch_owners();
        let end = tokio::time::sleep_until((incoming.arrived + PATIENCE).into());
        tokio::pin!(end);
        let reply = loop {
            let moved = match self.links.owner(&incoming.local.bare.domain, &incoming.remote.bare.domain) {
                Owner::Other(now) | Owner::Former(Some(now)) => now != life,
                Owner::Mine(_) => true,
                Owner::Nobody | Owner::Former(None) => false,
            };
            if moved {
                break Some(Reply::Elsewhere);
            }
            tokio::select! {
                biased;
                reply = &mut reply => break reply.ok(),
                _ = owners.changed() => {}
                () = &mut end => break None,
            }
        };
        self.forwards.close(id);
        match reply {
            Some(Reply::Answer(response)) => self.respond(&incoming.asker, &incoming.request, Ok(response.into())),
            Some(Reply::Absorbed) if incoming.attempts == 0 => self.absorb(&incoming.asker),
            // It is this very request that the former holder of the link left behind.
            Some(Reply::Absorbed) => {
                tokio::time::sleep(AGAIN).await;
                self.give_again(incoming);
            }
            Some(Reply::Elsewhere) => self.give_again(incoming),
            None => {
                self.metrics.refused("pod_silent");
                self.refuse_for_now(&incoming);
            }
        }
    }

    /// Gives a request to whoever works for its pair by now.
    fn give_again(self: &Arc<Self>, mut incoming: Incoming) {
        if incoming.arrived.elapsed() > PATIENCE {
            self.metrics.refused("pod_silent");
            return self.refuse_for_now(&incoming);
        }
        incoming.attempts += 1;
        self.dispatch(incoming);
    }

    /// Puts a note into the queue for the store. One that finds it full is counted and lost; what it was about is put
    /// right by the time limits of whoever waits for it.
    pub(super) fn write_note(self: &Arc<Self>, life: String, note: Note) {
        self.put(&self.forwards.outbox, life, note);
    }

    fn put(self: &Arc<Self>, outbox: &Outbox, life: String, note: Note) {
        self.forwards.waiting.fetch_add(1, Ordering::AcqRel);
        if let Err(error) = outbox.try_send((life, note)) {
            self.forwards.waiting.fetch_sub(1, Ordering::AcqRel);
            self.metrics.refused("outbox_full");
            let why = error.to_string();
            let (TrySendError::Full((life, note)) | TrySendError::Closed((life, note))) = error;
            self.note_not_sent(&life, note, &why);
        }
    }

    /// What a note was about is put right by the time limits of whoever waits for it; only the sender of a message waits for
    /// nothing, and is told, and what other users wish is kept.
    fn note_not_sent(self: &Arc<Self>, life: &str, note: Note, error: &dyn Display) {
        if let Some(left_out) = self.store_lines.line("note", Instant::now()) {
            let kind = note.label();
            tracing::warn!(%error, to = life, kind, left_out, "a note to another process was not sent");
        }
        let Note::FromLocal { local, remote, stanza } = note else { return };
        match stanza_from_bytes(&stanza) {
            Some(Stanza::Message(message)) if message.body().is_some() => {
                let (Ok(local), Ok(remote)) = (Domain::parse(&local), Domain::parse(&remote)) else { return };
                let error =
                    StanzaError::new(ErrorCondition::ResourceConstraint).with_text("the gateway is busy; try again");
                if let Some(Stanza::Message(reply)) = Stanza::Message(message).error_reply(error) {
                    self.metrics.message("xmpp_to_sip", "not_handed_over");
                    self.return_to_sender((local, remote), reply);
                }
            }
            Some(Stanza::Presence(presence)) => {
                if let Some(users) = PairUsers::of_jids(presence.from(), presence.to()) {
                    self.not_taken(&users, presence, super::too_busy());
                }
            }
            _ => {}
        }
    }

    /// Sends the answer of a request back to the process that took it.
    pub(super) fn respond_to_pod(
        self: &Arc<Self>,
        life: &str,
        id: u64,
        request: &Message,
        answer: Result<Bytes, WriteError>,
    ) {
        let answer = answer.or_else(|error| {
            tracing::error!(%error, "answer could not be written");
            SipAnswer::new(StatusCode::SERVER_INTERNAL_ERROR).respond(request, None, "isthmus")
        });
        let Ok(response) = answer else { return };
        if request.method() == Method::Invite
            && let Ok(parsed) = Message::parse(response.clone(), &Limits::default())
            && parsed.status().is_some_and(StatusCode::is_success)
            && let Some(tag) = parsed.to().tag()
        {
            self.forwards.remember_repeater(life, tag);
        }
        self.write_note(life.to_owned(), Note::Answer { id, response: response.to_vec() });
    }

    /// Tells the process that took a request that it gets no answer.
    pub(super) fn absorb_for_pod(self: &Arc<Self>, life: &str, id: u64) {
        self.write_note(life.to_owned(), Note::Absorbed { id });
    }

    /// Names the process that an event of these domains is for, if it is another one.
    pub(super) fn elsewhere(&self, local: &Domain, remote: &Domain) -> Option<String> {
        if !self.pods.is_shared() {
            return None;
        }
        match self.links.owner(local, remote) {
            Owner::Other(life) | Owner::Former(Some(life)) => Some(life),
            Owner::Mine(_) | Owner::Former(None) | Owner::Nobody => None,
        }
    }

    /// Tells the process that repeats a 2xx that its ACK came. Who worked on the INVITE knows which one that is; when it
    /// died, all are asked, since a session whose 2xx is never acknowledged ends after 32 s.
    pub(super) fn stop_repeating(self: &Arc<Self>, ack: &Message, given_here: bool) {
        let Some(tag) = ack.to().tag().filter(|tag| !given_here && PairId::from_tag(tag).is_some()) else { return };
        if let Some(life) = self.forwards.repeater(tag) {
            self.write_note(life, Note::Acknowledged { message: ack.as_bytes().to_vec() });
            return;
        }
        if !self.pods.is_shared() {
            return;
        }
        if take_one(&mut self.forwards.stray_ack_rate.lock(), STRAY_ACKS_PER_SECOND, Instant::now()).is_err() {
            // It comes again with the next copy of the 2xx.
            self.metrics.refused("stray_ack");
            return;
        }
        for member in self.pods.members().into_iter().filter(|member| member.life != self.pods.life()) {
            self.put(&self.forwards.strays, member.life, Note::Acknowledged { message: ack.as_bytes().to_vec() });
        }
    }

    /// Gives a due time to the process that works for its pair; tells whether that is another one.
    pub(super) fn hand_over_due(self: &Arc<Self>, users: &PairUsers, key: &Key) -> bool {
        let Some(life) = self.elsewhere(&users.local.domain, &users.remote.domain) else { return false };
        self.write_note(life, Note::Due { key: key.to_string() });
        true
    }

    /// Gives a stanza to the process that holds its link; tells whether that is another one.
    pub(super) fn hand_over_stanza(self: &Arc<Self>, users: &PairUsers, stanza: &Stanza) -> bool {
        let Some(life) = self.elsewhere(&users.local.domain, &users.remote.domain) else { return false };
        let domains = (users.local.domain.clone(), users.remote.domain.clone());
        let Some(note) = stanza_note(&domains, stanza) else { return false };
        self.write_note(life, note);
        true
    }

    /// Has a stanza that its link did not send any more, or not yet, sent by whoever holds the link next, also this process. That
    /// one tells states of presence anew by itself, and asks for everybody's.
    pub(super) fn send_by_next_holder(self: &Arc<Self>, stanza: Stanza) {
        if is_state(&stanza) {
            return self.metrics.refused("link_down");
        }
        let address = |jid: Option<&str>| Address::from_jid(jid?).ok();
        let Some((local, remote)) = address(stanza.to()).zip(address(stanza.from())) else {
            return self.metrics.refused("link_down");
        };
        let domains = (local.bare.domain, remote.bare.domain);
        // It is work for another process from now on, although nobody knows yet for which.
        self.forwards.waiting.fetch_add(1, Ordering::AcqRel);
        let bridge = Arc::clone(self);
        tokio::spawn(async move {
            match bridge.home_of(&domains.0, &domains.1).await {
                Some(life) => {
                    if let Some(note) = stanza_note(&domains, &stanza) {
                        bridge.write_note(life, note);
                    }
                }
                None if bridge.links.send(&domains.0, &domains.1, stanza).is_ok() => {}
                None => bridge.metrics.refused("link_down"),
            }
            bridge.forwards.waiting.fetch_sub(1, Ordering::AcqRel);
        });
    }

    /// Gives a stanza for a local user to the process that holds its link; tells whether the store has it.
    pub(super) async fn send_stanza_note(&self, life: &str, domains: &DomainPair, stanza: &Stanza) -> bool {
        let Some(note) = stanza_note(domains, stanza) else { return false };
        self.send_note(life, &note).await
    }

    /// Gives a note to another process; tells whether the store has it.
    pub(super) async fn send_note(&self, life: &str, note: &Note) -> bool {
        match self.pods.send(life, note, NOTE_LIFETIME).await {
            Ok(()) => true,
            Err(SendNoteError::Full { .. }) => false,
            Err(SendNoteError::Store(error)) => {
                self.store_failed(&error);
                false
            }
        }
    }

    /// Tells the other process that holds a link, if there is one, that letters wait for it.
    pub(super) fn tell_of_letters(self: &Arc<Self>, (local, remote): &DomainPair) {
        let Some(life) = self.elsewhere(local, remote) else { return };
        let (local, remote) = (local.as_str().to_owned(), remote.as_str().to_owned());
        self.write_note(life, Note::Letters { local, remote });
    }

    /// Gives a stanza that came over a link to the process that holds the link by now; tells whether that is another one.
    /// It asked everybody for their presence when it took the link, so that older states are of no use.
    pub(super) fn hand_over_from_local(self: &Arc<Self>, users: &PairUsers, stanza: &Stanza) -> bool {
        let Some(life) = self.elsewhere(&users.local.domain, &users.remote.domain) else { return false };
        is_state(stanza) || self.write_from_local(life, users, stanza)
    }

    /// Asks for a contact's presence at the process that took the link from this one less than `time` ago, as the local
    /// user's server would; tells whether there is such a process.
    pub(super) fn ask_next_holder(self: &Arc<Self>, users: &PairUsers, time: Duration) -> bool {
        let Some(life) = self.links.lost_to(&users.local.domain, &users.remote.domain, time) else { return false };
        let probe = Presence::new(PresenceType::Probe, &users.local.to_jid(), &users.remote.to_jid());
        self.write_from_local(life, users, &Stanza::Presence(probe))
    }

    fn write_from_local(self: &Arc<Self>, life: String, users: &PairUsers, stanza: &Stanza) -> bool {
        let Some(stanza) = stanza_to_bytes(stanza) else { return false };
        let note = Note::FromLocal {
            local: users.local.domain.as_str().to_owned(),
            remote: users.remote.domain.as_str().to_owned(),
            stanza,
        };
        self.write_note(life, note);
        true
    }

    /// Tells whether nothing is under way that other processes could miss.
    pub(super) fn has_nothing_forwarded(&self) -> bool {
        self.forwards.open.lock().is_empty() && self.forwards.waiting.load(Ordering::Acquire) == 0
    }

    /// Gives a response to the process whose request it answers; tells whether that is another one which lives.
    pub(super) fn hand_over_response(
        self: &Arc<Self>,
        transport: Transport,
        source: SocketAddr,
        response: &Message,
    ) -> bool {
        let Some(life) = isthmus_sip::endpoint::Endpoint::process_of(response) else { return false };
        if life == self.pods.life() || !self.pods.is_shared() || !self.pods.is_alive(life) {
            return false;
        }
        if take_one(&mut self.forwards.stray_rate.lock(), STRAYS_PER_SECOND, Instant::now()).is_err() {
            // It comes again, unless it answers nothing.
            self.metrics.refused("stray_response");
            return true;
        }
        let note = Note::Response { message: response.as_bytes().to_vec(), way: transport.into(), source };
        self.put(&self.forwards.strays, life.to_owned(), note);
        true
    }

    /// Takes a request that another process checked.
    fn take_request(
        self: &Arc<Self>,
        asker: Asker,
        message: Vec<u8>,
        transport: Transport,
        source: SocketAddr,
        to_tag: String,
    ) -> Option<()> {
        let mut request = Message::parse(message.into(), &Limits::default()).ok()?;
        request.set_source(source);
        let remote = address::from_name_addr(&request.from_()).ok()?;
        let local = local_of(&request).ok()?;
        let pair = PairId::of(&local.bare, &remote.bare);
        self.dispatch(Incoming {
            asker,
            request,
            local,
            remote,
            pair,
            to_tag,
            transport,
            arrived: Instant::now(),
            attempts: 0,
            runtime: self.runtime(),
        });
        Some(())
    }

    fn take_stanza(self: &Arc<Self>, local: &str, remote: &str, stanza: &[u8]) -> Option<()> {
        let (local, remote) = (Domain::parse(local).ok()?, Domain::parse(remote).ok()?);
        let stanza = stanza_from_bytes(stanza)?;
        if let Stanza::Message(message) = &stanza
            && message.error.is_some()
        {
            self.return_to_sender((local, remote), message.clone());
            return Some(());
        }
        let kept = (!is_state(&stanza)).then(|| stanza.clone());
        if let Err(error) = self.links.send(&local, &remote, stanza) {
            // Others know that a link is this process's a moment before it is up.
            if let Some(stanza) = kept {
                self.send_by_next_holder(stanza);
                return Some(());
            }
            self.metrics.presence("sip_to_xmpp", "no_link");
            tracing::debug!(%error, "stanza of another process not sent");
        }
        Some(())
    }

    fn take_note(self: &Arc<Self>, note: Note) -> Option<()> {
        let parse = |message: Vec<u8>| Message::parse(message.into(), &Limits::default()).ok();
        match note {
            Note::Request { from, id, message, way, source, to_tag } => {
                self.take_request(Asker::Pod { life: from, id }, message, way.into(), source, to_tag)?;
            }
            Note::Answer { id, response } => self.take_reply(id, Reply::Answer(response)),
            Note::Absorbed { id } => self.take_reply(id, Reply::Absorbed),
            Note::Elsewhere { id } => self.take_reply(id, Reply::Elsewhere),
            Note::Response { message, way, source } => {
                self.edge.take_response(way.into(), source, parse(message)?);
            }
            Note::Acknowledged { message } => {
                let _ = self.edge.take_ack(&parse(message)?);
            }
            Note::Ack { message } => self.pod_ack(parse(message)?),
            Note::NeverAcknowledged { call_id, local_tag } => {
                self.sip_never_acknowledged(call_id, local_tag);
            }
            Note::Due { key } => {
                let (bridge, key) = (Arc::clone(self), Key::parse(&key)?);
                tokio::spawn(async move { super::timers::act(&bridge, key, None).await });
            }
            Note::Letters { local, remote } => {
                self.send_letters_soon((Domain::parse(&local).ok()?, Domain::parse(&remote).ok()?));
            }
            Note::Stanza { local, remote, stanza } => self.take_stanza(&local, &remote, &stanza)?,
            Note::FromLocal { local, remote, stanza } => {
                let link = self.links.find(&Domain::parse(&local).ok()?, &Domain::parse(&remote).ok()?)?;
                self.handle_stanza(&link, stanza_from_bytes(&stanza)?);
            }
        }
        Some(())
    }

    /// Takes what another process says about a request. Nobody waits for it any more when it comes late.
    fn take_reply(&self, id: u64, reply: Reply) {
        if let Some(waiting) = self.forwards.close(id) {
            let _ = waiting.send(reply);
        }
    }
}

/// Tells whether a stanza is about a state of presence, in place of what users want of one another.
fn is_state(stanza: &Stanza) -> bool {
    use PresenceType::{Available, Probe, Unavailable};
    matches!(stanza, Stanza::Presence(presence) if matches!(presence.kind, Available | Unavailable | Probe))
}

fn stanza_note((local, remote): &DomainPair, stanza: &Stanza) -> Option<Note> {
    let stanza = stanza_to_bytes(stanza)?;
    Some(Note::Stanza { local: local.as_str().to_owned(), remote: remote.as_str().to_owned(), stanza })
}

fn stanza_to_bytes(stanza: &Stanza) -> Option<Vec<u8>> {
    let mut encoder = StreamEncoder::new(StreamKind::Client);
    encoder.stanza(stanza).ok()?;
    Some(encoder.take().to_vec())
}

fn stanza_from_bytes(bytes: &[u8]) -> Option<Stanza> {
    Stanza::read(read_element(bytes, &StanzaLimits::COMPONENT).ok()?).ok()
}

impl NoteHandler for super::BridgeHandle {
    fn note(&self, note: Note) {
        let kind = note.label();
        if self.0.take_note(note).is_none() {
            tracing::error!(kind, "a note of another process makes no sense");
        }
    }
}
