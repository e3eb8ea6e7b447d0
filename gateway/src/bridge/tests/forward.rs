//! Who works on a request where several processes share a store.

use std::sync::Arc;

use isthmus_store::{Limits, MemoryStore, SystemClock};

use super::rig::Rig;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_waits_for_a_link_that_was_just_taken() {
    let store = Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)));
    let mut rig = Rig::with_shared_store("Pager", store).await;
    rig.cut_link().await;
    rig.partner.write("MESSAGE", "Content-Type: text/plain\r\n", "into the gap").await;
    // 202 when the link took longer than a datagram may wait.
    rig.partner.answered("SIP/2.0 20").await;
    assert!(rig.server.stanza().await.contains("into the gap"));
}
