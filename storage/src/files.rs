//! The file seam: what the file log needs of a file system, narrow enough to be faked with every fault it can have.
//!
//! Paths are relative to the data folder, with `/` between their parts. Calls block; they are made only on threads that
//! are there for it (a log's writer thread, `ReadPool`).
//!
//! What the contract promises is what POSIX does, and no more:
//! - A write may be short. Written bytes survive a power cut only once `sync_data` has returned Ok.
//! - After a failed write or `sync_data` nothing is known about the bytes since the last sync, and a later `sync_data`
//!   that returns Ok does not change that.
//! - A new file or folder survives a power cut only once `sync_dir` of the folder it stands in has returned Ok.

#[cfg(feature = "testing")]
pub mod faulty;

use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::folder::Folder;

/// Pieces in one write: what Linux takes at most.
const MAX_IOVECS: usize = 1024;

/// Bytes in one write. A larger one makes Linux take huge pages for the page cache; in a virtual machine the host has to
/// find memory for each of those first, and writing costs up to eight times the CPU time (measured with 8 MiB at once).
const MAX_WRITE_BYTES: usize = 256 << 10;

pub trait SegmentFiles: Send + Sync {
    /// Creates a folder; fine if it exists. Its parent must exist.
    fn create_dir(&self, path: &str) -> io::Result<()>;

    /// Creates a file that must not exist yet.
    fn create_new(&self, path: &str) -> io::Result<Arc<dyn SegmentFile>>;

    /// Opens a file that exists.
    fn open(&self, path: &str) -> io::Result<Arc<dyn SegmentFile>>;

    /// Makes the entries of a folder durable. The empty path is the data folder itself.
    fn sync_dir(&self, path: &str) -> io::Result<()>;

    /// The name to show to people.
    fn name(&self, path: &str) -> String;
}

pub trait SegmentFile: Send + Sync {
    fn length(&self) -> io::Result<u64>;

    /// Writes some of the bytes, at most `MAX_IOVECS` pieces, and says how many.
    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize>;

    /// Makes what was written durable, as far as reading it back needs.
    fn sync_data(&self) -> io::Result<()>;

    /// Reads some bytes; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
}

/// Writes all parts one after another.
pub fn write_all_at(file: &dyn SegmentFile, parts: &[Bytes], mut position: u64) -> io::Result<()> {
    let (mut part, mut skip) = (0, 0);
    while part < parts.len() {
        if parts[part].len() == skip {
            (part, skip) = (part + 1, 0);
            continue;
        }
        let slices = next_write(&parts[part..], skip);
        let mut written = match file.write_at(&slices, position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        position += written as u64;
        while written > 0 {
            let rest = parts[part].len() - skip;
            let step = rest.min(written);
            (part, skip) = if step == rest { (part + 1, 0) } else { (part, skip + step) };
            written -= step;
        }
    }
    Ok(())
}

/// What one write takes of the parts, from `skip` bytes into the first.
fn next_write(parts: &[Bytes], skip: usize) -> Vec<IoSlice<'_>> {
    let mut slices = Vec::with_capacity(MAX_IOVECS.min(parts.len()));
    let mut room = MAX_WRITE_BYTES;
    let mut skip = skip;
    for part in parts.iter().take(MAX_IOVECS) {
        let rest = &part[skip..];
        skip = 0;
        slices.push(IoSlice::new(&rest[..rest.len().min(room)]));
        room = room.saturating_sub(rest.len());
        if room == 0 {
            break;
        }
    }
    slices
}

/// Fills the buffer, or fails with `UnexpectedEof`.
pub fn read_exact_at(file: &dyn SegmentFile, mut buffer: &mut [u8], mut position: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match file.read_at(buffer, position) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                buffer = &mut buffer[read..];
                position += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Real files below a locked folder.
pub struct FolderFiles {
    /// Held by everything that writes, so that it is unlocked last.
    folder: Arc<Folder>,
}

impl FolderFiles {
    pub fn new(folder: Arc<Folder>) -> Self {
        Self { folder }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.root().join(path)
    }

    fn file(&self, file: File) -> Arc<dyn SegmentFile> {
        Arc::new(RealFile { file, _folder: self.folder.clone() })
    }
}

impl SegmentFiles for FolderFiles {
    fn create_dir(&self, path: &str) -> io::Result<()> {
        match fs::create_dir(self.path(path)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.path(path).is_dir() => Ok(()),
            other => other,
        }
    }

    fn create_new(&self, path: &str) -> io::Result<Arc<dyn SegmentFile>> {
        Ok(self.file(File::options().read(true).write(true).create_new(true).open(self.path(path))?))
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn SegmentFile>> {
        Ok(self.file(File::open(self.path(path))?))
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        File::open(self.path(path))?.sync_all()
    }

    fn name(&self, path: &str) -> String {
        self.path(path).display().to_string()
    }
}

struct RealFile {
    file: File,
    _folder: Arc<Folder>,
}

impl SegmentFile for RealFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(&self.file, parts, position)?)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        FileExt::read_at(&self.file, buffer, position)
    }
}

#[cfg(test)]
mod tests;
