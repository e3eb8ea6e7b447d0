//! The journal: users' decisions and the items of durable queues in a file, so that the embedded store keeps them
//! over a restart.
//!
//! A commit that changes one of these waits until the change is on the disk. Changes that come while the disk
//! is busy share the next sync. The file is written anew at each start and when it has grown to four times
//! of what lives; the new file takes the old one's place only when it is complete.
//!
//! After a failed write nothing is known of the file's end, so the next attempt writes the whole file anew:
//! a disk that has room again heals the journal without a restart.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, BufReader, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use self::format::{FRAME_HEADER, FrameHeader, HEADER, HeaderRead, MAX_FRAME, ReadOp, Salt};
use super::Shared;
use super::queues::Kept;
use super::records::Entry;
use crate::clock::Clock;
use crate::error::OpenError;
use crate::key::{Key, QueueName};
use crate::limits::Limits;
use crate::queue::ItemId;

mod format;

pub(super) use self::format::Op;

/// The journal's name in the state directory.
const FILE: &str = "decisions.journal";
/// The name while a new file is written.
const NEW_FILE: &str = "decisions.journal.new";
/// The file whose lock keeps other processes out. It is never removed, or two could hold a lock.
const LOCK: &str = "lock";
/// How many octets of changes one frame gets, about; one change more may come on top.
const FRAME_TARGET: usize = 1 << 20;

/// Changes that wait for the writer, each the payload of one commit.
#[derive(Debug, Default)]
pub(super) struct Pending {
    waiting: VecDeque<Vec<u8>>,
    /// The number of the last one, from 1.
    last: u64,
    closing: bool,
}

impl Pending {
    /// Adds a commit's changes; returns the number to wait for.
    pub(super) fn push(&mut self, changes: Vec<u8>) -> u64 {
        self.waiting.push_back(changes);
        self.last += 1;
        self.last
    }

    /// Asks the writer to end once everything is written.
    pub(super) fn close(&mut self) {
        self.closing = true;
    }

    /// Takes changes for one frame; returns them and the number of the last one.
    fn take(&mut self) -> (Vec<u8>, u64) {
        let mut payload = self.waiting.pop_front().unwrap_or_default();
        while payload.len() < FRAME_TARGET {
            let Some(next) = self.waiting.pop_front() else { break };
            payload.extend_from_slice(&next);
        }
        (payload, self.last - u64::try_from(self.waiting.len()).unwrap_or(u64::MAX))
    }
}

/// How far the writer is.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    /// Everything up to this number is on the disk.
    pub(super) durable: u64,
    /// Everything up to this number was tried; what is above `durable` failed.
    pub(super) tried: u64,
    /// The last failure, while it is not healed.
    pub(super) failure: Option<Arc<str>>,
}

/// An open journal.
#[derive(Debug)]
pub(super) struct Journal {
    dir: PathBuf,
    file: File,
    salt: Salt,
    /// The number of the next frame.
    number: u64,
    len: u64,
    /// The length when it was last written anew.
    fresh_len: u64,
    /// Held until the journal is dropped.
    _lock: File,
}

/// What a journal held.
pub(super) struct Loaded {
    pub(super) journal: Journal,
    pub(super) content: Content,
}

/// What lives in a journal.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) decisions: BTreeMap<Key, Entry>,
    pub(super) items: BTreeMap<(QueueName, ItemId), Kept>,
}

impl Content {
    fn retain_live(&mut self, now: isthmus_model::EpochMillis) {
        self.decisions.retain(|_, entry| entry.is_live(now));
        self.items.retain(|_, item| item.expires_at > now);
    }
}

