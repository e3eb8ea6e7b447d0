//! The bridge.
pub mod lanes;
