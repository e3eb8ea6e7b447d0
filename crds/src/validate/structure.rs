//! Structure: types, required fields, words, patterns and bounds, by a JSON Schema validator over the CRD's own schema.

use std::collections::BTreeMap;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{Draft, ValidationError, Validator};
use serde_json::{Value, json};

use super::{FieldPath, Violation};
use crate::manifest;
use crate::object::Kind;
use crate::schema::{self, FORMATS, Format, TextFormat};

/// The schema of a whole manifest: the CRD's, with what the API server knows by itself about `metadata`.
pub(super) fn document_schema(kind: Kind) -> Value {
    let mut schema = manifest::schema(kind);
    let name = schema
        .pointer_mut("/properties/metadata/properties/name")
        .map(Value::take)
        .filter(|name| name.get("pattern").is_some())
        .unwrap_or_else(|| {
            json!({
                "type": "string",
                "pattern": schema::ObjectName::FORMAT.pattern,
                "maxLength": schema::ObjectName::FORMAT.max_length,
            })
        });
    let texts = json!({ "type": "object", "additionalProperties": { "type": "string" } });
    schema["properties"]["metadata"] = json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": name,
            "namespace": { "type": "string", "pattern": schema::Label::FORMAT.pattern, "maxLength": 63 },
            "labels": texts,
            "annotations": texts,
            "finalizers": { "type": "array", "items": { "type": "string" } },
            // What the server fills in; it appears in manifests that were exported from a cluster.
            "generateName": { "type": "string" },
            "generation": { "type": "integer" },
            "resourceVersion": { "type": "string" },
            "uid": { "type": "string" },
            "creationTimestamp": { "type": "string" },
            "deletionTimestamp": { "type": "string" },
            "deletionGracePeriodSeconds": { "type": "integer" },
            "selfLink": { "type": "string" },
            "managedFields": { "type": "array", "items": { "type": "object", "additionalProperties": {} } },
            "ownerReferences": { "type": "array", "items": { "type": "object", "additionalProperties": {} } },
        },
    });
    schema["properties"]["apiVersion"] = json!({ "type": "string" });
    schema["properties"]["kind"] = json!({ "type": "string" });
    schema["required"] = json!(["metadata", "spec"]);
    schema
}

/// The compiled structural part of a schema.
pub(super) struct Structure {
    // The schema is our own and a test compiles every kind, so `None` cannot be met; it would refuse every document.
    validator: Option<Validator>,
    formats: BTreeMap<&'static str, &'static TextFormat>,
}

impl Structure {
    pub(super) fn compile(schema: &Value) -> Self {
        Self {
            // OpenAPI's dialect is that of draft 4.
            validator: jsonschema::options().with_draft(Draft::Draft4).build(schema).ok(),
            formats: FORMATS.iter().map(|format| (format.pattern, format)).collect(),
        }
    }

    /// The violations of a document, at most one per field, in the order of their paths.
    pub(super) fn check(&self, document: &Value) -> Vec<Violation> {
        let Some(validator) = &self.validator else {
            return vec![Violation {
                field_path: FieldPath::default(),
                message: "the schema of this kind cannot be used".into(),
                remedy: "Report this as a fault of the program.".into(),
            }];
        };
        if validator.is_valid(document) {
            return Vec::new();
        }
        // One field may break several keywords; the first in this order explains the others.
        let mut worst: BTreeMap<FieldPath, (u8, Violation)> = BTreeMap::new();
        for error in validator.iter_errors(document) {
            let rank = rank(error.kind());
            let violation = self.explain(document, &error);
            worst
                .entry(violation.field_path.clone())
                .and_modify(|known| {
                    if rank < known.0 {
                        *known = (rank, violation.clone());
                    }
                })
                .or_insert((rank, violation));
        }
        worst.into_values().map(|(_, violation)| violation).collect()
    }

