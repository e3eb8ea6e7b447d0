//! All users of a SIP domain on one UDP socket: they write, watch and are watched, by plain text and the words of RFC 3261.
//!
//! It shares nothing with the gateway, is exact about what a peer may rely on (CSeq, tags, one answer for one request), and
//! tells everything that came in a channel. Requests go to one address, whatever a Contact says, as with an outbound proxy.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::sip_trace::SipMessage;

mod dialogs;
mod text;

pub use dialogs::{Dialog, Session};

/// The shortest and the longest time between two repetitions, and the life of a transaction (RFC 3261 §17.1.2).
const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);
const TRANSACTION: Duration = Duration::from_secs(32);
/// Requests that took longer are named, for whoever looks for the reason.
const SLOW: Duration = Duration::from_secs(10);
/// The longest subscription that our users grant when nothing else is said.
const LONGEST_SECS: u32 = 3600;

/// Where answers to requests go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerTo {
    /// To the address that the request came from (RFC 3581).
    Source,
    /// To the outbound proxy, as a partner's proxy that knows one name of ours does: any pod may get them.
    Proxy,
}

/// What came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A MESSAGE; `id` names it on the wire, and an absorbed repetition with another branch is told again.
    Message {
        /// Who wrote.
        from: String,
        /// To whom.
        to: String,
        /// What.
        text: String,
        /// Call-ID and CSeq.
        id: String,
    },
    /// A NOTIFY to one of our watchers.
    Notified {
        /// Our user.
        watcher: String,
        /// Whom they watch.
        watched: String,
        /// The value of Subscription-State.
        state: String,
        /// `open` or `closed`, when there is a document.
        basic: Option<String>,
        /// The note of the document.
        note: Option<String>,
        /// Whether our user has ended this subscription before.
        unsubscribed: bool,
    },
    /// A SUBSCRIBE was accepted. `fresh` tells that it opened a dialog.
    Subscribed {
        /// Who watches.
        watcher: String,
        /// Our user.
        watched: String,
        /// Whether it opened a dialog.
        fresh: bool,
    },
    /// A subscription to one of our users was not refreshed in its time.
    RanOut {
        /// Who watched.
        watcher: String,
        /// Our user.
        watched: String,
        /// How many other dialogs serve the same view.
        others: usize,
    },
    /// A NOTIFY of ours got 481: the other side knows nothing of a subscription that it had not ended.
    Disowned {
        /// Who watched.
        watcher: String,
        /// Our user.
        watched: String,
        /// How many other dialogs serve the same view.
        others: usize,
    },
    /// An INVITE to a chat session was answered with 200.
    Invited {
        /// Who invited.
        from: String,
        /// Our user.
        to: String,
    },
    /// Something that a peer must not do, such as a CSeq that fails to grow.
    Wrong(String),
    /// A CSeq that grew by more than one.
    Skipped {
        /// Which.
        what: String,
        /// When the request before it in this dialog came.
        before: Instant,
        /// When it came.
        at: Instant,
    },
}

/// The users of a domain. Dropping it closes the socket.
#[derive(Debug)]
pub struct SipAgent {
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Inner {
    domain: String,
    socket: UdpSocket,
    own: SocketAddr,
    proxy: SocketAddr,
    answer_to: Mutex<AnswerTo>,
    serial: AtomicU64,
    longest_secs: AtomicU32,
    /// MESSAGEs are taken and not answered.
    silent: AtomicBool,
    /// The users are no more: what is repeated or tried again ends.
    gone: AtomicBool,
    events: mpsc::UnboundedSender<Event>,
    state: Mutex<State>,
    /// Every message that came, for scenarios that look at the wire.
    trace: Mutex<Vec<(Instant, SocketAddr, SipMessage)>>,
    traces: bool,
}

#[derive(Debug, Default)]
struct State {
    /// Answers that are waited for, by branch.
    waiting: HashMap<String, mpsc::UnboundedSender<SipMessage>>,
    /// What was answered, by Call-ID, CSeq and From tag, with the branch that came first.
    served: HashMap<String, (Instant, String, String)>,
    /// Dialogs that our users opened or were invited to, by Call-ID.
    dialogs: HashMap<String, dialogs::Shared>,
    /// What each of our users shows.
    shown: HashMap<String, String>,
}

impl SipAgent {
    /// Binds `port` on 127.0.0.1 for the users of `domain`; `proxy` gets every request. With `traces` everything that comes
    /// is kept for [`Self::trace`].
    ///
    /// # Errors
    ///
    /// When the port cannot be bound.
    pub async fn start(
        domain: &str,
        port: u16,
        proxy: SocketAddr,
        traces: bool,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Event>)> {
        let socket = UdpSocket::bind(("127.0.0.1", port)).await.with_context(|| format!("cannot bind port {port}"))?;
        let (events, received) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner {
            domain: domain.to_owned(),
            own: socket.local_addr()?,
            socket,
            proxy,
            answer_to: Mutex::new(AnswerTo::Source),
            serial: AtomicU64::new(1),
            longest_secs: AtomicU32::new(LONGEST_SECS),
            silent: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            events,
            state: Mutex::default(),
            trace: Mutex::default(),
            traces,
        });
        let task = tokio::spawn(listen(Arc::clone(&inner)));
        Ok((Self { inner, task }, received))
    }

