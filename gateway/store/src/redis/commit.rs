//! One batch as one call of a script.

use redis::Value;

use super::names::{self, corrupt};
use super::reply::{Parts, odd};
use super::route::{Operation, What};
use super::script::{COMMIT, Call};
use super::{LATEST, Shared, millis, sort_in};
use crate::batch::{Batch, Change, Committed, Condition, Lifetime, TimerChange};
use crate::error::{Bound, Conflict, StoreError};
use crate::key::{Key, QueueName, Shard};
use crate::queue::ItemId;
use crate::record::Record;

impl Shared {
    pub(super) async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        let Some((shard, call)) = self.prepare(&batch)? else { return Ok(Committed::default()) };
        committed(&batch, self.run(shard, &COMMIT, &call).await?, self.config.limits.queue_items)
    }

    /// Makes batches that have nothing to do with one another, in one piece.
    pub(super) async fn commit_each(&self, batches: Vec<Batch>) -> Vec<Result<Committed, StoreError>> {
        let calls: Vec<_> = batches.iter().map(|batch| self.prepare(batch)).collect();
        let sent = calls.iter().filter_map(|call| call.as_ref().ok()?.as_ref());
        let operations: Vec<_> = sent.map(|(shard, call)| commit_of(*shard, call)).collect();
        let mut answers = self.router.call_together(&operations).await.into_iter();
        let mut outcomes = Vec::with_capacity(batches.len());
        for (batch, call) in batches.iter().zip(&calls) {
            outcomes.push(match call {
                Err(error) => Err(error.clone()),
                Ok(None) => Ok(Committed::default()),
                Ok(Some(_)) => self.answered(batch, answers.next()),
            });
        }
        outcomes
    }

    /// Makes a batch and reads records, in one piece.
    pub(super) async fn commit_and_read(
        &self,
        batch: Batch,
        keys: &[Key],
    ) -> (Result<Committed, StoreError>, Result<Vec<Option<Record>>, StoreError>) {
        let prepared = match self.prepare(&batch) {
            Ok(Some(prepared)) => prepared,
            Ok(None) => return (Ok(Committed::default()), self.read(keys).await),
            Err(error) => return (Err(error), self.read(keys).await),
        };
        let (shard, call) = &prepared;
        let groups = self.reads(keys);
        let mut operations = vec![commit_of(*shard, call)];
        operations.extend(groups.iter().map(|(shard, places)| self.read_of(keys, *shard, places)));
        let mut answers = self.router.call_together(&operations).await.into_iter();
        (self.answered(&batch, answers.next()), sort_in(keys, &groups, answers))
    }

    fn answered(&self, batch: &Batch, answer: Option<Result<Value, StoreError>>) -> Result<Committed, StoreError> {
        let reply = Parts::of(answer.ok_or_else(odd)??)?;
        committed(batch, reply, self.config.limits.queue_items)
    }

    /// Returns where a batch goes and what the script is called with; `None` for one that is empty.
    fn prepare(&self, batch: &Batch) -> Result<Option<(Shard, Call)>, StoreError> {
        self.config.limits.check_batch(batch)?;
        // Fences that are good everywhere leave the choice.
        let fence = || batch.fences.first().map(|fence| fence.lease.place());
        let Some(shard) = batch.shard()?.or_else(fence) else { return Ok(None) };
        Ok(Some((shard, self.call(batch, shard, &queues(batch)))))
    }

    /// Puts a batch into the order in which the script takes it apart.
    fn call(&self, batch: &Batch, shard: Shard, queues: &[&QueueName]) -> Call {
        let Batch { fences, writes, reads, timers, enqueues, acks } = batch;
        let mut call = Call::default();
        call.key(self.names.counters(shard));
        for count in [fences.len(), writes.len(), reads.len(), timers.len(), queues.len(), enqueues.len(), acks.len()] {
            call.shown(count);
        }
        call.arg(self.names.channel());
        for fence in fences {
            call.key(self.names.lease(&fence.lease, shard));
            call.shown(fence.token);
        }
        for write in writes {
            call.key(self.names.record(&write.key));
            match write.condition {
                Condition::Any => call.arg("*"),
                Condition::Absent => call.arg("-"),
                Condition::Version(version) => call.shown(version),
            }
            match &write.change {
                Change::Put { bytes, lifetime } => {
                    call.arg("p");
                    add_lifetime(&mut call, *lifetime);
                    call.arg(&bytes[..]);
                }
                Change::Touch { lifetime } => {
                    call.arg("t");
                    add_lifetime(&mut call, *lifetime);
                }
                Change::Delete => {
                    call.arg("d");
                    call.arg("");
                }
                Change::Check => {
                    call.arg("c");
                    call.arg("");
                }
            }
        }
        for key in reads {
            call.key(self.names.record(key));
        }
        if !timers.is_empty() {
            call.key(self.names.due_times(shard));
            call.key(self.names.timers(shard));
        }
        if !queues.is_empty() {
            call.key(self.names.queues(shard));
        }
        for queue in queues {
            call.key(self.names.list(queue));
            call.key(self.names.items(queue));
            call.shown(queue);
            call.shown(enqueues.iter().filter(|enqueue| enqueue.queue == **queue).count());
            call.shown(self.config.limits.queue_items);
        }
        for change in timers {
            match change {
                TimerChange::Set(timer) => {
                    call.arg("s");
                    call.shown(names::timer(timer.kind, &timer.key));
                    call.shown(timer.due.0.min(LATEST));
                    call.arg(timer.generation.to_be_bytes());
                }
                TimerChange::Cancel { kind, key } => {
                    call.arg("c");
                    call.shown(names::timer(*kind, key));
                    call.arg("");
                }
                TimerChange::Complete(due) => {
                    call.arg("x");
                    call.shown(names::timer(due.timer.kind, &due.timer.key));
                    call.shown(due.claim);
                }
            }
        }
        // The script counts from 1.
        let number = |queue: &QueueName| queues.iter().position(|other| *other == queue).map_or(0, |at| at + 1);
        for (queue, item) in acks {
            call.shown(number(queue));
            call.shown(item.0);
        }
        for enqueue in enqueues {
            call.shown(number(&enqueue.queue));
            call.shown(millis(enqueue.lifetime));
            call.arg(&enqueue.bytes[..]);
        }
        call
    }
}

