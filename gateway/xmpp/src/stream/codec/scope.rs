//! Namespace declarations in force.

use rxml::NcName;
use smallvec::SmallVec;

use super::StreamKind;
use crate::ns::{self, Ns};

/// The scopes of the elements that are open, the stream's own first.
#[derive(Debug, Default)]
pub(super) struct Scopes {
    scopes: Vec<Scope>,
    prefixes: Vec<(NcName, Ns)>,
}

/// What one element declares.
#[derive(Debug)]
struct Scope {
    /// The default namespace in force, declared here or further out.
    default: Ns,
    /// Where the prefixes of this element begin.
    prefixes_from: usize,
}

/// Declarations of one element, the default namespace with an empty prefix.
pub(super) type Declarations = SmallVec<[(Option<NcName>, String); 2]>;

impl Scopes {
    /// How many elements are open.
    pub(super) fn depth(&self) -> usize {
        self.scopes.len()
    }

    /// Opens the scope of an element.
    pub(super) fn push(&mut self, kind: StreamKind, declarations: Declarations) {
        let prefixes_from = self.prefixes.len();
        let mut default = self.scopes.last().map_or(Ns::NONE, |scope| scope.default.clone());
        let level = self.scopes.len();
        for (prefix, name) in declarations {
            match prefix {
                Some(prefix) => self.prefixes.push((prefix, Ns::new(&name))),
                None if is_stream_default(kind, level, &name) => default = Ns::CONTENT,
                None => default = Ns::new(&name),
            }
        }
        self.scopes.push(Scope { default, prefixes_from });
    }

    /// Closes the innermost scope.
    pub(super) fn pop(&mut self) {
        if let Some(scope) = self.scopes.pop() {
            self.prefixes.truncate(scope.prefixes_from);
        }
    }

    /// The namespace of an element's name; `None` for a prefix that nobody declared.
    pub(super) fn element(&self, prefix: Option<&NcName>) -> Option<Ns> {
        match prefix {
            Some(prefix) => self.prefix(prefix),
            None => self.scopes.last().map(|scope| scope.default.clone()),
        }
    }

    /// The namespace of an attribute's name; the default namespace is not for attributes.
    pub(super) fn attribute(&self, prefix: Option<&NcName>) -> Option<Ns> {
        prefix.map_or(Some(Ns::NONE), |prefix| self.prefix(prefix))
    }

    /// True if anybody declared that namespace under a prefix.
    pub(super) fn declares(&self, name: &str) -> bool {
        self.prefixes.iter().any(|(_, ns)| ns.as_str() == name)
    }

    fn prefix(&self, prefix: &NcName) -> Option<Ns> {
        if prefix.as_str() == "xml" {
            return Some(Ns::XML);
        }
        self.prefixes.iter().rev().find(|(declared, _)| declared == prefix).map(|(_, ns)| ns.clone())
    }
}

/// True if a default namespace makes what inherits it content of the stream.
///
/// On the header it is the stream's own. On a first-level element it may be that of another kind of stream:
/// jabberd2 writes `xmlns='jabber:client'` on the stanzas of a component stream. Deeper declarations stand
/// for themselves (forwarded stanzas).
fn is_stream_default(kind: StreamKind, level: usize, name: &str) -> bool {
    match level {
        0 => name == kind.namespace(),
        1 => matches!(name, ns::COMPONENT | ns::CLIENT | ns::SERVER),
        _ => false,
    }
}
