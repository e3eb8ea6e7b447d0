//! One good document of each kind, and what is said when one thing in it is wrong.

use serde_json::{Value, json};

use super::*;

#[expect(clippy::needless_pass_by_value, reason = "callers write the value in place")]
fn document(kind: Kind, name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "isthmus.dev/v1alpha1", "kind": kind.as_str(), "metadata": {"name": name, "namespace": "n"}, "spec": spec })
}

fn federation() -> Value {
    let redis = json!({"mode": "Standalone", "addresses": ["redis:6379"], "keyPrefix": "p:"});
    document(Kind::Federation, "default", json!({"stateStore": {"redis": redis}}))
}

fn pool() -> Value {
    document(
        Kind::GatewayPool,
        "sip",
        json!({
            "roles": ["SIP"],
            "replicas": 2,
            "expose": {"hostname": "sip.{domain}"},
            "tls": {"secretRefs": [{"name": "tls"}]},
        }),
    )
}

fn local() -> Value {
    document(
        Kind::LocalDomain,
        "corp.example",
        json!({
            "domain": "corp.example",
            "backend": {"component": {"host": "127.0.0.1", "port": 5347, "secretKey": "corp.example"}},
        }),
    )
}

fn sip_domain() -> Value {
    document(
        Kind::FederatedDomain,
        "partner.example",
        json!({
            "domain": "partner.example", "protocol": "SIP", "sip": {"peerType": "Sfb2015"},
        }),
    )
}

fn xmpp_domain() -> Value {
    document(
        Kind::FederatedDomain,
        "friends.example",
        json!({
            "domain": "friends.example", "protocol": "XMPP", "xmpp": {},
        }),
    )
}

fn publication() -> Value {
    document(
        Kind::DNSPublication,
        "public",
        json!({
            "sip": {"poolRef": {"name": "sip"}},
            "xmpp": {"poolRef": {"name": "xmpp"}, "publish": {"mode": "All"}},
        }),
    )
}

fn policy() -> Value {
    document(
        Kind::FederationPolicy,
        "abuse",
        json!({
            "rules": [{"name": "spam", "action": "Deny", "remote": {"domains": ["spam.example"]}}],
        }),
    )
}

fn claim() -> Value {
    let mut claim = document(Kind::DomainClaim, "corp.example", json!({"allowedNamespaces": ["n"]}));
    claim["metadata"].as_object_mut().unwrap().remove("namespace");
    claim
}

/// The document with the value at a JSON pointer set, or removed when the value is `Null`.
fn with(mut document: Value, pointer: &str, value: Value) -> Value {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    let parent = parent.split('/').skip(1).fold(&mut document, |place, step| match step.parse::<usize>() {
        Ok(index) => &mut place[index],
        Err(_) => &mut place[step],
    });
    match value {
        Value::Null => drop(parent.as_object_mut().unwrap().remove(field)),
        value => parent[field] = value,
    }
    document
}

fn said(document: &Value) -> Vec<String> {
    lines(&validate(document, None, UnknownFields::Refuse).violations)
}

fn said_after(document: &Value, old: &Value) -> Vec<String> {
    lines(&validate(document, Some(old), UnknownFields::Refuse).violations)
}

fn lines(violations: &[Violation]) -> Vec<String> {
    violations.iter().map(ToString::to_string).collect()
}

/// Exactly one violation, at this field, with these words, whose last sentence is a remedy.
#[track_caller]
fn refused(document: &Value, field: &str, words: &str) {
    let violations = validate(document, None, UnknownFields::Refuse).violations;
    assert_refused(&violations, field, words);
}

#[track_caller]
fn assert_refused(violations: &[Violation], field: &str, words: &str) {
    assert_eq!(violations.len(), 1, "{:#?}", lines(violations));
    let violation = &violations[0];
    assert_eq!(violation.field_path.to_string(), field, "{violation}");
    assert!(violation.to_string().contains(words), "{violation}");
    assert!(violation.remedy.ends_with('.') && violation.remedy.len() > 10, "{violation}");
    assert!(!violation.message.ends_with('.') && !violation.message.is_empty(), "{violation}");
}

