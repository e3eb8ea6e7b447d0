//! Small changes of one moment leave as one call, each with what is read beside it.
//!
//! Requests come in bursts, and each of a burst claims its record before anything else happens. The first of them opens a
//! call, the others join it, and a task of its own sends it as soon as a thread is free for that: nobody waits longer, and
//! server and process pay for one call in place of many. Calls do not wait for each other's answers. Only where one
//! server has all shards.

use std::sync::Arc;

use parking_lot::Mutex;
use redis::Value;
use tokio::sync::oneshot;

use super::Shared;
use super::commit::EACH_MAX;
use super::reply::{Parts, odd};
use super::route::unavailable;
use super::script::{Call, EACH};
use crate::batch::{Batch, Write};
use crate::error::StoreError;
use crate::key::{Key, Shard};

/// From how many octets on a call takes no more.
const FULL: usize = 64 * 1024;

/// What the script said about one change, and the records that were read beside it.
type Said = (Value, Parts);

/// The call that is being gathered, if there is one.
#[derive(Default)]
pub(super) struct Gathering(Mutex<Option<Gathered>>);

/// A call for several changes.
struct Gathered {
    shard: Shard,
    call: Call,
    waiting: Vec<Waiting>,
}

/// Who waits for a change.
struct Waiting {
    /// How many records are read beside it.
    reads: usize,
    /// The error is `None` when nothing happened because of somebody else's part of the call.
    answer: oneshot::Sender<Result<Said, Option<StoreError>>>,
}

impl Shared {
    /// Makes a batch of this one write and reads records, together with others that come now.
    pub(super) async fn gather(
        self: &Arc<Self>,
        batch: &Batch,
        write: &Write,
        keys: &[Key],
    ) -> Result<Said, StoreError> {
        self.config.limits.check_batch(batch)?;
        let _permit = self.router.enter()?;
        match self.join(write, keys).await {
            Ok(Ok(said)) => Ok(said),
            Ok(Err(Some(error))) => Err(error),
            Ok(Err(None)) => self.alone(write, keys).await,
            Err(_) => Err(unavailable("the process ends".to_owned())),
        }
    }

    /// Adds to the call that is being gathered, and sees to it that it leaves.
    fn join(self: &Arc<Self>, write: &Write, keys: &[Key]) -> oneshot::Receiver<Result<Said, Option<StoreError>>> {
        let (answer, told) = oneshot::channel();
        let mut open = self.gathering.0.lock();
        let full = open.take_if(|open| open.waiting.len() >= EACH_MAX || open.call.len() >= FULL);
        let is_new = open.is_none();
        let gathered = open.get_or_insert_with(|| Gathered {
            shard: write.key.shard(),
            call: Call::default(),
            waiting: Vec::new(),
        });
        self.add(&mut gathered.call, write, keys);
        gathered.waiting.push(Waiting { reads: keys.len(), answer });
        drop(open);
        if let Some(full) = full {
            let shared = Arc::clone(self);
            tokio::spawn(async move { shared.send_gathered(full).await });
        }
        if is_new {
            let shared = Arc::clone(self);
            tokio::spawn(async move {
                // It may have left full.
                let open = shared.gathering.0.lock().take();
                if let Some(gathered) = open {
                    shared.send_gathered(gathered).await;
                }
            });
        }
        told
    }

    fn add(&self, call: &mut Call, write: &Write, keys: &[Key]) {
        self.add_small(call, write);
        for key in keys {
            call.read(self.names.record(key));
        }
    }

    async fn send_gathered(&self, gathered: Gathered) {
        let Gathered { shard, call, waiting } = gathered;
        let answer = self.router.call_within(shard, |whole| EACH.command(&call, whole)).await;
        let shared = waiting.len() > 1;
        match answer.and_then(Parts::of) {
            Ok(mut reply) => {
                let said: Vec<_> = reply.by_ref().take(waiting.len()).collect();
                for (Waiting { reads, answer }, said) in waiting.into_iter().zip(said) {
                    let records = Parts::from(reply.by_ref().take(reads).collect::<Vec<_>>());
                    // Whoever does not wait any more need not know.
                    let _ = answer.send(Ok((said, records)));
                }
            }
            Err(error) => {
                for Waiting { answer, .. } in waiting {
                    // One key that is none of ours keeps nobody else from theirs.
                    let foreign = matches!(error, StoreError::Corrupt { .. }) && shared;
                    let _ = answer.send(Err((!foreign).then(|| error.clone())));
                }
            }
        }
    }

    async fn alone(&self, write: &Write, keys: &[Key]) -> Result<Said, StoreError> {
        let mut call = Call::default();
        self.add(&mut call, write, keys);
        let answer = self.router.call_within(write.key.shard(), |whole| EACH.command(&call, whole)).await?;
        let mut reply = Parts::of(answer)?;
        let said = reply.next().ok_or_else(odd)?;
        Ok((said, reply))
    }
}
