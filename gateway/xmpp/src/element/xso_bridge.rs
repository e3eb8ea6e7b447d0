//! Trees to and from `xso` types.

use rxml::parser::EventMetrics;
use rxml::{AttrMap, Event};
use xso::error::FromEventsError;
use xso::{AsXml, Context, FromEventsBuilder as _, FromXml, Item};

use super::{Attribute, Attributes, Element, ElementRef, Name, Node, Start};
use crate::ns::{self, Ns};

/// Why an element is not of the wanted type.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It has another name.
    #[error("element has another name")]
    Mismatch,
    /// It has the name, but something in it is missing or malformed.
    #[error("element is malformed")]
    Invalid(#[source] xso::error::Error),
}

impl ElementRef<'_> {
    /// Reads the element into a payload type; `lang` is the `xml:lang` in force around it.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn read<T: FromXml>(&self, lang: Option<&str>) -> Result<T, ReadError> {
        let mut builder: Option<T::Builder> = None;
        let mut ends: Vec<usize> = Vec::new();
        for (at, node) in self.nodes().iter().enumerate() {
            let mut events = Vec::with_capacity(1);
            while ends.pop_if(|end| *end == at).is_some() {
                events.push(Event::EndElement(EventMetrics::zero()));
            }
            match node {
                Node::Text(text) => events.push(Event::Text(EventMetrics::zero(), text.clone())),
                Node::Start(start) => {
                    ends.push(at + start.span);
                    let name = (rxml_namespace(&start.ns), start.name.to_ncname().map_err(invalid)?);
                    let attributes = attribute_map(start).map_err(invalid)?;
                    if builder.is_none() {
                        let context = Context::empty().with_language(self.lang().or(lang));
                        builder = Some(T::from_events(name, attributes, &context)?);
                    } else {
                        events.push(Event::StartElement(EventMetrics::zero(), name, attributes));
                    }
                }
            }
            for event in events {
                if let Some(done) = self.feed::<T>(builder.as_mut(), event, lang)? {
                    return Ok(done);
                }
            }
        }
        for _ in ends {
            let end = Event::EndElement(EventMetrics::zero());
            if let Some(done) = self.feed::<T>(builder.as_mut(), end, lang)? {
                return Ok(done);
            }
        }
        Err(ReadError::Mismatch)
    }

    fn feed<T: FromXml>(
        &self,
        builder: Option<&mut T::Builder>,
        event: Event,
        lang: Option<&str>,
    ) -> Result<Option<T>, ReadError> {
        let Some(builder) = builder else { return Ok(None) };
        let context = Context::empty().with_language(self.lang().or(lang));
        builder.feed(event, &context).map_err(ReadError::Invalid)
    }
}

impl Element {
    /// See [`ElementRef::read`].
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn read<T: FromXml>(&self, lang: Option<&str>) -> Result<T, ReadError> {
        self.root().read(lang)
    }

    /// Writes a payload type as a tree.
    ///
    /// # Errors
    ///
    /// What the type says about a value that it cannot write.
    pub fn write<T: AsXml>(payload: &T) -> Result<Self, xso::error::Error> {
        let mut nodes: Vec<Node> = Vec::new();
        let mut open: Vec<usize> = Vec::new();
        // whether the last node is text of the element that is open, so that more text joins it
        let mut in_text = false;
        for item in payload.as_xml_iter()? {
            let item = item?;
            let was_text = std::mem::replace(&mut in_text, matches!(item, Item::Text(_)));
            match item {
                Item::XmlDeclaration(_) | Item::ElementHeadEnd => {}
                Item::ElementHeadStart(ns, name) => {
                    open.push(nodes.len());
                    let (ns, name) = (own_namespace(ns.as_str()), Name::from(&*name));
                    nodes.push(Node::Start(Start { ns, name, attributes: Attributes::new(), span: 1 }));
                }
                Item::Attribute(ns, name, value) => {
                    if let Some(Node::Start(start)) = nodes.last_mut() {
                        let (ns, name, value) = (own_namespace(ns.as_str()), Name::from(&*name), value.into_owned());
                        start.attributes.push(Attribute { ns, name, value });
                    }
                }
                Item::Text(text) if text.is_empty() => in_text = was_text,
                Item::Text(text) => match nodes.last_mut() {
                    Some(Node::Text(last)) if was_text => last.push_str(&text),
                    _ => nodes.push(Node::Text(text.into_owned())),
                },
                Item::ElementFoot => {
                    let Some(at) = open.pop() else { break };
                    let span = nodes.len() - at;
                    if let Some(Node::Start(start)) = nodes.get_mut(at) {
                        start.span = span;
                    }
                }
            }
        }
        match nodes.first() {
            Some(Node::Start(start)) if start.span == nodes.len() && open.is_empty() => Ok(Self { nodes }),
            _ => Err(xso::error::Error::Other("payload is not one element")),
        }
    }
}

impl From<FromEventsError> for ReadError {
    fn from(error: FromEventsError) -> Self {
        match error {
            FromEventsError::Mismatch { .. } => Self::Mismatch,
            FromEventsError::Invalid(error) => Self::Invalid(error),
        }
    }
}

fn attribute_map(start: &Start) -> Result<AttrMap, rxml::Error> {
    let mut map = AttrMap::new();
    for Attribute { ns, name, value } in &start.attributes {
        map.insert(rxml_namespace(ns), name.to_ncname()?, value.clone());
    }
    Ok(map)
}

fn invalid(error: rxml::Error) -> ReadError {
    ReadError::Invalid(error.into())
}

fn rxml_namespace(ns: &Ns) -> rxml::Namespace<'static> {
    if ns.as_str() == ns::XML { rxml::Namespace::XML } else { rxml::Namespace::from(ns.as_str().to_owned()) }
}

fn own_namespace(name: &str) -> Ns {
    if name == ns::CLIENT { Ns::CONTENT } else { Ns::new(name) }
}

#[cfg(test)]
mod tests {
    use xso::{AsXml, FromXml};

    use super::*;

    #[derive(Debug, PartialEq, FromXml, AsXml)]
    #[xml(namespace = "urn:example", name = "outer")]
    struct Outer {
        #[xml(attribute(default))]
        mode: Option<String>,
        #[xml(child(n = ..))]
        inner: Vec<Inner>,
    }

    #[derive(Debug, PartialEq, FromXml, AsXml)]
    #[xml(namespace = "urn:example", name = "inner")]
    struct Inner {
        #[xml(text)]
        text: String,
    }

    #[test]
    fn a_type_survives_the_tree() {
        let inner = |text: &str| Inner { text: text.to_owned() };
        let outer = Outer { mode: Some("m".into()), inner: vec![inner("one"), inner(""), inner("two")] };
        let tree = Element::write(&outer).unwrap();
        assert_eq!(tree.children().count(), 3);
        assert_eq!(tree.read::<Outer>(None).unwrap(), outer);
        let within = Element::new(Ns::new("x"), crate::name!("x")).with_child(tree).with_text("after");
        assert_eq!(within.child("urn:example", "outer").unwrap().read::<Outer>(None).unwrap(), outer);
    }

    #[test]
    fn another_name_is_a_mismatch_and_bad_content_is_invalid() {
        let other = Element::new(Ns::new("urn:example"), crate::name!("other"));
        assert!(matches!(other.read::<Outer>(None), Err(ReadError::Mismatch)));
        let nested = Element::new(Ns::new("urn:example"), crate::name!("inner")).with_child(other);
        let unknown_child_is_skipped = nested.read::<Inner>(None);
        assert_eq!(unknown_child_is_skipped.unwrap(), Inner { text: String::new() });
    }
}
