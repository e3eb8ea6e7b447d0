//! Requests and their answers (RFC 6120 §8.2.3).

use compact_str::CompactString;

use super::{StanzaError, some};
use crate::element::{Attribute, Element};
use crate::ns;

/// What an iq is, with what it carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IqKind {
    /// Asks for something.
    Get(Element),
    /// Asks to change something.
    Set(Element),
    /// Answers.
    Result(Option<Element>),
    /// Answers with an error.
    Error {
        /// The error.
        error: StanzaError,
        /// What was asked, when the answer repeats it.
        request: Option<Element>,
    },
}

/// A request or its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Iq {
    /// Who sends it.
    pub from: Option<CompactString>,
    /// Whom it is for.
    pub to: Option<CompactString>,
    /// Its identifier, by which the answer is known.
    pub id: CompactString,
    /// The language of what names none itself.
    pub lang: Option<CompactString>,
    /// What it is and carries.
    pub kind: IqKind,
    /// Attributes other than those above, unchanged.
    pub other_attributes: Vec<Attribute>,
}

impl Iq {
    /// An iq of that kind.
    pub fn new(kind: IqKind, from: &str, to: &str, id: &str) -> Self {
        Self { from: some(from), to: some(to), id: id.into(), lang: None, kind, other_attributes: Vec::new() }
    }

    /// Who sends it.
    pub fn from(&self) -> Option<&str> {
        self.from.as_deref()
    }

    /// Whom it is for.
    pub fn to(&self) -> Option<&str> {
        self.to.as_deref()
    }

    /// What is asked, with true for a set; `None` when it is an answer.
    pub fn request(&self) -> Option<(bool, &Element)> {
        match &self.kind {
            IqKind::Get(payload) => Some((false, payload)),
            IqKind::Set(payload) => Some((true, payload)),
            IqKind::Result(_) | IqKind::Error { .. } => None,
        }
    }

    /// True if it asks whether we are there (XEP-0199).
    pub fn is_ping(&self) -> bool {
        matches!(&self.kind, IqKind::Get(payload) if payload.is(ns::PING, "ping"))
    }

    /// Makes the result that answers this request; `None` when this is no request.
    pub fn result(&self, payload: Option<Element>) -> Option<Self> {
        self.request()?;
        Some(Self {
            from: self.to.clone(),
            to: self.from.clone(),
            id: self.id.clone(),
            lang: None,
            kind: IqKind::Result(payload),
            other_attributes: Vec::new(),
        })
    }

    pub(super) fn error_reply(&self, error: StanzaError) -> Option<Self> {
        let answer = self.result(None)?;
        Some(Self { kind: IqKind::Error { error, request: None }, ..answer })
    }
}
