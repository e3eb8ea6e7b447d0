//! The notifier's side of one subscription (RFC 6665 §4.2, interworking specification §2.7, §2.10, §6.6).
//!
//! The notifier never queues documents. It knows that something is due; the document is made when
//! [`Notifier::poll`] says [`NotifyStep::Send`], so the newest state always wins. At most one NOTIFY is in
//! flight, and two are at least [`NotifierConfig::interval`] apart but for those that may not wait.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use isthmus_model::EpochMillis;
use minicbor::{Decode, Encode};

use super::reason::TerminationReason;
use super::{DEFAULT_EXPIRES_SECS, PIDF, PRESENCE};
use crate::dialog::Dialog;
use crate::header::{HeaderError, HeaderName};
use crate::message::Message;
use crate::method::Method;
use crate::status::StatusCode;
use crate::write::WriteError;

/// The lifetimes that a notifier grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpiresLimits {
    /// Shortest lifetime in seconds; shorter requests get 423. Default 60.
    pub min_secs: u32,
    /// Longest lifetime in seconds; longer requests are shortened. Default 7200, above the 6300 s rhythm of
    /// Microsoft servers.
    pub max_secs: u32,
}

impl Default for ExpiresLimits {
    fn default() -> Self {
        Self { min_secs: 60, max_secs: 7200 }
    }
}

/// Why a SUBSCRIBE is refused by the rules of the package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefuseSubscribe {
    /// Event is missing or names another package: 489 with `Allow-Events: presence`.
    #[error("event package is not presence")]
    BadEvent,
    /// Accept has no type that we write: 406.
    #[error("PIDF is not acceptable to the subscriber")]
    NotAcceptable,
    /// The lifetime is too short: 423 with `Min-Expires`.
    #[error("requested lifetime is below {min_secs} s")]
    TooBrief {
        /// The value of `Min-Expires`.
        min_secs: u32,
    },
    /// A header that matters cannot be read: 400.
    #[error("bad header in SUBSCRIBE")]
    Malformed,
}

impl RefuseSubscribe {
    /// The status of the answer.
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadEvent => StatusCode::BAD_EVENT,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::TooBrief { .. } => StatusCode::INTERVAL_TOO_BRIEF,
            Self::Malformed => StatusCode::BAD_REQUEST,
        }
    }
}

impl From<HeaderError> for RefuseSubscribe {
    fn from(_: HeaderError) -> Self {
        Self::Malformed
    }
}

/// What a SUBSCRIBE asks for, once it passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscribeTerms {
    /// The lifetime granted, in seconds; zero is a poll or the end of the subscription.
    pub granted_secs: u32,
    /// The `id` of Event, to be echoed in every NOTIFY.
    pub event_id: Option<String>,
}

/// Checks Event, Accept and Expires of a SUBSCRIBE, in this order, and grants a lifetime.
///
/// # Errors
///
/// The first check that fails, see [`RefuseSubscribe`].
pub fn check_subscribe(request: &Message, limits: &ExpiresLimits) -> Result<SubscribeTerms, RefuseSubscribe> {
    let event = request.event()?.ok_or(RefuseSubscribe::BadEvent)?;
    // package names are compared with case (RFC 6665 §8.2.1)
    if event.package() != PRESENCE {
        return Err(RefuseSubscribe::BadEvent);
    }
    let mut accepted = request.accept().peekable();
    if accepted.peek().is_some() && !accepted.any(|range| range.is_ok_and(|range| range.covers(PIDF))) {
        return Err(RefuseSubscribe::NotAcceptable);
    }
    Ok(SubscribeTerms { granted_secs: grant(request.expires()?, limits)?, event_id: event.id().map(str::to_owned) })
}

/// Grants a lifetime for `requested` seconds, never longer than asked for; `None` means absent and selects the
/// package default of 3600 s (RFC 3856 §6.4). Zero is granted as zero.
///
/// # Errors
///
/// [`RefuseSubscribe::TooBrief`] when it is above zero, under an hour and under the minimum (RFC 6665 §4.2.1.1).
pub fn grant(requested: Option<u32>, limits: &ExpiresLimits) -> Result<u32, RefuseSubscribe> {
    let requested = requested.unwrap_or(DEFAULT_EXPIRES_SECS);
    if requested > 0 && requested < limits.min_secs && requested < 3600 {
        return Err(RefuseSubscribe::TooBrief { min_secs: limits.min_secs.min(3600) });
    }
    Ok(requested.min(limits.max_secs))
}

