//! What upkeep has to do: the fragments that are durable and not in the manifest yet, in their order, and whether something
//! that the manifest holds is not wanted any more.
//!
//! Invariant: a fragment is in here only after its runs are in their partitions.

use std::collections::VecDeque;

use parking_lot::Mutex;
use storage::entry::FragmentId;
use tokio::sync::Notify;
use tokio::time::Instant;

#[derive(Default)]
pub struct Backlog {
    state: Mutex<State>,
    /// Somebody waits for so many bytes.
    enough: Notify,
}

/// A fragment that is not in the manifest yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    pub id: FragmentId,
    /// Of its entries.
    pub bytes: u64,
    pub runs: usize,
    /// When it came.
    since: Instant,
}

/// How much is taken at a time, but for a first fragment that alone is more.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    pub bytes: u64,
    pub runs: usize,
}

#[derive(Default)]
struct State {
    fragments: VecDeque<Waiting>,
    bytes: u64,
    wake_at_bytes: u64,
    dropped: bool,
}

impl Backlog {
    pub fn push(&self, id: FragmentId, bytes: u64, runs: usize) {
        let mut state = self.state.lock();
        let first = state.fragments.is_empty();
        state.fragments.push_back(Waiting { id, bytes, runs, since: Instant::now() });
        state.bytes += bytes;
        if first || state.bytes >= state.wake_at_bytes {
            drop(state);
            self.enough.notify_one();
        }
    }

    /// Bytes of entries in them.
    pub fn bytes(&self) -> u64 {
        self.state.lock().bytes
    }

    /// Length of a fragment on the average.
    pub fn mean_bytes(&self) -> u64 {
        let state = self.state.lock();
        state.bytes / (state.fragments.len() as u64).max(1)
    }

    /// Since when there has been one.
    pub fn since(&self) -> Option<Instant> {
        self.state.lock().fragments.front().map(|oldest| oldest.since)
    }

    /// The oldest ones, such that at least `keep_bytes` remain and no more than that is taken, but for the first. They stay
    /// until `forget`.
    pub fn oldest(&self, keep_bytes: u64, most: Most) -> Vec<Waiting> {
        let state = self.state.lock();
        let (mut left, mut bytes, mut runs) = (state.bytes, 0, 0);
        let mut is_first = true;
        let fits = |next: &&Waiting| {
            (left, bytes, runs) = (left - next.bytes, bytes + next.bytes, runs + next.runs);
            let fits = bytes <= most.bytes && runs <= most.runs;
            left >= keep_bytes && (std::mem::take(&mut is_first) || fits)
        };
        state.fragments.iter().take_while(fits).copied().collect()
    }

    /// They are in the manifest.
    pub fn forget(&self, count: usize) {
        let mut state = self.state.lock();
        let bytes: u64 = state.fragments.drain(..count).map(|gone| gone.bytes).sum();
        state.bytes -= bytes;
    }

    /// A topic was deleted, the beginning of a partition has moved, or what decides about that was changed.
    pub fn dropped(&self) {
        self.state.lock().dropped = true;
        self.enough.notify_one();
    }

    /// Was it, since the last call?
    pub fn take_dropped(&self) -> bool {
        std::mem::take(&mut self.state.lock().dropped)
    }

    /// Returns when the first fragment has come, or enough of them, or something was dropped.
    pub async fn more(&self, wake_at_bytes: u64) {
        self.state.lock().wake_at_bytes = wake_at_bytes;
        self.enough.notified().await;
    }
}

#[cfg(test)]
mod tests;
