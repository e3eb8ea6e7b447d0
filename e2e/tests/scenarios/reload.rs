//! Changes of the manifests under a running gateway.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use isthmus_e2e::corp::Corp;
use isthmus_e2e::lab::{Lab, scenario, wait_for};
use isthmus_e2e::manifests::Partner;
use isthmus_e2e::ports;
use isthmus_e2e::sipp::{Sipp, SippPlan};

/// Sends one MESSAGE from a user of `domain` and gives the answer.
async fn ask(lab: &Lab, corp: &Corp, port: u16, name: &str, domain: &str, status: &str) -> Result<()> {
    let plan = SippPlan::new("request")
        .named(name)
        .at(port)
        .to(corp.realm.plain_port)
        .key("METHOD", "MESSAGE")
        .key("FROM", &format!("ana@{domain}"))
        .key("TO", "juliet@corp.example")
        .key("EXTRA", "Content-Type: text/plain")
        .key("BODY", name)
        .key("STATUS", status);
    Sipp::run(lab, &plan).await.map(drop)
}

/// Waits until the status page tells of a refused document with all these words.
async fn told(corp: &Corp, words: &[&str]) -> Result<()> {
    wait_for(&format!("the status tells {words:?}"), Duration::from_secs(5), || async {
        let text = format!("{}{}", corp.gateway.status().await?, corp.gateway.config().await?);
        Ok(words.iter().all(|word| text.contains(word)).then_some(()))
    })
    .await
}

// K-88, K-89, K-90
#[tokio::test]
async fn a_change_is_taken_whole_or_not_at_all_and_drops_no_connection() {
    scenario("reload", async |lab| -> Result<()> {
        let port = ports::free()?;
        let (prosody, realm) = Corp::prepare(lab, &["juliet"], &["partner.example", "second.example"]).await?;
        let corp = Corp::start(lab, prosody, realm.partner(Partner::standard("partner.example", "UDP", port))).await?;
        let juliet = corp.online("juliet").await?;
        ask(lab, &corp, port, "before", "second.example", "403").await?;

        // A new partner, by renaming a file into the folder: in force within a second or so.
        let first = fs::read_to_string(corp.gateway.manifest("partner-partner.example.yaml"))?;
        let staged = corp.gateway.folder().join("second.yaml");
        let target = corp.gateway.manifest("partner-second.example.yaml");
        fs::write(&staged, first.replace("partner.example", "second.example"))?;
        fs::rename(&staged, &target)?;
        corp.prosody.wait_component("second.example").await?;
        ask(lab, &corp, port, "after", "second.example", "200").await?;
        juliet.wait("its message", |r| r.is_message("ana@second.example", "after")).await?;

        // A bad document beside a good change: neither is taken, and the place is told.
        let bad = first.replace("partner.example", "third.example").replace("transport: UDP", "transport: PIGEON");
        fs::write(corp.gateway.manifest("bad.yaml"), &bad)?;
        fs::remove_file(&target)?;
        corp.gateway.reload()?;
        told(&corp, &["bad.yaml", "transport"]).await?;
        ask(lab, &corp, port, "still", "second.example", "200").await?;
        fs::remove_file(corp.gateway.manifest("bad.yaml"))?;
        corp.gateway.reload()?;
        wait_for("the removal is taken", Duration::from_secs(5), || async {
            Ok((!corp.gateway.status().await?.to_string().contains("second.example")).then_some(()))
        })
        .await?;
        ask(lab, &corp, port, "gone", "second.example", "403").await?;

        // A domain does not change its protocol under way.
        let path = corp.gateway.manifest("partner-partner.example.yaml");
        let (head, _) = first.split_once("  sip:\n").unwrap_or_default();
        fs::write(&path, format!("{}  xmpp: {{}}\n", head.replace("protocol: SIP", "protocol: XMPP")))?;
        corp.gateway.reload()?;
        told(&corp, &["partner-partner.example.yaml", "protocol"]).await?;
        ask(lab, &corp, port, "unchanged", "partner.example", "200").await?;
        juliet.wait("its message", |r| r.is_message("ana@partner.example", "unchanged")).await?;
        ensure!(corp.prosody.component_logins("partner.example") == 1, "the component link was dropped");
        Ok(())
    })
    .await;
}
