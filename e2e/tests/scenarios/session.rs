//! Sessions both ways with a Microsoft partner: SIPp behind a record-routing TLS edge.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use isthmus_e2e::corp::Corp;
use isthmus_e2e::kamailio::Kamailio;
use isthmus_e2e::knot::Knot;
use isthmus_e2e::lab::{Lab, scenario};
use isthmus_e2e::manifests::Partner;
use isthmus_e2e::pki::{Authority, Name};
use isthmus_e2e::ports;
use isthmus_e2e::sip_trace::{SipMessage, requests_received};
use isthmus_e2e::sipp::{Sipp, SippPlan};

const DANA: &str = "dana@blue.example";
const SOON: Duration = Duration::from_secs(10);

/// `blue.example`: its edge, its name server, and the port behind the edge where SIPp answers.
pub(super) struct Blue {
    pub(super) corp: Corp,
    pub(super) edge: Kamailio,
    pub(super) inside: u16,
    _knot: Knot,
}

/// Starts both organisations; the edge is found by the SRV record that Microsoft publishes.
pub(super) async fn blue(lab: &Lab, users: &[&str], names: &[Name<'_>]) -> Result<Blue> {
    blue_as(lab, users, names, Partner::microsoft("blue.example")).await
}

/// As [`blue`], with switches of its own.
async fn blue_as(lab: &Lab, users: &[&str], names: &[Name<'_>], partner: Partner) -> Result<Blue> {
    let authority = Authority::new("federation test")?;
    let (edge_port, inside) = (ports::free()?, ports::free()?);
    let records = format!("sip A 127.0.0.1\n_sipfederationtls._tcp SRV 0 0 {edge_port} sip");
    let knot = Knot::start(lab, &[("blue.example", &records)]).await?;
    let (prosody, mut realm) = Corp::prepare(lab, users, &["blue.example"]).await?;
    realm.certificate = Some(authority.sign(&[Name::Dns("sip.corp.example"), Name::SipUri("sip:corp.example")])?);
    realm.resolver = Some(knot.port);
    let gateway = format!("sip:127.0.0.1:{};transport=tls", realm.tls_port);
    let target = format!("sip:127.0.0.1:{inside}");
    let edge = Kamailio::edge(lab, "edge", &authority.sign(names)?, &gateway, &target, edge_port).await?;
    let corp = Corp::start(lab, prosody, realm.partner(partner)).await?;
    Ok(Blue { corp, edge, inside, _knot: knot })
}

pub(super) const EDGE: [Name<'static>; 1] = [Name::Dns("sip.blue.example")];

// I-01, I-02, I-03, I-07, A-09, S-25
#[tokio::test]
async fn the_first_message_opens_a_session_and_the_others_follow_in_it_one_by_one() {
    scenario("session-out", async |lab| -> Result<()> {
        let blue = blue(lab, &["juliet"], &EDGE).await?;
        let plan = SippPlan::new("answer_session").at(blue.inside).key("TOAST", "800").key("SLOW", "500");
        let dana = Sipp::start(lab, &plan).await?;
        let juliet = blue.corp.online("juliet").await?;
        for text in ["one", "two", "three"] {
            juliet.chat(DANA, text).await?;
        }
        dana.wait("the third message", SOON, |m| m.received && m.body == "three").await?;
        juliet.chat(DANA, "four").await?;
        dana.wait("the fourth message", SOON, |m| m.received && m.body == "four").await?;
        let seen = dana.messages();
        let invites = requests_received(&seen, "INVITE");
        ensure!(invites.len() == 1, "{} INVITE", invites.len());
        ensure!(!invites[0].header("From").contains("gr="), "{}", invites[0].header("From"));
        let ack = seen.iter().position(|m| m.method() == Some("ACK")).context("no ACK")?;
        let first = seen.iter().position(|m| m.method() == Some("MESSAGE")).context("no MESSAGE")?;
        ensure!(ack < first, "a MESSAGE before the ACK");
        let messages = requests_received(&seen, "MESSAGE");
        let texts: Vec<&str> = messages.iter().map(|m| m.body.as_str()).collect();
        ensure!(texts == ["one", "two", "three", "four"], "{texts:?}");
        ensure!(messages.iter().all(|m| m.header("Call-ID") == invites[0].header("Call-ID")), "another dialog");
        ensure!(messages.windows(2).all(|pair| pair[1].cseq() == pair[0].cseq() + 1), "CSeq");
        // The first answer left after half a second, and nothing came in the meantime.
        let answered = seen.iter().position(|m| m.status() == Some(200) && m.cseq_method() == "MESSAGE");
        let second = seen.iter().position(|m| m.body == "two");
        ensure!(answered < second, "two messages at once");
        juliet.must_not_have("an error", |r| r.kind() == "error")
    })
    .await;
}

// I-02, I-05, I-31
#[tokio::test]
async fn a_reply_comes_back_in_the_session_and_thread() {
    scenario("session-reply", async |lab| -> Result<()> {
        let blue = blue(lab, &["juliet"], &EDGE).await?;
        let plan =
            SippPlan::new("answer_and_reply").at(blue.inside).key("REPLY", "Yes, at noon").key("REPLY_STATUS", "200");
        let dana = Sipp::start(lab, &plan).await?;
        let juliet = blue.corp.online("juliet").await?;
        juliet
            .send_xml(&format!(
                "<message xmlns='jabber:client' type='chat' to='{DANA}' id='m1'><thread>lunch-thread-0001</thread>\
                 <body>Lunch?</body></message>"
            ))
            .await?;
        let reply = juliet.wait("the reply", |r| r.is_message(DANA, "Yes, at noon")).await?;
        ensure!(reply.kind() == "chat", "type {}", reply.kind());
        ensure!(reply.text("thread").as_deref() == Some("lunch-thread-0001"), "thread {:?}", reply.text("thread"));
        let seen = dana.finish().await?;
        ensure!(requests_received(&seen, "INVITE").len() == 1 && requests_received(&seen, "MESSAGE").len() == 1);
        let copies = juliet.received().into_iter().filter(|r| r.is_message(DANA, "Yes, at noon")).count();
        ensure!(copies == 1, "{copies} copies");
        Ok(())
    })
    .await;
}

// I-02, I-04, I-05, I-17, S-15
#[tokio::test]
async fn an_invitation_is_answered_at_once_and_both_write_in_it() {
    scenario("session-in", async |lab| -> Result<()> {
        let blue = blue(lab, &["juliet"], &EDGE).await?;
        let juliet = blue.corp.online("juliet").await?;
        let invite = SippPlan::new("invite_corp")
            .to(blue.edge.port)
            .key("FROM", DANA)
            .key("TO", "juliet@corp.example")
            .key("TEXT", "Are you there?")
            .key("WAIT", "10000");
        let dana = Sipp::start(lab, &invite).await?;
        let stanza = juliet.wait("the message", |r| r.is_message(DANA, "Are you there?")).await?;
        ensure!(stanza.kind() == "chat", "type {}", stanza.kind());
        juliet.chat(stanza.from(), "Always").await?;
        let seen = dana.finish().await?;
        let replies: Vec<&str> = requests_received(&seen, "MESSAGE").iter().map(|m| m.body.as_str()).collect();
        ensure!(replies == ["Always"], "{replies:?}");
        let sent = seen.iter().find(|m| m.method() == Some("INVITE")).and_then(|m| m.at).context("no INVITE")?;
        let ok = seen.iter().find(|m| m.status() == Some(200)).context("no 200")?;
        ensure!(ok.at.is_some_and(|at| at.saturating_sub(sent) < Duration::from_secs(2)), "the answer waited");
        ensure!(ok.header("Record-Route").contains("sip.blue.example"), "Record-Route");
        // The preview in ms-text-format is no message.
        let bodies = juliet.received().into_iter().filter(|r| r.name() == "message" && r.body().is_some()).count();
        ensure!(bodies == 1, "{bodies} messages");
        Ok(())
    })
    .await;
}

// I-11
#[tokio::test]
async fn a_lost_session_is_opened_anew_and_the_message_sent_once_more() {
    scenario("session-481", async |lab| -> Result<()> {
        let blue = blue(lab, &["juliet"], &EDGE).await?;
        let plan = SippPlan::new("answer_session").at(blue.inside).key("THEN", "481 Call Leg Gone").calls(2);
        let dana = Sipp::start(lab, &plan).await?;
        let juliet = blue.corp.online("juliet").await?;
        juliet.chat(DANA, "first").await?;
        dana.wait("the first message", SOON, |m| m.received && m.body == "first").await?;
        juliet.chat(DANA, "second").await?;
        dana.wait("the second message delivered", SOON, |m| m.status() == Some(200) && m.cseq_method() == "MESSAGE")
            .await?;
        let delivered =
            |seen: &[SipMessage]| requests_received(seen, "MESSAGE").iter().filter(|m| m.body == "second").count();
        isthmus_e2e::lab::wait_until("the second try", SOON, || (delivered(&dana.messages()) == 2).then_some(()))
            .await?;
        let seen = dana.messages();
        let calls: Vec<&str> = requests_received(&seen, "INVITE").iter().map(|m| m.header("Call-ID")).collect();
        ensure!(calls.len() == 2 && calls[0] != calls[1], "{calls:?}");
        let tries: Vec<&str> = requests_received(&seen, "MESSAGE")
            .iter()
            .filter(|m| m.body == "second")
            .map(|m| m.header("Call-ID"))
            .collect();
        ensure!(tries == calls, "{tries:?} in {calls:?}");
        juliet.must_not_have("an error", |r| r.kind() == "error")
    })
    .await;
}

// I-13, E-01, E-08
#[tokio::test]
async fn every_message_of_a_refused_session_gets_one_error_with_the_reason() {
    scenario("session-refused", async |lab| -> Result<()> {
        let blue = blue(lab, &["juliet"], &EDGE).await?;
        let plan = SippPlan::new("refuse_invite")
            .at(blue.inside)
            .key("DELAY", "600")
            .key("STATUS", "486")
            .key("REASON", "Do Not Disturb Please");
        let dana = Sipp::start(lab, &plan).await?;
        let juliet = blue.corp.online("juliet").await?;
        let mut ids = Vec::new();
        for text in ["one", "two"] {
            ids.push(juliet.chat(DANA, text).await?);
        }
        dana.finish().await?;
        for id in &ids {
            let error = juliet.wait("the error", |r| r.kind() == "error" && r.attribute("id") == id).await?.error();
            let (kind, condition, text) = error.context("no error element")?;
            ensure!((kind.as_str(), condition.as_str()) == ("wait", "recipient-unavailable"), "{kind} {condition}");
            ensure!(text == "Do Not Disturb Please", "{text}");
        }
        let errors = juliet.received().into_iter().filter(|r| r.kind() == "error").count();
        ensure!(errors == 2, "{errors} errors");
        Ok(())
    })
    .await;
}

// I-04, I-42
#[tokio::test]
async fn a_message_in_a_session_to_an_absent_user_gets_the_bounce() {
    scenario("session-absent", async |lab| -> Result<()> {
        let blue = blue(lab, &["juliet"], &EDGE).await?;
        let invite = SippPlan::new("invite_corp")
            .to(blue.edge.port)
            .key("FROM", DANA)
            .key("TO", "juliet@corp.example")
            .key("TEXT", "Are you there?")
            .key("STATUS", "480")
            .key("WAIT", "300");
        Sipp::run(lab, &invite).await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn a_microsoft_partner_without_sessions_gets_single_messages_where_that_is_allowed() {
    scenario("session-488", async |lab| -> Result<()> {
        let partner = Partner::microsoft("blue.example").switch("imMode", "Auto");
        let blue = blue_as(lab, &["juliet", "romeo"], &EDGE, partner).await?;
        let dana = Sipp::start(lab, &SippPlan::new("single_only").at(blue.inside).calls(4)).await?;
        let juliet = blue.corp.online("juliet").await?;
        for text in ["one", "two"] {
            juliet.chat(DANA, text).await?;
        }
        dana.wait("the second message", SOON, |m| m.received && m.body == "two").await?;
        // The refusal stands for the domain: another user is not tried in a session.
        let romeo = blue.corp.online("romeo").await?;
        romeo.chat(DANA, "three").await?;
        let seen = dana.finish().await?;
        ensure!(requests_received(&seen, "INVITE").len() == 1, "more than one INVITE");
        let messages = requests_received(&seen, "MESSAGE");
        let texts: Vec<&str> = messages.iter().map(|m| m.body.as_str()).collect();
        ensure!(texts == ["one", "two", "three"], "{texts:?}");
        ensure!(messages.iter().all(|m| !m.header("To").contains("tag=")), "in a dialog");
        juliet.must_not_have("an error", |r| r.kind() == "error")?;
        romeo.must_not_have("an error", |r| r.kind() == "error")
    })
    .await;
}
