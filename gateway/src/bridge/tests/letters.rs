//! Messages that are answered 202: stored before, sent again until they are confirmed.

use std::sync::Arc;
use std::time::Duration;

use isthmus_store::{Limits, MemoryStore, Store, SystemClock};
use isthmus_xmpp::component::BarrierToken;

use super::rig::{Rig, SOON, attribute, header};
use super::store::Commits;

const TEXT: &str = "Content-Type: text/plain\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_202_leaves_only_when_the_message_is_stored() {
    let mut rig = Rig::start("Pager").await;
    rig.server.answer_pings(false);
    rig.store.set(Commits::Wait);
    let before = rig.store.asked();
    let call = rig.partner.write("MESSAGE", TEXT, "Lunch?").await;
    let stanza = rig.server.stanza().await;
    assert!(stanza.contains("<body>Lunch?</body>"), "{stanza}");
    rig.store.wait_asked(before).await;
    rig.partner.nothing_came().await;
    rig.store.set(Commits::Pass);
    let answer = rig.partner.receive().await;
    assert!(answer.starts_with("SIP/2.0 202 ") && header(&answer, "Call-ID") == call, "{answer}");
    assert_eq!(rig.bridge.store.health().await.queued, 1);
}

// K-77
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_link_that_is_given_back_did_not_send_is_accepted_and_sent_once_by_its_next_holder() {
    let mut rig = Rig::start("Pager").await;
    rig.server.answer_pings(false);
    let call = rig.partner.write("MESSAGE", TEXT, "Lunch?").await;
    rig.server.stanza().await;
    rig.bridge.handle_not_sent(BarrierToken(rig.bridge.deliveries.next_token() - 1));
    let answer = rig.partner.receive().await;
    assert!(answer.starts_with("SIP/2.0 202 ") && header(&answer, "Call-ID") == call, "{answer}");
    // It is not taken for one that waits for its barrier here.
    let again = rig.server.stanza().await;
    assert!(again.contains("<body>Lunch?</body>"), "{again}");
    assert_eq!(rig.bridge.store.health().await.queued, 1);
    assert_eq!(rig.server.rest(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_says_while_the_message_is_stored_is_the_answer() {
    let mut rig = Rig::start("Pager").await;
    rig.server.answer_pings(false);
    rig.store.set(Commits::Wait);
    let before = rig.store.asked();
    rig.partner.write("MESSAGE", TEXT, "Lunch?").await;
    let id = attribute(&rig.server.stanza().await, "id");
    rig.store.wait_asked(before).await;
    rig.server.bounce(&id);
    // The error is taken before what comes after it on the same link.
    rig.server
        .send("<iq type='get' id='ask' from='corp.example' to='partner.example'><ping xmlns='urn:xmpp:ping'/></iq>");
    rig.until("the pong", || rig.server.ponged("ask")).await;
    rig.store.set(Commits::Pass);
    let answer = rig.partner.receive().await;
    assert!(answer.starts_with("SIP/2.0 480 "), "{answer}");
    rig.until_queued(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_refuses_means_503_with_the_reason_and_no_202() {
    let mut rig = Rig::start("Pager").await;
    rig.server.answer_pings(false);
    rig.store.set(Commits::Refuse);
    rig.partner.write("MESSAGE", TEXT, "Lunch?").await;
    let answer = rig.partner.receive().await;
    assert!(answer.starts_with("SIP/2.0 503 "), "{answer}");
    assert_eq!(header(&answer, "Retry-After"), "7");
    assert!(header(&answer, "Warning").contains("store unavailable"), "{answer}");
    rig.counted("not_kept", 1).await;
    assert_eq!(rig.bridge.store.health().await.queued, 0);
}

// A partner that gets an error sends the message again, and it would come twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_could_not_be_stored_is_not_refused_while_the_server_may_still_deal_with_it() {
    let mut rig = Rig::start("Pager").await;
    rig.server.answer_pings(false);
    rig.store.set(Commits::Refuse);
    rig.partner.write("MESSAGE", TEXT, "Lunch?").await;
    let id = attribute(&rig.server.stanza().await, "id");
    let failed = "store_errors_total{reason=\"unavailable\"}";
    rig.until("the store was asked", || rig.metrics.render().contains(failed)).await;
    rig.server.bounce(&id);
    let answer = rig.partner.receive().await;
    assert!(answer.starts_with("SIP/2.0 480 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_broken_link_an_accepted_message_is_sent_again_until_it_is_confirmed() {
    let mut rig = Rig::start("Pager").await;
    rig.server.answer_pings(false);
    rig.partner.write("MESSAGE", TEXT, "Lunch?").await;
    let first = rig.server.stanza().await;
    rig.partner.answered("SIP/2.0 202 ").await;
    for again in 1..=2 {
        rig.break_link().await;
        assert_eq!(rig.server.stanza().await, first);
        rig.counted("sent_again", again).await;
        rig.until("the ping after it", || rig.server.unanswered_pings() > again).await;
    }
    rig.server.answer_pings(true);
    rig.break_link().await;
    assert_eq!(rig.server.stanza().await, first);
    rig.counted("delivered_late", 1).await;
    rig.until_queued(0).await;
    // Confirmed: it does not come again.
    rig.break_link().await;
    rig.partner.write("MESSAGE", TEXT, "Dinner?").await;
    let next = rig.server.stanza().await;
    assert!(next.contains("Dinner?"), "{next}");
    rig.partner.answered("SIP/2.0 200 ").await;
}

//
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_answered_when_the_link_broke_gets_an_error_and_is_not_sent_again() {
    let mut rig = Rig::start("Pager").await;
    rig.server.answer_pings(false);
    rig.partner.write("MESSAGE", TEXT, "Lunch?").await;
    rig.server.stanza().await;
    rig.break_link().await;
    rig.partner.answered("SIP/2.0 480 ").await;
    rig.server.answer_pings(true);
    rig.partner.write("MESSAGE", TEXT, "Dinner?").await;
    assert!(rig.server.stanza().await.contains("Dinner?"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_with_a_journal_delivers_what_was_accepted_with_the_same_id() {
    let (dir, crashed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let open = |dir: &tempfile::TempDir| {
        Arc::new(MemoryStore::open(Limits::default(), Arc::new(SystemClock), dir.path()).unwrap()) as Arc<dyn Store>
    };
    let mut rig = Rig::with_store("Pager", open(&dir)).await;
    rig.server.answer_pings(false);
    rig.partner.write("MESSAGE", TEXT, "Lunch?").await;
    let first = rig.server.stanza().await;
    rig.partner.answered("SIP/2.0 202 ").await;
    // What a kill leaves: the file as it is at this moment.
    std::fs::copy(dir.path().join("decisions.journal"), crashed.path().join("decisions.journal")).unwrap();
    let mut next = Rig::with_store("Pager", open(&crashed)).await;
    assert_eq!(next.server.stanza().await, first);
    next.counted("delivered_late", 1).await;
    next.until_queued(0).await;
    // And once more: nothing is left to send, as soon as that is on the disk too.
    let file = "decisions.journal";
    let emptied = async {
        loop {
            let again = tempfile::tempdir().unwrap();
            std::fs::copy(crashed.path().join(file), again.path().join(file)).unwrap();
            if open(&again).health().await.queued == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, emptied).await.expect("the journal still has the message");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bounce_after_202_is_told_once_in_its_session() {
    let mut rig = Rig::start("Session").await;
    rig.server.answer_pings(false);
    let dialog = rig.partner.open_session().await;
    for (cseq, body) in [(2, "Lunch?"), (3, "Dinner?")] {
        rig.partner.in_dialog(&dialog, "MESSAGE", cseq, TEXT, body).await;
        let id = attribute(&rig.server.stanza().await, "id");
        rig.partner.answered("SIP/2.0 202 ").await;
        rig.server.bounce(&id);
        rig.counted("bounced_after_202", cseq - 1).await;
        if cseq == 2 {
            let notice = rig.partner.answered("MESSAGE ").await;
            assert!(notice.ends_with("\r\n\r\nYour message could not be delivered."), "{notice}");
            assert!(dialog.contains(header(&notice, "Call-ID")), "{notice}");
            rig.partner.answer(&notice, "200 OK", "", "", "").await;
        }
    }
    rig.until_queued(0).await;
    rig.partner.nothing_came().await;
}
