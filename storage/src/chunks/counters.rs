//! What a lane has done since the start.

use std::sync::atomic::{AtomicU64, Ordering};

/// Only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
pub struct ChunkCounters {
    /// Chunks that readers wanted and that were here or on their way.
    pub hits: Count,
    /// Chunks that were read because a reader wanted them.
    pub misses: Count,
    /// Requests for what readers waited for.
    pub gets: Count,
    /// Requests for what was likely to be wanted next.
    pub ahead_gets: Count,
    /// Bytes of whole chunks that were asked for ahead.
    pub ahead_bytes: Count,
}
