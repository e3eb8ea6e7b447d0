//! Free ports on loopback, not given twice even to test programs that run at the same time.

use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};

/// Ports are taken from here: below the range that the system gives to outgoing connections.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;
/// Those of the quickstart, which stand in its manifests, are given to nobody.
const QUICKSTART: RangeInclusive<u16> = 25_000..=25_399;
/// Locked files stay open until the process ends, and with them the claim on the port.
static CLAIMS: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// Gives a port on which TCP and UDP are free on 127.0.0.1 and, where there is IPv6, on `::1`.
///
/// The claim is a locked file, so a second test program cannot take it before the peer listens.
///
/// # Errors
///
/// When no port is left or the folder of claims cannot be written.
pub fn free() -> Result<u16> {
    let user = rustix::process::getuid().as_raw();
    let folder = std::env::temp_dir().join(format!("isthmus-ports-{user}"));
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut claims = CLAIMS.lock().map_err(|_| anyhow::anyhow!("a port claim failed earlier"))?;
    // Different programs start at different places, so that they seldom meet.
    let start = u16::try_from((std::process::id().wrapping_mul(997)) % u32::from(COUNT))?;
    let taken = u16::try_from(claims.len())?;
    for step in 0..COUNT {
        let port = FIRST + (start + taken + step) % COUNT;
        if QUICKSTART.contains(&port) {
            continue;
        }
        let file = File::options().create(true).write(true).truncate(false).open(folder.join(port.to_string()))?;
        if file.try_lock().is_ok() && is_free(port) {
            claims.push(file);
            return Ok(port);
        }
    }
    bail!("no free port between {FIRST} and {}", FIRST + COUNT)
}

/// Gives the first of `count` ports in a row that are all free and claimed: some programs take several.
///
/// # Errors
///
/// As [`free`].
pub fn free_run(count: u16) -> Result<u16> {
    let mut first = free()?;
    let mut last = first;
    while last - first + 1 < count {
        let next = free()?;
        if next != last + 1 {
            first = next;
        }
        last = next;
    }
    Ok(first)
}

/// Whether nothing listens on the port on loopback.
pub fn is_free(port: u16) -> bool {
    let v4 =
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() && UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    v4 && (!has_ipv6()
        || (TcpListener::bind((Ipv6Addr::LOCALHOST, port)).is_ok()
            && UdpSocket::bind((Ipv6Addr::LOCALHOST, port)).is_ok()))
}

/// Whether this machine has `::1`.
pub fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// Whether a TCP server answers on 127.0.0.1.
pub fn answers(port: u16) -> bool {
    std::net::TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), std::time::Duration::from_millis(200))
        .is_ok()
}
