//! The bytes of a base or a change.
//!
//! ```text
//!   header     magic 8, version 2, kind 1 (1 base, 2 change), reserved 1, log 8, number 8, writer 16, body length 8,
//!              CRC32C of the body 4, CRC32C of the header up to here 4
//!   body       position: log 8, segment 4, fragment 8; number of parts 4; parts
//!   part       topic 16, partition 4, flags 1 (1 gone, 2 has producers), log start 8, cleaned to 8, number of stretches 4,
//!              stretches, if it has producers: their length 4 and bytes
//!   stretch    from 8, to 8, number of runs 4, runs
//!   run        log 8, segment 4, fragment 8, base_offset 8, next_offset 8, max_timestamp 8, leader_epoch 4,
//!              file_position 8, position 8, length 4, index_position 8, index_length 4
//! ```
//!
//! All numbers are big-endian. The decoder is total.

use bytes::{Buf, BufMut, Bytes, TryGetError};
use meta::seams::Incarnation;
use meta::settled::Identity;
use uuid::Uuid;

use super::{Change, Part, Stretch};
use crate::entry::{FragmentId, Run, TopicPartition};
use crate::fragment::DecodeError;

const MAGIC: [u8; 8] = *b"WPmani\r\n";
/// The format that this binary writes, and the newest that it reads.
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 60;
const RUN_BYTES: usize = 80;
const SMALLEST_PART_BYTES: usize = 41;
const SMALLEST_STRETCH_BYTES: usize = 20;

const GONE: u8 = 1;
const HAS_PRODUCERS: u8 = 2;

/// A part of the manifest whose bytes are fixed.
#[derive(Debug)]
pub struct Encoded {
    pub bytes: Bytes,
    pub identity: Identity,
}

/// Encodes what the writer of this log puts under this number.
pub fn encode(change: &Change, base: bool, log: u64, number: u64, writer: Incarnation) -> Encoded {
    let mut body = Vec::new();
    put_position(&mut body, change.position);
    put_count(&mut body, change.parts.len());
    change.parts.iter().for_each(|part| put_part(&mut body, part));
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.put_slice(&MAGIC);
    bytes.put_u16(VERSION);
    bytes.put_u8(if base { 1 } else { 2 });
    bytes.put_u8(0);
    bytes.put_u64(log);
    bytes.put_u64(number);
    bytes.put_u128(writer.0);
    bytes.put_u64(body.len() as u64);
    bytes.put_u32(crc32c::crc32c(&body));
    let crc = crc32c::crc32c(&bytes);
    bytes.put_u32(crc);
    bytes.extend_from_slice(&body);
    let bytes = Bytes::from(bytes);
    let identity = Identity { range: 0..HEADER_BYTES as u64, bytes: bytes.slice(..HEADER_BYTES) };
    Encoded { bytes, identity }
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.put_u32(u32::try_from(count).expect("what fits into memory many times over is counted in 32 bits"));
}

fn put_position(out: &mut Vec<u8>, id: FragmentId) {
    out.put_u64(id.log);
    out.put_u32(id.segment);
    out.put_u64(id.fragment);
}

fn put_part(out: &mut Vec<u8>, part: &Part) {
    out.put_u128(part.partition.topic.as_u128());
    out.put_i32(part.partition.partition);
    let gone = if part.gone { GONE } else { 0 };
    out.put_u8(gone | if part.producers.is_some() { HAS_PRODUCERS } else { 0 });
    out.put_i64(part.log_start);
    out.put_i64(part.cleaned_to);
    put_count(out, part.stretches.len());
    for stretch in &part.stretches {
        out.put_i64(stretch.from);
        out.put_i64(stretch.to);
        put_count(out, stretch.runs.len());
        stretch.runs.iter().for_each(|run| put_run(out, run));
    }
    if let Some(producers) = &part.producers {
        put_count(out, producers.len());
        out.put_slice(producers);
    }
}

fn put_run(out: &mut Vec<u8>, run: &Run) {
    put_position(out, run.fragment);
    out.put_i64(run.base_offset);
    out.put_i64(run.next_offset);
    out.put_i64(run.max_timestamp);
    out.put_i32(run.leader_epoch);
    out.put_u64(run.file_position);
    out.put_u64(run.position);
    out.put_u32(run.length);
    out.put_u64(run.index_position);
    out.put_u32(run.index_length);
}

