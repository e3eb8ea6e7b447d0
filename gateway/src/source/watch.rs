//! Tells when a change on disk is complete.
//!
//! The kernel tells of writes, closes and renames at once; a look every few seconds finds what it does not tell of (network file
//! systems, links that point elsewhere). A file that is open for writing holds the change back until it is closed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc as tokio_mpsc;

use super::files::{self, Survey};
use super::{Loaded, SourceOptions};

/// Quiet time after which a burst of changes is one change.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// A burst that does not end is taken after this; a change has to be taken within a second.
const LONGEST_BURST: Duration = Duration::from_millis(700);
/// Time between looks.
const POLL: Duration = Duration::from_secs(5);
/// A writer that was silent for so long is given up: the close was not told.
const WRITER_LOST: Duration = Duration::from_secs(60);
/// A created file that nobody writes to is complete, for example a hard link.
const CREATED_QUIET: Duration = Duration::from_secs(5);

/// Watches the folders from now on. Each `()` says that a complete change waits to be loaded; several may be one.
///
/// A change between a load and this call is missed: [`watch_from`] misses none. Watching ends when the receiver is dropped.
pub fn watch(options: &SourceOptions) -> tokio_mpsc::Receiver<()> {
    let survey = look(options);
    start(options, survey)
}

/// Watches the folders for what differs from a loaded configuration.
pub fn watch_from(options: &SourceOptions, loaded: &Loaded) -> tokio_mpsc::Receiver<()> {
    start(options, Some(loaded.survey.clone()))
}

fn start(options: &SourceOptions, known: Option<Survey>) -> tokio_mpsc::Receiver<()> {
    let (changes, receiver) = tokio_mpsc::channel(1);
    let options = options.clone();
    // The kernel's watch is set before this returns, so that a change right after it is seen.
    let (sender, events) = mpsc::channel();
    let roots = Roots::of(&options);
    let kernel = kernel_watch(&roots, &sender);
    let mut watch = Watch { options, roots, known, sender, events, kernel, writers: BTreeMap::new(), pending: None };
    let spawned = std::thread::Builder::new().name("source-watch".to_owned()).spawn(move || watch.run(&changes));
    if let Err(error) = spawned {
        tracing::error!(%error, "the manifests are not watched: send SIGHUP after changes");
    }
    receiver
}

fn look(options: &SourceOptions) -> Option<Survey> {
    Survey::take(&options.dir, options.secrets.as_deref()).ok().map(|(survey, _)| survey)
}

type Told = notify::Result<Event>;

/// A change that waits for quiet.
#[derive(Clone, Copy)]
struct Pending {
    since: Instant,
    last: Instant,
}

/// A file that is being written.
#[derive(Clone, Copy)]
struct Writer {
    last: Instant,
    /// Data was written, so a close will follow.
    has_written: bool,
}

struct Watch {
    options: SourceOptions,
    roots: Roots,
    /// What was loaded, or what it was when the last change was told; `None` when the folder could not be read.
    known: Option<Survey>,
    sender: mpsc::Sender<Told>,
    events: mpsc::Receiver<Told>,
    kernel: Option<RecommendedWatcher>,
    writers: BTreeMap<PathBuf, Writer>,
    pending: Option<Pending>,
}

