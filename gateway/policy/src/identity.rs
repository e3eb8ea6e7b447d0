//! Who may speak for a domain (interworking specification §1.5, design §6.8).
//!
//! The gateway verifies chains and reads names and addresses; here it is decided what they prove.

use std::net::IpAddr;

use isthmus_crds::{Dialect, NextHop, Scope, SipTransport};
use isthmus_model::{Domain, Protocol};

use crate::objects::FederatedDomain;
use crate::profile::PeerSettings;
use crate::snapshot::Snapshot;

/// The names by which a peer may prove who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentities {
    /// Accepted names in lower case, sorted.
    names: Vec<String>,
    /// Whether the domain asked for (below a Subtree) is a name too; only without configured names.
    own_domain: bool,
    /// Whether SRV targets inside the domain are names too.
    srv_targets: bool,
}

impl PeerIdentities {
    /// Resolves what was configured: empty means the domain itself, for the Microsoft dialect also its SRV
    /// target when that lies inside the domain, and for a peer behind one fixed edge the name of that edge.
    pub fn new(domain: &Domain, configured: &[String], settings: &PeerSettings) -> Self {
        let mut names: Vec<String> = configured.iter().map(|n| n.to_ascii_lowercase()).collect();
        let own_domain = names.is_empty();
        if own_domain {
            names.push(domain.as_str().to_owned());
            names.extend(settings.fixed_edge.map(str::to_owned));
        }
        names.sort_unstable();
        names.dedup();
        Self { names, own_domain, srv_targets: own_domain && settings.dialect == Dialect::Microsoft }
    }

    /// The fixed names, sorted.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Tells whether SRV targets of the domain count, when they lie inside it.
    pub const fn srv_targets_count(&self) -> bool {
        self.srv_targets
    }

    /// Tells whether `name` is one of them: whole name, any case, no wildcard (RFC 5922 §7.2).
    ///
    /// `domain` is the domain that the peer speaks for; `srv_targets` are the targets that a lookup of it gave.
    pub fn accept(&self, name: &str, domain: &Domain, srv_targets: &[String]) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
            || (self.own_domain && domain.as_str().eq_ignore_ascii_case(name))
            || (self.srv_targets
                && inside(name, domain)
                && srv_targets.iter().any(|target| {
                    let target = target.strip_suffix('.').unwrap_or(target);
                    target.eq_ignore_ascii_case(name)
                }))
    }
}

/// Tells whether `name` lies inside `domain`, in any case.
fn inside(name: &str, domain: &Domain) -> bool {
    Domain::parse(name).is_ok_and(|name| name.is_within(domain))
}

/// Gives the addresses of a host.
pub type Resolve<'a> = dyn Fn(&str) -> Vec<IpAddr> + 'a;

/// What a peer showed of itself.
#[derive(Clone, Copy)]
pub enum Proof<'a> {
    /// A verified certificate with these domain identities (RFC 5922 §7.1).
    Certificate {
        /// The names.
        names: &'a [String],
    },
    /// Nothing but the address that the bytes came from.
    Address {
        /// The source address.
        ip: IpAddr,
        /// Addresses of a next hop's host as they were resolved; addresses in the configuration need none. `None`
        /// before anything was resolved.
        resolve: Option<&'a Resolve<'a>>,
    },
}

/// Whether a peer may speak for a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// It may.
    Allowed,
    /// Only if a lookup shows that one of the certificate's names is an SRV target of the domain; ask again with the targets.
    NeedsSrvTargets,
    /// Only if the source address is one of a next hop with a name; ask again with the names resolved.
    NeedsHopAddresses,
    /// It may not: 403 (RFC 3261 §26.3.2.2).
    Refused(SenderRefusal),
}

