//! SIP requests from peers: the entry checks, in their order (interworking specification §1.5, §2.7, §6.3).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use isthmus_interwork::address::{self, AddressRefusal};
use isthmus_interwork::error_map::SipAnswer;
use isthmus_model::{Address, Domain, PairId, Protocol};
use isthmus_policy::{Gate, Proof, Sender};
use isthmus_sip::endpoint::{ServerTxId, checks};
use isthmus_sip::{Message, Method, ResponseWriter, StatusCode, WriteError};
use tracing::Instrument as _;

use super::{Bridge, Runtime};
use crate::dns::Discovery;
use crate::edge::sip::flow::{Flow, Peer};

/// What the Warning header names as its agent.
const AGENT: &str = "isthmus";

/// A request that passed the entry checks.
pub(super) struct Incoming {
    pub(super) tx: ServerTxId,
    pub(super) request: Message,
    pub(super) local: Address,
    pub(super) remote: Address,
    pub(super) pair: PairId,
    /// A tag for answers outside of dialogs.
    pub(super) to_tag: String,
    pub(super) flow: Arc<Flow>,
    pub(super) arrived: Instant,
    /// The configuration under which it came in; it is served to its end with that.
    pub(super) runtime: Arc<Runtime>,
}

impl Incoming {
    /// Tells whether the request says that it belongs to a dialog.
    pub(super) fn in_dialog(&self) -> bool {
        self.request.to().tag().is_some()
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
        let sender = sender_of(&runtime, flow, remote, &from.bare.domain, &[]);
        match sender {
            Sender::Allowed => self.admit(runtime, tx, flow, request, from, tag, arrived),
            Sender::Refused(refusal) => {
                self.metrics.refused(refusal.label());
                tracing::info!(peer = %remote, domain = %from.bare.domain, %refusal, "request refused");
                let answer = SipAnswer::new(StatusCode::FORBIDDEN).respond(&request, Some(&tag), AGENT);
                self.respond(tx, &request, answer);
            }
            Sender::NeedsSrvTargets => {
                // Rare: the first requests of a peer whose certificate names its edge only.
                let (bridge, flow) = (Arc::clone(self), Arc::clone(flow));
                tokio::spawn(async move {
                    bridge.look_up_sender(runtime, tx, flow, remote, request, from, tag, arrived).await;
                });
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "it is the second half of `handle_request`")]
    async fn look_up_sender(
        self: Arc<Self>,
        runtime: Arc<Runtime>,
        tx: ServerTxId,
        flow: Arc<Flow>,
        remote: SocketAddr,
        request: Message,
        from: Address,
        tag: String,
        arrived: Instant,
    ) {
        let discovery = Discovery::SipFederationTls { fallback: false };
        let targets = runtime.locator.locate(from.bare.domain.as_str(), discovery).await.unwrap_or_default();
        let targets: Vec<String> = targets.into_iter().map(|target| target.host).collect();
        if sender_of(&runtime, &flow, remote, &from.bare.domain, &targets) == Sender::Allowed {
            return self.admit(runtime, tx, &flow, request, from, tag, arrived);
        }
        self.metrics.refused("name-mismatch");
        tracing::info!(peer = %remote, domain = %from.bare.domain, "certificate does not stand for the sender's domain");
        let answer = SipAnswer::new(StatusCode::FORBIDDEN).respond(&request, Some(&tag), AGENT);
        self.respond(tx, &request, answer);
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
        self.respond(tx, request, answer.respond(request, Some(tag), AGENT));
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
            self.respond(tx, &request, answer.respond(&request, Some(&to_tag), AGENT));
        };
        if !in_dialog && request.method() == Method::Options {
            let answer = checks::refuse_require(&request, &to_tag);
            let answer = answer.unwrap_or_else(|| checks::answer_options(&request, &to_tag));
            return self.respond(tx, &request, answer.finish(b""));
        }
        // Inside a dialog the Request-URI is our Contact; To still names the user.
        let local = if in_dialog {
            address::from_name_addr(&request.to())
        } else {
            address::from_request_uri(request.request_uri())
                .and_then(|local| address::from_name_addr(&request.to()).map(|_| local))
        };
        let local = match local {
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
            return self.respond(tx, &request, answer.finish(b""));
        }
        let pair = PairId::of(&local.bare, &remote.bare);
        if in_dialog && request.to().tag().and_then(PairId::from_tag) != Some(pair) {
            return refuse(SipAnswer::new(StatusCode::CALL_DOES_NOT_EXIST));
        }
        let incoming = Incoming { tx, request, local, remote, pair, to_tag, flow: Arc::clone(flow), arrived, runtime };
        self.dispatch(incoming);
    }

    fn dispatch(self: &Arc<Self>, incoming: Incoming) {
        let bridge = Arc::clone(self);
        let (tx, request, tag) = (incoming.tx, incoming.request.clone(), incoming.to_tag.clone());
        let pair = incoming.pair;
        // One span for a transaction, across both edges. Addresses stay out of it.
        let span = tracing::info_span!(
            "sip_request",
            method = request.method().as_str(),
            local = %incoming.local.bare.domain,
            remote = %incoming.remote.bare.domain,
        );
        let submitted = match (request.method(), incoming.in_dialog()) {
            (Method::Subscribe, _) => {
                self.lanes.submit(pair, async move { bridge.sip_subscribe(incoming).await }.instrument(span))
            }
            (Method::Notify, true) => {
                self.lanes.submit(pair, async move { bridge.sip_notify(incoming).await }.instrument(span))
            }
            (Method::Message, false) => {
                self.lanes.submit(pair, async move { bridge.sip_message(incoming).await }.instrument(span))
            }
            (Method::Message, true) => {
                self.lanes.submit(pair, async move { bridge.sip_session_message(incoming).await }.instrument(span))
            }
            (Method::Invite, _) | (Method::Bye | Method::Info | Method::Options, true) => {
                self.lanes.submit(pair, async move { bridge.sip_session(incoming).await }.instrument(span))
            }
            (Method::Notify | Method::Bye | Method::Info, false) => {
                let answer = SipAnswer::new(StatusCode::CALL_DOES_NOT_EXIST);
                return self.respond(tx, &request, incoming.answer(&answer));
            }
            _ => {
                let answer = checks::refuse_method(&request, &tag).unwrap_or_else(|| {
                    ResponseWriter::for_request(&request, StatusCode::NOT_ACCEPTABLE_HERE, None, Some(&tag))
                });
                return self.respond(tx, &request, answer.finish(b""));
            }
        };
        if submitted.is_err() {
            self.metrics.refused("lane_full");
            let answer = SipAnswer::new(StatusCode::SERVICE_UNAVAILABLE).respond(&request, Some(&tag), AGENT);
            self.respond(tx, &request, answer);
        }
    }
}

pub(super) fn sender_of(
    runtime: &Runtime,
    flow: &Flow,
    remote: SocketAddr,
    from: &Domain,
    srv_targets: &[String],
) -> Sender {
    // Next hops with names are resolved when requests leave; inbound requests match addresses only.
    let resolve = |_: &str| Vec::<IpAddr>::new();
    let proof = match &flow.peer {
        Peer::Certificate(names) => Proof::Certificate { names: names.as_slice() },
        Peer::Address => Proof::Address { ip: remote.ip(), resolve: &resolve },
    };
    runtime.snapshot.sender_allowed(proof, from, srv_targets)
}