fn commit_of(shard: Shard, call: &Call) -> Operation<'_> {
    Operation { shard, what: What::Script(&COMMIT, call) }
}

/// Reads what the script says about a batch.
fn committed(batch: &Batch, mut reply: Parts, queue_items: usize) -> Result<Committed, StoreError> {
    let word = reply.word()?;
    if word == "ok" {
        return read(batch, &mut reply);
    }
    let at = usize::try_from(reply.number()?).map_err(|_| odd())?;
    Err(match word.as_str() {
        "fence" => batch.fences.get(at).map_or_else(odd, |fence| StoreError::FenceLost { lease: fence.lease.clone() }),
        "full" => queues(batch)
            .get(at)
            .map_or_else(odd, |queue| StoreError::Full { bound: Bound::Queue((*queue).clone()), limit: queue_items }),
        "corrupt" => batch.writes.get(at).map_or_else(odd, |write| corrupt(&write.key, "no record of ours")),
        "conflict" => {
            let key = batch.writes.get(at).ok_or_else(odd)?.key.clone();
            let current = reply.optional()?.map(|bytes| names::value(&key, bytes)).transpose()?;
            StoreError::Conflict(Box::new(Conflict { key, current }))
        }
        _ => odd(),
    })
}

fn add_lifetime(call: &mut Call, lifetime: Lifetime) {
    match lifetime {
        Lifetime::For(duration) => call.shown(millis(duration)),
        Lifetime::Durable => call.arg(""),
    }
}

/// Lists the queues of a batch, each once.
fn queues(batch: &Batch) -> Vec<&QueueName> {
    let mut queues: Vec<&QueueName> = Vec::new();
    let enqueues = batch.enqueues.iter().map(|enqueue| &enqueue.queue);
    for queue in enqueues.chain(batch.acks.iter().map(|(queue, _)| queue)) {
        if !queues.contains(&queue) {
            queues.push(queue);
        }
    }
    queues
}

fn read(batch: &Batch, reply: &mut Parts) -> Result<Committed, StoreError> {
    let numbers = |parts: Parts| {
        let number = |value| match value {
            Value::Int(number) => u64::try_from(number).map_err(|_| odd()),
            _ => Err(odd()),
        };
        parts.map(number).collect::<Result<Vec<u64>, _>>()
    };
    let versions = numbers(reply.parts()?)?;
    let mut found = reply.parts()?;
    let record = |key: &Key| found.optional()?.map(|bytes| names::value(key, bytes)).transpose();
    let records: Vec<Option<Record>> = batch.reads.iter().map(record).collect::<Result<_, _>>()?;
    let items: Vec<_> = numbers(reply.parts()?)?.into_iter().map(ItemId).collect();
    if (versions.len(), items.len()) != (batch.writes.len(), batch.enqueues.len()) {
        return Err(odd());
    }
    Ok(Committed { versions, records, items })
}
