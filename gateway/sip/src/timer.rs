//! The values of the transaction timers, and the queue they wait in.
//!
//! Every timer of RFC 3261 §17 runs for one of a dozen fixed times (T1, 2·T1, .. T2, T4, 64·T1), and time
//! only goes forward. So timers of one duration end in the order they were started, and the queue is one
//! first-in-first-out lane per duration: starting a timer and finding the next one cost the same with ten
//! transactions and with a hundred thousand. Stopping one costs nothing: its entry is found dead when it
//! reaches the front, and lanes are swept when dead entries outnumber live ones.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The three base values of RFC 3261 §17.1.1.1, from which all transaction timers follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimerConfig {
    /// Estimated round trip. Default 500 ms.
    pub t1: Duration,
    /// Longest interval between retransmissions of non-INVITE requests and of INVITE responses. Default 4 s.
    pub t2: Duration,
    /// Longest time that a message stays in the network. Default 5 s.
    pub t4: Duration,
}

impl Default for TimerConfig {
    fn default() -> Self {
        Self { t1: Duration::from_millis(500), t2: Duration::from_secs(4), t4: Duration::from_secs(5) }
    }
}

impl TimerConfig {
    /// 64·T1, the value of timers B, D, F, H, J, L, M and N: 32 s by default.
    pub fn timeout(&self) -> Duration {
        self.t1.saturating_mul(64)
    }

    /// The interval after `interval` for timers that double up to T2 (E, G and the repetition of a 2xx).
    pub fn next_up_to_t2(&self, interval: Duration) -> Duration {
        interval.saturating_mul(2).min(self.t2)
    }

    /// How long a non-INVITE request may stay unanswered before a 100 is due: the time that a client's
    /// timer E takes to reach T2, 3.5 s by default (RFC 4320 §4.1).
    pub fn non_invite_trying(&self) -> Duration {
        let mut interval = self.t1;
        let mut sum = Duration::ZERO;
        // a zero T1 would never reach T2
        while interval < self.t2 && !interval.is_zero() {
            sum = sum.saturating_add(interval);
            interval = interval.saturating_mul(2);
        }
        sum
    }
}

/// How long an INVITE may stay unanswered before a 100 is due (RFC 3261 §17.2.1).
pub(crate) const INVITE_TRYING: Duration = Duration::from_millis(200);

/// Why the endpoint wants to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TimerReason {
    /// Sends an INVITE again (UDP).
    A,
    /// Ends an INVITE that nobody answered.
    B,
    /// Stops waiting for repetitions of a final answer other than 2xx (UDP).
    D,
    /// Sends a non-INVITE request again (UDP).
    E,
    /// Ends a non-INVITE request that nobody answered.
    F,
    /// Sends a final answer other than 2xx to an INVITE again (UDP).
    G,
    /// Stops waiting for the ACK of such an answer.
    H,
    /// Stops absorbing repeated ACKs (UDP).
    I,
    /// Stops answering repetitions of a non-INVITE request (UDP).
    J,
    /// Stops absorbing repeated answers to a non-INVITE request (UDP).
    K,
    /// Ends the state of an INVITE server transaction after its 2xx (RFC 6026 §7.1).
    L,
    /// Ends the state of an INVITE client transaction after its 2xx (RFC 6026 §7.2).
    M,
    /// Sends a 2xx to an INVITE again until its ACK comes (RFC 3261 §13.3.1.4).
    Success,
    /// Sends 100 for a request that is still unanswered.
    Trying,
    /// Forgets an ended transaction: what it answered, for copies of the request by other paths, or what
    /// it asked, for a try at another target.
    Forget,
    /// Ends a transaction that waited far too long for its own user.
    Abandoned,
    /// Ends a cancelled INVITE whose peer never answered it (RFC 3261 §9.1).
    Cancelled,
    /// Ends a request whose connection broke, when no answer came by another one.
    Broken,
}

/// Names one start of one timer; the owner keeps it to tell live from dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token(u64);

/// A timer that was started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<K> {
    pub(crate) at: Instant,
    pub(crate) token: Token,
    pub(crate) key: K,
    pub(crate) reason: TimerReason,
}

struct Lane<K> {
    delay: Duration,
    entries: VecDeque<Entry<K>>,
}

/// All running timers, see the module's text.
pub(crate) struct Timers<K> {
    lanes: Vec<Lane<K>>,
    started: u64,
    len: usize,
    sweep_at: usize,
}

/// Entries that are never worth a sweep.
const SWEEP_FLOOR: usize = 4096;

