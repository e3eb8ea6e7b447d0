//! Whether the other end of a flow may speak for the domains that a request names (interworking
//! specification §1.5): the domain of From, and those of P-Asserted-Identity.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures::future::join_all;
use isthmus_model::{Address, Domain};
use isthmus_policy::{Proof, Resolve, Sender, SenderRefusal};
use isthmus_sip::header::NameAddr;
use isthmus_sip::{Message, Transport, Uri};

use super::Runtime;
use crate::dns::Discovery;
use crate::edge::sip::flow::{Flow, Peer};

/// How many requests may wait for a look-up of their sender at a time. Anybody can make us look up, since a
/// datagram's source address is easily forged; what the cache knows takes no time.
pub(super) const MAX_LOOKUPS: usize = 64;
/// Identities that one request may assert; RFC 3325 §9.1 allows two.
const MAX_ASSERTED: usize = 4;

/// P-Asserted-Identity names something that nobody can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadAssertion;

/// What a request says of its sender, and where it came from.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) flow: Arc<Flow>,
    pub(super) remote: SocketAddr,
    domains: Vec<Domain>,
}

/// What was looked up for one domain; nothing before that.
#[derive(Debug, Default)]
struct Known {
    srv_targets: Vec<String>,
    hops: Option<Vec<(String, Vec<IpAddr>)>>,
}

impl Claim {
    /// Collects the domains that `request` claims: those of `from` and of every asserted identity. A telephone
    /// number has none.
    pub(super) fn of(
        flow: &Arc<Flow>,
        remote: SocketAddr,
        from: &Address,
        request: &Message,
    ) -> Result<Self, BadAssertion> {
        let mut claim = Self::by_domain(flow, remote, &from.bare.domain);
        for (place, asserted) in request.p_asserted_identity().enumerate() {
            let asserted = asserted.map_err(|_| BadAssertion)?;
            if place >= MAX_ASSERTED {
                return Err(BadAssertion);
            }
            if let Some(domain) = asserted_domain(&asserted)?
                && !claim.domains.contains(&domain)
            {
                claim.domains.push(domain);
            }
        }
        Ok(claim)
    }

    /// A claim to one domain.
    pub(super) fn by_domain(flow: &Arc<Flow>, remote: SocketAddr, domain: &Domain) -> Self {
        Self { flow: Arc::clone(flow), remote, domains: vec![domain.clone()] }
    }

    /// Decides with what the configuration and the connection tell. Anything but a plain yes or no needs
    /// [`Self::look_up`].
    pub(super) fn decide(&self, runtime: &Runtime) -> Sender {
        let mut answer = Sender::Allowed;
        for domain in &self.domains {
            match self.ask(runtime, domain, &Known::default()) {
                Sender::Allowed => {}
                refused @ Sender::Refused(_) => return refused,
                needs => answer = needs,
            }
        }
        answer
    }

    /// Asks the name servers for what [`Self::decide`] missed, and decides for good.
    pub(super) async fn look_up(&self, runtime: &Runtime) -> Result<(), SenderRefusal> {
        for domain in &self.domains {
            let mut known = Known::default();
            match self.ask(runtime, domain, &known) {
                Sender::NeedsSrvTargets => known.srv_targets = srv_targets(runtime, domain).await,
                Sender::NeedsHopAddresses => known.hops = Some(hop_addresses(runtime, domain).await),
                Sender::Allowed | Sender::Refused(_) => {}
            }
            match self.ask(runtime, domain, &known) {
                Sender::Allowed => {}
                Sender::Refused(refusal) => return Err(refusal),
                Sender::NeedsSrvTargets => return Err(SenderRefusal::NameMismatch),
                Sender::NeedsHopAddresses => return Err(SenderRefusal::AddressMismatch),
            }
        }
        Ok(())
    }

    fn ask(&self, runtime: &Runtime, domain: &Domain, known: &Known) -> Sender {
        let resolve = |host: &str| -> Vec<IpAddr> {
            let found = known.hops.iter().flatten().find(|(name, _)| name == host);
            found.map(|(_, addresses)| addresses.clone()).unwrap_or_default()
        };
        let resolve: Option<&Resolve<'_>> = known.hops.is_some().then_some(&resolve);
        let proof = match &self.flow.peer {
            Peer::Certificate(names) => Proof::Certificate { names: names.as_slice() },
            Peer::Address => Proof::Address { ip: self.remote.ip(), resolve },
        };
        runtime.snapshot.sender_allowed(proof, domain, &known.srv_targets)
    }
}

/// The domain of an asserted identity; `None` for an identity without one.
fn asserted_domain(asserted: &NameAddr<'_>) -> Result<Option<Domain>, BadAssertion> {
    let text = asserted.uri_str();
    if text.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("tel:")) {
        return Ok(None);
    }
    let uri = Uri::parse(text).map_err(|_| BadAssertion)?;
    let host = uri.host().ok_or(BadAssertion)?;
    Domain::parse(&host.to_string()).map(Some).map_err(|_| BadAssertion)
}

async fn srv_targets(runtime: &Runtime, domain: &Domain) -> Vec<String> {
    let discovery = Discovery::SipFederationTls { fallback: false };
    let targets = runtime.locator.locate(domain.as_str(), discovery).await.unwrap_or_default();
    targets.into_iter().map(|target| target.host).collect()
}

/// Resolves the next hops of `domain` that are names; the resolver answers from its cache while the TTL lasts.
async fn hop_addresses(runtime: &Runtime, domain: &Domain) -> Vec<(String, Vec<IpAddr>)> {
    let Some(peer) = runtime.snapshot.federated(domain) else { return Vec::new() };
    let named = peer.next_hops().iter().filter(|hop| hop.host.parse::<IpAddr>().is_err());
    join_all(named.map(async |hop| {
        let found = runtime.locator.host(&hop.host, hop.port, Transport::Udp).await.unwrap_or_default();
        (hop.host.clone(), found.into_iter().map(|target| target.addr.ip()).collect())
    }))
    .await
}
