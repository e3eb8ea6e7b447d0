//! Shows presence and messages between a chat server and a SIP organisation, on this machine.
//!
//! Prosody serves `corp.example`, Kamailio with two phones is `partner.example`, and the gateway between
//! them runs on the manifests of `e2e/quickstart`. Everything that is told was seen at the far end: in
//! what the chat clients and the phones received. With `ONCE=1` it ends with 0 or 1 after the last step. With `REDIS=1` three
//! gateways share a Redis, and the one that carries the conversation is killed in the middle of it.
#![expect(clippy::print_stdout, reason = "a program that tells a person what happens")]

use std::collections::HashSet;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use isthmus_e2e::baresip::{Baresip, PhonePlan};
use isthmus_e2e::gateway::Gateway;
use isthmus_e2e::kamailio::{Kamailio, PartnerPlan};
use isthmus_e2e::lab::{Lab, wait_until};
use isthmus_e2e::pods::Pods;
use isthmus_e2e::ports;
use isthmus_e2e::prosody::{PASSWORD, Prosody, ProsodyPlan};
use isthmus_e2e::redis::Redis;
use isthmus_e2e::sip_trace::SipMessage;
use isthmus_e2e::xmpp_client::{Received, XmppClient};

// The same numbers stand in the manifests of e2e/quickstart.
const CHAT_PORT: u16 = 25222;
const COMPONENT_PORT: u16 = 25347;
const SIP_PORT: u16 = 25060;
const GATEWAY_PORT: u16 = 25070;
const GATEWAY_TLS_PORT: u16 = 25071;
const ADMIN_PORT: u16 = 25090;
/// How many gateways there are with `REDIS=1`.
const GATEWAYS: u8 = 3;

const JULIET: &str = "juliet@corp.example";
const ROMEO: &str = "romeo@corp.example";
const ANA: &str = "ana@partner.example";
const BOB: &str = "bob@partner.example";
const CARL: &str = "carl@rival.example";

// Programs that are started get a signal when the thread that started them ends: stay on one thread.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let is_set = |name| std::env::var(name).is_ok_and(|value| !value.is_empty() && value != "0");
    let (once, several) = (is_set("ONCE"), is_set("REDIS"));
    let lab = match Lab::new("quickstart") {
        Ok(lab) => lab,
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    tokio::select! {
        outcome = show(&lab, once, several) => match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{}", lab.log_tails());
                eprintln!("\nThe quickstart failed: {error:#}");
                ExitCode::FAILURE
            }
        },
        () = asked_to_end() => {
            println!("\nStopping everything that was started.");
            ExitCode::SUCCESS
        }
    }
}

async fn asked_to_end() {
    let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    match terminate {
        Ok(mut terminate) => tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        },
        Err(_) => drop(tokio::signal::ctrl_c().await),
    }
}

