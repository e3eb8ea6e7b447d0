//! The gateway itself, as a program: started on a folder of manifests, watched through its admin port.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::http;
use crate::lab::{Lab, wait_for};
use crate::manifests::{POOL, Realm};
use crate::process::Process;

/// What a pool gives its pods when its manifest does not say: to settle, and of grace.
const SETTLE: Duration = Duration::from_secs(5);
const GRACE: Duration = Duration::from_secs(90);
/// After its grace a pod tells the others that it leaves, and closes its sockets.
const CLOSING: Duration = Duration::from_secs(1);

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    process: Process,
    folder: PathBuf,
    manifests: PathBuf,
    admin: SocketAddr,
}

impl Gateway {
    /// Writes the realm, starts the gateway on it and waits for `/readyz`.
    ///
    /// # Errors
    ///
    /// When the binary is missing, ends, or is not ready within 20 s.
    pub async fn start(lab: &Lab, realm: &Realm) -> Result<Self> {
        let folder = lab.folder("gateway")?;
        realm.write(&folder)?;
        Self::resume(&folder, realm.admin_port).await
    }

    /// Starts the gateway on what is already in its folder, as after a restart.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub async fn resume(folder: &Path, admin_port: u16) -> Result<Self> {
        Self::resume_at(folder, (Ipv4Addr::LOCALHOST, admin_port).into()).await
    }

    /// As [`Self::resume`], with the admin listener on another address of this machine.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub async fn resume_at(folder: &Path, admin: SocketAddr) -> Result<Self> {
        Self::wait_ready(Self::spawn(folder)?, folder, &folder.join("manifests"), admin).await
    }

    /// Starts the gateway on a folder of manifests that somebody else wrote, secrets included.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub async fn on(manifests: &Path, folder: &Path, admin_port: u16) -> Result<Self> {
        let process = Process::spawn("gateway", &Self::command(manifests, None, folder)?, folder)?;
        Self::wait_ready(process, folder, manifests, (Ipv4Addr::LOCALHOST, admin_port).into()).await
    }

    async fn wait_ready(process: Process, folder: &Path, manifests: &Path, admin: SocketAddr) -> Result<Self> {
        let mut gateway = Self { process, folder: folder.to_owned(), manifests: manifests.to_owned(), admin };
        wait_for("the gateway is ready", Duration::from_secs(20), || {
            let state = gateway.process.must_run();
            async move {
                state?;
                Ok(http::get_at(admin, "/readyz").await.ok().filter(|r| r.status == 200))
            }
        })
        .await?;
        Ok(gateway)
    }

    /// Starts the program without waiting for anything.
    ///
    /// # Errors
    ///
    /// When the binary is missing.
    pub fn spawn(folder: &Path) -> Result<Process> {
        let command = Self::command(&folder.join("manifests"), Some(&folder.join("secrets")), folder)?;
        Process::spawn("gateway", &command, folder)
    }

    fn command(manifests: &Path, secrets: Option<&Path>, folder: &Path) -> Result<Command> {
        let state = folder.join("state");
        std::fs::create_dir_all(&state)?;
        let mut command = Command::new(binary()?);
        command.arg("--manifests").arg(manifests);
        command.args(["--pool", POOL]);
        if let Some(secrets) = secrets {
            command.arg("--secrets").arg(secrets);
        }
        command.arg("--state-dir").arg(state);
        command.env("RUST_BACKTRACE", "1");
        Ok(command)
    }

    /// Its folder, with `manifests`, `secrets` and `state`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// One file of its manifests.
    pub fn manifest(&self, name: &str) -> PathBuf {
        self.folder.join("manifests").join(name)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// CPU time used so far.
    ///
    /// # Errors
    ///
    /// When `/proc` does not show it.
    pub fn cpu_time(&self) -> Result<Duration> {
        self.process.cpu_time()
    }

    /// Everything it has logged; for people, never for assertions.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// A page of the admin port.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub async fn page(&self, path: &str) -> Result<http::Response> {
        http::get_at(self.admin, path).await
    }

    /// The text of `/metrics`.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub async fn metrics(&self) -> Result<String> {
        let response = self.page("/metrics").await?;
        ensure!(response.status == 200, "/metrics answered {}", response.status);
        Ok(response.body)
    }

    /// The JSON of `/v1/status`.
    ///
    /// # Errors
    ///
    /// When it cannot be read or is no JSON.
    pub async fn status(&self) -> Result<serde_json::Value> {
        json(&self.page("/v1/status").await?)
    }

    /// The JSON of `/v1/config`.
    ///
    /// # Errors
    ///
    /// When it cannot be read or is no JSON.
    pub async fn config(&self) -> Result<serde_json::Value> {
        json(&self.page("/v1/config").await?)
    }

    /// Forces a reload (SIGHUP).
    ///
    /// # Errors
    ///
    /// When the gateway is gone.
    pub fn reload(&self) -> Result<()> {
        self.process.signal(Signal::HUP)
    }

    /// Asks it to drain and end (SIGTERM), and gives the time that this took.
    ///
    /// # Errors
    ///
    /// When it is not over in the time to settle and the grace of its manifests, or ends with another status than 0.
    pub async fn stop(mut self) -> Result<Duration> {
        let (settle, grace) = drain_times(&self.manifests)?;
        let begin = Instant::now();
        self.process.signal(Signal::TERM)?;
        let ended = self.process.wait_end(settle + grace + CLOSING).await;
        let status = ended.with_context(|| format!("its drain: {settle:?} to settle and {grace:?} of grace"))?;
        ensure!(status.success(), "a drained gateway ended with {status}");
        Ok(begin.elapsed())
    }

    /// Sends it a signal, for instance to stop and continue it.
    ///
    /// # Errors
    ///
    /// When the gateway is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Ends it at once, as a crash would.
    pub fn kill(mut self) {
        self.process.kill();
    }

    /// Fails when it has ended.
    ///
    /// # Errors
    ///
    /// When it has ended; the error shows its last lines.
    pub fn must_run(&mut self) -> Result<()> {
        self.process.must_run()
    }
}

