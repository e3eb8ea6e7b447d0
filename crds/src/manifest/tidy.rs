//! What the derived schemas lack or have too much of.

use serde_json::{Map, Value, json};

use crate::object::Kind;
use crate::rules;
use crate::schema::{Domain, Format, PoolName};

/// Formats that the API server knows.
const FORMATS: &[&str] = &["int32", "int64", "float", "double", "date-time", "byte"];

/// Longest text of a status field that does not say otherwise.
const STATUS_TEXT: usize = 1024;

/// Fields whose change makes the operator replace pods, as paths below `spec`.
const ROLLS_PODS: &[(Kind, &[&str])] = &[
    (
        Kind::Federation,
        &["stateStore", "credentialsSecretRef", "trust.caSecretRefs", "dialbackKeySecretRef", "telemetry"],
    ),
    (
        Kind::GatewayPool,
        &[
            "roles",
            "image",
            "imagePullSecrets",
            "resources",
            "pod",
            "tls",
            "drain",
            "expose.bind",
            "expose.adminPort",
            "expose.ports",
        ],
    ),
    (Kind::LocalDomain, &["tls"]),
];

/// Brings the schema of a kind into its final form.
pub(super) fn tidy(kind: Kind, schema: &mut Value) {
    visit(schema, "", &mut |path, node| {
        strip(node);
        join_description(node);
        cap(path, node);
        add_message_expressions(node);
        if path.starts_with("spec.") && path != "spec" {
            say_how_a_change_is_taken(kind, path, node);
        }
    });
    conditions(schema);
    if let Some(properties) = schema.pointer_mut("/properties").and_then(Value::as_object_mut) {
        properties.insert("metadata".into(), metadata(kind));
    }
}

/// Calls `each` for every schema node with its path: property names joined by dots, `[]` for items and `{}` for map values.
pub(crate) fn visit(node: &mut Value, path: &str, each: &mut dyn FnMut(&str, &mut Map<String, Value>)) {
    let Some(object) = node.as_object_mut() else { return };
    each(path, object);
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        for (name, child) in properties.iter_mut() {
            let child_path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            visit(child, &child_path, each);
        }
    }
    if let Some(items) = object.get_mut("items") {
        visit(items, &format!("{path}[]"), each);
    }
    if let Some(values) = object.get_mut("additionalProperties").filter(|values| values.is_object()) {
        visit(values, &format!("{path}{{}}"), each);
    }
}

/// Removes what `Option` and schemars leave behind.
fn strip(node: &mut Map<String, Value>) {
    for keyword in ["nullable", "default", "title", "$schema", "examples"] {
        node.remove(keyword);
    }
    if let Some(words) = node.get_mut("enum").and_then(Value::as_array_mut) {
        words.retain(|word| !word.is_null());
    }
    if node.get("format").and_then(Value::as_str).is_some_and(|format| !FORMATS.contains(&format)) {
        node.remove("format");
    }
    // Bounds arrive as floating-point numbers, which would print as `65535.0`.
    for keyword in ["minimum", "maximum"] {
        if let Some(whole) = node.get(keyword).and_then(Value::as_f64).filter(|bound| bound.fract() == 0.0) {
            #[expect(clippy::cast_possible_truncation, reason = "bounds are small whole numbers")]
            node.insert(keyword.into(), json!(whole as i64));
        }
    }
    // schemars writes the lower bound of unsigned integers by itself; the upper one matters to the server's types.
    if node.get("type").and_then(Value::as_str) == Some("integer") && !node.contains_key("format") {
        node.insert("format".into(), json!("int64"));
    }
}

/// Joins the lines of a doc comment: they are wrapped for the source, not for the reader.
fn join_description(node: &mut Map<String, Value>) {
    if let Some(text) = node.get("description").and_then(Value::as_str) {
        let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
        node.insert("description".into(), json!(joined));
    }
}

/// Bounds what has no bound of its own: status fields, and the shapes of Kubernetes below `spec.pod`.
fn cap(path: &str, node: &mut Map<String, Value>) {
    if !path.starts_with("status") && !path.starts_with("spec.pod.") {
        return;
    }
    match node.get("type").and_then(Value::as_str) {
        Some("string") if !["enum", "format", "maxLength"].iter().any(|bound| node.contains_key(*bound)) => {
            node.insert("maxLength".into(), json!(STATUS_TEXT));
        }
        Some("array") => {
            node.entry("maxItems").or_insert_with(|| json!(32));
            // Kubernetes' own lists of terms have no keys.
            node.entry("x-kubernetes-list-type").or_insert_with(|| json!("atomic"));
        }
        Some("object") if node.contains_key("additionalProperties") => {
            node.entry("maxProperties").or_insert_with(|| json!(32));
        }
        _ => {}
    }
}

/// Adds the message with values in it to the rules that have one.
fn add_message_expressions(node: &mut Map<String, Value>) {
    let Some(list) = node.get_mut("x-kubernetes-validations").and_then(Value::as_array_mut) else { return };
    for entry in list.iter_mut().filter_map(Value::as_object_mut) {
        let text = entry.get("rule").and_then(Value::as_str).unwrap_or_default();
        let expression = rules::ALL.iter().find(|rule| rule.rule == text).and_then(rules::CelRule::message_expression);
        if let Some(expression) = expression {
            entry.insert("messageExpression".into(), json!(expression));
        }
    }
}

/// Ends a field's description with what a change of it does to running pods.
fn say_how_a_change_is_taken(kind: Kind, path: &str, node: &mut Map<String, Value>) {
    let Some(text) = node.get("description").and_then(Value::as_str) else { return };
    if text.contains("immutable") || text.contains("cannot be changed") || text.contains("A change is taken") {
        return;
    }
    let below_spec = path.strip_prefix("spec.").unwrap_or(path);
    let rolls =
        ROLLS_PODS.iter().filter(|(rolling, _)| *rolling == kind).flat_map(|(_, fields)| fields.iter()).any(|field| {
            below_spec.strip_prefix(field).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[', '{']))
        });
    let sentence = if rolls { "A change rolls pods." } else { "A change is live." };
    node.insert("description".into(), json!(format!("{text} {sentence}")));
}

/// `status.conditions` as Kubernetes' own kinds have it.
fn conditions(schema: &mut Value) {
    let Some(list) = schema.pointer_mut("/properties/status/properties/conditions") else { return };
    list["maxItems"] = json!(12);
    list["x-kubernetes-list-type"] = json!("map");
    list["x-kubernetes-list-map-keys"] = json!(["type"]);
    for (field, length) in [("type", 316), ("reason", 1024), ("message", 32768)] {
        list["items"]["properties"][field]["maxLength"] = json!(length);
    }
    let status = &mut list["items"]["properties"]["status"];
    status["enum"] = json!(["True", "False", "Unknown"]);
    if let Some(status) = status.as_object_mut() {
        status.remove("maxLength");
    }
}

/// What a kind demands of its name beyond what the API server demands of every name.
fn metadata(kind: Kind) -> Value {
    let name = match kind {
        Kind::GatewayPool => {
            json!({ "type": "string", "pattern": PoolName::FORMAT.pattern, "maxLength": PoolName::FORMAT.max_length })
        }
        Kind::DomainClaim => {
            json!({ "type": "string", "pattern": Domain::FORMAT.pattern, "maxLength": Domain::FORMAT.max_length })
        }
        Kind::Federation
        | Kind::LocalDomain
        | Kind::FederatedDomain
        | Kind::DNSPublication
        | Kind::FederationPolicy => json!({ "type": "string", "maxLength": 253 }),
    };
    json!({ "type": "object", "properties": { "name": name } })
}
