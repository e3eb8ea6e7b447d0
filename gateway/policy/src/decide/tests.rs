use isthmus_crds::Object;
use isthmus_model::EpochMillis;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::fixtures::{component, domain, edge, federation, local, policy, pool, realm, sip, user, xmpp};
use crate::user_list::ListEntry;

/// A question about `remote` and `local` (users or domains), asked of a snapshot.
struct Ask<'a> {
    direction: Direction,
    feature: Feature,
    protocol: Option<Protocol>,
    remote: &'a str,
    local: &'a str,
    list: UserList,
}

impl Default for Ask<'_> {
    fn default() -> Self {
        Self {
            direction: Direction::Inbound,
            feature: Feature::Presence,
            protocol: Some(Protocol::Sip),
            remote: "ana@partner.example",
            local: "lee@corp.example",
            list: UserList::EMPTY,
        }
    }
}

impl Ask<'_> {
    fn with<T>(&self, then: impl FnOnce(&Question<'_>) -> T) -> T {
        let users = [self.remote, self.local].map(|text| text.contains('@').then(|| user(text)));
        let domains = [self.remote, self.local].map(|text| domain(text.rsplit('@').next().unwrap()));
        let [remote, local] = [0, 1].map(|at| match &users[at] {
            Some(user) => Party::User(user),
            None => Party::Domain(&domains[at]),
        });
        then(&Question {
            direction: self.direction,
            feature: self.feature,
            protocol: self.protocol,
            remote,
            local,
            user_list: &self.list,
        })
    }

    fn of(&self, snapshot: &Snapshot) -> Decision {
        self.with(|question| {
            let decision = snapshot.decide(question);
            let explained = snapshot.explain(question);
            assert_eq!(explained.decision, decision, "deciding and explaining are one evaluation");
            decision
        })
    }

    fn lines(&self, snapshot: &Snapshot) -> Vec<String> {
        self.with(|question| snapshot.explain(question).lines)
    }
}

fn listed(subject: &str, action: ListAction, source: Source) -> UserList {
    let subject = if subject.contains('@') { Subject::User(user(subject)) } else { Subject::Domain(domain(subject)) };
    let mut list = UserList::default();
    list.add(ListEntry { subject, action, source, by: "lee@corp.example".into(), created: EpochMillis(1) }, 10)
        .unwrap();
    list
}

fn partner() -> Object {
    sip("partner.example", &json!({}))
}

fn gate(decision: &Decision) -> Gate {
    assert_eq!(decision.access, Access::NotPermitted);
    match decision.cause {
        Cause::Gate(gate) => gate,
        ref other => panic!("decided by {other:?}"),
    }
}

#[test]
fn a_domain_that_is_not_listed_is_refused_whatever_the_user_says() {
    let list = listed("ana@partner.example", ListAction::Allow, Source::User);
    let ask = Ask { list, ..Ask::default() };
    let decision = ask.of(&realm([]));
    assert_eq!(gate(&decision), Gate::NotListed);
    // Nothing but the domain was looked at.
    let lines = ask.lines(&realm([]));
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[1].contains("no FederatedDomain stands for the remote domain"));
}

#[test]
fn each_gate_shuts_by_itself() {
    let ask = Ask::default();
    let with = |objects: Vec<Object>| gate(&ask.of(&realm(objects)));
    assert_eq!(with(vec![xmpp("partner.example", &json!({}))]), Gate::WrongProtocol);
    assert_eq!(with(vec![sip("partner.example", &json!({"suspended": true}))]), Gate::Suspended);
    let other_only = json!({"localDomains": ["other.example"]});
    let other = local("other.example", &json!({}));
    assert_eq!(with(vec![sip("partner.example", &other_only), other]), Gate::NotAdmitted);
    let snapshot = realm([partner()]);
    assert_eq!(gate(&Ask { local: "lee@nowhere.example", ..Ask::default() }.of(&snapshot)), Gate::NotLocal);
    assert_eq!(gate(&Ask { remote: "mia@corp.example", ..Ask::default() }.of(&snapshot)), Gate::RemoteIsLocal);
    let xmpp_only = local("xmpp.example", &json!({"protocols": ["XMPP"]}));
    let offered = Ask { local: "lee@xmpp.example", ..Ask::default() };
    assert_eq!(gate(&offered.of(&realm([partner(), xmpp_only]))), Gate::ProtocolNotOffered);
    let subtree = [sip("partner.example", &json!({"scope": "Subtree"})), component("comp.example", &json!({}))];
    let below = Ask { remote: "ana@a.partner.example", local: "lee@comp.example", ..Ask::default() };
    let subtree = realm(subtree);
    assert_eq!(gate(&below.of(&subtree)), Gate::BackendCannotServe);
    assert_eq!(Ask { local: "lee@comp.example", ..Ask::default() }.of(&subtree).access, Access::Prompt);
    let base = [local("corp.example", &json!({})), partner()];
    assert_eq!(gate(&ask.of(&Snapshot::compile(base.clone()).snapshot)), Gate::NoFederation);
    let xmpp_pool = pool("xmpp", &json!({"roles": ["XMPP"]}));
    let without_role = base.into_iter().chain([federation(&json!({})), xmpp_pool]);
    assert_eq!(gate(&ask.of(&Snapshot::compile(without_role).snapshot)), Gate::NoPoolWithRole);
}

