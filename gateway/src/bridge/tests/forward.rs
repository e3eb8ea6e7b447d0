//! Who works on a request where several processes share a store.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use isthmus_model::{BareAddress, Domain, PairId};
use isthmus_sip::{Limits as SipLimits, Message, Transport};
use isthmus_store::clock::ManualClock;
use isthmus_store::{Consumer, Limits, MemoryStore, QueueName, Store as _, SystemClock};
use isthmus_xmpp::stanza::{Iq, IqKind, Presence, PresenceType};
use isthmus_xmpp::{MessageType, Stanza};
use tokio::time::timeout;

use super::reconcile::{be_watched, cseq, give_to_another, presence as shows};
use super::rig::{Rig, attribute, header};
use super::store::{Commits, TestStore};
use crate::bridge::presence::PairUsers;
use crate::metrics::Metrics;
use crate::pods::tests::pods;
use crate::pods::{Note, Pods};

const TEXT: &str = "Content-Type: text/plain\r\n";

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

// K-76
// What a user asked of a contact is answered also while the link changes hands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_link_that_is_given_back_did_not_send_any_more_its_next_holder_sends() {
    let store = Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)));
    let mut rig = Rig::with_shared_store("Pager", store).await;
    rig.leased().await;
    let other = rig.beside("overrides: {imMode: Pager}").await;
    rig.bridge.links.give_back();
    let presence = |kind| Presence::new(kind, "ana@partner.example", "juliet@corp.example");
    let iq = Iq::new(IqKind::Result(None), "ana@partner.example", "juliet@corp.example", "asked");
    // The next holder tells states anew by itself.
    for stanza in [
        Stanza::Presence(presence(PresenceType::Available)),
        Stanza::Iq(iq),
        Stanza::Presence(presence(PresenceType::Subscribed)),
    ] {
        rig.bridge.send_by_next_holder(stanza);
    }
    assert_eq!(rig.bridge.unfinished(), ["work given to other processes"]);
    other.leased().await;
    // The server closes the old connection for the new one.
    rig.cut_link().await;
    assert_eq!(attribute(&rig.server.stanza().await, "type"), "subscribed");
    rig.until("the answer", || rig.server.ponged("asked")).await;
    rig.until("nothing is under way", || rig.bridge.is_idle()).await;
    assert_eq!(rig.server.rest(), Vec::<String>::new());
}

// K-76
// A process that drains waits for what is on its way into the store, and that is not long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_waits_for_the_notes_of_which_many_leave_together() {
    const NOTES: u64 = 500;
    let store = Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)));
    let rig = Rig::with_shared_store("Pager", Arc::clone(&store) as _).await;
    rig.until("nothing else is under way", || rig.bridge.is_idle()).await;
    rig.store.set(Commits::Wait);
    let before = rig.store.asked();
    for id in 0..NOTES {
        rig.bridge.write_note("other".to_owned(), Note::Absorbed { id });
    }
    rig.store.wait_asked(before).await;
    // Also once the last of them has left the outbox.
    assert_eq!(rig.bridge.unfinished(), ["work given to other processes"]);
    rig.store.set(Commits::Pass);
    rig.until("all are written", || rig.bridge.is_idle()).await;
    assert_eq!(store.health().await.queued, usize::try_from(NOTES).unwrap());
    // The process writes this and that of its own meanwhile.
    let commits = rig.store.asked() - before;
    assert!(commits < NOTES / 10, "{commits} commits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn responses_to_nothing_do_not_fill_another_process() {
    let store = Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)));
    let rig = Rig::with_shared_store("Pager", Arc::clone(&store) as _).await;
    let other = "0123456789abcdef";
    let _other = Pods::start(TestStore::shared_over(store), other, "sip/1", Arc::new(Metrics::new()));
    rig.until("the other process is known", || rig.bridge.pods.is_alive(other)).await;
    let response = format!(
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bK0.{other}\r\nFrom: <sip:a@corp.example>;tag=1\r\n\
         To: <sip:b@partner.example>;tag=2\r\nCall-ID: c\r\nCSeq: 1 MESSAGE\r\nContent-Length: 0\r\n\r\n"
    );
    let response = Message::parse(Bytes::from(response), &SipLimits::default()).unwrap();
    let source = ([127, 0, 0, 1], 9).into();
    for _ in 0..20_000 {
        // Never taken for one of this process, which would end a session that is another's.
        assert!(rig.bridge.hand_over_response(Transport::Udp, source, &response));
    }
    let page = rig.metrics.render();
    assert!(page.contains("{reason=\"stray_response\"}"), "a flood of responses goes to the store:\n{page}");
}

