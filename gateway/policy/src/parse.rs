//! Parses each object alone: texts become types, defaults are filled in, and what cannot be read is told.
//!
//! Documents have passed the schema before, so a fault here is rare; it never stops the other objects.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use isthmus_crds as crds;
use isthmus_crds::{AuthMethod, Discovery, FEDERATION_NAME, Kind, NextHop, RuleAction, Tier};
use isthmus_model::{BareAddress, DenyMode, Direction, Domain, Feature, OfflineIm, Protocol};

use crate::identity::PeerIdentities;
use crate::objects::{
    Backend, ComponentBackend, FederatedDomain, Federation, LocalDomain, LocalPolicy, Pool, Protocols, Route, XmppPeer,
    XmppServerBackend, role_protocol,
};
use crate::problem::{Problem, Severity, own_reasons, reasons, types};
use crate::profile::PeerSettings;
use crate::publication::Publication;
use crate::rules::{Rule, Subjects, direction_index, feature_index};

/// Collects the faults of one object.
struct Reader<'a> {
    kind: Kind,
    name: &'a str,
    faults: &'a mut Vec<Problem>,
    /// Faults known before, so that only new ones stop this object.
    before: usize,
}

impl<'a> Reader<'a> {
    fn new(kind: Kind, name: Option<&'a String>, faults: &'a mut Vec<Problem>) -> Self {
        Self { kind, name: name.map_or("", String::as_str), before: faults.len(), faults }
    }

    fn refuse(&mut self, field: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) {
        self.push(Severity::Refused, types::ACCEPTED, own_reasons::INVALID_VALUE, field, problem, remedy);
    }

    fn push(
        &mut self,
        severity: Severity,
        condition: &'static str,
        reason: &'static str,
        field: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.faults.push(Problem {
            kind: self.kind,
            name: self.name.to_owned(),
            severity,
            condition,
            reason,
            field: field.into(),
            problem: problem.into(),
            remedy: remedy.into(),
        });
    }

    /// Parses one text.
    fn value<T: FromStr<Err: Display>>(&mut self, text: &str, field: &str, noun: &str) -> Option<T> {
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.refuse(field, format!("{text:?} is not {noun}: {error}"), format!("Write {noun} in {field}."));
                None
            }
        }
    }

    fn values<T: FromStr<Err: Display>>(&mut self, texts: &[String], field: &str, noun: &str) -> Vec<T> {
        let read = |(at, text): (usize, &String)| self.value(text, &format!("{field}[{at}]"), noun);
        texts.iter().enumerate().filter_map(read).collect()
    }

    /// Parses a domain, which must be written in its canonical form.
    fn domain(&mut self, text: &str, field: &str) -> Option<Domain> {
        let domain: Domain = self.value(text, field, "a domain name")?;
        if domain.as_str() != text {
            self.refuse(
                field,
                format!("{text:?} is not written in lower-case A-labels"),
                format!("Write {domain} in {field}."),
            );
            return None;
        }
        Some(domain)
    }

    /// Parses a set of domains into a sorted list.
    fn domains(&mut self, texts: &[String], field: &str) -> Vec<Domain> {
        let read = |(at, text): (usize, &String)| self.domain(text, &format!("{field}[{at}]"));
        let mut domains: Vec<Domain> = texts.iter().enumerate().filter_map(read).collect();
        domains.sort_unstable();
        domains.dedup();
        domains
    }

    /// Parses the domain that an object stands for and that is its name.
    fn own_domain(&mut self, text: &str) -> Option<Domain> {
        let domain = self.domain(text, "spec.domain")?;
        if self.name != domain.as_str() {
            self.refuse(
                "spec.domain",
                format!("the name {:?} is not the domain {domain}", self.name),
                "Give metadata.name and spec.domain the same value.",
            );
            return None;
        }
        Some(domain)
    }

    /// Tells whether nothing speaks against the object.
    fn is_sound(&self) -> bool {
        let mut own = self.faults.iter().skip(self.before);
        !own.any(|fault| fault.severity == Severity::Refused)
    }

    fn finish<T>(self, value: T) -> Option<T> {
        self.is_sound().then_some(value)
    }
}

pub(crate) fn protocol(protocol: crds::Protocol) -> Protocol {
    match protocol {
        crds::Protocol::Sip => Protocol::Sip,
        crds::Protocol::Xmpp => Protocol::Xmpp,
    }
}

fn protocols(listed: &[crds::Protocol]) -> Protocols {
    if listed.is_empty() { Protocols::ALL } else { listed.iter().copied().map(protocol).collect() }
}