#[test]
fn the_gates_hold_outbound_too_and_the_users_list_does_not() {
    let outbound = |remote| Ask { direction: Direction::Outbound, protocol: None, remote, ..Ask::default() };
    let snapshot = realm([partner(), xmpp("chat.example", &json!({"suspended": true}))]);
    assert_eq!(gate(&outbound("x@unknown.example").of(&snapshot)), Gate::NotListed);
    assert_eq!(gate(&outbound("x@chat.example").of(&snapshot)), Gate::Suspended);
    let list = listed("ana@partner.example", ListAction::Block, Source::User);
    for feature in [Feature::Presence, Feature::Message] {
        let ask = Ask { list: list.clone(), feature, ..outbound("ana@partner.example") };
        assert_eq!(ask.of(&snapshot), Decision { access: Access::Allow, cause: Cause::Permitted });
    }
}

#[test]
fn unlisted_domains_are_open_for_xmpp_alone() {
    // K-36
    let open = federation(&json!({"unlistedDomains": {"xmpp": "Allow"}}));
    let allow_all = policy(
        "all",
        "Override",
        &json!([
            {"name": "us", "action": "Allow", "local": {"domains": ["corp.example"]}},
            {"name": "them", "action": "Allow", "remote": {"domains": ["partner.example"]}},
        ]),
    );
    let objects = [edge(), local("corp.example", &json!({})), allow_all];
    let closed = Snapshot::compile(objects.clone().into_iter().chain([federation(&json!({}))])).snapshot;
    let open = Snapshot::compile(objects.into_iter().chain([open])).snapshot;
    let by_sip = Ask::default();
    let by_xmpp = Ask { protocol: Some(Protocol::Xmpp), ..Ask::default() };
    assert_eq!(gate(&by_sip.of(&closed)), Gate::NotListed);
    assert_eq!(gate(&by_sip.of(&open)), Gate::NotListed);
    assert_eq!(gate(&by_xmpp.of(&closed)), Gate::NotListed);
    assert_eq!(by_xmpp.of(&open).access, Access::Allow);
    let outbound = Ask { direction: Direction::Outbound, protocol: None, ..Ask::default() };
    assert_eq!(outbound.of(&open).access, Access::Allow);
}

#[test]
fn the_default_of_the_local_domain_decides_last() {
    let cases = [
        (json!({}), Access::Prompt, Access::Allow),
        (json!({"default": "Allow"}), Access::Allow, Access::Allow),
        (json!({"default": "Block"}), Access::BlockPolite, Access::BlockPolite),
        (json!({"default": "Block", "denyMode": "Reject"}), Access::BlockReject, Access::BlockReject),
    ];
    for (local_policy, presence, message) in cases {
        let snapshot = realm([partner(), local("own.example", &json!({ "policy": local_policy }))]);
        let ask = |feature| Ask { local: "lee@own.example", feature, ..Ask::default() }.of(&snapshot).access;
        assert_eq!(ask(Feature::Presence), presence, "{local_policy}");
        assert_eq!(ask(Feature::Message), message, "{local_policy}");
    }
}

