//! From the local user to the peer: the queue, INVITE, MESSAGE, BYE and their outcomes (interworking
//! specification §5.2, §5.4).

use isthmus_sip::dialog::{Dialog, NewDialog};
use isthmus_sip::endpoint::checks;
use isthmus_sip::{Address, HeaderName, Message, Method, RequestWriter, StatusCode};
use isthmus_xmpp::payload::Receipt;
use isthmus_xmpp::{ErrorCondition, ErrorType, MessageType, StanzaError};

use super::offer::{self, SDP_TYPE};
use super::record::{Call, Flight, Notice, Phase, Waiting};
use super::{Context, Outcome, OutgoingMessage, Output, Purpose, Session, overflow};
use crate::Dialect;
use crate::address::aor_uri;
use crate::chat_state::{self, IS_COMPOSING_TYPE};
use crate::error_map::LocalFailure;
use crate::pager::OutgoingText;
use crate::thread::call_id_for;

/// Refusals of an INVITE that say: no sessions here, but perhaps single messages.
const NO_SESSIONS: [u16; 5] = [405, 415, 420, 488, 501];
/// Refusals of a MESSAGE after which there is no point in going on with the session.
const ENDING: [u16; 6] = [404, 408, 410, 480, 603, 604];

/// What the peer reads in place of a delivery that failed late.
const NOT_DELIVERED: &str = "Your message could not be delivered.";

impl Session {
    /// Takes a message of the local user that may be sent.
    pub fn handle_stanza(&mut self, ctx: &mut Context<'_>, message: OutgoingMessage) {
        if !ctx.config.new_sessions && !self.has_session() {
            if message.body.is_some() {
                self.outputs.push_back(Output::Pager(message));
            }
            return;
        }
        self.handle_refused_single(ctx, message);
    }

    /// Takes a message that was not accepted outside of dialogs, or is too long for that: a session is opened for it
    /// whatever the configuration says of others.
    pub fn handle_refused_single(&mut self, ctx: &mut Context<'_>, message: OutgoingMessage) {
        if message.chat_state.is_some() {
            self.record.chat_states = true;
        }
        if !self.record.calls.is_empty() || message.body.is_some() {
            self.record.device = Some(message.from.clone());
        }
        match (message.body, message.chat_state) {
            (Some(body), _) => {
                let waiting = Waiting {
                    id: message.id,
                    from: message.from,
                    to: message.to,
                    body,
                    lang: message.lang,
                    subject: message.subject,
                    thread: message.thread,
                    wants_receipt: message.wants_receipt,
                    resent: false,
                };
                self.enqueue(ctx, waiting);
            }
            (None, Some(state)) => match chat_state::to_sip(state) {
                Some(typing) => self.record.typing = Some(typing),
                None => self.record.leaving = true,
            },
            (None, None) => {}
        }
        self.pump(ctx);
    }

    /// A message of the peer failed after it was accepted. The peer is told in the session, at most once (§5.3);
    /// without a session there is nobody to tell.
    pub fn handle_late_bounce(&mut self, ctx: &mut Context<'_>) {
        if self.record.notice.is_none() && self.is_up() {
            self.record.notice = Some(Notice::Due);
            self.pump(ctx);
        }
    }

    /// The process that held the pair's link is gone, since then: nobody hears the answers to what it had sent before. Its
    /// messages are returned to their writer, who would otherwise learn of it when the transaction's time is over, with all
    /// later messages behind it. The dialog goes on.
    pub fn handle_sender_gone(&mut self, ctx: &Context<'_>, since: isthmus_model::EpochMillis) {
        let life = std::time::Duration::from_millis(ctx.transaction_end().saturating_sub(ctx.now.epoch.0));
        let mut returned = Vec::new();
        for call in &mut self.record.calls {
            if let Some(flight) = call.flight.take_if(|flight| flight.until < since.plus(life).0) {
                call.active_at = ctx.now.epoch.0;
                returned.extend(flight.message);
            }
        }
        for waiting in returned {
            self.fail(&waiting, Outcome::Failed(LocalFailure::Timeout).error());
        }
    }

