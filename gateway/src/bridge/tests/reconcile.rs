//! Links that come up again, here or at another process.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use isthmus_interwork::authorization::{AuthRecord, Context, Pair};
use isthmus_model::{Access, BareAddress, Domain, EpochMillis, Now, PairId};
use isthmus_sip::{Limits as SipLimits, Message};
use isthmus_store::{
    Acquisition, Batch, Condition, Key, Kind, Lease, LeaseName, Lifetime, Limits, MemoryStore, Slot, Store,
    SystemClock, Timer, TimerKind, record,
};

use super::rig::{Rig, attribute, header};
use super::store::{Commits, TestStore};
use crate::bridge::BlindTimes;
use crate::bridge::presence::PairUsers;
use crate::edge::sip::outbound::{ClientEvent, Leave, PeerRoute, Whereabouts};
use crate::edge::xmpp::LinkState;

const TEXT: &str = "Content-Type: text/plain\r\n";
const CONTACT: &str = "Event: presence\r\nContact: <sip:ana@127.0.0.1>\r\n";
pub(super) const SUBSCRIBE: &str =
    "<presence from='juliet@corp.example' to='ana@partner.example' type='subscribe' id='s1'/>";
const SUBSCRIBED: &str = "<presence from='juliet@corp.example' to='ana@partner.example' type='subscribed'/>";

pub(super) fn presence(show: &str) -> String {
    format!("<presence from='juliet@corp.example/home' to='ana@partner.example'><show>{show}</show></presence>")
}

pub(super) fn active(document: &str) -> String {
    let kind = if document.is_empty() { "" } else { "Content-Type: application/pidf+xml\r\n" };
    format!("Event: presence\r\nSubscription-State: active;expires=600\r\nContact: <sip:ana@127.0.0.1>\r\n{kind}")
}

pub(super) fn pidf(basic: &str) -> String {
    format!(
        "<?xml version='1.0'?><presence xmlns='urn:ietf:params:xml:ns:pidf' entity='sip:ana@partner.example'>\
         <tuple id='t1'><status><basic>{basic}</basic></status></tuple></presence>"
    )
}

pub(super) fn cseq(request: &str) -> u32 {
    header(request, "CSeq").split_once(' ').unwrap().0.parse().unwrap()
}

/// Lets juliet watch ana, who is there; gives the dialog as ana's requests name it.
pub(super) async fn watch_ana(rig: &mut Rig) -> String {
    rig.server.send(SUBSCRIBE);
    let subscribe = rig.partner.request("SUBSCRIBE").await;
    let more = "Expires: 600\r\nContact: <sip:ana@127.0.0.1>\r\n";
    rig.partner.answer(&subscribe, "200 OK", "far", more, "").await;
    let (to, from) = (header(&subscribe, "From"), header(&subscribe, "To"));
    let dialog = format!("From: {from};tag=far\r\nTo: {to}\r\nCall-ID: {}\r\n", header(&subscribe, "Call-ID"));
    let open = pidf("open");
    rig.partner.in_dialog(&dialog, "NOTIFY", 1, &active(&open), &open).await;
    rig.partner.answered("SIP/2.0 200 ").await;
    assert_eq!(attribute(&rig.server.stanza().await, "type"), "subscribed");
    assert_eq!(attribute(&rig.server.stanza().await, "type"), "");
    dialog
}

/// Returns the version of the record of juliet and ana.
async fn version(rig: &Rig) -> u64 {
    rig.store.stored(Key::pair(&juliet_and_ana())).await.unwrap().version
}

/// Lets ana watch juliet, who is there; gives the last NOTIFY.
pub(super) async fn be_watched(rig: &mut Rig) -> String {
    rig.partner.write("SUBSCRIBE", CONTACT, "").await;
    rig.partner.answered("SIP/2.0 200 ").await;
    let pending = rig.partner.request("NOTIFY").await;
    rig.partner.answer(&pending, "200 OK", "", "", "").await;
    assert_eq!(attribute(&rig.server.stanza().await, "type"), "subscribe");
    rig.server.send(SUBSCRIBED);
    rig.server.send(&presence("away"));
    let notify = rig.partner.request("NOTIFY").await;
    assert!(header(&notify, "Subscription-State").starts_with("active") && notify.contains("open"), "{notify}");
    // Nothing is under way any more once this is stored.
    let before = version(rig).await;
    rig.partner.answer(&notify, "200 OK", "", "", "").await;
    let stored = async {
        while version(rig).await == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), stored).await.expect("the outcome is not stored");
    notify
}

