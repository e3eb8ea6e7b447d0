//! The CRD documents: derived from the types, then tidied to what the API server and server-side apply want.
//!
//! The derived schemas carry what Rust's `Option` looks like in JSON Schema (`nullable`, null among the words of an enum,
//! defaults). An explicit null shall instead be pruned by the server so that `has()` in a CEL rule means "set", and defaults
//! are applied in code only, so that what was applied and what is stored never differ.

mod tidy;
mod yaml;

use kube::core::{CustomResourceExt, Resource};
use serde_json::{Value, json};

use crate::object::Kind;
use crate::{DNSPublication, DomainClaim, FederatedDomain, Federation, FederationPolicy, GatewayPool, LocalDomain};

pub use yaml::to_yaml;

/// Annotation with the version of the bundle that a CRD belongs to.
pub const BUNDLE_VERSION_ANNOTATION: &str = "isthmus.dev/bundle-version";
/// Annotation with the channel of a CRD.
pub const CHANNEL_ANNOTATION: &str = "isthmus.dev/channel";
/// The version of this bundle.
pub const BUNDLE_VERSION: &str = env!("CARGO_PKG_VERSION");
/// The channel of this bundle.
pub const CHANNEL: &str = "standard";

/// Name of the YAML file of a kind in `crds/`.
pub fn file_name(kind: Kind) -> String {
    let plural = match kind {
        Kind::Federation => Federation::plural(&()),
        Kind::GatewayPool => GatewayPool::plural(&()),
        Kind::LocalDomain => LocalDomain::plural(&()),
        Kind::FederatedDomain => FederatedDomain::plural(&()),
        Kind::DNSPublication => DNSPublication::plural(&()),
        Kind::FederationPolicy => FederationPolicy::plural(&()),
        Kind::DomainClaim => DomainClaim::plural(&()),
    };
    format!("{plural}.yaml")
}

/// The CustomResourceDefinition of a kind.
pub fn document(kind: Kind) -> Value {
    let mut document = derived(kind);
    if let Some(metadata) = document.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert(
            "annotations".into(),
            json!({ BUNDLE_VERSION_ANNOTATION: BUNDLE_VERSION, CHANNEL_ANNOTATION: CHANNEL }),
        );
        metadata.insert("labels".into(), json!({ "app.kubernetes.io/part-of": "isthmus" }));
    }
    if let Some(schema) = document.pointer_mut(SCHEMA) {
        tidy::tidy(kind, schema);
    }
    document
}

/// The OpenAPI schema of a kind, as the API server gets it.
pub fn schema(kind: Kind) -> Value {
    document(kind).pointer_mut(SCHEMA).map(Value::take).unwrap_or_default()
}

/// The text of a kind's file in `crds/`.
pub fn file_text(kind: Kind) -> String {
    format!(
        "# Generated from the types of isthmus-crds by `cargo run -p isthmus-crds --bin crdgen`. Do not edit.\n{}",
        to_yaml(&document(kind))
    )
}

const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema";

fn derived(kind: Kind) -> Value {
    let crd = match kind {
        Kind::Federation => Federation::crd(),
        Kind::GatewayPool => GatewayPool::crd(),
        Kind::LocalDomain => LocalDomain::crd(),
        Kind::FederatedDomain => FederatedDomain::crd(),
        Kind::DNSPublication => DNSPublication::crd(),
        Kind::FederationPolicy => FederationPolicy::crd(),
        Kind::DomainClaim => DomainClaim::crd(),
    };
    serde_json::to_value(crd).unwrap_or_default()
}