    /// A request was held back, because the pair's link had become another process's: it is to be made anew by that one, at once
    /// ([`Session::next_deadline`]). One that `has_left` for another target before is not made anew, and whoever wrote is told; what
    /// comes of an invitation is ended then. A BYE is its own end, and is sent by whoever made it.
    pub fn handle_withdrawn(&mut self, ctx: &Context<'_>, purpose: &Purpose, has_left: bool) {
        let (Purpose::Invite { local_tag } | Purpose::Message { local_tag, .. } | Purpose::Bye { local_tag }) = purpose;
        let Some(place) = self.place_of(local_tag) else { return };
        let Some(call) = self.record.calls.get_mut(place) else { return };
        match purpose {
            Purpose::Invite { .. } => {
                if matches!(call.phase, Phase::Inviting { .. } | Phase::Cancelled { .. }) {
                    self.forget(place);
                    if has_left {
                        self.no_session(ctx, None, &Outcome::Failed(LocalFailure::Timeout).error());
                    }
                }
            }
            // This may come again, when the next process has made it anew under the same number.
            Purpose::Message { cseq, until, .. } => {
                let is_it = |flight: &mut Flight| flight.cseq == *cseq && flight.until == *until;
                let Some(flight) = call.flight.take_if(is_it) else { return };
                if has_left {
                    if let Some(waiting) = flight.message {
                        self.fail(&waiting, Outcome::Failed(LocalFailure::Timeout).error());
                    }
                } else {
                    call.dialog.take_back(*cseq);
                    match (flight.message, flight.typing) {
                        (Some(waiting), _) => self.record.queue.push_front(waiting),
                        (None, Some(typing)) => {
                            call.told_typing = !typing;
                            self.record.typing.get_or_insert(typing);
                        }
                        (None, None) => self.record.notice = Some(Notice::Due),
                    }
                }
                self.settle(place, local_tag);
            }
            Purpose::Bye { .. } => {}
        }
    }

    /// Tells whether something waits that [`Self::pump`] would do at once. That somebody types is told with the next request.
    pub(super) fn is_to_pump(&self) -> bool {
        if self.record.calls.iter().any(|call| call.flight.is_some()) {
            return false;
        }
        let waits = !self.record.queue.is_empty();
        match self.record.calls.iter().rfind(|call| is_usable(call)) {
            Some(call) => {
                call.phase == Phase::Up && (waits || self.record.leaving || self.record.notice == Some(Notice::Due))
            }
            None => waits,
        }
    }

    fn enqueue(&mut self, ctx: &Context<'_>, waiting: Waiting) {
        if let Err(refusal) = waiting.text().check_session_size() {
            return self.fail(&waiting, refusal.stanza_error());
        }
        if !self.record.has_room(&waiting, ctx.config) {
            return self.fail(&waiting, overflow());
        }
        // A text says that its writer stays, and that the typing is over.
        self.record.leaving = false;
        self.record.typing = None;
        self.record.queue.push_back(waiting);
    }

    /// Sends what can be sent: one MESSAGE at a time, or an INVITE when there is no dialog to send in.
    pub(super) fn pump(&mut self, ctx: &mut Context<'_>) {
        while self.record.calls.iter().all(|call| call.flight.is_none()) {
            // The newest is the one to send in, as soon as it is up.
            let newest = self.record.calls.iter().rposition(is_usable);
            let up = newest.filter(|at| self.record.calls.get(*at).is_some_and(|call| call.phase == Phase::Up));
            match (newest, up) {
                (None, _) if self.record.queue.is_empty() => break,
                (None, _) => {
                    if self.invite(ctx) {
                        break;
                    }
                }
                (Some(_), None) => break,
                (_, Some(place)) => {
                    if let Some(waiting) = self.record.queue.pop_front() {
                        self.send_message(ctx, place, waiting);
                    } else if self.record.notice == Some(Notice::Due) {
                        self.record.notice = Some(Notice::Sent);
                        self.send_notice(ctx, place);
                    } else if let Some(typing) = self.record.typing.take() {
                        self.send_typing(ctx, place, typing);
                    } else {
                        if self.record.leaving {
                            self.end_all(ctx);
                        }
                        break;
                    }
                }
            }
        }
        if self.is_idle() {
            self.record.end_conversation();
        }
    }

