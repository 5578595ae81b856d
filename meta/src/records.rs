//! The values stored under the keys of `keys::store`, as versioned JSON.
//!
//! An unknown field or a newer version is refused by name: an older binary never guesses at newer metadata. What has no
//! field `version` is of version 1; whoever changes what a record means gives it that field, and the next number.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::seams::Incarnation;

/// The version that this program writes, and the newest that it reads.
const VERSION: u64 = 1;

/// Encodes a record. Infallible for the types of this module: they hold nothing that JSON cannot.
pub fn encode<T: Serialize>(record: &T) -> Bytes {
    serde_json::to_vec(record).map(Bytes::from).unwrap_or_default()
}

/// `Invalid` if a newer program wrote it.
pub fn decode<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T> {
    serde_json::from_slice(value).map_err(|error| match version_of(value) {
        Some(version) if version > VERSION => {
            Error::Invalid { what: format!("{key} has format version {version}; this program knows up to {VERSION}") }
        }
        _ => Error::Corrupt { key: key.to_owned(), why: error.to_string() },
    })
}

fn version_of(value: &[u8]) -> Option<u64> {
    serde_json::from_slice::<serde_json::Value>(value).ok()?.get("version")?.as_u64()
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterRecord {
    /// What clients see as the cluster id: 22 characters of URL-safe base64.
    pub id: String,
}

/// Value of `STORAGE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageRecord {
    /// As the storage's own object has it: 32 hexadecimal digits.
    pub id: String,
}

/// Value of `PRODUCER_IDS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProducerIdRecord {
    pub next: i64,
}

/// Value of `LOG_COUNTER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogCounterRecord {
    pub newest: u64,
}

/// One topic, however many partitions: creating it is one write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicRecord {
    pub id: Uuid,
    pub partitions: i32,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub configs: BTreeMap<String, String>,
    /// Where partitions begin, for those that had records deleted: offsets below it are gone for every reader. Never
    /// moves down.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub log_starts: BTreeMap<i32, i64>,
}

/// Value of `broker_configs`: what was changed while brokers ran, under Kafka's names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerConfigRecord {
    pub configs: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogState {
    /// Its writer may append and register segments.
    Open,
    /// Somebody is recovering it: no new segments.
    Sealing,
    /// Every segment has an end. Never changes again.
    Sealed,
}

/// A log: written by one incarnation of one broker, then sealed. Its number is the leader epoch of what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogRecord {
    pub writer: Incarnation,
    pub state: LogState,
    /// In order of their numbers, which are their places in this list. All but the last have an end.
    pub segments: Vec<SegmentRecord>,
    /// Fragments below this one (in the last segment) need not be looked at by recovery: raised before any is deleted.
    #[serde(default)]
    pub recover_from: u64,
}

/// Value of `MANIFEST`. Objects are written before it names them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestRecord {
    /// Every fragment before this one, in this log and in all logs before it, is in the manifest, or nothing in it is
    /// wanted any more.
    pub position: PositionRecord,
    /// A base, then changes to it, in order.
    pub objects: Vec<ManifestObject>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PositionRecord {
    pub log: u64,
    pub segment: u32,
    pub fragment: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestObject {
    /// The log of whoever wrote it.
    pub log: u64,
    pub number: u64,
    pub bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentRecord {
    /// Exclusive: fragments [0, end) are the segment. None while it is being written.
    pub end: Option<u64>,
}

#[cfg(test)]
mod tests;
