//! Redis as the shared store of a realm: one server that writes every change to its file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::lab::{Lab, wait_for};
use crate::pki::Certificate;
use crate::ports;
use crate::process::{self, Process};

/// What Redis does by default: while it syncs its file, which it does once a second, it also answers before it writes. A
/// server that is killed then forgets what it has answered.
const EVERY_SECOND: &str = "everysec";

/// The server that is started: Debian's, or the one that `ISTHMUS_REDIS_SERVER` names, for example a Valkey.
pub(crate) fn program() -> OsString {
    std::env::var_os("ISTHMUS_REDIS_SERVER").filter(|name| !name.is_empty()).unwrap_or_else(|| "redis-server".into())
}

/// A running Redis.
#[derive(Debug)]
pub struct Redis {
    /// It listens here on 127.0.0.1.
    pub port: u16,
    folder: PathBuf,
    /// Whether it speaks TLS only, and demands a certificate of its clients.
    tls: bool,
    /// The port of the primary that it copies.
    copies: Option<u16>,
    /// As a primary it takes writes only while it has a copy.
    needs_copy: bool,
    /// Its `appendfsync`.
    fsync: &'static str,
    /// The port by which the nodes of a Cluster speak to each other, if it is one of them.
    bus: Option<u16>,
    process: Option<Process>,
}

impl Redis {
    /// Starts a server that keeps an append-only file.
    ///
    /// # Errors
    ///
    /// When Redis is not installed or does not listen within 5 s.
    pub async fn start(lab: &Lab) -> Result<Self> {
        let (port, folder) = (ports::free()?, lab.folder("redis")?);
        let mut redis = Self {
            port,
            folder,
            tls: false,
            copies: None,
            needs_copy: false,
            fsync: EVERY_SECOND,
            bus: None,
            process: None,
        };
        redis.resume().await?;
        Ok(redis)
    }

