//! The extensions that the gateway reads or writes, as `xso` types.
//!
//! Read one with [`Element::read`], write one with [`Element::write`]. Extensions that are
//! not here are never interpreted and stay in the stanza as they came.

use isthmus_model::EpochMillis;
use xso::{AsXml, FromXml};

use crate::element::{Element, ReadError};
use crate::ns;
use crate::stanza::{Message, MessageType};

mod stamp;

pub use stamp::{Stamp, StampError};

/// When and by whom a stanza was held back (XEP-0203).
///
/// Read it with [`Delay::read`]; the reason that some servers add for people is not kept.
#[derive(Debug, Clone, PartialEq, Eq, AsXml)]
#[xml(namespace = ns::DELAY, name = "delay")]
pub struct Delay {
    /// Who held it back; the user's server for offline messages and for presence after a probe.
    #[xml(attribute(default))]
    pub from: Option<String>,
    /// When it was first sent.
    #[xml(attribute)]
    pub stamp: Stamp,
}

/// A delay with its text, without which a type would refuse the text.
#[derive(FromXml)]
#[xml(namespace = ns::DELAY, name = "delay")]
struct DelayWithReason {
    #[xml(attribute(default))]
    from: Option<String>,
    #[xml(attribute)]
    stamp: Stamp,
    #[xml(text)]
    _reason: String,
}

impl Delay {
    /// Reads the element.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn read(element: &Element) -> Result<Self, ReadError> {
        let DelayWithReason { from, stamp, _reason } = element.read(None)?;
        Ok(Self { from, stamp })
    }

    /// The time as the rest of the house counts it.
    pub fn at(&self) -> EpochMillis {
        self.stamp.0
    }
}

/// An answer to a receipt request (XEP-0184).
#[derive(Debug, Clone, PartialEq, Eq, FromXml, AsXml)]
#[xml(namespace = ns::RECEIPTS, name = "received")]
pub struct Received {
    /// The message that arrived.
    #[xml(attribute)]
    pub id: String,
}

/// Says that a message corrects an earlier one (XEP-0308).
#[derive(Debug, Clone, PartialEq, Eq, FromXml, AsXml)]
#[xml(namespace = ns::CORRECT, name = "replace")]
pub struct Replace {
    /// The message corrected.
    #[xml(attribute)]
    pub id: String,
}

/// The sender's name for people (XEP-0172).
#[derive(Debug, Clone, PartialEq, Eq, FromXml, AsXml)]
#[xml(namespace = ns::NICK, name = "nick")]
pub struct Nick {
    /// The name.
    #[xml(text)]
    pub name: String,
}

/// Says how a message is encrypted (XEP-0380).
#[derive(Debug, Clone, PartialEq, Eq, FromXml, AsXml)]
#[xml(namespace = ns::EME, name = "encryption")]
pub struct ExplicitEncryption {
    /// The encryption protocol.
    #[xml(attribute)]
    pub namespace: String,
    /// Its name for people.
    #[xml(attribute(default))]
    pub name: Option<String>,
}

/// Asks whether the other side is there (XEP-0199).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromXml, AsXml)]
#[xml(namespace = ns::PING, name = "ping")]
pub struct Ping;

/// Asks for, or tells, what an entity is and can do (XEP-0030).
#[derive(Debug, Clone, Default, PartialEq, Eq, FromXml, AsXml)]
#[xml(namespace = ns::DISCO_INFO, name = "query")]
pub struct DiscoInfo {
    /// The part of the entity that is meant.
    #[xml(attribute(default))]
    pub node: Option<String>,
    /// What the entity is.
    #[xml(child(n = ..))]
    pub identities: Vec<Identity>,
    /// What it can do.
    #[xml(child(n = ..))]
    pub features: Vec<Feature>,
}

