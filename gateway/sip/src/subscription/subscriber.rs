//! The subscriber's side of one subscription (RFC 6665 §4.1, interworking specification §2.2, §2.3, §2.5).

use std::time::Duration;

use bytes::Bytes;
use isthmus_model::EpochMillis;
use minicbor::{Decode, Encode};

use super::backoff::up_to;
use super::reason::{Ended, TerminationReason};
use super::{PIDF, PRESENCE};
use crate::dialog::Dialog;
use crate::header::{HeaderName, SubscriptionState};
use crate::message::Message;
use crate::method::Method;
use crate::status::StatusCode;
use crate::write::WriteError;

/// What the subscriber knows of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum SubscriberState {
    /// The SUBSCRIBE was sent; no NOTIFY has come.
    #[n(0)]
    NotifyWait,
    /// The notifier waits for its user.
    #[n(1)]
    Pending,
    /// Presence flows.
    #[n(2)]
    Active,
    /// It is over.
    #[n(3)]
    Terminated,
}

/// One subscription of ours, from the first SUBSCRIBE on; the record and the rules.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Subscriber {
    #[n(0)]
    state: SubscriberState,
    #[n(1)]
    requested_secs: u32,
    #[n(2)]
    granted_secs: Option<u32>,
    #[n(3)]
    expires_at: Option<u64>,
    #[n(4)]
    refresh_at: Option<u64>,
    /// Timer N: a NOTIFY must follow each SUBSCRIBE.
    #[n(5)]
    notify_by: Option<u64>,
    /// We sent `Expires: 0`.
    #[n(6)]
    closing: bool,
    /// A NOTIFY has told the lifetime since our last SUBSCRIBE, so that the 2xx says nothing new.
    #[n(7)]
    told_by_notify: bool,
    /// The end of the longest lifetime that the last SUBSCRIBE can have got; a NOTIFY only shortens it.
    #[n(8)]
    ceiling_at: u64,
    /// Nothing was heard of the last refresh, not even an answer.
    #[n(9)]
    #[cbor(default)]
    unheard: bool,
    /// The last refresh is already the second one of which nothing was heard.
    #[n(10)]
    #[cbor(default)]
    repeated: bool,
}

/// What a NOTIFY brought. All are answered 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notified {
    /// The notifier still waits for its user.
    Pending {
        /// It was active before: announced presence ends.
        was_active: bool,
    },
    /// Presence flows.
    Active {
        /// It was not active before: the authorization is granted, and a missing body means closed.
        first: bool,
    },
    /// The subscription is over.
    Terminated(Ended),
}

/// Why a NOTIFY is refused, though it belongs to the subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefuseNotify {
    /// The state is none of RFC 6665: 400.
    #[error("unknown subscription state")]
    UnknownState,
    /// The subscription is over: 481.
    #[error("subscription is over")]
    Over,
}

impl RefuseNotify {
    /// The status of the answer.
    pub fn status(self) -> StatusCode {
        match self {
            Self::UnknownState => StatusCode::BAD_REQUEST,
            Self::Over => StatusCode::CALL_DOES_NOT_EXIST,
        }
    }
}

/// Why a NOTIFY is refused before its subscription is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadNotify {
    /// Event is missing or names another package: 489 with `Allow-Events: presence`.
    #[error("event package is not presence")]
    Event,
    /// Subscription-State is missing or cannot be read: 400.
    #[error("no usable subscription state")]
    State,
    /// The body is no presence document: 415 with `Accept: application/pidf+xml`.
    #[error("body is not PIDF")]
    MediaType,
}

impl BadNotify {
    /// The status of the answer.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Event => StatusCode::BAD_EVENT,
            Self::State => StatusCode::BAD_REQUEST,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        }
    }
}

/// Checks Event, Subscription-State and the type of the body of a NOTIFY, in this order.
///
/// # Errors
///
/// The first check that fails.
pub fn check_notify(request: &Message) -> Result<SubscriptionState<'_>, BadNotify> {
    match request.event() {
        Ok(Some(event)) if event.package() == PRESENCE => {}
        _ => return Err(BadNotify::Event),
    }
    let state = request.subscription_state().ok().flatten().ok_or(BadNotify::State)?;
    let is_pidf = matches!(request.content_type(), Ok(Some(media)) if media.is(PIDF));
    if !request.body().is_empty() && !is_pidf {
        return Err(BadNotify::MediaType);
    }
    Ok(state)
}