    /// Starts a server that answers nothing before it is on disk, so that a kill takes nothing of it.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub async fn start_strict(lab: &Lab) -> Result<Self> {
        let mut redis = Self::start(lab).await?;
        redis.fsync = "always";
        redis.restart().await?;
        Ok(redis)
    }

    /// Starts a server of a group with its files in `folder` of the lab: the primary, or a copy of another one. It takes writes
    /// only while it has a copy, so that a primary that was replaced takes none.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub async fn start_in_group(lab: &Lab, folder: &str, copies: Option<u16>) -> Result<Self> {
        let (port, folder) = (ports::free()?, lab.folder(folder)?);
        let mut redis =
            Self { port, folder, tls: false, copies, needs_copy: true, fsync: EVERY_SECOND, bus: None, process: None };
        redis.resume().await?;
        Ok(redis)
    }

    /// Starts a node of a Cluster that is to be made, with its files in `folder` of the lab.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub async fn start_node(lab: &Lab, folder: &str) -> Result<Self> {
        let (port, bus, folder) = (ports::free()?, Some(ports::free()?), lab.folder(folder)?);
        let mut redis =
            Self { port, folder, tls: false, copies: None, needs_copy: false, fsync: EVERY_SECOND, bus, process: None };
        redis.resume().await?;
        Ok(redis)
    }

    /// Starts it again as a copy of another one, whatever it was before.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub async fn resume_as_copy(&mut self, primary: u16) -> Result<()> {
        self.copies = Some(primary);
        self.resume().await
    }

    /// Starts a server that speaks TLS only, shows this certificate, and demands one of the same authority.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub async fn start_tls(lab: &Lab, certificate: &Certificate) -> Result<Self> {
        let (port, folder) = (ports::free()?, lab.folder("redis")?);
        let mut redis = Self {
            port,
            folder,
            tls: true,
            copies: None,
            needs_copy: false,
            fsync: EVERY_SECOND,
            bus: None,
            process: None,
        };
        redis.write_certificate(certificate)?;
        redis.resume().await?;
        Ok(redis)
    }

    /// Gives the server another certificate and authority, which it takes when it starts the next time.
    ///
    /// # Errors
    ///
    /// When its folder cannot be written.
    pub fn write_certificate(&self, certificate: &Certificate) -> Result<()> {
        std::fs::write(self.folder.join("tls.crt"), &certificate.chain_pem)?;
        std::fs::write(self.folder.join("tls.key"), &certificate.key_pem)?;
        std::fs::write(self.folder.join("ca.crt"), &certificate.authority_pem)?;
        Ok(())
    }

    /// Gives the server a command as its administrator does, and returns the answer.
    ///
    /// # Errors
    ///
    /// When the server is away or refuses it.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new("redis-cli");
        process::run(command.args(["-e", "-h", "127.0.0.1", "-p", &self.port.to_string()]).args(words))
    }

    /// How often clients have called each command since the server started. What scripts call is counted, too.
    ///
    /// # Errors
    ///
    /// As [`Self::ask`].
    pub fn calls(&self) -> Result<BTreeMap<String, u64>> {
        // cmdstat_evalsha:calls=7,usec=…
        let read = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
        };
        Ok(self.ask(&["INFO", "commandstats"])?.lines().filter_map(read).collect())
    }

    /// Notes the commands that clients give the server from now on, until that is read. It costs the server a little time.
    ///
    /// # Errors
    ///
    /// When the server is away.
    pub async fn note_commands(&self) -> Result<Commands> {
        let mut connection = BufReader::new(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?);
        connection.write_all(b"MONITOR\r\n").await?;
        let mut answer = String::new();
        connection.read_line(&mut answer).await?;
        ensure!(answer.starts_with("+OK"), "MONITOR was answered {answer}");
        let noted = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&noted);
        let task = tokio::spawn(async move {
            let mut lines = connection.lines();
            while let Ok(Some(line)) = lines.next_line().await {
                // What a script calls is no command of a client.
                if !line.contains(" lua] ") {
                    notes.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                }
            }
        });
        Ok(Commands { noted, task })
    }

    /// CPU time used so far.
    ///
    /// # Errors
    ///
    /// When it does not run, or `/proc` does not show it.
    pub fn cpu_time(&self) -> Result<Duration> {
        self.process.as_ref().context("the Redis does not run")?.cpu_time()
    }

    /// The `stateStore` of a Federation for this server; `more` is further fields of `redis` in flow YAML.
    pub fn declaration(&self, more: &str) -> String {
        self.declaration_over(self.port, more)
    }

    /// The same for a way to the server that begins at another port.
    pub fn declaration_over(&self, port: u16, more: &str) -> String {
        format!("{{redis: {{mode: Standalone, addresses: [\"127.0.0.1:{port}\"]{more}}}}}")
    }

    /// Kills the server at once.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again on what it has written.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub async fn resume(&mut self) -> Result<()> {
        let port = self.port;
        let mut command = Command::new(program());
        command.args(["--bind", "127.0.0.1"]);
        if self.tls {
            command.args(["--port", "0", "--tls-port", &port.to_string()]);
            command.args(["--tls-cert-file", "tls.crt", "--tls-key-file", "tls.key", "--tls-ca-cert-file", "ca.crt"]);
        } else {
            command.args(["--port", &port.to_string()]);
        }
        if let Some(primary) = self.copies {
            command.args(["--replicaof", &format!("127.0.0.1 {primary}")]);
        }
        if self.needs_copy {
            command.args(["--min-replicas-to-write", "1"]);
        }
        if let Some(bus) = self.bus {
            command.args(["--cluster-enabled", "yes", "--cluster-port", &bus.to_string()]);
            command.args(["--cluster-node-timeout", "1000"]);
        }
        // A copy is there at once, not after the 5 s in which others might ask for one, too.
        command.args(["--repl-diskless-sync-delay", "0"]);
        command.args(["--save", "", "--appendonly", "yes"]);
        command.args(["--appendfsync", self.fsync, "--maxmemory-policy", "noeviction"]);
        let mut process = Process::spawn("redis", &command, &self.folder)?;
        wait_for("redis listens", Duration::from_secs(5), || {
            let state = process.must_run();
            async move {
                state?;
                Ok(ports::answers(port).then_some(()))
            }
        })
        .await?;
        self.process = Some(process);
        Ok(())
    }

    /// Kills the server and starts it again.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        self.resume().await
    }
}

/// Commands that clients gave a server.
#[derive(Debug)]
pub struct Commands {
    noted: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Commands {
    /// Ends that, and counts them by the first of these kinds of keys that each named; the last number is of all others.
    pub fn count<const N: usize>(self, kinds: [&str; N]) -> ([u32; N], u32) {
        self.task.abort();
        let (mut of_kinds, mut others) = ([0; N], 0);
        for line in self.noted.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            // "EVALSHA" "…" "2" "isthmus:{17}pair:…" …
            let found = of_kinds.iter_mut().zip(kinds).find(|(_, kind)| line.contains(&format!("}}{kind}:")));
            *found.map_or(&mut others, |(count, _)| count) += 1;
        }
        (of_kinds, others)
    }
}
