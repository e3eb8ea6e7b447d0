//! Component links (XEP-0114): one task for each, which connects, carries stanzas and connects again.
//!
//! What is to be sent waits in a bounded queue of the link; a link that is down refuses at once, since the
//! server answers senders itself meanwhile and nothing may be kept in silence.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use isthmus_model::{Domain, EpochMillis};
use isthmus_store::{Fence, LeaseName, Store, StoreError};
use isthmus_xmpp::component::{
    BarrierToken, CloseReason, Delivery, Event, Ignored, Link, LinkConfig, Output, RetryRange, Secret, SendError,
};
use isthmus_xmpp::stream::StreamCondition;
use isthmus_xmpp::{ErrorCondition, Message, Stanza, StanzaError};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::tenure::{Owner, QUIET_MOST, Standing, Tenure};
use super::tls::LinkTls;
use crate::alarm::Alarm;
use crate::metrics::{Metrics, State};

const QUEUE: usize = 4096;
/// How often a link or a store is looked at that has no room.
const ROOM: Duration = Duration::from_millis(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
const READ_BUFFER: usize = 64 * 1024;
/// The pause before the first attempt to connect again lies between these; it doubles with each failure, up to `RECONNECT_MAX`.
const RECONNECT: RetryRange = RetryRange { min: Duration::from_millis(100), max: Duration::from_secs(1) };
/// The longest pause lies between these. A server that is back is not to stand without its components for long: to its users
/// that is as bad as its absence, and one attempt in some seconds costs it nothing.
const RECONNECT_MAX: RetryRange = RetryRange { min: Duration::from_secs(1), max: Duration::from_secs(3) };
/// How often a process tries in vain to reach the server before it lets others try.
const ATTEMPTS: u32 = 3;
/// A connection that lasted so long was a good one.
const STEADY: Duration = Duration::from_secs(10);
/// While the former holder's connection may still be there, a refusal for conflict is no reason to wait long.
const HANDOVER: Duration = Duration::from_secs(5);
const HANDOVER_RETRY: Duration = Duration::from_millis(250);
/// How long the server may take to close the connection of a lost link; what it wrote before is read until then.
const LEFTOVERS: Duration = Duration::from_secs(1);
/// What ends a stream (RFC 6120 §4.4).
const STREAM_END: &[u8] = b"</stream:stream>";
/// How long a link that was given back is served, unless its next holder connects before.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long nothing must have been sent on a link that is to be given back: what was begun asks the store before it sends.
const QUIET: Duration = Duration::from_millis(50);
/// Names nothing but the end of what was sent on a link that is to be given back.
const LAST: BarrierToken = BarrierToken(u64::MAX);

/// Which link it is, and how it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkSpec {
    /// Name or address of the server.
    pub host: String,
    /// Its port for components.
    pub port: u16,
    /// The component's name.
    pub name: Domain,
    /// The local domains that it serves; the first one names the server.
    pub locals: Vec<Domain>,
    /// The secret, read again at each connect.
    pub secret: Secret,
    /// TLS towards the server; `None` for a link in the clear.
    pub tls: Option<LinkTls>,
}

/// How a link is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// Not connected; with the reason of the last failure.
    Down(String),
    /// Connecting or shaking hands.
    Connecting,
    /// Stanzas flow.
    Ready,
    /// Another process holds the link; with the name of its life, if it is known.
    Standby(Option<String>),
}

/// Who acts on what links bring.
pub trait XmppHandler: Send + Sync + 'static {
    /// A stanza from the server of `link`, for the component's domain.
    fn stanza(&self, link: &LinkSpec, stanza: Stanza);
    /// What became of a message that was sent with a token.
    fn delivery(&self, token: BarrierToken, delivery: Delivery);
    /// A message was not sent, because the link is being given back: the next holder of the link can send it.
    fn not_sent(&self, token: BarrierToken) {
        self.delivery(token, Delivery::Unknown);
    }
    /// Another stanza was not sent for the same reason.
    fn unsent(&self, stanza: Stanza) {
        let _ = stanza;
    }
    /// A link is up. `lost_at` tells since when stanzas may have been lost; `None` at the very first.
    fn link_ready(&self, link: &LinkSpec, lost_at: Option<EpochMillis>);
}

