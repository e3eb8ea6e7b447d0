//! Very many users of a SIP partner on one UDP socket, each of whom watches one XMPP user.
//!
//! It keeps a few octets for each and reads no more of a message than it needs, so that 160,000 of them take little of the
//! machine that the gateway is measured on. Scenarios that look at the wire use [`crate::sip_agent`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The first pause before a repetition, the longest one, and the life of a transaction (RFC 3261 §17.1.2).
const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);
const TRANSACTION: Duration = Duration::from_secs(32);
/// The pause after a refusal that says to come again.
const BACK_OFF: Duration = Duration::from_millis(500);
/// How often a watcher comes again after such a refusal.
const ATTEMPTS: u32 = 20;
/// What a presence status begins with; the number of the state follows.
const STATE: &str = "state ";

/// Names a state as it is shown: what [`Watchers`] look for in a NOTIFY.
pub fn state_text(number: u64) -> String {
    format!("{STATE}{number}")
}

/// The watchers, named `w0`, `w1`, ... Dropping them closes the socket.
#[derive(Debug)]
pub struct Watchers {
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Inner {
    domain: String,
    socket: UdpSocket,
    own: SocketAddr,
    proxy: SocketAddr,
    /// How many watchers a user has, and the domain of the users, who are named `u0`, `u1`, ...
    each: usize,
    watched_domain: String,
    state: Mutex<State>,
    messages: AtomicU64,
    repeated: AtomicU64,
    refused: AtomicU64,
    strange: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    watches: Vec<Watch>,
    /// Requests that wait for their final answer, by watcher.
    waiting: HashMap<usize, oneshot::Sender<u16>>,
}

/// One subscription.
#[derive(Debug, Clone, Default)]
struct Watch {
    /// To and target of its requests, empty until it is accepted.
    to: String,
    target: String,
    cseq: u32,
    /// The other side's last CSeq.
    their_cseq: u32,
    /// The number of the last state that was shown, one more than it is; 0 for none.
    shown: u64,
}

/// What was counted.
#[derive(Debug, Clone, Copy)]
pub struct Counts {
    /// SIP messages both ways, repetitions included.
    pub messages: u64,
    /// Requests that were repeated by either side.
    pub repeated: u64,
    /// Requests that were refused with a word to come again.
    pub refused: u64,
    /// NOTIFY out of order or of no subscription.
    pub strange: u64,
}

impl Watchers {
    /// Binds `port` on 127.0.0.1 for `count` watchers of `domain`, `each` of them for every user of `watched_domain`.
    ///
    /// # Errors
    ///
    /// When the port cannot be bound.
    pub async fn start(
        domain: &str,
        port: u16,
        proxy: SocketAddr,
        count: usize,
        each: usize,
        watched_domain: &str,
    ) -> Result<Self> {
        let socket = UdpSocket::bind(("127.0.0.1", port)).await.with_context(|| format!("cannot bind port {port}"))?;
        let state = State { watches: vec![Watch::default(); count], waiting: HashMap::new() };
        let inner = Arc::new(Inner {
            domain: domain.to_owned(),
            own: socket.local_addr()?,
            socket,
            proxy,
            each: each.max(1),
            watched_domain: watched_domain.to_owned(),
            state: Mutex::new(state),
            messages: AtomicU64::default(),
            repeated: AtomicU64::default(),
            refused: AtomicU64::default(),
            strange: AtomicU64::default(),
        });
        let task = tokio::spawn(listen(Arc::clone(&inner)));
        Ok(Self { inner, task })
    }

    /// Everybody subscribes, so many at once.
    ///
    /// # Errors
    ///
    /// When one is refused for good or not answered.
    pub async fn open(&self, expires_secs: u32, at_once: usize) -> Result<()> {
        let all = 0..lock(&self.inner.state).watches.len();
        let asked = all.map(|number| self.inner.subscribe(number, expires_secs));
        futures::stream::iter(asked).buffer_unordered(at_once).try_collect().await
    }

    /// One watcher subscribes, or refreshes the subscription. It works on after it was dropped only if it is spawned.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn refresh(&self, number: usize, expires_secs: u32) -> impl Future<Output = Result<()>> + Send + 'static {
        let inner = Arc::clone(&self.inner);
        async move { inner.subscribe(number, expires_secs).await }
    }

    /// How many watchers have been shown this state, and no later one.
    pub fn shown(&self, state: u64) -> usize {
        lock(&self.inner.state).watches.iter().filter(|watch| watch.shown == state + 1).count()
    }

