use std::fs;
use std::time::Duration;

use isthmus_model::{BareAddress, EpochMillis};

use super::*;
use crate::batch::{Batch, Condition, Lifetime};
use crate::clock::ManualClock;
use crate::health::HealthState;
use crate::memory::MemoryStore;
use crate::store::Store as _;
use crate::{Retry, StoreError};

fn clock() -> ManualClock {
    ManualClock::new(EpochMillis(1_000_000))
}

fn open(dir: &Path) -> Result<MemoryStore, OpenError> {
    MemoryStore::open(Limits::default(), Arc::new(clock()), dir)
}

fn list(n: u32) -> Key {
    Key::user(&BareAddress::from_jid(&format!("user{n}@corp.example")).unwrap())
}

async fn put(store: &MemoryStore, key: Key, content: &str, lifetime: Lifetime) -> u64 {
    try_put(store, key, content, lifetime).await.unwrap()
}

async fn try_put(store: &MemoryStore, key: Key, content: &str, lifetime: Lifetime) -> Result<u64, StoreError> {
    let mut batch = Batch::new();
    batch.put(key, Condition::Any, content.to_owned(), lifetime);
    Ok(store.commit(batch).await?.versions[0])
}

async fn contents(store: &MemoryStore, count: u32) -> Vec<Option<String>> {
    let keys: Vec<_> = (0..count).map(list).collect();
    let read = store.read(&keys).await.unwrap();
    read.into_iter().map(|record| record.map(|r| String::from_utf8(r.bytes.to_vec()).unwrap())).collect()
}

fn some(texts: &[&str]) -> Vec<Option<String>> {
    texts.iter().map(|text| Some((*text).to_owned())).collect()
}

/// Puts a copy of the journal, as it is at this moment, into a directory of its own: what a crash leaves.
fn crash(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    fs::copy(dir.join(FILE), copy.path().join(FILE)).unwrap();
    copy
}

#[tokio::test]
async fn decisions_are_there_after_a_restart_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let clock = clock();
    let reopen = || MemoryStore::open(Limits::default(), Arc::new(clock.clone()), dir.path()).unwrap();
    let store = reopen();
    let version = put(&store, list(0), "kept", Lifetime::Durable).await;
    put(&store, list(1), "pending", Lifetime::For(Duration::from_secs(10))).await;
    put(&store, list(2), "deleted", Lifetime::Durable).await;
    put(&store, list(3), "touched", Lifetime::Durable).await;
    let mut batch = Batch::new();
    batch.delete(list(2), Condition::Any);
    store.commit(batch).await.unwrap();
    let mut batch = Batch::new();
    batch.touch(list(3), Condition::Any, Lifetime::For(Duration::from_secs(10)));
    store.commit(batch).await.unwrap();
    let volatile = Key::thread("call");
    put(&store, volatile.clone(), "gone", Lifetime::For(Duration::from_secs(100))).await;
    assert!(store.health().await.durable);
    assert!(store.health().await.findings.is_empty());
    // The first time as after a crash, then closed, so that what was written anew at the start is read too.
    let copy = crash(dir.path());
    let crashed = MemoryStore::open(Limits::default(), Arc::new(clock.clone()), copy.path()).unwrap();
    drop(store);
    let mut crashed = Some(crashed);
    for _ in 0..3 {
        let store = crashed.take().unwrap_or_else(reopen);
        let expected = [Some("kept"), Some("pending"), None, Some("touched")];
        assert_eq!(contents(&store, 4).await, expected.map(|text| text.map(str::to_owned)));
        assert_eq!(store.read(std::slice::from_ref(&volatile)).await.unwrap(), [None]);
        let read = store.read(&[list(0)]).await.unwrap().pop().unwrap().unwrap();
        assert_eq!((read.version, read.expires_at), (version, None));
    }
    // Versions go on where they were, and time goes on while nothing runs.
    let store = reopen();
    assert!(put(&store, list(9), "new", Lifetime::Durable).await > version);
    drop(store);
    clock.advance(Duration::from_secs(11));
    let store = reopen();
    assert_eq!(contents(&store, 4).await, [Some("kept".to_owned()), None, None, None]);
    assert_eq!(store.health().await.records, 2);
}