#[test]
fn good_documents_are_accepted() {
    for document in [federation(), pool(), local(), sip_domain(), xmpp_domain(), publication(), policy(), claim()] {
        assert_eq!(said(&document), Vec::<String>::new());
        let (object, warnings) = read(&document, None, UnknownFields::Refuse).unwrap();
        assert_eq!(Some(object.kind()), Kind::of(&document));
        assert!(warnings.is_empty());
    }
}

#[test]
fn every_rule_and_policy_compiles() {
    use kube::core::cel::cel::Program;
    for rule in crate::rules::ALL {
        Program::compile(rule.rule).unwrap();
        rule.message_expression().map(|text| Program::compile(&text).unwrap());
        assert!(rule.remedy.ends_with('.') && !rule.remedy.contains(". "), "{}", rule.remedy);
        assert!(!rule.problem.contains(". ") && !rule.problem.contains('\n'), "{}", rule.problem);
        assert!(!rule.remedy.contains('\''), "{} ends the message expression", rule.remedy);
    }
    for policy in crate::admission::ALL {
        Program::compile(policy.expression).unwrap();
        Program::compile(&policy.message_expression()).unwrap();
        assert!(policy.remedy.ends_with('.') && !policy.remedy.contains(". "), "{}", policy.remedy);
    }
}

#[test]
fn a_foreign_or_unknown_document_is_told_apart() {
    refused(&json!({"apiVersion": "v1", "kind": "Pod"}), "apiVersion", "Write apiVersion: isthmus.dev/v1alpha1.");
    refused(&json!({"apiVersion": "isthmus.dev/v1alpha1", "kind": "Gateway"}), "kind", "Gateway");
    refused(&json!([1, 2]), "apiVersion", "is not isthmus.dev/v1alpha1");
}

#[test]
fn missing_and_mistyped_fields_are_named() {
    refused(&with(sip_domain(), "/spec/protocol", Value::Null), "spec.protocol", "Set spec.protocol.");
    refused(&with(sip_domain(), "/spec", json!([])), "spec", "is not a mapping");
    refused(&with(pool(), "/spec/replicas", json!("2")), "spec.replicas", "Write the number without quotes.");
    refused(&with(pool(), "/spec/replicas", json!(2.5)), "spec.replicas", "2.5 is not a whole number");
    refused(&with(pool(), "/spec/roles", json!("SIP")), "spec.roles", "is not a list");
    refused(&with(sip_domain(), "/metadata/name", Value::Null), "metadata.name", "missing");
    refused(&with(sip_domain(), "/metadata/labels", json!({"a": 1})), "metadata.labels.a", "Put the value in quotes.");
    // What YAML makes of an unquoted Off.
    let off = with(federation(), "/spec/trust", json!({"dane": false}));
    refused(&off, "spec.trust.dane", "YAML reads on, off, yes, no, true and false as truth values");
}

#[test]
fn words_bounds_and_patterns_are_explained() {
    refused(&with(sip_domain(), "/spec/protocol", json!("Sip")), "spec.protocol", "is not one of SIP, XMPP");
    let hops = json!({"peerType": "Kamailio", "discovery": "Static", "nextHops": [{"host": "h", "port": 70000}]});
    refused(&with(sip_domain(), "/spec/sip", hops), "spec.sip.nextHops[0].port", "70000 is more than 65535");
    let ports = json!({"hostname": "sip.{domain}", "ports": {"sip": 443}});
    refused(&with(pool(), "/spec/expose", ports), "spec.expose.ports.sip", "443 is less than 1024");
    let drain = json!({"grace": "90"});
    refused(&with(pool(), "/spec/drain", drain), "spec.drain.grace", "for example 90s or 1h30m");
    let drain = json!({"grace": "999999999999h"});
    refused(&with(pool(), "/spec/drain", drain), "spec.drain.grace", "Write at most 87600h.");
    refused(&with(pool(), "/spec/roles", json!([])), "spec.roles", "fewer than 1");
    refused(&with(pool(), "/spec/logFilter", json!("a\nb")), "spec.logFilter", "single line");
    refused(&with(pool(), "/metadata/name", json!("9pool")), "metadata.name", "beginning with a letter");
    refused(&with(pool(), "/metadata/name", json!("a".repeat(41))), "metadata.name", "at most 40");
    let cpu = json!({"requests": {"cpu": "lots"}});
    refused(&with(pool(), "/spec/resources", cpu), "spec.resources.requests.cpu", "500m or 256Mi");
    let resolver = json!({"addresses": ["192.0.2.53"]});
    refused(&with(federation(), "/spec/resolver", resolver), "spec.resolver.addresses[0]", "Write ip:port");
}

