//! Several processes that want one link.

use isthmus_store::{Batch, Limits, MemoryStore, SystemClock};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::*;
use crate::bridge::tests::store::{Commits, TestStore};

/// What another process has at the latest after its predecessor died.
const TAKEN_OVER: Duration = Duration::from_secs(5);

struct Process {
    tenure: Arc<Tenure>,
    store: Arc<TestStore>,
    work: JoinHandle<()>,
}

impl Process {
    fn start(inner: &Arc<MemoryStore>, life: &str) -> Self {
        let store = TestStore::shared_over(Arc::clone(inner) as Arc<dyn Store>);
        let name = LeaseName::link("127.0.0.1:5347", "partner.example");
        let owners = Arc::new(watch::Sender::new(0));
        let tenure = Tenure::new(name, life, Arc::clone(&store) as _, Arc::new(Metrics::new()), owners);
        let work = tokio::spawn(Arc::clone(&tenure).keep());
        Self { tenure, store, work }
    }

    async fn until(&self, standing: Standing) {
        let mut changes = self.tenure.watch();
        let met = async {
            while self.tenure.standing() != standing {
                changes.changed().await.unwrap();
            }
        };
        timeout(TAKEN_OVER * 2, met).await.expect("the standing never comes");
    }

    async fn until_owner(&self, owner: Owner) {
        let known = async {
            while self.tenure.owner(true) != owner {
                sleep(SHORTEST).await;
            }
        };
        timeout(TAKEN_OVER, known).await.unwrap_or_else(|_| panic!("never: {owner:?}"));
    }

    fn fence(&self) -> Fence {
        match self.tenure.owner(true) {
            Owner::Mine(Some(fence)) => fence,
            other => panic!("{other:?}"),
        }
    }

    async fn may_write(&self, fence: Fence) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        batch.fence(fence);
        self.store.commit(batch).await.map(|_| ())
    }
}

fn store() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)))
}

#[tokio::test]
async fn a_link_that_is_given_back_is_anothers_at_once() {
    let inner = store();
    let one = Process::start(&inner, "one");
    one.until(Standing::Holder).await;
    // As the link's task does.
    let _watched = one.tenure.watch();
    let two = Process::start(&inner, "two");
    two.until_owner(Owner::Other("one".to_owned())).await;
    assert!(!two.tenure.acts().await);
    one.tenure.give_back();
    one.tenure.went_quiet();
    timeout(Duration::from_secs(1), two.until(Standing::Holder)).await.expect("at once");
    assert_eq!(one.tenure.standing(), Standing::Former);
    // It is served to the end, but nothing is changed under it.
    assert!(one.tenure.acts().await && two.tenure.acts().await);
    assert!(two.may_write(two.fence()).await.is_ok());
    one.until_owner(Owner::Former(Some("two".to_owned()))).await;
}

// S-13, S-44
#[tokio::test]
async fn a_holder_that_stood_still_changes_and_sends_nothing_any_more() {
    let inner = store();
    let one = Process::start(&inner, "one");
    one.until(Standing::Holder).await;
    let fence = one.fence();
    assert!(one.may_write(fence.clone()).await.is_ok());
    let two = Process::start(&inner, "two");
    one.work.abort();
    let died = Instant::now();
    two.until(Standing::Holder).await;
    assert!(died.elapsed() < TAKEN_OVER, "{:?}", died.elapsed());
    assert!(two.tenure.take_lost_at().is_some() && two.tenure.take_lost_at().is_none());
    // As long as it does not know, it waits for the store's word before it acts.
    assert_eq!(one.tenure.standing(), Standing::Holder);
    assert!(timeout(Duration::from_millis(300), one.tenure.acts()).await.is_err());
    assert!(matches!(one.may_write(fence).await, Err(StoreError::FenceLost { .. })));
    let _again = tokio::spawn(Arc::clone(&one.tenure).keep());
    assert!(!timeout(TAKEN_OVER, one.tenure.acts()).await.unwrap());
    assert_eq!(one.tenure.owner(true), Owner::Other("two".to_owned()));
    assert_eq!(two.tenure.standing(), Standing::Holder);
}

