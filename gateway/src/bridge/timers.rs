//! Due times of pairs: whatever the store says is due, is done in the pair's lane.
//!
//! Processes that share the store share the due times too: each shard is served by the process that holds its lease, and
//! each takes its fair part of the shards. What is due for a pair whose link another process holds is done there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use isthmus_interwork::authorization::PairRecord;
use isthmus_interwork::session::SessionRecord;
use isthmus_model::PairId;
use isthmus_store::timer::CLAIM_HOLD;
use isthmus_store::wake::Topic;
use isthmus_store::{
    Acquisition, Due, Key, Kind, Lease, LeaseName, Record, Retry, SHARDS, Shard, ShardClaim, Store, StoreError,
    TimerKind, record,
};

use super::Bridge;
use super::presence::PairUsers;
use crate::pods::Pods;

/// A pair's next deadline.
pub(super) const PAIR: TimerKind = TimerKind(1);
/// The next deadline of a pair's session.
pub(super) const SESSION: TimerKind = TimerKind(2);
/// How many timers are claimed at once.
const BATCH: usize = 256;
/// The longest sleep; a clock that was set wrong cannot stop the timers for longer.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// The pause after the store failed.
const PAUSE: Duration = Duration::from_secs(1);
/// The pause when nothing could be claimed though something should be due.
const EARLY: Duration = Duration::from_millis(50);
/// How long the lease of a shard lasts: what is due is done elsewhere within 10 s of its holder's death (S-41).
const LEASE: Duration = Duration::from_secs(5);
/// How often leases are renewed and shares compared.
const RENEW: Duration = Duration::from_secs(2);

/// The shards that this process serves.
struct Served {
    store: Arc<dyn Store>,
    pods: Arc<Pods>,
    held: BTreeMap<Shard, Lease>,
    /// When to look after the leases; `None` where there are none.
    next: Option<Instant>,
    claims: Vec<ShardClaim>,
}

impl Served {
    fn new(store: Arc<dyn Store>, pods: Arc<Pods>) -> Self {
        let shared = store.is_shared();
        Self {
            store,
            pods,
            held: BTreeMap::new(),
            next: shared.then(Instant::now),
            claims: if shared { Vec::new() } else { ShardClaim::all() },
        }
    }

    fn shards(&self) -> Vec<Shard> {
        self.claims.iter().map(|claim| claim.shard).collect()
    }

    /// Renews, takes and gives back leases when it is time to.
    async fn keep(&mut self) {
        let Some(next) = self.next else { return };
        if Instant::now() < next {
            return;
        }
        self.next = Some(Instant::now() + RENEW);
        self.renew().await;
        // A process that is about to end takes none.
        let share = match self.pods.active() {
            0 => 0,
            active => usize::from(SHARDS).div_ceil(active),
        };
        while self.held.len() > share {
            let Some((_, lease)) = self.held.pop_last() else { break };
            // One that is not given back runs out.
            let _ = self.store.release(&lease).await;
        }
        if self.held.len() < share {
            self.take(share - self.held.len()).await;
        }
        let claim = |(shard, lease): (&Shard, &Lease)| ShardClaim { shard: *shard, fence: Some(lease.fence.clone()) };
        self.claims = self.held.iter().map(claim).collect();
    }

    async fn renew(&mut self) {
        let renewals = self.held.iter().map(|(shard, lease)| async { (*shard, self.store.renew(lease, LEASE).await) });
        for (shard, renewed) in join_all(renewals).await {
            match renewed {
                Ok(lease) => {
                    self.held.insert(shard, lease);
                }
                Err(StoreError::FenceLost { .. }) => {
                    self.held.remove(&shard);
                }
                // Nobody else can have it while the store is away; if it ran out, a claim says so.
                Err(_) => {}
            }
        }
    }

