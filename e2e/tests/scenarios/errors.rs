//! What each side is told when something does not work.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use isthmus_e2e::corp::Corp;
use isthmus_e2e::kamailio::{Kamailio, PartnerPlan};
use isthmus_e2e::lab::scenario;
use isthmus_e2e::manifests::Partner;
use isthmus_e2e::ports;
use isthmus_e2e::sipp::{Sipp, SippPlan};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, UdpSocket};

// E-01, E-08
#[tokio::test]
async fn a_chat_user_reads_why_the_partner_refused() {
    scenario("errors-out", async |lab| -> Result<()> {
        let (prosody, realm) = Corp::prepare(lab, &["juliet"], &["partner.example"]).await?;
        let kamailio = Kamailio::partner(lab, &PartnerPlan::new(&Corp::plain_route(&realm, "tcp"))).await?;
        let realm = realm.partner(Partner::standard("partner.example", "TCP", kamailio.port).kind("Kamailio"));
        let corp = Corp::start(lab, prosody, realm).await?;
        let juliet = corp.online("juliet").await?;
        let expected = [
            ("nobody@partner.example", "cancel", "item-not-found", Some("No such user here")),
            ("ana@partner.example", "wait", "recipient-unavailable", Some("Not registered at the moment")),
        ];
        for (to, kind, condition, text) in expected {
            let id = juliet.chat(to, "hello").await?;
            let error = juliet.wait("the error", |r| r.kind() == "error" && r.attribute("id") == id).await?;
            let got = error.error().context("no error element")?;
            ensure!((got.0.as_str(), got.1.as_str()) == (kind, condition), "{got:?}");
            ensure!(text.is_none_or(|text| got.2 == text), "{got:?}");
        }
        // Nobody listens any more: the user is told, and not left waiting.
        kamailio.kill();
        let id = juliet.chat("ana@partner.example", "still there?").await?;
        let error = juliet.wait("the error", |r| r.kind() == "error" && r.attribute("id") == id).await?;
        let (_, condition, _) = error.error().context("no error element")?;
        ensure!(matches!(condition.as_str(), "remote-server-timeout" | "remote-server-not-found"), "{condition}");
        Ok(())
    })
    .await;
}

// E-01, S-19
#[tokio::test]
async fn a_partner_that_does_not_answer_is_given_up_with_one_error_that_says_so() {
    scenario("silence", async |lab| -> Result<()> {
        let names = ["silent.example", "mute.example", "rude.example", "closed.example"];
        let silent = UdpSocket::bind(("127.0.0.1", ports::free()?)).await?;
        let mute = TcpListener::bind(("127.0.0.1", ports::free()?)).await?;
        let rude = TcpListener::bind(("127.0.0.1", ports::free()?)).await?;
        let (prosody, mut realm) = Corp::prepare(lab, &["juliet"], &names).await?;
        let at = [silent.local_addr()?.port(), mute.local_addr()?.port(), rude.local_addr()?.port(), ports::free()?];
        for (name, port) in names.into_iter().zip(at) {
            let transport = if name == "silent.example" { "UDP" } else { "TCP" };
            realm = realm.partner(Partner::standard(name, transport, port).switch("imMode", "Pager"));
        }
        let corp = Corp::start(lab, prosody, realm).await?;
        let juliet = corp.online("juliet").await?;
        let sent = Instant::now();
        let mut ids = Vec::new();
        for name in names {
            ids.push(juliet.message("normal", &format!("ana@{name}"), "anybody?").await?);
        }
        // One takes the connection and the request and says nothing, the other hangs up after it.
        let (mut listens, _) = mute.accept().await?;
        let (mut hangs_up, _) = rude.accept().await?;
        let mut buffer = [0_u8; 4096];
        for stream in [&mut listens, &mut hangs_up] {
            ensure!(stream.read(&mut buffer).await? > 0, "no request on the connection");
        }
        drop(hangs_up);
        // Timer F is 64 times T1; a broken connection is waited for T4 only, a refused one not at all.
        let none = Duration::ZERO;
        let expected = [
            ("silent.example", Duration::from_secs(32), Duration::from_secs(45), "did not answer"),
            ("mute.example", Duration::from_secs(32), Duration::from_secs(45), "did not answer"),
            ("rude.example", Duration::from_secs(5), Duration::from_secs(20), "did not answer"),
            ("closed.example", none, Duration::from_secs(10), "cannot be reached"),
        ];
        for ((name, least, most, text), id) in expected.into_iter().zip(&ids).rev() {
            let error = juliet.wait_within(name, most, |r| r.kind() == "error" && r.attribute("id") == id).await?;
            let took = error.at.saturating_duration_since(sent);
            ensure!((least..most).contains(&took), "{name} was given up after {took:?}");
            let (kind, condition, told) = error.error().context("no error element")?;
            ensure!((kind.as_str(), condition.as_str()) == ("wait", "remote-server-timeout"), "{name}: {condition}");
            ensure!(told.contains(text), "{name}: {told}");
        }
        let errors = juliet.received().into_iter().filter(|r| r.kind() == "error").count();
        ensure!(errors == names.len(), "{errors} errors");
        // Timer E repeats a datagram after 0.5 s, 1, 2 and then every 4 s: 11 in all. A late timer may cost the last.
        let mut requests = Vec::new();
        while let Ok(n) = silent.try_recv(&mut buffer) {
            requests.push(buffer[..n].to_vec());
        }
        ensure!((10..=11).contains(&requests.len()), "asked {} times", requests.len());
        ensure!(requests.iter().all(|request| *request == requests[0]), "the repeats differ");
        Ok(())
    })
    .await;
}

