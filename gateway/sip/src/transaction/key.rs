//! Keys of the transaction tables: 128-bit fingerprints under a secret seed.
//!
//! A key is made of what RFC 3261 §17.2.3 and §17.1.3 compare, so no text is copied to look a message up. The seed
//! is random per process: a peer that chooses branches and Call-IDs cannot make two of them meet.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher, Hasher};

/// A fingerprint of some parts of a message.
pub(crate) type Fingerprint = u128;

/// A table by fingerprint. It is never iterated: its order would differ from run to run.
pub(crate) type Table<V> = HashMap<Fingerprint, V, BuildHasherDefault<AlreadyRandom>>;

/// Takes the fingerprint's own bits as the hash.
#[derive(Debug, Default, Clone)]
pub(crate) struct AlreadyRandom(u64);

impl Hasher for AlreadyRandom {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // only `write_u128` is used with fingerprints; this keeps other keys correct
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, value: u128) {
        #[expect(clippy::cast_possible_truncation, reason = "the low half is as random as the whole")]
        {
            self.0 = value as u64;
        }
    }
}

/// The secret seed of a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seed(pub(crate) [u64; 2]);

impl Seed {
    /// Starts a fingerprint; `purpose` keeps fingerprints of different tables apart.
    pub(crate) fn start(self, purpose: u8) -> Mixer {
        let [first, second] = self.0;
        let mut low = DefaultHasher::new();
        let mut high = DefaultHasher::new();
        low.write_u64(first);
        low.write_u8(purpose);
        high.write_u64(second);
        high.write_u8(!purpose);
        Mixer { low, high }
    }
}

/// A fingerprint being made.
#[derive(Debug, Clone)]
pub(crate) struct Mixer {
    low: DefaultHasher,
    high: DefaultHasher,
}

impl Mixer {
    /// Adds a part; parts do not run into each other.
    pub(crate) fn part(mut self, bytes: &[u8]) -> Self {
        self.write(bytes);
        self.number(bytes.len() as u64)
    }

    /// Adds a part whose case does not matter.
    pub(crate) fn part_any_case(mut self, text: &str) -> Self {
        let mut buffer = [0_u8; 64];
        for chunk in text.as_bytes().chunks(buffer.len()) {
            for (to, from) in buffer.iter_mut().zip(chunk) {
                *to = from.to_ascii_lowercase();
            }
            self.write(buffer.get(..chunk.len()).unwrap_or_default());
        }
        self.number(text.len() as u64)
    }

    /// Adds a number.
    pub(crate) fn number(mut self, number: u64) -> Self {
        self.low.write_u64(number);
        self.high.write_u64(number);
        self
    }

    /// Ends the fingerprint.
    pub(crate) fn finish(&self) -> Fingerprint {
        u128::from(self.high.finish()) << 64 | u128::from(self.low.finish())
    }

    fn write(&mut self, bytes: &[u8]) {
        self.low.write(bytes);
        self.high.write(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_kept_apart_and_seeds_differ() {
        let seed = Seed([1, 2]);
        let ab_c = seed.start(0).part(b"ab").part(b"c").finish();
        assert_ne!(ab_c, seed.start(0).part(b"a").part(b"bc").finish());
        assert_ne!(ab_c, seed.start(1).part(b"ab").part(b"c").finish());
        assert_ne!(ab_c, Seed([1, 3]).start(0).part(b"ab").part(b"c").finish());
        assert_ne!(ab_c, Seed([3, 2]).start(0).part(b"ab").part(b"c").finish());
        assert_eq!(ab_c, seed.start(0).part(b"ab").part(b"c").finish());
    }

    #[test]
    fn case_is_ignored_only_where_asked() {
        let seed = Seed([1, 2]);
        let long = "Gateway.CORP.example".repeat(7);
        let key = |text: &str| seed.start(0).part_any_case(text).finish();
        assert_eq!(key(&long), key(&long.to_ascii_uppercase()));
        assert_ne!(seed.start(0).part(b"A").finish(), seed.start(0).part(b"a").finish());
    }
}
