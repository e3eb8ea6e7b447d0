//! Who waits for what in a store.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::wake::Wake;

#[derive(Debug)]
struct Waiting<K> {
    topics: HashMap<K, watch::Sender<u64>>,
    /// From how many topics on those without waiters are looked for.
    tidy_at: usize,
}

/// The registrations of all topics, by what the backend calls a topic.
#[derive(Debug)]
pub(crate) struct Wakes<K> {
    waiting: Mutex<Waiting<K>>,
    /// Whether anybody ever registered, so that a store without waiters pays nothing.
    used: AtomicBool,
}

impl<K> Default for Wakes<K> {
    fn default() -> Self {
        let waiting = Waiting { topics: HashMap::new(), tidy_at: 0 };
        Self { waiting: Mutex::new(waiting), used: AtomicBool::new(false) }
    }
}

impl<K: Eq + Hash> Wakes<K> {
    pub(crate) fn register(&self, topic: K) -> Wake {
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
    pub(crate) fn notify<Q: Eq + Hash + ?Sized>(&self, topic: &Q)
    where
        K: Borrow<Q>,
    {
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

    /// Wakes everybody, since something may have been missed.
    pub(crate) fn notify_all(&self) {
        for sender in self.waiting.lock().topics.values() {
            sender.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    #[cfg(test)]
    pub(crate) fn topics(&self) -> usize {
        self.waiting.lock().topics.len()
    }
}
