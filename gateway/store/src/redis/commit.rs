//! One batch as one call of a script.

use std::sync::Arc;

use redis::Value;

use super::names::{self, corrupt};
use super::reply::{Parts, odd};
use super::route::{Operation, What};
use super::script::{COMMIT, Call, EACH, Script};
use super::{LATEST, Shared, millis, sort_in};
use crate::batch::{Batch, Change, Committed, Condition, Lifetime, TimerChange, Write};
use crate::error::{Bound, Conflict, StoreError};
use crate::key::{Key, QueueName, Shard};
use crate::limits::Limits;
use crate::queue::ItemId;
use crate::record::Record;

/// How many small batches go in one call, so that no call keeps the server from others for long.
pub(super) const EACH_MAX: usize = 64;

impl Shared {
    pub(super) async fn commit(&self, batch: &Batch) -> Result<Committed, StoreError> {
        let Some((shard, call)) = self.prepare(batch)? else { return Ok(Committed::default()) };
        committed(batch, self.run(shard, &COMMIT, &call).await?, &self.config.limits)
    }

    /// Makes batches that have nothing to do with one another, in one piece.
    pub(super) async fn commit_each(&self, batches: &[Batch]) -> Vec<Result<Committed, StoreError>> {
        let mut calls = Vec::new();
        // The last of the calls, while it has room for more small batches; and how many it has.
        let mut open: Option<(usize, usize)> = None;
        // Of each batch the place of its call, and whether it shares that with others.
        let mut parts: Vec<Result<Option<(usize, bool)>, StoreError>> = Vec::with_capacity(batches.len());
        for batch in batches {
            let small = if self.router.reaches_all() { small(batch) } else { None };
            parts.push(match small {
                Some(write) => self.config.limits.check_batch(batch).map(|()| {
                    let (call, at) = open.filter(|(_, count)| *count < EACH_MAX).unwrap_or_else(|| {
                        let shard = write.key.shard();
                        calls.push((shard, &EACH, self.call_each(shard)));
                        (calls.len() - 1, 0)
                    });
                    if let Some((_, _, text)) = calls.get_mut(call) {
                        self.add_small(text, write);
                    }
                    open = Some((call, at + 1));
                    Some((call, true))
                }),
                None => self.prepare(batch).map(|prepared| {
                    let (shard, call) = prepared?;
                    calls.push((shard, &COMMIT, call));
                    Some((calls.len() - 1, false))
                }),
            });
        }
        let operations: Vec<_> = calls.iter().map(|(shard, script, call)| operation(*shard, script, call)).collect();
        let answers = self.router.call_together(&operations).await;
        let mut answers: Vec<Result<Parts, StoreError>> =
            answers.into_iter().map(|answer| answer.and_then(Parts::of)).collect();
        let mut outcomes = Vec::with_capacity(batches.len());
        for (batch, part) in batches.iter().zip(parts) {
            outcomes.push(match part.map(|part| part.map(|(call, shared)| (answers.get_mut(call), shared))) {
                Err(error) => Err(error),
                Ok(None) => Ok(Committed::default()),
                Ok(Some((Some(Err(error)), _))) => Err(error.clone()),
                // In the order in which they were added.
                Ok(Some((Some(Ok(reply)), true))) => reply.value().and_then(|value| small_committed(batch, value)),
                Ok(Some((Some(Ok(reply)), false))) => committed(batch, std::mem::take(reply), &self.config.limits),
                Ok(Some((None, _))) => Err(odd()),
            });
        }
        outcomes
    }

    /// Makes a batch and reads records, in one piece.
    pub(super) async fn commit_and_read(
        self: &Arc<Self>,
        batch: &Batch,
        keys: &[Key],
    ) -> (Result<Committed, StoreError>, Result<Vec<Option<Record>>, StoreError>) {
        if let Some(write) = small(batch).filter(|_| self.router.reaches_all()) {
            return match self.gather(batch, write, keys).await {
                Ok((written, read)) => (small_committed(batch, written), records(keys, read)),
                Err(error @ StoreError::Unavailable { .. }) => (Err(error.clone()), Err(error)),
                // With memory full nothing can be written, but read.
                Err(error) => (Err(error), Box::pin(self.read(keys)).await),
            };
        }
        // Apart, since what every request waits for shall be small.
        Box::pin(self.commit_and_read_apart(batch, keys)).await
    }

    async fn commit_and_read_apart(
        &self,
        batch: &Batch,
        keys: &[Key],
    ) -> (Result<Committed, StoreError>, Result<Vec<Option<Record>>, StoreError>) {
        let prepared = match self.prepare(batch) {
            Ok(Some(prepared)) => prepared,
            Ok(None) => return (Ok(Committed::default()), self.read(keys).await),
            Err(error) => return (Err(error), self.read(keys).await),
        };
        let (shard, call) = &prepared;
        let groups = self.reads(keys);
        let mut operations = vec![operation(*shard, &COMMIT, call)];
        operations.extend(groups.iter().map(|(shard, places)| self.read_of(keys, *shard, places)));
        let mut answers = self.router.call_together(&operations).await.into_iter();
        let answer = answers.next().unwrap_or_else(|| Err(odd())).and_then(Parts::of);
        let written = answer.and_then(|reply| committed(batch, reply, &self.config.limits));
        (written, sort_in(keys, &groups, answers))
    }

