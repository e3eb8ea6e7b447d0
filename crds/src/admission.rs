//! The texts of the admission policies VAP-1 to VAP-7: rules between objects.
//!
//! In a cluster they become ValidatingAdmissionPolicies, evaluated once per param object of the request's namespace, all
//! results ANDed. In process [`crate::validate::admit`] evaluates them pairwise over small sets; over thousands of objects the
//! compiler's index decides the same. Every text begins with `params == null ||`, since no policy demands that another object
//! exists. A refusal reads `<problem>. <remedy>`.

use crate::object::Kind;

/// What a policy does about an object that does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforcement {
    /// Refuses it.
    Deny,
    /// Lets it pass with a warning.
    Warn,
}

/// One admission policy.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionPolicy {
    /// Its number in the API's documentation, for example `VAP-1`.
    pub id: &'static str,
    /// Name of the policy object, without the prefix of a release.
    pub name: &'static str,
    /// The kind that is judged.
    pub kind: Kind,
    /// The kind of the other objects, when there are any.
    pub params: Option<Kind>,
    /// The expression; `object`, `oldObject`, `params` and `namespaceObject` are bound.
    pub expression: &'static str,
    /// CEL expression that says what is wrong, with names in it, without a full stop.
    pub problem_expression: &'static str,
    /// What is wrong when the expression above cannot be evaluated.
    pub problem: &'static str,
    /// What to do: one sentence with a full stop.
    pub remedy: &'static str,
    /// The field at fault.
    pub field_path: &'static str,
    /// Refuse or warn.
    pub enforcement: Enforcement,
    /// True when the expression asks the API server's authorizer, which does not exist in process.
    pub needs_authorizer: bool,
}

impl AdmissionPolicy {
    /// The `messageExpression` of the policy object.
    pub fn message_expression(&self) -> String {
        format!("{} + '. {}'", self.problem_expression, self.remedy)
    }

    /// The static message of the policy object.
    pub fn message(&self) -> String {
        format!("{}. {}", self.problem, self.remedy)
    }
}

/// `matchConditions` of every policy: an update that leaves the spec alone is not judged again.
pub const SPEC_CHANGED: &str = "oldObject == null || object.spec != oldObject.spec";

/// A remote domain is not a local one, nor a local chat alias.
pub const VAP_1: AdmissionPolicy = AdmissionPolicy {
    id: "VAP-1",
    name: "federated-domain-is-not-local",
    kind: Kind::FederatedDomain,
    params: Some(Kind::LocalDomain),
    expression: "params == null || (object.spec.domain != params.spec.domain && (!has(params.spec.chatAliases) || \
                 params.spec.chatAliases.all(a, a.host != object.spec.domain)))",
    problem_expression: "'the domain ' + object.spec.domain + ' is the domain or a chat alias of LocalDomain ' + params.metadata.name",
    problem: "the domain is a local domain or a chat alias of one",
    remedy: "Remove this FederatedDomain, or remove the domain from the LocalDomain.",
    field_path: "spec.domain",
    enforcement: Enforcement::Deny,
    needs_authorizer: false,
};

/// A local domain, or its chat alias, is not a remote one.
pub const VAP_2: AdmissionPolicy = AdmissionPolicy {
    id: "VAP-2",
    name: "local-domain-is-not-federated",
    kind: Kind::LocalDomain,
    params: Some(Kind::FederatedDomain),
    expression: "params == null || (object.spec.domain != params.spec.domain && (!has(object.spec.chatAliases) || \
                 object.spec.chatAliases.all(a, a.host != params.spec.domain)))",
    problem_expression: "'the domain ' + params.spec.domain + ' is federated by FederatedDomain ' + params.metadata.name",
    problem: "the domain or one of its chat aliases is a federated domain",
    remedy: "Remove the FederatedDomain, or remove the name from this LocalDomain.",
    field_path: "spec.domain",
    enforcement: Enforcement::Deny,
    needs_authorizer: false,
};

/// A chat alias is not another local domain or its alias.
pub const VAP_3: AdmissionPolicy = AdmissionPolicy {
    id: "VAP-3",
    name: "chat-alias-is-unique",
    kind: Kind::LocalDomain,
    params: Some(Kind::LocalDomain),
    expression: "params == null || params.metadata.name == object.metadata.name || \
                 ((!has(object.spec.chatAliases) || object.spec.chatAliases.all(a, a.host != params.spec.domain)) && \
                 (!has(params.spec.chatAliases) || params.spec.chatAliases.all(a, a.host != object.spec.domain)) && \
                 (!has(object.spec.chatAliases) || !has(params.spec.chatAliases) || \
                 object.spec.chatAliases.all(a, params.spec.chatAliases.all(b, a.host != b.host))))",
    problem_expression: "'a chat alias collides with LocalDomain ' + params.metadata.name + ' or one of its aliases'",
    problem: "a chat alias collides with another LocalDomain or one of its aliases",
    remedy: "Keep the name in one of the two LocalDomains only.",
    field_path: "spec.chatAliases",
    enforcement: Enforcement::Deny,
    needs_authorizer: false,
};

