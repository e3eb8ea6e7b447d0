//! Decisions on a snapshot, each with its reasons.
//!
//! [`Snapshot::decide`] and [`Snapshot::explain`] run the very same evaluation; the former writes nothing
//! down and allocates nothing.
//!
//! The order (design §6.4): is the domain permitted at all; rules of tier Override; rules of tier Standard;
//! the local user's own list; rules of tier Baseline; the local domain's default. The user's list and the
//! default say who may see and reach a user, so they are asked for inbound traffic only; what our own users
//! send out is bound by the first question and by the rules.

use std::fmt;
use std::sync::Arc;

use isthmus_crds::{DefaultDecision, DenyResponse, RuleAction, Scope, Tier, UnlistedAction};
use isthmus_model::{Access, BareAddress, DenyMode, Direction, Domain, Feature, Protocol};

use crate::objects::{Backend, FederatedDomain, LocalDomain};
use crate::rules::{Rule, Weight};
use crate::snapshot::Snapshot;
use crate::user_list::{ListAction, Source, Subject, UserList};

/// One end of what crosses the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party<'a> {
    /// A user.
    User(&'a BareAddress),
    /// A domain as a whole.
    Domain(&'a Domain),
}

impl<'a> Party<'a> {
    /// The domain.
    pub const fn domain(self) -> &'a Domain {
        match self {
            Self::User(user) => &user.domain,
            Self::Domain(domain) => domain,
        }
    }
}

impl<'a> From<&'a BareAddress> for Party<'a> {
    fn from(user: &'a BareAddress) -> Self {
        Self::User(user)
    }
}

impl<'a> From<&'a Domain> for Party<'a> {
    fn from(domain: &'a Domain) -> Self {
        Self::Domain(domain)
    }
}

impl fmt::Display for Party<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => user.fmt(f),
            Self::Domain(domain) => domain.fmt(f),
        }
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Which way it crosses.
    pub direction: Direction,
    /// What kind of traffic it is.
    pub feature: Feature,
    /// The protocol that the remote side spoke; `None` for outbound traffic, which takes the domain's own.
    pub protocol: Option<Protocol>,
    /// The other side.
    pub remote: Party<'a>,
    /// Our side.
    pub local: Party<'a>,
    /// The local user's list; [`UserList::EMPTY`] where there is none, or for outbound traffic.
    pub user_list: &'a UserList,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The outcome.
    pub access: Access,
    /// What decided.
    pub cause: Cause,
}

/// What decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The domain, or this pair of domains, is not permitted.
    Gate(Gate),
    /// A rule of a FederationPolicy.
    Rule(Arc<Rule>),
    /// An entry of the local user's list.
    UserList {
        /// Whether the entry names the user (else the domain).
        by_user: bool,
        /// What the entry does.
        action: ListAction,
        /// Where the entry comes from.
        source: Source,
    },
    /// The local domain's default.
    Default(DefaultDecision),
    /// The default asks the user, which is about presence; other traffic needs no relation.
    NoRelationNeeded,
    /// Outbound to a permitted domain, and no rule is against it.
    Permitted,
}

/// Why a domain, or a pair of domains, is not permitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Gate {
    /// The realm has no Federation object.
    #[error("the realm has no Federation object")]
    NoFederation,
    /// The remote domain is one of ours: 403 (interworking specification §1.5).
    #[error("the remote domain is a local domain")]
    RemoteIsLocal,
    /// No FederatedDomain stands for the remote domain.
    #[error("no FederatedDomain stands for the remote domain")]
    NotListed,
    /// The remote domain is configured for the other protocol (row L2).
    #[error("the remote domain is configured for the other protocol")]
    WrongProtocol,
    /// The FederatedDomain is suspended.
    #[error("the FederatedDomain is suspended")]
    Suspended,
    /// No pool has the role of the protocol.
    #[error("no GatewayPool has the role of the protocol")]
    NoPoolWithRole,
    /// The local domain is not ours: 404 (row L3).
    #[error("the local domain is not served here")]
    NotLocal,
    /// The FederatedDomain does not list the local domain.
    #[error("the FederatedDomain does not list the local domain")]
    NotAdmitted,
    /// The local domain is not offered over the protocol.
    #[error("the local domain is not offered over this protocol")]
    ProtocolNotOffered,
    /// The local domain hangs on components, which cannot stand for names that no object names.
    #[error("the local domain's component backend cannot stand for a name that no FederatedDomain names")]
    BackendCannotServe,
}

