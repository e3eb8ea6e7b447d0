//! The XMPP side: links to the organisation's own servers.

pub mod component;
pub mod tls;

pub use component::{LinkSpec, LinkState, Links, SendRefused, XmppHandler};
pub use tls::LinkTls;
