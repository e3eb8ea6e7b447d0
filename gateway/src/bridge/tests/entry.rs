//! Who may send what to whom, before anything else is looked at (interworking specification §1.5).

use isthmus_model::BareAddress;
use isthmus_store::Key;

use super::rig::{Rig, attribute, header};

const ANA: &str = "sip:ana@partner.example";
const JULIET: &str = "sip:juliet@corp.example";
const TEXT: &str = "Content-Type: text/plain\r\n";

// A-02, T-09, T-10, T-11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_with_wrong_addresses_get_their_answer_and_reach_nobody() {
    let mut rig = Rig::start("Pager").await;
    let asserted = |value: &str| format!("P-Asserted-Identity: {value}\r\n");
    for (from, uri, to, more, answer) in [
        (ANA, "sips:juliet@corp.example", JULIET, String::new(), "480 "),
        (ANA, JULIET, "sips:juliet@corp.example", String::new(), "480 "),
        ("sip:eve@other.example", JULIET, JULIET, String::new(), "403 "),
        ("sip:romeo@corp.example", JULIET, JULIET, String::new(), "403 "),
        (ANA, JULIET, JULIET, asserted("<sip:eve@other.example>"), "403 "),
        (ANA, JULIET, JULIET, asserted("<sip:ana@partner.example>, \"R\" <sip:romeo@corp.example>"), "403 "),
        (ANA, JULIET, JULIET, asserted("<sips:ana@192.0.2.1>"), "403 "),
        (ANA, "sip:lee@other.example", "sip:lee@other.example", String::new(), "404 "),
    ] {
        rig.partner.write_as("MESSAGE", from, (uri, to), &format!("{TEXT}{more}"), "hello").await;
        let got = rig.partner.answered(&format!("SIP/2.0 {answer}")).await;
        assert_eq!(header(&got, "Warning").starts_with("380 "), answer == "480 ", "{got}");
    }
    // The sender's own name, and a number beside it, are no offence; and nothing came before this message.
    let own = asserted("\"Ana\" <sip:Ana@partner.example>, <tel:+15551234>");
    rig.partner.write("MESSAGE", &format!("{TEXT}{own}"), "at last").await;
    rig.partner.answered("SIP/2.0 200 ").await;
    let stanza = rig.server.stanza().await;
    assert!(stanza.contains("at last") && attribute(&stanza, "from") == "ana@partner.example", "{stanza}");
    assert!(rig.server.rest().is_empty());
}

// L-01
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_of_a_user_is_not_read_for_a_domain_that_is_not_permitted() {
    let watch = "Event: presence\r\nContact: <sip:watcher@127.0.0.1>\r\n";
    let mut suspended = Rig::with_partner("suspended: true").await;
    let mut rig = Rig::start("Pager").await;
    for (rig, from) in [(&mut suspended, ANA), (&mut rig, "sip:eve@other.example")] {
        let before = (rig.store.reads(), rig.store.asked());
        rig.partner.write_as("SUBSCRIBE", from, (JULIET, JULIET), watch, "").await;
        rig.partner.answered("SIP/2.0 403 ").await;
        rig.partner.nothing_came().await;
        assert_eq!((rig.store.reads(), rig.store.asked()), before, "{from}");
        assert!(rig.server.rest().is_empty());
    }
    // The same request of a domain that is permitted is judged by the list, and juliet hears of it.
    let before = rig.store.reads();
    rig.partner.write_as("SUBSCRIBE", ANA, (JULIET, JULIET), watch, "").await;
    rig.partner.answered("SIP/2.0 200 ").await;
    assert!(rig.store.reads() > before);
    let stanza = rig.server.stanza().await;
    assert_eq!(attribute(&stanza, "type"), "subscribe", "{stanza}");
}

// T-12
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stanzas_of_foreign_senders_go_nowhere() {
    let mut rig = Rig::start("Pager").await;
    for from in ["eve@other.example/x", "ana@partner.example", "juliet@sub.corp.example", "corp.example.evil.example"] {
        rig.server.send(&format!(
            "<message from='{from}' to='ana@partner.example' type='chat' id='f'><body>forged</body></message>"
        ));
        rig.server.send(&format!("<presence from='{from}' to='ana@partner.example' type='subscribe'/>"));
    }
    rig.server.message("m1", "one");
    rig.partner.accept_message("one").await;
    rig.partner.nothing_came().await;
    assert!(rig.server.rest().is_empty());
    // They were not left to policy, which would also have refused them. The last one names no user at all.
    let dropped = "isthmus_refusals_total{reason=\"foreign_stanza\"} 6\n";
    assert!(rig.metrics.render().contains(dropped), "{}", rig.metrics.render());
}

//
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_spelling_of_a_message_is_that_of_what_is_sent_back() {
    let mut rig = Rig::start("Pager").await;
    rig.partner.write_as("MESSAGE", "sip:Ana@Partner.example", (JULIET, JULIET), TEXT, "hello").await;
    rig.partner.answered("SIP/2.0 200 ").await;
    rig.server.stanza().await;
    rig.server.message("m1", "one");
    let message = rig.partner.accept_message("one").await;
    assert!(message.starts_with("MESSAGE sip:Ana@partner.example SIP/2.0"), "{message}");
    assert_eq!(header(&message, "To"), "<sip:Ana@partner.example>");
    rig.server.send("<presence from='juliet@corp.example' to='ana@partner.example' type='subscribe'/>");
    let subscribe = rig.partner.request("SUBSCRIBE").await;
    assert!(subscribe.starts_with("SUBSCRIBE sip:Ana@partner.example SIP/2.0"), "{subscribe}");
}

//
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spelling_is_stored_when_it_changes_and_not_with_every_message() {
    let mut rig = Rig::start("Pager").await;
    let key = || Key::address(&BareAddress::from_jid("ana@partner.example").unwrap());
    let mut stored_as = Vec::new();
    for from in ["sip:Ana@partner.example", "sip:Ana@partner.example", "sip:ANA@partner.example", ANA, ANA] {
        let before = rig.store.asked();
        rig.partner.write_as("MESSAGE", from, (JULIET, JULIET), TEXT, "hello").await;
        rig.partner.answered("SIP/2.0 200 ").await;
        rig.server.stanza().await;
        let stored = rig.store.stored(key()).await.map(|record| String::from_utf8(record.bytes.to_vec()).unwrap());
        stored_as.push((stored, rig.store.asked() - before));
    }
    let [first, again, other, plain, plain_again] = &stored_as[..] else { unreachable!() };
    assert!(first.0.as_deref().is_some_and(|text| text.contains("Ana")) && first.1 == 1, "{first:?}");
    assert_eq!(*again, (first.0.clone(), 0));
    assert!(other.0.as_deref().is_some_and(|text| text.contains("ANA")) && other.1 == 1, "{other:?}");
    assert_eq!((plain, plain_again), (&(None, 1), &(None, 0)));
    // An INVITE teaches it too, though nobody is there to take it.
    rig.partner.write_as("INVITE", "sip:Ana@partner.example", (JULIET, JULIET), "", "").await;
    rig.partner.answered("SIP/2.0 ").await;
    assert!(rig.store.stored(key()).await.is_some());
}
