//! Faults at random under load, for as long as one likes, with the ledger of both ends printed at the end.
//!
//! `chaos [SECONDS] [SEED] [FAULT,FAULT,...|none] [PODS]`; 900 s, a seed from the clock, all faults and three pods when not
//! said: half of the time then goes to one Redis, a quarter each to a group with Sentinels and to a Cluster.
//! Every second contact belongs to a partner with whom messages travel in sessions. `USERS`, `CONTACTS` of each, `MESSAGES`
//! and `CHANGES` a second are another load, and so are `RENEWALS` (watches a second that end and begin again) and `EXPIRES` (the
//! lifetime of subscriptions in seconds, before the end of which they are refreshed). Without `SESSIONS` (0) all messages
//! travel alone. The partners' users are behind a Kamailio, which speaks UDP with the gateways of the first part, TLS with those of
//! the second and TCP with those of the third; `ACCESS` is `UDP`, `TCP` or `TLS` for all, or `DIRECT` without Kamailio.
//! It ends with 1 when the ledger shows something that must not be. The same seed chooses the same faults.
#![expect(clippy::print_stdout, reason = "a report prints")]

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use isthmus_e2e::balancer::Policy;
use isthmus_e2e::chaos::{Fault, Field, Shared};
use isthmus_e2e::lab::{self, Lab};
use isthmus_e2e::traffic::{Access, Dice, Plan};

const SECONDS: u64 = 900;
const PODS: u64 = 3;
/// Short enough for many refreshes, and for each of them to come in the middle of a fault.
const EXPIRES_SECS: u32 = 75;

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |place: usize| arguments.get(place).filter(|a| !a.is_empty());
    let number = |place: usize, default: u64| {
        argument(place).map_or(Ok(default), |a| a.parse().with_context(|| format!("{a} is no number")))
    };
    let clock = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let (seconds, seed, pods) = (number(0, SECONDS)?, number(1, clock)?, u8::try_from(number(3, PODS)?)?);
    let named = argument(2).map(|names| {
        let fault = |name| Fault::named(name).with_context(|| format!("there is no fault {name}"));
        names.split(',').filter(|name| *name != "none").map(fault).collect::<Result<Vec<_>>>()
    });
    let runs = match named.transpose()? {
        Some(faults) => vec![(faults, seconds, Access::Kamailio)],
        // A quarter of the time goes to a group with Sentinels, and as much to a Cluster.
        None => vec![
            (Fault::ALONE.to_vec(), seconds / 2, Access::Kamailio),
            (Fault::GROUP.to_vec(), seconds / 4, Access::KamailioOverTls),
            (Fault::CLUSTER.to_vec(), seconds / 4, Access::KamailioOverTcp),
        ],
    };
    let sessions = lab::number("SESSIONS", 1)? != 0;
    let wished = match std::env::var("ACCESS").unwrap_or_default().as_str() {
        "" => None,
        "DIRECT" => Some(Access::Direct),
        "UDP" => Some(Access::Kamailio),
        "TCP" => Some(Access::KamailioOverTcp),
        "TLS" => Some(Access::KamailioOverTls),
        other => bail!("ACCESS is DIRECT, UDP, TCP or TLS, not {other}"),
    };
    let (users, contacts) = (lab::number("USERS", 40)?, lab::number("CONTACTS", 5)?);
    let (messages, changes) = (lab::number("MESSAGES", 40)?, lab::number("CHANGES", 10)?);
    let (renewals, expires_secs) = (lab::number("RENEWALS", 1)?, Some(lab::number("EXPIRES", EXPIRES_SECS)?));
    let mut right = true;
    for (faults, seconds, access) in runs {
        let access = wished.unwrap_or(access);
        let plan = Plan { users, contacts, messages, changes, renewals, expires_secs, seed, sessions, access };
        let lab = Lab::new("chaos")?;
        let (redis, store) = if faults.iter().any(|fault| fault.needs_group()) {
            ("a Redis group with Sentinels", Shared::group(&lab).await?)
        } else if faults.contains(&Fault::RedisKillNode) {
            ("a Redis Cluster", Shared::cluster(&lab).await?)
        } else {
            ("one Redis", Shared::alone(&lab, pods).await?)
        };
        println!(
            "chaos: {pods} pods on {redis}, {} pairs, {access:?}, {seconds} s, seed {seed}",
            plan.users * plan.contacts
        );
        let field = Field::start_on(store, &lab, pods, Policy::RoundRobin, &plan, false).await?;
        let judgement = field.run(&faults, Duration::from_secs(seconds), &mut Dice::new(seed)).await?;
        println!("{judgement}");
        let served = judgement.served();
        if !served {
            println!("most messages were refused");
        }
        let is_right = served && judgement.faults_found().is_empty();
        println!("seed {seed}: {}", if is_right { "the books are right" } else { "THE BOOKS ARE WRONG" });
        right &= is_right;
    }
    Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
