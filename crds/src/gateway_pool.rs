//! GatewayPool: a set of gateway nodes with roles.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, Toleration, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Condition;
use crate::duration::Duration;
use crate::rules;
use crate::schema::{self, Keyed};
use crate::shared::{SecretRef, is_empty};

string_enum! {
    /// What a pool does towards partners.
    pub enum Role {
        /// SIP listeners and egress.
        Sip = "SIP",
        /// XMPP listeners and egress.
        Xmpp = "XMPP",
    }
}

/// A set of gateway nodes with roles SIP and XMPP.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "isthmus.dev",
    version = "v1alpha1",
    kind = "GatewayPool",
    plural = "gatewaypools",
    shortname = "gwp",
    category = "isthmus",
    namespaced,
    status = "GatewayPoolStatus",
    derive = "PartialEq",
    doc = "GatewayPool is a set of gateway nodes with the roles SIP, XMPP or both. A node is an addressable entry point; replicas are the pods behind all nodes.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Roles", type_ = "string", json_path = ".spec.roles"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".spec.nodes"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Address", type_ = "string", json_path = ".status.addresses", priority = 1),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = rules::REPLICAS_ARE_ZERO_OR_AT_LEAST_NODES,
    validation = rules::SIP_POOL_HAS_ONE_NODE,
    validation = rules::HOSTNAME_NEEDS_NODE,
    validation = rules::SIP_POOL_HAS_HOSTNAME,
    validation = rules::SIP_POOL_HAS_LISTENER,
    validation = rules::AUTOSCALING_NEEDS_REPLICAS
)]
#[serde(rename_all = "camelCase")]
pub struct GatewayPoolSpec {
    /// What the pool does towards partners: SIP, XMPP or both, for example `[SIP]`. Required.
    #[schemars(schema_with = "schema::set::<Role, 1, 2>")]
    pub roles: Vec<Role>,
    /// Number of addressable nodes, 1 to 32; a pool with the role SIP has exactly one. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int::<1, 32>")]
    pub nodes: Option<u32>,
    /// Number of pods of the whole pool, spread evenly over its nodes: 0, or from `nodes` to 512. Default: with a state
    /// store the larger of `nodes` and 2, otherwise 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int::<0, 512>")]
    pub replicas: Option<u32>,
    /// How partners reach the nodes. Default: a load balancer with the usual ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expose: Option<Expose>,
    /// Certificates of the listeners. Default: none, for a pool that only speaks plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<PoolTls>,
    /// Address ranges of balancers that speak the PROXY protocol, version 1 or 2, at most 32, for example `["10.0.0.0/8"]`.
    /// Every stream connection from there to the SIP ports must begin with its header; the address that it states then
    /// counts as the partner's. Default: none.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::set::<schema::Cidr, 0, 32>")]
    pub trusted_proxies: Vec<String>,
    /// Address ranges of SIP partners that may be dialled although they are private, loopback or not public for another
    /// reason, at most 32, for example `["192.168.10.0/24"]`. Needed for static next hops too. Default: none; public
    /// addresses need no entry.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::set::<schema::Cidr, 0, 32>")]
    pub allowed_ranges: Vec<String>,
    /// CPU and memory of a pod. Default: requests of 100m and 128Mi, a memory limit of 512Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Image of the gateway, for example `registry.example/isthmus-gateway:0.1.0`. Default: the image that came with the
    /// operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::one::<schema::ImageReference>")]
    pub image: Option<String>,
    /// Secrets for pulling the image, at most 16, for example `[{name: registry}]`. Default: none.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::keyed::<SecretRef, 0, 16>")]
    pub image_pull_secrets: Vec<SecretRef>,
    /// Where pods run and what they carry; the only overrides of the pod. Default: spread over zones and hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodOverrides>,
    /// How a pod ends its work. Default: 5s to settle, 90s of grace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
    /// How many pods may be away on purpose. Default: one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disruption: Option<Disruption>,
    /// An autoscaler for the pool; it needs `replicas` and a state store. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// Whether a NetworkPolicy is made: Enabled or Disabled. Default: Enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_policy: Option<Switch>,
    /// Whether a ServiceMonitor is made when that kind exists: Auto or Disabled. Default: Auto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitoring: Option<Monitoring>,
    /// Bounds on connections and sessions. Default: see the fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<PoolLimits>,
    /// What is logged, as a filter of at most 256 characters, for example `info,isthmus_sip=debug`. Default: info.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::one::<schema::Line>")]
    pub log_filter: Option<String>,
}

