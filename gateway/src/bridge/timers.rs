//! Due times of pairs: whatever the store says is due, is done in the pair's lane.

use std::sync::Arc;
use std::time::Duration;

use isthmus_interwork::authorization::PairRecord;
use isthmus_interwork::session::SessionRecord;
use isthmus_store::timer::CLAIM_HOLD;
use isthmus_store::wake::Topic;
use isthmus_store::{Due, Kind, Shard, ShardClaim, TimerKind, record};

use super::Bridge;
use super::presence::PairUsers;

/// A pair's next deadline.
pub(super) const PAIR: TimerKind = TimerKind(1);
/// The next deadline of a pair's session.
pub(super) const SESSION: TimerKind = TimerKind(2);
/// How many timers are claimed at once.
const BATCH: usize = 256;
/// The longest sleep; a clock that was set wrong cannot stop the timers for longer.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Serves all shards; with the embedded store one process has them all.
pub(super) async fn run(bridge: Arc<Bridge>) {
    let shards: Vec<Shard> = Shard::all().collect();
    let claims = ShardClaim::all();
    let mut wake = bridge.store.wake(Topic::Timers);
    loop {
        let now = super::now().epoch;
        let wait = match bridge.store.next_due(&shards).await {
            Ok(Some(at)) => at.since(now).min(LONGEST_SLEEP),
            Ok(None) => LONGEST_SLEEP,
            Err(error) => {
                bridge.store_failed(&error);
                Duration::from_secs(1)
            }
        };
        if wait > Duration::ZERO {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = wake.changed() => {}
            }
            continue;
        }
        match bridge.store.claim_due(&claims, BATCH, CLAIM_HOLD).await {
            Ok(due) => {
                for due in due {
                    serve(&bridge, due).await;
                }
            }
            Err(error) => {
                bridge.store_failed(&error);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn serve(bridge: &Arc<Bridge>, due: Due) {
    let key = due.timer.key.clone();
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
        if let Err(error) = bridge.store.complete(due).await {
            bridge.store_failed(&error);
        }
        return;
    };
    let users = PairUsers { local, remote };
    let lane = isthmus_model::PairId::of(&users.local, &users.remote);
    let at_work = Arc::clone(bridge);
    let submitted = bridge.lanes.submit(lane, async move {
        // Doing what is due sets the next deadline, which takes the place of this one.
        match key.kind() {
            Kind::Session => at_work.session_timeout(&users).await,
            _ => at_work.pair_timeout(&users).await,
        }
        if let Err(error) = at_work.store.complete(due).await {
            at_work.store_failed(&error);
        }
    });
    if submitted.is_err() {
        tracing::warn!("a pair's lane is full; its timer comes again");
    }
}
