use isthmus_crds::{Kind, validate};
use isthmus_model::Direction;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::fixtures::{
    component, domain, edge, federation, local, object, policy, pool, realm, realm_report, sip, user, xmpp,
};
use crate::{Party, Question, UserList};

fn reasons_of(report: &Report, kind: Kind, name: &str) -> Vec<&'static str> {
    let own = report.snapshot.problems_of(kind, name);
    let listed: Vec<_> = report.problems.iter().filter(|p| p.kind == kind && p.name == name).cloned().collect();
    assert_eq!(own, listed, "the problems of one object are those of the whole list");
    own.iter().map(|problem| problem.reason).collect()
}

#[test]
fn a_domain_declared_for_both_protocols_is_refused() {
    // T-16
    for pair in [
        [sip("partner.example", &json!({})), xmpp("partner.example", &json!({}))],
        [xmpp("partner.example", &json!({})), sip("partner.example", &json!({}))],
    ] {
        let report = realm_report(pair);
        assert!(!report.is_acceptable());
        assert_eq!(reasons_of(&report, Kind::FederatedDomain, "partner.example"), [own_reasons::DUPLICATE_OBJECT]);
        assert!(report.snapshot.federated(&domain("partner.example")).is_none(), "neither is in force");
    }
    // One object with both sections is no way around it.
    let both = sip("partner.example", &json!({"xmpp": {}}));
    let report = realm_report([both]);
    assert!(!report.is_acceptable());
    assert!(report.snapshot.federated(&domain("partner.example")).is_none());
}

#[test]
fn a_federated_domain_that_is_local_takes_no_part_and_the_local_side_wins() {
    let report = realm_report([
        sip("corp.example", &json!({"scope": "Subtree"})),
        sip("rooms.two.example", &json!({})),
        local("two.example", &json!({"chatAliases": [{"host": "rooms.two.example"}]})),
    ]);
    assert!(!report.is_acceptable());
    assert_eq!(reasons_of(&report, Kind::FederatedDomain, "corp.example"), [reasons::DOMAIN_IS_LOCAL]);
    assert_eq!(reasons_of(&report, Kind::FederatedDomain, "rooms.two.example"), [reasons::DOMAIN_IS_CHAT_ALIAS]);
    assert_eq!(reasons_of(&report, Kind::LocalDomain, "corp.example"), [reasons::DOMAIN_IS_FEDERATED]);
    assert_eq!(reasons_of(&report, Kind::LocalDomain, "two.example"), [reasons::DOMAIN_IS_FEDERATED]);
    let snapshot = &report.snapshot;
    assert!(snapshot.local(&domain("corp.example")).is_some());
    assert!(snapshot.federated(&domain("corp.example")).is_none());
    assert!(snapshot.federated(&domain("sub.corp.example")).is_none(), "its subtree is dead too");
    assert!(snapshot.federated_domains().is_empty());
    let text = report.refusals().next().unwrap().to_string();
    assert!(
        text.contains("LocalDomain corp.example") && text.ends_with("Keep the name in one of the two objects only."),
        "{text}"
    );
}

#[test]
fn subdomains_in_both_directions_are_fine() {
    let snapshot = realm([
        sip("foreign.corp.example", &json!({})),
        xmpp("example", &json!({"scope": "Subtree"})),
        local("own.partner.example", &json!({})),
    ]);
    let protocol = |name: &str| snapshot.federated(&domain(name)).map(|entry| entry.protocol);
    assert_eq!(protocol("foreign.corp.example"), Some(Protocol::Sip));
    assert_eq!(protocol("x.foreign.corp.example"), Some(Protocol::Xmpp), "an Exact object stands for its own name");
    assert_eq!(protocol("partner.example"), Some(Protocol::Xmpp));
    assert!(snapshot.is_ours(&domain("own.partner.example")));
}

