//! A program that a scenario starts: own process group, log in a file, ended by id whatever happens.

use std::fs::File;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// A running program. Dropping it kills its whole process group and reaps it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    group: Pid,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` in `folder` with both outputs in `folder/<name>.log`.
    ///
    /// The program also gets SIGTERM when the thread that started it ends, so that a killed test run
    /// leaves nothing behind; start programs from a thread that lives as long as they shall.
    ///
    /// # Errors
    ///
    /// When the program cannot be started; `make install` is named as the remedy.
    pub fn spawn(name: &str, command: &Command, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let out = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let err = out.try_clone()?;
        // setpriv (util-linux) sets the parent-death signal and becomes the program: the id stays.
        let mut wrapped = Command::new("setpriv");
        wrapped.args(["--pdeathsig", "TERM", "--"]);
        wrapped.arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(key, value),
                None => wrapped.env_remove(key),
            };
        }
        let child = wrapped
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}; `make install` installs what is missing"))?;
        let group = pid_of(&child)?;
        Ok(Self { name: name.to_owned(), child, group, log, ended: None })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything that the program has printed so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The file that receives both outputs.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// The exit status, if the program has ended by itself.
    ///
    /// # Errors
    ///
    /// When the system cannot tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// Fails when the program has ended, with its last lines: call it while waiting for readiness.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn must_run(&mut self) -> Result<()> {
        if let Some(status) = self.ended()? {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(15).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            bail!("{} ended with {status}:\n{}", self.name, tail.join("\n"));
        }
        Ok(())
    }

    /// Waits for the program to end by itself.
    ///
    /// # Errors
    ///
    /// When it still runs after `within`.
    pub async fn wait_end(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("{} still runs after {within:?}", self.name);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Sends a signal to the program itself.
    ///
    /// # Errors
    ///
    /// When the program is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.group, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Asks the program to end (SIGTERM), and kills its group if it has not within `grace`.
    ///
    /// # Errors
    ///
    /// When it cannot be reaped.
    pub async fn stop(mut self, grace: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        let _ = self.signal(Signal::TERM);
        if let Ok(status) = self.wait_end(grace).await {
            return Ok(status);
        }
        self.kill();
        Ok(self.ended.unwrap_or_else(|| ExitStatus::from_raw(9)))
    }

    /// Kills the whole group at once, as a crash would.
    pub fn kill(&mut self) {
        let _ = kill_process_group(self.group, Signal::KILL);
        if self.ended.is_none() {
            self.ended = self.child.wait().ok();
        }
    }

    /// CPU time used so far by the program and its children that still run (user plus system).
    ///
    /// # Errors
    ///
    /// When `/proc` does not show it.
    pub fn cpu_time(&self) -> Result<Duration> {
        let mut total = Duration::ZERO;
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else {
                continue;
            };
            let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            // The name in brackets may hold spaces; fields are counted after it.
            let Some((_, rest)) = stat.rsplit_once(')') else { continue };
            let fields: Vec<&str> = rest.split_whitespace().collect();
            let group: i32 = fields.get(2).and_then(|f| f.parse().ok()).unwrap_or_default();
            if group != self.group.as_raw_nonzero().get() {
                continue;
            }
            total += run_time(pid)?;
        }
        Ok(total)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Time that the threads of a process have run, from the scheduler's own account: the ticks of `stat` are too coarse for a slice of
/// a load. Of a process or thread that ends meanwhile it is zero.
fn run_time(pid: u32) -> Result<Duration> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Ok(Duration::ZERO) };
    let mut total = Duration::ZERO;
    for thread in threads.flatten() {
        let Ok(account) = std::fs::read_to_string(thread.path().join("schedstat")) else { continue };
        let nanos = account.split_whitespace().next().and_then(|first| first.parse().ok());
        total += Duration::from_nanos(nanos.context("the kernel keeps no account of run times (schedstat)")?);
    }
    Ok(total)
}

/// Time since the boot that the host of a virtual machine took its processors away while they had work (`steal` of `proc(5)`,
/// all processors together).
///
/// # Errors
///
/// When `/proc` does not show it.
pub fn stolen() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let ticks = stat.lines().next().and_then(|all| all.split_whitespace().nth(8)?.parse().ok());
    // USER_HZ is 100 on every architecture.
    Ok(Duration::from_millis(10).saturating_mul(ticks.context("/proc/stat tells no steal time")?))
}

fn pid_of(child: &Child) -> Result<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("the system gave no process id")
}

/// Runs a short program to its end and returns what it printed.
///
/// # Errors
///
/// When it cannot be started or ends with a failure; the error shows its output.
pub fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {program}; `make install` installs what is missing"))?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("{program} ended with {}:\n{text}", output.status);
    }
    Ok(text)
}
