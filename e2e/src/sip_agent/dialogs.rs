//! Dialogs of a [`super::SipAgent`]: watching, being watched, and chat sessions.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::{Event, Inner, T1, T2, TRANSACTION, lock, text};
use crate::sip_trace::SipMessage;

/// How often a notifier tries to show a state before it gives the subscription up.
const NOTIFY_ATTEMPTS: u32 = 40;

/// What kind of dialog it is, and from which side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Watcher,
    Notifier,
    Session,
}

/// One dialog.
#[derive(Debug)]
pub(super) struct Inside {
    kind: Kind,
    /// Our user, and the other's address.
    pub(super) user: String,
    pub(super) other: String,
    call_id: String,
    /// From and To of our requests, whole.
    from: String,
    to: String,
    target: String,
    /// Our last CSeq and the other side's.
    cseq: u32,
    their_cseq: u32,
    /// When the other side's last request came.
    heard_at: Instant,
    expires_at: Instant,
    ended: bool,
    /// Whether our watcher has asked for the end.
    unsubscribed: bool,
    /// The state that the other side has confirmed.
    confirmed: String,
    /// How many SUBSCRIBEs came.
    asked: u32,
    acked: bool,
}

impl Inside {
    pub(super) fn is_notifier(&self) -> bool {
        self.kind == Kind::Notifier
    }

    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    pub(super) fn lives(&self) -> bool {
        !self.ended && self.expires_at > Instant::now()
    }
}

/// A dialog and the lock that lets one request of ours be under way at a time.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    inside: Arc<Mutex<Inside>>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Shared {
    fn new(inside: Inside) -> Self {
        Self { inside: Arc::new(Mutex::new(inside)), turn: Arc::default() }
    }

    pub(super) fn inside(&self) -> MutexGuard<'_, Inside> {
        lock(&self.inside)
    }

    /// Our user, and the other's address.
    fn names(&self) -> (String, String) {
        let inside = self.inside();
        (inside.user.clone(), inside.other.clone())
    }

    /// Sends a request in the dialog with the next CSeq.
    async fn request(&self, inner: &Inner, method: &str, fields: &str, rest: &str) -> Option<SipMessage> {
        let (uri, head, cseq) = {
            let mut inside = self.inside();
            inside.cseq += 1;
            let head = format!(
                "From: {}\r\nTo: {}\r\nCall-ID: {}\r\nContact: <sip:{}@{}>\r\n{fields}",
                inside.from, inside.to, inside.call_id, inside.user, inner.own
            );
            (inside.target.clone(), head, inside.cseq)
        };
        inner.request(method, &uri, &head, cseq, rest).await
    }
}

/// The answer to a request that came.
pub(super) struct Served {
    pub(super) text: String,
    pub(super) then_notify: Option<Shared>,
}

/// A user of ours watches somebody.
#[derive(Debug, Clone)]
pub struct Dialog {
    inner: Arc<Inner>,
    shared: Shared,
}

impl Dialog {
    /// Its Call-ID.
    pub fn call_id(&self) -> String {
        self.shared.inside().call_id.clone()
    }

    /// Whether a NOTIFY has ended it.
    pub fn ended(&self) -> bool {
        self.shared.inside().ended
    }

    /// When it runs out.
    pub fn expires_at(&self) -> Instant {
        self.shared.inside().expires_at
    }

    /// How many NOTIFY came in order: the number of the last one.
    pub fn last_notify(&self) -> u32 {
        self.shared.inside().their_cseq
    }

    /// Refreshes it, or ends it with 0; gives the status, 0 when no answer came.
    pub async fn refresh(&self, expires_secs: u32) -> u16 {
        let _turn = self.shared.turn.lock().await;
        self.shared.inside().unsubscribed |= expires_secs == 0;
        let fields = subscribe_fields(expires_secs);
        let answer = self.shared.request(&self.inner, "SUBSCRIBE", &fields, text::EMPTY).await;
        let Some(answer) = answer else { return 0 };
        let status = answer.status().unwrap_or_default();
        if (200..300).contains(&status) {
            self.shared.inside().expires_at = runs_out(&answer, expires_secs);
        }
        status
    }
}

