//! The XMPP side: links to the organisation's own servers.

pub mod component;

pub use component::{LinkSpec, LinkState, Links, SendRefused, XmppHandler};
