//! Knot as the name server that knows the partner's records.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use rustix::process::Signal;
use tokio::net::UdpSocket;

use crate::lab::{Lab, wait_for};
use crate::ports;
use crate::process::Process;

/// A running name server.
#[derive(Debug)]
pub struct Knot {
    process: Process,
    folder: PathBuf,
    zones: Vec<String>,
    serial: u32,
    /// It answers on 127.0.0.1, UDP and TCP.
    pub port: u16,
}

impl Knot {
    /// Serves the given zones; records are lines of a zone file such as `sip A 127.0.0.1`.
    ///
    /// # Errors
    ///
    /// When knot is not installed or does not answer within 5 s.
    pub async fn start(lab: &Lab, zones: &[(&str, &str)]) -> Result<Self> {
        let folder = lab.folder("knot")?;
        let port = ports::free()?;
        let mut config = format!(
            "server:\n    listen: 127.0.0.1@{port}\n    rundir: \"{0}\"\n    udp-workers: 1\n    tcp-workers: 1\n    \
             background-workers: 1\ndatabase:\n    storage: \"{0}\"\ncontrol:\n    listen: \"{0}/knot.sock\"\n\
             log:\n  - target: stderr\n    any: info\ntemplate:\n  - id: default\n    storage: \"{0}\"\n    \
             zonefile-sync: -1\n    journal-content: none\nzone:\n",
            folder.display()
        );
        for (zone, _) in zones {
            let _ = writeln!(config, "  - domain: {zone}\n    file: {zone}.zone");
        }
        fs::write(folder.join("knot.conf"), config)?;
        for (zone, records) in zones {
            fs::write(folder.join(format!("{zone}.zone")), zone_text(records, 1))?;
        }
        let mut command = Command::new(program());
        command.arg("-c").arg(folder.join("knot.conf"));
        let mut process = Process::spawn("knot", &command, &folder)?;
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        socket.connect((Ipv4Addr::LOCALHOST, port)).await?;
        let first = zones.first().map_or("", |(zone, _)| zone);
        wait_for("knot answers", Duration::from_secs(5), || {
            let state = process.must_run();
            let socket = &socket;
            async move {
                state?;
                Ok(serves(socket, first).await.then_some(()))
            }
        })
        .await?;
        let zones = zones.iter().map(|(zone, _)| (*zone).to_owned()).collect();
        Ok(Self { process, folder, zones, serial: 1, port })
    }

    /// Replaces the records of a zone; they are served within some 25 ms.
    ///
    /// # Errors
    ///
    /// When the zone is not one of its own or the file cannot be written.
    pub fn replace(&mut self, zone: &str, records: &str) -> Result<()> {
        anyhow::ensure!(self.zones.iter().any(|z| z == zone), "no zone {zone}");
        self.serial += 1;
        fs::write(self.folder.join(format!("{zone}.zone")), zone_text(records, self.serial))?;
        self.process.signal(Signal::HUP)
    }
}

fn program() -> &'static str {
    if std::path::Path::new("/usr/sbin/knotd").exists() { "/usr/sbin/knotd" } else { "knotd" }
}

fn zone_text(records: &str, serial: u32) -> String {
    format!("$TTL 2\n@ SOA ns admin {serial} 60 60 600 2\n@ NS ns\nns A 127.0.0.1\n{records}\n")
}

/// Asks for the zone's SOA and looks whether an answer without error comes back.
async fn serves(socket: &UdpSocket, zone: &str) -> bool {
    let mut query = vec![0x12, 0x34, 0x00, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in zone.split('.') {
        query.push(u8::try_from(label.len()).unwrap_or_default());
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 6, 0, 1]);
    if socket.send(&query).await.is_err() {
        return false;
    }
    let mut answer = [0_u8; 512];
    match tokio::time::timeout(Duration::from_millis(100), socket.recv(&mut answer)).await {
        // Header: id, flags with the response code in the low four bits, then counts.
        Ok(Ok(n)) => n > 12 && answer[3] % 16 == 0 && answer[7] > 0,
        _ => false,
    }
}
