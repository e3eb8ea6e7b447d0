//! Elements to stanzas.

use compact_str::CompactString;
use isthmus_model::presence::Priority;
use isthmus_model::{LangText, Show};

use super::{ErrorCondition, ErrorType, Iq, IqKind, Message, MessageType, Presence, PresenceType, Stanza, StanzaError};
use crate::element::{Attribute, Element, Node, Start};
use crate::ns;
use crate::payload::{ChatState, Delay, Nick, Receipt, Received, Replace};

/// Why an element is no stanza that can be handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StanzaProblem {
    /// It is none of message, presence and iq of the stream.
    #[error("element is not a stanza")]
    NotAStanza,
    /// Its type is not one of the specification.
    #[error("stanza has an unknown type")]
    UnknownType,
    /// An iq without an id.
    #[error("iq has no id")]
    NoId,
    /// A get or set without anything asked.
    #[error("request is empty")]
    NoRequest,
}

/// A first-level element that cannot be handled, with the answer to send, where one is due.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct UnreadableStanza {
    /// What is wrong with it.
    pub problem: StanzaProblem,
    /// The error to send back; only requests get one.
    pub reply: Option<Box<Stanza>>,
}

impl Stanza {
    /// Reads a first-level element.
    ///
    /// # Errors
    ///
    /// [`UnreadableStanza`]. Content that is malformed inside a stanza is no error; it is left out or stays
    /// a payload.
    pub fn read(element: Element) -> Result<Self, UnreadableStanza> {
        let mut parts = Parts { nodes: element.into_nodes().into_iter() };
        let not_a_stanza = UnreadableStanza { problem: StanzaProblem::NotAStanza, reply: None };
        let Some(Node::Start(start)) = parts.nodes.next() else { return Err(not_a_stanza) };
        if start.ns.as_str() != ns::CLIENT {
            return Err(not_a_stanza);
        }
        let name = start.name.clone();
        let envelope = Envelope::of(start);
        match name.as_str() {
            "message" => Ok(Self::Message(read_message(envelope, parts))),
            "presence" => read_presence(envelope, parts).map(Self::Presence),
            "iq" => read_iq(envelope, parts).map(Self::Iq),
            _ => Err(not_a_stanza),
        }
    }
}

/// The attributes that all stanzas share.
#[derive(Default)]
struct Envelope {
    from: Option<CompactString>,
    to: Option<CompactString>,
    id: Option<CompactString>,
    kind: Option<String>,
    lang: Option<CompactString>,
    others: Vec<Attribute>,
}

impl Envelope {
    fn of(start: Start) -> Self {
        let mut envelope = Self::default();
        for attribute in start.attributes {
            match (attribute.ns.as_str(), attribute.name.as_str()) {
                ("", "from") => envelope.from = Some(attribute.value.into()),
                ("", "to") => envelope.to = Some(attribute.value.into()),
                ("", "id") => envelope.id = Some(attribute.value.into()),
                ("", "type") => envelope.kind = Some(attribute.value),
                (ns::XML, "lang") => {
                    envelope.lang = Some(attribute.value.into()).filter(|l: &CompactString| !l.is_empty());
                }
                _ => envelope.others.push(attribute),
            }
        }
        envelope
    }
}

/// The children of a stanza, taken one after the other.
struct Parts {
    nodes: std::vec::IntoIter<Node>,
}

impl Parts {
    /// The start of the next child element.
    fn next(&mut self) -> Option<Start> {
        loop {
            match self.nodes.next()? {
                Node::Start(start) => return Some(start),
                Node::Text(_) => {}
            }
        }
    }

    /// The text directly inside the child that began with `start`.
    fn text(&mut self, start: &Start) -> String {
        let mut text = String::new();
        let mut left = start.span.saturating_sub(1);
        while left > 0 {
            let Some(node) = self.nodes.next() else { break };
            let span = node.span().min(left);
            left -= span;
            match node {
                Node::Text(piece) if text.is_empty() => text = piece,
                Node::Text(piece) => text.push_str(&piece),
                Node::Start(_) => {
                    if span > 1 {
                        self.nodes.nth(span - 2);
                    }
                }
            }
        }
        text
    }

