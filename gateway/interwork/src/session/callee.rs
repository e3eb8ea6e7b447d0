//! From the peer to the local user: INVITE, ACK, MESSAGE, INFO, BYE and the rest (interworking specification §5.3,
//! §5.4).

use isthmus_model::{Address, LangText};
use isthmus_sip::dialog::{Dialog, RefuseInDialog};
use isthmus_sip::endpoint::checks;
use isthmus_sip::pidf::XmlLimits;
use isthmus_sip::{HeaderName, Message, Method, ResponseWriter, StatusCode};
use isthmus_xmpp::payload::ChatState;

use super::offer::{self, RefuseInvite, SDP_TYPE};
use super::record::{Call, Phase};
use super::{Answer, Context, Delivery, Session};
use crate::chat_state::{self, KEYBOARD_ACTIVITY_TYPE, Typing};
use crate::content;
use crate::error_map::{SipAnswer, one_line};
use crate::pager::{self, Arrival, Mode, ToXmpp};

impl Session {
    /// Takes an INVITE, inside or outside of a dialog, that passed the entry checks, and returns its answer.
    /// `tls` tells whether it came over TLS. Whether the local user blocks the peer must not matter here.
    ///
    /// # Errors
    ///
    /// [`isthmus_sip::WriteError`] when a value of the configuration cannot be written.
    pub fn handle_invite(&mut self, ctx: &mut Context<'_>, request: &Message, tls: bool) -> Answer {
        let fresh_tag = self.id.new_tag(ctx.entropy);
        if let Some(refusal) = checks::refuse_require(request, &fresh_tag) {
            return refusal.finish(b"");
        }
        let answer = if request.to().tag().is_some() {
            self.reinvite(ctx, request)
        } else {
            self.invited(ctx, request, &fresh_tag, tls)
        };
        self.pump(ctx);
        match answer {
            Ok((mut writer, body)) => {
                writer
                    .header(HeaderName::Allow, checks::ALLOW)
                    .header(HeaderName::AllowEvents, checks::ALLOW_EVENTS)
                    .header(HeaderName::ContentType, SDP_TYPE);
                writer.finish(body.as_bytes())
            }
            Err(refusal) => refusal.answer(request, &fresh_tag, &ctx.config.agent).finish(b""),
        }
    }

    fn invited(
        &mut self,
        ctx: &mut Context<'_>,
        request: &Message,
        tag: &str,
        tls: bool,
    ) -> Result<(ResponseWriter, String), RefuseInvite> {
        if offer::is_group(request) {
            return Err(RefuseInvite::Group);
        }
        let sdp_id = ctx.entropy.next_u64() >> 32;
        let offered = offer::description_of(request)?;
        let (body, terms) = match &offered {
            Some(sdp) => {
                let terms = offer::read(sdp, ctx.config)?;
                (offer::answer(sdp, sdp_id, &self.local.to_sip_uri(), ctx.config)?, Some(terms))
            }
            None => (our_offer(sdp_id, ctx)?, None),
        };
        let dialog = Dialog::uas(request, tag, &ctx.config.contact, tls)
            .map_err(|_| RefuseInvite::Status(StatusCode::BAD_REQUEST))?;
        self.make_room(ctx)?;
        self.give_way(ctx);
        let writer = dialog.opening_answer(request, StatusCode::OK);
        let phase = Phase::Unacknowledged { until: ctx.transaction_end() };
        let mut call = Call::new(dialog, phase, sdp_id, ctx.epoch());
        call.offered = offered.is_none();
        call.invite = Some(request.cseq().number);
        call.takes_typing = terms.is_some_and(|terms| terms.takes_typing);
        self.record.calls.push(call);
        self.record.subject = request
            .header(HeaderName::Subject)
            .map(|subject| content::clean(one_line(subject).trim()).into_owned())
            .filter(|subject| !subject.is_empty());
        Ok((writer, body))
    }

