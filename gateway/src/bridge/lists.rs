//! Users' lists as they were read last, for times when the store is away.
//!
//! A message needs nothing from the store but its reader's list (design §6.11). While the store cannot be asked, the
//! list is taken as it was last; a user whose list this process never read may have blocked the sender, so that such
//! a message is refused (503 with Retry-After) until the store is back.

use std::collections::HashMap;

use isthmus_model::BareAddress;
use isthmus_store::Record;
use parking_lot::Mutex;

/// How many users are remembered at most; half of them are forgotten when there are more.
const MOST: usize = 20_000;

/// A user's list, `None` when there is none.
type Stored = Option<Record>;

/// The lists that were read last.
#[derive(Default)]
pub(super) struct Lists {
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<BareAddress, Stored>,
    old: HashMap<BareAddress, Stored>,
}

impl Lists {
    /// Takes note of a list that was read.
    pub(super) fn note(&self, user: &BareAddress, list: Option<&Record>) {
        let mut generations = self.generations.lock();
        if let Some(known) = generations.young.get_mut(user) {
            if known.as_ref().map(|known| known.version) != list.map(|list| list.version) {
                *known = list.cloned();
            }
            return;
        }
        if generations.young.len() >= MOST / 2 {
            generations.old = std::mem::take(&mut generations.young);
        }
        generations.young.insert(user.clone(), list.cloned());
    }

    /// Tells whether a user's list was read lately.
    pub(super) fn knows(&self, user: &BareAddress) -> bool {
        let generations = self.generations.lock();
        generations.young.contains_key(user) || generations.old.contains_key(user)
    }

    /// Returns a list as it was read last; `None` when it never was, or too long ago.
    pub(super) fn last(&self, user: &BareAddress) -> Option<Stored> {
        let generations = self.generations.lock();
        generations.young.get(user).or_else(|| generations.old.get(user)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use isthmus_model::EpochMillis;

    use super::*;

    fn user(n: usize) -> BareAddress {
        BareAddress::from_jid(&format!("user{n}@corp.example")).unwrap()
    }

    fn list(version: u64) -> Record {
        Record { bytes: version.to_be_bytes().to_vec().into(), version, expires_at: Some(EpochMillis(0)) }
    }

    #[test]
    fn the_last_list_is_remembered_also_that_there_is_none() {
        let lists = Lists::default();
        assert_eq!((lists.last(&user(1)), lists.knows(&user(1))), (None, false));
        lists.note(&user(1), None);
        assert_eq!((lists.last(&user(1)), lists.knows(&user(1))), (Some(None), true));
        for version in [7, 9] {
            lists.note(&user(1), Some(&list(version)));
            assert_eq!(lists.last(&user(1)), Some(Some(list(version))));
        }
    }

    #[test]
    fn memory_is_bounded_and_the_users_of_late_stay() {
        let lists = Lists::default();
        for n in 0..3 * MOST {
            lists.note(&user(0), None);
            lists.note(&user(n), None);
        }
        let generations = lists.generations.lock();
        assert!(generations.young.len() + generations.old.len() <= MOST);
        drop(generations);
        assert!(lists.last(&user(0)).is_some() && lists.last(&user(3 * MOST - 1)).is_some());
        assert_eq!(lists.last(&user(1)), None);
    }
}
