//! A log whose fragments become durable, or not, when a test says so; and a store that holds them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use meta::records::LogRecord;
use meta::seams::Incarnation;
use parking_lot::Mutex;
use storage::budget::{Budget, Permit};
use storage::entry::{Entry, FragmentId, FragmentIndex, IndexedEntry, IndexedRun, Run};
use storage::error::{Error, Result};
use storage::log::{DurableFragment, DurableSink, Fate, Log, LogStore, Outcome, Pending};

use crate::batch::testing::BatchSpec;
use crate::batch::{Limits, ValidBatch, validate};

pub fn valid(spec: &BatchSpec) -> ValidBatch {
    valid_bytes(&spec.build())
}

pub fn valid_bytes(batch: &Bytes) -> ValidBatch {
    validate(batch.clone(), Limits { max_bytes: 64 << 20, zstd: true }).unwrap()
}

pub fn permit() -> Permit {
    Budget::new(1).take_anyway(1)
}

pub struct FakeLog {
    number: u64,
    open: Mutex<Open>,
    /// What looking for a fence comes to.
    pub unfenced: Mutex<Unfenced>,
}

#[derive(Debug, Default)]
pub struct Unfenced {
    pub fenced: bool,
    pub unreachable: bool,
    /// How often somebody looked.
    pub looks: u32,
}

#[derive(Default)]
struct Open {
    fragment: u64,
    entries: Vec<Entry>,
    fate: Arc<Fate>,
}

impl FakeLog {
    pub fn new(number: u64) -> Arc<Self> {
        Arc::new(Self { number, open: Mutex::default(), unfenced: Mutex::default() })
    }

    /// What was enqueued since the last cut: a fragment on its way.
    pub fn cut(&self) -> InFlight {
        let mut open = self.open.lock();
        let id = FragmentId { log: self.number, segment: 0, fragment: open.fragment };
        let next = Open { fragment: open.fragment + 1, ..Open::default() };
        let Open { mut entries, fate, .. } = std::mem::replace(&mut *open, next);
        entries.sort_by_key(|entry| entry.partition);
        InFlight { fragment: fragment(id, entries), fate }
    }
}

pub struct InFlight {
    pub fragment: DurableFragment,
    fate: Arc<Fate>,
}

impl InFlight {
    pub fn runs(&self) -> &[IndexedRun] {
        &self.fragment.index.runs
    }

    /// Becomes durable: told to the sink, then to whoever waits.
    pub fn durable(self, sink: &dyn DurableSink) {
        sink.fragment_durable(self.fragment);
        self.fate.decide(Outcome::Durable);
    }

    pub fn end(self, outcome: Outcome) {
        self.fate.decide(outcome);
    }
}

fn fragment(id: FragmentId, entries: Vec<Entry>) -> DurableFragment {
    let mut runs: Vec<IndexedRun> = Vec::new();
    let mut position = 0;
    for entry in &entries {
        if runs.last().is_none_or(|run| run.partition != entry.partition) {
            let run = Run {
                fragment: id,
                base_offset: entry.meta.base_offset,
                next_offset: entry.meta.base_offset,
                max_timestamp: -1,
                leader_epoch: entry.meta.leader_epoch,
                file_position: 0,
                position,
                length: 0,
                index_position: runs.len() as u64,
                index_length: 0,
            };
            runs.push(IndexedRun { partition: entry.partition, run, entries: Vec::new() });
        }
        let IndexedRun { run, entries, .. } = runs.last_mut().unwrap();
        let length = entry.len() as u32;
        entries.push(IndexedEntry { meta: entry.meta, position, length, checksum: entry.checksum() });
        run.next_offset = entry.meta.last_offset + 1;
        run.max_timestamp = run.max_timestamp.max(entry.meta.max_timestamp);
        run.length += length;
        position += u64::from(length);
    }
    DurableFragment { index: FragmentIndex { fragment: id, runs }, entries }
}

#[async_trait]
impl Log for FakeLog {
    fn number(&self) -> u64 {
        self.number
    }

    fn enqueue(&self, entry: Entry) -> Pending {
        let mut open = self.open.lock();
        open.entries.push(entry);
        Pending::new(open.fate.clone())
    }