// S-10
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ack_stops_the_repeats_though_the_process_that_worked_on_the_invite_is_gone() {
    let store = Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)));
    let rig = Rig::with_shared_store("Session", Arc::clone(&store) as _).await;
    let other = "0123456789abcdef";
    let (_other, mut notes) = pods(&store, other);
    rig.until("the other process is known", || rig.bridge.pods.is_alive(other)).await;
    let bare = |jid| BareAddress::from_jid(jid).unwrap();
    let pair = PairId::of(&bare("juliet@corp.example"), &bare("ana@partner.example"));
    let ack = |tag: &str| {
        let ack = format!(
            "ACK sip:juliet@corp.example SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKa\r\nMax-Forwards: 70\r\n\
             From: <sip:ana@partner.example>;tag=1\r\nTo: <sip:juliet@corp.example>;tag={tag}\r\nCall-ID: c\r\n\
             CSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n"
        );
        Message::parse(Bytes::from(ack), &SipLimits::default()).unwrap()
    };
    let ours = ack(&pair.new_tag(&mut || 7));
    rig.bridge.sip_ack(ours.clone(), true);
    rig.bridge.sip_ack(ack("made-up"), false);
    rig.bridge.sip_ack(ours.clone(), false);
    let told = timeout(Duration::from_secs(10), notes.recv()).await.unwrap();
    assert_eq!(told, Some(Note::Acknowledged { message: ours.as_bytes().to_vec() }));
    // A flood of them fills nobody's queue.
    for _ in 0..20_000 {
        rig.bridge.sip_ack(ours.clone(), false);
    }
    let page = rig.metrics.render();
    assert!(page.contains("{reason=\"stray_ack\"}"), "a flood of ACKs goes to the store:\n{page}");
}

// S-45
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_note_that_nobody_takes_ends_after_30_s() {
    let clock = ManualClock::new(crate::bridge::now().epoch);
    let store = Arc::new(MemoryStore::new(Limits::default(), Arc::new(clock.clone())));
    let rig = Rig::with_shared_store("Pager", Arc::clone(&store) as _).await;
    let me = Consumer { name: "me".to_owned(), fence: None };
    let found =
        async |life: &str| store.take(&QueueName::pod(life), &me, 9, Duration::from_secs(1)).await.unwrap().len();
    for (life, rest, expected) in [("early", 0, 1), ("late", 100, 0)] {
        let before = store.health().await.queued;
        rig.bridge.write_note(life.to_owned(), Note::Absorbed { id: 1 });
        rig.until_queued(before + 1).await;
        clock.advance(Duration::from_millis(29_900 + rest));
        assert_eq!(found(life).await, expected, "{life}");
    }
    clock.advance(Duration::from_secs(30));
    assert_eq!(store.health().await.queued, 0);
}

