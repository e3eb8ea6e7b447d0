//! How large anything of a stream may be.

/// The limits of one phase of a stream. Reaching one ends the stream (`policy-violation`).
///
/// The defaults are those of the specification's table; each is checked while bytes come in, before
/// anything is built of what exceeds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the stream header with all before it. Default 4096.
    pub header_bytes: usize,
    /// Bytes of one first-level element as they came, its first to its last.
    /// Default 10 000 before authentication, which is the least that RFC 6120 §13.12 allows; then 524 288 on
    /// a component link and 262 144 between servers.
    pub element_bytes: usize,
    /// Elements inside one another, the first level being one. Default 16, then 64.
    pub depth: usize,
    /// Attributes of one element, namespace declarations not counted. Default 32, then 64.
    pub attributes: usize,
    /// Bytes of one name or one attribute value. Default 4096, then 8192.
    pub token_bytes: usize,
    /// Elements inside one first-level element, at any depth. Default 64, then 4096.
    pub children: usize,
    /// Namespace declarations of one element. Default 8, then 32.
    pub namespace_declarations: usize,
}

impl Limits {
    /// Defaults while the other side is not yet known.
    pub const BEFORE_AUTHENTICATION: Self = Self {
        header_bytes: 4096,
        element_bytes: 10_000,
        depth: 16,
        attributes: 32,
        token_bytes: 4096,
        children: 64,
        namespace_declarations: 8,
    };

    /// Defaults of a component link that is ready.
    pub const COMPONENT: Self = Self {
        header_bytes: 4096,
        element_bytes: 524_288,
        depth: 64,
        attributes: 64,
        token_bytes: 8192,
        children: 4096,
        namespace_declarations: 32,
    };

    /// Defaults of a server-to-server stream that is ready.
    pub const SERVER: Self = Self { element_bytes: 262_144, ..Self::COMPONENT };
}

/// The limits of a stream before and after authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitSet {
    /// Until [`StreamDecoder::authenticated`](super::StreamDecoder::authenticated) is called.
    pub before: Limits,
    /// From then on.
    pub after: Limits,
}

impl LimitSet {
    /// Defaults of a component link.
    pub const COMPONENT: Self = Self { before: Limits::BEFORE_AUTHENTICATION, after: Limits::COMPONENT };
    /// Defaults of a server-to-server stream.
    pub const SERVER: Self = Self { before: Limits::BEFORE_AUTHENTICATION, after: Limits::SERVER };
}