// K-12
#[test]
fn domains_are_lower_case_a_labels() {
    for bad in [
        "Partner.example",
        "partner_x.example",
        "partner.example.",
        "bücher.example",
        "localhost",
        "-a.example",
        "1.2.3.4",
    ] {
        let document = with(with(sip_domain(), "/spec/domain", json!(bad)), "/metadata/name", json!("partner.example"));
        refused(&document, "spec.domain", "xn--bcher-kva.example");
    }
    for good in ["a.example", "xn--bcher-kva.example", "a-b.c1.example", "x.xn--p1ai"] {
        let document = with(with(sip_domain(), "/spec/domain", json!(good)), "/metadata/name", json!(good));
        assert_eq!(said(&document), Vec::<String>::new());
    }
}

#[test]
fn hosts_and_addresses_may_be_local_for_tests() {
    let hops = |host: &str| json!({"peerType": "Kamailio", "discovery": "Static", "transport": "UDP", "nextHops": [{"host": host, "port": 25060}]});
    for good in ["127.0.0.1", "::1", "2001:db8::20", "localhost", "sip.partner.example", "Host_1.svc"] {
        assert_eq!(said(&with(sip_domain(), "/spec/sip", hops(good))), Vec::<String>::new(), "{good}");
    }
    for bad in ["[::1]", "host:5060", "a b", "", "-x", "sip:host", "host/path"] {
        refused(
            &with(sip_domain(), "/spec/sip", hops(bad)),
            "spec.sip.nextHops[0].host",
            "without a port and without brackets",
        );
    }
    let expose =
        json!({"hostname": "sip.{domain}", "bind": ["127.0.0.1", "::1"], "adminPort": 65535, "ports": {"sip": 1024}});
    assert_eq!(said(&with(pool(), "/spec/expose", expose)), Vec::<String>::new());
}

#[test]
fn unknown_fields_are_errors_or_warnings_and_a_likely_spelling_is_offered() {
    let document = with(sip_domain(), "/spec/sip", json!({"peerType": "Sfb2015", "peerIdentites": ["a.example"]}));
    refused(&document, "spec.sip.peerIdentites", "Write peerIdentities, or remove the field.");
    let report = validate(&document, None, UnknownFields::Warn);
    assert!(report.is_accepted());
    assert_eq!(report.warnings.len(), 1);
    refused(&with(sip_domain(), "/spec/nat", json!({})), "spec.nat", "no such field exists");
    refused(&with(sip_domain(), "/metadata/lables", json!({})), "metadata.lables", "Write labels");
    refused(&with(sip_domain(), "/specs", json!({})), "specs", "Write spec");
    // Keys of maps are the user's own, and odd ones print safely.
    let labels = json!({"isthmus.dev/pool": "x"});
    assert_eq!(said(&with(sip_domain(), "/metadata/labels", labels)), Vec::<String>::new());
    refused(&with(sip_domain(), "/spec/a\nb", json!(1)), "spec[\"a\\nb\"]", "no such field exists");
}

#[test]
fn what_repeats_in_a_set_or_a_keyed_list_is_refused() {
    refused(&with(pool(), "/spec/roles", json!(["SIP", "SIP"])), "spec.roles[1]", "\"SIP\" is listed twice");
    let sip = json!({"peerType": "Kamailio", "discovery": "Static",
        "nextHops": [{"host": "a", "port": 1}, {"host": "a", "port": 2}, {"host": "a", "port": 1}]});
    refused(&with(sip_domain(), "/spec/sip", sip), "spec.sip.nextHops[2]", "host \"a\" and port 1");
}

