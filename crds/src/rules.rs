//! The CEL rules of the CRDs, each written once.
//!
//! The generator puts them into `crds/*.yaml`, and [`crate::validate`] evaluates them from the very same schema. A refusal
//! reads `<problem>. <remedy>`, so that its last sentence says what to do.

use kube::core::{Message, Reason, Rule};

/// One CEL rule of a schema node.
#[derive(Clone, Copy, Debug)]
pub struct CelRule {
    /// The expression; `self` is the node that carries the rule.
    pub rule: &'static str,
    /// What is wrong, without a full stop.
    pub problem: &'static str,
    /// CEL expression for the same with values in it, where those help.
    pub problem_expression: Option<&'static str>,
    /// What to do: one sentence with a full stop.
    pub remedy: &'static str,
    /// The field at fault, relative to the node, for example `.domain`.
    pub field_path: Option<&'static str>,
}

impl CelRule {
    /// The message of a refusal.
    pub fn message(&self) -> String {
        format!("{}. {}", self.problem, self.remedy)
    }

    /// The `messageExpression` of a refusal, where the rule has one.
    pub fn message_expression(&self) -> Option<String> {
        self.problem_expression.map(|problem| format!("{problem} + '. {}'", self.remedy))
    }
}

impl From<CelRule> for Rule {
    fn from(rule: CelRule) -> Self {
        let message = Message::Message(rule.message());
        let mut made = Self::new(rule.rule).message(message).reason(Reason::FieldValueInvalid);
        made.field_path = rule.field_path.map(Into::into);
        made
    }
}

/// A namespace has one Federation.
pub const FEDERATION_IS_NAMED_DEFAULT: CelRule = CelRule {
    rule: "self.metadata.name == 'default'",
    problem: "a namespace has one Federation, named default",
    problem_expression: Some(
        "'metadata.name is ' + self.metadata.name + ', but a namespace has one Federation, named default'",
    ),
    remedy: "Set metadata.name to default.",
    field_path: None,
};

/// The key prefix of Redis never changes, and taking `stateStore` away and adding it again is no way around that.
pub const KEY_PREFIX_IS_IMMUTABLE: CelRule = CelRule {
    rule: "(has(self.stateStore) && has(self.stateStore.redis.keyPrefix) ? self.stateStore.redis.keyPrefix : '') == \
           (has(oldSelf.stateStore) && has(oldSelf.stateStore.redis.keyPrefix) ? oldSelf.stateStore.redis.keyPrefix : '')",
    problem: "stateStore.redis.keyPrefix can neither be changed, added nor removed, since all state lies under it",
    problem_expression: None,
    remedy: "Put back the former keyPrefix, or delete the Federation and create it again.",
    field_path: None,
};

/// Sentinel needs the master's name, nothing else has one.
pub const MASTER_NAME_GOES_WITH_SENTINEL: CelRule = CelRule {
    rule: "(self.mode == 'Sentinel') == has(self.masterName)",
    problem: "masterName goes with mode Sentinel",
    problem_expression: None,
    remedy: "Set masterName together with mode Sentinel, and remove it in other modes.",
    field_path: Some(".masterName"),
};

/// Every node has at least one pod, unless the pool is switched off.
pub const REPLICAS_ARE_ZERO_OR_AT_LEAST_NODES: CelRule = CelRule {
    rule: "!has(self.replicas) || self.replicas == 0 || self.replicas >= (has(self.nodes) ? self.nodes : 1)",
    problem: "replicas must be 0 or at least nodes",
    problem_expression: None,
    remedy: "Raise replicas to the number of nodes, or lower nodes.",
    field_path: Some(".replicas"),
};

/// SIP peers accept one host with one address.
pub const SIP_POOL_HAS_ONE_NODE: CelRule = CelRule {
    rule: "!('SIP' in self.roles) || !has(self.nodes) || self.nodes == 1",
    problem: "a pool with the SIP role has exactly one node, since SIP peers accept one host and one address",
    problem_expression: None,
    remedy: "Set nodes to 1 and raise replicas instead.",
    field_path: Some(".nodes"),
};

