//! The words in which policy answers and the mappings ask.

/// The protocol spoken with a federated domain; one per domain and realm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// SIP with SIMPLE.
    Sip,
    /// XMPP server-to-server.
    Xmpp,
}

/// Which way something crosses the gateway, seen from the organisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From a federated domain to a local user.
    Inbound,
    /// From a local user to a federated domain.
    Outbound,
}

/// What kind of traffic a rule or question is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// Presence subscriptions, notifications and probes.
    Presence,
    /// One-to-one messages.
    Message,
    /// Group chat.
    GroupChat,
    /// Everything else (info queries, for example).
    Other,
}

/// How a denial shows itself to the watcher (interworking specification §3.1, input M).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DenyMode {
    /// The watcher sees a user who is offline.
    #[default]
    Polite,
    /// The watcher is told.
    Reject,
}

/// What an offline local user's contact gets back for a message; blocked senders get the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OfflineIm {
    /// 480, as when the local server stores nothing for offline users.
    #[default]
    Unavailable,
    /// Accepted (and discarded when the sender is blocked).
    Accept,
}

/// The outcome of policy for one remote user and one local user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The domain (or this traffic of it) is not permitted: refused in the open, no user is contacted.
    NotPermitted,
    /// Let through; presence is shown.
    Allow,
    /// The user appears offline; messages are treated as for an offline user.
    BlockPolite,
    /// Refused in the open for this user.
    BlockReject,
    /// Answered as delivered, discarded and counted.
    Drop,
    /// Nobody decided yet: the local user is asked.
    Prompt,
}
