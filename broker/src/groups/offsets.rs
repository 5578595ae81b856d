//! Committed offsets of one group (skeleton).

use kafka_protocol::ResponseError;

/// `offset.metadata.max.bytes`
pub const MAX_METADATA_BYTES: usize = 4096;

/// One committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    pub offset: i64,
    /// -1: not known.
    pub leader_epoch: i32,
    pub metadata: String,
    pub commit_timestamp_ms: i64,
    /// Only in records of version 1.
    pub expire_timestamp_ms: Option<i64>,
}

/// OFFSET_METADATA_TOO_LARGE if it is longer than this.
pub fn check_metadata(metadata: &str, max: usize) -> Result<(), ResponseError> {
    unimplemented!()
}

/// When offsets of a group may expire; `Group::expiry`.
pub struct Expiry<'a> {
    _group: std::marker::PhantomData<&'a ()>,
}

/// What a group has committed, by topic and partition. Shown are durable commits only.
#[derive(Debug, Default)]
pub struct Offsets {}

impl Offsets {
    /// A record about this partition was enqueued (same lock as the append); `end` must follow. Meanwhile its offset
    /// does not expire, and outcomes may be applied in any order.
    pub fn begin(&mut self, topic: &str, partition: i32) {
        unimplemented!()
    }

    /// The record at `record_offset` is durable (or is being loaded). False, and no change, if a later record is
    /// known already: a committed offset never goes back to an older record's.
    pub fn apply(&mut self, topic: &str, partition: i32, committed: Committed, record_offset: i64) -> bool {
        unimplemented!()
    }

    /// The tombstone at `record_offset` is durable (or is being loaded).
    pub fn remove(&mut self, topic: &str, partition: i32, record_offset: i64) -> bool {
        unimplemented!()
    }

    /// The outcome of what `begin` announced is known, and applied if it is good.
    pub fn end(&mut self, topic: &str, partition: i32) {
        unimplemented!()
    }

    pub fn get(&self, topic: &str, partition: i32) -> Option<&Committed> {
        unimplemented!()
    }

    /// Everything, by topic and partition.
    pub fn all(&self) -> impl Iterator<Item = (&str, i32, &Committed)> {
        std::iter::empty()
    }

    /// Partitions of one topic that have an offset, or a record under way: what has to go when the topic is deleted.
    pub fn of_topic(&self, topic: &str) -> Vec<i32> {
        unimplemented!()
    }

    /// No offsets, and no record under way.
    pub fn is_empty(&self) -> bool {
        unimplemented!()
    }

    /// At most `max` offsets whose retention is over, by Kafka's rules; none with a record under way.
    pub fn expired(&self, expiry: &Expiry<'_>, now_ms: i64, retention_ms: i64, max: usize) -> Vec<(String, i32)> {
        unimplemented!()
    }
}
