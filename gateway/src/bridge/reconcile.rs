//! What is done when a link comes up: every pair that it carries gets a turn.
//!
//! The local server sends nothing by itself to a component that was away, and the process that held the link before may
//! have died between storing a change and telling it. So whoever has the link now asks for the presence of users who are
//! watched, says again what users see of their contacts, and subscribes what is wanted and missing
//! ([`Pair::handle_link_ready`]).
//!
//! No list of pairs is kept for that. Every pair with presence has a next due time, and the store names the due times of
//! its shards; the pair's record says whose it is. The walk is paced: so many turns at once, each over when the local server
//! has dealt with what it sent, and none while the link has much to send already.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use isthmus_interwork::authorization::{Context, Output, Pair, ToLocal};
use isthmus_model::{BareAddress, Domain, EpochMillis};
use isthmus_store::{Key, Kind, Record, Retry, Shard, StoreError, StoreFuture};
use isthmus_xmpp::component::BarrierToken;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::blind::Waiting;
use super::presence::PairUsers;
use super::turn::Machine as _;
use super::{Bridge, DomainPair, timers};
use crate::edge::xmpp::{LinkSpec, Owner};

/// How many due times are named, and records read, at once.
const PAGE: usize = 128;
/// How many shards are walked at once. Most have few pairs, and each takes two round trips at least.
const SHARDS: usize = 16;
/// How many turns are under way at once: what people write waits at the local server behind as many stanzas at most.
pub(super) const TURNS: usize = 128;
/// Whoever gave a link back awaits the outcomes of what it sent for so long at most.
const GIVEN_BACK: Duration = Duration::from_secs(15);
/// How long a turn waits for the local server to deal with what it sent.
const SERVER: Duration = Duration::from_secs(30);
/// The pause after the store failed or a pair had too much to do.
const PAUSE: Duration = Duration::from_millis(500);

/// The walks under way.
#[derive(Default)]
pub(super) struct Walks {
    /// By server, port and component.
    under_way: Mutex<HashMap<(String, u16, Domain), Walk>>,
    /// Turns whose stanzas the local server has not dealt with.
    marks: Mutex<HashMap<u64, oneshot::Sender<()>>>,
}

impl Walks {
    /// The local server has dealt with what was sent before this mark, or nobody will know; tells whether it was one.
    pub(super) fn passed(&self, token: u64) -> bool {
        self.marks.lock().remove(&token).is_some()
    }

    /// Tells whether every pair had its turn.
    #[cfg(test)]
    pub(super) fn are_over(&self) -> bool {
        self.under_way.lock().values().all(|walk| walk.is_over.load(Ordering::Relaxed))
    }
}

struct Walk {
    task: JoinHandle<()>,
    /// Since when its pairs are blind, once that is known.
    lost_at: Arc<OnceLock<EpochMillis>>,
    began: Instant,
    /// Every pair had its turn, or another walk has begun.
    is_over: Arc<AtomicBool>,
}

/// How the turn of a pair came out.
enum Done {
    Yes,
    /// It can be tried again.
    Later,
}

impl Bridge {
    /// A link is up: what waits for it is sent, and its pairs get their turns. A walk that an earlier connection began
    /// ends. `lost_at` tells since when the pairs are blind.
    pub(super) fn handle_link_ready(self: &Arc<Self>, link: &LinkSpec, lost_at: Option<EpochMillis>) {
        // Somebody else may have worked for these pairs meanwhile.
        self.remembered.clear();
        self.send_letters(link.clone());
        let name = (link.host.clone(), link.port, link.name.clone());
        let mut walks = self.walks.under_way.lock();
        walks.retain(|_, walk| !walk.is_over.load(Ordering::Relaxed));
        let former = walks.remove(&name);
        if let Some(former) = &former {
            former.is_over.store(true, Ordering::Relaxed);
            former.task.abort();
        }
        // The pairs that it did not come to have been blind for longer, unless another process came to them.
        let same = |began: Instant| {
            link.locals.first().is_some_and(|local| self.links.held_for(local, &link.name, began.elapsed()))
        };
        let longer =
            former.as_ref().filter(|former| same(former.began)).and_then(|former| former.lost_at.get().copied());
        let lost_at = [longer, lost_at].into_iter().flatten().min();
        let is_over = Arc::new(AtomicBool::new(false));
        let (bridge, link, over) = (Arc::clone(self), link.clone(), Arc::clone(&is_over));
        let known = Arc::new(lost_at.map_or_else(OnceLock::new, OnceLock::from));
        let at_work = Arc::clone(&known);
        let task = tokio::spawn(async move {
            // No pair is to have its turn in two walks.
            if let Some(former) = former {
                let _ = former.task.await;
            }
            if at_work.get().is_none()
                && let Some(heard) = bridge.pods.heard_before().await
            {
                let _ = at_work.set(heard);
            }
            bridge.reconcile(link, at_work.get().copied(), over).await;
        });
        walks.insert(name, Walk { task, lost_at: known, began: Instant::now(), is_over });
    }