/// The time to settle and the grace that manifests give a pod.
fn drain_times(manifests: &Path) -> Result<(Duration, Duration)> {
    let mut text = String::new();
    for entry in std::fs::read_dir(manifests).with_context(|| format!("no manifests in {}", manifests.display()))? {
        text.push_str(&std::fs::read_to_string(entry?.path())?);
    }
    Ok((time_of(&text, "settle", SETTLE)?, time_of(&text, "grace", GRACE)?))
}

/// The value of a key of the manifests, such as `100ms`, `3s` or `2m`.
fn time_of(text: &str, key: &str, default: Duration) -> Result<Duration> {
    let Some((_, rest)) = text.split_once(&format!("{key}:")) else { return Ok(default) };
    let value = rest.trim_start().trim_start_matches('"').split(|c: char| !c.is_alphanumeric()).next();
    let value = value.unwrap_or_default();
    let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let (number, unit) = value.split_at(digits);
    let number: u64 = number.parse().with_context(|| format!("{key}: {value} is no time"))?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(60 * number)),
        _ => bail!("{key}: {value} has no unit that is known here"),
    }
}

fn json(response: &http::Response) -> Result<serde_json::Value> {
    ensure!(response.status == 200, "status {}: {}", response.status, response.body);
    serde_json::from_str(&response.body).context("no JSON")
}

/// The gateway binary: `ISTHMUS_GATEWAY`, or the one that `cargo build -p isthmus-gateway` leaves beside this program.
///
/// # Errors
///
/// When there is none; the error says how to build it.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("ISTHMUS_GATEWAY") {
        // Gateways run in folders of their own.
        return std::path::absolute(path).context("ISTHMUS_GATEWAY");
    }
    let own = std::env::current_exe()?;
    // target/debug/deps/test-… or target/debug/quickstart: look here and one folder up.
    for folder in own.ancestors().skip(1).take(2) {
        let candidate = folder.join("isthmus-gateway");
        if candidate.is_file() {
            return Ok(candidate);
        }
    }
    bail!("no gateway beside {}: run `cargo build -p isthmus-gateway` first", own.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_a_drain_are_those_of_the_manifests() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(drain_times(folder.path()).unwrap(), (SETTLE, GRACE));
        Realm::new(5347).unwrap().write(folder.path()).unwrap();
        let times = drain_times(&folder.path().join("manifests")).unwrap();
        assert_eq!(times, (Duration::from_millis(100), Duration::from_secs(3)));
        assert!(time_of("grace: soon", "grace", GRACE).is_err());
    }
}
