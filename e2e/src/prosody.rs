//! Prosody as the organisation's own XMPP server, with its users and component names.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::{Lab, wait_for, wait_until};
use crate::ports;
use crate::process::Process;
use crate::xmpp_client::XmppClient;

/// The password of every test user.
pub const PASSWORD: &str = "secret";
/// The secret of every component.
pub const COMPONENT_SECRET: &str = "s3cret";

/// What a Prosody shall serve.
#[derive(Debug, Clone)]
pub struct ProsodyPlan {
    /// The local domain.
    pub domain: String,
    /// Local parts of accounts, each with [`PASSWORD`].
    pub users: Vec<String>,
    /// Names that a component may take, each with [`COMPONENT_SECRET`].
    pub components: Vec<String>,
    /// Whether messages for users who are offline are stored; otherwise they bounce.
    pub stores_offline: bool,
    /// Whether a second connection of a component replaces the first, as several pods want it; otherwise it is refused.
    pub newest_wins: bool,
    /// Client and component port; chosen free when absent.
    pub ports: Option<(u16, u16)>,
}

impl ProsodyPlan {
    /// `corp.example` with the given users and components; messages for offline users bounce.
    pub fn corp(users: &[&str], components: &[&str]) -> Self {
        Self {
            domain: "corp.example".to_owned(),
            users: users.iter().map(ToString::to_string).collect(),
            components: components.iter().map(ToString::to_string).collect(),
            stores_offline: false,
            newest_wins: false,
            ports: None,
        }
    }
}

/// A running Prosody.
#[derive(Debug)]
pub struct Prosody {
    /// Absent while it is stopped.
    process: Option<Process>,
    folder: PathBuf,
    has_components: bool,
    /// The domain whose users it serves.
    pub domain: String,
    /// Clients connect here, without TLS, on loopback.
    pub client_port: u16,
    /// Components connect here.
    pub component_port: u16,
}