pub(crate) fn federation(object: &crds::Federation, faults: &mut Vec<Problem>) -> Option<Federation> {
    let mut reader = Reader::new(Kind::Federation, object.metadata.name.as_ref(), faults);
    if reader.name != FEDERATION_NAME {
        reader.refuse(
            "metadata.name",
            format!("the name {:?} is not {FEDERATION_NAME}", reader.name),
            format!("Name the Federation {FEDERATION_NAME}; a namespace has one."),
        );
    }
    let resolver: Vec<SocketAddr> = match &object.spec.resolver {
        Some(resolver) => reader.values(&resolver.addresses, "spec.resolver.addresses", "an IP address with a port"),
        None => Vec::new(),
    };
    let namespace = object.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
    reader.finish(Federation { spec: object.spec.clone(), namespace, resolver })
}

pub(crate) fn pool(object: &crds::GatewayPool, faults: &mut Vec<Problem>) -> Option<Pool> {
    let mut reader = Reader::new(Kind::GatewayPool, object.metadata.name.as_ref(), faults);
    let spec = &object.spec;
    let roles: Protocols = spec.roles.iter().copied().map(role_protocol).collect();
    if roles.sip && spec.hostname().is_none() {
        reader.refuse(
            "spec.expose.hostname",
            "a pool with the role SIP has no host name",
            "Set expose.hostname, for example sip.{domain}.",
        );
    }
    let bind: Vec<IpAddr> = reader.values(spec.bind(), "spec.expose.bind", "an IP address");
    let trusted_proxies: Vec<IpNet> = reader.values(&spec.trusted_proxies, "spec.trustedProxies", "an address range");
    let allowed_ranges: Vec<IpNet> = reader.values(&spec.allowed_ranges, "spec.allowedRanges", "an address range");
    let pool = Pool {
        name: reader.name.to_owned(),
        roles,
        nodes: spec.nodes(),
        replicas: spec.replicas,
        autoscaled: spec.autoscaling.is_some(),
        hostname: spec.hostname().map(str::to_owned),
        bind,
        ports: spec.ports(),
        admin_port: spec.admin_port(),
        tls_secrets: spec.tls.iter().flat_map(|tls| &tls.secret_refs).map(|secret| secret.name.clone()).collect(),
        limits: spec.limits(),
        settle: spec.settle(),
        grace: spec.grace(),
        log_filter: spec.log_filter.clone().unwrap_or_else(|| "info".to_owned()),
        trusted_proxies,
        allowed_ranges,
    };
    reader.finish(pool)
}

pub(crate) fn local_domain(object: &crds::LocalDomain, faults: &mut Vec<Problem>) -> Option<LocalDomain> {
    let mut reader = Reader::new(Kind::LocalDomain, object.metadata.name.as_ref(), faults);
    let spec = &object.spec;
    let domain = reader.own_domain(&spec.domain)?;
    let backend = backend(&mut reader, spec, &domain);
    let mut chat_aliases = Vec::new();
    for (at, alias) in spec.chat_aliases.iter().enumerate() {
        let field = format!("spec.chatAliases[{at}].host");
        let Some(host) = reader.domain(&alias.host, &field) else {
            continue;
        };
        if host == domain || !host.is_within(&domain) {
            reader.refuse(
                field,
                format!("the chat alias {host} does not lie below {domain}"),
                "Use a name that ends with a dot and the domain.",
            );
            continue;
        }
        chat_aliases.push(host);
    }
    chat_aliases.sort_unstable();
    chat_aliases.dedup();
    let policy = spec.policy();
    let claim_refused = claim_refused(object);
    if let Some(reason) = claim_refused {
        reader.push(
            Severity::Inactive,
            types::ACCEPTED,
            reason,
            "spec.domain",
            format!("the domain {domain} is not claimed for this realm"),
            "Ask the platform team for a DomainClaim that allows this namespace.",
        );
    }
    let local = LocalDomain {
        domain,
        backend: backend?,
        policy: LocalPolicy {
            default: policy.default,
            deny_mode: match policy.deny_mode {
                crds::DenyMode::Polite => DenyMode::Polite,
                crds::DenyMode::Reject => DenyMode::Reject,
            },
            pending_max: policy.pending_max.get(),
            offline_im: match policy.offline_im {
                crds::OfflineIm::Unavailable => OfflineIm::Unavailable,
                crds::OfflineIm::Accept => OfflineIm::Accept,
            },
            record_decisions: policy.record_decisions,
        },
        chat_aliases,
        protocols: protocols(&spec.protocols),
        tls_secret: spec.tls.as_ref().map(|tls| tls.secret_ref.name.clone()),
        claim_refused,
    };
    reader.finish(local)
}

