//! A rolling restart under full load: three gateways are drained and started again, one after the other, twice, under 500 messages
//! a second with 10,000 live subscriptions, and nobody is to see it (K-77).
//!
//! Every second contact's messages travel in sessions (`SESSIONS=0`: none). `USERS`, `CONTACTS` of each, `MESSAGES` and `CHANGES` a
//! second, and `RENEWALS` (watches a second that end and begin again) are another load. It takes minutes until everybody sees
//! everybody. It ends with 1 when a message or a SUBSCRIBE was refused, the load was less than wanted, or the ledger shows something
//! that must not be.
#![expect(clippy::print_stdout, reason = "a report prints")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use isthmus_e2e::balancer::Policy;
use isthmus_e2e::chaos::Field;
use isthmus_e2e::lab::{self, Lab};
use isthmus_e2e::traffic::{Access, Plan};

const PODS: u8 = 3;
const ROUNDS: usize = 2;
/// Between two drains; under this load pairs of a link still have their turns then.
const PAUSE: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(75);
/// The part of the wanted rate from which on the load counts as one: users who still wait for an answer write nothing.
const BUSY: f64 = 0.9;

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let plan = Plan {
        users: lab::number("USERS", 1000)?,
        contacts: lab::number("CONTACTS", 5)?,
        messages: lab::number("MESSAGES", 500)?,
        changes: lab::number("CHANGES", 10)?,
        renewals: lab::number("RENEWALS", 5)?,
        expires_secs: Some(3600),
        seed: 1,
        sessions: lab::number("SESSIONS", 1)? != 0,
        access: Access::Direct,
    };
    let lab = Lab::new("rolling")?;
    let mut field = Field::start(&lab, PODS, Policy::RoundRobin, &plan, false).await?;
    println!("{PODS} gateways, {} subscriptions, {} messages/s", 2 * plan.users * plan.contacts, plan.messages);
    field.traffic.flow();
    let began = Instant::now();
    for _ in 0..ROUNDS {
        field.roll(PAUSE).await?;
    }
    let took = began.elapsed().as_secs_f64();
    let judgement = field.traffic.finish(PATIENCE).await?;
    println!("{judgement}");
    let refused = judgement.to_xmpp.refused + judgement.to_sip.refused;
    let put_off: usize = judgement.put_off.values().sum();
    let sent = judgement.to_xmpp.sent + judgement.to_sip.sent;
    #[expect(clippy::cast_precision_loss, reason = "counts of one run")]
    let rate = sent as f64 / took;
    let busy = rate >= f64::from(plan.messages) * BUSY;
    println!("{rate:.0} messages/s were sent{}", if busy { "" } else { ": too few for the answer to count" });
    let right = busy && judgement.faults_found().is_empty() && refused + put_off + judgement.presence.disowned == 0;
    println!(
        "refused messages: {refused}, SUBSCRIBE requests: {put_off} (bar 0): {}",
        if right { "holds" } else { "DOES NOT HOLD" }
    );
    Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
