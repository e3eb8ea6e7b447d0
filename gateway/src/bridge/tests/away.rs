//! What goes on while the store is away (design §6.11).

use std::sync::Arc;

use isthmus_store::{Limits, MemoryStore, SystemClock};

use super::rig::Rig;
use super::store::Commits;

const ANA: &str = "sip:ana@partner.example";
const TEXT: &str = "Content-Type: text/plain\r\n";

async fn shared() -> Rig {
    Rig::with_shared_store("Pager", Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)))).await
}

// K-80
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_go_on_where_the_readers_list_is_known() {
    let mut rig = shared().await;
    rig.partner.write("MESSAGE", TEXT, "before").await;
    rig.partner.answered("SIP/2.0 200 ").await;
    rig.server.stanza().await;
    rig.store.set(Commits::Away);
    rig.partner.write("MESSAGE", TEXT, "meanwhile").await;
    rig.partner.answered("SIP/2.0 200 ").await;
    assert!(rig.server.stanza().await.contains("meanwhile"));
    rig.server.message("m1", "outward");
    rig.partner.accept_message("outward").await;
    // Nobody knows whether this user blocked the sender.
    let stranger = ("sip:romeo@corp.example", "sip:romeo@corp.example");
    rig.partner.write_as("MESSAGE", ANA, stranger, TEXT, "unknown").await;
    rig.partner.answered("SIP/2.0 503 ").await;
    rig.store.set(Commits::Pass);
    rig.partner.write_as("MESSAGE", ANA, stranger, TEXT, "afterwards").await;
    rig.partner.answered("SIP/2.0 200 ").await;
    assert!(rig.server.stanza().await.contains("afterwards"));
}

// K-80
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dialogs_and_subscriptions_are_refused_and_shown_to_nobody() {
    let mut rig = shared().await;
    rig.store.set(Commits::Away);
    rig.partner.write("SUBSCRIBE", "Event: presence\r\nContact: <sip:ana@127.0.0.1>\r\n", "").await;
    rig.partner.answered("SIP/2.0 503 ").await;
    assert!(rig.server.rest().is_empty());
}
