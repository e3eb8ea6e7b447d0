//! Scenarios between real programs, and proofs that those programs behave as the harness expects.

#[path = "scenarios/peers.rs"]
mod peers;
