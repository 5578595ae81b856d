//! The indexes of runs, as read from storage: a cache bounded in bytes, least recently used first out.
//!
//! Invariants:
//! - Single flight: however many readers want an index at once, it is read for one of them; if that fails or that one gives
//!   up, the next one tries. Nobody waits for a reader that is not polled: each load runs in a task of its own.
//! - Deterministic: ordered maps and a counter, no clock, no hashing.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::apart::apart;
use crate::entry::{FragmentId, IndexedEntry, Run};
use crate::error::Result;

/// Bookkeeping of one index: what the cell, the maps' nodes and the vector take beside the entries.
const OVERHEAD_BYTES: usize = 200;

pub struct IndexCache(Arc<Shared>);

struct Shared {
    max_bytes: usize,
    state: Mutex<State>,
}

/// A run, by its index's place: never reused for anything else.
type Key = (FragmentId, u64);

type Index = Arc<Vec<IndexedEntry>>;

#[derive(Default)]
struct State {
    slots: BTreeMap<Key, Slot>,
    /// From the least to the most recently used.
    uses: BTreeMap<u64, Key>,
    next_use: u64,
    bytes: usize,
}

struct Slot {
    cell: Arc<OnceCell<Index>>,
    last_use: u64,
    bytes: usize,
}

impl IndexCache {
    pub fn new(max_bytes: usize) -> Self {
        Self(Arc::new(Shared { max_bytes, state: Mutex::default() }))
    }

    /// Bytes held now.
    pub fn bytes(&self) -> usize {
        self.0.state.lock().bytes
    }

    /// A run's index, from here or from wherever `load` takes it.
    pub async fn get<L>(&self, run: &Run, load: impl FnOnce() -> L) -> Result<Index>
    where
        L: Future<Output = Result<Vec<IndexedEntry>>> + Send + 'static,
    {
        let key = (run.fragment, run.index_position);
        let cell = self.0.state.lock().touch(key);
        if let Some(index) = cell.get() {
            return Ok(index.clone());
        }
        apart(self.0.clone().load(key, cell, load())).await?
    }
}

impl Shared {
    async fn load(
        self: Arc<Self>,
        key: Key,
        cell: Arc<OnceCell<Index>>,
        load: impl Future<Output = Result<Vec<IndexedEntry>>>,
    ) -> Result<Index> {
        let loaded = cell.get_or_try_init(|| async { load.await.map(Arc::new) }).await.cloned();
        let mut state = self.state.lock();
        match &loaded {
            Ok(index) => state.weigh(key, &cell, OVERHEAD_BYTES + index.len() * size_of::<IndexedEntry>()),
            // Others may still be waiting for it: they keep the cell alive, and one of them tries.
            Err(_) => state.forget(key, &cell),
        }
        state.shrink_to(self.max_bytes);
        drop(state);
        loaded
    }
}

impl State {
    fn touch(&mut self, key: Key) -> Arc<OnceCell<Index>> {
        let now = self.next_use;
        self.next_use += 1;
        let bytes = &mut self.bytes;
        let slot = self.slots.entry(key).or_insert_with(|| {
            *bytes += OVERHEAD_BYTES;
            Slot { cell: Arc::default(), last_use: now, bytes: OVERHEAD_BYTES }
        });
        self.uses.remove(&slot.last_use);
        slot.last_use = now;
        self.uses.insert(now, key);
        slot.cell.clone()
    }

    fn weigh(&mut self, key: Key, cell: &Arc<OnceCell<Index>>, bytes: usize) {
        if let Some(slot) = self.slots.get_mut(&key).filter(|slot| Arc::ptr_eq(&slot.cell, cell)) {
            self.bytes = self.bytes - slot.bytes + bytes;
            slot.bytes = bytes;
        }
    }

    fn forget(&mut self, key: Key, cell: &Arc<OnceCell<Index>>) {
        if self.slots.get(&key).is_some_and(|slot| Arc::ptr_eq(&slot.cell, cell) && !slot.cell.initialized()) {
            self.remove(key);
        }
    }

    fn shrink_to(&mut self, max_bytes: usize) {
        while self.bytes > max_bytes
            && let Some((_, key)) = self.uses.first_key_value()
        {
            self.remove(*key);
        }
    }

    fn remove(&mut self, key: Key) {
        if let Some(slot) = self.slots.remove(&key) {
            self.uses.remove(&slot.last_use);
            self.bytes -= slot.bytes;
        }
    }
}

#[cfg(test)]
mod tests;
