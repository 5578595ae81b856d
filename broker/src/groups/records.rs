//! The records of `__consumer_offsets`, in Kafka's formats.
//!
//! ```text
//!   key     version i16 | 0, 1: group, topic, partition i32   an offset      | 2: group    a group's metadata
//!   offset  version i16 | offset i64 | leader epoch i32 (3+) | metadata | commit time i64 | expire time i64 (1 only)
//!   group   version i16 | protocol type | generation i32 | protocol? | leader? | state time i64 (2+) | members
//!   member  id | instance id? (3+) | client id | client host | rebalance timeout i32 (1+) | session timeout i32
//!           | subscription bytes | assignment bytes
//! ```
//!
//! Texts have an i16 length, bytes and arrays an i32; version 4 of both values is flexible (KIP-915). Values 0 to 4 are
//! read, 3 is written, as Kafka does. No value is a tombstone.
//!
//! Invariants: reading is total on any bytes, and takes no more memory than they have; what was written is read as the
//! same.

mod fields;

mod batches;

use bytes::{BufMut, Bytes, BytesMut};

use super::offsets::Committed;

use self::fields::{Fields, put_bytes, put_nullable_text, put_text};

pub use self::batches::{batch, read};

/// Keys of this version and below are offsets.
const OFFSET_KEY_MAX: i16 = 1;
const GROUP_KEY: i16 = 2;

/// The highest version of both values that is read, and the one that is written.
const VALUE_MAX: i16 = 4;
const VALUE_WRITTEN: i16 = 3;
/// The first flexible one.
const VALUE_FLEXIBLE: i16 = 4;

