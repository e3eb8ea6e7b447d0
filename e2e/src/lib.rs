//! Quickstart, independent peers, scenarios and benchmarks: sees only the wire and the API.
