//! One turn of a pair's machine: read, act, store, and only then do what it wants.
//!
//! Presence and sessions are machines of the same shape. A turn reads everything that the machine needs in one round
//! trip, lets it act, and writes its record, its next due time and whatever else changed in one atomic commit. Nothing
//! that it wants is done before the commit has happened, so the store always knows what left (interworking
//! specification §6.5). A turn of a pair that this process had to do with lately does not read: the commit finds out
//! whether what is remembered is still true ([`super::remembered`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use isthmus_interwork::context::Context;
use isthmus_interwork::session::Answer;
use isthmus_model::EpochMillis;
use isthmus_store::batch::{Change, Write};
use isthmus_store::{
    Batch, Committed, Condition, Fence, Key, Kind, Lifetime, Record, Retry, StoreError, Timer, TimerKind, record,
};

use smallvec::SmallVec;

use super::inbound::Incoming;
use super::presence::PairUsers;
use super::repeats::{Identity, Known};
use super::undecided::Before;
use super::{Bridge, CONFLICT_RETRIES, Runtime};
use crate::edge::xmpp::Owner;

/// What a turn gave (`None` when the domain left the configuration), and what is to be done.
pub(super) type Turned<M, R> = Result<(Option<R>, Vec<<M as Machine>::Output>), StoreError>;

/// How a turn came out; `R` is what `act` gave.
enum End<M: Machine, R> {
    /// The machine acted.
    Acted(R, Vec<M::Output>),
    /// The request was served before, or is.
    Known(Known),
    /// The domain left the configuration.
    Gone,
}

/// The answer of a request's turn.
pub(super) enum Reply {
    /// Given for the first time.
    First(Answer),
    /// What is to be done with a request that another process knows already.
    Known(Known),
}

/// The records of a turn as they were read, in the order of their keys.
pub(super) type Records = [Option<Record>; 3];

/// A machine of a pair of users.
pub(super) trait Machine: Sized {
    /// Its configuration.
    type Config;
    /// What it wants done.
    type Output;
    /// Where and in which format its record is stored.
    const KIND: Kind;
    /// The format of its record.
    const FORMAT: u16;
    /// The timer of its next deadline.
    const TIMER: TimerKind;
    /// Whether a turn may start from what is remembered of its records.
    const REMEMBERED: bool = false;

    /// Names the records that a turn reads; the machine's own comes first.
    fn keys(users: &PairUsers) -> [Key; 3];
    /// Makes the machine from its records; `None` when the domain left the configuration.
    fn load(
        runtime: &Runtime,
        users: &PairUsers,
        records: &Records,
    ) -> Result<Option<(Self, Self::Config)>, StoreError>;
    /// Tells whether there is nothing left to store.
    fn is_idle(&self) -> bool;
    /// Tells when the machine wants a turn of its own.
    fn deadline(&self, now: EpochMillis, config: &Self::Config) -> Option<EpochMillis>;
    /// Writes its record.
    fn to_bytes(&self) -> Vec<u8>;
    /// Tells how long the record stays without another turn; `wait` is the time to the deadline.
    fn lifetime(wait: Option<Duration>, config: &Self::Config) -> Duration;
    /// Takes the next thing to do.
    fn next_output(&mut self) -> Option<Self::Output>;
    /// Adds what else changed.
    fn write_more(&self, _batch: &mut Batch, _records: &Records, _keys: &[Key; 3], _config: &Self::Config) {}
    /// Tells whether the process that has the pair's link next finds this in the record and does it: done here too, it would
    /// come late and out of order.
    fn is_done_by_next_holder(_output: &Self::Output) -> bool {
        false
    }
    /// Whether a turn that may be stored, though the store did not say so, is undone by the next one ([`super::undecided`]).
    const UNDOES: bool = false;
    /// A turn may be stored though the store did not say so: this has the next one come soon.
    fn doubted(_bridge: &Arc<Bridge>, _users: &PairUsers) {}
    /// Takes notice that everything is stored; `before` is what was there.
    fn stored(&self, _bridge: &Arc<Bridge>, _users: &PairUsers, _before: &Records) {}
}

/// A record that a turn reads beside those of its machine, in the same round trip, and what it means. The turn does not
/// depend on it: another process may change it before the commit.
pub(super) struct Beside<F> {
    key: Option<Key>,
    read: F,
}

impl<F> Beside<F> {
    pub(super) fn new<X>(key: Key, read: F) -> Self
    where
        F: Fn(Option<&Record>) -> Result<X, StoreError>,
    {
        Self { key: Some(key), read }
    }
}