/// Why a peer may not speak for a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SenderRefusal {
    /// The domain is one of ours.
    #[error("the domain is a local domain")]
    LocalDomain,
    /// No FederatedDomain of the protocol stands for the domain.
    #[error("the domain is not federated over this protocol")]
    NotFederated,
    /// None of the certificate's names is accepted for the domain.
    #[error("the certificate does not name the domain or one of its peerIdentities")]
    NameMismatch,
    /// The domain's transport is TLS, the bytes came without.
    #[error("the domain is configured for TLS")]
    TlsRequired,
    /// The source address is none of the domain's next hops.
    #[error("the source address is none of the domain's nextHops")]
    AddressMismatch,
}

impl SenderRefusal {
    /// A word for metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::LocalDomain => "local-domain",
            Self::NotFederated => "not-federated",
            Self::NameMismatch => "name-mismatch",
            Self::TlsRequired => "tls-required",
            Self::AddressMismatch => "address-mismatch",
        }
    }
}

impl Snapshot {
    /// Decides whether a SIP peer may speak for `from` (the domain of From).
    ///
    /// `srv_targets` are the targets that a lookup of the domain gave, or empty before one was made.
    pub fn sender_allowed(&self, proof: Proof<'_>, from: &Domain, srv_targets: &[String]) -> Sender {
        if self.is_ours(from) {
            return Sender::Refused(SenderRefusal::LocalDomain);
        }
        let Some(peer) = self.federated(from).filter(|p| p.protocol == Protocol::Sip) else {
            return Sender::Refused(SenderRefusal::NotFederated);
        };
        peer.sender_allowed(proof, from, srv_targets)
    }
}

impl FederatedDomain {
    /// As [`Snapshot::sender_allowed`], for a domain that was looked up already.
    pub fn sender_allowed(&self, proof: Proof<'_>, from: &Domain, srv_targets: &[String]) -> Sender {
        match proof {
            Proof::Certificate { names } => {
                let accepted = |name: &String| self.identities.accept(name, from, srv_targets);
                if names.iter().any(accepted) {
                    return Sender::Allowed;
                }
                let hopeful = srv_targets.is_empty()
                    && self.identities.srv_targets_count()
                    && names.iter().any(|name| inside(name, from));
                if hopeful { Sender::NeedsSrvTargets } else { Sender::Refused(SenderRefusal::NameMismatch) }
            }
            Proof::Address { ip, resolve } => {
                if self.transport == SipTransport::Tls {
                    return Sender::Refused(SenderRefusal::TlsRequired);
                }
                let ip = ip.to_canonical();
                let mut named = false;
                let known = self.next_hops().iter().any(|hop| match (hop.host.parse::<IpAddr>(), resolve) {
                    (Ok(own), _) => own.to_canonical() == ip,
                    (Err(_), Some(resolve)) => resolve(&hop.host).iter().any(|own| own.to_canonical() == ip),
                    (Err(_), None) => {
                        named = true;
                        false
                    }
                });
                match known {
                    true => Sender::Allowed,
                    false if named => Sender::NeedsHopAddresses,
                    false => Sender::Refused(SenderRefusal::AddressMismatch),
                }
            }
        }
    }

    /// Tells whether the host of a learned Contact or Record-Route may be a next hop of ours.
    ///
    /// It must be an accepted name, lie within the peer's own domain, or be a static next hop, so that a peer
    /// cannot point us at a third party (interworking specification §1.5).
    pub fn hop_allowed(&self, host: &str, domain: &Domain, srv_targets: &[String]) -> bool {
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if self.next_hops().iter().any(|hop| same_host(hop, host)) {
            return true;
        }
        if host.parse::<IpAddr>().is_ok() {
            return false;
        }
        self.identities.accept(host, domain, srv_targets)
            || inside(host, domain)
            || (self.scope == Scope::Subtree && inside(host, &self.domain))
            || srv_targets.iter().any(|target| target.strip_suffix('.').unwrap_or(target).eq_ignore_ascii_case(host))
    }
}

fn same_host(hop: &NextHop, host: &str) -> bool {
    match (hop.host.parse::<IpAddr>(), host.parse::<IpAddr>()) {
        (Ok(own), Ok(other)) => own.to_canonical() == other.to_canonical(),
        (Err(_), Err(_)) => hop.host.eq_ignore_ascii_case(host),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
