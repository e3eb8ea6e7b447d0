//! The pair of a local user and a remote user: the unit that state belongs to.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::address::BareAddress;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
const LEN: usize = 16;

/// A short name of a (local user, remote user) pair: 80 bits of the SHA-256 of both addresses.
///
/// It names the pair's records in the store, and it is the first part of every dialog tag that the
/// gateway chooses for the pair (RFC 3261 §19.3 leaves tags to the element but for their randomness, which
/// the second part brings). So whichever pod gets an in-dialog request finds the pair's records by the
/// request's own To tag, in one read and without an index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PairId([u8; LEN]);

/// A source of random numbers, handed to machines that need tags, Call-IDs or jitter.
pub trait Entropy {
    /// Returns 64 bits that no peer can predict.
    fn next_u64(&mut self) -> u64;
}

impl<F: FnMut() -> u64> Entropy for F {
    fn next_u64(&mut self) -> u64 {
        self()
    }
}

impl PairId {
    /// Names the pair.
    pub fn of(local: &BareAddress, remote: &BareAddress) -> Self {
        let mut hash = Sha256::new();
        for part in [local.local.as_str(), local.domain.as_str(), remote.local.as_str(), remote.domain.as_str()] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        let digest = hash.finalize();
        let mut id = [b'0'; LEN];
        // 16 characters of 5 bits: two groups of 5 octets.
        for (group, chunk) in digest[..10].chunks_exact(5).enumerate() {
            let bits = chunk.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
            for place in 0..8 {
                let index = (bits >> (35 - 5 * place)) & 31;
                id[group * 8 + place] = ALPHABET[usize::try_from(index).unwrap_or(0)];
            }
        }
        Self(id)
    }

    /// Makes a fresh dialog tag for the pair: the pair's name and 64 random bits.
    pub fn new_tag(&self, entropy: &mut dyn Entropy) -> String {
        format!("{}-{:016x}", self.as_str(), entropy.next_u64())
    }

    /// Reads the pair from a tag that [`Self::new_tag`] made; `None` for every other tag.
    pub fn from_tag(tag: &str) -> Option<Self> {
        let (id, random) = tag.split_once('-')?;
        let id: [u8; LEN] = id.as_bytes().try_into().ok()?;
        (random.len() == 16 && id.iter().all(|b| ALPHABET.contains(b))).then_some(Self(id))
    }

    /// Returns the name, 16 characters of `0-9a-v`.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for PairId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for PairId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(jid: &str) -> BareAddress {
        BareAddress::from_jid(jid).unwrap()
    }

    #[test]
    fn a_tag_leads_back_to_its_pair_and_is_fresh() {
        let pair = PairId::of(&user("lee@corp.example"), &user("ana@partner.example"));
        let mut count = 7;
        let mut entropy = || {
            count += 1;
            count
        };
        let (first, second) = (pair.new_tag(&mut entropy), pair.new_tag(&mut entropy));
        assert_ne!(first, second);
        assert_eq!(PairId::from_tag(&first), Some(pair));
        assert_ne!(pair, PairId::of(&user("ana@partner.example"), &user("lee@corp.example")));
        for foreign in ["", "-", "a6c85cf", &first[1..], &first.to_uppercase()] {
            assert_eq!(PairId::from_tag(foreign), None, "{foreign}");
        }
    }
}
