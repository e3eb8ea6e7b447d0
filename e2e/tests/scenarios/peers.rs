//! The real peers alone, without the gateway: what the other scenarios build on.

use std::time::Duration;

use anyhow::{Context, Result};
use isthmus_e2e::baresip::{Baresip, PhonePlan};
use isthmus_e2e::kamailio::{Kamailio, PartnerPlan};
use isthmus_e2e::knot::Knot;
use isthmus_e2e::lab::scenario;
use isthmus_e2e::load::Load;
use isthmus_e2e::pki::{Authority, Name};
use isthmus_e2e::ports;
use isthmus_e2e::prosody::{Prosody, ProsodyPlan};
use isthmus_e2e::sink::SipSink;
use isthmus_e2e::sip_agent::SipAgent;
use isthmus_e2e::sip_trace::SipMessage;
use isthmus_e2e::sipp::{Sipp, SippPlan};
use tokio::net::UdpSocket;

#[tokio::test]
async fn two_prosody_users_subscribe_and_chat() {
    scenario("prosody-alone", async |lab| -> Result<()> {
        let prosody = Prosody::start(lab, &ProsodyPlan::corp(&["juliet", "romeo"], &[])).await?;
        let juliet = prosody.login("juliet", "home").await?;
        let romeo = prosody.login("romeo", "garden").await?;
        juliet.available("", "").await?;
        romeo.available("away", "in the garden").await?;
        juliet.presence("subscribe", "romeo@corp.example").await?;
        romeo.wait("the request", |r| r.is_presence("subscribe", "juliet@corp.example")).await?;
        romeo.presence("subscribed", "juliet@corp.example").await?;
        let seen = juliet
            .wait("romeo away", |r| {
                r.is_presence("", "romeo@corp.example") && r.text("show").as_deref() == Some("away")
            })
            .await?;
        assert_eq!(seen.text("status").as_deref(), Some("in the garden"));
        juliet.chat("romeo@corp.example", "wherefore <art> thou").await?;
        romeo.wait("the message", |r| r.is_message("juliet@corp.example", "wherefore <art> thou")).await?;
        let id = juliet.chat("nobody@corp.example", "hello?").await?;
        let bounce = juliet.wait("the bounce", |r| r.kind() == "error" && r.attribute("id") == id).await?;
        assert_eq!(bounce.error().map(|e| e.1).as_deref(), Some("service-unavailable"));
        prosody.stop().await
    })
    .await;
}

#[tokio::test]
async fn two_phones_behind_kamailio_watch_and_message_each_other() {
    scenario("kamailio-alone", async |lab| -> Result<()> {
        let kamailio = Kamailio::partner(lab, &PartnerPlan::new("sip:127.0.0.1:9")).await?;
        let phone = |user: &str, contact: &str| PhonePlan {
            user: user.to_owned(),
            proxy_port: kamailio.port,
            contacts: vec![format!("{contact}@partner.example")],
            watches: true,
        };
        let ana = Baresip::start(lab, &phone("ana", "bob")).await?;
        let bob = Baresip::start(lab, &phone("bob", "ana")).await?;
        ana.wait_notify("bob online", |n| n.subscription_state() == "active" && n.basic() == Some("open")).await?;
        bob.message("hello ana").await?;
        ana.wait_message("hello ana").await?;
        bob.publish(false).await?;
        ana.wait_notify("bob offline", |n| n.basic() == Some("closed")).await?;
        bob.stop().await
    })
    .await;
}

#[tokio::test]
async fn sipp_watches_and_writes_to_users_of_kamailio() {
    scenario("sipp-kamailio", async |lab| -> Result<()> {
        let kamailio = Kamailio::partner(lab, &PartnerPlan::new("sip:127.0.0.1:9")).await?;
        let ask = |name: &str, to: &str, status: &str| {
            SippPlan::new("request")
                .named(name)
                .to(kamailio.port)
                .key("METHOD", "MESSAGE")
                .key("FROM", "bob@partner.example")
                .key("TO", to)
                .key("EXTRA", "Content-Type: text/plain")
                .key("BODY", "hello")
                .key("STATUS", status)
        };
        Sipp::run(lab, &ask("unknown", "nobody@partner.example", "404")).await?;
        Sipp::run(lab, &ask("away", "ana@partner.example", "480")).await?;
        let watch = SippPlan::new("watch")
            .to(kamailio.port)
            .key("FROM", "bob@partner.example")
            .key("TO", "ana@partner.example")
            .key("QUIET", "500");
        let seen = Sipp::run(lab, &watch).await?;
        let states: Vec<&str> =
            seen.iter().filter(|m| m.method() == Some("NOTIFY")).map(SipMessage::subscription_state).collect();
        assert_eq!(states, ["active", "terminated"]);
        Ok(())
    })
    .await;
}

