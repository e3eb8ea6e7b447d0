//! Several pods of one realm, and what must hold while they come and go.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use isthmus_e2e::balancer::Policy;
use isthmus_e2e::chaos::{Fault, Field, PARTNER, Shared, TALKER};
use isthmus_e2e::lab::{number, scenario, scenario_alone, wait_until};
use isthmus_e2e::ledger::{Judgement, Way};
use isthmus_e2e::sip_agent::AnswerTo;
use isthmus_e2e::slow_proxy::Weather;
use isthmus_e2e::traffic::{Access, Dice, Plan};

use super::redis::wait_store;

const SOON: Duration = Duration::from_secs(5);
/// Timer T1 of RFC 3261 §17.1.1.1.
const T1: Duration = Duration::from_millis(500);
/// Two users with two contacts each: enough for dialogs by hand.
const FEW: Plan = Plan { users: 2, contacts: 2, messages: 0, changes: 0, ..MANY };
/// What happens to the pods and their links in the bounded runs, and what happens to Redis, one after the other; `make chaos` does
/// both in one run. A message that waits for a Redis that is silent dies with a pod that is killed at that moment, and no server of
/// ours returns it.
const FAULTS: [Fault; 5] = [Fault::KillHolder, Fault::KillAny, Fault::Pause, Fault::Drain, Fault::LinkCut];
const FAULTS_OF_REDIS: [Fault; 6] =
    [Fault::RedisRestart, Fault::RedisCut, Fault::RedisSilent, Fault::RedisCutOne, Fault::RedisSlow, Fault::RedisFull];
/// Enough to be under way whatever happens.
const MANY: Plan = Plan {
    users: 20,
    contacts: 5,
    messages: 30,
    changes: 10,
    renewals: 0,
    expires_secs: None,
    seed: 1,
    sessions: false,
    access: Access::Direct,
};

/// The same with sessions, with subscriptions that are refreshed meanwhile, and with watchers that come and go.
const EVERYTHING: Plan = Plan { sessions: true, renewals: 1, expires_secs: Some(75), ..MANY };

fn must_be_right(judgement: &Judgement) -> Result<()> {
    eprintln!("{judgement}");
    let found = judgement.faults_found();
    ensure!(found.is_empty(), "{}\n{judgement}", found.join("\n"));
    Ok(())
}

fn must_flow(judgement: &Judgement) -> Result<()> {
    must_be_right(judgement)?;
    ensure!(judgement.to_xmpp.arrived > 0 && judgement.to_sip.arrived > 0, "nothing flowed");
    Ok(())
}

/// Most of what was sent arrived, whatever broke.
fn must_serve(judgement: &Judgement) -> Result<()> {
    must_be_right(judgement)?;
    ensure!(judgement.served(), "most messages were refused\n{judgement}");
    Ok(())
}

/// Nobody had to be shown an error.
fn must_be_smooth(judgement: &Judgement) -> Result<()> {
    must_flow(judgement)?;
    ensure!(judgement.to_xmpp.refused == 0 && judgement.to_sip.refused == 0, "something was refused\n{judgement}");
    ensure!(judgement.put_off.is_empty(), "watchers were put off\n{judgement}");
    ensure!(judgement.presence.disowned == 0, "a subscription was broken and made anew\n{judgement}");
    Ok(())
}

#[tokio::test]
async fn the_books_of_a_calm_run_with_one_pod_are_right() {
    scenario("pods-one", async |lab| -> Result<()> {
        let mut field = Field::start(lab, 1, Policy::Sticky, &MANY, false).await?;
        field.traffic.flow();
        tokio::time::sleep(Duration::from_secs(4)).await;
        must_be_smooth(&field.traffic.finish(SOON).await?)
    })
    .await;
}

#[tokio::test]
async fn three_pods_behind_one_address_serve_as_one() {
    scenario_alone("pods-three", async |lab| -> Result<()> {
        let mut field = Field::start(lab, 3, Policy::AlwaysAnother, &MANY, false).await?;
        field.traffic.flow();
        tokio::time::sleep(Duration::from_secs(4)).await;
        must_be_smooth(&field.traffic.finish(SOON).await?)
    })
    .await;
}

