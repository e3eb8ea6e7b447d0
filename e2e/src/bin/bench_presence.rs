//! A user with 100 watchers changes presence: 100 stanzas arrive together. Printed are the time until all watchers have
//! their NOTIFY and the calls to Redis, beside the same with the embedded store and with a Redis that is far away.
//!
//! The watchers are users of a SIP partner over UDP; the XMPP server is a sink that accepts them. `WATCHERS` and `ROUNDS`
//! change the numbers.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use isthmus_e2e::gateway::Gateway;
use isthmus_e2e::lab::{Lab, number};
use isthmus_e2e::manifests::{Partner, Realm};
use isthmus_e2e::ports;
use isthmus_e2e::redis::Redis;
use isthmus_e2e::sink::ComponentSink;
use isthmus_e2e::sip_agent::{Event, SipAgent};
use isthmus_e2e::slow_proxy::{SlowProxy, Weather};
use isthmus_e2e::verdicts::Verdicts;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{sleep, timeout_at};

const PARTNER: &str = "partner.example";
const JULIET: &str = "juliet@corp.example";
/// The pause between two changes, longer than a watcher is spared another NOTIFY.
const PAUSE: Duration = Duration::from_secs(6);
/// The longest that all NOTIFYs of a change may take.
const LIMIT: Duration = Duration::from_secs(20);
/// Round trips for the pair of a stanza: one before its NOTIFY leaves, and one for the answer to that; and a few for what
/// arrives at the same moment. What a process does without any stanza is not counted: it renews 64 leases every 2 s, and more.
const WANTED: f64 = 2.0 + 0.1;
/// What the names of pairs' records begin with, and of leases.
const PAIR: &str = "pair";
const LEASE: &str = "ls";

/// The way to a Redis that is far away, there or back.
const FAR: Duration = Duration::from_millis(50);
/// How long all NOTIFYs may take then: one way there and back for each, at the same time, and half of one for everything else. One
/// after the other they would take a hundred times as long.
const ALL_KNOW: Duration = FAR.saturating_mul(3);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let watchers = number("WATCHERS", 100)?;
    let rounds = number("ROUNDS", 4)?;
    let lab = Lab::new("bench-presence")?;
    println!("{watchers} stanzas together, one for each watcher of a user, {rounds} times");
    let (memory, _) = measure(&lab, "embedded store", watchers, rounds, None).await?;
    let redis = Redis::start(&lab).await?;
    let way = SlowProxy::start((Ipv4Addr::LOCALHOST, redis.port).into())?;
    let (shared, calls) = measure(&lab, "redis", watchers, rounds, Some((&redis, &way))).await?;
    println!("median until all NOTIFYs arrived: {shared:.2?} with Redis, {memory:.2?} with the embedded store");
    let mut verdicts = Verdicts::default();
    let wanted = "one for it, one for the answer to its NOTIFY, 0.1 for what is done again";
    verdicts.add(&format!("round trips for a stanza's pair {calls:.2}"), wanted, calls <= WANTED);
    way.set(Weather::Delay(FAR));
    let (far, _) = measure(&lab, "redis far away", watchers, rounds, Some((&redis, &way))).await?;
    let what = format!("median with a Redis that is {:?} away {far:.2?}", FAR * 2);
    verdicts.add(&what, &format!("at most {ALL_KNOW:?}, none waits for another"), far <= ALL_KNOW);
    Ok(verdicts.exit_code())
}

/// Gives the median of the times until all watchers knew, and the most calls to Redis for the pair of a stanza in a round.
async fn measure(
    lab: &Lab,
    name: &str,
    watchers: u32,
    rounds: u32,
    redis: Option<(&Redis, &SlowProxy)>,
) -> Result<(Duration, f64)> {
    let sink = ComponentSink::start().await?;
    let own = ports::free()?;
    let mut realm = Realm::new(sink.port)?.partner(Partner::standard(PARTNER, "UDP", own));
    realm.limits = Some("{newSessionsPerSecondPerDomain: 100000}".to_owned());
    "warn".clone_into(&mut realm.log_filter);
    realm.state_store = redis.map(|(redis, way)| redis.declaration_over(way.port, ""));
    let folder = lab.folder(name)?;
    realm.write(&folder)?;
    let gateway = Gateway::resume(&folder, realm.admin_port).await?;
    let proxy = ([127, 0, 0, 1], realm.plain_port).into();
    let (agent, mut events) = SipAgent::start(PARTNER, own, proxy, false).await?;
    for n in 0..watchers {
        let watched = agent.watch(&format!("w{n}"), JULIET, 3600).await;
        watched.map_err(|status| anyhow!("SUBSCRIBE {n} was answered {status}"))?;
    }
    let (mut times, mut most) = (Vec::new(), 0.0_f64);
    for round in 0..rounds {
        sleep(PAUSE).await;
        let state = format!("change {round}");
        let stanzas = (0..watchers).map(|n| {
            format!("<presence from='{JULIET}/home' to='w{n}@{PARTNER}'><show>away</show><status>{state}</status></presence>")
        });
        let stanzas: String = stanzas.collect();
        let commands = match redis {
            Some((redis, _)) => Some(redis.note_commands().await?),
            None => None,
        };
        let begin = Instant::now();
        sink.send(PARTNER, stanzas);
        all_know(&mut events, &state, watchers).await.with_context(|| format!("{name}, round {round}"))?;
        let took = begin.elapsed();
        times.push(took);
        // What the answers to the NOTIFYs lead to is counted, too.
        sleep(Duration::from_millis(300)).await;
        match commands {
            Some(commands) => {
                let ([pairs, leases], others) = commands.count([PAIR, LEASE]);
                ensure!(pairs >= watchers, "{name}, round {round}: only {pairs} calls were seen");
                let each = f64::from(pairs) / f64::from(watchers);
                most = most.max(each);
                println!(
                    "{name}: {took:.2?} until {watchers} NOTIFYs arrived; calls for a stanza's pair {each:.2}, for all leases {leases}, \
                     others {others}"
                );
            }
            None => println!("{name}: {took:.2?} until {watchers} NOTIFYs arrived"),
        }
    }
    gateway.stop().await?;
    times.sort_unstable();
    Ok((times.get(times.len() / 2).copied().context("no round")?, most))
}

/// Waits until every watcher was told of a state.
async fn all_know(events: &mut UnboundedReceiver<Event>, state: &str, watchers: u32) -> Result<()> {
    let mut told = BTreeSet::new();
    let end = tokio::time::Instant::now() + LIMIT;
    while told.len() < watchers as usize {
        let event = timeout_at(end, events.recv()).await;
        let event = event.with_context(|| format!("{} of {watchers} were told", told.len()))?.context("no agent")?;
        if let Event::Notified { watcher, note: Some(note), .. } = event
            && note.contains(state)
        {
            told.insert(watcher);
        }
    }
    Ok(())
}
