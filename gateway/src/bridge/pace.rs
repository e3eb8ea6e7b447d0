//! How fast a partner is asked for what is late: subscriptions that nobody could make or refresh while the store was away, or
//! while no gateway was there, or that went with the store's data, or whose NOTIFYs were refused.
//!
//! What is due is spread by itself, as its users came. After an outage all of it is due at once, and a partner bounds what it
//! takes in a second. So what is late, or is found missing when a link comes up, is put off, each to its own moment.

use std::collections::HashMap;
use std::time::Duration;

use isthmus_model::{Domain, EpochMillis};
use parking_lot::Mutex;

/// The pause between two subscriptions at one partner: Microsoft edges take about 20 messages in a second of a partner
/// whom they do not know, so 15 are sent (peers specification §1.3).
const GAP: Duration = Duration::from_millis(1000 / 15);
/// What does not fit into this time is spread over it all the same (interworking specification §2.3).
const LONGEST: Duration = Duration::from_secs(300);
/// More partners than that are looked through for those that nothing waits for.
const MANY: usize = 1024;

/// When each partner can be asked next.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<HashMap<Domain, EpochMillis>>);

impl Pace {
    /// Gives the moment at which a partner can be asked for one more subscription, and takes it; `None` if that is now.
    pub(super) fn take(&self, partner: &Domain, now: EpochMillis) -> Option<EpochMillis> {
        let mut next = self.0.lock();
        if next.len() > MANY {
            next.retain(|_, at| *at > now);
        }
        let at = next.get(partner).copied().filter(|at| *at > now).unwrap_or(now);
        if at.since(now) > LONGEST {
            return Some(now.plus(LONGEST.mul_f64(rand::random_range(0.0..1.0))));
        }
        next.insert(partner.clone(), at.plus(GAP));
        (at > now).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partner_is_asked_fifteen_times_in_a_second_and_not_later_than_after_five_minutes() {
        let (pace, now) = (Pace::default(), EpochMillis(1_800_000_000_000));
        let domain = |name| Domain::parse(name).unwrap();
        let (partner, other) = (domain("partner.example"), domain("other.example"));
        assert_eq!(pace.take(&partner, now), None);
        for n in 1..=15 {
            assert_eq!(pace.take(&partner, now), Some(now.plus(n * GAP)));
        }
        assert_eq!(pace.take(&other, now), None, "partners are counted apart");
        let later = now.plus(Duration::from_secs(1));
        assert_eq!(pace.take(&partner, later), Some(now.plus(16 * GAP)), "they still wait");
        assert_eq!(pace.take(&partner, now.plus(Duration::from_secs(60))), None);
        for _ in 0..10_000 {
            let at = pace.take(&partner, later).unwrap();
            assert!(at.since(later) <= LONGEST + Duration::from_secs(60), "{at:?}");
        }
    }
}