/// A chat session that a user of ours opened.
#[derive(Debug, Clone)]
pub struct Session {
    inner: Arc<Inner>,
    shared: Shared,
}

impl Session {
    /// Sends a message in it; gives the status, 0 when no answer came.
    pub async fn message(&self, text: &str) -> u16 {
        let _turn = self.shared.turn.lock().await;
        let answer = self.shared.request(&self.inner, "MESSAGE", "", &text::plain(text)).await;
        answer.and_then(|a| a.status()).unwrap_or_default()
    }

    /// Whether either side has ended it.
    pub fn ended(&self) -> bool {
        self.shared.inside().ended
    }

    /// Ends it; gives the status, 0 when no answer came.
    pub async fn bye(&self) -> u16 {
        let _turn = self.shared.turn.lock().await;
        let answer = self.shared.request(&self.inner, "BYE", "", text::EMPTY).await;
        self.shared.inside().ended = true;
        answer.and_then(|a| a.status()).unwrap_or_default()
    }

    /// Its Call-ID.
    pub fn call_id(&self) -> String {
        self.shared.inside().call_id.clone()
    }
}

/// When a subscription runs out by the 2xx to a SUBSCRIBE that asked for this time.
fn runs_out(answer: &SipMessage, asked_secs: u32) -> Instant {
    let granted = answer.header("Expires").parse().unwrap_or(asked_secs);
    Instant::now() + Duration::from_secs(granted.into())
}

fn subscribe_fields(expires_secs: u32) -> String {
    format!("Event: presence\r\nAccept: application/pidf+xml\r\nExpires: {expires_secs}\r\n")
}

fn open(inner: &Arc<Inner>, kind: Kind, user: &str, to: &str) -> Shared {
    let serial = inner.serial();
    let shared = Shared::new(Inside {
        kind,
        user: user.to_owned(),
        other: to.to_owned(),
        call_id: format!("d{serial}-{}", inner.own.port()),
        from: format!("<sip:{user}@{}>;tag=d{serial}", inner.domain),
        to: format!("<sip:{to}>"),
        target: format!("sip:{to}"),
        cseq: 0,
        their_cseq: 0,
        heard_at: Instant::now(),
        expires_at: Instant::now() + TRANSACTION,
        ended: false,
        unsubscribed: false,
        confirmed: String::new(),
        asked: 0,
        acked: false,
    });
    // Known before the request leaves: a NOTIFY may overtake the answer (RFC 6665 §4.1.2.4).
    let call_id = shared.inside().call_id.clone();
    lock(&inner.state).dialogs.insert(call_id, shared.clone());
    shared
}

fn forget(inner: &Inner, shared: &Shared) {
    let call_id = shared.inside().call_id.clone();
    lock(&inner.state).dialogs.remove(&call_id);
}

pub(super) async fn watch(inner: &Arc<Inner>, user: &str, to: &str, expires_secs: u32) -> Result<Dialog, u16> {
    let shared = open(inner, Kind::Watcher, user, to);
    let answer = shared.request(inner, "SUBSCRIBE", &subscribe_fields(expires_secs), text::EMPTY).await;
    match confirmed(inner, &shared, answer) {
        Ok(answer) => {
            shared.inside().expires_at = runs_out(&answer, expires_secs);
            Ok(Dialog { inner: Arc::clone(inner), shared })
        }
        Err(status) => Err(status),
    }
}

pub(super) async fn invite(inner: &Arc<Inner>, user: &str, to: &str) -> Result<Session, u16> {
    let shared = open(inner, Kind::Session, user, to);
    let answer = shared.request(inner, "INVITE", "", &text::sdp(inner.own)).await;
    let answer = confirmed(inner, &shared, answer)?;
    acknowledge(inner, &shared, answer.cseq()).await;
    Ok(Session { inner: Arc::clone(inner), shared })
}

