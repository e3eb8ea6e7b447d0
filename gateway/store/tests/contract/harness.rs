//! The backends under test.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use isthmus_model::{BareAddress, EpochMillis, PairId};
use isthmus_store::{
    Batch, Clock, Committed, Conflict, Key, Lifetime, Limits, ManualClock, MemoryStore, Record, Store, StoreError,
};

/// The unit in which time passes: so long that the real time of a test is nothing beside it.
pub(crate) const STEP: Duration = Duration::from_secs(600);

/// How many items a queue takes in the backends under test.
pub(crate) const QUEUE_ITEMS: usize = 8;

/// How long to wait for what must happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// How long to see that nothing happens, where no event could tell.
pub(crate) const QUIET: Duration = Duration::from_millis(50);

pub(crate) type Advance = Box<dyn Fn(Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Makes a fresh backend.
pub(crate) type New = fn() -> Harness;

/// A fresh, empty store.
pub(crate) struct Harness {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) advance: Advance,
    /// How many random cases the backend's speed allows.
    pub(crate) cases: u32,
    pub(crate) _keep: Box<dyn Any + Send + Sync>,
}

impl Harness {
    /// Lets time pass, in whole steps.
    pub(crate) async fn steps(&self, count: u32) {
        (self.advance)(STEP * count).await;
    }

    pub(crate) fn now(&self) -> EpochMillis {
        self.clock.now()
    }

    /// Reads one record.
    pub(crate) async fn get(&self, key: &Key) -> Option<Record> {
        self.store.read(std::slice::from_ref(key)).await.unwrap().pop().unwrap()
    }

    /// Commits what `fill` puts into a batch.
    pub(crate) async fn commit(&self, fill: impl FnOnce(&mut Batch)) -> Result<Committed, StoreError> {
        commit(&*self.store, fill).await
    }
}

/// Commits what `fill` puts into a batch.
pub(crate) async fn commit(store: &dyn Store, fill: impl FnOnce(&mut Batch)) -> Result<Committed, StoreError> {
    let mut batch = Batch::new();
    fill(&mut batch);
    store.commit(batch).await
}

/// A lifetime that ends half a step after `steps` steps.
pub(crate) fn span(steps: u32) -> Duration {
    STEP * steps + STEP / 2
}

/// [`span`] as lifetime.
pub(crate) fn lives(steps: u32) -> Lifetime {
    Lifetime::For(span(steps))
}

/// A lifetime beyond the test's end.
pub(crate) const LONG: Lifetime = Lifetime::For(Duration::from_secs(400 * 86_400));

pub(crate) fn user(jid: &str) -> BareAddress {
    BareAddress::from_jid(jid).unwrap()
}

pub(crate) fn pair(remote: &str) -> PairId {
    PairId::of(&user("lee@corp.example"), &user(&format!("{remote}@partner.example")))
}

/// Takes the conflict out of an error.
pub(crate) fn conflict(result: Result<Committed, StoreError>) -> Conflict {
    match result {
        Err(StoreError::Conflict(conflict)) => *conflict,
        other => panic!("expected a conflict, got {other:?}"),
    }
}

/// Waits for something that must happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what} did not happen"))
}

pub(crate) fn limits() -> Limits {
    Limits { queue_items: QUEUE_ITEMS, ..Limits::default() }
}

fn manual(cases: u32, make: impl FnOnce(Arc<dyn Clock>) -> (Arc<dyn Store>, Box<dyn Any + Send + Sync>)) -> Harness {
    let clock = ManualClock::new(EpochMillis(1_700_000_000_000));
    let (store, keep) = make(Arc::new(clock.clone()));
    let moved = clock.clone();
    let advance: Advance = Box::new(move |by| {
        moved.advance(by);
        Box::pin(std::future::ready(()))
    });
    Harness { store, clock: Arc::new(clock), advance, cases, _keep: keep }
}

/// The memory store alone.
pub(crate) fn memory() -> Harness {
    manual(400, |clock| (Arc::new(MemoryStore::new(limits(), clock)), Box::new(())))
}

/// The memory store with a journal.
pub(crate) fn journal() -> Harness {
    manual(40, |clock| {
        let dir = tempfile::tempdir().unwrap();
        (Arc::new(MemoryStore::open(limits(), clock, dir.path()).unwrap()), Box::new(dir))
    })
}