#[tokio::test]
async fn a_tail_cut_short_at_any_octet_loses_only_what_was_not_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let mut ends = Vec::new();
    for n in 0..3 {
        put(&store, list(n), "content", Lifetime::Durable).await;
        ends.push(fs::metadata(dir.path().join(FILE)).unwrap().len());
    }
    let whole = fs::read(dir.path().join(FILE)).unwrap();
    let copy = tempfile::tempdir().unwrap();
    let file = copy.path().join(FILE);
    for end in HEADER..=whole.len() {
        let confirmed = ends.iter().filter(|at| **at <= end as u64).count();
        // Cut off; and with zeros in place of the octets, as some file systems leave it.
        for rest in [0, whole.len() - end] {
            let mut bytes = whole[..end].to_vec();
            bytes.resize(end + rest, 0);
            fs::write(&file, bytes).unwrap();
            let store = open(copy.path()).unwrap();
            let there = contents(&store, 3).await.iter().flatten().count();
            // Zeros that were there before make a frame whole.
            assert!(there >= confirmed && there <= confirmed + usize::from(rest > 0), "cut at {end}: {there}");
            assert_eq!(contents(&store, 3).await[..confirmed], some(&["content"; 3])[..confirmed]);
            // The store goes on, and the next start is clean; not each time, since syncing is slow.
            if end % 8 > 0 {
                continue;
            }
            put(&store, list(9), "more", Lifetime::Durable).await;
            drop(store);
            let store = open(copy.path()).unwrap();
            assert_eq!(store.health().await.records, there + 1);
        }
    }
    for end in 0..HEADER {
        fs::write(&file, &whole[..end]).unwrap();
        let refused = open(copy.path()).err();
        assert!(matches!(refused, Some(OpenError::Corrupt { offset: 0, .. })), "cut at {end}: {refused:?}");
        assert_eq!(fs::read(&file).unwrap(), whole[..end]);
    }
}

#[tokio::test]
async fn damage_before_the_last_frame_is_an_error_that_names_place_and_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    put(&store, list(0), "first", Lifetime::Durable).await;
    let second = fs::metadata(dir.path().join(FILE)).unwrap().len();
    put(&store, list(1), "second", Lifetime::Durable).await;
    let third = fs::metadata(dir.path().join(FILE)).unwrap().len();
    put(&store, list(2), "third", Lifetime::Durable).await;
    let whole = fs::read(dir.path().join(FILE)).unwrap();
    let copy = tempfile::tempdir().unwrap();
    let file = copy.path().join(FILE);
    for at in second..third {
        let mut damaged = whole.clone();
        damaged[usize::try_from(at).unwrap()] ^= 0x40;
        fs::write(&file, &damaged).unwrap();
        let error = open(copy.path()).err().unwrap();
        assert!(matches!(error, OpenError::Corrupt { offset, .. } if offset == second), "at {at}: {error:?}");
        let text = error.to_string();
        assert!(text.contains(&file.display().to_string()) && text.contains("backup"), "{text}");
        assert_eq!(fs::read(&file).unwrap(), damaged);
    }
    // A frame that is missing altogether.
    let cut = usize::try_from(second).unwrap()..usize::try_from(third).unwrap();
    let mut missing = whole.clone();
    missing.drain(cut);
    fs::write(&file, &missing).unwrap();
    assert!(matches!(open(copy.path()).err(), Some(OpenError::Corrupt { offset, .. }) if offset == second));
    // More after the damage than one cut write can leave.
    let mut long = whole[..usize::try_from(second).unwrap()].to_vec();
    long.resize(long.len() + MAX_FRAME + FRAME_HEADER + 1, 7);
    fs::write(&file, &long).unwrap();
    assert!(matches!(open(copy.path()).err(), Some(OpenError::Corrupt { offset, .. }) if offset == second));
}

#[tokio::test]
async fn a_journal_of_a_newer_release_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    let file = dir.path().join(FILE);
    let mut bytes = fs::read(&file).unwrap();
    bytes[9] = 3;
    let crc = format::checksum_for_tests(&bytes[..20]).to_be_bytes();
    bytes[20..24].copy_from_slice(&crc);
    fs::write(&file, &bytes).unwrap();
    assert!(matches!(open(dir.path()).err(), Some(OpenError::Newer { found: 3, known: 2, .. })));
    assert_eq!(fs::read(&file).unwrap(), bytes);
}

#[test]
fn one_directory_serves_one_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let error = open(dir.path()).err().unwrap();
    assert!(matches!(&error, OpenError::Locked { dir: locked } if locked == dir.path()), "{error:?}");
    drop(store);
    open(dir.path()).unwrap();
}

#[test]
fn a_directory_that_cannot_be_used_is_an_error_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = open(&path).err().unwrap();
        assert!(matches!(error, OpenError::Io { .. }), "{error:?}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
}