/// A stanza was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendRefused {
    /// No link serves these domains, or it is down.
    #[error("no link to the local server")]
    NoLink,
    /// Too much waits for it.
    #[error("the link to the local server is busy")]
    Busy,
}

enum Command {
    Send(Box<Stanza>),
    Message(Arc<Message>, BarrierToken),
    Mark(BarrierToken),
}

struct Handle {
    spec: LinkSpec,
    queue: mpsc::Sender<Command>,
    state: Arc<Mutex<LinkState>>,
    stop: watch::Sender<bool>,
    tenure: Arc<Tenure>,
}

/// All links of the process.
pub struct Links {
    by_pair: ArcSwap<HashMap<(Domain, Domain), Arc<Handle>>>,
    all: Mutex<Vec<Arc<Handle>>>,
    store: Arc<dyn Store>,
    /// Names this life of the process among the holders of leases.
    life: String,
    owners: Arc<watch::Sender<u64>>,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").finish_non_exhaustive()
    }
}

impl Links {
    /// Starts without links. `life` is a name that no other process and no earlier life of this one has.
    pub fn new(store: Arc<dyn Store>, life: &str, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            by_pair: ArcSwap::default(),
            all: Mutex::default(),
            store,
            life: life.to_owned(),
            owners: Arc::new(watch::Sender::new(0)),
            metrics,
        })
    }

    /// Opens links that are new, closes those that are gone, leaves the others as they are.
    pub fn set(self: &Arc<Self>, specs: Vec<LinkSpec>, handler: &Arc<dyn XmppHandler>) {
        let mut all = self.all.lock();
        let mut kept = Vec::new();
        let mut tasks = Vec::new();
        for spec in specs {
            if let Some(place) = all.iter().position(|handle| handle.spec == spec) {
                kept.push(all.swap_remove(place));
                continue;
            }
            let (queue, commands) = mpsc::channel(QUEUE);
            let (stop, stopped) = watch::channel(false);
            let state = Arc::new(Mutex::new(LinkState::Connecting));
            let tenure = Tenure::new(
                LeaseName::link(&format!("{}:{}", spec.host, spec.port), spec.name.as_str()),
                &self.life,
                Arc::clone(&self.store),
                Arc::clone(&self.metrics),
                Arc::clone(&self.owners),
            );
            let task = Task {
                spec: spec.clone(),
                state: Arc::clone(&state),
                tenure: Arc::clone(&tenure),
                store: Arc::clone(&self.store),
                handler: Arc::clone(handler),
                metrics: Arc::clone(&self.metrics),
            };
            tasks.push(task.run(commands, stopped));
            kept.push(Arc::new(Handle { spec, queue, state, stop, tenure }));
        }
        for gone in all.drain(..) {
            gone.stop.send_replace(true);
        }
        let mut by_pair = HashMap::new();
        for handle in &kept {
            for local in &handle.spec.locals {
                by_pair.insert((local.clone(), handle.spec.name.clone()), Arc::clone(handle));
            }
        }
        *all = kept;
        self.by_pair.store(Arc::new(by_pair));
        // Only now: whoever hears that a link is up can send over it.
        for task in tasks {
            tokio::spawn(task);
        }
    }

    /// Sends a stanza from a user of `remote` to a user of `local`.
    ///
    /// # Errors
    ///
    /// [`SendRefused`]; nothing was sent.
    pub fn send(&self, local: &Domain, remote: &Domain, stanza: Stanza) -> Result<(), SendRefused> {
        self.command(local, remote, Command::Send(Box::new(stanza)))
    }

    /// Sends a message and reports its fate under `token`.
    ///
    /// # Errors
    ///
    /// [`SendRefused`]; nothing was sent and nothing will be reported.
    pub fn deliver(
        &self,
        local: &Domain,
        remote: &Domain,
        message: Arc<Message>,
        token: BarrierToken,
    ) -> Result<(), SendRefused> {
        self.command(local, remote, Command::Message(message, token))
    }

    /// Reports under `token` when the server has dealt with everything that was sent before.
    ///
    /// # Errors
    ///
    /// [`SendRefused`]; nothing will be reported.
    pub fn mark(&self, local: &Domain, remote: &Domain, token: BarrierToken) -> Result<(), SendRefused> {
        self.command(local, remote, Command::Mark(token))
    }

    fn command(&self, local: &Domain, remote: &Domain, command: Command) -> Result<(), SendRefused> {
        let by_pair = self.by_pair.load();
        let handle = by_pair.get(&(local.clone(), remote.clone())).ok_or(SendRefused::NoLink)?;
        if *handle.state.lock() != LinkState::Ready {
            return Err(SendRefused::NoLink);
        }
        handle.queue.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SendRefused::Busy,
            mpsc::error::TrySendError::Closed(_) => SendRefused::NoLink,
        })
    }

    /// Returns the link of these domains.
    pub fn find(&self, local: &Domain, remote: &Domain) -> Option<LinkSpec> {
        Some(self.by_pair.load().get(&(local.clone(), remote.clone()))?.spec.clone())
    }

    /// Returns the link that carries stanzas between these domains, if it is up.
    pub fn ready(&self, local: &Domain, remote: &Domain) -> Option<LinkSpec> {
        let by_pair = self.by_pair.load();
        let handle = by_pair.get(&(local.clone(), remote.clone()))?;
        (*handle.state.lock() == LinkState::Ready).then(|| handle.spec.clone())
    }

    /// Tells who works for pairs of these domains.
    pub fn owner(&self, local: &Domain, remote: &Domain) -> Owner {
        let by_pair = self.by_pair.load();
        let Some(handle) = by_pair.get(&(local.clone(), remote.clone())) else { return Owner::Nobody };
        handle.tenure.owner(*handle.state.lock() == LinkState::Ready)
    }

    /// Tells whether something may be done under the lease of a link. After one that may have run out this waits for the
    /// store's word.
    pub async fn acts(&self, local: &Domain, remote: &Domain) -> bool {
        let handle = self.by_pair.load().get(&(local.clone(), remote.clone())).cloned();
        match handle {
            Some(handle) => handle.tenure.acts().await,
            None => false,
        }
    }

    /// Names the process that lost the link of these domains to this one, and tells since when. One that gave it back
    /// did not lose it.
    pub fn loser(&self, local: &Domain, remote: &Domain) -> Option<(String, Instant)> {
        self.by_pair.load().get(&(local.clone(), remote.clone()))?.tenure.loser()
    }

    /// Names the process that has the link of these domains since this one lost it, less than `time` ago.
    pub fn lost_to(&self, local: &Domain, remote: &Domain, time: Duration) -> Option<String> {
        self.by_pair.load().get(&(local.clone(), remote.clone()))?.tenure.lost_to(time)
    }

    /// Tells whether this process has held the link of these domains for `time` at least.
    pub fn held_for(&self, local: &Domain, remote: &Domain, time: Duration) -> bool {
        let by_pair = self.by_pair.load();
        by_pair.get(&(local.clone(), remote.clone())).is_some_and(|handle| handle.tenure.held_for(time))
    }

    /// Waits until a link has room for many stanzas, if it is up. Work that comes by itself in great numbers gives way
    /// to what people do.
    pub async fn has_room(&self, local: &Domain, remote: &Domain) {
        loop {
            let handle = self.by_pair.load().get(&(local.clone(), remote.clone())).cloned();
            match handle {
                Some(handle) if *handle.state.lock() == LinkState::Ready && handle.queue.capacity() < QUEUE / 2 => {}
                _ => return,
            }
            tokio::time::sleep(ROOM).await;
        }
    }

    /// Tells whether the link of these domains was just taken over, and is not connected yet.
    pub fn is_coming(&self, local: &Domain, remote: &Domain) -> bool {
        let by_pair = self.by_pair.load();
        let Some(handle) = by_pair.get(&(local.clone(), remote.clone())) else { return false };
        handle.tenure.is_new(HANDOVER) && *handle.state.lock() != LinkState::Ready
    }

    /// Notifies when the owner of some link changes, or connects.
    pub fn watch_owners(&self) -> watch::Receiver<u64> {
        self.owners.subscribe()
    }

    /// Asks the store about a lease that it called lost, and waits for its word, for a while.
    pub async fn doubt(&self, local: &Domain, remote: &Domain, lost: &Fence) {
        let handle = self.by_pair.load().get(&(local.clone(), remote.clone())).cloned();
        if let Some(handle) = handle {
            handle.tenure.doubt(lost).await;
        }
    }

    /// Takes the lease of a link anew, with a new fence, so that what was taken under the former one comes again. `None`
    /// when it is another's.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn refresh_lease(&self, link: &LinkSpec) -> Result<Option<Fence>, StoreError> {
        let tenure =
            self.all.lock().iter().find(|handle| handle.spec == *link).map(|handle| Arc::clone(&handle.tenure));
        match tenure {
            Some(tenure) => tenure.refresh().await,
            None => Ok(None),
        }
    }

    /// Gives all leases back, so that other processes take the links over. Each is served until then.
    pub fn give_back(&self) {
        for handle in self.all.lock().iter() {
            handle.tenure.give_back();
        }
    }

    /// Tells whether no link is served any more that other processes can take over.
    pub fn are_handed_over(&self) -> bool {
        !self.store.is_shared() || self.all.lock().iter().all(|handle| *handle.state.lock() != LinkState::Ready)
    }

    /// Lists the links that are up.
    pub fn ready_ones(&self) -> Vec<LinkSpec> {
        let states = self.states().into_iter();
        states.filter(|(_, state)| *state == LinkState::Ready).map(|(link, _)| link).collect()
    }

    /// Lists every link with its state, for `/v1/status`.
    pub fn states(&self) -> Vec<(LinkSpec, LinkState)> {
        self.all.lock().iter().map(|handle| (handle.spec.clone(), handle.state.lock().clone())).collect()
    }

    /// Closes every link.
    pub fn close(&self) {
        for handle in self.all.lock().iter() {
            handle.stop.send_replace(true);
        }
    }
}

