//! Who holds a link: one process of the realm at a time, by a lease in the store.
//!
//! A server takes one connection for each component, and what belongs to a pair must keep its order; so a link belongs
//! to one process. The lease is short, so that another process has the link soon after its holder died. A process that
//! was stopped for longer than its lease finds that out before it sends or reads anything more, and what it writes
//! under the old lease is refused by the store.
//!
//! While the store is away no process can take the link from its holder, who goes on with it (design §6.11). Where only the
//! holder cannot reach the store, another process takes the link once the lease has run out: the server says so by closing
//! the former holder's connection (`conflict`), who then waits for the store's word. An embedded store serves one process, which
//! holds every link always.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use isthmus_model::EpochMillis;
use isthmus_store::wake::Topic;
use isthmus_store::{Acquisition, Fence, Lease, LeaseName, Store, StoreError};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::metrics::{Metrics, Reason};

/// How long a lease lasts. Another process has the link so long after its holder died, at the latest.
const TTL: Duration = Duration::from_secs(2);
/// How often it is renewed; a process that misses two renewals still has it.
const RENEW: Duration = Duration::from_millis(500);
/// How long until a holder is asked for again. Its lease's end is told by the clock of the store, which may differ.
const LOOK: Duration = Duration::from_secs(1);
/// The shortest wait between two questions.
const SHORTEST: Duration = Duration::from_millis(50);
/// The pause after the store failed.
const PAUSE: Duration = Duration::from_millis(300);
/// How long the holder of a lease that ran out while the store was away may take it anew before another process does: what
/// the server has just written to the holder is at risk when the link moves, and the holder has lost nothing.
const GRACE: Duration = Duration::from_secs(1);
/// The store says within 2 s that it is away. Where that takes longer this process may have stood still, and asks once more.
const SILENT: Duration = Duration::from_millis(2100);
/// How long a link that is given back may take to become quiet: less than what is left of a lease that was renewed in time.
pub(super) const QUIET_MOST: Duration = Duration::from_secs(1);

/// Who works for the pairs of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// This process. What it writes carries the fence, if the store is shared.
    Mine(Option<Fence>),
    /// Another process, by the name of its life.
    Other(String),
    /// This process until now, which finishes what it began; then the other one, if it is known.
    Former(Option<String>),
    /// Nobody: no such link, its lease ran out, or the only process has no connection.
    Nobody,
}

/// What is known about the lease.
#[derive(Debug, Clone)]
pub(super) enum Holding {
    /// The store is embedded.
    Always,
    /// Nobody is known to hold it.
    Nobody,
    /// This process holds it.
    Mine {
        lease: Lease,
        /// When it runs out, by our own clock; counted from the moment before the store was asked.
        until: Instant,
        /// The store could not be asked since. If nobody else can ask it either, nobody can take the link.
        away: bool,
        since: Instant,
        /// When its former holder was heard of last, if that was another process.
        lost_at: Option<EpochMillis>,
        /// Which process that was, unless it gave the lease back.
        former: Option<String>,
    },
    /// Another process holds it.
    Other {
        life: String,
        until: EpochMillis,
        /// When this process learned that it does not hold it any more, if it did.
        lost: Option<Instant>,
    },
    /// This process gave it back; who has it since then.
    Released { next: Option<String> },
}

/// How this process stands to a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It holds it.
    Holder,
    /// It gave it back and serves it until the next holder has connected.
    Former,
    /// It is another's.
    Standby,
}

impl Holding {
    pub(super) fn standing(&self) -> Standing {
        match self {
            Self::Always | Self::Mine { .. } => Standing::Holder,
            Self::Released { .. } => Standing::Former,
            Self::Nobody | Self::Other { .. } => Standing::Standby,
        }
    }
}

/// The tenure of one link.
pub(super) struct Tenure {
    name: LeaseName,
    life: String,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    holding: watch::Sender<Holding>,
    release: watch::Sender<bool>,
    /// Nothing is under way any more on a link that is given back.
    quiet: Notify,
    /// The store said that the lease is lost, or another reason to ask it.
    doubted: Notify,
    /// The store failed when it was asked last.
    was_away: AtomicBool,
    /// It failed after longer than it takes, and was asked again.
    asked_again: AtomicBool,
    /// Until when other processes are given the link.
    resting: Mutex<Option<Instant>>,
    /// Grows when the owner of some link changes.
    owners: Arc<watch::Sender<u64>>,
}

