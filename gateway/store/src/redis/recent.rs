//! What was written lately, until a fail-over can take it no more.
//!
//! A primary that is replaced while it lives confirms writes of which its successor never hears, and a server that is killed
//! forgets what it had not yet put on its disk. Whoever was told that a write happened still knows it. So it is written again
//! before anything else is asked of the server that took over: records with the versions that they had and their due times,
//! what waits in durable queues, and what was taken out of any queue.
//!
//! Each version and item has a number that grows with time, and replication goes on in order. So a server that has just taken
//! over lacks exactly what has a higher number than the last one that it knows, which the first process to come writes down
//! for all others. What the server was given since then stays as it is: records that somebody changed there are not replaced. A
//! deletion is repeated only where its record is still the one that was deleted.
//!
//! Only one server at a time is followed like that, alone or named by Sentinels. A Cluster is not.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, Pipeline, RedisError, Value};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::commit::{add_condition, add_lifetime, queues};
use super::names::{self, Names};
use super::reply::Parts;
use super::script::{Call, MEET, RESTORE};
use super::{LATEST, millis};
use crate::batch::{Batch, Change, Committed, Lifetime, TimerChange, Write};
use crate::error::StoreError;
use crate::key::{QueueName, Shard};

/// How long writes are kept. The Sentinels are asked four times a second for the primary, and a copy that lags more than the
/// 10 s of `min-replicas-max-lag` would not have taken over; a server that syncs every second loses two at most.
const KEPT: Duration = Duration::from_secs(12);
/// The most that is kept, in octets.
const MOST: usize = 32 * 1024 * 1024;
/// What a write takes beside its content, in octets.
const OVERHEAD: usize = 256;
/// How many batches are sent in one piece.
const PIECE: usize = 256;
/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(5);
/// A server that has lost its copies refuses writes until it has others. It is asked again so often, and for so long.
const AGAIN: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(2);
/// A server that took over serves so much later, so that all processes have told it what it lacks before one of them acts on what
/// is there. They look for it more often than that ([`super::link`]).
const GATHERING: Duration = Duration::from_millis(500);

/// A batch and what it was confirmed with.
struct Written {
    batch: Batch,
    done: Committed,
    at: Instant,
    /// How many servers there had been when it was sent.
    takeover: u64,
}

impl Written {
    fn size(&self) -> usize {
        let bodies = self.batch.writes.iter().map(|write| match &write.change {
            Change::Put { bytes, .. } => bytes.len(),
            Change::Delete | Change::Touch { .. } | Change::Check => 0,
        });
        let items = self.batch.enqueues.iter().map(|enqueue| enqueue.bytes.len());
        OVERHEAD * self.batch.len() + bodies.chain(items).sum::<usize>()
    }

    /// Whether a server that gave no number above `known` may lack it.
    fn may_lack(&self, known: u64) -> bool {
        let deletes = self.batch.writes.iter().any(|write| write.change == Change::Delete);
        let items = self.done.items.iter().map(|item| item.0);
        deletes || !self.batch.acks.is_empty() || self.done.versions.iter().copied().chain(items).any(|at| at > known)
    }
}

/// What is known of the server by now.
#[derive(Default)]
struct Served {
    /// The name of its process; empty before the first.
    server: String,
    /// It does not have yet what former ones had.
    is_new: bool,
    /// From when on it gives out numbers.
    since: u64,
    /// The last number that it knew by then.
    known: u64,
    written: VecDeque<Written>,
    bytes: usize,
}

impl Served {
    fn push(&mut self, written: Written) {
        let size = written.size();
        while let Some(first) = self.written.front()
            && (self.bytes + size > MOST || written.at.saturating_duration_since(first.at) > KEPT)
        {
            self.bytes -= first.size();
            self.written.pop_front();
        }
        self.bytes += size;
        self.written.push_back(written);
    }

    /// Takes out what was sent to servers before the last.
    fn take_former(&mut self, takeover: u64) -> Vec<Written> {
        let (former, others): (Vec<_>, Vec<_>) =
            self.written.drain(..).partition(|written| written.takeover < takeover);
        self.written = others.into();
        self.bytes = self.written.iter().map(Written::size).sum();
        former
    }
}

/// The writes of the last seconds.
pub(super) struct Recent {
    names: Arc<Names>,
    served: Mutex<Served>,
    /// How often another server took over, or the same began anew.
    takeovers: Arc<watch::Sender<u64>>,
}

impl Recent {
    pub(super) fn new(names: Arc<Names>, takeovers: Arc<watch::Sender<u64>>) -> Self {
        Self { names, served: Mutex::default(), takeovers }
    }

    /// How often another server took over so far; [`Self::note`] wants to know what that was when a batch was sent.
    pub(super) fn takeovers(&self) -> u64 {
        *self.takeovers.borrow()
    }

