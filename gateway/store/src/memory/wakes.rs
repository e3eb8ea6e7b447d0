//! Who waits for what in a memory store.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::wake::{Topic, Wake};

#[derive(Debug, Default)]
struct Waiting {
    topics: HashMap<Topic, watch::Sender<u64>>,
    /// From how many topics on those without waiters are looked for.
    tidy_at: usize,
}

/// The registrations of all topics.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    waiting: Mutex<Waiting>,
    /// Whether anybody ever registered, so that a store without waiters pays nothing.
    used: AtomicBool,
}

impl Wakes {
    pub(super) fn register(&self, topic: Topic) -> Wake {
        let mut waiting = self.waiting.lock();
        if waiting.topics.len() >= waiting.tidy_at {
            waiting.topics.retain(|_, sender| sender.receiver_count() > 0);
            waiting.tidy_at = 64.max(2 * waiting.topics.len());
        }
        let receiver = waiting.topics.entry(topic).or_insert_with(|| watch::Sender::new(0)).subscribe();
        self.used.store(true, Ordering::Release);
        Wake::new(receiver)
    }

    /// Wakes those who wait for a topic.
    pub(super) fn notify(&self, topic: &Topic) {
        if !self.used.load(Ordering::Acquire) {
            return;
        }
        let mut waiting = self.waiting.lock();
        let Some(sender) = waiting.topics.get(topic) else { return };
        if sender.receiver_count() == 0 {
            waiting.topics.remove(topic);
        } else {
            sender.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    #[cfg(test)]
    pub(super) fn topics(&self) -> usize {
        self.waiting.lock().topics.len()
    }
}
