//! Messages: SIP MESSAGE requests to stanzas and back, outside of sessions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use isthmus_interwork::address::Spelling;
use isthmus_interwork::content::ContentLimits;
use isthmus_interwork::error_map::{self, LocalFailure, SipAnswer};
use isthmus_interwork::pager::{self, Arrival, Envelope, FromXmpp, MessageRefusal, Mode, ToXmpp};
use isthmus_interwork::peer::Refuses;
use isthmus_interwork::session::{Answer, OutgoingMessage};
use isthmus_interwork::thread::call_id_for;
use isthmus_model::{Access, Address, Direction, Feature, OfflineIm, PairId, Protocol};
use isthmus_policy::profile::MessageMode;
use isthmus_policy::{Question, UserList};
use isthmus_sip::{StatusCode, Transport};
use isthmus_store::{Key, Record, StoreError};
use isthmus_xmpp::payload::Receipt;
use isthmus_xmpp::stanza::{IqKind, MessageType};
use isthmus_xmpp::{ErrorCondition, Iq, Message as MessageStanza, Stanza, StanzaError, jid};

use tracing::Instrument as _;

use super::Bridge;
use super::delivery::Parcel;
use super::inbound::Incoming;
use super::presence::PairUsers;
use super::repeats::Permit;
use super::runtime::dialect_of;
use super::session::read_refusal;
use super::spelling::read_spelling;
use super::unanswered::Waiting;
use crate::edge::sip::outbound::{ClientEvent, Leave, SendFailure};
use crate::edge::xmpp::LinkSpec;

/// How long a message waits for what is known of its peer. It goes out without that, too, and the server that sent it
/// has forgotten it already.
const KNOWN_SOON: Duration = Duration::from_millis(250);
/// Refusals of MESSAGE that say: not outside of dialogs, but perhaps in a session.
const NO_SINGLE_MESSAGES: [StatusCode; 3] =
    [StatusCode::METHOD_NOT_ALLOWED, StatusCode::UNSUPPORTED_MEDIA_TYPE, StatusCode::NOT_IMPLEMENTED];

impl Bridge {
    /// Takes a MESSAGE outside of dialogs that passed the entry checks.
    pub(super) async fn sip_message(self: Arc<Self>, incoming: Box<Incoming>) {
        let Some((permit, spelling)) = self.admit_message(&incoming).await else { return };
        self.observe_spelling(&incoming, spelling.as_ref()).await;
        let id = permit.stanza_id().unwrap_or_else(|| self.next_stanza_id());
        let arrival = Arrival {
            mode: Mode::Pager,
            from: &incoming.remote,
            to: &incoming.local,
            id: &id,
            thread: None,
            chat_states: false,
            now: super::now().epoch,
        };
        match pager::to_xmpp(&incoming.request, &arrival, &ContentLimits::default()) {
            Ok(ToXmpp::Stanza(stanza)) => self.deliver_for(*incoming, permit, stanza, false),
            // Typing outside of a session has nowhere to go.
            Ok(ToXmpp::Typing(_) | ToXmpp::Nothing) => {
                let answer = pager::accept(&incoming.request, true, Some(&incoming.to_tag));
                self.conclude(permit, &incoming.asker, &incoming.request, answer);
            }
            Err(refusal) => {
                self.metrics.malformed("content");
                let answer = incoming.answer(&SipAnswer::from(refusal));
                self.conclude(permit, &incoming.asker, &incoming.request, answer);
            }
        }
    }

    /// Hands a stanza to the local server; its fate answers the request. `in_session` tells whether the sender has
    /// a session, in which it can be told of a failure later.
    pub(super) fn deliver_for(
        self: &Arc<Self>,
        incoming: Incoming,
        permit: Permit,
        stanza: MessageStanza,
        in_session: bool,
    ) {
        self.deliver(Parcel {
            asker: incoming.asker,
            permit,
            to_tag: incoming.to_tag,
            stanza,
            in_session,
            local: incoming.local.bare.domain,
            remote: incoming.remote.bare.domain,
            reliable: incoming.transport != Transport::Udp,
            arrived: incoming.arrived,
            request: incoming.request,
        });
    }