/// The gateways between the two servers.
enum Gateways {
    One(#[expect(dead_code, reason = "it ends when it is dropped")] Gateway),
    Several(Box<Pods>, #[expect(dead_code, reason = "it ends when it is dropped")] Redis),
}

/// Everybody on the stage.
struct Stage {
    prosody: Prosody,
    _kamailio: Kamailio,
    gateways: Gateways,
    juliet: XmppClient,
    romeo: XmppClient,
    ana: Baresip,
    bob: Baresip,
}

async fn show(lab: &Lab, once: bool, several: bool) -> Result<()> {
    let began = Instant::now();
    println!(
        "Isthmus quickstart: two organisations that cannot talk to each other, and the gateway that lets them

  juliet, romeo             corp.example     chat clients, which speak XMPP with their server Prosody
  ana, bob                  partner.example  phones, which speak SIP with their server Kamailio
  the gateway Isthmus       between the two servers, with rules of its own

Everything is real and runs on this machine only. Each line below was seen at the receiver.
"
    );
    let mut stage = set_up(lab, several).await?;
    presence(&stage).await?;
    messages(&stage).await?;
    blocked(&stage).await?;
    death(&mut stage).await?;
    println!("\nAll of it worked, in {:.1} s from the start.", began.elapsed().as_secs_f64());
    if once {
        return Ok(());
    }
    explain_joining(several);
    watch_on(&stage, began).await
}

async fn set_up(lab: &Lab, several: bool) -> Result<Stage> {
    let needed = [CHAT_PORT, COMPONENT_PORT, SIP_PORT, GATEWAY_PORT, GATEWAY_TLS_PORT, ADMIN_PORT];
    for port in needed {
        ensure!(ports::is_free(port), "port {port} is in use on this machine; end what listens there and try again");
    }
    println!("Starting");
    let started = Instant::now();
    let mut plan =
        ProsodyPlan::corp(&["juliet", "romeo", "you"], &["partner.example", "rival.example", "fed.corp.example"]);
    plan.ports = Some((CHAT_PORT, COMPONENT_PORT));
    plan.newest_wins = several;
    let prosody = Prosody::start(lab, &plan).await?;
    step(started, "Prosody, the chat server of corp.example, is up");

    let started = Instant::now();
    let mut plan = PartnerPlan::new(&format!("sip:127.0.0.1:{GATEWAY_PORT};transport=udp"));
    plan.users.push("you".to_owned());
    plan.port = Some(SIP_PORT);
    let kamailio = Kamailio::partner(lab, &plan).await?;
    step(started, "Kamailio, the SIP server of partner.example, is up");

    let started = Instant::now();
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("quickstart");
    let gateways = if several {
        let redis = Redis::start(lab).await?;
        step(started, "Redis is up, the memory that three gateways share");
        let store = redis.declaration("");
        let pods = Pods::start_like(lab, &manifests, GATEWAYS, (GATEWAY_PORT, ADMIN_PORT), &store).await?;
        Gateways::Several(Box::new(pods), redis)
    } else {
        Gateways::One(Gateway::on(&manifests, &lab.folder("gateway")?, ADMIN_PORT).await?)
    };
    prosody.wait_component("partner.example").await?;
    prosody.wait_component("rival.example").await?;
    let what = match gateways {
        Gateways::One(_) => "the gateway is up, and joined to both; its settings are the files e2e/quickstart/*.yaml",
        Gateways::Several(..) => "three gateways behind one address are up, with the settings of e2e/quickstart/*.yaml",
    };
    step(started, what);

    let started = Instant::now();
    let juliet = prosody.login("juliet", "laptop").await?;
    let romeo = prosody.login("romeo", "phone").await?;
    juliet.come_online().await?;
    romeo.come_online().await?;
    step(started, "juliet and romeo log in with their chat clients");

    let started = Instant::now();
    let phone = |user: &str, contact: &str, watches: bool| PhonePlan {
        user: user.to_owned(),
        proxy_port: SIP_PORT,
        contacts: vec![contact.to_owned()],
        watches,
    };
    let ana = Baresip::start(lab, &phone("ana", JULIET, true)).await?;
    let bob = Baresip::start(lab, &phone("bob", ROMEO, false)).await?;
    step(started, "ana and bob switch their phones on (a program named baresip)");
    Ok(Stage { prosody, _kamailio: kamailio, gateways, juliet, romeo, ana, bob })
}

fn step(started: Instant, what: &str) {
    println!("  {:>5.2} s  {what}", started.elapsed().as_secs_f64());
}

async fn presence(stage: &Stage) -> Result<()> {
    let Stage { juliet, ana, .. } = stage;
    println!("\nPresence: who sees whether somebody is there");
    println!("  {ANA} has {JULIET} among the contacts of the phone, which asks to see her");
    ana.wait_notify("the request is noted", |n| n.subscription_state() == "pending").await?;
    println!("  the phone is told to wait: juliet has not decided yet");
    juliet.wait("the request", |r| r.is_presence("subscribe", ANA)).await?;
    println!("  juliet's chat client asks her, and she allows it");
    juliet.presence("subscribed", ANA).await?;
    let seen = ana.wait_notify("juliet", |n| n.subscription_state() == "active" && n.basic() == Some("open")).await?;
    println!("  ana now sees juliet as {}", told_by_sip(&seen));

    println!("  {JULIET} adds {ANA} to her contacts");
    juliet.presence("subscribe", ANA).await?;
    juliet.wait("the permission", |r| r.is_presence("subscribed", ANA)).await?;
    let seen = juliet.wait("ana", |r| r.is_presence("", ANA)).await?;
    println!("  juliet now sees ana as {}", told_by_xmpp(&seen));

    println!("  juliet sets her client to \"away: at lunch\" (changes are sent at most every 5 s)");
    juliet.available("away", "at lunch").await?;
    let seen = ana
        .wait("juliet away", Duration::from_secs(10), |m| {
            m.received && m.method() == Some("NOTIFY") && m.body.contains("at lunch")
        })
        .await?;
    println!("  ana now sees juliet as {}", told_by_sip(&seen));

    println!("  ana sets the phone to offline");
    juliet.forget();
    ana.publish(false).await?;
    let seen = juliet.wait("ana offline", |r| r.is_presence("unavailable", ANA)).await?;
    println!("  juliet now sees ana as {}", told_by_xmpp(&seen));
    juliet.forget();
    ana.publish(true).await?;
    let seen = juliet.wait("ana online again", |r| r.is_presence("", ANA)).await?;
    println!("  and back: juliet sees ana as {}", told_by_xmpp(&seen));
    Ok(())
}

/// A presence stanza in words.
fn told_by_xmpp(seen: &Received) -> String {
    let mut words = match (seen.kind(), seen.text("show").as_deref()) {
        ("unavailable", _) => "offline".to_owned(),
        (_, Some(show)) => format!("online ({show})"),
        (_, None) => "online".to_owned(),
    };
    if let Some(status) = seen.text("status") {
        words = format!("{words}, \"{status}\"");
    }
    words
}

/// A presence document in words.
fn told_by_sip(seen: &SipMessage) -> String {
    let mut words = match (seen.basic(), seen.body.contains("away")) {
        (Some("open"), true) => "online (away)".to_owned(),
        (Some("open"), false) => "online".to_owned(),
        _ => "offline".to_owned(),
    };
    if let Some(note) = seen.body_element("note") {
        words = format!("{words}, \"{note}\"");
    }
    words
}

async fn messages(stage: &Stage) -> Result<()> {
    println!("\nMessages: sender, receiver, the time until the receiver had it, and the text");
    to_sip(&stage.juliet, &stage.ana, ANA, "Lunch at noon?").await?;
    to_xmpp(&stage.ana, &stage.juliet, ANA, "Gladly. The caf\u{e9} on the corner?").await?;
    to_sip(&stage.romeo, &stage.bob, BOB, "We never met. Do you read me?").await?;
    to_xmpp(&stage.bob, &stage.romeo, BOB, "Loud and clear").await
}

async fn to_sip(sender: &XmppClient, phone: &Baresip, to: &str, text: &str) -> Result<()> {
    let sent = Instant::now();
    sender.chat(to, text).await?;
    phone.wait_message(text).await?;
    arrived(sender.bare(), to, text, sent.elapsed());
    Ok(())
}

async fn to_xmpp(phone: &Baresip, receiver: &XmppClient, from: &str, text: &str) -> Result<()> {
    let sent = Instant::now();
    phone.message(text).await?;
    let seen = receiver.wait("the message", |r| r.is_message(from, text)).await?;
    arrived(from, receiver.bare(), text, seen.at.saturating_duration_since(sent));
    Ok(())
}

fn arrived(from: &str, to: &str, text: &str, took: Duration) {
    println!("  {from:<20} -> {to:<20} {:>4} ms  \"{text}\"", took.as_millis());
}

async fn blocked(stage: &Stage) -> Result<()> {
    println!("\nBlocked: a rule stops a message before it leaves");
    let text = "Psst, our new prices are ...";
    let sent = Instant::now();
    let id = stage.juliet.chat(CARL, text).await?;
    let error = stage.juliet.wait("the refusal", |r| r.kind() == "error" && r.attribute("id") == id).await?;
    let took = error.at.saturating_duration_since(sent);
    let (_, condition, reason) = error.error().context("the refusal has no reason")?;
    // Kamailio would have answered for a domain that it does not serve, in its own words.
    if condition == "forbidden" && reason.contains("not served") {
        bail!("the message to {CARL} was not stopped by the rule: it reached the SIP server");
    }
    println!("  {JULIET:<20} -> {CARL:<20} {:>4} ms  \"{text}\"  NOT SENT", took.as_millis());
    println!("  Juliet's client shows the reason ({condition}):");
    println!("    {reason}");
    println!("  The rule no-rival stands in e2e/quickstart/4-rival.example.yaml: nobody may talk to a competitor.");
    Ok(())
}

/// Kills the gateway that carries the conversation, in the middle of it.
async fn death(stage: &mut Stage) -> Result<()> {
    let Stage { prosody, gateways: Gateways::Several(pods, _), juliet, ana, .. } = stage else { return Ok(()) };
    println!("\nA gateway dies: three of them share what they know in a Redis");
    let holder = pods.holder("partner.example").await.context("no gateway has the link to Prosody")?;
    let logins = prosody.component_logins("partner.example");
    println!("  gateway {} holds the link to Prosody, and is killed (kill -9)", holder + 1);
    let killed = Instant::now();
    pods.kill(holder)?;
    // Sent into the gap: it waits in a living gateway until the link is there.
    to_xmpp(ana, juliet, ANA, "Are you still there?").await?;
    let taken = || (prosody.component_logins("partner.example") > logins).then_some(());
    wait_until("another gateway at Prosody", Duration::from_secs(10), taken).await?;
    println!("  another gateway has taken over, at most {:.1} s after the death", killed.elapsed().as_secs_f64());
    to_sip(juliet, ana, ANA, "Of course. What should have happened?").await?;
    println!("  juliet sets her client to \"dnd: dessert\"");
    juliet.available("dnd", "dessert").await?;
    let seen = ana
        .wait("juliet at her dessert", Duration::from_secs(10), |m| {
            m.received && m.method() == Some("NOTIFY") && m.body.contains("dessert")
        })
        .await?;
    println!("  ana now sees juliet as {}, in the subscription that she made before", told_by_sip(&seen));
    pods.run(holder).await?;
    println!("  gateway {} is started again, and stands by", holder + 1);
    Ok(())
}

fn explain_joining(several: bool) {
    let admin = if several { "127.0.0.11" } else { "127.0.0.1" };
    let settings = if several {
        "settings that all three began with (this lab does not watch them)"
    } else {
        "its settings: save a change, and it is in force within a second"
    };
    println!(
        "
Join with your own programs (on this machine only; nothing is encrypted)
  As a chat user (XMPP)   account you@corp.example, password {PASSWORD}
                          server 127.0.0.1, port {CHAT_PORT}, no TLS, plain password allowed
                          in profanity: /connect you@corp.example server 127.0.0.1 port {CHAT_PORT} tls disable
                          then write to {BOB}, or add {ANA} as a contact
  As a phone user (SIP)   account you@partner.example, any password
                          proxy and registrar 127.0.0.1, port {SIP_PORT}, UDP
                          in baresip, a line of ~/.baresip/accounts:
                          <sip:you@partner.example>;auth_pass=any;outbound=\"sip:127.0.0.1:{SIP_PORT};transport=udp\"
                          then write to {ROMEO}, or add {JULIET} as a contact
  With both at once       you@corp.example and you@partner.example can write to each other
  juliet and romeo accept whoever asks to see them; ana and bob show what they get, and do not answer.

Watch and change the gateway
  http://{admin}:{ADMIN_PORT}/v1/status   what it is connected to
  http://{admin}:{ADMIN_PORT}/metrics     what it counts
  e2e/quickstart/*.yaml             {settings}

What the four get from now on, with the seconds since the start (Ctrl-C ends it):"
    );
}

/// Tells what the four clients get, lets juliet and romeo accept whoever asks, until the program is ended.
async fn watch_on(stage: &Stage, began: Instant) -> Result<()> {
    let users = [&stage.juliet, &stage.romeo];
    let phones = [&stage.ana, &stage.bob];
    let mut stanzas = users.map(|user| user.received().len());
    let mut packets = phones.map(|phone| phone.trace().len());
    let mut requests = HashSet::new();
    loop {
        for (user, seen) in users.iter().zip(&mut stanzas) {
            let received = user.received();
            for stanza in received.iter().skip(*seen) {
                tell_stanza(user, stanza, began).await?;
            }
            *seen = received.len();
        }
        for (phone, seen) in phones.iter().zip(&mut packets) {
            let trace = phone.trace();
            for message in trace.iter().skip(*seen).filter(|m| m.received) {
                // Over UDP a request comes again when the phone was slow to answer; it is told once.
                if requests.insert(message.header("Via").to_owned()) {
                    tell_packet(phone, message, began);
                }
            }
            *seen = trace.len();
        }
        // The phones' traces are files that are read again: twice a second is enough for a person.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The time of a line, in seconds since the start.
fn at(began: Instant) -> String {
    format!("{:>7.1} s", began.elapsed().as_secs_f64())
}

async fn tell_stanza(user: &XmppClient, stanza: &Received, began: Instant) -> Result<()> {
    let (me, from) = (user.bare(), stanza.from_bare());
    match (stanza.name(), stanza.kind()) {
        ("presence", "subscribe") => {
            println!("{}  {from} asks to see {me}, who allows it", at(began));
            user.presence("subscribed", from).await?;
        }
        ("presence", "" | "unavailable") if from != me => {
            println!("{}  {me} sees {from} as {}", at(began), told_by_xmpp(stanza));
        }
        ("message", kind) if kind != "error" => {
            if let Some(body) = stanza.body() {
                println!("{}  {from} -> {me}  \"{}\"", at(began), body.trim_end());
            }
        }
        _ => {}
    }
    Ok(())
}

fn tell_packet(phone: &Baresip, message: &SipMessage, began: Instant) {
    let me = phone.address.trim_start_matches("sip:");
    let from = message.header("From").split(['<', '>', ';']).find(|part| part.starts_with("sip:")).unwrap_or_default();
    let from = from.trim_start_matches("sip:");
    match message.method() {
        Some("MESSAGE") => println!("{}  {from} -> {me}  \"{}\"", at(began), message.body.trim_end()),
        Some("NOTIFY") if !message.body.is_empty() => {
            println!("{}  {me} sees {from} as {}", at(began), told_by_sip(message));
        }
        _ => {}
    }
}
