//! A primary, its two copies and three Sentinels as the shared store of a realm: what changes places, and what dies.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::{Lab, wait_for};
use crate::ports;
use crate::process::{self, Process};
use crate::redis::{Redis, program};

/// The name of the primary.
const MASTER: &str = "isthmus";
/// How long until a server counts as dead.
const DOWN_AFTER: Duration = Duration::from_secs(1);
/// How long the Sentinels may take for anything. They do not try twice within 6 s, and look at a copy every 10 s only.
const PATIENCE: Duration = Duration::from_secs(40);

/// Three servers and three Sentinels, set up as the README says: a primary takes writes only while it has a copy.
#[derive(Debug)]
pub struct Group {
    servers: Vec<Redis>,
    sentinels: Vec<(u16, Process)>,
}

impl Group {
    /// Starts all of them, and returns when the Sentinels know each other and the copies.
    ///
    /// # Errors
    ///
    /// When Redis is not installed, or they do not agree.
    pub async fn start(lab: &Lab) -> Result<Self> {
        let primary = Redis::start_in_group(lab, "redis-0", None).await?;
        let copies = [
            Redis::start_in_group(lab, "redis-1", Some(primary.port)).await?,
            Redis::start_in_group(lab, "redis-2", Some(primary.port)).await?,
        ];
        let mut sentinels = Vec::new();
        for number in 0..3 {
            let (port, folder) = (ports::free()?, lab.folder(&format!("sentinel-{number}"))?);
            let text = format!(
                "port {port}\nbind 127.0.0.1\nsentinel monitor {MASTER} 127.0.0.1 {} 2\n\
                 sentinel down-after-milliseconds {MASTER} {}\nsentinel failover-timeout {MASTER} 3000\n",
                primary.port,
                DOWN_AFTER.as_millis()
            );
            std::fs::write(folder.join("sentinel.conf"), text)?;
            let mut command = Command::new(program());
            command.args(["sentinel.conf", "--sentinel"]);
            sentinels.push((port, Process::spawn("sentinel", &command, &folder)?));
        }
        let servers = std::iter::once(primary).chain(copies).collect();
        let group = Self { servers, sentinels };
        group.whole().await?;
        Ok(group)
    }

    /// The `stateStore` of a Federation for this group.
    pub fn declaration(&self) -> String {
        let addresses: Vec<String> = self.sentinels.iter().map(|(port, _)| format!("\"127.0.0.1:{port}\"")).collect();
        format!("{{redis: {{mode: Sentinel, masterName: {MASTER}, addresses: [{}]}}}}", addresses.join(", "))
    }

    /// Lets a copy take the place of the primary (SENTINEL FAILOVER), and returns when the Sentinels say that it has.
    ///
    /// # Errors
    ///
    /// When that does not happen in time.
    pub async fn fail_over(&self) -> Result<()> {
        let before = self.primary()?;
        wait_for("the Sentinels begin a fail-over", PATIENCE, || async {
            // They refuse while they have not looked at the copy for a while.
            Ok(self.ask(&["SENTINEL", "FAILOVER", MASTER]).is_ok().then_some(()))
        })
        .await?;
        self.changed(before).await.map(drop)
    }

    /// Kills the primary at once, waits for the next one, starts the old one again as its copy, and returns when that is one.
    ///
    /// # Errors
    ///
    /// When that does not happen in time.
    pub async fn kill_primary(&mut self) -> Result<()> {
        let before = self.primary()?;
        let old = self.servers.iter_mut().find(|server| server.port == before).context("no such server")?;
        old.kill();
        let next = self.changed(before).await?;
        let old = self.servers.iter_mut().find(|server| server.port == before).context("no such server")?;
        old.resume_as_copy(next).await?;
        self.whole().await
    }

    fn ask(&self, words: &[&str]) -> Result<String> {
        let (port, _) = self.sentinels.first().context("no Sentinel")?;
        ask(*port, words)
    }

    /// The port of the primary, as the first Sentinel sees it.
    fn primary(&self) -> Result<u16> {
        let answer = self.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER])?;
        answer.lines().nth(1).context("no primary")?.trim().parse().context("no port")
    }

    async fn changed(&self, before: u16) -> Result<u16> {
        wait_for("another primary", PATIENCE, || async { Ok(self.primary().ok().filter(|now| *now != before)) }).await
    }

    /// Waits until all others are copies of one primary and up to date, and every Sentinel says so.
    ///
    /// # Errors
    ///
    /// When that does not happen in time.
    pub async fn whole(&self) -> Result<()> {
        wait_for("the Sentinels agree, and the primary has its copies", PATIENCE, || async {
            let Ok(primary) = self.primary() else { return Ok(None) };
            let state = ask(primary, &["INFO", "replication"]).unwrap_or_default();
            let agreed = self.sentinels.iter().all(|(port, _)| {
                let state = ask(*port, &["SENTINEL", "MASTER", MASTER]).unwrap_or_default();
                let lines: Vec<&str> = state.lines().map(str::trim).collect();
                let is = |name: &str, value: &str| lines.windows(2).any(|pair| pair == [name, value]);
                is("flags", "master") && is("port", &primary.to_string()) && is("num-other-sentinels", "2")
            });
            let copies = state.matches("state=online").count();
            Ok((agreed && state.contains("role:master") && copies + 1 == self.servers.len()).then_some(()))
        })
        .await
    }
}

fn ask(port: u16, words: &[&str]) -> Result<String> {
    let mut command = Command::new("redis-cli");
    process::run(command.args(["-e", "-h", "127.0.0.1", "-p", &port.to_string()]).args(words))
}
