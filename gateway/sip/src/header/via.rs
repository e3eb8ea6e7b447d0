//! Via (RFC 3261 §20.42, RFC 3581).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::{HeaderError, Params};
use crate::uri::{Host, UriError};
use crate::wire;

/// A transport that the gateway speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A stream without protection.
    Tcp,
    /// A stream under TLS.
    Tls,
}

impl Transport {
    /// Recognises the name in Via or in a `transport` parameter; case does not matter.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Udp, Self::Tcp, Self::Tls].into_iter().find(|t| t.as_str().eq_ignore_ascii_case(text))
    }

    /// The name as Via has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
        }
    }

    /// True when the transport itself repeats what was lost, so that timers A, E and G do not run.
    pub fn is_reliable(self) -> bool {
        self != Self::Udp
    }

    /// 5061 for TLS, else 5060 (RFC 3261 §19.1.2).
    pub fn default_port(self) -> u16 {
        if self == Self::Tls { 5061 } else { 5060 }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One Via value that borrows its text.
#[derive(Debug, Clone, Copy)]
pub struct Via<'a> {
    pub(crate) transport: &'a str,
    pub(crate) sent_by: &'a str,
    pub(crate) host_text: &'a str,
    pub(crate) host: Host<'a>,
    pub(crate) port: Option<u16>,
    pub(crate) params: Params<'a>,
}

impl<'a> Via<'a> {
    /// Reads one value.
    ///
    /// # Errors
    ///
    /// [`HeaderError::Syntax`] when it does not start with `SIP/2.0/` and a transport, else what is wrong
    /// with sent-by or a parameter.
    pub fn parse(text: &'a str) -> Result<Self, HeaderError> {
        let rest = part(text, "SIP")?;
        let rest = slash(rest)?;
        let rest = part(rest, "2.0")?;
        let rest = wire::trim_start(slash(rest)?);
        let (transport, rest) = wire::split(rest, wire::run(rest, wire::TOKEN));
        let rest = match wire::trim_start(rest) {
            tail if tail.len() < rest.len() && !transport.is_empty() => tail,
            _ => return Err(HeaderError::Syntax),
        };
        let end = wire::find(rest, b';').unwrap_or(rest.len());
        let (sent_by, params) = wire::split(rest, end);
        let sent_by = wire::trim(sent_by);
        let (host, rest) = Host::prefix(sent_by)?;
        let host_text = wire::split(sent_by, sent_by.len() - rest.len()).0;
        // white space may surround the colon (RFC 3261 §25.1, COLON)
        let port = match wire::trim_start(rest) {
            "" => None,
            rest => {
                let port = rest.strip_prefix(':').ok_or(UriError::Host)?;
                Some(wire::number(wire::trim_start(port)).ok_or(UriError::Port)?)
            }
        };
        Ok(Self { transport, sent_by, host_text, host, port, params: Params::parse(params)? })
    }

    /// The transport as spelled.
    pub fn transport_name(&self) -> &'a str {
        self.transport
    }

    /// The transport, if it is one of ours.
    pub fn transport(&self) -> Option<Transport> {
        Transport::parse(self.transport)
    }

    /// `host[:port]` as spelled.
    pub fn sent_by(&self) -> &'a str {
        self.sent_by
    }

    /// The host of sent-by.
    pub fn host(&self) -> Host<'a> {
        self.host
    }

    /// The port of sent-by, if written.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The branch; `None` when absent or empty.
    pub fn branch(&self) -> Option<&'a str> {
        self.params.get("branch").filter(|b| !b.is_empty())
    }

    /// The branch when it has the magic cookie of RFC 3261 §8.1.1.7.
    pub fn rfc3261_branch(&self) -> Option<&'a str> {
        self.branch().filter(|b| b.get(..7).is_some_and(|cookie| cookie.eq_ignore_ascii_case("z9hG4bK")) && b.len() > 7)
    }

    /// The `received` address; IPv6 with or without brackets (RFC 5118 §4.5).
    pub fn received(&self) -> Option<IpAddr> {
        let text = self.params.get("received")?;
        let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        inner.unwrap_or(text).parse().ok()
    }

    /// The `rport` parameter: absent, asked for, or filled.
    pub fn rport(&self) -> Option<Option<u16>> {
        self.params.find("rport").map(|value| value.and_then(wire::number))
    }

    /// All parameters.
    pub fn params(&self) -> Params<'a> {
        self.params
    }

    /// Writes this value with `received` and `rport` as a server must fill them for a request that came
    /// from `source` (RFC 3261 §18.2.1, RFC 3581 §4). What the sender put there itself is dropped.
    pub(crate) fn write_received(&self, source: SocketAddr, out: &mut dyn fmt::Write) -> fmt::Result {
        let rport = self.rport().is_some();
        let differs = self.host.ip() != Some(source.ip());
        write!(out, "SIP/2.0/{} {}", self.transport, self.sent_by)?;
        for (name, value) in self.params.iter() {
            if name.eq_ignore_ascii_case("received") || name.eq_ignore_ascii_case("rport") {
                continue;
            }
            match value {
                Some(value) => write!(out, ";{name}={value}")?,
                None => write!(out, ";{name}")?,
            }
        }
        if rport || differs {
            write!(out, ";received={}", source.ip())?;
        }
        if rport {
            write!(out, ";rport={}", source.port())?;
        }
        Ok(())
    }
}

fn part<'a>(text: &'a str, word: &str) -> Result<&'a str, HeaderError> {
    let (head, rest) = wire::split(wire::trim_start(text), word.len());
    if head.eq_ignore_ascii_case(word) { Ok(rest) } else { Err(HeaderError::Syntax) }
}

fn slash(text: &str) -> Result<&str, HeaderError> {
    wire::trim_start(text).strip_prefix('/').ok_or(HeaderError::Syntax)
}

/// A Via of our own to be written.
#[derive(Debug, Clone, Copy)]
pub struct ViaSpec<'a> {
    /// How the request leaves.
    pub transport: Transport,
    /// Our name, or address (IPv6 in brackets).
    pub host: &'a str,
    /// Our port; `None` leaves it out.
    pub port: Option<u16>,
    /// The branch, with its magic cookie.
    pub branch: &'a str,
    /// Asks for the source port (RFC 3581).
    pub rport: bool,
    /// Offers the connection for requests in the other direction (RFC 5923).
    pub alias: bool,
}

impl ViaSpec<'_> {
    /// True if host and branch can be written.
    pub(crate) fn is_sound(&self) -> bool {
        Host::parse(self.host).is_ok() && wire::is_token(self.branch)
    }
}

impl fmt::Display for ViaSpec<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIP/2.0/{} {}", self.transport, self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        if self.rport {
            f.write_str(";rport")?;
        }
        if self.alias {
            f.write_str(";alias")?;
        }
        write!(f, ";branch={}", self.branch)
    }
}