impl Tenure {
    pub(super) fn new(
        name: LeaseName,
        life: &str,
        store: Arc<dyn Store>,
        metrics: Arc<Metrics>,
        owners: Arc<watch::Sender<u64>>,
    ) -> Arc<Self> {
        let first = if store.is_shared() { Holding::Nobody } else { Holding::Always };
        let (holding, release) = (watch::Sender::new(first), watch::Sender::new(false));
        Arc::new(Self {
            name,
            life: life.to_owned(),
            store,
            metrics,
            holding,
            release,
            quiet: Notify::new(),
            doubted: Notify::new(),
            was_away: AtomicBool::new(false),
            asked_again: AtomicBool::new(false),
            resting: Mutex::default(),
            owners,
        })
    }

    /// Tells who works for the link's pairs; `ready` says whether it is connected.
    pub(super) fn owner(&self, ready: bool) -> Owner {
        match &*self.holding.borrow() {
            Holding::Always if ready => Owner::Mine(None),
            Holding::Always | Holding::Nobody => Owner::Nobody,
            Holding::Released { next } => Owner::Former(next.clone()),
            Holding::Mine { lease, .. } => Owner::Mine(Some(lease.fence.clone())),
            Holding::Other { life, .. } => Owner::Other(life.clone()),
        }
    }

    pub(super) fn standing(&self) -> Standing {
        self.holding.borrow().standing()
    }

    /// Returns the name of the other process that holds the link.
    pub(super) fn holder(&self) -> Option<String> {
        match &*self.holding.borrow() {
            Holding::Other { life, .. } | Holding::Released { next: Some(life) } => Some(life.clone()),
            _ => None,
        }
    }

    /// Names the process that lost the link to this one, and tells since when.
    pub(super) fn loser(&self) -> Option<(String, Instant)> {
        match &*self.holding.borrow() {
            Holding::Mine { former: Some(former), since, .. } => Some((former.clone(), *since)),
            _ => None,
        }
    }

    /// Names the process that has the link since it was lost here, less than `time` ago.
    pub(super) fn lost_to(&self, time: Duration) -> Option<String> {
        match &*self.holding.borrow() {
            Holding::Other { life, lost: Some(lost), .. } if lost.elapsed() < time => Some(life.clone()),
            _ => None,
        }
    }

    /// Says to whoever waits for owners that the link is connected.
    pub(super) fn connected(&self) {
        self.owners.send_modify(|changes| *changes += 1);
    }

    /// Tells whether the link was taken less than `time` ago.
    pub(super) fn is_new(&self, time: Duration) -> bool {
        matches!(&*self.holding.borrow(), Holding::Mine { since, .. } if since.elapsed() < time)
    }

    /// Tells whether this process has held the link for `time` at least.
    pub(super) fn held_for(&self, time: Duration) -> bool {
        match &*self.holding.borrow() {
            Holding::Always => true,
            Holding::Mine { since, .. } => since.elapsed() >= time,
            _ => false,
        }
    }

    /// Tells whether other processes may hold the link too, by turns.
    pub(super) fn is_leased(&self) -> bool {
        !matches!(*self.holding.borrow(), Holding::Always)
    }

    /// Notifies when anything about the lease changes.
    pub(super) fn watch(&self) -> watch::Receiver<Holding> {
        self.holding.subscribe()
    }

    /// Tells whether something may be sent or read now, without asking the store.
    fn may_act(&self) -> bool {
        match &*self.holding.borrow() {
            Holding::Always | Holding::Released { .. } => true,
            Holding::Mine { until, away, .. } => *away || Instant::now() < *until,
            Holding::Nobody | Holding::Other { .. } => false,
        }
    }

