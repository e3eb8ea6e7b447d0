//! What can go wrong, whose fault it is, and what to do.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::key::{Key, LeaseName, QueueName};
use crate::record::Record;

/// A limit that can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bound {
    /// Number of records.
    Records,
    /// Octets of records and queued items together.
    Bytes,
    /// Items of one queue.
    Queue(QueueName),
    /// Number of queues.
    Queues,
    /// Number of timers.
    Timers,
    /// Number of leases.
    Leases,
    /// Octets of one record or item.
    RecordBytes,
    /// Octets of one name.
    NameBytes,
    /// Parts of one batch.
    BatchParts,
    /// Octets of all content in one batch.
    BatchBytes,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Records => "records",
            Self::Bytes => "octets in all",
            Self::Queue(queue) => return write!(f, "items in queue {queue}"),
            Self::Queues => "queues",
            Self::Timers => "timers",
            Self::Leases => "leases",
            Self::RecordBytes => "octets in a record",
            Self::NameBytes => "octets in a name",
            Self::BatchParts => "parts in a batch",
            Self::BatchBytes => "octets in a batch",
        })
    }
}

/// A condition that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The first record whose condition failed.
    pub key: Key,
    /// The record as it is, so that a retry needs no read.
    pub current: Option<Record>,
}

/// Why an operation of a store did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Somebody else was first: take the record in the error, decide again, retry a bounded number of times.
    #[error("record {} is not as expected", .0.key)]
    Conflict(Box<Conflict>),
    /// The caller no longer holds the lease. It must stop what it does under it and not retry.
    #[error("lease {lease} is no longer held")]
    FenceLost {
        /// The lease.
        lease: LeaseName,
    },
    /// The store cannot be reached, or could not make the change durable. A commit may have happened all the
    /// same, so a retry must be prepared for a conflict with itself.
    #[error("store is unavailable: {reason}")]
    Unavailable {
        /// What is wrong, without addresses or secrets of users.
        reason: String,
        /// When to try again, also for a Retry-After header.
        retry_after: Duration,
    },
    /// A limit on the whole is reached.
    #[error("store is full: {limit} {bound}")]
    Full {
        /// What is full.
        bound: Bound,
        /// The configured limit.
        limit: usize,
    },
    /// One thing is too big, now and ever.
    #[error("too large: {size} {bound}, at most {limit}")]
    TooLarge {
        /// What is too big.
        bound: Bound,
        /// Its size.
        size: usize,
        /// The configured limit.
        limit: usize,
    },
    /// The store holds something that it cannot have written.
    #[error("store is corrupt at {place}: {what}")]
    Corrupt {
        /// Where.
        place: String,
        /// What was found.
        what: String,
    },
    /// The caller broke a rule of the contract.
    #[error("store was used wrongly: {rule}")]
    Misuse {
        /// The rule.
        rule: &'static str,
    },
}

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nobody's: another process was first. Normal in small numbers.
    Race,
    /// The operator's: the store, its disk or its size.
    Operator,
    /// Whoever sent what was to be stored.
    Sender,
    /// Ours.
    Gateway,
}

/// What to do after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Decide again with the current record, at once.
    Reload,
    /// The same again after this time.
    After(Duration),
    /// Give up.
    Never,
}

/// When to come back to a full store: expiry makes room all the time.
const FULL_RETRY: Duration = Duration::from_secs(10);

impl StoreError {
    /// Returns whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Conflict(_) | Self::FenceLost { .. } => Fault::Race,
            Self::Unavailable { .. } | Self::Full { .. } | Self::Corrupt { .. } => Fault::Operator,
            Self::TooLarge { .. } => Fault::Sender,
            Self::Misuse { .. } => Fault::Gateway,
        }
    }

    /// Returns what to do.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Conflict(_) => Retry::Reload,
            Self::Unavailable { retry_after, .. } => Retry::After(*retry_after),
            Self::Full { .. } => Retry::After(FULL_RETRY),
            Self::FenceLost { .. } | Self::TooLarge { .. } | Self::Corrupt { .. } | Self::Misuse { .. } => Retry::Never,
        }
    }

    /// Tells whether nobody will ever succeed with it. A lost lease says nothing: its next holder may.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::TooLarge { .. } | Self::Corrupt { .. } | Self::Misuse { .. })
    }

    /// Tells whether the operation can succeed later or after a reload.
    pub fn retryable(&self) -> bool {
        self.retry() != Retry::Never
    }

    /// Returns the metric label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Conflict(_) => "conflict",
            Self::FenceLost { .. } => "fence_lost",
            Self::Unavailable { .. } => "unavailable",
            Self::Full { .. } => "full",
            Self::TooLarge { .. } => "too_large",
            Self::Corrupt { .. } => "corrupt",
            Self::Misuse { .. } => "misuse",
        }
    }
}

/// Why a store could not be opened. Each text names the place and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process uses the directory.
    #[error(
        "state directory {} is in use by another process; give each gateway a directory of its own, or stop the other",
        dir.display()
    )]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// The journal is damaged before its end.
    #[error(
        "journal {} is damaged at offset {offset}: {what}; restore the file from a backup, or move it away to start \
         without the users' decisions in it",
        file.display()
    )]
    Corrupt {
        /// The journal.
        file: PathBuf,
        /// Where the damage starts, in octets.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A newer release wrote the journal.
    #[error(
        "journal {} has format {found}, this release knows {known}; run the release that wrote it, or a newer one",
        file.display()
    )]
    Newer {
        /// The journal.
        file: PathBuf,
        /// The format found.
        found: u16,
        /// The newest format known.
        known: u16,
    },
    /// The journal holds more than the limits allow.
    #[error("journal {} holds more than {limit} {bound}; raise the limit", file.display())]
    TooMuch {
        /// The journal.
        file: PathBuf,
        /// Which limit.
        bound: Bound,
        /// The limit.
        limit: usize,
    },
    /// The file system refused.
    #[error("cannot {action} {}; the state directory must exist on a writable disk with room", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The refusal.
        source: std::io::Error,
    },
}
