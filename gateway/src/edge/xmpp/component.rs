//! Component links (XEP-0114): one task for each, which connects, carries stanzas and connects again.
//!
//! What is to be sent waits in a bounded queue of the link; a link that is down refuses at once, since the
//! server answers senders itself meanwhile and nothing may be kept in silence.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use isthmus_model::Domain;
use isthmus_xmpp::component::{
    BarrierToken, CloseReason, Delivery, Event, Ignored, Link, LinkConfig, Output, Secret, SendError,
};
use isthmus_xmpp::{ErrorCondition, Message, Stanza, StanzaError};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::tls::LinkTls;
use crate::alarm::Alarm;
use crate::metrics::{Metrics, State};

const QUEUE: usize = 4096;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
const READ_BUFFER: usize = 64 * 1024;
/// The pause after a connection that could not be opened at all.
const RECONNECT: Duration = Duration::from_secs(1);
const RECONNECT_MAX: Duration = Duration::from_secs(30);

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
}

/// Who acts on what links bring.
pub trait XmppHandler: Send + Sync + 'static {
    /// A stanza from the server of `link`, for the component's domain.
    fn stanza(&self, link: &LinkSpec, stanza: Stanza);
    /// What became of a message that was sent with a token.
    fn delivery(&self, token: BarrierToken, delivery: Delivery);
    /// A link is up.
    fn link_ready(&self, link: &LinkSpec);
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
}

struct Handle {
    spec: LinkSpec,
    queue: mpsc::Sender<Command>,
    state: Arc<Mutex<LinkState>>,
    stop: watch::Sender<bool>,
}

/// All links of the process.
pub struct Links {
    by_pair: ArcSwap<HashMap<(Domain, Domain), Arc<Handle>>>,
    all: Mutex<Vec<Arc<Handle>>>,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").finish_non_exhaustive()
    }
}

impl Links {
    /// Starts without links.
    pub fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { by_pair: ArcSwap::default(), all: Mutex::default(), metrics })
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
            let task = Task {
                spec: spec.clone(),
                state: Arc::clone(&state),
                handler: Arc::clone(handler),
                metrics: Arc::clone(&self.metrics),
            };
            tasks.push(task.run(commands, stopped));
            kept.push(Arc::new(Handle { spec, queue, state, stop }));
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

    /// Returns the link that carries stanzas between these domains, if it is up.
    pub fn ready(&self, local: &Domain, remote: &Domain) -> Option<LinkSpec> {
        let by_pair = self.by_pair.load();
        let handle = by_pair.get(&(local.clone(), remote.clone()))?;
        (*handle.state.lock() == LinkState::Ready).then(|| handle.spec.clone())
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
    handler: Arc<dyn XmppHandler>,
    metrics: Arc<Metrics>,
}

