//! Pieces that several kinds use: references, hosts to dial, small closed sets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{self, Keyed};

string_enum! {
    /// The two protocols of federation.
    pub enum Protocol {
        /// SIP with SIMPLE.
        Sip = "SIP",
        /// XMPP server-to-server.
        Xmpp = "XMPP",
    }
}

string_enum! {
    /// How the servers of a domain are found.
    pub enum Discovery {
        /// SRV and address records of the domain.
        Dns = "DNS",
        /// The listed next hops and nothing else.
        Static = "Static",
    }
}

string_enum! {
    /// Use of DANE (TLSA records) for certificates of peers.
    pub enum DaneMode {
        /// TLSA records are not asked for.
        Off = "Off",
        /// A usable TLSA record is honoured, its absence is no fault.
        Opportunistic = "Opportunistic",
        /// Without a usable TLSA record there is no connection.
        Require = "Require",
    }
}

/// Reference to a Secret of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret, for example `gateway-tls`. Required.
    #[schemars(schema_with = "schema::one::<schema::ObjectName>")]
    pub name: String,
}

impl Keyed for SecretRef {
    const KEYS: &'static [&'static str] = &["name"];
}

/// Reference to one key of a Secret of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret, for example `isthmus-dialback`. Required.
    #[schemars(schema_with = "schema::one::<schema::ObjectName>")]
    pub name: String,
    /// Key in the Secret, for example `secret`. Required.
    #[schemars(schema_with = "schema::one::<schema::SecretKeyName>")]
    pub key: String,
}

/// Reference to a GatewayPool of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolRef {
    /// Name of the GatewayPool, for example `sip`. Required.
    #[schemars(schema_with = "schema::one::<schema::PoolName>")]
    pub name: String,
}

/// One server to dial, instead of discovery by DNS.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NextHop {
    /// Name or address of the server, for example `edge.partner.example` or `192.0.2.20`. Required.
    #[schemars(schema_with = "schema::one::<schema::Host>")]
    pub host: String,
    /// Port of the server, for example `5061`. Required.
    #[schemars(schema_with = "schema::port")]
    pub port: u16,
}

impl Keyed for NextHop {
    const KEYS: &'static [&'static str] = &["host", "port"];
}

/// TLS towards a server of our own; its presence turns TLS on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientTls {
    /// Secret whose key `ca.crt` holds the trust anchors, for example `redis-ca`. Default: the trust anchors of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretRef>,
    /// Secret of type `kubernetes.io/tls` with our certificate, for example `redis-client`. Default: none is presented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret_ref: Option<SecretRef>,
    /// Name expected in the server's certificate, for example `redis.internal`. Default: the host that is dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::one::<schema::Host>")]
    pub server_name: Option<String>,
}

/// `false` for serde's `skip_serializing_if` on lists whose absence and emptiness mean the same.
pub(crate) fn is_empty<T>(list: &[T]) -> bool {
    list.is_empty()
}
