//! What the generated CRDs must and must not hold, read from the committed files as the API server would read them.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail loudly")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;

use isthmus_crds::{Kind, manifest, rules};
use serde_json::{Map, Value};

/// Text and content of each committed file, read once.
static COMMITTED: LazyLock<BTreeMap<Kind, (String, Value)>> = LazyLock::new(|| {
    Kind::ALL
        .iter()
        .map(|&kind| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(manifest::file_name(kind));
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let document = serde_saphyr::from_str(&text).unwrap();
            (kind, (text, document))
        })
        .collect()
});

fn text(kind: Kind) -> &'static str {
    &COMMITTED[&kind].0
}

fn crd(kind: Kind) -> &'static Value {
    &COMMITTED[&kind].1
}

fn schema(kind: Kind) -> &'static Value {
    crd(kind).pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap()
}

/// Calls `each` with the path and content of every schema node.
fn visit(path: &str, node: &Value, each: &mut dyn FnMut(&str, &Map<String, Value>)) {
    let object = node.as_object().unwrap_or_else(|| panic!("{path} is no schema"));
    each(path, object);
    for (name, child) in object.get("properties").and_then(Value::as_object).into_iter().flatten() {
        visit(&format!("{path}.{name}"), child, each);
    }
    if let Some(items) = object.get("items") {
        visit(&format!("{path}[]"), items, each);
    }
    if let Some(values) = object.get("additionalProperties") {
        visit(&format!("{path}{{}}"), values, each);
    }
}

fn visit_all(each: &mut dyn FnMut(&str, &Map<String, Value>)) {
    for &kind in Kind::ALL {
        visit(kind.as_str(), schema(kind), each);
    }
}

fn type_of(node: &Map<String, Value>) -> Option<&str> {
    node.get("type").and_then(Value::as_str)
}

/// The shapes of Kubernetes' own pod fields, which we take as they are: their lists of terms have no keys.
fn is_of_kubernetes(path: &str) -> bool {
    ["affinity", "tolerations", "topologySpreadConstraints"]
        .iter()
        .any(|field| path.starts_with(&format!("GatewayPool.spec.pod.{field}")))
}

// K-01
#[test]
fn committed_files_are_what_the_generator_writes() {
    for &kind in Kind::ALL {
        assert!(
            text(kind) == manifest::file_text(kind),
            "{} is stale: run `cargo run -p isthmus-crds --bin crdgen`",
            manifest::file_name(kind)
        );
    }
}

// K-01
#[test]
fn names_are_frozen() {
    let golden = [
        ("Federation", "federations", "federation", "fed", "Namespaced"),
        ("GatewayPool", "gatewaypools", "gatewaypool", "gwp", "Namespaced"),
        ("LocalDomain", "localdomains", "localdomain", "ldom", "Namespaced"),
        ("FederatedDomain", "federateddomains", "federateddomain", "fdom", "Namespaced"),
        ("DNSPublication", "dnspublications", "dnspublication", "dnsp", "Namespaced"),
        ("FederationPolicy", "federationpolicies", "federationpolicy", "fpol", "Namespaced"),
        ("DomainClaim", "domainclaims", "domainclaim", "dclaim", "Cluster"),
    ];
    assert_eq!(Kind::ALL.len(), golden.len());
    for (&kind, (name, plural, singular, short, scope)) in Kind::ALL.iter().zip(golden) {
        let crd = crd(kind);
        assert_eq!(crd["metadata"]["name"], format!("{plural}.isthmus.dev"));
        assert_eq!(crd["spec"]["group"], "isthmus.dev");
        assert_eq!(crd["spec"]["scope"], scope);
        assert_eq!(crd["spec"]["names"]["kind"], name);
        assert_eq!(crd["spec"]["names"]["plural"], plural);
        assert_eq!(crd["spec"]["names"]["singular"], singular);
        assert_eq!(crd["spec"]["names"]["shortNames"], serde_json::json!([short]));
        assert_eq!(crd["spec"]["names"]["categories"], serde_json::json!(["isthmus"]));
        let versions = crd["spec"]["versions"].as_array().unwrap();
        assert_eq!(versions.len(), 1);
        assert_eq!(versions[0]["name"], "v1alpha1");
        assert_eq!((&versions[0]["served"], &versions[0]["storage"]), (&true.into(), &true.into()));
        assert_eq!(versions[0]["subresources"]["status"], serde_json::json!({}));
        assert_eq!(crd["metadata"]["annotations"]["isthmus.dev/channel"], "standard");
        assert_eq!(crd["metadata"]["annotations"]["isthmus.dev/bundle-version"], env!("CARGO_PKG_VERSION"));
    }
    let pool = crd(Kind::GatewayPool);
    assert_eq!(
        pool["spec"]["versions"][0]["subresources"]["scale"],
        serde_json::json!({
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        })
    );
}

