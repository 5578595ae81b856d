//! The writing end of one segment's file.
//!
//! Invariants (rule 11):
//! - The file's entry, and those of the folders above it, are durable before the first append is.
//! - `append` returns Ok only once the bytes are durable.
//! - After an append has failed, nothing is ever written to this file again: what a failed sync left behind is unknown,
//!   and a later sync that succeeds does not change that.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use meta::keys::object;
use meta::planted;

use crate::files::{SegmentFile, SegmentFiles, write_all_at};

pub(super) struct Segment {
    pub number: u32,
    /// The next fragment's number: all below are durable.
    pub next_fragment: u64,
    /// Where the next fragment begins.
    pub position: u64,
    file: Arc<dyn SegmentFile>,
    broken: bool,
}

/// A segment's file, relative to the data folder.
pub(super) fn path(log: u64, segment: u32) -> String {
    object::segment_file(log, segment).to_string()
}

/// The folders above a file, from the top down.
pub(super) fn folders(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(end, _)| &path[..end])
}

/// The folder that a file or folder stands in; the empty path at the top.
pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl Segment {
    /// Creates the file, durably. Fails if it exists: a name is never used twice.
    pub fn create(files: &dyn SegmentFiles, log: u64, number: u32) -> io::Result<Self> {
        let path = path(log, number);
        let sync_parent = |path: &str| match planted::bug("no-directory-sync") {
            true => Ok(()),
            false => files.sync_dir(parent(path)),
        };
        for folder in folders(&path) {
            files.create_dir(folder)?;
            sync_parent(folder)?;
        }
        let file = files.create_new(&path)?;
        fail::fail_point!("file_log::created");
        sync_parent(&path)?;
        Ok(Self { number, next_fragment: 0, position: 0, file, broken: false })
    }

    /// Appends a fragment, durably. Returns where it begins.
    pub fn append(&mut self, parts: &[Bytes], length: u64) -> io::Result<u64> {
        assert!(!self.broken, "nothing is written to a file after a failure");
        self.broken = true;
        write_all_at(&*self.file, parts, self.position)?;
        fail::fail_point!("file_log::written");
        self.sync()?;
        fail::fail_point!("file_log::synced");
        self.broken = false;
        let position = self.position;
        self.position += length;
        self.next_fragment += 1;
        Ok(position)
    }

    fn sync(&self) -> io::Result<()> {
        if planted::bug("no-fdatasync-before-ack") {
            return Ok(());
        }
        let synced = self.file.sync_data();
        if synced.is_err() && planted::bug("sync-failure-retried") {
            return self.file.sync_data();
        }
        synced
    }
}
