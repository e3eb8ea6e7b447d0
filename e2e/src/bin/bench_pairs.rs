//! What very many pairs cost: Redis memory for each, processor time at the basic rate, and the time until all are current
//! again after the only gateway was killed.
//!
//! The pairs are made by SUBSCRIBE requests of a SIP partner over UDP, ten watchers for each user of an XMPP server that
//! is a sink. At the basic rate each of 160,000 pairs has one refresh and three changes of presence an hour; that makes 44
//! refreshes (SUBSCRIBE, its answer, NOTIFY, its answer) and 133 changes (NOTIFY, its answer) a second, 444 messages. The
//! rate stays the same for other numbers of pairs. `PAIRS`, `SECS` of the basic rate and `AT_ONCE` change the numbers.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]
#![expect(clippy::cast_precision_loss, reason = "counts of one run")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::future::join_all;
use isthmus_e2e::gateway::Gateway;
use isthmus_e2e::lab::{Lab, number, wait_until};
use isthmus_e2e::manifests::{Partner, Realm};
use isthmus_e2e::ports;
use isthmus_e2e::redis::Redis;
use isthmus_e2e::sink::ComponentSink;
use isthmus_e2e::verdicts::Verdicts;
use isthmus_e2e::watchers::Watchers;
use tokio::time::{MissedTickBehavior, interval, sleep};

const PARTNER: &str = "partner.example";
const CORP: &str = "corp.example";
/// How many watchers a user has.
const EACH: usize = 10;
const EXPIRES_SECS: u32 = 3600;
/// Changes and refreshes a second at the basic rate, for 160,000 pairs.
const CHANGES: f64 = 160_000.0 * 3.0 / 3600.0;
const REFRESHES: f64 = 160_000.0 / 3600.0;
/// What is remembered of requests against repetitions ends after this time.
const REMEMBERED: Duration = Duration::from_secs(34);

/// At most so many octets of Redis for a pair.
const OCTETS: f64 = 1024.0;
/// At most this share of a core at the basic rate.
const SHARE: f64 = 0.15;
/// At most so long until a new gateway is ready, and until all pairs are current.
const READY: Duration = Duration::from_secs(2);
const CURRENT: Duration = Duration::from_secs(60);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let pairs: usize = number("PAIRS", 160_000)?;
    let secs: u64 = number("SECS", 60)?;
    let at_once: usize = number("AT_ONCE", 128)?;
    let lab = Lab::new("bench-pairs")?;
    let redis = Redis::start(&lab).await?;
    let sink = ComponentSink::start_showing().await?;
    let own = ports::free()?;
    let mut realm = Realm::new(sink.port)?.partner(Partner::standard(PARTNER, "UDP", own));
    // The limits of the pool are what is not to be measured here.
    realm.limits = Some("{newSessionsPerSecondPerDomain: 100000}".to_owned());
    realm.local_policy = Some("{default: Allow}".to_owned());
    "warn".clone_into(&mut realm.log_filter);
    realm.state_store = Some(redis.declaration(""));
    let gateway = Gateway::start(&lab, &realm).await?;
    let proxy = ([127, 0, 0, 1], realm.plain_port).into();
    let watchers = Watchers::start(PARTNER, own, proxy, pairs, EACH, CORP).await?;
    println!("{pairs} pairs, {EACH} watchers for each user, one Redis with everysec, one gateway");

    let before = used(&redis)?;
    let begin = Instant::now();
    watchers.open(EXPIRES_SECS, at_once).await?;
    all_shown(&watchers, 0, pairs, Duration::from_secs(60)).await?;
    let took = begin.elapsed();
    let counts = watchers.counts();
    println!(
        "made in {took:.1?}, {:.0} a second, {} requests repeated, {} refused for the moment, {:.1} s of CPU",
        pairs as f64 / took.as_secs_f64(),
        counts.repeated,
        counts.refused,
        gateway.cpu_time()?.as_secs_f64()
    );
    sleep(REMEMBERED).await;
    let each = settled(&redis)?.saturating_sub(before) as f64 / pairs as f64;
    report_kinds(&redis)?;
    let mut verdicts = Verdicts::default();
    verdicts.add(&format!("Redis memory {each:.0} octets a pair"), &format!("at most {OCTETS}"), each <= OCTETS);

    let share = steady(&gateway, &sink, &watchers, pairs, secs).await?;
    let wanted = format!("at most {:.0} %", SHARE * 100.0);
    verdicts.add(&format!("gateway at the basic rate {:.1} % of a core", share * 100.0), &wanted, share <= SHARE);

    lose(gateway, &sink, &watchers, &realm, pairs, &mut verdicts).await?;
    Ok(verdicts.exit_code())
}

/// Waits until every watcher was shown a state.
async fn all_shown(watchers: &Watchers, state: u64, pairs: usize, within: Duration) -> Result<()> {
    let shown = wait_until("every watcher was told", within, || (watchers.shown(state) >= pairs).then_some(()));
    shown.await.with_context(|| format!("{} of {pairs} were told, {:?}", watchers.shown(state), watchers.counts()))
}

/// Memory that Redis uses for data, in octets.
fn used(redis: &Redis) -> Result<u64> {
    info(redis, "memory", "used_memory:")
}

fn info(redis: &Redis, section: &str, field: &str) -> Result<u64> {
    let text = redis.ask(&["INFO", section])?;
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.trim().parse().ok());
    value.with_context(|| format!("Redis does not show {field}"))
}

