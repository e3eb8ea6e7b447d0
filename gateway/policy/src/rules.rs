//! Rules of FederationPolicies, compiled, and the index that finds those about a question.
//!
//! Within a tier the most specific subject wins: a user, then an exact domain, then the longest subtree,
//! then any; the remote side before the local one on a tie; among equals Deny. Neither names nor times nor
//! the order of lists matter (kubernetes specification §3.6).

use std::sync::Arc;

use isthmus_crds::{DenyResponse, RuleAction, Tier};
use isthmus_model::{BareAddress, Direction, Domain, Feature};

use crate::decide::{Party, Question};
use crate::objects::Protocols;
use crate::table::Table;

/// One side of a rule: domains and users are alternatives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subjects {
    /// Domains, sorted.
    pub domains: Vec<Domain>,
    /// Whether names below the domains match too.
    pub include_subdomains: bool,
    /// Users, sorted.
    pub users: Vec<BareAddress>,
}

/// How specifically one side of a rule names someone; greater is more specific.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// The rule does not restrict this side.
    Any,
    /// A domain above, with this many labels.
    Subtree(u8),
    /// The domain itself.
    Domain,
    /// The user.
    User,
}

/// The weight of a match: the more specific side, whether that is the remote one, then the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight {
    best: Rank,
    by_remote: bool,
    other: Rank,
}

impl Weight {
    fn new(remote: Rank, local: Rank) -> Self {
        Self { best: remote.max(local), by_remote: remote >= local, other: remote.min(local) }
    }

    /// Tells whether the match is by a user's address.
    pub fn is_by_user(self) -> bool {
        self.best == Rank::User
    }

    /// Says it in words.
    pub(crate) fn describe(self) -> String {
        let side = if self.by_remote { "remote" } else { "local" };
        match self.best {
            Rank::Any => "matches anyone".to_owned(),
            Rank::Subtree(labels) => format!("{side} subtree of {labels} labels"),
            Rank::Domain => format!("exact {side} domain"),
            Rank::User => format!("{side} user"),
        }
    }
}

/// One rule of a FederationPolicy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Name of the FederationPolicy.
    pub policy: String,
    /// Name of the rule in it.
    pub name: String,
    /// The policy's tier.
    pub tier: Tier,
    /// What it does.
    pub action: RuleAction,
    /// How a refusal looks, when said.
    pub response: Option<DenyResponse>,
    /// The other side; `None` for anyone.
    pub remote: Option<Subjects>,
    /// Our side; `None` for anyone.
    pub local: Option<Subjects>,
    /// Protocols it is about.
    pub protocols: Protocols,
    /// Directions it is about: inbound, outbound.
    pub directions: [bool; 2],
    /// Features it is about, in the order of the type.
    pub features: [bool; 4],
}

impl Subjects {
    fn rank(&self, party: Party<'_>) -> Option<Rank> {
        if let Party::User(user) = party
            && self.users.binary_search(user).is_ok()
        {
            return Some(Rank::User);
        }
        let domain = party.domain();
        if self.domains.binary_search(domain).is_ok() {
            return Some(Rank::Domain);
        }
        if !self.include_subdomains {
            return None;
        }
        ancestors(domain.as_str())
            .find(|name| self.domains.binary_search_by(|own| own.as_str().cmp(name)).is_ok())
            .map(|name| Rank::Subtree(labels(name)))
    }
}

impl Rule {
    /// Weighs the rule for a question; `None` when it is not about it.
    pub fn weigh(&self, question: &Question<'_>, protocol: isthmus_model::Protocol) -> Option<Weight> {
        let about = self.protocols.contains(protocol)
            && self.directions[direction_index(question.direction)]
            && self.features[feature_index(question.feature)];
        if !about {
            return None;
        }
        let side = |subjects: &Option<Subjects>, party| match subjects {
            None => Some(Rank::Any),
            Some(subjects) => subjects.rank(party),
        };
        let remote = side(&self.remote, question.remote)?;
        let local = side(&self.local, question.local)?;
        Some(Weight::new(remote, local))
    }

    /// How a refusal by this rule looks: as said; else polite for users and open for domains, and always
    /// open towards our own users, who are not to be misled.
    pub fn response(&self, weight: Weight, direction: Direction) -> DenyResponse {
        self.response.unwrap_or_else(|| match direction {
            Direction::Inbound if weight.is_by_user() => DenyResponse::Polite,
            Direction::Inbound | Direction::Outbound => DenyResponse::Reject,
        })
    }

    /// Names the rule for people.
    pub fn describe(&self) -> String {
        let response = self.response.map(|response| format!(" ({response})")).unwrap_or_default();
        format!("FederationPolicy {} rule {}: {}{response}", self.policy, self.name, self.action)
    }
}

pub(crate) const fn direction_index(direction: Direction) -> usize {
    match direction {
        Direction::Inbound => 0,
        Direction::Outbound => 1,
    }
}