    /// Tries to get this many more shards.
    async fn take(&mut self, wanted: usize) {
        let mut free: Vec<Shard> = Shard::all().filter(|shard| !self.held.contains_key(shard)).collect();
        // Processes that start together do not try the same ones.
        let start = rand::random_range(0..free.len().max(1));
        free.rotate_left(start);
        let mut missing = wanted;
        while missing > 0 && !free.is_empty() {
            let some: Vec<Shard> = free.drain(..missing.min(free.len())).collect();
            let (store, life) = (&self.store, self.pods.life());
            let asked = some
                .into_iter()
                .map(|shard| async move { (shard, store.acquire(&LeaseName::shard(shard), life, LEASE).await) });
            for (shard, acquired) in join_all(asked).await {
                match acquired {
                    Ok(Acquisition::Granted(lease)) => {
                        self.held.insert(shard, lease);
                        missing -= 1;
                    }
                    Ok(Acquisition::Held(_)) => {}
                    Err(_) => return,
                }
            }
        }
    }

    /// How long may be slept at most.
    fn longest_sleep(&self) -> Duration {
        self.next.map_or(LONGEST_SLEEP, |next| next.saturating_duration_since(Instant::now()).min(LONGEST_SLEEP))
    }

    /// A lease was lost: all are looked at now.
    fn doubt(&mut self) {
        self.next = self.next.map(|_| Instant::now());
    }
}

