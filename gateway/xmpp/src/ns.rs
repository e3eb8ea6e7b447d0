//! Namespace names.

use std::fmt;
use std::sync::Arc;

macro_rules! namespaces {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $value;)*
        /// Every namespace of this module, so that reading one of them allocates nothing.
        const KNOWN: &[&str] = &[$($name),*];
    };
}

namespaces! {
    /// The stream's own elements (RFC 6120 §4.8.1).
    STREAMS = "http://etherx.jabber.org/streams";
    /// Content of client streams, and the name under which content of every stream is read here.
    CLIENT = "jabber:client";
    /// Content of server-to-server streams.
    SERVER = "jabber:server";
    /// Content of component streams (XEP-0114).
    COMPONENT = "jabber:component:accept";
    /// Server dialback (XEP-0220).
    DIALBACK = "jabber:server:dialback";
    /// Conditions of stream errors.
    STREAM_ERRORS = "urn:ietf:params:xml:ns:xmpp-streams";
    /// Conditions of stanza errors.
    STANZA_ERRORS = "urn:ietf:params:xml:ns:xmpp-stanzas";
    /// The `xml:` prefix.
    XML = "http://www.w3.org/XML/1998/namespace";
    /// Ping (XEP-0199).
    PING = "urn:xmpp:ping";
    /// Delayed delivery (XEP-0203).
    DELAY = "urn:xmpp:delay";
    /// Chat state notifications (XEP-0085).
    CHAT_STATES = "http://jabber.org/protocol/chatstates";
    /// Delivery receipts (XEP-0184).
    RECEIPTS = "urn:xmpp:receipts";
    /// Last message correction (XEP-0308).
    CORRECT = "urn:xmpp:message-correct:0";
    /// User nickname (XEP-0172).
    NICK = "http://jabber.org/protocol/nick";
    /// Service discovery, information (XEP-0030).
    DISCO_INFO = "http://jabber.org/protocol/disco#info";
    /// Service discovery, items (XEP-0030).
    DISCO_ITEMS = "http://jabber.org/protocol/disco#items";
    /// Entity capabilities (XEP-0115).
    CAPS = "http://jabber.org/protocol/caps";
    /// Direct multi-user chat invitation (XEP-0249).
    CONFERENCE = "jabber:x:conference";
    /// Multi-user chat, what an occupant says on entry (XEP-0045).
    MUC = "http://jabber.org/protocol/muc";
    /// Multi-user chat, what a room says (XEP-0045).
    MUC_USER = "http://jabber.org/protocol/muc#user";
    /// Explicit message encryption (XEP-0380).
    EME = "urn:xmpp:eme:0";
    /// OMEMO as Conversations first shipped it (XEP-0384, version 0.3).
    OMEMO_LEGACY = "eu.siacs.conversations.axolotl";
    /// OMEMO (XEP-0384).
    OMEMO = "urn:xmpp:omemo:2";
    /// OpenPGP for XMPP (XEP-0373).
    OPENPGP = "urn:xmpp:openpgp:0";
    /// Historical OpenPGP use (XEP-0027).
    PGP_LEGACY = "jabber:x:encrypted";
    /// Off-the-record messaging, as named in [`EME`].
    OTR = "urn:xmpp:otr:0";
    /// Message processing hints (XEP-0334).
    HINTS = "urn:xmpp:hints";
    /// Stanza and origin identifiers (XEP-0359).
    SID = "urn:xmpp:sid:0";
    /// Message carbons (XEP-0280).
    CARBONS = "urn:xmpp:carbons:2";
    /// Stanza forwarding (XEP-0297).
    FORWARD = "urn:xmpp:forward:0";
    /// XHTML-IM (XEP-0071).
    XHTML_IM = "http://jabber.org/protocol/xhtml-im";
    /// Contact's avatar hash (XEP-0153).
    VCARD_UPDATE = "vcard-temp:x:update";
}

/// The namespace of an element or attribute. Two are equal if their names are, and both or neither are
/// [`Ns::CONTENT`].
#[derive(Clone)]
pub struct Ns(Repr);

#[derive(Clone)]
enum Repr {
    None,
    Content,
    Static(&'static str),
    Shared(Arc<str>),
}

impl Ns {
    /// No namespace: attributes without a prefix.
    pub const NONE: Self = Self(Repr::None);
    /// The content namespace of whichever stream the element is on.
    pub const CONTENT: Self = Self(Repr::Content);
    /// The namespace of `xml:lang`.
    pub const XML: Self = Self(Repr::Static(XML));

    /// Names a namespace; costs an allocation unless it is one of this module.
    pub fn new(name: &str) -> Self {
        if name.is_empty() {
            return Self::NONE;
        }
        match KNOWN.iter().find(|known| **known == name) {
            Some(known) => Self(Repr::Static(known)),
            None => Self(Repr::Shared(Arc::from(name))),
        }
    }

    /// Names a namespace that is known when this is compiled.
    pub const fn of(name: &'static str) -> Self {
        Self(Repr::Static(name))
    }

    /// The name. Content of any stream is called `jabber:client` here.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::None => "",
            Repr::Content => CLIENT,
            Repr::Static(name) => name,
            Repr::Shared(name) => name,
        }
    }

    /// True for [`Self::CONTENT`], which a content namespace that the element declared itself is not.
    pub fn is_content(&self) -> bool {
        matches!(self.0, Repr::Content)
    }

    /// True without a namespace.
    pub fn is_none(&self) -> bool {
        matches!(self.0, Repr::None)
    }
}

impl PartialEq for Ns {
    fn eq(&self, other: &Self) -> bool {
        self.is_content() == other.is_content() && self.as_str() == other.as_str()
    }
}

impl Eq for Ns {}

impl fmt::Debug for Ns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Content => f.write_str("content"),
            _ => write!(f, "{:?}", self.as_str()),
        }
    }
}

impl From<&str> for Ns {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}
