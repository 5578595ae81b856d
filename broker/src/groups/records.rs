//! Records of `__consumer_offsets` in Kafka's formats (skeleton).

use bytes::Bytes;

use super::offsets::Committed;

/// A group as its record describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMetadata {
    /// Empty: none.
    pub protocol_type: String,
    pub generation: i32,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    /// When the group came into this state; None: an old record.
    pub state_timestamp_ms: Option<i64>,
    pub members: Vec<MemberMetadata>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberMetadata {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    pub subscription: Bytes,
    pub assignment: Bytes,
}

/// What one record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// None: the offset is deleted.
    Offset { group: String, topic: String, partition: i32, value: Option<Committed> },
    /// None: the group is deleted (its offsets have tombstones of their own).
    Group { group: String, value: Option<GroupMetadata> },
    /// A key of a version that is not ours (newer group types); skipped.
    Unknown { key_version: i16 },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("{what} is malformed")]
    Malformed { what: &'static str },
    #[error("{what} has version {version}, which is not known")]
    Version { what: &'static str, version: i16 },
    #[error("{0}")]
    Batch(&'static str),
    /// A text that does not fit the format (more than 32767 bytes).
    #[error("{what} is too long")]
    TooLong { what: &'static str },
}

/// A record to be written. No value: a tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Bytes,
    pub value: Option<Bytes>,
}

/// The record (or, without a value, the tombstone) of a committed offset.
pub fn offset_record(
    group: &str,
    topic: &str,
    partition: i32,
    value: Option<&Committed>,
) -> Result<KeyValue, RecordError> {
    unimplemented!()
}

/// The record (or, without a value, the tombstone) of a group.
pub fn group_record(group: &str, value: Option<&GroupMetadata>) -> Result<KeyValue, RecordError> {
    unimplemented!()
}

/// One uncompressed record batch (magic 2, offsets from 0, CRC set) of at least one record, ready for `batch::validate`
/// and `Partition::append`.
pub fn batch(records: &[KeyValue], timestamp_ms: i64) -> Bytes {
    unimplemented!()
}

/// Calls `each` with offset and content of every record of the batches in `bytes` (whole batches, as read from the
/// log), in order. Control batches are skipped.
pub fn read(bytes: &[u8], each: impl FnMut(i64, Change) -> Result<(), RecordError>) -> Result<(), RecordError> {
    unimplemented!()
}