#[test]
fn the_users_list_decides_before_the_default_and_in_the_domains_way_of_refusing() {
    let snapshot = realm([
        partner(),
        local("open.example", &json!({"policy": {"default": "Allow", "denyMode": "Reject"}})),
        local("shut.example", &json!({"policy": {"default": "Block"}})),
    ]);
    let ask =
        |local, list: &UserList, feature| Ask { local, list: list.clone(), feature, ..Ask::default() }.of(&snapshot);
    let block = listed("ana@partner.example", ListAction::Block, Source::User);
    assert_eq!(ask("lee@open.example", &block, Feature::Message).access, Access::BlockReject);
    assert_eq!(ask("lee@corp.example", &block, Feature::Presence).access, Access::BlockPolite);
    let allow = listed("partner.example", ListAction::Allow, Source::User);
    let decision = ask("lee@shut.example", &allow, Feature::Presence);
    assert_eq!(decision.access, Access::Allow);
    let cause = Cause::UserList { by_user: false, action: ListAction::Allow, source: Source::User };
    assert_eq!(decision.cause, cause);
    // Declined presence, then a message: delivered, since only presence was declined.
    let declined = listed("ana@partner.example", ListAction::Block, Source::Xmpp);
    assert_eq!(ask("lee@corp.example", &declined, Feature::Presence).access, Access::BlockPolite);
    assert_eq!(ask("lee@corp.example", &declined, Feature::Message).access, Access::Allow);
}

fn deny(name: &str, more: &Value) -> Value {
    let mut rule = json!({"name": name, "action": "Deny"});
    for (key, value) in more.as_object().unwrap() {
        rule[key] = value.clone();
    }
    rule
}

#[test]
fn tiers_stand_around_the_users_list() {
    let rule = |action: &str| json!([{"name": "r", "action": action, "remote": {"domains": ["partner.example"]}}]);
    let allow = listed("ana@partner.example", ListAction::Allow, Source::User);
    let block = listed("ana@partner.example", ListAction::Block, Source::User);
    let ask = |policies: Vec<Object>, list: &UserList| {
        let snapshot = realm(policies.into_iter().chain([partner()]));
        Ask { list: list.clone(), ..Ask::default() }.of(&snapshot)
    };
    for tier in ["Override", "Standard"] {
        assert_eq!(ask(vec![policy("p", tier, &rule("Deny"))], &allow).access, Access::NotPermitted, "{tier}");
        assert_eq!(ask(vec![policy("p", tier, &rule("Allow"))], &block).access, Access::Allow, "{tier}");
    }
    let baseline = || policy("p", "Baseline", &rule("Deny"));
    assert_eq!(ask(vec![baseline()], &allow).access, Access::Allow);
    let decision = ask(vec![baseline()], &UserList::EMPTY);
    assert_eq!((decision.access, decision.cause.label()), (Access::NotPermitted, "policy-baseline"));
    let both = || vec![policy("o", "Override", &rule("Allow")), policy("s", "Standard", &rule("Deny"))];
    assert_eq!(ask(both(), &UserList::EMPTY).access, Access::Allow);
}

#[test]
fn a_refusal_looks_as_the_rule_says_or_as_its_subject_suggests() {
    let by_user = json!({"users": ["ana@partner.example"]});
    let by_domain = json!({"domains": ["partner.example"]});
    let cases = [
        (json!({"remote": by_user}), Access::BlockPolite, Access::NotPermitted),
        (json!({"remote": by_domain}), Access::NotPermitted, Access::NotPermitted),
        (json!({"remote": by_user, "response": "Reject"}), Access::BlockReject, Access::NotPermitted),
        (json!({"remote": by_domain, "response": "Polite"}), Access::BlockPolite, Access::BlockPolite),
        (json!({"remote": by_domain, "response": "Drop"}), Access::Drop, Access::Drop),
        (
            json!({"remote": by_domain, "local": {"users": ["lee@corp.example"]}}),
            Access::BlockPolite,
            Access::NotPermitted,
        ),
        (json!({"local": {"domains": ["corp.example"]}}), Access::NotPermitted, Access::NotPermitted),
    ];
    for (rule, inbound, outbound) in cases {
        let snapshot = realm([partner(), policy("p", "Standard", &json!([deny("r", &rule)]))]);
        assert_eq!(Ask::default().of(&snapshot).access, inbound, "{rule}");
        let out = Ask { direction: Direction::Outbound, protocol: None, ..Ask::default() };
        assert_eq!(out.of(&snapshot).access, outbound, "{rule}");
    }
}

