//! Who may see and write to whom, and that the decision is remembered.

use std::time::Duration;

use anyhow::{Result, ensure};
use isthmus_e2e::corp::Corp;
use isthmus_e2e::gateway::Gateway;
use isthmus_e2e::lab::scenario;
use isthmus_e2e::manifests::Partner;
use isthmus_e2e::ports;
use isthmus_e2e::sip_trace::SipMessage;
use isthmus_e2e::sipp::{Sipp, SippPlan};

const ANA: &str = "ana@partner.example";
const SOON: Duration = Duration::from_secs(5);

fn watch(name: &str, corp: &Corp, port: u16, from: &str, to: &str, quiet: &str) -> SippPlan {
    SippPlan::new("watch")
        .named(name)
        .at(port)
        .to(corp.realm.plain_port)
        .key("FROM", from)
        .key("TO", to)
        .key("QUIET", quiet)
}

fn states(seen: &[SipMessage]) -> Vec<(&str, Option<&str>)> {
    seen.iter().filter(|m| m.method() == Some("NOTIFY")).map(|m| (m.subscription_state(), m.basic())).collect()
}

// L-01
#[tokio::test]
async fn a_domain_that_is_not_permitted_is_refused_and_nobody_hears_of_it() {
    scenario("policy-domain", async |lab| -> Result<()> {
        let port = ports::free()?;
        let (prosody, realm) = Corp::prepare(lab, &["juliet"], &["partner.example", "rude.example"]).await?;
        let realm = realm
            .partner(Partner::standard("partner.example", "UDP", port))
            .partner(Partner::standard("rude.example", "UDP", port))
            .rules("abuse", &["{name: rude, action: Deny, remote: {domains: [rude.example]}}"]);
        let corp = Corp::start(lab, prosody, realm).await?;
        let juliet = corp.online("juliet").await?;
        for (name, from) in [("stranger", "eve@stranger.example"), ("denied", "eve@rude.example")] {
            let plan = SippPlan::new("request")
                .named(name)
                .at(port)
                .to(corp.realm.plain_port)
                .key("METHOD", "SUBSCRIBE")
                .key("FROM", from)
                .key("TO", "juliet@corp.example")
                .key("EXTRA", "Event: presence\r\nContact: <sip:eve@127.0.0.1:9>")
                .key("STATUS", "403")
                .key("QUIET", "700");
            let seen = Sipp::run(lab, &plan).await?;
            ensure!(states(&seen).is_empty(), "{name}: a NOTIFY came");
        }
        juliet.must_not_have("a request", |r| r.from().contains("eve@"))
    })
    .await;
}

// L-04, L-05, L-06
#[tokio::test]
async fn an_allowed_watcher_is_not_asked_about_again_not_even_after_a_restart() {
    scenario("policy-allow", async |lab| -> Result<()> {
        let port = ports::free()?;
        let (prosody, realm) = Corp::prepare(lab, &["juliet"], &["partner.example"]).await?;
        let corp = Corp::start(lab, prosody, realm.partner(Partner::standard("partner.example", "UDP", port))).await?;
        let juliet = corp.online("juliet").await?;
        let first = Sipp::start(lab, &watch("first", &corp, port, ANA, "juliet@corp.example", "2500")).await?;
        juliet.wait("the request", |r| r.is_presence("subscribe", ANA)).await?;
        ensure!(states(&first.messages()).iter().all(|(state, _)| *state == "pending"), "not pending");
        juliet.presence("subscribed", ANA).await?;
        let seen = first.finish().await?;
        ensure!(states(&seen).contains(&("active", Some("open"))), "{:?}", states(&seen));
        let asked = juliet.received().into_iter().filter(|r| r.is_presence("subscribe", ANA)).count();
        ensure!(asked == 1, "asked {asked} times");
        juliet.forget();

        let second = Sipp::run(lab, &watch("second", &corp, port, ANA, "juliet@corp.example", "2500")).await?;
        ensure!(states(&second).iter().all(|(state, _)| *state != "pending"), "{:?}", states(&second));
        ensure!(states(&second).contains(&("active", Some("open"))), "{:?}", states(&second));
        juliet.must_not_have("a second question", |r| r.is_presence("subscribe", ANA))?;

        let Corp { prosody, gateway, realm } = corp;
        let folder = gateway.folder().to_owned();
        gateway.kill();
        let gateway = Gateway::resume(&folder, realm.admin_port).await?;
        let corp = Corp { prosody, gateway, realm };
        isthmus_e2e::lab::wait_until("the component is back", Duration::from_secs(15), || {
            (corp.prosody.component_logins("partner.example") > 1).then_some(())
        })
        .await?;
        let third = Sipp::run(lab, &watch("third", &corp, port, ANA, "juliet@corp.example", "2500")).await?;
        ensure!(states(&third).iter().all(|(state, _)| *state != "pending"), "{:?}", states(&third));
        juliet.must_not_have("a third question", |r| r.is_presence("subscribe", ANA))
    })
    .await;
}