    /// Takes note of a batch that was confirmed. False when another server took over meanwhile and must be told of it.
    pub(super) fn note(&self, takeover: u64, batch: Batch, done: &Committed) -> bool {
        let writes = |write: &Write| matches!(write.change, Change::Put { .. } | Change::Delete);
        let waits = batch.enqueues.iter().any(|enqueue| enqueue.queue.is_durable());
        if !waits && batch.acks.is_empty() && !batch.writes.iter().any(writes) {
            return true;
        }
        let done = Committed { versions: done.versions.clone(), records: Vec::new(), items: done.items.clone() };
        let mut served = self.served.lock();
        served.push(Written { batch, done, at: Instant::now(), takeover });
        takeover == self.takeovers() || served.is_new
    }

    /// Gets to know the server of a new connection. One that took over is given what it lacks.
    ///
    /// # Errors
    ///
    /// When it does not take that: then it serves nobody yet.
    pub(super) async fn meet(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        // One that does not tell its name cannot be told from another.
        let Ok(Meeting { server, since, age, known }) = read_meeting(self.ask(connection).await?) else {
            return Ok(());
        };
        // Of one without data nobody can expect any.
        let left = if known == 0 { Duration::ZERO } else { GATHERING.saturating_sub(age) };
        let open = Instant::now() + left;
        let is_new = {
            let mut served = self.served.lock();
            (served.since, served.known) = (since, known);
            served.is_new = !served.server.is_empty() && served.server != server;
            if served.is_new {
                self.takeovers.send_modify(|count| *count += 1);
            } else {
                served.server.clone_from(&server);
            }
            served.is_new
        };
        if is_new {
            self.give_back(connection, &server).await?;
        }
        sleep_until(open).await;
        Ok(())
    }

    async fn ask(&self, connection: &mut MultiplexedConnection) -> Result<Value, RedisError> {
        let mut call = Call::default();
        call.key(self.names.server());
        call.key(self.names.counters(Shard::FIRST));
        let began = Instant::now();
        loop {
            let said = within(connection.send_packed_command(&MEET.command(&call, true))).await;
            match said.and_then(Value::extract_error) {
                Err(error) if error.code().is_some() && !error.is_io_error() && began.elapsed() < PATIENCE => {
                    sleep(AGAIN).await;
                }
                said => return said,
            }
        }
    }

    /// Tells a server what former ones had confirmed, until there is nothing left.
    async fn give_back(&self, connection: &mut MultiplexedConnection, server: &str) -> Result<(), RedisError> {
        let (mut lacked, mut refused) = (0, 0);
        // While one piece is sent others may be told of what the former server had confirmed.
        while let Some(mut former) = self.next_former(server) {
            while !former.is_empty() {
                let later = former.split_off(former.len().min(PIECE));
                let piece = std::mem::replace(&mut former, later);
                let restored = self.restore(connection, &piece).await;
                // After a failure the next connection begins with them.
                self.keep(piece, if restored.is_ok() { self.takeovers() } else { 0 });
                match restored {
                    Ok((of_piece, not_taken)) => (lacked, refused) = (lacked + of_piece, refused + not_taken),
                    Err(error) => {
                        self.keep(former, 0);
                        return Err(error);
                    }
                }
            }
        }
        if lacked > 0 {
            tracing::info!(changes = lacked, "the state store had lost changes; they were written again");
        }
        if refused > 0 {
            tracing::error!(changes = refused, "the state store has lost changes, and has no room for them any more");
        }
        Ok(())
    }

    /// Takes out what former servers had confirmed and is not lost with all the rest. With nothing left the server is known.
    fn next_former(&self, server: &str) -> Option<Vec<Written>> {
        let mut served = self.served.lock();
        let former = served.take_former(self.takeovers());
        // It has lost everything, which others find out and deal with.
        if former.is_empty() || served.known == 0 {
            (served.server, served.is_new) = (server.to_owned(), false);
            return None;
        }
        Some(former)
    }

    /// Keeps batches that `takeover` servers before the next one have, or 0 when nobody may have them.
    fn keep(&self, batches: Vec<Written>, takeover: u64) {
        let mut served = self.served.lock();
        for written in batches {
            served.push(Written { takeover, ..written });
        }
    }

    /// Returns calls for batches that were confirmed by a former server after another one had taken over.
    pub(super) fn late_calls(&self) -> Vec<(Shard, Call)> {
        let takeover = self.takeovers();
        let late = self.served.lock().take_former(takeover);
        let calls = late.iter().filter_map(|written| self.call(written)).collect();
        self.keep(late, takeover);
        calls
    }