impl Journal {
    /// Opens the journal of a directory, making both when they are not there.
    pub(super) fn open(dir: &Path, limits: &Limits, clock: &dyn Clock) -> Result<Loaded, OpenError> {
        let io = |action, path: &Path| {
            let path = path.to_path_buf();
            move |source| OpenError::Io { action, path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io("create", dir))?;
        let lock_path = dir.join(LOCK);
        let lock = private().create(true).open(&lock_path).map_err(io("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked { dir: dir.to_path_buf() }),
            Err(TryLockError::Error(source)) => return Err(io("lock", &lock_path)(source)),
        }
        let path = dir.join(FILE);
        let mut content = match File::open(&path) {
            Ok(file) => load(&path, file, limits)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Content::default(),
            Err(error) => return Err(io("open", &path)(error)),
        };
        content.retain_live(clock.now());
        let (file, salt, number, len) = write_anew(dir, &content).map_err(io("write", &path))?;
        let journal = Self { dir: dir.to_path_buf(), file, salt, number, len, fresh_len: len, _lock: lock };
        Ok(Loaded { journal, content })
    }

    /// Writes what is committed until the store is dropped. Runs on a thread of its own, since syncing blocks.
    pub(super) fn run(mut self, shared: &Shared, progress: &watch::Sender<Progress>) {
        let mut broken = false;
        loop {
            let mut state = shared.state.lock();
            loop {
                let Some(pending) = &state.pending else { return };
                if !pending.waiting.is_empty() {
                    break;
                }
                if pending.closing {
                    return;
                }
                shared.work.wait(&mut state);
            }
            let anew = broken || self.has_outgrown(&shared.limits);
            // What lives includes what waits, so one or the other is written.
            let snapshot = if anew {
                let mut content = state.durable();
                content.retain_live(shared.clock.now());
                content
            } else {
                Content::default()
            };
            let Some(pending) = &mut state.pending else { return };
            let (payload, through) = if anew {
                pending.waiting.clear();
                (Vec::new(), pending.last)
            } else {
                pending.take()
            };
            drop(state);
            let result = if anew { self.write_anew(&snapshot) } else { self.append(&payload) };
            progress.send_modify(|progress| {
                progress.tried = through;
                match &result {
                    Ok(()) => {
                        progress.durable = through;
                        progress.failure = None;
                    }
                    Err(error) => progress.failure = Some(error.to_string().into()),
                }
            });
            match result {
                Ok(()) if broken => {
                    broken = false;
                    tracing::info!(dir = %self.dir.display(), "journal of users' decisions and accepted messages works again");
                }
                Ok(()) => {}
                Err(error) => {
                    broken = true;
                    tracing::error!(
                        dir = %self.dir.display(),
                        %error,
                        "cannot write the journal of users' decisions and accepted messages; make room or repair the disk"
                    );
                }
            }
        }
    }

    fn has_outgrown(&self, limits: &Limits) -> bool {
        self.len >= limits.journal_bytes && self.len >= self.fresh_len.saturating_mul(4)
    }

    fn append(&mut self, payload: &[u8]) -> io::Result<()> {
        let frame = format::frame(self.salt, self.number, payload);
        self.file.write_all(&frame)?;
        self.file.sync_data()?;
        self.number += 1;
        self.len += u64::try_from(frame.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    fn write_anew(&mut self, snapshot: &Content) -> io::Result<()> {
        let (file, salt, number, len) = write_anew(&self.dir, snapshot)?;
        (self.file, self.salt, self.number, self.len, self.fresh_len) = (file, salt, number, len, len);
        Ok(())
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    // Who may see whom is nobody else's business.
    options.write(true).mode(0o600);
    options
}

/// Writes a complete journal and puts it in the place of the old one.
fn write_anew(dir: &Path, snapshot: &Content) -> io::Result<(File, Salt, u64, u64)> {
    let salt = RandomState::new().build_hasher().finish().to_be_bytes();
    let new_path = dir.join(NEW_FILE);
    let mut file = private().create(true).truncate(true).open(&new_path)?;
    let header = format::header(salt);
    file.write_all(&header)?;
    let (mut number, mut len) = (0, header.len());
    let mut payload = Vec::new();
    let decisions = snapshot.decisions.iter().map(|(key, entry)| {
        let Entry { version, bytes, expires_at } = entry;
        Op::Put { key, version: *version, expires_at: *expires_at, bytes }
    });
    let items = snapshot.items.iter().map(|((queue, id), item)| {
        let Kept { bytes, enqueued_at, expires_at } = item;
        Op::Enqueue { queue, id: *id, enqueued_at: *enqueued_at, expires_at: *expires_at, bytes }
    });
    let mut ops = decisions.chain(items).peekable();
    while let Some(op) = ops.next() {
        op.write(&mut payload);
        if payload.len() >= FRAME_TARGET || ops.peek().is_none() {
            let frame = format::frame(salt, number, &payload);
            file.write_all(&frame)?;
            (number, len) = (number + 1, len + frame.len());
            payload.clear();
        }
    }
    file.sync_all()?;
    std::fs::rename(&new_path, dir.join(FILE))?;
    File::open(dir)?.sync_all()?;
    Ok((file, salt, number, u64::try_from(len).unwrap_or(u64::MAX)))
}

/// Reads a journal. A damaged last frame is left out, since its commit was never answered.
fn load(path: &Path, file: File, limits: &Limits) -> Result<Content, OpenError> {
    let io = |source| OpenError::Io { action: "read", path: path.to_path_buf(), source };
    let corrupt = |offset, what| OpenError::Corrupt { file: path.to_path_buf(), offset, what };
    let total = file.metadata().map_err(io)?.len();
    let mut reader = BufReader::new(file);
    let mut header = [0; HEADER];
    if total < u64::try_from(HEADER).unwrap_or(u64::MAX) {
        return Err(corrupt(0, "the file is shorter than its header"));
    }
    reader.read_exact(&mut header).map_err(io)?;
    let salt = match format::read_header(&header) {
        HeaderRead::Ours(salt) => salt,
        HeaderRead::Newer(found) => {
            return Err(OpenError::Newer { file: path.to_path_buf(), found, known: format::FORMAT });
        }
        HeaderRead::Damaged => return Err(corrupt(0, "the header is not that of a journal")),
    };
    let mut content = Content::default();
    let mut bytes = 0_usize;
    let mut number = 0;
    let mut offset = u64::try_from(HEADER).unwrap_or(u64::MAX);
    while offset < total {
        let rest = usize::try_from(total - offset).unwrap_or(usize::MAX);
        let mut chunk = vec![0; rest.min(FRAME_HEADER)];
        reader.read_exact(&mut chunk).map_err(io)?;
        let head = FrameHeader::read(&chunk).filter(|head| head.len <= rest - FRAME_HEADER);
        let body = head.map_or_else(|| rest.min(MAX_FRAME + FRAME_HEADER) - chunk.len(), |head| head.len);
        let start = chunk.len();
        chunk.resize(start + body, 0);
        reader.read_exact(chunk.get_mut(start..).unwrap_or_default()).map_err(io)?;
        let payload = chunk.get(start..).unwrap_or_default();
        let Some(head) = head.filter(|head| head.fits(salt, payload)) else {
            if rest > MAX_FRAME + FRAME_HEADER {
                return Err(corrupt(offset, "a frame does not match its checksum"));
            }
            let at = chunk.len();
            chunk.resize(rest, 0);
            reader.read_exact(chunk.get_mut(at..).unwrap_or_default()).map_err(io)?;
            if format::has_later_frame(salt, &chunk) {
                return Err(corrupt(offset, "a frame does not match its checksum, and later ones do"));
            }
            tracing::warn!(
                file = %path.display(),
                offset,
                octets = rest,
                "the journal's last write was cut short; it was never confirmed and is left out"
            );
            break;
        };
        if head.number != number {
            return Err(corrupt(offset, "frames are missing or out of order"));
        }
        let ops = format::read_ops(payload).ok_or_else(|| corrupt(offset, "a frame holds no changes"))?;
        for op in ops {
            apply(&mut content, &mut bytes, op);
        }
        for (bound, size, limit) in [
            (crate::Bound::Records, content.decisions.len(), limits.records),
            (crate::Bound::Bytes, bytes, limits.bytes),
        ] {
            if size > limit {
                return Err(OpenError::TooMuch { file: path.to_path_buf(), bound, limit });
            }
        }
        number += 1;
        offset += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
    }
    Ok(content)
}

fn apply(content: &mut Content, total: &mut usize, op: ReadOp) {
    let Content { decisions, items } = content;
    match op {
        ReadOp::Put { key, version, expires_at, bytes } => {
            let entry = Entry { version, bytes, expires_at };
            *total += entry.cost(&key);
            if let Some(old) = decisions.insert(key.clone(), entry) {
                *total -= old.cost(&key);
            }
        }
        ReadOp::Delete { key } => {
            if let Some(old) = decisions.remove(&key) {
                *total -= old.cost(&key);
            }
        }
        ReadOp::Touch { key, expires_at } => {
            if let Some(entry) = decisions.get_mut(&key) {
                entry.expires_at = expires_at;
            }
        }
        ReadOp::Enqueue { queue, id, enqueued_at, expires_at, bytes } => {
            let item = Kept { bytes, enqueued_at, expires_at };
            *total += item.cost(&queue);
            if let Some(old) = items.insert((queue.clone(), id), item) {
                *total -= old.cost(&queue);
            }
        }
        ReadOp::Done { queue, id } => {
            if let Some(old) = items.remove(&(queue.clone(), id)) {
                *total -= old.cost(&queue);
            }
        }
    }
}

#[cfg(test)]
mod tests;
