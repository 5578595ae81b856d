//! The header of a record batch (magic 2, KIP-98), and what a batch from a producer has to satisfy before it gets
//! offsets.
//!
//! ```text
//!    0 base offset      i64 | 8 length i32 | 12 leader epoch i32 | 16 magic i8 | 17 crc u32   = head, not under the CRC
//!   21 attributes       i16 | 23 last offset delta i32 | 27 base timestamp i64 | 35 max timestamp i64
//!   43 producer id      i64 | 51 producer epoch i16 | 53 base sequence i32 | 57 record count i32 | 61 records
//! ```
//!
//! Invariants: parsing is total (any bytes, no panic, no allocation); a `ValidBatch` is exactly one batch whose CRC was
//! computed here, so that nothing behind it has to look at the records.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use meta::planted;
use storage::entry::EntryMeta;

pub use storage::entry::HEAD_BYTES;

use crate::compression::CompressError;
use crate::records::{self, RecordTime, Records, RecordsError};

pub use crate::compression::Codec;

pub mod seal;

/// What the topic's configuration demands.
mod policy;
/// The same records with another codec.
mod recompress;

#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;

pub use self::policy::{Policy, at_append_time, check_policy};
pub use self::recompress::{Recompressed, Recompression};

/// Length of a batch's header.
pub const HEADER_BYTES: usize = 61;

/// Bytes in front of what the length field counts: base offset and the field itself.
pub const LENGTH_OVERHEAD: usize = 12;

/// The smallest record: length, attributes, timestamp delta, offset delta, two lengths and a header count of one byte
/// each.
const MIN_RECORD_BYTES: usize = 7;

const MAGIC: i8 = 2;
pub const CODEC_MASK: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
/// The base timestamp is the time from which on the batch's tombstones can go (KIP-534).
pub const DELETE_HORIZON: i16 = 0x40;
/// Every attribute that a producer may set today.
const KNOWN_ATTRIBUTES: i16 = CODEC_MASK | LOG_APPEND_TIME | TRANSACTIONAL | CONTROL;

/// The fields of a batch's header, as they stand there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: i64,
    /// Of what follows this field.
    pub length: i32,
    pub leader_epoch: i32,
    pub magic: i8,
    /// CRC32C of everything behind it.
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: i32,
}

impl BatchHeader {
    /// None if there are fewer bytes than a header has. Fields are not judged.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let int = |at: usize| word(at) as i32;
        let long = |at: usize| (i64::from(int(at)) << 32) | i64::from(word(at + 4));
        let short = |at: usize| i16::from_be_bytes([header[at], header[at + 1]]);
        Some(Self {
            base_offset: long(0),
            length: int(8),
            leader_epoch: int(12),
            magic: header[16] as i8,
            crc: word(17),
            attributes: short(21),
            last_offset_delta: int(23),
            base_timestamp: long(27),
            max_timestamp: long(35),
            producer_id: long(43),
            producer_epoch: short(51),
            base_sequence: int(53),
            record_count: int(57),
        })
    }

    /// The header of a batch in two pieces.
    pub fn parse_parts(head: &[u8; HEAD_BYTES], body: &[u8]) -> Option<Self> {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..HEAD_BYTES].copy_from_slice(head);
        bytes[HEAD_BYTES..].copy_from_slice(body.get(..HEADER_BYTES - HEAD_BYTES)?);
        Self::parse(&bytes)
    }

    /// None for a codec that does not exist.
    pub fn codec(&self) -> Option<Codec> {
        Codec::from_id(self.attributes & CODEC_MASK)
    }

    /// Timestamps are the broker's: every record has the batch's max timestamp.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// From when on the tombstones of the batch can go, if it has been compacted with any.
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON != 0).then_some(self.base_timestamp)
    }

    pub fn is_idempotent(&self) -> bool {
        self.producer_id >= 0
    }
}

