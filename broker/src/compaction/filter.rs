//! What remains of one batch.
//!
//! Invariants: offsets never change, neither those of records nor the first and the last of the batch; producer id, epoch
//! and sequence stay too, so that a retry is recognized all the same; the bytes of a record that remains are copied as
//! they are, except that its timestamp is written relative to another one when the batch gets its horizon; the codec
//! stays.

use bytes::Bytes;
use meta::planted;
use storage::entry::EntryMeta;

use super::raw::{Batch, RawRecord, put_varint};
use super::{CompactionError, KeyMap};
use crate::batch::seal::{BODY_HEADER_BYTES, seal};
use crate::batch::{BatchHeader, CODEC_MASK, DELETE_HORIZON};
use crate::compression::{Compressor, Levels};

/// What a record takes more at most when its timestamp is written anew.
const REWRITTEN_GROWTH_BYTES: usize = 16;

/// What else decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterPolicy {
    pub now_ms: i64,
    /// `delete.retention.ms`.
    pub delete_retention_ms: i64,
    /// A batch without any record left stays, empty: it is the last one of a producer that is not forgotten.
    pub keep_empty: bool,
    /// How hard is tried if the batch has to be compressed anew.
    pub levels: Levels,
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filtered {
    pub kept: Kept,
    /// Of the batch that remains.
    pub records: u32,
    pub dropped_records: u32,
    /// From when on the tombstones that remain can go. None if there is none, or they have no horizon yet.
    pub tombstones_until_ms: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// As it is.
    Unchanged,
    Rewritten(Rewritten),
    Nothing,
}

/// A batch that was written anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    /// All of it.
    pub bytes: Bytes,
    /// Its numbers for the index. An empty batch has no timestamp there: no record would be found for it.
    pub meta: EntryMeta,
    /// CRC32C of everything behind the head, as `storage::entry::Entry::body_crc`.
    pub body_crc: u32,
}

/// What goes through a batch once to decide, and once more to write.
struct Filter<'a> {
    batch: Batch<'a>,
    keys: &'a KeyMap,
    now_ms: i64,
}

#[derive(Debug, Default)]
struct Counts {
    kept: u32,
    dropped: u32,
    tombstones: u32,
    /// Of what is kept, -1 if nothing has any.
    max_timestamp: i64,
    min_timestamp: i64,
}

/// Filters one whole batch, as stored.
pub fn filter(batch: &[u8], keys: &KeyMap, policy: &FilterPolicy) -> Result<Filtered, CompactionError> {
    let filter = Filter { batch: Batch::parse(batch)?, keys, now_ms: policy.now_ms };
    let header = filter.batch.header;
    let inflated = filter.batch.inflated()?;
    let counts = filter.count(&inflated)?;
    let filtered = |kept, tombstones_until_ms| Filtered {
        kept,
        records: counts.kept,
        dropped_records: counts.dropped,
        tombstones_until_ms,
    };
    if counts.kept == 0 {
        let kept = match policy.keep_empty {
            false => Kept::Nothing,
            true if header.record_count == 0 => Kept::Unchanged,
            true => Kept::Rewritten(empty(header)),
        };
        return Ok(filtered(kept, None));
    }
    let covered = filter.batch.last_offset() < keys.covered_to() || planted::bug("tombstone-horizon-too-early");
    let horizon = match header.delete_horizon_ms() {
        None if counts.tombstones > 0 && covered => {
            let horizon = policy.now_ms.saturating_add(policy.delete_retention_ms);
            // With timestamps that no clock ever shows there may be no way to write them: the tombstones stay.
            counts.min_timestamp.checked_sub(horizon).map(|_| horizon)
        }
        _ => None,
    };
    let until = horizon.or(header.delete_horizon_ms()).filter(|_| counts.tombstones > 0);
    if counts.dropped == 0 && horizon.is_none() {
        return Ok(filtered(Kept::Unchanged, until));
    }
    let rewritten = filter.rewrite(&inflated, &counts, horizon, policy.levels)?;
    Ok(filtered(Kept::Rewritten(rewritten), until))
}

