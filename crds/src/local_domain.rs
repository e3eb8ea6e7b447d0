//! LocalDomain: a domain whose users are ours.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Condition;
use crate::duration::Duration;
use crate::rules;
use crate::schema::{self, Keyed};
use crate::shared::{ClientTls, Protocol, SecretRef, is_empty};

/// A domain whose users are ours. Its name is the domain.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "isthmus.dev",
    version = "v1alpha1",
    kind = "LocalDomain",
    plural = "localdomains",
    shortname = "ldom",
    category = "isthmus",
    namespaced,
    status = "LocalDomainStatus",
    derive = "PartialEq",
    doc = "LocalDomain is a domain whose users are ours. Its name is the domain.",
    validation = rules::LOCAL_DOMAIN_NAME_IS_DOMAIN,
    printcolumn(name = "Backend", type_ = "string", json_path = ".status.backendType"),
    printcolumn(name = "Aliases", type_ = "integer", json_path = ".status.aliasCount"),
    printcolumn(name = "DNS", type_ = "string", json_path = ".status.conditions[?(@.type==\"Published\")].status"),
    printcolumn(name = "TLS", type_ = "string", json_path = ".status.conditions[?(@.type==\"CertificateCovers\")].status"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = rules::LOCAL_DOMAIN_IS_IMMUTABLE, validation = rules::CHAT_ALIASES_LIE_BELOW)]
#[serde(rename_all = "camelCase")]
pub struct LocalDomainSpec {
    /// The domain in lower-case A-labels, for example `corp.example`; equal to the object's name and immutable. Required.
    #[schemars(schema_with = "schema::one::<schema::Domain>")]
    pub domain: String,
    /// Where the users of the domain live: exactly one of `component` and `xmppServer`. Required.
    pub backend: Backend,
    /// What happens to strangers who want to see or write to users of this domain. Default: users are asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<LocalPolicy>,
    /// Chat node aliases below the domain, at most 64, for example `[{host: rooms.corp.example}]`. Default: none.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::keyed::<ChatAlias, 0, 64>")]
    pub chat_aliases: Vec<ChatAlias>,
    /// Protocols offered to partners for this domain, for example `[SIP]`. Default: all roles of the realm's pools.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::set::<Protocol, 1, 2>")]
    pub protocols: Vec<Protocol>,
    /// A certificate for this domain only, chosen by SNI before those of the pool. Default: those of the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<DomainTls>,
}

impl LocalDomainSpec {
    /// The policy with its defaults filled in.
    pub fn policy(&self) -> EffectiveLocalPolicy {
        let policy = self.policy.clone().unwrap_or_default();
        EffectiveLocalPolicy {
            default: policy.default.unwrap_or(DefaultDecision::Prompt),
            deny_mode: policy.deny_mode.unwrap_or(DenyMode::Polite),
            pending_max: policy.pending_max.unwrap_or(DEFAULT_PENDING_MAX),
            offline_im: policy.offline_im.unwrap_or(OfflineIm::Unavailable),
            record_decisions: policy.record_decisions.unwrap_or(true),
        }
    }

    /// True when partners may be offered this protocol for the domain.
    pub fn offers(&self, protocol: Protocol) -> bool {
        self.protocols.is_empty() || self.protocols.contains(&protocol)
    }

    /// The address that serves the domain's own needs on its component link; `fed.<domain>` when not said.
    pub fn service_address(&self) -> Option<String> {
        let component = self.backend.component.as_ref()?;
        Some(component.service_address.clone().unwrap_or_else(|| format!("fed.{}", self.domain)))
    }
}

/// Longest wait for a user's answer when `policy.pendingMax` is not given: seven days.
pub const DEFAULT_PENDING_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Where the users of a domain live.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[x_kube(validation = rules::ONE_BACKEND)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// The domain's XMPP server, attached by component links (XEP-0114). Default: not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<ComponentBackend>,
    /// The domain's XMPP server, attached by trusted server-to-server links. Default: not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xmpp_server: Option<XmppServerBackend>,
}

/// An XMPP server that takes external components.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComponentBackend {
    /// Name or address of the server, for example `xmpp.internal.svc`. Required.
    #[schemars(schema_with = "schema::one::<schema::Host>")]
    pub host: String,
    /// Its port for components, for example 5347. Required.
    #[schemars(schema_with = "schema::port")]
    pub port: u16,
    /// Key in the Federation's credentials Secret that holds the component secret, for example `corp.example`. Required.
    #[schemars(schema_with = "schema::one::<schema::SecretKeyName>")]
    pub secret_key: String,
    /// Other keys for single federated domains, at most 256, for example
    /// `[{domain: partner.example, secretKey: partner}]`. Default: `secretKey` serves all.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::keyed::<ComponentSecret, 0, 256>")]
    pub secret_keys: Vec<ComponentSecret>,
    /// Name of the component that serves the domain's own needs, such as commands. Default: `fed.<domain>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::one::<schema::Domain>")]
    pub service_address: Option<String>,
    /// TLS towards the server; its presence, `tls: {}`, turns TLS on. Default: off, as most servers offer no TLS there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
}

