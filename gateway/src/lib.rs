//! The data plane: wiring and all IO to peers.