    /// Sends batches, and counts what the server lacked and what it refused.
    async fn restore(
        &self,
        connection: &mut MultiplexedConnection,
        batches: &[Written],
    ) -> Result<(u64, usize), RedisError> {
        let calls: Vec<Call> = batches.iter().filter_map(|written| Some(self.call(written)?.1)).collect();
        if calls.is_empty() {
            return Ok((0, 0));
        }
        let mut pipeline = Pipeline::with_capacity(calls.len());
        for (number, call) in calls.iter().enumerate() {
            pipeline.add_command(RESTORE.command(call, number == 0));
        }
        let (mut lacked, mut refused) = (0, 0);
        for answer in within(connection.send_packed_commands(&pipeline, 0, calls.len())).await? {
            match answer.extract_error() {
                Ok(Value::Int(count)) => lacked += u64::try_from(count).unwrap_or_default(),
                Ok(_) => refused += 1,
                Err(error) if error.code() == Some("OOM") => refused += 1,
                Err(error) => return Err(error),
            }
        }
        Ok((lacked, refused))
    }

    /// Returns what gives a server a batch again; `None` when it has that.
    fn call(&self, written: &Written) -> Option<(Shard, Call)> {
        let Written { batch, done, at, .. } = written;
        let shard = batch.shard().ok().flatten()?;
        let (known, since) = {
            let served = self.served.lock();
            (served.known, served.since)
        };
        if !written.may_lack(known) {
            return None;
        }
        let left = |lifetime: Duration| lifetime.saturating_sub(at.elapsed());
        let names: Vec<&QueueName> = queues(batch);
        let number = |queue: &QueueName| names.iter().position(|other| *other == queue).map_or(0, |at| at + 1);
        let writes: Vec<(&Write, u64)> = batch
            .writes
            .iter()
            .zip(done.versions.iter().copied())
            .filter(|(write, _)| match write.change {
                Change::Put { lifetime: Lifetime::For(lifetime), .. } => !left(lifetime).is_zero(),
                Change::Put { .. } | Change::Delete => true,
                Change::Touch { .. } | Change::Check => false,
            })
            .collect();
        let enqueues: Vec<_> = batch
            .enqueues
            .iter()
            .zip(&done.items)
            .filter(|(enqueue, _)| enqueue.queue.is_durable() && !left(enqueue.lifetime).is_zero())
            .collect();
        let mut call = Call::default();
        call.key(self.names.counters(shard));
        for count in [writes.len(), batch.timers.len(), names.len(), enqueues.len(), batch.acks.len()] {
            call.shown(count);
        }
        call.arg(self.names.channel());
        call.shown(known);
        call.shown(since);
        for (write, version) in writes {
            call.key(self.names.record(&write.key));
            add_condition(&mut call, write.condition);
            call.shown(version);
            match &write.change {
                Change::Put { bytes, lifetime } => {
                    add_lifetime(
                        &mut call,
                        match *lifetime {
                            Lifetime::For(whole) => Lifetime::For(left(whole)),
                            Lifetime::Durable => Lifetime::Durable,
                        },
                    );
                    call.arg(&bytes[..]);
                }
                Change::Delete | Change::Touch { .. } | Change::Check => {
                    call.arg("d");
                    call.arg("");
                }
            }
        }
        if !batch.timers.is_empty() {
            call.key(self.names.due_times(shard));
            call.key(self.names.timers(shard));
        }
        for change in &batch.timers {
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
                    call.arg("");
                }
                TimerChange::Complete(due) => {
                    call.arg("x");
                    call.shown(names::timer(due.timer.kind, &due.timer.key));
                    call.arg("");
                    call.arg(due.timer.generation.to_be_bytes());
                }
            }
        }
        if !names.is_empty() {
            call.key(self.names.queues(shard));
        }
        for queue in &names {
            call.key(self.names.list(queue));
            call.key(self.names.items(queue));
            call.shown(queue);
        }
        for (queue, item) in &batch.acks {
            call.shown(number(queue));
            call.shown(item.0);
        }
        for (enqueue, item) in enqueues {
            call.shown(number(&enqueue.queue));
            call.shown(item.0);
            call.shown(millis(left(enqueue.lifetime)));
            call.arg(&enqueue.bytes[..]);
        }
        Some((shard, call))
    }
}

/// Waits for an answer.
async fn within<T>(answer: impl Future<Output = Result<T, RedisError>>) -> Result<T, RedisError> {
    let late = || RedisError::from((ErrorKind::Io, "no answer in time to what the server lacks"));
    timeout(LIMIT, answer).await.unwrap_or_else(|_| Err(late()))
}

/// What a server says to a new connection.
struct Meeting {
    /// The name of its process.
    server: String,
    /// From when on it gives out numbers, and how long ago that was.
    since: u64,
    age: Duration,
    /// The last number that it knew by then.
    known: u64,
}

fn read_meeting(said: Value) -> Result<Meeting, StoreError> {
    let mut said = Parts::of(said)?;
    let (server, since) = (said.word()?, said.number()?);
    // Clocks are set back now and then.
    let age = said.number().map_or(Duration::ZERO, Duration::from_micros);
    Ok(Meeting { server, since, age, known: said.number()? })
}