/// What an entity is (XEP-0030).
#[derive(Debug, Clone, PartialEq, Eq, FromXml, AsXml)]
#[xml(namespace = ns::DISCO_INFO, name = "identity")]
pub struct Identity {
    /// The category, `gateway` for one.
    #[xml(attribute)]
    pub category: String,
    /// The type within the category.
    #[xml(attribute = "type")]
    pub kind: String,
    /// The name for people.
    #[xml(attribute(default))]
    pub name: Option<String>,
}

/// What an entity can do (XEP-0030).
#[derive(Debug, Clone, PartialEq, Eq, FromXml, AsXml)]
#[xml(namespace = ns::DISCO_INFO, name = "feature")]
pub struct Feature {
    /// The namespace of the feature.
    #[xml(attribute = "var")]
    pub namespace: String,
}

/// A chat state (XEP-0085).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChatState {
    /// Attending to the conversation.
    Active,
    /// Writing.
    Composing,
    /// Stopped writing.
    Paused,
    /// Not attending.
    Inactive,
    /// Left the conversation.
    Gone,
}

impl ChatState {
    /// The element's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Composing => "composing",
            Self::Paused => "paused",
            Self::Inactive => "inactive",
            Self::Gone => "gone",
        }
    }

    /// Reads an element's name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Active, Self::Composing, Self::Paused, Self::Inactive, Self::Gone]
            .into_iter()
            .find(|s| s.as_str() == name)
    }
}

/// What a message says about receipts (XEP-0184).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receipt {
    /// The sender wants one.
    Request,
    /// This is one, for the message of that id.
    Received(String),
}

/// How a message is encrypted, so far as its form tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encryption {
    /// OMEMO, any version (XEP-0384).
    Omemo,
    /// OpenPGP, today's or the historical use (XEP-0373, XEP-0027).
    OpenPgp,
    /// Off-the-record.
    Otr,
    /// Another protocol, named by explicit message encryption only.
    Other,
}

impl Encryption {
    /// Looks for the marks of encryption on a message; its body is then a note for clients that cannot read it.
    pub fn of(message: &Message) -> Option<Self> {
        let of_payload = |payload: &Element| match (payload.ns().as_str(), payload.name()) {
            (ns::OMEMO | ns::OMEMO_LEGACY, "encrypted") => Some(Self::Omemo),
            (ns::OPENPGP, "openpgp") | (ns::PGP_LEGACY, "x") => Some(Self::OpenPgp),
            (ns::EME, "encryption") => Some(match payload.attribute("namespace") {
                Some(ns::OMEMO | ns::OMEMO_LEGACY) => Self::Omemo,
                Some(ns::OPENPGP | ns::PGP_LEGACY) => Self::OpenPgp,
                Some(ns::OTR) => Self::Otr,
                _ => Self::Other,
            }),
            _ => None,
        };
        let by_payload = message.payloads.iter().find_map(of_payload);
        by_payload.or_else(|| message.bodies.iter().any(|body| is_otr(&body.text)).then_some(Self::Otr))
    }
}

/// True for a message of the OTR protocol, including its query, but not for prose that mentions it.
fn is_otr(body: &str) -> bool {
    let Some(rest) = body.strip_prefix("?OTR") else { return false };
    rest.starts_with([':', ',', '|', 'v', 'V', '?'])
}

/// What a message has to do with multi-user chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupChat {
    /// Invites into a room (XEP-0045 §7.8, XEP-0249).
    Invitation,
    /// Was sent in a room or by an occupant of one.
    Occupant,
}

impl GroupChat {
    /// Looks for the marks of multi-user chat on a message.
    pub fn of(message: &Message) -> Option<Self> {
        let payloads = || message.payloads.iter();
        let invites = |payload: &Element| {
            payload.is(ns::CONFERENCE, "x")
                || (payload.is(ns::MUC_USER, "x") && payload.child(ns::MUC_USER, "invite").is_some())
        };
        if payloads().any(invites) {
            Some(Self::Invitation)
        } else if message.kind == MessageType::Groupchat || payloads().any(|p| p.is(ns::MUC_USER, "x")) {
            Some(Self::Occupant)
        } else {
            None
        }
    }
}
