//! Single messages both ways with a standard partner.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use isthmus_e2e::baresip::Baresip;
use isthmus_e2e::corp::Corp;
use isthmus_e2e::gateway::Gateway;
use isthmus_e2e::kamailio::{Kamailio, PartnerPlan};
use isthmus_e2e::lab::{scenario, wait_for, wait_until};
use isthmus_e2e::manifests::{Partner, Realm};
use isthmus_e2e::ports;
use isthmus_e2e::sink::ComponentSink;
use isthmus_e2e::sip_trace::{SipMessage, requests_received};
use isthmus_e2e::sipp::{Sipp, SippPlan};

use super::presence::phone;

const ANA: &str = "ana@partner.example";
const SOON: Duration = Duration::from_secs(10);

// I-06, I-27
#[tokio::test]
async fn a_chat_user_and_a_phone_write_to_each_other_without_presence() {
    scenario("pager", async |lab| -> Result<()> {
        let (prosody, realm) = Corp::prepare(lab, &["juliet"], &["partner.example"]).await?;
        let kamailio = Kamailio::partner(lab, &PartnerPlan::new(&Corp::plain_route(&realm, "udp"))).await?;
        let realm = realm.partner(Partner::standard("partner.example", "UDP", kamailio.port).kind("Kamailio"));
        let corp = Corp::start(lab, prosody, realm).await?;
        let juliet = corp.online("juliet").await?;
        let ana = Baresip::start(lab, &phone("ana", &kamailio, "juliet@corp.example", false)).await?;
        juliet.chat(ANA, "Lunch <now>? \u{1f35c} caf\u{e9}").await?;
        ana.wait_message("Lunch <now>? \u{1f35c} caf\u{e9}").await?;
        ana.message("In five & a half").await?;
        let reply = juliet.wait("the reply", |r| r.is_message(ANA, "In five & a half")).await?;
        ensure!(matches!(reply.kind(), "" | "normal"), "type {}", reply.kind());
        Ok(())
    })
    .await;
}

// I-26, I-29, I-30, S-33
#[tokio::test]
async fn messages_to_one_address_wait_for_each_other_and_keep_subject_thread_and_language() {
    scenario("pager-out", async |lab| -> Result<()> {
        let (prosody, realm) = Corp::prepare(lab, &["juliet"], &["partner.example"]).await?;
        let callee = Sipp::start(lab, &SippPlan::new("pager_in").key("DELAY", "700").calls(2)).await?;
        let partner = Partner::standard("partner.example", "UDP", callee.port).switch("imMode", "Pager");
        let corp = Corp::start(lab, prosody, realm.partner(partner)).await?;
        let juliet = corp.online("juliet").await?;
        juliet
            .send_xml(&format!(
                "<message xmlns='jabber:client' type='normal' to='{ANA}' id='m1' xml:lang='de'><subject>Essen</subject>\
                 <thread>thread-1234567890</thread><body>Mittag?</body></message>"
            ))
            .await?;
        juliet.message("normal", ANA, "second").await?;
        let seen = callee.finish().await?;
        let messages = requests_received(&seen, "MESSAGE");
        ensure!(messages.len() == 2, "{} messages", messages.len());
        let first = messages[0];
        ensure!(first.body == "Mittag?" && messages[1].body == "second", "order");
        ensure!(first.header("Subject") == "Essen", "Subject");
        ensure!(first.header("Call-ID") == "thread-1234567890", "Call-ID {}", first.header("Call-ID"));
        ensure!(first.header("Content-Language") == "de", "Content-Language");
        ensure!(first.header("Max-Forwards") == "70", "Max-Forwards");
        for message in &messages {
            ensure!(!message.has("Contact"), "Contact");
            ensure!(
                message.header("From").starts_with("<sip:juliet@corp.example;gr=home>"),
                "{}",
                message.header("From")
            );
        }
        let answered = seen.iter().find(|m| m.status() == Some(200)).and_then(|m| m.at);
        let (answered, second) =
            answered.zip(messages[1].at).context("the answer to the first or its time is missing")?;
        ensure!(answered <= second, "two at once");
        Ok(())
    })
    .await;
}