#[tokio::test]
async fn limits_hold_for_what_is_read_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    for n in 0..5 {
        put(&store, list(n), "content", Lifetime::Durable).await;
    }
    drop(store);
    let limits = Limits { records: 4, ..Limits::default() };
    let error = MemoryStore::open(limits, Arc::new(clock()), dir.path()).err();
    assert!(matches!(error, Some(OpenError::TooMuch { limit: 4, .. })), "{error:?}");
}

#[tokio::test]
async fn the_journal_does_not_grow_with_the_number_of_changes() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { journal_bytes: 4096, ..Limits::default() };
    let store = MemoryStore::open(limits, Arc::new(clock()), dir.path()).unwrap();
    let mut largest = 0;
    for n in 0..600 {
        put(&store, list(n % 3), &format!("{n} {}", "x".repeat(100)), Lifetime::Durable).await;
        largest = largest.max(fs::metadata(dir.path().join(FILE)).unwrap().len());
    }
    assert!((1000..8192).contains(&largest), "{largest}");
    let crashed = open(crash(dir.path()).path()).unwrap();
    let expected = [597, 598, 599].map(|n| Some(format!("{n} {}", "x".repeat(100))));
    assert_eq!(contents(&crashed, 3).await, expected);
    drop(store);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_that_wait_together_share_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()).unwrap());
    let tasks: Vec<_> = (0..200)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { put(&store, list(n), "content", Lifetime::Durable).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    // Every commit that was confirmed is in the file, and there are fewer frames than commits.
    let bytes = fs::read(dir.path().join(FILE)).unwrap();
    let frames = bytes.windows(4).filter(|window| *window == b"IJF1").count();
    assert!((1..200).contains(&frames), "{frames}");
    let crashed = open(crash(dir.path()).path()).unwrap();
    assert_eq!(contents(&crashed, 200).await.iter().flatten().count(), 200);
}

#[tokio::test]
async fn a_batch_of_decisions_is_in_the_journal_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let before = fs::metadata(dir.path().join(FILE)).unwrap().len();
    let lee = BareAddress::from_jid("lee@corp.example").unwrap();
    let pair = isthmus_model::PairId::of(&lee, &lee);
    let keys = [Key::auth(&pair), Key::from_parts(crate::Kind::User, pair.as_str(), "").unwrap()];
    let mut batch = Batch::new();
    for key in &keys {
        batch.put(key.clone(), Condition::Absent, "decision", Lifetime::Durable);
    }
    store.commit(batch).await.unwrap();
    let whole = fs::read(dir.path().join(FILE)).unwrap();
    let copy = tempfile::tempdir().unwrap();
    for end in usize::try_from(before).unwrap()..=whole.len() {
        fs::write(copy.path().join(FILE), &whole[..end]).unwrap();
        let store = open(copy.path()).unwrap();
        let there = store.read(&keys).await.unwrap().iter().flatten().count();
        assert_eq!(there, if end == whole.len() { 2 } else { 0 }, "cut at {end}");
    }
}

#[tokio::test]
async fn a_disk_that_fails_is_reported_and_heals_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { journal_bytes: 1, ..Limits::default() };
    let store = MemoryStore::open(limits, Arc::new(clock()), dir.path()).unwrap();
    put(&store, list(0), "before", Lifetime::Durable).await;
    // A directory in the way makes writing anew fail, also for root.
    fs::create_dir(dir.path().join(NEW_FILE)).unwrap();
    let mut failed = None;
    for n in 0..20 {
        // Appending goes on until the file is to be written anew.
        if let Err(error) = try_put(&store, list(1), &format!("try {n}"), Lifetime::Durable).await {
            failed = Some(error);
            break;
        }
    }
    let error = failed.unwrap();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(matches!(error.retry(), Retry::After(after) if after > Duration::ZERO));
    let health = store.health().await;
    assert_eq!((health.state, health.findings[0].reason), (HealthState::Degraded, "JournalFailing"));
    // What needs no journal goes on.
    put(&store, Key::thread("call"), "x", Lifetime::For(Duration::from_secs(9))).await;
    try_put(&store, list(2), "still failing", Lifetime::Durable).await.unwrap_err();

    fs::remove_dir(dir.path().join(NEW_FILE)).unwrap();
    put(&store, list(3), "after", Lifetime::Durable).await;
    assert_eq!(store.health().await.state, HealthState::Ready);
    let crashed = open(crash(dir.path()).path()).unwrap();
    let there = contents(&crashed, 4).await;
    assert_eq!((&there[0], &there[3]), (&Some("before".to_owned()), &Some("after".to_owned())));
    // What failed is written with the next success, as memory has it.
    assert_eq!(there[2], Some("still failing".to_owned()));
}