impl Filter<'_> {
    fn keeps(&self, record: &RawRecord<'_>) -> bool {
        if record.offset >= self.keys.covered_to() {
            return true;
        }
        // What has no key cannot be replaced, nor asked for: Kafka drops it too.
        let Some(key) = record.key else { return false };
        let last = self.keys.last_offset(key);
        if planted::bug("compaction-keeps-the-first") {
            return last.is_none_or(|last| record.offset < last);
        }
        if last.is_some_and(|last| record.offset < last) {
            return false;
        }
        let waits = self.batch.header.delete_horizon_ms().is_none_or(|horizon| self.now_ms < horizon);
        record.has_value || waits && !planted::bug("tombstone-dropped-at-once")
    }

    fn count(&self, inflated: &[u8]) -> Result<Counts, CompactionError> {
        let mut counts = Counts { max_timestamp: -1, min_timestamp: i64::MAX, ..Counts::default() };
        for record in self.batch.records(inflated) {
            let record = record?;
            if !self.keeps(&record) {
                counts.dropped += 1;
                continue;
            }
            counts.kept += 1;
            counts.tombstones += u32::from(!record.has_value);
            counts.max_timestamp = counts.max_timestamp.max(record.timestamp);
            counts.min_timestamp = counts.min_timestamp.min(record.timestamp);
        }
        Ok(counts)
    }

    /// The batch with what is kept and, if it gets one, its horizon.
    fn rewrite(
        &self,
        inflated: &[u8],
        counts: &Counts,
        horizon: Option<i64>,
        levels: Levels,
    ) -> Result<Rewritten, CompactionError> {
        let mut header = self.batch.header;
        header.record_count = counts.kept as i32;
        if !header.is_log_append_time() {
            header.max_timestamp = counts.max_timestamp;
        }
        if let Some(horizon) = horizon {
            header.attributes |= DELETE_HORIZON;
            header.base_timestamp = horizon;
        }
        let max = inflated.len() + counts.kept as usize * REWRITTEN_GROWTH_BYTES;
        // No codec makes anything larger by more than a fraction.
        let max = BODY_HEADER_BYTES + max + max / 4 + 1024;
        let mut output = Compressor::new(self.batch.codec, levels, vec![0; BODY_HEADER_BYTES], max, None)?;
        let mut scratch = Vec::new();
        for record in self.batch.records(inflated) {
            let record = record?;
            if !self.keeps(&record) {
                continue;
            }
            match horizon {
                None => output.write(record.bytes)?,
                Some(horizon) => {
                    scratch.clear();
                    put_relative(&record, horizon, &mut scratch);
                    output.write(&scratch)?;
                    output.write(record.tail)?;
                }
            }
        }
        Ok(sealed(header, output.finish()?, header.max_timestamp))
    }
}

/// What stands in front of a record's tail: length, attributes, and the timestamp relative to another one.
fn put_relative(record: &RawRecord<'_>, base_timestamp: i64, out: &mut Vec<u8>) {
    let mut fields = vec![record.attributes];
    put_varint(&mut fields, record.timestamp.wrapping_sub(base_timestamp));
    put_varint(out, (fields.len() + record.tail.len()) as i64);
    out.extend(fields);
}

/// As Kafka writes them: uncompressed, without a base timestamp; the highest one stays.
fn empty(mut header: BatchHeader) -> Rewritten {
    header.attributes &= !(CODEC_MASK | DELETE_HORIZON);
    header.base_timestamp = -1;
    header.record_count = 0;
    sealed(header, vec![0; BODY_HEADER_BYTES], -1)
}

fn sealed(header: BatchHeader, body: Vec<u8>, max_timestamp: i64) -> Rewritten {
    let (header, head, body) = seal(header, body);
    let idempotent = header.is_idempotent();
    let meta = EntryMeta {
        base_offset: header.base_offset,
        last_offset: header.base_offset + i64::from(header.last_offset_delta),
        max_timestamp,
        leader_epoch: header.leader_epoch,
        producer_id: header.producer_id,
        producer_epoch: if idempotent { header.producer_epoch } else { -1 },
        base_sequence: if idempotent { header.base_sequence } else { -1 },
        attributes: header.attributes,
    };
    Rewritten { bytes: [&head[..], &body[..]].concat().into(), meta, body_crc: header.crc }
}

#[cfg(test)]
mod tests;
