//! Requests that come again at another process of the realm.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use isthmus_model::{BareAddress, EpochMillis, PairId};
use isthmus_sip::{Limits as SipLimits, Message};
use isthmus_store::clock::ManualClock;
use isthmus_store::{Key, Limits, MemoryStore, Record, Store, SystemClock};

use super::rig::{Rig, attribute, header};
use super::store::Commits;
use crate::bridge::repeats::{Identity, is_finished};

const TEXT: &str = "Content-Type: text/plain\r\n";
const CONTACT: &str = "Event: presence\r\nContact: <sip:ana@127.0.0.1>\r\n";
const SDP: &str = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
                   m=message 5060 sip null\r\na=accept-types:text/plain\r\n";

/// Two processes of a realm on one store. Requests go to the first, copies to the second.
struct Realm {
    a: Rig,
    b: Rig,
}

impl Realm {
    async fn start() -> Self {
        Self::on(Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)))).await
    }

    async fn on(store: Arc<dyn Store>) -> Self {
        let a = Rig::with_shared_store("Session", Arc::clone(&store)).await;
        Self { a, b: Rig::with_shared_store("Session", store).await }
    }

    /// Names the record of the last request.
    fn key(&self) -> Key {
        let bare = |jid| BareAddress::from_jid(jid).unwrap();
        let pair = PairId::of(&bare("juliet@corp.example"), &bare("ana@partner.example"));
        let request = Message::parse(Bytes::from(self.a.partner.last.clone()), &SipLimits::default()).unwrap();
        Identity::of(&pair, &request).key().clone()
    }

    /// Reads the record of the last request.
    async fn record(&self) -> Option<Record> {
        self.a.store.stored(self.key()).await
    }

    /// Waits until the answer to the last request is stored.
    async fn until_finished(&self) {
        let wait = async {
            while !self.record().await.as_ref().is_some_and(is_finished) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.expect("no answer stored");
    }

    /// Waits until nothing is stored about the last request.
    async fn until_forgotten(&self) {
        let wait = async {
            while self.record().await.is_some() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.expect("it stays claimed");
    }

    /// Proves that copies of the last request, over the same branch and over another, get the same answer.
    async fn copies_get(&mut self, answer: &str) {
        self.until_finished().await;
        let branch = header(answer, "Via").split_once(";branch=").unwrap().1;
        let (same, other) = (None, Some("z9hG4bKother"));
        for copy in [same, other, same] {
            self.a.partner.repeat_at(&self.b.partner, copy).await;
            let again = self.a.partner.receive().await;
            assert_eq!(again.replacen("z9hG4bKother", branch, 1), answer);
            assert_eq!(again == answer, copy.is_none());
        }
    }

    /// Proves that the second process has done nothing so far.
    async fn b_did_nothing(&mut self) {
        self.b.partner.nothing_came().await;
        // What it had sent would have come before this.
        self.b.partner.write_as("MESSAGE", "sip:carol@partner.example", (JULIET, JULIET), TEXT, "marker").await;
        let first = self.b.server.stanza().await;
        assert!(first.contains("marker"), "{first}");
        self.b.partner.answered("SIP/2.0 200 ").await;
    }
}

const JULIET: &str = "sip:juliet@corp.example";

// S-01, S-03
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_or_session_request_at_another_process_gets_the_same_answer_and_runs_nothing() {
    let mut realm = Realm::start().await;
    realm.a.partner.write("MESSAGE", TEXT, "Lunch?").await;
    assert!(realm.a.server.stanza().await.contains("Lunch?"));
    let answer = realm.a.partner.answered("SIP/2.0 200 ").await;
    realm.copies_get(&answer).await;

    let more =
        "Contact: <sip:ana@127.0.0.1>\r\nContent-Type: application/sdp\r\nRecord-Route: <sip:edge.example;lr>\r\n";
    let call = realm.a.partner.write("INVITE", more, SDP).await;
    let answer = realm.a.partner.answered("SIP/2.0 200 ").await;
    assert!(answer.contains("m=message") && answer.contains("Record-Route: "), "{answer}");
    let (from, to) = (header(&answer, "From"), header(&answer, "To"));
    let dialog = format!("From: {from}\r\nTo: {to}\r\nCall-ID: {call}\r\n");
    realm.a.partner.in_dialog(&dialog, "ACK", 1, "", "").await;
    realm.copies_get(&answer).await;

    realm.a.partner.in_dialog(&dialog, "MESSAGE", 2, TEXT, "Dinner?").await;
    assert!(realm.a.server.stanza().await.contains("Dinner?"));
    let answer = realm.a.partner.answered("SIP/2.0 200 ").await;
    realm.copies_get(&answer).await;

    realm.a.partner.in_dialog(&dialog, "BYE", 3, "", "").await;
    let answer = realm.a.partner.answered("SIP/2.0 200 ").await;
    realm.copies_get(&answer).await;
    realm.b_did_nothing().await;
}

// S-01, S-03
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_about_presence_at_another_process_gets_the_same_answer_and_runs_nothing() {
    let mut realm = Realm::start().await;
    realm.a.partner.write("SUBSCRIBE", CONTACT, "").await;
    let answer = realm.a.partner.answered("SIP/2.0 200 ").await;
    let notify = realm.a.partner.request("NOTIFY").await;
    realm.a.partner.answer(&notify, "200 OK", "", "", "").await;
    assert!(realm.a.server.stanza().await.contains("subscribe"));
    realm.copies_get(&answer).await;

    // A refusal with a tag of ours.
    realm.a.partner.write("SUBSCRIBE", "Event: dialog\r\nContact: <sip:ana@127.0.0.1>\r\n", "").await;
    let answer = realm.a.partner.answered("SIP/2.0 489 ").await;
    realm.copies_get(&answer).await;

    realm.a.server.send("<presence from='juliet@corp.example' to='ana@partner.example' type='subscribe' id='s1'/>");
    let subscribe = realm.a.partner.request("SUBSCRIBE").await;
    let more = "Expires: 600\r\nContact: <sip:ana@127.0.0.1>\r\n";
    realm.a.partner.answer(&subscribe, "200 OK", "far", more, "").await;
    let (to, from) = (header(&subscribe, "From"), header(&subscribe, "To"));
    let dialog = format!("From: {from};tag=far\r\nTo: {to}\r\nCall-ID: {}\r\n", header(&subscribe, "Call-ID"));
    let more = "Event: presence\r\nSubscription-State: active;expires=600\r\nContact: <sip:ana@127.0.0.1>\r\n";
    realm.a.partner.in_dialog(&dialog, "NOTIFY", 1, more, "").await;
    let answer = realm.a.partner.answered("SIP/2.0 200 ").await;
    realm.copies_get(&answer).await;
    realm.b_did_nothing().await;
}

// S-01
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_that_serve_one_request_at_once_one_does() {
    let mut realm = Realm::start().await;
    let before = (realm.a.store.asked(), realm.b.store.asked());
    realm.a.store.set(Commits::Wait);
    realm.b.store.set(Commits::Wait);
    realm.a.partner.write("SUBSCRIBE", CONTACT, "").await;
    realm.a.partner.repeat_at(&realm.b.partner, None).await;
    realm.a.store.wait_asked(before.0).await;
    realm.b.store.wait_asked(before.1).await;
    // The second is ahead; the first finds that.
    realm.b.store.set(Commits::Pass);
    let one = realm.a.partner.answered("SIP/2.0 200 ").await;
    let notify = realm.b.partner.request("NOTIFY").await;
    realm.b.partner.answer(&notify, "200 OK", "", "", "").await;
    assert!(realm.b.server.stanza().await.contains("subscribe"));
    realm.a.store.set(Commits::Pass);
    assert_eq!(realm.a.partner.receive().await, one);
    std::mem::swap(&mut realm.a, &mut realm.b);
    realm.b_did_nothing().await;
}

// S-02
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_message_runs_its_copies_elsewhere_are_absorbed_and_other_transactions_refused() {
    let mut realm = Realm::start().await;
    realm.a.server.answer_pings(false);
    // It cannot come to an end: its 202 waits for the store.
    realm.a.store.set(Commits::NoLetters);
    realm.a.partner.write("MESSAGE", TEXT, "Lunch?").await;
    realm.a.server.stanza().await;
    assert!(!is_finished(&realm.record().await.unwrap()));
    realm.a.partner.repeat_at(&realm.b.partner, None).await;
    realm.a.partner.repeat_at(&realm.b.partner, Some("z9hG4bKother")).await;
    // The same pair's work is done in its order, so the first copy has got nothing.
    let refusal = realm.a.partner.answered("SIP/2.0 482 ").await;
    assert!(header(&refusal, "Via").contains("z9hG4bKother"), "{refusal}");
    realm.a.store.set(Commits::Pass);
    let answer = realm.a.partner.answered("SIP/2.0 202 ").await;
    realm.until_finished().await;
    // What was absorbed is forgotten, so that a later copy is looked up.
    realm.a.partner.repeat_at(&realm.b.partner, None).await;
    assert_eq!(realm.a.partner.receive().await, answer);
    realm.b_did_nothing().await;
}

// S-01
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_a_process_that_died_runs_again_with_the_same_id() {
    // The store's clock goes 15 s late, so that its records look as old.
    let clock = ManualClock::new(EpochMillis(crate::bridge::now().epoch.0 - 15_000));
    let mut realm = Realm::on(Arc::new(MemoryStore::new(Limits::default(), Arc::new(clock)))).await;
    let dead = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&dead);
    realm.b.bridge.set_alive(move |_| !seen.load(Ordering::SeqCst));
    let dialog = realm.a.partner.open_session().await;
    realm.a.server.answer_pings(false);
    realm.a.store.set(Commits::NoLetters);
    realm.a.partner.in_dialog(&dialog, "MESSAGE", 2, TEXT, "Lunch?").await;
    let first = realm.a.server.stanza().await;
    // The end of the first process, as far as the store can tell.
    realm.a.store.set(Commits::Refuse);
    realm.a.partner.answered("SIP/2.0 503 ").await;
    realm.a.until("the answer waits", || realm.a.bridge.unwritten_answers() == 1).await;
    realm.a.partner.repeat_at(&realm.b.partner, None).await;
    realm.a.partner.repeat_at(&realm.b.partner, Some("z9hG4bKother")).await;
    realm.a.partner.answered("SIP/2.0 482 ").await;
    dead.store(true, Ordering::SeqCst);
    realm.a.partner.repeat_at(&realm.b.partner, None).await;
    let again = realm.b.server.stanza().await;
    assert_eq!(attribute(&again, "id"), attribute(&first, "id"));
    assert_eq!(again, first);
    realm.a.partner.answered("SIP/2.0 200 ").await;
    realm.until_finished().await;
    // Should the first come back, what the second did stands.
    let stands = realm.record().await;
    realm.a.store.set(Commits::Pass);
    realm.a.until("the answer is tried", || realm.a.bridge.unwritten_answers() == 0).await;
    assert_eq!(realm.record().await, stands);
}

