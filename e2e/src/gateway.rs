//! The gateway itself, as a program: started on a folder of manifests, watched through its admin port.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::http;
use crate::lab::{Lab, wait_for};
use crate::manifests::{POOL, Realm};
use crate::process::Process;

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    process: Process,
    folder: PathBuf,
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
        Self::wait_ready(Self::spawn(folder)?, folder, admin).await
    }

    /// Starts the gateway on a folder of manifests that somebody else wrote, secrets included.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub async fn on(manifests: &Path, folder: &Path, admin_port: u16) -> Result<Self> {
        let process = Process::spawn("gateway", &Self::command(manifests, None, folder)?, folder)?;
        Self::wait_ready(process, folder, (Ipv4Addr::LOCALHOST, admin_port).into()).await
    }

    async fn wait_ready(process: Process, folder: &Path, admin: SocketAddr) -> Result<Self> {
        let mut gateway = Self { process, folder: folder.to_owned(), admin };
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

    /// Asks it to drain and end (SIGTERM), and waits.
    ///
    /// # Errors
    ///
    /// When it has to be killed after 15 s.
    pub async fn stop(mut self) -> Result<ExitStatus> {
        self.process.signal(Signal::TERM)?;
        self.process.wait_end(Duration::from_secs(15)).await
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
        return Ok(path.into());
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
