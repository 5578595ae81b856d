//! Reading a segment's file from its beginning: where it ends, and the indexes of its fragments.
//!
//! Invariants (rule 11):
//! - The end of a segment whose writer is gone is its first fragment that is not whole: header, footer and, where
//!   nothing later proves that it was durable, every entry's data.
//! - Damage below what a later fragment knew to be durable is corruption, named by file and position, and never an end.
//! - What is found is made durable before anybody relies on it: bytes in the page cache are not.

use std::io;
use std::sync::Arc;

use meta::planted;
use meta::seams::Incarnation;

use super::segment::{folders, parent, path};
use crate::entry::{FragmentId, FragmentIndex};
use crate::error::{Error, Result};
use crate::files::{SegmentFile, SegmentFiles, read_exact_at};
use crate::fragment::{self, DecodeError, FragmentHeader, HEADER_BYTES, MAGIC, decode_footer, entry_checksum};

/// Read at a time when looking for later headers.
const WINDOW_BYTES: usize = 1 << 20;

/// Indexes delivered at a time: enough to make the hop to another thread cheap, few enough to bound memory.
const INDEXES_AT_A_TIME: usize = 128;
const FOOTER_BYTES_AT_A_TIME: u64 = 8 << 20;

/// One segment's file, opened for reading.
#[derive(Clone)]
pub(super) struct Scan {
    file: Arc<dyn SegmentFile>,
    name: Arc<str>,
    log: u64,
    segment: u32,
    length: u64,
}

/// A fragment's number and where it begins.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cursor {
    pub fragment: u64,
    pub position: u64,
}

/// Fails for the file system's reasons; the inner result says whether the bytes make sense.
type Decoded<T> = Result<Result<T, DecodeError>>;

