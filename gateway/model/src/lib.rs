//! Protocol-neutral words of the gateway: domains, addresses, presence, decisions, time.
//!
//! Both protocol crates, the policy and the store speak in these types. Nothing here knows SIP or XMPP
//! syntax beyond the mapping of addresses, which lives here and nowhere else (see [`address`]), reads a
//! clock or draws a random number.

pub mod address;
pub mod decision;
pub mod domain;
pub mod pair;
pub mod presence;
pub mod time;
pub mod timestamp;

pub use address::{Address, AddressError, BareAddress, Localpart, Resource};
pub use decision::{Access, DenyMode, Direction, Feature, OfflineIm, Protocol};
pub use domain::{Domain, DomainError};
pub use pair::{Entropy, PairId};
pub use presence::{LangText, Priority, ResourcePresence, Show};
pub use time::{EpochMillis, Now};
