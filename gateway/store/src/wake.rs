//! Wake-ups, so that nobody polls.

use tokio::sync::watch;

use crate::key::{LeaseName, QueueName};

/// What to be woken for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Some timer is due earlier than all were before: ask [`crate::Store::next_due`] again.
    Timers,
    /// The queue has new work.
    Queue(QueueName),
    /// The lease was released. One that runs out wakes nobody: wait for its expiry.
    Lease(LeaseName),
}

/// A registration for wake-ups. It remembers what happened since the last wait, so none is missed
/// between looking and waiting. A wake-up is a hint: look before acting.
#[derive(Debug, Clone)]
pub struct Wake(watch::Receiver<u64>);

impl Wake {
    /// Makes a registration from a channel whose value grows with each event, for backends.
    pub fn new(receiver: watch::Receiver<u64>) -> Self {
        Self(receiver)
    }

    /// Waits for the next event since the last call. Never returns once the store is gone.
    ///
    /// It may be cancelled without losing an event.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
