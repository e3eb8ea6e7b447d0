//! One scenario's folder, its deadline helpers, and what is shown of it when it fails.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::sync::Semaphore;

/// How often a condition is looked at while one waits for it.
const POLL: Duration = Duration::from_millis(10);
/// Lines of each log that a failing scenario prints.
const TAIL_LINES: usize = 60;

/// How many scenarios one test program runs at a time, however many cores there are.
static SLOTS: Semaphore = Semaphore::const_new(ALL_SLOTS as usize);
const ALL_SLOTS: u32 = 4;

/// The temporary folder of one scenario; every peer keeps its files and log in it.
///
/// It is removed at the end. With `ISTHMUS_E2E_KEEP=1` it stays and its path is printed.
#[derive(Debug)]
pub struct Lab {
    folder: Option<tempfile::TempDir>,
    path: PathBuf,
}

impl Lab {
    /// Makes an empty folder whose name starts with `name`.
    ///
    /// # Errors
    ///
    /// When the system's folder for temporary files cannot be written.
    pub fn new(name: &str) -> Result<Self> {
        let folder =
            tempfile::Builder::new().prefix(&format!("isthmus-{name}-")).tempdir().context("no temporary folder")?;
        let path = folder.path().to_owned();
        let keep = std::env::var_os("ISTHMUS_E2E_KEEP").is_some_and(|v| v != "0");
        if keep {
            eprintln!("{name}: files stay in {}", path.display());
            return Ok(Self { folder: None, path: folder.keep() });
        }
        Ok(Self { folder: Some(folder), path })
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the sub-folder `name` for one peer.
    ///
    /// # Errors
    ///
    /// When it cannot be created.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.path.join(name);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(folder)
    }

    /// The last lines of every log in the folder, for a person who reads a failure.
    pub fn log_tails(&self) -> String {
        let mut logs = Vec::new();
        collect_logs(&self.path, &mut logs);
        logs.sort();
        let mut text = String::new();
        for log in logs {
            let content = String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()).into_owned();
            let lines: Vec<&str> = content.lines().collect();
            let from = lines.len().saturating_sub(TAIL_LINES);
            text.push_str(&format!("---- {} ({} lines)\n", log.display(), lines.len()));
            for line in lines.iter().skip(from) {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() && self.folder.is_some() {
            eprintln!("{}", self.log_tails());
        }
    }
}

fn collect_logs(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect_logs(&path, found);
        } else if path.extension().is_some_and(|e| e == "log") {
            found.push(path);
        }
    }
}

/// Runs one scenario in its own folder; when it fails, prints the tails of all logs, then panics.
///
/// # Panics
///
/// When the scenario returns an error: that is how a test fails.
pub async fn scenario<F>(name: &str, body: F)
where
    F: AsyncFnOnce(&Lab) -> Result<()>,
{
    let _slot = SLOTS.acquire().await;
    play(name, body).await;
}

/// As [`scenario`], while no other one runs: it puts so much load on the machine that the others would miss their times.
///
/// # Panics
///
/// As [`scenario`].
pub async fn scenario_alone<F>(name: &str, body: F)
where
    F: AsyncFnOnce(&Lab) -> Result<()>,
{
    let _slots = SLOTS.acquire_many(ALL_SLOTS).await;
    play(name, body).await;
}

async fn play<F>(name: &str, body: F)
where
    F: AsyncFnOnce(&Lab) -> Result<()>,
{
    let outcome = match Lab::new(name) {
        Ok(lab) => match body(&lab).await {
            Ok(()) => Ok(()),
            Err(error) => {
                eprintln!("{}", lab.log_tails());
                Err(error)
            }
        },
        Err(error) => Err(error),
    };
    if let Err(error) = outcome {
        // Not by `panic!`: the reason is to be the last line, below all logs and without a backtrace of the runtime.
        eprintln!("{name}: {error:#}");
        std::panic::resume_unwind(Box::new("the scenario failed"));
    }
}

/// Waits until `condition` gives a value, looking again every 10 ms.
///
/// # Errors
///
/// When `within` has passed; the error names `what`.
pub async fn wait_for<T, F, Fut>(what: &str, within: Duration, mut condition: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Option<T>>>,
{
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = condition().await? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("{what}: not seen within {within:?}");
        }
        tokio::time::sleep(POLL).await;
    }
}

/// [`wait_for`] on a condition that does not itself wait.
///
/// # Errors
///
/// As [`wait_for`].
pub async fn wait_until<T>(what: &str, within: Duration, mut condition: impl FnMut() -> Option<T>) -> Result<T> {
    wait_for(what, within, || {
        let seen = condition();
        async move { Ok(seen) }
    })
    .await
}

/// Reads a number from the environment; the default when the variable is not set.
///
/// # Errors
///
/// When what is set is no number.
pub fn number<T: std::str::FromStr>(name: &str, default: T) -> Result<T> {
    let Ok(value) = std::env::var(name) else { return Ok(default) };
    value.parse().ok().with_context(|| format!("{name} is no number: {value:?}"))
}
