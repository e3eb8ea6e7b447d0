//! Sans-io XMPP: bounded stream codec, component link, stanza types.
//!
//! Bytes go in, bounded events come out; nothing here reads a clock, draws a random number or touches a
//! socket. The layers, from the wire up:
//!
//! - [`stream`]: the codec ([`codec`]), which knows the form of a stream but not who may say what in it, and
//!   the stream errors. Component links use it today; server-to-server streams are to use the same one.
//! - [`element`]: the tree between codec and types. It is a flat list in document order, so that neither
//!   building nor reading nor dropping one recurses, however deep a peer nests.
//! - [`stanza`]: message, presence and iq as the gateway reads and writes them, and their errors.
//! - [`payload`]: the extensions that the gateway reads, as `xso` types.
//! - [`component`]: the machine of one component connection (XEP-0114) with its delivery barrier.
//! - [`jid`]: addresses taken apart, never mapped.
//!
//! # Own types instead of `xmpp-parsers`
//!
//! The payloads that the gateway reads are own `xso` types. `xmpp-parsers` has them and three hundred more,
//! but its stanzas exist in `jabber:client` only, while this crate lives on `jabber:component:accept` and
//! `jabber:server` streams; it is the dearest crate of the whole build (four minutes in release); and a parse
//! into its types forgets what it does not know, where the gateway must pass it on unchanged. What is left
//! to gain is a dozen small structs.
//!
//! # Namespaces at the boundary
//!
//! An element that was in the stream's default namespace by inheritance belongs to no particular stream: it
//! is read as [`Ns::CONTENT`] and written in the content namespace of whichever stream it leaves on.
//! Content that declares `jabber:client` itself (forwarded messages, archives) keeps it.

pub mod component;
pub mod element;
pub mod jid;
pub mod ns;
pub mod payload;
pub mod stanza;
pub mod stream;
pub mod xml;

#[doc(hidden)]
pub mod fuzz;

pub use element::{Element, ElementRef, Name};
pub use ns::Ns;
pub use stanza::{
    ErrorCondition, ErrorType, Iq, IqKind, Message, MessageType, Presence, PresenceType, Stanza, StanzaError,
};
pub use stream::codec;