/// Proves that the local server got nothing that was not looked at.
async fn nothing_more(rig: &mut Rig) {
    let juliet = "sip:juliet@corp.example";
    rig.partner.write_as("MESSAGE", "sip:carol@partner.example", (juliet, juliet), TEXT, "marker").await;
    let next = rig.server.stanza().await;
    assert!(next.contains("marker"), "{next}");
}

fn shared() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)))
}

// P-38
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_follows_the_last_one_goes_on_with_all_dialogs_and_opens_none() {
    let store = shared();
    let mut former = Rig::with_shared_store("Session", Arc::clone(&store)).await;
    let dialog = watch_ana(&mut former).await;
    let told = be_watched(&mut former).await;
    former.store.set(Commits::Away);
    let mut rig = Rig::with_shared_store("Session", store).await;
    // The user is asked for, and sees the contact again.
    let probe = rig.server.stanza().await;
    assert_eq!((attribute(&probe, "type"), attribute(&probe, "to")), ("probe".into(), "juliet@corp.example".into()));
    let seen = rig.server.stanza().await;
    assert!(attribute(&seen, "from").starts_with("ana@partner.example"), "{seen}");
    assert_eq!((attribute(&seen, "type"), attribute(&seen, "to")), (String::new(), "juliet@corp.example".into()));
    rig.partner.nothing_came().await;
    // How long nobody was there is known from when the former process was heard of last.
    rig.until("the blind time is counted", || rig.bridge.blind_times().count > 0).await;
    assert!(rig.bridge.blind_times().max < 20_000, "{:?}", rig.bridge.blind_times());
    // Both dialogs live on.
    let closed = pidf("closed");
    rig.partner.in_dialog(&dialog, "NOTIFY", 2, &active(&closed), &closed).await;
    rig.partner.answered("SIP/2.0 200 ").await;
    assert_eq!(attribute(&rig.server.stanza().await, "type"), "unavailable");
    rig.server.send(&presence("dnd"));
    let notify = rig.partner.request("NOTIFY").await;
    assert_eq!(header(&notify, "Call-ID"), header(&told, "Call-ID"));
    assert_eq!(header(&notify, "From"), header(&told, "From"));
    assert_eq!(cseq(&notify), cseq(&told) + 1);
    rig.partner.answer(&notify, "200 OK", "", "", "").await;
    nothing_more(&mut rig).await;
}

// What was there before the process is known from the list of processes, which may be read after the link is up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_blind_time_of_a_link_that_nobody_held_is_counted_though_the_list_of_processes_is_read_late() {
    let store = shared();
    let mut former = Rig::with_shared_store("Session", Arc::clone(&store)).await;
    watch_ana(&mut former).await;
    be_watched(&mut former).await;
    former.store.set(Commits::Away);
    let others = TestStore::shared_over(store);
    others.set(Commits::NoMembers);
    // Its lease runs out meanwhile.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let rig = Rig::starting(others).await;
    rig.link_ready().await;
    rig.store.set(Commits::Pass);
    rig.until("the blind time is counted", || rig.bridge.blind_times().count > 0).await;
}