impl Gate {
    /// A word for metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoFederation => "no-federation",
            Self::RemoteIsLocal => "remote-is-local",
            Self::NotListed => "not-listed",
            Self::WrongProtocol => "wrong-protocol",
            Self::Suspended => "suspended",
            Self::NoPoolWithRole => "no-pool-with-role",
            Self::NotLocal => "not-local",
            Self::NotAdmitted => "not-admitted",
            Self::ProtocolNotOffered => "protocol-not-offered",
            Self::BackendCannotServe => "backend-cannot-serve",
        }
    }
}

impl Cause {
    /// A word for metrics; for the full reason see [`Snapshot::explain`].
    pub fn label(&self) -> &'static str {
        match self {
            Self::Gate(gate) => gate.label(),
            Self::Rule(rule) => match rule.tier {
                Tier::Override => "policy-override",
                Tier::Standard => "policy-standard",
                Tier::Baseline => "policy-baseline",
            },
            Self::UserList { by_user: true, .. } => "list-user",
            Self::UserList { by_user: false, .. } => "list-domain",
            Self::Default(_) => "default",
            Self::NoRelationNeeded => "no-relation-needed",
            Self::Permitted => "permitted",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gate(gate) => gate.fmt(f),
            Self::Rule(rule) => f.write_str(&rule.describe()),
            Self::UserList { by_user, action, source } => {
                let action = match action {
                    ListAction::Allow => "allows",
                    ListAction::Block => "blocks",
                };
                let whom = if *by_user { "user" } else { "domain" };
                let source = match source {
                    Source::User => "set by the user",
                    Source::Admin => "set by an administrator",
                    Source::Xmpp => "recorded from the user's client",
                };
                write!(f, "the user's list {action} this {whom} ({source})")
            }
            Self::Default(default) => write!(f, "the local domain's default is {default}"),
            Self::NoRelationNeeded => f.write_str("nothing is against it, and this traffic needs no presence relation"),
            Self::Permitted => f.write_str("the domain is permitted and no rule is against it"),
        }
    }
}

/// A decision with the whole chain of why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The decision.
    pub decision: Decision,
    /// One line for each step, in order.
    pub lines: Vec<String>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

/// Where the evaluation writes its steps.
trait Trace {
    fn line(&mut self, text: impl FnOnce() -> String);
}

/// Writes nothing, so that the texts are never made.
struct Silent;

impl Trace for Silent {
    fn line(&mut self, _: impl FnOnce() -> String) {}
}

impl Trace for Vec<String> {
    fn line(&mut self, text: impl FnOnce() -> String) {
        self.push(text());
    }
}

/// A pair of domains that may talk.
#[derive(Debug, Clone, Copy)]
pub struct Permitted<'s> {
    /// The protocol spoken.
    pub protocol: Protocol,
    /// The object of the remote domain; `None` for an unlisted XMPP domain.
    pub remote: Option<&'s Arc<FederatedDomain>>,
    /// The local domain.
    pub local: &'s Arc<LocalDomain>,
}

impl Snapshot {
    /// Decides a question.
    pub fn decide(&self, question: &Question<'_>) -> Decision {
        self.evaluate(question, &mut Silent)
    }

    /// Decides a question and writes down why.
    pub fn explain(&self, question: &Question<'_>) -> Explanation {
        let mut lines = Vec::new();
        let decision = self.evaluate(question, &mut lines);
        Explanation { decision, lines }
    }

