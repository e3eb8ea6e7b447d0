//! SIP requests from peers: the entry checks, in their order (interworking specification §1.5, §2.7, §6.3).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use isthmus_interwork::address::{self, AddressRefusal};
use isthmus_interwork::error_map::SipAnswer;
use isthmus_model::{Address, PairId, Protocol};
use isthmus_policy::{Gate, Sender};
use isthmus_sip::endpoint::{ServerTxId, checks};
use isthmus_sip::{Message, Method, ResponseWriter, StatusCode, Transport, WriteError};
use tracing::Instrument as _;

use super::presence::PairUsers;
use super::sender::Claim;
use super::{Bridge, Runtime};
use crate::edge::sip::flow::Flow;

/// What the Warning header names as its agent.
const AGENT: &str = "isthmus";

/// Who waits for the answer to a request.
#[derive(Debug, Clone)]
pub(super) enum Asker {
    /// A transaction of this process.
    Here(ServerTxId),
    /// Another process, to which its peer spoke.
    Pod {
        /// The name of its life.
        life: String,
        /// What it calls the request.
        id: u64,
    },
}

/// A request that passed the entry checks.
pub(super) struct Incoming {
    pub(super) asker: Asker,
    pub(super) request: Message,
    pub(super) local: Address,
    pub(super) remote: Address,
    pub(super) pair: PairId,
    /// A tag for answers outside of dialogs.
    pub(super) to_tag: String,
    /// How it came to the process that its peer spoke to.
    pub(super) transport: Transport,
    pub(super) arrived: Instant,
    /// How often it was given to another process that did not answer it.
    pub(super) attempts: u32,
    /// The configuration under which it came in; it is served to its end with that.
    pub(super) runtime: Arc<Runtime>,
}

impl Incoming {
    /// Tells whether the request says that it belongs to a dialog.
    pub(super) fn in_dialog(&self) -> bool {
        self.request.to().tag().is_some()
    }

    /// Names both users.
    pub(super) fn users(&self) -> PairUsers {
        PairUsers { local: self.local.bare.clone(), remote: self.remote.bare.clone() }
    }

    /// Writes an answer without a body.
    pub(super) fn answer(&self, answer: &SipAnswer) -> Result<Bytes, WriteError> {
        answer.respond(&self.request, Some(&self.to_tag), AGENT)
    }
}

impl Bridge {
    /// Takes a request from the transaction layer; every path ends in an answer.
    pub(super) fn handle_request(
        self: &Arc<Self>,
        tx: ServerTxId,
        flow: &Arc<Flow>,
        remote: SocketAddr,
        request: Message,
    ) {
        let arrived = Instant::now();
        let tag = format!("{:016x}", rand::random::<u64>());
        let runtime = self.runtime();
        let from = match address::from_name_addr(&request.from_()) {
            Ok(from) => from,
            Err(refusal) => return self.refuse_address(tx, &request, &tag, refusal, "from"),
        };
        let Ok(claim) = Claim::of(flow, remote, &from, &request) else {
            return self.refuse_sender(tx, remote, &request, &from, &tag, "asserted-identity");
        };
        match claim.decide(&runtime) {
            Sender::Allowed => self.admit(runtime, tx, flow, request, from, tag, arrived),
            Sender::Refused(refusal) => self.refuse_sender(tx, remote, &request, &from, &tag, refusal.label()),
            // A peer whose certificate names its edge only, or one without TLS behind a named next hop.
            Sender::NeedsSrvTargets | Sender::NeedsHopAddresses => {
                let place = self.senders.wait();
                let (bridge, waiting, to_tag) = (Arc::clone(self), request.clone(), tag.clone());
                // What was looked up lately takes no time; a request that does wait is not overtaken by its sender's next.
                let submitted = place.map(|place| {
                    self.sender_lanes.submit(PairId::of(&from.bare, &from.bare), async move {
                        let allowed = claim.look_up(&runtime, &bridge.senders).await;
                        drop(place);
                        match allowed {
                            Ok(()) => bridge.admit(runtime, tx, &claim.flow, waiting, from, to_tag, arrived),
                            Err(refusal) => bridge.refuse_sender(tx, remote, &waiting, &from, &to_tag, refusal.label()),
                        }
                    })
                });
                if !matches!(submitted, Some(Ok(()))) {
                    self.metrics.refused("sender_lookups");
                    let answer = super::unavailable().respond(&request, Some(&tag), AGENT);
                    self.edge.respond(tx, &request, answer);
                }
            }
        }
    }

    /// Refuses a request whose sender may not speak for a domain that it names.
    fn refuse_sender(
        &self,
        tx: ServerTxId,
        peer: SocketAddr,
        request: &Message,
        from: &Address,
        tag: &str,
        reason: &'static str,
    ) {
        self.metrics.refused(reason);
        tracing::info!(%peer, domain = %from.bare.domain, reason, "request refused: the peer may not speak for the domain");
        let answer = SipAnswer::new(StatusCode::FORBIDDEN).respond(request, Some(tag), AGENT);
        self.edge.respond(tx, request, answer);
    }

    fn refuse_address(
        &self,
        tx: ServerTxId,
        request: &Message,
        tag: &str,
        refusal: AddressRefusal,
        place: &'static str,
    ) {
        self.metrics.refused("address");
        tracing::debug!(%refusal, place, "address refused");
        let mut answer = SipAnswer::new(refusal.status());
        if let Some((code, text)) = refusal.warning() {
            answer = answer.with_warning(code, text);
        }
        self.edge.respond(tx, request, answer.respond(request, Some(tag), AGENT));
    }

