//! The compiled realm: immutable, shared, and cheap to derive the next one from.
//!
//! Each object is compiled alone, so a change touches its own entry. What objects say about each other
//! (a federated domain that is local, a chat alias claimed twice) is never stored with either of them but
//! decided where it is asked, from indexes by name; so the order in which objects come makes no difference,
//! and there is no pairwise pass over thousands of objects (design §6.18).

use std::collections::BTreeMap;
use std::sync::Arc;

use isthmus_crds::{Kind, Object, Scope, Tier};
use isthmus_model::{Domain, Protocol};

use crate::objects::{Backend, FederatedDomain, Federation, LocalDomain, Pool, Protocols};
use crate::parse;
use crate::problem::{Problem, Severity, own_reasons, reasons, types};
use crate::publication::Publication;
use crate::rules::{Depths, Rule, TierIndex};
use crate::table::Table;

/// Names an object.
pub(crate) type ObjectKey = (Kind, String);

/// The compiled realm.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    federation: Option<Arc<Federation>>,
    pools: Arc<BTreeMap<String, Arc<Pool>>>,
    roles: Protocols,
    locals: Table<Domain, Arc<LocalDomain>>,
    /// Chat alias to the local domains that claim it, the most specific first.
    aliases: Table<Domain, Arc<Vec<Domain>>>,
    /// Local domains that lost an alias to another one.
    conflicted: Table<Domain, ()>,
    federated: Table<Domain, Arc<FederatedDomain>>,
    subtrees: Depths,
    policies: Table<String, Arc<Vec<Arc<Rule>>>>,
    tiers: [TierIndex; 3],
    publications: Arc<BTreeMap<String, Arc<Publication>>>,
    /// What is wrong with objects by themselves; also of those that did not get in.
    faults: Table<ObjectKey, Arc<Vec<Problem>>>,
}

/// A change of one object.
#[derive(Debug, Clone)]
pub enum Change {
    /// The object exists in this form.
    Put(Box<Object>),
    /// The object is gone.
    Remove {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// The object exists but cannot be read by this release; what was known of it stays in force.
    Unreadable {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// What the reader says.
        detail: String,
    },
}

/// A snapshot made from a whole set of objects, with all that is wrong with them.
#[derive(Debug, Clone)]
pub struct Report {
    /// The snapshot: all that is valid, without the refused objects.
    pub snapshot: Snapshot,
    /// All problems, sorted by kind and name.
    pub problems: Vec<Problem>,
}

impl Report {
    /// The problems for which a directory is refused whole.
    pub fn refusals(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().filter(|problem| problem.severity == Severity::Refused)
    }

    /// Tells whether the set may be taken whole (design §6.13).
    pub fn is_acceptable(&self) -> bool {
        self.refusals().next().is_none()
    }
}

impl Snapshot {
    /// Compiles a whole set of objects, in any order.
    ///
    /// Two objects of one kind and name contradict each other (this is how a domain would be declared both as
    /// SIP and as XMPP): neither is taken, and the report refuses both.
    pub fn compile(objects: impl IntoIterator<Item = Object>) -> Report {
        let mut snapshot = Self::default();
        let mut seen: BTreeMap<ObjectKey, bool> = BTreeMap::new();
        for object in objects {
            let key = (object.kind(), object.name().to_owned());
            match seen.get_mut(&key) {
                None => {
                    seen.insert(key, false);
                    snapshot.put(object);
                }
                Some(repeated) => *repeated = true,
            }
        }
        for ((kind, name), _) in seen.into_iter().filter(|(_, repeated)| *repeated) {
            snapshot.take_out(kind, &name);
            let fault = Problem {
                kind,
                name: name.clone(),
                severity: Severity::Refused,
                condition: types::ACCEPTED,
                reason: own_reasons::DUPLICATE_OBJECT,
                field: "metadata.name".to_owned(),
                problem: format!("{kind} {name} is declared more than once"),
                remedy: "Keep one of the documents; a domain has one protocol.".to_owned(),
            };
            snapshot.faults.insert((kind, name), Arc::new(vec![fault]));
        }
        let problems = snapshot.problems();
        Report { snapshot, problems }
    }

