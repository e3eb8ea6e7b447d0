//! Presence both ways with a standard partner.

use std::time::Duration;

use anyhow::{Result, ensure};
use isthmus_e2e::baresip::{Baresip, PhonePlan};
use isthmus_e2e::corp::Corp;
use isthmus_e2e::kamailio::{Kamailio, PartnerPlan};
use isthmus_e2e::lab::scenario;
use isthmus_e2e::manifests::Partner;
use isthmus_e2e::ports;
use isthmus_e2e::sip_trace::SipMessage;
use isthmus_e2e::sipp::{Sipp, SippPlan};

const ANA: &str = "ana@partner.example";

pub(super) fn phone(user: &str, kamailio: &Kamailio, contact: &str, watches: bool) -> PhonePlan {
    PhonePlan { user: user.to_owned(), proxy_port: kamailio.port, contacts: vec![contact.to_owned()], watches }
}

fn requests<'a>(messages: &'a [SipMessage], method: &str) -> Vec<&'a SipMessage> {
    messages.iter().filter(|m| m.method() == Some(method)).collect()
}

// P-10
#[tokio::test]
async fn a_chat_user_sees_a_phone_come_and_go() {
    scenario("presence-out", async |lab| -> Result<()> {
        let (prosody, realm) = Corp::prepare(lab, &["juliet"], &["partner.example"]).await?;
        let kamailio = Kamailio::partner(lab, &PartnerPlan::new(&Corp::plain_route(&realm, "udp"))).await?;
        let realm = realm.partner(Partner::standard("partner.example", "UDP", kamailio.port).kind("Kamailio"));
        let ana = Baresip::start(lab, &phone("ana", &kamailio, "juliet@corp.example", false)).await?;
        let corp = Corp::start(lab, prosody, realm).await?;
        let juliet = corp.online("juliet").await?;
        juliet.presence("subscribe", ANA).await?;
        let granted = juliet.wait("subscribed", |r| r.is_presence("subscribed", ANA)).await?;
        let seen = juliet.wait("ana online", |r| r.is_presence("", ANA)).await?;
        ensure!(granted.at <= seen.at, "presence came before subscribed");
        juliet.forget();
        ana.publish(false).await?;
        juliet.wait("ana offline", |r| r.is_presence("unavailable", ANA)).await?;
        juliet.forget();
        ana.publish(true).await?;
        juliet.wait("ana back", |r| r.is_presence("", ANA)).await?;
        Ok(())
    })
    .await;
}

// N-12
#[tokio::test]
async fn a_phone_sees_a_chat_user_after_the_user_has_accepted() {
    scenario("presence-in", async |lab| -> Result<()> {
        let (prosody, realm) = Corp::prepare(lab, &["juliet"], &["partner.example"]).await?;
        let kamailio = Kamailio::partner(lab, &PartnerPlan::new(&Corp::plain_route(&realm, "udp"))).await?;
        let realm = realm.partner(Partner::standard("partner.example", "UDP", kamailio.port).kind("Kamailio"));
        let corp = Corp::start(lab, prosody, realm).await?;
        let juliet = corp.online("juliet").await?;
        let ana = Baresip::start(lab, &phone("ana", &kamailio, "juliet@corp.example", true)).await?;
        ana.wait_notify("pending", |n| n.subscription_state() == "pending").await?;
        juliet.wait("the request", |r| r.is_presence("subscribe", ANA)).await?;
        juliet.presence("subscribed", ANA).await?;
        ana.wait_notify("juliet online", |n| n.subscription_state() == "active" && n.basic() == Some("open")).await?;
        juliet.unavailable().await?;
        ana.wait("juliet offline", Duration::from_secs(12), |n| {
            n.received && n.method() == Some("NOTIFY") && n.basic() == Some("closed")
        })
        .await?;
        Ok(())
    })
    .await;
}