// I-26, I-27, I-30, I-42, E-04
#[tokio::test]
async fn a_message_from_sip_is_delivered_or_answered_with_the_bounce() {
    scenario("pager-in", async |lab| -> Result<()> {
        let port = ports::free()?;
        let (prosody, realm) = Corp::prepare(lab, &["juliet"], &["partner.example"]).await?;
        let realm = realm.partner(Partner::standard("partner.example", "UDP", port));
        let corp = Corp::start(lab, prosody, realm).await?;
        let juliet = corp.online("juliet").await?;
        let send = |name: &str, to: &str, status: &str| {
            SippPlan::new("request")
                .named(name)
                .at(port)
                .to(corp.realm.plain_port)
                .key("METHOD", "MESSAGE")
                .key("FROM", ANA)
                .key("TO", to)
                .key("EXTRA", "Subject: Lunch\r\nContent-Language: fr\r\nContent-Type: text/plain")
                .key("BODY", "\u{e0} table")
                .key("STATUS", status)
        };
        let seen = Sipp::run(lab, &send("good", "juliet@corp.example", "200")).await?;
        let answer = seen.iter().find(|m| m.status() == Some(200));
        ensure!(answer.is_some_and(|m| !m.has("Contact") && m.body.is_empty()), "the 200");
        let stanza = juliet.wait("the message", |r| r.is_message(ANA, "\u{e0} table")).await?;
        ensure!(matches!(stanza.kind(), "" | "normal"), "type {}", stanza.kind());
        ensure!(stanza.text("subject").as_deref() == Some("Lunch"), "subject");
        ensure!(stanza.text("thread").is_some_and(|t| seen[0].header("Call-ID") == t), "thread");
        ensure!(
            String::from(&stanza.stanza).contains("'fr'") || String::from(&stanza.stanza).contains("\"fr\""),
            "lang"
        );
        // Prosody answers for a user who does not exist with service-unavailable.
        Sipp::run(lab, &send("unknown", "nobody@corp.example", "480")).await?;
        // The same for one who is offline and for whom nothing is stored.
        juliet.unavailable().await?;
        Sipp::run(lab, &send("offline", "juliet@corp.example", "480")).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn what_was_answered_202_survives_a_kill_and_arrives_once_with_its_id() {
    scenario("pager-202", async |lab| -> Result<()> {
        let port = ports::free()?;
        // A local server that has stopped dealing with what it reads.
        let server = ComponentSink::start_silent().await?;
        let realm = Realm::new(server.port)?.partner(Partner::standard("partner.example", "UDP", port));
        let gateway = Gateway::start(lab, &realm).await?;
        wait_links(&gateway).await?;
        let message = |name: &str, status: &str| {
            SippPlan::new("request")
                .named(name)
                .at(port)
                .to(realm.plain_port)
                .key("METHOD", "MESSAGE")
                .key("FROM", ANA)
                .key("TO", "juliet@corp.example")
                .key("EXTRA", "Content-Type: text/plain")
                .key("BODY", "Lunch?")
                .key("STATUS", status)
        };
        Sipp::run(lab, &message("first", "202")).await?;
        let first = server.ids();
        ensure!(first.len() == 1 && !first[0].is_empty(), "{first:?}");
        // Twice killed: after the first time the server confirms, after the second nothing is left to send.
        let folder = gateway.folder().to_owned();
        gateway.kill();
        server.speak();
        let gateway = Gateway::resume(&folder, realm.admin_port).await?;
        wait_until("the message again", SOON, || (server.ids().len() == 2).then_some(())).await?;
        ensure!(server.ids()[1] == first[0], "{:?}", server.ids());
        let late = "isthmus_messages_total{direction=\"sip_to_xmpp\",outcome=\"delivered_late\"} 1";
        wait_for("its confirmation", SOON, || async { Ok(gateway.metrics().await?.contains(late).then_some(())) })
            .await?;
        wait_for("an empty store", SOON, || async {
            let queued = gateway.status().await?["stateStore"]["queued"].as_u64();
            Ok((queued == Some(0)).then_some(()))
        })
        .await?;
        gateway.kill();
        let gateway = Gateway::resume(&folder, realm.admin_port).await?;
        wait_links(&gateway).await?;
        Sipp::run(lab, &message("next", "200")).await?;
        ensure!(server.ids().len() == 3 && server.ids()[2] != first[0], "{:?}", server.ids());
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_partner_that_refuses_single_messages_gets_them_in_a_session_once_each() {
    scenario("pager-405", async |lab| -> Result<()> {
        let (prosody, realm) = Corp::prepare(lab, &["juliet"], &["partner.example"]).await?;
        let ana = Sipp::start(lab, &SippPlan::new("session_only").calls(2)).await?;
        let corp =
            Corp::start(lab, prosody, realm.partner(Partner::standard("partner.example", "UDP", ana.port))).await?;
        let juliet = corp.online("juliet").await?;
        juliet.chat(ANA, "one").await?;
        ana.wait("the first message in a session", SOON, |m| m.received && in_dialog(m) && m.body == "one").await?;
        juliet.chat(ANA, "two").await?;
        let seen = ana.finish().await?;
        let messages = requests_received(&seen, "MESSAGE");
        let delivered: Vec<&str> = messages.iter().filter(|m| in_dialog(m)).map(|m| m.body.as_str()).collect();
        ensure!(delivered == ["one", "two"], "{delivered:?}");
        let refused: Vec<&str> = messages.iter().filter(|m| !in_dialog(m)).map(|m| m.body.as_str()).collect();
        ensure!(refused == ["one"], "{refused:?}");
        juliet.must_not_have("an error", |r| r.kind() == "error")
    })
    .await;
}

fn in_dialog(message: &SipMessage) -> bool {
    message.method() == Some("MESSAGE") && message.header("To").contains("tag=")
}

async fn wait_links(gateway: &Gateway) -> Result<()> {
    let ready = "isthmus_component_links{state=\"ready\"} 2";
    wait_for("both links", SOON, || async { Ok(gateway.metrics().await?.contains(ready).then_some(())) }).await
}

// I-28
#[tokio::test]
async fn a_message_too_long_for_udp_is_a_policy_violation() {
    scenario("pager-long", async |lab| -> Result<()> {
        let port = ports::free()?;
        let (prosody, realm) = Corp::prepare(lab, &["juliet"], &["partner.example"]).await?;
        let partner = Partner::standard("partner.example", "UDP", port).switch("imMode", "Pager");
        let corp = Corp::start(lab, prosody, realm.partner(partner)).await?;
        let juliet = corp.online("juliet").await?;
        let id = juliet.message("normal", ANA, &"long ".repeat(400)).await?;
        let error = juliet
            .wait_within("the error", Duration::from_secs(5), |r| r.kind() == "error" && r.attribute("id") == id)
            .await?;
        ensure!(error.error().is_some_and(|e| e.1 == "policy-violation"), "{:?}", error.error());
        Ok(())
    })
    .await;
}