// S-01
#[tokio::test]
async fn a_repeat_at_another_pod_gets_the_same_answer_and_arrives_once() {
    scenario("pods-repeat", async |lab| -> Result<()> {
        let field = Field::start(lab, 3, Policy::AlwaysAnother, &FEW, false).await?;
        let user = field.traffic.user(0).context("no user")?;
        let agent = field.traffic.agent()?;
        let request = |branch: &str| {
            format!(
                "MESSAGE sip:{to} SIP/2.0\r\nVia: SIP/2.0/UDP {own};rport;branch=z9hG4bK{branch}\r\nMax-Forwards: 70\r\n\
                 From: <sip:s0x0@{PARTNER}>;tag=r1\r\nTo: <sip:{to}>\r\nCall-ID: repeat-1\r\nCSeq: 1 MESSAGE\r\n\
                 Content-Type: text/plain\r\nContent-Length: 4\r\n\r\nonce",
                to = user.bare(),
                own = agent.address(),
            )
        };
        field.traffic.ledger.sent(Way::ToXmpp, "once");
        let first = agent.once(&request("one")).await.context("no answer")?;
        ensure!(first.status() == Some(200), "{first:?}");
        // Nobody repeats a request before T1 is over, and answers of a moment are written together for other pods to repeat.
        tokio::time::sleep(T1).await;
        // The same datagram twice more, then as a proxy sends it that has given the first pod up: with a branch of its own.
        for branch in ["one", "one", "two"] {
            let again = agent.once(&request(branch)).await.context("no answer to the repeat")?;
            ensure!(again.start == first.start, "{} after {}", again.start, first.start);
            ensure!(again.tag("To") == first.tag("To") && !first.tag("To").is_empty(), "another tag in To");
            ensure!(again.header("Via").contains(branch), "the Via of another request");
        }
        let judgement = field.traffic.finish(SOON).await?;
        ensure!(judgement.to_xmpp.arrived == 1 && judgement.to_xmpp.repeated == 0, "{judgement}");
        must_be_right(&judgement)
    })
    .await;
}

// Its NOTIFYs have numbers without a gap.
// S-09, S-12
#[tokio::test]
async fn a_dialog_is_opened_refreshed_notified_and_ended_on_different_pods() {
    scenario("pods-dialog", async |lab| -> Result<()> {
        let field = Field::start(lab, 3, Policy::RoundRobin, &FEW, true).await?;
        let members = field.pods.balancer.ready();
        let dialog = field.traffic.watch(0).context("no dialog")?;
        for round in 0..6_usize {
            for (number, member) in members.iter().enumerate() {
                if number == round % 3 {
                    field.pods.balancer.add(*member);
                } else {
                    field.pods.balancer.remove(*member);
                }
            }
            let before = dialog.last_notify();
            ensure!(dialog.refresh(600).await == 200, "round {round}");
            wait_until("a NOTIFY after the refresh", SOON, || (dialog.last_notify() > before).then_some(())).await?;
            // Changes on both sides are told through the same pod.
            field.traffic.show_xmpp(0, &format!("x{round}")).await?;
            field.traffic.show_sip(0, 0, &format!("s{round}"));
            field.traffic.all_current(SOON).await?;
        }
        // Another one than that which does the work ends the dialog.
        let holder = field.pods.holder(PARTNER).await.context("nobody holds the link")?;
        for (number, member) in members.iter().enumerate() {
            if number == (holder + 1) % members.len() {
                field.pods.balancer.add(*member);
            } else {
                field.pods.balancer.remove(*member);
            }
        }
        ensure!(dialog.refresh(0).await == 200, "the end");
        wait_until("the last NOTIFY", SOON, || dialog.ended().then_some(())).await?;
        ensure!(dialog.refresh(600).await == 481, "an ended dialog was refreshed");
        // Every NOTIFY had the next number, whichever pod wrote it.
        field.traffic.wire_is_right()
    })
    .await;
}