#[test]
fn explicit_nulls_count_as_absent_and_status_is_not_judged() {
    let mut document = sip_domain();
    document["spec"]["poolRef"] = Value::Null;
    document["spec"]["xmpp"] = Value::Null;
    document["status"] = json!({"no": "such field", "conditions": 3});
    assert_eq!(said(&document), Vec::<String>::new());
    assert!(read(&document, None, UnknownFields::Refuse).is_ok());
    document["spec"]["protocol"] = Value::Null;
    refused(&document, "spec.protocol", "missing");
    refused(&with(pool(), "/spec/roles", json!([null])), "spec.roles[0]", "null");
}

// K-08
#[test]
fn a_name_that_is_not_the_domain_is_refused_with_both() {
    for document in [sip_domain(), local()] {
        let domain = document["spec"]["domain"].as_str().unwrap().to_owned();
        let document = with(document, "/metadata/name", json!("prod-x.example"));
        refused(&document, "spec.domain", "prod-x.example");
        refused(&document, "spec.domain", &domain);
    }
}

// K-09, K-90
#[test]
fn a_protocol_changes_only_by_delete_and_create() {
    let old = sip_domain();
    let mut new = with(with(old.clone(), "/spec/protocol", json!("XMPP")), "/spec/xmpp", json!({}));
    new["spec"].as_object_mut().unwrap().remove("sip");
    assert_eq!(said(&new), Vec::<String>::new());
    let violations = validate(&new, Some(&old), UnknownFields::Refuse).violations;
    assert_refused(&violations, "spec.protocol", "Delete the FederatedDomain and create it again");
    assert!(violations[0].to_string().contains("from SIP to XMPP"));
    assert_eq!(said_after(&old, &old), Vec::<String>::new());
    // The old state of another kind is no old state.
    assert_eq!(said_after(&new, &local()), Vec::<String>::new());
}

// K-10
#[test]
fn exactly_the_section_of_the_protocol_is_set() {
    let neither = with(sip_domain(), "/spec/sip", Value::Null);
    let both = with(sip_domain(), "/spec/xmpp", json!({}));
    let wrong = with(neither.clone(), "/spec/xmpp", json!({}));
    for document in [neither, both, wrong] {
        refused(&document, "spec.protocol", "exactly the section named by spec.protocol");
    }
}

// K-13
#[test]
fn a_sip_pool_with_two_nodes_is_told_to_raise_replicas() {
    let document = with(with(pool(), "/spec/nodes", json!(2)), "/spec/expose/hostname", json!("sip-{node}.{domain}"));
    refused(&document, "spec.nodes", "raise replicas");
}

#[test]
fn replicas_are_zero_or_at_least_nodes() {
    let xmpp = with(with(pool(), "/spec/roles", json!(["XMPP"])), "/spec/expose/hostname", json!("x-{node}.example"));
    let xmpp = with(xmpp, "/spec/nodes", json!(3));
    refused(&xmpp, "spec.replicas", "at least nodes");
    for replicas in [0, 3, 512] {
        assert_eq!(said(&with(xmpp.clone(), "/spec/replicas", json!(replicas))), Vec::<String>::new());
    }
    refused(
        &with(with(xmpp, "/spec/replicas", json!(3)), "/spec/expose/hostname", json!("x.example")),
        "spec.expose.hostname",
        "{node}",
    );
}

