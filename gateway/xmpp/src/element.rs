//! The tree of one element.
//!
//! A tree is one list of nodes in document order, in which every element says how many nodes its subtree
//! has. Building appends, reading steps over, writing walks once, dropping frees one list: none of them
//! recurses, so a peer's nesting can exhaust no stack, whatever the depth limit is set to.

use std::fmt;

use compact_str::CompactString;
use smallvec::SmallVec;

use crate::ns::{self, Ns};

mod name;
mod xso_bridge;

pub use name::Name;
pub use xso_bridge::ReadError;

/// An attribute of an element; namespace declarations are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    pub(crate) ns: Ns,
    pub(crate) name: Name,
    pub(crate) value: String,
}

impl Attribute {
    /// The namespace, [`Ns::NONE`] for almost every attribute.
    pub fn ns(&self) -> &Ns {
        &self.ns
    }

    /// The local name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The value, with references resolved.
    pub fn value(&self) -> &str {
        &self.value
    }
}

/// Attributes of one element. Stanzas have from, to, id, type and `xml:lang`.
pub(crate) type Attributes = SmallVec<[Attribute; 1]>;

/// The start of an element in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) ns: Ns,
    pub(crate) name: Name,
    pub(crate) attributes: Attributes,
    /// Nodes of the subtree, this one included.
    pub(crate) span: usize,
}

/// One entry of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// An element begins; it ends after `span` entries.
    Start(Start),
    /// Character data. Neighbouring pieces are one entry.
    Text(String),
}

/// An element with everything inside it.
#[derive(Clone, PartialEq, Eq)]
pub struct Element {
    /// The first is always the element's own start, whose span is the whole list.
    nodes: Vec<Node>,
}

impl Element {
    /// Makes an empty element; `name` comes from [`name!`](crate::name).
    pub fn new(ns: Ns, name: Name) -> Self {
        let start = Start { ns, name, attributes: Attributes::new(), span: 1 };
        Self { nodes: vec![Node::Start(start)] }
    }

    /// Adds or replaces an attribute without a namespace.
    #[must_use]
    pub fn with_attribute(mut self, name: Name, value: impl Into<String>) -> Self {
        self.set_attribute(Ns::NONE, name, value.into());
        self
    }

    /// Adds character data at the end.
    #[must_use]
    pub fn with_text(mut self, text: impl Into<String>) -> Self {
        let text = text.into();
        if !text.is_empty() {
            if let (true, Some(Node::Text(last))) = (self.ends_in_own_text(), self.nodes.last_mut()) {
                last.push_str(&text);
            } else {
                self.nodes.push(Node::Text(text));
                self.respan();
            }
        }
        self
    }

    /// Adds a child at the end.
    #[must_use]
    pub fn with_child(mut self, child: Self) -> Self {
        self.nodes.extend(child.nodes);
        self.respan();
        self
    }

    /// Sets `xml:lang`.
    #[must_use]
    pub fn with_lang(mut self, lang: impl Into<String>) -> Self {
        self.set_attribute(Ns::XML, crate::name!("lang"), lang.into());
        self
    }

    /// A view of the element for reading.
    pub fn root(&self) -> ElementRef<'_> {
        ElementRef { nodes: &self.nodes }
    }

    /// See [`ElementRef::ns`].
    pub fn ns(&self) -> &Ns {
        self.root().ns()
    }

    /// See [`ElementRef::name`].
    pub fn name(&self) -> &str {
        self.root().name()
    }

    /// See [`ElementRef::is`].
    pub fn is(&self, ns: &str, name: &str) -> bool {
        self.root().is(ns, name)
    }

    /// See [`ElementRef::attribute`].
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.root().attribute(name)
    }

    /// See [`ElementRef::child`].
    pub fn child(&self, ns: &str, name: &str) -> Option<ElementRef<'_>> {
        self.root().child(ns, name)
    }

    /// See [`ElementRef::children`].
    pub fn children(&self) -> Children<'_> {
        self.root().children()
    }

    /// See [`ElementRef::text`].
    pub fn text(&self) -> CompactString {
        self.root().text()
    }

    /// Sets an attribute, replacing one of the same name.
    pub(crate) fn set_attribute(&mut self, ns: Ns, name: Name, value: String) {
        let Some(Node::Start(start)) = self.nodes.first_mut() else { return };
        match start.attributes.iter_mut().find(|a| a.ns == ns && a.name == name) {
            Some(attribute) => attribute.value = value,
            None => start.attributes.push(Attribute { ns, name, value }),
        }
    }

    /// Wraps nodes that are known to be one element: the first is a start whose span is the whole list.
    pub(crate) fn from_nodes(nodes: Vec<Node>) -> Self {
        debug_assert!(matches!(nodes.first(), Some(Node::Start(start)) if start.span == nodes.len()));
        Self { nodes }
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(crate) fn into_nodes(self) -> Vec<Node> {
        self.nodes
    }

    fn respan(&mut self) {
        let span = self.nodes.len();
        if let Some(Node::Start(start)) = self.nodes.first_mut() {
            start.span = span;
        }
    }

    /// True if the last entry of the list is text directly inside this element.
    fn ends_in_own_text(&self) -> bool {
        let mut own = false;
        let mut at = 1;
        while let Some(node) = self.nodes.get(at) {
            own = matches!(node, Node::Text(_));
            at += node.span();
        }
        own
    }
}