    /// Makes room for one more dialog: those that are over go first, then the oldest.
    pub(super) fn make_room(&mut self, ctx: &Context<'_>) -> Result<(), RefuseInvite> {
        if self.record.calls.len() < ctx.config.max_dialogs {
            return Ok(());
        }
        let calls = &self.record.calls;
        let idle = |call: &Call| call.flight.is_none();
        let over = calls.iter().position(|call| idle(call) && matches!(call.phase, Phase::Over { .. }));
        let oldest = calls.iter().position(|call| idle(call) && call.phase == Phase::Up);
        match (over, oldest) {
            (Some(place), _) => {
                self.record.calls.remove(place);
            }
            (None, Some(place)) => {
                self.end(ctx, place);
                self.record.calls.remove(place);
            }
            (None, None) => return Err(RefuseInvite::Status(StatusCode::SERVICE_UNAVAILABLE)),
        }
        Ok(())
    }

    fn reinvite(&mut self, ctx: &mut Context<'_>, request: &Message) -> Result<(ResponseWriter, String), RefuseInvite> {
        let gone = RefuseInvite::Status(StatusCode::CALL_DOES_NOT_EXIST);
        let uri = self.local.to_sip_uri();
        let call = self.find(request).and_then(|place| self.record.calls.get_mut(place)).ok_or(gone)?;
        match call.phase {
            Phase::Inviting { .. } | Phase::Cancelled { .. } => {
                return Err(RefuseInvite::Status(StatusCode::REQUEST_PENDING));
            }
            Phase::Over { .. } => return Err(gone),
            Phase::Unacknowledged { .. } | Phase::Up => {}
        }
        // A refused one leaves everything as it was, the target too.
        let mut dialog = call.dialog.clone();
        dialog.accept_request(request).map_err(|refusal| RefuseInvite::Status(refusal.status()))?;
        let sdp = offer::description_of(request)?;
        let mut ends = false;
        let body = match &sdp {
            Some(sdp) if offer::read(sdp, ctx.config).is_err() && offer::removes_messages(sdp, ctx.config) => {
                ends = true;
                offer::farewell(sdp, call.sdp_id, ctx.config)?
            }
            Some(sdp) => {
                call.takes_typing &= offer::read(sdp, ctx.config)?.takes_typing;
                offer::answer(sdp, call.sdp_id, &uri, ctx.config)?
            }
            None => our_offer(call.sdp_id, ctx)?,
        };
        call.dialog = dialog;
        call.ends_on_ack = ends;
        call.offered = sdp.is_none();
        call.invite = Some(request.cseq().number);
        call.active_at = ctx.now.epoch.0;
        Ok((call.dialog.answer(request, StatusCode::OK), body))
    }

    /// Takes the ACK of a 200 of ours to an INVITE.
    pub fn handle_ack(&mut self, ctx: &mut Context<'_>, ack: &Message) {
        let Some(place) = self.find(ack) else { return };
        let Some(call) = self.record.calls.get_mut(place) else { return };
        if !matches!(call.phase, Phase::Unacknowledged { .. } | Phase::Up) {
            return;
        }
        // The ACK of an INVITE before the last one came late.
        if call.invite.is_some_and(|number| number != ack.cseq().number) {
            return;
        }
        call.phase = Phase::Up;
        call.active_at = ctx.now.epoch.0;
        let mut ends = std::mem::take(&mut call.ends_on_ack);
        if std::mem::take(&mut call.offered) {
            let answer = offer::description_of(ack).ok().flatten().map(|sdp| offer::read(&sdp, ctx.config));
            match answer {
                Some(Ok(terms)) => call.takes_typing = terms.takes_typing,
                _ => ends = true,
            }
        }
        if ends {
            self.end(ctx, place);
        }
        self.pump(ctx);
    }

    /// No ACK came for a 200 of ours to an INVITE: the dialog is ended.
    pub fn handle_never_acknowledged(&mut self, ctx: &mut Context<'_>, call_id: &str, local_tag: &str) {
        let place = self.place_of(local_tag);
        let Some(call) = place.and_then(|place| self.record.calls.get(place)) else { return };
        let live = matches!(call.phase, Phase::Unacknowledged { .. } | Phase::Up);
        if let Some(place) = place.filter(|_| live && call.dialog.call_id() == call_id) {
            self.end(ctx, place);
            self.pump(ctx);
        }
    }

