//! Builds record batches for tests, field by field and without any check.

use bytes::{BufMut, Bytes, BytesMut};

use super::{HEAD_BYTES, HEADER_BYTES};

/// What a batch is built from; the default is one of three uncompressed records without idempotence.
#[derive(Debug, Clone)]
pub struct BatchSpec {
    pub attributes: i16,
    pub base_timestamp: i64,
    pub max_timestamp: Option<i64>,
    /// Of each record, relative to the base timestamp.
    pub timestamp_deltas: Vec<i64>,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub value_bytes: usize,
}

impl Default for BatchSpec {
    fn default() -> Self {
        Self {
            attributes: 0,
            base_timestamp: 1_000,
            max_timestamp: None,
            timestamp_deltas: vec![0, 1, 2],
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            value_bytes: 10,
        }
    }
}

impl BatchSpec {
    pub fn records(count: usize) -> Self {
        Self { timestamp_deltas: (0..count as i64).collect(), ..Self::default() }
    }

    pub fn idempotent(producer_id: i64, producer_epoch: i16, base_sequence: i32, count: usize) -> Self {
        Self { producer_id, producer_epoch, base_sequence, ..Self::records(count) }
    }

    /// The records as they lie uncompressed in the batch.
    pub fn raw_records(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (offset_delta, timestamp_delta) in self.timestamp_deltas.iter().enumerate() {
            let mut record = vec![0];
            put_varint(&mut record, *timestamp_delta);
            put_varint(&mut record, offset_delta as i64);
            put_varint(&mut record, -1);
            put_varint(&mut record, self.value_bytes as i64);
            record.extend(std::iter::repeat_n(b'v', self.value_bytes));
            put_varint(&mut record, 0);
            put_varint(&mut out, record.len() as i64);
            out.extend(record);
        }
        out
    }

    pub fn build(&self) -> Bytes {
        self.build_with(&self.raw_records())
    }

    /// With the records as given: compressed, or broken.
    pub fn build_with(&self, records: &[u8]) -> Bytes {
        let count = self.timestamp_deltas.len() as i32;
        let max = self.timestamp_deltas.iter().max().map_or(-1, |delta| self.base_timestamp + delta);
        let mut batch = BytesMut::new();
        batch.put_i64(0);
        batch.put_i32((HEADER_BYTES - 12 + records.len()) as i32);
        batch.put_i32(-1);
        batch.put_i8(2);
        batch.put_u32(0);
        batch.put_i16(self.attributes);
        batch.put_i32(count - 1);
        batch.put_i64(self.base_timestamp);
        batch.put_i64(self.max_timestamp.unwrap_or(max));
        batch.put_i64(self.producer_id);
        batch.put_i16(self.producer_epoch);
        batch.put_i32(self.base_sequence);
        batch.put_i32(count);
        batch.put_slice(records);
        reseal(&mut batch);
        batch.freeze()
    }
}

/// Puts the right CRC into a batch that was changed.
pub fn reseal(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[HEAD_BYTES..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

pub fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        out.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}

/// One record, with all that a record can have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecordSpec {
    pub timestamp_delta: i64,
    pub offset_delta: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl RecordSpec {
    /// As it lies in a batch.
    pub fn put(&self, out: &mut Vec<u8>) {
        let mut record = vec![0];
        put_varint(&mut record, self.timestamp_delta);
        put_varint(&mut record, self.offset_delta);
        put_bytes(&mut record, self.key.as_deref());
        put_bytes(&mut record, self.value.as_deref());
        put_varint(&mut record, self.headers.len() as i64);
        for (name, value) in &self.headers {
            put_bytes(&mut record, Some(name));
            put_bytes(&mut record, value.as_deref());
        }
        put_varint(out, record.len() as i64);
        out.extend(record);
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put_varint(out, bytes.map_or(-1, |bytes| bytes.len() as i64));
    out.extend(bytes.unwrap_or_default());
}