/// Takes tag and target from a 2xx, or forgets the dialog.
fn confirmed(inner: &Inner, shared: &Shared, answer: Option<SipMessage>) -> Result<SipMessage, u16> {
    let status = answer.as_ref().and_then(SipMessage::status).unwrap_or_default();
    match answer {
        Some(answer) if (200..300).contains(&status) => {
            let mut inside = shared.inside();
            answer.header("To").clone_into(&mut inside.to);
            inside.target = text::contact(&answer, &inside.target);
            Ok(answer)
        }
        _ => {
            forget(inner, shared);
            Err(status)
        }
    }
}

/// ACK to a 2xx: a request of its own that nobody answers (RFC 3261 §13.2.2.4).
async fn acknowledge(inner: &Inner, shared: &Shared, cseq: u32) {
    let text = {
        let inside = shared.inside();
        format!(
            "ACK {} SIP/2.0\r\nVia: SIP/2.0/UDP {};rport;branch=z9hG4bKack{}\r\nMax-Forwards: 70\r\nFrom: {}\r\nTo: {}\r\n\
             Call-ID: {}\r\nCSeq: {cseq} ACK\r\n{}",
            inside.target,
            inner.own,
            inner.serial(),
            inside.from,
            inside.to,
            inside.call_id,
            text::EMPTY
        )
    };
    let _ = inner.socket.send_to(text.as_bytes(), inner.proxy).await;
}

/// A repeated 2xx to an INVITE means that its ACK did not arrive.
pub(super) async fn late_answer(inner: &Inner, answer: &SipMessage) {
    if answer.cseq_method() != "INVITE" || !answer.status().is_some_and(|s| (200..300).contains(&s)) {
        return;
    }
    let dialog = lock(&inner.state).dialogs.get(answer.header("Call-ID")).cloned();
    if let Some(dialog) = dialog {
        acknowledge(inner, &dialog, answer.cseq()).await;
    }
}

pub(super) fn take_ack(inner: &Inner, ack: &SipMessage) {
    if let Some(dialog) = lock(&inner.state).dialogs.get(ack.header("Call-ID")) {
        dialog.inside().acked = true;
    }
}

pub(super) fn message_event(request: &SipMessage) -> Event {
    Event::Message {
        from: text::aor(request.header("From")),
        to: text::aor(request.header("To")),
        text: request.body.trim_end().to_owned(),
        id: format!("{} {}", request.header("Call-ID"), request.cseq()),
    }
}

/// Answers a request that has not been seen before.
pub(super) fn serve(inner: &Arc<Inner>, request: &SipMessage) -> Served {
    let plain =
        |status: &str| Served { text: text::answer_head(request, status, "none") + text::EMPTY, then_notify: None };
    let in_dialog = !request.tag("To").is_empty();
    let dialog = lock(&inner.state).dialogs.get(request.header("Call-ID")).cloned();
    if in_dialog {
        let Some(dialog) = &dialog else { return plain("481 Unknown Here") };
        if let Err(status) = take_cseq(inner, dialog, request) {
            return plain(status);
        }
    }
    match (request.method().unwrap_or_default(), dialog) {
        ("MESSAGE", _) => {
            inner.tell(message_event(request));
            plain("200 OK")
        }
        ("NOTIFY", Some(dialog)) => {
            notified(inner, &dialog, request);
            plain("200 OK")
        }
        ("SUBSCRIBE", dialog) => subscribed(inner, dialog, request),
        ("INVITE", _) => invited(inner, request),
        ("BYE", Some(dialog)) => {
            dialog.inside().ended = true;
            plain("200 OK")
        }
        ("OPTIONS" | "INFO", _) => plain("200 OK"),
        ("NOTIFY" | "BYE", None) => plain("481 Unknown Here"),
        _ => plain("405 Not Here"),
    }
}

/// The other side's CSeq must grow; by one, as ours does, since one pod after the other writes in the dialog.
fn take_cseq(inner: &Inner, dialog: &Shared, request: &SipMessage) -> Result<(), &'static str> {
    let mut inside = dialog.inside();
    let (cseq, last, now) = (request.cseq(), inside.their_cseq, Instant::now());
    if last != 0 && cseq != last + 1 {
        let method = request.method().unwrap_or_default();
        let what = format!("{}: {method} with CSeq {cseq} after {last}", inside.call_id);
        let skipped = |what| Event::Skipped { what, before: inside.heard_at, at: now };
        inner.tell(if cseq > last { skipped(what) } else { Event::Wrong(what) });
    }
    if cseq <= last {
        return Err("500 Out Of Order");
    }
    (inside.their_cseq, inside.heard_at) = (cseq, now);
    Ok(())
}

