//! SIP subscriptions (RFC 6665) as building blocks: what each side of one subscription knows and decides.
//!
//! A [`subscriber::Subscriber`] and a [`notifier::Notifier`] are records of one subscription. Each method takes what
//! happened and the time, and tells what follows; both say when they want to be called again. They hold no
//! document and no address: the presence pair that owns them decides what a NOTIFY carries and whom it
//! concerns. Times in them are epoch milliseconds, so that another process can go on with the record.

pub mod answer;
pub mod backoff;
pub mod notifier;
pub mod reason;
pub mod subscriber;

pub use answer::{InitialStep, RefreshStep, SubscribeAnswer};
pub use backoff::Backoff;
pub use notifier::{ExpiresLimits, Notifier, RefuseSubscribe};
pub use reason::{Ended, TerminationReason};
pub use subscriber::Subscriber;

/// The event package that the gateway serves (RFC 3856).
pub const PRESENCE: &str = "presence";

/// The presence document type that every implementation of the package must read (RFC 3856 §6.5).
pub const PIDF: &str = "application/pidf+xml";

/// The lifetime of a presence subscription whose request names none, in seconds (RFC 3856 §6.4).
pub const DEFAULT_EXPIRES_SECS: u32 = 3600;