/// Names of several nodes must differ.
pub const HOSTNAME_NEEDS_NODE: CelRule = CelRule {
    rule: "!has(self.nodes) || self.nodes == 1 || !has(self.expose) || !has(self.expose.hostname) || \
           self.expose.hostname.contains('{node}')",
    problem: "expose.hostname needs {node} when nodes is more than 1",
    problem_expression: None,
    remedy: "Write {node} into expose.hostname, for example xmpp-{node}.edge.example.com.",
    field_path: Some(".expose.hostname"),
};

/// SIP needs a name for Via, Contact and SRV records.
pub const SIP_POOL_HAS_HOSTNAME: CelRule = CelRule {
    rule: "!('SIP' in self.roles) || (has(self.expose) && has(self.expose.hostname))",
    problem: "a pool with the SIP role has no expose.hostname, the name in Via and Contact",
    problem_expression: None,
    remedy: "Set expose.hostname, for example sip.{domain}.",
    field_path: Some(".expose.hostname"),
};

/// A SIP pool listens somewhere.
pub const SIP_POOL_HAS_LISTENER: CelRule = CelRule {
    rule: "!('SIP' in self.roles) || has(self.tls) || \
           (has(self.expose) && has(self.expose.ports) && has(self.expose.ports.sipPlain))",
    problem: "a pool with the SIP role has neither tls nor expose.ports.sipPlain, so it could not listen",
    problem_expression: None,
    remedy: "Set tls, or set expose.ports.sipPlain for a pool that only speaks plain SIP.",
    field_path: Some(".tls"),
};

/// The scale subresource fails without a value.
pub const AUTOSCALING_NEEDS_REPLICAS: CelRule = CelRule {
    rule: "!has(self.autoscaling) || has(self.replicas)",
    problem: "autoscaling needs replicas, the number to start from",
    problem_expression: None,
    remedy: "Set replicas to autoscaling.minReplicas, and let GitOps tools ignore the field.",
    field_path: Some(".replicas"),
};

/// Bounds of an autoscaler are in order.
pub const AUTOSCALING_MIN_AT_MOST_MAX: CelRule = CelRule {
    rule: "self.minReplicas <= self.maxReplicas",
    problem: "minReplicas is more than maxReplicas",
    problem_expression: None,
    remedy: "Lower minReplicas or raise maxReplicas.",
    field_path: Some(".minReplicas"),
};

/// Certificates come from one place.
pub const ISSUER_OR_SECRETS: CelRule = CelRule {
    rule: "has(self.issuerRef) != has(self.secretRefs)",
    problem: "exactly one of issuerRef and secretRefs must be set",
    problem_expression: None,
    remedy: "Set issuerRef to have certificates made, or secretRefs to bring your own.",
    field_path: None,
};

/// A prefix added to names by a tool is an error, not another domain.
pub const LOCAL_DOMAIN_NAME_IS_DOMAIN: CelRule = NAME_IS_DOMAIN;

/// A prefix added to names by a tool is an error, not another domain.
pub const FEDERATED_DOMAIN_NAME_IS_DOMAIN: CelRule = NAME_IS_DOMAIN;

const NAME_IS_DOMAIN: CelRule = CelRule {
    rule: "self.metadata.name == self.spec.domain",
    problem: "metadata.name and spec.domain differ",
    problem_expression: Some("'metadata.name is ' + self.metadata.name + ' but spec.domain is ' + self.spec.domain"),
    remedy: "Make both the same domain, without a prefix or suffix added by a tool.",
    field_path: Some(".spec.domain"),
};

/// A local domain is its object's identity.
pub const LOCAL_DOMAIN_IS_IMMUTABLE: CelRule = DOMAIN_IS_IMMUTABLE;

/// A federated domain is its object's identity.
pub const FEDERATED_DOMAIN_IS_IMMUTABLE: CelRule = DOMAIN_IS_IMMUTABLE;

const DOMAIN_IS_IMMUTABLE: CelRule = CelRule {
    rule: "self.domain == oldSelf.domain",
    problem: "spec.domain cannot be changed",
    problem_expression: None,
    remedy: "Delete the object and create one for the other domain.",
    field_path: Some(".domain"),
};