/// A NOTIFY or answer without what must differ between two dialogs.
fn stripped(message: &SipMessage, user: &str) -> String {
    let mut text = format!(
        "{}\n",
        message.start.split(' ').skip(usize::from(message.status().is_none()) * 2).collect::<Vec<_>>().join(" ")
    );
    for (name, value) in &message.headers {
        let value = match name.to_ascii_lowercase().as_str() {
            "via" | "call-id" | "cseq" | "contact" => "…".to_owned(),
            "from" | "to" => value.split(";tag=").next().unwrap_or_default().to_owned(),
            "subscription-state" => value.split("expires=").next().unwrap_or_default().to_owned(),
            _ => value.clone(),
        };
        text.push_str(name);
        text.push_str(": ");
        text.push_str(&value);
        text.push('\n');
    }
    let body = match message.body_element("timestamp") {
        Some(stamp) => message.body.replace(stamp, "…"),
        None => message.body.clone(),
    };
    text.push_str(&body);
    text.replace(user, "watcher")
}

// L-07, L-08, L-09
#[tokio::test]
async fn a_denied_watcher_sees_just_what_a_watcher_of_an_absent_user_sees() {
    scenario("policy-deny", async |lab| -> Result<()> {
        let port = ports::free()?;
        let (prosody, realm) = Corp::prepare(lab, &["juliet"], &["partner.example"]).await?;
        let corp = Corp::start(lab, prosody, realm.partner(Partner::standard("partner.example", "UDP", port))).await?;
        let juliet = corp.online("juliet").await?;
        let bob = "bob@partner.example";
        // Ana is denied while she waits; bob is allowed.
        let ana = Sipp::start(lab, &watch("ana-first", &corp, port, ANA, "juliet@corp.example", "6500")).await?;
        juliet.wait("the request", |r| r.is_presence("subscribe", ANA)).await?;
        juliet.presence("unsubscribed", ANA).await?;
        ana.wait("the offline document", SOON, |m| m.subscription_state() == "active" && m.basic() == Some("closed"))
            .await?;
        // Her next hours bring nothing, whatever juliet does.
        juliet.available("dnd", "busy").await?;
        juliet.available("", "free").await?;
        let seen = ana.finish().await?;
        let told: Vec<_> = states(&seen).into_iter().filter(|(state, _)| *state == "active").collect();
        ensure!(told == [("active", Some("closed"))], "{told:?}");

        let first = Sipp::start(lab, &watch("bob-first", &corp, port, bob, "juliet@corp.example", "2000")).await?;
        juliet.wait("the request", |r| r.is_presence("subscribe", bob)).await?;
        juliet.presence("subscribed", bob).await?;
        first.finish().await?;
        juliet.forget();

        juliet.unavailable().await?;
        let denied = Sipp::run(lab, &watch("ana-second", &corp, port, ANA, "juliet@corp.example", "2000")).await?;
        let absent = Sipp::run(lab, &watch("bob-second", &corp, port, bob, "juliet@corp.example", "2000")).await?;
        let shown = |seen: &[SipMessage], user: &str| {
            seen.iter().filter(|m| m.received).map(|m| stripped(m, user)).collect::<Vec<_>>()
        };
        let (denied, absent) = (shown(&denied, "ana"), shown(&absent, "bob"));
        ensure!(denied == absent, "a denied watcher can tell:\n{denied:#?}\n{absent:#?}");
        juliet.must_not_have("a second question", |r| r.is_presence("subscribe", ANA))
    })
    .await;
}

// L-13
#[tokio::test]
async fn a_rule_drops_messages_as_if_delivered_or_hides_the_user() {
    scenario("policy-rules", async |lab| -> Result<()> {
        let port = ports::free()?;
        let (prosody, realm) = Corp::prepare(lab, &["juliet"], &["partner.example"]).await?;
        let realm = realm.partner(Partner::standard("partner.example", "UDP", port)).rules(
            "abuse",
            &[
                "{name: drop, action: Deny, response: Drop, remote: {users: [\"dropped@partner.example\"]}}",
                "{name: hide, action: Deny, response: Polite, remote: {users: [\"hidden@partner.example\"]}}",
            ],
        );
        let corp = Corp::start(lab, prosody, realm).await?;
        let juliet = corp.online("juliet").await?;
        for (user, status) in [("dropped", "200"), ("hidden", "480"), ("ana", "200")] {
            let plan = SippPlan::new("request")
                .named(user)
                .at(port)
                .to(corp.realm.plain_port)
                .key("METHOD", "MESSAGE")
                .key("FROM", &format!("{user}@partner.example"))
                .key("TO", "juliet@corp.example")
                .key("EXTRA", "Content-Type: text/plain")
                .key("BODY", "hello")
                .key("STATUS", status);
            Sipp::run(lab, &plan).await?;
        }
        juliet.wait("ana's message", |r| r.is_message(ANA, "hello")).await?;
        juliet.must_not_have("a blocked message", |r| r.name() == "message" && r.from_bare() != ANA)
    })
    .await;
}
