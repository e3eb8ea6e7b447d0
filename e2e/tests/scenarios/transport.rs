//! Transports, identities of peers, and how peers are found.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use isthmus_e2e::balancer::{Balancer, Policy};
use isthmus_e2e::baresip::Baresip;
use isthmus_e2e::corp::Corp;
use isthmus_e2e::haproxy::Haproxy;
use isthmus_e2e::kamailio::{Kamailio, PartnerPlan};
use isthmus_e2e::knot::Knot;
use isthmus_e2e::lab::{Lab, scenario, wait_for, wait_until};
use isthmus_e2e::manifests::{Partner, Realm};
use isthmus_e2e::pki::{Authority, Name};
use isthmus_e2e::pods::Pods;
use isthmus_e2e::redis::Redis;
use isthmus_e2e::sipp::{Sipp, SippPlan};
use isthmus_e2e::xmpp_client::{Received, SOON, XmppClient};
use isthmus_e2e::{ports, tls_client};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::presence::phone;
use super::session::{EDGE, blue};

const ANA: &str = "ana@partner.example";
const DANA: &str = "dana@blue.example";

/// Presence and a message in both directions between juliet and ana, whatever carries them.
pub(super) async fn both_ways(lab: &Lab, juliet: &XmppClient, kamailio: &Kamailio) -> Result<()> {
    let ana = Baresip::start(lab, &phone("ana", kamailio, "juliet@corp.example", true)).await?;
    juliet.wait("the request", |r| r.is_presence("subscribe", ANA)).await?;
    juliet.presence("subscribed", ANA).await?;
    ana.wait_notify("juliet online", |n| n.basic() == Some("open")).await?;
    juliet.presence("subscribe", ANA).await?;
    juliet.wait("ana online", |r| r.is_presence("", ANA)).await?;
    ana.message("hello from sip").await?;
    juliet.wait("the message", |r| r.is_message(ANA, "hello from sip")).await?;
    juliet.chat(ANA, "hello from xmpp").await?;
    ana.wait_message("hello from xmpp").await?;
    Ok(())
}

#[tokio::test]
async fn all_crosses_over_tcp() {
    scenario("tcp", async |lab| -> Result<()> {
        let (prosody, realm) = Corp::prepare(lab, &["juliet"], &["partner.example"]).await?;
        let kamailio = Kamailio::partner(lab, &PartnerPlan::new(&Corp::plain_route(&realm, "tcp"))).await?;
        let realm = realm.partner(Partner::standard("partner.example", "TCP", kamailio.port).kind("Kamailio"));
        let corp = Corp::start(lab, prosody, realm).await?;
        both_ways(lab, &corp.online("juliet").await?, &kamailio).await
    })
    .await;
}

#[tokio::test]
async fn all_crosses_over_ipv6() {
    if !ports::has_ipv6() {
        eprintln!("SKIPPED: this machine has no ::1");
        return;
    }
    scenario("ipv6", async |lab| -> Result<()> {
        let (prosody, realm) = Corp::prepare(lab, &["juliet"], &["partner.example"]).await?;
        let route = format!("sip:[::1]:{};transport=udp", realm.plain_port);
        let kamailio = Kamailio::partner(lab, &PartnerPlan::new(&route)).await?;
        let partner = Partner::standard("partner.example", "UDP", 0).kind("Kamailio").via("::1", kamailio.port);
        let corp = Corp::start(lab, prosody, realm.partner(partner)).await?;
        both_ways(lab, &corp.online("juliet").await?, &kamailio).await
    })
    .await;
}

