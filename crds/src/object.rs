//! The seven kinds as one sum type, for whoever reads documents or a watch of everything.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    API_VERSION, DNSPublication, DomainClaim, FederatedDomain, Federation, FederationPolicy, GatewayPool, LocalDomain,
    ObjectMeta,
};

string_enum! {
    /// One of the seven kinds.
    pub enum Kind {
        /// What all pools of a realm share.
        Federation = "Federation",
        /// A set of gateway nodes.
        GatewayPool = "GatewayPool",
        /// A domain whose users are ours.
        LocalDomain = "LocalDomain",
        /// A remote domain.
        FederatedDomain = "FederatedDomain",
        /// What is published in DNS.
        DNSPublication = "DNSPublication",
        /// Allow and block rules.
        FederationPolicy = "FederationPolicy",
        /// The right to own a local domain.
        DomainClaim = "DomainClaim",
    }
}

impl Kind {
    /// The kind that a document says it is, when it is one of ours.
    pub fn of(document: &Value) -> Option<Self> {
        if document.get("apiVersion").and_then(Value::as_str) != Some(API_VERSION) {
            return None;
        }
        let word = document.get("kind").and_then(Value::as_str)?;
        Self::ALL.iter().copied().find(|kind| kind.as_str() == word)
    }

    /// True for kinds that live in a namespace.
    pub const fn is_namespaced(self) -> bool {
        !matches!(self, Self::DomainClaim)
    }
}

/// An object of one of the seven kinds.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "objects are read once and moved to where they are kept")]
pub enum Object {
    /// What all pools of a realm share.
    Federation(Federation),
    /// A set of gateway nodes.
    GatewayPool(GatewayPool),
    /// A domain whose users are ours.
    LocalDomain(LocalDomain),
    /// A remote domain.
    FederatedDomain(FederatedDomain),
    /// What is published in DNS.
    DNSPublication(DNSPublication),
    /// Allow and block rules.
    FederationPolicy(FederationPolicy),
    /// The right to own a local domain.
    DomainClaim(DomainClaim),
}

impl Object {
    /// The kind of the object.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Federation(_) => Kind::Federation,
            Self::GatewayPool(_) => Kind::GatewayPool,
            Self::LocalDomain(_) => Kind::LocalDomain,
            Self::FederatedDomain(_) => Kind::FederatedDomain,
            Self::DNSPublication(_) => Kind::DNSPublication,
            Self::FederationPolicy(_) => Kind::FederationPolicy,
            Self::DomainClaim(_) => Kind::DomainClaim,
        }
    }

    /// The metadata of the object.
    pub const fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Federation(object) => &object.metadata,
            Self::GatewayPool(object) => &object.metadata,
            Self::LocalDomain(object) => &object.metadata,
            Self::FederatedDomain(object) => &object.metadata,
            Self::DNSPublication(object) => &object.metadata,
            Self::FederationPolicy(object) => &object.metadata,
            Self::DomainClaim(object) => &object.metadata,
        }
    }

    /// Name of the object; empty only when it was made without one.
    pub fn name(&self) -> &str {
        self.metadata().name.as_deref().unwrap_or_default()
    }

    /// Namespace of the object, when it has one.
    pub fn namespace(&self) -> Option<&str> {
        self.metadata().namespace.as_deref()
    }
}

/// Why a document is no object of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// The group is not ours.
    #[error("apiVersion {api_version:?} is not {API_VERSION}. Write apiVersion: {API_VERSION}.")]
    ForeignGroup {
        /// What the document says; empty when it says nothing.
        api_version: String,
    },
    /// The group is ours, the kind is not.
    #[error(
        "kind {kind:?} does not exist in {API_VERSION}. Use Federation, GatewayPool, LocalDomain, FederatedDomain, DNSPublication, FederationPolicy or DomainClaim."
    )]
    UnknownKind {
        /// What the document says; empty when it says nothing.
        kind: String,
    },
    /// The document does not fit the types, which the schema would have told in better words, or it is newer than the program.
    #[error("{kind} {name:?} cannot be read by this version: {detail}. Correct the field, or upgrade the program.")]
    Unreadable {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// What the reader says.
        detail: String,
    },
}

/// Reads a document as an object of its kind. It checks no rules: see [`crate::validate`].
///
/// # Errors
///
/// [`ObjectError`] when the document is of another group or kind, or does not fit the types.
pub fn parse_kind(document: &Value) -> Result<Object, ObjectError> {
    let Some(kind) = Kind::of(document) else {
        let word = |field: &str| document.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        return Err(if word("apiVersion") == API_VERSION {
            ObjectError::UnknownKind { kind: word("kind") }
        } else {
            ObjectError::ForeignGroup { api_version: word("apiVersion") }
        });
    };
    Ok(match kind {
        Kind::Federation => Object::Federation(read(kind, document)?),
        Kind::GatewayPool => Object::GatewayPool(read(kind, document)?),
        Kind::LocalDomain => Object::LocalDomain(read(kind, document)?),
        Kind::FederatedDomain => Object::FederatedDomain(read(kind, document)?),
        Kind::DNSPublication => Object::DNSPublication(read(kind, document)?),
        Kind::FederationPolicy => Object::FederationPolicy(read(kind, document)?),
        Kind::DomainClaim => Object::DomainClaim(read(kind, document)?),
    })
}

fn read<T: DeserializeOwned>(kind: Kind, document: &Value) -> Result<T, ObjectError> {
    T::deserialize(document).map_err(|error| ObjectError::Unreadable {
        kind,
        name: document.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned(),
        detail: error.to_string(),
    })
}
