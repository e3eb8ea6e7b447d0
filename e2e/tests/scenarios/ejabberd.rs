//! ejabberd in the place of Prosody, attached as the README shows.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use isthmus_e2e::balancer::Policy;
use isthmus_e2e::corp::Corp;
use isthmus_e2e::ejabberd::Ejabberd;
use isthmus_e2e::gateway::Gateway;
use isthmus_e2e::kamailio::{Kamailio, PartnerPlan};
use isthmus_e2e::lab::{scenario, wait_for};
use isthmus_e2e::manifests::{Partner, Realm};
use isthmus_e2e::pods::Pods;
use isthmus_e2e::ports;
use isthmus_e2e::redis::Redis;
use isthmus_e2e::sip_agent::{Event, SipAgent};
use isthmus_e2e::xmpp_client::XmppClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedReceiver;

use super::transport::both_ways;

const ANA: &str = "ana@partner.example";

// I-06, I-27
#[tokio::test]
async fn presence_and_messages_cross_with_ejabberd() {
    scenario("ejabberd", async |lab| -> Result<()> {
        let server = Ejabberd::start(lab, &["juliet"]).await?;
        let realm = Realm::new(server.component_port)?;
        let kamailio = Kamailio::partner(lab, &PartnerPlan::new(&Corp::plain_route(&realm, "udp"))).await?;
        let realm = realm.partner(Partner::standard("partner.example", "UDP", kamailio.port).kind("Kamailio"));
        let _gateway = Gateway::start(lab, &realm).await?;
        server.wait_component("partner.example").await?;
        both_ways(lab, &server.online("juliet").await?, &kamailio).await
    })
    .await;
}

/// Sends `count` messages to a user over one connection, and gives the status that each was answered with.
async fn ask(port: u16, user: &str, round: u32, count: usize) -> Result<Vec<String>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut all = String::new();
    for number in 0..count {
        let name = format!("{user}-{round}-{number}");
        let _ = write!(
            all,
            "MESSAGE sip:{user}@corp.example SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:9;branch=z9hG4bK{name}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:ana@partner.example>;tag={number}\r\n\
             To: <sip:{user}@corp.example>\r\nCall-ID: {name}\r\nCSeq: 1 MESSAGE\r\n\
             Content-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
        );
    }
    stream.write_all(all.as_bytes()).await?;
    let (mut answers, mut piece) = (String::new(), vec![0_u8; 65_536]);
    let statuses = |answers: &str| -> Vec<String> {
        answers.lines().filter_map(|line| line.strip_prefix("SIP/2.0 ")).map(|s| s.chars().take(3).collect()).collect()
    };
    while statuses(&answers).len() < count {
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut piece)).await;
        let n = read.with_context(|| format!("{} of {count} answered", statuses(&answers).len()))??;
        ensure!(n > 0, "closed after {} of {count} answers", statuses(&answers).len());
        answers.push_str(&String::from_utf8_lossy(piece.get(..n).unwrap_or_default()));
    }
    Ok(statuses(&answers))
}

// I-42, E-04
#[tokio::test]
async fn ejabberd_returns_errors_before_it_answers_the_ping_behind_them() {
    scenario("ejabberd-barrier", async |lab| -> Result<()> {
        let server = Ejabberd::start(lab, &["juliet", "romeo"]).await?;
        let partner = Partner::standard("partner.example", "TCP", ports::free()?);
        let realm = Realm::new(server.component_port)?.partner(partner);
        let _gateway = Gateway::start(lab, &realm).await?;
        server.wait_component("partner.example").await?;
        let juliet = server.online("juliet").await?;
        juliet
            .send_xml(
                "<iq xmlns='jabber:client' type='set' id='block'><block xmlns='urn:xmpp:blocking'>\
                 <item jid='ana@partner.example'/></block></iq>",
            )
            .await?;
        juliet.wait("the block", |r| r.name() == "iq" && r.attribute("id") == "block" && r.kind() == "result").await?;
        // One user does not exist and one is offline: ejabberd returns each message, and no answer to the ping after it
        // overtakes the error. It does overtake the error of a blocked contact's message, which another process of ejabberd
        // makes: some of these are answered 200, which tells the sender less than 480 does.
        for round in 0..3 {
            for (user, expected) in [("nobody", "480"), ("romeo", "480"), ("juliet", "200 480")] {
                let statuses = ask(realm.plain_port, user, round, 100).await?;
                let others: Vec<_> = statuses.iter().filter(|status| !expected.contains(*status)).collect();
                // A busy machine may need more than the second after which the answer is 202, but an error is an error.
                ensure!(others.iter().all(|status| *status == "202"), "messages to {user} got {others:?}");
                ensure!(others.len() < statuses.len(), "nothing about {user} within a second");
            }
        }
        juliet.must_not_have("a message of a blocked contact", |r| r.name() == "message")
    })
    .await;
}

