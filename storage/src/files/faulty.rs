//! A disk in memory that has every fault the file seam allows, for tests.
//!
//! Fault model:
//! - Writes are short at random, or fail after a random part was written.
//! - A failed sync drops the bytes that it should have made durable and forgets that they were dirty (as Linux does): a
//!   later sync returns Ok although they are gone. They stay readable until the power is cut.
//! - A power cut keeps what was synced. Of everything else each sector is lost, kept or garbled by itself, in any order;
//!   files and folders whose folder was not synced disappear. Whoever used the disk before the cut gets EIO for ever.
//! - The same seed gives the same faults.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::sync::Arc;

use meta::seams::Random;
use parking_lot::Mutex;

use super::{SegmentFile, SegmentFiles};

const SECTOR_BYTES: usize = 512;

/// What to do wrong.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    pub short_writes: bool,
    /// After so many writes that succeed, one fails.
    pub writes_before_failure: Option<u32>,
    /// After so many syncs of files that succeed, one fails.
    pub syncs_before_failure: Option<u32>,
    /// After so many syncs of folders that succeed, one fails.
    pub dir_syncs_before_failure: Option<u32>,
    /// Everything that would change the disk fails.
    pub dead: bool,
}

#[derive(Clone)]
pub struct FaultyDisk(Arc<Mutex<Disk>>);

struct Disk {
    random: Random,
    faults: Faults,
    files: BTreeMap<String, FileState>,
    dirs: BTreeSet<String>,
    /// Files and folders whose entry was synced.
    durable_entries: BTreeSet<String>,
    power_cuts: u64,
}

#[derive(Default)]
struct FileState {
    /// What reads see.
    cached: Vec<u8>,
    durable: Vec<u8>,
    /// Written since the last sync: position and bytes.
    unsynced: Vec<(usize, Vec<u8>)>,
}

/// The disk as one start of a machine sees it: after a power cut it is gone for good.
struct FaultyFiles {
    disk: FaultyDisk,
    power_cuts: u64,
}

struct FaultyFile {
    disk: FaultyDisk,
    path: String,
    power_cuts: u64,
}

impl FaultyDisk {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Disk {
            random: Random::from_seed(seed),
            faults: Faults::default(),
            files: BTreeMap::new(),
            dirs: BTreeSet::new(),
            durable_entries: BTreeSet::new(),
            power_cuts: 0,
        })))
    }

    pub fn set_faults(&self, faults: Faults) {
        self.0.lock().faults = faults;
    }

    /// What is wrong from now on: a failure that has happened is over.
    pub fn faults(&self) -> Faults {
        self.0.lock().faults
    }

    /// Cuts the power and switches it on again. No fault stays.
    pub fn cut_power(&self) {
        let disk = &mut *self.0.lock();
        disk.power_cuts += 1;
        disk.faults = Faults::default();
        let durable = |path: &str| {
            path.match_indices('/').map(|(end, _)| &path[..end]).chain([path]).all(|p| disk.durable_entries.contains(p))
        };
        disk.dirs.retain(|path| durable(path));
        disk.files.retain(|path, _| durable(path));
        for file in disk.files.values_mut() {
            file.lose_power(&disk.random);
        }
    }

    /// Flips one bit, on the medium itself.
    pub fn damage(&self, path: &str, position: u64) {
        let disk = &mut *self.0.lock();
        let file = disk.files.get_mut(path).expect("the file to damage exists");
        for bytes in [&mut file.cached, &mut file.durable] {
            bytes[position as usize] ^= 1;
        }
    }

    /// Adds bytes to a file's end, as an append that was not finished leaves them.
    pub fn append_garbage(&self, path: &str, bytes: &[u8]) {
        let disk = &mut *self.0.lock();
        let file = disk.files.get_mut(path).expect("the file to append to exists");
        file.cached.extend_from_slice(bytes);
        file.durable.extend_from_slice(bytes);
    }

    /// Cuts a file's end off.
    pub fn truncate(&self, path: &str, length: u64) {
        let disk = &mut *self.0.lock();
        let file = disk.files.get_mut(path).expect("the file to truncate exists");
        file.cached.truncate(length as usize);
        file.durable.truncate(length as usize);
    }

    /// What reads see of a file, if it exists.
    pub fn content(&self, path: &str) -> Option<Vec<u8>> {
        self.0.lock().files.get(path).map(|file| file.cached.clone())
    }

    pub fn paths(&self) -> Vec<String> {
        self.0.lock().files.keys().cloned().collect()
    }

    /// The disk's files, until the next power cut.
    pub fn files(&self) -> Arc<dyn SegmentFiles> {
        Arc::new(FaultyFiles { disk: self.clone(), power_cuts: self.0.lock().power_cuts })
    }
}