    /// Lets a MESSAGE in, inside or outside of a session: claims it for this process and asks policy, and gives what is
    /// remembered of the sender's spelling, which is read on the way. One that does not go through is answered here.
    pub(super) async fn admit_message(self: &Arc<Self>, incoming: &Incoming) -> Option<(Permit, Option<Record>)> {
        // Side by side: one round trip.
        let keys = [Key::user(&incoming.local.bare), Key::address(&incoming.remote.bare)];
        let (claimed, known) = self.claim_and_read(incoming, &keys).await;
        let known = known.and_then(|records| self.known_for_message(incoming, records));
        let permit = match claimed {
            Ok(permit) => permit,
            Err(known) => {
                self.answer_known(incoming, known);
                return None;
            }
        };
        let known = known.map_or_else(|error| self.known_without_store(incoming, &error), Some);
        let Some((user_list, spelling)) = known else {
            let answer = incoming.answer(&super::unavailable());
            self.withdraw(permit, &incoming.asker, &incoming.request, answer);
            return None;
        };
        match self.judge_message(incoming, &user_list) {
            Ok(()) => Some((permit, spelling)),
            Err(answer) => {
                self.conclude(permit, &incoming.asker, &incoming.request, answer);
                None
            }
        }
    }

    /// Takes what a MESSAGE is judged by, the local user's list, and how its sender was spelled last, from their records.
    fn known_for_message(
        &self,
        incoming: &Incoming,
        records: Vec<Option<Record>>,
    ) -> Result<(UserList, Option<Record>), StoreError> {
        let mut records = records.into_iter();
        let list = records.next().flatten();
        self.note_list(&incoming.local.bare, list.as_ref());
        Ok((super::read_list(list.as_ref())?, records.next().flatten()))
    }

    /// What a MESSAGE is judged by when the store failed; `None` when that is not to be had. It goes on without the store
    /// where nobody can be wronged by that.
    fn known_without_store(&self, incoming: &Incoming, error: &StoreError) -> Option<(UserList, Option<Record>)> {
        self.store_failed(error);
        let away = matches!(error, StoreError::Unavailable { .. });
        let last = self.lists.last(&incoming.local.bare).filter(|_| away)?;
        Some((super::read_list(last.as_ref()).ok()?, None))
    }

    /// Asks policy about a MESSAGE. The error is the answer of one that does not go through.
    fn judge_message(&self, incoming: &Incoming, user_list: &UserList) -> Result<(), Answer> {
        let runtime = &incoming.runtime;
        let question = Question {
            direction: Direction::Inbound,
            feature: Feature::Message,
            protocol: Some(Protocol::Sip),
            remote: (&incoming.remote.bare).into(),
            local: (&incoming.local.bare).into(),
            user_list,
        };
        let decision = runtime.snapshot.decide(&question);
        if tracing::enabled!(tracing::Level::DEBUG) {
            let why = runtime.snapshot.explain(&question).lines.join("; ");
            tracing::debug!(local = %incoming.local.bare, remote = %incoming.remote.bare, access = ?decision.access, why, "message");
        }
        let tag = &incoming.to_tag;
        match decision.access {
            Access::Allow | Access::Prompt => Ok(()),
            Access::Drop => {
                self.metrics.message("sip_to_xmpp", "dropped");
                Err(pager::accept(&incoming.request, true, Some(tag)))
            }
            Access::BlockPolite => {
                self.metrics.message("sip_to_xmpp", "blocked");
                let offline = runtime.snapshot.local(&incoming.local.bare.domain).map(|home| home.policy.offline_im);
                Err(match offline {
                    Some(OfflineIm::Accept) => pager::accept(&incoming.request, true, Some(tag)),
                    _ => incoming.answer(&SipAnswer::new(StatusCode::TEMPORARILY_UNAVAILABLE)),
                })
            }
            Access::BlockReject | Access::NotPermitted => {
                self.metrics.refused(decision.cause.label());
                Err(incoming.answer(&SipAnswer::new(StatusCode::FORBIDDEN)))
            }
        }
    }