impl ComponentBackend {
    /// The key in the credentials Secret for the component that carries this federated domain.
    pub fn secret_key_for(&self, federated_domain: &str) -> &str {
        self.secret_keys
            .iter()
            .find(|entry| entry.domain == federated_domain)
            .map_or(&self.secret_key, |entry| &entry.secret_key)
    }
}

/// The component secret for one federated domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComponentSecret {
    /// The federated domain, for example `partner.example`. Required.
    #[schemars(schema_with = "schema::one::<schema::Domain>")]
    pub domain: String,
    /// Key in the Federation's credentials Secret, for example `partner`. Required.
    #[schemars(schema_with = "schema::one::<schema::SecretKeyName>")]
    pub secret_key: String,
}

impl Keyed for ComponentSecret {
    const KEYS: &'static [&'static str] = &["domain"];
}

/// An XMPP server that trusts our server-to-server links.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct XmppServerBackend {
    /// Name or address of the server, for example `xmpp.internal.svc`. Required.
    #[schemars(schema_with = "schema::one::<schema::Host>")]
    pub host: String,
    /// Its port for servers, for example 5269. Required.
    #[schemars(schema_with = "schema::port")]
    pub port: u16,
    /// What is expected of the server's certificate. Default: STARTTLS with the trust anchors of the Federation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
}

string_enum! {
    /// What happens to a stranger when no rule and no entry of the user's list decides.
    pub enum DefaultDecision {
        /// The user is asked.
        Prompt = "Prompt",
        /// Presence flows without asking.
        Allow = "Allow",
        /// The stranger is refused without asking.
        Block = "Block",
    }
}

string_enum! {
    /// How a refusal looks to the refused.
    pub enum DenyMode {
        /// As if the user were offline.
        Polite = "Polite",
        /// As a refusal.
        Reject = "Reject",
    }
}

string_enum! {
    /// What a sender is told when the addressed user is offline.
    pub enum OfflineIm {
        /// That the user is not available.
        Unavailable = "Unavailable",
        /// That the message was accepted; the XMPP server stores it.
        Accept = "Accept",
    }
}

/// What happens to strangers. A change is taken without a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalPolicy {
    /// When no rule and no entry of the user's list decides: Prompt, Allow or Block. Default: Prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<DefaultDecision>,
    /// How a refusal looks: Polite, as if the user were offline, or Reject. Default: Polite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deny_mode: Option<DenyMode>,
    /// Longest wait for the user's answer, for example `168h`. Default: 168h, seven days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_max: Option<Duration>,
    /// What a sender is told when the user is offline: Unavailable or Accept. Default: Unavailable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline_im: Option<OfflineIm>,
    /// Whether answers of users enter their list. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_decisions: Option<bool>,
}

/// The policy of a local domain with its defaults filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EffectiveLocalPolicy {
    /// When nothing else decides.
    pub default: DefaultDecision,
    /// How a refusal looks.
    pub deny_mode: DenyMode,
    /// Longest wait for the user's answer.
    pub pending_max: Duration,
    /// What a sender is told when the user is offline.
    pub offline_im: OfflineIm,
    /// Whether answers of users enter their list.
    pub record_decisions: bool,
}

/// One chat node alias.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChatAlias {
    /// The alias, below the domain, for example `rooms.corp.example`. Required.
    #[schemars(schema_with = "schema::one::<schema::Domain>")]
    pub host: String,
}

impl Keyed for ChatAlias {
    const KEYS: &'static [&'static str] = &["host"];
}

/// A certificate for one domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DomainTls {
    /// Secret of type `kubernetes.io/tls`, for example `{name: corp-example-tls}`. Required.
    pub secret_ref: SecretRef,
}

string_enum! {
    /// How a local domain is attached.
    pub enum BackendType {
        /// By component links.
        Component = "Component",
        /// By trusted server-to-server links.
        XmppServer = "XmppServer",
    }
}

/// What was observed of a local domain.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalDomainStatus {
    /// Generation of the object that this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions: Accepted, ResolvedRefs, Programmed, Published, CertificateCovers, BackendAvailable, Ready.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub conditions: Vec<Condition>,
    /// How the domain is attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_type: Option<BackendType>,
    /// Number of chat node aliases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias_count: Option<u32>,
    /// The component links, at most 256.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::keyed::<LinkStatus, 0, 256>")]
    pub links: Vec<LinkStatus>,
}

string_enum! {
    /// State of a component link.
    pub enum LinkState {
        /// Being made.
        Connecting = "Connecting",
        /// Up and authenticated.
        Connected = "Connected",
        /// The server cannot be reached.
        ConnectionFailed = "ConnectionFailed",
        /// The server refused the secret.
        AuthenticationFailed = "AuthenticationFailed",
    }
}

/// One component link.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LinkStatus {
    /// Host of the server.
    pub host: String,
    /// Port of the server.
    pub port: u16,
    /// Name of the component: a federated domain or the service address.
    pub name: String,
    /// State of the link.
    pub state: LinkState,
    /// Pod that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Why it is not up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Keyed for LinkStatus {
    const KEYS: &'static [&'static str] = &["host", "port", "name"];
}
