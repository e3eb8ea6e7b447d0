//! HAProxy, as the balancer in front of the gateway, and as the end of TLS in front of a server that speaks none.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use tokio::net::TcpStream;

use crate::lab::{Lab, wait_for};
use crate::pki::Certificate;
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
        Self::between(&folder, "", target, "send-proxy-v2").await
    }

    /// Takes TLS connections, showing `certificate`, and hands what is inside on to `target` on 127.0.0.1.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub async fn end_tls(lab: &Lab, target: u16, certificate: &Certificate) -> Result<Self> {
        let folder = lab.folder(&format!("haproxy-tls-{target}"))?;
        Self::between(&folder, &shown(&folder, certificate)?, target, "").await
    }

    /// As [`Self::end_tls`], for clients with a certificate of the same authority.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub async fn end_mutual_tls(lab: &Lab, target: u16, certificate: &Certificate) -> Result<Self> {
        let folder = lab.folder(&format!("haproxy-tls-{target}"))?;
        Self::between(&folder, &mutual(&folder, certificate)?, target, "").await
    }

    /// Takes plain connections and hands them on to `target` on 127.0.0.1 over TLS, showing `certificate`.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub async fn begin_tls(lab: &Lab, target: u16, certificate: &Certificate) -> Result<Self> {
        let folder = lab.folder(&format!("haproxy-to-tls-{target}"))?;
        Self::between(&folder, "", target, &mutual(&folder, certificate)?).await
    }

    async fn between(folder: &Path, bind: &str, target: u16, server: &str) -> Result<Self> {
        let port = ports::free()?;
        let config = format!(
            "global\n    maxconn 100\ndefaults\n    mode tcp\n    timeout connect 5s\n    timeout client 5m\n    \
             timeout server 5m\nlisten all\n    bind 127.0.0.1:{port} {bind}\n    server target 127.0.0.1:{target} {server}\n"
        );
        let file = folder.join("haproxy.cfg");
        fs::write(&file, config)?;
        // It lives where an administrator's tools live, out of the path of others.
        let program = ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy"]
            .into_iter()
            .find(|path| fs::exists(path).is_ok_and(|is| is));
        let mut command = Command::new(program.unwrap_or("haproxy"));
        command.arg("-db").arg("-f").arg(file);
        let mut process = Process::spawn("haproxy", &command, folder)?;
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

/// The words with which HAProxy shows a certificate.
fn shown(folder: &Path, certificate: &Certificate) -> Result<String> {
    let own = folder.join("own.pem");
    fs::write(&own, format!("{}{}", certificate.chain_pem, certificate.key_pem))?;
    Ok(format!("ssl crt {}", own.display()))
}

/// The words with which it demands one of the same authority, too.
fn mutual(folder: &Path, certificate: &Certificate) -> Result<String> {
    let authority = folder.join("ca.pem");
    fs::write(&authority, &certificate.authority_pem)?;
    Ok(format!("{} ca-file {} verify required", shown(folder, certificate)?, authority.display()))
}