/// Chat node aliases are names of the domain.
pub const CHAT_ALIASES_LIE_BELOW: CelRule = CelRule {
    rule: "!has(self.chatAliases) || self.chatAliases.all(a, a.host.endsWith('.' + self.domain))",
    problem: "a chat alias lies below its domain",
    problem_expression: None,
    remedy: "Use a name that ends with a dot and the domain, or make a LocalDomain for the other name.",
    field_path: Some(".chatAliases"),
};

/// A local domain is attached in one way.
pub const ONE_BACKEND: CelRule = CelRule {
    rule: "has(self.component) != has(self.xmppServer)",
    problem: "exactly one of component and xmppServer must be set",
    problem_expression: None,
    remedy: "Keep component for external component links, or xmppServer for trusted server-to-server links.",
    field_path: None,
};

/// A domain moves from SIP to XMPP only by a new object.
pub const PROTOCOL_IS_IMMUTABLE: CelRule = CelRule {
    rule: "self.protocol == oldSelf.protocol",
    problem: "spec.protocol cannot be changed",
    problem_expression: Some("'spec.protocol cannot be changed from ' + oldSelf.protocol + ' to ' + self.protocol"),
    remedy: "Delete the FederatedDomain and create it again with the other protocol.",
    field_path: Some(".protocol"),
};

/// The section of the other protocol would be ignored silently.
pub const SECTION_OF_THE_PROTOCOL: CelRule = CelRule {
    rule: "self.protocol == 'SIP' ? has(self.sip) && !has(self.xmpp) : has(self.xmpp) && !has(self.sip)",
    problem: "exactly the section named by spec.protocol must be set",
    problem_expression: None,
    remedy: "Set spec.sip with protocol SIP or spec.xmpp with protocol XMPP, and remove the other.",
    field_path: Some(".protocol"),
};

/// Next hops are for static discovery.
pub const SIP_NEXT_HOPS_GO_WITH_STATIC: CelRule = NEXT_HOPS_GO_WITH_STATIC;

/// Next hops are for static discovery.
pub const XMPP_NEXT_HOPS_GO_WITH_STATIC: CelRule = NEXT_HOPS_GO_WITH_STATIC;

const NEXT_HOPS_GO_WITH_STATIC: CelRule = CelRule {
    rule: "(has(self.discovery) && self.discovery == 'Static') == (has(self.nextHops) && size(self.nextHops) > 0)",
    problem: "nextHops goes with discovery Static",
    problem_expression: None,
    remedy: "Set discovery to Static and list nextHops, or remove both to use DNS.",
    field_path: Some(".nextHops"),
};

/// Microsoft edges never speak plain SIP.
pub const MICROSOFT_EDGES_WANT_TLS: CelRule = CelRule {
    rule: "!has(self.transport) || self.transport == 'TLS' || \
           self.peerType in ['Kamailio', 'OpenSips', 'Sylk', 'SimpleGeneric']",
    problem: "Microsoft edges accept TLS only",
    problem_expression: Some(
        "'peerType ' + self.peerType + ' speaks the Microsoft dialect, and Microsoft edges accept TLS only'",
    ),
    remedy: "Set transport to TLS or remove it, or correct peerType.",
    field_path: Some(".transport"),
};

/// Without TLS a peer is known by its address alone.
pub const PLAIN_GOES_WITH_STATIC: CelRule = CelRule {
    rule: "!has(self.transport) || self.transport == 'TLS' || (has(self.discovery) && self.discovery == 'Static')",
    problem: "without TLS a peer is known by its address only, so transport TCP and UDP go with discovery Static",
    problem_expression: None,
    remedy: "Set discovery to Static and list its servers in nextHops, or set transport to TLS.",
    field_path: Some(".transport"),
};