impl GatewayPoolSpec {
    /// Number of nodes; 1 when not said.
    pub fn nodes(&self) -> u32 {
        self.nodes.unwrap_or(1)
    }

    /// Number of pods: as said, else by whether the realm has a shared state store.
    pub fn replicas(&self, has_state_store: bool) -> u32 {
        self.replicas.unwrap_or_else(|| if has_state_store { self.nodes().max(2) } else { 1 })
    }

    /// True when the pool has this role.
    pub fn has_role(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// The host name template of nodes, when given.
    pub fn hostname(&self) -> Option<&str> {
        self.expose.as_ref()?.hostname.as_deref()
    }

    /// Port of the admin listener; 9090 when not said.
    pub fn admin_port(&self) -> u16 {
        self.expose.as_ref().and_then(|expose| expose.admin_port).unwrap_or(DEFAULT_ADMIN_PORT)
    }

    /// Ports of the listeners with their defaults filled in.
    pub fn ports(&self) -> EffectivePorts {
        let ports = self.expose.as_ref().and_then(|expose| expose.ports.clone()).unwrap_or_default();
        EffectivePorts {
            sip: ports.sip.unwrap_or(5061),
            xmpp: ports.xmpp.unwrap_or(5269),
            xmpp_direct_tls: ports.xmpp_direct_tls.unwrap_or(5270),
            sip_plain: ports.sip_plain,
        }
    }

    /// Addresses to bind; empty means all.
    pub fn bind(&self) -> &[String] {
        self.expose.as_ref().map_or(&[], |expose| &expose.bind)
    }

    /// Time between readiness going away and listeners closing; 5 s when not said.
    pub fn settle(&self) -> std::time::Duration {
        self.drain.as_ref().and_then(|drain| drain.settle).unwrap_or(Duration::from_secs(5)).get()
    }

    /// Longest time for finishing work after that; 90 s when not said.
    pub fn grace(&self) -> std::time::Duration {
        self.drain.as_ref().and_then(|drain| drain.grace).unwrap_or(Duration::from_secs(90)).get()
    }

    /// The bounds with their defaults filled in.
    pub fn limits(&self) -> EffectiveLimits {
        let limits = self.limits.clone().unwrap_or_default();
        EffectiveLimits {
            connections: limits.connections.unwrap_or(20_000),
            connections_per_address: limits.connections_per_address.unwrap_or(50),
            new_sessions_per_second_per_domain: limits.new_sessions_per_second_per_domain.unwrap_or(50),
        }
    }
}

/// Port of the admin listener when `expose.adminPort` is not given.
pub const DEFAULT_ADMIN_PORT: u16 = 9090;

/// Listener ports with their defaults filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EffectivePorts {
    /// SIP over TLS.
    pub sip: u16,
    /// XMPP server-to-server with STARTTLS.
    pub xmpp: u16,
    /// XMPP server-to-server with direct TLS.
    pub xmpp_direct_tls: u16,
    /// SIP over TCP and UDP; off when absent.
    pub sip_plain: Option<u16>,
}

/// Bounds of a pool with their defaults filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EffectiveLimits {
    /// Connections of one pod.
    pub connections: u32,
    /// Connections of one pod from one address.
    pub connections_per_address: u32,
    /// New sessions and subscriptions a second from one domain.
    pub new_sessions_per_second_per_domain: u32,
}

