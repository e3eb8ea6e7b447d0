//! What a reader of manifests has to say to a person, with its place.

use std::fmt::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use isthmus_crds::Kind;

/// One thing about one place. It prints as one line:
/// `<file>:<line>: document <n>: <Kind name>: <field>: <message>`, without the parts that are not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file or folder.
    pub file: Arc<Path>,
    /// The line in it, from 1.
    pub line: Option<usize>,
    /// The YAML document in it, from 1.
    pub document: Option<usize>,
    /// The object as `Kind name`.
    pub object: Option<String>,
    /// The field, for example `spec.sip.nextHops[0].port`.
    pub field: Option<String>,
    /// What is the matter; of a refusal the last sentence says what to do.
    pub message: String,
}

/// Why a directory is not taken.
pub type Refusal = Finding;

/// What a person should know although the directory is taken.
pub type Notice = Finding;

impl Finding {
    /// About a whole file or folder.
    pub(super) fn of_file(file: &Path, message: impl Into<String>) -> Self {
        Self { file: Arc::from(file), line: None, document: None, object: None, field: None, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.file.to_string_lossy(), 1024))?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(document) = self.document {
            write!(f, ": document {document}")?;
        }
        for part in [&self.object, &self.field].into_iter().flatten() {
            write!(f, ": {}", shown(part, 320))?;
        }
        write!(f, ": {}", shown(&self.message, 4096))
    }
}

/// Text from a document as it may stand in a line: bounded and without control characters.
pub(super) fn shown(text: &str, most: usize) -> String {
    let mut out = String::with_capacity(text.len().min(most));
    for (position, c) in text.chars().enumerate() {
        if position == most {
            out.push_str("..");
            break;
        }
        if c.is_control() {
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Where a document stands, and what it declares as far as that is known.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) file: Arc<Path>,
    pub(super) line: usize,
    pub(super) document: usize,
    pub(super) object: Option<String>,
}

impl Place {
    /// A finding at this place, or at a line of a field in it.
    pub(super) fn finding(&self, line: usize, field: &str, message: impl Into<String>) -> Finding {
        Finding {
            file: Arc::clone(&self.file),
            line: Some(line),
            document: Some(self.document),
            object: self.object.clone(),
            field: (!field.is_empty()).then(|| field.to_owned()),
            message: message.into(),
        }
    }

    /// The place in a sentence.
    pub(super) fn in_words(&self) -> String {
        format!("{}:{} (document {})", shown(&self.file.to_string_lossy(), 1024), self.line, self.document)
    }
}

/// The name of an object in findings.
pub(super) fn object_name(kind: Kind, name: &str) -> String {
    format!("{kind} {}", shown(name, 253))
}