    /// Sends INVITE for the first message of the queue; false when it could not be written, and the queue failed.
    fn invite(&mut self, ctx: &mut Context<'_>) -> bool {
        if self.make_room(ctx).is_err() {
            self.fail_queue(&overflow());
            return false;
        }
        self.record.device = self.record.queue.back().map(|waiting| waiting.from.clone());
        let thread = self.record.queue.front().and_then(|waiting| waiting.thread.clone());
        let calls = &self.record.calls;
        let in_use = |id: &str| calls.iter().any(|call| call.dialog.call_id() == id);
        let call_id = call_id_for(thread.as_deref(), in_use, ctx.entropy);
        let local_tag = self.id.new_tag(ctx.entropy);
        let sdp_id = ctx.entropy.next_u64() >> 32;
        let (local, remote) = (self.local.to_sip_uri(), aor_uri(&self.remote, ctx.config.spelling.as_ref()));
        let mut dialog = Dialog::half(&NewDialog {
            call_id: &call_id,
            local_tag: &local_tag,
            local: Address::new(&local),
            remote: Address::new(&remote),
            target: &remote,
            local_contact: &ctx.config.contact,
            secure: false,
        });
        let mut writer = dialog.request(Method::Invite);
        writer.header(HeaderName::Allow, checks::ALLOW).header(HeaderName::AllowEvents, checks::ALLOW_EVENTS);
        if ctx.config.dialect == Dialect::Microsoft {
            // A server may refuse a second session under the number of a first.
            writer.extension("Ms-Conversation-ID", &(ctx.entropy.next_u64() >> 32).to_string());
        }
        writer.header(HeaderName::ContentType, SDP_TYPE);
        let body = offer::offer(sdp_id, ctx.config).unwrap_or_default();
        if !self.send(writer, body.as_bytes(), None, Purpose::Invite { local_tag }) {
            self.fail_queue(&StanzaError::new(ErrorCondition::InternalServerError));
            return false;
        }
        let phase = Phase::Inviting { until: ctx.transaction_end(), rings: false };
        let mut call = Call::new(dialog, phase, sdp_id, ctx.epoch());
        call.thread.clone_from(&thread);
        self.record.thread = thread.or(Some(call_id));
        self.record.calls.push(call);
        true
    }

    fn send_message(&mut self, ctx: &mut Context<'_>, place: usize, waiting: Waiting) {
        let Some(call) = self.record.calls.get_mut(place) else {
            self.record.queue.push_front(waiting);
            return;
        };
        let mut writer = call.dialog.request(Method::Message);
        waiting.text().write_headers(&mut writer);
        let body = waiting.body.clone();
        call.told_typing = false;
        let stanza_id = waiting.id.clone();
        let refused = self.take_off(ctx, place, writer, body.as_bytes(), stanza_id, Some(waiting));
        if let Some(waiting) = refused {
            self.fail(&waiting, StanzaError::new(ErrorCondition::InternalServerError));
        }
    }

    fn send_notice(&mut self, ctx: &Context<'_>, place: usize) {
        let Some(call) = self.record.calls.get_mut(place) else { return };
        let mut writer = call.dialog.request(Method::Message);
        let text = OutgoingText { text: NOT_DELIVERED, lang: Some("en"), subject: None, thread: None };
        text.write_headers(&mut writer);
        self.take_off(ctx, place, writer, NOT_DELIVERED.as_bytes(), None, None);
    }

    fn send_typing(&mut self, ctx: &mut Context<'_>, place: usize, typing: bool) {
        let Some(call) = self.record.calls.get_mut(place) else { return };
        if !ctx.config.typing || !call.takes_typing || call.told_typing == typing {
            return;
        }
        call.told_typing = typing;
        let mut writer = call.dialog.request(Method::Message);
        writer.header(HeaderName::ContentType, IS_COMPOSING_TYPE);
        let body = chat_state::is_composing(typing);
        self.take_off(ctx, place, writer, body.as_bytes(), None, None);
        if let Some(flight) = self.record.calls.get_mut(place).and_then(|call| call.flight.as_mut()) {
            flight.typing = Some(typing);
        }
    }

