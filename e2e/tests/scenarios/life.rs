//! Start, end and what an operator can watch.

use std::time::Duration;

use anyhow::{Result, ensure};
use isthmus_e2e::corp::Corp;
use isthmus_e2e::gateway::Gateway;
use isthmus_e2e::lab::scenario;
use isthmus_e2e::manifests::{Partner, Realm};
use isthmus_e2e::otlp::OtlpReceiver;
use isthmus_e2e::ports;
use isthmus_e2e::sipp::{Sipp, SippPlan};

#[tokio::test]
async fn a_bad_first_configuration_ends_with_78_and_names_the_place() {
    scenario("exit-78", async |lab| -> Result<()> {
        let folder = lab.folder("gateway")?;
        let realm = Realm::new(ports::free()?)?;
        let realm = realm.partner(Partner::standard("partner.example", "PIGEON", 5060));
        realm.write(&folder)?;
        let mut process = Gateway::spawn(&folder)?;
        let status = process.wait_end(Duration::from_secs(10)).await?;
        ensure!(status.code() == Some(78), "{status}");
        // What the program tells its administrator is the interface here.
        let told = process.log();
        for word in ["partner-partner.example.yaml", "transport", "FederatedDomain"] {
            ensure!(told.contains(word), "{word} is missing in: {told}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_admin_port_shows_life_and_a_drain_ends_with_0() {
    scenario("life", async |lab| -> Result<()> {
        let port = ports::free()?;
        let otlp = OtlpReceiver::start().await?;
        let (prosody, mut realm) = Corp::prepare(lab, &["juliet"], &["partner.example"]).await?;
        realm.otlp = Some(format!("http://127.0.0.1:{}", otlp.port));
        let corp = Corp::start(lab, prosody, realm.partner(Partner::standard("partner.example", "UDP", port))).await?;
        let juliet = corp.online("juliet").await?;
        for path in ["/livez", "/readyz"] {
            ensure!(corp.gateway.page(path).await?.status == 200, "{path}");
        }
        let plan = SippPlan::new("request")
            .at(port)
            .to(corp.realm.plain_port)
            .key("METHOD", "MESSAGE")
            .key("FROM", "ana@partner.example")
            .key("TO", "juliet@corp.example")
            .key("EXTRA", "Content-Type: text/plain")
            .key("BODY", "traced");
        Sipp::run(lab, &plan).await?;
        juliet.wait("the message", |r| r.is_message("ana@partner.example", "traced")).await?;
        let metrics = corp.gateway.metrics().await?;
        ensure!(metrics.contains("isthmus_"), "{metrics}");
        ensure!(!metrics.contains("ana@"), "an address in a label");
        let config = corp.gateway.config().await?;
        ensure!(config["generation"].is_number() && config["lastError"].is_null(), "/v1/config {config}");
        let status = corp.gateway.status().await?.to_string();
        ensure!(status.contains("partner.example") && !status.contains("s3cret"), "{status}");
        let export = otlp.wait_holding("isthmus").await?;
        ensure!(export.path == "/v1/traces", "{}", export.path);
        ensure!(!otlp.requests().iter().any(|r| r.holds("traced")), "a body in a trace");
        let Corp { prosody, gateway, .. } = corp;
        gateway.stop().await?;
        // At the far end the link is gone: the server answers for the component.
        let id = juliet.chat("ana@partner.example", "anyone?").await?;
        juliet.wait("the bounce", |r| r.kind() == "error" && r.attribute("id") == id).await?;
        prosody.stop().await
    })
    .await;
}
