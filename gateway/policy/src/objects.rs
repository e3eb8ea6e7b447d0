//! The objects of a realm as the gateway uses them: parsed, with all defaults filled in.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use isthmus_crds::{
    ClientTls, DaneMode, EffectiveLimits, EffectivePorts, FederationSpec, NextHop, Role, Scope, SipTransport,
    XmppTlsLevel,
};
use isthmus_model::{DenyMode, Domain, OfflineIm, Protocol};

use crate::identity::PeerIdentities;
use crate::profile::PeerSettings;

/// What all pools of the realm share.
#[derive(Debug, Clone, PartialEq)]
pub struct Federation {
    /// The object's specification; telemetry, trust, credentials and state store are read from it.
    pub spec: FederationSpec,
    /// The namespace that the realm is; `default` where the objects name none.
    pub namespace: String,
    /// Name servers; empty means those of the system.
    pub resolver: Vec<SocketAddr>,
}

/// A set of protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Protocols {
    /// SIP is in the set.
    pub sip: bool,
    /// XMPP is in the set.
    pub xmpp: bool,
}

impl Protocols {
    /// Both.
    pub const ALL: Self = Self { sip: true, xmpp: true };

    /// Tells whether the set holds `protocol`.
    pub const fn contains(self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Sip => self.sip,
            Protocol::Xmpp => self.xmpp,
        }
    }
}

impl FromIterator<Protocol> for Protocols {
    fn from_iter<I: IntoIterator<Item = Protocol>>(protocols: I) -> Self {
        let mut set = Self::default();
        for protocol in protocols {
            match protocol {
                Protocol::Sip => set.sip = true,
                Protocol::Xmpp => set.xmpp = true,
            }
        }
        set
    }
}

/// A set of gateway nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// What it does towards partners.
    pub roles: Protocols,
    /// Number of nodes.
    pub nodes: u32,
    /// Number of pods as the object says it.
    pub replicas: Option<u32>,
    /// Whether an autoscaler sets the number of pods.
    pub autoscaled: bool,
    /// Host name template with `{node}`, `{pool}` and `{domain}`; always there for the role SIP.
    pub hostname: Option<String>,
    /// Addresses that listeners bind; empty means all.
    pub bind: Vec<IpAddr>,
    /// Ports of the listeners.
    pub ports: EffectivePorts,
    /// Port of the admin listener.
    pub admin_port: u16,
    /// Secrets with certificates; the first answers without SNI.
    pub tls_secrets: Vec<String>,
    /// Bounds of one pod.
    pub limits: EffectiveLimits,
    /// Time between readiness going away and listeners closing.
    pub settle: Duration,
    /// Longest time for finishing work after that.
    pub grace: Duration,
    /// What is logged.
    pub log_filter: String,
    /// Ranges from which the PROXY protocol is accepted.
    pub trusted_proxies: Vec<IpNet>,
    /// Ranges of peers that may be dialled although private.
    pub allowed_ranges: Vec<IpNet>,
}

impl Pool {
    /// Number of pods, given whether the realm has a shared state store.
    pub fn pods(&self, has_state_store: bool) -> u32 {
        self.replicas.unwrap_or_else(|| if has_state_store { self.nodes.max(2) } else { 1 })
    }

    /// Our SIP name for a local domain: Via sent-by and Contact host of its dialogs (design §6.6).
    ///
    /// `None` when the pool has no host name.
    pub fn sip_name(&self, local: &Domain) -> Option<String> {
        self.host(0, local)
    }

    /// The host name of a node for a local domain.
    pub fn host(&self, node: u32, local: &Domain) -> Option<String> {
        let template = self.hostname.as_deref()?;
        Some(
            template
                .replace("{domain}", local.as_str())
                .replace("{pool}", &self.name)
                .replace("{node}", &node.to_string()),
        )
    }
}

pub(crate) fn role_protocol(role: Role) -> Protocol {
    match role {
        Role::Sip => Protocol::Sip,
        Role::Xmpp => Protocol::Xmpp,
    }
}

/// What happens to a stranger when nothing else decides.
pub use isthmus_crds::DefaultDecision;

/// The policy of a local domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalPolicy {
    /// When nothing else decides.
    pub default: DefaultDecision,
    /// How a refusal looks to the refused.
    pub deny_mode: DenyMode,
    /// Longest wait for the user's answer.
    pub pending_max: Duration,
    /// What a sender is told when the user is offline.
    pub offline_im: OfflineIm,
    /// Whether answers of users enter their list.
    pub record_decisions: bool,
}

