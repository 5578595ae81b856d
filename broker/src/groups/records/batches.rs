//! Record batches (magic 2) of group records: built as the coordinator appends them, and read as the log returns them.
//!
//! The coordinator is the only one who writes to `__consumer_offsets`, and it does not compress; a batch that is
//! compressed or whose bytes do not fit is an error, never skipped.

use bytes::{BufMut, Bytes, BytesMut};
use storage::entry::HEAD_BYTES;

use super::{Change, KeyValue, RecordError, decode};
use crate::batch::{BatchHeader, Codec, HEADER_BYTES};

/// Bytes in front of what a batch's length field counts.
const LENGTH_OVERHEAD: usize = 12;

const MAGIC: i8 = 2;

/// One batch of these records, at least one, with offsets from 0 on: ready for `batch::validate`, which also bounds
/// its size, and `Partition::append`.
pub fn batch(records: &[KeyValue], timestamp_ms: i64) -> Bytes {
    debug_assert!(!records.is_empty(), "a batch holds at least one record");
    let mut body = BytesMut::new();
    for (offset_delta, record) in records.iter().enumerate() {
        put_record(&mut body, offset_delta as i64, record);
    }
    let count = records.len() as i32;
    let mut batch = BytesMut::with_capacity(HEADER_BYTES + body.len());
    batch.put_i64(0);
    batch.put_i32((HEADER_BYTES - LENGTH_OVERHEAD + body.len()) as i32);
    batch.put_i32(-1);
    batch.put_i8(MAGIC);
    batch.put_u32(0);
    batch.put_i16(0);
    batch.put_i32(count - 1);
    batch.put_i64(timestamp_ms);
    batch.put_i64(timestamp_ms);
    batch.put_i64(-1);
    batch.put_i16(-1);
    batch.put_i32(-1);
    batch.put_i32(count);
    batch.put_slice(&body);
    let crc = crc32c::crc32c(&batch[HEAD_BYTES..]);
    batch[17..HEAD_BYTES].copy_from_slice(&crc.to_be_bytes());
    batch.freeze()
}

/// Attributes, timestamp delta, offset delta, key, value, no headers; its length in front.
fn put_record(out: &mut BytesMut, offset_delta: i64, record: &KeyValue) {
    let mut fields = BytesMut::with_capacity(record.key.len() + record.value.as_ref().map_or(0, Bytes::len) + 16);
    fields.put_i8(0);
    put_varint(&mut fields, 0);
    put_varint(&mut fields, offset_delta);
    put_varint(&mut fields, record.key.len() as i64);
    fields.put_slice(&record.key);
    match &record.value {
        Some(value) => {
            put_varint(&mut fields, value.len() as i64);
            fields.put_slice(value);
        }
        None => put_varint(&mut fields, -1),
    }
    put_varint(&mut fields, 0);
    put_varint(out, fields.len() as i64);
    out.put_slice(&fields);
}

fn put_varint(out: &mut BytesMut, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        out.put_u8(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.put_u8(zigzag as u8);
}

/// Calls `each` with the offset and the content of every record in `bytes`, in order. `bytes` are whole batches, as
/// read from the log; pieces have to be joined first. Control batches are skipped.
pub fn read(bytes: &[u8], mut each: impl FnMut(i64, Change) -> Result<(), RecordError>) -> Result<(), RecordError> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let header = BatchHeader::parse(rest).ok_or(RecordError::Batch { why: "is cut off" })?;
        let length = usize::try_from(header.length).ok().and_then(|length| length.checked_add(LENGTH_OVERHEAD));
        let (batch, behind) = length
            .filter(|length| *length >= HEADER_BYTES)
            .and_then(|length| rest.split_at_checked(length))
            .ok_or(RecordError::Batch { why: "is cut off" })?;
        read_batch(&header, batch, &mut each)?;
        rest = behind;
    }
    Ok(())
}

fn read_batch(
    header: &BatchHeader,
    batch: &[u8],
    each: &mut impl FnMut(i64, Change) -> Result<(), RecordError>,
) -> Result<(), RecordError> {
    if header.magic != MAGIC {
        return Err(RecordError::Batch { why: "has another format" });
    }
    if crc32c::crc32c(&batch[HEAD_BYTES..]) != header.crc {
        return Err(RecordError::Batch { why: "has a wrong checksum" });
    }
    if header.is_control() {
        return Ok(());
    }
    if header.codec() != Some(Codec::None) {
        return Err(RecordError::Batch { why: "is compressed" });
    }
    let mut records = Records { rest: &batch[HEADER_BYTES..] };
    for _ in 0..header.record_count {
        let record = records.next().ok_or(RecordError::Batch { why: "has a malformed record" })?;
        let offset = header.base_offset.checked_add(record.offset_delta);
        let offset = offset.ok_or(RecordError::Batch { why: "has impossible offsets" })?;
        let key = record.key.ok_or(RecordError::Malformed { what: "a record without a key" })?;
        each(offset, decode(key, record.value)?)?;
    }
    Ok(())
}

struct Record<'a> {
    offset_delta: i64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
}

/// The records of an uncompressed batch.
struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    /// None: malformed.
    fn next(&mut self) -> Option<Record<'a>> {
        let length = usize::try_from(self.varint()?).ok()?;
        let (record, behind) = self.rest.split_at_checked(length)?;
        self.rest = behind;
        let mut fields = Records { rest: record.get(1..)? };
        fields.varint()?;
        let offset_delta = fields.varint()?;
        let (key, value) = (fields.bytes()?, fields.bytes()?);
        // Headers may follow; they say nothing here.
        (offset_delta >= 0).then_some(Record { offset_delta, key, value })
    }

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
        match self.varint()? {
            -1 => Some(None),
            length => {
                let (bytes, behind) = self.rest.split_at_checked(usize::try_from(length).ok()?)?;
                self.rest = behind;
                Some(Some(bytes))
            }
        }
    }
}
