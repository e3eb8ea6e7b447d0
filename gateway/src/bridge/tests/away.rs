//! What goes on while the store is away (design §6.11).

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isthmus_model::{BareAddress, EpochMillis, PairId};
use isthmus_store::clock::ManualClock;
use isthmus_store::{
    Batch, Condition, Key, Kind, LeaseName, Lifetime, Limits, MemoryStore, Shard, Store as _, StoreError, SystemClock,
    Timer, TimerKind, record,
};
use parking_lot::Mutex;
use tokio::time::timeout;

use super::rig::{Rig, SOON};
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

// S-35
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_does_not_keep_up_lets_in_no_new_work() {
    let mut rig = shared().await;
    let dialog = rig.partner.open_session().await;
    rig.store.set_strained(true);
    tokio::time::sleep(Duration::from_millis(300)).await;
    rig.partner.write("MESSAGE", TEXT, "too much").await;
    let refused = rig.partner.answered("SIP/2.0 503 ").await;
    let wait = refused.lines().find_map(|line| line.strip_prefix("Retry-After: ")?.trim().parse::<u32>().ok());
    assert!(wait.is_some_and(|wait| (5..=30).contains(&wait)), "{refused}");
    assert!(rig.server.rest().is_empty());
    // What is in a dialog is served.
    rig.partner.in_dialog(&dialog, "MESSAGE", 2, TEXT, "in the session").await;
    rig.partner.answered("SIP/2.0 200 ").await;
    assert!(rig.server.stanza().await.contains("in the session"));
    rig.store.set_strained(false);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    rig.partner.write("MESSAGE", TEXT, "afterwards").await;
    rig.partner.answered("SIP/2.0 200 ").await;
    assert!(rig.server.stanza().await.contains("afterwards"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_whose_clock_is_behind_is_not_asked_without_pause() {
    let behind = ManualClock::new(EpochMillis(crate::bridge::now().epoch.0 - 1000));
    let inner = Arc::new(MemoryStore::new(Limits::default(), Arc::new(behind.clone())));
    let rig = Rig::with_shared_store("Pager", Arc::clone(&inner) as _).await;
    rig.leased().await;
    let bare = |jid: &str| BareAddress::from_jid(jid).unwrap();
    let key = Key::pair(&PairId::of(&bare("juliet@corp.example"), &bare("ana@partner.example")));
    let due = crate::bridge::now().epoch;
    let mut batch = Batch::new();
    batch.put(
        key.clone(),
        Condition::Absent,
        record::encode(Kind::Pair, 1, b""),
        Lifetime::For(Duration::from_secs(60)),
    );
    batch.set_timer(Timer { kind: TimerKind(1), key, due, generation: due.0 });
    let before = rig.store.claims();
    inner.commit(batch).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let asked = rig.store.claims() - before;
    assert!((1..=25).contains(&asked), "{asked}");
    behind.advance(Duration::from_secs(5));
    let shards: Vec<Shard> = Shard::all().collect();
    let done = async {
        while inner.next_due(&shards).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, done).await.expect("nobody does what is due");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_due_while_the_store_is_full_stays_due() {
    let mut rig = shared().await;
    rig.leased().await;
    rig.partner.write("SUBSCRIBE", "Event: presence\r\nContact: <sip:ana@127.0.0.1>\r\n", "").await;
    rig.partner.answered("SIP/2.0 20").await;
    let bare = |jid: &str| BareAddress::from_jid(jid).unwrap();
    let key = Key::pair(&PairId::of(&bare("juliet@corp.example"), &bare("ana@partner.example")));
    assert!(rig.store.stored(key.clone()).await.is_some());
    rig.partner.answered("NOTIFY ").await;
    rig.store.set(Commits::Full);
    let due = crate::bridge::now().epoch;
    let mut batch = Batch::new();
    batch.set_timer(Timer { kind: TimerKind(1), key, due, generation: due.0 });
    let before = rig.store.claims();
    rig.store.inner.commit(batch).await.unwrap();
    let full = "isthmus_store_errors_total{reason=\"full\"}";
    rig.until(full, || rig.store.claims() > before && rig.metrics.render().contains(full)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(rig.store.inner.health().await.timers, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_due_is_read_once_and_not_one_by_one_while_the_store_is_away() {
    const DUE: u32 = 60;
    let rig = shared().await;
    // By then this process has the leases of all shards, one after the other, also on a busy machine.
    let due = crate::bridge::now().epoch.plus(Duration::from_secs(3));
    for number in 0..DUE {
        let bare = |jid: &str| BareAddress::from_jid(jid).unwrap();
        let pair = PairId::of(&bare("juliet@corp.example"), &bare(&format!("u{number}@partner.example")));
        let key = Key::pair(&pair);
        let mut batch = Batch::new();
        let bytes = record::encode(Kind::Pair, 1, b"");
        batch.put(key.clone(), Condition::Absent, bytes, Lifetime::For(Duration::from_secs(60)));
        batch.set_timer(Timer { kind: TimerKind(1), key, due, generation: due.0 });
        rig.store.inner.commit(batch).await.unwrap();
    }
    rig.store.set(Commits::Blind);
    // What the link's coming up asks for is over.
    tokio::time::sleep(due.since(crate::bridge::now().epoch).saturating_sub(Duration::from_millis(100))).await;
    let before = rig.store.pairs().1;
    // Long enough for all of them, too short for the pause after which they come again.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let reads = rig.store.pairs().1 - before;
    assert!((1..DUE / 2).contains(&reads), "{reads} reads for {DUE} due times");
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_with_every_message_fills_no_log() {
    const EACH: usize = 5000;
    let rig = shared().await;
    let away = StoreError::Unavailable { reason: "no answer in time".to_owned(), retry_after: Duration::from_secs(1) };
    let lost = StoreError::FenceLost { lease: LeaseName::link("127.0.0.1:5347", "partner.example") };
    // Registers the places that log, before anybody listens: tests at other threads do that at the same time, and one
    // that comes in between would have them taken for places that nobody listens to.
    rig.bridge.store_failed(&away);
    rig.bridge.store_failed(&lost);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let began = Instant::now();
    tracing::subscriber::with_default(subscriber, || {
        for _ in 1..EACH {
            rig.bridge.store_failed(&away);
            rig.bridge.store_failed(&lost);
        }
    });
    let most = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    let text = String::from_utf8(log.0.lock().clone()).unwrap();
    for kind in ["no answer in time", "is no longer held"] {
        let lines = text.lines().filter(|line| line.contains(kind) && line.contains("left_out=")).count();
        assert!((1..=most).contains(&lines), "{lines} lines of {kind:?}");
    }
    // They are counted all the same.
    let page = rig.metrics.render();
    for kind in ["unavailable", "fence_lost"] {
        assert!(page.contains(&format!("isthmus_store_errors_total{{reason=\"{kind}\"}} {EACH}\n")), "{page}");
    }
}