#[test]
fn the_most_specific_subject_wins() {
    let allow = |name: &str, more: &Value| {
        let mut rule = deny(name, more);
        rule["action"] = json!("Allow");
        rule
    };
    let user = json!({"users": ["ana@partner.example"]});
    let domain = json!({"domains": ["partner.example"]});
    let tree = json!({"domains": ["example"], "includeSubdomains": true});
    let local_user = json!({"users": ["lee@corp.example"]});
    let local_domain = json!({"domains": ["corp.example"]});
    // Of each pair the former decides.
    let pairs = [
        (json!({"remote": user}), json!({"remote": domain})),
        (json!({"remote": domain}), json!({"remote": tree})),
        (json!({"remote": tree}), json!({"remote": {"domains": ["other.example"]}})),
        (json!({"local": local_user}), json!({"remote": domain})),
        (json!({"remote": user}), json!({"local": local_user})),
        (json!({"remote": domain}), json!({"local": local_domain})),
        (json!({"local": local_domain}), json!({"remote": tree})),
        (json!({"remote": user, "local": local_domain}), json!({"remote": user})),
        (json!({"remote": domain, "local": local_domain}), json!({"remote": domain})),
    ];
    for (winner, loser) in pairs {
        for deny_wins in [true, false] {
            let rules = if deny_wins {
                json!([deny("w", &winner), allow("l", &loser)])
            } else {
                json!([allow("w", &winner), deny("l", &loser)])
            };
            let snapshot = realm([partner(), policy("p", "Standard", &rules)]);
            let decision = Ask::default().of(&snapshot);
            let Cause::Rule(rule) = &decision.cause else { panic!("{decision:?}") };
            assert_eq!(rule.name, "w", "{winner} before {loser}");
            assert_eq!(decision.access == Access::Allow, !deny_wins);
        }
    }
}

#[test]
fn of_two_equal_rules_deny_decides_and_both_are_named() {
    // K-35
    let remote = json!({"users": ["ana@partner.example"]});
    let rules = |first: &str, second: &str| {
        [
            policy("a", "Standard", &json!([{"name": "one", "action": first, "remote": remote}])),
            policy("b", "Standard", &json!([{"name": "two", "action": second, "remote": remote}])),
        ]
    };
    for (first, second) in [("Allow", "Deny"), ("Deny", "Allow")] {
        let snapshot = realm(rules(first, second).into_iter().chain([partner()]));
        assert_eq!(Ask::default().of(&snapshot).access, Access::BlockPolite);
        let text = Ask::default().lines(&snapshot).join("\n");
        assert!(text.contains("FederationPolicy a rule one") && text.contains("FederationPolicy b rule two"), "{text}");
    }
}

#[test]
fn rules_keep_to_their_protocols_directions_and_features() {
    let rule = deny(
        "r",
        &json!({
            "remote": {"domains": ["partner.example"]},
            "protocols": ["SIP"], "directions": ["Outbound"], "features": ["Message", "Other"],
        }),
    );
    let snapshot = realm([partner(), policy("p", "Standard", &json!([rule]))]);
    for direction in [Direction::Inbound, Direction::Outbound] {
        for feature in [Feature::Presence, Feature::Message, Feature::GroupChat, Feature::Other] {
            let refused = Ask { direction, feature, ..Ask::default() }.of(&snapshot).access == Access::NotPermitted;
            let expected = direction == Direction::Outbound && matches!(feature, Feature::Message | Feature::Other);
            assert_eq!(refused, expected, "{direction:?} {feature:?}");
        }
    }
    let over_xmpp = realm([
        xmpp("partner.example", &json!({})),
        policy(
            "p",
            "Standard",
            &json!([deny("r", &json!({"remote": {"domains": ["partner.example"]}, "protocols": ["SIP"]}))]),
        ),
    ]);
    assert_eq!(Ask { protocol: Some(Protocol::Xmpp), ..Ask::default() }.of(&over_xmpp).access, Access::Prompt);
}

