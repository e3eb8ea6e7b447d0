//! The local user watches the remote user (interworking specification §2.2 to §2.6, §2.8).

use std::time::Duration;

use isthmus_model::EpochMillis;
use isthmus_sip::dialog::{Dialog, DialogState, NewDialog, RefuseInDialog};
use isthmus_sip::header::HeaderName;
use isthmus_sip::pidf::Pidf;
use isthmus_sip::subscription::answer::usable_min_expires;
use isthmus_sip::subscription::reason::{Announced, Authorization, KEEP_AFTER_END, Resubscribe};
use isthmus_sip::subscription::subscriber::{Notified, RefuseNotify, SubscribePhase, SubscriberDeadline};
use isthmus_sip::subscription::{Ended, InitialStep, RefreshStep, SubscribeAnswer, Subscriber};
use isthmus_sip::{Address, Message, Method, ResponseWriter, StatusCode};

use super::record::{AuthOut, CachedPresence, Subscription};
use super::{Context, DAILY, Outcome, Output, PROBE_FRESH, Pair, Purpose, ToLocal};
use crate::address::aor_uri;
use crate::notification;

/// The media type of presence documents.
pub(super) const PIDF: &str = "application/pidf+xml";
/// A probe repeats a failed attempt at most this often.
const RETRY_BY_PROBE: Duration = Duration::from_secs(30);
/// What was due so long ago is late. A process that takes over from a dead one has it within 10 s.
const LATE: Duration = Duration::from_secs(15);

impl Pair {
    pub(super) fn local_subscribes(&mut self, ctx: &mut Context<'_>) {
        if self.auth.out != AuthOut::Granted {
            self.change_auth(|auth| auth.out = AuthOut::Pending);
        }
        match &self.record.subscription {
            Some(subscription) if subscription.is_active() => {
                self.tell(ToLocal::Subscribed);
                self.tell_cached();
            }
            // Prosody sends a pending request again at every login.
            Some(subscription) if !subscription.subscriber.is_closing() => {}
            _ if self.record.is_static => {
                self.tell(ToLocal::Subscribed);
                self.tell_cached();
            }
            _ => self.subscribe(ctx),
        }
    }

    pub(super) fn local_unsubscribes(&mut self, ctx: &mut Context<'_>) {
        self.change_auth(|auth| auth.out = AuthOut::None);
        self.record.retry_at = None;
        self.record.withdraw_at = None;
        self.record.is_static = false;
        self.record.contact.clear();
        let timer_n = ctx.config.timer_n;
        match &mut self.record.subscription {
            None => {}
            Some(subscription) if subscription.dialog.state() == DialogState::Half => {
                // A NOTIFY that still comes gets 481, which ends it at the notifier (RFC 6665 §4.2.2).
                self.record.subscription = None;
                self.tell(ToLocal::Unsubscribed);
            }
            Some(subscription) if subscription.subscriber.is_closing() => {}
            Some(subscription) => {
                subscription.subscriber.start_closing(ctx.now.epoch, timer_n);
                self.send_subscribe(0);
            }
        }
    }

    /// The local server asks on behalf of a resource. It asks only for contacts to which the roster is
    /// subscribed, so a probe for a contact of whom nothing is known means that state was lost: the
    /// subscription is made again. (Answering `unsubscribed`, or a single poll, would empty rosters, or leave
    /// them blind, after a restart without a state directory.)
    pub(super) fn local_probes(&mut self, ctx: &mut Context<'_>) {
        let now = ctx.epoch();
        let stale = now.since(EpochMillis(self.record.contact_at)) > PROBE_FRESH;
        match &mut self.record.subscription {
            Some(subscription) if subscription.is_active() => {
                if stale {
                    subscription.subscriber.start_refresh(now, ctx.config.timer_n);
                    let secs = subscription.subscriber.requested_secs();
                    self.send_subscribe(secs);
                }
                self.tell_cached();
            }
            Some(subscription) if !subscription.subscriber.is_closing() => {}
            _ if self.record.is_static => self.tell_cached(),
            _ if self.auth.out == AuthOut::Denied => self.tell(ToLocal::Unsubscribed),
            _ => {
                let waited = now.since(EpochMillis(self.record.tried_at)) >= RETRY_BY_PROBE;
                if self.auth.out == AuthOut::None {
                    self.change_auth(|auth| auth.out = AuthOut::Pending);
                }
                if waited {
                    self.subscribe(ctx);
                }
            }
        }
    }