impl Prosody {
    /// Writes configuration and accounts, starts the server and waits until it answers.
    ///
    /// # Errors
    ///
    /// When Prosody is not installed, ends, or does not listen within 10 s.
    pub async fn start(lab: &Lab, plan: &ProsodyPlan) -> Result<Self> {
        let folder = lab.folder("prosody")?;
        let (client_port, component_port) = match plan.ports {
            Some(ports) => ports,
            None => (ports::free()?, ports::free()?),
        };
        let accounts = folder.join("data").join(plan.domain.replace('.', "%2e")).join("accounts");
        fs::create_dir_all(&accounts)?;
        for user in &plan.users {
            let account = format!("return {{\n\t[\"password\"] = \"{PASSWORD}\";\n}};\n");
            fs::write(accounts.join(format!("{user}.dat")), account)?;
        }
        fs::create_dir_all(folder.join("certs"))?;
        let offline = if plan.stores_offline { "\"offline\"; " } else { "" };
        let disabled = if plan.stores_offline { "" } else { "\"offline\"; " };
        let conflict = if plan.newest_wins { "\tcomponent_conflict_resolve = \"kick_old\"\n" } else { "" };
        let components: String = plan
            .components
            .iter()
            .map(|name| format!("Component \"{name}\"\n\tcomponent_secret = \"{COMPONENT_SECRET}\"\n{conflict}"))
            .collect();
        // PLAIN alone: SCRAM's thousands of hashes take a debug build longer than everything else of a login.
        let config = format!(
            r#"run_as_root = true
data_path = "data"; pidfile = "prosody.pid"; admin_socket = "admin.sock"; certificates = "certs"
daemonize = false; interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {client_port} }}; component_ports = {{ {component_port} }}; component_interfaces = {{ "127.0.0.1" }}
legacy_ssl_ports = {{}}; c2s_direct_tls_ports = {{}}; s2s_ports = {{}}; s2s_direct_tls_ports = {{}}; http_ports = {{}}; https_ports = {{}}
modules_enabled = {{ "roster"; "saslauth"; "disco"; "ping"; "pep"; {offline}"blocklist"; "carbons"; "posix"; "stanza_debug" }}
modules_disabled = {{ "s2s"; "s2s_auth_certs"; "tls"; {disabled}}}
c2s_require_encryption = false; allow_unencrypted_plain_auth = true
disable_sasl_mechanisms = {{ "SCRAM-SHA-1"; "SCRAM-SHA-1-PLUS"; "DIGEST-MD5" }}
authentication = "internal_plain"; storage = "internal"
log = {{ {{ levels = {{ min = "info" }}, to = "console" }}, {{ levels = {{ min = "debug" }}, to = "file", filename = "{debug}" }} }}
VirtualHost "{}"
{components}"#,
            plan.domain,
            // Every stanza, for a person who looks into a failure.
            debug = folder.join("stanzas.txt").display(),
        );
        let file = folder.join("prosody.cfg.lua");
        fs::write(&file, config)?;
        let has_components = !plan.components.is_empty();
        let domain = plan.domain.clone();
        let mut prosody = Self { process: None, folder, has_components, domain, client_port, component_port };
        prosody.resume().await?;
        Ok(prosody)
    }

    /// Starts it on the configuration and data that are in its folder, on the same component port as before.
    ///
    /// # Errors
    ///
    /// When it ends, or does not listen within 10 s.
    pub async fn resume(&mut self) -> Result<()> {
        let mut command = Command::new("prosody");
        command.arg("--config").arg(self.folder.join("prosody.cfg.lua")).arg("-F");
        let mut process = Process::spawn("prosody", &command, &self.folder)?;
        // Prosody opens the component port only when it has a component.
        let (client, component) = (self.client_port, self.has_components.then_some(self.component_port));
        wait_for("prosody listens", Duration::from_secs(10), || {
            let state = process.must_run();
            async move {
                state?;
                Ok((ports::answers(client) && component.is_none_or(ports::answers)).then_some(()))
            }
        })
        .await?;
        self.process = Some(process);
        Ok(())
    }

    /// Stops it as its administrator would, until [`Self::resume`].
    ///
    /// Afterwards clients find it at another port; components at the same. A client of ours that was dropped tries to connect
    /// once more behind the scenes, and would take away what is kept for its user.
    ///
    /// # Errors
    ///
    /// When it cannot be reaped, or its configuration not be written.
    pub async fn halt(&mut self) -> Result<()> {
        if let Some(process) = self.process.take() {
            process.stop(Duration::from_secs(5)).await?;
        }
        let file = self.folder.join("prosody.cfg.lua");
        let port = ports::free()?;
        let said = |port: u16| format!("c2s_ports = {{ {port} }}");
        fs::write(&file, fs::read_to_string(&file)?.replace(&said(self.client_port), &said(port)))?;
        self.client_port = port;
        Ok(())
    }

    /// Logs a user in with the given resource and sends no presence yet.
    ///
    /// # Errors
    ///
    /// When the login does not succeed within 10 s.
    pub async fn login(&self, user: &str, resource: &str) -> Result<XmppClient> {
        let address = format!("{user}@{}/{resource}", self.domain);
        XmppClient::login(&address, PASSWORD, self.client_port).await.with_context(|| format!("login of {address}"))
    }

    /// Waits until a component of this name has authenticated, by Prosody's own account.
    ///
    /// # Errors
    ///
    /// When it has not within 15 s.
    pub async fn wait_component(&self, name: &str) -> Result<()> {
        wait_until(&format!("{name} is connected to Prosody"), Duration::from_secs(15), || {
            (self.component_logins(name) > 0).then_some(())
        })
        .await
    }

    /// How often a component of this name has authenticated.
    pub fn component_logins(&self, name: &str) -> usize {
        let host = format!("{name}:component");
        // The file of all its lives: a restart appends.
        let log = fs::read(self.folder.join("prosody.log")).unwrap_or_default();
        String::from_utf8_lossy(&log)
            .lines()
            .filter(|line| line.starts_with(&host) && line.contains("successfully authenticated"))
            .count()
    }

    /// Stops the server as its administrator would, for good.
    ///
    /// # Errors
    ///
    /// When it cannot be reaped.
    pub async fn stop(self) -> Result<()> {
        match self.process {
            Some(process) => process.stop(Duration::from_secs(5)).await.map(drop),
            None => Ok(()),
        }
    }
}