    async fn reconcile(self: Arc<Self>, link: LinkSpec, lost_at: Option<EpochMillis>, is_over: Arc<AtomicBool>) {
        let room = Arc::new(Semaphore::new(TURNS));
        // Where links break often, the walks must not all end before the same shards.
        let mut shards: Vec<Shard> = Shard::all().collect();
        let first = rand::random_range(0..shards.len());
        shards.rotate_left(first);
        let walks = shards.into_iter().map(|shard| self.reconcile_shard(&link, shard, lost_at, &room, &is_over));
        let walked: Vec<_> = stream::iter(walks).buffer_unordered(SHARDS).collect().await;
        // Of one that was given up the next one takes over since when its pairs are blind.
        let Some(pairs) = walked.into_iter().sum::<Option<u64>>() else { return };
        is_over.store(true, Ordering::Relaxed);
        if pairs > 0 {
            tracing::info!(component = %link.name, pairs, "presence is asked for and told again");
        }
    }

    /// Gives the pairs of a shard their turns, each when there is `room`; counts them. `None` when the link was lost meanwhile.
    async fn reconcile_shard(
        self: &Arc<Self>,
        link: &LinkSpec,
        shard: Shard,
        lost_at: Option<EpochMillis>,
        room: &Arc<Semaphore>,
        is_over: &Arc<AtomicBool>,
    ) -> Option<u64> {
        let mut turns = JoinSet::new();
        let (mut pairs, mut cursor, mut all) = (0, None, true);
        loop {
            let page = match self.insist(link, || self.store.timers(shard, cursor.as_ref(), PAGE)).await {
                Ok(Some(page)) => page,
                Ok(None) => return None,
                Err(error) => {
                    tracing::error!(shard = shard.number(), %error, "pairs of a shard cannot be found");
                    break;
                }
            };
            let keys = page.timers.into_iter().filter(|(kind, key)| *kind == timers::PAIR && key.kind() == Kind::Pair);
            let keys: Vec<Key> = keys.map(|(_, key)| key).collect();
            for keys in keys.chunks(PAGE) {
                let records = self.records_of(link, keys).await?;
                let mine: Vec<(PairUsers, Record)> = records
                    .into_iter()
                    .flatten()
                    .filter_map(|stored| Some((timers::users_of(Kind::Pair, &stored)?, stored)))
                    .filter(|(users, _)| carries(link, users))
                    .collect();
                self.remember_pairs(&mine).await;
                for (users, _) in mine {
                    self.links.has_room(&users.local.domain, &users.remote.domain).await;
                    let place = Arc::clone(room).acquire_owned().await.ok()?;
                    pairs += 1;
                    let (bridge, domains) =
                        (Arc::clone(self), (users.local.domain.clone(), users.remote.domain.clone()));
                    let turn = Arc::clone(self).reconcile_pair(link.clone(), users, lost_at, Arc::clone(is_over));
                    turns.spawn(async move {
                        let had_turn = turn.await;
                        bridge.keep_pace(&domains).await;
                        drop(place);
                        had_turn
                    });
                    while let Some(turn) = turns.try_join_next() {
                        all &= turn.unwrap_or(true);
                    }
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        while let Some(turn) = turns.join_next().await {
            all &= turn.unwrap_or(true);
        }
        all.then_some(pairs)
    }

    /// Reads in one piece what the turns of pairs would each read for themselves, and remembers it.
    async fn remember_pairs(&self, pairs: &[(PairUsers, Record)]) {
        if !self.store.is_shared() || pairs.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut keys: Vec<Key> = Vec::with_capacity(3 * pairs.len());
        for (users, stored) in pairs {
            let [own, others @ ..] = Pair::keys(users);
            self.remembered.note(&own, Some(stored.clone()), now);
            keys.extend(others);
        }
        let mut lists: Vec<&BareAddress> = pairs.iter().map(|(users, _)| &users.local).collect();
        lists.sort_unstable();
        lists.dedup();
        keys.extend(lists.iter().map(|user| Key::user(user)));
        // Without it each turn reads, and deals with what is wrong.
        let Ok(records) = self.store.read(&keys).await else { return };
        let mut records = keys.iter().zip(records);
        for (key, record) in records.by_ref().take(2 * pairs.len()) {
            self.remembered.note(key, record, now);
        }
        for (user, (_, list)) in lists.into_iter().zip(records) {
            self.note_list(user, list.as_ref());
        }
    }

    /// Reads records; one that cannot be read takes no other with it. `None` when the link is no longer this process's.
    async fn records_of(&self, link: &LinkSpec, keys: &[Key]) -> Option<Vec<Option<Record>>> {
        if let Ok(records) = self.insist(link, || self.store.read(keys)).await {
            return records;
        }
        let mut records = Vec::with_capacity(keys.len());
        for key in keys {
            match self.insist(link, || self.store.read(std::slice::from_ref(key))).await {
                Ok(Some(one)) => records.extend(one),
                Ok(None) => return None,
                Err(error) => tracing::error!(%error, "a stored pair cannot be read"),
            }
        }
        Some(records)
    }

    /// Asks the store until it answers. `None` when the link is no longer this process's.
    async fn insist<'a, T>(
        &self,
        link: &LinkSpec,
        ask: impl Fn() -> StoreFuture<'a, T>,
    ) -> Result<Option<T>, StoreError> {
        while self.holds(link) {
            match ask().await {
                Ok(answer) => return Ok(Some(answer)),
                Err(error) => {
                    self.store_failed(&error);
                    if error.retry() == Retry::Never {
                        return Err(error);
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        Ok(None)
    }

    /// Gives a pair its turn, again after a failure of the store, as long as the link is this process's; tells whether it had
    /// it.
    async fn reconcile_pair(
        self: Arc<Self>,
        link: LinkSpec,
        users: PairUsers,
        lost_at: Option<EpochMillis>,
        is_over: Arc<AtomicBool>,
    ) -> bool {
        let _waiting = Waiting::new(&self);
        while self.holds(&link) {
            let (tell, done) = oneshot::channel();
            let (bridge, of, is_over) = (Arc::clone(&self), users.clone(), Arc::clone(&is_over));
            let submitted = self.lanes.submit(users.id(), async move {
                // Another walk comes by.
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                // What the user took back is not to be taken for the answer to the probe.
                if bridge.wishes_wait(&of).await {
                    let _ = tell.send(Done::Later);
                    return;
                }
                let (local, remote) = (&of.local.domain, &of.remote.domain);
                // What this process awaits no more though it had the link all the time, nobody does.
                let gone = if !bridge.awaits(of.id()) && bridge.links.held_for(local, remote, GIVEN_BACK) {
                    Some(Duration::ZERO)
                } else {
                    bridge.links.loser(local, remote).map(|(_, since)| since.elapsed())
                };
                let ready = |pair: &mut Pair, ctx: &mut Context<'_>| {
                    if let Some(for_so_long) = gone {
                        let since = ctx.now.epoch.minus(for_so_long);
                        pair.handle_sender_gone(ctx, since);
                    }
                    if pair.is_to_subscribe()
                        && let Some(at) = bridge.pace.take(remote, ctx.now.epoch)
                    {
                        pair.put_off(ctx, at);
                    }
                    pair.handle_link_ready(ctx);
                };
                let done = match bridge.with_pair(&of, ready).await {
                    Ok((_, outputs)) => {
                        let asks = outputs.iter().any(|output| matches!(output, Output::ToLocal(ToLocal::Probe)));
                        match lost_at {
                            Some(since) if asks => bridge.blind_until_answer(of.id(), since),
                            Some(since) => bridge.sees_again(since),
                            None => {}
                        }
                        bridge.perform(&of, outputs);
                        Done::Yes
                    }
                    Err(error) => {
                        bridge.store_failed(&error);
                        if error.is_final() { Done::Yes } else { Done::Later }
                    }
                };
                let _ = tell.send(done);
            });
            match submitted {
                Ok(()) if !matches!(done.await, Ok(Done::Later)) => return true,
                Ok(()) => {}
                Err(_) => self.metrics.presence("xmpp_to_sip", "lane_full"),
            }
            tokio::time::sleep(PAUSE).await;
        }
        false
    }

    /// Waits until the local server has dealt with what was sent to it so far.
    async fn keep_pace(&self, (local, remote): &DomainPair) {
        let token = self.deliveries.next_token();
        let (passed, passes) = oneshot::channel();
        self.walks.marks.lock().insert(token, passed);
        if self.links.mark(local, remote, BarrierToken(token)).is_ok() {
            let _ = timeout(SERVER, passes).await;
        }
        self.walks.passed(token);
    }

    /// Tells whether this process works for the link's pairs.
    pub(super) fn holds(&self, link: &LinkSpec) -> bool {
        link.locals.iter().any(|local| matches!(self.links.owner(local, &link.name), Owner::Mine(_)))
    }
}

fn carries(link: &LinkSpec, users: &PairUsers) -> bool {
    link.name == users.remote.domain && link.locals.contains(&users.local.domain)
}
