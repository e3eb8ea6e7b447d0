//! FederatedDomain: a remote domain and the one protocol used with it.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Condition;
use crate::overrides::Overrides;
use crate::peer_type::PeerType;
use crate::rules;
use crate::schema::{self, Keyed};
use crate::shared::{DaneMode, Discovery, NextHop, PoolRef, Protocol, is_empty};

/// A remote domain and the one protocol used with it. Its name is the domain.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "isthmus.dev",
    version = "v1alpha1",
    kind = "FederatedDomain",
    plural = "federateddomains",
    shortname = "fdom",
    category = "isthmus",
    namespaced,
    status = "FederatedDomainStatus",
    derive = "PartialEq",
    doc = "FederatedDomain is a remote domain and the one protocol used with it. Its name is the domain.",
    validation = rules::FEDERATED_DOMAIN_NAME_IS_DOMAIN,
    selectable = ".spec.protocol",
    selectable = ".spec.poolRef.name",
    selectable = ".spec.suspended",
    printcolumn(name = "Protocol", type_ = "string", json_path = ".spec.protocol"),
    printcolumn(name = "Peer", type_ = "string", json_path = ".status.peerType"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.peer.state"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = rules::FEDERATED_DOMAIN_IS_IMMUTABLE,
    validation = rules::PROTOCOL_IS_IMMUTABLE,
    validation = rules::SECTION_OF_THE_PROTOCOL
)]
#[serde(rename_all = "camelCase")]
pub struct FederatedDomainSpec {
    /// The domain in lower-case A-labels, for example `partner.example`; equal to the object's name and immutable. Required.
    #[schemars(schema_with = "schema::one::<schema::Domain>")]
    pub domain: String,
    /// SIP or XMPP; immutable: to change it, delete the object and create it again. Required.
    pub protocol: Protocol,
    /// Exact for this name only, Subtree for all names below it too; the most specific object wins. Default: Exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// Local domains that may talk to it, at most 64, for example `[corp.example]`. Default: all.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::set::<schema::Domain, 1, 64>")]
    pub local_domains: Vec<String>,
    /// The pool through which the domain is reached. Default: all pools with the role, evenly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_ref: Option<PoolRef>,
    /// Refuses the domain politely and keeps the object. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<bool>,
    /// Bounds on what the domain may send. Default: none but those of the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<DomainLimits>,
    /// Switches over the values of the peer type's profile, for example `{imMode: Pager}`. Default: the profile's values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrides: Option<Overrides>,
    /// How the domain is reached over SIP. Required with protocol SIP, not allowed otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sip: Option<SipPeer>,
    /// How the domain is reached over XMPP; `{}` takes the defaults. Required with protocol XMPP, not allowed otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xmpp: Option<XmppPeer>,
}

impl FederatedDomainSpec {
    /// Exact when not said.
    pub fn scope(&self) -> Scope {
        self.scope.unwrap_or(Scope::Exact)
    }

    /// True when the domain is refused for now.
    pub fn suspended(&self) -> bool {
        self.suspended.unwrap_or(false)
    }

    /// The peer type: as said, else the generic one of the protocol.
    pub fn peer_type(&self) -> PeerType {
        match self.protocol {
            Protocol::Sip => self.sip.as_ref().map_or(PeerType::SimpleGeneric, |sip| sip.peer_type),
            Protocol::Xmpp => self.xmpp.as_ref().and_then(|xmpp| xmpp.peer_type).unwrap_or(PeerType::XmppGeneric),
        }
    }

    /// True when this local domain may talk to it.
    pub fn admits(&self, local_domain: &str) -> bool {
        self.local_domains.is_empty() || self.local_domains.iter().any(|domain| domain == local_domain)
    }
}

string_enum! {
    /// Which names an object stands for.
    pub enum Scope {
        /// This name only.
        Exact = "Exact",
        /// This name and all below it.
        Subtree = "Subtree",
    }
}