string_enum! {
    /// Type of the Services of a pool.
    pub enum ExposeType {
        /// A load balancer of the cluster's provider.
        LoadBalancer = "LoadBalancer",
        /// A port on every cluster node.
        NodePort = "NodePort",
        /// Reachable in the cluster only, for a firewall or proxy in front.
        ClusterIp = "ClusterIP",
    }
}

string_enum! {
    /// Address families of a Service.
    pub enum IpFamilyPolicy {
        /// One family.
        SingleStack = "SingleStack",
        /// Both where the cluster has both.
        PreferDualStack = "PreferDualStack",
        /// Both, or the Service is refused.
        RequireDualStack = "RequireDualStack",
    }
}

string_enum! {
    /// Routing of outside traffic by a Service.
    pub enum TrafficPolicy {
        /// Only to pods of the same cluster node; keeps the peer's address.
        Local = "Local",
        /// To any pod.
        Cluster = "Cluster",
    }
}

/// How partners reach the nodes of a pool.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Expose {
    /// Type of the Services: LoadBalancer, NodePort or ClusterIP. Default: LoadBalancer.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<ExposeType>,
    /// Name of each node in which `{node}`, `{pool}` and `{domain}` may stand, for example `sip.{domain}`. It is the name in
    /// Via and Contact and the SRV target. Required for the role SIP; default otherwise: the addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::one::<schema::HostTemplate>")]
    pub hostname: Option<String>,
    /// IP addresses that listeners bind, at most 8, for example `["127.0.0.1"]`. Default: all.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::set::<schema::Ip, 0, 8>")]
    pub bind: Vec<String>,
    /// Port of the admin listener with `/livez`, `/readyz`, `/metrics` and `/v1`. Default: 9090.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::high_port")]
    pub admin_port: Option<u16>,
    /// Public addresses of nodes when a firewall translates, for example `[{node: 0, ips: ["203.0.113.10"]}]`. Default: those
    /// of the Service.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::keyed::<NodeAddresses, 0, 32>")]
    pub addresses: Vec<NodeAddresses>,
    /// Annotations of the Services, at most 32; `{node}` may stand in values. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::text_map")]
    pub annotations: BTreeMap<String, String>,
    /// Class of the load balancer, for example `example.com/internal`. Default: that of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::one::<schema::Line>")]
    pub load_balancer_class: Option<String>,
    /// Address ranges that the load balancer admits, at most 32, for example `["203.0.113.0/24"]`. Default: all.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::set::<schema::Cidr, 0, 32>")]
    pub load_balancer_source_ranges: Vec<String>,
    /// Address families: SingleStack, PreferDualStack or RequireDualStack. Default: that of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_family_policy: Option<IpFamilyPolicy>,
    /// Routing of outside traffic: Local keeps the addresses of peers for rate limits and logs. Default: Local.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<TrafficPolicy>,
    /// Ports of the listeners, 1024 to 65535. Default: 5061, 5269 and 5270.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Ports>,
}

/// Public addresses of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeAddresses {
    /// Number of the node, from 0. Required.
    #[schemars(schema_with = "schema::int::<0, 31>")]
    pub node: u32,
    /// Its public addresses, one to four, for example `["203.0.113.10"]`. Required.
    #[schemars(schema_with = "schema::set::<schema::Ip, 1, 4>")]
    pub ips: Vec<String>,
}

impl Keyed for NodeAddresses {
    const KEYS: &'static [&'static str] = &["node"];
}

/// Listener ports of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ports {
    /// SIP over TLS. Default: 5061.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::high_port")]
    pub sip: Option<u16>,
    /// XMPP server-to-server with STARTTLS. Default: 5269.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::high_port")]
    pub xmpp: Option<u16>,
    /// XMPP server-to-server with direct TLS. Default: 5270.
    #[serde(default, rename = "xmppDirectTLS", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::high_port")]
    pub xmpp_direct_tls: Option<u16>,
    /// SIP over TCP and UDP without TLS, for example 5060. Default: off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::high_port")]
    pub sip_plain: Option<u16>,
}