// K-02
#[test]
fn nothing_is_nullable_and_nothing_unknown_is_preserved() {
    visit_all(&mut |path, node| {
        for keyword in ["nullable", "x-kubernetes-preserve-unknown-fields", "$ref", "oneOf", "allOf", "not"] {
            assert!(!node.contains_key(keyword), "{path} has {keyword}");
        }
        let words = node.get("enum").and_then(Value::as_array);
        assert!(words.is_none_or(|words| !words.is_empty() && words.iter().all(Value::is_string)), "{path}: {words:?}");
        let int_or_string = node.contains_key("x-kubernetes-int-or-string");
        assert_eq!(node.contains_key("anyOf"), int_or_string, "{path}");
        assert_eq!(type_of(node).is_none(), int_or_string, "{path} has no type");
        assert!(
            !(node.contains_key("properties") && node.contains_key("additionalProperties")),
            "{path} is both a structure and a map"
        );
    });
}

// K-03
#[test]
fn everything_has_a_bound_and_no_rule_matches_patterns() {
    visit_all(&mut |path, node| {
        match type_of(node) {
            Some("array") => assert!(node.contains_key("maxItems"), "{path} has no maxItems"),
            Some("string") => assert!(
                ["enum", "format", "maxLength"].iter().any(|bound| node.contains_key(*bound)),
                "{path} has no maxLength"
            ),
            Some("object") if node.contains_key("additionalProperties") => {
                assert!(node.contains_key("maxProperties"), "{path} has no maxProperties");
            }
            _ => {}
        }
        for rule in node.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten() {
            assert!(!rule["rule"].as_str().unwrap().contains("matches("), "{path}: {rule}");
        }
    });
}

// K-04
#[test]
fn lists_of_objects_have_keys_and_conditions_are_keyed_by_type() {
    for &kind in Kind::ALL {
        let schema = schema(kind);
        let conditions = schema.pointer("/properties/status/properties/conditions").unwrap();
        assert_eq!(conditions["x-kubernetes-list-type"], "map", "{kind}");
        assert_eq!(conditions["x-kubernetes-list-map-keys"], serde_json::json!(["type"]), "{kind}");
        assert_eq!(conditions["maxItems"], 12, "{kind}");
    }
    visit_all(&mut |path, node| {
        if type_of(node) != Some("array") || is_of_kubernetes(path) {
            return;
        }
        let items = node["items"].as_object().unwrap();
        let list_type = node.get("x-kubernetes-list-type").and_then(Value::as_str);
        if type_of(items) == Some("object") {
            assert_eq!(list_type, Some("map"), "{path}");
            let required = items["required"].as_array().unwrap();
            for key in node["x-kubernetes-list-map-keys"].as_array().unwrap() {
                assert!(required.contains(key), "{path}: the key {key} may be absent");
            }
        } else {
            assert!(matches!(list_type, Some("set" | "atomic")), "{path}: {list_type:?}");
        }
    });
}