/// Bounds on what a federated domain may send. A change is taken without a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DomainLimits {
    /// Messages a second from the domain, 1 to 100000; what is beyond is answered 503 with Retry-After. Default: no bound
    /// of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int::<1, 100000>")]
    pub messages_per_second: Option<u32>,
}

string_enum! {
    /// Transport towards a SIP peer.
    pub enum SipTransport {
        /// TLS over TCP.
        Tls = "TLS",
        /// TCP.
        Tcp = "TCP",
        /// UDP.
        Udp = "UDP",
    }
}

/// How a domain is reached over SIP.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[x_kube(
    validation = rules::SIP_NEXT_HOPS_GO_WITH_STATIC,
    validation = rules::MICROSOFT_EDGES_WANT_TLS,
    validation = rules::PLAIN_GOES_WITH_STATIC
)]
#[serde(rename_all = "camelCase")]
pub struct SipPeer {
    /// What stands at the other end, for example `Sfb2015` or `Kamailio`; `SimpleGeneric` where none fits. Required.
    #[schemars(schema_with = "schema::sip_peer_type")]
    pub peer_type: PeerType,
    /// How its servers are found: DNS or Static. Default: DNS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<Discovery>,
    /// Servers to dial in order, at most 8, for example `[{host: edge.partner.example, port: 5061}]`. Required with discovery
    /// Static, not allowed otherwise.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::keyed::<NextHop, 0, 8>")]
    pub next_hops: Vec<NextHop>,
    /// TLS, TCP or UDP; without TLS only with discovery Static. Default: TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<SipTransport>,
    /// Names in certificates that the peer may present, at most 16, for example `[edge.partner.example]`. Default: the domain;
    /// for Microsoft peers also the SRV target when it lies inside the domain; for M365 its fixed edge name.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::set::<schema::PeerIdentity, 0, 16>")]
    pub peer_identities: Vec<String>,
}

impl SipPeer {
    /// DNS when not said.
    pub fn discovery(&self) -> Discovery {
        self.discovery.unwrap_or(Discovery::Dns)
    }

    /// TLS when not said.
    pub fn transport(&self) -> SipTransport {
        self.transport.unwrap_or(SipTransport::Tls)
    }
}

string_enum! {
    /// What is demanded of TLS on XMPP links.
    pub enum XmppTlsLevel {
        /// TLS with a certificate that proves the domain.
        Verified = "Verified",
        /// TLS with any certificate; the domain may be proved by dialback.
        Required = "Required",
        /// TLS where the peer offers it.
        Optional = "Optional",
        /// No TLS.
        Disabled = "Disabled",
    }
}

string_enum! {
    /// How servers prove their domain.
    pub enum AuthMethod {
        /// SASL EXTERNAL with the certificate.
        SaslExternal = "SASLExternal",
        /// Server dialback.
        Dialback = "Dialback",
    }
}

/// How servers prove their domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct XmppAuth {
    /// Methods that are accepted and offered. Default: `[SASLExternal, Dialback]`.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::set::<AuthMethod, 1, 2>")]
    pub methods: Vec<AuthMethod>,
}

/// How a domain is reached over XMPP.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[x_kube(
    validation = rules::XMPP_NEXT_HOPS_GO_WITH_STATIC,
    validation = rules::SASL_EXTERNAL_NEEDS_TLS
)]
#[serde(rename_all = "camelCase")]
pub struct XmppPeer {
    /// What stands at the other end, for example `Prosody` or `SametimeXmpp`. Default: XmppGeneric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::xmpp_peer_type")]
    pub peer_type: Option<PeerType>,
    /// What is demanded of TLS: Verified, Required, Optional or Disabled. Default: Required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<XmppTlsLevel>,
    /// How servers prove their domain. Default: by certificate, else by dialback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<XmppAuth>,
    /// How its servers are found: DNS or Static. Default: DNS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<Discovery>,
    /// Servers to dial in order, at most 8, for example `[{host: xmpp.partner.example, port: 5269}]`. Required with discovery
    /// Static, not allowed otherwise.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::keyed::<NextHop, 0, 8>")]
    pub next_hops: Vec<NextHop>,
    /// Use of DANE for this domain: "Off" (in quotes), Opportunistic or Require. Default: that of the Federation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dane: Option<DaneMode>,
}