// P-02, P-03, P-04, P-09, P-10, P-11, P-12, P-17, P-31, S-33
#[tokio::test]
async fn a_subscription_waits_becomes_active_is_refreshed_and_ends() {
    scenario("subscriber", async |lab| -> Result<()> {
        let notifier = Sipp::start(lab, &SippPlan::new("notifier").key("GRANT", "14")).await?;
        let (prosody, realm) = Corp::prepare(lab, &["juliet"], &["partner.example"]).await?;
        let realm = realm.partner(Partner::standard("partner.example", "UDP", notifier.port));
        let corp = Corp::start(lab, prosody, realm).await?;
        let juliet = corp.online("juliet").await?;
        juliet.presence("subscribe", ANA).await?;
        let granted = juliet.wait("subscribed", |r| r.is_presence("subscribed", ANA)).await?;
        let first = juliet
            .wait("unavailable for the empty document", |r| r.is_presence("unavailable", ANA) || r.is_presence("", ANA))
            .await?;
        ensure!(first.kind() == "unavailable", "an empty active document must read as unavailable");
        let away = juliet.wait("away", |r| r.is_presence("", ANA)).await?;
        ensure!(away.text("show").as_deref() == Some("away"), "the activity did not arrive");
        ensure!(away.text("status").as_deref() == Some("At the desk"), "the note did not arrive");
        ensure!(away.from() == "ana@partner.example/desk", "the tuple's resource did not arrive");
        let back = juliet
            .wait_within("the document after the refresh", Duration::from_secs(20), |r| {
                r.is_presence("", ANA) && r.text("status").as_deref() == Some("Back again")
            })
            .await?;
        // Nothing between the two documents: the NOTIFY without body left the first in force.
        let between: Vec<_> = juliet
            .received()
            .into_iter()
            .filter(|r| r.at > away.at && r.at < back.at && r.from_bare() == ANA)
            .collect();
        ensure!(between.is_empty(), "an empty NOTIFY changed something: {between:?}");
        juliet.presence("unsubscribe", ANA).await?;
        let seen = notifier.finish().await?;

        let subscribes = requests(&seen, "SUBSCRIBE");
        ensure!(subscribes.len() == 3, "{} SUBSCRIBE instead of three", subscribes.len());
        for subscribe in &subscribes {
            ensure!(subscribe.all("Event").collect::<Vec<_>>() == ["presence"], "Event");
            ensure!(subscribe.header("Accept") == "application/pidf+xml", "Accept");
            ensure!(!subscribe.header("Supported").contains("ms-"), "Supported");
            ensure!(subscribe.header("Max-Forwards") == "70", "Max-Forwards");
            ensure!(subscribe.header("Call-ID") == subscribes[0].header("Call-ID"), "another dialog");
        }
        let numbers: Vec<u32> = subscribes.iter().map(|s| s.cseq()).collect();
        ensure!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "CSeq {numbers:?}");
        ensure!(requests(&seen, "NOTIFY").iter().all(|n| !n.received), "the subscriber sent NOTIFY");
        let pending = seen.iter().find(|m| m.subscription_state() == "pending").and_then(|m| m.at);
        let active = seen.iter().find(|m| m.subscription_state() == "active").and_then(|m| m.at);
        ensure!(pending < active, "the order of states");
        // The pending NOTIFY made no stanza: the first one after the request is `subscribed`.
        let first = juliet.received().into_iter().find(|r| r.from_bare() == ANA).map(|r| r.kind().to_owned());
        ensure!(first.as_deref() == Some("subscribed"), "a stanza came for the pending state: {first:?}");
        ensure!(granted.kind() == "subscribed", "subscribed");
        Ok(())
    })
    .await;
}

// P-01, P-07
#[tokio::test]
async fn each_local_watcher_gets_a_subscription_of_its_own() {
    scenario("subscribers", async |lab| -> Result<()> {
        let plan = SippPlan::new("notifier").key("GRANT", "600").key("ACCEPT", "202 Accepted").calls(2);
        let notifier = Sipp::start(lab, &plan).await?;
        let (prosody, realm) = Corp::prepare(lab, &["juliet", "romeo"], &["partner.example"]).await?;
        let realm = realm.partner(Partner::standard("partner.example", "UDP", notifier.port));
        let corp = Corp::start(lab, prosody, realm).await?;
        let (juliet, romeo) = (corp.online("juliet").await?, corp.online("romeo").await?);
        for user in [&juliet, &romeo] {
            user.presence("subscribe", ANA).await?;
        }
        for user in [&juliet, &romeo] {
            user.wait("the document", |r| r.is_presence("", ANA)).await?;
        }
        let seen = notifier.messages();
        let mut watchers: Vec<&str> = requests(&seen, "SUBSCRIBE").iter().map(|s| s.header("From")).collect();
        watchers.sort_unstable();
        ensure!(watchers.len() == 2, "{watchers:?}");
        ensure!(watchers[0].contains("sip:juliet@corp.example") && watchers[1].contains("sip:romeo@corp.example"));
        Ok(())
    })
    .await;
}