    /// Derives the snapshot after a change of one object.
    ///
    /// An object that cannot be taken leaves its former version in force; [`Self::problems_of`] says why.
    #[must_use]
    pub fn apply(&self, change: Change) -> Self {
        let mut next = self.clone();
        match change {
            Change::Put(object) => next.put(*object),
            Change::Remove { kind, name } => {
                next.take_out(kind, &name);
                next.faults.remove(&(kind, name));
            }
            Change::Unreadable { kind, name, detail } => {
                let fault = Problem {
                    kind,
                    name: name.clone(),
                    severity: Severity::Inactive,
                    condition: types::ACCEPTED,
                    reason: reasons::UNSUPPORTED_BY_VERSION,
                    field: String::new(),
                    problem: format!("{kind} {name} cannot be read by this version: {detail}"),
                    remedy: "Correct the field, or upgrade the program.".to_owned(),
                };
                next.faults.insert((kind, name), Arc::new(vec![fault]));
            }
        }
        next
    }

    /// The realm's Federation.
    pub fn federation(&self) -> Option<&Arc<Federation>> {
        self.federation.as_ref()
    }

    /// A pool by name.
    pub fn pool(&self, name: &str) -> Option<&Arc<Pool>> {
        self.pools.get(name)
    }

    /// All pools by name.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.pools.values()
    }

    /// The roles of all pools together.
    pub const fn roles(&self) -> Protocols {
        self.roles
    }

    /// Tells whether a name is a local domain or a chat alias, accepted or not: nobody else may speak for it.
    pub fn is_ours(&self, domain: &Domain) -> bool {
        self.locals.contains(domain) || self.aliases.contains(domain)
    }

    /// The accepted local domain that serves a name: its own, or one of its chat aliases.
    pub fn local(&self, domain: &Domain) -> Option<&Arc<LocalDomain>> {
        if let Some(local) = self.locals.get(domain) {
            return self.is_accepted(local).then_some(local);
        }
        self.aliases
            .get(domain)?
            .iter()
            .filter_map(|owner| self.locals.get(owner))
            .find(|owner| self.is_accepted(owner))
    }

    /// All accepted local domains, sorted.
    pub fn locals(&self) -> Vec<&Arc<LocalDomain>> {
        let all = self.locals.sorted().into_iter().map(|(_, local)| local);
        all.filter(|local| self.is_accepted(local)).collect()
    }

    /// The accepted federated domain that stands for a name: its own object, else the nearest Subtree above.
    pub fn federated(&self, domain: &Domain) -> Option<&Arc<FederatedDomain>> {
        if let Some(own) = self.federated.get(domain)
            && !self.is_ours(domain)
        {
            return Some(own);
        }
        self.subtrees
            .ancestors(domain.as_str())
            .filter_map(|name| self.federated.get(name))
            .find(|above| above.scope == Scope::Subtree && !self.is_ours(&above.domain))
    }

    /// The federated domain declared under exactly this name, accepted or not.
    pub fn federated_object(&self, domain: &Domain) -> Option<&Arc<FederatedDomain>> {
        self.federated.get(domain)
    }

    /// All accepted federated domains, sorted.
    pub fn federated_domains(&self) -> Vec<&Arc<FederatedDomain>> {
        let all = self.federated.sorted().into_iter().map(|(_, entry)| entry);
        all.filter(|entry| !self.is_ours(&entry.domain)).collect()
    }

    /// Number of objects in force: pools, local domains, federated domains, policies.
    pub fn counts(&self) -> Counts {
        Counts {
            pools: self.pools.len(),
            local_domains: self.locals.len(),
            federated_domains: self.federated.len(),
            policies: self.policies.len(),
        }
    }

    pub(crate) fn tier(&self, tier: Tier) -> &TierIndex {
        let [first, second, third] = &self.tiers;
        match tier {
            Tier::Override => first,
            Tier::Standard => second,
            Tier::Baseline => third,
        }
    }

    pub(crate) fn faults(&self) -> &Table<ObjectKey, Arc<Vec<Problem>>> {
        &self.faults
    }

    pub(crate) fn all_locals(&self) -> &Table<Domain, Arc<LocalDomain>> {
        &self.locals
    }

