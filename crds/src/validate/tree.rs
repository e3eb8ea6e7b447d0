//! The part of a schema that JSON Schema has no words for: unknown fields, keys of lists, and CEL rules.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::cel::CompiledRule;
use super::structure::shown;
use super::{FieldPath, Violation};
use crate::duration::{self, Duration};

/// Depth below which documents are not followed; no schema is deeper, and the structural check has refused them.
const MAX_DEPTH: usize = 64;

/// How the entries of a list are told apart.
#[derive(Debug)]
enum ListType {
    /// By position.
    Atomic,
    /// By value; none may repeat.
    Set,
    /// By some fields; no combination may repeat.
    Map(Vec<String>),
}

/// One node of a compiled schema.
pub(super) struct Node {
    /// Known fields; `None` where any field may stand.
    properties: Option<BTreeMap<String, Self>>,
    values: Option<Box<Self>>,
    items: Option<Box<Self>>,
    list: ListType,
    is_duration: bool,
    rules: Vec<CompiledRule>,
    /// True when this node or one below it has rules, so that others need not be walked.
    any_rules: bool,
}

impl Node {
    pub(super) fn compile(schema: &Value) -> Self {
        let child = |keyword: &str| {
            schema.get(keyword).filter(|child| child.is_object()).map(|child| Box::new(Self::compile(child)))
        };
        let properties: Option<BTreeMap<_, _>> = schema
            .get("properties")
            .and_then(Value::as_object)
            .map(|fields| fields.iter().map(|(name, field)| (name.clone(), Self::compile(field))).collect());
        let (values, items) = (child("additionalProperties"), child("items"));
        let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
        let list = match (schema.get("x-kubernetes-list-type").and_then(Value::as_str), keys) {
            (Some("set"), _) => ListType::Set,
            (Some("map"), Some(keys)) => {
                ListType::Map(keys.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            }
            _ => ListType::Atomic,
        };
        let rules: Vec<_> = schema
            .get("x-kubernetes-validations")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(CompiledRule::compile)
            .collect();
        let below = properties.iter().flat_map(BTreeMap::values).chain(values.as_deref()).chain(items.as_deref());
        let any_rules = !rules.is_empty() || below.into_iter().any(|node| node.any_rules);
        let is_duration = schema.get("pattern").and_then(Value::as_str) == Some(duration::PATTERN);
        Self { properties, values, items, list, is_duration, rules, any_rules }
    }

    /// Finds fields that the schema does not know, entries of lists that repeat, and durations out of range.
    pub(super) fn check_shape(
        &self,
        value: &Value,
        path: &mut FieldPath,
        unknown: &mut Vec<Violation>,
        violations: &mut Vec<Violation>,
    ) {
        if path.segments().len() > MAX_DEPTH {
            return;
        }
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    path.push_key(name);
                    match self.child(name) {
                        Some(node) => node.check_shape(field, path, unknown, violations),
                        None if self.properties.is_some() => unknown.push(self.unknown_field(path.clone(), name)),
                        None => {}
                    }
                    path.pop();
                }
            }
            Value::Array(entries) => {
                if let Some(items) = &self.items {
                    for (index, entry) in entries.iter().enumerate() {
                        path.push_index(index);
                        items.check_shape(entry, path, unknown, violations);
                        path.pop();
                    }
                }
                self.check_repetition(entries, path, violations);
            }
            Value::String(text) if self.is_duration => {
                // The structural check tells what is wrong with the form; only the range is left.
                if let Err(duration::ParseDurationError::TooLong) = text.parse::<Duration>() {
                    violations.push(Violation {
                        field_path: path.clone(),
                        message: format!("{} is longer than ten years", shown(value)),
                        remedy: "Write at most 87600h.".into(),
                    });
                }
            }
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn child(&self, name: &str) -> Option<&Self> {
        self.properties.as_ref().and_then(|fields| fields.get(name)).or(self.values.as_deref())
    }