    /// Sends a MESSAGE and remembers it; gives the message back when it could not be written.
    fn take_off(
        &mut self,
        ctx: &Context<'_>,
        place: usize,
        writer: RequestWriter,
        body: &[u8],
        stanza_id: Option<String>,
        message: Option<Waiting>,
    ) -> Option<Waiting> {
        let Some(call) = self.record.calls.get_mut(place) else { return message };
        let cseq = call.dialog.local_cseq();
        call.active_at = ctx.epoch().0;
        let until = ctx.transaction_end();
        call.flight = Some(Flight { cseq, until, message, typing: None });
        let hop = Some(call.dialog.next_hop().to_owned());
        let local_tag = call.dialog.local_tag().to_owned();
        if self.send(writer, body, hop, Purpose::Message { local_tag, cseq, until, stanza_id }) {
            return None;
        }
        self.record.calls.get_mut(place).and_then(|call| call.flight.take()).and_then(|flight| flight.message)
    }

    /// Takes word of a provisional answer to a request of ours.
    pub fn handle_provisional(&mut self, ctx: &mut Context<'_>, purpose: &Purpose) {
        let Purpose::Invite { local_tag } = purpose else { return };
        let until = ctx.after(ctx.config.answer_wait);
        let Some(call) = self.place_of(local_tag).and_then(|place| self.record.calls.get_mut(place)) else { return };
        match &mut call.phase {
            phase @ Phase::Inviting { rings: false, .. } => *phase = Phase::Inviting { until, rings: true },
            Phase::Cancelled { due: due @ true, .. } => {
                *due = false;
                self.outputs.push_back(Output::CancelInvite { local_tag: local_tag.clone() });
            }
            _ => {}
        }
    }

    /// Takes the final outcome of a request of ours. Every 2xx to an INVITE is to be given here, those of other
    /// branches too.
    pub fn handle_outcome(&mut self, ctx: &mut Context<'_>, purpose: &Purpose, outcome: &Outcome<'_>) {
        match purpose {
            Purpose::Invite { local_tag } => self.invite_outcome(ctx, local_tag, outcome),
            Purpose::Message { local_tag, cseq, .. } => self.message_outcome(ctx, local_tag, *cseq, outcome),
            Purpose::Bye { local_tag } => self.bye_outcome(local_tag),
        }
        self.pump(ctx);
    }

    /// Takes a 2xx to an INVITE of ours of which nobody may know any more: it is acknowledged, and the session that it
    /// opens is ended unless this one waits for it (RFC 3261 §13.2.2.4). `repeated` says that this 2xx was here
    /// before; its ACK was lost, and the session is ended already.
    pub fn handle_late_acceptance(&mut self, ctx: &mut Context<'_>, response: &Message, repeated: bool) {
        let local_tag = response.from_().tag().unwrap_or_default();
        let known = self.place_of(local_tag).and_then(|place| Some((place, self.record.calls.get(place)?)));
        if let Some((place, _)) = known.filter(|(_, call)| !repeated && call.dialog.call_id() == response.call_id()) {
            self.invite_accepted(ctx, place, response);
            return self.pump(ctx);
        }
        let (local, remote) = (self.local.to_sip_uri(), aor_uri(&self.remote, ctx.config.spelling.as_ref()));
        let mut dialog = Dialog::half(&NewDialog {
            call_id: response.call_id(),
            local_tag,
            local: Address::new(&local),
            remote: Address::new(&remote),
            target: &remote,
            local_contact: &ctx.config.contact,
            secure: false,
        });
        // An INVITE of ours is the first request of its dialog.
        let _ = dialog.request(Method::Invite);
        if dialog.invite_cseq() != Some(response.cseq().number) {
            return;
        }
        // Without target there is no ACK and no BYE; the peer ends it by itself.
        let Ok(mut dialog) = dialog.confirmed_by(response) else { return };
        match dialog.ack().finish(b"") {
            Ok(request) => {
                let (hop, local_tag) = (dialog.next_hop().to_owned(), dialog.local_tag().to_owned());
                self.outputs.push_back(Output::Ack { request, hop, local_tag });
            }
            Err(_) => self.outputs.push_back(Output::Alarm("ACK could not be written")),
        }
        if !repeated {
            self.say_bye(&mut dialog);
        }
    }

