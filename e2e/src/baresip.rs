//! baresip as the phone of a SIP user behind Kamailio: adds contacts, chats, publishes presence.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::lab::{Lab, wait_for, wait_until};
use crate::ports;
use crate::process::Process;
use crate::sip_trace::{SipMessage, parse_baresip};

/// A running baresip.
#[derive(Debug)]
pub struct Baresip {
    process: Process,
    control: tokio::sync::Mutex<TcpStream>,
    sip_port: u16,
    /// Address of record, `sip:user@domain`.
    pub address: String,
}

/// What a phone shall be.
#[derive(Debug, Clone)]
pub struct PhonePlan {
    /// Local part of its user at `partner.example`.
    pub user: String,
    /// Port of the proxy on 127.0.0.1.
    pub proxy_port: u16,
    /// Contacts by address; the first is the one that messages go to.
    pub contacts: Vec<String>,
    /// Whether it subscribes to the presence of its contacts when it starts.
    pub watches: bool,
}

impl Baresip {
    /// Starts the phone and waits until its proxy has accepted the registration.
    ///
    /// # Errors
    ///
    /// When baresip is not installed or does not register within 10 s.
    pub async fn start(lab: &Lab, plan: &PhonePlan) -> Result<Self> {
        let user = &plan.user;
        let folder = lab.folder(&format!("baresip-{user}"))?;
        // It also listens for TLS, one port above.
        let (sip_port, control_port) = (ports::free_run(2)?, ports::free()?);
        let config = format!(
            "sip_listen 127.0.0.1:{sip_port}\nctrl_tcp_listen 127.0.0.1:{control_port}\n\
             module_path {}\nmodule g711.so\nmodule_tmp account.so\nmodule_app contact.so\n\
             module_app menu.so\nmodule_app presence.so\nmodule_app ctrl_tcp.so\n",
            module_path()?.display(),
        );
        fs::write(folder.join("config"), config)?;
        fs::write(
            folder.join("accounts"),
            format!(
                "<sip:{user}@partner.example>;auth_pass=none;\
                 outbound=\"sip:127.0.0.1:{};transport=udp\";regint=300;pubint=120\n",
                plan.proxy_port
            ),
        )?;
        let presence = if plan.watches { ";presence=p2p" } else { "" };
        let contacts: String =
            plan.contacts.iter().map(|contact| format!("\"{contact}\" <sip:{contact}>{presence}\n")).collect();
        fs::write(folder.join("contacts"), contacts)?;
        let mut command = Command::new("baresip");
        command.args(["-4", "-s", "-f"]).arg(&folder);
        let mut process = Process::spawn(&format!("baresip-{user}"), &command, &folder)?;
        let control = wait_for("baresip's control port", Duration::from_secs(10), || {
            let state = process.must_run();
            async move {
                state?;
                Ok(TcpStream::connect(("127.0.0.1", control_port)).await.ok())
            }
        })
        .await?;
        let phone = Self {
            process,
            control: tokio::sync::Mutex::new(control),
            sip_port,
            address: format!("sip:{user}@partner.example"),
        };
        phone
            .wait("the registration", Duration::from_secs(10), |m| {
                m.received && m.status() == Some(200) && m.cseq_method() == "REGISTER"
            })
            .await?;
        Ok(phone)
    }

    /// Every SIP message that the phone has sent and received, in order.
    pub fn trace(&self) -> Vec<SipMessage> {
        parse_baresip(&self.process.log(), self.sip_port)
    }

    /// Waits for a SIP message that meets the condition.
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
        wait_until(&format!("{}: {what}", self.address), within, || self.trace().into_iter().find(|m| matches(m))).await
    }

    /// Waits until a MESSAGE with this text has reached the phone.
    ///
    /// # Errors
    ///
    /// When it is not seen within 10 s.
    pub async fn wait_message(&self, text: &str) -> Result<SipMessage> {
        self.wait(&format!("the message {text:?}"), Duration::from_secs(10), |m| {
            m.received && m.method() == Some("MESSAGE") && m.body == text
        })
        .await
    }

    /// Waits for a NOTIFY whose body and subscription state meet the condition.
    ///
    /// # Errors
    ///
    /// When it is not seen within 10 s.
    pub async fn wait_notify(&self, what: &str, matches: impl Fn(&SipMessage) -> bool) -> Result<SipMessage> {
        self.wait(what, Duration::from_secs(10), |m| m.received && m.method() == Some("NOTIFY") && matches(m)).await
    }

    /// Sends a message to the current contact (the first one of the plan).
    ///
    /// # Errors
    ///
    /// When the phone does not take the command.
    pub async fn message(&self, text: &str) -> Result<()> {
        self.command("message", text).await.map(drop)
    }

    /// Publishes `online` or `offline`.
    ///
    /// # Errors
    ///
    /// When the phone does not take the command.
    pub async fn publish(&self, online: bool) -> Result<()> {
        self.command(if online { "presence_online" } else { "presence_offline" }, "").await.map(drop)
    }

    /// Makes the next contact the current one.
    ///
    /// # Errors
    ///
    /// When the phone does not take the command.
    pub async fn next_contact(&self) -> Result<()> {
        self.command("contact_next", "").await.map(drop)
    }

    /// Sends a command to the control port (JSON in a netstring) and returns its answer.
    ///
    /// # Errors
    ///
    /// When the phone is gone or answers something else.
    pub async fn command(&self, command: &str, params: &str) -> Result<String> {
        let json = serde_json::json!({ "command": command, "params": params }).to_string();
        let mut control = self.control.lock().await;
        control.write_all(format!("{}:{json},", json.len()).as_bytes()).await?;
        // Events come on the same connection: skip them until the answer is there.
        loop {
            let answer = tokio::time::timeout(Duration::from_secs(5), read_netstring(&mut control))
                .await
                .with_context(|| format!("no answer to {command}"))??;
            if answer.contains("\"response\"") {
                return Ok(answer);
            }
        }
    }

    /// Ends the phone as its user would: it unpublishes and unsubscribes first.
    ///
    /// # Errors
    ///
    /// When it cannot be reaped.
    pub async fn stop(self) -> Result<()> {
        self.process.stop(Duration::from_secs(5)).await.map(drop)
    }
}

async fn read_netstring(stream: &mut TcpStream) -> Result<String> {
    let mut length = 0_usize;
    loop {
        match stream.read_u8().await? {
            b':' => break,
            digit @ b'0'..=b'9' if length < 1_000_000 => length = length * 10 + usize::from(digit - b'0'),
            other => bail!("baresip sent {other:#x} where a length belongs"),
        }
    }
    let mut text = vec![0_u8; length + 1];
    stream.read_exact(&mut text).await?;
    text.pop();
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Where the distribution puts the modules.
fn module_path() -> Result<&'static Path> {
    [Path::new("/usr/lib/baresip/modules"), Path::new("/usr/lib64/baresip/modules")]
        .into_iter()
        .find(|path| path.exists())
        .context("baresip's modules are missing; `make install` installs them")
}