type Reader = Box<dyn AsyncRead + Send + Unpin>;
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

struct Task {
    spec: LinkSpec,
    state: Arc<Mutex<LinkState>>,
    tenure: Arc<Tenure>,
    store: Arc<dyn Store>,
    handler: Arc<dyn XmppHandler>,
    metrics: Arc<Metrics>,
}

impl Task {
    async fn run(self, mut commands: mpsc::Receiver<Command>, mut stopped: watch::Receiver<bool>) {
        tokio::spawn(Arc::clone(&self.tenure).keep());
        let mut changes = self.tenure.watch();
        let mut failures = 0;
        let mut lost_at = None;
        while !*stopped.borrow() {
            changes.mark_unchanged();
            let standing = self.tenure.standing();
            if standing == Standing::Former {
                self.tenure.went_quiet();
            }
            if standing != Standing::Holder {
                *self.state.lock() = LinkState::Standby(self.tenure.holder());
                self.refuse_waiting(&mut commands);
                failures = 0;
                if self.tenure.holder().is_some() {
                    lost_at = None;
                }
                tokio::select! {
                    _ = changes.changed() => {}
                    _ = stopped.changed() => {}
                }
                continue;
            }
            *self.state.lock() = LinkState::Connecting;
            lost_at = self.tenure.take_lost_at().or(lost_at);
            let address = (self.spec.host.as_str(), self.spec.port);
            let pause = match timeout(CONNECT_TIMEOUT, self.connect(address)).await {
                Ok(Ok((reader, writer))) => {
                    let began = Instant::now();
                    let end = self.carry(reader, writer, &mut commands, &mut stopped, &mut lost_at).await;
                    if matches!(end.reason, CloseReason::Requested) && *stopped.borrow() {
                        break;
                    }
                    tracing::warn!(component = %self.spec.name, reason = end.reason.label(), "component link closed");
                    *self.state.lock() = LinkState::Down(end.reason.label().to_owned());
                    if began.elapsed() > STEADY {
                        failures = 0;
                    }
                    self.pause_after(&end, &mut failures)
                }
                failed => {
                    let cause = match failed {
                        Ok(Err(error)) => error.to_string(),
                        _ => "no answer in 10 s".to_owned(),
                    };
                    tracing::warn!(component = %self.spec.name, %cause, "local server cannot be reached");
                    *self.state.lock() = LinkState::Down(cause);
                    let pause = growing(RECONNECT, &mut failures);
                    // Another process may reach it.
                    if failures >= ATTEMPTS {
                        self.tenure.rest(pause);
                    }
                    pause
                }
            };
            self.refuse_waiting(&mut commands);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // Whoever gets the link again later connects at once: this failure was of another tenure.
                _ = changes.wait_for(|holding| holding.standing() != Standing::Holder) => {}
                _ = stopped.changed() => {}
            }
        }
        self.refuse_waiting(&mut commands);
        self.tenure.give_back();
    }

    /// Tells how long to wait before the next attempt.
    fn pause_after(&self, end: &End, failures: &mut u32) -> Duration {
        let conflict =
            matches!(&end.reason, CloseReason::StreamError(error) if error.condition == StreamCondition::Conflict);
        if conflict {
            self.tenure.displaced();
        }
        match end.retry_after {
            // The former holder's connection is still there, or the server did not see its end yet.
            Some(_) if conflict && self.tenure.is_new(HANDOVER) => HANDOVER_RETRY,
            Some(range) if end.reason.is_configuration() || conflict => range.pick(rand::random()),
            Some(range) => growing(range, failures),
            None => Duration::ZERO,
        }
    }

    /// What was queued for a link that went down, or is given back, is reported, not kept.
    fn refuse_waiting(&self, commands: &mut mpsc::Receiver<Command>) {
        while let Ok(command) = commands.try_recv() {
            self.refuse(command);
        }
    }

    fn refuse(&self, command: Command) {
        let is_former = self.tenure.standing() == Standing::Former;
        match command {
            Command::Message(_, token) if is_former => self.handler.not_sent(token),
            Command::Message(_, token) | Command::Mark(token) => self.handler.delivery(token, Delivery::Unknown),
            Command::Send(stanza) if is_former => self.handler.unsent(*stanza),
            Command::Send(_) => self.metrics.refused("link_down"),
        }
    }

    /// Opens the connection, with the handshake of TLS where the link has it.
    async fn connect(&self, address: (&str, u16)) -> io::Result<(Reader, Writer)> {
        let stream = TcpStream::connect(address).await?;
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.spec.tls else {
            let (reader, writer) = stream.into_split();
            return Ok((Box::new(reader), Box::new(writer)));
        };
        let stream = TlsConnector::from(tls.config()).connect(tls.server_name().clone(), stream).await?;
        let (reader, writer) = tokio::io::split(stream);
        Ok((Box::new(reader), Box::new(writer)))
    }

    async fn carry(
        &self,
        mut reader: Reader,
        mut writer: Writer,
        commands: &mut mpsc::Receiver<Command>,
        stopped: &mut watch::Receiver<bool>,
        lost_at: &mut Option<EpochMillis>,
    ) -> End {
        let server = self.spec.locals.first().unwrap_or(&self.spec.name).to_unicode();
        let name = self.spec.name.to_unicode();
        let nonce = rand::random();
        let mut link = Link::new(LinkConfig::new(&name, &server, self.spec.secret.clone()), nonce);
        let mut buffer = vec![0; READ_BUFFER];
        link.handle_connected(Instant::now());
        let mut bytes = Vec::new();
        let mut was_ready = false;
        let mut alarm = Alarm::new();
        let mut changes = self.tenure.watch();
        let mut leaving: Option<Leaving> = None;
        // The link is another's, or the server takes nothing more: until this time it may close its end. What it wrote before is
        // still read, and no stanza is written.
        let mut lost = None;
        loop {
            if let Some(leaving) = &mut leaving
                && leaving.is_quiet(&mut link, commands.is_empty())
            {
                self.tenure.went_quiet();
            }
            bytes.clear();
            let mut disconnect = false;
            let mut closed = None;
            while let Some(output) = link.poll_output() {
                match output {
                    Output::Transmit(chunk) => bytes.extend_from_slice(&chunk),
                    Output::Disconnect => disconnect = true,
                    Output::Event(event) => {
                        if let Some(end) = self.event(event, lost_at) {
                            closed = Some(end);
                        }
                    }
                }
            }
            if !bytes.is_empty() && lost.is_none() {
                let write = async {
                    writer.write_all(&bytes).await?;
                    writer.flush().await
                };
                let written = timeout(WRITE_TIMEOUT, write).await;
                if !matches!(written, Ok(Ok(()))) {
                    // A server that takes no more may have written before that, and said why.
                    lost = Some(tokio::time::Instant::now() + LEFTOVERS);
                }
            }
            if let Some(closed) = closed {
                if was_ready {
                    self.metrics.component_links.get_or_create(&State { state: "ready" }).dec();
                    *lost_at = Some(crate::bridge::now().epoch);
                }
                let _ = writer.shutdown().await;
                return closed;
            }
            if disconnect {
                let _ = writer.shutdown().await;
            }
            let due = link.poll_timeout().map(|(at, _)| at);
            alarm.set(due.into_iter().chain(leaving.as_ref().map(Leaving::due)).min());
            let accepting = link.is_ready();
            was_ready |= accepting;
            if let Some(until) = lost {
                let read = timeout_at(until, reader.read(&mut buffer)).await;
                match read {
                    Ok(Ok(length)) if length > 0 => {
                        link.handle_bytes(Instant::now(), buffer.get(..length).unwrap_or_default());
                    }
                    _ => link.handle_closed(Instant::now()),
                }
                continue;
            }
            // A server can write far more at once than the store takes; what is not read waits in its hands, and nobody need be
            // refused.
            let busy = self.store.is_busy();
            let happened = tokio::select! {
                read = reader.read(&mut buffer), if !busy => Happened::Read(read.unwrap_or(0)),
                () = tokio::time::sleep(ROOM), if busy => continue,
                command = commands.recv(), if accepting => Happened::Command(command),
                () = alarm.wait() => Happened::Time,
                _ = changes.changed() => Happened::Lease,
                _ = stopped.changed() => Happened::Stop,
            };
            // Answers of a shared store come together, and each lets a job go on that wakes this task before the next job
            // runs. Those jobs go first, so that one write carries what all of them send.
            if self.tenure.is_leased() && matches!(happened, Happened::Command(Some(_))) {
                tokio::task::yield_now().await;
            }
            // The process may have been stopped here for any time, and the link may be another's by now.
            if !self.tenure.acts().await {
                // Just closing the connection would lose what the server is about to write to it.
                let end = async {
                    let _ = writer.write_all(STREAM_END).await;
                    writer.flush().await
                };
                let until = tokio::time::Instant::now() + LEFTOVERS;
                let _ = timeout_at(until, end).await;
                lost = Some(until);
                match happened {
                    Happened::Command(Some(command)) => self.refuse(command),
                    Happened::Read(length) if length > 0 => {
                        link.handle_bytes(Instant::now(), buffer.get(..length).unwrap_or_default());
                    }
                    _ => {}
                }
                continue;
            }
            let now = Instant::now();
            match happened {
                Happened::Read(0) => link.handle_closed(now),
                Happened::Read(length) => link.handle_bytes(now, buffer.get(..length).unwrap_or_default()),
                // The next holder may connect at any moment, and what the server has not read by then is lost.
                Happened::Command(Some(command)) if leaving.as_ref().is_some_and(|leaving| leaving.told) => {
                    self.refuse(command);
                }
                Happened::Command(command) => {
                    if let Some(leaving) = &mut leaving {
                        leaving.marked = false;
                    }
                    let mut next = command;
                    let mut taken = 0;
                    // One write carries everything that waits.
                    while let Some(command) = next {
                        self.command(&mut link, now, command);
                        taken += 1;
                        next = if taken < 256 { commands.try_recv().ok() } else { None };
                    }
                }
                Happened::Time if leaving.as_ref().is_some_and(|leaving| leaving.end <= now) => {
                    leaving = None;
                    link.drain(now);
                }
                Happened::Time => link.handle_timeout(now),
                Happened::Lease if self.tenure.standing() == Standing::Former => {
                    leaving.get_or_insert_with(|| Leaving::new(now));
                }
                Happened::Lease => {}
                Happened::Stop => link.drain(now),
            }
        }
    }

    fn command(&self, link: &mut Link, now: Instant, command: Command) {
        match command {
            Command::Send(stanza) => {
                if let Err(error) = link.send(now, &stanza) {
                    self.metrics.refused("stanza_unsendable");
                    tracing::warn!(component = %self.spec.name, %error, "stanza was not sent");
                }
            }
            Command::Message(message, token) => {
                if let Err(error) = link.send_with_barrier(now, &message, token) {
                    tracing::warn!(component = %self.spec.name, %error, "message was not sent");
                    self.handler.delivery(token, not_sent(&error));
                }
            }
            Command::Mark(token) => {
                if link.mark(now, token).is_err() {
                    self.handler.delivery(token, Delivery::Unknown);
                }
            }
        }
    }

    fn event(&self, event: Event, lost_at: &mut Option<EpochMillis>) -> Option<End> {
        match event {
            Event::Ready => {
                *self.state.lock() = LinkState::Ready;
                self.metrics.component_links.get_or_create(&State { state: "ready" }).inc();
                tracing::info!(component = %self.spec.name, "component link ready");
                self.tenure.connected();
                self.handler.link_ready(&self.spec, lost_at.take());
            }
            Event::Stanza(stanza) => self.handler.stanza(&self.spec, *stanza),
            Event::Delivery(token, delivery) => self.handler.delivery(token, delivery),
            Event::Ignored(ignored) => self.metrics.malformed(match ignored {
                Ignored::Unreadable(_) => "stanza",
                Ignored::Unaddressed => "stanza_unaddressed",
                Ignored::ForeignRecipient => "stanza_foreign_recipient",
            }),
            Event::Closed { reason, retry_after } => return Some(End { reason, retry_after }),
        }
        None
    }
}