/// What the notifier tells of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum NotifierState {
    /// The user has not decided.
    #[n(0)]
    Pending,
    /// Presence is told, or what stands for it.
    #[n(1)]
    Active,
    /// It is over; the last NOTIFY is due or in flight.
    #[n(2)]
    Terminated {
        /// Why.
        #[n(0)]
        reason: TerminationReason,
        /// When the watcher may come again, in seconds.
        #[n(1)]
        retry_after: Option<u32>,
    },
    /// It is over, and nothing more will be sent.
    #[n(3)]
    Gone,
}

/// Whether a NOTIFY is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
enum Due {
    #[n(0)]
    Nothing,
    /// The state changed; the rate rule applies.
    #[n(1)]
    Change,
    /// It may not wait.
    #[n(2)]
    Now,
}

/// Settings of a notifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotifierConfig {
    /// Least time between two NOTIFYs of a subscription. Default 5 s (RFC 3856 §6.10).
    pub interval: Duration,
}

impl Default for NotifierConfig {
    fn default() -> Self {
        Self { interval: Duration::from_secs(5) }
    }
}

/// Whoever sent a NOTIFY hears of its end by Timer F, 64·T1 = 32 s (RFC 3261 §17.1.2.2); who did not by then is gone.
const ANSWER: Duration = Duration::from_secs(36);

/// One subscription of a watcher; the record and the rules.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Notifier {
    #[n(0)]
    state: NotifierState,
    #[n(1)]
    event_id: Option<String>,
    #[n(2)]
    expires_at: u64,
    #[n(3)]
    due: Due,
    #[n(4)]
    last_sent_at: Option<u64>,
    #[n(5)]
    not_before: Option<u64>,
    #[n(6)]
    in_flight: Option<u32>,
    /// The NOTIFY in flight is already the second try after a 500.
    #[n(7)]
    retried: bool,
    /// When the NOTIFY in flight counts as lost with the process that sent it.
    #[n(8)]
    answer_by: Option<u64>,
}

/// What to do about NOTIFYs now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotifyStep {
    /// Build a NOTIFY from the newest state and send it, then call [`Notifier::sent`].
    Send,
    /// One is due, but only then.
    Wait(EpochMillis),
    /// Nothing is due, or one is in flight.
    Idle,
}

/// What the outcome of a NOTIFY means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotifyOutcome {
    /// The subscription goes on.
    Keep,
    /// The subscription is over and its record can go.
    Removed {
        /// The peer wants credentials that we do not have; an administrator should know.
        alarm: bool,
    },
}

impl Notifier {
    /// Begins with an accepted SUBSCRIBE; the NOTIFY that must follow it is due (RFC 6665 §4.2.1.2).
    ///
    /// With nothing granted it is a poll: its only NOTIFY says `terminated;reason=timeout`.
    pub fn new(now: EpochMillis, terms: &SubscribeTerms, allowed: bool) -> Self {
        let mut notifier = Self {
            state: if allowed { NotifierState::Active } else { NotifierState::Pending },
            event_id: terms.event_id.clone(),
            expires_at: 0,
            due: Due::Nothing,
            last_sent_at: None,
            not_before: None,
            in_flight: None,
            retried: false,
            answer_by: None,
        };
        notifier.refresh(now, terms.granted_secs);
        notifier
    }

    /// Takes an accepted SUBSCRIBE inside the dialog; a NOTIFY is due. Zero seconds end the subscription.
    pub fn refresh(&mut self, now: EpochMillis, granted_secs: u32) {
        if granted_secs == 0 {
            self.terminate(TerminationReason::Timeout, None);
            return;
        }
        self.expires_at = now.plus(Duration::from_secs(granted_secs.into())).0;
        self.must_notify();
    }

    /// The user allowed it, or is to be shown to the watcher as if: a NOTIFY is due at once.
    pub fn activate(&mut self) {
        if self.state == NotifierState::Pending {
            self.state = NotifierState::Active;
            self.must_notify();
        }
    }

    /// The state changed: a NOTIFY is due as soon as the rate rule allows. While pending there is nothing to tell.
    pub fn changed(&mut self) {
        if self.state == NotifierState::Active {
            self.due = self.due.max(Due::Change);
        }
    }