/// Writes a SUBSCRIBE on `dialog`, a half or a whole one: exactly one Event without `id`, PIDF as the only type, no
/// option tags (interworking specification §2.2). Zero seconds end the subscription, or poll.
///
/// # Errors
///
/// When the dialog holds what cannot be written.
pub fn subscribe(dialog: &mut Dialog, expires_secs: u32) -> Result<Bytes, WriteError> {
    let mut writer = dialog.request(Method::Subscribe);
    writer.header(HeaderName::Event, PRESENCE).header(HeaderName::Accept, PIDF).expires(expires_secs);
    writer.finish(b"")
}

/// What a subscription waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscriberDeadline {
    /// Timer N ended: no NOTIFY came after a SUBSCRIBE. The subscription is over (RFC 6665 §4.1.2.4).
    NoNotify {
        /// It was an attempt to open one, a refresh, or our own end of it.
        during: SubscribePhase,
    },
    /// Refresh it now.
    Refresh,
    /// Its lifetime ended without a refresh.
    Expired,
}

/// Which SUBSCRIBE was sent last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscribePhase {
    /// The first.
    Initial,
    /// A refresh.
    Refresh,
    /// `Expires: 0`.
    Closing,
}

/// Returns the lifetime that an accepted SUBSCRIBE has, in seconds: what the answer says, never more than asked.
pub fn granted(requested_secs: u32, answered: Option<u32>) -> u32 {
    answered.unwrap_or(requested_secs).min(requested_secs)
}

/// Returns how long after it was granted a subscription of `granted_secs` is refreshed.
///
/// That is `granted − clamp(granted/10, 40 s, 300 s) − jitter` with a jitter of up to 5 % drawn from `random`; half of the
/// lifetime when that is under 120 s.
pub fn refresh_delay(granted_secs: u32, random: u64) -> Duration {
    let granted = Duration::from_secs(granted_secs.into());
    if granted_secs < 120 {
        return granted / 2;
    }
    let margin = Duration::from_secs((granted_secs / 10).clamp(40, 300).into());
    granted.saturating_sub(margin).saturating_sub(up_to(granted / 20, random))
}

/// Two ends of a lifetime that are this near are one: seconds are rounded, and messages take time.
const SAME_EXPIRY_MILLIS: u64 = 2000;
/// A refresh that is put off is sent so long before the end at least.
const BEFORE_END_MILLIS: u64 = 10_000;

fn end_of(now: EpochMillis, secs: u32) -> u64 {
    now.plus(Duration::from_secs(secs.into())).0
}

impl Subscriber {
    /// Begins with the first SUBSCRIBE; `timer_n` is 64·T1.
    pub fn new(now: EpochMillis, requested_secs: u32, timer_n: Duration) -> Self {
        Self {
            state: SubscriberState::NotifyWait,
            requested_secs,
            granted_secs: None,
            expires_at: None,
            refresh_at: None,
            notify_by: Some(now.plus(timer_n).0),
            closing: requested_secs == 0,
            told_by_notify: false,
            ceiling_at: end_of(now, requested_secs),
            unheard: false,
            repeated: false,
        }
    }

    /// The state.
    pub fn state(&self) -> SubscriberState {
        self.state
    }

    /// The lifetime that is asked for, in seconds.
    pub fn requested_secs(&self) -> u32 {
        self.requested_secs
    }

    /// Changes the lifetime that the next SUBSCRIBE asks for, after a 423.
    pub fn request_secs(&mut self, secs: u32) {
        self.requested_secs = secs;
    }

    /// When the next refresh is due.
    pub fn refresh_at(&self) -> Option<EpochMillis> {
        self.refresh_at.map(EpochMillis)
    }

    /// When it ends unless refreshed; `None` before anything was granted.
    pub fn expires_at(&self) -> Option<EpochMillis> {
        self.expires_at.map(EpochMillis)
    }

