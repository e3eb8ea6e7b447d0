//! Condition types and reasons: they are API, listed per kind and never reused with another meaning.

/// Types of conditions.
pub mod types {
    /// The object is valid on its own and against all others of the realm, and takes part in the configuration.
    pub const ACCEPTED: &str = "Accepted";
    /// Every named object exists; Secrets and keys are usable.
    pub const RESOLVED_REFS: &str = "ResolvedRefs";
    /// Every ready gateway has loaded this generation, or all children are applied.
    pub const PROGRAMMED: &str = "Programmed";
    /// The summary, the only one that waiting needs.
    pub const READY: &str = "Ready";
    /// Progress is being made; only while true.
    pub const RECONCILING: &str = "Reconciling";
    /// A user must change something; only while true.
    pub const STALLED: &str = "Stalled";
    /// Reconciliation was stopped by the annotation.
    pub const PAUSED: &str = "Paused";
    /// Federation: the shared store can be used.
    pub const STATE_STORE_AVAILABLE: &str = "StateStoreAvailable";
    /// Federation: records can be handed to external-dns.
    pub const DNS_PROVIDER_AVAILABLE: &str = "DNSProviderAvailable";
    /// GatewayPool: loaded certificates hold all names.
    pub const CERTIFICATE_COVERS_DOMAINS: &str = "CertificateCoversDomains";
    /// LocalDomain: loaded certificates hold the domain and its aliases.
    pub const CERTIFICATE_COVERS: &str = "CertificateCovers";
    /// LocalDomain, DNSPublication: the answers of DNS are right.
    pub const PUBLISHED: &str = "Published";
    /// LocalDomain: the XMPP server can be reached and knows us.
    pub const BACKEND_AVAILABLE: &str = "BackendAvailable";
    /// LocalDomain: its backend cannot serve what the realm asks for.
    pub const BACKEND_CANNOT_SERVE: &str = "BackendCannotServe";
    /// FederatedDomain: the peer can be reached.
    pub const REACHABLE: &str = "Reachable";
    /// Warning: users' decisions end with the process.
    pub const STATE_NOT_DURABLE: &str = "StateNotDurable";
    /// Warning: fail-over is less than it could be.
    pub const HIGH_AVAILABILITY_LIMITED: &str = "HighAvailabilityLimited";
    /// Warning: a role is served by one pod.
    pub const SINGLE_REPLICA: &str = "SingleReplica";
    /// Warning: less than a third of a certificate's life is left.
    pub const CERTIFICATE_EXPIRING: &str = "CertificateExpiring";
    /// Warning: a new certificate was refused, the old one stays.
    pub const CERTIFICATE_REJECTED: &str = "CertificateRejected";
    /// Warning: no single certificate holds all names.
    pub const NO_DEFAULT_CERTIFICATE: &str = "NoDefaultCertificate";
    /// Warning: more specific objects win below this one.
    pub const SHADOWED: &str = "Shadowed";
    /// Warning: the peer is proved by dialback only.
    pub const UNVERIFIED: &str = "Unverified";
    /// Warning: the peer needs TLS that we do not offer.
    pub const LEGACY_TLS: &str = "LegacyTLS";
    /// Warning: a Microsoft peer may refuse the target name.
    pub const PEER_MAY_REFUSE: &str = "PeerMayRefuse";
    /// Warning: an SRV target is a CNAME.
    pub const TARGET_IS_ALIAS: &str = "TargetIsAlias";
    /// Warning: records are kept although the address went away.
    pub const STALE_ANSWER: &str = "StaleAnswer";
    /// Warning: rules that can never decide.
    pub const RULE_SHADOWED: &str = "RuleShadowed";
}