impl Beside<fn(Option<&Record>) -> Result<(), StoreError>> {
    fn nothing() -> Self {
        Self { key: None, read: |_| Ok(()) }
    }
}

/// Makes an action of a turn that reads nothing beside.
fn ignoring<M: Machine, R>(
    mut act: impl FnMut(&mut M, &mut Context<'_, M::Config>) -> R,
) -> impl FnMut(&mut M, &mut Context<'_, M::Config>, ()) -> R {
    move |machine, context, ()| act(machine, context)
}

impl Bridge {
    /// Gives a machine a turn under a configuration. `act` may run again when another process changed the record meanwhile.
    pub(super) async fn turn<M: Machine, R>(
        self: &Arc<Self>,
        runtime: &Runtime,
        users: &PairUsers,
        act: impl FnMut(&mut M, &mut Context<'_, M::Config>) -> R,
    ) -> Turned<M, R> {
        self.turn_with(runtime, users, Beside::nothing(), ignoring(act)).await
    }

    /// As [`Self::turn`], with something that is read beside the machine's records.
    pub(super) async fn turn_with<M: Machine, X, R>(
        self: &Arc<Self>,
        runtime: &Runtime,
        users: &PairUsers,
        beside: Beside<impl Fn(Option<&Record>) -> Result<X, StoreError>>,
        act: impl FnMut(&mut M, &mut Context<'_, M::Config>, X) -> R,
    ) -> Turned<M, R> {
        Ok(match self.turn_of(runtime, users, None, |_| None, beside, act).await? {
            End::Acted(result, outputs) => (Some(result), outputs),
            End::Known(_) | End::Gone => (None, Vec::new()),
        })
    }

    /// Gives a machine a turn for a request, which changes nothing when another process has served it already
    /// ([`super::repeats`]).
    pub(super) async fn turn_for<M: Machine>(
        self: &Arc<Self>,
        incoming: &Incoming,
        act: impl FnMut(&mut M, &mut Context<'_, M::Config>) -> Answer,
    ) -> Turned<M, Reply> {
        self.turn_for_with(incoming, Beside::nothing(), ignoring(act)).await
    }

    /// As [`Self::turn_for`], with something that is read beside the machine's records.
    pub(super) async fn turn_for_with<M: Machine, X>(
        self: &Arc<Self>,
        incoming: &Incoming,
        beside: Beside<impl Fn(Option<&Record>) -> Result<X, StoreError>>,
        act: impl FnMut(&mut M, &mut Context<'_, M::Config>, X) -> Answer,
    ) -> Turned<M, Reply> {
        let identity = self.store.is_shared().then(|| Identity::of(&incoming.pair, &incoming.request));
        let request = identity.as_ref().map(|identity| (incoming, identity));
        Ok(
            match self
                .turn_of(&incoming.runtime, &incoming.users(), request, |answer| Some(answer), beside, act)
                .await?
            {
                End::Acted(answer, outputs) => (Some(Reply::First(answer)), outputs),
                End::Known(known) => (Some(Reply::Known(known)), Vec::new()),
                End::Gone => (None, Vec::new()),
            },
        )
    }

    /// The turn itself. A `request` that others may get too is looked up with the machine's records, and its answer is
    /// written with them.
    async fn turn_of<M: Machine, X, R>(
        self: &Arc<Self>,
        runtime: &Runtime,
        users: &PairUsers,
        request: Option<(&Incoming, &Identity)>,
        answer_of: fn(&R) -> Option<&Answer>,
        beside: Beside<impl Fn(Option<&Record>) -> Result<X, StoreError>>,
        mut act: impl FnMut(&mut M, &mut Context<'_, M::Config>, X) -> R,
    ) -> Result<End<M, R>, StoreError> {
        let keys = M::keys(users);
        let Beside { key: beside, read: read_beside } = beside;
        let names: SmallVec<[Key; 5]> =
            keys.iter().chain(&beside).chain(request.map(|(_, identity)| identity.key())).cloned().collect();
        let remembers = M::REMEMBERED && self.store.is_shared();
        let (worked_under, since) = (self.fence(users), Instant::now());
        // What stands beside cannot be asked about in the commit.
        let mut recalls = remembers && beside.is_none();
        let mut retries = 0;
        loop {
            let recalled = if recalls { self.remembered.recall(&keys, Instant::now()) } else { None };
            let is_recalled = recalled.is_some();
            let mut records = match recalled {
                Some(mut records) => {
                    // Whether the request was served before, the commit finds out, too.
                    records.extend(request.map(|_| None));
                    records
                }
                None => self.store.read(&names).await?,
            };
            let served = request.and_then(|_| records.pop()).flatten();
            if let (Some((incoming, identity)), Some(served)) = (request, &served)
                && let Some(known) = self.known(incoming, identity, served)
            {
                return Ok(End::Known(known));
            }
            let known = beside.as_ref().and_then(|_| records.pop()).flatten();
            let Ok(records) = Records::try_from(records) else { return Ok(End::Gone) };
            let undone = if self.has_doubts::<M>() { self.undone(users, &records) } else { None };
            let begun = undone.as_ref().unwrap_or(&records);
            let Some((mut machine, config)) = M::load(runtime, users, begun)? else {
                if self.has_doubts::<M>() {
                    self.undecided.forget(users.id());
                }
                return Ok(End::Gone);
            };
            let known = read_beside(known.as_ref())?;
            let now = super::now();
            let result = {
                let mut entropy = rand::random::<u64>;
                act(&mut machine, &mut Context { now, config: &config, entropy: &mut entropy }, known)
            };
            let mut batch = batch_of(&machine, &config, now.epoch, &keys, &records);
            if let (Some((_, identity)), Some(answer)) = (request, answer_of(&result)) {
                identity.write_answer(&mut batch, served.as_ref(), self.pods.life(), answer);
            }
            if is_recalled {
                if batch.is_empty() {
                    recalls = false;
                    continue;
                }
                add_checks(&mut batch, &keys, &records);
            }
            let mut fence = None;
            // There was nothing and there is nothing: no round trip for that.
            if !batch.is_empty() {
                fence = self.fence(users);
                // The link was lost since the turn began, and what it was given may be old by now.
                if let (Some(Fence { lease, .. }), None, false) = (&worked_under, &fence, self.works_for(users)) {
                    return Err(StoreError::FenceLost { lease: lease.clone() });
                }
                batch.fences.extend(fence.clone());
                let writes = if remembers { batch.writes.clone() } else { Vec::new() };
                let written = if M::UNDOES { written_to(&batch, &keys) } else { None };
                let done = self.store.commit(batch).await;
                if remembers {
                    self.remember(&keys, (!is_recalled).then_some(&records), &writes, done.as_ref().ok());
                }
                match done {
                    Ok(_) => {}
                    // It was not so any more.
                    Err(error) if is_recalled && error.retry() == Retry::Reload => {
                        recalls = false;
                        continue;
                    }
                    // The lease was taken anew or given back meanwhile, by this process. One that was lost stays in force.
                    Err(StoreError::FenceLost { .. })
                        if retries < CONFLICT_RETRIES && self.goes_on(users, fence.as_ref()).await =>
                    {
                        retries += 1;
                        continue;
                    }
                    Err(error) if error.retry() == Retry::Reload && retries < CONFLICT_RETRIES => {
                        retries += 1;
                        continue;
                    }
                    Err(error) => {
                        // A request is answered with an error, and what its repetition elsewhere gets stands in the same commit.
                        if M::UNDOES && request.is_none() && matches!(error, StoreError::Unavailable { .. }) {
                            let [before, ..] = begun;
                            if self.undecided.note(users.id(), before.as_ref(), written, since) {
                                M::doubted(self, users);
                            }
                        }
                        return Err(error);
                    }
                }
            }
            if self.has_doubts::<M>() {
                self.undecided.forget(users.id());
            }
            machine.stored(self, users, &records);
            let mut outputs: Vec<_> = std::iter::from_fn(|| machine.next_output()).collect();
            // This process may have stood still since the commit, until the link was another's.
            if fence.is_some() && !self.links.acts(&users.local.domain, &users.remote.domain).await {
                outputs.retain(|output| !M::is_done_by_next_holder(output));
            }
            return Ok(End::Acted(result, outputs));
        }
    }
}

impl Bridge {
    /// Takes note of what a turn's records are now: those that it `read` and left alone, and those that it wrote. When it is
    /// not known whether the writes happened, nothing is known any more.
    fn remember(&self, keys: &[Key; 3], read: Option<&Records>, writes: &[Write], done: Option<&Committed>) {
        let Some(done) = done else { return self.remembered.forget(keys) };
        let now = Instant::now();
        for (key, record) in keys.iter().zip(read.into_iter().flatten()) {
            if !writes.iter().any(|write| write.key == *key) {
                self.remembered.note(key, record.clone(), now);
            }
        }
        for (write, version) in writes.iter().zip(&done.versions).filter(|(write, _)| keys.contains(&write.key)) {
            match &write.change {
                Change::Put { bytes, .. } => {
                    let record = Record { version: *version, bytes: bytes.clone(), expires_at: None };
                    self.remembered.note(&write.key, Some(record), now);
                }
                Change::Delete => self.remembered.note(&write.key, None, now),
                Change::Touch { .. } | Change::Check => {}
            }
        }
    }

    /// Tells whether turns of such machines are in doubt. Only then a turn needs the name of its pair, which is a hash.
    fn has_doubts<M: Machine>(&self) -> bool {
        M::UNDOES && !self.undecided.is_empty()
    }

    /// Returns the records that a turn is to begin from, where those that are stored come of one that nobody was told of.
    fn undone(&self, users: &PairUsers, records: &Records) -> Option<Records> {
        let [stored, ..] = records;
        let is_ours = |time| self.links.held_for(&users.local.domain, &users.remote.domain, time);
        let Before(before) = self.undecided.undo(users.id(), stored.as_ref(), is_ours)?;
        let mut begun = records.clone();
        let [first, ..] = &mut begun;
        *first = before;
        Some(begun)
    }

    /// Returns what proves that this process works for a pair. Without it the versions of the records alone protect: the
    /// link is nobody's, or was given back.
    pub(super) fn fence(&self, users: &PairUsers) -> Option<Fence> {
        if !self.pods.is_shared() {
            return None;
        }
        match self.links.owner(&users.local.domain, &users.remote.domain) {
            Owner::Mine(fence) => fence,
            Owner::Other(_) | Owner::Former(_) | Owner::Nobody => None,
        }
    }

    /// Tells whether what came over the pair's link is this process's to work on: it holds the link, or gave it back and finishes.
    pub(super) fn works_for(&self, users: &PairUsers) -> bool {
        !self.pods.is_shared()
            || matches!(
                self.links.owner(&users.local.domain, &users.remote.domain),
                Owner::Mine(_) | Owner::Former(None)
            )
    }

    /// Tells whether work may go on though its fence was lost: this process took the lease anew, or gave it back and
    /// finishes what it began.
    async fn goes_on(&self, users: &PairUsers, lost: Option<&Fence>) -> bool {
        if let Some(lost) = lost {
            self.links.doubt(&users.local.domain, &users.remote.domain, lost).await;
        }
        match self.links.owner(&users.local.domain, &users.remote.domain) {
            Owner::Mine(fence) => fence.as_ref() != lost,
            Owner::Former(_) => true,
            Owner::Other(_) | Owner::Nobody => false,
        }
    }
}

/// Makes a batch depend on everything in its slot that a turn was given and does not write.
fn add_checks(batch: &mut Batch, keys: &[Key; 3], records: &Records) {
    let [own, ..] = keys;
    for (key, record) in keys.iter().zip(records).filter(|(key, _)| key.slot() == own.slot()) {
        if !batch.writes.iter().any(|write| write.key == *key) {
            batch.check(key.clone(), Condition::unchanged(record.as_ref()));
        }
    }
}

/// What a batch leaves of the machine's own record.
fn written_to(batch: &Batch, keys: &[Key; 3]) -> Option<Bytes> {
    let [own, ..] = keys;
    batch.writes.iter().find(|write| write.key == *own).and_then(|write| match &write.change {
        Change::Put { bytes, .. } => Some(bytes.clone()),
        Change::Delete | Change::Touch { .. } | Change::Check => None,
    })
}

fn batch_of<M: Machine>(
    machine: &M,
    config: &M::Config,
    now: EpochMillis,
    keys: &[Key; 3],
    records: &Records,
) -> Batch {
    let mut batch = Batch::new();
    let ([key, ..], [stored, ..]) = (keys, records);
    let condition = Condition::unchanged(stored.as_ref());
    if !machine.is_idle() {
        let due = machine.deadline(now, config);
        let bytes = record::encode(M::KIND, M::FORMAT, &machine.to_bytes());
        let lifetime = M::lifetime(due.map(|at| at.since(now)), config);
        batch.put(key.clone(), condition, bytes, Lifetime::For(lifetime));
        match due {
            Some(due) => batch.set_timer(Timer { kind: M::TIMER, key: key.clone(), due, generation: due.0 }),
            None => batch.cancel_timer(M::TIMER, key.clone()),
        };
    } else if stored.is_some() {
        batch.delete(key.clone(), condition);
        batch.cancel_timer(M::TIMER, key.clone());
    }
    machine.write_more(&mut batch, records, keys, config);
    batch
}