impl fmt::Debug for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.nodes).finish()
    }
}

impl Node {
    /// Entries of the subtree; one for text.
    pub(crate) fn span(&self) -> usize {
        match self {
            Self::Start(start) => start.span.max(1),
            Self::Text(_) => 1,
        }
    }
}

/// A view of an element inside a tree.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ElementRef<'a> {
    /// Begins with the element's start and ends with its subtree.
    nodes: &'a [Node],
}

impl<'a> ElementRef<'a> {
    fn start(&self) -> Option<&'a Start> {
        match self.nodes.first() {
            Some(Node::Start(start)) => Some(start),
            _ => None,
        }
    }

    /// The namespace.
    pub fn ns(&self) -> &'a Ns {
        self.start().map_or(&Ns::NONE, |start| &start.ns)
    }

    /// The local name.
    pub fn name(&self) -> &'a str {
        self.start().map_or("", |start| start.name.as_str())
    }

    /// True if the element has that name; content of any stream is in `jabber:client`.
    pub fn is(&self, ns: &str, name: &str) -> bool {
        self.name() == name && self.ns().as_str() == ns
    }

    /// The attribute of that name without a namespace.
    pub fn attribute(&self, name: &str) -> Option<&'a str> {
        self.attributes().iter().find(|a| a.ns.is_none() && a.name.as_str() == name).map(Attribute::value)
    }

    /// All attributes in document order.
    pub fn attributes(&self) -> &'a [Attribute] {
        self.start().map_or(&[], |start| &start.attributes)
    }

    /// The `xml:lang` on the element itself. Empty means none, as XML says.
    pub fn lang(&self) -> Option<&'a str> {
        let lang = self.attributes().iter().find(|a| a.ns.as_str() == ns::XML && a.name.as_str() == "lang");
        lang.map(Attribute::value)
    }

    /// The child elements in order.
    pub fn children(&self) -> Children<'a> {
        Children { rest: self.nodes.get(1..).unwrap_or_default() }
    }

    /// The first child of that name.
    pub fn child(&self, ns: &str, name: &str) -> Option<Self> {
        self.children().find(|child| child.is(ns, name))
    }

    /// The character data directly inside, in one piece.
    pub fn text(&self) -> CompactString {
        let mut text = CompactString::default();
        let mut at = 1;
        while let Some(node) = self.nodes.get(at) {
            if let Node::Text(piece) = node {
                text.push_str(piece);
            }
            at += node.span();
        }
        text
    }

    /// Copies the element out of its tree.
    pub fn to_element(&self) -> Element {
        Element { nodes: self.nodes.to_vec() }
    }

    pub(crate) fn nodes(&self) -> &'a [Node] {
        self.nodes
    }
}

impl fmt::Debug for ElementRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.nodes).finish()
    }
}

/// The child elements of an element, in order.
#[derive(Debug, Clone)]
pub struct Children<'a> {
    rest: &'a [Node],
}

impl<'a> Iterator for Children<'a> {
    type Item = ElementRef<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let node = self.rest.first()?;
            let (nodes, rest) = self.rest.split_at_checked(node.span())?;
            self.rest = rest;
            if let Node::Start(_) = node {
                return Some(ElementRef { nodes });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name;

    #[test]
    fn children_texts_and_attributes_are_found_and_nothing_deeper() {
        let inner = Element::new(Ns::new("b"), name!("deep")).with_text("no");
        let tree = Element::new(Ns::CONTENT, name!("a"))
            .with_attribute(name!("x"), "1")
            .with_text("one ")
            .with_text("two ")
            .with_child(Element::new(Ns::new("b"), name!("c")).with_child(inner).with_text("in c"))
            .with_text("three")
            .with_child(Element::new(Ns::CONTENT, name!("d")))
            .with_attribute(name!("x"), "2");
        assert!(tree.is(ns::CLIENT, "a"));
        assert_eq!(tree.attribute("x"), Some("2"));
        assert_eq!(tree.text(), "one two three");
        assert_eq!(tree.children().map(|c| c.name().to_owned()).collect::<Vec<_>>(), ["c", "d"]);
        assert_eq!(tree.child("b", "c").map(|c| c.text()), Some("in c".into()));
        assert!(tree.child("b", "deep").is_none());
        assert_eq!(tree.child("b", "c").unwrap().to_element().child("b", "deep").unwrap().text(), "no");
    }

    #[test]
    fn a_million_levels_are_built_read_and_dropped_without_a_deep_stack() {
        let levels = 1_000_000;
        let nodes = (0..levels)
            .map(|level| {
                let (ns, name) = (Ns::CONTENT, name!("a"));
                Node::Start(Start { ns, name, attributes: Attributes::new(), span: levels - level })
            })
            .collect();
        let tree = Element::from_nodes(nodes);
        let copy = tree.clone();
        assert!(copy == tree);
        assert_eq!(tree.children().count(), 1);
        drop(tree);
    }
}
