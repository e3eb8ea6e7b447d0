//! ejabberd as the organisation's own XMPP server, with the component section that the README shows.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::http;
use crate::lab::{Lab, wait_for, wait_until};
use crate::ports;
use crate::process::Process;
use crate::prosody::PASSWORD;
use crate::xmpp_client::XmppClient;

const README: &str = include_str!("../../README.md");
/// The component port of the quickstart, which the README shows.
const SHOWN_PORT: &str = "25347";

/// A running ejabberd that serves `corp.example`.
#[derive(Debug)]
pub struct Ejabberd {
    process: Process,
    /// Clients connect here, without TLS, on loopback.
    pub client_port: u16,
    /// Components connect here: the names and the secret of the README.
    pub component_port: u16,
}

impl Ejabberd {
    /// Starts the server, waits until it answers and registers the users. Messages for users who are offline bounce.
    ///
    /// # Errors
    ///
    /// When it is not installed, ends, does not answer within 30 s or refuses a user.
    pub async fn start(lab: &Lab, users: &[&str]) -> Result<Self> {
        let folder = lab.folder("ejabberd")?;
        let (client_port, component_port, api_port) = (ports::free()?, ports::free()?, ports::free()?);
        let file = folder.join("ejabberd.yml");
        fs::write(&file, config(client_port, component_port, api_port)?)?;
        fs::create_dir_all(folder.join("home"))?;
        fs::create_dir_all(folder.join("db"))?;
        // Without -sname there is no Erlang distribution: no epmd, no cookie, no port beside those named above.
        let mut command = Command::new("erl");
        command.args(["-noinput", "-noshell", "-mnesia", "dir"]);
        command.arg(format!("{:?}", folder.join("db").display().to_string()));
        command.args(["-s", "ejabberd", "+K", "true", "+S", "2:2"]);
        command.env("HOME", folder.join("home"));
        command.env("EJABBERD_CONFIG_PATH", &file);
        command.env("EJABBERD_LOG_PATH", folder.join("server.log"));
        command.env("ERL_CRASH_DUMP_SECONDS", "0");
        command.env("ERL_LIBS", library()?);
        let mut process = Process::spawn("ejabberd", &command, &folder)?;
        wait_for("ejabberd listens", Duration::from_secs(30), || {
            let state = process.must_run();
            async move {
                state?;
                Ok([client_port, component_port, api_port].into_iter().all(ports::answers).then_some(()))
            }
        })
        .await?;
        for user in users {
            let account = format!(r#"{{"user":"{user}","host":"corp.example","password":"{PASSWORD}"}}"#);
            let answer = http::post(api_port, "/api/register", &account).await?;
            ensure!(answer.status == 200, "ejabberd refused the user {user}: {}", answer.body);
        }
        Ok(Self { process, client_port, component_port })
    }

    /// Logs a user in and lets them come online.
    ///
    /// # Errors
    ///
    /// When the login does not succeed within 10 s.
    pub async fn online(&self, user: &str) -> Result<XmppClient> {
        let address = format!("{user}@corp.example/home");
        let client = XmppClient::login(&address, PASSWORD, self.client_port)
            .await
            .with_context(|| format!("login of {address}"))?;
        client.come_online().await?;
        Ok(client)
    }

    /// Waits until a component of this name has authenticated, by ejabberd's own account.
    ///
    /// # Errors
    ///
    /// When it has not within 15 s.
    pub async fn wait_component(&self, name: &str) -> Result<()> {
        let handshake = format!("for {name}");
        wait_until(&format!("{name} is connected to ejabberd"), Duration::from_secs(15), || {
            self.process
                .log()
                .lines()
                .any(|line| line.contains("external component handshake") && line.contains(&handshake))
                .then_some(())
        })
        .await
    }
}

/// The section that the README shows, on another port, with what a server needs beside it.
fn config(client_port: u16, component_port: u16, api_port: u16) -> Result<String> {
    let (_, shown) = README.split_once("The same for ejabberd:\n\n```yml\n").context("the README shows no ejabberd")?;
    let (shown, _) = shown.split_once("```").context("the README's section has no end")?;
    ensure!(shown.contains(SHOWN_PORT), "the README shows another port than {SHOWN_PORT}");
    Ok(format!(
        r#"{listen}  - {{port: {client_port}, ip: "127.0.0.1", module: ejabberd_c2s, starttls: false, max_stanza_size: 262144}}
  - {{port: {api_port}, ip: "127.0.0.1", module: ejabberd_http, request_handlers: {{/api: mod_http_api}}}}
hosts: [corp.example]
loglevel: info
acme: {{auto: false}}
auth_method: [internal]
api_permissions: {{local: {{who: {{ip: 127.0.0.1/32}}, what: "*"}}}}
modules: {{mod_roster: {{}}, mod_ping: {{}}, mod_disco: {{}}, mod_blocking: {{}}, mod_privacy: {{}}, mod_http_api: {{}}}}
"#,
        listen = shown.replace(SHOWN_PORT, &component_port.to_string()),
    ))
}

/// The folder in which Debian keeps ejabberd as an Erlang library.
fn library() -> Result<PathBuf> {
    let candidates = fs::read_dir("/usr/lib")?.flatten().map(|entry| entry.path());
    for folder in candidates.filter(|path| path.is_dir()) {
        let holds = |entry: fs::DirEntry| {
            entry.file_name().to_string_lossy().starts_with("ejabberd-") && entry.path().join("ebin").is_dir()
        };
        if fs::read_dir(&folder).is_ok_and(|entries| entries.flatten().any(holds)) {
            return Ok(folder);
        }
    }
    anyhow::bail!("ejabberd is not installed; `make install` installs it")
}