// N-01, N-02, N-03, N-07, N-09, N-10, N-11, N-12, N-13, N-18, N-22, N-23, N-25, L-04, S-06, S-17
#[tokio::test]
async fn a_watcher_waits_for_the_user_and_then_gets_the_last_state_of_each_burst() {
    scenario("notifier", async |lab| -> Result<()> {
        let port = ports::free()?;
        let (prosody, realm) = Corp::prepare(lab, &["juliet"], &["partner.example"]).await?;
        let realm = realm.partner(Partner::standard("partner.example", "UDP", port));
        let corp = Corp::start(lab, prosody, realm).await?;
        let juliet = corp.online("juliet").await?;
        let watch = SippPlan::new("watch")
            .to(corp.realm.plain_port)
            .at(port)
            .key("FROM", ANA)
            .key("TO", "juliet@corp.example")
            .key("QUIET", "7000");
        let watcher = Sipp::start(lab, &watch).await?;
        let soon = Duration::from_secs(5);
        let pending = watcher.wait("pending", soon, |m| m.received && m.subscription_state() == "pending").await?;
        juliet.wait("the request", |r| r.is_presence("subscribe", ANA)).await?;
        juliet.presence("subscribed", ANA).await?;
        let active = watcher
            .wait("active within two seconds", Duration::from_secs(2), |m| {
                m.subscription_state() == "active" && m.basic() == Some("open")
            })
            .await?;
        for show in ["away", "dnd", "xa"] {
            juliet.available(show, &format!("now {show}")).await?;
        }
        watcher
            .wait("the last state of the burst", Duration::from_secs(8), |m| {
                m.method() == Some("NOTIFY") && m.body.contains("now xa")
            })
            .await?;
        let seen = watcher.finish().await?;

        let accepted = seen.iter().find(|m| m.received && m.status().is_some());
        ensure!(
            accepted
                .is_some_and(|m| m.status() == Some(200) && m.header("Expires").parse::<u32>().is_ok_and(|e| e <= 600))
        );
        ensure!(accepted.is_some_and(|m| !m.has("Record-Route")), "Record-Route");
        ensure!(
            accepted.is_some_and(|m| m.header("Via").contains(&format!("rport={port}"))
                && m.header("Via").contains("received=127.0.0.1"))
        );
        let notifies = requests(&seen, "NOTIFY");
        ensure!(pending.body.is_empty(), "the pending NOTIFY has a body");
        let (from, to) = (seen[0].tag("From"), accepted.map(|m| m.tag("To")).unwrap_or_default());
        for notify in &notifies {
            ensure!(notify.tag("To") == from && notify.tag("From") == to, "tags");
            let state = notify.header("Subscription-State");
            ensure!(state.contains("expires=") || state.contains("reason="), "{state}");
            ensure!(!notify.has("Record-Route"), "Record-Route");
            if !notify.body.is_empty() {
                ensure!(notify.body_element("contact") == Some("sip:juliet@corp.example"), "{}", notify.body);
            }
        }
        let stamps: Vec<&str> = notifies.iter().filter_map(|n| n.body_element("timestamp")).collect();
        ensure!(stamps.len() > 1 && stamps.windows(2).all(|pair| pair[0] < pair[1]), "timestamps {stamps:?}");
        // Changes, after the exempt first states, are five seconds apart.
        let times: Vec<_> = notifies
            .iter()
            .filter(|n| n.subscription_state() == "active")
            .filter_map(|n| n.at)
            .filter(|at| Some(*at) >= active.at)
            .collect();
        ensure!(times.len() >= 2, "no change was notified");
        ensure!(
            times.windows(2).all(|pair| pair[1].saturating_sub(pair[0]) >= Duration::from_millis(4900)),
            "{times:?}"
        );
        let last = notifies.last();
        ensure!(last.is_some_and(|n| n.header("Subscription-State").contains("reason=timeout")), "the end");
        ensure!(last.is_some_and(|n| n.basic() == Some("closed")), "the last document");
        Ok(())
    })
    .await;
}
