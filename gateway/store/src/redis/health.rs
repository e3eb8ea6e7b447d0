//! What a Redis says about itself, and what is wrong with it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use isthmus_model::EpochMillis;
use redis::{Value, cmd};
use tokio::time::Instant;

use super::Shared;
use super::link::{Failure, Node, Trouble, text};
use super::reply::Parts;
use super::script::{COUNT, Call};
use crate::error::StoreError;
use crate::health::{Finding, Health, HealthState};
use crate::key::Shard;

/// From how many keys on records are estimated and no longer counted.
const COUNTED_KEYS: u64 = 5000;
/// How many shards are counted, and keys looked at, at a time: what else is asked of the server comes in between.
const SHARDS_AT_ONCE: usize = 4;
const KEYS_AT_ONCE: &str = "100";
/// How far the clocks may be apart: due times and leases are counted in seconds.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(1);

/// What is wrong, and whether operations fail for it.
struct Verdict {
    state: HealthState,
    finding: Finding,
}

fn verdict(state: HealthState, reason: &'static str, message: String, remedy: &str) -> Verdict {
    Verdict { state, finding: Finding { reason, message, remedy: remedy.to_owned() } }
}

fn of_trouble(trouble: &Trouble) -> Verdict {
    let (reason, remedy) = match trouble {
        Trouble::Away(_) => (
            "Unreachable",
            "check that the server runs, that the addresses are right, that both sides speak TLS or neither does, and \
             that no network policy is in between",
        ),
        Trouble::Refused(_) => (
            "AuthenticationFailed",
            "put the right user and password into the Secret; it is read again at the next attempt, without a restart",
        ),
        Trouble::Forbidden(_) => (
            "AuthenticationFailed",
            "give the user the rights that are missing: `~<prefix>* &<prefix>* +@read +@write +@scripting +@pubsub \
             +@connection +info +time`, and `+cluster|slots` for a Cluster",
        ),
        Trouble::CertificateRefused(_) => (
            "AuthenticationFailed",
            "put a client certificate that is in force, of an authority that the server trusts, and its key into the \
             Secret that clientSecretRef names; it is read again at the next attempt, without a restart",
        ),
        Trouble::WrongMode(_) => ("WrongMode", "correct mode, masterName or addresses, or upgrade the server"),
        Trouble::Replica => {
            ("WrongMode", "name the primary in the addresses, or use mode Sentinel or Cluster so that it is found")
        }
    };
    verdict(HealthState::Down, reason, trouble.text(), remedy)
}

/// What one server said.
#[derive(Debug, Default)]
struct Report {
    info: HashMap<String, String>,
    keys: u64,
    time: Option<EpochMillis>,
}

