//! What users take back or agree to, while the store is away.

use std::sync::Arc;

use isthmus_model::{BareAddress, Feature};
use isthmus_policy::ListAction;
use isthmus_store::{Key, Limits, MemoryStore, SystemClock};

use super::reconcile::{SUBSCRIBE, be_watched, watch_ana};
use super::rig::{Rig, attribute, header};
use super::store::Commits;

const UNSUBSCRIBE: &str = "<presence from='juliet@corp.example' to='ana@partner.example' type='unsubscribe' id='u1'/>";
const UNSUBSCRIBED: &str = "<presence from='juliet@corp.example' to='ana@partner.example' type='unsubscribed'/>";

async fn shared() -> Rig {
    Rig::with_shared_store("Session", Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)))).await
}

/// Sends a stanza that the store does not take, and that is kept.
async fn wish(rig: &Rig, stanza: &str) {
    rig.store.set(Commits::Away);
    rig.server.send(stanza);
    rig.until("it is kept", || rig.bridge.unfinished().contains(&"work that is to be stored")).await;
}

async fn be_hidden_from(mut rig: Rig) {
    be_watched(&mut rig).await;
    wish(&rig, UNSUBSCRIBED).await;
    rig.partner.nothing_came().await;
    rig.store.set(Commits::Pass);
    let notify = rig.partner.request("NOTIFY").await;
    assert!(notify.contains("<basic>closed</basic>"), "{notify}");
}

// K-80
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permission_taken_back_while_the_store_was_away_is_gone_when_it_is_back() {
    be_hidden_from(Rig::start("Session").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permission_taken_back_while_a_shared_store_was_away_is_gone_when_it_is_back() {
    be_hidden_from(shared().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_wish_of_a_user_counts() {
    let mut rig = Rig::start("Session").await;
    let dialog = watch_ana(&mut rig).await;
    wish(&rig, UNSUBSCRIBE).await;
    rig.store.set(Commits::Pass);
    // Served before the other one is tried again by itself.
    rig.server.send(SUBSCRIBE);
    let last = rig.partner.request("SUBSCRIBE").await;
    assert!(dialog.contains(header(&last, "Call-ID")) && header(&last, "Expires") == "0", "{last}");
    rig.partner.answer(&last, "200 OK", "", "Expires: 0\r\nContact: <sip:ana@127.0.0.1>\r\n", "").await;
    let next = rig.partner.request("SUBSCRIBE").await;
    assert!(!dialog.contains(header(&next, "Call-ID")) && header(&next, "Expires") != "0", "{next}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wish_that_is_kept_goes_to_the_next_holder_of_the_link() {
    let mut rig = shared().await;
    rig.leased().await;
    let dialog = watch_ana(&mut rig).await;
    wish(&rig, UNSUBSCRIBE).await;
    let next = rig.beside("overrides: {imMode: Session}").await;
    next.leased().await;
    rig.store.set(Commits::Pass);
    let last = next.partner.request("SUBSCRIBE").await;
    assert!(dialog.contains(header(&last, "Call-ID")) && header(&last, "Expires") == "0", "{last}");
    rig.until("nothing is kept", || rig.bridge.is_idle()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wish_that_can_be_refused_is_refused_and_forgotten() {
    let mut rig = Rig::start("Session").await;
    rig.store.set(Commits::Away);
    rig.server.send(SUBSCRIBE);
    assert_eq!(attribute(&rig.server.stanza().await, "type"), "error");
    rig.store.set(Commits::Pass);
    rig.partner.nothing_came().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_whose_list_could_not_be_stored_stands_in_it_later() {
    let mut rig = Rig::start("Session").await;
    rig.store.set(Commits::NoLists);
    be_watched(&mut rig).await;
    rig.until_store_is_missed().await;
    let list = Key::user(&BareAddress::from_jid("juliet@corp.example").unwrap());
    assert!(rig.store.stored(list.clone()).await.is_none());
    rig.store.set(Commits::Pass);
    let stored = async {
        while rig.store.stored(list.clone()).await.is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(super::rig::SOON, stored).await.expect("the decision is lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_decisions_that_could_not_be_stored_the_last_one_stands_in_the_list() {
    let mut rig = Rig::start("Session").await;
    rig.store.set(Commits::NoLists);
    be_watched(&mut rig).await;
    rig.server.send(UNSUBSCRIBED);
    rig.partner.request("NOTIFY").await;
    rig.store.set(Commits::Pass);
    rig.until("nothing is kept", || rig.bridge.is_idle()).await;
    let bare = |jid| BareAddress::from_jid(jid).unwrap();
    let list = rig.store.stored(Key::user(&bare("juliet@corp.example"))).await;
    let list = crate::bridge::read_list(list.as_ref()).unwrap();
    let entry = list.decide(&bare("ana@partner.example"), Feature::Presence).expect("the decision is lost");
    assert_eq!(entry.action, ListAction::Block);
}
