//! Whether what is stored is what was written: reads a unit from its first byte to its last and compares everything that can
//! be compared. Header with trailer, footer, every entry's checksum, every reference to it, and, through a check that the
//! caller hands in, each record batch with what the index says of it.
//!
//! Memory is bounded by a chunk of data and one footer, however large the unit or an entry in it.

mod entries;

use std::collections::BTreeMap;

use bytes::Bytes;
use meta::seams::Incarnation;

use crate::entry::{FragmentId, FragmentIndex, IndexedEntry, Run, TopicPartition};
use crate::error::{Error, Result};
use crate::fragment::{DecodeError, FragmentHeader, HEADER_BYTES};
use crate::object_log::indexes::{Stored, read_stored};
use crate::view::files::{Found, Place, SegmentFile};
use crate::view::{Layout, Needed, Source};

use self::entries::Entries;

/// Bytes of data read at a time.
const CHUNK_BYTES: u64 = 4 << 20;
/// Of one unit, more is not told.
const FAULTS: usize = 16;

/// Of an entry's bytes, what its check is shown at most.
pub const PREFIX_BYTES: usize = 64;

/// What whoever knows the format of records has to say about single entries.
pub trait EntryCheck: Send + Sync {
    /// `prefix` is what the entry begins with; `body_crc` is the CRC32C of what follows the head. The error says what is
    /// wrong.
    fn check(&self, entry: &IndexedEntry, prefix: &[u8], body_crc: u32) -> Result<(), String>;
}

/// What one unit came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scrubbed {
    pub bytes: u64,
    pub fragments: u64,
    pub entries: u64,
    /// What is wrong with it. Empty if it is intact.
    pub faults: Vec<Fault>,
}

/// Something that is wrong with a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub why: String,
    /// It is this reference that does not fit. None: the unit itself is damaged.
    pub run: Option<(TopicPartition, Run)>,
}

impl Scrubbed {
    fn fault(&mut self, why: impl Into<String>) {
        self.note(Fault { why: why.into(), run: None });
    }

    fn note(&mut self, fault: Fault) {
        if self.faults.len() < FAULTS {
            self.faults.push(fault);
        }
    }
}

/// Reads a unit, again if anything is wrong with it: damage on its way would differ. `writer` is that of its log, if known.
/// `Missing` if it is not there.
pub async fn scrub(
    source: &Source,
    unit: FragmentId,
    needed: &Needed,
    writer: Option<Incarnation>,
    check: &dyn EntryCheck,
) -> Result<Scrubbed> {
    let job = Job { source, unit, needed, writer, check };
    let first = job.run().await?;
    if first.faults.is_empty() {
        return Ok(first);
    }
    let mut second = job.run().await?;
    second.faults.retain(|fault| first.faults.contains(fault));
    Ok(second)
}

/// What is wrong with the fence at a segment's recorded end: nothing, if there is none. A fragment there is none of the log's.
pub async fn scrub_fence(source: &Source, end: FragmentId) -> Result<Option<String>> {
    match read_stored(&source.gets, end).await {
        Ok(Stored::Fence(_) | Stored::Data(..)) | Err(Error::Missing { .. }) => Ok(None),
        Err(Error::Corrupt { why, .. }) => Ok(Some(format!("the fence of its segment: {why}"))),
        Err(error) => Err(error),
    }
}

struct Job<'a> {
    source: &'a Source,
    unit: FragmentId,
    needed: &'a Needed,
    writer: Option<Incarnation>,
    check: &'a dyn EntryCheck,
}