#[test]
fn a_chat_alias_belongs_to_the_local_domain_of_that_name_or_to_the_most_specific_claimant() {
    let aliases = |hosts: &[&str]| json!({"chatAliases": hosts.iter().map(|h| json!({"host": h})).collect::<Vec<_>>()});
    let report = realm_report([
        local("big.example", &aliases(&["chat.big.example", "r.dept.big.example"])),
        local("chat.big.example", &json!({})),
        local("dept.big.example", &aliases(&["r.dept.big.example"])),
    ]);
    assert_eq!(reasons_of(&report, Kind::LocalDomain, "big.example"), [reasons::ALIAS_CONFLICT]);
    assert_eq!(reasons_of(&report, Kind::LocalDomain, "dept.big.example"), Vec::<&str>::new());
    let owner = |name: &str| report.snapshot.local(&domain(name)).map(|local| local.domain.to_string());
    assert_eq!(owner("big.example"), None, "a domain that is not accepted is answered as unknown");
    assert_eq!(owner("chat.big.example").as_deref(), Some("chat.big.example"));
    assert_eq!(owner("r.dept.big.example").as_deref(), Some("dept.big.example"));
    // When the rivals leave, the domain is back.
    let gone = |name: &str| Change::Remove { kind: Kind::LocalDomain, name: name.to_owned() };
    let later = report.snapshot.apply(gone("chat.big.example"));
    assert!(later.local(&domain("big.example")).is_none());
    // It also is when a rival stays and gives the name up.
    let waived = later.apply(Change::Put(Box::new(local("dept.big.example", &json!({})))));
    assert_eq!(waived.local(&domain("r.dept.big.example")).unwrap().domain, domain("big.example"));
    let later = later.apply(gone("dept.big.example"));
    assert_eq!(later.local(&domain("r.dept.big.example")).unwrap().domain, domain("big.example"));
}

#[test]
fn a_chat_alias_lies_below_its_domain() {
    let report = realm_report([local("two.example", &json!({"chatAliases": [{"host": "rooms.other.example"}]}))]);
    assert_eq!(reasons_of(&report, Kind::LocalDomain, "two.example"), [own_reasons::INVALID_VALUE]);
    assert_eq!(report.problems[0].field, "spec.chatAliases[0].host");
}

fn state_store_reports(federation_spec: &Value, pools: &[(&str, Value)]) -> Vec<String> {
    let pools = pools.iter().map(|(name, spec)| pool(name, spec));
    let report = Snapshot::compile(pools.chain([federation(federation_spec)]));
    let problems = report.problems.iter().filter(|p| p.reason == reasons::STATE_STORE_REQUIRED);
    problems
        .map(|problem| {
            assert_eq!(problem.severity, Severity::Refused);
            assert!(problem.remedy.contains("spec.stateStore"), "{problem}");
            format!("{} {}", problem.name, problem.field)
        })
        .collect()
}

#[test]
fn a_realm_without_state_store_has_one_pod() {
    let sip = |more: Value| {
        let mut spec = json!({"roles": ["SIP"], "expose": {"hostname": "sip.{domain}"}});
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        spec
    };
    let none = json!({});
    let check = |pools: &[(&str, Value)]| state_store_reports(&none, pools);
    assert!(check(&[("a", sip(json!({})))]).is_empty());
    assert!(check(&[("a", sip(json!({"replicas": 1})))]).is_empty());
    assert!(check(&[("a", sip(json!({"replicas": 1}))), ("b", json!({"roles": ["XMPP"], "replicas": 0}))]).is_empty());
    assert_eq!(check(&[("a", sip(json!({"replicas": 2})))]), ["a spec.replicas"]);
    assert_eq!(
        check(&[("a", json!({"roles": ["XMPP"], "nodes": 2, "expose": {"hostname": "x-{node}.example.com"}}))]),
        ["a spec.nodes"]
    );
    let scaled = json!({"replicas": 1, "autoscaling": {"minReplicas": 1, "maxReplicas": 1}});
    assert_eq!(check(&[("a", sip(scaled))]), ["a spec.autoscaling"]);
    // All pools together count, and neither is to be preferred.
    let two =
        [("a", sip(json!({}))), ("b", json!({"roles": ["XMPP"]})), ("c", json!({"roles": ["XMPP"], "replicas": 0}))];
    assert_eq!(check(&two), ["a spec.replicas", "b spec.replicas"]);
    let redis = json!({"stateStore": {"redis": {"mode": "Standalone", "addresses": ["redis:6379"]}}});
    assert!(state_store_reports(&redis, &two).is_empty());
    assert!(state_store_reports(&redis, &[("a", sip(json!({"replicas": 5})))]).is_empty());
}

