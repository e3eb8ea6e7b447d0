//! What outlives a process: traits, versioned records, backends.
//!
//! A gateway process owns sockets, short timers and leases; everything that is needed to serve the *next*
//! message is here before the message that could trigger it leaves (interworking specification §6). The
//! store keeps envelopes, never protocol types: a [`Key`], a version, an expiry and bytes that belong to the
//! crate that wrote them ([`record`] says how such bytes name their format).
//!
//! - [`Store`] is the contract, the same for every backend; `tests/contract` runs it against each.
//! - [`Batch`] is one atomic change: records with conditions, timers, work for other processes, all under
//!   the fences of the leases it relies on. One message needs at most one [`Store::read`] and one
//!   [`Store::commit`], and each is one round trip.
//! - [`MemoryStore`] is the embedded backend. It serves one process; with a state directory users' decisions
//!   survive it.
//! - [`RedisStore`] keeps everything in Redis or Valkey, for as many processes as one likes.
//!
//! It refuses to keep anything but users' decisions without a lifetime, and it never holds more than its
//! configured limits.

pub mod batch;
pub mod clock;
pub mod error;
pub mod health;
pub mod key;
pub mod lease;
mod limits;
pub mod memory;
pub mod queue;
pub mod record;
pub mod redis;
mod store;
pub mod timer;
pub mod wake;
mod wakes;

pub use self::redis::{RedisConfig, RedisStore, is_redis_address};
pub use batch::{Batch, Committed, Condition, Lifetime};
pub use clock::{Clock, ManualClock, SystemClock};
pub use error::{Bound, Conflict, Fault, OpenError, Retry, StoreError};
pub use health::{Finding, Health, HealthState};
pub use key::{Key, Kind, LeaseName, QueueName, SHARDS, Shard, Slot};
pub use lease::{Acquisition, Fence, Holder, Lease};
pub use limits::Limits;
pub use memory::MemoryStore;
pub use queue::{Consumer, Item, ItemId};
pub use record::{Envelope, EnvelopeError, Record};
pub use store::{CommitAndRead, CommitEach, Store, StoreFuture};
pub use timer::{Due, ShardClaim, Timer, TimerCursor, TimerKind, TimerPage};
pub use wake::{Topic, Wake};
