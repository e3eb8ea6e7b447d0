//! Values of Secrets: from documents, or from a folder as mounted.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use isthmus_crds::Secret;

use super::files;
use super::finding::{Finding, Place, Refusal};

/// Largest value, in bytes; Kubernetes allows no larger Secret.
const MAX_VALUE: u64 = 1 << 20;
/// Most values of a realm.
const MAX_VALUES: usize = 100_000;

/// The Secrets of a realm. Values never appear in `Debug` output.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(BTreeMap<String, BTreeMap<String, Vec<u8>>>);

impl Secrets {
    /// The bytes under a key of a Secret, as they stand in the document or file.
    pub fn get(&self, secret: &str, key: &str) -> Option<&[u8]> {
        self.0.get(secret)?.get(key).map(Vec::as_slice)
    }

    /// Tells whether a Secret exists, whatever its keys.
    pub fn contains(&self, secret: &str) -> bool {
        self.0.contains_key(secret)
    }

    /// Takes a document in; the caller has seen to it that the name is new.
    pub(super) fn add_document(&mut self, secret: &Secret) {
        let values = self.0.entry(secret.name().to_owned()).or_default();
        for key in secret.keys() {
            if let Some(value) = secret.get(key) {
                values.insert(key.to_owned(), value.to_vec());
            }
        }
    }

    /// Takes in `dir/<secret>/<key>`, given where documents declare Secrets.
    pub(super) fn add_folder(
        &mut self,
        dir: &Path,
        documents: &BTreeMap<String, Place>,
        refusals: &mut Vec<Refusal>,
    ) -> Result<(), Refusal> {
        let mut count = 0;
        for (name, folder) in entries(dir)? {
            // A mount point may hold folders of other use, such as lost+found.
            if !folder.is_dir() || !is_object_name(&name) {
                continue;
            }
            if let Some(place) = documents.get(&name) {
                let text = format!("Secret {name} is a document at {} too. Keep one of the two.", place.in_words());
                refusals.push(Finding::of_file(&folder, text));
                continue;
            }
            let mut values = BTreeMap::new();
            for (key, file) in entries(&folder)? {
                if !file.is_file() {
                    continue;
                }
                count += 1;
                if count > MAX_VALUES {
                    let text =
                        format!("the folder holds more than {MAX_VALUES} values. Name a folder of Secrets only.");
                    return Err(Finding::of_file(dir, text));
                }
                match files::read(&file, MAX_VALUE) {
                    Ok(value) => drop(values.insert(key, value)),
                    Err(refusal) => refusals.push(refusal),
                }
            }
            self.0.insert(name, values);
        }
        Ok(())
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().map(|(name, values)| (name, values.keys().collect::<Vec<_>>()));
        f.debug_map().entries(names).finish()
    }
}

/// The visible entries of a folder by name, links followed.
fn entries(dir: &Path) -> Result<BTreeMap<String, PathBuf>, Refusal> {
    let unreadable = |error| {
        Finding::of_file(dir, format!("cannot be read: {error}. Name an existing folder that this user may read."))
    };
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
        {
            found.insert(name, entry.path());
        }
    }
    Ok(found)
}

fn is_object_name(name: &str) -> bool {
    name.len() <= 253 && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
}
