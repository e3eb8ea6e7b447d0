//! The journal against a real kill: a process that is gone between two instructions.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test may")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use isthmus_model::BareAddress;
use isthmus_store::{Batch, Condition, Key, Lifetime, Limits, MemoryStore, OpenError, Store as _, SystemClock};

const CHILD: &str = "ISTHMUS_STORE_KILL_TEST_DIR";

fn open(dir: &Path) -> Result<MemoryStore, OpenError> {
    // Small, so that the journal is also killed while it is written anew.
    let limits = Limits { journal_bytes: 2048, ..Limits::default() };
    MemoryStore::open(limits, Arc::new(SystemClock), dir)
}

fn list(n: usize) -> Key {
    Key::user(&BareAddress::from_jid(&format!("user{n}@corp.example")).unwrap())
}

/// Decides on and on and says what was confirmed, until it is killed.
async fn decide(dir: &Path, from: usize) {
    let store = open(dir).unwrap();
    for n in from.. {
        let mut batch = Batch::new();
        batch.put(list(n % 50), Condition::Any, n.to_be_bytes().to_vec(), Lifetime::Durable);
        store.commit(batch).await.unwrap();
        println!("\nconfirmed {n}");
    }
}

#[tokio::test]
async fn a_killed_process_loses_no_confirmed_decision() {
    if let Some(dir) = std::env::var_os(CHILD) {
        let from = std::fs::read_to_string(Path::new(&dir).join("from")).unwrap().parse().unwrap();
        return decide(Path::new(&dir), from).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut next = 0_usize;
    for round in 0..12 {
        std::fs::write(dir.path().join("from"), next.to_string()).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_killed_process_loses_no_confirmed_decision", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut confirmed = None;
        for _ in 0..20 + 7 * round {
            confirmed = lines.by_ref().find_map(|line| line.strip_prefix("confirmed ")?.parse::<usize>().ok());
        }
        child.kill().unwrap();
        // What it still said before the kill counts too.
        let last = lines.filter_map(|line| line.strip_prefix("confirmed ")?.parse().ok()).last().or(confirmed).unwrap();
        child.wait().unwrap();

        let store = open(dir.path()).unwrap();
        let keys: Vec<_> = (0..50).map(list).collect();
        let read = store.read(&keys).await.unwrap();
        for n in last.saturating_sub(49)..=last {
            let record = read[n % 50].as_ref().unwrap();
            let value = usize::from_be_bytes(record.bytes[..].try_into().unwrap());
            // Only the one decision that was not confirmed yet may have come on top.
            assert!(value == n || value == last + 1, "{value} in place of {n}, last confirmed was {last}");
        }
        next = last + 1;
    }
}
