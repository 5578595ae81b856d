//! What a pass of compaction leaves of an entry.

use bytes::Bytes;
use storage::entry::{HEAD_BYTES, IndexedEntry, Run};
use storage::error::{Error, Result};

use crate::compaction::{self, CompactionError, FilterPolicy, KeyMap};

/// What decides which records stay.
pub struct Filter {
    pub keys: KeyMap,
    pub policy: FilterPolicy,
}

/// An entry that stays, as it goes into its new place.
pub struct Kept {
    pub entry: IndexedEntry,
    pub pieces: Vec<Bytes>,
}

impl Filter {
    /// What is left of an entry. The last one of all stays, empty if need be: something must stand for the offsets.
    pub fn apply(&self, run: &Run, entry: IndexedEntry, pieces: Vec<Bytes>, last: bool) -> Result<Option<Kept>> {
        let batch = joined(&pieces);
        let policy = FilterPolicy { keep_empty: last, ..self.policy };
        let filtered = compaction::filter(&batch, &self.keys, &policy);
        Ok(match filtered.map_err(|error| uncompactable(&entry, run, &error))?.kept {
            compaction::Kept::Nothing => None,
            compaction::Kept::Unchanged => Some(Kept { entry, pieces }),
            compaction::Kept::Rewritten(rewritten) => {
                let head = rewritten.bytes.get(..HEAD_BYTES).unwrap_or_default();
                let checksum = crc32c::crc32c_append(rewritten.body_crc, head);
                let length = u32::try_from(rewritten.bytes.len()).unwrap_or(u32::MAX);
                let meta = rewritten.meta;
                Some(Kept {
                    entry: IndexedEntry { meta, position: entry.position, length, checksum },
                    pieces: vec![rewritten.bytes],
                })
            }
        })
    }
}

pub fn joined(pieces: &[Bytes]) -> Bytes {
    match pieces {
        [whole] => whole.clone(),
        pieces => Bytes::from(pieces.concat()),
    }
}

pub fn uncompactable(entry: &IndexedEntry, run: &Run, error: &CompactionError) -> Error {
    let key = format!("the batch at offset {} in {}", entry.meta.base_offset, run.fragment);
    Error::Corrupt { key, why: error.to_string() }
}