#[tokio::test]
async fn all_crosses_over_mutual_tls() {
    scenario("mutual-tls", async |lab| -> Result<()> {
        let authority = Authority::new("federation test")?;
        let (prosody, mut realm) = Corp::prepare(lab, &["juliet"], &["partner.example"]).await?;
        realm.certificate = Some(authority.sign(&[Name::Dns("sip.corp.example"), Name::SipUri("sip:corp.example")])?);
        let mut plan = PartnerPlan::new(&format!("sip:127.0.0.1:{};transport=tls", realm.tls_port));
        plan.tls = Some(authority.sign(&[Name::SipUri("sip:partner.example")])?);
        let kamailio = Kamailio::partner(lab, &plan).await?;
        let realm = realm.partner(Partner::standard("partner.example", "TLS", kamailio.tls_port).kind("Kamailio"));
        let corp = Corp::start(lab, prosody, realm).await?;
        both_ways(lab, &corp.online("juliet").await?, &kamailio).await
    })
    .await;
}

// Each pod has TLS connections of its own; a dialog goes on over that of another pod.
// S-09
#[tokio::test]
async fn a_dialog_over_tls_goes_on_whichever_of_three_pods_dies() {
    scenario("tls-pods", async |lab| -> Result<()> {
        let authority = Authority::new("federation test")?;
        let prosody = Pods::prosody(lab, &["juliet".to_owned()], &["partner.example"]).await?;
        let redis = Redis::start(lab).await?;
        let mut realm = Realm::new(prosody.component_port)?;
        realm.certificate = Some(authority.sign(&[Name::Dns("sip.corp.example"), Name::SipUri("sip:corp.example")])?);
        realm.state_store = Some(redis.declaration(""));
        let mut plan = PartnerPlan::new(&format!("sip:127.0.0.1:{};transport=tls", realm.tls_port));
        plan.tls = Some(authority.sign(&[Name::SipUri("sip:partner.example")])?);
        let kamailio = Kamailio::partner(lab, &plan).await?;
        let partner = Partner::standard("partner.example", "TLS", kamailio.tls_port).kind("Kamailio");
        let realm = realm.partner(partner.switch("notifyInterval", "0s"));
        let mut pods = Pods::start(lab, &realm, 3, Policy::RoundRobin).await?;
        let tls: Vec<_> = (0..3).filter_map(|pod| Some((pods.sip(pod)?.ip(), realm.tls_port).into())).collect();
        let front = ([127, 0, 0, 1], realm.tls_port).into();
        let balancer = Balancer::start(front, &tls, Policy::RoundRobin).await?;
        prosody.wait_component("partner.example").await?;
        let juliet = prosody.login("juliet", "home").await?;
        juliet.come_online().await?;
        let ana = Baresip::start(lab, &phone("ana", &kamailio, "juliet@corp.example", true)).await?;
        juliet.wait("the request", |r| r.is_presence("subscribe", ANA)).await?;
        juliet.presence("subscribed", ANA).await?;
        let first = ana.wait_notify("juliet online", |n| n.basic() == Some("open")).await?;

        for (number, member) in tls.iter().enumerate() {
            pods.kill(number)?;
            balancer.remove(*member);
            // Whoever holds the link by now. The server returns what comes while nobody does.
            let held = || async { Ok(pods.holder("partner.example").await) };
            wait_for("the link at a pod that lives", Duration::from_secs(5), held).await?;
            let text = format!("without pod {number}");
            juliet.available("away", &text).await?;
            let notify = ana.wait_notify(&text, |n| n.body_element("note") == Some(&text)).await?;
            ensure!(notify.header("Call-ID") == first.header("Call-ID"), "another dialog");
            ana.message(&text).await?;
            juliet.wait(&text, |r| r.is_message(ANA, &text)).await?;
            juliet.chat(ANA, &text).await?;
            ana.wait_message(&text).await?;
            pods.run(number).await?;
            balancer.add(*member);
        }
        Ok(())
    })
    .await;
}

const OPTIONS: &str = "OPTIONS sip:corp.example SIP/2.0\r\nVia: SIP/2.0/TLS sip.blue.example;branch=z9hG4bKx1\r\n\
    Max-Forwards: 70\r\nFrom: <sip:dana@blue.example>;tag=1\r\nTo: <sip:corp.example>\r\nCall-ID: o1\r\n\
    CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n";