    /// Tells whether something may be sent or read. After a lease that may have run out this waits for the store's
    /// word.
    pub(super) async fn acts(&self) -> bool {
        if self.may_act() {
            return true;
        }
        let mut changes = self.holding.subscribe();
        loop {
            if self.may_act() {
                return true;
            }
            if self.standing() == Standing::Standby || changes.changed().await.is_err() {
                return false;
            }
        }
    }

    /// Takes the lease anew, with a new fence: whatever was taken under the former one comes again. `None` when this
    /// process does not hold the link.
    pub(super) async fn refresh(&self) -> Result<Option<Fence>, StoreError> {
        if self.standing() != Standing::Holder {
            return Ok(None);
        }
        let (asked, before) = (Instant::now(), self.lease());
        let acquired = self.store.acquire(&self.name, &self.life, TTL).await?;
        let Acquisition::Granted(lease) = acquired else { return Ok(None) };
        let fence = lease.fence.clone();
        let held = self.holding.send_if_modified(|holding| match holding {
            Holding::Always => true,
            Holding::Mine { lease: held, until, away, .. } => {
                if !is_outdated(&lease, held, before.as_ref()) {
                    (*held, *until, *away) = (lease.clone(), asked + TTL, false);
                }
                true
            }
            _ => false,
        });
        if !held {
            // It was given back, or another's, while the store was asked; nobody is to wait for it to run out.
            self.store.release(&lease).await?;
        }
        Ok(held.then_some(fence))
    }

    /// Asks the store about a lease that it called lost, and waits for its word, for a while.
    pub(super) async fn doubt(&self, lost: &Fence) {
        let mut changes = self.holding.subscribe();
        self.doubted.notify_one();
        let settled =
            changes.wait_for(|holding| !matches!(holding, Holding::Mine { lease, .. } if lease.fence == *lost));
        let _ = timeout(LOOK, settled).await;
    }

    /// Leaves the link to other processes for a while: this one cannot reach the server.
    pub(super) fn rest(&self, time: Duration) {
        *self.resting.lock() = Some(Instant::now() + time);
        self.doubted.notify_one();
    }

    /// The server has given the link to another connection. While the store cannot be asked, after the end of the lease, that is
    /// perhaps the next holder's: this process does not fight for it, but waits for the store's word.
    pub(super) fn displaced(&self) {
        let gone = self.holding.send_if_modified(|holding| match holding {
            Holding::Mine { away: true, until, .. } if *until <= Instant::now() => {
                *holding = Holding::Nobody;
                true
            }
            _ => false,
        });
        if gone {
            self.metrics.link_leases.get_or_create(&Reason { reason: "displaced" }).inc();
            tracing::warn!(lease = %self.name, "the link is another's, and the store that could tell whose is away");
            self.owners.send_modify(|changes| *changes += 1);
        }
    }

