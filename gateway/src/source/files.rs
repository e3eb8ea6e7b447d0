//! The files of a manifest folder: which ones count, their text, and whether they changed.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::finding::Refusal;

/// Largest manifest file, in bytes.
pub(super) const MAX_FILE: u64 = 16 << 20;
/// Most bytes of all manifest files together.
const MAX_TOTAL: u64 = 256 << 20;
/// Most files of a folder.
const MAX_FILES: usize = 200_000;
/// Deepest nesting of folders.
const MAX_DEPTH: usize = 16;

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The state of all files that a configuration is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Survey {
    stamps: Vec<Stamp>,
    total: u64,
}

impl Survey {
    /// Lists the manifests below `dir`, and all files of `secrets`.
    pub(super) fn take(dir: &Path, secrets: Option<&Path>) -> Result<(Self, Vec<PathBuf>), Refusal> {
        let mut survey = Self::default();
        let mut manifests = Vec::new();
        let mut walk = Walk { survey: &mut survey, seen: BTreeSet::new() };
        walk.folder(dir, 0, &mut |path| {
            if is_manifest(path) {
                manifests.push(path.to_owned());
                return true;
            }
            false
        })?;
        if survey.total > MAX_TOTAL {
            let megabytes = MAX_TOTAL >> 20;
            return Err(Refusal::of_file(
                dir,
                format!("the manifests hold more than {megabytes} MiB. Take what is no manifest out of the folder."),
            ));
        }
        if let Some(secrets) = secrets {
            Walk { survey: &mut survey, seen: BTreeSet::new() }.folder(secrets, 0, &mut |_| true)?;
        }
        Ok((survey, manifests))
    }
}

struct Walk<'a> {
    survey: &'a mut Survey,
    /// Folders and files met, by device and inode: a link never makes one count twice.
    seen: BTreeSet<(u64, u64)>,
}

impl Walk<'_> {
    fn folder(&mut self, dir: &Path, depth: usize, wanted: &mut dyn FnMut(&Path) -> bool) -> Result<(), Refusal> {
        if depth > MAX_DEPTH {
            let text = format!("folders are nested more than {MAX_DEPTH} deep. Put the files higher up.");
            return Err(Refusal::of_file(dir, text));
        }
        let own = fs::metadata(dir).map_err(|error| unreadable(dir, &error))?;
        if !self.seen.insert((own.dev(), own.ino())) {
            return Ok(());
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(dir).map_err(|error| unreadable(dir, &error))? {
            let name = entry.map_err(|error| unreadable(dir, &error))?.file_name();
            // Hidden entries are the targets of a mounted ConfigMap (`..data`), whose files are read by their visible names,
            // repositories and what editors leave behind.
            if !name.as_encoded_bytes().starts_with(b".") {
                names.push(name);
            }
            if names.len() > MAX_FILES {
                return Err(too_many(dir));
            }
        }
        names.sort_unstable();
        for name in names {
            let path = dir.join(name);
            match fs::metadata(&path) {
                Ok(found) if found.is_dir() => self.folder(&path, depth + 1, wanted)?,
                Ok(found) if found.is_file() => self.file(dir, &path, &found, wanted)?,
                Ok(_) => {}
                // Gone since the listing; the next look sees the rest.
                Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(&path).is_err() => {}
                Err(_) if !is_manifest(&path) => {}
                Err(error) => return Err(unreadable(&path, &error)),
            }
        }
        Ok(())
    }

    fn file(
        &mut self,
        dir: &Path,
        path: &Path,
        found: &Metadata,
        wanted: &mut dyn FnMut(&Path) -> bool,
    ) -> Result<(), Refusal> {
        if self.seen.contains(&(found.dev(), found.ino())) || !wanted(path) {
            return Ok(());
        }
        self.seen.insert((found.dev(), found.ino()));
        if self.survey.stamps.len() >= MAX_FILES {
            return Err(too_many(dir));
        }
        self.survey.total += found.size();
        self.survey.stamps.push(Stamp {
            path: path.to_owned(),
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        });
        Ok(())
    }
}

/// Tells whether a file is a manifest by its name.
pub(super) fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("yaml" | "yml" | "json"))
}

/// Reads a file of at most `limit` bytes.
pub(super) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    let mut file = File::open(path).map_err(|error| unreadable(path, &error))?.take(limit + 1);
    file.read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > limit {
        return Err(Refusal::of_file(path, format!("the file is larger than {limit} bytes. Split it.")));
    }
    Ok(bytes)
}

/// Reads a manifest as text.
pub(super) fn read_text(path: &Path) -> Result<String, Refusal> {
    String::from_utf8(read(path, MAX_FILE)?).map_err(|error| {
        let upto = error.utf8_error().valid_up_to();
        let before = error.as_bytes().iter().take(upto);
        let mut refusal = Refusal::of_file(path, "the file is not UTF-8 text. Save it as UTF-8.");
        refusal.line = Some(1 + before.filter(|byte| **byte == b'\n').count());
        refusal
    })
}

fn unreadable(path: &Path, error: &io::Error) -> Refusal {
    Refusal::of_file(path, format!("cannot be read: {error}. Name an existing place that this user may read."))
}

fn too_many(dir: &Path) -> Refusal {
    Refusal::of_file(dir, format!("the folder holds more than {MAX_FILES} files. Take what is no manifest out of it."))
}
