//! One gateway with its state in Redis.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use isthmus_e2e::corp::Corp;
use isthmus_e2e::gateway::Gateway;
use isthmus_e2e::lab::{Lab, scenario, wait_for};
use isthmus_e2e::manifests::{Partner, Realm};
use isthmus_e2e::pki::{Authority, Certificate, Name};
use isthmus_e2e::ports;
use isthmus_e2e::prosody::Prosody;
use isthmus_e2e::redis::Redis;
use isthmus_e2e::sip_agent::{Dialog, Event, SipAgent};
use isthmus_e2e::xmpp_client::XmppClient;
use tokio::sync::mpsc::UnboundedReceiver;

const ANA: &str = "ana@partner.example";
const JULIET: &str = "juliet@corp.example";
const LONG: Duration = Duration::from_secs(20);

async fn realm(lab: &Lab, port: u16) -> Result<(Prosody, Realm)> {
    let (prosody, realm) = Corp::prepare(lab, &["juliet"], &["partner.example"]).await?;
    let partner = Partner::standard("partner.example", "UDP", port).switch("imMode", "Pager");
    Ok((prosody, realm.partner(partner)))
}

async fn event(what: &str, events: &mut UnboundedReceiver<Event>, matches: impl Fn(&Event) -> bool) -> Result<()> {
    let mut others = Vec::new();
    let found = async {
        while let Some(event) = events.recv().await {
            if let Event::Wrong(what) = event {
                bail!("{what}");
            }
            if matches(&event) {
                return Ok(());
            }
            others.push(event);
        }
        bail!("the agent ended")
    };
    let found = tokio::time::timeout(LONG, found).await;
    found.with_context(|| format!("{what}: not seen within {LONG:?}, only {others:?}"))?
}

fn shows(event: &Event, wanted: &str) -> bool {
    matches!(event, Event::Notified { state, basic, .. } if state.starts_with("active") && basic.as_deref() == Some(wanted))
}

// In both directions, and killed while the answer to a NOTIFY may be outstanding.
// P-38
#[tokio::test]
async fn a_killed_gateway_finds_its_subscriptions_in_redis() {
    scenario("redis-kill", async |lab| -> Result<()> {
        let redis = Redis::start(lab).await?;
        let port = ports::free()?;
        let (prosody, mut realm) = realm(lab, port).await?;
        realm.state_store = Some(redis.declaration(""));
        let proxy = ([127, 0, 0, 1], realm.plain_port).into();
        let (agent, mut events) = SipAgent::start("partner.example", port, proxy, false).await?;
        let Corp { prosody, gateway, realm } = Corp::start(lab, prosody, realm).await?;
        let juliet = prosody.login("juliet", "home").await?;
        juliet.come_online().await?;

        let status = agent.message("ana", JULIET, "before").await;
        ensure!(status.is_some_and(|status| status / 100 == 2), "MESSAGE answered {status:?}");
        juliet.wait("the message", |r| r.is_message(ANA, "before")).await?;
        juliet.chat(ANA, "and back").await?;
        event("the message back", &mut events, |e| matches!(e, Event::Message { text, .. } if text == "and back"))
            .await?;
        agent.show("ana", "open first");
        juliet.presence("subscribe", ANA).await?;
        juliet.wait("ana's first state", |r| r.text("status").as_deref() == Some("open first")).await?;
        ensure!(agent.watched_by(JULIET, "ana") == 1, "juliet's own subscription");
        let dialog = agent.watch("ana", JULIET, 3600).await.map_err(|status| anyhow::anyhow!("SUBSCRIBE: {status}"))?;
        juliet.wait("the request", |r| r.is_presence("subscribe", ANA)).await?;
        juliet.presence("subscribed", ANA).await?;
        event("juliet online", &mut events, |e| shows(e, "open")).await?;
        let (call_id, before) = (dialog.call_id(), dialog.last_notify());

        let (folder, logins) = (gateway.folder().to_owned(), prosody.component_logins("partner.example"));
        gateway.kill();
        // Nothing of the first process is left but Redis.
        std::fs::remove_dir_all(folder.join("state"))?;
        let gateway = Gateway::resume(&folder, realm.admin_port).await?;
        wait_for("the link is back", LONG, || {
            let back = prosody.component_logins("partner.example") > logins;
            async move { Ok(back.then_some(())) }
        })
        .await?;
        juliet.unavailable().await?;
        event("juliet offline", &mut events, |e| shows(e, "closed")).await?;
        ensure!(!dialog.ended() && dialog.last_notify() > before, "the dialog {call_id} did not go on");
        ensure!(dialog.refresh(3600).await / 100 == 2, "the dialog cannot be refreshed");
        agent.show("ana", "open second");
        juliet.come_online().await?;
        juliet.wait("ana's second state", |r| r.text("status").as_deref() == Some("open second")).await?;
        ensure!(agent.watched_by(JULIET, "ana") == 1, "juliet's own subscription was lost or doubled");
        let store = gateway.status().await?["stateStore"].clone();
        ensure!(store["backend"] == "redis" && store["mode"] == "Standalone", "{store}");
        ensure!(store["durable"] == true && store["state"] == "Ready", "{store}");
        Ok(())
    })
    .await;
}