    /// Opens a new dialog.
    pub(super) fn subscribe(&mut self, ctx: &mut Context<'_>) {
        let now = ctx.epoch();
        let call_id = format!("{:016x}{:016x}", ctx.entropy.next_u64(), ctx.entropy.next_u64());
        let local_tag = self.id.new_tag(ctx.entropy);
        let (local, remote) = (self.local.to_sip_uri(), aor_uri(&self.remote, ctx.config.spelling.as_ref()));
        let dialog = Dialog::half(&NewDialog {
            call_id: &call_id,
            local_tag: &local_tag,
            local: Address::new(&local),
            remote: Address::new(&remote),
            target: &remote,
            local_contact: &ctx.config.contact,
            secure: false,
        });
        let secs = self.record.min_expires.unwrap_or(ctx.config.expires_ask_secs);
        let subscriber = Subscriber::new(now, secs, ctx.config.timer_n);
        self.record.subscription = Some(Subscription { dialog, subscriber });
        self.record.retry_at = None;
        self.record.tried_at = now.0;
        self.send_subscribe(secs);
    }

    /// A refresh that a process sent which is gone by now is sent again.
    pub(super) fn subscriber_gone(&mut self, ctx: &Context<'_>, since: EpochMillis) {
        let again = self.record.subscription.as_mut().and_then(|subscription| {
            subscription.subscriber.handle_sender_gone(ctx.now.epoch, since, ctx.config.timer_n)
        });
        if let Some(secs) = again {
            self.send_subscribe(secs);
        }
    }

    fn send_subscribe(&mut self, secs: u32) {
        let Some(subscription) = &mut self.record.subscription else { return };
        let dialog = &mut subscription.dialog;
        let hop = (dialog.state() == DialogState::Confirmed).then(|| dialog.next_hop().to_owned());
        let mut writer = dialog.request(Method::Subscribe);
        writer.header(HeaderName::Event, "presence").header(HeaderName::Accept, PIDF).expires(secs);
        let purpose = Purpose::Subscribe { local_tag: dialog.local_tag().to_owned() };
        self.send(writer, b"", hop, purpose);
    }

    pub(super) fn subscribe_outcome(&mut self, ctx: &mut Context<'_>, local_tag: &str, outcome: &Outcome<'_>) {
        let Some(subscription) = self.record.subscription.as_mut().filter(|s| s.dialog.local_tag() == local_tag) else {
            return;
        };
        let answer = SubscribeAnswer::of(outcome.status());
        let phase = subscription.subscriber.phase();
        if phase == SubscribePhase::Closing {
            // Whatever it says, the user is rid of it; the last NOTIFY may follow within Timer N.
            if answer != SubscribeAnswer::Accepted {
                self.record.subscription = None;
            }
            self.tell(ToLocal::Unsubscribed);
            return;
        }
        if let (SubscribeAnswer::Accepted, Outcome::Answer(response)) = (answer, outcome) {
            let expires = response.expires().ok().flatten();
            if phase == SubscribePhase::Refresh {
                // A Contact that cannot be used leaves the target as it was.
                let _ = subscription.dialog.accept_success(response);
                self.record.backoff.reset();
            }
            subscription.subscriber.handle_accepted(ctx.now.epoch, expires, ctx.entropy.next_u64());
            return;
        }
        if phase == SubscribePhase::Initial {
            self.initial_refused(ctx, answer.initial(), outcome);
        } else {
            self.refresh_refused(ctx, answer.refresh(), outcome);
        }
    }