/// A local domain belongs to one realm of the cluster.
pub const VAP_4: AdmissionPolicy = AdmissionPolicy {
    id: "VAP-4",
    name: "local-domain-is-claimed",
    kind: Kind::LocalDomain,
    params: Some(Kind::DomainClaim),
    // The word `namespace` is reserved in CEL, hence this spelling.
    expression: "params == null || params.metadata.name != object.spec.domain || \
                 namespaceObject.metadata.name in params.spec.allowedNamespaces",
    problem_expression: "'DomainClaim ' + params.metadata.name + ' does not allow the namespace ' + namespaceObject.metadata.name",
    problem: "the domain is claimed for another namespace",
    remedy: "Ask the platform team to add the namespace to the DomainClaim.",
    field_path: "spec.domain",
    enforcement: Enforcement::Deny,
    needs_authorizer: false,
};

/// One SIP target, and one set of XMPP targets, per local domain and DNS view.
pub const VAP_5: AdmissionPolicy = AdmissionPolicy {
    id: "VAP-5",
    name: "publications-do-not-overlap",
    kind: Kind::DNSPublication,
    params: Some(Kind::DNSPublication),
    expression: "params == null || params.metadata.name == object.metadata.name || \
                 (has(object.spec.view) ? object.spec.view : '') != (has(params.spec.view) ? params.spec.view : '') || \
                 ((!has(object.spec.sip) || !has(params.spec.sip)) && (!has(object.spec.xmpp) || !has(params.spec.xmpp))) || \
                 (has(object.spec.localDomains) && has(params.spec.localDomains) && \
                 !object.spec.localDomains.exists(d, d in params.spec.localDomains))",
    problem_expression: "'this publication and DNSPublication ' + params.metadata.name + ' publish the same local domains in one view'",
    problem: "another DNSPublication publishes the same local domains in one view",
    remedy: "List different localDomains in the two, or give them different values of view.",
    field_path: "spec.localDomains",
    enforcement: Enforcement::Deny,
    needs_authorizer: false,
};

/// A Sametime peer tries the first target only.
pub const VAP_6: AdmissionPolicy = AdmissionPolicy {
    id: "VAP-6",
    name: "sametime-tries-one-target",
    kind: Kind::FederatedDomain,
    params: Some(Kind::DNSPublication),
    expression: "params == null || !has(object.spec.xmpp) || !has(object.spec.xmpp.peerType) || \
                 object.spec.xmpp.peerType != 'SametimeXmpp' || !has(params.spec.xmpp) || \
                 (params.spec.xmpp.publish.mode == 'Count' && params.spec.xmpp.publish.count == 1)",
    problem_expression: "'a Sametime peer tries the first target only, and DNSPublication ' + params.metadata.name + ' may publish several'",
    problem: "a Sametime peer tries the first target only, and several may be published",
    remedy: "Publish with mode Count and count 1, or accept that this peer has no high availability.",
    field_path: "spec.xmpp.peerType",
    enforcement: Enforcement::Warn,
    needs_authorizer: false,
};

/// The tier Override is for platform teams.
pub const VAP_7: AdmissionPolicy = AdmissionPolicy {
    id: "VAP-7",
    name: "override-needs-permission",
    kind: Kind::FederationPolicy,
    params: None,
    expression: "!has(object.spec.tier) || object.spec.tier != 'Override' || \
                 authorizer.group('isthmus.dev').resource('federationpolicies').namespace(namespaceObject.metadata.name).check('override').allowed()",
    problem_expression: "'the tier Override needs the verb override on federationpolicies in the namespace ' + namespaceObject.metadata.name",
    problem: "the tier Override needs the verb override on federationpolicies",
    remedy: "Use the tier Standard, or ask the platform team for the role isthmus-policy-admin.",
    field_path: "spec.tier",
    enforcement: Enforcement::Deny,
    needs_authorizer: true,
};

/// All policies, in order.
pub const ALL: &[AdmissionPolicy] = &[VAP_1, VAP_2, VAP_3, VAP_4, VAP_5, VAP_6, VAP_7];
