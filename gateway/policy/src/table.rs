//! A map that is cheap to derive from: changing one entry copies one shard and the list of shards.
//!
//! A snapshot is immutable and shared by every task of the gateway, while one object changes at a time.
//! So the realm's large maps are split into [`SHARDS`] sorted arrays behind `Arc`s: a changed map shares
//! all shards but one with the map it came from. Keys come from configuration only, so a fixed hash
//! (FNV-1a) is enough and makes the order of iteration the same in every process.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Number of shards; 10,000 entries leave about 40 in each.
const SHARDS: usize = 256;

/// One entry with the hash of its key.
type Slot<K, V> = (u64, K, V);

/// Entries sorted by hash, then key.
type Shard<K, V> = Arc<Vec<Slot<K, V>>>;

/// A persistent map from `K` to `V`; clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct Table<K, V> {
    shards: Arc<Vec<Shard<K, V>>>,
    len: usize,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        let empty = Arc::new(Vec::new());
        Self { shards: Arc::new(vec![empty; SHARDS]), len: 0 }
    }
}

impl<K: Hash + Ord + Clone, V: Clone> Table<K, V> {
    /// Returns the number of entries.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Looks a key up.
    pub(crate) fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Ord + ?Sized,
    {
        let hash = hash_of(key);
        let shard = self.shards.get(shard_of(hash))?;
        let at = find(shard, hash, key).ok()?;
        shard.get(at).map(|(_, _, value)| value)
    }

    /// Tells whether the key is there.
    pub(crate) fn contains<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Ord + ?Sized,
    {
        self.get(key).is_some()
    }

    /// Sets the value of a key and returns the former one.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let hash = hash_of(&key);
        let shard = Arc::make_mut(&mut self.shards).get_mut(shard_of(hash))?;
        let shard = Arc::make_mut(shard);
        match find(shard, hash, &key) {
            Ok(at) => shard.get_mut(at).map(|slot| std::mem::replace(&mut slot.2, value)),
            Err(at) => {
                shard.insert(at, (hash, key, value));
                self.len += 1;
                None
            }
        }
    }

    /// Removes a key and returns its value.
    pub(crate) fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Ord + ?Sized,
    {
        if !self.contains(key) {
            return None;
        }
        let hash = hash_of(key);
        let shard = Arc::make_mut(&mut self.shards).get_mut(shard_of(hash))?;
        let shard = Arc::make_mut(shard);
        let at = find(shard, hash, key).ok()?;
        self.len -= 1;
        Some(shard.remove(at).2)
    }

    /// Visits all entries, in an order that depends on the keys alone.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter()).map(|(_, key, value)| (key, value))
    }

    /// Returns all entries in the order of their keys.
    pub(crate) fn sorted(&self) -> Vec<(&K, &V)> {
        let mut all: Vec<_> = self.iter().collect();
        all.sort_by(|a, b| a.0.cmp(b.0));
        all
    }
}

/// Finds the place of a key in its shard.
fn find<K, V, Q>(shard: &[Slot<K, V>], hash: u64, key: &Q) -> Result<usize, usize>
where
    K: Borrow<Q>,
    Q: Ord + ?Sized,
{
    shard.binary_search_by(|(other, candidate, _)| other.cmp(&hash).then_with(|| candidate.borrow().cmp(key)))
}

fn shard_of(hash: u64) -> usize {
    // The top bits: FNV mixes upwards, and the shards are then in the order of the hashes.
    usize::try_from(hash >> 56).unwrap_or(0)
}

fn hash_of<Q: Hash + ?Sized>(key: &Q) -> u64 {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    key.hash(&mut hasher);
    // A last stir, since FNV's top byte is weak for short keys.
    let hash = hasher.finish();
    (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// FNV-1a with 64 bits.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_table_behaves_like_a_sorted_map_and_leaves_its_ancestors_alone(
            steps in proptest::collection::vec((any::<bool>(), 0_u16..600, any::<u8>()), 0..800)
        ) {
            let mut table: Table<String, u8> = Table::default();
            let mut oracle = BTreeMap::new();
            let mut before = (table.clone(), oracle.clone());
            for (at, (put, key, value)) in steps.into_iter().enumerate() {
                let key = format!("domain-{key}.example");
                if put {
                    prop_assert_eq!(table.insert(key.clone(), value), oracle.insert(key, value));
                } else {
                    prop_assert_eq!(table.remove(key.as_str()), oracle.remove(&key));
                }
                if at == 100 {
                    before = (table.clone(), oracle.clone());
                }
            }
            for (table, oracle) in [(&table, &oracle), (&before.0, &before.1)] {
                prop_assert_eq!(table.len(), oracle.len());
                prop_assert_eq!(table.sorted(), oracle.iter().collect::<Vec<_>>());
                for (key, value) in oracle {
                    prop_assert_eq!(table.get(key.as_str()), Some(value));
                }
            }
        }
    }
}