impl Job<'_> {
    async fn run(&self) -> Result<Scrubbed> {
        match self.source.layout() {
            Layout::Files if !self.unit.is_tiered() => self.file().await,
            _ => self.object().await,
        }
    }

    async fn object(&self) -> Result<Scrubbed> {
        let mut scrubbed = Scrubbed::default();
        let (header, index) = match read_stored(&self.source.gets, self.unit).await {
            Ok(Stored::Data(header, index)) => (header, index),
            Ok(Stored::Fence(_)) => {
                scrubbed.fault("a fence stands where a fragment should");
                return Ok(scrubbed);
            }
            Err(Error::Corrupt { why, .. }) => {
                scrubbed.fault(why);
                return Ok(scrubbed);
            }
            Err(error) => return Err(error),
        };
        let key = self.unit.key();
        let first = self.source.gets.exactly(&key, 0, HEADER_BYTES as u64, Ok).await;
        match first.map(|bytes| FragmentHeader::decode(&bytes)) {
            Ok(Ok(found)) if found == header => {}
            Ok(Err(error @ DecodeError::FutureVersion { .. })) => return Err(error.at(&key)),
            Ok(_) | Err(Error::Corrupt { .. }) => scrubbed.fault("its header and its trailer differ"),
            Err(error) => return Err(error),
        }
        references(&index, self.needed.runs.iter(), &mut scrubbed);
        let read = |position, length| self.source.gets.exactly(&key, position, length, Ok);
        self.data(&header, &index, 0, read, &mut scrubbed).await?;
        Ok(scrubbed)
    }

    async fn file(&self) -> Result<Scrubbed> {
        let mut scrubbed = Scrubbed::default();
        let Some(file) = SegmentFile::open(&self.source.gets, self.unit.log, self.unit.segment).await? else {
            return Err(Error::Missing { key: self.source.unit_key(self.unit).to_string() });
        };
        let mut by_fragment: BTreeMap<u64, Vec<&(TopicPartition, Run)>> = BTreeMap::new();
        for wanted in &self.needed.runs {
            by_fragment.entry(wanted.1.fragment.fragment).or_default().push(wanted);
        }
        let mut at = Place::default();
        while at.fragment < self.needed.fragments {
            let header = match file.fragment(at).await? {
                Found::Whole(header, index) => {
                    let here = by_fragment.get(&at.fragment).into_iter().flatten().copied();
                    references(&index, here, &mut scrubbed);
                    self.data(&header, &index, at.position, |from, length| file.read(from, length), &mut scrubbed)
                        .await?;
                    header
                }
                Found::Broken(error, header) => {
                    scrubbed.fault(format!("fragment {} at position {}: {error}", at.fragment, at.position));
                    let Some(header) = header else { return Ok(scrubbed) };
                    header
                }
            };
            at = at.after(&header);
        }
        for lost in by_fragment.range(self.needed.fragments..).flat_map(|(_, lost)| lost.iter().copied()) {
            scrubbed.note(Fault { why: format!("it ends before fragment {}", lost.1.fragment), run: Some(*lost) });
        }
        Ok(scrubbed)
    }

    /// All data of a fragment that begins at `begin`.
    async fn data<Reading>(
        &self,
        header: &FragmentHeader,
        index: &FragmentIndex,
        begin: u64,
        read: impl Fn(u64, u64) -> Reading,
        scrubbed: &mut Scrubbed,
    ) -> Result<()>
    where
        Reading: Future<Output = Result<Bytes>>,
    {
        if self.writer.is_some_and(|writer| writer != header.writer) {
            scrubbed.fault(format!("fragment {} is not by its log's writer", header.id));
        }
        let mut entries = Entries::new(index, self.check);
        let mut position = HEADER_BYTES as u64;
        while position < header.footer_position() {
            let length = (header.footer_position() - position).min(CHUNK_BYTES);
            match read(begin + position, length).await {
                Ok(bytes) => entries.feed(&bytes, |entry, why| scrubbed.fault(told(entry, begin, &why))),
                Err(Error::Corrupt { why, .. }) => {
                    scrubbed.fault(why);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
            position += length;
        }
        scrubbed.entries += index.runs.iter().map(|run| run.entries.len() as u64).sum::<u64>();
        scrubbed.bytes += header.total_length();
        scrubbed.fragments += 1;
        Ok(())
    }
}

/// Every run that is wanted of a fragment is in its index exactly as it is referred to.
fn references<'a>(
    index: &FragmentIndex,
    wanted: impl Iterator<Item = &'a (TopicPartition, Run)>,
    scrubbed: &mut Scrubbed,
) {
    let held: BTreeMap<_, _> =
        index.runs.iter().map(|held| ((held.partition, held.run.base_offset), held.run)).collect();
    for (partition, run) in wanted {
        if held.get(&(*partition, run.base_offset)) != Some(run) {
            let offsets = format!("offsets {}..{} of partition {partition}", run.base_offset, run.next_offset);
            let why = format!("it does not hold {offsets} as it should");
            scrubbed.note(Fault { why, run: Some((*partition, *run)) });
        }
    }
}

fn told(entry: &IndexedEntry, begin: u64, why: &str) -> String {
    format!("position {}: the batch at offset {} {why}", begin + entry.position, entry.meta.base_offset)
}

/// The checksum that the index has of an entry, from those of its parts.
fn checksum(body_crc: u32, head: &[u8]) -> u32 {
    crc32c::crc32c_append(body_crc, head)
}

#[cfg(test)]
mod tests;