    fn initial_refused(&mut self, ctx: &mut Context<'_>, step: InitialStep, outcome: &Outcome<'_>) {
        match step {
            InitialStep::AwaitNotify => {}
            InitialStep::Deny => {
                self.record.subscription = None;
                self.deny();
            }
            InitialStep::FailAndRetryDaily | InitialStep::UnsupportedAndRetryDaily | InitialStep::FollowRedirect => {
                self.record.subscription = None;
                self.record.retry_at = Some(ctx.epoch().plus(DAILY).0);
                if self.auth.out == AuthOut::Pending {
                    self.tell(ToLocal::Failed(refusal(outcome)));
                }
            }
            InitialStep::RetryWithMinExpires => {
                let asked = self.record.subscription.as_ref().map_or(0, |s| s.subscriber.requested_secs());
                self.record.subscription = None;
                match usable_min_expires(min_expires(outcome), asked) {
                    Some(secs) => {
                        self.record.min_expires = Some(secs);
                        self.subscribe(ctx);
                    }
                    None => self.back_off(ctx, outcome.retry_after()),
                }
            }
            InitialStep::BackOff { alarm } => {
                self.alarm(alarm);
                self.record.subscription = None;
                self.back_off(ctx, outcome.retry_after());
            }
            InitialStep::BackOffHour { alarm } => {
                self.alarm(alarm);
                self.record.subscription = None;
                self.record.retry_at = Some(ctx.epoch().plus(Duration::from_secs(3600)).0);
            }
            InitialStep::NextTarget => {
                // Every target was tried already, below this machine.
                self.record.subscription = None;
                self.back_off(ctx, outcome.retry_after());
            }
        }
    }

    fn refresh_refused(&mut self, ctx: &mut Context<'_>, step: RefreshStep, outcome: &Outcome<'_>) {
        let now = ctx.epoch();
        let Some(subscription) = &mut self.record.subscription else { return };
        match step {
            RefreshStep::Refreshed => {}
            RefreshStep::Deny => {
                self.record.subscription = None;
                self.withdraw(now);
                self.deny();
            }
            RefreshStep::SubscribeAnew => {
                self.record.subscription = None;
                self.withdraw(now);
                self.subscribe(ctx);
            }
            RefreshStep::EndAndRetryDaily => {
                self.record.subscription = None;
                self.withdraw(now);
                self.record.retry_at = Some(now.plus(DAILY).0);
            }
            RefreshStep::EndAndBackOff => {
                self.record.subscription = None;
                self.withdraw(now);
                self.back_off(ctx, outcome.retry_after());
            }
            RefreshStep::EndAndBackOffHour => {
                self.record.subscription = None;
                self.withdraw(now);
                self.record.retry_at = Some(now.plus(Duration::from_secs(3600)).0);
            }
            RefreshStep::NewDialogAtOnce => {
                self.record.subscription = None;
                self.record.withdraw_at = Some(now.plus(KEEP_AFTER_END).0);
                let waited = now.since(EpochMillis(self.record.tried_at)) >= Duration::from_secs(60);
                if waited {
                    self.subscribe(ctx);
                } else {
                    self.record.retry_at = Some(EpochMillis(self.record.tried_at).plus(Duration::from_secs(60)).0);
                }
            }
            RefreshStep::RetryWithMinExpires => {
                match usable_min_expires(min_expires(outcome), subscription.subscriber.requested_secs()) {
                    Some(secs) => {
                        subscription.subscriber.request_secs(secs);
                        subscription.subscriber.start_refresh(now, ctx.config.timer_n);
                        self.record.min_expires = Some(secs);
                        self.send_subscribe(secs);
                    }
                    None => subscription.subscriber.retry_refresh(now, outcome.retry_after()),
                }
            }
            RefreshStep::RetryLater => subscription.subscriber.retry_refresh(now, outcome.retry_after()),
            RefreshStep::KeepUntilExpiry { alarm } => {
                subscription.subscriber.keep_until_expiry();
                self.alarm(alarm);
            }
        }
    }

