//! The bridge between scripted ends.

mod fallback;
mod late;
mod letters;
mod rig;
mod stored;
