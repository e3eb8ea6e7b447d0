//! How long presence of a pair was blind: from the moment a link was lost, at whichever process, until the pair had its
//! turn at the new one, and, if the local user was asked for, until the answer came.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use isthmus_model::{EpochMillis, PairId};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Bridge;

/// An answer that has not come by then does not come: the user's server has nothing to say.
const ANSWER: Duration = Duration::from_secs(2);
/// How many of the last pairs the figures are about.
const SAMPLES: usize = 10_000;
/// How many answers are waited for; a pair beyond that counts without its answer.
const MOST: usize = 100_000;

/// What is known about blind pairs.
#[derive(Default)]
pub(super) struct Blind {
    state: Mutex<State>,
    /// Turns that were not given yet.
    turns: AtomicUsize,
    /// Answers that are waited for; so that a stanza costs nothing while there are none.
    answers: AtomicUsize,
}

#[derive(Default)]
struct State {
    /// Pairs whose user was asked for: since when they are blind, and when the wait ends.
    asked: HashMap<PairId, (EpochMillis, Instant)>,
    /// The same in the order in which the waits end; those that were answered stay until then.
    ends: VecDeque<(Instant, PairId)>,
    /// The last times in milliseconds.
    last: VecDeque<u64>,
    count: u64,
    sweeping: bool,
}

/// Blind times of the last pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlindTimes {
    /// Pairs that were blind since the process began.
    pub count: u64,
    /// The median of the last of them, in milliseconds.
    pub p50: u64,
    /// 99 of 100 of them were not blind for longer.
    pub p99: u64,
    /// The longest of them.
    pub max: u64,
    /// Pairs that are known to be blind now.
    pub pending: usize,
}

/// Counts a turn as long as it is waited for.
pub(super) struct Waiting(Arc<Bridge>);

impl Waiting {
    pub(super) fn new(bridge: &Arc<Bridge>) -> Self {
        bridge.blind.turns.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(bridge))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.blind.turns.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Bridge {
    /// Tells how long pairs were blind.
    pub fn blind_times(&self) -> BlindTimes {
        let pending = self.blind.turns.load(Ordering::Relaxed) + self.blind.answers.load(Ordering::Relaxed);
        let (count, mut last) = {
            let state = self.blind.state.lock();
            (state.count, state.last.iter().copied().collect::<Vec<_>>())
        };
        last.sort_unstable();
        let at = |percent: usize| last.get((last.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        BlindTimes {
            count,
            p50: at(50).unwrap_or(0),
            p99: at(99).unwrap_or(0),
            max: last.last().copied().unwrap_or(0),
            pending,
        }
    }

    /// A pair's turn asks for the local user: the pair sees again with the answer.
    pub(super) fn blind_until_answer(self: &Arc<Self>, pair: PairId, since: EpochMillis) {
        let mut state = self.blind.state.lock();
        if state.ends.len() >= MOST {
            drop(state);
            return self.sees_again(since);
        }
        // One that is blind for the second time in a row was so all the time.
        let since = state.asked.get(&pair).map_or(since, |(before, _)| since.min(*before));
        let end = Instant::now() + ANSWER;
        state.asked.insert(pair, (since, end));
        state.ends.push_back((end, pair));
        self.blind.answers.store(state.asked.len(), Ordering::Relaxed);
        if !std::mem::replace(&mut state.sweeping, true) {
            tokio::spawn(sweep(Arc::clone(self)));
        }
    }

    /// The local server said something about a pair's local user.
    pub(super) fn blind_answered(&self, pair: &PairId) {
        if self.blind.answers.load(Ordering::Relaxed) == 0 {
            return;
        }
        let since = {
            let mut state = self.blind.state.lock();
            let since = state.asked.remove(pair);
            self.blind.answers.store(state.asked.len(), Ordering::Relaxed);
            since
        };
        if let Some((since, _)) = since {
            self.sees_again(since);
        }
    }

    /// A pair is blind no longer.
    pub(super) fn sees_again(&self, since: EpochMillis) {
        let time = super::now().epoch.since(since);
        self.metrics.blind_seconds.observe(time.as_secs_f64());
        let mut state = self.blind.state.lock();
        state.count += 1;
        if state.last.len() >= SAMPLES {
            state.last.pop_front();
        }
        state.last.push_back(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    }
}

/// Ends the waits that are over, until there is none.
async fn sweep(bridge: Arc<Bridge>) {
    loop {
        let mut over = Vec::new();
        let next = {
            let mut state = bridge.blind.state.lock();
            let now = Instant::now();
            while let Some((_, pair)) = state.ends.pop_front_if(|(at, _)| *at <= now) {
                // One that was asked for again meanwhile has a later end.
                if let Some((since, end)) = state.asked.get(&pair).copied()
                    && end <= now
                {
                    state.asked.remove(&pair);
                    over.push(since);
                }
            }
            bridge.blind.answers.store(state.asked.len(), Ordering::Relaxed);
            let next = state.ends.front().map(|(at, _)| *at);
            state.sweeping = next.is_some();
            next
        };
        for since in over {
            bridge.sees_again(since);
        }
        match next {
            Some(at) => tokio::time::sleep_until(at).await,
            None => return,
        }
    }
}
