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

#[derive(Default)]
struct State {
    fragments: VecDeque<(FragmentId, u64)>,
    bytes: u64,
    /// When the oldest of them came.
    since: Option<Instant>,
    wake_at_bytes: u64,
    dropped: bool,
}

impl Backlog {
    pub fn push(&self, id: FragmentId, bytes: u64) {
        let mut state = self.state.lock();
        state.fragments.push_back((id, bytes));
        state.bytes += bytes;
        let first = state.since.is_none();
        if first {
            state.since = Some(Instant::now());
        }
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
        self.state.lock().since
    }

    /// The oldest ones, such that at least `keep_bytes` remain and no more than about `max_bytes` are taken (at least one).
    /// They stay until `forget`.
    pub fn oldest(&self, keep_bytes: u64, max_bytes: u64) -> Vec<(FragmentId, u64)> {
        let state = self.state.lock();
        let mut left = state.bytes;
        let mut taken_bytes = 0;
        let fits = |(_, bytes): &&(FragmentId, u64)| {
            let fits = left - bytes >= keep_bytes && (taken_bytes == 0 || taken_bytes + bytes <= max_bytes);
            left -= bytes;
            taken_bytes += bytes;
            fits
        };
        state.fragments.iter().take_while(fits).copied().collect()
    }

    /// They are in the manifest.
    pub fn forget(&self, count: usize) {
        let mut state = self.state.lock();
        let bytes: u64 = state.fragments.drain(..count).map(|(_, bytes)| bytes).sum();
        state.bytes -= bytes;
        // Those that remain are younger than that: all the better.
        state.since = (!state.fragments.is_empty()).then(Instant::now);
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
