//! Quickstart, independent peers, scenarios and benchmarks: sees only the wire and the API.
//!
//! Each peer that we did not write has a file named for it, which writes its configuration, starts it
//! on free loopback ports in the scenario's own folder and stops it by id. What a scenario asserts it
//! reads at the far end: in the stanzas that a chat client received, in the SIP that a phone or SIPp
//! saw, never in the gateway's logs.
#![expect(
    clippy::format_push_string,
    clippy::format_collect,
    reason = "configuration files are short and read best as format strings"
)]

pub mod balancer;
pub mod baresip;
pub mod chaos;
pub mod cluster;
pub mod corp;
pub mod ejabberd;
pub mod gateway;
pub mod haproxy;
pub mod http;
pub mod kamailio;
pub mod knot;
pub mod lab;
pub mod ledger;
pub mod load;
pub mod manifests;
pub mod otlp;
pub mod pki;
pub mod pods;
pub mod ports;
pub mod process;
pub mod prosody;
pub mod redis;
pub mod sentinel;
pub mod sink;
pub mod sip_agent;
pub mod sip_trace;
pub mod sipp;
pub mod slow_proxy;
pub mod tls_client;
pub mod traffic;
pub mod verdicts;
pub mod watchers;
pub mod xmpp_client;