#[test]
fn missing_objects_are_conditions_and_no_refusals() {
    let report = Snapshot::compile([
        federation(&json!({})),
        pool("edge", &json!({"roles": ["XMPP"]})),
        sip("partner.example", &json!({"poolRef": {"name": "nowhere"}, "localDomains": ["gone.example"]})),
        sip("other.example", &json!({"poolRef": {"name": "edge"}})),
    ]);
    assert!(report.is_acceptable());
    let mut found = reasons_of(&report, Kind::FederatedDomain, "partner.example");
    found.sort_unstable();
    assert_eq!(found, [reasons::LOCAL_DOMAIN_NOT_FOUND, reasons::NO_POOL_WITH_ROLE, reasons::POOL_NOT_FOUND]);
    let other = reasons_of(&report, Kind::FederatedDomain, "other.example");
    assert!(other.contains(&reasons::POOL_LACKS_ROLE), "{other:?}");
    let without = Snapshot::compile([sip("partner.example", &json!({})), edge()]);
    assert!(without.is_acceptable());
    assert_eq!(reasons_of(&without, Kind::FederatedDomain, "partner.example"), [reasons::NO_FEDERATION]);
    assert_eq!(reasons_of(&without, Kind::GatewayPool, "edge"), [reasons::NO_FEDERATION]);
}

#[test]
fn a_component_backend_warns_of_names_that_it_cannot_carry() {
    let report =
        realm_report([component("comp.example", &json!({})), sip("partner.example", &json!({"scope": "Subtree"}))]);
    assert!(report.is_acceptable());
    let [problem] = report.problems.as_slice() else { panic!("{:?}", report.problems) };
    assert_eq!(problem.condition, types::BACKEND_CANNOT_SERVE);
    assert_eq!((problem.kind, problem.field.as_str()), (Kind::FederatedDomain, "spec.scope"));
    assert!(problem.problem.contains("LocalDomain comp.example"));
    let open = federation(&json!({"unlistedDomains": {"xmpp": "Allow"}}));
    let report = Snapshot::compile([open, edge(), component("comp.example", &json!({}))]);
    assert_eq!(report.problems[0].field, "spec.unlistedDomains.xmpp");
    assert_eq!(report.problems[0].condition, types::BACKEND_CANNOT_SERVE);
}

#[test]
fn links_are_one_for_each_name_at_each_server() {
    let keys = json!({"component": {
        "host": "xmpp.internal", "port": 5347, "secretKey": "main", "serviceAddress": "svc.two.example",
        "secretKeys": [{"domain": "b.example", "secretKey": "b-key"}],
    }});
    let snapshot = realm([
        component("one.example", &json!({})),
        component("two.example", &json!({ "backend": keys })),
        component("none.example", &json!({"protocols": ["XMPP"]})),
        sip("a.example", &json!({"localDomains": ["one.example"]})),
        sip("b.example", &json!({"localDomains": ["two.example", "corp.example"], "suspended": true})),
        sip("c.example", &json!({})),
    ]);
    let text: Vec<String> = snapshot
        .component_links()
        .iter()
        .map(|link| {
            let locals: Vec<_> = link.locals.iter().map(ToString::to_string).collect();
            format!("{}:{} {} {} {}", link.host, link.port, link.name, link.secret_key, locals.join(","))
        })
        .collect();
    let expected = [
        "xmpp.internal:5347 a.example main one.example",
        "xmpp.internal:5347 b.example b-key two.example",
        "xmpp.internal:5347 c.example main one.example,two.example",
        "xmpp.internal:5347 fed.none.example main none.example",
        "xmpp.internal:5347 fed.one.example main one.example",
        "xmpp.internal:5347 svc.two.example main two.example",
    ];
    assert_eq!(text, expected);
}