// S-13, S-44
#[tokio::test]
async fn a_holder_that_stood_still_while_it_asked_does_not_take_the_store_for_away() {
    let inner = store();
    let one = Process::start(&inner, "one");
    one.until(Standing::Holder).await;
    let two = Process::start(&inner, "two");
    one.store.set(Commits::Still);
    two.until(Standing::Holder).await;
    sleep(SILENT).await;
    // It hears of its time limit first.
    one.store.set(Commits::Unanswered);
    assert!(!timeout(TAKEN_OVER, one.tenure.acts()).await.unwrap(), "it acts beside the holder");
    assert_eq!(one.tenure.owner(true), Owner::Other("two".to_owned()));
}

// K-80
#[tokio::test]
async fn a_link_goes_on_while_the_store_is_away() {
    let inner = store();
    let one = Process::start(&inner, "one");
    one.until(Standing::Holder).await;
    let (before, mut changes) = (one.fence(), one.tenure.watch());
    one.store.set(Commits::Away);
    sleep(TTL + RENEW).await;
    assert_eq!(one.tenure.standing(), Standing::Holder);
    assert!(timeout(Duration::from_secs(1), one.tenure.acts()).await.unwrap());
    one.store.set(Commits::Pass);
    // The lease ran out meanwhile: it is taken anew, and the connection stays.
    let renewed = async {
        while one.fence() == before {
            changes.changed().await.unwrap();
            assert_eq!(one.tenure.standing(), Standing::Holder);
        }
    };
    timeout(TAKEN_OVER, renewed).await.unwrap();
    assert!(one.may_write(one.fence()).await.is_ok());
}

// K-80
#[tokio::test]
async fn a_lease_that_ran_out_while_the_store_was_away_stays_with_its_holder() {
    let inner = store();
    let one = Process::start(&inner, "one");
    one.until(Standing::Holder).await;
    let two = Process::start(&inner, "two");
    two.until_owner(Owner::Other("one".to_owned())).await;
    for process in [&one, &two] {
        process.store.set(Commits::Away);
    }
    sleep(TTL + RENEW).await;
    // The other one sees first that the store is back.
    two.store.set(Commits::Pass);
    sleep(GRACE / 2).await;
    one.store.set(Commits::Pass);
    sleep(GRACE * 2).await;
    assert_eq!((one.tenure.standing(), two.tenure.standing()), (Standing::Holder, Standing::Standby));
    // Of a holder that does not come back the link is taken all the same.
    one.work.abort();
    two.store.set(Commits::Away);
    sleep(TTL).await;
    two.store.set(Commits::Pass);
    timeout(GRACE + RENEW, two.until(Standing::Holder)).await.expect("nobody has the link");
}

// S-44, X-98
#[tokio::test]
async fn a_holder_that_alone_cannot_ask_the_store_does_not_fight_for_the_link() {
    let inner = store();
    let one = Process::start(&inner, "one");
    one.until(Standing::Holder).await;
    let two = Process::start(&inner, "two");
    two.until_owner(Owner::Other("one".to_owned())).await;
    one.store.set(Commits::Away);
    // A conflict within the lease comes from nobody who may have the link.
    sleep(RENEW + PAUSE).await;
    one.tenure.displaced();
    assert_eq!(one.tenure.standing(), Standing::Holder);
    two.until(Standing::Holder).await;
    // Until the server says that it is another's, it cannot know.
    assert!(one.tenure.acts().await);
    one.tenure.displaced();
    assert_eq!((one.tenure.standing(), one.tenure.owner(true)), (Standing::Standby, Owner::Nobody));
    assert!(!one.tenure.acts().await);
    sleep(PAUSE * 3).await;
    assert_eq!(one.tenure.standing(), Standing::Standby);
    one.store.set(Commits::Pass);
    one.until_owner(Owner::Other("two".to_owned())).await;
    // The next time it is its turn again.
    two.tenure.give_back();
    two.tenure.went_quiet();
    one.until(Standing::Holder).await;
}

