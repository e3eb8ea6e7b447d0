//! Federation: what all pools of a realm share.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Condition;
use crate::rules;
use crate::schema;
use crate::shared::{ClientTls, DaneMode, SecretKeyRef, SecretRef, is_empty};

/// One federation realm: what all gateway pools of the namespace share. There is one per namespace, named `default`.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "isthmus.dev",
    version = "v1alpha1",
    kind = "Federation",
    plural = "federations",
    shortname = "fed",
    category = "isthmus",
    namespaced,
    status = "FederationStatus",
    derive = "PartialEq",
    doc = "Federation is one federation realm: what all gateway pools of the namespace share. There is one per namespace, named default.",
    validation = rules::FEDERATION_IS_NAMED_DEFAULT,
    printcolumn(name = "Pools", type_ = "integer", json_path = ".status.counts.pools"),
    printcolumn(name = "Local", type_ = "integer", json_path = ".status.counts.localDomains"),
    printcolumn(name = "Federated", type_ = "integer", json_path = ".status.counts.federatedDomains"),
    printcolumn(name = "Redis", type_ = "string", json_path = ".status.conditions[?(@.type==\"StateStoreAvailable\")].status"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = rules::KEY_PREFIX_IS_IMMUTABLE)]
#[serde(rename_all = "camelCase")]
pub struct FederationSpec {
    /// Where sessions and subscriptions are kept so that any pod can continue them. Default: in the memory of the one
    /// gateway pod that the realm may then have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_store: Option<StateStore>,
    /// The Secret of the realm in which LocalDomains name keys, for example `{name: isthmus-credentials}`. Default: none,
    /// so that no component backend can be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretRef>,
    /// What happens to domains without a FederatedDomain. Default: they are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlisted_domains: Option<UnlistedDomains>,
    /// Trust anchors for certificates of peers. Default: the trust anchors of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    /// The secret from which keys of XMPP dialback are made. Default: one made by the pod for itself, which serves a
    /// single pod only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialback_key_secret_ref: Option<SecretKeyRef>,
    /// Name servers for finding peers and checking publications. Default: those of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<Resolver>,
    /// Who decides when gateways take a new image. Default: Automatic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<UpgradeMode>,
    /// Where traces go. Default: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub telemetry: Option<Telemetry>,
}

impl FederationSpec {
    /// What happens to an XMPP domain without a FederatedDomain; Deny when not said.
    pub fn unlisted_xmpp(&self) -> UnlistedAction {
        self.unlisted_domains.as_ref().and_then(|unlisted| unlisted.xmpp).unwrap_or(UnlistedAction::Deny)
    }

    /// The Redis settings, when the realm has a shared store.
    pub fn redis(&self) -> Option<&Redis> {
        self.state_store.as_ref().map(|store| &store.redis)
    }

    /// DANE for peers; Off when not said.
    pub fn dane(&self) -> DaneMode {
        self.trust.as_ref().and_then(|trust| trust.dane).unwrap_or(DaneMode::Off)
    }

    /// Who decides about images; Automatic when not said.
    pub fn upgrade(&self) -> UpgradeMode {
        self.upgrade.unwrap_or(UpgradeMode::Automatic)
    }
}

/// The shared store of a realm.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StateStore {
    /// A Redis or Valkey server, a Sentinel group or a cluster. Required.
    pub redis: Redis,
}

string_enum! {
    /// How Redis is deployed.
    pub enum RedisMode {
        /// One server.
        Standalone = "Standalone",
        /// A group watched by Sentinel.
        Sentinel = "Sentinel",
        /// A cluster with hash slots.
        Cluster = "Cluster",
    }
}

/// A Redis or Valkey deployment.
#[derive(KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[x_kube(validation = rules::MASTER_NAME_GOES_WITH_SENTINEL)]
#[serde(rename_all = "camelCase")]
pub struct Redis {
    /// How Redis is deployed: Standalone, Sentinel or Cluster. Required.
    pub mode: RedisMode,
    /// Servers as host:port; with Sentinel the sentinels, for example `["redis-0.redis:26379"]`. Required.
    #[schemars(schema_with = "schema::set::<schema::HostPort, 1, 16>")]
    pub addresses: Vec<String>,
    /// Name of the master that Sentinel watches, for example `isthmus`. Required with mode Sentinel, not allowed otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::one::<schema::Line>")]
    pub master_name: Option<String>,
    /// Secret with the password and perhaps the user. Default: no authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_secret_ref: Option<RedisAuth>,
    /// TLS towards Redis; its presence, `tls: {}`, turns TLS on. Default: off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
    /// Prefix of all keys, at most 64 characters, for example `isthmus:prod:`. It cannot be changed. Default:
    /// `isthmus:<namespace>:`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub key_prefix: Option<String>,
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            mode: RedisMode::Standalone,
            addresses: Vec::new(),
            master_name: None,
            auth_secret_ref: None,
            tls: None,
            key_prefix: None,
        }
    }
}

