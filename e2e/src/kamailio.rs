//! Kamailio, in three parts: the standard partner with presence, the TLS edge in front of a Microsoft partner, and the proxy that
//! partners of the lab have before their users.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::UdpSocket;

use crate::lab::{Lab, wait_for};
use crate::pki::Certificate;
use crate::ports;
use crate::process::{Process, run};

const PARTNER: &str = include_str!("../scenarios/kamailio/partner.cfg");
const EDGE: &str = include_str!("../scenarios/kamailio/edge.cfg");
const PROXY: &str = include_str!("../scenarios/kamailio/proxy.cfg");

/// A running Kamailio.
#[derive(Debug)]
pub struct Kamailio {
    process: Process,
    /// Port of SIP over UDP and TCP.
    pub port: u16,
    /// Port of SIP over TLS; nothing listens there when it was started without certificate.
    pub tls_port: u16,
}

/// What `partner.example` shall be.
#[derive(Debug, Clone)]
pub struct PartnerPlan {
    /// Users who exist: others get 404, and those not registered 480.
    pub users: Vec<String>,
    /// Where requests for `corp.example` go, for instance `sip:127.0.0.1:5062;transport=tcp`.
    pub gateway: String,
    /// Certificate for TLS, with the authority that its peers must be signed by.
    pub tls: Option<Certificate>,
    /// Longest subscription it grants, in seconds.
    pub max_expires_secs: u32,
    /// The SIP port; chosen free when absent.
    pub port: Option<u16>,
}

impl PartnerPlan {
    /// Users `ana` and `bob`, no TLS, subscriptions of up to an hour.
    pub fn new(gateway: &str) -> Self {
        Self {
            users: vec!["ana".to_owned(), "bob".to_owned()],
            gateway: gateway.to_owned(),
            tls: None,
            max_expires_secs: 3600,
            port: None,
        }
    }
}

/// A partner behind a proxy.
#[derive(Debug, Clone, Copy)]
pub struct Proxied {
    /// Where the proxy listens for it, on all transports.
    pub port: u16,
    /// The port on which its users sit.
    pub users: u16,
    /// The port by which the organisation reaches it: another one where somebody else speaks TLS for the proxy.
    pub known_as: u16,
}

impl Kamailio {
    /// Starts the standard partner and waits until it answers an OPTIONS.
    ///
    /// # Errors
    ///
    /// When Kamailio or sqlite3 is not installed, or it does not answer within 10 s.
    pub async fn partner(lab: &Lab, plan: &PartnerPlan) -> Result<Self> {
        let folder = lab.folder("kamailio-partner")?;
        create_database(&folder)?;
        let port = plan.port.map_or_else(ports::free, Ok)?;
        let tls_port = ports::free()?;
        let mut listen = format!("listen=udp:127.0.0.1:{port}\nlisten=tcp:127.0.0.1:{port}\n");
        if ports::has_ipv6() {
            listen.push_str(&format!("listen=udp:[::1]:{port}\nlisten=tcp:[::1]:{port}\n"));
        }
        let (mut tls_on, mut tls_module) = ("enable_tls=no".to_owned(), String::new());
        if let Some(certificate) = &plan.tls {
            listen.push_str(&format!("listen=tls:127.0.0.1:{tls_port}\n"));
            write_tls(&folder, certificate)?;
            "enable_tls=yes".clone_into(&mut tls_on);
            tls_module =
                format!("loadmodule \"tls.so\"\nmodparam(\"tls\", \"config\", \"{}/tls.cfg\")", folder.display());
        }
        let config = PARTNER
            .replace("@LISTEN@", &listen)
            .replace("@TLS_ON@", &tls_on)
            .replace("@TLS_MODULE@", &tls_module)
            .replace("@CTL_PORT@", &ports::free()?.to_string())
            .replace("@FOLDER@", &folder.display().to_string())
            .replace("@PORT@", &port.to_string())
            .replace("@USERS@", &plan.users.join("|"))
            .replace("@MAX_EXPIRES@", &plan.max_expires_secs.to_string())
            .replace("@GATEWAY@", &plan.gateway);
        Self::start("kamailio-partner", &folder, &config, port, tls_port, 64).await
    }

