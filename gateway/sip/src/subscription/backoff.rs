//! How long to wait before the next try.

use std::time::Duration;

use minicbor::{Decode, Encode};

/// Steps of 30 s, 1, 2, 5, 10, 30 and 60 minutes, then 60 for ever, each varied by up to a fifth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Backoff {
    #[n(0)]
    step: u8,
    #[n(1)]
    at_once_used: bool,
}

const STEPS_SECS: [u64; 7] = [30, 60, 120, 300, 600, 1800, 3600];

impl Backoff {
    /// Returns the wait before the next try and moves one step on.
    ///
    /// `random` varies the step by ±20 %. A `retry_after` of the peer makes the wait longer, never shorter.
    pub fn next(&mut self, random: u64, retry_after: Option<u32>) -> Duration {
        let last = STEPS_SECS.len() - 1;
        let secs = STEPS_SECS.get(usize::from(self.step).min(last)).copied().unwrap_or(3600);
        self.step = self.step.saturating_add(1);
        let base = secs * 1000;
        // from 80 % to 120 % in thousandths of the step
        let varied = base / 1000 * (800 + random % 401);
        Duration::from_millis(varied).max(Duration::from_secs(retry_after.unwrap_or(0).into()))
    }

    /// Allows one try without waiting; the next ones wait until [`Self::reset`].
    pub fn take_at_once(&mut self) -> bool {
        !std::mem::replace(&mut self.at_once_used, true)
    }

    /// Starts again from the first step, after a success.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

/// Draws from `0..=most` in milliseconds.
pub(super) fn up_to(most: Duration, random: u64) -> Duration {
    let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(random % most.saturating_add(1).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_grow_to_an_hour_and_vary_by_a_fifth() {
        let mut low = Backoff::default();
        let mut high = Backoff::default();
        for secs in [30, 60, 120, 300, 600, 1800, 3600, 3600, 3600] {
            assert_eq!(low.next(0, None), Duration::from_secs(secs).mul_f64(0.8));
            assert_eq!(high.next(400, None), Duration::from_secs(secs).mul_f64(1.2));
        }
        low.reset();
        assert_eq!(low.next(200, None), Duration::from_secs(30));
    }

    #[test]
    fn retry_after_only_makes_the_wait_longer() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next(200, Some(300)), Duration::from_secs(300));
        assert_eq!(backoff.next(200, Some(5)), Duration::from_secs(60));
    }

    #[test]
    fn one_try_at_once_until_a_success() {
        let mut backoff = Backoff::default();
        assert!(backoff.take_at_once());
        assert!(!backoff.take_at_once());
        backoff.reset();
        assert!(backoff.take_at_once());
    }
}