impl Task {
    async fn run(self, mut commands: mpsc::Receiver<Command>, mut stopped: watch::Receiver<bool>) {
        let mut wait = RECONNECT;
        while !*stopped.borrow() {
            *self.state.lock() = LinkState::Connecting;
            let address = (self.spec.host.as_str(), self.spec.port);
            let pause = match timeout(CONNECT_TIMEOUT, self.connect(address)).await {
                Ok(Ok((reader, writer))) => {
                    let (reason, pause) = self.carry(reader, writer, &mut commands, &mut stopped).await;
                    if matches!(reason, CloseReason::Requested) {
                        return;
                    }
                    tracing::warn!(component = %self.spec.name, reason = reason.label(), "component link closed");
                    *self.state.lock() = LinkState::Down(reason.label().to_owned());
                    wait = RECONNECT;
                    pause
                }
                failed => {
                    let cause = match failed {
                        Ok(Err(error)) => error.to_string(),
                        _ => "no answer in 10 s".to_owned(),
                    };
                    tracing::warn!(component = %self.spec.name, %cause, "local server cannot be reached");
                    *self.state.lock() = LinkState::Down(cause);
                    let now = wait;
                    wait = (wait * 2).min(RECONNECT_MAX);
                    now
                }
            };
            self.refuse_waiting(&mut commands);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stopped.changed() => {}
            }
        }
    }

    /// What was queued for a link that went down is reported, not kept.
    fn refuse_waiting(&self, commands: &mut mpsc::Receiver<Command>) {
        while let Ok(command) = commands.try_recv() {
            match command {
                Command::Message(_, token) => self.handler.delivery(token, Delivery::Unknown),
                Command::Send(_) => self.metrics.refused("link_down"),
            }
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
    ) -> (CloseReason, Duration) {
        let server = self.spec.locals.first().unwrap_or(&self.spec.name).to_unicode();
        let name = self.spec.name.to_unicode();
        let nonce = rand::random();
        let mut link = Link::new(LinkConfig::new(&name, &server, self.spec.secret.clone()), nonce);
        let mut buffer = vec![0; READ_BUFFER];
        link.handle_connected(Instant::now());
        let mut bytes = Vec::new();
        let mut was_ready = false;
        let mut alarm = Alarm::new();
        loop {
            bytes.clear();
            let mut disconnect = false;
            let mut closed = None;
            while let Some(output) = link.poll_output() {
                match output {
                    Output::Transmit(chunk) => bytes.extend_from_slice(&chunk),
                    Output::Disconnect => disconnect = true,
                    Output::Event(event) => {
                        if let Some(end) = self.event(event) {
                            closed = Some(end);
                        }
                    }
                }
            }
            if !bytes.is_empty() {
                let write = async {
                    writer.write_all(&bytes).await?;
                    writer.flush().await
                };
                let written = timeout(WRITE_TIMEOUT, write).await;
                if !matches!(written, Ok(Ok(()))) && closed.is_none() {
                    link.handle_closed(Instant::now());
                    continue;
                }
            }
            if let Some(closed) = closed {
                if was_ready {
                    self.metrics.component_links.get_or_create(&State { state: "ready" }).dec();
                }
                let _ = writer.shutdown().await;
                return closed;
            }
            if disconnect {
                let _ = writer.shutdown().await;
            }
            alarm.set(link.poll_timeout().map(|(at, _)| at));
            let accepting = link.is_ready();
            was_ready |= accepting;
            tokio::select! {
                read = reader.read(&mut buffer) => match read {
                    Ok(0) | Err(_) => link.handle_closed(Instant::now()),
                    Ok(length) => link.handle_bytes(Instant::now(), buffer.get(..length).unwrap_or_default()),
                },
                command = commands.recv(), if accepting => {
                    let now = Instant::now();
                    let mut next = command;
                    let mut taken = 0;
                    // One write carries everything that waits.
                    while let Some(command) = next {
                        self.command(&mut link, now, command);
                        taken += 1;
                        next = if taken < 256 { commands.try_recv().ok() } else { None };
                    }
                }
                () = alarm.wait() => link.handle_timeout(Instant::now()),
                _ = stopped.changed() => link.drain(Instant::now()),
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
        }
    }

    fn event(&self, event: Event) -> Option<(CloseReason, Duration)> {
        match event {
            Event::Ready => {
                *self.state.lock() = LinkState::Ready;
                self.metrics.component_links.get_or_create(&State { state: "ready" }).inc();
                tracing::info!(component = %self.spec.name, "component link ready");
                self.handler.link_ready(&self.spec);
            }
            Event::Stanza(stanza) => self.handler.stanza(&self.spec, *stanza),
            Event::Delivery(token, delivery) => self.handler.delivery(token, delivery),
            Event::Ignored(ignored) => self.metrics.malformed(match ignored {
                Ignored::Unreadable(_) => "stanza",
                Ignored::Unaddressed => "stanza_unaddressed",
                Ignored::ForeignRecipient => "stanza_foreign_recipient",
            }),
            Event::Closed { reason, retry_after } => {
                let pause = retry_after.map_or(RECONNECT, |range| range.pick(rand::random()));
                return Some((reason, pause));
            }
        }
        None
    }
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
