//! What is stored before something leaves.

use isthmus_model::{BareAddress, PairId};
use isthmus_store::Key;

use super::rig::{Rig, attribute, header};
use super::store::Commits;

fn pair() -> PairId {
    let bare = |jid| BareAddress::from_jid(jid).unwrap();
    PairId::of(&bare("juliet@corp.example"), &bare("ana@partner.example"))
}

const SUBSCRIBE: &str = "<presence from='juliet@corp.example' to='ana@partner.example' type='subscribe' id='s1'/>";

/// Tells whether the record holds the dialog in which the request was sent.
async fn holds_dialog(rig: &Rig, key: Key, request: &str) -> bool {
    let (_, tag) = header(request, "From").split_once(";tag=").unwrap();
    let call_id = header(request, "Call-ID");
    let record = rig.store.stored(key).await.unwrap();
    let holds = |text: &str| record.bytes.windows(text.len()).any(|part| part == text.as_bytes());
    holds(tag) && holds(call_id)
}

// P-05, S-42
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_half_dialog_is_stored_before_subscribe_leaves() {
    let mut rig = Rig::start("Session").await;
    rig.store.set(Commits::Wait);
    let before = rig.store.asked();
    rig.server.send(SUBSCRIBE);
    rig.store.wait_asked(before).await;
    rig.partner.nothing_came().await;
    rig.store.set(Commits::Pass);
    let subscribe = rig.partner.request("SUBSCRIBE").await;
    assert!(holds_dialog(&rig, Key::pair(&pair()), &subscribe).await);
}

// S-42
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_half_dialog_is_stored_before_invite_leaves() {
    let mut rig = Rig::start("Session").await;
    rig.store.set(Commits::Wait);
    let before = rig.store.asked();
    rig.server.message("m1", "Lunch?");
    rig.store.wait_asked(before).await;
    rig.partner.nothing_came().await;
    rig.store.set(Commits::Pass);
    let invite = rig.partner.request("INVITE").await;
    assert!(holds_dialog(&rig, Key::session(&pair()), &invite).await);
}

// P-05
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_refuses_means_an_error_for_the_user_and_no_request() {
    let mut rig = Rig::start("Session").await;
    rig.store.set(Commits::Refuse);
    rig.server.send(SUBSCRIBE);
    let error = rig.server.stanza().await;
    assert!(error.starts_with("<presence") && attribute(&error, "type") == "error", "{error}");
    assert!(attribute(&error, "id") == "s1" && error.contains("<resource-constraint"), "{error}");
    assert!(error.contains("cannot be stored"), "{error}");
    rig.partner.nothing_came().await;
    rig.server.message("m1", "Lunch?");
    let error = rig.server.stanza().await;
    assert!(error.starts_with("<message") && attribute(&error, "type") == "error", "{error}");
    assert!(attribute(&error, "id") == "m1" && error.contains("<resource-constraint"), "{error}");
    assert!(error.contains("cannot be stored"), "{error}");
    rig.partner.nothing_came().await;
    assert!(rig.server.rest().is_empty());
    // Nothing is left of the attempts: with the store back, both go through as if for the first time.
    rig.store.set(Commits::Pass);
    rig.server.send(SUBSCRIBE);
    rig.partner.request("SUBSCRIBE").await;
    rig.server.message("m2", "Lunch?");
    rig.partner.request("INVITE").await;
}
