//! XML streams: the codec and the errors that end a stream.
//!
//! The codec serves every kind of XMPP stream; [`codec::StreamKind`] says which. Negotiation lives with its
//! user: [`crate::component`] for XEP-0114. Server-to-server initiator and responder belong beside the codec.

pub mod codec;
mod error;

pub use error::{StreamCondition, StreamError};