string_enum! {
    /// Kind of a cert-manager issuer.
    pub enum IssuerKind {
        /// Of the namespace.
        Issuer = "Issuer",
        /// Of the cluster.
        ClusterIssuer = "ClusterIssuer",
    }
}

/// Reference to a cert-manager issuer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IssuerRef {
    /// Name of the issuer, for example `public-ca`. Required.
    #[schemars(schema_with = "schema::one::<schema::ObjectName>")]
    pub name: String,
    /// Issuer or ClusterIssuer. Required.
    pub kind: IssuerKind,
    /// API group of the issuer, for example `awspca.cert-manager.io`. Default: cert-manager.io.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::one::<schema::Domain>")]
    pub group: Option<String>,
}

/// Certificates of the listeners of a pool.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[x_kube(validation = rules::ISSUER_OR_SECRETS)]
#[serde(rename_all = "camelCase")]
pub struct PoolTls {
    /// The cert-manager issuer that signs certificates with every local domain in them. Default: none; then `secretRefs` is
    /// required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<IssuerRef>,
    /// Secrets of type `kubernetes.io/tls`, one to 16, chosen by SNI; the first answers without SNI. Default: none; then
    /// `issuerRef` is required.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::keyed::<SecretRef, 1, 16>")]
    pub secret_refs: Vec<SecretRef>,
    /// Names in one certificate, 1 to 1000; more names make several certificates. Default: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int::<1, 1000>")]
    pub max_names_per_certificate: Option<u32>,
}

/// CPU and memory of a pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Upper bounds, for example `{memory: 512Mi}`. Default: a memory limit of 512Mi.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantity_map")]
    pub limits: BTreeMap<String, IntOrString>,
    /// What is reserved, for example `{cpu: 100m, memory: 128Mi}`. Default: 100m and 128Mi.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantity_map")]
    pub requests: BTreeMap<String, IntOrString>,
}

/// Where pods run and what they carry.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodOverrides {
    /// Labels added to pods, at most 32. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::text_map")]
    pub labels: BTreeMap<String, String>,
    /// Annotations added to pods, at most 32. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::text_map")]
    pub annotations: BTreeMap<String, String>,
    /// Labels of cluster nodes that may run pods, for example `{zone: edge}`. Default: any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::text_map")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of cluster nodes that pods tolerate, in the shape of Kubernetes. Default: none.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Affinity rules in the shape of Kubernetes. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Spreading rules in the shape of Kubernetes. Default: over zones and hosts, maxSkew 1, ScheduleAnyway.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Name of a PriorityClass, for example `edge`. Default: that of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::one::<schema::ObjectName>")]
    pub priority_class_name: Option<String>,
    /// Name of a RuntimeClass, for example `gvisor`. Default: that of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::one::<schema::ObjectName>")]
    pub runtime_class_name: Option<String>,
}

/// How a pod ends its work; `terminationGracePeriodSeconds` is the sum plus 5 s.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// Time between readiness going away and listeners closing, for example `5s`. Default: 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settle: Option<Duration>,
    /// Longest time for finishing work after that, for example `90s`. Default: 90s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Duration>,
}

/// How many pods may be away on purpose.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Disruption {
    /// Pods of the pool that may be away at once, 1 to 16. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int::<1, 16>")]
    pub max_unavailable: Option<u32>,
}

/// An autoscaler on the scale subresource of the pool; it then owns `spec.replicas`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[x_kube(validation = rules::AUTOSCALING_MIN_AT_MOST_MAX)]
#[serde(rename_all = "camelCase")]
pub struct Autoscaling {
    /// Fewest pods, 1 to 512. Required.
    #[schemars(schema_with = "schema::int::<1, 512>")]
    pub min_replicas: u32,
    /// Most pods, 1 to 512. Required.
    #[schemars(schema_with = "schema::int::<1, 512>")]
    pub max_replicas: u32,
    /// Share of the requested CPU that is aimed at, in percent. Default: 70 when `sessionsPerReplica` is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int::<1, 100>")]
    pub cpu_utilization: Option<u32>,
    /// Sessions and subscriptions of one pod that are aimed at. Default: not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int::<1, 1000000>")]
    pub sessions_per_replica: Option<u32>,
}

