//! DomainClaim: the right of namespaces to own a local domain.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Condition;
use crate::schema;
use crate::shared::is_empty;

/// The right of namespaces to own a local domain. Its name is the domain.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "isthmus.dev",
    version = "v1alpha1",
    kind = "DomainClaim",
    plural = "domainclaims",
    shortname = "dclaim",
    category = "isthmus",
    status = "DomainClaimStatus",
    derive = "PartialEq",
    doc = "DomainClaim is the right of namespaces to own a local domain. Its name is the domain.",
    printcolumn(name = "Namespaces", type_ = "string", json_path = ".spec.allowedNamespaces"),
    printcolumn(name = "Holder", type_ = "string", json_path = ".status.holder"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct DomainClaimSpec {
    /// Namespaces that may own the domain, 1 to 16, for example `[im-edge]`. Required.
    #[schemars(schema_with = "schema::set::<schema::Label, 1, 16>")]
    pub allowed_namespaces: Vec<String>,
}

/// What was observed of a claim.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DomainClaimStatus {
    /// Generation of the object that this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions: Accepted, Ready.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub conditions: Vec<Condition>,
    /// Namespace whose LocalDomain holds the domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
}
