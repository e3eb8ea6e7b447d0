//! Every manifest that we show somebody is accepted: schema, CEL rules and admission policies.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail loudly")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use isthmus_crds::validate::{self, UnknownFields};
use isthmus_crds::{Kind, Secret, parse_kind};
use serde_json::Value;

/// A set of documents that would be applied together, each with a word on where it is from.
type Realm = Vec<(String, Value)>;

fn documents(place: &str, text: &str) -> Realm {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{place}: {error}"));
    documents
        .into_iter()
        .filter(|document| !document.is_null())
        .enumerate()
        .map(|(index, document)| (format!("{place} document {}", index + 1), document))
        .collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml"))
        .collect();
    files.sort();
    files
}

fn realm_of(files: &[PathBuf]) -> Realm {
    files
        .iter()
        .flat_map(|path| documents(&path.display().to_string(), &std::fs::read_to_string(path).unwrap()))
        .collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The fenced yaml blocks of a text that hold manifests of ours.
fn fenced(place: &str, text: &str) -> Realm {
    let mut found = Vec::new();
    let mut block: Option<(usize, String)> = None;
    for (number, line) in text.lines().enumerate() {
        match &mut block {
            None if line.trim_start().starts_with("```yaml") => block = Some((number + 1, String::new())),
            None => {}
            Some((line_number, lines)) if line.trim_start().starts_with("```") => {
                if lines.contains("apiVersion: isthmus.dev/") {
                    found.extend(documents(&format!("{place} line {line_number}"), lines));
                }
                block = None;
            }
            Some((_, lines)) => {
                lines.push_str(line);
                lines.push('\n');
            }
        }
    }
    found
}

/// Checks every document of a realm alone and against the others; gives the number of documents of ours.
fn check(realm: &Realm) -> usize {
    let mut ours = 0;
    for (place, document) in realm {
        if Secret::recognises(document) {
            Secret::parse(document).unwrap_or_else(|error| panic!("{place}: {error}"));
            continue;
        }
        if Kind::of(document).is_none() {
            let group = document["apiVersion"].as_str().unwrap_or_default();
            assert!(!group.starts_with("isthmus.dev"), "{place} is of no kind of ours: {group}");
            continue;
        }
        ours += 1;
        let report = validate::validate(document, None, UnknownFields::Refuse);
        let said: Vec<_> = report.violations.iter().map(ToString::to_string).collect();
        assert!(said.is_empty(), "{place}: {said:#?}");
        parse_kind(document).unwrap_or_else(|error| panic!("{place}: {error}"));
        let others = realm.iter().filter(|(other, _)| other != place).map(|(_, other)| other);
        let said: Vec<_> = validate::admit(document, None, others).violations.iter().map(ToString::to_string).collect();
        assert!(said.is_empty(), "{place}: {said:#?}");
    }
    ours
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/examples").join(name)
}

// K-22
#[test]
fn examples_of_the_documentation_are_accepted_together() {
    let all = files(&example(""));
    let (every, docs): (Vec<_>, Vec<_>) = all.into_iter().partition(|path| path.ends_with("every-field.yaml"));
    assert_eq!(check(&realm_of(&docs)), 9);
    assert_eq!(check(&realm_of(&every)), 9);
}

// K-22
#[test]
fn the_quickstart_and_the_readme_are_accepted() {
    let quickstart = files(&root().join("e2e/quickstart"));
    let ours = check(&realm_of(&quickstart));
    assert!(ours > 0, "e2e/quickstart holds no manifest of ours");
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    assert!(check(&fenced("README.md", &text)) > 0, "README.md shows no manifest of ours");
}

#[test]
fn blocks_of_a_readme_are_found_with_their_line() {
    let text = "# t\n\n```yaml\na: b\n```\n```yaml\napiVersion: isthmus.dev/v1alpha1\nkind: DomainClaim\n```\n";
    let found = fenced("README.md", text);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0, "README.md line 6 document 1");
    assert_eq!(found[0].1["kind"], "DomainClaim");
}

/// The types keep every field that the schema has: reading and writing gives the document back.
#[test]
fn every_field_survives_reading_and_writing() {
    for (place, document) in realm_of(&[example("every-field.yaml")]) {
        let object = parse_kind(&document).unwrap();
        assert_eq!(written(&object), document, "{place}");
    }
}

/// The file really has every field, so that the test above means what it says.
#[test]
fn the_file_of_every_field_has_every_field() {
    // Fields that exclude others of the same document, and the insides of Kubernetes' own shapes.
    let elsewhere = [
        "Federation.spec.stateStore.redis.masterName",
        "GatewayPool.spec.tls.issuerRef",
        "DNSPublication.spec.xmpp.publish.count",
    ];
    let own = ["affinity", "tolerations", "topologySpreadConstraints"];
    let mut used = BTreeSet::new();
    for (_, document) in realm_of(&[example("every-field.yaml")]) {
        paths_of_value(document["kind"].as_str().unwrap(), &document, &mut used);
    }
    for &kind in Kind::ALL {
        let schema = isthmus_crds::manifest::schema(kind);
        let mut known = BTreeSet::new();
        paths_of_schema(&format!("{kind}.spec"), &schema["properties"]["spec"], &mut known);
        for path in known {
            let excused = elsewhere.iter().any(|field| path.starts_with(field))
                || own.iter().any(|field| path.starts_with(&format!("GatewayPool.spec.pod.{field}")))
                // TLS of an XMPP server is a ClientTls, shown in full for Redis.
                || path.starts_with("LocalDomain.spec.backend.component.tls.")
                || path.starts_with("LocalDomain.spec.backend.xmppServer.tls.");
            assert!(used.contains(&path) || excused, "{path} is missing in every-field.yaml");
        }
    }
}

fn paths_of_schema(path: &str, schema: &Value, paths: &mut BTreeSet<String>) {
    paths.insert(path.to_owned());
    for (name, child) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        paths_of_schema(&format!("{path}.{name}"), child, paths);
    }
    if let Some(items) = schema.get("items") {
        paths_of_schema(path, items, paths);
    }
}

fn paths_of_value(path: &str, value: &Value, paths: &mut BTreeSet<String>) {
    paths.insert(path.to_owned());
    for (name, child) in value.as_object().into_iter().flatten() {
        paths_of_value(&format!("{path}.{name}"), child, paths);
    }
    for child in value.as_array().into_iter().flatten() {
        paths_of_value(path, child, paths);
    }
}

fn written(object: &isthmus_crds::Object) -> Value {
    use isthmus_crds::Object;
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
