//! The seven Isthmus kinds, their rules and the generator of their CRDs.
//!
//! The Rust types are the schema: `crdgen` derives the YAML of `crds/*.yaml` from them, `validate` judges documents by
//! that same schema in process, and the planes (gateway, operator, command line) read objects through them. The texts of
//! CEL rules ([`rules`]) and admission policies ([`admission`]) live here and nowhere else.
//!
//! Optional fields stay `Option`: absence has a meaning, defaults are applied by accessors (`spec.nodes()`), never by the
//! schema, so that tools which compare what was applied with what is stored see no difference.
//!
//! This crate does no IO, knows no clock and never touches a Kubernetes client.

#![expect(unreachable_pub, reason = "kube's schema derive copies public structures into function bodies")]
#![expect(
    clippy::duplicated_attributes,
    reason = "columns of kinds share their types, which the lint takes for repetition"
)]

#[macro_use]
mod string_enum;

pub mod admission;
pub mod conditions;
mod dns_publication;
mod domain_claim;
mod duration;
mod federated_domain;
mod federation;
mod federation_policy;
mod gateway_pool;
mod local_domain;
pub mod manifest;
mod object;
mod overrides;
mod peer_type;
pub mod rules;
mod schema;
mod secret;
mod shared;
pub mod validate;

pub use dns_publication::*;
pub use domain_claim::*;
pub use duration::{Duration, ParseDurationError};
pub use federated_domain::*;
pub use federation::*;
pub use federation_policy::*;
pub use gateway_pool::*;
pub use local_domain::*;
pub use object::{Kind, Object, ObjectError, parse_kind};
pub use overrides::*;
pub use peer_type::{Dialect, PeerType};
pub use secret::{Secret, SecretError};
pub use shared::*;

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
pub use kube::core::{CustomResourceExt, Resource, ResourceExt};

/// API group of all kinds.
pub const GROUP: &str = "isthmus.dev";
/// The served and stored version.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of every document: group and version.
pub const API_VERSION: &str = "isthmus.dev/v1alpha1";
/// The only name that a Federation may have.
pub const FEDERATION_NAME: &str = "default";
/// Annotation that stops reconciliation of an object when `"true"`.
pub const PAUSED_ANNOTATION: &str = "isthmus.dev/paused";
