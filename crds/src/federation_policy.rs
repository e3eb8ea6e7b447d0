//! FederationPolicy: allow and block rules for domains and users.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Condition;
use crate::rules;
use crate::schema::{self, Keyed};
use crate::shared::{Protocol, is_empty};

/// Allow and block rules for domains and users.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "isthmus.dev",
    version = "v1alpha1",
    kind = "FederationPolicy",
    plural = "federationpolicies",
    shortname = "fpol",
    category = "isthmus",
    namespaced,
    status = "FederationPolicyStatus",
    derive = "PartialEq",
    doc = "FederationPolicy holds allow and block rules for domains and users. A policy can only narrow: it never admits a SIP domain that is not listed.",
    printcolumn(name = "Tier", type_ = "string", json_path = ".spec.tier"),
    printcolumn(name = "Rules", type_ = "integer", json_path = ".status.ruleCount"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct FederationPolicySpec {
    /// When the rules decide: Override before and Standard likewise before the users' own lists, Baseline after them. Override
    /// needs the verb `override`. Default: Standard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// The rules, 1 to 256; their order has no meaning: the most specific decides, and Deny among equals. Required.
    #[schemars(schema_with = "schema::keyed::<PolicyRule, 1, 256>")]
    pub rules: Vec<PolicyRule>,
}

impl FederationPolicySpec {
    /// Standard when not said.
    pub fn tier(&self) -> Tier {
        self.tier.unwrap_or(Tier::Standard)
    }
}

string_enum! {
    /// When the rules of a policy decide.
    pub enum Tier {
        /// First.
        Override = "Override",
        /// Next, before users' own lists.
        Standard = "Standard",
        /// Last, after users' own lists.
        Baseline = "Baseline",
    }
}

string_enum! {
    /// What a rule does.
    pub enum RuleAction {
        /// Lets through.
        Allow = "Allow",
        /// Refuses.
        Deny = "Deny",
    }
}

string_enum! {
    /// How a refusal looks to the refused.
    pub enum DenyResponse {
        /// As if the user were offline; messages are accepted and discarded.
        Polite = "Polite",
        /// As a refusal.
        Reject = "Reject",
        /// As a delivery; everything is discarded and counted.
        Drop = "Drop",
    }
}

string_enum! {
    /// Direction seen from our users.
    pub enum Direction {
        /// From the federated domain to our users.
        Inbound = "Inbound",
        /// From our users to the federated domain.
        Outbound = "Outbound",
    }
}

string_enum! {
    /// What a rule is about.
    pub enum Feature {
        /// Presence and subscriptions.
        Presence = "Presence",
        /// Messages between two people.
        Message = "Message",
        /// Rooms.
        GroupChat = "GroupChat",
        /// Anything else.
        Other = "Other",
    }
}

/// One rule.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[x_kube(validation = rules::RULE_HAS_A_SIDE, validation = rules::RESPONSE_GOES_WITH_DENY)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRule {
    /// Name of the rule within the policy, for example `spam-domain`. Required.
    #[schemars(schema_with = "schema::one::<schema::Label>")]
    pub name: String,
    /// Allow or Deny. Required.
    pub action: RuleAction,
    /// How a refusal looks: Polite, Reject or Drop; only with Deny. Default: Polite for rules about users, Reject for rules
    /// about domains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<DenyResponse>,
    /// The other side, for example `{domains: [spam.example]}`. Default: anyone; one of `remote` and `local` is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteSubject>,
    /// Our side, for example `{users: [ceo@corp.example]}`. Default: anyone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalSubject>,
    /// Protocols that the rule is about, for example `[SIP]`. Default: all.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::set::<Protocol, 1, 2>")]
    pub protocols: Vec<Protocol>,
    /// Directions that the rule is about: Inbound, Outbound. Default: both.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::set::<Direction, 1, 2>")]
    pub directions: Vec<Direction>,
    /// Features that the rule is about: Presence, Message, GroupChat, Other. Default: all.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::set::<Feature, 1, 4>")]
    pub features: Vec<Feature>,
}

impl Keyed for PolicyRule {
    const KEYS: &'static [&'static str] = &["name"];
}

/// The other side of a rule. Domains and users are alternatives: either matches.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[x_kube(validation = rules::REMOTE_NAMES_SOMEONE)]
#[serde(rename_all = "camelCase")]
pub struct RemoteSubject {
    /// Domains, at most 64, for example `[spam.example]`. Default: none.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::set::<schema::Domain, 0, 64>")]
    pub domains: Vec<String>,
    /// Whether all names below the domains match too. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_subdomains: Option<bool>,
    /// Users, at most 256, for example `[mallory@partner.example]`. Default: none.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::set::<schema::UserAddress, 0, 256>")]
    pub users: Vec<String>,
}

/// Our side of a rule. Domains and users are alternatives: either matches.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[x_kube(validation = rules::LOCAL_NAMES_SOMEONE)]
#[serde(rename_all = "camelCase")]
pub struct LocalSubject {
    /// Domains, at most 64, for example `[corp.example]`. Default: none.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::set::<schema::Domain, 0, 64>")]
    pub domains: Vec<String>,
    /// Users, at most 256, for example `[ceo@corp.example]`. Default: none.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(schema_with = "schema::set::<schema::UserAddress, 0, 256>")]
    pub users: Vec<String>,
}

/// What was observed of a policy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FederationPolicyStatus {
    /// Generation of the object that this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions: Accepted, Programmed, Ready and the warning RuleShadowed.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub conditions: Vec<Condition>,
    /// Number of rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule_count: Option<u32>,
}