    /// Takes a stanza from a local server.
    pub(super) fn handle_stanza(self: &Arc<Self>, link: &LinkSpec, stanza: Stanza) {
        let (Some(from), Some(to)) = (stanza.from(), stanza.to()) else { return };
        let (Ok(from), Ok(to)) = (Address::from_jid(from), Address::from_jid(to)) else {
            // Servers and services ask about the component itself.
            return self.service_stanza(link, &stanza);
        };
        // Only the server's own users may speak through its link, and only to the link's domain.
        if !link.locals.contains(&from.bare.domain) || !to.bare.domain.is_within(&link.name) {
            self.metrics.refused("foreign_stanza");
            tracing::warn!(component = %link.name, from = %from.bare.domain, "stanza of a foreign sender dropped");
            return;
        }
        let users = PairUsers { local: from.bare.clone(), remote: to.bare.clone() };
        if self.hand_over_from_local(&users, &stanza) {
            return;
        }
        match stanza {
            Stanza::Presence(presence) => self.local_presence(users, presence),
            Stanza::Message(message) => self.local_message(&users, &message),
            Stanza::Iq(iq) => self.refuse_iq(&users, &iq),
        }
    }

    fn refuse_iq(self: &Arc<Self>, users: &PairUsers, iq: &Iq) {
        if !matches!(iq.kind, IqKind::Get(_) | IqKind::Set(_)) {
            return;
        }
        let reply = if iq.is_ping() {
            iq.result(None).map(Stanza::Iq)
        } else {
            let error = StanzaError::new(ErrorCondition::ServiceUnavailable);
            Stanza::Iq(iq.clone()).error_reply(error)
        };
        if let Some(reply) = reply {
            self.send_to_local(users, reply);
        }
    }

    fn service_stanza(&self, link: &LinkSpec, stanza: &Stanza) {
        let Stanza::Iq(iq) = stanza else { return };
        let reply = if iq.is_ping() {
            iq.result(None).map(Stanza::Iq)
        } else {
            Stanza::Iq(iq.clone()).error_reply(StanzaError::new(ErrorCondition::ServiceUnavailable))
        };
        let local = stanza.from().map(jid::domain).and_then(|domain| isthmus_model::Domain::parse(domain).ok());
        if let (Some(reply), Some(local)) = (reply, local)
            && let Err(error) = self.links.send(&local, &link.name, reply)
        {
            tracing::debug!(%error, "answer to a server not sent");
        }
    }

