//! Writes the CRD of every kind to a folder, `crds/` of the source tree by default.
//!
//! `crdgen [--check] [DIR]`: with `--check` nothing is written and the exit code tells whether the files are current.

use std::path::PathBuf;
use std::process::ExitCode;

use isthmus_crds::{Kind, manifest};

fn main() -> ExitCode {
    let mut check = false;
    let mut folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    for argument in std::env::args_os().skip(1) {
        if argument == "--check" {
            check = true;
        } else {
            folder = argument.into();
        }
    }
    let mut stale = false;
    for &kind in Kind::ALL {
        let path = folder.join(manifest::file_name(kind));
        let wanted = manifest::file_text(kind);
        if std::fs::read_to_string(&path).is_ok_and(|present| present == wanted) {
            continue;
        }
        if check {
            eprintln!("{} is stale. Run crdgen without --check.", path.display());
            stale = true;
        } else if let Err(error) = std::fs::write(&path, wanted) {
            eprintln!("{} cannot be written: {error}", path.display());
            return ExitCode::FAILURE;
        } else {
            eprintln!("wrote {}", path.display());
        }
    }
    if stale { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
