//! The remote user watches the local user (interworking specification §2.7, §2.10, §3.3, §3.4).

use std::time::Duration;

use isthmus_model::{Access, DenyMode, EpochMillis, ResourcePresence};
use isthmus_sip::dialog::{Dialog, RefuseInDialog};
use isthmus_sip::header::HeaderName;
use isthmus_sip::subscription::notifier::{self, NotifierState, NotifyOutcome, NotifyStep, SubscribeTerms};
use isthmus_sip::subscription::{Notifier, RefuseSubscribe, TerminationReason};
use isthmus_sip::{Message, Method, ResponseWriter, StatusCode};

use super::record::{AuthIn, CachedPresence, Watcher};
use super::subscriber::PIDF;
use super::{CACHE_FRESH, Context, Outcome, Output, PROBE_ANSWER, PROMPT_AGAIN, Pair, Purpose, STATE_WAIT, ToLocal};
use crate::notification;

/// The most resources of a local user whose state is kept for one watcher.
const MAX_RESOURCES: usize = 32;
/// When a watcher whose request nobody decided may come again.
const GIVEUP_RETRY_SECS: u32 = 86_400;

/// What a watcher gets to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    /// The state.
    Real,
    /// The OFFLINE document, as if the user were never there.
    Shadow,
    /// Nothing until the user decides.
    Pending,
    /// A refusal in the open.
    Refused,
}

/// When to look again for an answer that this process still awaits.
const AWAIT: Duration = Duration::from_secs(5);

impl Pair {
    /// This process still awaits answers to requests of the pair, at another target perhaps: nobody else has to.
    pub fn handle_awaiting(&mut self, ctx: &Context<'_>) {
        let by = ctx.now.epoch.plus(AWAIT);
        for watcher in &mut self.record.watchers {
            watcher.notifier.await_answer_until(by);
        }
    }

    /// Takes a SUBSCRIBE (inside or outside a dialog) that passed the entry checks, and returns its answer. The
    /// outputs, the NOTIFY among them, are performed after it. `tls` tells whether it came over TLS.
    pub fn handle_subscribe(
        &mut self,
        ctx: &mut Context<'_>,
        access: Access,
        request: &Message,
        tls: bool,
    ) -> ResponseWriter {
        let fresh_tag = self.id.new_tag(ctx.entropy);
        let answer = if request.to().tag().is_some() {
            self.refresh_watcher(ctx, access, request)
        } else {
            self.add_watcher(ctx, access, request, &fresh_tag, tls)
        };
        let answer = answer.unwrap_or_else(|refusal| refusal.answer(request, &fresh_tag));
        self.notify_watchers(ctx);
        answer
    }

    fn refresh_watcher(
        &mut self,
        ctx: &mut Context<'_>,
        access: Access,
        request: &Message,
    ) -> Result<ResponseWriter, Refusal> {
        let now = ctx.epoch();
        let place = self.record.watchers.iter().position(|watcher| watcher.dialog.matches_request(request));
        let Some(place) = place.filter(|_| !self.is_over(place)) else {
            return Err(Refusal::Status(StatusCode::CALL_DOES_NOT_EXIST));
        };
        let terms = notifier::check_subscribe(request, &ctx.config.expires)?;
        let view = self.view(access);
        if view == View::Refused {
            return Err(Refusal::Status(StatusCode::FORBIDDEN));
        }
        let Some(watcher) = self.record.watchers.get_mut(place) else {
            return Err(Refusal::Status(StatusCode::SERVER_INTERNAL_ERROR));
        };
        match watcher.dialog.accept_request(request) {
            Ok(()) | Err(RefuseInDialog::Repeated) => {}
            Err(refusal) => return Err(Refusal::Status(refusal.status())),
        }
        watcher.notifier.refresh(now, terms.granted_secs);
        watcher.shadow = view == View::Shadow;
        if view != View::Pending {
            watcher.notifier.activate();
        }
        let mut answer = watcher.dialog.answer(request, StatusCode::OK);
        accepted(&mut answer, &terms);
        if terms.granted_secs == 0 {
            self.watcher_left();
        } else if view == View::Real && self.is_stale(now, CACHE_FRESH) {
            self.probe(ctx);
        }
        Ok(answer)
    }

