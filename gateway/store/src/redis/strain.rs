//! Whether the servers keep up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// An answer that takes so long is late: by then a peer repeats its request over UDP (T1, RFC 3261 §17.1.1.1).
const LATE: Duration = Duration::from_millis(500);
/// An answer counts for so long, if no other comes.
const FRESH: Duration = Duration::from_secs(2);
/// The part of the mean that each answer replaces is one in so many.
const WEIGHT: u64 = 8;

/// How long answers take: a mean in which older ones count less and less.
pub(super) struct Strain {
    start: Instant,
    /// In microseconds.
    mean: AtomicU64,
    /// When the last answer came, in milliseconds from the start.
    heard: AtomicU64,
}

impl Strain {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), mean: AtomicU64::new(0), heard: AtomicU64::new(0) }
    }

    /// An answer came to what was asked at `asked`.
    pub(super) fn note(&self, asked: Instant) {
        let now = Instant::now();
        let took = u64::try_from((now - asked).as_micros()).unwrap_or(u64::MAX / WEIGHT);
        // Answers that come at the same moment may overwrite each other's part, which does not matter.
        let mean = self.mean.load(Ordering::Relaxed);
        self.mean.store(mean - mean / WEIGHT + took / WEIGHT, Ordering::Relaxed);
        self.heard.store(self.since_start(now), Ordering::Relaxed);
    }

    pub(super) fn is_late(&self) -> bool {
        let silent = self.since_start(Instant::now()).saturating_sub(self.heard.load(Ordering::Relaxed));
        u128::from(self.mean.load(Ordering::Relaxed)) >= LATE.as_micros() && u128::from(silent) < FRESH.as_millis()
    }

    fn since_start(&self, at: Instant) -> u64 {
        u64::try_from((at - self.start).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn late_answers_in_a_row_are_a_strain_until_others_come_or_none() {
        let strain = Strain::new();
        assert!(!strain.is_late());
        let answer = async |millis: u64| {
            let asked = Instant::now();
            tokio::time::advance(Duration::from_millis(millis)).await;
            strain.note(asked);
        };
        answer(1500).await;
        assert!(!strain.is_late(), "one is none");
        for _ in 0..20 {
            answer(600).await;
        }
        assert!(strain.is_late());
        for _ in 0..10 {
            answer(1).await;
        }
        assert!(!strain.is_late());
        for _ in 0..20 {
            answer(600).await;
        }
        tokio::time::advance(FRESH).await;
        assert!(!strain.is_late());
    }
}
