//! The bridge between scripted ends.

mod letters;
mod rig;
mod stored;