    fn add_watcher(
        &mut self,
        ctx: &mut Context<'_>,
        access: Access,
        request: &Message,
        tag: &str,
        tls: bool,
    ) -> Result<ResponseWriter, Refusal> {
        let now = ctx.epoch();
        let view = self.view(access);
        if view == View::Refused {
            return Err(Refusal::Status(StatusCode::FORBIDDEN));
        }
        let terms = notifier::check_subscribe(request, &ctx.config.expires)?;
        if self.record.watchers.len() >= ctx.config.max_dialogs {
            return Err(Refusal::Busy);
        }
        let dialog = Dialog::uas(request, tag, &ctx.config.contact, tls)
            .map_err(|_| Refusal::Status(StatusCode::BAD_REQUEST))?;
        let mut answer = dialog.opening_answer(request, StatusCode::OK);
        accepted(&mut answer, &terms);
        let poll = terms.granted_secs == 0;
        self.record.watchers.push(Watcher {
            dialog,
            notifier: Notifier::new(now, &terms, view != View::Pending),
            shadow: view == View::Shadow,
            told: false,
            since: now.0,
            poll,
        });
        match view {
            View::Real => self.authorize(ctx, request),
            // A poll alone never prompts the user.
            View::Pending if !poll => self.prompt(now, request),
            View::Shadow => {
                // A policy's block leaves the record of the user's own decision alone.
            }
            View::Pending | View::Refused => {}
        }
        Ok(answer)
    }

    fn view(&self, access: Access) -> View {
        match access {
            Access::Allow => View::Real,
            Access::BlockPolite | Access::Drop => View::Shadow,
            Access::BlockReject | Access::NotPermitted => View::Refused,
            Access::Prompt => match self.auth.inbound {
                AuthIn::Allowed => View::Real,
                AuthIn::Blocked => View::Shadow,
                AuthIn::None | AuthIn::Pending { .. } => View::Pending,
            },
        }
    }

    /// The watcher may see: make sure that the local server sends the state.
    fn authorize(&mut self, ctx: &mut Context<'_>, request: &Message) {
        if !self.auth.inbound.is_allowed() {
            // The roster has to let the state out too; if it does already, the server answers by itself.
            self.change_auth(|auth| auth.inbound = AuthIn::Allowed);
            self.tell(ToLocal::Subscribe(display_name(request)));
        } else if self.is_stale(ctx.epoch(), CACHE_FRESH) {
            self.probe(ctx);
        }
    }

    fn prompt(&mut self, now: EpochMillis, request: &Message) {
        let since = match self.auth.inbound {
            AuthIn::Pending { since, asked } => {
                if now.since(EpochMillis(asked)) < PROMPT_AGAIN {
                    return;
                }
                since
            }
            _ => now.0,
        };
        self.change_auth(|auth| auth.inbound = AuthIn::Pending { since, asked: now.0 });
        self.tell(ToLocal::Subscribe(display_name(request)));
    }

    pub(super) fn probe(&mut self, ctx: &mut Context<'_>) {
        self.record.probed_at = Some(ctx.epoch().0);
        self.tell(ToLocal::Probe);
    }

    fn is_stale(&self, now: EpochMillis, fresh: Duration) -> bool {
        self.record.presentity_at.is_none_or(|at| now.since(EpochMillis(at)) > fresh)
    }

    fn is_over(&self, place: Option<usize>) -> bool {
        place.and_then(|place| self.record.watchers.get(place)).is_none_or(|watcher| watcher.notifier.is_over())
    }

    pub(super) fn local_allows(&mut self, ctx: &mut Context<'_>, access: Access) {
        let now = ctx.epoch();
        match self.auth.inbound {
            AuthIn::Allowed => {}
            // An administrator's block is not lifted by a chat client.
            _ if matches!(self.view_of_policy(access), View::Shadow | View::Refused) => {}
            // Nobody asked; a server answers so to what it takes for a request.
            AuthIn::None => {}
            AuthIn::Pending { .. } | AuthIn::Blocked => {
                self.outputs.push_back(Output::Decided(true));
                self.change_auth(|auth| auth.inbound = AuthIn::Allowed);
                // The server sends the state right behind; the first NOTIFY waits for it a moment.
                self.record.activate_at = Some(now.plus(STATE_WAIT).0);
            }
        }
    }

    /// What policy alone says, without this pair's own decision.
    fn view_of_policy(&self, access: Access) -> View {
        match access {
            // The recorded decision of this user is what is being changed.
            Access::BlockPolite | Access::BlockReject if self.auth.inbound == AuthIn::Blocked => View::Pending,
            other => self.view(other),
        }
    }

    pub(super) fn local_denies(&mut self, ctx: &mut Context<'_>, access: Access) {
        let now = ctx.epoch();
        match self.auth.inbound {
            AuthIn::None | AuthIn::Blocked => {}
            AuthIn::Allowed if access == Access::Allow && self.answers_probe(now) => {
                // The list allows the watcher, but the roster does not know it: ask once more.
                self.record.probed_at = None;
                self.tell(ToLocal::Subscribe(None));
            }
            AuthIn::Pending { .. } | AuthIn::Allowed => {
                self.outputs.push_back(Output::Decided(false));
                self.change_auth(|auth| auth.inbound = AuthIn::Blocked);
                self.record.activate_at = None;
                self.record.presentity.clear();
                self.record.presentity_at = None;
                for watcher in &mut self.record.watchers {
                    match ctx.config.deny_mode {
                        DenyMode::Polite => {
                            watcher.shadow = true;
                            watcher.notifier.activate();
                            watcher.notifier.must_notify();
                        }
                        DenyMode::Reject => watcher.notifier.terminate(TerminationReason::Rejected, None),
                    }
                }
            }
        }
    }

