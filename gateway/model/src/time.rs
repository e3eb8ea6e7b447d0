//! Time as an argument.
//!
//! A machine that needs time gets a [`Now`]. Deadlines inside a process are [`Instant`]s; what is stored
//! is [`EpochMillis`], since an `Instant` means nothing to another process. Only this module converts.

use std::time::{Duration, Instant};

/// Milliseconds since the Unix epoch, for records and documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EpochMillis(pub u64);

impl EpochMillis {
    /// Returns the point `duration` later, saturating.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// Returns the time that lies this much earlier, at the earliest the epoch.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// Returns the time from `earlier` to `self`, zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Returns whole seconds since the epoch.
    pub fn secs(self) -> u64 {
        self.0 / 1000
    }
}

/// The present moment on both clocks, read once per input by whoever does the IO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock, for deadlines inside the process.
    pub instant: Instant,
    /// The wall clock, for records and documents.
    pub epoch: EpochMillis,
}

impl Now {
    /// Converts a stored point in time to this process's monotonic clock; the past becomes now.
    pub fn instant_of(&self, at: EpochMillis) -> Instant {
        self.instant + at.since(self.epoch)
    }

    /// Returns the moment `duration` later on both clocks.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self { instant: self.instant + duration, epoch: self.epoch.plus(duration) }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_times_convert_and_the_past_is_now() {
        let now = Now { instant: Instant::now_for_tests(), epoch: EpochMillis(10_000) };
        assert_eq!(now.instant_of(EpochMillis(12_500)), now.instant + Duration::from_millis(2500));
        assert_eq!(now.instant_of(EpochMillis(1)), now.instant);
    }

    trait NowForTests {
        fn now_for_tests() -> Self;
    }

    impl NowForTests for Instant {
        #[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
        fn now_for_tests() -> Self {
            Self::now()
        }
    }
}