    /// A human-readable child with the language in force for it.
    fn lang_text(&mut self, start: &Start, inherited: Option<&CompactString>) -> LangText {
        let own = start.attributes.iter().find(|a| a.ns.as_str() == ns::XML && a.name.as_str() == "lang");
        let lang = match own {
            Some(own) if own.value.is_empty() => None,
            Some(own) => Some(CompactString::from(own.value.as_str())),
            None => inherited.cloned(),
        };
        LangText { lang, text: self.text(start) }
    }

    /// The whole child as a tree of its own.
    fn element(&mut self, start: Start) -> Element {
        let inside = start.span.saturating_sub(1);
        let mut nodes = Vec::with_capacity(inside + 1);
        nodes.push(Node::Start(start));
        nodes.extend(self.nodes.by_ref().take(inside));
        Element::from_nodes(nodes)
    }
}

fn read_message(envelope: Envelope, mut parts: Parts) -> Message {
    let Envelope { from, to, id, kind, lang, others } = envelope;
    let kind = MessageType::parse(kind.as_deref());
    let mut message = Message { from, to, id, kind, lang, other_attributes: others, ..Message::default() };
    while let Some(start) = parts.next() {
        if start.ns.as_str() == ns::CLIENT {
            match start.name.as_str() {
                "body" => {
                    message.bodies.push(parts.lang_text(&start, message.lang.as_ref()));
                    continue;
                }
                "subject" => {
                    message.subjects.push(parts.lang_text(&start, message.lang.as_ref()));
                    continue;
                }
                "thread" if message.thread.is_none() => {
                    message.thread = Some(parts.text(&start).into()).filter(|t: &CompactString| !t.is_empty());
                    continue;
                }
                "error" if kind == MessageType::Error && message.error.is_none() => {
                    message.error = Some(read_error(&parts.element(start), message.lang.as_ref()));
                    continue;
                }
                _ => {}
            }
        }
        let payload = parts.element(start);
        if let Some(payload) = take_message_payload(&mut message, payload) {
            message.payloads.push(payload);
        }
    }
    // an error without its element is still an error
    if kind == MessageType::Error && message.error.is_none() {
        message.error = Some(StanzaError::new(ErrorCondition::UndefinedCondition).with_type(ErrorType::Cancel));
    }
    message
}

/// Moves an extension into its field; gives it back when it has none, is malformed, or is there twice.
fn take_message_payload(message: &mut Message, payload: Element) -> Option<Element> {
    match (payload.ns().as_str(), payload.name()) {
        (ns::CHAT_STATES, name) if message.chat_state.is_none() => {
            message.chat_state = ChatState::parse(name);
            message.chat_state.is_none().then_some(payload)
        }
        (ns::RECEIPTS, "request") if message.receipt.is_none() => {
            message.receipt = Some(Receipt::Request);
            None
        }
        (ns::RECEIPTS, "received") if message.receipt.is_none() => {
            message.receipt = payload.read::<Received>(None).ok().map(|received| Receipt::Received(received.id));
            message.receipt.is_none().then_some(payload)
        }
        (ns::CORRECT, "replace") if message.replace.is_none() => {
            message.replace = payload.read::<Replace>(None).ok().map(|replace| replace.id.into());
            message.replace.is_none().then_some(payload)
        }
        (ns::DELAY, "delay") if message.delay.is_none() => {
            message.delay = Delay::read(&payload).ok();
            message.delay.is_none().then_some(payload)
        }
        _ => Some(payload),
    }
}

fn read_presence(envelope: Envelope, mut parts: Parts) -> Result<Presence, UnreadableStanza> {
    let Envelope { from, to, id, kind, lang, others } = envelope;
    let Some(kind) = PresenceType::parse(kind.as_deref()) else {
        return Err(UnreadableStanza { problem: StanzaProblem::UnknownType, reply: None });
    };
    let mut presence = Presence { from, to, id, kind, lang, other_attributes: others, ..Presence::default() };
    while let Some(start) = parts.next() {
        if start.ns.as_str() == ns::CLIENT {
            match start.name.as_str() {
                "show" if presence.show.is_none() => {
                    presence.show = Show::parse(parts.text(&start).trim_ascii());
                    continue;
                }
                "status" => {
                    presence.statuses.push(parts.lang_text(&start, presence.lang.as_ref()));
                    continue;
                }
                "priority" if presence.priority.is_none() => {
                    presence.priority = parts.text(&start).trim_ascii().parse::<Priority>().ok();
                    continue;
                }
                "error" if kind == PresenceType::Error && presence.error.is_none() => {
                    presence.error = Some(read_error(&parts.element(start), presence.lang.as_ref()));
                    continue;
                }
                _ => {}
            }
        }
        let payload = parts.element(start);
        match (payload.ns().as_str(), payload.name()) {
            (ns::DELAY, "delay") if presence.delay.is_none() => match Delay::read(&payload) {
                Ok(delay) => presence.delay = Some(delay),
                Err(_) => presence.payloads.push(payload),
            },
            (ns::NICK, "nick") if presence.nick.is_none() => match payload.read::<Nick>(None) {
                Ok(nick) => presence.nick = Some(nick.name),
                Err(_) => presence.payloads.push(payload),
            },
            _ => presence.payloads.push(payload),
        }
    }
    if kind == PresenceType::Error && presence.error.is_none() {
        presence.error = Some(StanzaError::new(ErrorCondition::UndefinedCondition).with_type(ErrorType::Cancel));
    }
    Ok(presence)
}