    /// True after [`Self::start_closing`].
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Which SUBSCRIBE was sent last.
    pub fn phase(&self) -> SubscribePhase {
        match self.state {
            _ if self.closing => SubscribePhase::Closing,
            SubscriberState::NotifyWait => SubscribePhase::Initial,
            _ => SubscribePhase::Refresh,
        }
    }

    /// Records that a refresh is being sent: a NOTIFY must follow within Timer N.
    pub fn start_refresh(&mut self, now: EpochMillis, timer_n: Duration) {
        self.refresh_at = None;
        self.unheard = true;
        self.told_by_notify = false;
        self.ceiling_at = end_of(now, self.requested_secs);
        self.notify_by = Some(now.plus(timer_n).0);
    }

    /// The process that sent the last refresh, or end, is gone, if it was sent before `since` and no NOTIFY has followed: it did not
    /// leave, or what came was at that process. It is to be sent again with the lifetime that is returned: the subscription may be over
    /// before Timer N is, and is over then (interworking specification §6.6).
    pub fn handle_sender_gone(&mut self, now: EpochMillis, since: EpochMillis, timer_n: Duration) -> Option<u32> {
        let sent_at = EpochMillis(self.notify_by?).minus(timer_n);
        let stands = matches!(self.state, SubscriberState::Active | SubscriberState::Pending);
        if !(stands && sent_at < since) {
            return None;
        }
        self.start_refresh(now, timer_n);
        Some(if self.closing { 0 } else { self.requested_secs })
    }

    /// Puts the next refresh forward to `at`, if the subscription stands and no earlier one is due; tells whether a refresh
    /// comes by then. A refresh brings a NOTIFY with the present state (RFC 6665 §4.2.1.2).
    pub fn refresh_by(&mut self, at: EpochMillis) -> bool {
        let stands = self.phase() == SubscribePhase::Refresh && self.state != SubscriberState::Terminated;
        if stands {
            self.refresh_at = Some(self.refresh_at.map_or(at.0, |known| known.min(at.0)));
        }
        stands
    }

    /// Puts the next refresh off to `at`, or to some seconds before the end of the subscription if that is earlier.
    pub fn put_off_refresh(&mut self, at: EpochMillis) {
        let last = self.expires_at.map_or(at.0, |end| end.saturating_sub(BEFORE_END_MILLIS));
        self.refresh_at = self.refresh_at.map(|due| at.0.min(last).max(due));
    }

    /// Records that `Expires: 0` is being sent: the last NOTIFY must follow within Timer N.
    pub fn start_closing(&mut self, now: EpochMillis, timer_n: Duration) {
        self.closing = true;
        self.start_refresh(now, timer_n);
    }

    /// Takes a 2xx with the `Expires` that it carried. What a NOTIFY has told before it rules (RFC 6665 §4.1.2.4).
    pub fn handle_accepted(&mut self, now: EpochMillis, answered: Option<u32>, random: u64) {
        self.heard();
        if self.closing || self.state == SubscriberState::Terminated {
            return;
        }
        let secs = granted(self.requested_secs, answered);
        self.ceiling_at = end_of(now, secs);
        if !self.told_by_notify {
            self.set_lifetime(now, secs, random);
        }
    }

    /// Takes a NOTIFY of the dialog.
    ///
    /// # Errors
    ///
    /// [`RefuseNotify::UnknownState`] for a state of no standard, [`RefuseNotify::Over`] after the end.
    pub fn handle_notify(
        &mut self,
        now: EpochMillis,
        state: &SubscriptionState<'_>,
        random: u64,
    ) -> Result<Notified, RefuseNotify> {
        if self.state == SubscriberState::Terminated {
            return Err(RefuseNotify::Over);
        }
        let before = self.state;
        if state.is("terminated") {
            let ended = TerminationReason::of(state).consequence(state.retry_after(), self.closing);
            self.end();
            return Ok(Notified::Terminated(ended));
        }
        let next = if state.is("active") {
            SubscriberState::Active
        } else if state.is("pending") {
            SubscriberState::Pending
        } else {
            return Err(RefuseNotify::UnknownState);
        };
        self.state = next;
        self.heard();
        if !self.closing {
            self.notify_by = None;
            self.take_expires(now, state.expires(), random);
        }
        Ok(match next {
            SubscriberState::Active => Notified::Active { first: before != SubscriberState::Active },
            _ => Notified::Pending { was_active: before == SubscriberState::Active },
        })
    }