// I-19
#[tokio::test]
async fn group_chat_with_a_sip_user_is_not_implemented() {
    scenario("groupchat", async |lab| -> Result<()> {
        let port = ports::free()?;
        let (prosody, realm) = Corp::prepare(lab, &["juliet"], &["partner.example"]).await?;
        let corp = Corp::start(lab, prosody, realm.partner(Partner::standard("partner.example", "UDP", port))).await?;
        let juliet = corp.online("juliet").await?;
        let id = juliet.message("groupchat", "ana@partner.example", "hello all").await?;
        let error = juliet.wait("the error", |r| r.kind() == "error" && r.attribute("id") == id).await?;
        ensure!(error.error().is_some_and(|e| e.0 == "cancel" && e.1 == "feature-not-implemented"), "{error:?}");
        Ok(())
    })
    .await;
}

// E-03, E-07
#[tokio::test]
async fn a_sip_user_is_told_that_our_server_is_away() {
    scenario("errors-in", async |lab| -> Result<()> {
        let port = ports::free()?;
        let (prosody, realm) = Corp::prepare(lab, &["juliet"], &["partner.example"]).await?;
        let realm = realm.partner(Partner::standard("partner.example", "UDP", port));
        let Corp { prosody, gateway, realm } = Corp::start(lab, prosody, realm).await?;
        prosody.stop().await?;
        let plan = SippPlan::new("request")
            .at(port)
            .to(realm.plain_port)
            .key("METHOD", "MESSAGE")
            .key("FROM", "ana@partner.example")
            .key("TO", "juliet@corp.example")
            .key("EXTRA", "Content-Type: text/plain")
            .key("BODY", "hello")
            .key("STATUS", "480");
        let seen = Sipp::run(lab, &plan).await?;
        let answer = seen.iter().find(|m| m.status() == Some(480));
        ensure!(answer.is_some_and(|m| m.has("Retry-After")), "no Retry-After");
        gateway.stop().await.map(drop)
    })
    .await;
}

// N-04, T-10, T-11, E-07, I-32, N-28, S-32, S-33, S-37, S-38
#[tokio::test]
async fn requests_that_cannot_be_served_get_their_own_answers() {
    scenario("refusals", async |lab| -> Result<()> {
        let port = ports::free()?;
        let (prosody, realm) = Corp::prepare(lab, &["juliet"], &["partner.example"]).await?;
        let realm = realm.partner(Partner::standard("partner.example", "UDP", port));
        let corp = Corp::start(lab, prosody, realm).await?;
        let juliet = corp.online("juliet").await?;
        let text = "Content-Type: text/plain";
        let subscribe = "Contact: <sip:ana@127.0.0.1:9>";
        let ana = "ana@partner.example";
        let to = "juliet@corp.example";
        // Name, method, from, to, more headers, status, header that must come back.
        let long = |more: &str| format!("{subscribe}\r\n{more}");
        let cases: Vec<(&str, &str, &str, &str, String, &str, &str)> = vec![
            ("options", "OPTIONS", ana, "corp.example", String::new(), "200", "Allow-Events"),
            ("relay", "MESSAGE", ana, "someone@other.example", text.to_owned(), "404", ""),
            ("forged", "MESSAGE", "romeo@corp.example", to, text.to_owned(), "403", ""),
            ("event", "SUBSCRIBE", ana, to, long("o: dialog"), "489", "Allow-Events"),
            ("no-event", "SUBSCRIBE", ana, to, subscribe.to_owned(), "489", "Allow-Events"),
            ("winfo", "SUBSCRIBE", ana, to, long("Event: presence.winfo"), "489", "Allow-Events"),
            ("brief", "SUBSCRIBE", ana, to, long("Event: presence\r\nExpires: 5"), "423", "Min-Expires"),
            (
                "require",
                "SUBSCRIBE",
                ana,
                to,
                long("Event: presence\r\nRequire: timer, eventlist"),
                "420",
                "Unsupported",
            ),
            ("type", "MESSAGE", ana, to, "c: image/png".to_owned(), "415", "Accept"),
            ("update", "REFER", ana, to, String::new(), "405", "Allow"),
        ];
        for (name, method, from, to, extra, status, companion) in cases {
            let plan = SippPlan::new("request")
                .named(name)
                .at(port)
                .to(corp.realm.plain_port)
                .key("METHOD", method)
                .key("FROM", from)
                .key("TO", to)
                .key("EXTRA", &extra)
                .key("BODY", if method == "MESSAGE" { "hello" } else { "" })
                .key("STATUS", status);
            let seen = Sipp::run(lab, &plan).await.with_context(|| name.to_owned())?;
            let answer = seen.iter().find(|m| m.received && m.status().is_some_and(|s| s >= 200));
            ensure!(companion.is_empty() || answer.is_some_and(|m| m.has(companion)), "{name}: no {companion}");
        }
        let hops = SippPlan::new("request")
            .named("hops")
            .at(port)
            .to(corp.realm.plain_port)
            .key("METHOD", "MESSAGE")
            .key("HOPS", "0")
            .key("FROM", ana)
            .key("TO", to)
            .key("EXTRA", text)
            .key("BODY", "hello")
            .key("STATUS", "483");
        Sipp::run(lab, &hops).await?;
        juliet.must_not_have("a stanza from SIP", |r| r.from_bare().ends_with("partner.example"))
    })
    .await;
}
