//! Every record that traffic leaves behind ends with its lifetime, and what users decided stays.
//!
//! Here the store has a clock of its own, that stands still until it is moved. The gateway's own clock goes on as always: by
//! that one no deadline comes, so nothing is written anew and each record ends as after the death of its process. The requests
//! that were served and the notes to processes are looked after in `repeats` and `forward`, the list of processes in `pods`.

use std::sync::Arc;
use std::time::Duration;

use isthmus_model::{BareAddress, Domain, EpochMillis, PairId};
use isthmus_store::clock::ManualClock;
use isthmus_store::{Batch, Key, LeaseName, Limits, MemoryStore, Shard, Store, Timer};
use tokio::time::timeout;

use super::reconcile::{active, be_watched, pidf, watch_ana};
use super::rig::{Rig, SOON};
use super::store::Commits;
use crate::bridge::timers;
use crate::edge::xmpp::Owner;

const TEXT: &str = "Content-Type: text/plain\r\n";
const JULIET: &str = "sip:juliet@corp.example";
const DAY: Duration = Duration::from_secs(86_400);
const MILLI: Duration = Duration::from_millis(1);

fn bare(jid: &str) -> BareAddress {
    BareAddress::from_jid(jid).unwrap()
}

fn pair() -> PairId {
    PairId::of(&bare("juliet@corp.example"), &bare("ana@partner.example"))
}

fn now() -> EpochMillis {
    crate::bridge::now().epoch
}

fn store() -> (Arc<MemoryStore>, ManualClock) {
    let clock = ManualClock::new(now());
    (Arc::new(MemoryStore::new(Limits::default(), Arc::new(clock.clone()))), clock)
}

/// Starts the only process on a store whose clock stands still.
async fn alone(mode: &str) -> (Rig, ManualClock) {
    let (store, clock) = store();
    (Rig::with_store(mode, store).await, clock)
}

async fn is_there(rig: &Rig, key: &Key) -> bool {
    rig.store.stored(key.clone()).await.is_some()
}

async fn version(rig: &Rig, key: &Key) -> Option<u64> {
    Some(rig.store.stored(key.clone()).await?.version)
}