fn backend(reader: &mut Reader<'_>, spec: &crds::LocalDomainSpec, domain: &Domain) -> Option<Backend> {
    match (&spec.backend.component, &spec.backend.xmpp_server) {
        (Some(component), None) => {
            let service = spec.service_address().unwrap_or_else(|| format!("fed.{domain}"));
            let service_address = reader.domain(&service, "spec.backend.component.serviceAddress")?;
            let mut secret_keys = Vec::new();
            for (at, entry) in component.secret_keys.iter().enumerate() {
                let field = format!("spec.backend.component.secretKeys[{at}].domain");
                if let Some(name) = reader.domain(&entry.domain, &field) {
                    secret_keys.push((name, entry.secret_key.clone()));
                }
            }
            secret_keys.sort_unstable();
            Some(Backend::Component(ComponentBackend {
                host: component.host.clone(),
                port: component.port,
                secret_key: component.secret_key.clone(),
                secret_keys,
                service_address,
                tls: component.tls.clone(),
            }))
        }
        (None, Some(server)) => Some(Backend::XmppServer(XmppServerBackend {
            host: server.host.clone(),
            port: server.port,
            tls: server.tls.clone(),
        })),
        _ => {
            reader.refuse(
                "spec.backend",
                "not exactly one of component and xmppServer is set",
                "Set one of spec.backend.component and spec.backend.xmppServer.",
            );
            None
        }
    }
}

/// Reads from the status whether another realm holds the domain, which only the operator can know.
fn claim_refused(object: &crds::LocalDomain) -> Option<&'static str> {
    let conditions = &object.status.as_ref()?.conditions;
    let refused = conditions.iter().find(|c| c.type_ == types::ACCEPTED && c.status == "False")?;
    [reasons::DOMAIN_NOT_CLAIMED, reasons::DOMAIN_CLAIMED_ELSEWHERE]
        .into_iter()
        .find(|reason| *reason == refused.reason)
}

pub(crate) fn federated_domain(object: &crds::FederatedDomain, faults: &mut Vec<Problem>) -> Option<FederatedDomain> {
    let mut reader = Reader::new(Kind::FederatedDomain, object.metadata.name.as_ref(), faults);
    let spec = &object.spec;
    let domain = reader.own_domain(&spec.domain)?;
    let of_the_protocol = match spec.protocol {
        crds::Protocol::Sip => spec.sip.is_some() && spec.xmpp.is_none(),
        crds::Protocol::Xmpp => spec.xmpp.is_some() && spec.sip.is_none(),
    };
    if !of_the_protocol {
        reader.refuse(
            "spec.protocol",
            format!("the protocol is {}, but not exactly its section is set", spec.protocol),
            "Set spec.sip for SIP or spec.xmpp for XMPP; a domain has one protocol.",
        );
    }
    let local_domains = reader.domains(&spec.local_domains, "spec.localDomains");
    let peer = spec.peer_type();
    if peer.dialect().is_sip() != (spec.protocol == crds::Protocol::Sip) {
        reader.refuse(
            "spec.sip.peerType",
            format!("peer type {peer} does not speak {}", spec.protocol),
            "Choose a peer type of the object's protocol.",
        );
    }
    let settings = PeerSettings::of(peer);
    let settings = spec.overrides.as_ref().map_or(settings, |overrides| settings.with(overrides));
    if settings.peer_may_need_tls10 {
        reader.push(
            Severity::Warning,
            types::LEGACY_TLS,
            own_reasons::PEER_NEEDS_OLD_TLS,
            "spec.sip.peerType",
            format!("a peer of type {peer} may speak nothing above TLS 1.0"),
            "Let it be updated to TLS 1.2, or put a TLS proxy in front of it.",
        );
    }
    let (discovery, hops) = match (&spec.sip, &spec.xmpp) {
        (Some(sip), _) => (sip.discovery(), sip.next_hops.clone()),
        (None, Some(xmpp)) => (xmpp.discovery(), xmpp.next_hops.clone()),
        (None, None) => (Discovery::Dns, Vec::<NextHop>::new()),
    };
    let route = match discovery {
        Discovery::Dns => Route::Dns,
        Discovery::Static => Route::Static(hops),
    };
    let transport = spec.sip.as_ref().map_or(crds::SipTransport::Tls, crds::SipPeer::transport);
    if transport != crds::SipTransport::Tls && route == Route::Dns {
        reader.refuse(
            "spec.sip.transport",
            format!("transport {transport} knows the peer by its address, and there is no static next hop"),
            "Set discovery Static with nextHops, or use TLS.",
        );
    }
    let configured = spec.sip.as_ref().map_or(&[][..], |sip| &sip.peer_identities);
    let federated = FederatedDomain {
        identities: PeerIdentities::new(&domain, configured, &settings),
        domain,
        protocol: protocol(spec.protocol),
        scope: spec.scope(),
        local_domains,
        pool: spec.pool_ref.as_ref().map(|pool| pool.name.clone()),
        suspended: spec.suspended(),
        messages_per_second: spec.limits.as_ref().and_then(|limits| limits.messages_per_second),
        settings,
        transport,
        route,
        xmpp: spec.xmpp.as_ref().map(|xmpp| XmppPeer {
            tls: xmpp.tls(),
            sasl_external: xmpp.accepts(AuthMethod::SaslExternal),
            dialback: xmpp.accepts(AuthMethod::Dialback),
            dane: xmpp.dane,
        }),
    };
    reader.finish(federated)
}