/// SASL EXTERNAL rests on the certificate.
pub const SASL_EXTERNAL_NEEDS_TLS: CelRule = CelRule {
    rule: "!has(self.auth) || !has(self.auth.methods) || !('SASLExternal' in self.auth.methods) || !has(self.tls) || \
           self.tls != 'Disabled'",
    problem: "SASLExternal rests on a certificate, so it cannot go with tls Disabled",
    problem_expression: None,
    remedy: "Remove SASLExternal from auth.methods, or raise tls to Optional or more.",
    field_path: Some(".auth.methods"),
};

/// A publication publishes something.
pub const PUBLISHES_SOMETHING: CelRule = CelRule {
    rule: "has(self.sip) || has(self.xmpp)",
    problem: "a publication needs sip, xmpp or both",
    problem_expression: None,
    remedy: "Set sip or xmpp with the pool to publish.",
    field_path: None,
};

/// Each way of choosing nodes has its own field.
pub const PUBLISH_MODE_HAS_ITS_FIELD: CelRule = CelRule {
    rule: "(self.mode == 'Count') == has(self.count) && (self.mode == 'Nodes') == (has(self.nodes) && size(self.nodes) > 0)",
    problem: "count goes with mode Count and nodes with mode Nodes",
    problem_expression: None,
    remedy: "Set the field that the mode needs, and remove the other.",
    field_path: Some(".mode"),
};

/// A rule about nobody in particular would be a rule about everybody.
pub const RULE_HAS_A_SIDE: CelRule = CelRule {
    rule: "has(self.remote) || has(self.local)",
    problem: "a rule needs remote, local or both",
    problem_expression: None,
    remedy: "Name the domains or users that the rule is about in remote or local.",
    field_path: None,
};

/// A response belongs to a refusal.
pub const RESPONSE_GOES_WITH_DENY: CelRule = CelRule {
    rule: "self.action == 'Deny' || !has(self.response)",
    problem: "response goes with action Deny",
    problem_expression: None,
    remedy: "Remove response, or set action to Deny.",
    field_path: Some(".response"),
};

/// An empty side would match anyone by accident.
pub const REMOTE_NAMES_SOMEONE: CelRule = SIDE_NAMES_SOMEONE;

/// An empty side would match anyone by accident.
pub const LOCAL_NAMES_SOMEONE: CelRule = SIDE_NAMES_SOMEONE;

const SIDE_NAMES_SOMEONE: CelRule = CelRule {
    rule: "(has(self.domains) && size(self.domains) > 0) || (has(self.users) && size(self.users) > 0)",
    problem: "a side of a rule names no domain and no user",
    problem_expression: None,
    remedy: "List domains or users, or remove the side if the other one is set.",
    field_path: None,
};

/// Every rule text once, for lints and for the generator.
pub const ALL: &[CelRule] = &[
    FEDERATION_IS_NAMED_DEFAULT,
    KEY_PREFIX_IS_IMMUTABLE,
    MASTER_NAME_GOES_WITH_SENTINEL,
    REPLICAS_ARE_ZERO_OR_AT_LEAST_NODES,
    SIP_POOL_HAS_ONE_NODE,
    HOSTNAME_NEEDS_NODE,
    SIP_POOL_HAS_HOSTNAME,
    SIP_POOL_HAS_LISTENER,
    AUTOSCALING_NEEDS_REPLICAS,
    AUTOSCALING_MIN_AT_MOST_MAX,
    ISSUER_OR_SECRETS,
    NAME_IS_DOMAIN,
    DOMAIN_IS_IMMUTABLE,
    CHAT_ALIASES_LIE_BELOW,
    ONE_BACKEND,
    PROTOCOL_IS_IMMUTABLE,
    SECTION_OF_THE_PROTOCOL,
    NEXT_HOPS_GO_WITH_STATIC,
    MICROSOFT_EDGES_WANT_TLS,
    PLAIN_GOES_WITH_STATIC,
    SASL_EXTERNAL_NEEDS_TLS,
    PUBLISHES_SOMETHING,
    PUBLISH_MODE_HAS_ITS_FIELD,
    RULE_HAS_A_SIDE,
    RESPONSE_GOES_WITH_DENY,
    SIDE_NAMES_SOMEONE,
];