/// Waits until another version of a record is stored than this one.
async fn until_changed(rig: &Rig, key: &Key, from: Option<u64>) {
    let changed = async {
        while version(rig, key).await == from {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, changed).await.unwrap_or_else(|_| panic!("not written: {key}"));
}

/// Waits until so many due times are stored.
async fn until_timers(rig: &Rig, count: usize) {
    let met = async {
        while rig.store.inner.health().await.timers != count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, met).await.unwrap_or_else(|_| panic!("not seen: {count} due times"));
}

/// Returns the only due time.
async fn due(rig: &Rig) -> EpochMillis {
    assert_eq!(rig.store.inner.health().await.timers, 1);
    let shards: Vec<_> = Shard::all().collect();
    rig.store.inner.next_due(&shards).await.unwrap().unwrap()
}

/// Proves that a record that was written just now, before the clock moved, is there for so long and no longer.
async fn ends_after(rig: &Rig, clock: &ManualClock, key: &Key, lifetime: Duration) {
    clock.advance(lifetime.saturating_sub(MILLI));
    assert!(is_there(rig, key).await, "{key} ends early");
    clock.advance(MILLI);
    assert!(!is_there(rig, key).await, "{key} stays");
}

/// Proves that a record ends so long after the deadline that was stored with it. When that was, the gateway's clock says;
/// it was not before `since`, and is over now.
async fn ends_after_due(rig: &Rig, clock: &ManualClock, key: &Key, since: EpochMillis, rest: Duration) {
    let (due, until) = (due(rig).await, now());
    assert!(due > until, "the deadline came while the test ran");
    clock.advance(due.since(until) + rest.saturating_sub(MILLI));
    assert!(is_there(rig, key).await, "{key} ends early");
    clock.advance(until.since(since) + MILLI);
    assert!(!is_there(rig, key).await, "{key} stays");
}

// S-45
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_presence_of_a_pair_ends_a_day_after_its_last_deadline() {
    let key = Key::pair(&pair());
    // A subscription that nobody answered.
    let (rig, clock) = alone("Session").await;
    let since = now();
    rig.server.send("<presence from='juliet@corp.example' to='ana@partner.example' type='subscribe' id='s1'/>");
    rig.partner.request("SUBSCRIBE").await;
    ends_after_due(&rig, &clock, &key, since, DAY).await;
    // One that lives, most of a day after its documents came: the last write counts.
    let (mut rig, clock) = alone("Session").await;
    let dialog = watch_ana(&mut rig).await;
    clock.advance(DAY);
    let (before, since, closed) = (version(&rig, &key).await, now(), pidf("closed"));
    rig.partner.in_dialog(&dialog, "NOTIFY", 2, &active(&closed), &closed).await;
    until_changed(&rig, &key, before).await;
    ends_after_due(&rig, &clock, &key, since, DAY).await;
    // One of the partner.
    let (mut rig, clock) = alone("Session").await;
    let since = now();
    be_watched(&mut rig).await;
    ends_after_due(&rig, &clock, &key, since, DAY).await;
}

// S-45
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_120_s_after_its_last_deadline_and_its_waiting_messages_with_it() {
    let (key, rest) = (Key::session(&pair()), Duration::from_secs(120));
    // One that is not accepted yet, with a message that waits.
    let (rig, clock) = alone("Session").await;
    let since = now();
    rig.server.message("m1", "Lunch?");
    rig.partner.request("INVITE").await;
    ends_after_due(&rig, &clock, &key, since, rest).await;
    // One that is up and idle.
    let (rig, clock) = alone("Session").await;
    rig.server.message("m1", "Lunch?");
    rig.partner.accept_session().await;
    let message = rig.partner.request("MESSAGE").await;
    let (before, since) = (version(&rig, &key).await, now());
    rig.partner.answer(&message, "200 OK", "far", "", "").await;
    until_changed(&rig, &key, before).await;
    ends_after_due(&rig, &clock, &key, since, rest).await;
}

// S-45
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spelling_is_forgotten_after_30_days() {
    let (mut rig, clock) = alone("Pager").await;
    let key = Key::address(&bare("ana@partner.example"));
    rig.partner.write_as("MESSAGE", "sip:Ana@partner.example", (JULIET, JULIET), TEXT, "Lunch?").await;
    rig.partner.answered("SIP/2.0 200 ").await;
    assert!(is_there(&rig, &key).await);
    ends_after(&rig, &clock, &key, 30 * DAY).await;
    rig.server.message("m1", "Dinner?");
    let message = rig.partner.accept_message("Dinner?").await;
    assert!(message.starts_with("MESSAGE sip:ana@partner.example "), "{message}");
}

// S-45
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_partner_refuses_is_forgotten_after_a_day() {
    let (rig, clock) = alone("Auto").await;
    rig.server.message("m1", "one");
    rig.partner.refuse("MESSAGE ", "405 Method Not Allowed").await;
    rig.partner.accept_session().await;
    rig.partner.accept_message("one").await;
    rig.until_refusal_is_known().await;
    ends_after(&rig, &clock, &Key::peer(&Domain::parse("partner.example").unwrap()), DAY).await;
    // Single messages are tried again.
    rig.server.send(
        "<message from='romeo@corp.example/home' to='bob@partner.example' type='chat' id='m2'><body>two</body></message>",
    );
    rig.partner.accept_message("two").await;
}

/// Proves that the only letter ends after 7 days and is not sent again then.
async fn letter_ends(rig: &mut Rig, clock: &ManualClock) {
    clock.advance((7 * DAY).saturating_sub(MILLI));
    assert_eq!(rig.bridge.store.health().await.queued, 1);
    clock.advance(MILLI);
    let health = rig.bridge.store.health().await;
    assert_eq!((health.queued, health.expired_items), (0, 1));
    rig.server.answer_pings(true);
    rig.break_link().await;
    rig.partner.write("MESSAGE", TEXT, "marker").await;
    let next = rig.server.stanza().await;
    assert!(next.contains("marker"), "{next}");
}

// S-45
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accepted_message_that_is_never_confirmed_ends_after_7_days() {
    let (mut rig, clock) = alone("Pager").await;
    rig.server.answer_pings(false);
    rig.partner.write("MESSAGE", TEXT, "Lunch?").await;
    rig.server.stanza().await;
    rig.partner.answered("SIP/2.0 202 ").await;
    letter_ends(&mut rig, &clock).await;
}

// S-45
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_for_a_local_user_that_is_never_confirmed_ends_after_7_days() {
    let (mut rig, clock) = alone("Pager").await;
    rig.server.answer_pings(false);
    rig.server.message("m1", "Lunch?");
    rig.partner.refuse("MESSAGE ", "480 Temporarily Unavailable").await;
    let told = rig.server.stanza().await;
    rig.until("the ping after it", || rig.server.unanswered_pings() > 0).await;
    rig.break_link().await;
    assert_eq!(rig.server.stanza().await, told);
    rig.until_queued(1).await;
    letter_ends(&mut rig, &clock).await;
}

// S-45
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_users_decided_stays_for_ever() {
    let (mut rig, clock) = alone("Session").await;
    let (auth, list) = (Key::auth(&pair()), Key::user(&bare("juliet@corp.example")));
    be_watched(&mut rig).await;
    until_changed(&rig, &list, None).await;
    clock.advance(DAY * 36_500);
    for key in [&auth, &list] {
        let stored = rig.store.stored(key.clone()).await;
        assert!(stored.is_some_and(|record| record.expires_at.is_none()), "{key}");
    }
    // Of the records nothing else is left.
    assert_eq!(rig.store.inner.health().await.records, 2);
}

// S-45
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_the_user_never_answers_ends_after_8_days_and_an_answer_stays() {
    let key = Key::auth(&pair());
    for answers in [false, true] {
        let (mut rig, clock) = alone("Session").await;
        rig.partner.write("SUBSCRIBE", "Event: presence\r\nContact: <sip:ana@127.0.0.1>\r\n", "").await;
        rig.partner.answered("SIP/2.0 200 ").await;
        rig.partner.request("NOTIFY").await;
        let asked = version(&rig, &key).await;
        if !answers {
            ends_after(&rig, &clock, &key, 8 * DAY).await;
            continue;
        }
        rig.server.send("<presence from='juliet@corp.example' to='ana@partner.example' type='unsubscribed'/>");
        until_changed(&rig, &key, asked).await;
        clock.advance(36_500 * DAY);
        assert!(is_there(&rig, &key).await);
    }
}

// S-45
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_due_time_ends_with_what_it_is_for() {
    let (mut rig, clock) = alone("Session").await;
    let dialog = watch_ana(&mut rig).await;
    until_timers(&rig, 1).await;
    rig.server.send("<presence from='juliet@corp.example' to='ana@partner.example' type='unsubscribe' id='u1'/>");
    let last = rig.partner.request("SUBSCRIBE").await;
    let more = "Expires: 0\r\nContact: <sip:ana@127.0.0.1>\r\n";
    rig.partner.answer(&last, "200 OK", "far", more, "").await;
    let over = "Event: presence\r\nSubscription-State: terminated;reason=timeout\r\nContact: <sip:ana@127.0.0.1>\r\n";
    rig.partner.in_dialog(&dialog, "NOTIFY", 2, over, "").await;
    until_timers(&rig, 0).await;
    assert_eq!(rig.store.inner.health().await.records, 0);
    // One whose record is gone is taken away when it comes, by both clocks.
    let (key, due) = (Key::pair(&pair()), now());
    clock.advance(DAY);
    let mut batch = Batch::new();
    batch.set_timer(Timer { kind: timers::PAIR, key, due, generation: due.0 });
    rig.store.inner.commit(batch).await.unwrap();
    until_timers(&rig, 0).await;
}

// S-45
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lease_of_a_link_ends_after_2_s_and_that_of_a_shard_after_5_s() {
    let (store, clock) = store();
    let rig = Rig::with_shared_store("Session", Arc::clone(&store) as _).await;
    rig.leased().await;
    let domain = |name| Domain::parse(name).unwrap();
    let owner = rig.bridge.links.owner(&domain("corp.example"), &domain("partner.example"));
    let Owner::Mine(Some(fence)) = owner else { panic!("{owner:?}") };
    let shards: Vec<_> = Shard::all().map(LeaseName::shard).collect();
    let held = async |leases: &[LeaseName]| {
        let mut held = 0;
        for lease in leases {
            held += usize::from(store.holder(lease).await.unwrap().is_some());
        }
        held
    };
    let all = async {
        while held(&shards).await < shards.len() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, all).await.expect("not all shards are served");
    // Nothing is renewed any more, once what is under way is over.
    rig.store.set(Commits::Away);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let link = [fence.lease];
    clock.advance(Duration::from_millis(1_999));
    assert_eq!(held(&link).await, 1);
    clock.advance(MILLI);
    assert_eq!(held(&link).await, 0);
    clock.advance(Duration::from_millis(2_999));
    assert_eq!(held(&shards).await, shards.len());
    clock.advance(MILLI);
    assert_eq!(held(&shards).await, 0);
}