    /// Takes a BYE and returns its answer.
    ///
    /// # Errors
    ///
    /// Never for a request that was read.
    pub fn handle_bye(&mut self, ctx: &mut Context<'_>, request: &Message) -> Answer {
        let place = match self.enter(ctx, request, false) {
            Ok(place) => place,
            Err(answer) => return answer,
        };
        let Some(call) = self.record.calls.get_mut(place) else { return no_such_dialog(request) };
        let answer = call.dialog.answer(request, StatusCode::OK).finish(b"");
        call.dialog.terminate();
        // What is outstanding is still answered, and only then it is known whether it has to be sent again.
        call.phase = Phase::Over { until: ctx.transaction_end() };
        let forgotten = call.flight.is_none();
        let over = |call: &Call| matches!(call.phase, Phase::Over { .. } | Phase::Cancelled { .. });
        if self.record.calls.iter().all(over) {
            self.tell_state(ctx, ChatState::Gone);
            self.record.end_conversation();
        }
        if forgotten {
            self.forget(place);
        }
        self.pump(ctx);
        answer
    }

    /// Takes an INFO and returns its answer.
    ///
    /// # Errors
    ///
    /// Never for a request that was read.
    pub fn handle_info(&mut self, ctx: &mut Context<'_>, request: &Message) -> Answer {
        let place = match self.enter(ctx, request, false) {
            Ok(place) => place,
            Err(answer) => return answer,
        };
        let Some(call) = self.record.calls.get(place) else { return no_such_dialog(request) };
        let is_keyboard = request.content_type().ok().flatten().is_some_and(|kind| kind.is(KEYBOARD_ACTIVITY_TYPE));
        let limits = XmlLimits { bytes: ctx.config.content.bytes, ..XmlLimits::default() };
        let typing = chat_state::parse_keyboard_activity(&request.body(), &limits).ok().filter(|_| is_keyboard);
        let Some(typing) = typing else {
            let mut answer = call.dialog.answer(request, StatusCode::UNSUPPORTED_MEDIA_TYPE);
            answer.header(HeaderName::Accept, KEYBOARD_ACTIVITY_TYPE);
            return answer.finish(b"");
        };
        let answer = call.dialog.answer(request, StatusCode::OK).finish(b"");
        self.peer_types(ctx, typing);
        answer
    }

    /// Takes a request of another method than those with a function of their own, and returns its answer.
    ///
    /// # Errors
    ///
    /// Never for a request that was read.
    pub fn handle_other(&mut self, ctx: &mut Context<'_>, request: &Message) -> Answer {
        let place = match self.enter(ctx, request, false) {
            Ok(place) => place,
            Err(answer) => return answer,
        };
        let Some(call) = self.record.calls.get(place) else { return no_such_dialog(request) };
        let tag = call.dialog.local_tag();
        let writer = match request.method() {
            Method::Options => checks::answer_options(request, tag),
            // Dialogs are not shared with subscriptions (RFC 6665 §4.5.2).
            Method::Subscribe => call.dialog.answer(request, StatusCode::FORBIDDEN),
            Method::Notify => call.dialog.answer(request, StatusCode::CALL_DOES_NOT_EXIST),
            _ => checks::refuse_method(request, tag)
                .unwrap_or_else(|| call.dialog.answer(request, StatusCode::BAD_REQUEST)),
        };
        writer.finish(b"")
    }

