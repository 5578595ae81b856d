//! The exclusive lock on a data folder: at most one broker writes below it.
//!
//! Invariants:
//! - What counts is the kernel's lock on the file `LOCK`, which ends with the process that holds it, however that ends.
//!   What is written inside only tells people who it is; after a kill -9 it is stale and harmless.
//! - Whoever does not get the lock changes nothing, not even the file's content.
//! - The folder exists durably before anything is created in it.
//! - Everything that writes below the folder keeps a reference to the lock, so that it is released last.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use meta::seams::Incarnation;
use rustix::fs::FlockOperation;

use crate::error::{Error, Result};

const LOCK_FILE: &str = "LOCK";

/// A locked folder. Unlocked when dropped.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    _lock: File,
}

impl Folder {
    /// Creates the folder if need be and locks it. If another process holds it, the error names that process.
    pub fn lock(root: &Path, owner: Incarnation, started_ms: i64) -> Result<Self> {
        let unavailable = |source: io::Error| Error::Unavailable {
            what: format!("folder {}", root.display()),
            source: Box::new(source),
        };
        create_durably(root).map_err(unavailable)?;
        let root = root.canonicalize().map_err(unavailable)?;
        let path = root.join(LOCK_FILE);
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(unavailable)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::Invalid { what: in_use(&root, &mut file) }),
            Err(error) => return Err(unavailable(error.into())),
        }
        sign(&mut file, owner, started_ms).map_err(unavailable)?;
        Ok(Self { root, _lock: file })
    }

    /// Removes what a crash has left of files that were not complete: those get their names when they are. Call it before
    /// anything is written.
    pub fn remove_unfinished(&self) -> Result<usize> {
        let unavailable = |source: io::Error| Error::Unavailable {
            what: format!("folder {}", self.root.display()),
            source: Box::new(source),
        };
        let mut folders: Vec<PathBuf> = ["logs", "manifests", "meta"].map(|name| self.root.join(name)).into();
        let mut removed = 0;
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(unavailable(error)),
            };
            for entry in entries {
                let entry = entry.map_err(unavailable)?;
                if entry.file_type().map_err(unavailable)?.is_dir() {
                    folders.push(entry.path());
                } else if is_unfinished(&entry.file_name().to_string_lossy()) {
                    fs::remove_file(entry.path()).map_err(unavailable)?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    /// The folder's absolute path.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// As the object store names what it is writing: the name that it will get, `#`, a number.
fn is_unfinished(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Says in the lock file who holds it.
fn sign(file: &mut File, owner: Incarnation, started_ms: i64) -> io::Result<()> {
    let text = format!("pid {}\nincarnation {owner}\nstarted_ms {started_ms}\n", std::process::id());
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn in_use(root: &Path, file: &mut File) -> String {
    let mut text = String::new();
    // Unreadable or not yet written: the lock itself is proof enough.
    let _ = file.take(1024).read_to_string(&mut text);
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    match (field("pid "), field("incarnation ")) {
        (Some(pid), Some(incarnation)) => format!(
            "folder {} is in use by another broker: process {pid}, incarnation {incarnation}. Stop that one first, or \
             choose another folder",
            root.display()
        ),
        _ => format!("folder {} is in use by another process", root.display()),
    }
}

/// Creates a folder and what is missing of the path to it, each durably recorded in its parent.
fn create_durably(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = match folder.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Err(io::ErrorKind::NotFound.into()),
    };
    create_durably(parent)?;
    match fs::create_dir(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
        Err(error) => return Err(error),
    }
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests;
