//! DNSPublication: which nodes are published in DNS and how.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Condition;
use crate::duration::Duration;
use crate::rules;
use crate::schema::{self, Keyed};
use crate::shared::{PoolRef, is_empty};

/// Which nodes are published in DNS and how.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "isthmus.dev",
    version = "v1alpha1",
    kind = "DNSPublication",
    plural = "dnspublications",
    shortname = "dnsp",
    category = "isthmus",
    namespaced,
    status = "DNSPublicationStatus",
    derive = "PartialEq",
    doc = "DNSPublication says which gateway nodes are published in DNS, for which local domains and how.",
    printcolumn(name = "SIP", type_ = "string", json_path = ".status.sipTarget"),
    printcolumn(name = "XMPP-Targets", type_ = "integer", json_path = ".status.xmppTargetCount"),
    printcolumn(name = "Records", type_ = "integer", json_path = ".status.recordCount"),
    printcolumn(
        name = "Published",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Published\")].status"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = rules::PUBLISHES_SOMETHING)]
#[serde(rename_all = "camelCase")]
pub struct DNSPublicationSpec {
    /// Local domains that are published, at most 256, for example `[corp.example]`. Default: all, and their chat aliases.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::set::<schema::Domain, 1, 256>")]
    pub local_domains: Vec<String>,
    /// Name of the DNS view, for example `public` or `private`; publications of different views may overlap. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::one::<schema::Label>")]
    pub view: Option<String>,
    /// The one SRV target for SIP. Default: SIP is not published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sip: Option<SipPublication>,
    /// The SRV targets for XMPP. Default: XMPP is not published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xmpp: Option<XmppPublication>,
    /// SIP services that are published: SIPFederationTLS, SIPSTCP or both. Default: `[SIPFederationTLS]`.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::set::<SipService, 1, 2>")]
    pub services: Vec<SipService>,
    /// Address records of the target names: Auto writes them when addresses are known, None never. Default: Auto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_records: Option<HostRecords>,
    /// Who writes the records. Default: external-dns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<DnsProvider>,
    /// Whether and how answers are checked. Default: every 5m at the zone's own servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<DnsVerify>,
}

/// The one SRV target for SIP: the pool's `expose.hostname`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SipPublication {
    /// The pool with the role SIP, for example `{name: sip}`. Required.
    pub pool_ref: PoolRef,
    /// Time to live of the records, for example `300s`. Default: 300s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Duration>,
}

/// The SRV targets for XMPP; all have one priority and one weight.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct XmppPublication {
    /// The pool with the role XMPP, for example `{name: xmpp}`. Required.
    pub pool_ref: PoolRef,
    /// Which nodes are published. Required.
    pub publish: Publish,
    /// Priority of every target, 0 to 65535. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int::<0, 65535>")]
    pub priority: Option<u16>,
    /// Weight of every target, 0 to 65535. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int::<0, 65535>")]
    pub weight: Option<u16>,
    /// Time to live of the records, for example `300s`. Default: 300s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Duration>,
    /// Whether `_xmpps-server._tcp` is published too. Default: false.
    #[serde(default, rename = "directTLS", skip_serializing_if = "Option::is_none")]
    pub direct_tls: Option<bool>,
    /// Whether chat aliases get the same targets. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_aliases: Option<bool>,
}

string_enum! {
    /// How published nodes are chosen.
    pub enum PublishMode {
        /// All active nodes.
        All = "All",
        /// The first active nodes, as many as `count` says.
        Count = "Count",
        /// The nodes that `nodes` lists.
        Nodes = "Nodes",
    }
}

/// Which nodes are published.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[x_kube(validation = rules::PUBLISH_MODE_HAS_ITS_FIELD)]
#[serde(rename_all = "camelCase")]
pub struct Publish {
    /// All, Count or Nodes. Required.
    pub mode: PublishMode,
    /// How many nodes, 1 to 32. Required with mode Count, not allowed otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int::<1, 32>")]
    pub count: Option<u32>,
    /// Which nodes by number, for example `[0, 2]`. Required with mode Nodes, not allowed otherwise.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::set::<NodeNumber, 0, 32>")]
    pub nodes: Vec<u32>,
}

/// Stands for a node number in schemas of lists.
struct NodeNumber;

impl JsonSchema for NodeNumber {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "NodeNumber".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schema::int::<0, 31>(generator)
    }
}

string_enum! {
    /// SRV services of SIP.
    pub enum SipService {
        /// `_sipfederationtls._tcp`.
        SipFederationTls = "SIPFederationTLS",
        /// `_sips._tcp`.
        SipsTcp = "SIPSTCP",
    }
}

