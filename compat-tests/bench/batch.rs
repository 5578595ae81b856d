//! Record batches as a producer without idempotence sends them, valid to the last check of the broker.

/// Header of a record batch, magic 2.
pub const HEADER_BYTES: usize = 61;
/// The CRC covers what follows it.
const CRC_POSITION: usize = 17;
const COVERED_POSITION: usize = 21;

#[derive(Debug, Clone)]
pub struct Batch {
    pub bytes: Vec<u8>,
    pub records: usize,
}

impl Batch {
    /// As many records of `record_bytes` as fit into `batch_bytes`, one at least: how Java's producer fills a batch.
    pub fn filled(record_bytes: usize, batch_bytes: usize, timestamp_ms: i64) -> Self {
        let mut one = Vec::new();
        // Later records are a byte or two longer than the first: their offset is.
        push_record(&mut one, 1 << 12, &vec![0; record_bytes]);
        let records = (batch_bytes.saturating_sub(HEADER_BYTES) / one.len()).max(1);
        Self::of(records, record_bytes, timestamp_ms)
    }

    pub fn of(records: usize, record_bytes: usize, timestamp_ms: i64) -> Self {
        let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
        let mut bytes = vec![0; HEADER_BYTES];
        let mut value = vec![0; record_bytes];
        for offset in 0..records {
            for byte in &mut value {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                *byte = noise as u8;
            }
            push_record(&mut bytes, offset as i64, &value);
        }
        let mut put = |position: usize, field: &[u8]| bytes[position..position + field.len()].copy_from_slice(field);
        let length = i32::to_be_bytes;
        put(12, &length(-1)); // partition leader epoch
        put(16, &[2]); // magic
        put(23, &length(records as i32 - 1)); // last offset delta
        put(27, &timestamp_ms.to_be_bytes());
        put(35, &timestamp_ms.to_be_bytes());
        put(43, &(-1_i64).to_be_bytes()); // producer id
        put(51, &(-1_i16).to_be_bytes()); // producer epoch
        put(53, &length(-1)); // base sequence
        put(57, &length(records as i32));
        let (size, crc) = (bytes.len(), crc32c::crc32c(&bytes[COVERED_POSITION..]));
        bytes[8..12].copy_from_slice(&length(size as i32 - 12));
        bytes[CRC_POSITION..COVERED_POSITION].copy_from_slice(&crc.to_be_bytes());
        Self { bytes, records }
    }
}

/// What a reader needs of one batch in a Fetch response.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub base_offset: i64,
    pub last_offset: i64,
    pub records: usize,
    /// Bytes that the batch takes in all.
    pub length: usize,
}

/// The batch at the front of `bytes`; none if it is not there as a whole (a response may cut its last one).
pub fn first(bytes: &[u8]) -> Option<Seen> {
    let i32_at = |position: usize| Some(i32::from_be_bytes(*bytes.get(position..)?.first_chunk()?));
    let base_offset = i64::from_be_bytes(*bytes.first_chunk()?);
    let length = i32_at(8)? as usize + 12;
    let last_offset = base_offset + i64::from(i32_at(23)?);
    let records = i32_at(57)? as usize;
    (bytes.len() >= length).then_some(Seen { base_offset, last_offset, records, length })
}

fn push_record(bytes: &mut Vec<u8>, offset_delta: i64, value: &[u8]) {
    let mut body = vec![0]; // attributes
    varint(&mut body, 0); // timestamp delta
    varint(&mut body, offset_delta);
    varint(&mut body, -1); // no key
    varint(&mut body, value.len() as i64);
    body.extend_from_slice(value);
    varint(&mut body, 0); // no headers
    varint(bytes, body.len() as i64);
    bytes.extend_from_slice(&body);
}

/// Zigzag, then seven bits at a time, lowest first.
fn varint(bytes: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

#[cfg(test)]
mod tests;