// S-12
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_with_news_for_one_dialog_have_one_request_under_way() {
    let store = Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)));
    let mut rig = Rig::with_shared_store("Session", store).await;
    rig.leased().await;
    be_watched(&mut rig).await;
    rig.server.send(&shows("dnd"));
    let first = rig.partner.request("NOTIFY").await;
    // The link goes over while its former holder waits for the answer.
    let mut next = rig.beside("overrides: {imMode: Session}").await;
    rig.bridge.links.give_back();
    next.leased().await;
    // The server closes the old connection for the new one.
    rig.cut_link().await;
    next.link_ready().await;
    let before = next.store.pairs().0;
    rig.server.send(&shows("xa"));
    next.until("the news is stored", || next.store.pairs().0 > before).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    next.partner.nothing_came().await;
    rig.partner.answer(&first, "200 OK", "", "", "").await;
    let mut seen = Vec::new();
    // What is repeated of the first one has its number.
    while seen.last() != Some(&(cseq(&first) + 1)) {
        let (came, partner) = tokio::select! {
            came = rig.partner.request("NOTIFY") => (came, &rig.partner),
            came = next.partner.request("NOTIFY") => (came, &next.partner),
        };
        seen.push(cseq(&came));
        assert!(cseq(&came) <= cseq(&first) + 1, "{came}");
        assert!(cseq(&came) == cseq(&first) || came.contains("xa"), "{came}");
        partner.answer(&came, "200 OK", "", "", "").await;
    }
    rig.partner.nothing_came().await;
    next.partner.nothing_came().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_to_a_process_without_the_link_arrives_in_order() {
    let store = Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)));
    let mut rig = Rig::with_shared_store("Pager", store).await;
    rig.leased().await;
    let mut other = rig.beside("overrides: {imMode: Pager}").await;
    let domain = |name| Domain::parse(name).unwrap();
    let (local, partner) = (domain("corp.example"), domain("partner.example"));
    other.until("it knows who has the link", || other.bridge.elsewhere(&local, &partner).is_some()).await;
    let texts: Vec<String> = (0..30).map(|n| format!("number {n}")).collect();
    for text in &texts {
        other.partner.write("MESSAGE", TEXT, text).await;
    }
    for text in &texts {
        let stanza = rig.server.stanza().await;
        assert!(stanza.contains(&format!("<body>{text}</body>")), "{text} is not next: {stanza}");
    }
}

// The partner hears so before it gives up by itself (64·T1 = 32 s).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_process_does_not_answer_is_refused_in_time() {
    let store = Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)));
    let mut rig = Rig::with_shared_store("Pager", Arc::clone(&store) as _).await;
    rig.leased().await;
    give_to_another(&rig).await;
    let asked = rig.partner.write("MESSAGE", TEXT, "into silence").await;
    rig.until_queued(1).await;
    rig.partner.answered("SIP/2.0 100 ").await;
    tokio::time::sleep(Duration::from_secs(18)).await;
    let refused = rig.partner.answered("SIP/2.0 503 ").await;
    assert_eq!(header(&refused, "Call-ID"), asked);
    assert!(!header(&refused, "Retry-After").is_empty(), "{refused}");
    assert!(rig.metrics.render().contains("{reason=\"pod_silent\"} 1\n"));
}

// Neither the partner nor the user is left without a word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_process_has_no_room_for_is_refused() {
    let limits = Limits { queue_items: 1, ..Limits::default() };
    let store = Arc::new(MemoryStore::new(limits, Arc::new(SystemClock)));
    let mut rig = Rig::with_shared_store("Pager", Arc::clone(&store) as _).await;
    rig.leased().await;
    give_to_another(&rig).await;
    rig.partner.write("MESSAGE", TEXT, "for the other process").await;
    rig.until_queued(1).await;
    let too_many = rig.partner.write("MESSAGE", TEXT, "one too many").await;
    let refused = rig.partner.answered("SIP/2.0 503 ").await;
    assert_eq!(header(&refused, "Call-ID"), too_many);
    assert!(!header(&refused, "Retry-After").is_empty(), "{refused}");
    assert!(rig.metrics.render().contains("{reason=\"pod_busy\"} 1\n"));
    let bare = |jid| BareAddress::from_jid(jid).unwrap();
    let users = PairUsers { local: bare("juliet@corp.example"), remote: bare("ana@partner.example") };
    let kind = MessageType::Chat;
    let message = isthmus_xmpp::Message::new(kind, "juliet@corp.example/home", "ana@partner.example").with_id("m1");
    assert!(rig.bridge.hand_over_from_local(&users, &Stanza::Message(message.with_body("Lunch?"))));
    let outcome = "isthmus_messages_total{direction=\"xmpp_to_sip\",outcome=\"not_handed_over\"} 1\n";
    rig.until(outcome, || rig.metrics.render().contains(outcome)).await;
    // The error goes the same way when there is room.
    let (queue, me) = (QueueName::pod("another"), Consumer { name: "another".to_owned(), fence: None });
    let told = async {
        loop {
            for item in store.take(&queue, &me, 9, Duration::from_secs(1)).await.unwrap() {
                store.ack(&queue, &[item.id], None).await.unwrap();
                if String::from_utf8_lossy(&item.bytes).contains("resource-constraint") {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), told).await.expect("the user is never told");
}
