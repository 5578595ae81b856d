//! The pure heart of Kafka's log compaction (`cleanup.policy=compact`): which records of a batch survive. No I/O, no clock;
//! one batch at a time.
//!
//! A *pass* over a partition reads its dirty section, in the order of offsets, into a `KeyMap` (`key -> last offset`), up to
//! where the map is full; then it puts every batch from the partition's beginning up to `KeyMap::covered_to` through
//! `filter`.
//!
//! ```text
//!   log start ....... from_offset ............. covered_to ......... high watermark
//!      |--- clean before ---|--- dirty, in the map ---|--- not looked at ---|
//!      |---------------- filtered in this pass -------|
//! ```
//!
//! What the caller has to see to, or deleted keys come back:
//! - All batches below `covered_to` are filtered in the same pass, and what the pass made of them is in place before the
//!   next one begins. In between, a part of them may be in place if it begins at the partition's beginning.
//! - A batch that cannot be read (an error) ends the cleaning of its partition, for good: it is never passed over.
//! - The next pass begins its map where this one ended: at `covered_to`, which may lie inside a batch.
//! - A producer that is not forgotten needs its last batch, empty if need be (`FilterPolicy::keep_empty`).
//!
//! Semantics are Kafka's (tombstones as since 3.0, KIP-534), except that a horizon is given to a batch only once all of
//! it is covered: before that, what its tombstones delete is still there.

use meta::error::ErrorKind;

use crate::compression::CompressError;
use crate::records::RecordsError;

mod raw;

mod key_map;

mod filter;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use self::filter::{FilterPolicy, Filtered, Kept, Rewritten, filter};
pub use self::key_map::{Added, KeyMap};

/// Why a batch cannot be compacted, and its partition not be cleaned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompactionError {
    #[error("a batch {why}")]
    Batch { why: &'static str },
    #[error("the records cannot be read: {0}")]
    Records(#[from] RecordsError),
    #[error("the records cannot be written: {0}")]
    Compress(#[from] CompressError),
    #[error("a batch of a transaction: there are no transactions yet")]
    Transactional,
    #[error("a batch at offset {offset} comes after all below {covered_to}")]
    Order { offset: i64, covered_to: i64 },
}

impl CompactionError {
    /// None of them passes by itself.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Batch { .. } | Self::Records(_) => ErrorKind::Corrupt,
            Self::Compress(_) | Self::Transactional | Self::Order { .. } => ErrorKind::Invalid,
        }
    }
}
