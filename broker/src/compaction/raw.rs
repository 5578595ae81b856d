//! The records of one batch as bytes: where each begins and ends, its key, and whether it has a value.

use std::borrow::Cow;
use std::io::Read;

use crate::batch::{BatchHeader, Codec, HEAD_BYTES, HEADER_BYTES, LENGTH_OVERHEAD};
use crate::compression::{MAX_INFLATED_BYTES, inflate};
use crate::records::{RecordsError, decompress_error};

use super::CompactionError;

/// A whole batch whose checksum fits, and which compaction may change.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    pub header: BatchHeader,
    pub codec: Codec,
    pub bytes: &'a [u8],
}

/// One record. Timestamps wrap around, as they do in Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawRecord<'a> {
    /// All of it, its length in front.
    pub bytes: &'a [u8],
    pub attributes: u8,
    pub timestamp: i64,
    pub offset: i64,
    pub key: Option<&'a [u8]>,
    pub has_value: bool,
    /// What follows the timestamp.
    pub tail: &'a [u8],
}

impl<'a> Batch<'a> {
    /// `bytes` is exactly one batch, as stored.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, CompactionError> {
        let header = BatchHeader::parse(bytes).ok_or(CompactionError::Batch { why: "is cut off" })?;
        if i64::from(header.length) + LENGTH_OVERHEAD as i64 != bytes.len() as i64 {
            return Err(CompactionError::Batch { why: "has another length than it says" });
        }
        if header.magic != 2 {
            return Err(CompactionError::Batch { why: "has another format" });
        }
        if crc32c::crc32c(&bytes[HEAD_BYTES..]) != header.crc {
            return Err(CompactionError::Batch { why: "has a wrong checksum" });
        }
        if header.is_control() || header.is_transactional() {
            return Err(CompactionError::Transactional);
        }
        if header.record_count < 0 || header.last_offset_delta < 0 || header.base_offset < 0 {
            return Err(CompactionError::Batch { why: "has impossible offsets" });
        }
        // The offset behind the last one has to exist.
        header
            .base_offset
            .checked_add(i64::from(header.last_offset_delta) + 1)
            .ok_or(CompactionError::Batch { why: "has impossible offsets" })?;
        let codec = header.codec().ok_or(CompactionError::Batch { why: "has a codec that does not exist" })?;
        Ok(Self { header, codec, bytes })
    }

    pub fn last_offset(&self) -> i64 {
        self.header.base_offset + i64::from(self.header.last_offset_delta)
    }

    /// The uncompressed records.
    pub fn inflated(&self) -> Result<Cow<'a, [u8]>, CompactionError> {
        let records = &self.bytes[HEADER_BYTES..];
        if self.codec == Codec::None {
            return Ok(Cow::Borrowed(records));
        }
        let mut inflated = Vec::new();
        if self.header.record_count > 0 {
            let input = inflate(self.codec, records).map_err(|error| decompress_error(&error))?;
            let read = input.take(MAX_INFLATED_BYTES + 1).read_to_end(&mut inflated);
            read.map_err(|error| decompress_error(&error))?;
        }
        if inflated.len() as u64 > MAX_INFLATED_BYTES {
            return Err(RecordsError::TooLong.into());
        }
        Ok(Cow::Owned(inflated))
    }

    /// Its records, from its uncompressed bytes.
    pub fn records<'b>(&self, inflated: &'b [u8]) -> RawRecords<'b> {
        RawRecords { header: self.header, rest: inflated, index: 0 }
    }
}

/// Goes through the records; the first malformed one ends it.
pub struct RawRecords<'a> {
    header: BatchHeader,
    rest: &'a [u8],
    index: i32,
}

impl<'a> Iterator for RawRecords<'a> {
    type Item = Result<RawRecord<'a>, RecordsError>;

    fn next(&mut self) -> Option<Self::Item> {
        let index = self.index;
        if index >= self.header.record_count {
            return None;
        }
        self.index += 1;
        let record = self.parse();
        if record.is_none() {
            self.index = self.header.record_count;
        }
        Some(record.ok_or(RecordsError::Record { index }))
    }
}

impl<'a> RawRecords<'a> {
    fn parse(&mut self) -> Option<RawRecord<'a>> {
        let begin = self.rest;
        let mut fields = Fields { rest: begin };
        let length = usize::try_from(fields.varint()?).ok()?;
        let prefix = begin.len() - fields.rest.len();
        let (bytes, rest) = begin.split_at_checked(prefix.checked_add(length)?)?;
        let (attributes, body) = bytes[prefix..].split_first()?;
        let mut fields = Fields { rest: body };
        let timestamp_delta = fields.varint()?;
        let tail = fields.rest;
        let offset_delta = fields.varint()?;
        let key = fields.bytes()?;
        let has_value = fields.bytes()?.is_some();
        if !(0..=i64::from(self.header.last_offset_delta)).contains(&offset_delta) {
            return None;
        }
        self.rest = rest;
        let timestamp = match self.header.is_log_append_time() {
            true => self.header.max_timestamp,
            false => self.header.base_timestamp.wrapping_add(timestamp_delta),
        };
        let offset = self.header.base_offset.checked_add(offset_delta)?;
        Some(RawRecord { bytes, attributes: *attributes, timestamp, offset, key, has_value, tail })
    }
}

struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// A zigzag-encoded number of at most 64 bits.
    fn varint(&mut self) -> Option<i64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, behind) = self.rest.split_first()?;
            self.rest = behind;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        None
    }

    /// Some(None): null.
    fn bytes(&mut self) -> Option<Option<&'a [u8]>> {
        let length = self.varint()?;
        if length < 0 {
            return Some(None);
        }
        let (bytes, behind) = self.rest.split_at_checked(usize::try_from(length).ok()?)?;
        self.rest = behind;
        Some(Some(bytes))
    }
}

/// Zigzag-encoded.
pub fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        out.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}