    fn invite_outcome(&mut self, ctx: &mut Context<'_>, local_tag: &str, outcome: &Outcome<'_>) {
        let Some(place) = self.place_of(local_tag) else {
            if let Outcome::Answer(response) = outcome
                && outcome.status().is_some_and(StatusCode::is_success)
            {
                self.handle_late_acceptance(ctx, response, false);
            }
            return;
        };
        let Some(call) = self.record.calls.get(place) else { return };
        if let Outcome::Answer(response) = outcome
            && outcome.status().is_some_and(StatusCode::is_success)
        {
            return self.invite_accepted(ctx, place, response);
        }
        match call.phase {
            Phase::Inviting { .. } => {
                self.forget(place);
                self.no_session(ctx, outcome.status(), &outcome.error());
            }
            Phase::Cancelled { .. } => self.forget(place),
            Phase::Unacknowledged { .. } | Phase::Up | Phase::Over { .. } => {}
        }
    }

    fn invite_accepted(&mut self, ctx: &mut Context<'_>, place: usize, response: &Message) {
        let Some(call) = self.record.calls.get_mut(place) else { return };
        let confirmed = call.dialog.confirmed_by(response);
        let mut dialog = match confirmed {
            Ok(dialog) => dialog,
            Err(_) if matches!(call.phase, Phase::Inviting { .. }) => {
                // Without target there is no ACK and no BYE; the peer ends it by itself.
                self.forget(place);
                return self.no_session(ctx, None, &unacceptable());
            }
            Err(_) => return,
        };
        let half = call.dialog.remote_tag().is_empty();
        let repeated = !half && call.dialog.remote_tag() == dialog.remote_tag();
        let ack = dialog.ack().finish(b"");
        let hop = dialog.next_hop().to_owned();
        let local_tag = dialog.local_tag().to_owned();
        match ack {
            Ok(request) => self.outputs.push_back(Output::Ack { request, hop, local_tag }),
            Err(_) => self.outputs.push_back(Output::Alarm("ACK could not be written")),
        }
        if repeated {
            return;
        }
        let Some(call) = self.record.calls.get_mut(place) else { return };
        match call.phase {
            Phase::Inviting { .. } => {
                call.dialog = dialog;
                call.active_at = ctx.now.epoch.0;
                call.phase = Phase::Up;
                let terms = offer::description_of(response).ok().flatten().map(|sdp| offer::read(&sdp, ctx.config));
                if let Some(Ok(terms)) = terms {
                    call.takes_typing = terms.takes_typing;
                } else {
                    self.end(ctx, place);
                    self.no_session(ctx, None, &unacceptable());
                }
            }
            Phase::Cancelled { .. } => {
                call.dialog = dialog;
                self.end(ctx, place);
            }
            // Another branch of the same INVITE.
            Phase::Unacknowledged { .. } | Phase::Up | Phase::Over { .. } => self.say_bye(&mut dialog),
        }
    }

    /// An INVITE led to nothing. Unless another dialog can take them, the waiting messages have failed.
    fn no_session(&mut self, ctx: &Context<'_>, status: Option<StatusCode>, error: &StanzaError) {
        let open = |call: &Call| matches!(call.phase, Phase::Inviting { .. } | Phase::Up) || is_unacknowledged(call);
        if self.record.calls.iter().any(open) {
            return;
        }
        if ctx.config.pager_fallback && status.is_some_and(|status| NO_SESSIONS.contains(&status.code())) {
            self.outputs.push_back(Output::NoSessions);
            for waiting in std::mem::take(&mut self.record.queue) {
                self.outputs.push_back(Output::Pager(waiting.into_outgoing()));
            }
            return;
        }
        self.fail_queue(error);
    }