/// How a connection ended.
struct End {
    reason: CloseReason,
    retry_after: Option<RetryRange>,
}

/// A link that is to be given back.
struct Leaving {
    /// When it ends, unless the next holder connects before.
    end: Instant,
    /// The last that was sent is a mark.
    marked: bool,
    /// When the server has dealt with everything, and nothing else came for a while.
    quiet_at: Option<Instant>,
    told: bool,
}

impl Leaving {
    fn new(now: Instant) -> Self {
        Self { end: now + QUIET_MOST + FAREWELL, marked: false, quiet_at: None, told: false }
    }

    /// Tells, once, that nothing is under way; `nothing_waits` says whether there is nothing to be sent.
    fn is_quiet(&mut self, link: &mut Link, nothing_waits: bool) -> bool {
        if self.told {
            return false;
        }
        let now = Instant::now();
        if link.outstanding() > 0 || !nothing_waits {
            self.quiet_at = None;
        } else if !self.marked && link.mark(now, LAST).is_ok() {
            self.marked = true;
        } else if *self.quiet_at.get_or_insert(now + QUIET) <= now {
            self.told = true;
            self.end = now + FAREWELL;
        }
        self.told
    }

    /// When it is to be looked at again.
    fn due(&self) -> Instant {
        self.quiet_at.filter(|_| !self.told).unwrap_or(self.end).min(self.end)
    }
}