pub(crate) const fn feature_index(feature: Feature) -> usize {
    match feature {
        Feature::Presence => 0,
        Feature::Message => 1,
        Feature::GroupChat => 2,
        Feature::Other => 3,
    }
}

/// The names above a domain, nearest first.
pub(crate) fn ancestors(domain: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(parent(domain), |name| parent(name))
}

fn parent(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, rest)| rest)
}

/// Counts the labels of a name.
pub(crate) fn labels(name: &str) -> u8 {
    let dots = name.bytes().filter(|b| *b == b'.').count();
    u8::try_from(dots + 1).unwrap_or(u8::MAX)
}

/// Counts names by their number of labels, so that a search upwards asks only where there is something.
#[derive(Debug, Clone, Default)]
pub(crate) struct Depths(Vec<u32>);

impl Depths {
    pub(crate) fn add(&mut self, name: &str) {
        let at = usize::from(labels(name));
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        if let Some(count) = self.0.get_mut(at) {
            *count += 1;
        }
    }

    pub(crate) fn remove(&mut self, name: &str) {
        if let Some(count) = self.0.get_mut(usize::from(labels(name))) {
            *count = count.saturating_sub(1);
        }
    }

    /// The names above `domain` at whose depth there is something, nearest first.
    pub(crate) fn ancestors<'a>(&self, domain: &'a str) -> impl Iterator<Item = &'a str> {
        let deepest = self.0.iter().rposition(|count| *count > 0).unwrap_or(0);
        let mut depth = if deepest == 0 { 0 } else { usize::from(labels(domain)) };
        ancestors(domain).take(depth.saturating_sub(1)).filter(move |_| {
            depth -= 1;
            depth <= deepest && self.0.get(depth).is_some_and(|count| *count > 0)
        })
    }
}

/// Rules under one key.
type Rules = Arc<Vec<Arc<Rule>>>;

/// The rules of one tier, found by whom they are about.
#[derive(Debug, Clone, Default)]
pub(crate) struct TierIndex {
    // A rule is listed under its remote subjects; only without those under its local ones.
    remote_users: Table<BareAddress, Rules>,
    remote_domains: Table<Domain, Rules>,
    local_users: Table<BareAddress, Rules>,
    local_domains: Table<Domain, Rules>,
    subtrees: Depths,
    count: usize,
}

impl TierIndex {
    /// Takes a rule in.
    pub(crate) fn add(&mut self, rule: &Arc<Rule>) {
        self.count += 1;
        self.each(rule, |rules| Arc::make_mut(rules).push(Arc::clone(rule)));
        for domain in subtrees(rule) {
            self.subtrees.add(domain.as_str());
        }
    }

    /// Takes a rule out.
    pub(crate) fn remove(&mut self, rule: &Arc<Rule>) {
        self.count -= 1;
        self.each(rule, |rules| {
            Arc::make_mut(rules).retain(|other| !Arc::ptr_eq(other, rule));
        });
        for domain in subtrees(rule) {
            self.subtrees.remove(domain.as_str());
        }
    }

    /// Visits the rules that may be about a question, perhaps some of them twice.
    pub(crate) fn candidates<'s>(&'s self, question: &Question<'_>, mut visit: impl FnMut(&'s Arc<Rule>)) {
        if self.count == 0 {
            return;
        }
        let mut list = |rules: Option<&'s Rules>| {
            for rule in rules.into_iter().flat_map(|rules| rules.iter()) {
                visit(rule);
            }
        };
        if let Party::User(user) = question.remote {
            list(self.remote_users.get(user));
        }
        let remote = question.remote.domain();
        list(self.remote_domains.get(remote));
        for name in self.subtrees.ancestors(remote.as_str()) {
            list(self.remote_domains.get(name));
        }
        if let Party::User(user) = question.local {
            list(self.local_users.get(user));
        }
        list(self.local_domains.get(question.local.domain()));
    }

    fn each(&mut self, rule: &Rule, mut edit: impl FnMut(&mut Rules)) {
        let (users, domains, subjects) = match (&rule.remote, &rule.local) {
            (Some(subjects), _) => (&mut self.remote_users, &mut self.remote_domains, subjects),
            (None, Some(subjects)) => (&mut self.local_users, &mut self.local_domains, subjects),
            (None, None) => return,
        };
        for user in &subjects.users {
            edit_entry(users, user, &mut edit);
        }
        for domain in &subjects.domains {
            edit_entry(domains, domain, &mut edit);
        }
    }
}

fn edit_entry<K: std::hash::Hash + Ord + Clone>(
    table: &mut Table<K, Rules>,
    key: &K,
    edit: &mut impl FnMut(&mut Rules),
) {
    let mut rules = table.get(key).cloned().unwrap_or_default();
    edit(&mut rules);
    if rules.is_empty() {
        table.remove(key);
    } else {
        table.insert(key.clone(), rules);
    }
}

fn subtrees(rule: &Rule) -> &[Domain] {
    match &rule.remote {
        Some(subjects) if subjects.include_subdomains => &subjects.domains,
        _ => &[],
    }
}