#[test]
fn an_explanation_names_every_step() {
    let snapshot = realm([
        partner(),
        policy("abuse", "Override", &json!([deny("spam", &json!({"remote": {"domains": ["spam.example"]}}))])),
    ]);
    let list = listed("partner.example", ListAction::Block, Source::User);
    let lines = Ask { list, ..Ask::default() }.lines(&snapshot);
    let expected = [
        "question: Inbound Presence between remote ana@partner.example and local lee@corp.example",
        "domain: permitted by FederatedDomain partner.example (SIP, peer SimpleGeneric)",
        "tier Override: no rule matches",
        "tier Standard: no rule matches",
        "user's list: Block Domain(partner.example) (User, by lee@corp.example)",
        "decision: BlockPolite, because the user's list blocks this domain (set by the user)",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn deciding_allocates_nothing() {
    let rules = json!([
        deny("a", &json!({"remote": {"domains": ["example"], "includeSubdomains": true}, "features": ["GroupChat"]})),
        deny("b", &json!({"remote": {"users": ["ana@partner.example"]}, "response": "Drop"})),
    ]);
    let snapshot = realm([partner(), policy("p", "Baseline", &rules)]);
    let list = listed("other@partner.example", ListAction::Allow, Source::User);
    let ask = Ask { feature: Feature::Message, list, ..Ask::default() };
    ask.with(|question| {
        let mut decision = None;
        let counted = allocation_counter::measure(|| decision = Some(snapshot.decide(question)));
        assert_eq!(decision.unwrap().access, Access::Drop);
        assert_eq!(counted.count_total, 0);
        let counted = allocation_counter::measure(|| drop(snapshot.explain(question)));
        assert!(counted.count_total > 0, "the counter counts");
    });
}

const DOMAINS: [&str; 6] = ["example", "a.example", "b.example", "x.a.example", "y.x.a.example", "z.b.example"];
const LOCALS: [&str; 2] = ["corp.test", "two.test"];
const USERS: [&str; 2] = ["ana", "bob"];

/// A rule as plain values, for the oracle and for the manifest.
#[derive(Debug, Clone)]
struct Plain {
    tier: usize,
    deny: bool,
    response: Option<usize>,
    remote: Option<(Vec<&'static str>, bool, Vec<String>)>,
    local: Option<(Vec<&'static str>, Vec<String>)>,
    inbound_only: bool,
}

const TIERS: [&str; 3] = ["Override", "Standard", "Baseline"];
const RESPONSES: [&str; 3] = ["Reject", "Polite", "Drop"];

fn any_user(domains: &'static [&'static str]) -> impl Strategy<Value = String> {
    (proptest::sample::select(&USERS), proptest::sample::select(domains)).prop_map(|(u, d)| format!("{u}@{d}"))
}

fn any_rule() -> impl Strategy<Value = Plain> {
    let remote = (
        proptest::collection::btree_set(proptest::sample::select(&DOMAINS), 0..3),
        any::<bool>(),
        proptest::collection::btree_set(any_user(&DOMAINS), 0..3),
    );
    let local = (
        proptest::collection::btree_set(proptest::sample::select(&LOCALS), 0..2),
        proptest::collection::btree_set(any_user(&LOCALS), 0..2),
    );
    let sides = (proptest::option::of(remote), proptest::option::of(local));
    (0..3_usize, any::<bool>(), proptest::option::of(0..3_usize), sides, any::<bool>())
        .prop_map(|(tier, deny, response, (remote, local), inbound_only)| Plain {
            tier,
            deny,
            response: response.filter(|_| deny),
            remote: remote.map(|(d, sub, u)| (d.into_iter().collect(), sub, u.into_iter().collect())),
            local: local.map(|(d, u)| (d.into_iter().collect(), u.into_iter().collect())),
            inbound_only,
        })
        .prop_filter("a rule names someone", |rule| {
            let remote = rule.remote.as_ref().is_none_or(|(d, _, u)| d.len() + u.len() > 0);
            let local = rule.local.as_ref().is_none_or(|(d, u)| d.len() + u.len() > 0);
            remote && local && (rule.remote.is_some() || rule.local.is_some())
        })
}

impl Plain {
    fn manifest(&self, name: &str) -> Value {
        let mut rule = json!({"name": name, "action": if self.deny { "Deny" } else { "Allow" }});
        if let Some(at) = self.response {
            rule["response"] = json!(RESPONSES[at]);
        }
        if let Some((domains, sub, users)) = &self.remote {
            rule["remote"] = json!({"domains": domains, "includeSubdomains": sub, "users": users});
        }
        if let Some((domains, users)) = &self.local {
            rule["local"] = json!({"domains": domains, "users": users});
        }
        if self.inbound_only {
            rule["directions"] = json!(["Inbound"]);
        }
        rule
    }

    /// How specific the rule is for a pair, in the words of the specification: each side 0 for any, 1000 for a user, 900 for
    /// the domain, else the length of the subtree's name.
    fn naive_weight(&self, remote: &str, local: &str) -> Option<(usize, bool, usize)> {
        let (remote_domain, local_domain) = (remote.split('@').nth(1)?, local.split('@').nth(1)?);
        let r = match &self.remote {
            None => 0,
            Some((_, _, users)) if users.iter().any(|u| u == remote) => 1000,
            Some((domains, _, _)) if domains.contains(&remote_domain) => 900,
            Some((domains, true, _)) => {
                domains.iter().filter(|d| remote_domain.ends_with(&format!(".{d}"))).map(|d| d.len()).max()?
            }
            Some(_) => return None,
        };
        let l = match &self.local {
            None => 0,
            Some((_, users)) if users.iter().any(|u| u == local) => 1000,
            Some((domains, _)) if domains.contains(&local_domain) => 900,
            Some(_) => return None,
        };
        Some((r.max(l), r >= l, r.min(l)))
    }
}

/// Decides by trying every rule; presence, no list, default Prompt.
fn naive(rules: &[Plain], direction: Direction, remote: &str, local: &str) -> Access {
    for tier in 0..3 {
        let mut matching: Vec<_> = rules
            .iter()
            .filter(|rule| rule.tier == tier && (direction == Direction::Inbound || !rule.inbound_only))
            .filter_map(|rule| rule.naive_weight(remote, local).map(|weight| (weight, rule)))
            .collect();
        let Some(best) = matching.iter().map(|(weight, _)| *weight).max() else { continue };
        matching.retain(|(weight, _)| *weight == best);
        let by_user = best.0 == 1000;
        let default = usize::from(by_user && direction == Direction::Inbound);
        let denials: Vec<usize> =
            matching.iter().filter(|(_, rule)| rule.deny).map(|(_, rule)| rule.response.unwrap_or(default)).collect();
        return match denials.iter().max() {
            None => Access::Allow,
            Some(2) => Access::Drop,
            Some(1) => Access::BlockPolite,
            Some(_) if by_user && direction == Direction::Inbound => Access::BlockReject,
            Some(_) => Access::NotPermitted,
        };
    }
    if direction == Direction::Inbound { Access::Prompt } else { Access::Allow }
}

/// Puts rules into objects: `split` says which policy takes which rule, `prefix` makes other names.
fn policies(rules: &[Plain], split: &[usize], prefix: &str, stamp: &str) -> Vec<Object> {
    let mut objects: Vec<Object> = Vec::new();
    for (tier, word) in TIERS.iter().enumerate() {
        for part in 0..3 {
            let chosen =
                rules.iter().enumerate().filter(|(at, rule)| rule.tier == tier && split[at % split.len()] == part);
            let manifests: Vec<Value> = chosen.map(|(at, rule)| rule.manifest(&format!("{prefix}{at}"))).collect();
            if manifests.is_empty() {
                continue;
            }
            let mut object = policy(&format!("{prefix}{part}-{tier}"), word, &json!(manifests));
            if let Object::FederationPolicy(inner) = &mut object {
                let metadata = json!({"name": inner.metadata.name, "namespace": "im-edge", "creationTimestamp": stamp});
                inner.metadata = serde_json::from_value(metadata).unwrap();
            }
            objects.push(object);
        }
    }
    objects
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    // K-34
    // 1,000 random sets of policies, each decided under two arrangements of names, ages and order.
    #[test]
    fn decisions_depend_on_the_rules_alone(
        rules in proptest::collection::vec(any_rule(), 1..10),
        split in proptest::collection::vec(0..3_usize, 1..5),
    ) {
        let base = || {
            let federated = DOMAINS.iter().map(|name| sip(name, &json!({})));
            let locals = LOCALS.iter().map(|name| local(name, &json!({})));
            federated.chain(locals).collect::<Vec<_>>()
        };
        let first = realm(base().into_iter().chain(policies(&rules, &split, "a", "2026-01-01T00:00:00Z")));
        let mut turned = rules.clone();
        turned.reverse();
        let mut second = policies(&turned, &[2, 0, 1], "z", "2020-01-01T00:00:00Z");
        second.reverse();
        let second = realm(second.into_iter().chain(base()));
        for remote_domain in DOMAINS {
            for remote_user in USERS {
                for local in LOCALS.map(|name| format!("ana@{name}")) {
                    for direction in [Direction::Inbound, Direction::Outbound] {
                        let remote = format!("{remote_user}@{remote_domain}");
                        let ask = Ask { direction, remote: &remote, local: &local, ..Ask::default() };
                        let expected = naive(&rules, direction, &remote, &local);
                        prop_assert_eq!(ask.of(&first).access, expected, "{} {} {:?}", remote, local, direction);
                        prop_assert_eq!(ask.of(&second).access, expected);
                    }
                }
            }
        }
    }
}