    fn answers_probe(&self, now: EpochMillis) -> bool {
        self.record.probed_at.is_some_and(|at| now.since(EpochMillis(at)) < PROBE_ANSWER)
    }

    pub(super) fn local_state(&mut self, ctx: &mut Context<'_>, state: &ResourcePresence) {
        // Prosody answers every `subscribe` with `unavailable` at once; that is neither state nor decision.
        if !self.auth.inbound.is_allowed() {
            return;
        }
        let now = ctx.epoch();
        self.record.presentity_at = Some(now.0);
        let cached = CachedPresence::of(state);
        let resources = &mut self.record.presentity;
        let before = resources.clone();
        if state.resource.is_empty() && !state.available {
            resources.clear();
        } else {
            resources.retain(|known| known.resource != cached.resource);
            if state.available && resources.len() < MAX_RESOURCES {
                resources.push(cached);
            }
        }
        let same = before.len() == resources.len()
            && resources.iter().all(|now| before.iter().any(|before| before.says_the_same(now)));
        let available = !resources.is_empty();
        if self.record.activate_at.is_some() && available {
            self.activate_watchers();
        }
        if same {
            return;
        }
        for watcher in self.record.watchers.iter_mut().filter(|watcher| !watcher.shadow) {
            if watcher.told || !available {
                watcher.notifier.changed();
            } else if watcher.notifier.state() == NotifierState::Active {
                // The first real state does not wait behind the stand-in that was sent before it.
                watcher.notifier.must_notify();
            }
        }
    }

    fn activate_watchers(&mut self) {
        self.record.activate_at = None;
        for watcher in &mut self.record.watchers {
            watcher.shadow = false;
            if watcher.notifier.state() == NotifierState::Active {
                watcher.notifier.must_notify();
            }
            watcher.notifier.activate();
        }
    }

    /// A subscription of the watcher ended. The local user learns it with the last one, unless the watcher's
    /// own presence is being shown to the user: that would turn a live contact off.
    fn watcher_left(&mut self) {
        let shown = self.record.subscription.as_ref().is_some_and(super::record::Subscription::is_active);
        if self.auth.inbound.is_allowed() && !shown && !self.is_watched() {
            let at = EpochMillis(self.record.contact_at);
            self.tell(ToLocal::State(ResourcePresence::new("", false, at)));
        }
    }

    /// Sends every NOTIFY that is due and may be sent, and forgets subscriptions that are over.
    pub(super) fn notify_watchers(&mut self, ctx: &mut Context<'_>) {
        let now = ctx.epoch();
        let mut watchers = std::mem::take(&mut self.record.watchers);
        for watcher in &mut watchers {
            if watcher.notifier.poll(now, &ctx.config.notifier) == NotifyStep::Send {
                self.notify(ctx, watcher);
            }
        }
        watchers.retain(|watcher| watcher.notifier.state() != NotifierState::Gone);
        self.record.watchers = watchers;
    }

    fn notify(&mut self, ctx: &mut Context<'_>, watcher: &mut Watcher) {
        let now = ctx.epoch();
        let document = self.document(ctx, watcher);
        let hop = watcher.dialog.next_hop().to_owned();
        let mut writer = watcher.dialog.request(Method::Notify);
        let cseq = watcher.dialog.local_cseq();
        writer
            .display(HeaderName::Event, watcher.notifier.event())
            .display(HeaderName::SubscriptionState, watcher.notifier.subscription_state(now));
        if document.is_some() {
            writer.header(HeaderName::ContentType, PIDF);
        }
        watcher.notifier.sent(now, cseq);
        let purpose = Purpose::Notify { local_tag: watcher.dialog.local_tag().to_owned(), cseq };
        if !self.send(writer, document.unwrap_or_default().as_bytes(), Some(hop), purpose) {
            // Nothing was sent, so no answer will come.
            watcher.notifier.handle_outcome(now, cseq, Some(StatusCode::OK), None);
        }
    }

