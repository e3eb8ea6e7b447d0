//! Judging documents in process by the schema, rules and policies that the API server is given.
//!
//! Three steps, as the API server takes them: structure by the OpenAPI schema, then CEL rules with transition rules against
//! the version in force before, then (see [`admit`]) the admission policies against other objects. Unknown fields are errors,
//! or warnings when asked; explicit nulls count as absent, as the server prunes them; `status` is not judged, since the server
//! ignores it in a manifest.
//!
//! Everything is compiled once per process and shared by all threads. File and line are the loader's business: a
//! [`FieldPath`] has the segments to find them.

mod admission;
mod cel;
mod path;
mod structure;
mod tree;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use serde_json::Value;

use crate::object::{Kind, Object, ObjectError, parse_kind};

pub use admission::admit;
pub use path::{FieldPath, Segment};

/// One thing that is wrong with a document. It prints as `<field>: <problem>. <remedy>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field at fault; it need not exist in the document, for example when it is missing.
    pub field_path: FieldPath,
    /// What is wrong, without a full stop.
    pub message: String,
    /// What to do: one sentence with a full stop.
    pub remedy: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}. {}", self.field_path, self.message, self.remedy)
    }
}

impl Violation {
    /// Takes a message apart that ends with its remedy, as the texts of rules do.
    fn from_sentences(field_path: FieldPath, text: &str) -> Self {
        let (message, remedy) = text.rsplit_once(". ").unwrap_or((text, "Correct the field."));
        Self { field_path, message: message.trim_end_matches('.').to_owned(), remedy: remedy.to_owned() }
    }
}

/// What is to be done about fields that the schema does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownFields {
    /// They are errors.
    #[default]
    Refuse,
    /// They are warnings and otherwise ignored.
    Warn,
}

/// What was found wrong with a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Why the document is refused; empty when it is accepted.
    pub violations: Vec<Violation>,
    /// What a person should know although the document is accepted.
    pub warnings: Vec<Violation>,
}

impl Report {
    /// True when nothing speaks against the document.
    pub fn is_accepted(&self) -> bool {
        self.violations.is_empty()
    }

    fn refused(violation: Violation) -> Self {
        Self { violations: vec![violation], warnings: Vec::new() }
    }
}

/// The compiled schema of one kind.
struct Compiled {
    structure: structure::Structure,
    tree: tree::Node,
}

static COMPILED: LazyLock<BTreeMap<Kind, Compiled>> = LazyLock::new(|| {
    Kind::ALL
        .iter()
        .map(|&kind| {
            let schema = structure::document_schema(kind);
            (kind, Compiled { tree: tree::Node::compile(&schema), structure: structure::Structure::compile(&schema) })
        })
        .collect()
});

/// Compiles all schemas and rules now instead of at the first document, so that the first reload is not slower than others.
pub fn prepare() {
    LazyLock::force(&COMPILED);
    admission::prepare();
}

/// Judges a document on its own, and against `old`, the version in force before, where rules forbid a change.
///
/// `old` must be a document of the same kind that was accepted before; another kind is ignored.
pub fn validate(document: &Value, old: Option<&Value>, unknown_fields: UnknownFields) -> Report {
    let kind = match kind_of(document) {
        Ok(kind) => kind,
        Err(violation) => return Report::refused(violation),
    };
    let Some(compiled) = COMPILED.get(&kind) else { return Report::default() };
    let document = tree::judged_part(document);
    let mut report = Report { violations: compiled.structure.check(&document), warnings: Vec::new() };
    let mut path = FieldPath::default();
    let mut unknown = Vec::new();
    compiled.tree.check_shape(&document, &mut path, &mut unknown, &mut report.violations);
    match unknown_fields {
        UnknownFields::Refuse => report.violations.append(&mut unknown),
        UnknownFields::Warn => report.warnings.append(&mut unknown),
    }
    // A rule over fields of the wrong type would only fail in other words; the API server skips them likewise.
    if report.is_accepted() {
        let old = old.filter(|old| Kind::of(old) == Some(kind)).map(tree::judged_part);
        compiled.tree.check_rules(&document, old.as_deref(), &mut path, &mut report.violations);
    }
    report
}

/// Judges a document and reads it as an object.
///
/// # Errors
///
/// The report with at least one violation, when the document is refused.
pub fn read(
    document: &Value,
    old: Option<&Value>,
    unknown_fields: UnknownFields,
) -> Result<(Object, Vec<Violation>), Report> {
    let report = validate(document, old, unknown_fields);
    if !report.is_accepted() {
        return Err(report);
    }
    match parse_kind(&tree::judged_part(document)) {
        Ok(object) => Ok((object, report.warnings)),
        Err(error) => Err(Report::refused(unreadable(&error))),
    }
}

fn kind_of(document: &Value) -> Result<Kind, Violation> {
    Kind::of(document).ok_or_else(|| {
        let api_version = document.get("apiVersion").and_then(Value::as_str);
        let error = if api_version == Some(crate::API_VERSION) {
            ObjectError::UnknownKind { kind: word(document, "kind") }
        } else {
            ObjectError::ForeignGroup { api_version: word(document, "apiVersion") }
        };
        unreadable(&error)
    })
}

fn word(document: &Value, field: &str) -> String {
    document.get(field).and_then(Value::as_str).unwrap_or_default().chars().take(80).collect()
}

fn unreadable(error: &ObjectError) -> Violation {
    let field = match error {
        ObjectError::ForeignGroup { .. } => "apiVersion",
        ObjectError::UnknownKind { .. } => "kind",
        ObjectError::Unreadable { .. } => "spec",
    };
    Violation::from_sentences(FieldPath::from_keys([field]), &error.to_string())
}

#[cfg(test)]
mod tests;
