//! How a Redis is reached.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use crate::clock::{Clock, SystemClock};
use crate::limits::Limits;

/// How the servers belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// One server, perhaps with replicas that somebody else promotes.
    Standalone,
    /// Sentinels say who is the primary.
    Sentinel {
        /// The name that the sentinels know the primary by.
        master: String,
    },
    /// Redis Cluster.
    Cluster,
}

/// Who the store is to the server.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user of the access list; `None` for the default user.
    pub user: Option<String>,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Asked for the credentials at each new connection, so that a rotation needs no restart.
pub type CredentialsSource = Arc<dyn Fn() -> Option<Credentials> + Send + Sync>;

/// TLS to the servers.
#[derive(Clone)]
pub struct Tls {
    /// Asked at each new connection, so that new certificates need no restart.
    pub config: Arc<dyn Fn() -> Arc<ClientConfig> + Send + Sync>,
    /// The name to verify; `None` verifies the host of each address.
    pub server_name: Option<String>,
}

/// Everything about a Redis.
#[derive(Clone)]
pub struct RedisConfig {
    /// How the servers belong together.
    pub mode: Mode,
    /// `host:port` of servers, or of sentinels; an IPv6 address in brackets. Enough to find the others.
    pub addresses: Vec<String>,
    /// The number of the database; 0 in a Cluster.
    pub database: u32,
    /// What every key starts with, at most 64 octets and without braces.
    pub prefix: String,
    /// Who the store is to the servers. Sentinels are asked without it first.
    pub credentials: CredentialsSource,
    /// TLS; `None` speaks plain.
    pub tls: Option<Tls>,
    /// How long one operation may take. Default 2 s: a SIP request must be answered within 3.5 s (RFC 4320 §4.1).
    pub timeout: Duration,
    /// How long it may take until a connection is ready. Default 2 s.
    pub connect_timeout: Duration,
    /// How many operations may be in flight; more are refused. Default 4096.
    pub in_flight: usize,
    /// Sizes of one thing; the limits on the whole are the server's own.
    pub limits: Limits,
    /// The clock that those of the servers are compared with.
    pub clock: Arc<dyn Clock>,
}

impl RedisConfig {
    /// Starts from the defaults: plain, without credentials, database 0.
    pub fn new(mode: Mode, addresses: Vec<String>, prefix: &str) -> Self {
        Self {
            mode,
            addresses,
            database: 0,
            prefix: prefix.to_owned(),
            credentials: Arc::new(|| None),
            tls: None,
            timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(2),
            in_flight: 4096,
            limits: Limits::default(),
            clock: Arc::new(SystemClock),
        }
    }

    /// Checks what can be checked without a connection.
    pub(super) fn check(&self) -> Result<(), RedisConfigError> {
        if self.addresses.is_empty() {
            return Err(RedisConfigError::NoAddress);
        }
        for address in &self.addresses {
            if split(address).is_none() {
                return Err(RedisConfigError::Address { address: address.clone() });
            }
        }
        if self.prefix.len() > 64 || self.prefix.contains(['{', '}']) {
            return Err(RedisConfigError::Prefix { prefix: self.prefix.clone() });
        }
        if self.mode == Mode::Cluster && self.database != 0 {
            return Err(RedisConfigError::Database { database: self.database });
        }
        Ok(())
    }
}

/// What is wrong with the configuration of a Redis.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedisConfigError {
    /// There is no address.
    #[error("no address of a Redis server is given; name at least one as host:port")]
    NoAddress,
    /// An address is not `host:port`.
    #[error("{address:?} is no address of a Redis server; write host:port, with brackets around an IPv6 address")]
    Address {
        /// The address.
        address: String,
    },
    /// The prefix cannot start a key.
    #[error("key prefix {prefix:?} is longer than 64 octets or has braces; choose a shorter one without them")]
    Prefix {
        /// The prefix.
        prefix: String,
    },
    /// A Cluster has only one database.
    #[error("database {database} cannot be used, since a Redis Cluster has only database 0")]
    Database {
        /// The database.
        database: u32,
    },
}

/// Tells whether a text is the address of a Redis server, `host:port` with brackets around an IPv6 address.
pub fn is_redis_address(address: &str) -> bool {
    split(address).is_some()
}

/// Splits `host:port`; the brackets of an IPv6 address go.
pub(super) fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (!host.is_empty()).then_some((host, port))
}

/// Joins host and port to an address.
pub(super) fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_with_ports() {
        assert_eq!(split("redis-0.redis:6379"), Some(("redis-0.redis", 6379)));
        assert_eq!(split("[::1]:7000"), Some(("::1", 7000)));
        for bad in ["redis", "redis:", ":6379", "redis:0", "redis:70000", "::1:7000", "[::1:7000"] {
            assert_eq!(split(bad), None, "{bad}");
        }
        assert_eq!((join("::1", 1), join("a", 2)), ("[::1]:1".to_owned(), "a:2".to_owned()));
    }

    #[test]
    fn what_cannot_work_is_refused_before_a_connection() {
        let config = |mode, prefix: &str| RedisConfig::new(mode, vec!["127.0.0.1:1".to_owned()], prefix);
        assert_eq!(config(Mode::Standalone, "isthmus:").check(), Ok(()));
        let empty = RedisConfig { addresses: Vec::new(), ..config(Mode::Standalone, "") };
        assert_eq!(empty.check(), Err(RedisConfigError::NoAddress));
        for prefix in ["a{b", &"x".repeat(65)] {
            assert!(matches!(config(Mode::Standalone, prefix).check(), Err(RedisConfigError::Prefix { .. })));
        }
        let numbered = RedisConfig { database: 3, ..config(Mode::Cluster, "") };
        assert_eq!(numbered.check(), Err(RedisConfigError::Database { database: 3 }));
    }

    #[test]
    fn a_password_is_never_printed() {
        let credentials = Credentials { user: Some("isthmus".to_owned()), password: "hunter2".to_owned() };
        assert!(!format!("{credentials:?}").contains("hunter2"));
    }
}
