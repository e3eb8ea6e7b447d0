//! The XMPP side: links to the organisation's own servers.

pub mod component;
mod tenure;
pub mod tls;

pub use component::{LinkSpec, LinkState, Links, SendRefused, XmppHandler};
pub use tenure::Owner;
pub use tls::LinkTls;