impl XmppPeer {
    /// DNS when not said.
    pub fn discovery(&self) -> Discovery {
        self.discovery.unwrap_or(Discovery::Dns)
    }

    /// Required when not said.
    pub fn tls(&self) -> XmppTlsLevel {
        self.tls.unwrap_or(XmppTlsLevel::Required)
    }

    /// True when this method may prove the domain.
    pub fn accepts(&self, method: AuthMethod) -> bool {
        self.auth.as_ref().is_none_or(|auth| auth.methods.is_empty() || auth.methods.contains(&method))
    }
}

/// What was observed of a federated domain.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FederatedDomainStatus {
    /// Generation of the object that this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions: Accepted, ResolvedRefs, Programmed, Reachable, Ready and warnings.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub conditions: Vec<Condition>,
    /// The peer type in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_type: Option<PeerType>,
    /// What is known of the peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<PeerStatus>,
}

string_enum! {
    /// State of the link to a peer.
    pub enum PeerState {
        /// No traffic yet or lately.
        Idle = "Idle",
        /// Being reached.
        Connecting = "Connecting",
        /// Up.
        Connected = "Connected",
        /// Up through some targets or gateways only.
        Degraded = "Degraded",
        /// Not to be reached.
        Unreachable = "Unreachable",
        /// It refuses us.
        Refused = "Refused",
        /// We refuse it for now.
        Suspended = "Suspended",
    }
}

/// What is known of a peer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// State of the link.
    pub state: PeerState,
    /// Connections from it, rounded to 1, 2, 5, 10, 20 and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbound_connections: Option<u32>,
    /// Connections to it, rounded likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound_connections: Option<u32>,
    /// When a connection was last made, to the minute, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_connected_time: Option<String>,
    /// When something last came from it, to the minute, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_inbound_time: Option<String>,
    /// How it was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<PeerDiscovery>,
    /// TLS of the newest connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<PeerTls>,
    /// The newest failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<PeerError>,
    /// Gateways whose view differs from `state`, at most 32.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::keyed::<GatewayView, 0, 32>")]
    pub gateways: Vec<GatewayView>,
}

/// How a peer was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerDiscovery {
    /// The name that was asked for, for example `_sipfederationtls._tcp.partner.example`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What was found, at most 16.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::keyed::<DiscoveredTarget, 0, 16>")]
    pub targets: Vec<DiscoveredTarget>,
    /// Whether the answer was signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure: Option<bool>,
    /// When it was asked, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

/// One server of a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiscoveredTarget {
    /// Its name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Priority of the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u16>,
    /// Weight of the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// Whether it could be reached; absent before the first attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachable: Option<bool>,
}

impl Keyed for DiscoveredTarget {
    const KEYS: &'static [&'static str] = &["host", "port"];
}

string_enum! {
    /// What proved the identity of a peer.
    pub enum VerifiedBy {
        /// A certificate chain to a trust anchor.
        Pkix = "PKIX",
        /// A TLSA record.
        Dane = "DANE",
        /// Dialback.
        Dialback = "Dialback",
        /// Nothing but its address.
        None = "None",
    }
}

/// TLS of a connection to a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerTls {
    /// Version of TLS, for example `1.3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Name in the certificate that matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_name: Option<String>,
    /// End of the certificate's validity, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<String>,
    /// What proved the identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_by: Option<VerifiedBy>,
}

/// The newest failure of a link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerError {
    /// Stable word.
    pub reason: String,
    /// What happened and what to do.
    pub message: String,
    /// Gateway that saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// When, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

/// The view of one gateway.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayView {
    /// Name of the pod.
    pub pod: String,
    /// What it sees.
    pub state: PeerState,
}

impl Keyed for GatewayView {
    const KEYS: &'static [&'static str] = &["pod"];
}