// T-04
#[tokio::test]
async fn a_connection_without_certificate_is_closed_unheard() {
    scenario("no-certificate", async |lab| -> Result<()> {
        let authority = Authority::new("federation test")?;
        let (prosody, mut realm) = Corp::prepare(lab, &["juliet"], &["blue.example"]).await?;
        realm.certificate = Some(authority.sign(&[Name::Dns("sip.corp.example")])?);
        let corp = Corp::start(lab, prosody, realm.partner(Partner::microsoft("blue.example"))).await?;
        let port = corp.realm.tls_port;
        let good = authority.sign_server_only(&[Name::Dns("blue.example")])?;
        let answer = tls_client::exchange(port, "sip.corp.example", &authority.pem, Some(&good), OPTIONS).await?;
        ensure!(answer.starts_with("SIP/2.0 200"), "a good certificate got {answer:?}");
        let answer = tls_client::exchange(port, "sip.corp.example", &authority.pem, None, OPTIONS).await?;
        ensure!(answer.is_empty(), "no certificate got {answer:?}");
        let foreign = Authority::new("somebody else")?.sign(&[Name::Dns("blue.example")])?;
        let answer = tls_client::exchange(port, "sip.corp.example", &authority.pem, Some(&foreign), OPTIONS).await?;
        ensure!(answer.is_empty(), "a certificate of another authority got {answer:?}");
        Ok(())
    })
    .await;
}

// T-05, T-08
#[tokio::test]
async fn an_edge_with_a_wrong_name_never_sees_the_request() {
    scenario("wrong-name", async |lab| -> Result<()> {
        let blue = blue(lab, &["juliet"], &[Name::Dns("*.blue.example"), Name::Dns("other.example")]).await?;
        let dana = Sipp::start(lab, &SippPlan::new("answer_session").at(blue.inside)).await?;
        let juliet = blue.corp.online("juliet").await?;
        let id = juliet.chat(DANA, "secret").await?;
        let error = juliet.wait("the error", |r| r.kind() == "error" && r.attribute("id") == id).await?;
        let (_, condition, _) = error.error().context("no error element")?;
        ensure!(matches!(condition.as_str(), "remote-server-not-found" | "remote-server-timeout"), "{condition}");
        ensure!(dana.messages().is_empty(), "the request was sent");
        Ok(())
    })
    .await;
}

// T-09
#[tokio::test]
async fn an_edge_cannot_speak_for_another_domain() {
    scenario("wrong-from", async |lab| -> Result<()> {
        let blue = blue(lab, &["juliet"], &EDGE).await?;
        let juliet = blue.corp.online("juliet").await?;
        let send = |from: &str, status: &str| {
            SippPlan::new("request")
                .named(status)
                .to(blue.edge.port)
                .key("METHOD", "MESSAGE")
                .key("FROM", from)
                .key("TO", "juliet@corp.example")
                .key("EXTRA", "Content-Type: text/plain")
                .key("BODY", "hello")
                .key("STATUS", status)
        };
        Sipp::run(lab, &send("eve@other.example", "403")).await?;
        Sipp::run(lab, &send(DANA, "200")).await?;
        juliet.wait("dana's message", |r| r.is_message(DANA, "hello")).await?;
        juliet.must_not_have("eve's message", |r| r.from().starts_with("eve@"))
    })
    .await;
}