impl<K: Copy> Timers<K> {
    pub(crate) fn new() -> Self {
        Self { lanes: Vec::new(), started: 0, len: 0, sweep_at: SWEEP_FLOOR }
    }

    /// Starts a timer. `now` must not go backwards between calls.
    pub(crate) fn start(&mut self, now: Instant, delay: Duration, key: K, reason: TimerReason) -> Token {
        self.started += 1;
        let token = Token(self.started);
        let entry = Entry { at: now + delay, token, key, reason };
        let known = self.lanes.iter().position(|lane| lane.delay == delay);
        if known.is_none() {
            self.lanes.push(Lane { delay, entries: VecDeque::new() });
        }
        let lane = known.unwrap_or(self.lanes.len() - 1);
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.entries.push_back(entry);
            self.len += 1;
        }
        token
    }

    /// Takes the earliest live timer that is due; of equal ones the one started first.
    pub(crate) fn take_due(&mut self, now: Instant, live: impl Fn(&Entry<K>) -> bool) -> Option<Entry<K>> {
        let lane = self.earliest(&live)?;
        let entries = &mut self.lanes.get_mut(lane)?.entries;
        if entries.front()?.at > now {
            return None;
        }
        self.len -= 1;
        entries.pop_front()
    }

    /// Tells when the earliest live timer ends.
    pub(crate) fn next(&mut self, live: impl Fn(&Entry<K>) -> bool) -> Option<(Instant, TimerReason)> {
        let lane = self.earliest(&live)?;
        let entry = self.lanes.get(lane)?.entries.front()?;
        Some((entry.at, entry.reason))
    }

    /// Removes dead entries when they have become the greater part.
    pub(crate) fn sweep(&mut self, live: impl Fn(&Entry<K>) -> bool) {
        if self.len < self.sweep_at {
            return;
        }
        for lane in &mut self.lanes {
            lane.entries.retain(&live);
        }
        self.len = self.lanes.iter().map(|lane| lane.entries.len()).sum();
        self.sweep_at = self.len.saturating_mul(2).max(SWEEP_FLOOR);
    }

    fn earliest(&mut self, live: &impl Fn(&Entry<K>) -> bool) -> Option<usize> {
        let mut best: Option<(Instant, u64, usize)> = None;
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            while lane.entries.front().is_some_and(|entry| !live(entry)) {
                lane.entries.pop_front();
                self.len -= 1;
            }
            if let Some(front) = lane.entries.front() {
                let this = (front.at, front.token.0, index);
                if best.is_none_or(|best| this < best) {
                    best = Some(this);
                }
            }
        }
        best.map(|(_, _, index)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn base_values_give_those_of_the_table() {
        let timers = TimerConfig::default();
        assert_eq!(timers.timeout(), Duration::from_secs(32));
        assert_eq!(timers.non_invite_trying(), Duration::from_millis(3500));
        let mut interval = timers.t1;
        let mut seen = vec![];
        for _ in 0..5 {
            seen.push(interval.as_millis());
            interval = timers.next_up_to_t2(interval);
        }
        assert_eq!(seen, [500, 1000, 2000, 4000, 4000]);
        let zero = TimerConfig { t1: Duration::ZERO, ..timers };
        assert_eq!(zero.non_invite_trying(), Duration::ZERO);
    }

    #[test]
    fn timers_end_by_time_then_by_start() {
        let t0 = start();
        let mut timers = Timers::new();
        timers.start(t0, Duration::from_secs(32), 'F', TimerReason::F);
        timers.start(t0, Duration::from_secs(5), 'K', TimerReason::K);
        timers.start(t0 + Duration::from_secs(27), Duration::from_secs(5), 'k', TimerReason::K);
        let late = t0 + Duration::from_secs(60);
        assert_eq!(timers.next(|_| true), Some((t0 + Duration::from_secs(5), TimerReason::K)));
        assert!(timers.take_due(t0 + Duration::from_millis(4999), |_| true).is_none());
        let order: String = std::iter::from_fn(|| timers.take_due(late, |_| true)).map(|e| e.key).collect();
        assert_eq!(order, "KFk");
    }

    #[test]
    fn stopped_timers_neither_fire_nor_wake_nor_pile_up() {
        let t0 = start();
        let mut timers = Timers::new();
        for key in 0..100_000_u32 {
            timers.start(t0, Duration::from_secs(32), key, TimerReason::F);
            timers.sweep(|entry| entry.key + 10 > key);
            assert!(timers.len <= SWEEP_FLOOR);
        }
        assert_eq!(timers.next(|entry| entry.key > 200_000), None);
        assert_eq!(timers.len, 0);
    }
}
