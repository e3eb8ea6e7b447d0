//! Why a link ended, and when to try again.

use std::time::Duration;

use crate::stream::codec::StreamDecodeError;
use crate::stream::{StreamCondition, StreamError};

/// Why a link ended.
#[derive(Debug, Clone, PartialEq)]
pub enum CloseReason {
    /// We ended it.
    Requested,
    /// The server ended the stream.
    PeerClosed,
    /// The connection broke.
    ConnectionLost,
    /// The server ended the stream with an error.
    StreamError(StreamError),
    /// What the server sent cannot be decoded.
    Undecodable(StreamDecodeError),
    /// The server answered the handshake with something else.
    UnexpectedElement,
    /// Header and handshake took too long.
    NegotiationTimeout,
    /// An element took too long to come.
    ElementTimeout,
    /// The server fell silent and did not answer a ping.
    Silent,
    /// The configured name cannot be written.
    Misconfigured,
}

impl Eq for CloseReason {}

/// Conflict: somebody else has the name; do not fight for it.
const CONFLICT: RetryRange = RetryRange { min: Duration::from_secs(5), max: Duration::from_secs(30) };
/// The configuration here or at the server is wrong; only a person can help.
const CONFIGURATION: RetryRange = RetryRange { min: Duration::from_mins(1), max: Duration::from_mins(1) };
/// Everything else; it grows with each failure.
const ORDINARY: RetryRange = RetryRange { min: Duration::from_millis(100), max: Duration::from_secs(1) };

impl CloseReason {
    /// How long to wait before the next attempt, the first of several; `None` when we ended the link ourselves.
    pub fn retry_after(&self) -> Option<RetryRange> {
        match self {
            Self::Requested => None,
            Self::StreamError(StreamError { condition: StreamCondition::Conflict, .. }) => Some(CONFLICT),
            _ if self.is_configuration() => Some(CONFIGURATION),
            _ => Some(ORDINARY),
        }
    }

    /// True if the configuration here or at the server is wrong, which is worth an alert.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::StreamError(error) => {
                matches!(error.condition, StreamCondition::HostUnknown | StreamCondition::NotAuthorized)
            }
            Self::Misconfigured => true,
            _ => false,
        }
    }

    /// A name for metrics, one of a fixed few.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::PeerClosed => "peer-closed",
            Self::ConnectionLost => "connection-lost",
            Self::StreamError(error) => error.condition.as_str(),
            Self::Undecodable(error) => error.condition().as_str(),
            Self::UnexpectedElement => "unexpected-element",
            Self::NegotiationTimeout => "negotiation-timeout",
            Self::ElementTimeout => "element-timeout",
            Self::Silent => "silent",
            Self::Misconfigured => "misconfigured",
        }
    }
}

/// A range of time from which a pause is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryRange {
    /// The shortest pause.
    pub min: Duration,
    /// The longest pause.
    pub max: Duration,
}

impl RetryRange {
    /// Draws a pause; `random` is evenly spread over all values.
    pub fn pick(self, random: u64) -> Duration {
        let span = self.max.saturating_sub(self.min).as_millis();
        // the product stays far inside 128 bits, the quotient inside the span
        let part = (span * u128::from(random)) >> 64;
        self.min + Duration::from_millis(u64::try_from(part).unwrap_or(0))
    }
}
