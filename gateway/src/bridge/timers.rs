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
    Acquisition, Due, Key, Kind, Lease, LeaseName, SHARDS, Shard, ShardClaim, Store, StoreError, TimerKind, record,
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
/// How long the lease of a shard lasts: what is due is done elsewhere within 10 s of its holder's death (S-41).
const LEASE: Duration = Duration::from_secs(6);
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
            Ok(due) => {
                for due in due {
                    act(&bridge, due.timer.key.clone(), Some(due)).await;
                }
            }
            Err(StoreError::FenceLost { .. }) => served.doubt(),
            Err(error) => {
                bridge.store_failed(&error);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Does what is due for the pair of a record. `due` is the claim, if this process holds it.
pub(super) async fn act(bridge: &Arc<Bridge>, key: Key, due: Option<Due>) {
    let users = match bridge.store.read(std::slice::from_ref(&key)).await {
        Ok(records) => records.into_iter().next().flatten().and_then(|stored| {
            let envelope = record::decode_as(key.kind(), u16::MAX, &stored.bytes).ok()?;
            match key.kind() {
                Kind::Pair => PairRecord::from_bytes(&envelope.payload).ok()?.users(),
                Kind::Session => SessionRecord::from_bytes(&envelope.payload).ok()?.users(),
                _ => None,
            }
        }),
        Err(error) => return bridge.store_failed(&error),
    };
    let Some((local, remote)) = users else {
        // The record is gone, and with it what was due.
        return complete(bridge, due).await;
    };
    let users = PairUsers { local, remote };
    // Setting the next deadline takes the place of the claim.
    if due.is_some() && bridge.hand_over_due(&users, &key) {
        return;
    }
    let lane = PairId::of(&users.local, &users.remote);
    let at_work = Arc::clone(bridge);
    let submitted = bridge.lanes.submit(lane, async move {
        // Doing what is due sets the next deadline, which takes the place of this one.
        match key.kind() {
            Kind::Session => at_work.session_timeout(&users).await,
            _ => at_work.pair_timeout(&users).await,
        }
        complete(&at_work, due).await;
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
