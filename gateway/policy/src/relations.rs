//! What is wrong between objects: reported here, and held by the lookups of the snapshot.
//!
//! Pairwise rules are decided by looking names up, never by comparing all pairs (design §6.18).

use std::collections::BTreeMap;

use isthmus_crds::{Kind, Scope, UnlistedAction};
use isthmus_model::{Domain, Protocol};

use crate::objects::{Backend, ComponentBackend, FederatedDomain, LocalDomain, Pool};
use crate::problem::{Problem, Severity, own_reasons, reasons, types};
use crate::publication::Publication;
use crate::snapshot::Snapshot;

const KEEP_ONE: &str = "Keep the name in one of the two objects only.";

impl Snapshot {
    /// All problems of all objects, sorted.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = self.faults().iter().flat_map(|(_, own)| own.iter().cloned()).collect();
        self.federation_problems(&mut problems);
        for pool in self.pools() {
            self.pool_problems(pool, &mut problems);
        }
        for (_, local) in self.all_locals().iter() {
            self.local_problems(local, &mut problems);
        }
        self.link_problems(&mut problems);
        for (_, federated) in self.all_federated().iter() {
            self.federated_problems(federated, &mut problems);
        }
        for (name, _) in self.all_policies().iter() {
            self.no_federation(Kind::FederationPolicy, name, &mut problems);
        }
        for (name, publication) in self.publications() {
            self.publication_problems(name, publication, &mut problems);
        }
        problems.sort();
        problems
    }

    /// The problems of one object, sorted.
    pub fn problems_of(&self, kind: Kind, name: &str) -> Vec<Problem> {
        let own = self.faults().get(&(kind, name.to_owned()));
        let mut problems: Vec<Problem> = own.map(|own| own.to_vec()).unwrap_or_default();
        match kind {
            Kind::Federation => self.federation_problems(&mut problems),
            Kind::GatewayPool => {
                if let Some(pool) = self.pool(name) {
                    self.pool_problems(pool, &mut problems);
                }
            }
            Kind::LocalDomain => {
                if let Some(local) = self.all_locals().get(name) {
                    self.local_problems(local, &mut problems);
                    self.link_problems(&mut problems);
                }
            }
            Kind::FederatedDomain => {
                if let Some(federated) = self.all_federated().get(name) {
                    self.federated_problems(federated, &mut problems);
                }
            }
            Kind::FederationPolicy => {
                if self.all_policies().contains(name) {
                    self.no_federation(kind, name, &mut problems);
                }
            }
            Kind::DNSPublication => {
                if let Some(publication) = self.publications().get(name) {
                    self.publication_problems(name, publication, &mut problems);
                }
            }
            Kind::DomainClaim => {}
        }
        problems.retain(|problem| problem.kind == kind && problem.name == name);
        problems.sort();
        problems
    }

    fn no_federation(&self, kind: Kind, name: &str, problems: &mut Vec<Problem>) {
        if self.federation().is_none() {
            problems.push(problem(
                (kind, name),
                (Severity::Inactive, types::ACCEPTED, reasons::NO_FEDERATION),
                "",
                "the realm has no Federation".to_owned(),
                "Create a Federation named default in the same namespace.",
            ));
        }
    }

    fn federation_problems(&self, problems: &mut Vec<Problem>) {
        let Some(federation) = self.federation() else {
            return;
        };
        if federation.spec.unlisted_xmpp() != UnlistedAction::Allow {
            return;
        }
        if let Some(local) = self.first_local(Self::needs_names) {
            problems.push(problem(
                (Kind::Federation, isthmus_crds::FEDERATION_NAME),
                (Severity::Warning, types::BACKEND_CANNOT_SERVE, reasons::COMPONENT_NEEDS_NAMES),
                "spec.unlistedDomains.xmpp",
                format!(
                    "LocalDomain {} has a component backend, which cannot stand for domains that no FederatedDomain names",
                    local.domain
                ),
                "Attach the local domain by xmppServer, or list the domains.",
            ));
        }
    }

    fn pool_problems(&self, pool: &Pool, problems: &mut Vec<Problem>) {
        self.no_federation(Kind::GatewayPool, &pool.name, problems);
        if self.has_state_store() || self.federation().is_none() {
            return;
        }
        // Without a shared store the realm is one pod: its state lives in that pod's memory (design §6.3).
        let pods: u32 = self.pools().map(|pool| pool.pods(false)).sum();
        let own = pool.pods(false);
        let (field, problem_text) = if pool.autoscaled {
            ("spec.autoscaling", format!("GatewayPool {} is autoscaled", pool.name))
        } else if pool.nodes > 1 {
            ("spec.nodes", format!("GatewayPool {} has {} nodes", pool.name, pool.nodes))
        } else if own > 1 {
            ("spec.replicas", format!("GatewayPool {} has {own} pods", pool.name))
        } else if own > 0 && pods > 1 {
            ("spec.replicas", format!("the pools of the realm have {pods} pods together"))
        } else {
            return;
        };
        problems.push(problem(
            (Kind::GatewayPool, &pool.name),
            (Severity::Refused, types::ACCEPTED, reasons::STATE_STORE_REQUIRED),
            field,
            format!("{problem_text}, and the realm has no state store, so it can have one pod only"),
            "Set spec.stateStore of the Federation, or leave the realm one pool with one node and one pod.",
        ));
    }

    fn local_problems(&self, local: &LocalDomain, problems: &mut Vec<Problem>) {
        let name = local.domain.as_str();
        self.no_federation(Kind::LocalDomain, name, problems);
        if let Some((alias, other)) = self.lost_alias(local) {
            problems.push(problem(
                (Kind::LocalDomain, name),
                (Severity::Refused, types::ACCEPTED, reasons::ALIAS_CONFLICT),
                "spec.chatAliases",
                format!("the chat alias {alias} belongs to LocalDomain {other}"),
                KEEP_ONE,
            ));
        }
        // The local side wins, so this domain takes part all the same; the refusal is on the other object.
        for own in std::iter::once(&local.domain).chain(&local.chat_aliases) {
            if self.all_federated().contains(own) {
                problems.push(problem(
                    (Kind::LocalDomain, name),
                    (Severity::Warning, types::ACCEPTED, reasons::DOMAIN_IS_FEDERATED),
                    if *own == local.domain { "spec.domain" } else { "spec.chatAliases" },
                    format!("FederatedDomain {own} names the same domain"),
                    KEEP_ONE,
                ));
            }
        }
    }

    fn link_problems(&self, problems: &mut Vec<Problem>) {
        if !self.secrets_may_clash() {
            return;
        }
        for conflict in self.links_and_conflicts().1 {
            problems.push(problem(
                (Kind::LocalDomain, conflict.second.as_str()),
                (Severity::Warning, types::RESOLVED_REFS, own_reasons::SECRET_KEY_CONFLICT),
                "spec.backend.component.secretKey",
                format!(
                    "LocalDomain {} uses another secret for the same component {}; that one is used",
                    conflict.first, conflict.name
                ),
                "Name the same key in both.",
            ));
        }
    }

    /// Tells whether two local domains at one XMPP server name different secrets at all, which is rare: only then are
    /// the links of both compared name by name.
    fn secrets_may_clash(&self) -> bool {
        let mut servers: BTreeMap<(&str, u16), &ComponentBackend> = BTreeMap::new();
        self.locals().into_iter().any(|local| {
            let Backend::Component(own) = &local.backend else {
                return false;
            };
            let first = servers.entry((&own.host, own.port)).or_insert(own);
            first.secret_key != own.secret_key || first.secret_keys != own.secret_keys
        })
    }

    fn federated_problems(&self, federated: &FederatedDomain, problems: &mut Vec<Problem>) {
        let domain = &federated.domain;
        let name = domain.as_str();
        let object = (Kind::FederatedDomain, name);
        self.no_federation(Kind::FederatedDomain, name, problems);
        if self.all_locals().contains(domain) {
            problems.push(problem(
                object,
                (Severity::Refused, types::ACCEPTED, reasons::DOMAIN_IS_LOCAL),
                "spec.domain",
                format!("LocalDomain {domain} names the same domain"),
                KEEP_ONE,
            ));
        } else if let Some(owner) = self.claimants(domain).first() {
            problems.push(problem(
                object,
                (Severity::Refused, types::ACCEPTED, reasons::DOMAIN_IS_CHAT_ALIAS),
                "spec.domain",
                format!("the domain is a chat alias of LocalDomain {owner}"),
                KEEP_ONE,
            ));
        }
        if !self.roles().contains(federated.protocol) {
            let role = role_word(federated.protocol);
            problems.push(problem(
                object,
                (Severity::Inactive, types::ACCEPTED, reasons::NO_POOL_WITH_ROLE),
                "spec.protocol",
                format!("no GatewayPool has the role {role}"),
                &format!("Add the role {role} to a GatewayPool."),
            ));
        }
        if let Some(pool) = &federated.pool {
            self.pool_reference(object, "spec.poolRef.name", pool, federated.protocol, problems);
        }
        for local in &federated.local_domains {
            if !self.all_locals().contains(local) {
                problems.push(problem(
                    object,
                    (Severity::Unresolved, types::RESOLVED_REFS, reasons::LOCAL_DOMAIN_NOT_FOUND),
                    "spec.localDomains",
                    format!("LocalDomain {local} does not exist"),
                    "Create it, or take it off the list.",
                ));
            }
        }
        if federated.scope == Scope::Subtree
            && let Some(local) = self.first_local(|local| Self::needs_names(local) && Self::may_meet(local, federated))
        {
            problems.push(problem(
                object,
                (Severity::Warning, types::BACKEND_CANNOT_SERVE, reasons::COMPONENT_NEEDS_NAMES),
                "spec.scope",
                format!(
                    "LocalDomain {} has a component backend, which carries {domain} and none of the names below it",
                    local.domain
                ),
                "Attach the local domain by xmppServer, or list the names one by one.",
            ));
        }
    }

    /// The accepted local domain of the lowest name for which something holds.
    fn first_local(&self, holds: impl Fn(&LocalDomain) -> bool) -> Option<&LocalDomain> {
        let all = self.all_locals().iter().map(|(_, local)| local.as_ref());
        all.filter(|local| self.is_accepted(local) && holds(local)).min_by(|a, b| a.domain.cmp(&b.domain))
    }

    fn pool_reference(
        &self,
        object: (Kind, &str),
        field: &str,
        pool: &str,
        role: Protocol,
        problems: &mut Vec<Problem>,
    ) {
        match self.pool(pool) {
            None => problems.push(problem(
                object,
                (Severity::Unresolved, types::RESOLVED_REFS, reasons::POOL_NOT_FOUND),
                field,
                format!("GatewayPool {pool} does not exist"),
                "Create it, or name another pool.",
            )),
            Some(found) if !found.roles.contains(role) => {
                let role = role_word(role);
                problems.push(problem(
                    object,
                    (Severity::Inactive, types::ACCEPTED, reasons::POOL_LACKS_ROLE),
                    field,
                    format!("GatewayPool {pool} has not the role {role}"),
                    &format!("Add the role {role} to it, or name another pool."),
                ));
            }
            Some(_) => {}
        }
    }

    fn publication_problems(&self, name: &str, publication: &Publication, problems: &mut Vec<Problem>) {
        let object = (Kind::DNSPublication, name);
        self.no_federation(Kind::DNSPublication, name, problems);
        for (pool, field, role) in [
            (&publication.sip_pool, "spec.sip.poolRef.name", Protocol::Sip),
            (&publication.xmpp_pool, "spec.xmpp.poolRef.name", Protocol::Xmpp),
        ] {
            if let Some(pool) = pool {
                self.pool_reference(object, field, pool, role, problems);
            }
        }
        for local in &publication.local_domains {
            if !self.all_locals().contains(local) {
                problems.push(problem(
                    object,
                    (Severity::Inactive, types::ACCEPTED, reasons::NO_SUCH_DOMAIN),
                    "spec.localDomains",
                    format!("LocalDomain {local} does not exist"),
                    "Create it, or take it off the list.",
                ));
            }
        }
        // A handful of publications per realm, so their pairs are few.
        let rivals = self.publications().iter().filter(|(other, _)| *other != name);
        for (other, rival) in rivals {
            if overlap(publication, rival) {
                problems.push(problem(
                    object,
                    (Severity::Refused, types::ACCEPTED, reasons::OVERLAPS_OTHER_PUBLICATION),
                    "spec.localDomains",
                    format!("DNSPublication {other} publishes the same local domains in one view"),
                    "List different localDomains in the two, or give them different values of view.",
                ));
            }
        }
    }
}

fn overlap(a: &Publication, b: &Publication) -> bool {
    let both = |pool: fn(&Publication) -> bool| pool(a) && pool(b);
    let same_domains = a.local_domains.is_empty()
        || b.local_domains.is_empty()
        || a.local_domains.iter().any(|domain: &Domain| b.local_domains.binary_search(domain).is_ok());
    a.view == b.view && same_domains && (both(|p| p.sip_pool.is_some()) || both(|p| p.xmpp_pool.is_some()))
}

const fn role_word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Sip => "SIP",
        Protocol::Xmpp => "XMPP",
    }
}

fn problem(
    (kind, name): (Kind, &str),
    (severity, condition, reason): (Severity, &'static str, &'static str),
    field: &str,
    problem: String,
    remedy: &str,
) -> Problem {
    Problem {
        kind,
        name: name.to_owned(),
        severity,
        condition,
        reason,
        field: field.to_owned(),
        problem,
        remedy: remedy.to_owned(),
    }
}
