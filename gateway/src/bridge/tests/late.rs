//! Sessions that are accepted when nobody waits for that any more.

use super::rig::{Rig, answer_to, attribute, header};

const CONTACT: &str = "Contact: <sip:ana@127.0.0.1:5060>\r\n";

/// Writes a 2xx to an INVITE as it would come after its transaction ended: with a branch that nobody knows.
fn late(invite: &str, tag: &str) -> String {
    let (_, rest) = invite.split_once("branch=").unwrap();
    let branch = rest.split([';', '\r']).next().unwrap();
    answer_to(&invite.replace(branch, "z9hG4bKgone"), "200 OK", tag, CONTACT, "")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_2xx_after_the_transaction_is_acknowledged_each_time_and_ended_once() {
    let mut rig = Rig::start("Session").await;
    rig.server.message("m1", "Lunch?");
    let invite = rig.partner.refuse("INVITE ", "486 Busy Here").await;
    assert_eq!(attribute(&rig.server.stanza().await, "type"), "error");
    let late = late(&invite, "late");
    rig.partner.send(&late).await;
    let ack = rig.partner.answered("ACK sip:ana@127.0.0.1:5060 ").await;
    assert_eq!((header(&ack, "CSeq"), header(&ack, "Call-ID")), ("1 ACK", header(&invite, "Call-ID")));
    assert!(header(&ack, "To").ends_with(";tag=late"), "{ack}");
    let bye = rig.partner.answered("BYE sip:ana@127.0.0.1:5060 ").await;
    assert_eq!((header(&bye, "CSeq"), header(&bye, "To")), ("2 BYE", header(&ack, "To")));
    rig.partner.answer(&bye, "200 OK", "", "", "").await;
    rig.partner.send(&late).await;
    rig.partner.answered("ACK sip:ana@127.0.0.1:5060 ").await;
    rig.partner.nothing_came().await;
    assert!(rig.server.rest().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_2xx_that_names_another_pair_than_its_tag_is_dropped() {
    let mut rig = Rig::start("Session").await;
    rig.server.message("m1", "Lunch?");
    let invite = rig.partner.refuse("INVITE ", "486 Busy Here").await;
    let late = late(&invite, "late");
    for forged in [
        late.replace("sip:ana@partner.example", "sip:bob@partner.example"),
        late.replace("sip:juliet@corp.example", "sip:romeo@corp.example"),
        late.replace("CSeq: 1 ", "CSeq: 9 "),
        late.replace("sip:ana@partner.example", "sip:ana@stranger.example"),
    ] {
        assert_ne!(forged, late);
        rig.partner.send(&forged).await;
        rig.partner.nothing_came().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_2xx_of_another_branch_is_acknowledged_and_ended_and_the_session_goes_on() {
    let rig = Rig::start("Session").await;
    rig.server.message("m1", "one");
    let invite = rig.partner.accept_session().await;
    let first = rig.partner.accept_message("one").await;
    // A process that ends need not wait for what may come.
    rig.until("nothing waits for an answer", || rig.bridge.edge.unanswered() == 0).await;
    rig.partner.answer(&invite, "200 OK", "fork", CONTACT, "").await;
    let ack = rig.partner.answered("ACK ").await;
    assert!(header(&ack, "To").ends_with(";tag=fork"), "{ack}");
    let bye = rig.partner.answered("BYE ").await;
    assert!(header(&bye, "To").ends_with(";tag=fork"), "{bye}");
    rig.partner.answer(&bye, "200 OK", "", "", "").await;
    rig.server.message("m2", "two");
    let second = rig.partner.accept_message("two").await;
    assert_eq!(header(&second, "To"), header(&first, "To"));
}