    fn fail_queue(&mut self, error: &StanzaError) {
        for waiting in std::mem::take(&mut self.record.queue) {
            self.fail(&waiting, error.clone());
        }
    }

    fn message_outcome(&mut self, ctx: &mut Context<'_>, local_tag: &str, cseq: u32, outcome: &Outcome<'_>) {
        let Some(place) = self.place_of(local_tag) else { return };
        let Some(call) = self.record.calls.get_mut(place) else { return };
        let Some(flight) = call.flight.take_if(|flight| flight.cseq == cseq) else { return };
        call.active_at = ctx.now.epoch.0;
        let status = outcome.status();
        let Flight { message, typing, .. } = flight;
        match (status, message) {
            (Some(status), message) if status.is_success() => {
                if let Some(waiting) = message.filter(|_| status == StatusCode::OK) {
                    self.confirm(ctx, &waiting);
                }
            }
            (Some(StatusCode::CALL_DOES_NOT_EXIST), message) => self.lost_dialog(ctx, place, message, outcome),
            (status, message) => {
                let is_notice = message.is_none();
                if let Some(waiting) = message {
                    self.fail(&waiting, outcome.error());
                } else if typing.is_some()
                    && let Some(call) = self.record.calls.get_mut(place)
                {
                    call.takes_typing = false;
                }
                // A notice of ours that was refused for its content says nothing about the session.
                let up = self.record.calls.get(place).is_some_and(|call| call.phase == Phase::Up);
                let ends = up && status.is_none_or(|status| ENDING.contains(&status.code()));
                if ends && !(is_notice && status.is_some_and(|status| status != StatusCode::REQUEST_TIMEOUT)) {
                    self.end(ctx, place);
                }
            }
        }
        self.settle(place, local_tag);
    }

    /// The peer does not know the dialog any more: the message was not accepted, and is sent once more in another.
    fn lost_dialog(&mut self, ctx: &mut Context<'_>, place: usize, message: Option<Waiting>, outcome: &Outcome<'_>) {
        // Older dialogs are not trusted any more than this one; a newer one is.
        for older in 0..place {
            if self.record.calls.get(older).is_some_and(|call| call.phase == Phase::Up) {
                self.end(ctx, older);
            }
        }
        if let Some(call) = self.record.calls.get_mut(place) {
            call.dialog.terminate();
            // Over at once: nothing more is awaited.
            call.phase = Phase::Over { until: ctx.now.epoch.0 };
        }
        match message {
            Some(waiting) if waiting.resent => self.fail(&waiting, outcome.error()),
            Some(waiting) => self.record.queue.push_front(Waiting { resent: true, ..waiting }),
            None => {}
        }
    }

    /// Forgets a dialog that is over and has nothing outstanding.
    fn settle(&mut self, place: usize, local_tag: &str) {
        let over = self.record.calls.get(place).is_some_and(|call| {
            call.dialog.local_tag() == local_tag
                && call.flight.is_none()
                && call.dialog.state() == isthmus_sip::dialog::DialogState::Terminated
        });
        if over {
            self.forget(place);
        }
    }

    fn bye_outcome(&mut self, local_tag: &str) {
        let Some(place) = self.place_of(local_tag) else { return };
        let over = |call: &Call| matches!(call.phase, Phase::Over { .. });
        if let Some(call) = self.record.calls.get_mut(place).filter(|call| over(call)) {
            call.dialog.terminate();
            self.settle(place, local_tag);
        }
    }

    /// Gives the receipt that the sender asked for (XEP-0184).
    fn confirm(&mut self, ctx: &mut Context<'_>, waiting: &Waiting) {
        let Some(id) = waiting.id.clone().filter(|_| waiting.wants_receipt && ctx.config.receipt_on_200) else {
            return;
        };
        let mut receipt = isthmus_xmpp::Message::new(MessageType::Chat, &waiting.to, &waiting.from);
        receipt.id = Some(ctx.stanza_id().into());
        receipt.receipt = Some(Receipt::Received(id));
        self.tell(receipt);
    }