pub(crate) fn policy(object: &crds::FederationPolicy, faults: &mut Vec<Problem>) -> Option<Vec<Rule>> {
    let mut reader = Reader::new(Kind::FederationPolicy, object.metadata.name.as_ref(), faults);
    let tier = object.spec.tier();
    let rules = object.spec.rules.iter().enumerate();
    let rules: Vec<Rule> = rules.filter_map(|(at, spec)| rule(&mut reader, tier, at, spec)).collect();
    // A policy with half of its rules may let in what the other half was to keep out.
    reader.finish(rules)
}

fn rule(reader: &mut Reader<'_>, tier: Tier, at: usize, spec: &crds::PolicyRule) -> Option<Rule> {
    let field = format!("spec.rules[{at}]");
    if spec.remote.is_none() && spec.local.is_none() {
        reader.refuse(&field, format!("the rule {} names neither side", spec.name), "Set remote or local.");
        return None;
    }
    if spec.response.is_some() && spec.action == RuleAction::Allow {
        reader.refuse(
            format!("{field}.response"),
            format!("the rule {} allows, so it has no response", spec.name),
            "Remove response, or use action Deny.",
        );
        return None;
    }
    let remote = spec.remote.as_ref().map(|remote| {
        let include = remote.include_subdomains.unwrap_or(false);
        subjects(reader, &remote.domains, &remote.users, include, &format!("{field}.remote"))
    });
    let local = spec
        .local
        .as_ref()
        .map(|local| subjects(reader, &local.domains, &local.users, false, &format!("{field}.local")));
    Some(Rule {
        policy: reader.name.to_owned(),
        name: spec.name.clone(),
        tier,
        action: spec.action,
        response: spec.response,
        remote,
        local,
        protocols: protocols(&spec.protocols),
        directions: directions(&spec.directions),
        features: features(&spec.features),
    })
}

fn subjects(
    reader: &mut Reader<'_>,
    domains: &[String],
    users: &[String],
    include_subdomains: bool,
    field: &str,
) -> Subjects {
    if domains.is_empty() && users.is_empty() {
        reader.refuse(field, "neither a domain nor a user is named", "Name domains or users, or leave the side out.");
    }
    let domains = reader.domains(domains, &format!("{field}.domains"));
    let mut named: Vec<BareAddress> = Vec::new();
    for (at, text) in users.iter().enumerate() {
        match BareAddress::from_jid(text) {
            Ok(user) => named.push(user),
            Err(error) => reader.refuse(
                format!("{field}.users[{at}]"),
                format!("{text:?} is not a user address: {error}"),
                "Write user@domain, for example mallory@partner.example.",
            ),
        }
    }
    named.sort_unstable();
    named.dedup();
    Subjects { domains, include_subdomains, users: named }
}

fn directions(listed: &[crds::Direction]) -> [bool; 2] {
    let mut set = [listed.is_empty(); 2];
    for direction in listed {
        let direction = match direction {
            crds::Direction::Inbound => Direction::Inbound,
            crds::Direction::Outbound => Direction::Outbound,
        };
        set[direction_index(direction)] = true;
    }
    set
}

fn features(listed: &[crds::Feature]) -> [bool; 4] {
    let mut set = [listed.is_empty(); 4];
    for feature in listed {
        let feature = match feature {
            crds::Feature::Presence => Feature::Presence,
            crds::Feature::Message => Feature::Message,
            crds::Feature::GroupChat => Feature::GroupChat,
            crds::Feature::Other => Feature::Other,
        };
        set[feature_index(feature)] = true;
    }
    set
}

pub(crate) fn publication(object: &crds::DNSPublication, faults: &mut Vec<Problem>) -> Option<Publication> {
    let mut reader = Reader::new(Kind::DNSPublication, object.metadata.name.as_ref(), faults);
    let spec = &object.spec;
    let publication = Publication {
        view: spec.view.clone().unwrap_or_default(),
        local_domains: reader.domains(&spec.local_domains, "spec.localDomains"),
        sip_pool: spec.sip.as_ref().map(|sip| sip.pool_ref.name.clone()),
        xmpp_pool: spec.xmpp.as_ref().map(|xmpp| xmpp.pool_ref.name.clone()),
    };
    reader.finish(publication)
}