    fn local_message(self: &Arc<Self>, users: &PairUsers, message: &MessageStanza) {
        if message.kind == MessageType::Error {
            // Bounces of what we delivered are the barrier's; others have nobody waiting.
            return;
        }
        let refuse = |error: StanzaError, outcome: &'static str| {
            self.metrics.message("xmpp_to_sip", outcome);
            if let Some(reply) = Stanza::Message(message.clone()).error_reply(error) {
                self.send_to_local(users, reply);
            }
        };
        let runtime = self.runtime();
        let mode = runtime.snapshot.federated(&users.remote.domain).map(|domain| domain.settings.messages);
        // Where both ways are open, the session machine knows which one is to be tried.
        let in_session = mode.is_some_and(|mode| mode.session_first() || mode.may_fall_back());
        match pager::from_xmpp(message) {
            Err(refusal) => return refuse(refusal.stanza_error(), "refused"),
            Ok(FromXmpp::ChatState(_)) if in_session => {}
            Ok(FromXmpp::Nothing | FromXmpp::ChatState(_)) => return,
            Ok(FromXmpp::Text(_)) => {}
        }
        let decision = runtime.snapshot.decide(&Question {
            direction: Direction::Outbound,
            feature: Feature::Message,
            protocol: None,
            remote: (&users.remote).into(),
            local: (&users.local).into(),
            user_list: &UserList::EMPTY,
        });
        match decision.access {
            Access::Allow | Access::Prompt => {}
            Access::Drop | Access::BlockPolite => {
                self.metrics.message("xmpp_to_sip", "dropped");
                return;
            }
            Access::BlockReject | Access::NotPermitted => {
                let text = format!("{} is not permitted: {}", users.remote.domain, decision.cause);
                let error = StanzaError::new(ErrorCondition::NotAllowed).with_text(text);
                return refuse(error, "not_permitted");
            }
        }
        match OutgoingMessage::of(message) {
            Ok(Some(outgoing)) if in_session => self.send_in_session(users.clone(), outgoing, false),
            Ok(Some(outgoing)) => self.send_single(users.clone(), outgoing),
            Ok(None) => {}
            Err(refusal) => refuse(refusal.stanza_error(), "refused"),
        }
    }

    /// Sends a message outside of dialogs.
    pub(super) fn send_single(self: &Arc<Self>, users: PairUsers, message: OutgoingMessage) {
        // One MESSAGE at a time to a remote user (RFC 3428 §8): the lane waits for each answer.
        let lane = PairId::of(&users.remote, &users.remote);
        let bridge = Arc::clone(self);
        let (busy, waiting) = (users.clone(), message.clone());
        let span =
            tracing::info_span!("stanza", kind = "message", local = %users.local.domain, remote = %users.remote.domain);
        let open = Arc::new(self.hold_open(&message));
        let work = async move {
            bridge.send_pager(users, message, &open).await;
        };
        let submitted = self.lanes.submit(lane, work.instrument(span));
        if submitted.is_err() {
            self.refuse_outgoing(&busy, &waiting, super::too_busy(), "queue_full");
        }
    }

    async fn send_pager(self: Arc<Self>, users: PairUsers, message: OutgoingMessage, open: &Arc<Waiting>) {
        let arrived = Instant::now();
        let event = match self.pager_exchange(&users, &message, open).await {
            Ok(event) => event,
            Err(NotSent::Session) if open.may_be_told_elsewhere() => ClientEvent::Withdrawn { has_left: false },
            Err(NotSent::Session) => {
                self.metrics.message("xmpp_to_sip", "moved_to_session");
                return self.send_in_session(users, message, true);
            }
            Err(NotSent::Refused(error)) => return self.refuse_outgoing(&users, &message, error, "refused"),
        };
        self.metrics.message_seconds.observe(arrived.elapsed().as_secs_f64());
        match event {
            ClientEvent::Final(response) => {
                let status = response.status().unwrap_or(StatusCode::SERVER_INTERNAL_ERROR);
                if status.is_success() {
                    self.metrics.message("xmpp_to_sip", "delivered");
                    if status == StatusCode::OK {
                        self.confirm(&users, &message);
                    }
                } else if NO_SINGLE_MESSAGES.contains(&status)
                    && self.may_open_session(&users)
                    && !open.may_be_told_elsewhere()
                {
                    // It was not accepted, so this is no second copy.
                    if status != StatusCode::UNSUPPORTED_MEDIA_TYPE {
                        self.learn_refusal(users.remote.domain.clone(), Refuses::SingleMessages);
                    }
                    self.metrics.message("xmpp_to_sip", "moved_to_session");
                    self.send_in_session(users, message, true);
                } else {
                    self.refuse_outgoing(&users, &message, error_map::to_xmpp(&response), "refused_by_peer");
                }
            }
            ClientEvent::Timeout | ClientEvent::Provisional(_) => {
                self.refuse_outgoing(&users, &message, error_map::failure_to_xmpp(LocalFailure::Timeout), "timeout");
            }
            ClientEvent::Withdrawn { .. } => {
                tracing::info!(remote = %users.remote.domain, "a message is returned: this process may seem gone to the others");
                let error = error_map::failure_to_xmpp(LocalFailure::Timeout);
                self.refuse_outgoing(&users, &message, error, "unknown_outcome");
            }
            ClientEvent::Failed(failure) => {
                tracing::info!(remote = %users.remote.domain, %failure, "message could not be sent");
                let error = error_map::failure_to_xmpp(local_failure(&failure));
                self.refuse_outgoing(&users, &message, error, "unreachable");
            }
        }
    }

    /// Tells whether a session is tried where a single message did not go through.
    fn may_open_session(&self, users: &PairUsers) -> bool {
        let runtime = self.runtime();
        runtime
            .snapshot
            .federated(&users.remote.domain)
            .is_some_and(|domain| domain.settings.messages == MessageMode::PagerThenSession)
    }

    async fn pager_exchange(
        self: &Arc<Self>,
        users: &PairUsers,
        message: &OutgoingMessage,
        open: &Arc<Waiting>,
    ) -> Result<ClientEvent, NotSent> {
        let runtime = self.runtime();
        let refused = |condition| NotSent::Refused(StanzaError::new(condition));
        let (Some(text), Ok(from)) = (message.text(), Address::from_jid(&message.from)) else {
            return Err(refused(ErrorCondition::BadRequest));
        };
        let gone = || {
            let error = StanzaError::new(ErrorCondition::NotAllowed).with_text("the domain is no longer federated");
            NotSent::Refused(error)
        };
        let domain = runtime.snapshot.federated(&users.remote.domain).ok_or_else(gone)?;
        let route = runtime.route(&users.remote.domain, &users.local.domain).ok_or_else(gone)?;
        let may_open_session = domain.settings.messages == MessageMode::PagerThenSession;
        let (spelling, refuses) = self.known_of_peer(users).await;
        if may_open_session && refuses == Some(Refuses::SingleMessages) {
            return Err(NotSent::Session);
        }
        let call_id = call_id_for(text.thread, |_| false, &mut rand::random::<u64>);
        let tag = PairId::of(&users.local, &users.remote).new_tag(&mut rand::random::<u64>);
        let dialect = dialect_of(domain);
        let sender = if domain.settings.gr_in_from { from } else { from.bare.with_resource(None) };
        let envelope = Envelope {
            dialect,
            from: &sender,
            to: &users.remote,
            spelling: spelling.as_ref(),
            call_id: &call_id,
            from_tag: &tag,
            cseq: self.next_cseq(),
            sent_by_bytes: route.sent_by.host.len() + 6,
            max_bytes: domain.settings.pager_max_bytes(domain.transport),
        };
        let request = pager::request(&text, &envelope).map_err(|refusal| match refusal {
            MessageRefusal::TooLarge { .. } if may_open_session => NotSent::Session,
            refusal => NotSent::Refused(refusal.stanza_error()),
        })?;
        let leave = self.store.is_shared().then(|| {
            let open = Arc::clone(open);
            let leave: Leave = Box::new(move || Box::pin(std::future::ready(!open.may_be_told_elsewhere())));
            leave
        });
        Ok(self.edge.exchange(runtime.locator.clone(), route, None, request, leave).outcome().await)
    }

    /// Reads how the peer spells its user and what it refused. Without the store a message goes out all the same.
    async fn known_of_peer(&self, users: &PairUsers) -> (Option<Spelling>, Option<Refuses>) {
        let keys = [Key::address(&users.remote), Key::peer(&users.remote.domain)];
        let Ok(Ok(records)) = tokio::time::timeout(KNOWN_SOON, self.store.read(&keys)).await else {
            return (None, None);
        };
        let [spelling, peer] = &records[..] else { return (None, None) };
        (read_spelling(spelling.as_ref(), &users.remote), read_refusal(peer.as_ref()).ok().flatten())
    }

    /// Confirms a message whose sender asked for a receipt (XEP-0184).
    fn confirm(self: &Arc<Self>, users: &PairUsers, message: &OutgoingMessage) {
        let runtime = self.runtime();
        let wanted = runtime.snapshot.federated(&users.remote.domain).is_some_and(|d| d.settings.receipt_on_200);
        let (true, Some(id), true) = (message.wants_receipt, &message.id, wanted) else { return };
        let mut receipt =
            MessageStanza::new(MessageType::Chat, &message.to, &message.from).with_id(&self.next_stanza_id());
        receipt.receipt = Some(Receipt::Received(id.clone()));
        self.send_to_local(users, Stanza::Message(receipt));
    }
}

/// Why a message did not leave outside of dialogs.
enum NotSent {
    /// It has to go in a session.
    Session,
    /// It cannot go at all.
    Refused(StanzaError),
}

/// Names a failure below the transaction layer.
pub(super) fn local_failure(failure: &SendFailure) -> LocalFailure {
    match failure {
        SendFailure::Locate(_) => LocalFailure::Dns,
        SendFailure::Identity { .. } | SendFailure::ForeignHop { .. } => LocalFailure::Identity,
        SendFailure::NotAllowed { .. } | SendFailure::Connect { .. } | SendFailure::Tls { .. } | SendFailure::Lost => {
            LocalFailure::Connect
        }
        SendFailure::Unwritable(_) | SendFailure::Overload => LocalFailure::Timeout,
    }
}
