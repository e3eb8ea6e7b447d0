//! Presence documents: PIDF (RFC 3863) with the data model (RFC 4479) and RPID (RFC 4480).
//!
//! [`Pidf`] holds what the gateway understands of a document; [`Pidf::parse`] reads the standard form, the
//! form of Microsoft servers and the shapes met in the wild, all within [`PidfLimits`], and
//! [`Pidf::to_xml`] writes it. What an element means for a user's availability is not decided here.

mod activity;
mod read;
#[cfg(test)]
mod tests;
mod write;
pub mod xml;

use isthmus_model::{EpochMillis, LangText, Show};

pub use activity::Activity;
pub use xml::{XmlError, XmlLimits};

/// The media type of these documents.
pub const MEDIA_TYPE: &str = "application/pidf+xml";

/// Namespace of PIDF (RFC 3863 §4.2.2; §4.1.1 prints it with a stray colon).
pub const NS_PIDF: &str = "urn:ietf:params:xml:ns:pidf";
/// Namespace of the presence data model (RFC 4479).
pub const NS_DATA_MODEL: &str = "urn:ietf:params:xml:ns:pidf:data-model";
/// Namespace of RPID (RFC 4480).
pub const NS_RPID: &str = "urn:ietf:params:xml:ns:pidf:rpid";
/// Namespace of the draft before RPID, which Microsoft servers speak.
pub const NS_RPID_STATUS: &str = "urn:ietf:params:xml:ns:pidf:status:rpid-status";
/// Namespace of `<show/>` inside `<status/>` (RFC 8048 §6.2).
pub const NS_JABBER_CLIENT: &str = "jabber:client";
/// Namespace of contact information, for the display name (RFC 4482).
pub const NS_CIPID: &str = "urn:ietf:params:xml:ns:pidf:cipid";

/// Bounds of a presence document beside those of its XML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PidfLimits {
    /// Bounds of the XML itself.
    pub xml: XmlLimits,
    /// Tuples, and persons. Default 64: one per device.
    pub tuples: usize,
    /// Notes in one place. Default 16: one per language.
    pub notes: usize,
    /// Activities in one place. Default 32; RFC 4480 knows 27.
    pub activities: usize,
}

impl Default for PidfLimits {
    fn default() -> Self {
        Self { xml: XmlLimits::default(), tuples: 64, notes: 16, activities: 32 }
    }
}

/// Why a body is no presence document.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PidfError {
    /// The XML is refused.
    #[error(transparent)]
    Xml(#[from] XmlError),
    /// The root element is not `presence` of PIDF.
    #[error("document is not a PIDF presence document")]
    NotPidf,
    /// More tuples or persons than [`PidfLimits::tuples`].
    #[error("document has more than {limit} tuples or persons")]
    TooManyTuples {
        /// The limit in force.
        limit: usize,
    },
    /// More notes in one place than [`PidfLimits::notes`].
    #[error("document has more than {limit} notes in one place")]
    TooManyNotes {
        /// The limit in force.
        limit: usize,
    },
    /// More activities in one place than [`PidfLimits::activities`].
    #[error("document has more than {limit} activities in one place")]
    TooManyActivities {
        /// The limit in force.
        limit: usize,
    },
}

/// A presence document. It is complete state: it replaces the one before (RFC 3863 §4.1).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pidf {
    /// Whose presence, as written: a `pres:` or `sip:` URI, from Microsoft servers also without scheme.
    pub entity: String,
    /// The devices or services, in order.
    pub tuples: Vec<Tuple>,
    /// What is known of the person; `None` when the document says nothing. Several are joined.
    pub person: Option<Person>,
    /// Notes about the presentity as a whole.
    pub notes: Vec<LangText>,
    /// The name to show (RFC 4482).
    pub display_name: Option<String>,
}

/// The basic status (RFC 3863 §4.1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basic {
    /// Can be reached.
    Open,
    /// Cannot be reached.
    Closed,
}

/// One tuple: a way to reach the presentity.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tuple {
    /// The id, unique in a sound document; empty when the document gives none.
    pub id: String,
    /// The basic status; `None` when it is missing or a value that PIDF does not know.
    pub basic: Option<Basic>,
    /// XMPP's own availability (RFC 8048 §6.2).
    pub show: Option<Show>,
    /// Activities of this tuple, written in the draft's form.
    pub activities: Vec<Activity>,
    /// Whether the user is idle (`user-input`, RFC 4480 §3.12).
    pub idle: bool,
    /// Where to reach this tuple.
    pub contact: Option<Contact>,
    /// Notes, at most one per language in a sound document.
    pub notes: Vec<LangText>,
    /// When the state began.
    pub timestamp: Option<EpochMillis>,
}

/// The contact of a tuple.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contact {
    /// The URI as written.
    pub uri: String,
    /// The priority, 0 to 1000 thousandths; `None` when it is absent or out of range.
    pub priority: Option<u16>,
}

/// What is known of the person (RFC 4479 §3.2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Person {
    /// Activities, written in the form of RFC 4480.
    pub activities: Vec<Activity>,
    /// Whether the person is idle (`user-input`, RFC 4480 §3.12).
    pub idle: bool,
    /// Notes.
    pub notes: Vec<LangText>,
}

/// The scheme of the entity: peers of the Microsoft dialect want `sip:`, others `pres:` (RFC 3863 §4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntityScheme {
    /// `pres:`
    Pres,
    /// `sip:`
    Sip,
}

/// The id of the only tuple in a document that tells nothing about devices.
pub const SINGLE_TUPLE_ID: &str = "ID-0";

impl Pidf {
    /// Makes the OFFLINE document: one closed tuple and nothing else.
    ///
    /// Blocked watchers and watchers of an offline user get the same one, so that they cannot be told
    /// apart. `entity` and `aor` are URIs, `timestamp` the time of generation.
    pub fn offline(entity: String, aor: String, timestamp: EpochMillis) -> Self {
        Self {
            entity,
            tuples: vec![Tuple {
                id: SINGLE_TUPLE_ID.to_owned(),
                basic: Some(Basic::Closed),
                contact: Some(Contact { uri: aor, priority: None }),
                timestamp: Some(timestamp),
                ..Tuple::default()
            }],
            ..Self::default()
        }
    }
}

/// Fuzz entry: a document is refused, or what is read of it can be written and read back the same.
#[doc(hidden)]
pub fn fuzz(body: &[u8]) {
    let limits = PidfLimits::default();
    let Ok(pidf) = Pidf::parse(body, &limits) else { return };
    // Escaping can make a document longer than it came.
    let roomy = PidfLimits { xml: XmlLimits { bytes: 8 * limits.xml.bytes, ..limits.xml }, ..limits };
    assert_eq!(Pidf::parse(pidf.to_xml().as_bytes(), &roomy), Ok(pidf), "a document differs from its copy");
}
