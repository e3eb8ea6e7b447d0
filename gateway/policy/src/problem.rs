//! What is wrong with an object, in the words that status, logs and command line all use.

use std::fmt;

pub use isthmus_crds::Kind;
pub use isthmus_crds::conditions::{reasons, types};

/// What follows from a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Works, but a person should know.
    Warning,
    /// A reference leads nowhere (`ResolvedRefs=False`); the object takes part as far as it can.
    Unresolved,
    /// Valid, but something that it needs is missing; it takes no part until that appears.
    Inactive,
    /// A contradiction or an invalid value: the object takes no part, and a directory with it is refused whole.
    Refused,
}

/// One problem of one object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Kind of the object.
    pub kind: Kind,
    /// Name of the object.
    pub name: String,
    /// What follows.
    pub severity: Severity,
    /// The condition that says it, one of [`types`].
    pub condition: &'static str,
    /// The condition's reason, one of [`reasons`] or [`own_reasons`].
    pub reason: &'static str,
    /// The field at fault, for example `spec.chatAliases[0].host`.
    pub field: String,
    /// What is wrong, lower case, without a full stop, naming other objects as `Kind name`.
    pub problem: String,
    /// What to do about it: one sentence.
    pub remedy: String,
}

/// Reasons that only the compiler knows.
pub mod own_reasons {
    /// Accepted: a value cannot be read although its schema let it pass.
    pub const INVALID_VALUE: &str = "InvalidValue";
    /// Accepted: two documents declare the same object.
    pub const DUPLICATE_OBJECT: &str = "DuplicateObject";
    /// Two local domains name different secrets for one component.
    pub const SECRET_KEY_CONFLICT: &str = "SecretKeyConflict";
    /// The profile's peer may speak nothing that we do.
    pub const PEER_NEEDS_OLD_TLS: &str = "PeerNeedsOldTLS";
}

impl Problem {
    /// The text of the condition's message: what is wrong and what to do.
    pub fn message(&self) -> String {
        format!("{}. {}", self.problem, self.remedy)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {} ({}): {}. {}", self.kind, self.name, self.field, self.reason, self.problem, self.remedy)
    }
}