// S-08
#[tokio::test]
async fn an_answer_that_reaches_another_pod_ends_the_transaction() {
    scenario("pods-answer", async |lab| -> Result<()> {
        let plan = Plan { sessions: true, ..FEW };
        let field = Field::start(lab, 3, Policy::AlwaysAnother, &plan, true).await?;
        let sides = [field.traffic.agent_of(PARTNER)?, field.traffic.agent_of(TALKER)?];
        for side in sides {
            side.answer_to(AnswerTo::Proxy);
        }
        for number in 0..6 {
            field.traffic.write_xmpp(0, number % 2, &format!("out-{number}")).await;
        }
        // Messages to one user wait for each other: the last one leaves when all before it were answered.
        let ledger = &field.traffic.ledger;
        let arrived = || (ledger.progress(Way::ToSip) == (6, 6)).then_some(());
        wait_until("all messages", SOON, arrived).await?;
        field.traffic.show_xmpp(0, "seen by both").await?;
        field.traffic.all_current(SOON).await?;
        // Longer than the first repetition would take.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let mut seen = BTreeMap::new();
        for (_, _, message) in sides.iter().flat_map(|side| side.trace()) {
            let Some(method) = message.method() else { continue };
            let name = (method.to_owned(), message.header("Call-ID").to_owned(), message.cseq());
            *seen.entry(name).or_insert(0) += 1;
        }
        for method in ["MESSAGE", "INVITE", "NOTIFY"] {
            ensure!(seen.keys().any(|(of, ..)| of == method), "no {method} was sent");
        }
        seen.retain(|_, times| *times > 1);
        ensure!(seen.is_empty(), "sent again though they were answered: {seen:?}");
        must_be_right(&field.traffic.finish(SOON).await?)
    })
    .await;
}

// S-10
#[tokio::test]
async fn an_ack_that_reaches_another_pod_stops_the_repeats() {
    scenario("pods-ack", async |lab| -> Result<()> {
        let field = Field::start(lab, 3, Policy::AlwaysAnother, &FEW, true).await?;
        let user = field.traffic.user(0).context("no user")?;
        let agent = field.traffic.agent()?;
        let session =
            agent.invite("s0x0", user.bare()).await.map_err(|status| anyhow::anyhow!("INVITE got {status}"))?;
        field.traffic.ledger.sent(Way::ToXmpp, "in a session");
        ensure!(session.message("in a session").await == 200, "MESSAGE");
        tokio::time::sleep(Duration::from_millis(2000)).await;
        let ok = |m: &isthmus_e2e::sip_trace::SipMessage| m.status() == Some(200) && m.cseq_method() == "INVITE";
        let seen = agent.trace().iter().filter(|(_, _, m)| ok(m)).count();
        ensure!(seen == 1, "the 200 came {seen} times");
        ensure!(session.bye().await == 200, "BYE");
        must_be_right(&field.traffic.finish(SOON).await?)
    })
    .await;
}

