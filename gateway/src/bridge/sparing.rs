//! Log lines about what can fail with every message: one a second for each kind.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

const PAUSE: Duration = Duration::from_secs(1);

/// When a line of each kind was written last, and how many were left out since.
#[derive(Debug, Default)]
pub(super) struct Sparing {
    kinds: Mutex<HashMap<&'static str, (Instant, u64)>>,
}

impl Sparing {
    /// Tells whether a line of this kind is to be written, and how many were left out before it.
    pub(super) fn line(&self, kind: &'static str, now: Instant) -> Option<u64> {
        let mut kinds = self.kinds.lock();
        let Some((written, left_out)) = kinds.get_mut(kind) else {
            kinds.insert(kind, (now, 0));
            return Some(0);
        };
        if now.saturating_duration_since(*written) < PAUSE {
            *left_out += 1;
            return None;
        }
        *written = now;
        Some(std::mem::take(left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_line_a_second_of_each_kind_with_the_number_left_out() {
        let (sparing, begin) = (Sparing::default(), Instant::now());
        let at = |kind, millis| sparing.line(kind, begin + Duration::from_millis(millis));
        assert_eq!((at("a", 0), at("b", 0)), (Some(0), Some(0)));
        assert_eq!((at("a", 1), at("a", 999), at("b", 999)), (None, None, None));
        assert_eq!((at("a", 1000), at("b", 1500)), (Some(2), Some(1)));
        assert_eq!((at("a", 1999), at("a", 9000), at("a", 10_000)), (None, Some(1), Some(0)));
    }
}