    /// Chooses the body of the next NOTIFY.
    fn document(&mut self, ctx: &Context<'_>, watcher: &mut Watcher) -> Option<String> {
        let real = match (watcher.notifier.state(), watcher.shadow) {
            (NotifierState::Pending | NotifierState::Gone, _) => return None,
            (NotifierState::Active, shadow) => !shadow,
            // The answer to a single question carries the state; the end of a subscription says closed.
            (NotifierState::Terminated { reason: TerminationReason::Timeout, .. }, shadow) if watcher.poll => {
                let undecided = !shadow && !self.auth.inbound.is_allowed();
                if undecided || (!shadow && self.record.presentity_at.is_none()) {
                    return None;
                }
                !shadow
            }
            (NotifierState::Terminated { reason: TerminationReason::Timeout, .. }, _) => false,
            (NotifierState::Terminated { .. }, _) => return None,
        };
        let resources = if real { self.record.resources() } else { Vec::new() };
        watcher.told |= !resources.is_empty();
        let last = self.record.last_timestamp.map(EpochMillis);
        let timestamp = notification::next_timestamp(last, &resources, ctx.now.epoch);
        self.record.last_timestamp = Some(timestamp.0);
        let dialect = ctx.config.dialect;
        Some(if resources.is_empty() {
            notification::offline_document(dialect, &self.local, timestamp)
        } else {
            notification::document_for_watcher(dialect, &self.local, &resources, timestamp)
        })
    }

    pub(super) fn notify_outcome(&mut self, ctx: &mut Context<'_>, local_tag: &str, cseq: u32, outcome: &Outcome<'_>) {
        let Some(watcher) = self.record.watchers.iter_mut().find(|w| w.dialog.local_tag() == local_tag) else {
            return;
        };
        if let Outcome::Answer(response) = outcome
            && response.status().is_some_and(StatusCode::is_success)
        {
            // A Contact that cannot be used leaves the target as it was.
            let _ = watcher.dialog.accept_success(response);
        }
        let outcome = watcher.notifier.handle_outcome(ctx.now.epoch, cseq, outcome.status(), outcome.retry_after());
        if outcome == (NotifyOutcome::Removed { alarm: true }) {
            self.outputs.push_back(Output::Alarm("the peer wants credentials for a NOTIFY"));
        }
    }

    pub(super) fn notifier_timeout(&mut self, ctx: &mut Context<'_>) {
        let now = ctx.epoch();
        if self.record.activate_at.is_some_and(|at| at <= now.0) {
            self.activate_watchers();
        }
        let mut left = false;
        let mut undecided = false;
        for watcher in &mut self.record.watchers {
            left |= watcher.notifier.handle_timeout(now);
            let pending = watcher.notifier.state() == NotifierState::Pending;
            if pending && EpochMillis(watcher.since).plus(ctx.config.pending_max) <= now {
                watcher.notifier.terminate(TerminationReason::Giveup, Some(GIVEUP_RETRY_SECS));
                undecided = true;
            }
        }
        if left {
            self.watcher_left();
        }
        if undecided && self.auth.inbound.is_pending() {
            self.change_auth(|auth| auth.inbound = AuthIn::None);
        }
    }

    pub(super) fn notifier_deadline(&self, now: EpochMillis, config: &super::PairConfig) -> Option<EpochMillis> {
        let watchers = self.record.watchers.iter().flat_map(|watcher| {
            let pending = watcher.notifier.state() == NotifierState::Pending;
            let undecided = pending.then(|| EpochMillis(watcher.since).plus(config.pending_max));
            watcher.notifier.next_deadline(now, &config.notifier).into_iter().chain(undecided)
        });
        watchers.chain(self.record.activate_at.map(EpochMillis)).min()
    }
}

/// Why a SUBSCRIBE gets no 2xx.
enum Refusal {
    Status(StatusCode),
    Package(RefuseSubscribe),
    Busy,
}

impl From<RefuseSubscribe> for Refusal {
    fn from(refusal: RefuseSubscribe) -> Self {
        Self::Package(refusal)
    }
}

impl Refusal {
    fn answer(self, request: &Message, tag: &str) -> ResponseWriter {
        let status = match self {
            Self::Status(status) => status,
            Self::Package(refusal) => refusal.status(),
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        };
        let mut answer = ResponseWriter::for_request(request, status, None, Some(tag));
        match self {
            Self::Package(RefuseSubscribe::BadEvent) => {
                answer.header(HeaderName::AllowEvents, "presence");
            }
            Self::Package(RefuseSubscribe::TooBrief { min_secs }) => {
                answer.display(HeaderName::MinExpires, min_secs);
            }
            Self::Package(RefuseSubscribe::NotAcceptable) => {
                answer.header(HeaderName::Accept, PIDF);
            }
            Self::Busy => {
                answer.display(HeaderName::RetryAfter, 60);
            }
            Self::Status(_) | Self::Package(_) => {}
        }
        answer
    }
}

fn accepted(answer: &mut ResponseWriter, terms: &SubscribeTerms) {
    answer.expires(terms.granted_secs).header(HeaderName::AllowEvents, "presence");
}

fn display_name(request: &Message) -> Option<String> {
    request.from_().display_name().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty())
}