    /// Takes a MESSAGE in a dialog: a stanza to be delivered, before which [`Self::record`] is stored, and after which
    /// the caller answers the request. `id` becomes the id of the stanza. `again` tells that a process which took the
    /// request before is gone and left no answer: its number may be taken then.
    ///
    /// # Errors
    ///
    /// The answer, when there is nothing to deliver: a refusal, or the 200 to a notice of typing.
    pub fn check_message(
        &mut self,
        ctx: &mut Context<'_>,
        request: &Message,
        id: &str,
        again: bool,
    ) -> Result<Delivery, Answer> {
        let place = self.enter(ctx, request, again)?;
        let Some(call) = self.record.calls.get(place) else { return Err(no_such_dialog(request)) };
        let tag = call.dialog.local_tag().to_owned();
        let thread = call.thread.clone();
        let from = Address { bare: self.remote.clone(), resource: None };
        let bare = || Address { bare: self.local.clone(), resource: None };
        let to = Address::from_jid(&self.recipient()).unwrap_or_else(|_| bare());
        let arrival = Arrival {
            mode: Mode::Session,
            from: &from,
            to: &to,
            id,
            thread: thread.as_deref(),
            chat_states: self.record.chat_states,
            now: ctx.now.epoch,
        };
        match pager::to_xmpp(request, &arrival, &ctx.config.content) {
            Ok(ToXmpp::Stanza(mut stanza)) => {
                self.record.thread = stanza.thread.as_deref().map(str::to_owned);
                if let Some(subject) = self.record.subject.take().filter(|_| stanza.subjects.is_empty()) {
                    stanza.subjects = vec![LangText { lang: stanza.lang.clone(), text: subject }];
                }
                self.record.typing_until = None;
                if let Some(state) = stanza.chat_state {
                    self.record.told_state = Some(state.as_str().to_owned());
                }
                Ok(Delivery { stanza })
            }
            Ok(ToXmpp::Typing(typing)) => {
                self.peer_types(ctx, typing);
                Err(pager::accept(request, true, Some(&tag)))
            }
            Ok(ToXmpp::Nothing) => Err(pager::accept(request, true, Some(&tag))),
            Err(refusal) => Err(SipAnswer::from(refusal).respond(request, Some(&tag), &ctx.config.agent)),
        }
    }

    /// Finds the dialog of a request and takes its number, or says what is to be answered. The last number is good
    /// `again` for a request that takes it a second time.
    fn enter(&mut self, ctx: &mut Context<'_>, request: &Message, again: bool) -> Result<usize, Answer> {
        let place = self.find(request).ok_or_else(|| no_such_dialog(request))?;
        let Some(call) = self.record.calls.get_mut(place) else { return Err(no_such_dialog(request)) };
        let leaves = request.method() == Method::Bye;
        let open = match call.phase {
            Phase::Unacknowledged { .. } | Phase::Up => true,
            // Our 2xx may still be on its way to this machine, or both sides say BYE at once.
            Phase::Inviting { .. } => !leaves,
            Phase::Over { .. } => leaves,
            Phase::Cancelled { .. } => false,
        };
        if !open {
            return Err(no_such_dialog(request));
        }
        if let Some(refusal) = checks::refuse_require(request, call.dialog.local_tag()) {
            return Err(refusal.finish(b""));
        }
        match call.dialog.accept_request(request) {
            Ok(()) => {}
            Err(RefuseInDialog::Repeated) if again => {}
            Err(refusal) => return Err(call.dialog.answer(request, refusal.status()).finish(b"")),
        }
        call.active_at = ctx.now.epoch.0;
        // Whoever goes on in the dialog has our 200; its ACK may have been lost with a process. One that carries the
        // peer's description is awaited.
        if matches!(call.phase, Phase::Unacknowledged { .. }) && !call.offered && !leaves {
            call.phase = Phase::Up;
            self.pump(ctx);
        }
        Ok(place)
    }

    fn peer_types(&mut self, ctx: &mut Context<'_>, typing: Typing) {
        if !ctx.config.typing {
            return;
        }
        match typing {
            Typing::Active { refresh } => {
                self.tell_state(ctx, ChatState::Composing);
                self.record.typing_until = self.record.chat_states.then(|| ctx.after(refresh));
            }
            Typing::Idle => self.tell_typing_ended(ctx),
        }
    }

    /// The peer does not type any more.
    pub(super) fn tell_typing_ended(&mut self, ctx: &mut Context<'_>) {
        self.record.typing_until = None;
        let state = chat_state::to_xmpp(Typing::Idle, ctx.config.idle_as_paused);
        self.tell_state(ctx, state);
    }
}

fn our_offer(sdp_id: u64, ctx: &Context<'_>) -> Result<String, RefuseInvite> {
    offer::offer(sdp_id, ctx.config).ok_or(RefuseInvite::Status(StatusCode::SERVER_INTERNAL_ERROR))
}

fn no_such_dialog(request: &Message) -> Answer {
    ResponseWriter::for_request(request, StatusCode::CALL_DOES_NOT_EXIST, None, None).finish(b"")
}
