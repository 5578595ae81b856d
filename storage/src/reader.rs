//! Reads record batches of one run: from the memory tail if they are still there, else from storage.
//!
//! Invariants:
//! - Whole batches only, and none that reaches to or above the caller's bound: a reader never sees more than the plan
//!   allows, wherever the bytes come from.
//! - Bytes from storage are served only after each batch's checksum was compared. A mismatch is `Corrupt`, by name.
//! - Every byte that a `RunRead` keeps in memory is paid for by the permits in it.
//! - Only a read that must return something (`at_least_one`) waits for memory. The caller then holds none for the same
//!   answer yet, so that readers never wait for each other in a circle.

mod whole;

use std::ops::{Deref, Range};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use meta::planted;

use crate::budget::{Budget, Permit};
use crate::entry::{HEAD_BYTES, IndexedEntry, Run, TopicPartition};
use crate::error::{Error, Result};
use crate::index_cache::IndexCache;
use crate::log::LogStore;
use crate::tail::{Tail, TailRun};

pub use self::whole::WholeRun;

pub struct Reader {
    tail: Arc<Tail>,
    store: Arc<dyn LogStore>,
    indexes: IndexCache,
    budget: Budget,
}

/// What to read of a run.
#[derive(Debug, Clone, Copy)]
pub struct Want {
    /// The first batch returned is the one that holds this offset.
    pub from_offset: i64,
    /// Exclusive: only batches that end below it are returned.
    pub below_offset: i64,
    pub max_bytes: usize,
    /// The first batch is returned even if it alone is larger than `max_bytes`.
    pub at_least_one: bool,
}

/// Batches of one run, in order.
#[derive(Debug, Default)]
pub struct RunRead {
    /// The batches' bytes, in pieces.
    pub slices: Vec<Bytes>,
    /// Length of all slices.
    pub bytes: usize,
    /// Where to read on: the offset after the last batch returned, or after the run if nothing is left in it. The
    /// requested offset if there was no room for a single batch.
    pub next_offset: i64,
    /// Keep these while the slices live.
    pub permits: Vec<Permit>,
}

/// The index of a run's entries, wherever it was found.
pub enum EntryIndex {
    Tail(TailRun),
    Stored(Arc<Vec<IndexedEntry>>),
}

impl Deref for EntryIndex {
    type Target = [IndexedEntry];

    fn deref(&self) -> &[IndexedEntry] {
        match self {
            EntryIndex::Tail(run) => run.index(),
            EntryIndex::Stored(index) => index,
        }
    }
}

impl Reader {
    /// `index_cache_bytes` bounds the indexes kept of runs that are no longer in the tail.
    pub fn new(tail: Arc<Tail>, store: Arc<dyn LogStore>, budget: Budget, index_cache_bytes: usize) -> Self {
        Self { tail, store, indexes: IndexCache::new(index_cache_bytes), budget }
    }

    pub fn tail(&self) -> &Arc<Tail> {
        &self.tail
    }

    /// The index of a run's entries: offsets, timestamps and producers of each, without their data.
    pub async fn entry_index(&self, partition: TopicPartition, run: &Run) -> Result<EntryIndex> {
        match self.tail.run(partition, run) {
            Some(run) => Ok(EntryIndex::Tail(run)),
            None => self.indexes.get(&*self.store, run).await.map(EntryIndex::Stored),
        }
    }

    /// Reads from one run.
    pub async fn read(&self, partition: TopicPartition, run: &Run, want: &Want) -> Result<RunRead> {
        match self.entry_index(partition, run).await? {
            EntryIndex::Tail(entries) => Ok(read_tail(&entries, run, want)),
            EntryIndex::Stored(index) => self.read_stored(&index, run, want).await,
        }
    }