// K-05
#[test]
fn nothing_has_a_default() {
    visit_all(&mut |path, node| assert!(!node.contains_key("default"), "{path} has a default"));
}

#[test]
fn selectable_fields_and_columns_begin_with_a_dot_and_exist() {
    for &kind in Kind::ALL {
        let crd = crd(kind);
        let version = &crd["spec"]["versions"][0];
        let mut known = BTreeSet::new();
        visit("", schema(kind), &mut |path, _| {
            known.insert(path.to_owned());
        });
        let columns = version["additionalPrinterColumns"].as_array().unwrap().iter();
        let selectable = version.get("selectableFields").and_then(Value::as_array).into_iter().flatten();
        for entry in columns.chain(selectable) {
            let path = entry["jsonPath"].as_str().unwrap();
            let field = path.split_once('[').map_or(path, |(field, _)| field);
            assert!(known.contains(field) || field == ".metadata.creationTimestamp", "{kind}: {path}");
        }
    }
    let crd = crd(Kind::FederatedDomain);
    assert_eq!(
        crd["spec"]["versions"][0]["selectableFields"],
        serde_json::json!([
            {"jsonPath": ".spec.protocol"}, {"jsonPath": ".spec.poolRef.name"}, {"jsonPath": ".spec.suspended"},
        ])
    );
}

// K-07
#[test]
fn every_setting_tells_its_default_and_how_a_change_is_taken() {
    visit_all(&mut |path, node| {
        let Some((_, below)) = path.split_once(".spec.") else { return };
        if below.ends_with("[]") || below.ends_with("{}") || is_of_kubernetes(&format!("{path}.")) {
            return;
        }
        if ["affinity.", "tolerations[]", "topologySpreadConstraints[]"].iter().any(|own| below.contains(own)) {
            return;
        }
        let text = node.get("description").and_then(Value::as_str).unwrap_or_default();
        assert!(
            text.contains("Default:") || text.contains("default ") || text.contains("Required"),
            "{path}: {text:?}"
        );
        assert!(
            ["A change is live.", "A change rolls pods.", "A change is taken", "immutable", "cannot be changed"]
                .iter()
                .any(|sentence| text.contains(sentence)),
            "{path}: {text:?}"
        );
    });
}

#[test]
fn rules_are_those_of_the_constants_and_say_the_remedy_last() {
    let known: BTreeSet<_> = rules::ALL.iter().map(|rule| rule.rule).collect();
    let mut used = BTreeSet::new();
    visit_all(&mut |path, node| {
        for rule in node.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten() {
            let text = rule["rule"].as_str().unwrap();
            assert!(known.contains(text), "{path}: {text}");
            used.insert(text.to_owned());
            let message = rule["message"].as_str().unwrap();
            assert!(message.ends_with('.') && message.matches(". ").count() == 1, "{path}: {message}");
            // The API server wants the path to exist below the node.
            if let Some(field) = rule.get("fieldPath").and_then(Value::as_str) {
                let mut place = Value::Object(node.clone());
                for step in field.split('.').skip(1) {
                    place = place["properties"][step].take();
                    assert!(place.is_object(), "{path}: {field}");
                }
            }
        }
    });
    assert_eq!(used.len(), known.len(), "a rule is used nowhere");
}

#[test]
fn patterns_are_of_the_kind_that_the_api_server_takes() {
    let mut patterns = BTreeSet::new();
    visit_all(&mut |_, node| patterns.extend(node.get("pattern").and_then(Value::as_str).map(str::to_owned)));
    for pattern in patterns {
        assert!(pattern.starts_with('^') && pattern.ends_with('$'), "{pattern}");
        // RE2 has no look-around and counts repetitions to 1000 at most.
        assert!(!pattern.contains("(?"), "{pattern}");
        for count in pattern.split('{').skip(1).filter_map(|rest| rest.split(['}', ',']).next()?.parse::<u32>().ok()) {
            assert!(count <= 1000, "{pattern}");
        }
    }
}