#[test]
fn two_secrets_for_one_component_are_told() {
    let other_key = json!({"component": {"host": "xmpp.internal", "port": 5347, "secretKey": "other"}});
    let report = realm_report([
        component("one.example", &json!({})),
        component("two.example", &json!({ "backend": other_key })),
        sip("a.example", &json!({})),
    ]);
    assert_eq!(reasons_of(&report, Kind::LocalDomain, "two.example"), [own_reasons::SECRET_KEY_CONFLICT]);
    assert!(report.is_acceptable());
}

#[test]
fn our_sip_name_follows_the_template() {
    let spec = json!({"roles": ["SIP"], "expose": {"hostname": "{pool}-{node}.sip.{domain}"}});
    let report = Snapshot::compile([federation(&json!({})), pool("edge", &spec)]);
    let pool = report.snapshot.pool("edge").unwrap();
    assert_eq!(pool.sip_name(&domain("corp.example")).as_deref(), Some("edge-0.sip.corp.example"));
    assert_eq!(pool.host(3, &domain("b.example")).as_deref(), Some("edge-3.sip.b.example"));
    let nameless = Snapshot::compile([pool_without_hostname()]);
    assert_eq!(nameless.problems[0].field, "spec.expose.hostname");
    assert!(nameless.snapshot.pool("edge").is_none());
}

fn pool_without_hostname() -> Object {
    pool("edge", &json!({"roles": ["SIP"]}))
}

#[test]
fn the_snapshot_holds_what_the_gateway_needs_with_defaults_filled_in() {
    let snapshot = realm([
        sip(
            "partner.example",
            &json!({
                "sip": {"peerType": "Kamailio", "transport": "UDP", "discovery": "Static", "nextHops": [{"host": "192.0.2.7", "port": 5060}]},
                "overrides": {"rate": 3}, "limits": {"messagesPerSecond": 9}, "poolRef": {"name": "edge"},
            }),
        ),
        component("two.example", &json!({"tls": {"secretRef": {"name": "two-tls"}}})),
    ]);
    let partner = snapshot.federated(&domain("partner.example")).unwrap();
    assert_eq!(partner.settings.rate, 3);
    assert_eq!(partner.messages_per_second, Some(9));
    assert_eq!(partner.pager_max_bytes(), 1300);
    assert_eq!(partner.next_hops()[0].host, "192.0.2.7");
    assert_eq!(partner.pool.as_deref(), Some("edge"));
    let two = snapshot.local(&domain("two.example")).unwrap();
    let Backend::Component(backend) = &two.backend else { panic!("{two:?}") };
    assert_eq!(backend.service_address, domain("fed.two.example"));
    assert_eq!(two.tls_secret.as_deref(), Some("two-tls"));
    assert_eq!(two.policy.pending_max, std::time::Duration::from_hours(168));
    assert!(two.policy.record_decisions);
    let edge = snapshot.pool("edge").unwrap();
    assert_eq!((edge.ports.sip, edge.ports.sip_plain, edge.admin_port), (5061, None, 9090));
    assert_eq!((edge.limits.connections, edge.log_filter.as_str()), (20_000, "info"));
    assert_eq!((edge.settle.as_secs(), edge.grace.as_secs()), (5, 90));
    let counts = Counts { pools: 1, local_domains: 2, federated_domains: 1, policies: 0 };
    assert_eq!(snapshot.counts(), counts);
}

#[test]
fn what_cannot_be_taken_leaves_its_former_version_in_force() {
    let snapshot = realm([sip("partner.example", &json!({}))]);
    let name = domain("partner.example");
    let broken = sip("partner.example", &json!({"localDomains": ["Not.Canonical"], "suspended": true}));
    let next = snapshot.apply(Change::Put(Box::new(broken)));
    assert!(!next.federated(&name).unwrap().suspended);
    let problems = next.problems_of(Kind::FederatedDomain, "partner.example");
    assert_eq!(problems[0].field, "spec.localDomains[0]");
    assert!(problems[0].remedy.contains("not.canonical"), "{problems:?}");
    let newer = Change::Unreadable {
        kind: Kind::FederatedDomain,
        name: "partner.example".into(),
        detail: "unknown variant".into(),
    };
    let next = next.apply(newer);
    assert!(next.federated(&name).is_some());
    let problems = next.problems_of(Kind::FederatedDomain, "partner.example");
    assert_eq!(problems[0].reason, reasons::UNSUPPORTED_BY_VERSION);
    // A good version clears the fault, and the first snapshot never changed.
    let good = sip("partner.example", &json!({"suspended": true}));
    let next = next.apply(Change::Put(Box::new(good)));
    assert!(next.federated(&name).unwrap().suspended);
    assert!(next.problems().is_empty());
    assert!(!snapshot.federated(&name).unwrap().suspended);
}

