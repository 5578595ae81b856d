//! Entries for tests: small, distinguishable by their bytes, and paid for by no particular budget.

use bytes::Bytes;
use uuid::Uuid;

use crate::budget::Budget;
use crate::entry::{Entry, EntryMeta, HEAD_BYTES, TopicPartition};

/// Partition `partition` of the topic with the id `topic`.
pub fn partition(topic: u128, partition: i32) -> TopicPartition {
    TopicPartition { topic: Uuid::from_u128(topic), partition }
}

/// A batch of `records` records at `base_offset`, with a body of `body_bytes` bytes that differ by offset.
pub fn entry(partition: TopicPartition, base_offset: i64, records: i64, body_bytes: usize) -> Entry {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(&base_offset.to_be_bytes());
    let seed = (base_offset as u8).wrapping_mul(31).wrapping_add(partition.partition as u8);
    let body: Bytes = (0..body_bytes).map(|i| seed.wrapping_add((i as u8).wrapping_mul(7))).collect::<Vec<u8>>().into();
    let meta = EntryMeta {
        base_offset,
        last_offset: base_offset + records - 1,
        max_timestamp: 1_000 + base_offset,
        leader_epoch: 3,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        attributes: 0,
    };
    let permit = Budget::new(body_bytes).take_anyway(body_bytes);
    let body_crc = crc32c::crc32c(&body);
    Entry { partition, meta, head, body, body_crc, permit }
}

/// An entry's bytes as they lie in a fragment.
pub fn bytes_of(entry: &Entry) -> Vec<u8> {
    [&entry.head[..], &entry.body[..]].concat()
}
