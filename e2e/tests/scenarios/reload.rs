//! Changes of the manifests under a running gateway.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
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
    let told = wait_for("the refused document is told", Duration::from_secs(5), || async {
        let text = format!("{}{}", corp.gateway.status().await?, corp.gateway.config().await?);
        Ok(words.iter().all(|word| text.contains(word)).then_some(()))
    })
    .await;
    match told {
        Ok(()) => Ok(()),
        Err(error) => Err(error.context(format!("{words:?} wanted, told is {}", corp.gateway.config().await?))),
    }
}

// K-88, K-90
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
        told(&corp, &["bad.yaml:9", "spec.sip.transport", "third.example"]).await?;
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

/// The number of the configuration in force, with what is wrong with a newer one.
async fn generation(corp: &Corp) -> Result<(u64, bool)> {
    let config = corp.gateway.config().await?;
    let number = config["generation"].as_u64().context("no generation")?;
    Ok((number, config["lastError"].is_null()))
}

/// Waits until a configuration newer than `old` is in force, and demands that it took about a second.
async fn taken(corp: &Corp, what: &str, old: u64) -> Result<u64> {
    // One second by the specification, and another for a machine that is busy with other tests.
    wait_for(what, Duration::from_secs(2), || async {
        let (number, good) = generation(corp).await?;
        Ok((number > old && good).then_some(number))
    })
    .await
}

// K-89
#[tokio::test]
async fn swaps_and_edits_are_taken_at_once_and_a_half_written_file_is_not() {
    scenario("reload-files", async |lab| -> Result<()> {
        let port = ports::free()?;
        let names = ["partner.example", "second.example", "third.example"];
        let (prosody, realm) = Corp::prepare(lab, &["juliet"], &names).await?;
        let corp = Corp::start(lab, prosody, realm.partner(Partner::standard("partner.example", "UDP", port))).await?;
        let file = corp.gateway.manifest("partner-partner.example.yaml");
        let first = fs::read_to_string(&file)?;
        let folder = corp.gateway.folder().join("manifests");
        let (number, _) = generation(&corp).await?;

        // As a mounted ConfigMap: a link to a link to a folder of a version, and the version is swapped.
        fs::create_dir(folder.join("..v1"))?;
        fs::write(folder.join("..v1/mounted.yaml"), first.replace("partner.example", "second.example"))?;
        symlink("..v1", folder.join("..data"))?;
        symlink("..data/mounted.yaml", folder.join("mounted.yaml"))?;
        let number = taken(&corp, "the mounted file", number).await?;
        corp.prosody.wait_component("second.example").await?;
        fs::create_dir(folder.join("..v2"))?;
        fs::write(folder.join("..v2/mounted.yaml"), first.replace("partner.example", "third.example"))?;
        symlink("..v2", folder.join("..new"))?;
        fs::rename(folder.join("..new"), folder.join("..data"))?;
        fs::remove_dir_all(folder.join("..v1"))?;
        let number = taken(&corp, "the swapped version", number).await?;
        corp.prosody.wait_component("third.example").await?;
        ask(lab, &corp, port, "swapped-out", "second.example", "403").await?;

        // In place: truncated, written, closed.
        fs::write(&file, first.replace("SimpleGeneric", "Kamailio"))?;
        let number = taken(&corp, "the edit in place", number).await?;

        // Half a document, and the writer still at work.
        let mut writer = fs::File::create(corp.gateway.manifest("slow.yaml"))?;
        let text = first.replace("partner.example", "second.example");
        let (half, rest) = text.split_at(text.len() / 2);
        writer.write_all(half.as_bytes())?;
        writer.sync_all()?;
        // There is nothing to wait for but the time in which it would have been taken.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        ensure!(generation(&corp).await? == (number, true), "half a file was looked at");
        writer.write_all(rest.as_bytes())?;
        drop(writer);
        taken(&corp, "the file when it is closed", number).await?;
        ask(lab, &corp, port, "back", "second.example", "480").await
    })
    .await;
}