#[test]
fn a_sip_pool_has_a_hostname_and_a_listener() {
    refused(&with(pool(), "/spec/expose", json!({"type": "ClusterIP"})), "spec.expose.hostname", "sip.{domain}");
    refused(&with(pool(), "/spec/tls", Value::Null), "spec.tls", "plain SIP");
    let plain = with(with(pool(), "/spec/tls", Value::Null), "/spec/expose/ports", json!({"sipPlain": 5060}));
    assert_eq!(said(&plain), Vec::<String>::new());
    let both = json!({"secretRefs": [{"name": "a"}], "issuerRef": {"name": "i", "kind": "Issuer"}});
    refused(&with(pool(), "/spec/tls", both), "spec.tls", "exactly one of issuerRef and secretRefs");
    refused(&with(pool(), "/spec/tls", json!({})), "spec.tls", "exactly one of issuerRef and secretRefs");
    let scaled = with(
        with(pool(), "/spec/replicas", Value::Null),
        "/spec/autoscaling",
        json!({"minReplicas": 1, "maxReplicas": 2}),
    );
    refused(&scaled, "spec.replicas", "autoscaling needs replicas");
    let scaled = with(pool(), "/spec/autoscaling", json!({"minReplicas": 3, "maxReplicas": 2}));
    refused(&scaled, "spec.autoscaling.minReplicas", "more than maxReplicas");
}

// K-15
#[test]
fn a_federation_is_named_default() {
    refused(&with(federation(), "/metadata/name", json!("main")), "document", "metadata.name is main");
}

// K-16
#[test]
fn a_chat_alias_lies_below_its_domain() {
    for (alias, fits) in [("rooms.corp.example", true), ("rooms.other.example", false), ("xcorp.example", false)] {
        let document = with(local(), "/spec/chatAliases", json!([{"host": alias}]));
        if fits {
            assert_eq!(said(&document), Vec::<String>::new());
        } else {
            refused(&document, "spec.chatAliases", "below its domain");
        }
    }
    let backend =
        json!({"xmppServer": {"host": "h", "port": 5269}, "component": {"host": "h", "port": 5347, "secretKey": "k"}});
    refused(&with(local(), "/spec/backend", backend), "spec.backend", "exactly one of component and xmppServer");
    refused(&with(local(), "/spec/backend", json!({})), "spec.backend", "exactly one of component and xmppServer");
}

// K-17
#[test]
fn a_microsoft_peer_speaks_tls_only() {
    use crate::peer_type::{Dialect, PeerType};
    for peer in PeerType::sip() {
        for transport in ["TLS", "TCP", "UDP"] {
            let sip = json!({"peerType": peer.as_str(), "transport": transport,
                "discovery": "Static", "nextHops": [{"host": "h", "port": 5061}]});
            let document = with(sip_domain(), "/spec/sip", sip);
            if transport == "TLS" || peer.dialect() == Dialect::StandardSip {
                assert_eq!(said(&document), Vec::<String>::new(), "{peer} {transport}");
            } else {
                refused(&document, "spec.sip.transport", "accept TLS only");
            }
        }
    }
    let dns = json!({"peerType": "Kamailio", "transport": "UDP"});
    refused(&with(sip_domain(), "/spec/sip", dns), "spec.sip.transport", "discovery Static");
    let xmpp_type = json!({"peerType": "Prosody"});
    refused(&with(sip_domain(), "/spec/sip", xmpp_type), "spec.sip.peerType", "is not one of OcsR2");
}

// K-18
#[test]
fn next_hops_go_with_static_discovery() {
    for (document, section) in [(sip_domain(), "sip"), (xmpp_domain(), "xmpp")] {
        let hops = json!([{"host": "h", "port": 5269}]);
        let place = |field: &str| format!("/spec/{section}/{field}");
        let field = format!("spec.{section}.nextHops");
        refused(&with(document.clone(), &place("nextHops"), hops.clone()), &field, "goes with discovery Static");
        let fixed = with(document, &place("discovery"), json!("Static"));
        refused(&fixed, &field, "goes with discovery Static");
        assert_eq!(said(&with(fixed, &place("nextHops"), hops)), Vec::<String>::new());
    }
    let auth = json!({"tls": "Disabled", "auth": {"methods": ["SASLExternal"]}});
    refused(&with(xmpp_domain(), "/spec/xmpp", auth), "spec.xmpp.auth.methods", "Remove SASLExternal");
}