string_enum! {
    /// Whether address records of target names are written.
    pub enum HostRecords {
        /// When addresses are known.
        Auto = "Auto",
        /// Never.
        None = "None",
    }
}

string_enum! {
    /// Who writes records.
    pub enum DnsProviderType {
        /// external-dns, from a DNSEndpoint.
        ExternalDns = "ExternalDNS",
        /// A person, from a zone fragment.
        Manual = "Manual",
    }
}

/// Who writes the records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DnsProvider {
    /// ExternalDNS or Manual; Manual shows the records in the status and in a ConfigMap. Default: ExternalDNS.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<DnsProviderType>,
    /// Settings of external-dns. Default: see the fields.
    #[serde(default, rename = "externalDNS", skip_serializing_if = "Option::is_none")]
    pub external_dns: Option<ExternalDns>,
}

string_enum! {
    /// How SRV targets are written for external-dns.
    pub enum TargetFormat {
        /// With a dot at the end.
        Absolute = "Absolute",
        /// Without.
        Relative = "Relative",
    }
}

/// Settings of external-dns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalDns {
    /// Whether SRV targets end with a dot: Absolute or Relative. Default: Absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_format: Option<TargetFormat>,
    /// Labels of the DNSEndpoint, at most 32, for example `{zone: public}`. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::text_map")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the DNSEndpoint, at most 32. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::text_map")]
    pub annotations: BTreeMap<String, String>,
    /// Set identifier of every endpoint, for weighted or regional records. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::one::<schema::Line>")]
    pub set_identifier: Option<String>,
    /// Properties of the provider, at most 16, for example `[{name: aws/weight, value: "10"}]`. Default: none.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::keyed::<ProviderProperty, 0, 16>")]
    pub provider_specific: Vec<ProviderProperty>,
}

/// One property of a DNS provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderProperty {
    /// Name of the property, for example `aws/weight`. Required.
    #[schemars(schema_with = "schema::one::<schema::Line>")]
    pub name: String,
    /// Its value, for example `"10"`. Required.
    #[schemars(schema_with = "schema::one::<schema::Line>")]
    pub value: String,
}

impl Keyed for ProviderProperty {
    const KEYS: &'static [&'static str] = &["name"];
}

/// Whether and how answers are checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DnsVerify {
    /// Whether answers are checked. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Name servers to ask as ip:port, at most four, for example `["192.0.2.53:53"]`. Default: the zone's own servers.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::set::<schema::IpPort, 0, 4>")]
    pub resolvers: Vec<String>,
    /// Time between checks, for example `5m`. Default: 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
}

/// What was observed of a publication.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DNSPublicationStatus {
    /// Generation of the object that this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions: Accepted, ResolvedRefs, Programmed, Published, Ready and warnings.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub conditions: Vec<Condition>,
    /// The SRV target for SIP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sip_target: Option<String>,
    /// Number of SRV targets for XMPP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xmpp_target_count: Option<u32>,
    /// Number of records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_count: Option<u32>,
    /// The records; beyond 512 only those that differ.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::keyed::<RecordStatus, 0, 512>")]
    pub records: Vec<RecordStatus>,
    /// The settings in force with all defaults filled in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<EffectivePublication>,
}

string_enum! {
    /// State of a record.
    pub enum RecordState {
        /// Wanted, not seen yet.
        Desired = "Desired",
        /// Seen as wanted.
        Observed = "Observed",
        /// Seen, but different.
        Mismatch = "Mismatch",
        /// No longer wanted.
        Withdrawn = "Withdrawn",
    }
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordStatus {
    /// Its owner name.
    pub name: String,
    /// Its type, for example SRV.
    #[serde(rename = "type")]
    pub type_: String,
    /// Its targets, at most 64.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::set::<schema::Line, 0, 64>")]
    pub targets: Vec<String>,
    /// Its time to live in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u32>,
    /// Its state.
    pub state: RecordState,
    /// When it was last seen, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_time: Option<String>,
}

impl Keyed for RecordStatus {
    const KEYS: &'static [&'static str] = &["name", "type"];
}

/// Settings of a publication with all defaults filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EffectivePublication {
    /// Local domains that are published.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::set::<schema::Domain, 0, 256>")]
    pub local_domains: Vec<String>,
    /// Time to live of SIP records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sip_ttl: Option<Duration>,
    /// Time to live of XMPP records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xmpp_ttl: Option<Duration>,
    /// Who writes the records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<DnsProviderType>,
}
