//! Several pods of one realm, and what must hold while they come and go.

use std::time::Duration;

use anyhow::{Result, ensure};
use isthmus_e2e::balancer::Policy;
use isthmus_e2e::chaos::Field;
use isthmus_e2e::lab::scenario;
use isthmus_e2e::ledger::Judgement;
use isthmus_e2e::traffic::Plan;

const SOON: Duration = Duration::from_secs(5);
/// Enough to be under way whatever happens.
const MANY: Plan = Plan { users: 20, contacts: 5, messages: 30, changes: 10, seed: 1 };

fn must_be_right(judgement: &Judgement) -> Result<()> {
    eprintln!("{judgement}");
    let found = judgement.faults_found();
    ensure!(found.is_empty(), "{}\n{judgement}", found.join("\n"));
    Ok(())
}

fn must_flow(judgement: &Judgement) -> Result<()> {
    must_be_right(judgement)?;
    ensure!(judgement.to_xmpp.arrived > 0 && judgement.to_sip.arrived > 0, "nothing flowed");
    Ok(())
}

/// Nobody had to be shown an error.
fn must_be_smooth(judgement: &Judgement) -> Result<()> {
    must_flow(judgement)?;
    ensure!(judgement.to_xmpp.refused == 0 && judgement.to_sip.refused == 0, "something was refused\n{judgement}");
    Ok(())
}

#[tokio::test]
async fn the_books_of_a_calm_run_with_one_pod_are_right() {
    scenario("pods-one", async |lab| -> Result<()> {
        let mut field = Field::start(lab, 1, Policy::Sticky, &MANY, false).await?;
        field.traffic.flow();
        tokio::time::sleep(Duration::from_secs(4)).await;
        must_be_smooth(&field.traffic.finish(SOON).await?)
    })
    .await;
}