// K-19, K-90
#[test]
fn the_key_prefix_is_neither_changed_nor_added_nor_removed() {
    let old = federation();
    let bare = with(old.clone(), "/spec/stateStore/redis/keyPrefix", Value::Null);
    let without = with(old.clone(), "/spec/stateStore", Value::Null);
    let changed = with(old.clone(), "/spec/stateStore/redis/keyPrefix", json!("q:"));
    for (new, old) in [(&changed, &old), (&bare, &old), (&without, &old), (&old, &bare), (&old, &without)] {
        let violations = validate(new, Some(old), UnknownFields::Refuse).violations;
        assert_refused(&violations, "spec", "keyPrefix can neither be changed, added nor removed");
    }
    assert_eq!(said_after(&bare, &without), Vec::<String>::new());
    assert_eq!(said_after(&old, &old), Vec::<String>::new());
    let sentinel = with(old, "/spec/stateStore/redis/mode", json!("Sentinel"));
    refused(&sentinel, "spec.stateStore.redis.masterName", "masterName goes with mode Sentinel");
}

#[test]
fn a_domain_is_the_identity_of_its_object() {
    let old = local();
    let new = with(with(local(), "/spec/domain", json!("x.example")), "/metadata/name", json!("x.example"));
    let violations = validate(&new, Some(&old), UnknownFields::Refuse).violations;
    assert_refused(&violations, "spec.domain", "cannot be changed");
}

#[test]
fn publications_and_policies_say_what_they_are_about() {
    refused(&with(publication(), "/spec", json!({})), "spec", "sip, xmpp or both");
    for publish in [
        json!({"mode": "Count"}),
        json!({"mode": "All", "count": 1}),
        json!({"mode": "Nodes"}),
        json!({"mode": "Nodes", "nodes": []}),
        json!({"mode": "Nodes", "nodes": [1], "count": 1}),
    ] {
        refused(
            &with(publication(), "/spec/xmpp/publish", publish),
            "spec.xmpp.publish.mode",
            "count goes with mode Count",
        );
    }
    refused(&with(policy(), "/spec/rules/0/remote", Value::Null), "spec.rules[0]", "remote, local or both");
    refused(&with(policy(), "/spec/rules/0/remote", json!({})), "spec.rules[0].remote", "names no domain and no user");
    let allow = with(with(policy(), "/spec/rules/0/action", json!("Allow")), "/spec/rules/0/response", json!("Drop"));
    refused(&allow, "spec.rules[0].response", "response goes with action Deny");
    for bad in ["mallory", "@partner.example", "mallory@Partner.example", "a@b@c.example", "a b@c.example"] {
        let document = with(policy(), "/spec/rules/0/remote", json!({"users": [bad]}));
        refused(&document, "spec.rules[0].remote.users[0]", "user@domain");
    }
}

// K-23, K-24
#[test]
fn a_domain_is_not_both_local_and_federated() {
    let alias = with(local(), "/spec/chatAliases", json!([{"host": "rooms.corp.example"}]));
    for name in ["corp.example", "rooms.corp.example"] {
        let fed = with(with(sip_domain(), "/spec/domain", json!(name)), "/metadata/name", json!(name));
        let report = admit(&fed, None, [&alias, &federation(), &fed]);
        assert_refused(&report.violations, "spec.domain", "LocalDomain corp.example");
        let report = admit(&alias, None, [&fed, &alias]);
        assert_refused(&report.violations, "spec.domain", &format!("FederatedDomain {name}"));
        // Another namespace is another realm.
        let elsewhere = with(alias.clone(), "/metadata/namespace", json!("other"));
        assert!(admit(&fed, None, [&elsewhere]).is_accepted());
        // What is stored already can be edited elsewhere than in the spec.
        assert!(admit(&fed, Some(&fed), [&alias]).is_accepted());
    }
}

