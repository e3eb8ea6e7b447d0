//! A store so simple that one can see that it is right: lists, and no indexes.
//!
//! Times are half steps. What only the store can choose (versions, tokens, ids) is told to it, and it checks
//! that the choice was allowed.

pub(crate) const KEYS: usize = 3;
pub(crate) const LEASES: usize = 2;
pub(crate) const QUEUES: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rec {
    pub(crate) version: u64,
    pub(crate) value: u8,
    pub(crate) end: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cond {
    Any,
    Absent,
    Version(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chg {
    Put { value: u8, end: Option<u64> },
    Delete,
    Touch { end: Option<u64> },
    Check,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) holder: usize,
    pub(crate) token: u64,
    pub(crate) end: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tim {
    pub(crate) kind: u16,
    pub(crate) key: usize,
    pub(crate) generation: u64,
    at: u64,
    claim: Option<u64>,
    pub(crate) attempt: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimChg {
    Set { kind: u16, key: usize, at: u64, generation: u64 },
    Cancel { kind: u16, key: usize },
    Complete { kind: u16, key: usize, claim: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Itm {
    pub(crate) id: u64,
    pub(crate) value: u8,
    end: u64,
    held: Option<u64>,
    pub(crate) attempt: u32,
}

/// A consumer: its name, and the lease and token it comes with.
pub(crate) type Who = (usize, Option<(usize, u64)>);

#[derive(Debug, Clone, Default)]
pub(crate) struct Queue {
    items: Vec<Itm>,
    consumer: Option<Who>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Change {
    pub(crate) fences: Vec<(usize, u64)>,
    pub(crate) writes: Vec<(usize, Cond, Chg)>,
    pub(crate) timers: Vec<TimChg>,
    pub(crate) enqueues: Vec<(usize, u8, u64)>,
    pub(crate) acks: Vec<(usize, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Fence(usize),
    Conflict(usize, Option<Rec>),
    QueueFull(usize),
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Reference {
    pub(crate) now: u64,
    queue_items: usize,
    records: [Option<Rec>; KEYS],
    versions: [u64; KEYS],
    leases: [Option<Held>; LEASES],
    tokens: [u64; LEASES],
    timers: Vec<Tim>,
    queues: [Queue; QUEUES],
    ids: [u64; QUEUES],
}

impl Reference {
    pub(crate) fn new(queue_items: usize) -> Self {
        Self { queue_items, ..Self::default() }
    }

    pub(crate) fn advance(&mut self, half_steps: u64) {
        self.now += half_steps;
        let now = self.now;
        for record in &mut self.records {
            record.take_if(|record| record.end.is_some_and(|end| end <= now));
        }
        for lease in &mut self.leases {
            lease.take_if(|lease| lease.end <= now);
        }
        for queue in &mut self.queues {
            queue.items.retain(|item| item.end > now);
        }
    }

    pub(crate) fn record(&self, key: usize) -> Option<Rec> {
        self.records[key]
    }

    pub(crate) fn holder(&self, lease: usize) -> Option<Held> {
        self.leases[lease]
    }

    pub(crate) fn owns(&self, lease: usize, token: u64) -> bool {
        self.leases[lease].is_some_and(|held| held.token == token)
    }

    /// Says whether a change must happen.
    pub(crate) fn judge(&self, change: &Change) -> Result<(), Refusal> {
        if let Some((lease, _)) = change.fences.iter().find(|(lease, token)| !self.owns(*lease, *token)) {
            return Err(Refusal::Fence(*lease));
        }
        for (key, condition, _) in &change.writes {
            let current = self.records[*key];
            let holds = match condition {
                Cond::Any => true,
                Cond::Absent => current.is_none(),
                Cond::Version(version) => current.is_some_and(|record| record.version == *version),
            };
            if !holds {
                return Err(Refusal::Conflict(*key, current));
            }
        }
        for queue in 0..QUEUES {
            let new = change.enqueues.iter().filter(|(to, ..)| *to == queue).count();
            if new > 0 && self.queues[queue].items.len() + new > self.queue_items {
                return Err(Refusal::QueueFull(queue));
            }
        }
        Ok(())
    }

    /// Makes a change that was judged good, with the versions and ids that the store gave.
    pub(crate) fn make(&mut self, change: &Change, versions: &[u64], items: &[u64]) {
        assert_eq!((versions.len(), items.len()), (change.writes.len(), change.enqueues.len()));
        for ((key, _, change), version) in change.writes.iter().zip(versions) {
            let record = &mut self.records[*key];
            match change {
                Chg::Put { value, end } => {
                    assert!(*version > self.versions[*key], "version {version} was used before");
                    self.versions[*key] = *version;
                    *record = Some(Rec { version: *version, value: *value, end: *end });
                }
                Chg::Delete => *record = None,
                Chg::Touch { end } => {
                    if let Some(record) = record {
                        record.end = *end;
                    }
                }
                Chg::Check => {}
            }
            assert_eq!(*version, record.map_or(0, |record| record.version));
        }
        for change in &change.timers {
            match *change {
                TimChg::Set { kind, key, at, generation } => {
                    self.timers.retain(|timer| (timer.kind, timer.key) != (kind, key));
                    self.timers.push(Tim { kind, key, generation, at, claim: None, attempt: 0 });
                }
                TimChg::Cancel { kind, key } => self.timers.retain(|timer| (timer.kind, timer.key) != (kind, key)),
                TimChg::Complete { kind, key, claim } => {
                    self.timers.retain(|timer| (timer.kind, timer.key, timer.claim) != (kind, key, Some(claim)));
                }
            }
        }
        for (queue, id) in &change.acks {
            self.queues[*queue].items.retain(|item| item.id != *id);
        }
        for ((queue, value, end), id) in change.enqueues.iter().zip(items) {
            assert!(*id > self.ids[*queue], "item id {id} was used before");
            self.ids[*queue] = *id;
            self.queues[*queue].items.push(Itm { id: *id, value: *value, end: *end, held: None, attempt: 0 });
        }
    }

    /// Tells whether the lease must be granted.
    pub(crate) fn is_free_for(&self, lease: usize, holder: usize) -> bool {
        self.leases[lease].is_none_or(|held| held.holder == holder)
    }

    pub(crate) fn grant(&mut self, lease: usize, holder: usize, token: u64, end: u64) {
        assert!(token > self.tokens[lease], "token {token} was used before");
        self.tokens[lease] = token;
        self.leases[lease] = Some(Held { holder, token, end });
    }

    pub(crate) fn prolong(&mut self, lease: usize, end: u64) {
        if let Some(held) = &mut self.leases[lease] {
            held.end = end;
        }
    }

    pub(crate) fn free(&mut self, lease: usize) {
        self.leases[lease] = None;
    }

    pub(crate) fn next_due(&self) -> Option<u64> {
        self.timers.iter().map(|timer| timer.at).min()
    }

    /// Claims all timers that are due; `claims` are the names that the store gave, by kind and key.
    pub(crate) fn claim(&mut self, until: u64, claims: &[(u16, usize, u64)]) -> Vec<Tim> {
        let now = self.now;
        let mut due = Vec::new();
        for timer in self.timers.iter_mut().filter(|timer| timer.at <= now) {
            let claim = claims.iter().find(|(kind, key, _)| (*kind, *key) == (timer.kind, timer.key));
            timer.claim = Some(claim.expect("a due timer was not claimed").2);
            timer.at = until;
            timer.attempt += 1;
            due.push(*timer);
        }
        due
    }

    pub(crate) fn take(&mut self, queue: usize, who: Who, max: usize, until: u64) -> Vec<Itm> {
        let now = self.now;
        let Queue { items, consumer } = &mut self.queues[queue];
        if let (Some(held), Some(current)) = (items.first().and_then(|item| item.held), *consumer) {
            let newer = matches!((who.1, current.1), (Some(new), Some(old)) if new.0 == old.0 && new.1 > old.1);
            if held <= now || newer {
                for item in items.iter_mut() {
                    item.held = None;
                }
            } else if who != current {
                return Vec::new();
            }
        }
        let mut taken = Vec::new();
        for item in items.iter_mut().filter(|item| item.held.is_none()).take(max) {
            item.held = Some(until);
            item.attempt += 1;
            *consumer = Some(who);
            taken.push(*item);
        }
        taken
    }

    /// Counts records, timers, queued items and leases.
    pub(crate) fn counts(&self) -> (usize, usize, usize, usize) {
        let queued = self.queues.iter().map(|queue| queue.items.len()).sum();
        (self.records.iter().flatten().count(), self.timers.len(), queued, self.leases.iter().flatten().count())
    }
}
