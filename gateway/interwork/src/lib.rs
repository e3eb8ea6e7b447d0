//! The mappings between SIP/SIMPLE and XMPP: one file per topic, both directions side by side.
//!
//! Everything here is a function of its arguments: no clock, no random numbers, no IO. What a mapping needs
//! to remember is an argument too, and the machines that keep it own their records.

pub mod address;
pub mod authorization;
pub mod availability;
pub mod chat_state;
pub mod content;
pub mod context;
pub mod error_map;
pub mod letter;
pub mod notification;
pub mod pager;
pub mod peer;
pub mod session;
pub mod thread;

/// The two ways of SIP that peers speak; code branches on these and on switches, never on a profile's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Microsoft servers from OCS to Microsoft 365, and Cisco servers that imitate them.
    Microsoft,
    /// SIP with SIMPLE as the RFCs have it.
    Standard,
}
