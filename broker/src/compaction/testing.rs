//! Batches with keys for the tests of compaction, and what is seen in them.

use bytes::Bytes;

use super::raw::Batch;
use crate::batch::seal::{BODY_HEADER_BYTES, seal};
use crate::batch::testing::RecordSpec;
use crate::batch::{BatchHeader, Codec};
use crate::compression::{Compressor, Levels};

/// Of a batch with these offsets, from an idempotent producer.
pub fn header(base_offset: i64, last_offset_delta: i32) -> BatchHeader {
    BatchHeader {
        base_offset,
        length: 0,
        leader_epoch: 3,
        magic: 2,
        crc: 0,
        attributes: 0,
        last_offset_delta,
        base_timestamp: 1_000,
        max_timestamp: -1,
        producer_id: 7,
        producer_epoch: 2,
        base_sequence: 40,
        record_count: 0,
    }
}

/// The batch with these records and this codec, its highest timestamp filled in.
pub fn build(header: BatchHeader, codec: Codec, records: &[RecordSpec]) -> Bytes {
    let mut raw = Vec::new();
    records.iter().for_each(|record| record.put(&mut raw));
    with_raw(header, codec, records.len(), records.iter().map(|record| record.timestamp_delta).max(), &raw)
}

pub fn with_raw(
    mut header: BatchHeader,
    codec: Codec,
    count: usize,
    max_timestamp_delta: Option<i64>,
    raw: &[u8],
) -> Bytes {
    let mut output = Compressor::new(codec, Levels::default(), vec![0; BODY_HEADER_BYTES], 1 << 30, None).unwrap();
    output.write(raw).unwrap();
    header.attributes |= codec.id();
    header.record_count = count as i32;
    if !header.is_log_append_time() {
        header.max_timestamp = max_timestamp_delta.map_or(-1, |delta| header.base_timestamp.wrapping_add(delta));
    }
    let (_, head, body) = seal(header, output.finish().unwrap());
    [&head[..], &body[..]].concat().into()
}

/// Records with consecutive offsets and times, by key and value.
pub fn records(records: &[(Option<&str>, Option<&str>)]) -> Vec<RecordSpec> {
    let bytes = |text: &Option<&str>| text.map(|text| text.as_bytes().to_vec());
    let numbered = records.iter().enumerate().map(|(n, (key, value))| RecordSpec {
        timestamp_delta: n as i64,
        offset_delta: n as i64,
        key: bytes(key),
        value: bytes(value),
        headers: vec![(b"h".to_vec(), Some(n.to_string().into_bytes())), (b"h".to_vec(), None)],
    });
    numbered.collect()
}

/// A batch of these from an offset on.
pub fn batch(base_offset: i64, codec: Codec, keyed: &[(Option<&str>, Option<&str>)]) -> Bytes {
    build(header(base_offset, keyed.len() as i32 - 1), codec, &records(keyed))
}

/// A record as a reader has it; `tail` is its offset, key, value and headers as they lie in the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub offset: i64,
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub has_value: bool,
    pub tail: Vec<u8>,
}

pub fn seen(batch: &[u8]) -> Vec<Seen> {
    let batch = Batch::parse(batch).unwrap();
    let inflated = batch.inflated().unwrap();
    let records = batch.records(&inflated).map(|record| {
        let record = record.unwrap();
        Seen {
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.map(<[u8]>::to_vec),
            has_value: record.has_value,
            tail: record.tail.to_vec(),
        }
    });
    records.collect()
}