    fn unknown_field(&self, field_path: FieldPath, name: &str) -> Violation {
        let known = self.properties.iter().flat_map(BTreeMap::keys);
        let nearest = known
            .map(|field| (distance(&field.to_ascii_lowercase(), &name.to_ascii_lowercase()), field))
            .min()
            .filter(|(distance, field)| *distance <= 2.min(field.len() / 2));
        let remedy = match nearest {
            Some((_, field)) => format!("Write {field}, or remove the field."),
            None => "Remove the field, or correct its spelling or indentation.".to_owned(),
        };
        Violation { field_path, message: "no such field exists".into(), remedy }
    }

    fn check_repetition(&self, entries: &[Value], path: &FieldPath, violations: &mut Vec<Violation>) {
        let mut seen = BTreeSet::new();
        for (index, entry) in entries.iter().enumerate() {
            let (identity, words) = match &self.list {
                ListType::Atomic => return,
                ListType::Set => (entry.to_string(), shown(entry)),
                ListType::Map(keys) => {
                    let parts: Vec<_> = keys.iter().filter_map(|key| Some((key, entry.get(key)?))).collect();
                    if parts.len() < keys.len() {
                        continue;
                    }
                    let words: Vec<_> = parts.iter().map(|(key, value)| format!("{key} {}", shown(value))).collect();
                    let identity: Vec<_> = parts.iter().map(|(_, value)| value.to_string()).collect();
                    (identity.join("\u{0}"), format!("the entry with {}", words.join(" and ")))
                }
            };
            if !seen.insert(identity) {
                let mut field_path = path.clone();
                field_path.push_index(index);
                violations.push(Violation {
                    field_path,
                    message: format!("{words} is listed twice"),
                    remedy: "Keep it once.".into(),
                });
            }
        }
    }

    /// Evaluates the rules of this node and below it.
    pub(super) fn check_rules(
        &self,
        value: &Value,
        old: Option<&Value>,
        path: &mut FieldPath,
        violations: &mut Vec<Violation>,
    ) {
        if !self.any_rules {
            return;
        }
        super::cel::check_rules(&self.rules, value, old, path, violations);
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    if let Some(node) = self.child(name) {
                        path.push_key(name);
                        node.check_rules(field, old.and_then(|old| old.get(name)), path, violations);
                        path.pop();
                    }
                }
            }
            Value::Array(entries) => {
                let Some(items) = &self.items else { return };
                for (index, entry) in entries.iter().enumerate() {
                    path.push_index(index);
                    items.check_rules(entry, self.former(entry, old), path, violations);
                    path.pop();
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// The entry of the former list that is the same one by its keys; other lists have no identity over time.
    fn former<'a>(&self, entry: &Value, old: Option<&'a Value>) -> Option<&'a Value> {
        let ListType::Map(keys) = &self.list else { return None };
        old?.as_array()?.iter().find(|former| keys.iter().all(|key| former.get(key) == entry.get(key)))
    }
}

/// The part of a document that is judged: without `status`, and without explicit nulls in mappings, which count as absent.
pub(super) fn judged_part(document: &Value) -> Cow<'_, Value> {
    if document.get("status").is_none() && !has_null(document, 0) {
        return Cow::Borrowed(document);
    }
    let mut judged = document.clone();
    if let Some(fields) = judged.as_object_mut() {
        fields.remove("status");
    }
    prune(&mut judged, 0);
    Cow::Owned(judged)
}

fn has_null(value: &Value, depth: usize) -> bool {
    depth <= MAX_DEPTH
        && match value {
            Value::Object(fields) => fields.values().any(|field| field.is_null() || has_null(field, depth + 1)),
            Value::Array(entries) => entries.iter().any(|entry| has_null(entry, depth + 1)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        }
}

fn prune(value: &mut Value, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(|field| prune(field, depth + 1));
        }
        Value::Array(entries) => entries.iter_mut().for_each(|entry| prune(entry, depth + 1)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Number of letters to insert, delete or replace to get from one word to the other, of at most 64 letters each.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().take(64).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &b) in to.iter().enumerate() {
            let cost = (diagonal + usize::from(a != b)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], cost);
        }
    }
    row.last().copied().unwrap_or_default()
}
