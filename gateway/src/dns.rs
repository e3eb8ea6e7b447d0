//! Where a SIP peer is: RFC 3263 and the federation SRV of the Microsoft dialect.
//!
//! Domains found through DNS are always reached over TLS: the API allows TCP and UDP with static next hops
//! only, so no answer of a name server can lead to cleartext (interworking specification §1.5, §6.7).
//! Answers are cached for their TTL, but at least 30 s and at most 1 h; "there is none" for 60 s at most.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use isthmus_sip::Transport;
use rand::Rng;

/// The most addresses that one look-up hands on.
const MAX_TARGETS: usize = 16;

/// One address to try, with the name under which it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The host name, or the text of the address for numeric hops; for SNI and status.
    pub host: String,
    /// Where to connect.
    pub addr: SocketAddr,
    /// How.
    pub transport: Transport,
}

/// Which service names lead to a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discovery {
    /// `_sipfederationtls._tcp`, then, if `fallback`, as `Rfc3263`.
    SipFederationTls {
        /// Whether the rules of RFC 3263 follow when there is no such record.
        fallback: bool,
    },
    /// NAPTR, `_sips._tcp`, then the addresses of the domain itself.
    Rfc3263,
}

/// Why a peer could not be located.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LocateError {
    /// Name servers answered that there is nothing to connect to.
    #[error("{name} has no usable SRV, A or AAAA record")]
    NotFound {
        /// What was asked for last.
        name: String,
    },
    /// No name server gave an answer.
    #[error("name servers did not answer for {name}: {cause}")]
    ResolverFailed {
        /// What was asked for.
        name: String,
        /// The resolver's words.
        cause: String,
    },
}

/// Finds peers through DNS.
#[derive(Debug, Clone)]
pub struct Locator {
    resolver: TokioResolver,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Srv {
    priority: u16,
    weight: u16,
    port: u16,
    target: String,
}

impl Locator {
    /// Uses the given name servers, or those of the system when there are none.
    ///
    /// # Errors
    ///
    /// A text when the system's configuration cannot be read.
    pub fn new(servers: &[SocketAddr]) -> Result<Self, String> {
        let mut builder = if servers.is_empty() {
            TokioResolver::builder_tokio().map_err(|error| error.to_string())?
        } else {
            let servers = servers.iter().map(|server| {
                let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
                for connection in &mut connections {
                    connection.port = server.port();
                }
                NameServerConfig::new(server.ip(), true, connections)
            });
            let config = ResolverConfig::from_parts(None, vec![], servers.collect());
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        tune(builder.options_mut());
        let resolver = builder.build().map_err(|error| error.to_string())?;
        Ok(Self { resolver })
    }

    /// Locates a domain by its service records; targets come in the order to try them.
    ///
    /// # Errors
    ///
    /// [`LocateError`].
    pub async fn locate(&self, domain: &str, discovery: Discovery) -> Result<Vec<Target>, LocateError> {
        if let Discovery::SipFederationTls { fallback } = discovery {
            let service = format!("_sipfederationtls._tcp.{domain}");
            let records = self.srv(&service).await?;
            if !records.is_empty() || !fallback {
                return self.targets_of(&service, records).await;
            }
        }
        for service in self.naptr(domain).await? {
            let records = self.srv(&service).await?;
            if !records.is_empty() {
                return self.targets_of(&service, records).await;
            }
        }
        let service = format!("_sips._tcp.{domain}");
        let records = self.srv(&service).await?;
        if !records.is_empty() {
            return self.targets_of(&service, records).await;
        }
        self.host(domain, Transport::Tls.default_port(), Transport::Tls).await
    }

    /// Resolves one next hop whose port is known: numeric, or A and AAAA (RFC 3263 §4.2).
    ///
    /// # Errors
    ///
    /// [`LocateError`].
    pub async fn host(&self, host: &str, port: u16, transport: Transport) -> Result<Vec<Target>, LocateError> {
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = literal.parse::<IpAddr>() {
            return Ok(vec![Target { host: literal.to_owned(), addr: SocketAddr::new(ip, port), transport }]);
        }
        let (v4, v6) = futures::join!(self.records(host, RecordType::A), self.records(host, RecordType::AAAA));
        // IPv4 goes first: where a site has half an IPv6, a connection attempt hangs for its whole timeout.
        let mut targets: Vec<Target> = [&v4, &v6]
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|data| match data {
                RData::A(a) => Some(IpAddr::V4(a.0)),
                RData::AAAA(a) => Some(IpAddr::V6(a.0)),
                _ => None,
            })
            .map(|ip| Target { host: host.to_owned(), addr: SocketAddr::new(ip, port), transport })
            .collect();
        targets.truncate(MAX_TARGETS);
        if targets.is_empty() {
            v4?;
            v6?;
            return Err(LocateError::NotFound { name: host.to_owned() });
        }
        Ok(targets)
    }

