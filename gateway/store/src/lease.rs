//! Leases: the right to do something for a while, with a token that every write proves.
//!
//! A lease can run out while its holder is paused. So the time alone protects nothing: what the holder writes
//! carries the lease's [`Fence`], and a store refuses it once the lease ran out, was released or went to
//! another holder ([`crate::StoreError::FenceLost`]).

use isthmus_model::EpochMillis;

use crate::key::LeaseName;

/// Proof of a lease, to be given with every write that relies on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fence {
    /// The lease.
    pub lease: LeaseName,
    /// Its token: each grant of a lease has a higher one than all before.
    pub token: u64,
}

/// A lease that was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What every write under the lease carries.
    pub fence: Fence,
    /// Who holds it.
    pub holder: String,
    /// When it runs out unless it is renewed; by the store's clock.
    pub expires_at: EpochMillis,
}

/// Who holds a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The name given with [`crate::Store::acquire`].
    pub name: String,
    /// The token of the grant.
    pub token: u64,
    /// When it runs out unless it is renewed; by the store's clock.
    pub expires_at: EpochMillis,
}

/// The answer to [`crate::Store::acquire`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Acquisition {
    /// The lease is the caller's.
    Granted(Lease),
    /// Somebody else has it.
    Held(Holder),
}

impl Acquisition {
    /// Returns the lease if it was granted.
    pub fn granted(self) -> Option<Lease> {
        match self {
            Self::Granted(lease) => Some(lease),
            Self::Held(_) => None,
        }
    }
}