impl FileState {
    fn write(&mut self, position: usize, bytes: &[u8]) {
        overwrite(&mut self.cached, position, bytes);
        self.unsynced.push((position, bytes.to_vec()));
    }

    fn sync(&mut self) {
        for (position, bytes) in self.unsynced.drain(..) {
            overwrite(&mut self.durable, position, &bytes);
        }
    }

    fn lose_power(&mut self, random: &Random) {
        for (begin, bytes) in self.unsynced.drain(..) {
            for (n, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                let position = begin + n * SECTOR_BYTES;
                match random.next_u64() % 4 {
                    0 => {}
                    1 => overwrite(&mut self.durable, position, &vec![random.next_u64() as u8; sector.len()]),
                    _ => overwrite(&mut self.durable, position, sector),
                }
            }
        }
        self.cached = self.durable.clone();
    }
}

fn overwrite(file: &mut Vec<u8>, position: usize, bytes: &[u8]) {
    let end = position + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[position..end].copy_from_slice(bytes);
}

/// Counts down to a failure; true when it is due. It happens once.
fn due(before: &mut Option<u32>) -> bool {
    match before {
        Some(0) => {
            *before = None;
            true
        }
        Some(left) => {
            *left -= 1;
            false
        }
        None => false,
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl FaultyFiles {
    fn with<T>(&self, work: impl FnOnce(&mut Disk) -> io::Result<T>) -> io::Result<T> {
        let disk = &mut *self.disk.0.lock();
        if self.power_cuts == disk.power_cuts { work(disk) } else { Err(eio()) }
    }

    fn handle(&self, path: &str) -> Arc<dyn SegmentFile> {
        Arc::new(FaultyFile { disk: self.disk.clone(), path: path.to_owned(), power_cuts: self.power_cuts })
    }
}

impl SegmentFiles for FaultyFiles {
    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.with(|disk| {
            if disk.faults.dead {
                return Err(eio());
            }
            if !parent(path).is_empty() && !disk.dirs.contains(parent(path)) {
                return Err(io::ErrorKind::NotFound.into());
            }
            disk.dirs.insert(path.to_owned());
            Ok(())
        })
    }

    fn create_new(&self, path: &str) -> io::Result<Arc<dyn SegmentFile>> {
        self.with(|disk| {
            if disk.faults.dead {
                return Err(eio());
            }
            if !disk.dirs.contains(parent(path)) {
                return Err(io::ErrorKind::NotFound.into());
            }
            if disk.files.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            disk.files.insert(path.to_owned(), FileState::default());
            Ok(self.handle(path))
        })
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn SegmentFile>> {
        self.with(|disk| match disk.files.contains_key(path) {
            true => Ok(self.handle(path)),
            false => Err(io::ErrorKind::NotFound.into()),
        })
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.with(|disk| {
            if !path.is_empty() && !disk.dirs.contains(path) {
                return Err(io::ErrorKind::NotFound.into());
            }
            if disk.faults.dead || due(&mut disk.faults.dir_syncs_before_failure) {
                return Err(eio());
            }
            let entries = disk.dirs.iter().chain(disk.files.keys()).filter(|entry| parent(entry) == path).cloned();
            disk.durable_entries.extend(entries);
            Ok(())
        })
    }

    fn name(&self, path: &str) -> String {
        path.to_owned()
    }
}

impl FaultyFile {
    fn with<T>(&self, work: impl FnOnce(&mut FileState, &mut Faults, &Random) -> io::Result<T>) -> io::Result<T> {
        let disk = &mut *self.disk.0.lock();
        if self.power_cuts != disk.power_cuts {
            return Err(eio());
        }
        let file = disk.files.get_mut(&self.path).ok_or(io::ErrorKind::NotFound)?;
        work(file, &mut disk.faults, &disk.random)
    }
}

impl SegmentFile for FaultyFile {
    fn length(&self) -> io::Result<u64> {
        self.with(|file, _, _| Ok(file.cached.len() as u64))
    }

    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        self.with(|file, faults, random| {
            let mut bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
            let fails = faults.dead || due(&mut faults.writes_before_failure);
            if (faults.short_writes || fails) && !bytes.is_empty() {
                bytes.truncate(1 + (random.next_u64() % bytes.len() as u64) as usize);
            }
            file.write(position as usize, &bytes);
            if fails { Err(eio()) } else { Ok(bytes.len()) }
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|file, faults, _| {
            if faults.dead || due(&mut faults.syncs_before_failure) {
                file.unsynced.clear();
                return Err(eio());
            }
            file.sync();
            Ok(())
        })
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.with(|file, _, _| {
            let rest = file.cached.get(position as usize..).unwrap_or_default();
            let read = rest.len().min(buffer.len());
            buffer[..read].copy_from_slice(&rest[..read]);
            Ok(read)
        })
    }
}
