//! Whether the other end of a flow may speak for the domains that a request names (interworking
//! specification §1.5): the domain of From, and those of P-Asserted-Identity.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use isthmus_model::{Address, Domain};
use isthmus_policy::{Proof, Resolve, Sender, SenderRefusal};
use isthmus_sip::header::NameAddr;
use isthmus_sip::{Message, Transport, Uri};
use parking_lot::Mutex;
use smallvec::{SmallVec, smallvec};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Runtime;
use crate::dns::Discovery;
use crate::edge::sip::flow::{Flow, Peer};

/// How many look-ups of senders run at a time. Anybody can make us look up, since a datagram's source address is easily
/// forged.
const MAX_LOOKUPS: usize = 64;
/// How many requests may wait for a look-up at a time; the rest is refused.
const MAX_WAITING: usize = 1024;
/// How long what was looked up is good: the shortest time that the resolver keeps it, too.
const KNOWN_FOR: Duration = Duration::from_secs(30);
/// Domains of which something is known. More of them only cost look-ups.
const MAX_KNOWN: usize = 4096;
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
    domains: SmallVec<[Domain; 1]>,
}

/// A domain, and whether its next hops are asked for or its SRV targets.
type Question = (Domain, bool);

/// What was looked up of senders, and the bounds on looking up.
#[derive(Debug)]
pub(super) struct Senders {
    known: Mutex<HashMap<Question, (Instant, Arc<Known>)>>,
    lookups: Semaphore,
    waiting: Arc<Semaphore>,
}

impl Default for Senders {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            lookups: Semaphore::new(MAX_LOOKUPS),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
        }
    }
}

impl Senders {
    /// Forgets everything: another configuration may name other next hops.
    pub(super) fn clear(&self) {
        self.known.lock().clear();
    }

    /// Takes a place for a request that waits; `None` when there is none.
    pub(super) fn wait(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.waiting).try_acquire_owned().ok()
    }

    fn find(&self, key: &Question) -> Option<Arc<Known>> {
        let known = self.known.lock();
        known.get(key).filter(|(at, _)| at.elapsed() < KNOWN_FOR).map(|(_, known)| Arc::clone(known))
    }

    /// Gives what is known, without waiting if it was looked up lately.
    async fn of(&self, runtime: &Runtime, domain: &Domain, hops: bool) -> Arc<Known> {
        let key = (domain.clone(), hops);
        if let Some(known) = self.find(&key) {
            return known;
        }
        let _place = self.lookups.acquire().await;
        // Somebody may have looked it up meanwhile.
        if let Some(known) = self.find(&key) {
            return known;
        }
        let found = if hops {
            Known { hops: Some(hop_addresses(runtime, domain).await), ..Known::default() }
        } else {
            Known { srv_targets: srv_targets(runtime, domain).await, ..Known::default() }
        };
        let found = Arc::new(found);
        // A failed look-up is not kept: it would keep a partner out for longer than its name servers are away.
        if !found.is_empty() {
            let mut known = self.known.lock();
            if known.len() >= MAX_KNOWN {
                known.retain(|_, (at, _)| at.elapsed() < KNOWN_FOR);
            }
            if known.len() < MAX_KNOWN {
                known.insert(key, (Instant::now(), Arc::clone(&found)));
            }
        }
        found
    }
}

/// What was looked up for one domain; nothing before that.
#[derive(Debug, Default)]
struct Known {
    srv_targets: Vec<String>,
    hops: Option<Vec<(String, Vec<IpAddr>)>>,
}

impl Known {
    fn is_empty(&self) -> bool {
        self.srv_targets.is_empty() && self.hops.iter().flatten().all(|(_, addresses)| addresses.is_empty())
    }
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
        Self { flow: Arc::clone(flow), remote, domains: smallvec![domain.clone()] }
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
    pub(super) async fn look_up(&self, runtime: &Runtime, senders: &Senders) -> Result<(), SenderRefusal> {
        for domain in &self.domains {
            let known = match self.ask(runtime, domain, &Known::default()) {
                Sender::NeedsSrvTargets => senders.of(runtime, domain, false).await,
                Sender::NeedsHopAddresses => senders.of(runtime, domain, true).await,
                Sender::Allowed | Sender::Refused(_) => Arc::default(),
            };
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
            Peer::Certificate { names, .. } => Proof::Certificate { names: names.as_slice() },
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
