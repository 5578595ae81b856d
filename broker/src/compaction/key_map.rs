//! Which offset is the last one of each key, for the dirty section of a partition, in bounded memory.
//!
//! A key is known by 128 bits of SHA-256 over a secret of the pass and the key. Two keys that had the same would cost a
//! record: with 10^9 different keys in one pass that happens in about one of 10^20 passes, and nobody who does not know
//! the secret can make keys for it, or keys that crowd one end of the table. 24 bytes per key: hash and offset.
//!
//! Invariants: the table never grows; a key's offset only rises; every record below `covered_to` that is not below
//! `from_offset` and has a key is in the map.

use aws_lc_rs::digest::{Context, SHA256};

use super::CompactionError;
use super::raw::Batch;

/// Hash and offset.
const WORDS: usize = 3;

/// Was there room?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    All,
    /// Not for all of it: the map is done, nothing more is taken. `covered_to` lies inside this batch or at its beginning.
    Full,
}

/// `key -> last offset`.
pub struct KeyMap {
    /// Slots of two words of hash and one of the offset plus one; zero is an empty slot.
    table: Vec<u64>,
    /// Most keys: a table that is fuller gets slow.
    limit: usize,
    len: usize,
    secret: [u8; 16],
    from_offset: i64,
    covered_to: i64,
    full: bool,
}

impl KeyMap {
    /// What a key takes; tables are filled to nine tenths.
    pub const BYTES_PER_KEY: usize = WORDS * 8;

    /// For the records from `from_offset` on. The table takes at most `max_bytes`, and no more than `most_keys` different
    /// keys need (the number of records in the dirty section will do); at least one key fits. `secret` is random.
    pub fn new(max_bytes: usize, most_keys: u64, from_offset: i64, secret: [u8; 16]) -> Self {
        let wanted = usize::try_from(most_keys).unwrap_or(usize::MAX);
        let wanted = wanted.saturating_add(wanted / 8).saturating_add(2);
        let slots = (max_bytes / Self::BYTES_PER_KEY).min(wanted).max(2);
        Self {
            table: vec![0; slots * WORDS],
            limit: slots - slots.div_ceil(10),
            len: 0,
            secret,
            from_offset,
            covered_to: from_offset,
            full: false,
        }
    }

    /// Takes in one whole batch of the dirty section, in the order of offsets. The first one may begin below
    /// `from_offset`.
    pub fn add(&mut self, batch: &[u8]) -> Result<Added, CompactionError> {
        let batch = Batch::parse(batch)?;
        if self.full {
            return Ok(Added::Full);
        }
        if batch.last_offset() < self.from_offset {
            return Ok(Added::All);
        }
        // Only the first batch may have been begun by an earlier pass.
        let begun = self.covered_to == self.from_offset;
        if batch.header.base_offset < self.covered_to && !begun {
            return Err(CompactionError::Order { offset: batch.header.base_offset, covered_to: self.covered_to });
        }
        let inflated = batch.inflated()?;
        for record in batch.records(&inflated) {
            let record = record?;
            let Some(key) = record.key.filter(|_| record.offset >= self.from_offset) else { continue };
            if !self.put(key, record.offset) {
                self.full = true;
                self.covered_to = record.offset.max(self.covered_to);
                return Ok(Added::Full);
            }
        }
        self.covered_to = batch.last_offset() + 1;
        Ok(Added::All)
    }

    /// The last offset of a key. None if it is not in the dirty section.
    pub fn last_offset(&self, key: &[u8]) -> Option<i64> {
        let (_, found) = self.find(self.hash(key));
        found
    }

    /// The first offset that the map knows of.
    pub fn from_offset(&self) -> i64 {
        self.from_offset
    }

    /// Behind the last offset that the map knows of. At `from_offset` it knows of none.
    pub fn covered_to(&self) -> i64 {
        self.covered_to
    }

    /// Different keys.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Of the table.
    pub fn memory_bytes(&self) -> usize {
        self.table.len() * 8
    }

    /// False if there is no room for a new key.
    fn put(&mut self, key: &[u8], offset: i64) -> bool {
        let hash = self.hash(key);
        let (slot, found) = self.find(hash);
        match found {
            None if self.len == self.limit => return false,
            None => self.len += 1,
            // Offsets rise from batch to batch, but inside a batch they are what a producer wrote.
            Some(last) if last > offset => return true,
            Some(_) => {}
        }
        self.table[slot..slot + WORDS].copy_from_slice(&[hash[0], hash[1], offset as u64 + 1]);
        true
    }

    /// The slot of this hash, or the empty one where it belongs, and the offset that it has.
    fn find(&self, hash: [u64; 2]) -> (usize, Option<i64>) {
        let slots = self.table.len() / WORDS;
        let mut slot = (hash[0] % slots as u64) as usize;
        // It ends: a tenth of the slots is empty.
        loop {
            let at = slot * WORDS;
            match self.table[at..at + WORDS] {
                [_, _, 0] => return (at, None),
                [first, second, offset] if [first, second] == hash => return (at, Some(offset as i64 - 1)),
                _ => slot = (slot + 1) % slots,
            }
        }
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        let mut context = Context::new(&SHA256);
        context.update(&self.secret);
        context.update(key);
        let digest = context.finish();
        let word = |at: usize| digest.as_ref()[at..at + 8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        [word(0), word(8)]
    }
}

#[cfg(test)]
mod tests;
