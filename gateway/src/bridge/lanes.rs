//! Work of one pair in the order in which it arrived.
//!
//! Two requests of one dialog, or a stanza and a NOTIFY of the same pair, may arrive at the same moment on
//! different sockets. Each pair has a lane: its jobs run one after the other, in the order of submission;
//! lanes run beside each other. An idle lane costs nothing: it exists only while it has jobs.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use isthmus_model::PairId;
use parking_lot::Mutex;

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

const SHARDS: usize = 64;

/// A lane holds as many jobs as it may; the new one was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too much work is waiting for this pair of users")]
pub struct LaneFull;

/// The lanes of all pairs.
pub struct Lanes {
    shards: [Mutex<HashMap<PairId, VecDeque<Job>>>; SHARDS],
    depth: usize,
}

impl std::fmt::Debug for Lanes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lanes").field("depth", &self.depth).finish_non_exhaustive()
    }
}

impl Lanes {
    /// Makes lanes that hold at most `depth` waiting jobs each.
    pub fn new(depth: usize) -> Arc<Self> {
        Arc::new(Self { shards: std::array::from_fn(|_| Mutex::default()), depth })
    }

    /// Appends a job to the pair's lane. If the lane is idle, the job runs at once, in the caller, up to where it has to
    /// wait: most jobs never wait, and a task of their own would cost more than they do.
    ///
    /// # Errors
    ///
    /// [`LaneFull`]; the job is dropped and the caller answers its peer.
    pub fn submit(
        self: &Arc<Self>,
        pair: PairId,
        job: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), LaneFull> {
        {
            let mut shard = self.shard(pair).lock();
            if let Some(waiting) = shard.get_mut(&pair) {
                if waiting.len() >= self.depth {
                    return Err(LaneFull);
                }
                waiting.push_back(Box::pin(job));
                return Ok(());
            }
            shard.insert(pair, VecDeque::new());
        }
        let lane = Lane { lanes: Arc::clone(self), pair };
        let mut job: Job = Box::pin(job);
        // A job that waits is polled again by the lane's task, which then leaves its own waker.
        let polled = catch_unwind(AssertUnwindSafe(|| job.as_mut().poll(&mut Context::from_waker(Waker::noop()))));
        let first = if matches!(polled, Ok(Poll::Pending)) { Some(job) } else { lane.next() };
        if let Some(first) = first {
            tokio::spawn(lane.run(first));
        }
        Ok(())
    }

    /// Tells whether no lane has work.
    pub fn is_idle(&self) -> bool {
        self.shards.iter().all(|shard| shard.lock().is_empty())
    }

    fn shard(&self, pair: PairId) -> &Mutex<HashMap<PairId, VecDeque<Job>>> {
        let byte = pair.as_str().as_bytes().last().copied().unwrap_or(0);
        let other = pair.as_str().as_bytes().first().copied().unwrap_or(0);
        &self.shards[(usize::from(byte) * 31 + usize::from(other)) % SHARDS]
    }
}

/// The running end of a lane. Should a job panic, the lane goes on with the next one.
struct Lane {
    lanes: Arc<Lanes>,
    pair: PairId,
}

impl Lane {
    async fn run(self, first: Job) {
        first.await;
        while let Some(job) = self.next() {
            job.await;
        }
    }

    fn next(&self) -> Option<Job> {
        let mut shard = self.lanes.shard(self.pair).lock();
        let job = shard.get_mut(&self.pair).and_then(VecDeque::pop_front);
        if job.is_none() {
            shard.remove(&self.pair);
        }
        job
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        if let Some(job) = self.next() {
            let lane = Self { lanes: Arc::clone(&self.lanes), pair: self.pair };
            tokio::spawn(lane.run(job));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use isthmus_model::BareAddress;
    use tokio::sync::{mpsc, oneshot};

    use super::*;

    fn pair(remote: &str) -> PairId {
        let local = BareAddress::from_jid("lee@corp.example").unwrap();
        PairId::of(&local, &BareAddress::from_jid(remote).unwrap())
    }

    #[tokio::test]
    async fn jobs_of_a_pair_keep_their_order_and_other_pairs_do_not_wait() {
        let lanes = Lanes::new(10);
        let (seen, mut order) = mpsc::unbounded_channel();
        let (open, gate) = oneshot::channel::<()>();
        let first = seen.clone();
        lanes
            .submit(pair("ana@partner.example"), async move {
                let _ = gate.await;
                let _ = first.send(1);
            })
            .unwrap();
        let second = seen.clone();
        lanes.submit(pair("ana@partner.example"), async move { second.send(2).unwrap() }).unwrap();
        lanes.submit(pair("bob@partner.example"), async move { seen.send(3).unwrap() }).unwrap();
        assert_eq!(order.recv().await, Some(3));
        open.send(()).unwrap();
        assert_eq!(order.recv().await, Some(1));
        assert_eq!(order.recv().await, Some(2));
    }

    #[tokio::test]
    async fn a_full_lane_refuses_and_a_panic_does_not_stop_it() {
        let lanes = Lanes::new(1);
        let (open, gate) = oneshot::channel::<()>();
        let (seen, done) = oneshot::channel();
        let ana = pair("ana@partner.example");
        lanes
            .submit(ana, async move {
                let _ = gate.await;
                panic!("a job may be wrong");
            })
            .unwrap();
        lanes.submit(ana, async move { seen.send(()).unwrap() }).unwrap();
        assert_eq!(lanes.submit(ana, async {}), Err(LaneFull));
        open.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(5), done).await.unwrap().unwrap();
    }
}