fn read_iq(envelope: Envelope, mut parts: Parts) -> Result<Iq, UnreadableStanza> {
    let Envelope { from, to, id, kind, lang, others } = envelope;
    let mut error = None;
    let mut payload = None;
    while let Some(start) = parts.next() {
        let is_error = start.ns.as_str() == ns::CLIENT && start.name.as_str() == "error";
        let child = parts.element(start);
        if is_error {
            error.get_or_insert_with(|| read_error(&child, lang.as_ref()));
        } else if payload.is_none() {
            payload = Some(child);
        }
    }
    let refuse = |problem, id: Option<&CompactString>| {
        // an answer needs somebody to go to and an id to be recognised by; answers get none
        let reply = match (&from, id, kind.as_deref()) {
            (Some(_), Some(id), kind) if kind != Some("result") && kind != Some("error") => {
                let error = StanzaError::new(ErrorCondition::BadRequest);
                let kind = IqKind::Error { error, request: None };
                let (from, to, id) = (to.clone(), from.clone(), id.clone());
                Some(Box::new(Stanza::Iq(Iq { from, to, id, lang: None, kind, other_attributes: Vec::new() })))
            }
            _ => None,
        };
        UnreadableStanza { problem, reply }
    };
    let Some(id) = id else { return Err(refuse(StanzaProblem::NoId, None)) };
    let kind = match (kind.as_deref(), payload) {
        (Some("get"), Some(payload)) => IqKind::Get(payload),
        (Some("set"), Some(payload)) => IqKind::Set(payload),
        (Some("get" | "set"), None) => return Err(refuse(StanzaProblem::NoRequest, Some(&id))),
        (Some("result"), payload) => IqKind::Result(payload),
        (Some("error"), request) => {
            let undefined = || StanzaError::new(ErrorCondition::UndefinedCondition).with_type(ErrorType::Cancel);
            IqKind::Error { error: error.unwrap_or_else(undefined), request }
        }
        _ => return Err(refuse(StanzaProblem::UnknownType, Some(&id))),
    };
    Ok(Iq { from, to, id, lang, kind, other_attributes: others })
}

/// Reads `<error/>`. A condition that is missing is guessed from the old numeric code; jabberd2 sends both.
fn read_error(element: &Element, inherited: Option<&CompactString>) -> StanzaError {
    let mut condition = None;
    let mut uri = None;
    let mut text = None;
    let mut others = Vec::new();
    for child in element.children() {
        if child.ns().as_str() != ns::STANZA_ERRORS {
            others.push(child.to_element());
        } else if child.name() == "text" {
            let lang = match child.lang() {
                Some("") => None,
                Some(lang) => Some(CompactString::from(lang)),
                None => inherited.cloned(),
            };
            // one text is kept; the first is the server's own language
            text.get_or_insert_with(|| LangText { lang, text: child.text().into() });
        } else if let (None, Some(known)) = (condition, ErrorCondition::parse(child.name())) {
            condition = Some(known);
            let inside = child.text();
            if matches!(known, ErrorCondition::Gone | ErrorCondition::Redirect) && !inside.is_empty() {
                uri = Some(inside.into());
            }
        }
    }
    let condition = condition
        .or_else(|| element.attribute("code").and_then(ErrorCondition::from_legacy_code))
        .unwrap_or(ErrorCondition::UndefinedCondition);
    let kind = element.attribute("type").and_then(ErrorType::parse).unwrap_or_else(|| condition.usual_type());
    StanzaError { kind, condition, text, by: element.attribute("by").map(CompactString::from), uri, others }
}