/// Where the users of a local domain live.
#[derive(Debug, Clone, PartialEq)]
pub enum Backend {
    /// An XMPP server with component links.
    Component(ComponentBackend),
    /// An XMPP server with trusted server-to-server links.
    XmppServer(XmppServerBackend),
}

/// An XMPP server that takes external components (XEP-0114).
#[derive(Debug, Clone, PartialEq)]
pub struct ComponentBackend {
    /// Its name or address.
    pub host: String,
    /// Its port for components.
    pub port: u16,
    /// Key in the credentials Secret.
    pub secret_key: String,
    /// Keys for single federated domains, sorted by domain.
    pub secret_keys: Vec<(Domain, String)>,
    /// The component for the domain's own needs.
    pub service_address: Domain,
    /// TLS towards the server.
    pub tls: Option<ClientTls>,
}

impl ComponentBackend {
    /// The key in the credentials Secret for the component that carries `name`.
    pub fn secret_key_for(&self, name: &Domain) -> &str {
        self.secret_keys
            .binary_search_by(|(domain, _)| domain.cmp(name))
            .ok()
            .and_then(|at| self.secret_keys.get(at))
            .map_or(&self.secret_key, |(_, key)| key)
    }
}

/// An XMPP server that trusts our server-to-server links.
#[derive(Debug, Clone, PartialEq)]
pub struct XmppServerBackend {
    /// Its name or address.
    pub host: String,
    /// Its port for servers.
    pub port: u16,
    /// What is expected of its certificate.
    pub tls: Option<ClientTls>,
}

/// A domain whose users are ours.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalDomain {
    /// The domain.
    pub domain: Domain,
    /// Where its users live.
    pub backend: Backend,
    /// What happens to strangers.
    pub policy: LocalPolicy,
    /// Chat node aliases below it, sorted.
    pub chat_aliases: Vec<Domain>,
    /// Protocols offered to partners.
    pub protocols: Protocols,
    /// Secret with a certificate for this domain only.
    pub tls_secret: Option<String>,
    /// Why the status says that the domain is not ours (design §6.15), one of the claim reasons.
    pub claim_refused: Option<&'static str>,
}

/// How the servers of a domain are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// By DNS.
    Dns,
    /// These and nothing else, in order.
    Static(Vec<NextHop>),
}

/// What is particular to an XMPP peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XmppPeer {
    /// What is demanded of TLS.
    pub tls: XmppTlsLevel,
    /// Whether a certificate may prove the domain.
    pub sasl_external: bool,
    /// Whether dialback may prove the domain.
    pub dialback: bool,
    /// Use of DANE; `None` follows the Federation.
    pub dane: Option<DaneMode>,
}

/// A remote domain and the one protocol used with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FederatedDomain {
    /// The domain.
    pub domain: Domain,
    /// The protocol.
    pub protocol: Protocol,
    /// Whether names below it belong to it.
    pub scope: Scope,
    /// Local domains that may talk to it, sorted; empty means all.
    pub local_domains: Vec<Domain>,
    /// The pool through which it is reached.
    pub pool: Option<String>,
    /// Refused for now.
    pub suspended: bool,
    /// Most messages a second from it.
    pub messages_per_second: Option<u32>,
    /// The switches of its peer.
    pub settings: PeerSettings,
    /// Transport towards a SIP peer.
    pub transport: SipTransport,
    /// How its servers are found.
    pub route: Route,
    /// Names by which the peer may prove who it is.
    pub identities: PeerIdentities,
    /// What is particular to an XMPP peer; `None` for SIP.
    pub xmpp: Option<XmppPeer>,
}

impl FederatedDomain {
    /// Tells whether a local domain may talk to it.
    pub fn admits(&self, local: &Domain) -> bool {
        self.local_domains.is_empty() || self.local_domains.binary_search(local).is_ok()
    }

    /// The static next hops; empty when DNS finds the servers.
    pub fn next_hops(&self) -> &[NextHop] {
        match &self.route {
            Route::Dns => &[],
            Route::Static(hops) => hops,
        }
    }

    /// Largest pager message for this peer, in bytes of the whole request.
    pub fn pager_max_bytes(&self) -> usize {
        self.settings.pager_max_bytes(self.transport)
    }
}