// S-23, S-25, S-26
#[tokio::test]
async fn a_dead_target_is_skipped_for_the_next_one_by_priority() {
    scenario("fail-over", async |lab| -> Result<()> {
        let authority = Authority::new("federation test")?;
        let (edge_port, inside, dead) = (ports::free()?, ports::free()?, ports::free()?);
        let records = format!(
            "sip A 127.0.0.1\nold A 127.0.0.1\n_sipfederationtls._tcp SRV 20 0 {edge_port} sip\n\
             _sipfederationtls._tcp SRV 10 0 {dead} old"
        );
        let knot = Knot::start(lab, &[("blue.example", &records)]).await?;
        let (prosody, mut realm) = Corp::prepare(lab, &["juliet"], &["blue.example"]).await?;
        realm.certificate = Some(authority.sign(&[Name::Dns("sip.corp.example")])?);
        realm.resolver = Some(knot.port);
        let gateway = format!("sip:127.0.0.1:{};transport=tls", realm.tls_port);
        let certificate = authority.sign(&EDGE)?;
        let target = format!("sip:127.0.0.1:{inside}");
        let _edge = Kamailio::edge(lab, "edge", &certificate, &gateway, &target, edge_port).await?;
        let corp = Corp::start(lab, prosody, realm.partner(Partner::microsoft("blue.example"))).await?;
        let dana = Sipp::start(lab, &SippPlan::new("answer_session").at(inside)).await?;
        let juliet = corp.online("juliet").await?;
        juliet.chat(DANA, "by the second door").await?;
        dana.wait("the message", Duration::from_secs(10), |m| m.received && m.body == "by the second door").await?;
        Ok(())
    })
    .await;
}