    /// Starts the TLS edge of `blue.example`; `inside` is where SIPp waits for requests to its users.
    ///
    /// # Errors
    ///
    /// As [`Self::partner`].
    pub async fn edge(
        lab: &Lab,
        name: &str,
        certificate: &Certificate,
        gateway: &str,
        inside: &str,
        tls_port: u16,
    ) -> Result<Self> {
        let folder = lab.folder(name)?;
        write_tls(&folder, certificate)?;
        let port = ports::free()?;
        let config = EDGE
            .replace("@CTL_PORT@", &ports::free()?.to_string())
            .replace("@FOLDER@", &folder.display().to_string())
            .replace("@PORT@", &port.to_string())
            .replace("@TLS_PORT@", &tls_port.to_string())
            .replace("@INSIDE@", inside)
            .replace("@GATEWAY@", gateway);
        Self::start(name, &folder, &config, port, tls_port, 64).await
    }

    /// Starts a stateful, record-routing proxy between partners and the organisation, which has all of these addresses. With
    /// `streams` it and the organisation speak TCP, over a connection to each of the addresses; otherwise UDP.
    ///
    /// # Errors
    ///
    /// When there is no partner or no address, or as [`Self::partner`].
    pub async fn proxy(lab: &Lab, partners: &[Proxied], gateways: &[SocketAddr], streams: bool) -> Result<Self> {
        let first = partners.first().context("a proxy without partners")?.port;
        let (transport, parameter) = if streams { ("tcp", ";transport=tcp") } else { ("udp", "") };
        let (mut listen, mut ways, mut choice) = (String::new(), String::new(), String::new());
        for (number, gateway) in gateways.iter().enumerate() {
            let condition = if number == 0 { String::new() } else { format!("if ($var(gateway) == {number}) ") };
            writeln!(choice, "\t{condition}$du = \"sip:{gateway}{parameter}\";")?;
        }
        for Proxied { port, users, known_as } in partners {
            writeln!(listen, "listen=udp:127.0.0.1:{port}")?;
            let mut record = "record_route()".to_owned();
            if port != known_as {
                record = format!("record_route_preset(\"127.0.0.1:{known_as};transport=tls\")");
                writeln!(listen, "alias=\"tls:127.0.0.1:{known_as}\"")?;
            }
            if streams {
                writeln!(listen, "listen=tcp:127.0.0.1:{port} advertise 127.0.0.1:{known_as}")?;
            }
            let record = format!("if ($var(opens) == 1) {record};");
            for (condition, leave) in [
                (format!("$sp == {users}"), format!("$fs = \"{transport}:127.0.0.1:{port}\"; route(GATEWAY);")),
                (
                    format!("$sp != {users}"),
                    format!("$fs = \"udp:127.0.0.1:{port}\"; $du = \"sip:127.0.0.1:{users}\";"),
                ),
            ] {
                writeln!(
                    ways,
                    "\tif ($Rp == {port} && {condition}) {{\n\t\t{record}\n\t\t{leave}\n\t\troute(RELAY);\n\t}}"
                )?;
            }
        }
        // Over a connection nothing is repeated: who has not answered soon never will.
        let streams = if streams { "modparam(\"tm\", \"fr_timer\", 5000)" } else { "disable_tcp=yes" };
        let config = PROXY
            .replace("@LISTEN@", &listen)
            .replace("@STREAMS@", streams)
            .replace("@WAYS@", &ways)
            .replace("@GATEWAYS@", &gateways.len().to_string())
            .replace("@CHOICE@", &choice);
        Self::start("kamailio-proxy", &lab.folder("kamailio-proxy")?, &config, first, 0, 64).await
    }

