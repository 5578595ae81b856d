//! The fragment format: what one flush writes, as one object or as the next piece of a segment's file.
//!
//! ```text
//!   header   | entries of partition A | entries of partition B | ... | index parts | run table | run count | trailer
//!   80 bytes   head body head body ...                                 one a run     72 a run    4 bytes     80 bytes
//!            |<------------------- data_length ------------------->|<------------- footer_length ------------------->|
//! ```
//!
//! - The header alone tells the fragment's total length, so that a reader can hop from fragment to fragment in a file.
//! - The trailer is a copy of the header, so that a suffix read finds the footer and knows whose it is.
//! - Entries lie grouped by partition, in the order of `TopicPartition`; those of one partition in the order in which
//!   they were appended. A run is a stretch of them with contiguous offsets and one leader epoch: usually all of them.
//! - The footer's CRC stands in the header and covers every entry's checksum: so header and writer together identify
//!   the content of one attempt, without a second pass over the record data.
//! - Each run's part of the entry index has a CRC of its own, so that it can be read alone.
//! - All numbers are big-endian. Magic, version and header CRC keep their places in every version.
//! - A fence is a header alone, of kind `Fence`; its writer is whoever fenced.
//! - A tiered object has the same format, of kind `Tiered`; in its runs offsets may have gaps.
//!
//! Decoders are total: any bytes give a value or an error, and no allocation is larger than a small multiple of the
//! input. What the encoder asserts, the decoder checks again.

mod header;

mod footer;

mod builder;

mod tiered;

use std::fmt::Display;

pub use builder::{EncodedFragment, FragmentBuilder};
pub use footer::{decode_footer, decode_run_index, entries_of};
pub use header::{FragmentHeader, FragmentKind, HEADER_BYTES, MAGIC};
pub use tiered::{EncodedTiered, OpenRun, TieredBuilder, TieredLayout};

use crate::entry::{FragmentIndex, HEAD_BYTES};
use crate::error::Error;

/// The format that this binary writes, and the newest that it reads.
pub const VERSION: u16 = 1;

/// Why bytes are not a fragment, or not this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Intact, but written by a newer binary. Never to be taken for a torn tail.
    #[error("written in format version {found}; this binary reads up to version {VERSION}")]
    FutureVersion { found: u16 },
    #[error("{0}")]
    Damaged(&'static str),
}

impl DecodeError {
    /// The error to report, with the name of what was read.
    pub fn at(self, key: impl Display) -> Error {
        match self {
            DecodeError::FutureVersion { .. } => Error::Invalid { what: format!("{key} is {self}") },
            DecodeError::Damaged(why) => Error::Corrupt { key: key.to_string(), why: why.to_owned() },
        }
    }
}

/// The checksum that an index keeps of an entry, from the entry's bytes (head and body). None if it is too short.
pub fn entry_checksum(entry: &[u8]) -> Option<u32> {
    let (head, body) = entry.split_at_checked(HEAD_BYTES)?;
    Some(crc32c::crc32c_append(crc32c::crc32c(body), head))
}

/// Notes in an index where its fragment begins in its file.
pub fn place(index: &mut FragmentIndex, file_position: u64) {
    for indexed in &mut index.runs {
        indexed.run.file_position = file_position;
    }
}

#[cfg(test)]
mod tests;