/// Answers a request and notifies its sender, the notification first.
async fn notify_first(socket: &UdpSocket, state: &str) -> Result<()> {
    let mut buffer = [0_u8; 4096];
    let (subscribe, watcher) = loop {
        let (n, from) = tokio::time::timeout(Duration::from_secs(10), socket.recv_from(&mut buffer)).await??;
        let text = String::from_utf8_lossy(buffer.get(..n).unwrap_or_default()).into_owned();
        if text.starts_with("SUBSCRIBE ") {
            break (text, from);
        }
    };
    let line = |name: &str| subscribe.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    let value = |name: &str| line(name).split_once(": ").map(|(_, value)| value.to_owned()).unwrap_or_default();
    let to = if value("To").contains("tag=") { value("To") } else { format!("{};tag=early", value("To")) };
    let local = socket.local_addr()?;
    let notify = format!(
        "NOTIFY sip:watcher@{watcher} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{state}\r\nMax-Forwards: 70\r\n\
         From: {to}\r\nTo: {}\r\n{}\r\nCSeq: 1 NOTIFY\r\nContact: <sip:ana@{local}>\r\nEvent: presence\r\n\
         Subscription-State: {state}\r\nContent-Length: 0\r\n\r\n",
        value("From"),
        line("Call-ID")
    );
    let answer = format!(
        "SIP/2.0 200 OK\r\n{}\r\n{}\r\nTo: {to}\r\n{}\r\n{}\r\nContact: <sip:ana@{local}>\r\nExpires: 600\r\n\
         Content-Length: 0\r\n\r\n",
        line("Via"),
        line("From"),
        line("Call-ID"),
        line("CSeq")
    );
    for text in [notify, answer] {
        socket.send_to(text.as_bytes(), watcher).await?;
    }
    Ok(())
}