    /// Starts Kamailio with a configuration of the caller's; `shared_mib` is its shared memory.
    ///
    /// # Errors
    ///
    /// When it ends or does not answer an OPTIONS within 10 s.
    pub async fn start(
        name: &str,
        folder: &Path,
        config: &str,
        port: u16,
        tls_port: u16,
        shared_mib: u32,
    ) -> Result<Self> {
        let file = folder.join("kamailio.cfg");
        fs::write(&file, config)?;
        fs::create_dir_all(folder.join("run"))?;
        let mut command = Command::new(program());
        command.args(["-DD", "-E", "-f"]).arg(&file);
        command.args(["-Y", "run", "-w", ".", "-m", &shared_mib.to_string(), "-M", "8"]);
        let mut process = Process::spawn(name, &command, folder)?;
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        socket.connect((Ipv4Addr::LOCALHOST, port)).await?;
        wait_for(&format!("{name} answers"), Duration::from_secs(10), || {
            let state = process.must_run();
            let socket = &socket;
            async move {
                state?;
                Ok(ping(socket, port).await.then_some(()))
            }
        })
        .await?;
        Ok(Self { process, port, tls_port })
    }

    /// CPU time used so far by all its processes.
    ///
    /// # Errors
    ///
    /// When `/proc` does not show it.
    pub fn cpu_time(&self) -> Result<Duration> {
        self.process.cpu_time()
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Ends it at once, as a crash or a power failure would.
    pub fn kill(mut self) {
        self.process.kill();
    }
}

/// Debian keeps it where the path of ordinary users does not look.
fn program() -> &'static str {
    if Path::new("/usr/sbin/kamailio").exists() { "/usr/sbin/kamailio" } else { "kamailio" }
}

async fn ping(socket: &UdpSocket, port: u16) -> bool {
    let Ok(local) = socket.local_addr() else { return false };
    let request = format!(
        "OPTIONS sip:127.0.0.1:{port} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bKping{local_port}\r\n\
         From: <sip:ping@127.0.0.1>;tag=1\r\nTo: <sip:127.0.0.1:{port}>\r\nCall-ID: ping-{local_port}\r\n\
         CSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
        local_port = local.port()
    );
    if socket.send(request.as_bytes()).await.is_err() {
        return false;
    }
    let mut buffer = [0_u8; 2048];
    matches!(
        tokio::time::timeout(Duration::from_millis(100), socket.recv(&mut buffer)).await,
        Ok(Ok(n)) if buffer.get(..n).is_some_and(|b| b.starts_with(b"SIP/2.0"))
    )
}

fn create_database(folder: &Path) -> Result<()> {
    let schema: PathBuf = "/usr/share/kamailio/db_sqlite".into();
    let database = folder.join("kam.db");
    for table in ["standard", "presence", "usrloc"] {
        let file = schema.join(format!("{table}-create.sql"));
        let input = fs::File::open(&file)
            .with_context(|| format!("{} is missing; `make install` installs it", file.display()))?;
        let status = Command::new("sqlite3")
            .args(["-cmd", "PRAGMA synchronous=OFF"])
            .arg(&database)
            .stdin(Stdio::from(input))
            .stdout(Stdio::null())
            .status()
            .context("cannot start sqlite3; `make install` installs it")?;
        anyhow::ensure!(status.success(), "sqlite3 refused {}", file.display());
    }
    Ok(())
}

fn write_tls(folder: &Path, certificate: &Certificate) -> Result<()> {
    let chain = folder.join("tls.crt");
    let key = folder.join("tls.key");
    let authority = folder.join("ca.crt");
    fs::write(&chain, &certificate.chain_pem)?;
    fs::write(&key, &certificate.key_pem)?;
    fs::write(&authority, &certificate.authority_pem)?;
    let section = format!(
        "method = TLSv1.2+\nverify_certificate = yes\nrequire_certificate = yes\n\
         private_key = {}\ncertificate = {}\nca_list = {}\n",
        key.display(),
        chain.display(),
        authority.display()
    );
    fs::write(folder.join("tls.cfg"), format!("[server:default]\n{section}\n[client:default]\n{section}"))?;
    Ok(())
}

/// Shows the version that is installed, for the benchmark's heading.
///
/// # Errors
///
/// When it is not installed.
pub fn version() -> Result<String> {
    let text = run(Command::new(program()).arg("-v"))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
