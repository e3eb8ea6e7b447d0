//! The configuration of a link.

use std::fmt;
use std::time::Duration;

use compact_str::CompactString;
use data_encoding::HEXLOWER;
use sha1::{Digest as _, Sha1};

use crate::stream::codec::LimitSet;

/// The secret that a component shares with its server. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The handshake for a stream: SHA-1 of its id and the secret, in lower-case hexadecimal (XEP-0114 §3).
    pub(super) fn handshake(&self, stream_id: &str) -> String {
        let mut hash = Sha1::new();
        hash.update(stream_id.as_bytes());
        hash.update(self.0.as_bytes());
        HEXLOWER.encode(&hash.finalize())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// How a link is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkConfig {
    /// The component's domain, the one that it stands for.
    pub name: CompactString,
    /// A domain of the server itself, which answers pings: the local domain.
    pub server: CompactString,
    /// The shared secret, read anew for each connection.
    pub secret: Secret,
    /// How large anything that comes in may be.
    pub limits: LimitSet,
    /// Bytes of one stanza that goes out. Default 262 144: Prosody closes the whole link at 524 288, ejabberd's
    /// sample configuration allows 262 144.
    pub send_max_bytes: usize,
    /// Bytes that may wait to be taken by [`Link::poll_output`](super::Link::poll_output). Default 4 MiB.
    pub buffer_max_bytes: usize,
    /// Messages whose fate may be open at once. Default 4096, far above what a server holds for one second.
    pub outstanding_max: usize,
    /// From the connection to the accepted handshake. Default 10 s.
    pub negotiation_timeout: Duration,
    /// One element in transit before the handshake. Default 15 s.
    pub early_element_timeout: Duration,
    /// One element in transit on a ready link. Default 60 s.
    pub element_timeout: Duration,
    /// After so long without sending, a space is sent. Default 60 s.
    pub keep_alive: Duration,
    /// After so long without reading, the server is pinged. Default 5 min.
    pub silence: Duration,
    /// How long a ping may go unanswered. Default 30 s.
    pub ping_timeout: Duration,
    /// How long a barrier may go unanswered. Default 30 s; its messages are then reported unknown.
    pub barrier_timeout: Duration,
    /// How long an error may still overtake the answer of a barrier. Default zero, which holds for servers that
    /// route in order (Prosody).
    pub barrier_settle: Duration,
    /// How long a drain waits for barriers. Default 5 s.
    pub drain_timeout: Duration,
    /// How long the server may take to end its side of the stream. Default 5 s.
    pub close_timeout: Duration,
}

impl LinkConfig {
    /// The defaults for a component of that name at a server of that domain.
    pub fn new(name: &str, server: &str, secret: Secret) -> Self {
        Self {
            name: CompactString::from(name),
            server: CompactString::from(server),
            secret,
            limits: LimitSet::COMPONENT,
            send_max_bytes: 262_144,
            buffer_max_bytes: 4 * 1024 * 1024,
            outstanding_max: 4096,
            negotiation_timeout: Duration::from_secs(10),
            early_element_timeout: Duration::from_secs(15),
            element_timeout: Duration::from_mins(1),
            keep_alive: Duration::from_mins(1),
            silence: Duration::from_mins(5),
            ping_timeout: Duration::from_secs(30),
            barrier_timeout: Duration::from_secs(30),
            barrier_settle: Duration::ZERO,
            drain_timeout: Duration::from_secs(5),
            close_timeout: Duration::from_secs(5),
        }
    }
}