#[tokio::test]
async fn sipp_takes_a_notification_that_overtakes_its_answer() {
    scenario("sipp-overtaken", async |lab| -> Result<()> {
        for (first, last) in [("active", "terminated"), ("terminated", "")] {
            let socket = UdpSocket::bind(("127.0.0.1", ports::free()?)).await?;
            let watch = SippPlan::new("watch")
                .named(first)
                .to(socket.local_addr()?.port())
                .key("FROM", "bob@partner.example")
                .key("TO", "ana@partner.example")
                .key("QUIET", "300");
            let watcher = Sipp::start(lab, &watch).await?;
            notify_first(&socket, first).await?;
            if !last.is_empty() {
                notify_first(&socket, last).await?;
            }
            let seen = watcher.finish().await?;
            let answers = seen.iter().filter(|m| !m.received && m.status() == Some(200)).count();
            assert_eq!(answers, if last.is_empty() { 1 } else { 2 });
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_session_crosses_two_tls_edges() {
    scenario("edges", async |lab| -> Result<()> {
        let authority = Authority::new("edges")?;
        let certificate = authority.sign(&[Name::Dns("sip.blue.example"), Name::SipUri("sip:blue.example")])?;
        let (near, far) = (ports::free()?, ports::free()?);
        let inside = SippPlan::new("answer_session").key("SELF", "juliet@corp.example");
        let callee = Sipp::start(lab, &inside).await?;
        let target = format!("sip:127.0.0.1:{}", callee.port);
        let _far = Kamailio::edge(lab, "far", &certificate, &target, "sip:127.0.0.1:9", far).await?;
        let gateway = format!("sip:127.0.0.1:{far};transport=tls");
        let near = Kamailio::edge(lab, "near", &certificate, &gateway, "sip:127.0.0.1:9", near).await?;
        let invite = SippPlan::new("invite_corp")
            .to(near.port)
            .key("FROM", "dana@blue.example")
            .key("TO", "juliet@corp.example")
            .key("TEXT", "through two edges");
        Sipp::run(lab, &invite).await?;
        let seen = callee.finish().await?;
        assert!(seen.iter().any(|m| m.method() == Some("MESSAGE") && m.body == "through two edges"));
        let invite = seen.iter().find(|m| m.method() == Some("INVITE"));
        assert!(invite.is_some_and(|m| m.header("Record-Route").contains("sip.blue.example")));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn knot_serves_and_replaces_a_zone() {
    scenario("knot", async |lab| -> Result<()> {
        let mut knot = Knot::start(lab, &[("blue.example", "sip A 127.0.0.1")]).await?;
        knot.replace("blue.example", "sip A 127.0.0.2")
    })
    .await;
}

#[tokio::test]
async fn kamailio_relays_all_that_the_load_generator_sends() {
    scenario("relay", async |lab| -> Result<()> {
        let sink = SipSink::start().await?;
        let port = ports::free()?;
        let config = include_str!("../../scenarios/kamailio/relay.cfg")
            .replace("@PORT@", &port.to_string())
            .replace("@SINK@", &sink.port.to_string());
        let folder = lab.folder("relay")?;
        let kamailio = Kamailio::start("relay", &folder, &config, port, 0, 64).await?;
        let load = Load { target: port, own: ports::free()?, count: 300, rate: 500, label: "p".to_owned() };
        let outcome = load.run().await?;
        assert_eq!(outcome.delivered, 300);
        assert!(kamailio.cpu_time()?.as_nanos() > 0);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_phone_watches_and_writes_to_sipp_behind_the_route_to_the_partner() {
    scenario("sipp-as-partner", async |lab| -> Result<()> {
        let port = ports::free()?;
        let kamailio = Kamailio::partner(lab, &PartnerPlan::new(&format!("sip:127.0.0.1:{port}"))).await?;
        let notifier = Sipp::start(lab, &SippPlan::new("notifier").at(port).key("GRANT", "14")).await?;
        let plan = PhonePlan {
            user: "ana".to_owned(),
            proxy_port: kamailio.port,
            contacts: vec!["juliet@corp.example".to_owned()],
            watches: true,
        };
        let ana = Baresip::start(lab, &plan).await?;
        ana.wait_notify("the document", |n| n.body.contains("At the desk")).await?;
        // It refreshes at about nine tenths of what was granted.
        ana.wait("the refreshed document", Duration::from_secs(20), |n| n.body.contains("Back again")).await?;
        ana.stop().await?;
        notifier.finish().await?;
        let callee = Sipp::start(lab, &SippPlan::new("pager_in").at(port)).await?;
        let ana = Baresip::start(lab, &PhonePlan { watches: false, ..plan }).await?;
        ana.message("hello partner").await?;
        let seen = callee.finish().await?;
        assert!(seen.iter().any(|m| m.method() == Some("MESSAGE") && m.body == "hello partner"));
        Ok(())
    })
    .await;
}

/// Receives until a datagram begins so.
async fn next(socket: &UdpSocket, start: &str) -> Result<String> {
    let received = async {
        let mut buffer = vec![0; 65_536];
        loop {
            let length = socket.recv(&mut buffer).await?;
            let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
            if text.starts_with(start) {
                return anyhow::Ok(text);
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), received).await.with_context(|| format!("no {start} came"))?
}

// RFC 6665 §4.2.1.2
#[tokio::test]
async fn our_sip_users_follow_each_subscribe_with_a_notify_although_one_is_under_way() {
    scenario("agent-alone", async |_| -> Result<()> {
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        let (address, port) = (socket.local_addr()?, ports::free()?);
        let (agent, _events) = SipAgent::start("partner.example", port, address, false).await?;
        agent.show("ana", "here");
        let subscribe = |to: &str, number: u32| {
            format!(
                "SUBSCRIBE sip:ana@127.0.0.1:{port} SIP/2.0\r\nVia: SIP/2.0/UDP {address};branch=z9hG4bKs{number}\r\n\
                 Max-Forwards: 70\r\nFrom: <sip:juliet@corp.example>;tag=j\r\n{to}\r\nCall-ID: c\r\n\
                 CSeq: {number} SUBSCRIBE\r\nContact: <sip:juliet@{address}>\r\nEvent: presence\r\nExpires: 600\r\n\
                 Content-Length: 0\r\n\r\n"
            )
        };
        let send = async |text: String| socket.send_to(text.as_bytes(), ("127.0.0.1", port)).await;
        send(subscribe("To: <sip:ana@partner.example>", 1)).await?;
        let accepted = next(&socket, "SIP/2.0 200 ").await?;
        let to = accepted.lines().find(|line| line.starts_with("To:")).context("no To")?;
        let first = next(&socket, "NOTIFY ").await?;
        send(subscribe(to, 2)).await?;
        next(&socket, "SIP/2.0 200 ").await?;
        let copied = ["Via:", "From:", "To:", "Call-ID:", "CSeq:"];
        let head: Vec<&str> = first.lines().filter(|line| copied.iter().any(|name| line.starts_with(name))).collect();
        send(format!("SIP/2.0 200 OK\r\n{}\r\nContent-Length: 0\r\n\r\n", head.join("\r\n"))).await?;
        // The first one is repeated until it is answered.
        while !next(&socket, "NOTIFY ").await?.contains("CSeq: 2 NOTIFY") {}
        Ok(())
    })
    .await;
}
