//! The memory tail: fragments that have just become durable, with their entries still in memory, so that readers at the
//! end of a partition never touch storage.
//!
//! Invariants:
//! - Only durable fragments are in here.
//! - It holds at most `max_bytes` of what its entries pin (allocations, each counted once a fragment, and bookkeeping);
//!   the oldest fragment goes first, whole.
//! - `evict_oldest` gives memory back at any time: producers come before cached data.
//! - Nothing is kept per partition: idle partitions cost nothing here.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::entry::{Entry, FragmentId, IndexedEntry, IndexedRun, Run, TopicPartition};
use crate::log::DurableFragment;

pub struct Tail {
    max_bytes: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    fragments: BTreeMap<FragmentId, Arc<TailFragment>>,
    /// In the order in which they came.
    order: VecDeque<FragmentId>,
    bytes: usize,
    /// The log of the fragment that came last, kept or not.
    newest_log: Option<u64>,
}

struct TailFragment {
    fragment: DurableFragment,
    /// Where each run's entries begin, with the number of all entries at the end.
    starts: Box<[u32]>,
    bytes: usize,
}

/// The entries of one run, in memory.
#[derive(Clone)]
pub struct TailRun {
    fragment: Arc<TailFragment>,
    run: usize,
}

impl Tail {
    pub fn new(max_bytes: usize) -> Self {
        Self { max_bytes, state: Mutex::default() }
    }

    /// Bytes held now.
    pub fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// Takes a durable fragment in, and drops the oldest ones if they are now too many.
    pub fn push(&self, fragment: DurableFragment) {
        let fragment = TailFragment::new(fragment);
        self.state.lock().newest_log = Some(fragment.fragment.index.fragment.log);
        if fragment.bytes > self.max_bytes {
            return;
        }
        let id = fragment.fragment.index.fragment;
        let bytes = fragment.bytes;
        let mut dropped = Vec::new();
        let mut state = self.state.lock();
        while state.bytes + bytes > self.max_bytes {
            dropped.extend(state.remove_oldest());
        }
        state.bytes += bytes;
        let replaced = state.fragments.insert(id, Arc::new(fragment));
        assert!(replaced.is_none(), "fragment {id} became durable twice");
        state.order.push_back(id);
        drop(state);
        // Only now, with the lock released: dropping them gives memory back to the budget, which takes its own.
        drop(dropped);
    }

    /// Drops the oldest fragment. False if there is none.
    pub fn evict_oldest(&self) -> bool {
        let dropped = self.state.lock().remove_oldest();
        dropped.is_some()
    }

    /// Are this fragment and all that came after it still here? (Those that are longer than the tail itself never are.)
    pub fn reaches_back_to(&self, id: FragmentId) -> bool {
        self.state.lock().order.front().is_some_and(|first| *first <= id)
    }

    /// Drops all fragments before this one: nothing refers to them any more.
    pub fn forget_before(&self, id: FragmentId) {
        let mut dropped = Vec::new();
        let mut state = self.state.lock();
        while state.order.front().is_some_and(|first| *first < id) {
            dropped.extend(state.remove_oldest());
        }
        drop(state);
        drop(dropped);
    }

    /// The log that is being written, as far as it is known here.
    pub fn newest_log(&self) -> Option<u64> {
        self.state.lock().newest_log
    }

    /// The entries of a partition's run, if they are still here.
    pub fn run(&self, partition: TopicPartition, run: &Run) -> Option<TailRun> {
        let fragment = self.state.lock().fragments.get(&run.fragment)?.clone();
        let run = fragment.fragment.index.runs.binary_search_by_key(&(partition, run.base_offset), place).ok()?;
        Some(TailRun { fragment, run })
    }
}

impl State {
    fn remove_oldest(&mut self) -> Option<Arc<TailFragment>> {
        let fragment = self.fragments.remove(&self.order.pop_front()?)?;
        self.bytes -= fragment.bytes;
        Some(fragment)
    }
}

impl TailFragment {
    fn new(fragment: DurableFragment) -> Self {
        let mut starts = Vec::with_capacity(fragment.index.runs.len() + 1);
        let mut start = 0;
        for run in &fragment.index.runs {
            starts.push(start);
            start += u32::try_from(run.entries.len()).expect("a fragment's entries are counted in 32 bits");
        }
        starts.push(start);
        assert_eq!(start as usize, fragment.entries.len(), "the index lists exactly the fragment's entries");
        assert!(fragment.index.runs.is_sorted_by_key(place), "runs lie in the order of partitions and offsets");
        let bytes =
            pinned_bytes(&fragment.entries) + fragment.entries.len() * (size_of::<Entry>() + size_of::<IndexedEntry>());
        Self { fragment, starts: starts.into_boxed_slice(), bytes }
    }
}

/// Where a run stands in the order of a fragment: a partition can have several.
fn place(run: &IndexedRun) -> (TopicPartition, i64) {
    (run.partition, run.run.base_offset)
}

/// What the entries keep alive: every allocation once, however many of the entries are slices of it.
fn pinned_bytes(entries: &[Entry]) -> usize {
    let mut allocations: Vec<_> = entries.iter().map(|entry| (entry.permit.id(), entry.permit.bytes())).collect();
    allocations.sort_unstable();
    allocations.dedup();
    allocations.iter().map(|(_, bytes)| bytes).sum()
}

impl TailRun {
    /// The index of the run's entries.
    pub fn index(&self) -> &[IndexedEntry] {
        &self.fragment.fragment.index.runs[self.run].entries
    }

    /// The entries themselves, in the order of `index`.
    pub fn entries(&self) -> &[Entry] {
        &self.fragment.fragment.entries[self.places()]
    }

    fn places(&self) -> Range<usize> {
        self.fragment.starts[self.run] as usize..self.fragment.starts[self.run + 1] as usize
    }
}

#[cfg(test)]
mod tests;
