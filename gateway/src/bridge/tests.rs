//! The bridge between scripted ends.

mod fallback;
mod letters;
mod rig;
mod stored;