    /// Tries the refresh again after a transient failure: at a quarter of the time left, at least 30 s.
    pub fn retry_refresh(&mut self, now: EpochMillis, retry_after: Option<u32>) {
        self.notify_by = None;
        self.heard();
        if let Some(expires_at) = self.expires_at() {
            let wait = (expires_at.since(now) / 4)
                .max(Duration::from_secs(30))
                .max(Duration::from_secs(retry_after.unwrap_or(0).into()));
            self.refresh_at = Some(now.plus(wait).0).filter(|&at| at < expires_at.0);
        }
    }

    /// Lets it run to its known expiry without another refresh.
    pub fn keep_until_expiry(&mut self) {
        self.notify_by = None;
        self.refresh_at = None;
    }

    /// Ends it: its NOTIFYs get 481 from now on.
    pub fn end(&mut self) {
        self.state = SubscriberState::Terminated;
        self.notify_by = None;
        self.refresh_at = None;
        self.expires_at = None;
    }

    /// Tells what it waits for, and until when.
    pub fn next_deadline(&self) -> Option<(EpochMillis, SubscriberDeadline)> {
        let no_notify = SubscriberDeadline::NoNotify { during: self.phase() };
        [
            (self.notify_by, no_notify),
            (self.expires_at.filter(|_| !self.closing), SubscriberDeadline::Expired),
            (self.refresh_at, SubscriberDeadline::Refresh),
        ]
        .into_iter()
        .filter_map(|(at, deadline)| Some((EpochMillis(at?), deadline)))
        .min_by_key(|(at, _)| *at)
    }

    fn heard(&mut self) {
        self.unheard = false;
        self.repeated = false;
    }

    /// Takes what is due; call again until `None`. All but a refresh end the subscription.
    ///
    /// A refresh of which nothing was heard, not even that it failed, is sent once more: the process that was to send it
    /// may have died (interworking specification §6.6).
    pub fn handle_timeout(&mut self, now: EpochMillis) -> Option<SubscriberDeadline> {
        let (_, deadline) = self.next_deadline().filter(|(at, _)| *at <= now)?;
        let unheard = self.unheard && !self.repeated;
        match deadline {
            SubscriberDeadline::NoNotify { during: SubscribePhase::Refresh } if unheard => {
                self.notify_by = None;
                self.repeated = true;
                return Some(SubscriberDeadline::Refresh);
            }
            SubscriberDeadline::Refresh => self.refresh_at = None,
            SubscriberDeadline::NoNotify { .. } | SubscriberDeadline::Expired => self.end(),
        }
        Some(deadline)
    }

    /// The `expires` of a NOTIFY rules, but it only shortens what the SUBSCRIBE can have got (RFC 6665 §4.1.3).
    ///
    /// One that says what is known changes nothing: otherwise a busy presentity would push the refresh towards
    /// the end.
    fn take_expires(&mut self, now: EpochMillis, expires: Option<u32>, random: u64) {
        let ceiling = EpochMillis(self.ceiling_at).since(now).as_secs();
        let ceiling = u32::try_from(ceiling).unwrap_or(u32::MAX);
        let secs = match (expires, self.expires_at) {
            (Some(secs), _) => secs.min(ceiling),
            // nothing is known yet: the 2xx will tell
            (None, None) => ceiling,
            (None, Some(_)) => return,
        };
        let ends = end_of(now, secs);
        if self.expires_at.is_some_and(|known| known.abs_diff(ends) <= SAME_EXPIRY_MILLIS) {
            return;
        }
        self.told_by_notify = expires.is_some();
        self.set_lifetime(now, secs, random);
    }

    fn set_lifetime(&mut self, now: EpochMillis, secs: u32, random: u64) {
        self.granted_secs = Some(secs);
        self.expires_at = Some(end_of(now, secs));
        self.refresh_at = Some(now.plus(refresh_delay(secs, random)).0);
    }
}