    /// The last state that a watcher was shown.
    pub fn last(&self, number: usize) -> Option<u64> {
        lock(&self.inner.state).watches.get(number)?.shown.checked_sub(1)
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let inner = &self.inner;
        Counts {
            messages: of(&inner.messages),
            repeated: of(&inner.repeated),
            refused: of(&inner.refused),
            strange: of(&inner.strange),
        }
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Inner {
    async fn subscribe(&self, number: usize, expires_secs: u32) -> Result<()> {
        for _ in 0..ATTEMPTS {
            match self.ask(number, expires_secs).await {
                200..=299 => return Ok(()),
                503 => {
                    count(&self.refused);
                    tokio::time::sleep(BACK_OFF).await;
                }
                0 => bail!("SUBSCRIBE of w{number} was not answered"),
                status => bail!("SUBSCRIBE of w{number} was answered {status}"),
            }
        }
        bail!("SUBSCRIBE of w{number} was refused {ATTEMPTS} times")
    }

    /// Sends a SUBSCRIBE until it has its final answer; 0 when there is none.
    async fn ask(&self, number: usize, expires_secs: u32) -> u16 {
        let (answered, mut answer) = oneshot::channel();
        let request = {
            let mut state = lock(&self.state);
            let Some(watch) = state.watches.get_mut(number) else { return 0 };
            watch.cseq += 1;
            let text = self.request(number, watch, expires_secs);
            state.waiting.insert(number, answered);
            text
        };
        let (begin, mut pause) = (Instant::now(), T1);
        while begin.elapsed() < TRANSACTION {
            if pause > T1 {
                count(&self.repeated);
            }
            self.send(&request, self.proxy).await;
            match tokio::time::timeout(pause, &mut answer).await {
                Ok(status) => return status.unwrap_or_default(),
                Err(_) => pause = (pause * 2).min(T2),
            }
        }
        0
    }

    fn request(&self, number: usize, watch: &Watch, expires_secs: u32) -> String {
        let watched = format!("sip:u{}@{}", number / self.each, self.watched_domain);
        let (to, target) = if watch.to.is_empty() {
            (format!("<{watched}>"), watched.as_str())
        } else {
            (watch.to.clone(), watch.target.as_str())
        };
        let (own, domain, cseq) = (self.own, &self.domain, watch.cseq);
        format!(
            "SUBSCRIBE {target} SIP/2.0\r\nVia: SIP/2.0/UDP {own};rport;branch=z9hG4bKw{number}x{cseq}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:w{number}@{domain}>;tag=w{number}\r\nTo: {to}\r\nCall-ID: {number}-w{port}\r\n\
             CSeq: {cseq} SUBSCRIBE\r\nContact: <sip:w{number}@{own}>\r\nEvent: presence\r\n\
             Accept: application/pidf+xml\r\nExpires: {expires_secs}\r\nContent-Length: 0\r\n\r\n",
            port = own.port(),
        )
    }

    async fn send(&self, text: &str, to: SocketAddr) {
        count(&self.messages);
        // An error here is what a dead gateway left behind; what is lost is repeated.
        let _ = self.socket.send_to(text.as_bytes(), to).await;
    }

    /// Takes the answer to a SUBSCRIBE.
    fn take_answer(&self, answer: &str) {
        let status: u16 = answer.get(8..11).and_then(|status| status.parse().ok()).unwrap_or_default();
        let Some(number) = number_of(answer) else { return };
        let mut state = lock(&self.state);
        let cseq = cseq_of(answer);
        let Some(watch) = state.watches.get_mut(number).filter(|watch| watch.cseq == cseq) else { return };
        if status < 200 {
            return;
        }
        if (200..300).contains(&status) {
            field(answer, "To").clone_into(&mut watch.to);
            uri(field(answer, "Contact")).clone_into(&mut watch.target);
        }
        if let Some(waiting) = state.waiting.remove(&number) {
            let _ = waiting.send(status);
        }
    }

    /// Takes a request and gives its answer.
    fn take_request(&self, request: &str) -> String {
        let known = request.starts_with("NOTIFY ") && self.take_notify(request);
        let mut answer = if known { "SIP/2.0 200 OK\r\n" } else { "SIP/2.0 481 Unknown Here\r\n" }.to_owned();
        for line in request.split("\r\n").skip(1).take_while(|line| !line.is_empty()) {
            if matches!(line.split(':').next(), Some("Via" | "From" | "To" | "Call-ID" | "CSeq")) {
                answer.push_str(line);
                answer.push_str("\r\n");
            }
        }
        answer.push_str("Content-Length: 0\r\n\r\n");
        answer
    }

    fn take_notify(&self, request: &str) -> bool {
        let cseq = cseq_of(request);
        let mut state = lock(&self.state);
        let watch = number_of(request).and_then(|number| state.watches.get_mut(number));
        let Some(watch) = watch else {
            count(&self.strange);
            return false;
        };
        if cseq == watch.their_cseq {
            count(&self.repeated);
            return true;
        }
        if cseq < watch.their_cseq || field(request, "Subscription-State").starts_with("terminated") {
            count(&self.strange);
            return true;
        }
        watch.their_cseq = cseq;
        let body = request.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        if let Some((_, rest)) = body.split_once(STATE) {
            let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
            watch.shown = digits.parse::<u64>().map_or(0, |state| state + 1);
        }
        true
    }
}

async fn listen(inner: Arc<Inner>) {
    let mut buffer = vec![0_u8; 65_536];
    loop {
        let Ok((length, from)) = inner.socket.recv_from(&mut buffer).await else { continue };
        let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
        count(&inner.messages);
        if text.starts_with("SIP/2.0 ") {
            inner.take_answer(&text);
        } else {
            let answer = inner.take_request(&text);
            inner.send(&answer, from).await;
        }
    }
}

/// The value of a header field, empty when there is none.
fn field<'a>(message: &'a str, name: &str) -> &'a str {
    let lines = message.split("\r\n").skip(1).take_while(|line| !line.is_empty());
    let mut values = lines.filter_map(|line| line.split_once(':')).filter(|(n, _)| n.eq_ignore_ascii_case(name));
    values.next().map(|(_, value)| value.trim()).unwrap_or_default()
}

