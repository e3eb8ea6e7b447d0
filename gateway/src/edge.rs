//! Sockets towards peers: the SIP side and the XMPP side.

pub mod sip;
pub mod xmpp;
