//! What is late is asked for at the pace that partners bear.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use isthmus_interwork::authorization::{Context, FromLocal, Outcome, Output, Pair};
use isthmus_model::{Access, BareAddress, EpochMillis, Now};

use super::reconcile::{store_pair, store_watcher_with};
use super::rig::{Rig, header};

const CONTACTS: usize = 40;

/// Lets juliet ask for the presence of a contact some time ago, whom nobody reached.
fn wanted(rig: &Rig, name: &str) -> (Pair, Now) {
    let bare = |jid: &str| BareAddress::from_jid(jid).unwrap();
    let (local, remote) = (bare("juliet@corp.example"), bare(&format!("{name}@partner.example")));
    let config = rig.bridge.runtime().pair_config(&local, &remote, None).unwrap();
    let present = crate::bridge::now();
    let now = Now { epoch: EpochMillis(present.epoch.0 - 120_000), ..present };
    let mut pair = Pair::new(local, remote, None, None);
    let mut entropy = rand::random::<u64>;
    let mut ctx = Context { now, config: &config, entropy: &mut entropy };
    pair.handle_local(&mut ctx, Access::Allow, FromLocal::Subscribe);
    let Some(Output::Request { purpose, .. }) = pair.poll_output() else { panic!("nothing is asked for") };
    pair.handle_outcome(&mut ctx, &purpose, &Outcome::NoAnswer);
    (pair, now)
}

/// All contacts are asked for, not more in a second than a partner bears.
async fn be_asked_slowly(rig: &Rig, began: Instant) {
    let mut asked = BTreeSet::new();
    while asked.len() < CONTACTS {
        let subscribe = rig.partner.request("SUBSCRIBE").await;
        if asked.insert(header(&subscribe, "To").to_owned()) {
            rig.partner.answer(&subscribe, "404 Not Found", "far", "", "").await;
        }
        let most = 2 + began.elapsed().as_millis() * 15 / 1000;
        assert!(asked.len() as u128 <= most, "{} were asked for after {:?}", asked.len(), began.elapsed());
    }
}

// P-38
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_that_are_late_are_made_one_after_the_other() {
    let rig = Rig::start("Session").await;
    let began = Instant::now();
    for n in 0..CONTACTS {
        let (pair, now) = wanted(&rig, &format!("u{n}"));
        store_pair(&rig, &pair, now.epoch).await;
    }
    be_asked_slowly(&rig, began).await;
}

// P-38
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_that_a_walk_finds_missing_are_made_one_after_the_other() {
    let rig = Rig::start("Session").await;
    for n in 0..CONTACTS {
        let name = format!("u{n}");
        // Of the user's own wish the decision alone is there.
        let (pair, _) = wanted(&rig, &name);
        store_watcher_with(&rig, &name, Duration::ZERO, Some(*pair.auth())).await;
    }
    let began = Instant::now();
    rig.break_link().await;
    be_asked_slowly(&rig, began).await;
}
