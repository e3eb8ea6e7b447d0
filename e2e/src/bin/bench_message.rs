//! CPU time of one SIP MESSAGE that becomes a stanza: against Kamailio relaying the same MESSAGE, and with Redis
//! against the embedded store.
//!
//! All get the same 20,000 requests over UDP at the same rate. The gateway decides, writes the stanza and the barrier to a
//! sink that answers, and sends 200; Kamailio relays statefully (`t_relay`) to a sink that answers 200. All three take many short
//! turns, a slice of the load each, so that what else the machine does disturbs them alike, and the median of the turns' ratios
//! counts: on a machine that is shared the same work costs half as much again from one second to the next. On a virtual machine
//! the host takes processors away for milliseconds at a time; a turn in which it took more than [`STOLEN`] is made again.
//! Latencies are taken at a rate at which nothing queues. `COUNT` and `RATE` change the numbers.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use isthmus_e2e::gateway::Gateway;
use isthmus_e2e::kamailio::{self, Kamailio};
use isthmus_e2e::lab::{Lab, number, wait_until};
use isthmus_e2e::load::{Load, Outcome, percentile};
use isthmus_e2e::manifests::{Partner, Realm};
use isthmus_e2e::ports;
use isthmus_e2e::process::stolen;
use isthmus_e2e::redis::Redis;
use isthmus_e2e::sink::{ComponentSink, SipSink};
use isthmus_e2e::verdicts::Verdicts;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The gateway shall take at most this part of Kamailio's time.
const OF_KAMAILIO: f64 = 0.25;
/// With Redis it shall take at most this part of its own time with the embedded store.
const OF_MEMORY: f64 = 1.8;
/// Calls to Redis for a message: the one that it waits for, and its part of those that write answers, leases and due times.
const CALLS: f64 = 1.2;
/// Redis shall add less than this to what 99 of 100 requests wait at most, in the median of the slices.
const ADDED: Duration = Duration::from_millis(1);
/// Requests before the measured ones, so that all are warm.
const WARM_UP: u32 = 1000;
/// How many turns count where costs are taken, and where latencies are; there are at most [`TRIES`] times as many.
const SLICES: u32 = 60;
const CALM_SLICES: u32 = 9;
const TRIES: u32 = 4;
/// A turn counts when the host took at most this part of its time away, of one processor.
const STOLEN: f64 = 0.01;
/// Requests a second, and in a slice, where latencies are taken.
const CALM_RATE: u32 = 500;
const CALM_COUNT: u32 = 1000;
/// Answers are written so long after they left, and belong to the turn.
const SETTLED: Duration = Duration::from_millis(25);
/// What reaches Redis from outside for a message; every other command is called within scripts.
const FROM_OUTSIDE: [&str; 2] = ["evalsha", "eval"];
const RELAY: &str = include_str!("../../scenarios/kamailio/relay.cfg");

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let count = number("COUNT", 20_000)?;
    let rate = number("RATE", 2000)?;
    let lab = Lab::new("bench-message")?;
    println!("{count} MESSAGE over UDP at {rate} a second (about {} s each)", count / rate);
    let redis = Redis::start(&lab).await?;
    let mut memory = Subject::start(&lab, "memory", None).await?;
    let mut shared = Subject::start(&lab, "redis", Some(redis.declaration(""))).await?;

    let mut relay = Relay::start(&lab).await?;

    for subject in [&mut memory, &mut shared] {
        subject.run(WARM_UP, rate).await?;
        subject.slices.clear();
    }
    relay.run(WARM_UP, rate).await?;
    relay.slices.clear();
    let (mut spent, mut sent, mut in_loads) = (Duration::ZERO, 0.0, Calls::default());
    let mut turns = Turns::new(SLICES);
    while turns.next() {
        let begun = Turn::begin()?;
        memory.run(count / SLICES, rate).await?;
        relay.run(count / SLICES, rate).await?;
        let (calls, before) = (Calls::of(&redis)?, redis.cpu_time()?);
        shared.run(count / SLICES, rate).await?;
        let (of_redis, calls) = (redis.cpu_time()?.saturating_sub(before), Calls::of(&redis)?.minus(&calls));
        if turns.count(&begun)? {
            spent += of_redis;
            sent += f64::from(count / SLICES);
            in_loads = in_loads.plus(&calls);
        } else {
            memory.slices.pop();
            relay.slices.pop();
            shared.slices.pop();
        }
    }
    turns.report();
    report("gateway, embedded store", &memory.slices);
    report("gateway, Redis", &shared.slices);
    println!("Redis itself: {:.1} us of CPU a message", spent.as_secs_f64() * 1e6 / sent);
    let calls = in_loads.report(sent);
    let version = kamailio::version()?;
    let name = version.split_whitespace().skip(1).take(2).collect::<Vec<_>>().join(" ");
    report(&format!("t_relay of {name}"), &relay.slices);
    let mut verdicts = Verdicts::default();
    verdicts.add_ratio("Redis to embedded store", ratio(&shared.slices, &memory.slices), OF_MEMORY);
    verdicts.add_ratio("gateway to Kamailio", ratio(&memory.slices, &relay.slices), OF_KAMAILIO);
    verdicts.add(&format!("calls a message {calls:.2}"), &format!("at most {CALLS}"), calls <= CALLS);

    println!("latencies at {CALM_RATE} a second");
    memory.slices.clear();
    shared.slices.clear();
    let mut bare = Vec::new();
    let mut turns = Turns::new(CALM_SLICES);
    while turns.next() {
        let begun = Turn::begin()?;
        memory.run(CALM_COUNT, CALM_RATE).await?;
        shared.run(CALM_COUNT, CALM_RATE).await?;
        let pings = pings(&redis).await?;
        if turns.count(&begun)? {
            bare.push(pings);
        } else {
            memory.slices.pop();
            shared.slices.pop();
        }
    }
    turns.report();
    let [half, most] = of_slices(&bare);
    println!("a PING to Redis from another process at the same rate: p50 {half:.2?}, p99 {most:.2?}");
    let added = shared.latency("Redis").saturating_sub(memory.latency("embedded store"));
    verdicts.add(&format!("Redis adds {added:.2?} to p99"), &format!("less than {ADDED:?}"), added < ADDED);
    memory.stop().await?;
    shared.stop().await?;
    Ok(verdicts.exit_code())
}