    fn rests_for(&self) -> Option<Duration> {
        let left = self.resting.lock().as_ref()?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Gives the lease back at the next opportunity.
    pub(super) fn give_back(&self) {
        self.release.send_replace(true);
    }

    /// Nothing is under way on the link, so a lease that is given back can go.
    pub(super) fn went_quiet(&self) {
        self.quiet.notify_one();
    }

    /// Takes the lease, keeps it, and gives it back when told.
    pub(super) async fn keep(self: Arc<Self>) {
        if !self.store.is_shared() {
            return;
        }
        let mut release = self.release.subscribe();
        let mut wake = self.store.wake(Topic::Lease(self.name.clone()));
        while !*release.borrow() {
            let wait = match self.rests_for() {
                Some(left) => self.step_aside().await.min(left),
                None => self.step().await,
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = wake.changed() => {}
                () = self.doubted.notified() => {}
                _ = release.changed() => {}
            }
        }
        let held = self.holding.send_replace(Holding::Released { next: None });
        self.owners.send_modify(|changes| *changes += 1);
        if let Holding::Mine { lease, .. } = held {
            // Where the server closes this connection for that of the next holder, what it has not read is lost.
            let _ = timeout(QUIET_MOST, self.quiet.notified()).await;
            if let Err(error) = self.store.release(&lease).await {
                tracing::debug!(lease = %self.name, %error, "a lease runs out instead of being given back");
            }
        }
        // What still comes to this process goes to the next holder.
        loop {
            let mut known = false;
            if let Ok(holder) = self.store.holder(&self.name).await {
                // Where the lease could not be given back this process is named until it runs out.
                let next = holder.map(|holder| holder.name).filter(|life| *life != self.life);
                known = next.is_some();
                self.succeeded_by(next);
            }
            tokio::select! {
                () = tokio::time::sleep(if known { LOOK } else { SHORTEST }) => {}
                () = self.holding.closed() => return,
            }
        }
    }

    fn succeeded_by(&self, life: Option<String>) {
        let changed = self.holding.send_if_modified(|holding| match holding {
            Holding::Released { next } if *next != life => {
                *next = life;
                true
            }
            _ => false,
        });
        if changed {
            self.owners.send_modify(|changes| *changes += 1);
        }
    }

    /// Asks the store once; returns when to ask again.
    async fn step(&self) -> Duration {
        let (asked, before) = (Instant::now(), self.lease());
        if let Some(lease) = &before {
            match self.store.renew(lease, TTL).await {
                Ok(renewed) => {
                    self.store_answered();
                    self.renewed(lease, renewed, asked);
                    return RENEW;
                }
                // It ran out, which does not say that somebody else took it.
                Err(StoreError::FenceLost { .. }) => {}
                Err(error) => return self.store_is_away(&error, asked),
            }
        } else {
            // Only a lease that is free is asked for: a store that was away may do what it was asked long before.
            match self.store.holder(&self.name).await {
                // It may be this process, which was not told.
                Ok(Some(holder)) if holder.name != self.life => {
                    self.store_answered();
                    return self.held_by_other(holder.name, holder.expires_at);
                }
                Ok(None) if self.store_answered() => return GRACE,
                Ok(_) => {}
                Err(error) => return self.store_is_away(&error, asked),
            }
        }
        match self.store.acquire(&self.name, &self.life, TTL).await {
            Ok(Acquisition::Granted(lease)) => {
                self.store_answered();
                self.granted(&lease, asked, before.as_ref());
                RENEW
            }
            Ok(Acquisition::Held(holder)) => self.held_by_other(holder.name, holder.expires_at),
            Err(error) => self.store_is_away(&error, asked),
        }
    }

    /// Lets the lease go and learns who takes it; returns when to look again. A store that is away gives it to nobody else,
    /// so then this process keeps it.
    async fn step_aside(&self) -> Duration {
        let asked = Instant::now();
        if let Some(lease) = self.lease() {
            if let Err(error) = self.store.release(&lease).await {
                return self.store_is_away(&error, asked);
            }
            tracing::info!(lease = %self.name, "the link is left to other processes for a while");
            self.holding.send_replace(Holding::Nobody);
            self.owners.send_modify(|changes| *changes += 1);
        }
        match self.store.holder(&self.name).await {
            Ok(Some(holder)) if holder.name != self.life => {
                self.held_by(holder.name, holder.expires_at);
                LOOK
            }
            Ok(_) => SHORTEST,
            Err(error) => self.store_is_away(&error, asked),
        }
    }

    /// The lease lasts longer; one that was taken anew meanwhile is let alone.
    fn renewed(&self, asked_for: &Lease, renewed: Lease, asked: Instant) {
        self.holding.send_if_modified(|holding| match holding {
            Holding::Mine { lease, until, away, .. } if lease.fence == asked_for.fence => {
                (*lease, *until, *away) = (renewed, asked + TTL, false);
                true
            }
            _ => false,
        });
    }

    /// The lease that this process has, as far as it knows.
    fn lease(&self) -> Option<Lease> {
        match &*self.holding.borrow() {
            Holding::Mine { lease, .. } => Some(lease.clone()),
            _ => None,
        }
    }

    /// Takes the lease that was granted; `before` is the one that this process had when it asked.
    fn granted(&self, lease: &Lease, asked: Instant, before: Option<&Lease>) {
        let mut former = Holding::Nobody;
        let taken = self.holding.send_if_modified(|holding| {
            former = holding.clone();
            if matches!(&former, Holding::Mine { lease: held, .. } if is_outdated(lease, held, before)) {
                return false;
            }
            let (since, lost_at, before) = match &former {
                Holding::Mine { since, lost_at, former, .. } => (*since, *lost_at, former.clone()),
                // A lease that ran out was not given back: its holder is dead, or stands still.
                Holding::Other { life, until, .. } if renewed_before(lease.expires_at) >= *until => {
                    (asked, Some(renewed_before(*until)), Some(life.clone()))
                }
                Holding::Other { .. } => (asked, Some(renewed_before(lease.expires_at)), None),
                _ => (asked, None, None),
            };
            *holding =
                Holding::Mine { lease: lease.clone(), until: asked + TTL, away: false, since, lost_at, former: before };
            true
        });
        if !taken {
            return;
        }
        let how = match former {
            Holding::Mine { .. } => "again",
            Holding::Other { .. } => "taken_over",
            _ => "free",
        };
        self.metrics.link_leases.get_or_create(&Reason { reason: how }).inc();
        tracing::info!(lease = %self.name, how, "this process holds the link");
        self.owners.send_modify(|changes| *changes += 1);
    }

    /// Notes the holder; returns when to ask again.
    fn held_by_other(&self, life: String, until: EpochMillis) -> Duration {
        self.held_by(life, until);
        until.since(crate::bridge::now().epoch).clamp(SHORTEST, LOOK)
    }

    fn held_by(&self, life: String, until: EpochMillis) {
        let changed = self.holding.send_if_modified(|holding| {
            let same = matches!(holding, Holding::Other { life: known, .. } if *known == life);
            if matches!(holding, Holding::Mine { .. }) {
                self.metrics.link_leases.get_or_create(&Reason { reason: "lost" }).inc();
                tracing::warn!(lease = %self.name, holder = life, "the link went to another process");
            }
            let lost = match holding {
                Holding::Mine { .. } => Some(Instant::now()),
                Holding::Other { lost, .. } => *lost,
                _ => None,
            };
            *holding = Holding::Other { life, until, lost };
            !same
        });
        if changed {
            self.owners.send_modify(|changes| *changes += 1);
        }
    }

    /// Notes that the store can be asked; tells whether it could not be.
    fn store_answered(&self) -> bool {
        self.asked_again.store(false, Ordering::Relaxed);
        self.was_away.swap(false, Ordering::Relaxed)
    }

    /// Notes that the store failed when it was `asked`; returns when to ask again.
    fn store_is_away(&self, error: &StoreError, asked: Instant) -> Duration {
        self.metrics.store_errors.get_or_create(&Reason { reason: error.reason() }).inc();
        self.was_away.store(true, Ordering::Relaxed);
        // A process that stood still finds the time limit over before it finds the answer, and the link may be another's by now.
        if asked.elapsed() > SILENT && !self.asked_again.swap(true, Ordering::Relaxed) {
            return SHORTEST;
        }
        self.holding.send_if_modified(|holding| match holding {
            Holding::Mine { away, .. } if !*away => {
                *away = true;
                tracing::warn!(lease = %self.name, %error, "the lease cannot be renewed; the link goes on");
                true
            }
            _ => false,
        });
        PAUSE
    }

    /// Tells since when nobody had the link before this process took it from another one; once.
    pub(super) fn take_lost_at(&self) -> Option<EpochMillis> {
        let mut lost = None;
        self.holding.send_if_modified(|holding| {
            if let Holding::Mine { lost_at, .. } = holding {
                lost = lost_at.take();
            }
            false
        });
        lost
    }
}

/// Tells when a lease that runs out at `until` was renewed last.
fn renewed_before(until: EpochMillis) -> EpochMillis {
    EpochMillis(until.0.saturating_sub(u64::try_from(TTL.as_millis()).unwrap_or(0)))
}

/// Tells whether another grant came while this one was asked for, and is the later one. The token of the lease that the process had
/// `before` says nothing: it is lost, and a server that took over may count from an earlier time.
fn is_outdated(granted: &Lease, held: &Lease, before: Option<&Lease>) -> bool {
    before.is_none_or(|before| before.fence != held.fence) && held.fence.token > granted.fence.token
}

#[cfg(test)]
mod tests;
