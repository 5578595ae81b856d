//! The client's side of Kafka's wire format: request frames by the kafka-protocol crate, record batches (magic 2) by
//! hand, so that the simulation checks every byte that a client relies on and can also build batches that are wrong.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

/// Bytes before the records of a batch.
const BATCH_HEADER_BYTES: usize = 61;
/// Bytes before the CRC's end: what it does not cover.
const CRC_COVERS_FROM: usize = 21;

/// A whole request, length first.
pub fn frame<R: Request>(correlation: i32, version: i16, request: &R) -> Result<Bytes, String> {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(StrBytes::from_static_str("sim")));
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    header.encode(&mut frame, R::header_version(version)).map_err(|error| error.to_string())?;
    request.encode(&mut frame, version).map_err(|error| error.to_string())?;
    let length = frame.len() as i32 - 4;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame.freeze())
}

/// The response in a frame's bytes (length already taken off).
pub fn response<R: Request>(version: i16, mut frame: Bytes) -> Result<R::Response, String> {
    ResponseHeader::decode(&mut frame, R::Response::header_version(version)).map_err(|error| error.to_string())?;
    let response = R::Response::decode(&mut frame, version).map_err(|error| error.to_string())?;
    if frame.has_remaining() { Err(format!("{} bytes left over", frame.len())) } else { Ok(response) }
}

/// Clocks of the simulation jump by years: records with times would be deleted for their age.
pub const NO_TIMESTAMP: i64 = -1;

/// What a client puts into a batch.
#[derive(Debug, Clone)]
pub struct BatchSpec<'a> {
    /// -1 without idempotence.
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub attributes: i16,
    pub timestamp_ms: i64,
    pub values: &'a [u64],
}

/// What a reader found in a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub base_offset: i64,
    /// Inclusive.
    pub last_offset: i64,
    pub leader_epoch: i32,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    /// The CRC as stored, already compared with the bytes.
    pub crc: u32,
    pub values: Vec<u64>,
}

pub fn encode_batch(spec: &BatchSpec<'_>) -> Bytes {
    let mut batch = BytesMut::new();
    let count = spec.values.len() as i32;
    batch.put_i64(0); // base offset
    batch.put_i32(0); // length, below
    batch.put_i32(-1); // leader epoch
    batch.put_i8(2); // magic
    batch.put_u32(0); // CRC, below
    batch.put_i16(spec.attributes);
    batch.put_i32(count - 1);
    batch.put_i64(spec.timestamp_ms);
    batch.put_i64(spec.timestamp_ms);
    batch.put_i64(spec.producer_id);
    batch.put_i16(spec.producer_epoch);
    batch.put_i32(spec.base_sequence);
    batch.put_i32(count);
    for (delta, value) in spec.values.iter().enumerate() {
        let mut record = BytesMut::new();
        record.put_i8(0);
        put_varint(&mut record, 0);
        put_varint(&mut record, delta as i64);
        put_varint(&mut record, -1); // no key
        let padding = padding(*value);
        put_varint(&mut record, 8 + padding as i64);
        record.put_u64(*value);
        record.put_bytes(*value as u8, padding);
        put_varint(&mut record, 0); // no headers
        put_varint(&mut batch, record.len() as i64);
        batch.extend_from_slice(&record);
    }
    let length = batch.len() as i32 - 12;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&batch[CRC_COVERS_FROM..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.freeze()
}

/// How much a record carries besides its value: some are long.
fn padding(value: u64) -> usize {
    if value.is_multiple_of(29) { 3000 } else { (value * 7 % 90) as usize }
}

/// Reads whole batches. Anything that a Kafka consumer would not accept is an error.
pub fn parse_batches(mut bytes: Bytes) -> Result<Vec<Batch>, String> {
    let mut batches = Vec::new();
    while !bytes.is_empty() {
        if bytes.len() < BATCH_HEADER_BYTES {
            return Err(format!("{} bytes are not a batch", bytes.len()));
        }
        let length = i32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        let whole = usize::try_from(length).map_err(|_| format!("batch length {length}"))? + 12;
        if whole < BATCH_HEADER_BYTES || whole > bytes.len() {
            return Err(format!("a batch of {whole} bytes in {}", bytes.len()));
        }
        batches.push(parse_batch(bytes.split_to(whole))?);
    }
    Ok(batches)
}

fn parse_batch(mut bytes: Bytes) -> Result<Batch, String> {
    let computed = crc32c::crc32c(&bytes[CRC_COVERS_FROM..]);
    let base_offset = bytes.get_i64();
    bytes.advance(4);
    let leader_epoch = bytes.get_i32();
    let magic = bytes.get_i8();
    let crc = bytes.get_u32();
    if magic != 2 || crc != computed {
        return Err(format!("integrity: magic {magic}, CRC {crc:08x} but {computed:08x} computed"));
    }
    bytes.advance(2);
    let last_offset = base_offset + i64::from(bytes.get_i32());
    bytes.advance(16);
    let (producer_id, producer_epoch, base_sequence) = (bytes.get_i64(), bytes.get_i16(), bytes.get_i32());
    let count = bytes.get_i32();
    let mut values = Vec::new();
    for delta in 0..count {
        values.push(parse_record(&mut bytes, i64::from(delta))?);
    }
    if bytes.has_remaining() || last_offset - base_offset != i64::from(count) - 1 {
        return Err(format!("{count} records do not fill offsets {base_offset} to {last_offset}"));
    }
    Ok(Batch { base_offset, last_offset, leader_epoch, producer_id, producer_epoch, base_sequence, crc, values })
}

fn parse_record(bytes: &mut Bytes, delta: i64) -> Result<u64, String> {
    let short = || "a record ends early".to_owned();
    let length = get_varint(bytes).and_then(|length| usize::try_from(length).ok()).ok_or_else(short)?;
    if length > bytes.len() {
        return Err(short());
    }
    let mut record = bytes.split_to(length);
    if record.is_empty() {
        return Err(short());
    }
    record.advance(1);
    let fields = (get_varint(&mut record), get_varint(&mut record), get_varint(&mut record), get_varint(&mut record));
    let (Some(_), Some(offset_delta), Some(key), Some(value_length)) = fields else { return Err(short()) };
    if offset_delta != delta || key != -1 || record.len() < 9 {
        return Err(format!("record {delta} says it is {offset_delta}, with a key of {key} bytes"));
    }
    let value = record.get_u64();
    let padding = padding(value);
    if value_length as usize != 8 + padding || record.len() != padding + 1 {
        return Err(format!("integrity: value {value} has {value_length} bytes, {} were left", record.len()));
    }
    if record[..padding].iter().any(|byte| *byte != value as u8) {
        return Err(format!("integrity: value {value} is padded with other bytes"));
    }
    Ok(value)
}

fn put_varint(buffer: &mut BytesMut, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        buffer.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    buffer.put_u8(rest as u8);
}

fn get_varint(buffer: &mut Bytes) -> Option<i64> {
    let mut raw = 0u64;
    for shift in (0..64).step_by(7) {
        if buffer.is_empty() {
            return None;
        }
        let byte = buffer.get_u8();
        raw |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((raw >> 1) as i64 ^ -((raw & 1) as i64));
        }
    }
    None
}

#[cfg(test)]
mod tests;
