//! The real peers alone, without the gateway: what the other scenarios build on.

use anyhow::Result;
use isthmus_e2e::baresip::{Baresip, PhonePlan};
use isthmus_e2e::kamailio::{Kamailio, PartnerPlan};
use isthmus_e2e::lab::scenario;
use isthmus_e2e::prosody::{Prosody, ProsodyPlan};

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