/// When a turn began.
struct Turn {
    at: Instant,
    /// What the host had taken away by then.
    stolen: Duration,
}

impl Turn {
    fn begin() -> Result<Self> {
        Ok(Self { at: Instant::now(), stolen: stolen()? })
    }
}

/// How many turns there were.
#[derive(Debug)]
struct Turns {
    wanted: u32,
    counted: u32,
    disturbed: u32,
}

impl Turns {
    fn new(wanted: u32) -> Self {
        Self { wanted, counted: 0, disturbed: 0 }
    }

    /// Tells whether there is to be another one. When the host never rests, the last ones count as they are.
    fn next(&self) -> bool {
        self.counted < self.wanted
    }

    fn never_rested(&self) -> bool {
        self.disturbed + self.wanted >= self.wanted * TRIES
    }

    /// Tells whether a turn that ends now counts.
    fn count(&mut self, begun: &Turn) -> Result<bool> {
        let quiet = stolen()?.saturating_sub(begun.stolen) <= begun.at.elapsed().mul_f64(STOLEN);
        let counts = quiet || self.never_rested();
        *(if counts { &mut self.counted } else { &mut self.disturbed }) += 1;
        Ok(counts)
    }

    fn report(&self) {
        let at_most =
            if self.never_rested() { "; the host never rested, and the last turns count all the same" } else { "" };
        println!("{} turns; {} more in which the host took processors away{at_most}", self.counted, self.disturbed);
    }
}

/// What was called in Redis.
#[derive(Debug, Default)]
struct Calls([u64; FROM_OUTSIDE.len()]);

impl Calls {
    fn of(redis: &Redis) -> Result<Self> {
        let all = redis.calls()?;
        Ok(Self(FROM_OUTSIDE.map(|name| all.get(name).copied().unwrap_or_default())))
    }

    fn minus(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at].saturating_sub(other.0[at])))
    }

    fn plus(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] + other.0[at]))
    }

    /// Says how many a message, and gives the sum; leases and due times are among them.
    fn report(&self, messages: f64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "counts of one run")]
        let each = self.0.map(|calls| calls as f64 / messages);
        let parts: Vec<String> =
            FROM_OUTSIDE.iter().zip(each).map(|(name, calls)| format!("{name} {calls:.2}")).collect();
        println!(
            "calls to Redis a message: {} (claims of one burst are one call, and so are the answers of 10 ms)",
            parts.join(", ")
        );
        each.iter().sum()
    }
}

/// A gateway under load.
struct Subject {
    gateway: Gateway,
    sink: ComponentSink,
    load: Load,
    runs: u32,
    /// Everything that was ever delivered.
    total: u64,
    slices: Vec<Slice>,
}

/// What one run came to.
struct Slice {
    /// What a message took.
    cost: Duration,
    outcome: Outcome,
}

impl Subject {
    async fn start(lab: &Lab, name: &str, state_store: Option<String>) -> Result<Self> {
        let sink = ComponentSink::start().await?;
        let own = ports::free()?;
        let mut realm = Realm::new(sink.port)?.partner(Partner::standard("partner.example", "UDP", own));
        // The limits of the pool are what is not to be measured here.
        realm.limits = Some("{newSessionsPerSecondPerDomain: 100000}".to_owned());
        "warn".clone_into(&mut realm.log_filter);
        realm.state_store = state_store;
        let folder = lab.folder(name)?;
        realm.write(&folder)?;
        let gateway = Gateway::resume(&folder, realm.admin_port).await?;
        let load = Load { target: realm.plain_port, own, count: 0, rate: 0, label: name.to_owned() };
        Ok(Self { gateway, sink, load, runs: 0, total: 0, slices: Vec::new() })
    }