    async fn read_stored(&self, index: &[IndexedEntry], run: &Run, want: &Want) -> Result<RunRead> {
        let mut places = want.choose(index);
        if places.is_empty() {
            return Ok(RunRead::empty(index, run, want));
        }
        let permit = match self.budget.try_take(bytes_of(&index[places.clone()])) {
            Some(permit) => permit,
            None if !want.at_least_one => {
                return Ok(RunRead { next_offset: want.from_offset, ..RunRead::default() });
            }
            None => {
                places.end = places.start + 1;
                let bytes = bytes_of(&index[places.clone()]);
                // More than the whole budget would never be granted. One batch is bounded far below it when appended.
                self.budget.take(bytes.min(self.budget.total_bytes())).await
            }
        };
        let chosen = &index[places.clone()];
        let length = u32::try_from(bytes_of(chosen)).map_err(|_| Error::Corrupt {
            key: self.store.key(run.fragment),
            why: "a run is longer than its length can say".to_owned(),
        })?;
        let data = self.store.read(run, chosen[0].position, length).await?;
        self.verify(&data, chosen, run)?;
        Ok(RunRead {
            bytes: data.len(),
            slices: vec![data],
            next_offset: next_offset(index, &places, run),
            permits: vec![permit],
        })
    }

    fn verify(&self, data: &[u8], chosen: &[IndexedEntry], run: &Run) -> Result<()> {
        let corrupt = |position: u64, why: &str| Error::Corrupt {
            key: self.store.key(run.fragment),
            why: format!("position {}: {why}", run.file_position + position),
        };
        if data.len() != bytes_of(chosen) {
            return Err(corrupt(chosen[0].position, "storage returned another length than asked for"));
        }
        let mut rest = data;
        for entry in chosen {
            let (bytes, after) = rest.split_at(entry.length as usize);
            rest = after;
            let Some((head, body)) = bytes.split_at_checked(HEAD_BYTES) else {
                return Err(corrupt(entry.position, "an entry is shorter than its head"));
            };
            let found = crc32c::crc32c_append(crc32c::crc32c(body), head);
            if found != entry.checksum && !planted::bug("checksum-not-checked") {
                let offset = entry.meta.base_offset;
                return Err(corrupt(entry.position, &format!("the batch at offset {offset} fails its checksum")));
            }
        }
        Ok(())
    }
}

impl Want {
    /// The entries to return: places in the index. Empty if there is nothing, or no room.
    fn choose(&self, index: &[IndexedEntry]) -> Range<usize> {
        let start = index.partition_point(|entry| entry.meta.last_offset < self.from_offset);
        let mut end = start;
        let mut bytes = 0;
        for entry in &index[start..] {
            let bytes_with = bytes + entry.length as usize;
            let fits = bytes_with <= self.max_bytes || (self.at_least_one && end == start);
            if !fits || entry.meta.last_offset >= self.below_offset {
                break;
            }
            bytes = bytes_with;
            end += 1;
        }
        start..end
    }
}

impl RunRead {
    fn empty(index: &[IndexedEntry], run: &Run, want: &Want) -> Self {
        let nothing_left = index.last().is_none_or(|last| last.meta.last_offset < want.from_offset);
        let next_offset = if nothing_left { run.next_offset.max(want.from_offset) } else { want.from_offset };
        Self { next_offset, ..Self::default() }
    }
}

fn bytes_of(entries: &[IndexedEntry]) -> usize {
    entries.iter().map(|entry| entry.length as usize).sum()
}

fn next_offset(index: &[IndexedEntry], places: &Range<usize>, run: &Run) -> i64 {
    if places.end == index.len() { run.next_offset } else { index[places.end - 1].meta.last_offset + 1 }
}

/// The pieces of entries in memory: no record byte is copied, only the heads, which are stamped in place.
fn read_tail(entries: &TailRun, run: &Run, want: &Want) -> RunRead {
    let index = entries.index();
    let places = want.choose(index);
    if places.is_empty() {
        return RunRead::empty(index, run, want);
    }
    let chosen = &entries.entries()[places.clone()];
    let mut heads = BytesMut::with_capacity(chosen.len() * HEAD_BYTES);
    for entry in chosen {
        heads.extend_from_slice(&entry.head);
    }
    let mut heads = heads.freeze();
    let mut slices = Vec::with_capacity(chosen.len() * 2);
    let mut permits: Vec<Permit> = Vec::new();
    for entry in chosen {
        slices.push(heads.split_to(HEAD_BYTES));
        slices.push(entry.body.clone());
        if permits.last().is_none_or(|last| last.id() != entry.permit.id()) {
            permits.push(entry.permit.clone());
        }
    }
    RunRead { slices, bytes: bytes_of(&index[places.clone()]), next_offset: next_offset(index, &places, run), permits }
}

#[cfg(test)]
mod tests;