    fn pending_bytes(&self) -> usize {
        self.open.lock().entries.iter().map(Entry::len).sum()
    }

    async fn roll(&self) -> Result<()> {
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }

    fn durable_end(&self) -> FragmentId {
        FragmentId { log: self.number, segment: 0, fragment: self.open.lock().fragment }
    }

    async fn confirm_unfenced(&self) -> Result<()> {
        let mut unfenced = self.unfenced.lock();
        unfenced.looks += 1;
        if unfenced.fenced {
            return Err(Error::Fenced { what: "the log".to_owned(), owner: "somebody else".to_owned() });
        }
        if unfenced.unreachable {
            return Err(Error::Unavailable { what: "the log".to_owned(), source: "as told".into() });
        }
        Ok(())
    }
}

/// Holds fragments in memory, and loses or damages them on demand.
#[derive(Default)]
pub struct FakeStore {
    fragments: Mutex<BTreeMap<FragmentId, Stored>>,
    /// Read in chunks from now on.
    pub is_remote: AtomicBool,
}

struct Stored {
    data: Vec<u8>,
    runs: Vec<IndexedRun>,
}

impl FakeStore {
    pub fn keep(&self, fragment: &DurableFragment) {
        let data = fragment.entries.iter().flat_map(|entry| [&entry.head[..], &entry.body[..]].concat()).collect();
        let stored = Stored { data, runs: fragment.index.runs.clone() };
        self.fragments.lock().insert(fragment.index.fragment, stored);
    }

    /// As if compaction had left nothing but the first batch of the first fragment's runs.
    pub fn compact_first(&self) {
        for run in self.fragments.lock().values_mut().take(1).flat_map(|stored| &mut stored.runs) {
            run.entries.truncate(1);
        }
    }

    /// Flips a bit in every fragment.
    pub fn damage(&self, position: usize) {
        for stored in self.fragments.lock().values_mut() {
            stored.data[position] ^= 1;
        }
    }

    fn with<T>(&self, run: &Run, look: impl FnOnce(&Stored) -> T) -> Result<T> {
        let fragments = self.fragments.lock();
        let stored = fragments.get(&run.fragment).ok_or_else(|| Error::Missing { key: run.fragment.to_string() })?;
        Ok(look(stored))
    }
}

#[async_trait]
impl LogStore for FakeStore {
    async fn open(&self, number: u64, _writer: Incarnation, _sink: Arc<dyn DurableSink>) -> Result<Arc<dyn Log>> {
        Ok(FakeLog::new(number))
    }

    async fn fence(&self, _number: u64, _record: &LogRecord, _sealer: Incarnation) -> Result<u64> {
        Ok(0)
    }

    async fn read_indexes(
        &self,
        _number: u64,
        _segment: u32,
        _from: u64,
        _end: u64,
        _each: &mut (dyn FnMut(FragmentIndex) -> Result<()> + Send),
    ) -> Result<()> {
        Ok(())
    }

    async fn read_run_index(&self, run: &Run) -> Result<Vec<IndexedEntry>> {
        self.with(run, |stored| stored.runs[run.index_position as usize].entries.clone())
    }

    async fn read(&self, run: &Run, position: u64, length: u32) -> Result<Bytes> {
        self.with(run, |stored| Bytes::copy_from_slice(&stored.data[position as usize..][..length as usize]))
    }

    fn is_remote(&self) -> bool {
        self.is_remote.load(Ordering::Relaxed)
    }

    async fn read_pieces(
        &self,
        fragment: FragmentId,
        range: Range<u64>,
        piece_bytes: usize,
        each: &mut (dyn FnMut(Bytes) + Send),
    ) -> Result<()> {
        let fragments = self.fragments.lock();
        let stored = fragments.get(&fragment).ok_or_else(|| Error::Missing { key: fragment.to_string() })?;
        let range = range.start as usize..stored.data.len().min(range.end as usize);
        stored.data[range].chunks(piece_bytes).for_each(|piece| each(Bytes::copy_from_slice(piece)));
        Ok(())
    }
}