    /// Does what is due for one dialog.
    pub(super) fn call_is_due(&mut self, ctx: &mut Context<'_>, local_tag: &str) {
        let Some(place) = self.place_of(local_tag) else { return };
        let Some(call) = self.record.calls.get_mut(place) else { return };
        let timeout = Outcome::Failed(LocalFailure::Timeout);
        if let Some(flight) = call.flight.as_ref().filter(|flight| flight.until <= ctx.now.epoch.0) {
            // The process that sent it did not live to tell.
            let cseq = flight.cseq;
            return self.message_outcome(ctx, local_tag, cseq, &timeout);
        }
        match call.phase {
            Phase::Inviting { rings, .. } => {
                if rings {
                    call.phase = Phase::Cancelled { until: ctx.transaction_end(), due: false };
                    self.outputs.push_back(Output::CancelInvite { local_tag: local_tag.to_owned() });
                } else {
                    self.forget(place);
                }
                self.no_session(ctx, None, &timeout.error());
            }
            Phase::Unacknowledged { .. } | Phase::Up => self.end(ctx, place),
            Phase::Cancelled { .. } | Phase::Over { .. } => self.forget(place),
        }
    }

    /// Gives up our own unanswered INVITE because the peer's is there (§5.4). Its messages stay in the queue.
    pub(super) fn give_way(&mut self, ctx: &Context<'_>) {
        let until = ctx.transaction_end();
        for call in &mut self.record.calls {
            let Phase::Inviting { rings, .. } = call.phase else { continue };
            call.phase = Phase::Cancelled { until, due: !rings };
            if rings {
                let local_tag = call.dialog.local_tag().to_owned();
                self.outputs.push_back(Output::CancelInvite { local_tag });
            }
        }
    }

    /// Ends all dialogs in which nothing is outstanding.
    fn end_all(&mut self, ctx: &Context<'_>) {
        for place in 0..self.record.calls.len() {
            if self.record.calls.get(place).is_some_and(|call| call.phase == Phase::Up) {
                self.end(ctx, place);
            }
        }
    }

    /// Ends a dialog by BYE.
    pub(super) fn end(&mut self, ctx: &Context<'_>, place: usize) {
        let until = ctx.transaction_end();
        let Some(call) = self.record.calls.get_mut(place) else { return };
        call.phase = Phase::Over { until };
        let mut dialog = call.dialog.clone();
        self.say_bye(&mut dialog);
        if let Some(call) = self.record.calls.get_mut(place) {
            call.dialog = dialog;
        }
    }

    pub(super) fn say_bye(&mut self, dialog: &mut Dialog) {
        let writer = dialog.request(Method::Bye);
        let purpose = Purpose::Bye { local_tag: dialog.local_tag().to_owned() };
        self.send(writer, b"", Some(dialog.next_hop().to_owned()), purpose);
    }

    /// Finishes a request. What cannot be written is our own mistake: it is reported and nothing is sent.
    fn send(&mut self, writer: RequestWriter, body: &[u8], hop: Option<String>, purpose: Purpose) -> bool {
        let Ok(request) = writer.finish(body) else {
            self.outputs.push_back(Output::Alarm("request could not be written"));
            return false;
        };
        self.outputs.push_back(Output::Request { request, hop, purpose });
        true
    }
}

/// Tells whether messages can go in a dialog, now or when it is up.
pub(super) fn is_usable(call: &Call) -> bool {
    !matches!(call.phase, Phase::Cancelled { .. } | Phase::Over { .. })
}

fn is_unacknowledged(call: &Call) -> bool {
    matches!(call.phase, Phase::Unacknowledged { .. })
}

/// The error for messages whose session was answered without a stream for them.
fn unacceptable() -> StanzaError {
    StanzaError::new(ErrorCondition::NotAcceptable)
        .with_type(ErrorType::Modify)
        .with_text("the SIP user accepted the session without messages")
}
