//! YAML documents with the line of every value.
//!
//! A refused field must be reported with its file and line, so the text is read into a tree that keeps
//! positions. Scalars follow the YAML 1.2 core schema. Anchors and aliases are refused: they add nothing to
//! a manifest and are the way to make a small file large.

use granit_parser::{Event, Parser, ScalarStyle};
use isthmus_crds::validate::Segment;
use serde_json::{Map, Number, Value};

/// Nesting deeper than any manifest needs.
const MAX_DEPTH: usize = 64;

/// Why a text is no sequence of YAML documents.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct YamlError {
    /// The line, from 1.
    pub line: usize,
    /// The document in the text, from 1.
    pub document: usize,
    /// What is wrong and what to do.
    pub message: String,
}

/// One document: its value and where each part of it stands.
#[derive(Debug, Clone)]
pub(super) struct Document {
    /// The position in its file, from 1.
    pub number: usize,
    /// The document as JSON.
    pub value: Value,
    root: Node,
}

/// A value with the line it stands on.
#[derive(Debug, Clone)]
struct Node {
    line: usize,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Scalar(Value),
    Sequence(Vec<Node>),
    Mapping(Vec<(String, usize, Node)>),
}

impl Document {
    /// Returns the line of the value at `path`, or of the nearest part above it that exists.
    pub(super) fn line_of(&self, path: &[Segment]) -> usize {
        let mut node = &self.root;
        let mut line = node.line;
        for segment in path {
            let next = match (segment, &node.kind) {
                (Segment::Key(key), Kind::Mapping(entries)) => {
                    entries.iter().find(|(name, ..)| name == key).map(|(_, line, node)| (*line, node))
                }
                (Segment::Index(index), Kind::Sequence(items)) => items.get(*index).map(|node| (node.line, node)),
                _ => None,
            };
            let Some((found, below)) = next else { break };
            line = found;
            node = below;
        }
        line
    }
}

/// Reads every document of a text; empty documents are left out.
///
/// # Errors
///
/// [`YamlError`] for the first thing that is not YAML, an alias, a duplicate key or too deep a nesting.
pub(super) fn documents(text: &str) -> Result<Vec<Document>, YamlError> {
    let mut found = Vec::new();
    let mut number = 0;
    let mut open: Vec<Open> = Vec::new();
    let mut root = None;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| YamlError {
            line: error.marker().line(),
            document: number.max(1),
            message: format!("not YAML: {}. Correct the text.", error.info()),
        })?;
        let line = span.start.line();
        let refuse = |message: &str| YamlError { line, document: number.max(1), message: message.to_owned() };
        if event.anchor_id().is_some_and(|id| id != 0) || event.is_alias() {
            return Err(refuse("anchors and aliases are not supported. Write the value out."));
        }
        let node = match event {
            Event::DocumentStart(..) => {
                number += 1;
                root = None;
                continue;
            }
            Event::DocumentEnd => {
                if let Some(node) = root.take() {
                    push_document(&mut found, number, node);
                }
                continue;
            }
            Event::Scalar(text, style, _, tag) => Node {
                line,
                kind: Kind::Scalar(if tag.is_none() && style == ScalarStyle::Plain {
                    plain(&text)
                } else {
                    Value::String(text.into_owned())
                }),
            },
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                if open.len() >= MAX_DEPTH {
                    return Err(refuse("nested too deeply. Use at most 64 levels."));
                }
                open.push(match event {
                    Event::SequenceStart(..) => Open::Sequence(line, Vec::new()),
                    _ => Open::Mapping(line, Vec::new(), None),
                });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::Sequence(line, items)) => Node { line, kind: Kind::Sequence(items) },
                Some(Open::Mapping(line, entries, _)) => {
                    if let Some((name, line)) = repeated(&entries) {
                        let message = format!("key {name:?} stands twice. Remove one of them.");
                        return Err(YamlError { line, document: number.max(1), message });
                    }
                    Node { line, kind: Kind::Mapping(entries) }
                }
                None => continue,
            },
            _ => continue,
        };
        match open.last_mut() {
            None => root = Some(node),
            Some(Open::Sequence(_, items)) => items.push(node),
            Some(Open::Mapping(_, entries, key)) => match key.take() {
                Some((name, key_line)) => entries.push((name, key_line, node)),
                None => {
                    *key = Some((key_of(node).ok_or_else(|| refuse("a key is no plain name. Write a name."))?, line));
                }
            },
        }
    }
    Ok(found)
}

