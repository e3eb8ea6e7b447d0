//! What a store says about itself.

/// Whether the store can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HealthState {
    /// It works; a finding is a warning at most.
    Ready,
    /// It works, but something needs attention.
    Degraded,
    /// It does not work.
    Down,
}

/// Every reason of a finding (kubernetes specification §3.1), of all stores.
pub const REASONS: [&str; 9] = [
    "Unreachable",
    "AuthenticationFailed",
    "WrongMode",
    "EvictionPolicyUnsafe",
    "StateNotDurable",
    "PersistenceFailing",
    "NearlyFull",
    "ClockDifference",
    "JournalFailing",
];

/// One thing that needs attention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// A constant in CamelCase, for conditions and metric labels.
    pub reason: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// The state of a store, for `/v1/status`, metrics and readiness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Whether it works.
    pub state: HealthState,
    /// Whether users' decisions survive the process.
    pub durable: bool,
    /// What needs attention, the worst first.
    pub findings: Vec<Finding>,
    /// Live records.
    pub records: usize,
    /// Octets that records and queued items count for against the limit.
    pub bytes: usize,
    /// Timers that are set.
    pub timers: usize,
    /// Items in all queues.
    pub queued: usize,
    /// Leases that are held.
    pub leases: usize,
    /// Items that ended their lifetime untaken since the start.
    pub expired_items: u64,
}