fn notified(inner: &Inner, dialog: &Shared, request: &SipMessage) {
    let mut inside = dialog.inside();
    // The tag of the one who answers is fixed by what comes first, NOTIFY or answer.
    if !inside.to.contains("tag=") {
        request.header("From").clone_into(&mut inside.to);
        inside.target = text::contact(request, &inside.target);
    }
    let state = request.header("Subscription-State").to_owned();
    inside.ended |= state.starts_with("terminated");
    let event = Event::Notified {
        watcher: inside.user.clone(),
        watched: inside.other.clone(),
        state,
        basic: request.basic().map(str::to_owned),
        note: request.body_element("note").map(|n| n.trim().to_owned()),
        unsubscribed: inside.unsubscribed,
    };
    drop(inside);
    inner.tell(event);
}

fn subscribed(inner: &Arc<Inner>, dialog: Option<Shared>, request: &SipMessage) -> Served {
    let fresh = dialog.is_none();
    let tag = format!("n{}", inner.serial());
    let longest = inner.longest_secs.load(Ordering::Relaxed);
    let wanted = request.header("Expires").parse().unwrap_or(longest).min(longest);
    let dialog = dialog.unwrap_or_else(|| accept(inner, request, &tag, Kind::Notifier));
    if wanted > 0 && dialog.inside().ended {
        return Served { text: text::answer_head(request, "481 Ran Out", &tag) + text::EMPTY, then_notify: None };
    }
    let event = {
        let mut inside = dialog.inside();
        inside.expires_at = Instant::now() + Duration::from_secs(wanted.into());
        inside.ended |= wanted == 0;
        // Every SUBSCRIBE is followed by a NOTIFY, whether or not there is news, or one is under way (RFC 6665 §4.2.1.2).
        inside.confirmed.clear();
        inside.asked += 1;
        inside.target = text::contact(request, &inside.target);
        Event::Subscribed { watcher: inside.other.clone(), watched: inside.user.clone(), fresh }
    };
    inner.tell(event);
    if fresh {
        tokio::spawn(end_in_time(Arc::clone(inner), dialog.clone()));
    }
    let user = dialog.inside().user.clone();
    let text = text::answer_head(request, "200 OK", &tag)
        + &format!("Contact: <sip:{user}@{}>\r\nExpires: {wanted}\r\n{}", inner.own, text::EMPTY);
    Served { text, then_notify: Some(dialog) }
}

/// Ends a subscription to a user of ours that nobody refreshes, and tells it.
async fn end_in_time(inner: Arc<Inner>, dialog: Shared) {
    loop {
        let until = dialog.inside().expires_at;
        tokio::time::sleep_until(until.into()).await;
        let mut inside = dialog.inside();
        if inside.ended {
            return;
        }
        // A refresh that came meanwhile has moved the end.
        if inside.expires_at <= Instant::now() {
            inside.ended = true;
            break;
        }
    }
    let (watched, watcher) = dialog.names();
    let others = inner.watched_by(&watcher, &watched);
    inner.tell(Event::RanOut { watcher, watched, others });
    notify(inner, dialog).await;
}

/// Makes the dialog that a request of the other side opens, with our tag.
fn accept(inner: &Inner, request: &SipMessage, tag: &str, kind: Kind) -> Shared {
    let to = request.header("To");
    let call_id = request.header("Call-ID").to_owned();
    let shared = Shared::new(Inside {
        kind,
        user: text::aor(to).split('@').next().unwrap_or_default().to_owned(),
        other: text::aor(request.header("From")),
        call_id: call_id.clone(),
        from: format!("{to};tag={tag}"),
        to: request.header("From").to_owned(),
        target: text::contact(request, ""),
        cseq: 0,
        their_cseq: request.cseq(),
        heard_at: Instant::now(),
        expires_at: Instant::now() + TRANSACTION,
        ended: false,
        unsubscribed: false,
        confirmed: String::new(),
        asked: 0,
        // A session waits for the ACK of its 200.
        acked: kind != Kind::Session,
    });
    lock(&inner.state).dialogs.insert(call_id, shared.clone());
    shared
}

