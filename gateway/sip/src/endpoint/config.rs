//! Settings of the endpoint.

use std::net::IpAddr;

use crate::header::Via;
use crate::timer::TimerConfig;
use crate::uri::Host;

/// A name under which we send: host and port of Via (RFC 3261 §18.1.1).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SentBy {
    /// Name or address; IPv6 in brackets.
    pub host: String,
    /// The port; `None` leaves it out. In a set of own names it stands for every port.
    pub port: Option<u16>,
}

impl SentBy {
    /// Names a host, and perhaps a port.
    pub fn new(host: impl Into<String>, port: Option<u16>) -> Self {
        Self { host: host.into(), port }
    }
}

/// Settings of the endpoint.
#[derive(Debug, Clone)]
pub struct EndpointConfig {
    /// Base values of all timers. Default those of RFC 3261.
    pub timers: TimerConfig,
    /// Names that are ours, one or more per local domain; see [`crate::endpoint::Endpoint::set_own_names`].
    pub own_names: Vec<SentBy>,
    /// A token that names this process in branches; without characters that a token does not have.
    pub pod: String,
    /// The value of Server in answers that the endpoint makes itself; `None` leaves it out.
    pub product: Option<String>,
    /// Requests received and not yet forgotten. At nine tenths of it new requests outside of dialogs get
    /// 503 with Retry-After, at the whole all requests do. Default 200,000: 32 s of 6,000 requests a second, about 200 MB.
    pub max_server: usize,
    /// Requests sent and not yet over; beyond it sending fails. Default 100,000.
    pub max_client: usize,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            timers: TimerConfig::default(),
            own_names: Vec::new(),
            pod: String::from("0"),
            product: None,
            max_server: 200_000,
            max_client: 100_000,
        }
    }
}

/// The names that are ours, prepared for comparing.
#[derive(Debug, Default)]
pub(super) struct OwnNames(Vec<(OwnHost, Option<u16>)>);

#[derive(Debug)]
enum OwnHost {
    Name(String),
    Address(IpAddr),
}

impl OwnNames {
    pub(super) fn new(names: &[SentBy]) -> Self {
        let host = |name: &SentBy| match Host::parse(&name.host).ok().and_then(|host| host.ip()) {
            Some(ip) => OwnHost::Address(ip),
            None => OwnHost::Name(name.host.clone()),
        };
        Self(names.iter().map(|name| (host(name), name.port)).collect())
    }

    /// True if sent-by of `via` is one of ours; a missing port is the default of the Via's transport.
    pub(super) fn has(&self, via: &Via<'_>) -> bool {
        let host = via.host();
        self.0.iter().any(|(own, own_port)| {
            let same_host = match (own, host) {
                (OwnHost::Name(own), Host::Name(name)) => own.eq_ignore_ascii_case(name),
                (OwnHost::Address(own), host) => host.ip() == Some(*own),
                _ => false,
            };
            same_host && own_port.is_none_or(|own| own == effective_port(via))
        })
    }
}

/// True if sent-by of `via` is `sent_by`, which we wrote.
pub(super) fn is_sent_by(via: &Via<'_>, sent_by: &SentBy) -> bool {
    let transport_port = via.transport().map_or(5060, crate::header::Transport::default_port);
    Host::parse(&sent_by.host).is_ok_and(|host| host == via.host())
        && sent_by.port.unwrap_or(transport_port) == effective_port(via)
}

fn effective_port(via: &Via<'_>) -> u16 {
    via.port().unwrap_or_else(|| via.transport().map_or(5060, crate::header::Transport::default_port))
}

/// Counts since the start, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EndpointStats {
    /// New requests that were handed on.
    pub requests: u64,
    /// Repeated requests that were absorbed or answered again.
    pub repeated_requests: u64,
    /// Requests that came a second time by another way: 482, or the answer again.
    pub merged_requests: u64,
    /// Requests that the endpoint refused itself: 400, 481, 482, 483, 503, 505, 513.
    pub refused_requests: u64,
    /// Refused because of [`EndpointConfig::max_server`] or overload; part of the former.
    pub refused_full: u64,
    /// Responses that matched nothing, were foreign, or had several Via values.
    pub discarded_responses: u64,
    /// Requests and answers sent again by a timer.
    pub retransmissions: u64,
    /// Requests of ours that ended without an answer.
    pub timeouts: u64,
    /// Answers that could not be sent by any way.
    pub lost_responses: u64,
}