    pub(crate) fn all_federated(&self) -> &Table<Domain, Arc<FederatedDomain>> {
        &self.federated
    }

    pub(crate) fn all_policies(&self) -> &Table<String, Arc<Vec<Arc<Rule>>>> {
        &self.policies
    }

    pub(crate) fn publications(&self) -> &BTreeMap<String, Arc<Publication>> {
        &self.publications
    }

    /// The local domains that claim a chat alias, the most specific first.
    pub(crate) fn claimants(&self, alias: &Domain) -> &[Domain] {
        self.aliases.get(alias).map_or(&[], |owners| owners.as_slice())
    }

    /// Tells whether a local domain takes part: no alias lost to another, no claim refused.
    pub(crate) fn is_accepted(&self, local: &LocalDomain) -> bool {
        local.claim_refused.is_none() && !self.conflicted.contains(&local.domain)
    }

    /// The first alias of a local domain that another one has the better right to, with that other one.
    ///
    /// A local domain's own name goes before an alias, and the more specific of two domains before the other:
    /// both lie above the alias, so their names differ in length and neither age nor order matters.
    pub(crate) fn lost_alias<'a>(&'a self, local: &'a LocalDomain) -> Option<(&'a Domain, &'a Domain)> {
        local.chat_aliases.iter().find_map(|alias| {
            if let Some(other) = self.locals.get(alias)
                && other.domain != local.domain
            {
                return Some((alias, &other.domain));
            }
            let winner = self.claimants(alias).first()?;
            (*winner != local.domain).then_some((alias, winner))
        })
    }

    fn put(&mut self, object: Object) {
        let key = (object.kind(), object.name().to_owned());
        let mut faults = Vec::new();
        match object {
            Object::Federation(object) => {
                if let Some(federation) = parse::federation(&object, &mut faults) {
                    self.federation = Some(Arc::new(federation));
                }
            }
            Object::GatewayPool(object) => {
                if let Some(pool) = parse::pool(&object, &mut faults) {
                    Arc::make_mut(&mut self.pools).insert(pool.name.clone(), Arc::new(pool));
                    self.refresh_roles();
                }
            }
            Object::LocalDomain(object) => {
                if let Some(local) = parse::local_domain(&object, &mut faults) {
                    self.put_local(local);
                }
            }
            Object::FederatedDomain(object) => {
                if let Some(federated) = parse::federated_domain(&object, &mut faults) {
                    self.put_federated(federated);
                }
            }
            Object::FederationPolicy(object) => {
                if let Some(rules) = parse::policy(&object, &mut faults) {
                    self.put_policy(&key.1, rules);
                }
            }
            Object::DNSPublication(object) => {
                if let Some(publication) = parse::publication(&object, &mut faults) {
                    Arc::make_mut(&mut self.publications).insert(key.1.clone(), Arc::new(publication));
                }
            }
            // Claims are judged by the operator across realms; gateways read the outcome from status.
            Object::DomainClaim(_) => {}
        }
        if faults.is_empty() {
            self.faults.remove(&key);
        } else {
            self.faults.insert(key, Arc::new(faults));
        }
    }

    fn take_out(&mut self, kind: Kind, name: &str) {
        match kind {
            Kind::Federation => self.federation = None,
            Kind::GatewayPool => {
                Arc::make_mut(&mut self.pools).remove(name);
                self.refresh_roles();
            }
            Kind::LocalDomain => {
                if let Some(old) = self.locals.remove(name) {
                    self.unlink_aliases(&old);
                    self.conflicted.remove(name);
                    self.judge_neighbours(&old);
                }
            }
            Kind::FederatedDomain => {
                if let Some(old) = self.federated.remove(name)
                    && old.scope == Scope::Subtree
                {
                    self.subtrees.remove(name);
                }
            }
            Kind::FederationPolicy => self.take_policy_out(name),
            Kind::DNSPublication => {
                Arc::make_mut(&mut self.publications).remove(name);
            }
            Kind::DomainClaim => {}
        }
    }

    fn refresh_roles(&mut self) {
        let pools = self.pools.values();
        self.roles = pools.fold(Protocols::default(), |all, pool| Protocols {
            sip: all.sip || pool.roles.sip,
            xmpp: all.xmpp || pool.roles.xmpp,
        });
    }

    fn put_local(&mut self, local: LocalDomain) {
        let local = Arc::new(local);
        let old = self.locals.insert(local.domain.clone(), Arc::clone(&local));
        if let Some(old) = &old {
            self.unlink_aliases(old);
        }
        for alias in &local.chat_aliases {
            let mut owners = self.claimants(alias).to_vec();
            owners.push(local.domain.clone());
            owners.sort_by(|a, b| {
                let length = |domain: &Domain| domain.as_str().len();
                length(b).cmp(&length(a)).then_with(|| a.cmp(b))
            });
            self.aliases.insert(alias.clone(), Arc::new(owners));
        }
        self.judge(&local.domain);
        self.judge_neighbours(&local);
        if let Some(old) = &old {
            self.judge_neighbours(old);
        }
    }

    fn unlink_aliases(&mut self, local: &LocalDomain) {
        for alias in &local.chat_aliases {
            let mut owners = self.claimants(alias).to_vec();
            owners.retain(|owner| *owner != local.domain);
            if owners.is_empty() {
                self.aliases.remove(alias);
            } else {
                self.aliases.insert(alias.clone(), Arc::new(owners));
            }
        }
    }

    /// Judges anew all local domains that share a name with `local`.
    fn judge_neighbours(&mut self, local: &LocalDomain) {
        let names = std::iter::once(&local.domain).chain(&local.chat_aliases);
        let neighbours: Vec<Domain> = names.flat_map(|name| self.claimants(name)).cloned().collect();
        for domain in neighbours {
            self.judge(&domain);
        }
    }

    fn judge(&mut self, domain: &Domain) {
        let Some(local) = self.locals.get(domain).cloned() else {
            return;
        };
        if self.lost_alias(&local).is_some() {
            self.conflicted.insert(domain.clone(), ());
        } else {
            self.conflicted.remove(domain);
        }
    }

    fn put_federated(&mut self, federated: FederatedDomain) {
        let federated = Arc::new(federated);
        let name = federated.domain.clone();
        if federated.scope == Scope::Subtree {
            self.subtrees.add(name.as_str());
        }
        if let Some(old) = self.federated.insert(name, federated)
            && old.scope == Scope::Subtree
        {
            self.subtrees.remove(old.domain.as_str());
        }
    }

    fn put_policy(&mut self, name: &str, rules: Vec<Rule>) {
        self.take_policy_out(name);
        let rules: Vec<Arc<Rule>> = rules.into_iter().map(Arc::new).collect();
        for rule in &rules {
            self.tier_mut(rule.tier).add(rule);
        }
        self.policies.insert(name.to_owned(), Arc::new(rules));
    }

    fn take_policy_out(&mut self, name: &str) {
        let Some(old) = self.policies.remove(name) else {
            return;
        };
        for rule in old.iter() {
            self.tier_mut(rule.tier).remove(rule);
        }
    }

    fn tier_mut(&mut self, tier: Tier) -> &mut TierIndex {
        let [first, second, third] = &mut self.tiers;
        match tier {
            Tier::Override => first,
            Tier::Standard => second,
            Tier::Baseline => third,
        }
    }

    /// Whether a realm-wide store exists that several pods can share.
    pub(crate) fn has_state_store(&self) -> bool {
        self.federation.as_ref().is_some_and(|federation| federation.spec.state_store.is_some())
    }

    /// Tells whether a local domain can carry names that no object names.
    pub(crate) fn needs_names(local: &LocalDomain) -> bool {
        matches!(local.backend, Backend::Component(_))
    }

    /// Tells whether a federated domain and a local domain can meet at all.
    pub(crate) fn may_meet(local: &LocalDomain, federated: &FederatedDomain) -> bool {
        let protocol: Protocol = federated.protocol;
        federated.admits(&local.domain) && local.protocols.contains(protocol)
    }
}

/// Number of objects in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// GatewayPools.
    pub pools: usize,
    /// LocalDomains.
    pub local_domains: usize,
    /// FederatedDomains.
    pub federated_domains: usize,
    /// FederationPolicies.
    pub policies: usize,
}

#[cfg(test)]
mod tests;