impl Scan {
    /// None if there is no such file.
    pub fn open(files: &dyn SegmentFiles, log: u64, segment: u32) -> Result<Option<Self>> {
        let path = path(log, segment);
        let name: Arc<str> = files.name(&path).into();
        let file = match files.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unavailable(&name, error)),
        };
        let length = file.length().map_err(|error| unavailable(&name, error))?;
        Ok(Some(Self { file, name, log, segment, length }))
    }

    fn read(&self, position: u64, length: usize) -> Decoded<Vec<u8>> {
        if position.checked_add(length as u64).is_none_or(|end| end > self.length) {
            return Ok(Err(DecodeError::Damaged("the file ends within it")));
        }
        let mut bytes = vec![0; length];
        read_exact_at(&*self.file, &mut bytes, position).map_err(|error| unavailable(&self.name, error))?;
        Ok(Ok(bytes))
    }

    fn header(&self, at: Cursor) -> Decoded<FragmentHeader> {
        let header = match self.read(at.position, HEADER_BYTES)? {
            Ok(bytes) => FragmentHeader::decode(&bytes),
            Err(why) => return Ok(Err(why)),
        };
        let id = FragmentId { log: self.log, segment: self.segment, fragment: at.fragment };
        Ok(header.and_then(|header| match header.id == id && !header.is_fence() {
            true => Ok(header),
            false => Err(DecodeError::Damaged("another fragment's header stands in its place")),
        }))
    }

    fn index(&self, at: Cursor, header: &FragmentHeader) -> Decoded<FragmentIndex> {
        let Some(position) = at.position.checked_add(header.footer_position()) else {
            return Ok(Err(DecodeError::Damaged("its length is absurd")));
        };
        let footer = match self.read(position, header.footer_length as usize)? {
            Ok(footer) => footer,
            Err(why) => return Ok(Err(why)),
        };
        Ok(decode_footer(header, &footer).map(|mut index| {
            fragment::place(&mut index, at.position);
            index
        }))
    }

    fn fragment(&self, at: Cursor) -> Decoded<(FragmentHeader, FragmentIndex)> {
        match self.header(at)? {
            Ok(header) => Ok(self.index(at, &header)?.map(|index| (header, index))),
            Err(why) => Ok(Err(why)),
        }
    }

    fn corrupt(&self, at: Cursor, why: DecodeError) -> Error {
        why.at(format_args!("{}, fragment {} at position {}", self.name, at.fragment, at.position))
    }

    /// The indexes of the next fragments below `end`, and where to go on. `from` is the first one wanted.
    pub fn next_indexes(&self, mut at: Cursor, from: u64, end: u64) -> Result<(Vec<FragmentIndex>, Cursor)> {
        let (mut indexes, mut footer_bytes) = (Vec::new(), 0);
        while at.fragment < end && indexes.len() < INDEXES_AT_A_TIME && footer_bytes < FOOTER_BYTES_AT_A_TIME {
            let header = self.header(at)?.map_err(|why| self.corrupt(at, why))?;
            if at.fragment >= from {
                indexes.push(self.index(at, &header)?.map_err(|why| self.corrupt(at, why))?);
                footer_bytes += u64::from(header.footer_length);
            }
            at = at.after(&header);
        }
        Ok((indexes, at))
    }

    /// Whether every entry is what its index says.
    fn data_is_intact(&self, index: &FragmentIndex) -> Result<bool> {
        for indexed in &index.runs {
            for entry in &indexed.entries {
                let position = indexed.run.file_position + entry.position;
                let found = self.read(position, entry.length as usize)?;
                if !found.is_ok_and(|bytes| entry_checksum(&bytes) == Some(entry.checksum)) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Whether a fragment that the same writer wrote later knew that this one was durable.
    fn was_durable(&self, at: Cursor, writer: Incarnation) -> Result<bool> {
        let mut begin = at.position;
        while begin < self.length {
            let length = (self.length - begin).min((WINDOW_BYTES + HEADER_BYTES) as u64) as usize;
            let Ok(window) = self.read(begin, length)? else { return Ok(false) };
            let found = (0..window.len()).filter(|place| window[*place..].starts_with(&MAGIC)).any(|place| {
                FragmentHeader::decode(&window[place..]).is_ok_and(|header| {
                    (header.id.log, header.id.segment, header.writer) == (self.log, self.segment, writer)
                        && header.durable_through.is_some_and(|through| through >= at.fragment)
                })
            });
            if found {
                return Ok(true);
            }
            begin += WINDOW_BYTES as u64;
        }
        Ok(false)
    }
}

impl Cursor {
    fn after(self, header: &FragmentHeader) -> Self {
        Self { fragment: self.fragment + 1, position: self.position.saturating_add(header.total_length()) }
    }
}

/// Finds where a segment ends whose writer is gone, and makes durable what lies below. Fragments below `known_durable`
/// are known to be durable from elsewhere.
pub(super) fn find_end(
    files: &dyn SegmentFiles,
    log: u64,
    segment: u32,
    writer: Incarnation,
    known_durable: u64,
) -> Result<u64> {
    let Some(scan) = Scan::open(files, log, segment)? else {
        let key = files.name(&path(log, segment));
        return match known_durable {
            0 => Ok(0), // registered, and never created
            _ => Err(Error::Corrupt { key, why: format!("it is missing, with {known_durable} durable fragments") }),
        };
    };
    sync(files, &scan)?;
    let (mut at, mut durable) = (Cursor::default(), known_durable);
    // Those that nothing proves to have been durable: usually just the last.
    let mut unproven: Vec<(Cursor, FragmentIndex)> = Vec::new();
    let mut damage = None;
    while damage.is_none() && at.position < scan.length {
        match scan.fragment(at)? {
            Ok((header, _)) if header.writer != writer => {
                damage = Some((at, DecodeError::Damaged("it was written by another writer")));
            }
            Ok((header, index)) => {
                durable = durable.max(header.durable_through.map_or(0, |through| through + 1));
                unproven.retain(|(at, _)| at.fragment >= durable);
                unproven.push((at, index));
                at = at.after(&header);
            }
            Err(why @ DecodeError::FutureVersion { .. }) => return Err(scan.corrupt(at, why)),
            Err(why) => damage = Some((at, why)),
        }
    }
    for (unproven, index) in &unproven {
        if !planted::bug("torn-tail-served") && !scan.data_is_intact(index)? {
            damage = Some((*unproven, DecodeError::Damaged("its data fails its checksum")));
            break;
        }
    }
    let (end, why) = match damage {
        Some((at, why)) => (at, why),
        None => (at, DecodeError::Damaged("the file ends before it")),
    };
    if end.fragment < durable || (damage.is_some() && scan.was_durable(end, writer)?) {
        return Err(scan.corrupt(end, why));
    }
    if damage.is_some() {
        let (fragment, position, length) = (end.fragment, end.position, scan.length);
        tracing::warn!(file = %scan.name, fragment, position, length, %why, "torn tail, never acknowledged");
    }
    Ok(end.fragment)
}

/// Makes the file and the folders above it durable.
fn sync(files: &dyn SegmentFiles, scan: &Scan) -> Result<()> {
    scan.file.sync_data().map_err(|error| unavailable(&scan.name, error))?;
    let path = path(scan.log, scan.segment);
    for entry in folders(&path).chain([&*path]) {
        files.sync_dir(parent(entry)).map_err(|error| unavailable(&files.name(parent(entry)), error))?;
    }
    Ok(())
}

pub(super) fn unavailable(name: &str, source: io::Error) -> Error {
    Error::Unavailable { what: name.to_owned(), source: Box::new(source) }
}