/// Memory once what has run out is gone: Redis by itself leaves up to a tenth of it for long, a walk over the keys takes it away.
fn settled(redis: &Redis) -> Result<u64> {
    redis.ask(&["--scan"])?;
    used(redis)
}

/// Shows what the memory goes to: for each kind of key the number of keys and their mean size in a sample.
fn report_kinds(redis: &Redis) -> Result<()> {
    const SCRIPT: &str = "local kinds, cursor, seen = {}, '0', 0 \
        repeat \
          local page = redis.call('SCAN', cursor, 'COUNT', 1000) cursor = page[1] \
          for _, key in ipairs(page[2]) do \
            local kind = string.match(key, '}(%a+)') or '?' \
            local sum = kinds[kind] or {0, 0, 0} kinds[kind] = sum \
            sum[1] = sum[1] + 1 \
            if sum[2] < 500 then sum[2] = sum[2] + 1 sum[3] = sum[3] + redis.call('MEMORY', 'USAGE', key, 'SAMPLES', 20) end \
          end \
        until cursor == '0' \
        local lines = {} \
        for kind, sum in pairs(kinds) do \
          lines[#lines + 1] = string.format('%s: %d keys, %.0f octets each', kind, sum[1], sum[3] / sum[2]) \
        end \
        return table.concat(lines, '; ')";
    println!("keys in Redis: {}", redis.ask(&["EVAL", SCRIPT, "0"])?.trim());
    Ok(())
}

/// Refreshes and changes at the basic rate; gives the gateway's share of a core.
async fn steady(gateway: &Gateway, sink: &ComponentSink, watchers: &Watchers, pairs: usize, secs: u64) -> Result<f64> {
    let users = pairs / EACH;
    let (cpu, counts, begin) = (gateway.cpu_time()?, watchers.counts(), Instant::now());
    let (mut refreshed, mut changed, mut state) = (0_usize, 0_usize, 0_u64);
    let mut refreshes = Vec::new();
    let mut tick = interval(Duration::from_millis(10));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = vec![0_u64; users];
    while begin.elapsed() < Duration::from_secs(secs) {
        tick.tick().await;
        let passed = begin.elapsed().as_secs_f64();
        while (refreshed as f64) < passed * REFRESHES {
            refreshes.push(tokio::spawn(watchers.refresh(refreshed % pairs, EXPIRES_SECS)));
            refreshed += 1;
        }
        while ((changed * EACH) as f64) < passed * CHANGES {
            let user = changed % users;
            state += 1;
            change(sink, user, state);
            if let Some(last) = last.get_mut(user) {
                *last = state;
            }
            changed += 1;
        }
    }
    let spent = gateway.cpu_time()?.saturating_sub(cpu).as_secs_f64() / begin.elapsed().as_secs_f64();
    let messages = (watchers.counts().messages - counts.messages) as f64 / begin.elapsed().as_secs_f64();
    for outcome in join_all(refreshes).await {
        outcome??;
    }
    let missed = || (0..pairs).filter(|n| watchers.last(*n) != last.get(n / EACH).copied()).count();
    let told = wait_until("every change was shown", Duration::from_secs(10), || (missed() == 0).then_some(()));
    told.await.with_context(|| format!("{} watchers were not told, {:?}", missed(), watchers.counts()))?;
    let counts = (watchers.counts().repeated - counts.repeated, watchers.counts().strange - counts.strange);
    println!(
        "basic rate for {secs} s: {messages:.0} SIP messages a second ({refreshed} refreshes, {changed} changes of a user with \
         {EACH} watchers), {} repeated, {} out of order",
        counts.0, counts.1
    );
    ensure!(counts.1 == 0, "{} NOTIFY were out of order", counts.1);
    Ok(spent)
}

fn change(sink: &ComponentSink, user: usize, state: u64) {
    let watchers = (user * EACH..(user + 1) * EACH).map(|n| format!("w{n}@{PARTNER}"));
    sink.change(&format!("u{user}@{CORP}"), state, PARTNER, watchers);
}

/// Kills the gateway, changes what every user shows, and starts another one.
async fn lose(
    gateway: Gateway,
    sink: &ComponentSink,
    watchers: &Watchers,
    realm: &Realm,
    pairs: usize,
    verdicts: &mut Verdicts,
) -> Result<()> {
    const NEWS: u64 = 1_000_000;
    let folder = gateway.folder().to_owned();
    gateway.kill();
    sink.change_all(NEWS);
    let (probes, counts, begin) = (sink.probes(), watchers.counts(), Instant::now());
    let gateway = Gateway::resume(&folder, realm.admin_port).await?;
    let ready = begin.elapsed();
    verdicts.add(&format!("ready {ready:.2?} after the start"), &format!("at most {READY:?}"), ready <= READY);
    let shown = all_shown(watchers, NEWS, pairs, CURRENT * 5).await;
    let current = begin.elapsed();
    let after = watchers.counts();
    println!(
        "{} probes, {} SIP messages, {} repeated, {:.1} s of CPU",
        sink.probes() - probes,
        after.messages - counts.messages,
        after.repeated - counts.repeated,
        gateway.cpu_time()?.as_secs_f64()
    );
    let what = match &shown {
        Ok(()) => format!("all pairs current {current:.1?} after the start"),
        Err(error) => format!("not all pairs current {current:.1?} after the start ({error:#})"),
    };
    verdicts.add(&what, &format!("at most {CURRENT:?}"), shown.is_ok() && current <= CURRENT);
    ensure!(after.strange == counts.strange, "{} NOTIFY were out of order", after.strange - counts.strange);
    gateway.stop().await?;
    Ok(())
}