/// Lets the process stand still between storing what a stanza leads to and sending it, until the link is another's, whose lease
/// is returned.
async fn stand_still(rig: &mut Rig, key: Key, stanza: &str) -> Lease {
    let links = rig.bridge.links.states();
    let (link, _) = links.iter().find(|(link, _)| link.name.as_str() == "partner.example").unwrap();
    let lease = LeaseName::link(&format!("{}:{}", link.host, link.port), link.name.as_str());
    // The turn that stored the last outcome must not be the one that stands still.
    rig.until("nothing is under way", || rig.bridge.lanes.is_idle()).await;
    let before = rig.store.stored(key.clone()).await.unwrap().version;
    rig.store.set(Commits::Still);
    rig.server.send(stanza);
    let taken = async {
        while rig.store.stored(key.clone()).await.unwrap().version == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        loop {
            if let Acquisition::Granted(other) =
                rig.store.acquire(&lease, "other", Duration::from_secs(60)).await.unwrap()
            {
                return other;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let other = tokio::time::timeout(Duration::from_secs(10), taken).await.expect("the lease does not run out");
    rig.store.set(Commits::Pass);
    let is_others =
        || matches!(rig.bridge.links.states().iter().find(|(l, _)| l == link), Some((_, LinkState::Standby(_))));
    rig.until("the link is another's", is_others).await;
    rig.partner.nothing_came().await;
    other
}

fn juliet_and_ana() -> PairId {
    let bare = |jid| BareAddress::from_jid(jid).unwrap();
    PairId::of(&bare("juliet@corp.example"), &bare("ana@partner.example"))
}

// S-13
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_process_stored_before_it_stood_still_is_not_sent_after_the_link_is_anothers() {
    let mut rig = Rig::with_shared_store("Session", shared()).await;
    be_watched(&mut rig).await;
    stand_still(&mut rig, Key::pair(&juliet_and_ana()), SUBSCRIBE).await;
}

// The next holder may have returned it to its writer, and the next message has its number behind it.
// S-12, S-13
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_a_process_stored_before_it_stood_still_is_not_sent_after_the_link_is_anothers() {
    let mut rig = Rig::with_shared_store("Session", shared()).await;
    rig.leased().await;
    rig.server.message("m1", "Lunch?");
    rig.partner.accept_session().await;
    let first = rig.partner.accept_message("Lunch?").await;
    let message = "<message from='juliet@corp.example/home' to='ana@partner.example' type='chat' id='m2'>\
                   <body>At noon?</body></message>";
    let lease = stand_still(&mut rig, Key::session(&juliet_and_ana()), message).await;
    // It waits for whoever has the link.
    rig.until("the message waits", || rig.bridge.lanes.is_idle()).await;
    rig.store.release(&lease).await.unwrap();
    let sent = rig.partner.request("MESSAGE").await;
    assert!(sent.contains("At noon?") && header(&sent, "Call-ID") == header(&first, "Call-ID"), "{sent}");
    assert_eq!(cseq(&sent), cseq(&first) + 1);
    rig.partner.answer(&sent, "200 OK", "", "", "").await;
    nothing_more(&mut rig).await;
}

// K-80
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notify_that_was_refused_while_the_store_was_away_is_asked_for() {
    be_refused_a_notify(Rig::with_shared_store("Session", shared()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notify_that_an_embedded_store_refused_is_asked_for() {
    be_refused_a_notify(Rig::start("Session").await).await;
}

async fn be_refused_a_notify(mut rig: Rig) {
    let dialog = watch_ana(&mut rig).await;
    rig.store.set(Commits::Away);
    let closed = pidf("closed");
    rig.partner.in_dialog(&dialog, "NOTIFY", 2, &active(&closed), &closed).await;
    let refused = rig.partner.answered("SIP/2.0 503 ").await;
    assert!(!header(&refused, "Retry-After").is_empty(), "{refused}");
    rig.store.set(Commits::Pass);
    let refresh = rig.partner.request("SUBSCRIBE").await;
    assert!(dialog.contains(header(&refresh, "Call-ID")), "{refresh}");
    let more = "Expires: 600\r\nContact: <sip:ana@127.0.0.1>\r\n";
    rig.partner.answer(&refresh, "200 OK", "", more, "").await;
    rig.partner.in_dialog(&dialog, "NOTIFY", 3, &active(&closed), &closed).await;
    rig.partner.answered("SIP/2.0 200 ").await;
    let shown = async { while attribute(&rig.server.stanza().await, "type") != "unavailable" {} };
    tokio::time::timeout(Duration::from_secs(10), shown).await.expect("juliet sees an old state");
}

//
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_was_lost_asks_again_once_the_store_answers() {
    let mut rig = Rig::start("Session").await;
    be_watched(&mut rig).await;
    rig.break_link().await;
    assert_eq!(attribute(&rig.server.stanza().await, "type"), "probe");
    rig.store.set(Commits::Away);
    rig.break_link().await;
    rig.until_store_is_missed().await;
    assert!(rig.server.rest().is_empty());
    rig.store.set(Commits::Pass);
    assert_eq!(attribute(&rig.server.stanza().await, "type"), "probe");
}

// S-13
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_may_not_leave_any_more_is_withdrawn() {
    let mut rig = Rig::start("Session").await;
    let runtime = rig.bridge.runtime();
    let domain = |name| Domain::parse(name).unwrap();
    let route = runtime.route(&domain("partner.example"), &domain("corp.example")).unwrap();
    let request = Bytes::from_static(
        b"NOTIFY sip:ana@partner.example SIP/2.0\r\nMax-Forwards: 70\r\nFrom: <sip:juliet@corp.example>;tag=j\r\n\
        To: <sip:ana@partner.example>;tag=a\r\nCall-ID: late\r\nCSeq: 8 NOTIFY\r\nContent-Length: 0\r\n\r\n",
    );
    let send = |may: bool| {
        let leave: Leave = Box::new(move || Box::pin(std::future::ready(may)));
        let exchange =
            rig.bridge.edge.exchange(runtime.locator.clone(), Arc::clone(&route), None, request.clone(), Some(leave));
        tokio::spawn(exchange.outcome())
    };
    assert!(matches!(send(false).await.unwrap(), ClientEvent::Withdrawn { has_left: false }));
    let sent = send(true);
    let notify = rig.partner.request("NOTIFY").await;
    rig.partner.answer(&notify, "200 OK", "", "", "").await;
    assert!(matches!(sent.await.unwrap(), ClientEvent::Final(_)));
    // One that has left for another target before may be known there, and is not to be made anew.
    let Whereabouts::Static(hops) = &route.whereabouts else { panic!("{route:?}") };
    let whereabouts = Whereabouts::Static(vec![hops[0].clone(), hops[0].clone()]);
    let route = Arc::new(PeerRoute { whereabouts, ..(*route).clone() });
    let asked = AtomicBool::new(false);
    let leave: Leave = Box::new(move || Box::pin(std::future::ready(!asked.swap(true, Ordering::Relaxed))));
    let exchange = rig.bridge.edge.exchange(runtime.locator.clone(), route, None, request, Some(leave));
    let sent = tokio::spawn(exchange.outcome());
    let notify = rig.partner.request("NOTIFY").await;
    rig.partner.answer(&notify, "503 Service Unavailable", "", "", "").await;
    assert!(matches!(sent.await.unwrap(), ClientEvent::Withdrawn { has_left: true }));
    rig.partner.nothing_came().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_comes_and_goes_is_walked_for_its_last_connection_only() {
    let mut rig = Rig::start("Session").await;
    be_watched(&mut rig).await;
    let before = rig.store.asked();
    rig.store.set(Commits::Wait);
    rig.break_link().await;
    // This turn is under way and cannot be taken back.
    rig.store.wait_asked(before).await;
    for _ in 0..3 {
        rig.break_link().await;
    }
    rig.until("the last walk is at it", || rig.bridge.blind_times().pending == 1).await;
    rig.store.set(Commits::Pass);
    rig.until("the walk is over", || rig.bridge.blind_times().pending == 0).await;
    for _ in 0..2 {
        assert_eq!(attribute(&rig.server.stanza().await, "type"), "probe");
    }
    nothing_more(&mut rig).await;
}

/// Stores that a user of the partner watches juliet.
async fn store_watcher(rig: &Rig, name: &str, ago: Duration) {
    store_watcher_with(rig, name, ago, None).await;
}

/// Stores that a user of the partner watches juliet, with what is decided already.
pub(super) async fn store_watcher_with(rig: &Rig, name: &str, ago: Duration, auth: Option<AuthRecord>) {
    let bare = |jid: &str| BareAddress::from_jid(jid).unwrap();
    let (local, remote) = (bare("juliet@corp.example"), bare(&format!("{name}@partner.example")));
    let request = format!(
        "SUBSCRIBE sip:juliet@corp.example SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bK{name}\r\n\
         From: <sip:{name}@partner.example>;tag={name}\r\nTo: <sip:juliet@corp.example>\r\nCall-ID: {name}@rig\r\n\
         CSeq: 1 SUBSCRIBE\r\nEvent: presence\r\nExpires: 3600\r\nContact: <sip:{name}@127.0.0.1:9>\r\n\
         Content-Length: 0\r\n\r\n"
    );
    let request = Message::parse(Bytes::from(request), &SipLimits::default()).unwrap();
    let config = rig.bridge.runtime().pair_config(&local, &remote, None).unwrap();
    let present = crate::bridge::now();
    let now = Now { epoch: EpochMillis(present.epoch.0 - u64::try_from(ago.as_millis()).unwrap()), ..present };
    let mut pair = Pair::new(local, remote, auth, None);
    let mut entropy = rand::random::<u64>;
    let _ = pair.handle_subscribe(
        &mut Context { now, config: &config, entropy: &mut entropy },
        Access::Allow,
        &request,
        false,
    );
    store_pair(rig, &pair, now.epoch).await;
}

/// Stores a pair and what is due for it.
pub(super) async fn store_pair(rig: &Rig, pair: &Pair, now: EpochMillis) {
    let id = PairId::of(pair.local(), pair.remote());
    let config = rig.bridge.runtime().pair_config(pair.local(), pair.remote(), None).unwrap();
    let mut batch = Batch::new();
    let life = Lifetime::For(Duration::from_secs(3600));
    let written = record::encode(Kind::Pair, 1, &pair.record().to_bytes());
    batch.put(Key::pair(&id), Condition::Absent, written, life);
    batch.put(
        Key::auth(&id),
        Condition::Absent,
        record::encode(Kind::Auth, 1, &pair.auth().to_bytes()),
        Lifetime::Durable,
    );
    let due = pair.next_deadline(now, &config).unwrap();
    batch.set_timer(Timer { kind: TimerKind(1), key: Key::pair(&id), due, generation: due.0 });
    rig.store.commit(batch).await.unwrap();
}

//
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_pair_of_many_is_asked_for() {
    let mut rig = Rig::start("Session").await;
    for n in 0..1000 {
        store_watcher(&rig, &format!("u{n}"), Duration::ZERO).await;
    }
    rig.break_link().await;
    let mut asked = BTreeSet::new();
    while asked.len() < 1000 {
        let probe = rig.server.stanza().await;
        assert_eq!(attribute(&probe, "type"), "probe");
        asked.insert(attribute(&probe, "from"));
    }
    rig.until("the walk is over", || rig.bridge.blind_times().pending == 0).await;
    nothing_more(&mut rig).await;
}

// K-77
// What people write waits at the server behind what a walk asked it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_walk_keeps_to_the_pace_of_the_server() {
    let mut rig = Rig::start("Session").await;
    for n in 0..300 {
        store_watcher(&rig, &format!("u{n}"), Duration::ZERO).await;
    }
    rig.server.answer_pings(false);
    rig.break_link().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let asked = rig.server.rest().len();
    assert!((1..=crate::bridge::reconcile::TURNS).contains(&asked), "{asked} were asked for");
    // The server lives: its new connection answers.
    rig.server.answer_pings(true);
    rig.break_link().await;
    let mut all = BTreeSet::new();
    while all.len() < 300 {
        all.insert(attribute(&rig.server.stanza().await, "from"));
    }
}

/// Gives the link to a process that does not exist.
pub(super) async fn give_to_another(rig: &Rig) {
    let bare = |jid| BareAddress::from_jid(jid).unwrap();
    let users = PairUsers { local: bare("juliet@corp.example"), remote: bare("ana@partner.example") };
    let granted = async {
        loop {
            // It is asked for again as soon as it is free.
            if let Some(fence) = rig.bridge.fence(&users) {
                let holder = rig.bridge.pods.life().to_owned();
                let lease = Lease { fence: fence.clone(), holder, expires_at: EpochMillis(0) };
                let _ = rig.store.inner.release(&lease).await;
                let taken = rig.store.inner.acquire(&fence.lease, "another", Duration::from_secs(60)).await.unwrap();
                if taken.granted().is_some() {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), granted).await.expect("the lease is never free");
    rig.until("the loss is known", || !rig.bridge.works_for(&users)).await;
}

// S-13
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_that_waited_until_the_link_was_anothers_changes_nothing() {
    let mut rig = Rig::with_shared_store("Session", shared()).await;
    rig.leased().await;
    be_watched(&mut rig).await;
    let before = version(&rig).await;
    let asked = rig.store.asked();
    rig.store.set(Commits::Wait);
    rig.server.send(&presence("dnd"));
    rig.store.wait_asked(asked).await;
    // This one waits in the lane.
    rig.server.send(&presence("xa"));
    tokio::time::sleep(Duration::from_millis(200)).await;
    give_to_another(&rig).await;
    rig.store.set(Commits::Pass);
    rig.until("both had their turn", || rig.bridge.lanes.is_idle()).await;
    rig.partner.nothing_came().await;
    assert_eq!(version(&rig).await, before);
}

// A server that takes over may lack what a process wrote that died at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_pair_is_asked_for_when_another_server_of_the_store_took_over() {
    let mut rig = Rig::with_shared_store("Session", shared()).await;
    rig.leased().await;
    be_watched(&mut rig).await;
    rig.store.take_over();
    assert_eq!(attribute(&rig.server.stanza().await, "type"), "probe");
    // Once is enough.
    rig.until("the walk is over", || rig.bridge.blind_times().count == 1).await;
    nothing_more(&mut rig).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_turns_of_a_walk_need_is_read_in_one_piece_for_many() {
    let mut rig = Rig::with_shared_store("Session", shared()).await;
    for n in 0..300 {
        store_watcher(&rig, &format!("u{n}"), Duration::ZERO).await;
    }
    let before = rig.store.pairs().1;
    rig.break_link().await;
    for _ in 0..300 {
        assert_eq!(attribute(&rig.server.stanza().await, "type"), "probe");
    }
    let reads = rig.store.pairs().1 - before;
    // One for each of 64 shards and each time that the link came up, which here may be twice.
    assert!(reads < 200, "{reads} reads of pairs for 300 turns");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_is_blind_from_the_loss_of_its_link_until_the_probe_is_answered() {
    let mut rig = Rig::start("Session").await;
    be_watched(&mut rig).await;
    rig.break_link().await;
    assert_eq!(attribute(&rig.server.stanza().await, "type"), "probe");
    // Nothing was lost before the first connection.
    assert_eq!(rig.bridge.blind_times(), BlindTimes::default());
    rig.lose_link().await;
    assert_eq!(attribute(&rig.server.stanza().await, "type"), "probe");
    let blind = rig.bridge.blind_times();
    assert_eq!((blind.pending, blind.count), (1, 0));
    rig.server.send(&presence("dnd"));
    rig.until("the answer is seen", || rig.bridge.blind_times().pending == 0).await;
    let first = rig.bridge.blind_times();
    // A gateway waits for 100 ms at least before it connects again.
    assert!(first.count == 1 && first.max >= 100 && first.p50 == first.max && first.p99 == first.max, "{first:?}");
    // Nobody answers.
    rig.lose_link().await;
    rig.until("it is not waited for", || rig.bridge.blind_times().count == 2).await;
    let second = rig.bridge.blind_times();
    assert!(second.max >= 2100 && second.p50 == first.p50 && second.pending == 0, "{second:?}");
    assert!(rig.metrics.render().contains("isthmus_blind_seconds_count 2\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_that_nobody_is_asked_for_is_blind_until_its_turn() {
    let mut rig = Rig::start("Session").await;
    watch_ana(&mut rig).await;
    // The pair waits for its turn while the link comes and goes: it is blind all the time.
    rig.store.set(Commits::Away);
    rig.lose_link().await;
    let started = std::time::Instant::now();
    rig.lose_link().await;
    let between = started.elapsed();
    rig.store.set(Commits::Pass);
    assert!(attribute(&rig.server.stanza().await, "from").starts_with("ana@partner.example"));
    rig.until("the pair has its turn", || rig.bridge.blind_times().count == 1).await;
    let blind = rig.bridge.blind_times();
    assert!(u128::from(blind.max) >= between.as_millis() + 100 && blind.pending == 0, "{blind:?} {between:?}");
}

// S-41
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notify_of_a_process_that_died_is_followed_by_one_with_the_next_number() {
    let mut rig = Rig::start("Session").await;
    // Sent so long ago that its transaction is over; nobody has told the outcome.
    store_watcher(&rig, "ana", Duration::from_secs(38)).await;
    let notify = rig.partner.request("NOTIFY").await;
    assert_eq!((cseq(&notify), header(&notify, "Call-ID")), (2, "ana@rig"));
    rig.partner.answer(&notify, "200 OK", "", "", "").await;
    rig.until("the outcome is taken", || !rig.bridge.awaits_outcomes()).await;
    rig.partner.nothing_came().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_are_made_again_when_the_store_has_lost_its_data() {
    let mut rig = Rig::with_shared_store("Session", shared()).await;
    rig.leased().await;
    let dialog = watch_ana(&mut rig).await;
    // One that the user gave up is not missed.
    rig.server.send("<presence from='juliet@corp.example' to='bob@partner.example' type='subscribe'/>");
    let other = rig.partner.request("SUBSCRIBE").await;
    assert!(other.starts_with("SUBSCRIBE sip:bob@"), "{other}");
    rig.partner.answer(&other, "403 Forbidden", "far", "", "").await;
    assert_eq!(attribute(&rig.server.stanza().await, "type"), "unsubscribed");
    let bare = |jid| BareAddress::from_jid(jid).unwrap();
    let id = PairId::of(&bare("juliet@corp.example"), &bare("ana@partner.example"));
    let mut batch = Batch::new();
    batch.delete(Key::pair(&id), Condition::Any).delete(Key::auth(&id), Condition::Any);
    batch.cancel_timer(TimerKind(1), Key::pair(&id));
    rig.store.commit(batch).await.unwrap();
    let mut batch = Batch::new();
    batch.delete(Key::other("pods", Slot::named("realm"), "members"), Condition::Any);
    rig.store.commit(batch).await.unwrap();
    let again = rig.partner.request("SUBSCRIBE").await;
    assert!(again.starts_with("SUBSCRIBE sip:ana@") && !dialog.contains(header(&again, "Call-ID")), "{again}");
    let more = "Expires: 600\r\nContact: <sip:ana@127.0.0.1>\r\n";
    rig.partner.answer(&again, "200 OK", "new", more, "").await;
    let line = "isthmus_resubscriptions_total{reason=\"sent\"} 1\n";
    rig.until(line, || rig.metrics.render().contains(line)).await;
    rig.partner.nothing_came().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_between_the_loss_of_data_and_its_notice_makes_nobody_forgotten() {
    let mut rig = Rig::with_shared_store("Session", shared()).await;
    rig.leased().await;
    let dialog = watch_ana(&mut rig).await;
    let bare = |jid| BareAddress::from_jid(jid).unwrap();
    let id = PairId::of(&bare("juliet@corp.example"), &bare("ana@partner.example"));
    let mut batch = Batch::new();
    batch.delete(Key::other("pods", Slot::named("realm"), "members"), Condition::Any);
    rig.store.commit(batch).await.unwrap();
    let mut batch = Batch::new();
    batch.delete(Key::pair(&id), Condition::Any).delete(Key::auth(&id), Condition::Any);
    batch.cancel_timer(TimerKind(1), Key::pair(&id));
    rig.store.commit(batch).await.unwrap();
    let closed = pidf("closed");
    rig.partner.in_dialog(&dialog, "NOTIFY", 2, &active(&closed), &closed).await;
    rig.partner.answered("SIP/2.0 481 ").await;
    let again = rig.partner.request("SUBSCRIBE").await;
    assert!(again.starts_with("SUBSCRIBE sip:ana@") && !dialog.contains(header(&again, "Call-ID")), "{again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_subscriptions_come_at_a_pace_that_partners_take() {
    const PAIRS: u32 = 25;
    let rig = Rig::with_shared_store("Session", shared()).await;
    rig.leased().await;
    let mut batch = Batch::new();
    for n in 0..PAIRS {
        let to = format!("u{n}@partner.example");
        rig.server.send(&format!("<presence from='juliet@corp.example' to='{to}' type='subscribe'/>"));
    }
    let mut first = BTreeSet::new();
    while first.len() < PAIRS as usize {
        let subscribe = rig.partner.request("SUBSCRIBE").await;
        rig.partner.answer(&subscribe, "200 OK", "far", "Contact: <sip:u@127.0.0.1>\r\n", "").await;
        first.insert(header(&subscribe, "Call-ID").to_owned());
    }
    rig.until("all outcomes are taken", || !rig.bridge.awaits_outcomes()).await;
    for n in 0..PAIRS {
        let bare = |jid: &str| BareAddress::from_jid(jid).unwrap();
        let id = PairId::of(&bare("juliet@corp.example"), &bare(&format!("u{n}@partner.example")));
        let mut batch = Batch::new();
        batch.delete(Key::pair(&id), Condition::Any).delete(Key::auth(&id), Condition::Any);
        rig.store.commit(batch).await.unwrap();
    }
    batch.delete(Key::other("pods", Slot::named("realm"), "members"), Condition::Any);
    rig.store.commit(batch).await.unwrap();
    let (mut again, mut begun) = (BTreeSet::new(), None);
    while again.len() < PAIRS as usize {
        let subscribe = rig.partner.request("SUBSCRIBE").await;
        rig.partner.answer(&subscribe, "200 OK", "new", "Contact: <sip:u@127.0.0.1>\r\n", "").await;
        let call = header(&subscribe, "Call-ID");
        if !first.contains(call) && again.insert(call.to_owned()) {
            let begun = *begun.get_or_insert_with(std::time::Instant::now);
            // 15 in a second, and a little for messages that take differently long.
            let most = begun.elapsed().as_millis() * 15 / 1000 + 3;
            assert!(again.len() as u128 <= most, "{} after {:?}", again.len(), begun.elapsed());
        }
    }
}

// K-80
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_while_the_store_was_away_is_asked_for_when_it_is_back() {
    let store = Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)));
    let mut rig = Rig::with_shared_store("Pager", store).await;
    be_watched(&mut rig).await;
    rig.store.set(Commits::Away);
    // Nobody can be told of this one.
    rig.server.send(&presence("dnd"));
    rig.until_store_is_missed().await;
    rig.store.set(Commits::Pass);
    assert_eq!(attribute(&rig.server.stanza().await, "type"), "probe");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_that_went_with_a_link_is_asked_again() {
    let store = Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)));
    let mut rig = Rig::with_shared_store("Pager", store).await;
    rig.partner.write("SUBSCRIBE", CONTACT, "").await;
    rig.partner.answered("SIP/2.0 200 ").await;
    assert_eq!(attribute(&rig.server.stanza().await, "type"), "subscribe");
    rig.lose_link().await;
    assert_eq!(attribute(&rig.server.stanza().await, "type"), "subscribe");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_are_made_again_where_the_link_went_when_the_store_lost_its_data() {
    let store = shared();
    let mut former = Rig::with_shared_store("Session", Arc::clone(&store)).await;
    former.leased().await;
    watch_ana(&mut former).await;
    let mut rig = former.beside("overrides: {imMode: Session}").await;
    // The lease is lost with the data, and the other process asks for it first.
    former.store.set(Commits::Away);
    let bare = |jid| BareAddress::from_jid(jid).unwrap();
    let id = PairId::of(&bare("juliet@corp.example"), &bare("ana@partner.example"));
    let mut batch = Batch::new();
    batch.delete(Key::pair(&id), Condition::Any).delete(Key::auth(&id), Condition::Any);
    batch.cancel_timer(TimerKind(1), Key::pair(&id));
    store.commit(batch).await.unwrap();
    rig.leased().await;
    let mut batch = Batch::new();
    batch.delete(Key::other("pods", Slot::named("realm"), "members"), Condition::Any);
    store.commit(batch).await.unwrap();
    former.store.set(Commits::Pass);
    // The link may be up only after it was sent, and it would come a second time meanwhile.
    let again = rig.partner.request("SUBSCRIBE").await;
    assert!(again.starts_with("SUBSCRIBE sip:ana@"), "{again}");
    let more = "Expires: 600\r\nContact: <sip:ana@127.0.0.1>\r\n";
    rig.partner.answer(&again, "200 OK", "new", more, "").await;
    rig.link_ready().await;
    rig.until("the outcome is taken", || !rig.bridge.awaits_outcomes()).await;
    rig.partner.nothing_came().await;
    former.partner.nothing_came().await;
}