    /// A NOTIFY is due without regard to the rate rule: the first real state after a stand-in.
    pub fn must_notify(&mut self) {
        if !self.is_over() {
            self.due = Due::Now;
            self.not_before = None;
        }
    }

    /// Ends the subscription; the last NOTIFY is due at once.
    pub fn terminate(&mut self, reason: TerminationReason, retry_after: Option<u32>) {
        if !self.is_over() {
            self.state = NotifierState::Terminated { reason, retry_after };
            self.due = Due::Now;
            self.not_before = None;
        }
    }

    /// The state.
    pub fn state(&self) -> NotifierState {
        self.state
    }

    /// True once it was ended, also while the last NOTIFY is under way.
    pub fn is_over(&self) -> bool {
        matches!(self.state, NotifierState::Terminated { .. } | NotifierState::Gone)
    }

    /// When it ends unless refreshed.
    pub fn expires_at(&self) -> EpochMillis {
        EpochMillis(self.expires_at)
    }

    /// The number of the NOTIFY in flight.
    pub fn in_flight(&self) -> Option<u32> {
        self.in_flight
    }

    /// Tells whether a NOTIFY is to be sent now.
    pub fn poll(&self, now: EpochMillis, config: &NotifierConfig) -> NotifyStep {
        if self.in_flight.is_some() || self.state == NotifierState::Gone {
            return NotifyStep::Idle;
        }
        let window = match self.due {
            Due::Nothing => return NotifyStep::Idle,
            Due::Now => None,
            Due::Change => self.last_sent_at.map(|at| EpochMillis(at).plus(config.interval)),
        };
        match window.max(self.not_before.map(EpochMillis)).filter(|at| *at > now) {
            Some(at) => NotifyStep::Wait(at),
            None => NotifyStep::Send,
        }
    }

    /// Writes the NOTIFY that is due and records it as in flight; `body` is a type with its document.
    ///
    /// # Errors
    ///
    /// When the dialog or the type holds what cannot be written; nothing is recorded then.
    pub fn notify(
        &mut self,
        now: EpochMillis,
        dialog: &mut Dialog,
        body: Option<(&str, &[u8])>,
    ) -> Result<Bytes, WriteError> {
        let mut writer = dialog.request(Method::Notify);
        writer
            .display(HeaderName::Event, self.event())
            .display(HeaderName::SubscriptionState, self.subscription_state(now));
        if let Some((media_type, _)) = body {
            writer.header(HeaderName::ContentType, media_type);
        }
        let bytes = writer.finish(body.map_or(&[], |(_, document)| document))?;
        self.sent(now, dialog.local_cseq());
        Ok(bytes)
    }

    /// Records that the NOTIFY with this CSeq number is being sent.
    pub fn sent(&mut self, now: EpochMillis, cseq: u32) {
        self.in_flight = Some(cseq);
        self.answer_by = Some(now.plus(ANSWER).0);
        self.last_sent_at = Some(now.0);
        self.due = Due::Nothing;
        self.not_before = None;
    }

    /// Whoever sent the NOTIFY in flight still awaits its answer, until then at least.
    pub fn await_answer_until(&mut self, by: EpochMillis) {
        self.answer_by = self.answer_by.map(|known| known.max(by.0));
    }

    /// Takes the final answer to the NOTIFY in flight, `None` for none within Timer F; `retry_after` in seconds.
    ///
    /// An answer to another NOTIFY than the one in flight changes nothing.
    pub fn handle_outcome(
        &mut self,
        now: EpochMillis,
        cseq: u32,
        status: Option<StatusCode>,
        retry_after: Option<u32>,
    ) -> NotifyOutcome {
        if self.in_flight != Some(cseq) {
            return NotifyOutcome::Keep;
        }
        (self.in_flight, self.answer_by) = (None, None);
        let code = status.map_or(0, StatusCode::code);
        // RFC 6665 §4.2.2; 0 is no answer at all
        let removed = matches!(code, 0 | 404 | 405 | 410 | 416 | 480..=485 | 489 | 501 | 604);
        let unauthorized = matches!(code, 401 | 407);
        let last = matches!(self.state, NotifierState::Terminated { .. }) && self.due == Due::Nothing;
        if removed || unauthorized || last {
            self.state = NotifierState::Gone;
            self.due = Due::Nothing;
            return NotifyOutcome::Removed { alarm: unauthorized };
        }
        if status.is_some_and(StatusCode::is_success) {
            self.retried = false;
            return NotifyOutcome::Keep;
        }
        // the watcher did not take the state: tell it again, at a time that the peer named or once by ourselves
        let again = match (retry_after, code) {
            (Some(secs), _) => Some(Duration::from_secs(secs.into())),
            (None, 500) if !self.retried => Some(Duration::from_secs(1)),
            (None, _) => None,
        };
        if let Some(wait) = again {
            self.due = self.due.max(Due::Change);
            self.not_before = Some(now.plus(wait).0);
            self.retried = true;
        }
        NotifyOutcome::Keep
    }