// S-43, E-07
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ran_while_the_store_was_away_runs_nowhere_again_when_it_is_back() {
    let mut realm = Realm::start().await;
    realm.a.partner.write("MESSAGE", TEXT, "before").await;
    realm.a.server.stanza().await;
    realm.a.partner.answered("SIP/2.0 200 ").await;
    realm.until_finished().await;
    realm.a.store.set(Commits::Away);
    realm.a.partner.write("SUBSCRIBE", CONTACT, "").await;
    let refusal = realm.a.partner.answered("SIP/2.0 503 ").await;
    let wait: u32 = header(&refusal, "Retry-After").parse().unwrap();
    assert!((5..=30).contains(&wait), "{refusal}");
    assert_eq!(realm.record().await, None);
    realm.a.partner.write("MESSAGE", TEXT, "meanwhile").await;
    let stanza = realm.a.server.stanza().await;
    assert!(stanza.contains("meanwhile"), "{stanza}");
    let answer = realm.a.partner.answered("SIP/2.0 200 ").await;
    realm.a.until("the answer waits", || realm.a.bridge.unwritten_answers() == 1).await;
    realm.a.store.set(Commits::Pass);
    realm.copies_get(&answer).await;
    realm.b_did_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_refused_for_want_of_the_store_may_run_elsewhere() {
    let mut realm = Realm::start().await;
    realm.a.store.set(Commits::Blind);
    // Nobody knows whether juliet blocked ana. The claim is given back as soon as the store takes that.
    realm.a.partner.write("MESSAGE", TEXT, "Lunch?").await;
    realm.a.partner.answered("SIP/2.0 503 ").await;
    realm.until_forgotten().await;
    realm.a.partner.repeat_at(&realm.b.partner, Some("z9hG4bKfirst")).await;
    assert!(realm.b.server.stanza().await.contains("Lunch?"));
    realm.a.partner.answered("SIP/2.0 200 ").await;
    assert!(realm.a.server.rest().is_empty());
    realm.a.store.set(Commits::Away);
    // Nobody knows whether juliet blocked ana.
    realm.a.partner.write("MESSAGE", TEXT, "Lunch?").await;
    realm.a.partner.answered("SIP/2.0 503 ").await;
    realm.a.store.set(Commits::Pass);
    realm.a.partner.repeat_at(&realm.b.partner, Some("z9hG4bKother")).await;
    assert!(realm.b.server.stanza().await.contains("Lunch?"));
    realm.a.partner.answered("SIP/2.0 200 ").await;
    assert!(realm.a.server.rest().is_empty());
}

// S-45
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_is_forgotten_after_32_s() {
    let clock = ManualClock::new(crate::bridge::now().epoch);
    let mut realm = Realm::on(Arc::new(MemoryStore::new(Limits::default(), Arc::new(clock.clone())))).await;
    let almost = Duration::from_millis(31_900);
    let rest = Duration::from_millis(100);
    // Running.
    realm.a.server.answer_pings(false);
    realm.a.store.set(Commits::NoLetters);
    realm.a.partner.write("MESSAGE", TEXT, "Lunch?").await;
    realm.a.server.stanza().await;
    clock.advance(almost);
    assert!(!is_finished(&realm.record().await.unwrap()));
    clock.advance(rest);
    assert_eq!(realm.record().await, None);
    realm.a.store.set(Commits::Pass);
    realm.a.partner.answered("SIP/2.0 202 ").await;
    // Finished, by itself and with a turn.
    realm.a.server.answer_pings(true);
    for (method, more) in [("MESSAGE", TEXT), ("SUBSCRIBE", CONTACT)] {
        // The lease ran out as well, by the store's clock.
        realm.a.leased().await;
        realm.a.partner.write(method, more, "").await;
        realm.a.partner.answered("SIP/2.0 200 ").await;
        realm.until_finished().await;
        clock.advance(almost);
        assert!(realm.record().await.is_some());
        clock.advance(rest);
        assert_eq!(realm.record().await, None);
    }
}

// K-76
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_is_idle_only_when_its_answers_are_written() {
    let mut realm = Realm::start().await;
    for _ in 0..3 {
        realm.a.partner.write("MESSAGE", TEXT, "Lunch?").await;
        let answer = realm.a.partner.answered("SIP/2.0 200 ").await;
        realm.a.server.stanza().await;
        realm.a.until("the process is idle", || realm.a.bridge.is_idle()).await;
        assert!(realm.record().await.as_ref().is_some_and(is_finished));
        // So that the next one may take over whatever comes again.
        realm.copies_get(&answer).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_costs_a_claim_a_read_and_a_finish_and_a_lone_process_neither_claim_nor_finish() {
    let mut realm = Realm::start().await;
    let mut alone = Rig::start("Session").await;
    let count = |rig: &Rig| (rig.store.asked(), rig.store.reads());
    let before = [count(&realm.a), count(&alone)];
    for rig in [&mut realm.a, &mut alone] {
        rig.partner.write("MESSAGE", TEXT, "Lunch?").await;
        rig.partner.answered("SIP/2.0 200 ").await;
    }
    realm.until_finished().await;
    let after = [count(&realm.a), count(&alone)];
    assert_eq!((after[0].0 - before[0].0, after[0].1 - before[0].1), (2, 1));
    assert_eq!((after[1].0 - before[1].0, after[1].1 - before[1].1), (0, 1));
    // A turn takes its answer along: one commit here and there.
    let mut commits = Vec::new();
    for rig in [&mut realm.a, &mut alone] {
        let before = rig.store.asked();
        let more = "Contact: <sip:ana@127.0.0.1>\r\nContent-Type: application/sdp\r\n";
        rig.partner.write("INVITE", more, SDP).await;
        rig.partner.answered("SIP/2.0 200 ").await;
        commits.push(rig.store.asked() - before);
    }
    assert_eq!(commits, [1, 1]);
    realm.a.partner.last = alone.partner.last.clone();
    assert_eq!(alone.store.stored(realm.key()).await, None);
}