/// A group as its record describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMetadata {
    /// Empty: none.
    pub protocol_type: String,
    pub generation: i32,
    /// None if there are no members; neither is a leader then.
    pub protocol: Option<String>,
    pub leader: Option<String>,
    /// When the group came into its state; None: an old record.
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
    /// A key of another version, which belongs to a kind of group that is not served. To be skipped.
    Unknown { key_version: i16 },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("{what} is malformed")]
    Malformed { what: &'static str },
    #[error("{what} has version {version}, which is not known")]
    Version { what: &'static str, version: i16 },
    #[error("{what} is too long for its record")]
    TooLong { what: &'static str },
    #[error("a record batch of group records {why}")]
    Batch { why: &'static str },
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
    let mut key = BytesMut::new();
    key.put_i16(OFFSET_KEY_MAX);
    put_text(&mut key, "group id", group)?;
    put_text(&mut key, "topic", topic)?;
    key.put_i32(partition);
    let value = value.map(offset_value).transpose()?;
    Ok(KeyValue { key: key.freeze(), value })
}

fn offset_value(committed: &Committed) -> Result<Bytes, RecordError> {
    let mut value = BytesMut::new();
    // Only version 1 can say when an offset expires; Kafka writes it for those that do, losing their leader epoch.
    let version = if committed.expire_timestamp_ms.is_some() { 1 } else { VALUE_WRITTEN };
    value.put_i16(version);
    value.put_i64(committed.offset);
    if version >= 3 {
        value.put_i32(committed.leader_epoch);
    }
    put_text(&mut value, "offset metadata", &committed.metadata)?;
    value.put_i64(committed.commit_timestamp_ms);
    if let Some(expire_ms) = committed.expire_timestamp_ms {
        value.put_i64(expire_ms);
    }
    Ok(value.freeze())
}

/// The record (or, without a value, the tombstone) of a group.
pub fn group_record(group: &str, value: Option<&GroupMetadata>) -> Result<KeyValue, RecordError> {
    let mut key = BytesMut::new();
    key.put_i16(GROUP_KEY);
    put_text(&mut key, "group id", group)?;
    let value = value.map(group_value).transpose()?;
    Ok(KeyValue { key: key.freeze(), value })
}

fn group_value(group: &GroupMetadata) -> Result<Bytes, RecordError> {
    let mut value = BytesMut::new();
    value.put_i16(VALUE_WRITTEN);
    put_text(&mut value, "protocol type", &group.protocol_type)?;
    value.put_i32(group.generation);
    put_nullable_text(&mut value, "protocol", group.protocol.as_deref())?;
    put_nullable_text(&mut value, "leader", group.leader.as_deref())?;
    value.put_i64(group.state_timestamp_ms.unwrap_or(-1));
    value.put_i32(i32::try_from(group.members.len()).map_err(|_| RecordError::TooLong { what: "member list" })?);
    for member in &group.members {
        put_text(&mut value, "member id", &member.member_id)?;
        put_nullable_text(&mut value, "group instance id", member.instance_id.as_deref())?;
        put_text(&mut value, "client id", &member.client_id)?;
        put_text(&mut value, "client host", &member.client_host)?;
        value.put_i32(member.rebalance_timeout_ms);
        value.put_i32(member.session_timeout_ms);
        put_bytes(&mut value, "subscription", &member.subscription)?;
        put_bytes(&mut value, "assignment", &member.assignment)?;
    }
    Ok(value.freeze())
}

/// What a record says. Bytes behind the last known field are none of ours.
pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Change, RecordError> {
    let mut key = Fields::rigid("key", key);
    match key.i16()? {
        0..=OFFSET_KEY_MAX => {
            let (group, topic, partition) = (key.text()?, key.text()?, key.i32()?);
            let value = value.map(decode_offset).transpose()?;
            Ok(Change::Offset { group, topic, partition, value })
        }
        GROUP_KEY => {
            let group = key.text()?;
            let value = value.map(decode_group).transpose()?;
            Ok(Change::Group { group, value })
        }
        key_version => Ok(Change::Unknown { key_version }),
    }
}

/// A value's fields behind its version, and the version.
fn versioned<'a>(what: &'static str, value: &'a [u8]) -> Result<(i16, Fields<'a>), RecordError> {
    let mut fields = Fields::rigid(what, value);
    match fields.i16()? {
        version @ VALUE_FLEXIBLE..=VALUE_MAX => Ok((version, fields.into_flexible())),
        version @ 0..VALUE_FLEXIBLE => Ok((version, fields)),
        version => Err(RecordError::Version { what, version }),
    }
}

fn decode_offset(value: &[u8]) -> Result<Committed, RecordError> {
    let (version, mut fields) = versioned("committed offset", value)?;
    let committed = Committed {
        offset: fields.i64()?,
        leader_epoch: if version >= 3 { fields.i32()? } else { -1 },
        metadata: fields.text()?,
        commit_timestamp_ms: fields.i64()?,
        expire_timestamp_ms: if version == 1 { Some(fields.i64()?).filter(|ms| *ms != -1) } else { None },
    };
    // A topic id may follow as a tagged field; names are what offsets are found by.
    fields.skip_tagged()?;
    Ok(committed)
}

fn decode_group(value: &[u8]) -> Result<GroupMetadata, RecordError> {
    let (version, mut fields) = versioned("group metadata", value)?;
    let mut group = GroupMetadata {
        protocol_type: fields.text()?,
        generation: fields.i32()?,
        protocol: fields.nullable_text()?,
        leader: fields.nullable_text()?,
        state_timestamp_ms: if version >= 2 { Some(fields.i64()?).filter(|ms| *ms != -1) } else { None },
        members: Vec::new(),
    };
    // Each takes bytes, so that an impossible count ends with them.
    for _ in 0..fields.count()? {
        group.members.push(decode_member(version, &mut fields)?);
    }
    fields.skip_tagged()?;
    if !group.members.is_empty() && group.protocol.is_none() {
        return Err(RecordError::Malformed { what: "group metadata with members but without a protocol" });
    }
    Ok(group)
}

fn decode_member(version: i16, fields: &mut Fields<'_>) -> Result<MemberMetadata, RecordError> {
    let member_id = fields.text()?;
    let instance_id = if version >= 3 { fields.nullable_text()? } else { None };
    let (client_id, client_host) = (fields.text()?, fields.text()?);
    let rebalance_timeout_ms = if version >= 1 { Some(fields.i32()?) } else { None };
    let session_timeout_ms = fields.i32()?;
    let member = MemberMetadata {
        member_id,
        instance_id,
        client_id,
        client_host,
        rebalance_timeout_ms: rebalance_timeout_ms.unwrap_or(session_timeout_ms),
        session_timeout_ms,
        subscription: fields.bytes()?,
        assignment: fields.bytes()?,
    };
    fields.skip_tagged()?;
    Ok(member)
}

#[cfg(test)]
mod tests;