/// Decodes what was written under this number. True if it is a base.
pub fn decode(bytes: &[u8], log: u64, number: u64) -> Result<(Change, bool), DecodeError> {
    let Some((mut header, body)) = bytes.split_at_checked(HEADER_BYTES) else {
        return Err(DecodeError::Damaged("it is shorter than a header"));
    };
    if header[..MAGIC.len()] != MAGIC {
        return Err(DecodeError::Damaged("it does not begin with a manifest's magic bytes"));
    }
    let crc = crc32c::crc32c(&header[..HEADER_BYTES - 4]);
    header.advance(MAGIC.len());
    let version = header.get_u16();
    let kind = header.get_u8();
    header.advance(1);
    let place = (header.get_u64(), header.get_u64());
    header.advance(16);
    let (length, body_crc) = (header.get_u64(), header.get_u32());
    if header.get_u32() != crc {
        return Err(DecodeError::Damaged("its header's checksum does not match"));
    }
    if version > VERSION {
        return Err(DecodeError::FutureVersion { found: version });
    }
    if place != (log, number) || !matches!(kind, 1 | 2) {
        return Err(DecodeError::Damaged("it is another part of a manifest than its name says"));
    }
    if body.len() as u64 != length || crc32c::crc32c(body) != body_crc {
        return Err(DecodeError::Damaged("its checksum does not match"));
    }
    let mut rest = body;
    let change = change(&mut rest).map_err(|_| DecodeError::Damaged("it ends too early"))?;
    if !rest.is_empty() {
        return Err(DecodeError::Damaged("something follows its end"));
    }
    Ok((change, kind == 1))
}

fn change(bytes: &mut &[u8]) -> Result<Change, TryGetError> {
    let position = position(bytes)?;
    let parts = many(bytes, SMALLEST_PART_BYTES, part)?;
    Ok(Change { position, parts })
}

/// Counted things. Never reserves more than the bytes that are left can hold.
fn many<T>(
    bytes: &mut &[u8],
    smallest_bytes: usize,
    one: impl Fn(&mut &[u8]) -> Result<T, TryGetError>,
) -> Result<Vec<T>, TryGetError> {
    let count = bytes.try_get_u32()? as usize;
    let mut all = Vec::with_capacity(count.min(bytes.len() / smallest_bytes));
    for _ in 0..count {
        all.push(one(bytes)?);
    }
    Ok(all)
}

fn position(bytes: &mut &[u8]) -> Result<FragmentId, TryGetError> {
    Ok(FragmentId { log: bytes.try_get_u64()?, segment: bytes.try_get_u32()?, fragment: bytes.try_get_u64()? })
}

fn part(bytes: &mut &[u8]) -> Result<Part, TryGetError> {
    let topic = Uuid::from_u128(bytes.try_get_u128()?);
    let partition = TopicPartition { topic, partition: bytes.try_get_i32()? };
    let flags = bytes.try_get_u8()?;
    let (log_start, cleaned_to) = (bytes.try_get_i64()?, bytes.try_get_i64()?);
    let stretches = many(bytes, SMALLEST_STRETCH_BYTES, stretch)?;
    let producers = if flags & HAS_PRODUCERS == 0 { None } else { Some(blob(bytes)?) };
    Ok(Part { partition, gone: flags & GONE != 0, log_start, cleaned_to, stretches, producers })
}

fn blob(bytes: &mut &[u8]) -> Result<Bytes, TryGetError> {
    let length = bytes.try_get_u32()? as usize;
    let available = bytes.len();
    let (blob, rest) = bytes.split_at_checked(length).ok_or(TryGetError { requested: length, available })?;
    *bytes = rest;
    Ok(Bytes::copy_from_slice(blob))
}

fn stretch(bytes: &mut &[u8]) -> Result<Stretch, TryGetError> {
    Ok(Stretch { from: bytes.try_get_i64()?, to: bytes.try_get_i64()?, runs: many(bytes, RUN_BYTES, run)? })
}

fn run(bytes: &mut &[u8]) -> Result<Run, TryGetError> {
    Ok(Run {
        fragment: position(bytes)?,
        base_offset: bytes.try_get_i64()?,
        next_offset: bytes.try_get_i64()?,
        max_timestamp: bytes.try_get_i64()?,
        leader_epoch: bytes.try_get_i32()?,
        file_position: bytes.try_get_u64()?,
        position: bytes.try_get_u64()?,
        length: bytes.try_get_u32()?,
        index_position: bytes.try_get_u64()?,
        index_length: bytes.try_get_u32()?,
    })
}