#[test]
fn a_domain_that_another_realm_claims_is_answered_as_unknown() {
    let mut claimed = local("two.example", &json!({}));
    if let Object::LocalDomain(inner) = &mut claimed {
        let condition = json!({"type": "Accepted", "status": "False", "reason": "DomainClaimedElsewhere", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        inner.status = Some(serde_json::from_value(json!({ "conditions": [condition] })).unwrap());
    }
    let report = realm_report([claimed]);
    assert_eq!(reasons_of(&report, Kind::LocalDomain, "two.example"), [reasons::DOMAIN_CLAIMED_ELSEWHERE]);
    assert!(report.is_acceptable());
    assert!(report.snapshot.local(&domain("two.example")).is_none());
    assert!(report.snapshot.is_ours(&domain("two.example")), "nobody else may speak for it");
}

#[test]
fn values_that_cannot_be_read_are_told_with_their_field() {
    let wrong = [
        (
            object(
                "FederatedDomain",
                "other.example",
                &json!({"domain": "partner.example", "protocol": "SIP", "sip": {"peerType": "Sylk"}}),
            ),
            "spec.domain",
        ),
        (sip("partner.example", &json!({"sip": {"peerType": "Prosody"}})), "spec.sip.peerType"),
        (sip("partner.example", &json!({"sip": {"peerType": "Sylk", "transport": "UDP"}})), "spec.sip.transport"),
        (policy("p", "Standard", &json!([{"name": "r", "action": "Deny"}])), "spec.rules[0]"),
        (policy("p", "Standard", &json!([{"name": "r", "action": "Deny", "remote": {}}])), "spec.rules[0].remote"),
        (
            policy("p", "Standard", &json!([{"name": "r", "action": "Deny", "remote": {"users": ["x@"]}}])),
            "spec.rules[0].remote.users[0]",
        ),
        (
            policy(
                "p",
                "Standard",
                &json!([{"name": "r", "action": "Allow", "response": "Drop", "local": {"users": ["x@a.example"]}}]),
            ),
            "spec.rules[0].response",
        ),
        (
            pool("p", &json!({"roles": ["XMPP"], "allowedRanges": ["10.0.0.0/33"], "replicas": 0})),
            "spec.allowedRanges[0]",
        ),
        (object("Federation", "other", &json!({})), "metadata.name"),
        (object("LocalDomain", "x.example", &json!({"domain": "x.example", "backend": {}})), "spec.backend"),
    ];
    for (object, field) in wrong {
        let key = (object.kind(), object.name().to_owned());
        let report = realm_report([object]);
        let fields: Vec<_> = report.refusals().map(|p| (p.kind, p.name.clone(), p.field.clone())).collect();
        assert_eq!(fields, [(key.0, key.1, field.to_owned())]);
    }
}

const TREE: [&str; 8] =
    ["example", "a.example", "b.example", "x.a.example", "y.x.a.example", "w.y.x.a.example", "z.b.example", "test"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    // K-33
    // 1,000 random sets of overlapping Subtree and Exact domains against the naive longest match.
    #[test]
    fn the_most_specific_domain_stands_for_a_name(
        set in proptest::collection::btree_map(proptest::sample::select(&TREE), any::<bool>(), 0..8),
        gone in proptest::sample::subsequence(&TREE, 0..4),
    ) {
        let objects = set.iter().map(|(name, subtree)| {
            sip(name, &json!({"scope": if *subtree { "Subtree" } else { "Exact" }}))
        });
        let mut snapshot = realm(objects);
        let mut set: BTreeMap<&str, bool> = set.into_iter().collect();
        for round in 0..2 {
            for name in TREE.iter().copied().chain(["deep.z.b.example", "v.test", "xa.example", "other"]) {
                let expected = set.iter()
                    .filter(|(own, subtree)| **own == name || (**subtree && name.ends_with(&format!(".{own}"))))
                    .max_by_key(|(own, _)| own.len())
                    .map(|(own, _)| (*own).to_owned());
                let found = snapshot.federated(&domain(name)).map(|entry| entry.domain.to_string());
                prop_assert_eq!(found, expected, "{} in round {}", name, round);
            }
            for name in &gone {
                set.remove(name);
                snapshot = snapshot.apply(Change::Remove { kind: Kind::FederatedDomain, name: (*name).to_owned() });
            }
        }
    }
}

const NAMES: [&str; 6] = ["a.test", "b.a.test", "c.b.a.test", "d.test", "e.d.test", "f.test"];

/// An object by its choices, among few names so that they collide.
fn any_object() -> impl Strategy<Value = Object> {
    let name = || proptest::sample::select(&NAMES);
    let names = || proptest::sample::subsequence(&NAMES, 0..4);
    prop_oneof![
        3 => (name(), any::<bool>(), any::<bool>(), names()).prop_map(|(name, is_sip, subtree, locals)| {
            let scope = if subtree { "Subtree" } else { "Exact" };
            let more = if locals.is_empty() { json!({"scope": scope}) } else { json!({"scope": scope, "localDomains": locals}) };
            if is_sip { sip(name, &more) } else { xmpp(name, &more) }
        }),
        3 => (name(), names(), any::<bool>()).prop_map(|(name, others, on_component)| {
            let below: Vec<_> = others.into_iter().filter(|o| o.ends_with(&format!(".{name}"))).map(|o| json!({"host": o})).collect();
            let more = if below.is_empty() { json!({}) } else { json!({"chatAliases": below}) };
            if on_component { component(name, &more) } else { local(name, &more) }
        }),
        1 => (proptest::sample::select(&["p", "q"]), 0..3_u32, any::<bool>()).prop_map(|(name, replicas, is_sip)| {
            let roles = if is_sip { "SIP" } else { "XMPP" };
            pool(name, &json!({"roles": [roles], "replicas": replicas, "expose": {"hostname": "x.{domain}"}}))
        }),
        1 => (proptest::sample::select(&["u", "v"]), name(), any::<bool>(), 0..3_usize).prop_map(|(name, about, deny, tier)| {
            let tier = ["Override", "Standard", "Baseline"][tier];
            let action = if deny { "Deny" } else { "Allow" };
            policy(name, tier, &json!([{"name": "r", "action": action, "remote": {"domains": [about], "includeSubdomains": true}}]))
        }),
        1 => (proptest::sample::select(&["g", "h", "i"]), names(), any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(name, locals, has_sip, has_xmpp, has_view)| {
                let mut spec = json!({});
                if !locals.is_empty() { spec["localDomains"] = json!(locals); }
                if has_sip || !has_xmpp { spec["sip"] = json!({"poolRef": {"name": "p"}}); }
                if has_xmpp { spec["xmpp"] = json!({"poolRef": {"name": "q"}, "publish": {"mode": "All"}}); }
                if has_view { spec["view"] = json!("private"); }
                object("DNSPublication", name, &spec)
            }),
        1 => any::<bool>().prop_map(|open| federation(&if open { json!({"unlistedDomains": {"xmpp": "Allow"}}) } else { json!({}) })),
    ]
}

/// All that can be seen of a snapshot.
fn view(snapshot: &Snapshot) -> (Vec<Problem>, Vec<String>, Vec<crate::ComponentLink>) {
    let mut lines = Vec::new();
    for remote in NAMES.into_iter().chain(["x.a.test", "deep.e.d.test"]) {
        for local in NAMES {
            for direction in [Direction::Inbound, Direction::Outbound] {
                let (remote, local) = (user(&format!("ana@{remote}")), user(&format!("lee@{local}")));
                let question = Question {
                    direction,
                    feature: isthmus_model::Feature::Presence,
                    protocol: None,
                    remote: Party::User(&remote),
                    local: Party::User(&local),
                    user_list: &UserList::EMPTY,
                };
                lines.push(format!("{:?}", snapshot.decide(&question)));
            }
        }
    }
    (snapshot.problems(), lines, snapshot.component_links())
}

fn latest(objects: &[Object]) -> Vec<Object> {
    let mut by_key: BTreeMap<ObjectKey, Object> = BTreeMap::new();
    for object in objects {
        by_key.insert((object.kind(), object.name().to_owned()), object.clone());
    }
    by_key.into_values().collect()
}

proptest! {
    #[test]
    fn a_snapshot_changed_step_by_step_equals_one_compiled_at_once(
        steps in proptest::collection::vec((any_object(), proptest::bool::weighted(0.25)), 0..40)
    ) {
        let mut snapshot = Snapshot::default();
        let mut present: Vec<Object> = Vec::new();
        for (object, removed) in steps {
            let (kind, name) = (object.kind(), object.name().to_owned());
            present.retain(|other| (other.kind(), other.name()) != (kind, name.as_str()));
            snapshot = if removed {
                snapshot.apply(Change::Remove { kind, name })
            } else {
                present.push(object.clone());
                snapshot.apply(Change::Put(Box::new(object)))
            };
        }
        let fresh = Snapshot::compile(present.iter().rev().cloned());
        prop_assert_eq!(&fresh.problems, &fresh.snapshot.problems());
        prop_assert_eq!(view(&snapshot), view(&fresh.snapshot));
        prop_assert_eq!(snapshot.counts(), fresh.snapshot.counts());
    }

    #[test]
    fn the_index_and_the_admission_policies_agree(objects in proptest::collection::vec(any_object(), 0..10)) {
        let objects = latest(&objects);
        let report = Snapshot::compile(objects.clone());
        let documents: Vec<Value> = objects.iter().map(document).collect();
        let mut alias_refused = false;
        let mut alias_found = false;
        for (object, own) in objects.iter().zip(&documents) {
            let (kind, name) = (object.kind(), object.name());
            let found = report.snapshot.problems_of(kind, name);
            let has = |reasons: &[&str]| found.iter().any(|problem| reasons.contains(&problem.reason));
            let refused_by = |other: Kind| {
                let others = documents.iter().filter(|document| Kind::of(document) == Some(other));
                !validate::admit(own, None, others).is_accepted()
            };
            match kind {
                Kind::FederatedDomain => {
                    let local = has(&[reasons::DOMAIN_IS_LOCAL, reasons::DOMAIN_IS_CHAT_ALIAS]);
                    prop_assert_eq!(local, refused_by(Kind::LocalDomain), "VAP-1 on {}", name);
                }
                Kind::LocalDomain => {
                    prop_assert_eq!(has(&[reasons::DOMAIN_IS_FEDERATED]), refused_by(Kind::FederatedDomain), "VAP-2 on {}", name);
                    // The API server refuses whichever comes second; the compiler names the one that has the lesser right.
                    let refused = refused_by(Kind::LocalDomain);
                    prop_assert!(refused || !has(&[reasons::ALIAS_CONFLICT]), "VAP-3 on {}", name);
                    alias_refused |= refused;
                    alias_found |= has(&[reasons::ALIAS_CONFLICT]);
                }
                Kind::DNSPublication => {
                    prop_assert_eq!(has(&[reasons::OVERLAPS_OTHER_PUBLICATION]), refused_by(kind), "VAP-5 on {}", name);
                }
                _ => {}
            }
        }
        prop_assert_eq!(alias_refused, alias_found, "VAP-3 on the set");
    }
}

fn document(object: &Object) -> Value {
    match object {
        Object::Federation(object) => serde_json::to_value(object),
        Object::GatewayPool(object) => serde_json::to_value(object),
        Object::LocalDomain(object) => serde_json::to_value(object),
        Object::FederatedDomain(object) => serde_json::to_value(object),
        Object::DNSPublication(object) => serde_json::to_value(object),
        Object::FederationPolicy(object) => serde_json::to_value(object),
        Object::DomainClaim(object) => serde_json::to_value(object),
    }
    .unwrap()
}
