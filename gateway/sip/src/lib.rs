//! Sans-io SIP: codec, framer, transactions, dialogs, subscriptions, SDP, PIDF.
//!
//! The codec reads one whole message into a [`Message`], which keeps the bytes it came in and remembers
//! where things are; nothing is copied until somebody asks for an owned form. It writes through
//! [`RequestWriter`] and [`ResponseWriter`], which cannot write a line break inside a value.
//! Nothing in this crate reads a clock, draws random numbers or touches a socket.

pub mod dialog;
pub mod endpoint;
pub mod framer;
pub mod header;
pub mod limits;
pub mod message;
pub mod method;
pub mod pidf;
pub mod sdp;
pub mod status;
pub mod subscription;
pub mod timer;
mod transaction;
pub mod uri;
mod wire;
pub mod write;

#[doc(hidden)]
pub mod fuzz;

pub use framer::{Frame, Framer, FramerError};
pub use header::{
    Address, CSeq, Contact, Event, HeaderError, HeaderName, MediaType, NameAddr, Params, RetryAfter, SubscriptionState,
    Transport, Via, ViaSpec, Warning,
};
pub use limits::Limits;
pub use message::{Message, ParseError, ParseErrorKind, Partial};
pub use method::Method;
pub use status::StatusCode;
pub use uri::{Host, Scheme, SipUri, Uri, UriError};
pub use write::{RequestWriter, ResponseWriter, WriteError};
