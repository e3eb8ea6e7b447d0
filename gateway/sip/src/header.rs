//! Header names and typed header values (RFC 3261 §20 and its extensions).
//!
//! Typed values borrow the text they were read from. Each reads one value: a header that carries several is
//! taken apart by [`crate::Message::headers`] first.

mod address;
mod name;
mod params;
mod value;
mod via;

pub use address::{Address, Contact, NameAddr};
pub use name::HeaderName;
pub use params::Params;
pub use value::{CSeq, Event, MediaType, RetryAfter, SubscriptionState, Tagged, Warning};
pub use via::{Transport, Via, ViaSpec};

pub(crate) use address::write_display;

use crate::uri::UriError;

/// Why a header value could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The header is not in the message, or is there without a value.
    #[error("missing")]
    Missing,
    /// A quoted string is not closed, or text follows where none may.
    #[error("bad quoting or trailing text")]
    Syntax,
    /// A parameter without a name, or with a character that cannot be there.
    #[error("bad parameter")]
    Param,
    /// Not a number, or one out of range.
    #[error("bad number")]
    Number,
    /// The URI inside cannot be read.
    #[error(transparent)]
    Uri(#[from] UriError),
}