// S-41
#[tokio::test]
async fn a_session_goes_on_whichever_pod_is_killed() {
    scenario_alone("pods-session", async |lab| -> Result<()> {
        let plan = Plan { sessions: true, ..FEW };
        let mut field = Field::start(lab, 3, Policy::RoundRobin, &plan, false).await?;
        let user = field.traffic.user(0).context("no user")?;
        let ledger = std::sync::Arc::clone(&field.traffic.ledger);
        let agent = field.traffic.agent_of(TALKER)?;
        let opened = agent.invite("s0x1", user.bare()).await;
        let session = opened.map_err(|status| anyhow::anyhow!("INVITE got {status}"))?;
        // The session is confirmed when a message went each way.
        ledger.sent(Way::ToXmpp, "in");
        ensure!(session.message("in").await == 200, "the first MESSAGE");
        field.traffic.write_xmpp(0, 1, "out").await;
        let arrived = || (ledger.progress(Way::ToSip) == (1, 1)).then_some(());
        wait_until("the first message to the SIP user", SOON, arrived).await?;
        for pod in 0..field.pods.count() {
            let struck = field.kill(pod).await?;
            // At once: whoever gets it waits for the next holder of the link.
            let text = format!("in-{pod}");
            ledger.sent(Way::ToXmpp, &text);
            let status = session.message(&text).await;
            ensure!((200..300).contains(&status), "after the kill of pod {pod} MESSAGE got {status}");
            ledger.accepted(&text);
            ledger.struck("kill", struck.from, struck.socket);
            // The other way it is the same session.
            field.traffic.write_xmpp(0, 1, &format!("out-{pod}")).await;
            let arrived = || (ledger.progress(Way::ToSip) == (pod + 2, pod + 2)).then_some(());
            wait_until("the message to the SIP user", SOON, arrived).await?;
            field.pods.run(pod).await?;
        }
        ensure!(session.bye().await == 200, "BYE");
        let judgement = field.traffic.finish(SOON).await?;
        ensure!(judgement.sessions == 0, "another session was opened\n{judgement}");
        ensure!(judgement.to_sip.arrived == 4 && judgement.to_xmpp.arrived == 4, "{judgement}");
        must_be_right(&judgement)
    })
    .await;
}

