//! A fragment's footer: the index of its entries, a part for each run, and the table of runs.
//!
//! ```text
//!   index part   entries (60 bytes each), CRC32C of them (4)
//!   entry        base_offset 8, last_offset 8, max_timestamp 8, producer_id 8, position 8, leader_epoch 4,
//!                base_sequence 4, length 4, checksum 4, producer_epoch 2, attributes 2
//!   run          topic 16, partition 4, leader_epoch 4, base_offset 8, next_offset 8, max_timestamp 8, position 8,
//!                index_position 8, length 4, index_length 4
//! ```
//!
//! Positions count from the fragment's first byte. Runs cover the data without gap or overlap, entries their run, and
//! index parts the footer up to the run table: so a footer that decodes describes every byte of its fragment.

use bytes::{Buf, BufMut};
use uuid::Uuid;

use super::{DecodeError, FragmentHeader, HEADER_BYTES};
use crate::entry::{EntryMeta, FragmentId, FragmentIndex, HEAD_BYTES, IndexedEntry, IndexedRun, Run, TopicPartition};

const ENTRY_BYTES: usize = 60;
const RUN_BYTES: usize = 72;
const CRC_BYTES: usize = 4;
const COUNT_BYTES: usize = 4;

/// Length of the index part of a run of so many entries.
pub(super) fn index_length(entries: usize) -> usize {
    entries * ENTRY_BYTES + CRC_BYTES
}

/// Number of a run's entries.
pub fn entries_of(run: &Run) -> usize {
    (run.index_length as usize).saturating_sub(CRC_BYTES) / ENTRY_BYTES
}

/// Length of a footer, without the trailer, of so many entries in so many runs.
pub(super) fn body_length(entries: usize, runs: usize) -> usize {
    entries * ENTRY_BYTES + runs * (CRC_BYTES + RUN_BYTES) + COUNT_BYTES
}

/// Appends a footer, without the trailer.
pub(super) fn encode_body(index: &FragmentIndex, out: &mut Vec<u8>) {
    for indexed in &index.runs {
        let begin = out.len();
        for entry in &indexed.entries {
            encode_entry(entry, out);
        }
        let crc = crc32c::crc32c(&out[begin..]);
        out.put_u32(crc);
        assert_eq!(out.len() - begin, indexed.run.index_length as usize, "an index part is as long as its run says");
    }
    for indexed in &index.runs {
        encode_run(indexed, out);
    }
    let runs = u32::try_from(index.runs.len()).expect("a fragment has fewer entries than a u32 can count");
    out.put_u32(runs);
}

fn encode_entry(entry: &IndexedEntry, out: &mut Vec<u8>) {
    out.put_i64(entry.meta.base_offset);
    out.put_i64(entry.meta.last_offset);
    out.put_i64(entry.meta.max_timestamp);
    out.put_i64(entry.meta.producer_id);
    out.put_u64(entry.position);
    out.put_i32(entry.meta.leader_epoch);
    out.put_i32(entry.meta.base_sequence);
    out.put_u32(entry.length);
    out.put_u32(entry.checksum);
    out.put_i16(entry.meta.producer_epoch);
    out.put_i16(entry.meta.attributes);
}

fn decode_entry(bytes: &mut &[u8]) -> IndexedEntry {
    let (base_offset, last_offset, max_timestamp, producer_id) =
        (bytes.get_i64(), bytes.get_i64(), bytes.get_i64(), bytes.get_i64());
    let position = bytes.get_u64();
    let (leader_epoch, base_sequence) = (bytes.get_i32(), bytes.get_i32());
    let (length, checksum) = (bytes.get_u32(), bytes.get_u32());
    let (producer_epoch, attributes) = (bytes.get_i16(), bytes.get_i16());
    let meta = EntryMeta {
        base_offset,
        last_offset,
        max_timestamp,
        leader_epoch,
        producer_id,
        producer_epoch,
        base_sequence,
        attributes,
    };
    IndexedEntry { meta, position, length, checksum }
}

fn encode_run(indexed: &IndexedRun, out: &mut Vec<u8>) {
    let run = &indexed.run;
    out.put_slice(indexed.partition.topic.as_bytes());
    out.put_i32(indexed.partition.partition);
    out.put_i32(run.leader_epoch);
    out.put_i64(run.base_offset);
    out.put_i64(run.next_offset);
    out.put_i64(run.max_timestamp);
    out.put_u64(run.position);
    out.put_u64(run.index_position);
    out.put_u32(run.length);
    out.put_u32(run.index_length);
}

fn decode_run(fragment: FragmentId, bytes: &mut &[u8]) -> (TopicPartition, Run) {
    let topic = Uuid::from_u128(bytes.get_u128());
    let partition = TopicPartition { topic, partition: bytes.get_i32() };
    let leader_epoch = bytes.get_i32();
    let (base_offset, next_offset, max_timestamp) = (bytes.get_i64(), bytes.get_i64(), bytes.get_i64());
    let (position, index_position) = (bytes.get_u64(), bytes.get_u64());
    let (length, index_length) = (bytes.get_u32(), bytes.get_u32());
    let run = Run {
        fragment,
        base_offset,
        next_offset,
        max_timestamp,
        leader_epoch,
        file_position: 0,
        position,
        length,
        index_position,
        index_length,
    };
    (partition, run)
}

