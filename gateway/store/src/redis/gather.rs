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
use super::reply::Parts;
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
    answer: oneshot::Sender<Result<Said, StoreError>>,
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
        self.join(write, keys).await.unwrap_or_else(|_| Err(unavailable("the process ends".to_owned())))
    }

    /// Adds to the call that is being gathered, and sees to it that it leaves.
    fn join(self: &Arc<Self>, write: &Write, keys: &[Key]) -> oneshot::Receiver<Result<Said, StoreError>> {
        let (answer, told) = oneshot::channel();
        let mut open = self.gathering.0.lock();
        let full = open.take_if(|open| open.waiting.len() >= EACH_MAX || open.call.len() >= FULL);
        let is_new = open.is_none();
        let gathered = open.get_or_insert_with(|| {
            let shard = write.key.shard();
            Gathered { shard, call: self.call_each(shard), waiting: Vec::new() }
        });
        self.add_small(&mut gathered.call, write);
        for key in keys {
            gathered.call.read(self.names.record(key));
        }
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

    async fn send_gathered(&self, gathered: Gathered) {
        let Gathered { shard, call, waiting } = gathered;
        let answer = self.router.call_within(shard, |whole| EACH.command(&call, whole)).await;
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
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }
}