    /// A call of [`EACH`] that does nothing yet.
    pub(super) fn call_each(&self, shard: Shard) -> Call {
        let mut call = Call::default();
        call.key(self.names.counters(shard));
        call
    }

    pub(super) fn add_small(&self, call: &mut Call, write: &Write) {
        call.key(self.names.record(&write.key));
        add_condition(call, write.condition);
        if let Change::Put { bytes, lifetime } = &write.change {
            add_lifetime(call, *lifetime);
            call.arg(&bytes[..]);
        } else {
            call.arg("d");
            call.arg("");
        }
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
            add_condition(&mut call, write.condition);
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
            call.shown(self.config.limits.items_of(queue));
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

fn operation<'a>(shard: Shard, script: &'static Script, call: &'a Call) -> Operation<'a> {
    Operation { shard, what: What::Script(script, call) }
}

/// Returns the only part of a batch that writes or deletes one record and does nothing else.
fn small(batch: &Batch) -> Option<&Write> {
    let Batch { fences, writes, reads, timers, enqueues, acks } = batch;
    let alone = fences.is_empty() && reads.is_empty() && timers.is_empty() && enqueues.is_empty() && acks.is_empty();
    match writes.as_slice() {
        [write] if alone && matches!(write.change, Change::Put { .. } | Change::Delete) => Some(write),
        _ => None,
    }
}

/// Reads what the script says about one of its small batches.
fn small_committed(batch: &Batch, said: Value) -> Result<Committed, StoreError> {
    let key = &batch.writes.first().ok_or_else(odd)?.key;
    match said {
        Value::Int(version) => {
            let version = u64::try_from(version).map_err(|_| odd())?;
            Ok(Committed { versions: vec![version], ..Committed::default() })
        }
        Value::Array(current) => {
            let current = Parts::of(Value::Array(current))?.optional()?;
            let current = current.map(|bytes| names::value(key, bytes)).transpose()?;
            Err(StoreError::Conflict(Box::new(Conflict { key: key.clone(), current })))
        }
        _ => Err(corrupt(key, "no record of ours")),
    }
}

/// Reads records in the order of their keys.
fn records(keys: &[Key], mut reply: Parts) -> Result<Vec<Option<Record>>, StoreError> {
    keys.iter().map(|key| reply.optional()?.map(|bytes| names::value(key, bytes)).transpose()).collect()
}

/// Reads what the script says about a batch.
fn committed(batch: &Batch, mut reply: Parts, limits: &Limits) -> Result<Committed, StoreError> {
    let word = reply.word()?;
    if word == "ok" {
        return read(batch, &mut reply);
    }
    let at = usize::try_from(reply.number()?).map_err(|_| odd())?;
    Err(match word.as_str() {
        "fence" => batch.fences.get(at).map_or_else(odd, |fence| StoreError::FenceLost { lease: fence.lease.clone() }),
        "full" => queues(batch).get(at).map_or_else(odd, |queue| StoreError::Full {
            bound: Bound::Queue((*queue).clone()),
            limit: limits.items_of(queue),
        }),
        "corrupt" => batch.writes.get(at).map_or_else(odd, |write| corrupt(&write.key, "no record of ours")),
        "conflict" => {
            let key = batch.writes.get(at).ok_or_else(odd)?.key.clone();
            let current = reply.optional()?.map(|bytes| names::value(&key, bytes)).transpose()?;
            StoreError::Conflict(Box::new(Conflict { key, current }))
        }
        _ => odd(),
    })
}

pub(super) fn add_condition(call: &mut Call, condition: Condition) {
    match condition {
        Condition::Any => call.arg("*"),
        Condition::Absent => call.arg("-"),
        Condition::Version(version) => call.shown(version),
    }
}

pub(super) fn add_lifetime(call: &mut Call, lifetime: Lifetime) {
    match lifetime {
        Lifetime::For(duration) => call.shown(millis(duration)),
        Lifetime::Durable => call.arg(""),
    }
}

/// Lists the queues of a batch, each once.
pub(super) fn queues(batch: &Batch) -> Vec<&QueueName> {
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
    let records = records(&batch.reads, reply.parts()?)?;
    let items: Vec<_> = numbers(reply.parts()?)?.into_iter().map(ItemId).collect();
    if (versions.len(), items.len()) != (batch.writes.len(), batch.enqueues.len()) {
        return Err(odd());
    }
    Ok(Committed { versions, records, items })
}
