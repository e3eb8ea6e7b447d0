//! The bridge between scripted ends.

mod away;
mod entry;
mod fallback;
mod late;
mod letters;
mod refusals;
mod rig;
mod stored;