// S-41
#[tokio::test]
async fn another_pod_has_the_link_within_five_seconds_of_a_kill() {
    scenario_alone("pods-kill", async |lab| -> Result<()> {
        let mut field = Field::start(lab, 3, Policy::RoundRobin, &MANY, false).await?;
        field.traffic.flow();
        for _ in 0..3 {
            let holder = field.pods.holder(PARTNER).await.context("nobody holds the link")?;
            let logins = field.prosody.component_logins(PARTNER);
            let struck = field.kill(holder).await?;
            let prosody = &field.prosody;
            let taken = || (prosody.component_logins(PARTNER) > logins).then_some(());
            wait_until("the link at another pod", Duration::from_secs(5), taken).await?;
            field.traffic.ledger.struck("kill", struck.from, struck.socket);
            field.pods.run(holder).await?;
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        ensure!(blind_pairs(&field).await? > 0, "nobody says for how long pairs were blind");
        let judgement = field.traffic.finish(Duration::from_secs(20)).await?;
        must_flow(&judgement)?;
        ensure!(!judgement.presence.without_pod.is_empty(), "nothing changed while a pod was gone\n{judgement}");
        Ok(())
    })
    .await;
}

/// Writes three messages to a user who is silent; gives the pod that has them.
async fn write_into_silence(field: &Field) -> Result<usize> {
    field.traffic.agent()?.be_silent(true);
    // The others wait behind the first one for its answer.
    for text in ["first", "second", "third"] {
        field.traffic.write_xmpp(0, 0, text).await;
    }
    let arrived = || (field.traffic.ledger.progress(Way::ToSip).0 > 0).then_some(());
    wait_until("the first at its receiver", SOON, arrived).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    field.pods.holder(PARTNER).await.context("nobody holds the link")
}

// S-41
#[tokio::test]
async fn whoever_wrote_over_a_pod_that_died_hears_that_nobody_knows_what_became_of_it() {
    scenario_alone("pods-unanswered", async |lab| -> Result<()> {
        let mut field = Field::start(lab, 3, Policy::RoundRobin, &FEW, false).await?;
        let holder = write_into_silence(&field).await?;
        let struck = field.kill(holder).await?;
        field.traffic.ledger.struck("kill", struck.from, struck.socket);
        // Its answer would be due after 32 s (timer F), and nobody may be left without for 10 s more.
        let judgement = field.traffic.finish(Duration::from_secs(42)).await?;
        must_be_right(&judgement)?;
        let to_sip = &judgement.to_sip;
        ensure!((to_sip.arrived, to_sip.refused, to_sip.taken) == (1, 3, 0), "{judgement}");
        ensure!(judgement.refusals.keys().eq(["remote-server-timeout"]), "{judgement}");
        Ok(())
    })
    .await;
}

// S-13
#[tokio::test]
async fn what_waited_in_a_pod_that_stood_still_is_not_sent_after_its_writers_were_told() {
    scenario("pods-stood-still", async |lab| -> Result<()> {
        let mut field = Field::start(lab, 2, Policy::RoundRobin, &FEW, false).await?;
        let holder = write_into_silence(&field).await?;
        let from = field.traffic.ledger.now();
        field.pods.pause(holder)?;
        // The others take it for gone after 15 s.
        tokio::time::sleep(Duration::from_secs(22)).await;
        field.traffic.agent()?.be_silent(false);
        field.pods.resume(holder)?;
        field.traffic.ledger.struck("pause", from, None);
        let judgement = field.traffic.finish(Duration::from_secs(10)).await?;
        must_be_right(&judgement)?;
        ensure!((judgement.to_sip.arrived, judgement.to_sip.refused) == (1, 3), "{judgement}");
        Ok(())
    })
    .await;
}

// S-13, S-41, S-44
#[tokio::test]
async fn a_pod_that_stood_still_beyond_its_leases_changes_nothing() {
    scenario_alone("pods-pause", async |lab| -> Result<()> {
        let mut field = Field::start(lab, 2, Policy::RoundRobin, &MANY, false).await?;
        field.traffic.flow();
        // The second time the link comes back to the pod that lost it.
        for _ in 0..2 {
            let holder = field.pods.holder(PARTNER).await.context("nobody holds the link")?;
            let logins = field.prosody.component_logins(PARTNER);
            let from = field.traffic.ledger.now().saturating_sub(Duration::from_millis(250));
            field.pods.pause(holder)?;
            let prosody = &field.prosody;
            let taken = || (prosody.component_logins(PARTNER) > logins).then_some(());
            wait_until("the link at another pod", Duration::from_secs(5), taken).await?;
            tokio::time::sleep(Duration::from_secs(2)).await;
            field.pods.resume(holder)?;
            // What waits in its socket is not lost, either.
            field.traffic.ledger.struck("pause", from, None);
            tokio::time::sleep(Duration::from_secs(3)).await;
            let now = field.pods.holder(PARTNER).await;
            ensure!(now.is_some() && now != Some(holder), "the paused pod has the link again: {now:?}");
        }
        must_flow(&field.traffic.finish(Duration::from_secs(20)).await?)
    })
    .await;
}

// P-38
#[tokio::test]
async fn a_restart_of_all_pods_neither_loses_nor_doubles_a_dialog() {
    scenario_alone("pods-all", async |lab| -> Result<()> {
        let mut field = Field::start(lab, 3, Policy::RoundRobin, &MANY, false).await?;
        let from = field.traffic.ledger.now();
        for pod in 0..field.pods.count() {
            field.pods.kill(pod)?;
        }
        // What happens meanwhile must be current afterwards, too.
        field.traffic.show_sip(0, 0, "while away");
        field.traffic.show_xmpp(1, "while away").await?;
        for pod in 0..field.pods.count() {
            field.pods.run(pod).await?;
        }
        // Nobody writes meanwhile: nothing is in a socket.
        field.traffic.ledger.struck("all pods", from, None);
        field.traffic.all_current(Duration::from_secs(20)).await?;
        ensure!(blind_pairs(&field).await? > 0, "nobody says for how long all were blind");
        field.traffic.flow();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let judgement = field.traffic.finish(Duration::from_secs(20)).await?;
        ensure!(judgement.presence.disowned == 0, "a subscription was broken and made anew\n{judgement}");
        must_flow(&judgement)
    })
    .await;
}

/// How many pairs the pods know to have been blind, by their status pages and their histograms alike.
async fn blind_pairs(field: &Field) -> Result<u64> {
    let (mut shown, mut counted) = (0, 0);
    for number in field.pods.running() {
        let pod = field.pods.pod(number).context("a pod is gone")?;
        let blind = pod.status().await?["presence"]["blind"].clone();
        let count = blind["count"].as_u64().context("no count")?;
        ensure!(count == 0 || blind["max"].as_f64().is_some_and(|max| max > 0.0), "{blind}");
        shown += count;
        let metrics = pod.metrics().await?;
        let line = metrics.lines().find_map(|line| line.strip_prefix("isthmus_blind_seconds_count "));
        counted += line.map_or(Ok(0), str::parse::<u64>)?;
    }
    ensure!(shown == counted, "{shown} on the status pages, {counted} in the metrics");
    Ok(shown)
}

// K-77, K-76, S-46
#[tokio::test]
async fn a_rolling_restart_under_load_is_seen_by_nobody() {
    scenario_alone("pods-rolling", async |lab| -> Result<()> {
        let mut field = Field::start(lab, 3, Policy::RoundRobin, &EVERYTHING, false).await?;
        field.traffic.flow();
        field.roll(Duration::from_secs(1)).await?;
        must_be_smooth(&field.traffic.finish(Duration::from_secs(20)).await?)
    })
    .await;
}

// K-77, K-76, S-46
// Over connections nothing is repeated, so that whatever a pod that ends does not read is lost.
#[tokio::test]
async fn a_rolling_restart_under_load_over_tls_is_seen_by_nobody() {
    scenario_alone("pods-rolling-tls", async |lab| -> Result<()> {
        let plan = Plan { access: Access::KamailioOverTls, messages: 150, ..EVERYTHING };
        let mut field = Field::start(lab, 3, Policy::RoundRobin, &plan, false).await?;
        field.traffic.flow();
        field.roll(Duration::from_secs(1)).await?;
        must_be_smooth(&field.traffic.finish(Duration::from_secs(20)).await?)
    })
    .await;
}

// K-80, S-43
#[tokio::test]
async fn what_redis_missed_while_it_was_away_is_current_after_it_is_back() {
    scenario_alone("pods-redis-away", async |lab| -> Result<()> {
        let mut field = Field::start(lab, 3, Policy::RoundRobin, &MANY, false).await?;
        field.traffic.flow();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let from = field.traffic.ledger.now();
        field.store.ways()?.set(Weather::Cut);
        for number in field.pods.running() {
            let pod = field.pods.pod(number).context("a pod is gone")?;
            wait_store(pod, "Down", Some("Unreachable")).await?;
            ensure!(pod.page("/readyz").await?.status == 200, "pod {number} is unready without the store");
        }
        // Longer by hand: ISTHMUS_E2E_AWAY_SECS=600.
        let away = Duration::from_secs(number("ISTHMUS_E2E_AWAY_SECS", 60)?);
        tokio::time::sleep(away.saturating_sub(field.traffic.ledger.now().saturating_sub(from))).await;
        field.store.ways()?.set(Weather::Delay(Duration::ZERO));
        field.traffic.ledger.store_away("redis away", from);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let judgement = field.traffic.finish(Duration::from_secs(30)).await?;
        must_flow(&judgement)?;
        // The pod that holds the link passed messages on, the others asked for patience.
        let to_xmpp = &judgement.to_xmpp;
        let words: Vec<&str> = judgement.refusals.keys().map(String::as_str).collect();
        ensure!(words == ["503"] && 5 * to_xmpp.accepted > to_xmpp.sent, "{words:?}\n{judgement}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn after_a_flush_of_redis_under_load_everybody_sees_what_is_right() {
    scenario_alone("pods-flush", async |lab| -> Result<()> {
        let plan = Plan { users: 8, ..MANY };
        let mut field = Field::start(lab, 3, Policy::RoundRobin, &plan, false).await?;
        field.traffic.flow();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let from = field.traffic.ledger.now();
        let Shared::Alone { redis, .. } = &field.store else { bail!("there are several servers") };
        redis.ask(&["FLUSHALL"])?;
        // Users see their contacts again by subscriptions that the gateways make anew; watchers hear by their refreshes that
        // theirs are gone.
        let forgotten = field.traffic.watch_again().await?;
        ensure!(forgotten == plan.users * plan.contacts, "only {forgotten} watches were forgotten");
        tokio::time::sleep(Duration::from_secs(5)).await;
        field.traffic.ledger.fault("flush", from);
        // Contacts hear the same of the subscriptions that were made anew, when they show something (481).
        for (user, contact) in (0..plan.users).flat_map(|user| (0..plan.contacts).map(move |contact| (user, contact))) {
            field.traffic.show_sip(user, contact, "after the flush");
        }
        must_flow(&field.traffic.finish(Duration::from_secs(30)).await?)
    })
    .await;
}

#[tokio::test]
async fn what_nobody_could_see_without_their_server_is_right_after_its_restart() {
    scenario_alone("pods-server-restart", async |lab| -> Result<()> {
        let mut field = Field::start(lab, 2, Policy::RoundRobin, &MANY, false).await?;
        field.traffic.flow();
        tokio::time::sleep(Duration::from_secs(2)).await;
        field.make(Fault::ServerRestart, &mut Dice::new(3)).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        must_flow(&field.traffic.finish(Duration::from_secs(40)).await?)
    })
    .await;
}

#[tokio::test]
async fn nothing_is_lost_or_wrong_after_fail_overs_of_redis() {
    scenario_alone("pods-failover", async |lab| -> Result<()> {
        let store = Shared::group(lab).await?;
        let mut field = Field::start_on(store, lab, 2, Policy::RoundRobin, &MANY, false).await?;
        field.traffic.flow();
        let mut dice = Dice::new(5);
        for fault in [Fault::RedisFailover, Fault::RedisKillPrimary] {
            tokio::time::sleep(Duration::from_secs(1)).await;
            field.make(fault, &mut dice).await?;
        }
        must_flow(&field.traffic.finish(Duration::from_secs(30)).await?)
    })
    .await;
}

#[tokio::test]
async fn nothing_is_lost_or_wrong_when_a_primary_of_a_cluster_is_lost() {
    scenario_alone("pods-cluster", async |lab| -> Result<()> {
        let store = Shared::cluster(lab).await?;
        let plan = Plan { access: Access::KamailioOverTcp, ..MANY };
        let mut field = Field::start_on(store, lab, 3, Policy::RoundRobin, &plan, false).await?;
        field.traffic.flow();
        tokio::time::sleep(Duration::from_secs(1)).await;
        field.make(Fault::RedisKillNode, &mut Dice::new(5)).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        must_flow(&field.traffic.finish(Duration::from_secs(30)).await?)
    })
    .await;
}

// K-76, S-41, X-100
#[tokio::test]
async fn nothing_is_lost_doubled_or_wrong_under_faults_at_random() {
    scenario_alone("pods-chaos", async |lab| -> Result<()> {
        let plan = Plan { access: Access::Kamailio, ..EVERYTHING };
        let field = Field::start(lab, 3, Policy::RoundRobin, &plan, false).await?;
        must_serve(&field.run(&FAULTS, Duration::from_secs(60), &mut Dice::new(7)).await?)
    })
    .await;
}

// S-41
#[tokio::test]
async fn nothing_is_lost_doubled_or_wrong_under_faults_at_random_over_tls() {
    scenario_alone("pods-chaos-tls", async |lab| -> Result<()> {
        let plan = Plan { access: Access::KamailioOverTls, ..EVERYTHING };
        let field = Field::start(lab, 3, Policy::RoundRobin, &plan, false).await?;
        must_serve(&field.run(&FAULTS, Duration::from_secs(40), &mut Dice::new(13)).await?)
    })
    .await;
}

// S-43, X-98
#[tokio::test]
async fn nothing_is_lost_doubled_or_wrong_under_faults_of_redis_at_random() {
    scenario_alone("pods-chaos-redis", async |lab| -> Result<()> {
        let field = Field::start(lab, 3, Policy::RoundRobin, &EVERYTHING, false).await?;
        must_serve(&field.run(&FAULTS_OF_REDIS, Duration::from_secs(50), &mut Dice::new(11)).await?)
    })
    .await;
}