// S-04, S-30, S-39
#[tokio::test]
async fn a_stream_is_kept_alive_and_read_message_by_message() {
    scenario("stream", async |lab| -> Result<()> {
        let (prosody, realm) = Corp::prepare(lab, &["juliet"], &["partner.example"]).await?;
        let realm = realm.partner(Partner::standard("partner.example", "TCP", ports::free()?));
        let corp = Corp::start(lab, prosody, realm).await?;
        let juliet = corp.online("juliet").await?;
        let mut stream = TcpStream::connect(("127.0.0.1", corp.realm.plain_port)).await?;
        stream.write_all(b"\r\n\r\n").await?;
        let mut pong = [0_u8; 2];
        timeout(Duration::from_secs(2), stream.read_exact(&mut pong)).await??;
        ensure!(&pong == b"\r\n", "{pong:?}");
        let message = |number: u32, text: &str| {
            format!(
                "MESSAGE sip:juliet@corp.example SIP/2.0\r\nv: SIP/2.0/TCP 127.0.0.1:9;branch=z9hG4bKs{number}\r\n\
                 Max-Forwards: 70\r\nf: <sip:{ANA}>;tag={number}\r\nt: <sip:juliet@corp.example>\r\n\
                 i: stream-{number}\r\nCSeq: 1 MESSAGE\r\nc: text/plain\r\nl: {}\r\n\r\n{text}",
                text.len()
            )
        };
        // Two messages in one write, then the answers on the same connection.
        let both = format!("{}{}", message(1, "first of two"), message(2, "second of two"));
        stream.write_all(both.as_bytes()).await?;
        let mut answers = String::new();
        let mut piece = [0_u8; 4096];
        while answers.matches("SIP/2.0 200").count() < 2 {
            let read = timeout(Duration::from_secs(5), stream.read(&mut piece)).await;
            let n = read.with_context(|| format!("only answered: {answers}"))??;
            ensure!(n > 0, "closed after {answers}");
            answers.push_str(&String::from_utf8_lossy(&piece[..n]));
        }
        for text in ["first of two", "second of two"] {
            juliet.wait(text, |r| r.is_message(ANA, text)).await?;
        }
        // Without a length nobody knows where the next message starts.
        let broken = message(3, "").replace("l: 0\r\n", "");
        stream.write_all(broken.as_bytes()).await?;
        let mut rest = Vec::new();
        timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await.context("left open")??;
        ensure!(!String::from_utf8_lossy(&rest).contains("SIP/2.0 200"), "it was served");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_private_address_is_dialed_only_inside_an_allowed_range() {
    scenario("allowed-ranges", async |lab| -> Result<()> {
        let tcp = TcpListener::bind(("127.0.0.1", 0)).await?;
        let udp = UdpSocket::bind(("127.0.0.1", ports::free()?)).await?;
        let names = ["stream.example", "datagram.example", "named.example"];
        let knot = Knot::start(lab, &[("named.example", "sip A 127.0.0.1")]).await?;
        let (prosody, mut realm) = Corp::prepare(lab, &["juliet"], &names).await?;
        let (stream, datagram) = (tcp.local_addr()?.port(), udp.local_addr()?.port());
        let named = Partner::standard("named.example", "UDP", datagram).via("sip.named.example", datagram);
        realm = realm.partner(Partner::standard("stream.example", "TCP", stream).switch("imMode", "Pager"));
        realm = realm.partner(Partner::standard("datagram.example", "UDP", datagram).switch("imMode", "Pager"));
        realm = realm.partner(named.switch("imMode", "Pager"));
        realm.resolver = Some(knot.port);
        realm.allowed_ranges = vec!["10.0.0.0/8".to_owned(), "::1/128".to_owned()];
        let mut corp = Corp::start(lab, prosody, realm).await?;
        let juliet = corp.online("juliet").await?;
        for name in names {
            let id = juliet.message("normal", &format!("ana@{name}"), "into the wall").await?;
            let error = juliet.wait("the error", |r| r.kind() == "error" && r.attribute("id") == id).await?;
            let got = error.error().context("no error element")?;
            ensure!(got.1 == "remote-server-timeout" && got.2.contains("cannot be reached"), "{name}: {got:?}");
        }
        let mut buffer = [0_u8; 4096];
        ensure!(udp.try_recv(&mut buffer).is_err(), "a datagram was sent: {}", String::from_utf8_lossy(&buffer));
        let dialed = timeout(Duration::from_millis(50), tcp.accept()).await;
        ensure!(dialed.is_err(), "a connection was opened");
        let metrics = corp.gateway.metrics().await?;
        ensure!(metrics.contains("isthmus_refusals_total{reason=\"private_address\"}"), "{metrics}");

        // The remedy that the log names works at once.
        corp.realm.allowed_ranges.push("127.0.0.0/8".to_owned());
        corp.realm.write(corp.gateway.folder())?;
        let taken = "isthmus_config_reloads_total{reason=\"taken\"} 2";
        wait_for("the range is taken", Duration::from_secs(5), || async {
            Ok(corp.gateway.metrics().await?.contains(taken).then_some(()))
        })
        .await?;
        juliet.message("normal", "ana@named.example", "through the door").await?;
        let length = timeout(Duration::from_secs(5), udp.recv(&mut buffer)).await??;
        ensure!(String::from_utf8_lossy(&buffer[..length]).contains("through the door"), "something else was sent");
        juliet.message("normal", "ana@stream.example", "through the door").await?;
        timeout(Duration::from_secs(5), tcp.accept()).await??;
        Ok(())
    })
    .await;
}

/// Sends one MESSAGE for each sender over UDP without waiting between them, and gives all answers.
async fn burst(port: u16, senders: &[String]) -> Result<Vec<String>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let own = socket.local_addr()?.port();
    for (number, sender) in senders.iter().enumerate() {
        let body = format!("burst {number}");
        let request = format!(
            "MESSAGE sip:juliet@corp.example SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{own};rport;branch=z9hG4bKburst{own}x{number}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:{sender}>;tag={number}\r\nTo: <sip:juliet@corp.example>\r\n\
             Call-ID: burst-{own}-{number}\r\nCSeq: 1 MESSAGE\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.send_to(request.as_bytes(), (Ipv4Addr::LOCALHOST, port)).await?;
    }
    let mut answers = Vec::new();
    let mut buffer = vec![0; 65_536];
    while answers.len() < senders.len() {
        let (length, _) = timeout(SOON, socket.recv_from(&mut buffer)).await.context("an answer is missing")??;
        let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if !answer.starts_with("SIP/2.0 1") {
            answers.push(answer);
        }
    }
    Ok(answers)
}

#[tokio::test]
async fn a_peer_without_tls_is_known_by_its_next_hop_even_by_name() {
    scenario("named-hops", async |lab| -> Result<()> {
        let knot =
            Knot::start(lab, &[("named.example", "sip A 127.0.0.1"), ("moved.example", "sip A 127.0.0.9")]).await?;
        let names = ["named.example", "moved.example"];
        let (prosody, mut realm) = Corp::prepare(lab, &["juliet"], &names).await?;
        for name in names {
            realm = realm.partner(Partner::standard(name, "UDP", 0).via(&format!("sip.{name}"), ports::free()?));
        }
        realm.resolver = Some(knot.port);
        let corp = Corp::start(lab, prosody, realm).await?;
        let juliet = corp.online("juliet").await?;
        // Many at once, before anything was looked up: nobody is turned away, and one sender's stay in order.
        let crowd: Vec<String> = (0..100).map(|user| format!("user{user}@named.example")).collect();
        let pile: Vec<String> = vec!["ana@named.example".to_owned(); 10];
        for senders in [crowd, pile] {
            let answers = burst(corp.realm.plain_port, &senders).await?;
            ensure!(answers.iter().all(|answer| answer.starts_with("SIP/2.0 20")), "{answers:?}");
        }
        let bodies = || -> Vec<String> {
            let received = juliet.received();
            let of_ana = received.iter().filter(|r| r.from_bare() == "ana@named.example");
            of_ana.filter_map(Received::body).filter(|body| body.starts_with("burst")).collect()
        };
        wait_until("the whole pile", SOON, || (bodies().len() == 10).then_some(())).await?;
        let sent: Vec<String> = (0..10).map(|number| format!("burst {number}")).collect();
        ensure!(bodies() == sent, "{:?}", bodies());
        let send = |from: &str, asserted: &str, body: &str, status: &str| {
            SippPlan::new("request")
                .named(&body.replace(' ', "-"))
                .to(corp.realm.plain_port)
                .key("METHOD", "MESSAGE")
                .key("FROM", from)
                .key("TO", "juliet@corp.example")
                .key("EXTRA", &format!("{asserted}Content-Type: text/plain"))
                .key("BODY", body)
                .key("STATUS", status)
        };
        let ana = "ana@named.example";
        Sipp::run(lab, &send(ana, "", "by name", "200")).await?;
        Sipp::run(lab, &send("eve@moved.example", "", "from elsewhere", "403")).await?;
        // Who asserts another identity needs the right to it too.
        let own = "P-Asserted-Identity: \"Ana\" <sip:ana@named.example>, <tel:+15550100>\n";
        Sipp::run(lab, &send(ana, own, "asserted", "200")).await?;
        for (name, foreign) in [
            ("another's", "P-Asserted-Identity: <sip:ana@moved.example>\n"),
            ("ours", "P-Asserted-Identity: <sip:ana@named.example>\nP-Asserted-Identity: <sip:romeo@corp.example>\n"),
            ("unknown", "P-Asserted-Identity: <sips:ana@unknown.example>\n"),
            ("numeric", "P-Asserted-Identity: <sip:ana@127.0.0.1>\n"),
        ] {
            Sipp::run(lab, &send(ana, foreign, name, "403")).await?;
        }
        for text in ["by name", "asserted"] {
            juliet.wait(text, |r| r.is_message(ana, text)).await?;
        }
        juliet.must_not_have("a refused message", |r| {
            r.is_message("eve@moved.example", "from elsewhere")
                || r.is_message(ana, "ours")
                || r.is_message(ana, "numeric")
        })
    })
    .await;
}

/// Sends a MESSAGE over TCP, by way of `port` and from an own address that ends in `last`; gives the answer.
async fn ask_from(last: u8, port: u16, before: &[u8], body: &str) -> Result<String> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, last], 0).into())?;
    let mut stream = socket.connect(([127, 0, 0, 1], port).into()).await?;
    let message = format!(
        "MESSAGE sip:juliet@corp.example SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.{last}:9;branch=z9hG4bKp{body}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:{ANA}>;tag=1\r\nTo: <sip:juliet@corp.example>\r\nCall-ID: {body}\r\n\
         CSeq: 1 MESSAGE\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(&[before, message.as_bytes()].concat()).await?;
    let mut answer = [0_u8; 4096];
    let read = timeout(Duration::from_secs(10), stream.read(&mut answer)).await.context("no answer")?;
    // A connection that is closed with bytes unread is reset.
    let length = read.unwrap_or(0);
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

#[tokio::test]
async fn behind_a_trusted_balancer_the_stated_address_is_the_peers() {
    scenario("balancer", async |lab| -> Result<()> {
        let authority = Authority::new("federation test")?;
        let (prosody, mut realm) = Corp::prepare(lab, &["juliet"], &["partner.example", "blue.example"]).await?;
        realm.certificate = Some(authority.sign(&[Name::Dns("sip.corp.example")])?);
        realm.trusted_proxies = Some("[\"127.0.0.1/32\"]".to_owned());
        let partner = Partner::standard("partner.example", "TCP", 0).via("127.0.0.7", ports::free()?);
        let realm = realm.partner(partner).partner(Partner::microsoft("blue.example"));
        let corp = Corp::start(lab, prosody, realm).await?;
        let juliet = corp.online("juliet").await?;
        let (plain, tls) = (corp.realm.plain_port, corp.realm.tls_port);
        let balancer = Haproxy::start(lab, plain).await?;
        let answer = ask_from(7, balancer.port, b"", "balanced").await?;
        ensure!(answer.starts_with("SIP/2.0 200"), "the partner behind the balancer got {answer:?}");
        let answer = ask_from(8, balancer.port, b"", "stranger").await?;
        ensure!(answer.starts_with("SIP/2.0 403"), "a stranger behind the balancer got {answer:?}");
        let stated = b"PROXY TCP4 127.0.0.7 127.0.0.1 40000 5060\r\n";
        let answer = ask_from(1, plain, stated, "version-one").await?;
        ensure!(answer.starts_with("SIP/2.0 200"), "the header of version 1 got {answer:?}");
        let answer = ask_from(1, plain, b"", "bare").await?;
        ensure!(answer.is_empty(), "a balancer without header got {answer:?}");
        // Who is not listed cannot state anything; nor does it need to.
        let answer = ask_from(8, plain, stated, "forged").await?;
        ensure!(!answer.starts_with("SIP/2.0 200"), "a forged header got {answer:?}");
        let answer = ask_from(7, plain, b"", "direct").await?;
        ensure!(answer.starts_with("SIP/2.0 200"), "the partner itself got {answer:?}");
        let metrics = corp.gateway.metrics().await?;
        ensure!(metrics.contains("isthmus_refusals_total{reason=\"proxy_header\"}"), "{metrics}");
        for text in ["balanced", "version-one", "direct"] {
            juliet.wait(text, |r| r.is_message(ANA, text)).await?;
        }

        // The header comes before TLS.
        let balancer = Haproxy::start(lab, tls).await?;
        let good = authority.sign(&[Name::Dns("blue.example")])?;
        let ask = |port| tls_client::exchange(port, "sip.corp.example", &authority.pem, Some(&good), OPTIONS);
        let answer = ask(balancer.port).await?;
        ensure!(answer.starts_with("SIP/2.0 200"), "TLS behind the balancer got {answer:?}");
        ensure!(!ask(tls).await.is_ok_and(|answer| answer.starts_with("SIP/2.0")), "TLS without header was served");
        Ok(())
    })
    .await;
}