    async fn run(&mut self, count: u32, rate: u32) -> Result<()> {
        self.runs += 1;
        let label = format!("{}{}", self.load.label, self.runs);
        let load = Load { count, rate, label, ..self.load.clone() };
        let before = self.gateway.cpu_time()?;
        let outcome = load.run().await.with_context(|| self.load.label.clone())?;
        tokio::time::sleep(SETTLED).await;
        let spent = self.gateway.cpu_time()?.saturating_sub(before);
        self.slices.push(Slice { cost: spent / outcome.delivered.max(1), outcome });
        self.total += u64::from(count);
        let arrived = || (self.sink.messages() >= self.total).then_some(());
        wait_until("all stanzas at the sink", Duration::from_secs(5), arrived).await?;
        ensure!(self.sink.messages() == self.total, "{} stanzas for {} requests", self.sink.messages(), self.total);
        Ok(())
    }

    /// Says how long answers took in the median of the slices, and returns what 99 of 100 took at most.
    fn latency(&self, what: &str) -> Duration {
        let latencies: Vec<_> = self.slices.iter().map(|slice| slice.outcome.latencies.clone()).collect();
        let [half, most] = of_slices(&latencies);
        let all = latencies.concat();
        let [of_all, worst] = [0.99, 1.0].map(|part| percentile(&all, part));
        println!(
            "{what}: p50 {half:.2?}, p99 {most:.2?} (of all slices together {of_all:.2?}), longest {worst:.2?} from request \
             to 200 ({} repeated)",
            self.slices.iter().map(|slice| slice.outcome.repeated).sum::<u32>()
        );
        most
    }

    async fn stop(self) -> Result<()> {
        self.gateway.stop().await?;
        Ok(())
    }
}

/// What half of all waited at most, and what 99 of 100 did, in the median of the slices.
fn of_slices(slices: &[Vec<Duration>]) -> [Duration; 2] {
    [0.5, 0.99].map(|part| percentile(&slices.iter().map(|slice| percentile(slice, part)).collect::<Vec<_>>(), 0.5))
}

/// How long the least that can be asked of a Redis takes at the rate at which latencies are taken: what two wake-ups of
/// processes cost on this machine.
async fn pings(redis: &Redis) -> Result<Vec<Duration>> {
    let mut connection = TcpStream::connect(("127.0.0.1", redis.port)).await?;
    connection.set_nodelay(true)?;
    let mut pace = tokio::time::interval(Duration::from_secs(1) / CALM_RATE);
    let (mut latencies, mut answer) = (Vec::new(), [0; 7]);
    for _ in 0..CALM_COUNT {
        pace.tick().await;
        let asked = Instant::now();
        connection.write_all(b"PING\r\n").await?;
        connection.read_exact(&mut answer).await?;
        latencies.push(asked.elapsed());
    }
    Ok(latencies)
}

/// Says what a message took in the median of the slices.
fn report(what: &str, slices: &[Slice]) {
    let costs: Vec<_> = slices.iter().map(|slice| slice.cost).collect();
    let [delivered, repeated] = [|outcome: &Outcome| outcome.delivered, |outcome: &Outcome| outcome.repeated]
        .map(|of| slices.iter().map(|slice| of(&slice.outcome)).sum::<u32>());
    let [least, middle, most] = [0.0, 0.5, 1.0].map(|part| percentile(&costs, part).as_secs_f64() * 1e6);
    println!(
        "{what}: {middle:.1} us of CPU a message, {least:.1} to {most:.1} ({delivered} delivered, {repeated} repeated)"
    );
}

/// Returns what a message of one subject took, as a part of what one of another took in the same turn: the median of all turns.
fn ratio(of: &[Slice], to: &[Slice]) -> f64 {
    let mut ratios: Vec<f64> =
        of.iter().zip(to).map(|(one, other)| one.cost.as_secs_f64() / other.cost.as_secs_f64()).collect();
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied().unwrap_or(f64::INFINITY)
}

/// Kamailio under the same load.
struct Relay {
    kamailio: Kamailio,
    _sink: SipSink,
    load: Load,
    runs: u32,
    slices: Vec<Slice>,
}

impl Relay {
    async fn start(lab: &Lab) -> Result<Self> {
        let sink = SipSink::start().await?;
        let folder = lab.folder("kamailio-relay")?;
        let port = ports::free()?;
        let config = RELAY.replace("@PORT@", &port.to_string()).replace("@SINK@", &sink.port.to_string());
        let kamailio = Kamailio::start("kamailio-relay", &folder, &config, port, 0, 512).await?;
        let load = Load { target: port, own: ports::free()?, count: 0, rate: 0, label: "k".to_owned() };
        Ok(Self { kamailio, _sink: sink, load, runs: 0, slices: Vec::new() })
    }

    async fn run(&mut self, count: u32, rate: u32) -> Result<()> {
        self.runs += 1;
        let load = Load { count, rate, label: format!("k{}", self.runs), ..self.load.clone() };
        let before = self.kamailio.cpu_time()?;
        let outcome = load.run().await.context("Kamailio")?;
        tokio::time::sleep(SETTLED).await;
        let spent = self.kamailio.cpu_time()?.saturating_sub(before);
        self.slices.push(Slice { cost: spent / outcome.delivered.max(1), outcome });
        Ok(())
    }
}
