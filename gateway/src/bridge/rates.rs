//! How much of a partner's requests is taken in a second (`limits` of its FederatedDomain and of the pool).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use isthmus_model::Domain;
use isthmus_policy::{FederatedDomain, Pool};
use isthmus_sip::Method;
use parking_lot::Mutex;

const SECOND: Duration = Duration::from_secs(1);

/// What is counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Message,
    Session,
}

/// The rates of all partners. There is one entry for each FederatedDomain that ever sent something.
///
/// It is the generic cell rate algorithm: a second's worth may come at once, and then one after each step.
#[derive(Debug, Default)]
pub(super) struct Rates {
    /// When each kind's bucket would be full again.
    full: Mutex<HashMap<Domain, [Option<Instant>; 2]>>,
}

impl Rates {
    /// Counts a request of a partner.
    ///
    /// # Errors
    ///
    /// How long the partner should wait, when it sent more than it may; the request is not counted then.
    pub(super) fn take(
        &self,
        pool: &Pool,
        partner: &FederatedDomain,
        method: Method<'_>,
        in_dialog: bool,
        now: Instant,
    ) -> Result<(), Duration> {
        let (kind, rate) = match method {
            Method::Message => (Kind::Message, partner.messages_per_second),
            Method::Invite | Method::Subscribe if !in_dialog => {
                (Kind::Session, Some(pool.limits.new_sessions_per_second_per_domain))
            }
            _ => return Ok(()),
        };
        rate.map_or(Ok(()), |rate| self.count(&partner.domain, kind, rate, now))
    }

    fn count(&self, domain: &Domain, kind: Kind, rate: u32, now: Instant) -> Result<(), Duration> {
        let mut full = self.full.lock();
        let slots = match full.get_mut(domain) {
            Some(slots) => slots,
            None => full.entry(domain.clone()).or_default(),
        };
        let [messages, sessions] = slots;
        let slot = if kind == Kind::Message { messages } else { sessions };
        take_one(slot, rate, now)
    }
}

/// Counts one of so many in a second; `full` is when the bucket would be full again.
///
/// # Errors
///
/// How long to wait, when there is none left; nothing is counted then.
pub(super) fn take_one(full: &mut Option<Instant>, rate: u32, now: Instant) -> Result<(), Duration> {
    let step = SECOND / rate.max(1);
    let begin = full.unwrap_or(now).max(now);
    let ahead = (begin + step).saturating_duration_since(now);
    if let Some(wait) = ahead.checked_sub(SECOND).filter(|wait| !wait.is_zero()) {
        return Err(wait);
    }
    *full = Some(begin + step);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seconds_worth_comes_at_once_and_then_one_after_each_step() {
        let (rates, begin) = (Rates::default(), Instant::now());
        let domain = Domain::parse("partner.example").unwrap();
        let other = Domain::parse("other.example").unwrap();
        let take = |domain, kind, millis| rates.count(domain, kind, 4, begin + Duration::from_millis(millis));
        for _ in 0..4 {
            assert_eq!(take(&domain, Kind::Message, 0), Ok(()));
        }
        assert_eq!(take(&domain, Kind::Message, 0), Err(Duration::from_millis(250)));
        assert_eq!(take(&domain, Kind::Session, 0), Ok(()), "kinds are counted apart");
        assert_eq!(take(&other, Kind::Message, 0), Ok(()), "and so are partners");
        assert_eq!(take(&domain, Kind::Message, 249), Err(Duration::from_millis(1)));
        assert_eq!(take(&domain, Kind::Message, 250), Ok(()));
        assert!(take(&domain, Kind::Message, 250).is_err());
        for _ in 0..4 {
            assert_eq!(take(&domain, Kind::Message, 9_000), Ok(()), "a pause fills it to a second's worth and no more");
        }
        assert!(take(&domain, Kind::Message, 9_000).is_err());
    }
}
