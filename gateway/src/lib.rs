//! The data plane: wiring and all IO to peers.

pub mod admin;
pub mod alarm;
pub mod bridge;
pub mod dns;
pub mod edge;
pub mod metrics;
pub mod pods;
pub mod report;
pub mod run;
pub mod source;
mod state_store;
pub mod telemetry;
pub mod tls;
