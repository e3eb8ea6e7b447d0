//! The bridge between scripted ends.

mod rig;
mod stored;