/// Decodes a footer (`header.footer_length` bytes, with the trailer) of the fragment with this header.
pub fn decode_footer(header: &FragmentHeader, footer: &[u8]) -> Result<FragmentIndex, DecodeError> {
    if header.is_fence() {
        return Err(DecodeError::Damaged("it is a fence, not data"));
    }
    if footer.len() != header.footer_length as usize || footer.len() < HEADER_BYTES + COUNT_BYTES {
        return Err(DecodeError::Damaged("its footer is not as long as its header says"));
    }
    let (body, trailer) = footer.split_at(footer.len() - HEADER_BYTES);
    if FragmentHeader::decode(trailer)? != *header {
        return Err(DecodeError::Damaged("its header and its trailer differ"));
    }
    if crc32c::crc32c(body) != header.footer_crc {
        return Err(DecodeError::Damaged("its footer's checksum does not match"));
    }
    let (rest, mut count) = body.split_at(body.len() - COUNT_BYTES);
    let table_bytes = u64::from(count.get_u32()) * RUN_BYTES as u64;
    let parts_bytes = (rest.len() as u64)
        .checked_sub(table_bytes)
        .ok_or(DecodeError::Damaged("its footer counts more runs than it can hold"))?;
    // Lossless: it is no more than the length of a slice.
    let (parts, mut table) = rest.split_at(parts_bytes as usize);
    decode_runs(header, parts, &mut table)
}

fn decode_runs(header: &FragmentHeader, parts: &[u8], table: &mut &[u8]) -> Result<FragmentIndex, DecodeError> {
    let mut runs: Vec<IndexedRun> = Vec::with_capacity(table.len() / RUN_BYTES);
    let footer_position = header.footer_position();
    let mut position = HEADER_BYTES as u64;
    let mut index_position = footer_position;
    while !table.is_empty() {
        let (partition, run) = decode_run(header.id, table);
        if runs.last().is_some_and(|last| last.partition > partition) {
            return Err(DecodeError::Damaged("its runs are not in the order of their partitions"));
        }
        if run.position != position || run.index_position != index_position {
            return Err(DecodeError::Damaged("its runs leave gaps or overlap"));
        }
        position += u64::from(run.length);
        index_position += u64::from(run.index_length);
        // Both are sums of u32 within bounds that were checked one run earlier: no overflow.
        if position > footer_position || index_position - footer_position > parts.len() as u64 {
            return Err(DecodeError::Damaged("its runs reach beyond their fragment"));
        }
        let begin = (run.index_position - footer_position) as usize;
        let entries = decode_run_index(&run, &parts[begin..begin + run.index_length as usize])?;
        runs.push(IndexedRun { partition, run, entries });
    }
    if position != footer_position || index_position - footer_position != parts.len() as u64 {
        return Err(DecodeError::Damaged("its runs do not cover it"));
    }
    Ok(FragmentIndex { fragment: header.id, runs })
}

/// Decodes a run's part of the entry index: `run.index_length` bytes from `run.index_position` on.
pub fn decode_run_index(run: &Run, part: &[u8]) -> Result<Vec<IndexedEntry>, DecodeError> {
    if part.len() != run.index_length as usize || part.len() < index_length(1) {
        return Err(DecodeError::Damaged("a run's index is not as long as it should be"));
    }
    let (mut entries, mut crc) = part.split_at(part.len() - CRC_BYTES);
    if !entries.len().is_multiple_of(ENTRY_BYTES) {
        return Err(DecodeError::Damaged("a run's index is not made of whole entries"));
    }
    if crc32c::crc32c(entries) != crc.get_u32() {
        return Err(DecodeError::Damaged("the checksum of a run's index does not match"));
    }
    let mut decoded = Vec::with_capacity(entries.len() / ENTRY_BYTES);
    while !entries.is_empty() {
        decoded.push(decode_entry(&mut entries));
    }
    check_entries(run, &decoded)?;
    Ok(decoded)
}

/// Entries cover their run, in bytes and in offsets, without gap or overlap; in a tiered run offsets may have gaps, where
/// compaction took records away. Asserted by the encoder, too.
pub(super) fn check_entries(run: &Run, entries: &[IndexedEntry]) -> Result<(), DecodeError> {
    let mut position = run.position;
    let mut next_offset = run.base_offset;
    let mut max_timestamp = -1;
    let gaps = run.fragment.is_tiered();
    for entry in entries {
        if entry.position != position || (entry.length as usize) < HEAD_BYTES {
            return Err(DecodeError::Damaged("entries leave gaps or overlap"));
        }
        position = position.saturating_add(u64::from(entry.length));
        let meta = &entry.meta;
        let joins = meta.base_offset == next_offset || (gaps && meta.base_offset > next_offset);
        if !joins || meta.last_offset < meta.base_offset || meta.last_offset == i64::MAX {
            return Err(DecodeError::Damaged("the offsets of a run are not contiguous"));
        }
        next_offset = meta.last_offset + 1;
        if meta.leader_epoch != run.leader_epoch {
            return Err(DecodeError::Damaged("a run has more than one leader epoch"));
        }
        max_timestamp = max_timestamp.max(meta.max_timestamp);
    }
    let ends = next_offset == run.next_offset || (gaps && next_offset < run.next_offset);
    if position != run.position.saturating_add(u64::from(run.length)) || !ends {
        return Err(DecodeError::Damaged("entries do not cover their run"));
    }
    if max_timestamp != run.max_timestamp {
        return Err(DecodeError::Damaged("a run's timestamp is not that of its entries"));
    }
    Ok(())
}