    /// Goes on with a request whose sender is who it says.
    #[expect(clippy::too_many_arguments, reason = "it is the third part of `handle_request`")]
    fn admit(
        self: &Arc<Self>,
        runtime: Arc<Runtime>,
        tx: ServerTxId,
        flow: &Arc<Flow>,
        request: Message,
        remote: Address,
        to_tag: String,
        arrived: Instant,
    ) {
        let in_dialog = request.to().tag().is_some();
        let refuse = |answer: SipAnswer| {
            self.edge.respond(tx, &request, answer.respond(&request, Some(&to_tag), AGENT));
        };
        if !in_dialog && request.method() == Method::Options {
            let answer = checks::refuse_require(&request, &to_tag);
            let answer = answer.unwrap_or_else(|| checks::answer_options(&request, &to_tag));
            return self.edge.respond(tx, &request, answer.finish(b""));
        }
        let local = match local_of(&request) {
            Ok(local) => local,
            Err(refusal) => return self.refuse_address(tx, &request, &to_tag, refusal, "to"),
        };
        if let Err(gate) = runtime.snapshot.permitted(&remote.bare.domain, &local.bare.domain, Some(Protocol::Sip)) {
            self.metrics.refused(gate.label());
            tracing::info!(from = %remote.bare.domain, to = %local.bare.domain, reason = %gate, "request refused");
            let status = if matches!(gate, Gate::NotLocal) { StatusCode::NOT_FOUND } else { StatusCode::FORBIDDEN };
            return refuse(SipAnswer::new(status));
        }
        if let Some(answer) = checks::refuse_require(&request, &to_tag) {
            return self.edge.respond(tx, &request, answer.finish(b""));
        }
        if let Some(partner) = runtime.snapshot.federated(&remote.bare.domain)
            && let Err(wait) = self.rates.take(&runtime.pool, partner, request.method(), in_dialog, arrived)
        {
            self.metrics.refused("rate");
            tracing::debug!(domain = %partner.domain, method = request.method().as_str(), "request refused: more than the limit of its domain in a second");
            let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
            return refuse(SipAnswer::new(StatusCode::SERVICE_UNAVAILABLE).with_retry_after(seconds));
        }
        let pair = PairId::of(&local.bare, &remote.bare);
        if in_dialog && request.to().tag().and_then(PairId::from_tag) != Some(pair) {
            return refuse(SipAnswer::new(StatusCode::CALL_DOES_NOT_EXIST));
        }
        let incoming = Incoming {
            asker: Asker::Here(tx),
            request,
            local,
            remote,
            pair,
            to_tag,
            transport: flow.transport,
            arrived,
            attempts: 0,
            runtime,
        };
        self.dispatch(incoming);
    }

    /// Puts a request into the lane of its pair.
    pub(super) fn dispatch(self: &Arc<Self>, incoming: Incoming) {
        let (asker, request, tag) = (incoming.asker.clone(), incoming.request.clone(), incoming.to_tag.clone());
        let refused = match (request.method(), incoming.in_dialog()) {
            (Method::Subscribe | Method::Message | Method::Invite, _)
            | (Method::Notify | Method::Bye | Method::Info | Method::Options, true) => None,
            (Method::Notify | Method::Bye | Method::Info, false) => {
                Some(incoming.answer(&SipAnswer::new(StatusCode::CALL_DOES_NOT_EXIST)))
            }
            _ => {
                let answer = checks::refuse_method(&request, &tag).unwrap_or_else(|| {
                    ResponseWriter::for_request(&request, StatusCode::NOT_ACCEPTABLE_HERE, None, Some(&tag))
                });
                Some(answer.finish(b""))
            }
        };
        if let Some(answer) = refused {
            return self.respond(&asker, &request, answer);
        }
        // One span for a transaction, across both edges. Addresses stay out of it.
        let span = tracing::info_span!(
            "sip_request",
            method = request.method().as_str(),
            local = %incoming.local.bare.domain,
            remote = %incoming.remote.bare.domain,
        );
        let (bridge, pair) = (Arc::clone(self), incoming.pair);
        // In a box, since each function that it is handed on to would keep room for it in the job.
        let incoming = Box::new(incoming);
        let submitted = self.lanes.submit(pair, async move { bridge.route(incoming).await }.instrument(span));
        if submitted.is_err() {
            self.metrics.refused("lane_full");
            let answer = super::unavailable().respond(&request, Some(&tag), AGENT);
            self.respond(&asker, &request, answer);
        }
    }

    /// Works on a request in the lane of its pair.
    pub(super) async fn work(self: Arc<Self>, incoming: Box<Incoming>) {
        // A job has room for the largest of its branches, and is moved and stored for each request: those that come less often
        // have a room of their own.
        match (incoming.request.method(), incoming.in_dialog()) {
            (Method::Message, false) => self.sip_message(incoming).await,
            (Method::Subscribe, _) => Box::pin(self.sip_subscribe(*incoming)).await,
            (Method::Notify, _) => Box::pin(self.sip_notify(*incoming)).await,
            (Method::Message, true) => Box::pin(self.sip_session_message(*incoming)).await,
            _ => Box::pin(self.sip_session(*incoming)).await,
        }
    }
}

/// Reads whom a request is for. Inside a dialog the Request-URI is our Contact; To still names the user.
pub(super) fn local_of(request: &Message) -> Result<Address, AddressRefusal> {
    let to = address::from_name_addr(&request.to());
    if request.to().tag().is_some() {
        return to;
    }
    address::from_request_uri(request.request_uri()).and_then(|local| to.map(|_| local))
}