impl Watch {
    fn run(&mut self, changes: &tokio_mpsc::Sender<()>) {
        let mut next_look = Instant::now();
        let mut seen = None;
        loop {
            let now = Instant::now();
            if now >= next_look {
                next_look = now + POLL;
                self.forget_lost_writers(now);
                if self.kernel.is_none() {
                    self.kernel = kernel_watch(&self.roots, &self.sender);
                }
                let found = look(&self.options);
                if found != self.known && self.pending.is_none() {
                    seen = Some(found);
                    self.note_change(now);
                }
            }
            if let Some(due) = self.due()
                && now >= due
                && self.writers.is_empty()
            {
                let found = look(&self.options);
                // Found by looking, perhaps without the kernel telling of writes: it has to hold still.
                if seen.take().is_some_and(|seen| seen != found) {
                    seen = Some(found);
                    self.pending = Some(Pending { since: now, last: now });
                } else {
                    self.pending = None;
                    // Folders may have come or been replaced. The new watch stands before the old one goes.
                    self.kernel = kernel_watch(&self.roots, &self.sender);
                    self.known = look(&self.options);
                    if let Err(tokio_mpsc::error::TrySendError::Closed(())) = changes.try_send(()) {
                        return;
                    }
                }
            }
            if changes.is_closed() {
                return;
            }
            let wake = match self.due() {
                Some(due) if self.writers.is_empty() => due.min(next_look),
                _ => next_look,
            };
            match self.events.recv_timeout(wake.saturating_duration_since(Instant::now())) {
                Ok(told) => self.take(told),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }

    fn due(&self) -> Option<Instant> {
        self.pending.map(|pending| (pending.last + DEBOUNCE).min(pending.since + LONGEST_BURST))
    }

    fn note_change(&mut self, now: Instant) {
        let since = self.pending.map_or(now, |pending| pending.since);
        self.pending = Some(Pending { since, last: now });
    }

    fn take(&mut self, told: Told) {
        let now = Instant::now();
        let event = match told {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(%error, "the manifests are not watched wholly: changes are found by looking every 5 s");
                return;
            }
        };
        if event.need_rescan() {
            // Closes may be among what was lost.
            self.writers.clear();
            return self.note_change(now);
        }
        for path in &event.paths {
            if self.roots.concern(path) {
                self.take_path(now, event.kind, path);
            }
        }
    }

    fn take_path(&mut self, now: Instant, kind: EventKind, path: &Path) {
        // A log or a backup beside manifests may stay open as long as it likes.
        if matches!(kind, EventKind::Access(_) | EventKind::Modify(ModifyKind::Data(_))) && !self.roots.counts(path) {
            return;
        }
        match kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                self.writers.remove(path);
                self.note_change(now);
            }
            EventKind::Modify(ModifyKind::Data(_)) => {
                self.writers.insert(path.to_owned(), Writer { last: now, has_written: true });
                self.note_change(now);
            }
            EventKind::Create(CreateKind::File) => {
                // Neither links nor devices are ever closed.
                if self.roots.counts(path)
                    && fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.nlink() == 1)
                {
                    self.writers.insert(path.to_owned(), Writer { last: now, has_written: false });
                }
                self.note_change(now);
            }
            EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => {
                // What was written under this name is complete, or gone; so is all below a folder.
                self.writers.retain(|writer, _| !writer.starts_with(path));
                self.note_change(now);
            }
            EventKind::Modify(_) | EventKind::Any | EventKind::Other => self.note_change(now),
            EventKind::Access(_) => {}
        }
    }

    fn forget_lost_writers(&mut self, now: Instant) {
        self.writers.retain(|_, writer| {
            let patience = if writer.has_written { WRITER_LOST } else { CREATED_QUIET };
            now.duration_since(writer.last) < patience
        });
    }
}

/// The watched folders, absolute as the kernel's word names them.
#[derive(Debug, Clone)]
struct Roots {
    manifests: PathBuf,
    secrets: Option<PathBuf>,
}

impl Roots {
    fn of(options: &SourceOptions) -> Self {
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        Self { manifests: absolute(&options.dir), secrets: options.secrets.as_ref().map(absolute) }
    }

    fn iter(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.manifests).chain(&self.secrets)
    }

    /// Leaves out what stands beside the folders, and what editors keep for themselves.
    fn concern(&self, path: &Path) -> bool {
        // `..data` and its targets belong to a mount; other hidden names are nobody's.
        let is_private = |part: &[u8]| part.starts_with(b".") && !part.starts_with(b"..");
        self.iter()
            .filter_map(|root| path.strip_prefix(root).ok())
            .any(|inside| !inside.components().any(|part| is_private(part.as_os_str().as_encoded_bytes())))
    }

    /// Tells whether the content of a file is part of the configuration.
    fn counts(&self, path: &Path) -> bool {
        files::is_manifest(path) || self.secrets.as_ref().is_some_and(|secrets| path.starts_with(secrets))
    }
}

/// Sets the kernel's watch on both folder trees, and on what holds them, since a folder itself may be a link that is
/// replaced. `None` when the kernel cannot watch; looking goes on.
fn kernel_watch(roots: &Roots, sender: &mpsc::Sender<Told>) -> Option<RecommendedWatcher> {
    let (sender, own) = (sender.clone(), roots.clone());
    let outcome = notify::recommended_watcher(move |told: Told| {
        let is_news = told.as_ref().map_or(true, |event| match event.kind {
            // Reading is no change, and our own reading would never end.
            EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write) => false,
            _ => event.need_rescan() || event.paths.iter().any(|path| own.concern(path)),
        });
        if is_news {
            let _ = sender.send(told);
        }
    });
    let set = outcome.and_then(|mut watcher| {
        for root in roots.iter() {
            if let Some(parent) = root.parent() {
                // A parent that may not be read is no reason to give up.
                let _ = watcher.watch(parent, RecursiveMode::NonRecursive);
            }
            watcher.watch(root, RecursiveMode::Recursive)?;
        }
        Ok(watcher)
    });
    set.inspect_err(|error| tracing::warn!(%error, "no word from the kernel: changes are found by looking every 5 s"))
        .ok()
}

#[cfg(test)]
mod tests;