enum Open {
    Sequence(usize, Vec<Node>),
    Mapping(usize, Vec<(String, usize, Node)>, Option<(String, usize)>),
}

/// The text of a key; `None` for a list or mapping.
fn key_of(node: Node) -> Option<String> {
    match node.kind {
        Kind::Scalar(Value::String(name)) => Some(name),
        Kind::Scalar(other) => Some(other.to_string()),
        Kind::Sequence(_) | Kind::Mapping(_) => None,
    }
}

/// A key that stands twice, with the line of the second; by sorting, as mappings may be large.
fn repeated(entries: &[(String, usize, Node)]) -> Option<(&str, usize)> {
    let mut keys: Vec<(&str, usize)> = entries.iter().map(|(name, line, _)| (name.as_str(), *line)).collect();
    keys.sort_unstable();
    keys.windows(2).find_map(|pair| match pair {
        [first, second] if first.0 == second.0 => Some(*second),
        _ => None,
    })
}

fn push_document(found: &mut Vec<Document>, number: usize, root: Node) {
    let value = to_json(&root);
    if !value.is_null() {
        found.push(Document { number, value, root });
    }
}

/// Converts a tree whose depth is capped at [`MAX_DEPTH`].
fn to_json(node: &Node) -> Value {
    match &node.kind {
        Kind::Scalar(value) => value.clone(),
        Kind::Sequence(items) => Value::Array(items.iter().map(to_json).collect()),
        Kind::Mapping(entries) => {
            Value::Object(entries.iter().map(|(key, _, node)| (key.clone(), to_json(node))).collect::<Map<_, _>>())
        }
    }
}

/// Resolves a plain scalar by the core schema (YAML 1.2.2 §10.3.2).
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        if let Ok(integer) = text.strip_prefix('+').unwrap_or(text).parse::<i64>() {
            return Value::Number(integer.into());
        }
        if digits.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b))
            && let Some(number) = text.parse::<f64>().ok().and_then(Number::from_f64)
        {
            return Value::Number(number);
        }
    }
    Value::String(text.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(name: &str) -> Segment {
        Segment::Key(name.to_owned())
    }

    #[test]
    fn documents_keep_their_numbers_and_lines() {
        let text = "# head\n---\nkind: A\nspec:\n  list:\n    - port: 5061\n---\n---\nkind: B\n";
        let found = documents(text).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].value, json!({"kind": "A", "spec": {"list": [{"port": 5061}]}}));
        assert_eq!(found[0].line_of(&[key("spec"), key("list"), Segment::Index(0), key("port")]), 6);
        assert_eq!(found[0].line_of(&[key("spec"), key("missing")]), 4);
        assert_eq!(found[1].line_of(&[key("kind")]), 9);
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        let found = documents("[no, 'true', 0x1, 1.5, -3, 1.2.3.4, 5m, ~, 12e, .5]").unwrap();
        assert_eq!(found[0].value, json!(["no", "true", "0x1", 1.5, -3, "1.2.3.4", "5m", null, "12e", 0.5]));
    }

    #[test]
    fn what_is_not_a_manifest_is_refused_with_its_line() {
        for (text, line) in [("a: 1\na: 2\n", 2), ("a: &x 1\nb: *x\n", 1), ("a: [1\nb: 2\n", 2), ("? [a]\n: 1\n", 1)] {
            let error = documents(text).unwrap_err();
            assert_eq!(error.line, line, "{text}: {error}");
        }
        let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
        assert!(documents(&deep).unwrap_err().message.contains("deeply"));
    }
}
