//! Transactions (RFC 3261 §17 with RFC 6026, RFC 4320): the state of one request on either side.
//!
//! The types here hold state and say what it allows; [`crate::endpoint::Endpoint`] owns all of them, runs
//! their timers and sends.

pub(crate) mod client;
pub(crate) mod key;
pub(crate) mod server;
pub(crate) mod slab;

use std::fmt;

/// A request that we received, until it is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerTxId(pub(crate) slab::Key);

/// A request that we sent, until it is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientTxId(pub(crate) slab::Key);

impl fmt::Display for ServerTxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.0)
    }
}

impl fmt::Display for ClientTxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}", self.0)
    }
}

/// Either kind, as the key of timers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TxRef {
    Server(slab::Key),
    Client(slab::Key),
}