pub(crate) async fn wait_store(gateway: &Gateway, state: &str, reason: Option<&str>) -> Result<()> {
    wait_for(&format!("the store is {state}, {reason:?}"), LONG, || async {
        let store = gateway.status().await?["stateStore"].clone();
        let metrics = gateway.metrics().await?;
        let found = store["findings"].as_array().is_some_and(|f| f.iter().any(|f| f["reason"].as_str() == reason));
        let up = if state == "Down" { "isthmus_state_store_up 0" } else { "isthmus_state_store_up 1" };
        let counted =
            reason.is_none_or(|r| metrics.contains(&format!("isthmus_state_store_finding{{reason=\"{r}\"}} 1")));
        let right = store["state"] == state && (reason.is_none() || found) && counted && metrics.contains(up);
        Ok(right.then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_wrong_password_of_redis_is_named_and_a_new_one_needs_no_restart() {
    scenario("redis-password", async |lab| -> Result<()> {
        let redis = Redis::start(lab).await?;
        redis.ask(&["ACL", "SETUSER", "isthmus", "reset", "on", ">first", "~*", "&*", "+@all"])?;
        let port = ports::free()?;
        let (prosody, mut realm) = realm(lab, port).await?;
        realm.state_store =
            Some(redis.declaration(", authSecretRef: {name: redis-auth, userKey: user, passwordKey: password}"));
        let secret = lab.folder("gateway")?.join("secrets/redis-auth");
        std::fs::create_dir_all(&secret)?;
        std::fs::write(secret.join("user"), "isthmus")?;
        std::fs::write(secret.join("password"), "first\n")?;
        let corp = Corp::start(lab, prosody, realm).await?;
        wait_store(&corp.gateway, "Ready", None).await?;

        redis.ask(&["ACL", "SETUSER", "isthmus", "resetpass", ">second"])?;
        redis.ask(&["CLIENT", "KILL", "USER", "isthmus"])?;
        wait_store(&corp.gateway, "Down", Some("AuthenticationFailed")).await?;
        ensure!(corp.gateway.page("/readyz").await?.status == 200, "a fault of the store made the gateway unready");
        let shown = corp.gateway.status().await?.to_string();
        ensure!(!shown.contains("first"), "a password is shown: {shown}");

        std::fs::write(secret.join("password"), "second")?;
        wait_store(&corp.gateway, "Ready", None).await?;
        let metrics = corp.gateway.metrics().await?;
        ensure!(
            metrics.contains("isthmus_state_store_finding{reason=\"AuthenticationFailed\"} 0"),
            "the finding stays"
        );

        // Another server is another matter: it is taken at the next start, and that is said until it is not so any more.
        let file = corp.gateway.manifest("realm.yaml");
        let declared = std::fs::read_to_string(&file)?;
        let noticed = async |wanted: bool| {
            wait_for("what is said of the store", LONG, || async {
                let notices = corp.gateway.config().await?["notices"].to_string();
                Ok((notices.contains("stateStore changed: it is taken at the next start") == wanted).then_some(()))
            })
            .await
        };
        noticed(false).await?;
        std::fs::write(&file, declared.replace(&format!("127.0.0.1:{}", redis.port), "127.0.0.1:1"))?;
        noticed(true).await?;
        wait_store(&corp.gateway, "Ready", None).await?;
        std::fs::write(&file, declared)?;
        noticed(false).await
    })
    .await;
}

/// A realm on one Redis, in which juliet and ana watch each other.
struct Friends {
    redis: Redis,
    agent: SipAgent,
    events: UnboundedReceiver<Event>,
    corp: Corp,
    juliet: XmppClient,
    /// Ana's subscription to juliet.
    dialog: Dialog,
}

impl Friends {
    async fn meet(lab: &Lab) -> Result<Self> {
        let redis = Redis::start(lab).await?;
        let port = ports::free()?;
        let (prosody, mut realm) = realm(lab, port).await?;
        realm.state_store = Some(redis.declaration(""));
        let proxy = ([127, 0, 0, 1], realm.plain_port).into();
        let (agent, mut events) = SipAgent::start("partner.example", port, proxy, false).await?;
        let corp = Corp::start(lab, prosody, realm).await?;
        let juliet = corp.online("juliet").await?;
        agent.show("ana", "open first");
        juliet.presence("subscribe", ANA).await?;
        juliet.wait("ana's first state", |r| r.text("status").as_deref() == Some("open first")).await?;
        let dialog = agent.watch("ana", JULIET, 3600).await.map_err(|status| anyhow::anyhow!("SUBSCRIBE: {status}"))?;
        juliet.wait("the request", |r| r.is_presence("subscribe", ANA)).await?;
        juliet.presence("subscribed", ANA).await?;
        event("juliet online", &mut events, |e| shows(e, "open")).await?;
        Ok(Self { redis, agent, events, corp, juliet, dialog })
    }
}

/// How the store of a realm fails.
#[derive(Debug, Clone, Copy)]
enum Failure {
    /// It is killed, and started again on what it has written.
    Killed,
    /// It takes no writes, for want of memory.
    Full,
    /// It wants a password that the gateway does not have.
    OtherPassword,
}

/// Messages pass, what needs the store is refused for a while, nobody is told anything wrong, and all goes on afterwards
/// without a restart.
async fn outlive(lab: &Lab, failure: Failure) -> Result<()> {
    let Friends { mut redis, agent, mut events, corp, juliet, dialog } = Friends::meet(lab).await?;
    let status = agent.message("ana", JULIET, "before").await;
    ensure!(status.is_some_and(|status| status / 100 == 2), "MESSAGE answered {status:?}");

    let reason = match failure {
        Failure::Killed => {
            redis.kill();
            Some("Unreachable")
        }
        Failure::Full => {
            redis.ask(&["CONFIG", "SET", "maxmemory", "1"])?;
            None
        }
        Failure::OtherPassword => {
            redis.ask(&["ACL", "SETUSER", "default", "resetpass", ">other"])?;
            redis.ask(&["-a", "other", "--no-auth-warning", "CLIENT", "KILL", "TYPE", "normal"])?;
            Some("AuthenticationFailed")
        }
    };
    if let Some(reason) = reason {
        wait_store(&corp.gateway, "Down", Some(reason)).await?;
    }
    juliet.forget();
    for number in 0..3 {
        let (there, back) = (format!("there {number}"), format!("back {number}"));
        let status = agent.message("ana", JULIET, &there).await;
        ensure!(status.is_some_and(|status| status / 100 == 2), "{failure:?}: MESSAGE answered {status:?}");
        juliet.wait("the message", |r| r.is_message(ANA, &there)).await?;
        juliet.chat(ANA, &back).await?;
        event("the message back", &mut events, |e| matches!(e, Event::Message { text, .. } if *text == back)).await?;
    }
    let refused = agent.watch("bob", JULIET, 3600).await;
    ensure!(matches!(refused, Err(503)), "{failure:?}: SUBSCRIBE answered {refused:?}");
    ensure!(corp.gateway.page("/readyz").await?.status == 200, "a fault of the store made the gateway unready");
    agent.show("ana", "open meanwhile");
    juliet.unavailable().await?;
    juliet.must_not_have("a wrong state", |r| {
        r.name() == "presence" && r.kind() == "unavailable" && r.from_bare() == ANA
    })?;

    match failure {
        Failure::Killed => redis.resume().await?,
        Failure::Full => drop(redis.ask(&["CONFIG", "SET", "maxmemory", "0"])?),
        Failure::OtherPassword => {
            redis.ask(&["-a", "other", "--no-auth-warning", "ACL", "SETUSER", "default", "nopass"])?;
        }
    }
    wait_store(&corp.gateway, "Ready", None).await?;
    event("juliet offline", &mut events, |e| shows(e, "closed")).await?;
    ensure!(!dialog.ended() && dialog.refresh(3600).await / 100 == 2, "the dialog did not go on");
    juliet.come_online().await?;
    juliet.wait("ana's state of that time", |r| r.text("status").as_deref() == Some("open meanwhile")).await?;
    ensure!(agent.watched_by(JULIET, "ana") == 1, "juliet's own subscription was lost or doubled");
    agent.watch("bob", JULIET, 3600).await.map_err(|status| anyhow::anyhow!("SUBSCRIBE: {status}"))?;
    Ok(())
}

// K-80
#[tokio::test]
async fn a_gateway_goes_on_while_its_redis_is_killed() {
    scenario("redis-killed", async |lab| outlive(lab, Failure::Killed).await).await;
}

// K-80
#[tokio::test]
async fn a_gateway_goes_on_while_its_redis_is_full() {
    scenario("redis-full", async |lab| outlive(lab, Failure::Full).await).await;
}

#[tokio::test]
async fn a_gateway_goes_on_while_its_redis_has_another_password() {
    scenario("redis-other-password", async |lab| outlive(lab, Failure::OtherPassword).await).await;
}

#[tokio::test]
async fn after_a_flush_of_redis_users_see_their_contacts_and_watchers_can_come_back() {
    scenario("redis-flush", async |lab| -> Result<()> {
        let Friends { redis, agent, mut events, corp, juliet, dialog } = Friends::meet(lab).await?;

        juliet.forget();
        ensure!(corp.gateway.metrics().await?.contains("isthmus_state_lost_total 0"), "something is lost already");
        redis.ask(&["FLUSHALL"])?;
        // By a subscription that the gateway makes anew: nothing is left of the former one.
        wait_for("a new subscription of juliet", LONG, || async {
            agent.show("ana", "open second");
            Ok((agent.watched_by(JULIET, "ana") == 1 && !juliet.received().is_empty()).then_some(()))
        })
        .await?;
        juliet.wait("ana's second state", |r| r.text("status").as_deref() == Some("open second")).await?;
        juliet.must_not_have("a wrong state", |r| r.from_bare() == ANA && r.kind() == "unsubscribed")?;
        // The watcher's dialog is gone, which the refresh tells (RFC 6665 §4.1.2.2); a new one is served.
        let status = dialog.refresh(3600).await;
        ensure!(status == 481, "the refresh of a forgotten dialog was answered {status}");
        agent.watch("ana", JULIET, 3600).await.map_err(|status| anyhow::anyhow!("SUBSCRIBE: {status}"))?;
        event("juliet online again", &mut events, |e| shows(e, "open")).await?;
        ensure!(corp.gateway.metrics().await?.contains("isthmus_state_lost_total 1"), "the loss is not counted once");
        Ok(())
    })
    .await;
}

/// Lists the keys that have no time to live.
const WITHOUT_END: &str = "local names = {} for _, key in ipairs(redis.call('KEYS', '*')) do \
                           if redis.call('PTTL', key) == -1 then names[#names + 1] = key end end return names";

/// What keys are about: what stands between the hash tag and the next colon.
fn kinds(keys: &str) -> BTreeSet<String> {
    let kind = |key: &str| Some(key.split_once('}')?.1.split(':').next()?.to_owned());
    keys.lines().filter_map(kind).collect()
}

// S-45
#[tokio::test]
async fn nothing_stays_in_redis_for_ever_but_decisions_and_registers() {
    scenario("redis-ttl", async |lab| -> Result<()> {
        let Friends { redis, agent, corp: _corp, juliet, .. } = Friends::meet(lab).await?;
        let status = agent.message("ana", JULIET, "hello").await;
        ensure!(status.is_some_and(|status| status / 100 == 2), "MESSAGE answered {status:?}");
        juliet.wait("the message", |r| r.is_message(ANA, "hello")).await?;
        // One whose spelling is remembered, and a session.
        let status = agent.message("Bob", JULIET, "hello, too").await;
        ensure!(status.is_some_and(|status| status / 100 == 2), "MESSAGE of Bob answered {status:?}");
        let _session = agent.invite("ana", JULIET).await.map_err(|status| anyhow::anyhow!("INVITE: {status}"))?;
        let all = kinds(&redis.ask(&["KEYS", "*"])?);
        let for_ever = kinds(&redis.ask(&["EVAL", WITHOUT_END, "0"])?);
        // Decisions and lists of users; counters, what is known of the server, registers of leases, queues and due times.
        let known = ["auth", "due", "lr", "m", "pol", "qs", "sv", "tmr"];
        ensure!(for_ever.iter().all(|kind| known.contains(&kind.as_str())), "{for_ever:?} never end");
        for kind in ["pair", "tx", "ls", "im", "addr", "x"] {
            ensure!(all.contains(kind), "no key of {kind}, there are {all:?}");
        }
        Ok(())
    })
    .await;
}

fn write_secrets(folder: &std::path::Path, client: &Certificate) -> Result<()> {
    for (secret, key, text) in [
        ("redis-ca", "ca.crt", &client.authority_pem),
        ("redis-client", "tls.crt", &client.chain_pem),
        ("redis-client", "tls.key", &client.key_pem),
    ] {
        let folder = folder.join("secrets").join(secret);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(key), text)?;
    }
    Ok(())
}

// The server demands a client certificate, so it must have been shown, the old one and the new one.
#[tokio::test]
async fn a_redis_with_client_certificates_is_used_and_new_ones_need_no_restart() {
    scenario("redis-tls", async |lab| -> Result<()> {
        let pair = |authority: &Authority| -> Result<_> {
            Ok((authority.sign(&[Name::Dns("redis.example")])?, authority.sign(&[Name::Dns("gateway.example")])?))
        };
        let (server, client) = pair(&Authority::new("first of redis")?)?;
        let mut redis = Redis::start_tls(lab, &server).await?;
        let port = ports::free()?;
        let (prosody, mut realm) = realm(lab, port).await?;
        let tls = "caSecretRef: {name: redis-ca}, clientSecretRef: {name: redis-client}, serverName: redis.example";
        realm.state_store = Some(redis.declaration(&format!(", tls: {{{tls}}}")));
        let folder = lab.folder("gateway")?;
        write_secrets(&folder, &client)?;
        let proxy = ([127, 0, 0, 1], realm.plain_port).into();
        let (agent, _events) = SipAgent::start("partner.example", port, proxy, false).await?;
        let corp = Corp::start(lab, prosody, realm).await?;
        wait_store(&corp.gateway, "Ready", None).await?;
        let juliet = corp.online("juliet").await?;
        agent.watch("ana", JULIET, 3600).await.map_err(|status| anyhow::anyhow!("SUBSCRIBE: {status}"))?;
        juliet.wait("the request", |r| r.is_presence("subscribe", ANA)).await?;

        let (server, client) = pair(&Authority::new("second of redis")?)?;
        redis.write_certificate(&server)?;
        redis.restart().await?;
        wait_store(&corp.gateway, "Down", Some("Unreachable")).await?;
        let (id, shown) = (corp.gateway.id(), corp.gateway.status().await?["stateStore"].to_string());
        ensure!(shown.contains("TLS"), "the finding does not speak of TLS: {shown}");

        write_secrets(&folder, &client)?;
        wait_store(&corp.gateway, "Ready", None).await?;
        ensure!(corp.gateway.id() == id, "the gateway was restarted");
        agent.watch("bob", JULIET, 3600).await.map_err(|status| anyhow::anyhow!("SUBSCRIBE: {status}"))?;
        juliet.wait("the second request", |r| r.is_presence("subscribe", "bob@partner.example")).await?;
        Ok(())
    })
    .await;
}
