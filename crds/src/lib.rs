//! The seven Isthmus kinds, their rules and the generator of their CRDs.
