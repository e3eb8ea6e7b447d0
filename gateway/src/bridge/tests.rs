//! The bridge between scripted ends.

mod away;
mod entry;
mod fallback;
mod forward;
mod late;
mod letters;
mod lifetimes;
mod pace;
mod reconcile;
mod refusals;
mod remembered;
mod repeats;
mod returned;
pub(crate) mod rig;
pub(crate) mod store;
mod stored;
mod unanswered;
mod unstored;
mod wishes;