string_enum! {
    /// On or off, in words that YAML does not read as true and false.
    pub enum Switch {
        /// On.
        Enabled = "Enabled",
        /// Off.
        Disabled = "Disabled",
    }
}

string_enum! {
    /// Whether a ServiceMonitor is made.
    pub enum Monitoring {
        /// When the kind exists.
        Auto = "Auto",
        /// Never.
        Disabled = "Disabled",
    }
}

/// Bounds of one pod. A change is taken without a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolLimits {
    /// Connections of one pod. Default: 20000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int::<1, 1000000>")]
    pub connections: Option<u32>,
    /// Connections of one pod from one address. Default: 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int::<1, 1000000>")]
    pub connections_per_address: Option<u32>,
    /// New sessions and subscriptions a second from one federated domain; what is beyond is answered 503 with Retry-After.
    /// Default: 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int::<1, 1000000>")]
    pub new_sessions_per_second_per_domain: Option<u32>,
}

/// What the operator observed of a pool.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayPoolStatus {
    /// Generation of the object that this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions: Accepted, ResolvedRefs, Programmed, CertificateCoversDomains, Ready and warnings.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub conditions: Vec<Condition>,
    /// Pods of all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// Ready pods of all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<u32>,
    /// Pods that run the present template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_replicas: Option<u32>,
    /// Label selector of all pods of the pool, as text, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Version of the gateways, the lowest where they differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Addresses of all nodes, joined by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<String>,
    /// The nodes one by one.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::keyed::<NodeStatus, 0, 32>")]
    pub nodes: Vec<NodeStatus>,
    /// The settings in force with all defaults filled in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<EffectivePool>,
    /// Certificates of the pool.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::keyed::<CertificateStatus, 0, 64>")]
    pub certificates: Vec<CertificateStatus>,
}

string_enum! {
    /// Where a node is in its life.
    pub enum NodePhase {
        /// No address or no ready pod yet.
        Pending = "Pending",
        /// Serving and publishable.
        Active = "Active",
        /// Its DNS records are being withdrawn.
        Withdrawing = "Withdrawing",
        /// Its pods finish their work.
        Draining = "Draining",
        /// Gone.
        Removed = "Removed",
    }
}

/// One node of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Number of the node.
    pub node: u32,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Its addresses.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::set::<schema::Ip, 0, 8>")]
    pub addresses: Vec<String>,
    /// Its pods.
    pub replicas: u32,
    /// Its ready pods.
    pub ready_replicas: u32,
    /// Where it is in its life.
    pub phase: NodePhase,
}

impl Keyed for NodeStatus {
    const KEYS: &'static [&'static str] = &["node"];
}

/// Settings of a pool with all defaults filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EffectivePool {
    /// Number of nodes.
    pub nodes: u32,
    /// Number of pods.
    pub replicas: u32,
    /// Image of the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Port of the admin listener.
    pub admin_port: u16,
    /// Ports of the listeners.
    pub ports: Ports,
    /// Time to settle.
    pub settle: Duration,
    /// Time of grace.
    pub grace: Duration,
    /// Bounds of one pod.
    pub limits: PoolLimits,
    /// Names in one certificate.
    pub max_names_per_certificate: u32,
    /// Pods that may be away at once.
    pub max_unavailable: u32,
}

/// One certificate of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    /// Secret that holds it.
    pub secret_name: String,
    /// End of its validity, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<String>,
    /// Number of names in it.
    pub names: u32,
    /// Names that should be in it and are not, at most 16.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::set::<schema::Domain, 0, 16>")]
    pub missing_names: Vec<String>,
    /// Gateways that serve it, for example `3/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded_by: Option<String>,
}

impl Keyed for CertificateStatus {
    const KEYS: &'static [&'static str] = &["secretName"];
}
