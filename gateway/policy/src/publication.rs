//! What is published in DNS, as far as it can contradict other objects.

use isthmus_model::Domain;

/// A DNSPublication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publication {
    /// The DNS view; empty when not said.
    pub(crate) view: String,
    /// Local domains, sorted; empty means all.
    pub(crate) local_domains: Vec<Domain>,
    /// The pool whose host is the SIP target.
    pub(crate) sip_pool: Option<String>,
    /// The pool whose nodes are the XMPP targets.
    pub(crate) xmpp_pool: Option<String>,
}