    /// Tells when to call [`Self::handle_timeout`] and [`Self::poll`] again.
    pub fn next_deadline(&self, now: EpochMillis, config: &NotifierConfig) -> Option<EpochMillis> {
        let window = match self.poll(now, config) {
            NotifyStep::Send => Some(now),
            NotifyStep::Wait(at) => Some(at),
            NotifyStep::Idle => None,
        };
        let expiry = (!self.is_over()).then_some(self.expires_at());
        let answer = self.in_flight.and(self.answer_by).map(EpochMillis);
        window.into_iter().chain(expiry).chain(answer).min()
    }

    /// The process that sent the NOTIFY in flight is gone, if it was sent before `since`: nobody hears its answer. The
    /// state is told again, with the next number; an answer to that one decides (interworking specification §6.6).
    pub fn handle_sender_gone(&mut self, since: EpochMillis) {
        if self.in_flight.is_some() && self.last_sent_at.is_some_and(|at| at < since.0) {
            (self.in_flight, self.answer_by) = (None, None);
            if self.state != NotifierState::Gone {
                self.due = Due::Now;
            }
        }
    }

    /// Ends the subscription when its lifetime has passed; true if that happened now.
    pub fn handle_timeout(&mut self, now: EpochMillis) -> bool {
        if self.answer_by.is_some_and(|at| at <= now.0) {
            self.handle_sender_gone(now);
        }
        let expired = !self.is_over() && self.expires_at() <= now;
        if expired {
            self.terminate(TerminationReason::Timeout, None);
        }
        expired
    }

    /// The value of `Subscription-State` at `now`: always with `expires`, or with `reason` at the end.
    pub fn subscription_state(&self, now: EpochMillis) -> SubscriptionStateValue {
        SubscriptionStateValue { state: self.state, remaining_secs: self.expires_at().since(now).as_secs() }
    }

    /// The value of `Event`, with the `id` of the SUBSCRIBE if it had one.
    pub fn event(&self) -> EventValue<'_> {
        EventValue(self.event_id.as_deref())
    }
}

/// Writes `Subscription-State`.
#[derive(Debug, Clone, Copy)]
pub struct SubscriptionStateValue {
    state: NotifierState,
    remaining_secs: u64,
}

impl fmt::Display for SubscriptionStateValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.state {
            NotifierState::Pending => write!(f, "pending;expires={}", self.remaining_secs),
            NotifierState::Active => write!(f, "active;expires={}", self.remaining_secs),
            NotifierState::Terminated { reason, retry_after } => {
                write!(f, "terminated;reason={}", reason.as_str())?;
                retry_after.map_or(Ok(()), |secs| write!(f, ";retry-after={secs}"))
            }
            NotifierState::Gone => f.write_str("terminated;reason=timeout"),
        }
    }
}

/// Writes `Event: presence` with its `id`.
#[derive(Debug, Clone, Copy)]
pub struct EventValue<'a>(Option<&'a str>);

impl fmt::Display for EventValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PRESENCE)?;
        self.0.map_or(Ok(()), |id| write!(f, ";id={id}"))
    }
}

/// Returns a time for a document that is later than the one before by at least `resolution`, the precision it
/// is written with: timestamps of one presentity strictly increase (RFC 3863 §4.1.7).
pub fn next_timestamp(last: Option<EpochMillis>, now: EpochMillis, resolution: Duration) -> EpochMillis {
    last.map_or(now, |last| now.max(last.plus(resolution)))
}