impl Report {
    fn get(&self, name: &str) -> Option<&str> {
        self.info.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> u64 {
        self.get(name).and_then(|value| value.parse().ok()).unwrap_or(0)
    }
}

async fn ask(node: &Node, words: &[&str], limit: Duration) -> Result<Value, Trouble> {
    let mut words = words.iter();
    let mut command = cmd(words.next().copied().unwrap_or_default());
    command.arg(words.copied().collect::<Vec<_>>());
    node.send(&command, false, Instant::now() + limit).await.map_err(|failure| match failure {
        Failure::Away(reason) => Trouble::Away(reason),
        Failure::Refused { code, detail, .. } => {
            let said = format!("{code} {detail}");
            match code.as_str() {
                "NOPERM" => Trouble::Forbidden(said),
                "NOAUTH" => Trouble::Refused(said),
                _ => Trouble::Away(said),
            }
        }
    })
}

async fn report(node: &Node, channel: &str, limit: Duration) -> Result<Report, Trouble> {
    let mut report = Report::default();
    // Scripts go on without this right, and other processes hear of what they did when they look for it by themselves.
    ask(node, &["PUBLISH", channel, ""], limit).await?;
    if let Value::BulkString(bytes) = ask(node, &["INFO"], limit).await? {
        let info = String::from_utf8_lossy(&bytes);
        let pairs = info.lines().filter_map(|line| line.split_once(':'));
        report.info = pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
    }
    if let Value::Int(keys) = ask(node, &["DBSIZE"], limit).await? {
        report.keys = u64::try_from(keys).unwrap_or(0);
    }
    if let Value::Array(parts) = ask(node, &["TIME"], limit).await?
        && let [seconds, micros] = parts.as_slice()
    {
        let number = |value| text(value).and_then(|text| text.parse::<u64>().ok());
        report.time =
            number(seconds).zip(number(micros)).map(|(seconds, micros)| EpochMillis(seconds * 1000 + micros / 1000));
    }
    Ok(report)
}

/// Says what is wrong with a server; `before` and `after` are our time around its answer.
fn judge(address: &str, report: &Report, before: EpochMillis, after: EpochMillis) -> Vec<Verdict> {
    let mut found = Vec::new();
    if report.get("aof_enabled") != Some("1") {
        found.push(verdict(
            HealthState::Degraded,
            "StateNotDurable",
            format!("{address} keeps no append-only file, so users' decisions are lost when it ends"),
            "set `appendonly yes` on every server, on a disk that stays",
        ));
    } else if report.get("aof_last_write_status").is_some_and(|status| status != "ok") {
        found.push(verdict(
            HealthState::Degraded,
            "PersistenceFailing",
            format!("{address} cannot write its append-only file"),
            "make room on the disk of the server, or repair it",
        ));
    }
    let (policy, most) = (report.get("maxmemory_policy").unwrap_or("noeviction"), report.number("maxmemory"));
    if policy != "noeviction" {
        found.push(verdict(
            HealthState::Degraded,
            "EvictionPolicyUnsafe",
            format!("{address} throws records away when its memory is full (maxmemory-policy {policy})"),
            "set `maxmemory-policy noeviction` on every server",
        ));
    }
    let used = report.number("used_memory");
    if most > 0 && used >= most - most / 10 {
        found.push(verdict(
            HealthState::Degraded,
            "NearlyFull",
            format!("{address} uses {used} of {most} octets"),
            "give the server more memory and raise maxmemory",
        ));
    }
    if let Some(time) = report.time {
        let apart = before.since(time).max(time.since(after));
        if apart > CLOCK_DIFFERENCE {
            found.push(verdict(
                HealthState::Degraded,
                "ClockDifference",
                format!("the clock of {address} and ours are {} ms apart", apart.as_millis()),
                "run a time service (NTP) on both machines",
            ));
        }
    }
    found
}

/// Nothing is wrong, and nothing counted.
fn well() -> Health {
    Health {
        state: HealthState::Ready,
        durable: true,
        findings: Vec::new(),
        records: 0,
        bytes: 0,
        timers: 0,
        queued: 0,
        leases: 0,
        expired_items: 0,
    }
}

/// Looks at all servers and counts what is stored.
pub(super) async fn look(shared: &Shared) -> Health {
    let mut health = well();
    let mut verdicts = Vec::new();
    let nodes = shared.router.primaries();
    let mut keys = 0;
    if let Some(trouble) = shared.router.trouble().filter(|_| nodes.is_empty()) {
        verdicts.push(of_trouble(&trouble));
    } else if nodes.is_empty() {
        verdicts.push(of_trouble(&Trouble::Away("no server is known yet".to_owned())));
    }
    let limit = shared.config.timeout;
    let reports = futures::future::join_all(nodes.iter().map(async |node| {
        node.hello().map_err(|trouble| (trouble, false))?;
        let before = shared.config.clock.now();
        let report = report(node, &shared.names.channel(), limit).await.map_err(|trouble| (trouble, true))?;
        let address = node.address().unwrap_or_else(|| "the server".to_owned());
        let found = judge(&address, &report, before, shared.config.clock.now());
        Ok::<_, (Trouble, bool)>((report, found))
    }))
    .await;
    for result in reports {
        match result {
            Ok((report, found)) => {
                keys += report.keys;
                health.bytes = health.bytes.saturating_add(usize::try_from(report.number("used_memory")).unwrap_or(0));
                health.durable &= report.get("aof_enabled") == Some("1");
                verdicts.extend(found);
            }
            Err((trouble, works)) => {
                health.durable = false;
                let mut verdict = of_trouble(&trouble);
                // Others of its rights may be there.
                if works && matches!(trouble, Trouble::Forbidden(_)) {
                    verdict.state = HealthState::Degraded;
                }
                verdicts.push(verdict);
            }
        }
    }
    if verdicts.iter().all(|verdict| verdict.state != HealthState::Down) {
        match count(shared, &mut health).await {
            Ok(()) => health.records = records(shared, &nodes, keys).await,
            Err(error) => verdicts.push(of_trouble(&Trouble::Away(error.to_string()))),
        }
    }
    add(&mut health, verdicts);
    health
}

/// Adds what is wrong, the worst first: that is the one that conditions and `/v1/status` name.
fn add(health: &mut Health, mut verdicts: Vec<Verdict>) {
    verdicts.sort_by_key(|verdict| Reverse(verdict.state));
    for Verdict { state, finding } in verdicts {
        health.state = health.state.max(state);
        if !health.findings.contains(&finding) {
            health.findings.push(finding);
        }
    }
}

/// Counts timers, items and leases, shard by shard.
async fn count(shared: &Shared, health: &mut Health) -> Result<(), StoreError> {
    let counts = stream::iter(Shard::all()).map(async |shard| {
        let names = &shared.names;
        let mut call = Call::default();
        call.key(names.counters(shard));
        call.key(names.due_times(shard));
        call.key(names.queues(shard));
        call.key(names.leases(shard));
        let [lists, items] = names.queue_starts(shard);
        call.shown(lists);
        call.shown(items);
        let mut parts = Parts::of(shared.router.call(shard, |whole| COUNT.command(&call, whole)).await?)?;
        let [timers, queued, leases, expired] = [parts.number()?, parts.number()?, parts.number()?, parts.number()?];
        Ok::<_, StoreError>([timers, queued, leases, if names.has_counters(shard) { expired } else { 0 }])
    });
    let mut counts = pin!(counts.buffer_unordered(SHARDS_AT_ONCE));
    while let Some(count) = counts.next().await {
        let [timers, queued, leases, expired] = count?;
        let add = |sum: &mut usize, more| *sum = sum.saturating_add(usize::try_from(more).unwrap_or(usize::MAX));
        add(&mut health.timers, timers);
        add(&mut health.queued, queued);
        add(&mut health.leases, leases);
        health.expired_items = health.expired_items.saturating_add(expired);
    }
    Ok(())
}

/// Counts the records of a small store; of a large one, says how many keys there are.
async fn records(shared: &Shared, nodes: &[super::route::NodeRef<'_>], keys: u64) -> usize {
    let keys_in_all = usize::try_from(keys).unwrap_or(usize::MAX);
    if keys > COUNTED_KEYS {
        return keys_in_all;
    }
    let pattern = shared.names.pattern();
    let mut seen = std::collections::HashSet::new();
    for node in nodes {
        let mut cursor = "0".to_owned();
        loop {
            let words = ["SCAN", &cursor, "MATCH", &pattern, "COUNT", KEYS_AT_ONCE];
            let Ok(Value::Array(parts)) = ask(node, &words, shared.config.timeout).await else { return keys_in_all };
            let [next, Value::Array(names)] = parts.as_slice() else { return keys_in_all };
            seen.extend(names.iter().filter_map(text).filter(|name| shared.names.is_record(name)).map(str::to_owned));
            text(next).unwrap_or("0").clone_into(&mut cursor);
            if cursor == "0" {
                break;
            }
        }
    }
    seen.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::REASONS;

    fn report(info: &[(&str, &str)], time: u64) -> Report {
        let info = info.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Report { info, keys: 0, time: Some(EpochMillis(time)) }
    }

    fn reasons(info: &[(&str, &str)], time: u64) -> Vec<&'static str> {
        let (before, after) = (EpochMillis(1_000_000), EpochMillis(1_000_010));
        let found = judge("redis:6379", &report(info, time), before, after);
        assert!(found.iter().all(|verdict| !verdict.finding.remedy.is_empty()));
        assert!(found.iter().all(|verdict| REASONS.contains(&verdict.finding.reason)));
        found.iter().map(|verdict| verdict.finding.reason).collect()
    }

    const GOOD: [(&str, &str); 3] =
        [("aof_enabled", "1"), ("aof_last_write_status", "ok"), ("maxmemory_policy", "noeviction")];

    #[test]
    fn each_wrong_setting_is_named_with_its_remedy() {
        assert_eq!(reasons(&GOOD, 1_000_005), [""; 0]);
        assert_eq!(reasons(&[], 1_000_005), ["StateNotDurable"]);
        let failing = [("aof_enabled", "1"), ("aof_last_write_status", "err")];
        assert_eq!(reasons(&failing, 1_000_005), ["PersistenceFailing"]);
        let evicting = [("aof_enabled", "1"), ("maxmemory_policy", "allkeys-lru")];
        assert_eq!(reasons(&evicting, 1_000_005), ["EvictionPolicyUnsafe"]);
        let full = [("aof_enabled", "1"), ("maxmemory", "1000"), ("used_memory", "950")];
        assert_eq!(reasons(&full, 1_000_005), ["NearlyFull"]);
        for (time, expected) in [(1_003_000, &["ClockDifference"][..]), (997_000, &["ClockDifference"]), (999_500, &[])]
        {
            assert_eq!(reasons(&GOOD, time), expected, "{time}");
        }
    }

    #[test]
    fn what_is_down_has_the_reason_of_the_condition() {
        let text = || "x".to_owned();
        let troubles = [
            (Trouble::Away(text()), "Unreachable"),
            (Trouble::Refused(text()), "AuthenticationFailed"),
            (Trouble::Forbidden(text()), "AuthenticationFailed"),
            (Trouble::CertificateRefused(text()), "AuthenticationFailed"),
            (Trouble::WrongMode(text()), "WrongMode"),
            (Trouble::Replica, "WrongMode"),
        ];
        for (trouble, reason) in troubles {
            let verdict = of_trouble(&trouble);
            assert_eq!((verdict.state, verdict.finding.reason), (HealthState::Down, reason));
            assert!(REASONS.contains(&reason));
        }
    }

    #[test]
    fn the_worst_is_named_first_whichever_server_it_is_of() {
        let mut health = well();
        let (before, after) = (EpochMillis(1_000_000), EpochMillis(1_000_010));
        let mut verdicts = judge("one:6379", &report(&GOOD, 1_009_000), before, after);
        verdicts.push(of_trouble(&Trouble::Away("two:6379".to_owned())));
        verdicts.push(of_trouble(&Trouble::Away("two:6379".to_owned())));
        add(&mut health, verdicts);
        let reasons: Vec<_> = health.findings.iter().map(|finding| finding.reason).collect();
        assert_eq!((health.state, reasons), (HealthState::Down, vec!["Unreachable", "ClockDifference"]));
    }
}