/// Whose dialog it is, by the Call-ID.
fn number_of(message: &str) -> Option<usize> {
    field(message, "Call-ID").split('-').next()?.parse().ok()
}

fn cseq_of(message: &str) -> u32 {
    field(message, "CSeq").split(' ').next().and_then(|n| n.parse().ok()).unwrap_or_default()
}

/// The URI of a Contact.
fn uri(contact: &str) -> &str {
    let inside = contact.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(uri, _)| uri);
    inside.unwrap_or_else(|| contact.split(';').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn watchers() -> Watchers {
        Watchers::start("partner.example", 0, ([127, 0, 0, 1], 9).into(), 3, 2, "corp.example").await.unwrap()
    }

    fn notify(cseq: u32, state: &str, body: &str) -> String {
        format!(
            "NOTIFY sip:w2@h SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK{cseq}\r\nFrom: <sip:u1@corp.example>;tag=g\r\n\
             To: <sip:w2@partner.example>;tag=w2\r\nCall-ID: 2-w1\r\nCSeq: {cseq} NOTIFY\r\n\
             Subscription-State: {state}\r\n\r\n{body}"
        )
    }

    #[tokio::test]
    async fn a_watcher_keeps_the_last_state_and_counts_what_is_out_of_order() {
        let watchers = watchers().await;
        let inner = &watchers.inner;
        assert!(inner.take_request(&notify(1, "active", "")).starts_with("SIP/2.0 200"));
        assert_eq!(watchers.last(2), None);
        inner.take_request(&notify(2, "active", "<note>state 7</note>"));
        inner.take_request(&notify(2, "active", "<note>state 7</note>"));
        assert_eq!((watchers.last(2), watchers.shown(7), watchers.shown(6)), (Some(7), 1, 0));
        inner.take_request(&notify(1, "active", "<note>state 6</note>"));
        let stranger = notify(3, "active", "").replace("2-w1", "77-w1");
        assert!(inner.take_request(&stranger).starts_with("SIP/2.0 481"));
        let counts = watchers.counts();
        assert_eq!((watchers.last(2), counts.repeated, counts.strange), (Some(7), 1, 2));
    }

    #[tokio::test]
    async fn a_refresh_stays_in_the_dialog_that_the_answer_opened() {
        let watchers = watchers().await;
        let first = watchers.inner.request(2, &Watch { cseq: 1, ..Watch::default() }, 3600);
        assert!(first.starts_with("SUBSCRIBE sip:u1@corp.example SIP/2.0\r\n"), "{first}");
        lock(&watchers.inner.state).watches[2].cseq = 1;
        watchers.inner.take_answer(
            "SIP/2.0 200 OK\r\nTo: <sip:u1@corp.example>;tag=g\r\nCall-ID: 2-w1\r\nCSeq: 1 SUBSCRIBE\r\n\
             Contact: <sip:gw@h:5060;transport=udp>\r\n\r\n",
        );
        let watch = lock(&watchers.inner.state).watches[2].clone();
        let next = watchers.inner.request(2, &Watch { cseq: 2, ..watch }, 3600);
        assert!(next.starts_with("SUBSCRIBE sip:gw@h:5060;transport=udp SIP/2.0\r\n"), "{next}");
        assert!(next.contains("\r\nTo: <sip:u1@corp.example>;tag=g\r\n") && next.contains("Call-ID: 2-w"), "{next}");
    }
}