    /// Sends answers somewhere else from now on.
    pub fn answer_to(&self, to: AnswerTo) {
        *lock(&self.inner.answer_to) = to;
    }

    /// Takes single messages from now on and answers none of them, or answers them again.
    pub fn be_silent(&self, silent: bool) {
        self.inner.silent.store(silent, Ordering::Relaxed);
    }

    /// Grants no longer subscriptions from now on.
    pub fn grant_at_most(&self, secs: u32) {
        self.inner.longest_secs.store(secs, Ordering::Relaxed);
    }

    /// Everything that came so far, with the address that it came from, if it is kept.
    pub fn trace(&self) -> Vec<(Instant, SocketAddr, SipMessage)> {
        lock(&self.inner.trace).clone()
    }

    /// Sends a single message from a user of ours and gives the final status; `None` when none came within 32 s.
    pub async fn message(&self, user: &str, to: &str, text: &str) -> Option<u16> {
        let inner = &self.inner;
        let serial = inner.serial();
        let head = format!(
            "From: <sip:{user}@{}>;tag=m{serial}\r\nTo: <sip:{to}>\r\nCall-ID: m{serial}-{}\r\n",
            inner.domain,
            inner.own.port()
        );
        let rest = text::plain(text);
        let answer = inner.request("MESSAGE", &format!("sip:{to}"), &head, 1, &rest).await?;
        answer.status()
    }

    /// Sends one datagram as it is, once, and gives the first final answer to its branch within 3 s. For scenarios that
    /// repeat or break something.
    pub async fn once(&self, datagram: &str) -> Option<SipMessage> {
        let branch = text::branch(&SipMessage::parse(datagram, false, None)?).to_owned();
        let (send, mut answers) = mpsc::unbounded_channel();
        lock(&self.inner.state).waiting.insert(branch.clone(), send);
        let _ = self.inner.socket.send_to(datagram.as_bytes(), self.inner.proxy).await;
        let end = tokio::time::Instant::now() + Duration::from_secs(3);
        let answer = loop {
            match tokio::time::timeout_at(end, answers.recv()).await {
                Ok(Some(answer)) if answer.status().is_some_and(|s| s >= 200) => break Some(answer),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break None,
            }
        };
        lock(&self.inner.state).waiting.remove(&branch);
        answer
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.inner.own
    }

    /// Gives a user of ours another state and notifies whoever watches. The note carries the state.
    pub fn show(&self, user: &str, state: &str) {
        lock(&self.inner.state).shown.insert(user.to_owned(), state.to_owned());
        for dialog in self.inner.dialogs_where(|d| d.user == user && d.is_notifier() && !d.ended()) {
            tokio::spawn(dialogs::notify(Arc::clone(&self.inner), dialog));
        }
    }

    /// Lets a user of ours watch somebody.
    ///
    /// # Errors
    ///
    /// With the status of the refusal, 0 when no answer came.
    pub async fn watch(&self, user: &str, to: &str, expires_secs: u32) -> Result<Dialog, u16> {
        dialogs::watch(&self.inner, user, to, expires_secs).await
    }

    /// Opens a chat session (INVITE, and ACK to its 200).
    ///
    /// # Errors
    ///
    /// With the status of the refusal, 0 when no answer came.
    pub async fn invite(&self, user: &str, to: &str) -> Result<Session, u16> {
        dialogs::invite(&self.inner, user, to).await
    }

    /// How many dialogs serve `watcher`'s view of a user of ours now.
    pub fn watched_by(&self, watcher: &str, user: &str) -> usize {
        self.inner.watched_by(watcher, user)
    }
}

impl Drop for SipAgent {
    fn drop(&mut self) {
        self.inner.gone.store(true, Ordering::Relaxed);
        self.task.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }

    fn dialogs_where(&self, matches: impl Fn(&dialogs::Inside) -> bool) -> Vec<dialogs::Shared> {
        lock(&self.state).dialogs.values().filter(|d| matches(&d.inside())).cloned().collect()
    }

    fn watched_by(&self, watcher: &str, user: &str) -> usize {
        self.dialogs_where(|d| d.is_notifier() && d.user == user && d.other == watcher && d.lives()).len()
    }