/// Reasons of conditions.
pub mod reasons {
    /// Accepted: the object takes part.
    pub const ACCEPTED: &str = "Accepted";
    /// Accepted: a field names something that cannot be.
    pub const INVALID_REFERENCE: &str = "InvalidReference";
    /// Accepted: several pods need a shared state store.
    pub const STATE_STORE_REQUIRED: &str = "StateStoreRequired";
    /// Accepted: the namespace has no Federation.
    pub const NO_FEDERATION: &str = "NoFederation";
    /// Accepted: another realm holds the domain.
    pub const DOMAIN_CLAIMED_ELSEWHERE: &str = "DomainClaimedElsewhere";
    /// Accepted: nobody claimed the domain for this realm.
    pub const DOMAIN_NOT_CLAIMED: &str = "DomainNotClaimed";
    /// Accepted: the local domain is a federated one.
    pub const DOMAIN_IS_FEDERATED: &str = "DomainIsFederated";
    /// Accepted: a chat alias belongs to another local domain.
    pub const ALIAS_CONFLICT: &str = "AliasConflict";
    /// Accepted: the federated domain is a local one.
    pub const DOMAIN_IS_LOCAL: &str = "DomainIsLocal";
    /// Accepted: the federated domain is a local chat alias.
    pub const DOMAIN_IS_CHAT_ALIAS: &str = "DomainIsChatAlias";
    /// Accepted: no pool has the role of the protocol.
    pub const NO_POOL_WITH_ROLE: &str = "NoPoolWithRole";
    /// Accepted: the object is newer than the program.
    pub const UNSUPPORTED_BY_VERSION: &str = "UnsupportedByVersion";
    /// Accepted: another publication publishes the same.
    pub const OVERLAPS_OTHER_PUBLICATION: &str = "OverlapsOtherPublication";
    /// Accepted: the pool lacks the role.
    pub const POOL_LACKS_ROLE: &str = "PoolLacksRole";
    /// Accepted: a listed domain is no local domain.
    pub const NO_SUCH_DOMAIN: &str = "NoSuchDomain";
    /// Accepted: the tier Override is not permitted.
    pub const OVERRIDE_NOT_PERMITTED: &str = "OverrideNotPermitted";
    /// ResolvedRefs: everything exists.
    pub const RESOLVED_REFS: &str = "ResolvedRefs";
    /// ResolvedRefs: the issuer does not exist.
    pub const ISSUER_NOT_FOUND: &str = "IssuerNotFound";
    /// ResolvedRefs: a Secret or a key in it does not exist.
    pub const SECRET_NOT_FOUND: &str = "SecretNotFound";
    /// ResolvedRefs: cert-manager is not installed.
    pub const CERT_MANAGER_MISSING: &str = "CertManagerMissing";
    /// ResolvedRefs: the pool does not exist.
    pub const POOL_NOT_FOUND: &str = "PoolNotFound";
    /// ResolvedRefs: a local domain does not exist.
    pub const LOCAL_DOMAIN_NOT_FOUND: &str = "LocalDomainNotFound";
    /// Programmed: loaded everywhere.
    pub const PROGRAMMED: &str = "Programmed";
    /// Programmed: no address yet.
    pub const WAITING_FOR_ADDRESS: &str = "WaitingForAddress";
    /// Programmed: a child could not be written.
    pub const APPLY_FAILED: &str = "ApplyFailed";
    /// Programmed: an object of that name is not ours.
    pub const NOT_OURS: &str = "NotOurs";
    /// Programmed: another controller writes the same field.
    pub const CONFLICT: &str = "Conflict";
    /// Programmed: the kind DNSEndpoint does not exist.
    pub const EXTERNAL_DNS_CRD_MISSING: &str = "ExternalDNSCRDMissing";
    /// Programmed: nothing to publish yet.
    pub const NO_ADDRESS: &str = "NoAddress";
    /// Programmed: external-dns has not acted.
    pub const WAITING_FOR_PROVIDER: &str = "WaitingForProvider";
    /// Ready: all is well.
    pub const READY: &str = "Ready";
    /// Ready: pods are being replaced.
    pub const ROLLING_OUT: &str = "RollingOut";
    /// Ready: nodes are not ready.
    pub const NODES_NOT_READY: &str = "NodesNotReady";
    /// Ready, Paused: stopped by the annotation.
    pub const PAUSED: &str = "Paused";
    /// StateStoreAvailable: it answers.
    pub const REACHABLE: &str = "Reachable";
    /// StateStoreAvailable: it does not answer.
    pub const UNREACHABLE: &str = "Unreachable";
    /// StateStoreAvailable, BackendAvailable: the credentials are refused.
    pub const AUTHENTICATION_FAILED: &str = "AuthenticationFailed";
    /// StateStoreAvailable: it is deployed otherwise than said.
    pub const WRONG_MODE: &str = "WrongMode";
    /// StateStoreAvailable: it may evict keys.
    pub const EVICTION_POLICY_UNSAFE: &str = "EvictionPolicyUnsafe";
    /// DNSProviderAvailable: found.
    pub const FOUND: &str = "Found";
    /// DNSProviderAvailable: its kind is missing.
    pub const CRD_MISSING: &str = "CRDMissing";
    /// DNSProviderAvailable: nothing needs it.
    pub const NOT_NEEDED: &str = "NotNeeded";
    /// Certificates: all names are covered.
    pub const COVERED: &str = "Covered";
    /// Certificates: names are missing.
    pub const MISSING_NAMES: &str = "MissingNames";
    /// Certificates: none yet.
    pub const NOT_YET_ISSUED: &str = "NotYetIssued";
    /// Certificates: no longer valid.
    pub const EXPIRED: &str = "Expired";
    /// Published: the answers are right.
    pub const PUBLISHED: &str = "Published";
    /// Published: nothing covers it.
    pub const NOT_PUBLISHED: &str = "NotPublished";
    /// Published: the answers differ.
    pub const MISMATCH: &str = "Mismatch";
    /// Published: not seen yet.
    pub const PENDING: &str = "Pending";
    /// Published: left to a person.
    pub const MANUAL: &str = "Manual";
    /// Published: a record made by hand.
    pub const FOREIGN_RECORD: &str = "ForeignRecord";
    /// Published: no name server answered.
    pub const RESOLVER_FAILED: &str = "ResolverFailed";
    /// Published: not checked.
    pub const NOT_VERIFIED: &str = "NotVerified";
    /// BackendAvailable, Reachable: a link is up.
    pub const CONNECTED: &str = "Connected";
    /// BackendAvailable, Reachable: no link can be made.
    pub const CONNECTION_FAILED: &str = "ConnectionFailed";
    /// Reachable: no traffic yet.
    pub const IDLE: &str = "Idle";
    /// Reachable: DNS has no answer.
    pub const DNS_NOT_FOUND: &str = "DNSNotFound";
    /// Reachable: the certificate has no trusted chain.
    pub const TLS_UNTRUSTED: &str = "TLSUntrusted";
    /// Reachable: the certificate is for another name.
    pub const TLS_NAME_MISMATCH: &str = "TLSNameMismatch";
    /// Reachable: the peer refuses us.
    pub const PEER_REFUSED: &str = "PeerRefused";
    /// Reachable: not known.
    pub const UNKNOWN: &str = "Unknown";
    /// BackendCannotServe: components cannot serve a Subtree or unlisted domains.
    pub const COMPONENT_NEEDS_NAMES: &str = "ComponentNeedsNames";
    /// HighAvailabilityLimited: the peer tries the first target only.
    pub const PEER_TRIES_FIRST_TARGET_ONLY: &str = "PeerTriesFirstTargetOnly";
    /// HighAvailabilityLimited: a pool of several nodes, one of them published.
    pub const SINGLE_TARGET: &str = "SingleTarget";
    /// Shadowed: more specific objects exist.
    pub const MORE_SPECIFIC_EXISTS: &str = "MoreSpecificExists";
}
