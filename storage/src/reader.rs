//! Reads record batches of one run: from the memory tail if they are still there, else from storage.
//!
//! Files are read as asked for: the page cache does the rest. What a read of a store elsewhere brings is shared by all
//! readers (`chunks`), in two lanes with memory and requests of their own: the near one for what was written lately and for
//! look-ups, the cold one for everything else. So a replay of everything waits for itself, not others for it. Who goes on
//! where he ended is read ahead for (`streams`).
//!
//! Invariants:
//! - Whole batches only, and none that reaches to or above the caller's bound: a reader never sees more than the plan
//!   allows, wherever the bytes come from.
//! - Bytes from storage are served only after each batch's checksum was compared. A mismatch is `Corrupt`, by name.
//! - Every byte that a `RunRead` keeps in memory is paid for by the permits in it.
//! - Only a read that must return something (`at_least_one`) waits for memory. The caller then holds none for the same
//!   answer yet, so that readers never wait for each other in a circle. Upkeep, which does hold some, takes no memory of a
//!   lane, and never waits for who does (`read_whole`).

mod streams;
mod verify;

mod stored;

mod whole;

mod room;

use std::ops::{Deref, Range};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::budget::{Budget, Permit};
use crate::chunks::{ChunkCache, LaneOptions};
use crate::entry::{HEAD_BYTES, IndexedEntry, Run, TopicPartition};
use crate::error::Result;
use crate::index_cache::IndexCache;
use crate::log::LogStore;
use crate::tail::{Tail, TailRun};

use self::stored::Stored;
use self::streams::Streams;

pub use self::room::{Share, StoredRoom};
pub use self::stored::Lane;
pub use self::whole::WholeRun;

pub struct Reader {
    tail: Arc<Tail>,
    stored: Arc<Stored>,
    streams: Streams,
}

/// What reads from storage may take.
#[derive(Debug, Clone, Copy)]
pub struct ReaderOptions {
    /// Of the indexes of runs that are no longer in the tail.
    pub index_cache_bytes: usize,
    pub near: LaneOptions,
    pub cold: LaneOptions,
}

impl ReaderOptions {
    /// Shares of all the memory that a broker may use, at most: a 16th for indexes, a 32nd for the near lane, and a quarter
    /// for the cold one. It is what is on its way at a time that makes a replay fast where a store answers late, and nobody
    /// else goes without: what is short is given back.
    pub fn of_memory(memory_bytes: usize) -> Self {
        Self {
            index_cache_bytes: memory_bytes / 16,
            near: LaneOptions::of(memory_bytes / 32, 16),
            cold: LaneOptions::of(memory_bytes / 4, 32),
        }
    }
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
    /// Somebody looks for something in it: it does not wait for those who read everything.
    pub look_up: bool,
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
    /// They did not come from memory that recent appends left.
    pub stored: bool,
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
    pub fn new(tail: Arc<Tail>, store: Arc<dyn LogStore>, budget: Budget, options: ReaderOptions) -> Self {
        let stored = Stored {
            near: ChunkCache::new(store.clone(), budget.clone(), options.near),
            cold: ChunkCache::new(store.clone(), budget.clone(), options.cold),
            indexes: IndexCache::new(options.index_cache_bytes),
            store,
            budget,
        };
        Self { tail, stored: Arc::new(stored), streams: Streams::default() }
    }

    pub fn tail(&self) -> &Arc<Tail> {
        &self.tail
    }

    /// What the readers of one lane share.
    pub fn chunks(&self, lane: Lane) -> &ChunkCache {
        self.stored.chunks(lane)
    }

    /// The index of a run's entries: offsets, timestamps and producers of each, without their data.
    pub async fn entry_index(&self, partition: TopicPartition, run: &Run) -> Result<EntryIndex> {
        match self.tail.run(partition, run) {
            Some(run) => Ok(EntryIndex::Tail(run)),
            None => self.stored.index(self.lane(run), run).await.map(EntryIndex::Stored),
        }
    }

    /// Reads from one run.
    pub async fn read(&self, partition: TopicPartition, run: &Run, want: &Want) -> Result<RunRead> {
        match self.tail.run(partition, run) {
            Some(entries) => Ok(read_tail(&entries, run, want)),
            None => {
                let lane = if want.look_up { Lane::Near } else { self.lane(run) };
                self.stored.read(lane, run, want).await
            }
        }
    }

    /// Does anybody wait for memory of a lane, that is for others' answers to be sent?
    pub fn is_short(&self) -> bool {
        Lane::ALL.into_iter().any(|lane| self.chunks(lane).is_waited_for())
    }

    /// What was written lately is what the log that is being written holds and upkeep has not moved yet.
    fn lane(&self, run: &Run) -> Lane {
        let is_recent = !run.fragment.is_tiered() && self.tail.newest_log() == Some(run.fragment.log);
        if is_recent { Lane::Near } else { Lane::Cold }
    }

    /// A reader has got a partition's records in these offsets from storage. How much should be read ahead behind them, in
    /// bytes: more and more, as long as readers go on where they ended.
    pub fn went_on(&self, partition: TopicPartition, offsets: Range<i64>) -> usize {
        if !self.stored.store.is_remote() {
            return 0;
        }
        let cold = &self.stored.cold;
        self.streams.follow(partition, offsets, cold.most_ahead()).min(cold.most_at_once())
    }

    /// Begins to read so many bytes from this offset on, if less than half of them are here or on their way. `runs` are in
    /// order; the first one holds the offset.
    pub fn read_ahead(&self, partition: TopicPartition, runs: Vec<Run>, from_offset: i64, bytes: usize) {
        let in_tail = |run: &Run| self.tail.run(partition, run).is_some();
        let runs: Vec<_> = runs.into_iter().take_while(|run| !in_tail(run)).map(|run| (self.lane(&run), run)).collect();
        if !runs.is_empty() {
            let stored = self.stored.clone();
            tokio::spawn(async move { stored.read_ahead(&runs, from_offset, bytes as u64).await });
        }
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
    let bytes = bytes_of(&index[places.clone()]);
    RunRead { slices, bytes, next_offset: next_offset(index, &places, run), permits, stored: false }
}

#[cfg(test)]
mod tests;
