//! Who reads on where he ended: how far to read ahead for him.
//!
//! A reader is told by where he ended: whoever begins there is taken for him. Invariants: what is remembered is bounded in
//! number, least recently seen first out; no clock, no hashing.

use std::collections::BTreeMap;
use std::ops::Range;

use parking_lot::Mutex;

use crate::entry::TopicPartition;

/// Readers that are remembered, about 100 bytes each.
const MOST: usize = 4096;
/// What is read ahead at first. It doubles with every read.
const FIRST_BYTES: usize = 2 << 20;
const MOST_BYTES: usize = 16 << 20;
/// Who was seen within so many reads counts when what there is for all is shared out.
const RECENT: u64 = 128;

#[derive(Debug, Default)]
pub(super) struct Streams(Mutex<State>);

/// A partition, and the offset at which a reader goes on.
type Key = (TopicPartition, i64);

#[derive(Debug, Default)]
struct State {
    streams: BTreeMap<Key, Stream>,
    uses: BTreeMap<u64, Key>,
    next_use: u64,
}

#[derive(Debug)]
struct Stream {
    window_bytes: usize,
    last_use: u64,
}

impl Streams {
    /// Somebody has read these offsets. How many bytes behind them should be read ahead, of `shared_bytes` that there are for
    /// all: nothing for whoever was not seen before.
    pub fn follow(&self, partition: TopicPartition, offsets: Range<i64>, shared_bytes: usize) -> usize {
        let mut state = self.0.lock();
        let window_bytes = match state.streams.remove(&(partition, offsets.start)) {
            Some(known) => {
                state.uses.remove(&known.last_use);
                (known.window_bytes * 2).clamp(FIRST_BYTES, MOST_BYTES)
            }
            None => 0,
        };
        let (key, last_use) = ((partition, offsets.end), state.next_use);
        state.next_use += 1;
        // Readers in step are one: who comes second does not take back what the first has opened.
        let other = state.streams.remove(&key);
        let window_bytes = other.as_ref().map_or(window_bytes, |other| window_bytes.max(other.window_bytes));
        if let Some(other) = other {
            state.uses.remove(&other.last_use);
        }
        state.streams.insert(key, Stream { window_bytes, last_use });
        state.uses.insert(last_use, key);
        while state.streams.len() > MOST
            && let Some((_, oldest)) = state.uses.pop_first()
        {
            state.streams.remove(&oldest);
        }
        window_bytes.min(shared_bytes / state.active().max(1))
    }
}

impl State {
    /// Readers that are read ahead for.
    fn active(&self) -> usize {
        let recent = self.uses.range(self.next_use.saturating_sub(RECENT)..);
        recent.filter(|(_, key)| self.streams.get(key).is_some_and(|stream| stream.window_bytes > 0)).count()
    }
}

#[cfg(test)]
mod tests;
