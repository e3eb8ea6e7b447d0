//! Compiles a realm's objects into a [`Snapshot`] and takes every decision on it.
//!
//! One compiler serves gateway, operator and command line, so what the status says, what a gateway does and
//! what `explain` prints is one computation. Everything here is pure: no clock, no IO, no random numbers.
//!
//! - [`Snapshot::compile`] makes a snapshot and a list of problems from a whole set of objects;
//!   [`Snapshot::apply`] derives the next one after a change of one object.
//! - [`Snapshot::decide`] answers whether something may cross, [`Snapshot::explain`] with all reasons.
//! - [`Snapshot::sender_allowed`] tells whether a peer may speak for a domain.
//! - [`PeerSettings`] are the switches of one peer.
//! - [`UserList`] is a user's own list, kept in the state store.

pub mod decide;
#[cfg(test)]
mod fixtures;
pub mod identity;
pub mod links;
pub mod objects;
mod parse;
pub mod problem;
pub mod profile;
mod publication;
mod relations;
pub mod rules;
pub mod snapshot;
mod table;
pub mod user_list;

pub use decide::{Cause, Decision, Explanation, Gate, Party, Permitted, Question};
pub use identity::{PeerIdentities, Proof, Resolve, Sender, SenderRefusal};
pub use links::ComponentLink;
pub use objects::{
    Backend, ComponentBackend, FederatedDomain, Federation, LocalDomain, LocalPolicy, Pool, Protocols, Route, XmppPeer,
    XmppServerBackend,
};
pub use problem::{Problem, Severity};
pub use profile::{MessageMode, PeerSettings};
pub use rules::Rule;
pub use snapshot::{Change, Counts, Report, Snapshot};
pub use user_list::{ListAction, ListEntry, ListError, Source, Subject, UserList};