    /// A request with everything but Via, Max-Forwards and CSeq, until its final answer or the end of the transaction.
    async fn request(&self, method: &str, uri: &str, head: &str, cseq: u32, rest: &str) -> Option<SipMessage> {
        let branch = format!("z9hG4bKa{}x{}", self.serial(), self.own.port());
        let text = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {};rport;branch={branch}\r\nMax-Forwards: 70\r\n\
             {head}CSeq: {cseq} {method}\r\n{rest}",
            self.own
        );
        let (send, mut answers) = mpsc::unbounded_channel();
        lock(&self.state).waiting.insert(branch.clone(), send);
        let began = Instant::now();
        let answer = self.repeat_until_final(method, &text, &mut answers).await;
        lock(&self.state).waiting.remove(&branch);
        if began.elapsed() > SLOW {
            let (secs, status) = (began.elapsed().as_secs_f64(), answer.as_ref().and_then(SipMessage::status));
            eprintln!("{method} {cseq} to {uri} at {} took {secs:.1} s and got {status:?}", self.domain);
        }
        answer
    }

    async fn repeat_until_final(
        &self,
        method: &str,
        text: &str,
        answers: &mut mpsc::UnboundedReceiver<SipMessage>,
    ) -> Option<SipMessage> {
        let end = tokio::time::Instant::now() + TRANSACTION;
        let (mut pause, mut proceeding) = (T1, false);
        while !self.gone.load(Ordering::Relaxed) {
            if !proceeding {
                let _ = self.socket.send_to(text.as_bytes(), self.proxy).await;
            }
            let next = (tokio::time::Instant::now() + pause).min(end);
            loop {
                match tokio::time::timeout_at(next, answers.recv()).await {
                    Ok(Some(answer)) if answer.status().is_some_and(|s| s >= 200) => return Some(answer),
                    // A provisional answer ends the repetition of INVITE, and slows that of the others to T2.
                    Ok(Some(_)) => {
                        proceeding = method == "INVITE";
                        pause = T2;
                    }
                    Ok(None) => return None,
                    Err(_) => break,
                }
            }
            if tokio::time::Instant::now() >= end {
                return None;
            }
            pause = (pause * 2).min(T2);
        }
        None
    }

    async fn send_answer(&self, request: &SipMessage, text: &str, source: SocketAddr) {
        if request.method() == Some("MESSAGE") && self.silent.load(Ordering::Relaxed) {
            return;
        }
        let to = match *lock(&self.answer_to) {
            AnswerTo::Source => source,
            AnswerTo::Proxy => self.proxy,
        };
        let _ = self.socket.send_to(text.as_bytes(), to).await;
    }
}

async fn listen(inner: Arc<Inner>) {
    let mut buffer = vec![0_u8; 65_536];
    loop {
        // An error here is what a dead pod left; the next datagram is another matter.
        let Ok((length, source)) = inner.socket.recv_from(&mut buffer).await else { continue };
        let datagram = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
        let Some(message) = SipMessage::parse(&datagram, true, None) else { continue };
        if inner.traces {
            lock(&inner.trace).push((Instant::now(), source, message.clone()));
        }
        if message.method().is_some() {
            take_request(&inner, &message, source).await;
        } else {
            let waiting = lock(&inner.state).waiting.get(text::branch(&message)).cloned();
            match waiting {
                Some(waiting) => drop(waiting.send(message)),
                None => dialogs::late_answer(&inner, &message).await,
            }
        }
    }
}

/// Answers a request once, repeats that answer to repetitions, and drops what needs none.
async fn take_request(inner: &Arc<Inner>, request: &SipMessage, source: SocketAddr) {
    if request.method() == Some("ACK") {
        return dialogs::take_ack(inner, request);
    }
    let key = format!("{} {} {}", request.header("Call-ID"), request.header("CSeq"), request.tag("From"));
    let served = lock(&inner.state).served.get(&key).cloned();
    if let Some((at, branch, answer)) = served.filter(|(at, ..)| at.elapsed() < TRANSACTION) {
        if branch != text::branch(request) && request.method() == Some("MESSAGE") {
            inner.tell(dialogs::message_event(request));
        }
        // The answer carries the Via of this request, not of the first.
        let answer = if branch == text::branch(request) { answer } else { text::with_via_of(&answer, request) };
        let _ = at;
        return inner.send_answer(request, &answer, source).await;
    }
    let answer = dialogs::serve(inner, request);
    let kept = (Instant::now(), text::branch(request).to_owned(), answer.text.clone());
    {
        let mut state = lock(&inner.state);
        if state.served.len() > 20_000 {
            state.served.retain(|_, (at, ..)| at.elapsed() < TRANSACTION);
        }
        state.served.insert(key, kept);
    }
    inner.send_answer(request, &answer.text, source).await;
    if let Some(dialog) = answer.then_notify {
        tokio::spawn(dialogs::notify(Arc::clone(inner), dialog));
    }
}
