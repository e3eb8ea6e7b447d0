//! CPU time of one SIP MESSAGE that becomes a stanza, against Kamailio relaying the same MESSAGE.
//!
//! Both get the same 20,000 requests over UDP at the same rate, one after the other in this run. The
//! gateway decides, writes the stanza and the barrier to a sink that answers, and sends 200; Kamailio
//! relays statefully (`t_relay`) to a sink that answers 200. `COUNT` and `RATE` change the numbers.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use isthmus_e2e::gateway::Gateway;
use isthmus_e2e::kamailio::{self, Kamailio};
use isthmus_e2e::lab::{Lab, wait_until};
use isthmus_e2e::load::{Load, Outcome};
use isthmus_e2e::manifests::{Partner, Realm};
use isthmus_e2e::ports;
use isthmus_e2e::sink::{ComponentSink, SipSink};

/// The gateway shall take at most this part of Kamailio's time.
const WANTED: f64 = 0.25;
/// Requests before the measured ones, so that both are warm.
const WARM_UP: u32 = 1000;
const RELAY: &str = include_str!("../../scenarios/kamailio/relay.cfg");

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let count = number("COUNT", 20_000)?;
    let rate = number("RATE", 2000)?;
    let lab = Lab::new("bench-message")?;
    println!("{count} MESSAGE over UDP at {rate} a second (about {} s each)", count / rate);
    let ours = gateway(&lab, count, rate).await?;
    let theirs = relay(&lab, count, rate).await?;
    let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
    let verdict = if ratio <= WANTED { "holds" } else { "DOES NOT HOLD" };
    println!("ratio {ratio:.3}: at most {WANTED} wanted, {verdict}");
    Ok(())
}

fn number(name: &str, default: u32) -> Result<u32> {
    std::env::var(name).map_or(Ok(default), |v| v.parse().with_context(|| format!("{name} is no number")))
}

/// Runs warm-up and load, and gives the CPU time per message.
async fn measure(what: &str, load: &Load, cpu: impl Fn() -> Result<Duration>) -> Result<Duration> {
    let warm_up = Load { count: WARM_UP, label: format!("{}w", load.label), ..load.clone() };
    warm_up.run().await.with_context(|| format!("{what}, warm-up"))?;
    let before = cpu()?;
    let Outcome { took, repeated, delivered } = load.run().await.with_context(|| what.to_owned())?;
    let each = cpu()?.saturating_sub(before) / delivered;
    println!(
        "{what}: {:.1} us of CPU a message ({delivered} delivered in {:.1} s, {repeated} repeated)",
        each.as_secs_f64() * 1e6,
        took.as_secs_f64()
    );
    Ok(each)
}

async fn gateway(lab: &Lab, count: u32, rate: u32) -> Result<Duration> {
    let sink = ComponentSink::start().await?;
    let own = ports::free()?;
    let mut realm = Realm::new(sink.port)?.partner(Partner::standard("partner.example", "UDP", own));
    // The limits of the pool are what is not to be measured here.
    realm.limits = Some("{newSessionsPerSecondPerDomain: 100000}".to_owned());
    "warn".clone_into(&mut realm.log_filter);
    let gateway = Gateway::start(lab, &realm).await?;
    let load = Load { target: realm.plain_port, own, count, rate, label: "g".to_owned() };
    let each = measure("gateway", &load, || gateway.cpu_time()).await?;
    let arrived = u64::from(count + WARM_UP);
    wait_until("all stanzas at the sink", Duration::from_secs(5), || (sink.messages() >= arrived).then_some(()))
        .await?;
    ensure!(sink.messages() == arrived, "{} stanzas for {arrived} requests", sink.messages());
    gateway.stop().await?;
    Ok(each)
}

async fn relay(lab: &Lab, count: u32, rate: u32) -> Result<Duration> {
    let sink = SipSink::start().await?;
    let folder = lab.folder("kamailio-relay")?;
    let port = ports::free()?;
    let config = RELAY.replace("@PORT@", &port.to_string()).replace("@SINK@", &sink.port.to_string());
    let kamailio = Kamailio::start("kamailio-relay", &folder, &config, port, 0, 512).await?;
    let load = Load { target: port, own: ports::free()?, count, rate, label: "k".to_owned() };
    let version = kamailio::version()?;
    let name = version.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    measure(&format!("t_relay of {name}"), &load, || kamailio.cpu_time()).await
}