/// Why a batch is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("{actual} bytes are more than the {max} allowed")]
    TooLarge { actual: usize, max: usize },
    #[error("{actual} bytes are no record batch")]
    Truncated { actual: usize },
    #[error("message format {magic} is not supported")]
    Magic { magic: i8 },
    #[error("the batch claims to be {claimed} bytes long, its field has {actual}")]
    Length { claimed: i64, actual: usize },
    #[error("the checksum is {claimed:08x}, that of the bytes {actual:08x}")]
    Crc { claimed: u32, actual: u32 },
    #[error("codec {codec} is not supported here")]
    Codec { codec: i16 },
    #[error("a producer cannot set the timestamp type to log append time")]
    TimestampType,
    #[error("timestamp {timestamp} is out of range: the broker's clock is at {now}")]
    TimestampRange { timestamp: i64, now: i64 },
    #[error("records without a key, which a compacted topic needs")]
    Keyless { records: Vec<i32> },
    #[error("{0}")]
    Invalid(&'static str),
    #[error("the records cannot be read: {0}")]
    Records(#[from] RecordsError),
    #[error("the records cannot be compressed as the topic wants it: {0}")]
    Compress(#[from] CompressError),
}

impl BatchError {
    /// Which records are wrong, from 0, if not the whole batch is.
    pub fn records(&self) -> &[i32] {
        match self {
            BatchError::Keyless { records } => records,
            _ => &[],
        }
    }

    /// What the producer is told.
    pub fn code(&self) -> ResponseError {
        match self {
            // A producer splits such a batch and tries again.
            BatchError::TooLarge { .. }
            | BatchError::Records(RecordsError::TooLong)
            | BatchError::Compress(CompressError::TooLarge { .. }) => ResponseError::MessageTooLarge,
            BatchError::Compress(CompressError::Failed(_)) => ResponseError::UnknownServerError,
            BatchError::Truncated { .. } | BatchError::Crc { .. } | BatchError::Records(_) => {
                ResponseError::CorruptMessage
            }
            BatchError::Magic { .. } => ResponseError::UnsupportedForMessageFormat,
            BatchError::Codec { .. } => ResponseError::UnsupportedCompressionType,
            BatchError::TimestampType | BatchError::TimestampRange { .. } => ResponseError::InvalidTimestamp,
            BatchError::Length { .. } | BatchError::Invalid(_) | BatchError::Keyless { .. } => {
                ResponseError::InvalidRecord
            }
        }
    }
}

/// What is allowed in this request.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest batch, header included.
    pub max_bytes: usize,
    /// zstd came with Produce 7 (KIP-110).
    pub zstd: bool,
}

/// One record batch that may be appended. Its offsets are not assigned yet.
#[derive(Debug, Clone)]
pub struct ValidBatch {
    pub header: BatchHeader,
    /// The highest timestamp of the records, also where the producer left the header's unset. -1 if there is none.
    pub max_timestamp: i64,
    head: [u8; HEAD_BYTES],
    /// Everything behind the head; its CRC32C is `header.crc`.
    pub body: Bytes,
}

/// Checks what a producer sent for one partition: it must be exactly one batch that can be stored as it is.
pub fn validate(bytes: Bytes, limits: Limits) -> Result<ValidBatch, BatchError> {
    if bytes.len() > limits.max_bytes {
        return Err(BatchError::TooLarge { actual: bytes.len(), max: limits.max_bytes });
    }
    // The magic byte stands at the same place in every format.
    match bytes.get(16) {
        None => return Err(BatchError::Truncated { actual: bytes.len() }),
        Some(&magic) if magic as i8 != MAGIC => return Err(BatchError::Magic { magic: magic as i8 }),
        Some(_) => {}
    }
    let header = BatchHeader::parse(&bytes).ok_or(BatchError::Truncated { actual: bytes.len() })?;
    let claimed = i64::from(header.length) + LENGTH_OVERHEAD as i64;
    if claimed != bytes.len() as i64 {
        return Err(BatchError::Length { claimed, actual: bytes.len() });
    }
    let actual = crc32c::crc32c(&bytes[HEAD_BYTES..]);
    if actual != header.crc && !planted::bug("produce-crc-unchecked") {
        return Err(BatchError::Crc { claimed: header.crc, actual });
    }
    check_fields(&header, bytes.len(), limits)?;
    let max_timestamp = stated_or_real_max_timestamp(&header, &bytes[HEADER_BYTES..])?;
    let mut head = [0; HEAD_BYTES];
    head.copy_from_slice(&bytes[..HEAD_BYTES]);
    Ok(ValidBatch { header, max_timestamp, head, body: bytes.slice(HEAD_BYTES..) })
}

fn check_fields(header: &BatchHeader, total_bytes: usize, limits: Limits) -> Result<(), BatchError> {
    let codec = match header.codec() {
        None => return Err(BatchError::Codec { codec: header.attributes & CODEC_MASK }),
        Some(Codec::Zstd) if !limits.zstd => return Err(BatchError::Codec { codec: 4 }),
        Some(codec) => codec,
    };
    if header.attributes & !KNOWN_ATTRIBUTES != 0 {
        return Err(BatchError::Invalid("the batch has attributes that do not exist"));
    }
    if header.is_control() {
        return Err(BatchError::Invalid("control batches are not written by clients"));
    }
    if header.is_transactional() {
        return Err(BatchError::Invalid("transactions are not supported"));
    }
    if header.is_log_append_time() {
        return Err(BatchError::TimestampType);
    }
    if header.record_count < 1 || i64::from(header.last_offset_delta) + 1 != i64::from(header.record_count) {
        return Err(BatchError::Invalid("record count and last offset delta do not agree"));
    }
    let room = (total_bytes - HEADER_BYTES) / MIN_RECORD_BYTES;
    if codec == Codec::None && header.record_count as usize > room {
        return Err(BatchError::Invalid("there are more records than bytes for them"));
    }
    match header.producer_id {
        -1 => Ok(()),
        0.. if header.producer_epoch >= 0 && header.base_sequence >= 0 => Ok(()),
        _ => Err(BatchError::Invalid("producer id, epoch and sequence do not agree")),
    }
}

/// Some producers leave the batch's maximum unset although its records have timestamps (Sarama): only then are the
/// records looked at. The header is left as it is, consumers use the records' own timestamps.
fn stated_or_real_max_timestamp(header: &BatchHeader, records: &[u8]) -> Result<i64, BatchError> {
    if header.max_timestamp >= header.base_timestamp || header.base_timestamp < 0 {
        return Ok(header.max_timestamp.max(-1));
    }
    Ok(max_timestamp(header, records, i64::MIN)?.map_or(-1, |record| record.timestamp))
}

/// The first record at or behind an offset with at least this timestamp. `records` is what follows the header.
pub fn first_at_or_after(
    header: &BatchHeader,
    records: &[u8],
    from_offset: i64,
    timestamp: i64,
) -> Result<Option<RecordTime>, RecordsError> {
    if header.is_log_append_time() && header.record_count > 0 {
        return Ok(first_of_append_time(header, from_offset).filter(|first| first.timestamp >= timestamp));
    }
    records::first_at_or_after(records_of(header, records)?, from_offset, timestamp)
}

/// Of the records at or behind an offset, the first with their highest timestamp. `records` is what follows the header.
pub fn max_timestamp(
    header: &BatchHeader,
    records: &[u8],
    from_offset: i64,
) -> Result<Option<RecordTime>, RecordsError> {
    if header.is_log_append_time() && header.record_count > 0 {
        return Ok(first_of_append_time(header, from_offset));
    }
    records::max_timestamp(records_of(header, records)?, from_offset)
}

/// All records of such a batch have the same timestamp.
fn first_of_append_time(header: &BatchHeader, from_offset: i64) -> Option<RecordTime> {
    let offset = header.base_offset.max(from_offset);
    let last_offset = header.base_offset + i64::from(header.last_offset_delta);
    (offset <= last_offset).then_some(RecordTime { offset, timestamp: header.max_timestamp })
}

fn records_of<'a>(header: &BatchHeader, bytes: &'a [u8]) -> Result<Records<'a>, RecordsError> {
    let codec = header.codec().ok_or_else(|| RecordsError::Decompress("the codec does not exist".to_owned()))?;
    Ok(Records {
        codec,
        base_offset: header.base_offset,
        base_timestamp: header.base_timestamp,
        count: header.record_count,
        last_offset_delta: header.last_offset_delta,
        bytes,
    })
}