/// Names the keys of a Secret that hold the credentials of Redis.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedisAuth {
    /// Name of the Secret, for example `redis-auth`. Required.
    #[schemars(schema_with = "schema::one::<schema::ObjectName>")]
    pub name: String,
    /// Key that holds the user, for example `username`. Default: the default user of Redis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::one::<schema::SecretKeyName>")]
    pub user_key: Option<String>,
    /// Key that holds the password, for example `password`. Required.
    #[schemars(schema_with = "schema::one::<schema::SecretKeyName>")]
    pub password_key: String,
}

string_enum! {
    /// What happens to a domain that no FederatedDomain names.
    pub enum UnlistedAction {
        /// It is refused.
        Deny = "Deny",
        /// It may federate with the defaults.
        Allow = "Allow",
    }
}

/// Domains that no FederatedDomain names. SIP domains must always be listed, so there is no field for them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnlistedDomains {
    /// XMPP domains without a FederatedDomain: Deny or Allow. Default: Deny.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xmpp: Option<UnlistedAction>,
}

/// Trust anchors for certificates of peers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Trust {
    /// Secrets whose key `ca.crt` holds trust anchors, for example `[{name: partner-ca}]`. Default: the trust anchors of
    /// the system.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::keyed::<SecretRef, 0, 8>")]
    pub ca_secret_refs: Vec<SecretRef>,
    /// Use of DANE: "Off" (in quotes), Opportunistic or Require. Default: Off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dane: Option<DaneMode>,
}

string_enum! {
    /// How answers without DNSSEC are treated.
    pub enum DnssecMode {
        /// Signatures are not asked for.
        Off = "Off",
        /// Signed answers are recognised, unsigned ones accepted.
        Prefer = "Prefer",
        /// Unsigned answers are refused.
        Require = "Require",
    }
}

/// Name servers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resolver {
    /// Name servers as ip:port, at most four, for example `["192.0.2.53:53", "[2001:db8::53]:53"]`. Required.
    #[schemars(schema_with = "schema::set::<schema::IpPort, 1, 4>")]
    pub addresses: Vec<String>,
    /// DNSSEC: "Off" (in quotes), Prefer or Require. Default: Prefer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dnssec: Option<DnssecMode>,
}

impl Resolver {
    /// DNSSEC; Prefer when not said.
    pub fn dnssec(&self) -> DnssecMode {
        self.dnssec.unwrap_or(DnssecMode::Prefer)
    }
}

string_enum! {
    /// Who decides when gateways take a new image.
    pub enum UpgradeMode {
        /// Gateways follow the operator, one node at a time.
        Automatic = "Automatic",
        /// Gateways keep their image until `GatewayPool.spec.image` changes.
        Manual = "Manual",
    }
}

/// Export of traces.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Telemetry {
    /// Base URL of an OTLP collector over HTTP, for example `http://otel-collector.monitoring:4318`. Default: no export.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::one::<schema::HttpUrl>")]
    pub otlp_endpoint: Option<String>,
    /// Share of traces that are kept, from "0.0" to "1.0", in quotes. Default: "1.0".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::one::<schema::Ratio>")]
    pub trace_sample_ratio: Option<String>,
}

impl Telemetry {
    /// Share of traces that are kept, 1.0 when not said.
    pub fn trace_sample_ratio(&self) -> f64 {
        self.trace_sample_ratio.as_deref().and_then(|ratio| ratio.parse().ok()).unwrap_or(1.0)
    }
}

/// What the operator, or the gateway in standalone mode, observed.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FederationStatus {
    /// Generation of the object that this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions: Accepted, ResolvedRefs, Programmed, StateStoreAvailable, DNSProviderAvailable, Ready.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub conditions: Vec<Condition>,
    /// Objects of the realm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<FederationCounts>,
}

/// Number of objects and gateways of a realm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FederationCounts {
    /// GatewayPools.
    pub pools: u32,
    /// Accepted LocalDomains.
    pub local_domains: u32,
    /// Accepted FederatedDomains.
    pub federated_domains: u32,
    /// Objects that are not accepted because of another object.
    pub conflicts: u32,
    /// Ready gateway pods.
    pub gateways: u32,
}