    fn explain(&self, document: &Value, error: &ValidationError<'_>) -> Violation {
        let mut field_path = path_of(document, error.instance_path().as_str());
        let value = error.instance().as_ref();
        let shown = shown(value);
        let (message, remedy) = match error.kind() {
            ValidationErrorKind::Required { property } => {
                let field = property.as_str().unwrap_or_default();
                field_path.push_key(field);
                ("the field is missing".to_owned(), format!("Set {field_path}."))
            }
            ValidationErrorKind::Type { kind } => wrong_type(kind, value),
            ValidationErrorKind::AnyOf { .. } => (
                format!("{shown} is neither a whole number nor a string"),
                "Write a quantity such as 500m or 256Mi.".to_owned(),
            ),
            ValidationErrorKind::Enum { options } => {
                let words: Vec<_> = options.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                (
                    format!("{shown} is not one of {}", words.join(", ")),
                    "Use one of these words, spelt exactly so.".to_owned(),
                )
            }
            ValidationErrorKind::Pattern { pattern } => match self.formats.get(pattern.as_str()) {
                Some(format) => (format!("{shown} is not {}", format.noun), format.remedy.to_owned()),
                None if pattern == crate::duration::PATTERN => (
                    format!("{shown} is not a duration"),
                    "Write numbers with the units ms, s, m or h, for example 90s or 1h30m.".to_owned(),
                ),
                None => (format!("{shown} does not match {pattern}"), "Correct the text.".to_owned()),
            },
            ValidationErrorKind::MaxLength { limit } => {
                (format!("the text has more than {limit} characters"), format!("Shorten it to at most {limit}."))
            }
            ValidationErrorKind::MinLength { limit } => {
                (format!("the text has fewer than {limit} characters"), format!("Write at least {limit}."))
            }
            ValidationErrorKind::Minimum { limit } => {
                (format!("{shown} is less than {limit}"), format!("Write a number of at least {limit}."))
            }
            ValidationErrorKind::Maximum { limit } => {
                (format!("{shown} is more than {limit}"), format!("Write a number of at most {limit}."))
            }
            ValidationErrorKind::MaxItems { limit } => (
                format!("the list has more than {limit} entries"),
                format!("Keep at most {limit} entries, or spread them over several objects."),
            ),
            ValidationErrorKind::MinItems { limit } => (
                format!("the list has fewer than {limit} entries"),
                format!("List at least {limit}, or remove the field to use its default."),
            ),
            ValidationErrorKind::MaxProperties { limit } => {
                (format!("the mapping has more than {limit} entries"), format!("Keep at most {limit} entries."))
            }
            // The schemas use no other keyword; whatever comes keeps the validator's own words.
            _ => (error.to_string(), "Correct the field.".to_owned()),
        };
        Violation { field_path, message, remedy }
    }
}

/// The order in which faults of one field explain each other.
fn rank(kind: &ValidationErrorKind) -> u8 {
    match kind {
        ValidationErrorKind::Required { .. } => 0,
        ValidationErrorKind::Type { .. } | ValidationErrorKind::AnyOf { .. } => 1,
        ValidationErrorKind::Enum { .. } => 2,
        ValidationErrorKind::MaxLength { .. } => 3,
        ValidationErrorKind::Pattern { .. } => 4,
        _ => 5,
    }
}

/// What a value of the wrong type is, and how to write the right one.
fn wrong_type(kind: &TypeKind, value: &Value) -> (String, String) {
    let wanted = match kind {
        TypeKind::Single(wanted) => wanted.to_string(),
        TypeKind::Multiple(_) => "other type".to_owned(),
    };
    let (article, noun) = match wanted.as_str() {
        "string" => ("a", "string"),
        "integer" => ("a", "whole number"),
        "boolean" => ("", "true or false"),
        "array" => ("a", "list"),
        "object" => ("a", "mapping"),
        "number" => ("a", "number"),
        _ => ("of an", "other type"),
    };
    let remedy = match (wanted.as_str(), value) {
        ("string", Value::Bool(_)) => {
            "YAML reads on, off, yes, no, true and false as truth values, so put the word in quotes."
        }
        ("string", Value::Number(_)) => "Put the value in quotes.",
        ("string", Value::Null) => "Write a string, or remove the entry.",
        ("integer" | "number", Value::String(_)) => "Write the number without quotes.",
        ("integer", Value::Number(_)) => "Write a whole number.",
        ("boolean", _) => "Write true or false without quotes.",
        ("array", _) => "Write a list, each entry on its own line after a hyphen, or [a, b].",
        ("object", _) => "Write a mapping of fields, indented below the name, or {} for all defaults.",
        _ => "Correct the value.",
    };
    let space = if article.is_empty() { "" } else { " " };
    (format!("{} is not {article}{space}{noun}", shown(value)), remedy.to_owned())
}

/// A value in a message: short, on one line, without control characters.
pub(super) fn shown(value: &Value) -> String {
    const LONGEST: usize = 60;
    match value {
        Value::Object(_) => "a mapping".into(),
        Value::Array(_) => "a list".into(),
        Value::Null => "null".into(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => {
            let short: String = text.chars().take(LONGEST).collect();
            let dots = if short.len() < text.len() { "..." } else { "" };
            format!("{short:?}{dots}")
        }
    }
}

/// Turns a JSON pointer into a path; the document tells keys made of digits from indices.
fn path_of(document: &Value, pointer: &str) -> FieldPath {
    let mut path = FieldPath::default();
    let mut place = Some(document);
    for step in pointer.split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~");
        if let Some(Value::Array(list)) = place {
            let index = step.parse().unwrap_or(usize::MAX);
            path.push_index(index);
            place = list.get(index);
        } else {
            place = place.and_then(|place| place.get(&step));
            path.push_key(&step);
        }
    }
    path
}