    /// Decides whether two domains may talk at all, before any user is looked at (row L1).
    ///
    /// `protocol` is what the remote side spoke, `None` takes the remote domain's own.
    ///
    /// # Errors
    ///
    /// The [`Gate`] that is shut.
    pub fn permitted(
        &self,
        remote: &Domain,
        local: &Domain,
        protocol: Option<Protocol>,
    ) -> Result<Permitted<'_>, Gate> {
        let Some(federation) = self.federation() else {
            return Err(Gate::NoFederation);
        };
        if self.is_ours(remote) {
            return Err(Gate::RemoteIsLocal);
        }
        let entry = self.federated(remote);
        let own = match entry {
            Some(entry) => entry.protocol,
            // SIP domains are always listed; only XMPP has an open mode.
            None if federation.spec.unlisted_xmpp() == UnlistedAction::Allow && protocol != Some(Protocol::Sip) => {
                Protocol::Xmpp
            }
            None => return Err(Gate::NotListed),
        };
        if protocol.is_some_and(|spoken| spoken != own) {
            return Err(Gate::WrongProtocol);
        }
        if entry.is_some_and(|entry| entry.suspended) {
            return Err(Gate::Suspended);
        }
        if !self.roles().contains(own) {
            return Err(Gate::NoPoolWithRole);
        }
        let local = self.local(local).ok_or(Gate::NotLocal)?;
        if entry.is_some_and(|entry| !entry.admits(&local.domain)) {
            return Err(Gate::NotAdmitted);
        }
        if !local.protocols.contains(own) {
            return Err(Gate::ProtocolNotOffered);
        }
        let named = entry.is_some_and(|entry| entry.domain == *remote);
        if !named && matches!(local.backend, Backend::Component(_)) {
            return Err(Gate::BackendCannotServe);
        }
        Ok(Permitted { protocol: own, remote: entry, local })
    }

    fn evaluate(&self, question: &Question<'_>, trace: &mut impl Trace) -> Decision {
        trace.line(|| {
            format!(
                "question: {:?} {:?} between remote {} and local {}",
                question.direction, question.feature, question.remote, question.local
            )
        });
        let pair = self.permitted(question.remote.domain(), question.local.domain(), question.protocol);
        let decision = match pair {
            Err(gate) => Decision { access: Access::NotPermitted, cause: Cause::Gate(gate) },
            Ok(pair) => {
                trace.line(|| match pair.remote {
                    Some(entry) => format!(
                        "domain: permitted by FederatedDomain {} ({}{}, peer {})",
                        entry.domain,
                        protocol_word(pair.protocol),
                        if entry.scope == Scope::Subtree { ", Subtree" } else { "" },
                        entry.settings.peer
                    ),
                    None => "domain: permitted by Federation default (unlistedDomains.xmpp is Allow)".to_owned(),
                });
                self.evaluate_pair(question, pair, trace)
            }
        };
        trace.line(|| format!("decision: {:?}, because {}", decision.access, decision.cause));
        decision
    }

    fn evaluate_pair(&self, question: &Question<'_>, pair: Permitted<'_>, trace: &mut impl Trace) -> Decision {
        let by_rules = |tier, trace: &mut _| self.evaluate_tier(question, pair.protocol, tier, trace);
        if let Some(decision) = by_rules(Tier::Override, trace) {
            return decision;
        }
        if let Some(decision) = by_rules(Tier::Standard, trace) {
            return decision;
        }
        let inbound = question.direction == Direction::Inbound;
        if inbound && let Some(decision) = evaluate_list(question, pair.local, trace) {
            return decision;
        }
        if let Some(decision) = by_rules(Tier::Baseline, trace) {
            return decision;
        }
        if !inbound {
            return Decision { access: Access::Allow, cause: Cause::Permitted };
        }
        let policy = pair.local.policy;
        trace.line(|| format!("default of LocalDomain {}: {}", pair.local.domain, policy.default));
        let (access, cause) = match policy.default {
            DefaultDecision::Prompt if question.feature != Feature::Presence => {
                (Access::Allow, Cause::NoRelationNeeded)
            }
            DefaultDecision::Prompt => (Access::Prompt, Cause::Default(policy.default)),
            DefaultDecision::Allow => (Access::Allow, Cause::Default(policy.default)),
            DefaultDecision::Block => (blocked(policy.deny_mode), Cause::Default(policy.default)),
        };
        Decision { access, cause }
    }

    fn evaluate_tier(
        &self,
        question: &Question<'_>,
        protocol: Protocol,
        tier: Tier,
        trace: &mut impl Trace,
    ) -> Option<Decision> {
        let mut best: Option<(Weight, u8, &Arc<Rule>)> = None;
        let mut matches = 0_usize;
        self.tier(tier).candidates(question, |rule| {
            let Some(weight) = rule.weigh(question, protocol) else {
                return;
            };
            let strength = strength(rule, weight, question.direction);
            matches += 1;
            trace.line(|| format!("tier {tier}: {} [{}]", rule.describe(), weight.describe()));
            let better = best.is_none_or(|(old_weight, old_strength, old)| {
                (weight, strength)
                    .cmp(&(old_weight, old_strength))
                    // Names only choose which of two rules with the same effect is named.
                    .then_with(|| (&old.policy, &old.name).cmp(&(&rule.policy, &rule.name)))
                    .is_gt()
            });
            if better {
                best = Some((weight, strength, rule));
            }
        });
        let Some((weight, _, rule)) = best else {
            trace.line(|| format!("tier {tier}: no rule matches"));
            return None;
        };
        if matches > 1 {
            trace.line(|| {
                format!(
                    "tier {tier}: rule {} of {} decides: the most specific, and Deny among equals",
                    rule.name, rule.policy
                )
            });
        }
        Some(Decision { access: rule_access(rule, weight, question.direction), cause: Cause::Rule(Arc::clone(rule)) })
    }
}