/// Serves the due times for ever.
pub(super) async fn run(bridge: Arc<Bridge>) {
    let mut served = Served::new(Arc::clone(&bridge.store), Arc::clone(&bridge.pods));
    let mut wake = bridge.store.wake(Topic::Timers);
    loop {
        served.keep().await;
        let now = super::now().epoch;
        let wait = match bridge.store.next_due(&served.shards()).await {
            Ok(Some(at)) => at.since(now).min(served.longest_sleep()),
            Ok(None) => served.longest_sleep(),
            Err(error) => {
                bridge.store_failed(&error);
                PAUSE
            }
        };
        if wait > Duration::ZERO {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = wake.changed() => {}
            }
            continue;
        }
        match bridge.store.claim_due(&served.claims, BATCH, CLAIM_HOLD).await {
            // Our clock is ahead of the store's, or another process was faster.
            Ok(due) if due.is_empty() => tokio::time::sleep(EARLY).await,
            Ok(due) => act_on_all(&bridge, due).await,
            Err(StoreError::FenceLost { .. }) => served.doubt(),
            Err(error) => {
                bridge.store_failed(&error);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Does what is due. Whose it is stands in the records, which are read at once.
async fn act_on_all(bridge: &Arc<Bridge>, due: Vec<Due>) {
    let keys: Vec<Key> = due.iter().map(|due| due.timer.key.clone()).collect();
    match bridge.store.read(&keys).await {
        Ok(records) => {
            for ((key, stored), due) in keys.into_iter().zip(records).zip(due) {
                act_on(bridge, key, stored, Some(due)).await;
            }
        }
        // One that cannot be read takes no other with it.
        Err(error) if error.retry() == Retry::Never => {
            for due in due {
                act(bridge, due.timer.key.clone(), Some(due)).await;
            }
        }
        // What was claimed comes again.
        Err(error) => bridge.store_failed(&error),
    }
}

/// Does what is due for the pair of a record. `due` is the claim, if this process holds it.
pub(super) async fn act(bridge: &Arc<Bridge>, key: Key, due: Option<Due>) {
    match bridge.store.read(std::slice::from_ref(&key)).await {
        Ok(mut records) => act_on(bridge, key, records.pop().flatten(), due).await,
        Err(error) => bridge.store_failed(&error),
    }
}

/// Reads whose record it is.
pub(super) fn users_of(kind: Kind, stored: &Record) -> Option<PairUsers> {
    let envelope = record::decode_as(kind, u16::MAX, &stored.bytes).ok()?;
    let (local, remote) = match kind {
        Kind::Pair => PairRecord::from_bytes(&envelope.payload).ok()?.users(),
        Kind::Session => SessionRecord::from_bytes(&envelope.payload).ok()?.users(),
        _ => None,
    }?;
    Some(PairUsers { local, remote })
}

async fn act_on(bridge: &Arc<Bridge>, key: Key, stored: Option<Record>, due: Option<Due>) {
    let Some(users) = stored.and_then(|stored| users_of(key.kind(), &stored)) else {
        // The record is gone, and with it what was due.
        return complete(bridge, due).await;
    };
    // Setting the next deadline takes the place of the claim.
    if due.is_some() && bridge.hand_over_due(&users, &key) {
        return;
    }
    let lane = PairId::of(&users.local, &users.remote);
    let at_work = Arc::clone(bridge);
    let submitted = bridge.lanes.submit(lane, async move {
        // Doing what is due sets the next deadline, which takes the place of this one.
        let is_over = match key.kind() {
            Kind::Session => at_work.session_timeout(&users).await,
            _ => at_work.pair_timeout(&users).await,
        };
        // What could not be stored comes again. A full store would take this all the same, and the pair would have no due time
        // any more, by which it is found.
        if is_over {
            complete(&at_work, due).await;
        }
    });
    if submitted.is_err() {
        tracing::warn!("a pair's lane is full; its timer comes again");
    }
}

async fn complete(bridge: &Bridge, due: Option<Due>) {
    if let Some(due) = due
        && let Err(error) = bridge.store.complete(due).await
    {
        bridge.store_failed(&error);
    }
}

#[cfg(test)]
mod tests {
    use isthmus_model::BareAddress;
    use isthmus_store::{Batch, Condition, Lifetime, Limits, MemoryStore, SystemClock, Timer};
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::bridge::tests::store::TestStore;
    use crate::metrics::Metrics;

    const HALF: usize = SHARDS as usize / 2;

    fn process(inner: &Arc<MemoryStore>, life: &str) -> Served {
        let store = TestStore::shared_over(Arc::clone(inner) as _);
        let pods = Pods::start(Arc::clone(&store) as _, life, "sip/0", Arc::new(Metrics::new()));
        Served::new(store, pods)
    }

    async fn keep_until(served: &mut [&mut Served], what: &str, met: impl Fn(&[&mut Served]) -> bool) {
        let keeping = async {
            while !met(served) {
                for one in served.iter_mut() {
                    one.keep().await;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(20), keeping).await.unwrap_or_else(|_| panic!("not seen: {what}"));
    }

    // S-13, S-41
    #[tokio::test]
    async fn shards_are_shared_out_and_those_of_a_dead_process_are_taken() {
        let inner = Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)));
        let mut one = process(&inner, "one");
        keep_until(&mut [&mut one], "one has all", |all| all[0].held.len() == 2 * HALF).await;
        let mut two = process(&inner, "two");
        let halves = |all: &[&mut Served]| all.iter().all(|served| served.held.len() == HALF);
        keep_until(&mut [&mut one, &mut two], "each has a half", halves).await;
        // The first one dies, and tells nobody.
        one.pods.die();
        let stopped = Instant::now();
        keep_until(&mut [&mut two], "two has all", |all| all[0].held.len() == 2 * HALF).await;
        assert!(stopped.elapsed() < Duration::from_secs(10), "{:?}", stopped.elapsed());
        let bare = |jid: &str| BareAddress::from_jid(jid).unwrap();
        for number in 0..50 {
            let key =
                Key::pair(&PairId::of(&bare("juliet@corp.example"), &bare(&format!("u{number}@partner.example"))));
            let mut batch = Batch::new();
            let bytes = record::encode(Kind::Pair, 1, b"");
            batch.put(key.clone(), Condition::Absent, bytes, Lifetime::For(LEASE));
            let due = crate::bridge::now().epoch;
            batch.set_timer(Timer { kind: PAIR, key, due, generation: due.0 });
            inner.commit(batch).await.unwrap();
        }
        let late = inner.claim_due(&one.claims, BATCH, CLAIM_HOLD).await;
        assert!(matches!(late, Err(StoreError::FenceLost { .. })), "{late:?}");
        assert_eq!(inner.claim_due(&two.claims, BATCH, CLAIM_HOLD).await.unwrap().len(), 50);
    }
}