impl ValidBatch {
    /// Length of the whole batch.
    pub fn len(&self) -> usize {
        HEAD_BYTES + self.body.len()
    }

    pub fn is_empty(&self) -> bool {
        false
    }

    /// The batch's numbers for the index, with its offsets assigned. None if offsets run out.
    pub fn meta(&self, base_offset: i64, leader_epoch: i32) -> Option<EntryMeta> {
        // Producers without idempotence set epoch and sequence to whatever they like; the index has -1 for all three.
        let idempotent = self.header.is_idempotent();
        Some(EntryMeta {
            base_offset,
            last_offset: base_offset.checked_add(i64::from(self.header.last_offset_delta))?,
            max_timestamp: self.max_timestamp,
            leader_epoch,
            producer_id: self.header.producer_id,
            producer_epoch: if idempotent { self.header.producer_epoch } else { -1 },
            base_sequence: if idempotent { self.header.base_sequence } else { -1 },
            attributes: self.header.attributes,
        })
    }

    /// The head with base offset and leader epoch as the broker assigns them.
    pub fn stamped_head(&self, base_offset: i64, leader_epoch: i32) -> [u8; HEAD_BYTES] {
        let mut head = self.head;
        stamp(&mut head, base_offset, leader_epoch);
        head
    }
}

/// Writes base offset and leader epoch into a batch's head, which the CRC does not cover.
pub fn stamp(head: &mut [u8; HEAD_BYTES], base_offset: i64, leader_epoch: i32) {
    head[..8].copy_from_slice(&base_offset.to_be_bytes());
    head[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
}