#[test]
fn parents_children_and_siblings_of_a_local_domain_may_be_federated() {
    let local =
        with(with(local(), "/spec/domain", json!("im.corp.example")), "/metadata/name", json!("im.corp.example"));
    for name in ["corp.example", "eu.im.corp.example", "sip.corp.example"] {
        let fed = with(with(sip_domain(), "/spec/domain", json!(name)), "/metadata/name", json!(name));
        assert!(admit(&fed, None, [&local]).is_accepted());
        assert!(admit(&local, None, [&fed]).is_accepted());
    }
}

#[test]
fn a_chat_alias_is_nobody_elses() {
    let first = with(local(), "/spec/chatAliases", json!([{"host": "rooms.corp.example"}]));
    let below =
        with(with(local(), "/spec/domain", json!("rooms.corp.example")), "/metadata/name", json!("rooms.corp.example"));
    for (object, other) in [(&below, &first), (&first, &below)] {
        assert_refused(&admit(object, None, [other]).violations, "spec.chatAliases", "collides with LocalDomain");
    }
    assert!(admit(&first, None, [&first]).is_accepted());
}

// K-27
#[test]
fn publications_of_one_view_do_not_overlap() {
    let first = publication();
    let second = with(publication(), "/metadata/name", json!("second"));
    assert_refused(&admit(&second, None, [&first, &second]).violations, "spec.localDomains", "DNSPublication public");
    let private = with(second.clone(), "/spec/view", json!("private"));
    assert!(admit(&private, None, [&first]).is_accepted());
    let a = with(first.clone(), "/spec/localDomains", json!(["a.example"]));
    let b = with(second.clone(), "/spec/localDomains", json!(["b.example"]));
    assert!(admit(&b, None, [&a]).is_accepted());
    let ab = with(second.clone(), "/spec/localDomains", json!(["b.example", "a.example"]));
    assert!(!admit(&ab, None, [&a]).is_accepted());
    // One publishes SIP, the other XMPP.
    let sip = with(first, "/spec/xmpp", Value::Null);
    let xmpp = with(second, "/spec/sip", Value::Null);
    assert!(admit(&xmpp, None, [&sip]).is_accepted());
}

// K-28
#[test]
fn a_claimed_domain_belongs_to_the_claims_namespaces() {
    assert!(admit(&local(), None, [&claim()]).is_accepted());
    let elsewhere = with(claim(), "/spec/allowedNamespaces", json!(["other"]));
    assert_refused(&admit(&local(), None, [&elsewhere]).violations, "spec.domain", "does not allow the namespace n");
}

#[test]
fn a_sametime_peer_with_several_targets_is_a_warning() {
    let fed = with(xmpp_domain(), "/spec/xmpp", json!({"peerType": "SametimeXmpp"}));
    let report = admit(&fed, None, [&publication()]);
    assert!(report.is_accepted());
    assert_eq!(report.warnings.len(), 1);
    let single = with(publication(), "/spec/xmpp/publish", json!({"mode": "Count", "count": 1}));
    assert!(admit(&fed, None, [&single]).warnings.is_empty());
}

#[test]
fn odd_documents_never_panic() {
    let mut deep = json!(1);
    for _ in 0..100 {
        deep = json!([{"a": deep}]);
    }
    for odd in [Value::Null, json!(1), json!("x"), json!([]), json!({}), deep.clone()] {
        assert!(!validate(&odd, None, UnknownFields::Refuse).is_accepted());
        for field in ["/spec", "/metadata", "/spec/sip", "/spec/sip/peerType", "/spec/localDomains", "/spec/domain"] {
            let document = with(sip_domain(), field, odd.clone());
            let _ = validate(&document, Some(&document), UnknownFields::Warn);
            let _ = admit(&document, Some(&sip_domain()), [&document, &local()]);
            let _ = parse_kind(&document);
        }
    }
}

#[test]
fn paths_have_segments_pointers_and_text() {
    let mut path = FieldPath::from_keys(["spec", "a.b/c"]);
    path.push_index(2);
    assert_eq!(path.to_string(), "spec[\"a.b/c\"][2]");
    assert_eq!(path.to_pointer(), "/spec/a.b~1c/2");
    assert_eq!(path.segments().len(), 3);
    assert_eq!(FieldPath::default().to_string(), "document");
}
