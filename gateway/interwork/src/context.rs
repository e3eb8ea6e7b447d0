//! What every input of a pair's machine brings along.

use isthmus_model::{Entropy, EpochMillis, Now};

/// The present moment, configuration and chance, which no machine takes by itself.
pub struct Context<'a, C> {
    /// The present moment.
    pub now: Now,
    /// Configuration in force.
    pub config: &'a C,
    /// Fresh random numbers.
    pub entropy: &'a mut dyn Entropy,
}

impl<C> std::fmt::Debug for Context<'_, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("now", &self.now).finish_non_exhaustive()
    }
}

impl<C> Context<'_, C> {
    pub(crate) fn epoch(&self) -> EpochMillis {
        self.now.epoch
    }
}