fn invited(inner: &Arc<Inner>, request: &SipMessage) -> Served {
    let tag = format!("i{}", inner.serial());
    let shared = accept(inner, request, &tag, Kind::Session);
    let (user, other) = shared.names();
    inner.tell(Event::Invited { from: other, to: format!("{user}@{}", inner.domain) });
    let text = text::answer_head(request, "200 OK", &tag)
        + &format!("Contact: <sip:{user}@{}>\r\n{}", inner.own, text::sdp(inner.own));
    let (repeat, inner, to) = (text.clone(), Arc::clone(inner), inner.proxy);
    // The 200 to an INVITE is repeated until its ACK (RFC 3261 §13.3.1.4).
    tokio::spawn(async move {
        let (begin, mut pause) = (Instant::now(), T1);
        while begin.elapsed() < TRANSACTION {
            tokio::time::sleep(pause).await;
            if shared.inside().acked || inner.gone.load(Ordering::Relaxed) {
                return;
            }
            let _ = inner.socket.send_to(repeat.as_bytes(), to).await;
            pause = (pause * 2).min(T2);
        }
    });
    Served { text, then_notify: None }
}

/// Shows the newest state to one watcher, one NOTIFY at a time, until it is confirmed or the dialog is over.
pub(super) async fn notify(inner: Arc<Inner>, dialog: Shared) {
    let _turn = dialog.turn.lock().await;
    for _ in 0..NOTIFY_ATTEMPTS {
        if inner.gone.load(Ordering::Relaxed) {
            return;
        }
        let (fields, rest, state, ended, asked) = {
            let state = lock(&inner.state).shown.get(&dialog.names().0).cloned().unwrap_or_default();
            let inside = dialog.inside();
            if inside.confirmed == state && !state.is_empty() && !inside.ended {
                return;
            }
            let left = inside.expires_at.saturating_duration_since(Instant::now()).as_secs();
            let said =
                if inside.ended { "terminated;reason=timeout".to_owned() } else { format!("active;expires={left}") };
            let rest = if state.is_empty() {
                text::EMPTY.to_owned()
            } else {
                text::document(&format!("{}@{}", inside.user, inner.domain), &state)
            };
            (format!("Event: presence\r\nSubscription-State: {said}\r\n"), rest, state, inside.ended, inside.asked)
        };
        let answer = dialog.request(&inner, "NOTIFY", &fields, &rest).await;
        let patience = answer.as_ref().and_then(|a| a.header("Retry-After").parse().ok()).map(Duration::from_secs);
        match answer.and_then(|a| a.status()).unwrap_or_default() {
            200..=299 => {
                let mut inside = dialog.inside();
                let owes = inside.asked != asked;
                if !owes {
                    inside.confirmed.clone_from(&state);
                }
                let over = inside.ended;
                drop(inside);
                if over && ended {
                    forget(&inner, &dialog);
                    return;
                }
                // A state that came meanwhile, or an end, is shown in the next round.
                let shown = lock(&inner.state).shown.get(&dialog.inside().user).cloned().unwrap_or_default();
                if !over && !owes && shown == state {
                    return;
                }
            }
            481 => {
                // Who has asked for the end may know nothing of the dialog any more.
                let asked = std::mem::replace(&mut dialog.inside().ended, true);
                forget(&inner, &dialog);
                if !asked {
                    let (watched, watcher) = dialog.names();
                    let others = inner.watched_by(&watcher, &watched);
                    inner.tell(Event::Disowned { watcher, watched, others });
                }
                return;
            }
            // RFC 6665 §4.2.2: a notifier tries again after the time that a 503 names; this one does so after any failure.
            _ => tokio::time::sleep(patience.unwrap_or(T1).min(T2)).await,
        }
    }
}
