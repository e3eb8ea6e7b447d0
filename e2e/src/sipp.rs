//! SIPp with the scenario files of `scenarios/sipp`: a peer that says exactly what the file says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::lab::{Lab, wait_until};
use crate::ports;
use crate::process::Process;
use crate::sip_trace::{SipMessage, parse_sipp};

/// How a SIPp shall be run.
#[derive(Debug, Clone)]
pub struct SippPlan {
    /// Name of its folder and log.
    pub name: String,
    /// File under `scenarios/sipp`, without `.xml`.
    pub scenario: String,
    /// Where it sends to, `host:port`; absent when the scenario begins with receiving.
    pub target: Option<String>,
    /// Its own address.
    pub local: String,
    /// Its own port; chosen free when absent.
    pub port: Option<u16>,
    /// UDP, or TCP with one connection for all calls.
    pub tcp: bool,
    /// Values for the words that stand between at signs in the scenario file.
    pub keys: Vec<(String, String)>,
    /// How many calls it makes or takes.
    pub calls: u32,
    /// When it gives up.
    pub limit: Duration,
}

impl SippPlan {
    /// One call over UDP on 127.0.0.1 with a limit of 40 s.
    pub fn new(scenario: &str) -> Self {
        Self {
            name: format!("sipp-{scenario}"),
            scenario: scenario.to_owned(),
            target: None,
            local: "127.0.0.1".to_owned(),
            port: None,
            tcp: false,
            keys: Vec::new(),
            calls: 1,
            limit: Duration::from_secs(40),
        }
    }

    /// Sets the target on 127.0.0.1.
    #[must_use]
    pub fn to(mut self, port: u16) -> Self {
        self.target = Some(format!("127.0.0.1:{port}"));
        self
    }

    /// Sets a word of the scenario.
    #[must_use]
    pub fn key(mut self, name: &str, value: &str) -> Self {
        self.keys.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the own port.
    #[must_use]
    pub fn at(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Names the folder and log, needed when one scenario runs twice in a lab.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Uses TCP.
    #[must_use]
    pub fn tcp(mut self) -> Self {
        self.tcp = true;
        self
    }

    /// Sets the number of calls.
    #[must_use]
    pub fn calls(mut self, calls: u32) -> Self {
        self.calls = calls;
        self
    }
}

/// A running SIPp.
#[derive(Debug)]
pub struct Sipp {
    process: Process,
    name: String,
    limit: Duration,
    messages: PathBuf,
    errors: PathBuf,
    /// Its own SIP port.
    pub port: u16,
}

impl Sipp {
    /// Starts SIPp and, when it begins with receiving, waits until its port is taken.
    ///
    /// # Errors
    ///
    /// When SIPp is not installed, the scenario file is missing or SIPp does not listen within 5 s.
    pub async fn start(lab: &Lab, plan: &SippPlan) -> Result<Self> {
        let folder = lab.folder(&plan.name)?;
        let scenario = folder.join("scenario.xml");
        fs::write(&scenario, fill(plan)?)?;
        let port = plan.port.map_or_else(ports::free, Ok)?;
        let (messages, errors) = (folder.join("messages.log"), folder.join("errors.log"));
        let mut command = Command::new("sipp");
        if let Some(target) = &plan.target {
            command.arg(target);
        }
        command.arg("-sf").arg(scenario);
        command.args(["-i", &plan.local, "-bind_local", "-p", &port.to_string()]);
        command.args(["-ci", "127.0.0.1", "-cp", &ports::free()?.to_string()]);
        // Sound and pictures, which no scenario has, get two ports each all the same.
        command.args(["-mp", &ports::free_run(4)?.to_string()]);
        command.args(["-t", if plan.tcp { "t1" } else { "u1" }]);
        command.args(["-m", &plan.calls.to_string(), "-nostdin", "-timeout_error"]);
        command.args(["-timeout", &format!("{}s", plan.limit.as_secs())]);
        command.args(["-trace_err", "-error_file"]).arg(&errors);
        command.args(["-trace_msg", "-message_file"]).arg(&messages);
        let mut process = Process::spawn(&plan.name, &command, &folder)?;
        if plan.target.is_none() {
            wait_until(&format!("{} listens", plan.name), Duration::from_secs(5), || {
                (!ports::is_free(port) || process.must_run().is_err()).then_some(())
            })
            .await?;
            process.must_run()?;
        }
        Ok(Self { process, name: plan.name.clone(), limit: plan.limit, messages, errors, port })
    }

    /// Runs SIPp to its end: [`Self::start`], then [`Self::finish`].
    ///
    /// # Errors
    ///
    /// As both.
    pub async fn run(lab: &Lab, plan: &SippPlan) -> Result<Vec<SipMessage>> {
        Self::start(lab, plan).await?.finish().await
    }

    /// What it has sent and received so far.
    pub fn messages(&self) -> Vec<SipMessage> {
        parse_sipp(&String::from_utf8_lossy(&fs::read(&self.messages).unwrap_or_default()))
    }

    /// Waits for a message that meets the condition.
    ///
    /// # Errors
    ///
    /// When none is seen within the limit.
    pub async fn wait(
        &self,
        what: &str,
        within: Duration,
        matches: impl Fn(&SipMessage) -> bool,
    ) -> Result<SipMessage> {
        wait_until(&format!("{}: {what}", self.name), within, || self.messages().into_iter().find(|m| matches(m))).await
    }

    /// Waits for the end and demands that every call went as the scenario says.
    ///
    /// # Errors
    ///
    /// When a call failed, a check did not hold or the limit passed; the error shows SIPp's own words.
    pub async fn finish(mut self) -> Result<Vec<SipMessage>> {
        let status = self.process.wait_end(self.limit + Duration::from_secs(5)).await?;
        if !status.success() {
            let errors = fs::read_to_string(&self.errors).unwrap_or_default();
            let messages = fs::read_to_string(&self.messages).unwrap_or_default();
            bail!("{} ended with {status}\n{errors}\n{messages}", self.name);
        }
        Ok(self.messages())
    }

    /// Kills it, as a peer that vanishes.
    pub fn kill(mut self) {
        self.process.kill();
    }
}

/// Values that most runs leave as they are.
const DEFAULTS: [(&str, &str); 16] = [
    ("ACCEPT", "200 OK"),
    ("BODY", ""),
    ("DELAY", "1"),
    ("EXPIRES", "600"),
    ("EXTRA", ""),
    ("FROM_PARAMS", ""),
    ("HOPS", "70"),
    ("LINGER", "1"),
    ("QUIET", "1"),
    ("REASON", "OK"),
    ("SELF", "dana@blue.example"),
    ("SLOW", "1"),
    ("STATUS", "200"),
    ("THEN", "200 OK"),
    ("TOAST", "1"),
    ("WAIT", "1000"),
];

/// Reads the scenario file and puts the plan's values in; a line that becomes empty goes away.
fn fill(plan: &SippPlan) -> Result<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("scenarios/sipp/{}.xml", plan.scenario));
    let mut text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let given = plan.keys.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in given.chain(DEFAULTS) {
        let mark = format!("@{name}@");
        if value.is_empty() {
            text = text.replace(&format!("\n{mark}\n"), "\n");
        }
        text = text.replace(&mark, value);
    }
    for piece in text.split('@').skip(1).step_by(2) {
        if !piece.is_empty() && piece.chars().all(|c| c.is_ascii_uppercase() || c == '_') {
            bail!("scenario {} wants a value for {piece}", plan.scenario);
        }
    }
    Ok(text)
}
