//! HAProxy as the balancer in front of the gateway: it states the client's address in a PROXY header.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use tokio::net::TcpStream;

use crate::lab::{Lab, wait_for};
use crate::ports;
use crate::process::Process;

/// A running HAProxy.
#[derive(Debug)]
pub struct Haproxy {
    /// It takes connections on 127.0.0.1 here.
    pub port: u16,
    _process: Process,
}

impl Haproxy {
    /// Hands each connection on to `target` on 127.0.0.1, behind a header of version 2.
    ///
    /// # Errors
    ///
    /// When HAProxy is not installed or does not listen within 5 s.
    pub async fn start(lab: &Lab, target: u16) -> Result<Self> {
        let folder = lab.folder(&format!("haproxy-{target}"))?;
        let port = ports::free()?;
        let config = format!(
            "global\n    maxconn 100\ndefaults\n    mode tcp\n    timeout connect 5s\n    timeout client 30s\n    \
             timeout server 30s\nlisten sip\n    bind 127.0.0.1:{port}\n    server gateway 127.0.0.1:{target} send-proxy-v2\n"
        );
        let file = folder.join("haproxy.cfg");
        fs::write(&file, config)?;
        // It lives where an administrator's tools live, out of the path of others.
        let program = ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy"]
            .into_iter()
            .find(|path| fs::exists(path).is_ok_and(|is| is));
        let mut command = Command::new(program.unwrap_or("haproxy"));
        command.arg("-db").arg("-f").arg(file);
        let mut process = Process::spawn("haproxy", &command, &folder)?;
        wait_for("haproxy listens", Duration::from_secs(5), || {
            let state = process.must_run();
            async move {
                state?;
                Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok())
            }
        })
        .await?;
        Ok(Self { port, _process: process })
    }
}