    /// Takes a NOTIFY whose To tag names this pair and returns its answer. The outputs are performed after it.
    pub fn handle_notify(&mut self, ctx: &mut Context<'_>, request: &Message) -> ResponseWriter {
        match self.take_notify(ctx, request) {
            Ok(()) => {
                self.notify_watchers(ctx);
                plain(request, StatusCode::OK)
            }
            Err(status) => {
                let mut answer = plain(request, status);
                match status {
                    StatusCode::BAD_EVENT => {
                        answer.header(HeaderName::AllowEvents, "presence");
                    }
                    StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                        answer.header(HeaderName::Accept, PIDF);
                    }
                    _ => {}
                }
                answer
            }
        }
    }

    fn take_notify(&mut self, ctx: &mut Context<'_>, request: &Message) -> Result<(), StatusCode> {
        let now = ctx.epoch();
        let event = request.event().ok().flatten();
        if event.is_none_or(|event| event.package() != "presence") {
            return Err(StatusCode::BAD_EVENT);
        }
        let state = request.subscription_state().ok().flatten().ok_or(StatusCode::BAD_REQUEST)?;
        let gone = StatusCode::CALL_DOES_NOT_EXIST;
        let subscription =
            self.record.subscription.as_mut().filter(|s| s.dialog.matches_request(request)).ok_or(gone)?;
        let body = request.body();
        let typed = request.content_type().ok().flatten();
        if !body.is_empty() && typed.is_some_and(|typed| !typed.is(PIDF)) {
            return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        if subscription.dialog.state() == DialogState::Half {
            subscription.dialog = subscription.dialog.subscribed_by(request).map_err(|_| StatusCode::BAD_REQUEST)?;
        } else {
            match subscription.dialog.accept_request(request) {
                Ok(()) => {}
                // The same NOTIFY by another way: it was taken already.
                Err(RefuseInDialog::Repeated) => return Ok(()),
                Err(refusal) => return Err(refusal.status()),
            }
        }
        let random = ctx.entropy.next_u64();
        let notified = subscription.subscriber.handle_notify(now, &state, random).map_err(|refusal| match refusal {
            RefuseNotify::UnknownState => StatusCode::BAD_REQUEST,
            RefuseNotify::Over => gone,
        })?;
        let closing = subscription.subscriber.is_closing();
        match notified {
            Notified::Pending { was_active } => {
                if was_active {
                    self.withdraw(now);
                }
            }
            Notified::Active { .. } if closing => {}
            Notified::Active { first } => {
                self.record.backoff.reset();
                self.record.withdraw_at = None;
                self.record.contact_at = now.0;
                if first {
                    if self.auth.out != AuthOut::Granted {
                        self.change_auth(|auth| auth.out = AuthOut::Granted);
                        self.tell(ToLocal::Subscribed);
                    }
                    if body.is_empty() {
                        self.show(ctx, &Pidf::default());
                    }
                }
                self.read(ctx, &body);
            }
            Notified::Terminated(ended) => {
                self.record.subscription = None;
                if !closing {
                    self.subscription_ended(ctx, ended);
                }
            }
        }
        Ok(())
    }

    fn subscription_ended(&mut self, ctx: &mut Context<'_>, ended: Ended) {
        let now = ctx.epoch();
        match ended.announced {
            Announced::Keep => {}
            Announced::KeepForNow => self.record.withdraw_at = Some(now.plus(KEEP_AFTER_END).0),
            Announced::End => self.withdraw(now),
            Announced::EndAndUnsubscribe => {
                self.withdraw(now);
                self.tell(ToLocal::Unsubscribed);
            }
        }
        match ended.authorization {
            Authorization::Unchanged => {}
            Authorization::Denied => self.change_auth(|auth| auth.out = AuthOut::Denied),
            Authorization::Gone => self.change_auth(|auth| auth.out = AuthOut::None),
            Authorization::Static => self.record.is_static = true,
        }
        match ended.resubscribe {
            Resubscribe::AtOnce if self.record.backoff.take_at_once() => self.subscribe(ctx),
            Resubscribe::AtOnce => self.back_off(ctx, None),
            Resubscribe::After(wait) => self.record.retry_at = Some(now.plus(wait).0),
            Resubscribe::BackOff(retry_after) => self.back_off(ctx, retry_after),
            Resubscribe::Never => {}
        }
    }

    pub(super) fn subscriber_timeout(&mut self, ctx: &mut Context<'_>) {
        let now = ctx.epoch();
        while let Some(deadline) = self.record.subscription.as_mut().and_then(|s| s.subscriber.handle_timeout(now)) {
            match deadline {
                SubscriberDeadline::Refresh => {
                    let Some(subscription) = &mut self.record.subscription else { break };
                    subscription.subscriber.start_refresh(now, ctx.config.timer_n);
                    let secs = subscription.subscriber.requested_secs();
                    self.send_subscribe(secs);
                }
                SubscriberDeadline::NoNotify { during } => {
                    if during == SubscribePhase::Refresh {
                        // The notifier accepted the refresh: it keeps the dialog beside the next one until it is told.
                        self.send_subscribe(0);
                    }
                    self.record.subscription = None;
                    match during {
                        SubscribePhase::Initial => self.back_off(ctx, None),
                        SubscribePhase::Refresh => {
                            self.withdraw(now);
                            self.back_off(ctx, None);
                        }
                        SubscribePhase::Closing => {}
                    }
                }
                SubscriberDeadline::Expired => {
                    self.record.subscription = None;
                    self.withdraw(now);
                    self.subscribe(ctx);
                }
            }
        }
        if self.record.withdraw_at.is_some_and(|at| at <= now.0) {
            self.withdraw(now);
        }
        if self.record.retry_at.is_some_and(|at| at <= now.0) {
            self.record.retry_at = None;
            if matches!(self.auth.out, AuthOut::Pending | AuthOut::Granted) && self.record.subscription.is_none() {
                self.subscribe(ctx);
            }
        }
    }

    /// Tells whether a SUBSCRIBE has been due for so long that nobody can have been there to send it: with it, many are.
    pub fn is_late(&self, ctx: &Context<'_>) -> bool {
        let subscriber = self.record.subscription.as_ref().map(|subscription| &subscription.subscriber);
        let due = [
            subscriber.and_then(Subscriber::refresh_at),
            subscriber.and_then(Subscriber::expires_at),
            self.record.retry_at.map(EpochMillis),
        ];
        due.into_iter().flatten().any(|due| due.plus(LATE) < ctx.now.epoch)
    }

    /// Puts the SUBSCRIBE that is due, or that [`Self::handle_start`] would send, off to `at`. What is over is over now, and a
    /// subscription is not left to run out.
    pub fn put_off(&mut self, ctx: &Context<'_>, at: EpochMillis) {
        let now = ctx.now.epoch;
        match &mut self.record.subscription {
            Some(Subscription { subscriber, .. }) if subscriber.is_closing() => {}
            Some(Subscription { subscriber, .. }) if subscriber.expires_at().is_some_and(|end| end <= now) => {
                self.record.subscription = None;
                self.record.retry_at = Some(at.0);
                self.withdraw(now);
            }
            Some(Subscription { subscriber, .. }) => subscriber.put_off_refresh(at),
            None => self.record.retry_at = Some(at.0),
        }
    }

    pub(super) fn subscriber_deadline(&self) -> Option<EpochMillis> {
        let subscription = self.record.subscription.as_ref().and_then(|s| s.subscriber.next_deadline());
        let own = [self.record.withdraw_at, self.record.retry_at].into_iter().flatten().map(EpochMillis);
        own.chain(subscription.map(|(at, _)| at)).min()
    }

    fn back_off(&mut self, ctx: &mut Context<'_>, retry_after: Option<u32>) {
        let wait = self.record.backoff.next(ctx.entropy.next_u64(), retry_after);
        self.record.retry_at = Some(ctx.epoch().plus(wait).0);
    }

    fn deny(&mut self) {
        self.change_auth(|auth| auth.out = AuthOut::Denied);
        self.record.retry_at = None;
        self.tell(ToLocal::Unsubscribed);
    }

    fn alarm(&mut self, alarm: bool) {
        if alarm {
            self.outputs
                .push_back(Output::Alarm("the peer refused a subscription in a way that needs an administrator"));
        }
    }

    /// Reads a document and shows what changed; a body that is none leaves everything as it was.
    fn read(&mut self, ctx: &mut Context<'_>, body: &[u8]) {
        if body.is_empty() {
            return;
        }
        match Pidf::parse(body, &isthmus_sip::pidf::PidfLimits::default()) {
            Err(error) => self.outputs.push_back(Output::BadDocument(error.to_string())),
            Ok(document) if !self.is_about_contact(&document) => {
                self.outputs.push_back(Output::BadDocument("the document is about somebody else".to_owned()));
            }
            Ok(document) => self.show(ctx, &document),
        }
    }

    /// The entity must be the contact; some peers leave the scheme away (peers specification §1.5).
    fn is_about_contact(&self, document: &Pidf) -> bool {
        let entity = document.entity.trim();
        let bare = entity.split_once(':').map_or(entity, |(_, rest)| rest);
        let uri = format!("sip:{bare}");
        crate::address::from_request_uri(&uri).is_ok_and(|address| address.bare == self.remote)
    }

    fn show(&mut self, ctx: &mut Context<'_>, document: &Pidf) {
        let mut announced = self.record.announced();
        let states = notification::presence_from_document(ctx.config.dialect, document, &mut announced, ctx.now.epoch);
        let before = std::mem::take(&mut self.record.contact);
        for state in states {
            let cached = CachedPresence::of(&state);
            let known = before.iter().any(|known| known.says_the_same(&cached));
            if state.available {
                self.record.contact.push(cached);
            }
            if !known {
                self.tell(ToLocal::State(state));
            }
        }
    }

    /// Ends everything that was announced.
    fn withdraw(&mut self, now: EpochMillis) {
        self.record.withdraw_at = None;
        let mut announced = self.record.announced();
        if announced.is_empty() {
            return;
        }
        self.record.contact.clear();
        for state in notification::withdraw(&mut announced, now) {
            self.tell(ToLocal::State(state));
        }
    }

    pub(super) fn tell_cached(&mut self) {
        let states: Vec<_> = self.record.contact.iter().map(CachedPresence::to_model).collect();
        if states.is_empty() {
            let at = EpochMillis(self.record.contact_at);
            self.tell(ToLocal::State(isthmus_model::ResourcePresence::new("", false, at)));
        }
        for state in states {
            self.tell(ToLocal::State(state));
        }
    }
}

/// Answers without a dialog of ours: the To tag of the request stays.
fn plain(request: &Message, status: StatusCode) -> ResponseWriter {
    ResponseWriter::for_request(request, status, None, None)
}

fn refusal(outcome: &Outcome<'_>) -> Option<(StatusCode, String)> {
    match outcome {
        Outcome::Answer(message) => message.status().map(|status| (status, message.reason().to_owned())),
        Outcome::NoAnswer => None,
    }
}

fn min_expires(outcome: &Outcome<'_>) -> Option<u32> {
    match outcome {
        Outcome::Answer(message) => message.min_expires().ok().flatten(),
        Outcome::NoAnswer => None,
    }
}
