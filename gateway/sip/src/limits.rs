//! Bounds of what the codec accepts.

/// Bounds of one SIP message; they come from configuration and have safe defaults.
///
/// Reaching a bound is a typed outcome: [`crate::ParseErrorKind`] for a message, [`crate::FramerError`]
/// for a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of start line and headers with the empty line. Default 32 KiB: Access Edges send several
    /// signed Record-Route values of many hundred bytes each, and a peer's own limit is 16 KiB.
    pub header_block: usize,
    /// Bytes of the body. Default 64 KiB, the largest presence document that is parsed.
    pub body: usize,
    /// Header lines. Default 200: a message that crossed a dozen proxies has about 60.
    pub header_lines: usize,
    /// Bytes of the Request-URI. Default 4096: signed route URIs can become remote targets.
    pub uri: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { header_block: 32 * 1024, body: 64 * 1024, header_lines: 200, uri: 4096 }
    }
}
