//! Several pods of one realm, and what must hold while they come and go.

use std::time::Duration;

use anyhow::{Result, ensure};
use isthmus_e2e::balancer::Policy;
use isthmus_e2e::lab::{Lab, scenario};
use isthmus_e2e::ledger::Judgement;
use isthmus_e2e::manifests::{Partner, Realm};
use isthmus_e2e::pods::Pods;
use isthmus_e2e::ports;
use isthmus_e2e::prosody::Prosody;
use isthmus_e2e::sip_agent::SipAgent;
use isthmus_e2e::traffic::{Plan, Traffic};

const PARTNER: &str = "partner.example";

/// The realm with its pods and both sides' users.
struct Field {
    prosody: Prosody,
    pods: Pods,
    traffic: Traffic,
}

async fn field(lab: &Lab, count: u8, policy: Policy, plan: &Plan) -> Result<Field> {
    let prosody = Pods::prosody(lab, &plan.user_names(), &[PARTNER]).await?;
    let port = ports::free()?;
    let partner = Partner::standard(PARTNER, "UDP", port).switch("imMode", "Pager").switch("notifyInterval", "0s");
    let mut realm = Realm::new(prosody.component_port)?.partner(partner);
    realm.limits = Some("{newSessionsPerSecondPerDomain: 100000}".to_owned());
    let pods = Pods::start(lab, &realm, count, policy).await?;
    prosody.wait_component(PARTNER).await?;
    let (agent, events) = SipAgent::start(PARTNER, port, pods.balancer.address, false).await?;
    let traffic = Traffic::start(plan, &prosody, PARTNER, agent, events).await?;
    Ok(Field { prosody, pods, traffic })
}

fn must_be_right(judgement: &Judgement) -> Result<()> {
    eprintln!("{judgement}");
    let found = judgement.faults_found();
    ensure!(found.is_empty(), "{}", found.join("\n"));
    ensure!(judgement.to_xmpp.arrived > 0 && judgement.to_sip.arrived > 0, "nothing flowed");
    Ok(())
}

#[tokio::test]
async fn the_books_of_a_calm_run_with_one_pod_are_right() {
    scenario("pods-calm", async |lab| -> Result<()> {
        let plan = Plan { users: 10, contacts: 5, messages: 30, changes: 10, seed: 1 };
        let mut field = field(lab, 1, Policy::Sticky, &plan).await?;
        field.traffic.flow();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let judgement = field.traffic.finish(Duration::from_secs(10)).await?;
        ensure!(field.pods.holder(PARTNER).await == Some(0));
        drop(field.prosody);
        must_be_right(&judgement)?;
        ensure!(judgement.to_xmpp.refused == 0 && judgement.to_sip.refused == 0, "something was refused");
        Ok(())
    })
    .await;
}