    async fn targets_of(&self, service: &str, records: Vec<Srv>) -> Result<Vec<Target>, LocateError> {
        let ordered = order(records, |bound| rand::rng().random_range(0..=bound));
        let mut targets = Vec::new();
        let mut failure = None;
        for record in ordered {
            match self.host(&record.target, record.port, Transport::Tls).await {
                Ok(found) => targets.extend(found),
                Err(error) => failure = Some(error),
            }
            if targets.len() >= MAX_TARGETS {
                break;
            }
        }
        targets.truncate(MAX_TARGETS);
        if targets.is_empty() {
            return Err(failure.unwrap_or_else(|| LocateError::NotFound { name: service.to_owned() }));
        }
        Ok(targets)
    }

    /// Returns the SRV names of the NAPTR records that promise TLS, in their order (RFC 3263 §4.1).
    async fn naptr(&self, domain: &str) -> Result<Vec<String>, LocateError> {
        let mut found: Vec<(u16, u16, String)> = self
            .records(domain, RecordType::NAPTR)
            .await?
            .into_iter()
            .filter_map(|data| match data {
                RData::NAPTR(naptr) if naptr.services.eq_ignore_ascii_case(b"SIPS+D2T") => {
                    Some((naptr.order, naptr.preference, naptr.replacement.to_ascii()))
                }
                _ => None,
            })
            .collect();
        found.sort();
        Ok(found.into_iter().map(|(_, _, name)| name).take(MAX_TARGETS).collect())
    }

    async fn srv(&self, name: &str) -> Result<Vec<Srv>, LocateError> {
        let records = self.records(name, RecordType::SRV).await?;
        Ok(records
            .into_iter()
            .filter_map(|data| match data {
                // A target of "." says that the service is decidedly not available (RFC 2782).
                RData::SRV(srv) if !srv.target.is_root() => Some(Srv {
                    priority: srv.priority,
                    weight: srv.weight,
                    port: srv.port,
                    target: srv.target.to_ascii().trim_end_matches('.').to_owned(),
                }),
                _ => None,
            })
            .collect())
    }

    async fn records(&self, name: &str, kind: RecordType) -> Result<Vec<RData>, LocateError> {
        // The final dot keeps the search list of the machine out of it.
        let name = format!("{}.", name.trim_end_matches('.'));
        match self.resolver.lookup(name.as_str(), kind).await {
            Ok(lookup) => Ok(lookup.answers().iter().map(|record| record.data.clone()).collect()),
            Err(error) if error.is_no_records_found() || error.is_nx_domain() => Ok(Vec::new()),
            Err(error) => Err(LocateError::ResolverFailed { name, cause: error.to_string() }),
        }
    }
}

fn tune(options: &mut ResolverOpts) {
    options.positive_min_ttl = Some(Duration::from_secs(30));
    options.positive_max_ttl = Some(Duration::from_secs(3600));
    options.negative_max_ttl = Some(Duration::from_secs(60));
    options.timeout = Duration::from_secs(2);
    options.attempts = 2;
    options.cache_size = 8192;
}

/// Orders SRV records by priority, and within one by weighted lot (RFC 2782, page 4).
///
/// `draw(n)` returns a number of 0 to `n`, both included.
fn order(mut records: Vec<Srv>, mut draw: impl FnMut(u32) -> u32) -> Vec<Srv> {
    // Records of weight 0 go first in their priority, so that they keep a small chance.
    records.sort_by_key(|record| (record.priority, record.weight != 0));
    let mut ordered = Vec::with_capacity(records.len());
    while let Some(priority) = records.first().map(|record| record.priority) {
        let group = records.iter().take_while(|record| record.priority == priority).count();
        let total: u32 = records.iter().take(group).map(|record| u32::from(record.weight)).sum();
        let lot = draw(total);
        let mut sum = 0;
        let chosen = records
            .iter()
            .take(group)
            .position(|record| {
                sum += u32::from(record.weight);
                sum >= lot
            })
            .unwrap_or(0);
        ordered.push(records.remove(chosen));
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(priority: u16, weight: u16, target: &str) -> Srv {
        Srv { priority, weight, port: 5061, target: target.to_owned() }
    }

    fn names(records: &[Srv]) -> Vec<&str> {
        records.iter().map(|record| record.target.as_str()).collect()
    }

    #[test]
    fn priority_rules_and_weight_decides_within_it() {
        // S-26
        let records = vec![record(20, 0, "c"), record(10, 60, "b"), record(10, 40, "a")];
        assert_eq!(names(&order(records.clone(), |_| 0)), ["b", "a", "c"]);
        assert_eq!(names(&order(records.clone(), |total| total)), ["a", "b", "c"]);
        let mut first_is_b = 0;
        for lot in 0..=100 {
            let mut once = Some(lot);
            let ordered = order(records.clone(), |_| once.take().unwrap_or(0));
            first_is_b += u32::from(ordered[0].target == "b");
        }
        assert!((60..=61).contains(&first_is_b), "{first_is_b}");
    }

    #[tokio::test]
    async fn a_numeric_hop_asks_no_name_server() {
        // S-27
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
        let locator = Locator::new(&[nowhere]).unwrap();
        let targets = locator.host("[::1]", 5070, Transport::Tcp).await.unwrap();
        assert_eq!(targets[0].addr, SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 5070)));
    }
}