/// Orders rules of equal weight: Deny before Allow, and the refusal that tells the peer least.
fn strength(rule: &Rule, weight: Weight, direction: Direction) -> u8 {
    match rule.action {
        RuleAction::Allow => 0,
        RuleAction::Deny => match rule.response(weight, direction) {
            DenyResponse::Reject => 1,
            DenyResponse::Polite => 2,
            DenyResponse::Drop => 3,
        },
    }
}

fn rule_access(rule: &Rule, weight: Weight, direction: Direction) -> Access {
    match rule.action {
        RuleAction::Allow => Access::Allow,
        RuleAction::Deny => match rule.response(weight, direction) {
            DenyResponse::Polite => Access::BlockPolite,
            DenyResponse::Drop => Access::Drop,
            DenyResponse::Reject if direction == Direction::Inbound && weight.is_by_user() => Access::BlockReject,
            DenyResponse::Reject => Access::NotPermitted,
        },
    }
}

fn evaluate_list(question: &Question<'_>, local: &LocalDomain, trace: &mut impl Trace) -> Option<Decision> {
    let entry = match question.remote {
        Party::User(user) => question.user_list.decide(user, question.feature),
        Party::Domain(domain) => question.user_list.decide_domain(domain, question.feature),
    };
    let Some(entry) = entry else {
        trace.line(|| "user's list: no entry".to_owned());
        return None;
    };
    trace.line(|| format!("user's list: {:?} {:?} ({:?}, by {})", entry.action, entry.subject, entry.source, entry.by));
    Some(Decision {
        access: match entry.action {
            ListAction::Allow => Access::Allow,
            ListAction::Block => blocked(local.policy.deny_mode),
        },
        cause: Cause::UserList {
            by_user: matches!(entry.subject, Subject::User(_)),
            action: entry.action,
            source: entry.source,
        },
    })
}

fn blocked(mode: DenyMode) -> Access {
    match mode {
        DenyMode::Polite => Access::BlockPolite,
        DenyMode::Reject => Access::BlockReject,
    }
}

const fn protocol_word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Sip => "SIP",
        Protocol::Xmpp => "XMPP",
    }
}

#[cfg(test)]
mod tests;
