//! Random steps of several processes, against the reference.

use futures::future::join_all;
use isthmus_model::EpochMillis;
use isthmus_store::{
    Acquisition, Batch, Bound, Committed, Condition, Consumer, Due, Fence, ItemId, Key, Lease, LeaseName, Lifetime,
    QueueName, Record, Shard, ShardClaim, StoreError, Timer, TimerKind,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::harness::{Harness, New, QUEUE_ITEMS, STEP, pair, span};
use crate::reference::{Change, Chg, Cond, KEYS, LEASES, QUEUES, Rec, Reference, Refusal, TimChg, Who};

const HOLDERS: usize = 3;
const KINDS: u16 = 2;

#[derive(Debug, Clone)]
enum Step {
    Advance(u32),
    Read,
    Commit(Picks),
    /// Changes that have nothing to do with one another, in one piece.
    Each(Vec<Picks>),
    /// The same, each with records that are read beside it, all at the same moment.
    AndRead(Vec<(Picks, Vec<usize>)>),
    Acquire {
        lease: usize,
        holder: usize,
        ttl: u32,
    },
    Renew {
        lease: usize,
        holder: usize,
        ttl: u32,
    },
    Release {
        lease: usize,
        holder: usize,
    },
    Claim {
        hold: u32,
    },
    Take {
        queue: usize,
        holder: usize,
        lease: Option<usize>,
        max: usize,
        hold: u32,
    },
}

/// What a batch is made of.
#[derive(Debug, Clone)]
struct Picks {
    fence: Option<(usize, usize)>,
    writes: Vec<(usize, CondPick, ChgPick)>,
    timers: Vec<(u16, usize, TimPick)>,
    queue: QueuePick,
}

/// What the batches of one step have named so far; none of it is named twice, so no batch depends on another.
#[derive(Debug, Default)]
struct Named {
    writes: Vec<usize>,
    timers: Vec<(u16, usize)>,
    queues: Vec<usize>,
}

#[derive(Debug, Clone, Copy)]
enum CondPick {
    Any,
    Absent,
    Current,
    Stale,
}

#[derive(Debug, Clone, Copy)]
enum ChgPick {
    Put(u8, Option<u32>),
    Delete,
    Touch(Option<u32>),
    Check,
}

#[derive(Debug, Clone, Copy)]
enum TimPick {
    Set(u32),
    Cancel,
    Complete,
}

#[derive(Debug, Clone)]
enum QueuePick {
    Nothing,
    Enqueue(Vec<(usize, u8, u32)>),
    Ack(usize),
}

fn write() -> impl Strategy<Value = (usize, CondPick, ChgPick)> {
    let cond = prop_oneof![
        3 => Just(CondPick::Current), 2 => Just(CondPick::Any), 2 => Just(CondPick::Absent), 1 => Just(CondPick::Stale)
    ];
    let life = || proptest::option::weighted(0.8, 0..6_u32);
    let chg = prop_oneof![
        4 => (any::<u8>(), life()).prop_map(|(value, life)| ChgPick::Put(value, life)),
        1 => Just(ChgPick::Delete),
        1 => life().prop_map(ChgPick::Touch),
        1 => Just(ChgPick::Check),
    ];
    (0..KEYS, cond, chg)
}

fn picks() -> impl Strategy<Value = Picks> {
    let tim =
        prop_oneof![3 => (0..6_u32).prop_map(TimPick::Set), 1 => Just(TimPick::Cancel), 2 => Just(TimPick::Complete)];
    let queue = prop_oneof![
        2 => Just(QueuePick::Nothing),
        2 => proptest::collection::vec((0..QUEUES, any::<u8>(), 0..9_u32), 1..4).prop_map(QueuePick::Enqueue),
        2 => any::<usize>().prop_map(QueuePick::Ack),
    ];
    (
        proptest::option::of((0..LEASES, 0..HOLDERS)),
        proptest::collection::vec(write(), 0..3),
        proptest::collection::vec((0..KINDS, 0..KEYS, tim), 0..3),
        queue,
    )
        .prop_map(|(fence, writes, timers, queue)| Picks { fence, writes, timers, queue })
}

/// Mostly one write and nothing else: backends have a shorter way for such batches.
fn small_picks() -> impl Strategy<Value = Picks> {
    let small =
        write().prop_map(|write| Picks { fence: None, writes: vec![write], timers: vec![], queue: QueuePick::Nothing });
    prop_oneof![3 => small, 1 => picks()]
}

fn step() -> impl Strategy<Value = Step> {
    let lease = || (0..LEASES, 0..HOLDERS, 0..8_u32);
    let reads = proptest::collection::vec(0..KEYS, 0..4);
    prop_oneof![
        4 => (1..4_u32).prop_map(Step::Advance),
        2 => Just(Step::Read),
        6 => picks().prop_map(Step::Commit),
        4 => proptest::collection::vec(small_picks(), 1..4).prop_map(Step::Each),
        4 => proptest::collection::vec((small_picks(), reads), 1..4).prop_map(Step::AndRead),
        3 => lease().prop_map(|(lease, holder, ttl)| Step::Acquire { lease, holder, ttl }),
        2 => lease().prop_map(|(lease, holder, ttl)| Step::Renew { lease, holder, ttl }),
        1 => lease().prop_map(|(lease, holder, _)| Step::Release { lease, holder }),
        2 => (0..4_u32).prop_map(|hold| Step::Claim { hold }),
        4 => (0..QUEUES, 0..HOLDERS, proptest::option::of(0..LEASES), 0..4_usize, 0..4_u32)
            .prop_map(|(queue, holder, lease, max, hold)| Step::Take { queue, holder, lease, max, hold }),
    ]
}

/// The store, the reference, and what the processes remember.
struct Run {
    h: Harness,
    reference: Reference,
    keys: [Key; KEYS],
    leases: [LeaseName; LEASES],
    queues: [QueueName; QUEUES],
    start: EpochMillis,
    /// The last lease that each holder got.
    granted: [[Option<Lease>; HOLDERS]; LEASES],
    claims: Vec<Due>,
    taken: Vec<(usize, ItemId)>,
    generation: u64,
}

impl Run {
    fn new(h: Harness) -> Self {
        let pair = pair("ana");
        Self {
            reference: Reference::new(QUEUE_ITEMS),
            keys: [Key::pair(&pair), Key::session(&pair), Key::auth(&pair)],
            leases: [LeaseName::send(&pair, "a"), LeaseName::link("server", "partner.example")],
            queues: [QueueName::pair(&pair), QueueName::link("server", "partner.example").at(Key::pair(&pair).shard())],
            start: h.now(),
            granted: Default::default(),
            claims: Vec::new(),
            taken: Vec::new(),
            generation: 0,
            h,
        }
    }

    /// The half step at which something ends that lives for so many steps.
    fn end(&self, steps: u32) -> u64 {
        self.reference.now + u64::from(steps) * 2 + 1
    }

    fn epoch(&self, half_steps: u64) -> EpochMillis {
        self.start.plus(STEP / 2 * u32::try_from(half_steps).unwrap())
    }

    fn index(&self, key: &Key) -> usize {
        self.keys.iter().position(|known| known == key).unwrap()
    }

    fn fence(&self, lease: usize, holder: usize) -> Option<Fence> {
        self.granted[lease][holder].as_ref().map(|lease| lease.fence.clone())
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Advance(steps) => {
                self.h.steps(steps).await;
                self.reference.advance(u64::from(steps) * 2);
            }
            Step::Read => {
                let read = self.h.store.read(&self.keys).await.unwrap();
                for (key, record) in read.iter().enumerate() {
                    same(record.as_ref(), self.reference.record(key));
                }
                for (lease, name) in self.leases.iter().enumerate() {
                    let holder = self.h.store.holder(name).await.unwrap();
                    let expected = self.reference.holder(lease).map(|held| (held.holder.to_string(), held.token));
                    assert_eq!(holder.map(|holder| (holder.name, holder.token)), expected);
                }
            }
            Step::Commit(picks) => {
                let (change, batch) = self.batch(picks, &mut Named::default());
                let outcome = self.h.store.commit(batch).await;
                self.settle(&change, outcome);
            }
            Step::Each(all) => {
                let mut named = Named::default();
                let (changes, batches): (Vec<_>, Vec<_>) =
                    all.into_iter().map(|picks| self.batch(picks, &mut named)).unzip();
                let outcomes = self.h.store.commit_each(batches).await;
                assert_eq!(outcomes.len(), changes.len());
                for (change, outcome) in changes.iter().zip(outcomes) {
                    self.settle(change, outcome);
                }
            }
            Step::AndRead(all) => self.commit_and_read(all).await,
            Step::Acquire { lease, holder, ttl } => {
                let (free, end) = (self.reference.is_free_for(lease, holder), self.end(ttl));
                match self.h.store.acquire(&self.leases[lease], &holder.to_string(), span(ttl)).await.unwrap() {
                    Acquisition::Granted(granted) => {
                        assert!(free, "granted while held");
                        self.reference.grant(lease, holder, granted.fence.token, end);
                        self.granted[lease][holder] = Some(granted);
                    }
                    Acquisition::Held(by) => {
                        let held = self.reference.holder(lease).unwrap();
                        assert!(!free, "refused while free");
                        assert_eq!((by.name, by.token), (held.holder.to_string(), held.token));
                    }
                }
            }
            Step::Renew { lease, holder, ttl } => {
                let Some(mine) = self.granted[lease][holder].clone() else { return };
                let (owns, end) = (self.reference.owns(lease, mine.fence.token), self.end(ttl));
                match self.h.store.renew(&mine, span(ttl)).await {
                    Ok(renewed) => {
                        assert!(owns, "renewed after it was lost");
                        assert_eq!(renewed.fence, mine.fence);
                        self.reference.prolong(lease, end);
                    }
                    Err(error) => {
                        assert_eq!(error, StoreError::FenceLost { lease: self.leases[lease].clone() });
                        assert!(!owns, "lost while held");
                    }
                }
            }
            Step::Release { lease, holder } => {
                let Some(mine) = self.granted[lease][holder].clone() else { return };
                let owns = self.reference.owns(lease, mine.fence.token);
                assert_eq!(self.h.store.release(&mine).await.unwrap(), owns);
                if owns {
                    self.reference.free(lease);
                }
            }
            Step::Claim { hold } => self.claim(hold).await,
            Step::Take { queue, holder, lease, max, hold } => self.take(queue, holder, lease, max, hold).await,
        }
    }

    /// Makes a batch of what was not named before.
    fn batch(&mut self, picks: Picks, named: &mut Named) -> (Change, Batch) {
        let Picks { fence, writes, timers, queue } = picks;
        let mut change = Change::default();
        let mut batch = Batch::new();
        if let Some((lease, holder)) = fence
            && let Some(fence) = self.fence(lease, holder)
        {
            change.fences.push((lease, fence.token));
            batch.fence(fence);
        }
        for (key, cond, chg) in writes {
            if !named.writes.contains(&key) {
                named.writes.push(key);
                self.add_write(&mut change, &mut batch, key, cond, chg);
            }
        }
        for (kind, key, pick) in timers {
            if named.timers.contains(&(kind, key)) {
                continue;
            }
            named.timers.push((kind, key));
            match pick {
                TimPick::Set(steps) => {
                    self.generation += 1;
                    let (at, generation) = (self.end(steps), self.generation);
                    change.timers.push(TimChg::Set { kind, key, at, generation });
                    let key = self.keys[key].clone();
                    batch.set_timer(Timer { kind: TimerKind(kind), key, due: self.epoch(at), generation });
                }
                TimPick::Cancel => {
                    change.timers.push(TimChg::Cancel { kind, key });
                    batch.cancel_timer(TimerKind(kind), self.keys[key].clone());
                }
                TimPick::Complete => {
                    let name = (TimerKind(kind), &self.keys[key]);
                    let Some(due) = self.claims.iter().find(|due| (due.timer.kind, &due.timer.key) == name) else {
                        continue;
                    };
                    change.timers.push(TimChg::Complete { kind, key, claim: due.claim });
                    batch.complete(due.clone());
                }
            }
        }
        // Whether a queue has room depends on what else is put into it and taken out.
        let taken = named.queues.clone();
        match queue {
            QueuePick::Nothing => {}
            QueuePick::Enqueue(items) => {
                for (queue, value, life) in items.into_iter().filter(|(queue, ..)| !taken.contains(queue)) {
                    named.queues.push(queue);
                    change.enqueues.push((queue, value, self.end(life)));
                    batch.enqueue(self.queues[queue].clone(), vec![value], span(life));
                }
            }
            QueuePick::Ack(pick) => {
                if !self.taken.is_empty() {
                    let (queue, id) = self.taken[pick % self.taken.len()];
                    if !taken.contains(&queue) {
                        named.queues.push(queue);
                        change.acks.push((queue, id.0));
                        batch.ack(self.queues[queue].clone(), id);
                    }
                }
            }
        }
        (change, batch)
    }

    async fn commit_and_read(&mut self, all: Vec<(Picks, Vec<usize>)>) {
        let mut named = Named::default();
        let mut changes = Vec::new();
        let mut calls = Vec::new();
        for (picks, reads) in all {
            let (change, batch) = self.batch(picks, &mut named);
            changes.push(change);
            calls.push((batch, reads.iter().map(|key| self.keys[*key].clone()).collect::<Vec<_>>()));
        }
        let store = &self.h.store;
        let outcomes = join_all(calls.iter().map(|(batch, keys)| store.commit_and_read(batch.clone(), keys))).await;
        let before: [_; KEYS] = std::array::from_fn(|key| self.reference.record(key));
        let (written, read): (Vec<_>, Vec<_>) = outcomes.into_iter().unzip();
        for (change, outcome) in changes.iter().zip(written) {
            self.settle(change, outcome);
        }
        for ((_, keys), read) in calls.iter().zip(read) {
            let read = read.unwrap();
            assert_eq!(read.len(), keys.len());
            for (key, record) in keys.iter().zip(&read) {
                // Nobody says whether it is read before or after the changes.
                let key = self.index(key);
                if seen(record.as_ref()) != wanted(before[key]) {
                    same(record.as_ref(), self.reference.record(key));
                }
            }
        }
    }

    /// Compares the outcome of a change with what it must be.
    fn settle(&mut self, change: &Change, outcome: Result<Committed, StoreError>) {
        let verdict = self.reference.judge(change);
        match outcome {
            Ok(committed) => {
                assert_eq!(verdict, Ok(()));
                let items: Vec<_> = committed.items.iter().map(|id| id.0).collect();
                self.reference.make(change, &committed.versions, &items);
            }
            Err(StoreError::Conflict(conflict)) => {
                let Err(Refusal::Conflict(key, current)) = verdict else { panic!("conflict, expected {verdict:?}") };
                assert_eq!(self.index(&conflict.key), key);
                same(conflict.current.as_ref(), current);
            }
            Err(StoreError::FenceLost { lease }) => {
                let Err(Refusal::Fence(expected)) = verdict else { panic!("fence lost, expected {verdict:?}") };
                assert_eq!(lease, self.leases[expected]);
            }
            Err(StoreError::Full { bound: Bound::Queue(queue), .. }) => {
                let Err(Refusal::QueueFull(_)) = verdict else { panic!("{queue} full, expected {verdict:?}") };
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn add_write(&self, change: &mut Change, batch: &mut Batch, key: usize, cond: CondPick, chg: ChgPick) {
        let current = self.reference.record(key);
        let (condition, cond) = match (cond, current) {
            (CondPick::Any, _) => (Condition::Any, Cond::Any),
            (CondPick::Absent, _) | (CondPick::Current, None) => (Condition::Absent, Cond::Absent),
            (CondPick::Current, Some(rec)) => (Condition::Version(rec.version), Cond::Version(rec.version)),
            (CondPick::Stale, rec) => {
                let stale = rec.map_or(1, |rec| rec.version.wrapping_sub(1));
                (Condition::Version(stale), Cond::Version(stale))
            }
        };
        let durable = self.keys[key].kind().is_decision();
        // Only decisions may stay for ever; the others then live long.
        let life = |life: Option<u32>| match life {
            None if durable => (Lifetime::Durable, None),
            life => {
                let steps = life.unwrap_or(1000);
                (Lifetime::For(span(steps)), Some(self.end(steps)))
            }
        };
        let (key_name, chg) = (self.keys[key].clone(), chg);
        let chg = match chg {
            ChgPick::Put(value, lasts) => {
                let (lifetime, end) = life(lasts);
                batch.put(key_name, condition, vec![value], lifetime);
                Chg::Put { value, end }
            }
            ChgPick::Delete => {
                batch.delete(key_name, condition);
                Chg::Delete
            }
            ChgPick::Touch(lasts) => {
                let (lifetime, end) = life(lasts);
                batch.touch(key_name, condition, lifetime);
                Chg::Touch { end }
            }
            ChgPick::Check => {
                batch.check(key_name, condition);
                Chg::Check
            }
        };
        change.writes.push((key, cond, chg));
    }

    async fn claim(&mut self, hold: u32) {
        let shards: Vec<_> = Shard::all().collect();
        let next = self.h.store.next_due(&shards).await.unwrap();
        assert_eq!(next.is_some(), self.reference.next_due().is_some());
        let due = self.h.store.claim_due(&ShardClaim::all(), 99, span(hold)).await.unwrap();
        let names: Vec<_> = due.iter().map(|due| (due.timer.kind.0, self.index(&due.timer.key), due.claim)).collect();
        let until = self.end(hold);
        let mut expected = self.reference.claim(until, &names);
        let mut seen: Vec<_> = due
            .iter()
            .map(|due| (due.timer.kind.0, self.index(&due.timer.key), due.timer.generation, due.attempt))
            .collect();
        seen.sort_unstable();
        expected.sort_unstable_by_key(|timer| (timer.kind, timer.key));
        let expected: Vec<_> =
            expected.iter().map(|timer| (timer.kind, timer.key, timer.generation, timer.attempt)).collect();
        assert_eq!(seen, expected);
        // Old claims stay, so that stale ones are completed too; the newest is found first.
        self.claims.splice(0..0, due);
        if self.claims.len().is_multiple_of(3) {
            self.claims.reverse();
        }
    }

    async fn take(&mut self, queue: usize, holder: usize, lease: Option<usize>, max: usize, hold: u32) {
        let fence = lease.and_then(|lease| Some((lease, self.fence(lease, holder)?)));
        let who: Who = (holder, fence.as_ref().map(|(lease, fence)| (*lease, fence.token)));
        let consumer = Consumer { name: holder.to_string(), fence: fence.clone().map(|(_, fence)| fence) };
        let result = self.h.store.take(&self.queues[queue], &consumer, max, span(hold)).await;
        if let Some((lease, fence)) = fence
            && !self.reference.owns(lease, fence.token)
        {
            assert_eq!(result, Err(StoreError::FenceLost { lease: fence.lease }));
            return;
        }
        let items = result.unwrap();
        let until = self.end(hold);
        let expected = self.reference.take(queue, who, max, until);
        let seen: Vec<_> = items.iter().map(|item| (item.id.0, item.bytes.to_vec(), item.attempt)).collect();
        let expected: Vec<_> = expected.iter().map(|item| (item.id, vec![item.value], item.attempt)).collect();
        assert_eq!(seen, expected);
        self.taken.extend(items.iter().map(|item| (queue, item.id)));
    }

    async fn finish(mut self) {
        self.step(Step::Read).await;
        let health = self.h.store.health().await;
        let seen = (health.records, health.timers, health.queued, health.leases);
        assert_eq!(seen, self.reference.counts());
    }
}

/// What is known of a record: its version, its content, and whether it ends.
type Seen = Option<(u64, Vec<u8>, bool)>;

fn seen(record: Option<&Record>) -> Seen {
    record.map(|record| (record.version, record.bytes.to_vec(), record.expires_at.is_some()))
}

fn wanted(record: Option<Rec>) -> Seen {
    record.map(|record| (record.version, vec![record.value], record.end.is_some()))
}

fn same(record: Option<&Record>, expected: Option<Rec>) {
    assert_eq!(seen(record), wanted(expected));
}

pub(crate) async fn random_steps_agree_with_the_reference(new: New) {
    let runtime = tokio::runtime::Handle::current();
    let cases = new().cases;
    tokio::task::block_in_place(|| {
        let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
        let steps = proptest::collection::vec(step(), 1..80);
        runner
            .run(&steps, |steps| {
                runtime.block_on(async {
                    let mut run = Run::new(new());
                    for step in steps {
                        run.step(step).await;
                    }
                    run.finish().await;
                });
                Ok(())
            })
            .unwrap();
    });
}