#[tokio::test]
async fn after_a_failed_write_the_file_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut loaded = Journal::open(dir.path(), &Limits::default(), &clock()).unwrap();
    // A file that refuses every write.
    loaded.journal.file = File::open(dir.path().join(FILE)).unwrap();
    let store = MemoryStore::start(loaded, Limits::default(), Arc::new(clock())).unwrap();
    let error = try_put(&store, list(0), "first", Lifetime::Durable).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert_eq!(store.health().await.state, HealthState::Degraded);
    put(&store, list(1), "second", Lifetime::Durable).await;
    put(&store, list(2), "third", Lifetime::Durable).await;
    assert_eq!(store.health().await.state, HealthState::Ready);
    let crashed = open(crash(dir.path()).path()).unwrap();
    assert_eq!(contents(&crashed, 3).await, some(&["first", "second", "third"]));
}

#[tokio::test]
async fn files_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("a").join("state");
    let store = open(&state).unwrap();
    put(&store, list(0), "content", Lifetime::Durable).await;
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(state.join(FILE)), mode(state)), (0o600, 0o700));
}

fn letters(component: &str) -> QueueName {
    let domain = |name| isthmus_model::Domain::parse(name).unwrap();
    QueueName::letters(&domain("corp.example"), &domain(component))
}

async fn enqueue(store: &MemoryStore, queue: QueueName, item: &str, secs: u64) -> ItemId {
    let mut batch = Batch::new();
    batch.enqueue(queue, item.to_owned(), Duration::from_secs(secs));
    store.commit(batch).await.unwrap().items[0]
}

async fn take(store: &MemoryStore, queue: &QueueName) -> Vec<(ItemId, String)> {
    let consumer = crate::Consumer { name: "pod".to_owned(), fence: None };
    let taken = store.take(queue, &consumer, 100, Duration::from_secs(1)).await.unwrap();
    taken.into_iter().map(|item| (item.id, String::from_utf8(item.bytes.to_vec()).unwrap())).collect()
}

#[tokio::test]
async fn items_of_durable_queues_are_there_after_a_restart_until_they_are_done_or_over() {
    let dir = tempfile::tempdir().unwrap();
    let clock = clock();
    let reopen = || MemoryStore::open(Limits::default(), Arc::new(clock.clone()), dir.path()).unwrap();
    let (ana, bob, volatile) = (letters("ana.example"), letters("bob.example"), QueueName::pod("n0"));
    let store = reopen();
    let first = enqueue(&store, ana.clone(), "first", 100).await;
    let done = enqueue(&store, ana.clone(), "done", 100).await;
    enqueue(&store, bob.clone(), "brief", 10).await;
    enqueue(&store, ana.clone(), "last", 100).await;
    enqueue(&store, volatile.clone(), "gone", 100).await;
    store.ack(&ana, &[done], None).await.unwrap();
    let decision = put(&store, list(0), "kept", Lifetime::Durable).await;
    // As after a crash, then closed and opened, so that what was written anew at the start is read too.
    let copy = crash(dir.path());
    let mut crashed = Some(MemoryStore::open(Limits::default(), Arc::new(clock.clone()), copy.path()).unwrap());
    drop(store);
    for _ in 0..3 {
        let store = crashed.take().unwrap_or_else(reopen);
        let texts: Vec<_> = take(&store, &ana).await;
        assert_eq!(texts.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), ["first", "last"]);
        assert_eq!(texts[0].0, first);
        assert_eq!(take(&store, &bob).await.len(), 1);
        assert!(take(&store, &volatile).await.is_empty());
        assert_eq!(store.read(&[list(0)]).await.unwrap()[0].as_ref().unwrap().version, decision);
        // No number is given again while its item lives.
        let fresh = enqueue(&store, ana.clone(), "fresh", 100).await;
        assert!(fresh > texts[1].0, "{fresh:?}");
        store.ack(&ana, &[fresh], None).await.unwrap();
    }
    clock.advance(Duration::from_secs(11));
    let store = reopen();
    assert!(take(&store, &bob).await.is_empty());
    let texts = take(&store, &ana).await;
    store.ack(&ana, &[texts[0].0, texts[1].0], None).await.unwrap();
    drop(store);
    assert!(take(&reopen(), &ana).await.is_empty());
}