#[tokio::test]
async fn a_lease_that_is_taken_anew_keeps_the_link() {
    let inner = store();
    let one = Process::start(&inner, "one");
    one.until(Standing::Holder).await;
    let before = one.fence();
    let fresh = one.tenure.refresh().await.unwrap().unwrap();
    assert!(fresh != before && one.fence() == fresh);
    sleep(RENEW * 2).await;
    assert_eq!((one.tenure.standing(), one.fence()), (Standing::Holder, fresh));
    assert!(matches!(one.may_write(before).await, Err(StoreError::FenceLost { .. })));
}

// The task that renews and one that takes the lease anew may ask at the same time, and hear of it in either order.
#[tokio::test]
async fn of_two_grants_the_later_one_counts() {
    let inner = store();
    let one = Process::start(&inner, "one");
    one.until(Standing::Holder).await;
    let (asked, before) = (Instant::now(), one.tenure.lease());
    let Acquisition::Granted(earlier) = inner.acquire(&one.tenure.name, "one", TTL).await.unwrap() else { panic!() };
    let later = one.tenure.refresh().await.unwrap().unwrap();
    one.tenure.granted(&earlier, asked, before.as_ref());
    assert_eq!(one.fence(), later);
    assert!(one.may_write(later).await.is_ok());
}

// The clock of a server that takes over may be behind.
#[tokio::test]
async fn in_place_of_a_lost_lease_any_grant_counts() {
    let inner = store();
    let one = Process::start(&inner, "one");
    one.until(Standing::Holder).await;
    let before = one.tenure.lease().unwrap();
    let mut lower = before.clone();
    lower.fence.token -= 1;
    one.tenure.granted(&lower, Instant::now(), Some(&before));
    assert_eq!(one.fence(), lower.fence);
}

#[tokio::test]
async fn a_process_that_cannot_reach_the_server_lets_others_try() {
    let inner = store();
    let one = Process::start(&inner, "one");
    one.until(Standing::Holder).await;
    // Alone it has the link again after its rest.
    let rested = Instant::now();
    one.tenure.rest(Duration::from_millis(400));
    one.until(Standing::Standby).await;
    one.until(Standing::Holder).await;
    assert!(rested.elapsed() >= Duration::from_millis(400), "{:?}", rested.elapsed());
    let two = Process::start(&inner, "two");
    one.tenure.rest(TAKEN_OVER);
    timeout(TTL, two.until(Standing::Holder)).await.expect("the link is not given to the other one");
    one.until_owner(Owner::Other("two".to_owned())).await;
    // What rests goes on while the store is away.
    two.store.set(Commits::Away);
    two.tenure.rest(TAKEN_OVER);
    sleep(RENEW).await;
    assert_eq!(two.tenure.standing(), Standing::Holder);
}

#[tokio::test]
async fn a_link_that_was_given_back_is_never_taken_anew() {
    let inner = store();
    let one = Process::start(&inner, "one");
    one.until(Standing::Holder).await;
    let _watched = one.tenure.watch();
    one.tenure.give_back();
    one.tenure.went_quiet();
    one.until(Standing::Former).await;
    let free = async {
        while inner.holder(&one.tenure.name).await.unwrap().is_some() {
            sleep(SHORTEST).await;
        }
    };
    timeout(RENEW, free).await.unwrap();
    assert_eq!(one.tenure.refresh().await.unwrap(), None);
    assert!(inner.holder(&one.tenure.name).await.unwrap().is_none());
}

#[tokio::test]
async fn the_only_process_holds_every_link_without_a_lease() {
    let store: Arc<dyn Store> = store();
    let owners = Arc::new(watch::Sender::new(0));
    let tenure = Tenure::new(LeaseName::link("s", "c"), "one", store, Arc::new(Metrics::new()), owners);
    timeout(RENEW, Arc::clone(&tenure).keep()).await.expect("there is nothing to keep");
    assert_eq!(
        (tenure.standing(), tenure.owner(true), tenure.owner(false)),
        (Standing::Holder, Owner::Mine(None), Owner::Nobody)
    );
    assert!(tenure.acts().await);
}