/// Lets juliet and ana write to each other; gives what juliet wrote.
async fn write(juliet: &XmppClient, agent: &SipAgent, round: &str) -> Result<BTreeSet<String>> {
    let mut written = BTreeSet::new();
    for number in 0..8 {
        let text = format!("{round} {number}");
        let status = agent.message("ana", "juliet@corp.example", &text).await;
        ensure!(status.is_some_and(|status| status / 100 == 2), "{text} answered {status:?}");
        juliet.wait(&text, |r| r.is_message(ANA, &text)).await?;
        juliet.chat(ANA, &text).await?;
        written.insert(text);
    }
    Ok(written)
}

/// Waits until all of them have arrived at ana, each once.
async fn arrive(events: &mut UnboundedReceiver<Event>, mut missing: BTreeSet<String>) -> Result<()> {
    while !missing.is_empty() {
        let next = tokio::time::timeout(Duration::from_secs(10), events.recv()).await;
        match next.with_context(|| format!("ana misses {missing:?}"))?.context("the agent ended")? {
            Event::Message { text, .. } => ensure!(missing.remove(&text), "{text} came unasked or again"),
            Event::Wrong(what) => anyhow::bail!("{what}"),
            _ => {}
        }
    }
    Ok(())
}

// ejabberd shares stanzas out among all connections of a component: what it gives to a gateway that stands still arrives
// when that one goes on.
#[tokio::test]
async fn a_link_to_ejabberd_changes_hands_without_a_setting_there() {
    scenario("ejabberd-pods", async |lab| -> Result<()> {
        let server = Ejabberd::start(lab, &["juliet"]).await?;
        let redis = Redis::start(lab).await?;
        let port = ports::free()?;
        let mut realm = Realm::new(server.component_port)?
            .partner(Partner::standard("partner.example", "UDP", port).switch("imMode", "Pager"));
        realm.state_store = Some(redis.declaration(""));
        let mut pods = Pods::start(lab, &realm, 2, Policy::RoundRobin).await?;
        server.wait_component("partner.example").await?;
        let (agent, mut events) = SipAgent::start("partner.example", port, pods.balancer.address, false).await?;
        let juliet = server.online("juliet").await?;
        arrive(&mut events, write(&juliet, &agent, "before").await?).await?;

        let first = pods.holder("partner.example").await.context("nobody holds the link")?;
        pods.balancer.remove(pods.sip(first).context("the pod has no address")?);
        pods.pause(first)?;
        let taken = || async { Ok(pods.holder("partner.example").await) };
        let second = wait_for("the link at the other pod", Duration::from_secs(5), taken).await?;
        let written = write(&juliet, &agent, "still").await?;
        pods.resume(first)?;
        arrive(&mut events, written).await?;

        let old = || async { Ok((pods.holder("partner.example").await == Some(second)).then_some(())) };
        wait_for("the link where it was", Duration::from_secs(5), old).await?;
        pods.balancer.add(pods.sip(first).context("the pod has no address")?);
        pods.kill(second)?;
        let back = || async { Ok((pods.holder("partner.example").await == Some(first)).then_some(())) };
        wait_for("the link at the first pod", Duration::from_secs(5), back).await?;
        arrive(&mut events, write(&juliet, &agent, "after").await?).await
    })
    .await;
}