/// What a link waited for.
enum Happened {
    /// So many octets came; none is the end.
    Read(usize),
    /// Something is to be sent.
    Command(Option<Command>),
    /// A deadline passed.
    Time,
    /// Something about the lease changed.
    Lease,
    /// The link is to end.
    Stop,
}

/// Draws a pause that doubles with each failure until it reaches [`RECONNECT_MAX`]. There it is drawn from that range, so that
/// links that broke together do not try together.
fn growing(first: RetryRange, failures: &mut u32) -> Duration {
    let pause = first.pick(rand::random()) * 2_u32.saturating_pow((*failures).min(16));
    *failures += 1;
    if pause < RECONNECT_MAX.max { pause } else { RECONNECT_MAX.pick(rand::random()) }
}

/// What became of a message that was not sent. What this link will never take is no reason to come again.
fn not_sent(error: &SendError) -> Delivery {
    let (condition, text) = match error {
        SendError::TooLarge { .. } => (ErrorCondition::PolicyViolation, "message is too large"),
        SendError::Encode(_) => (ErrorCondition::BadRequest, "message cannot be carried"),
        _ => return Delivery::Unknown,
    };
    Delivery::Bounced(Box::new(StanzaError::new(condition).with_text(text)))
}

#[cfg(test)]
mod tests;
