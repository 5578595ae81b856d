//! What a log stores: entries, where they lie, and the numbers that its index keeps about them.
//!
//! An entry is one Kafka record batch, opaque here but for the numbers in `EntryMeta`. It comes in two pieces, because
//! the broker stamps the first bytes of a batch (base offset, leader epoch) while the rest stays the very bytes that the
//! client sent: a `head` of fixed length and a `body` that is a slice of the receive buffer. Head and body lie next to
//! each other, in this order, wherever they are stored or sent.

use std::fmt;

use bytes::Bytes;
use meta::keys::object;
use object_store::path::Path;
use uuid::Uuid;

use crate::budget::Permit;

/// Length of an entry's head: the part of a record batch that a broker rewrites, which its CRC does not cover.
pub const HEAD_BYTES: usize = 21;

/// A topic's id (never its name) and a partition of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    pub topic: Uuid,
    pub partition: i32,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// Where a fragment is in the order of everything: logs by number, then segments, then fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FragmentId {
    pub log: u64,
    pub segment: u32,
    pub fragment: u64,
}

impl FragmentId {
    /// The segment that tiered objects count to, in the log of the incarnation that wrote them. It is in no log's record:
    /// what is in a log ends with its last segment, and what is tiered is told by the manifest.
    pub const TIERED: u32 = object::TIERED_SEGMENT;

    pub fn tiered(log: u64, number: u64) -> Self {
        Self { log, segment: Self::TIERED, fragment: number }
    }

    pub fn is_tiered(&self) -> bool {
        self.segment == Self::TIERED
    }

    /// Of the object that holds it, if each is an object of its own.
    pub fn key(&self) -> Path {
        object::fragment(self.log, self.segment, self.fragment)
    }
}

impl fmt::Display for FragmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_tiered() {
            return write!(f, "{}/tiered/{}", self.log, self.fragment);
        }
        write!(f, "{}/{}/{}", self.log, self.segment, self.fragment)
    }
}

/// The numbers of one record batch that the index keeps, so that recovery never reads record data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryMeta {
    pub base_offset: i64,
    /// Inclusive.
    pub last_offset: i64,
    /// Milliseconds since the epoch, as the client or the topic's timestamp type has it. -1 if there is none.
    pub max_timestamp: i64,
    pub leader_epoch: i32,
    /// -1 without idempotence.
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    /// The batch's attributes: codec, timestamp type, transactional, control.
    pub attributes: i16,
}

/// One record batch on its way into a log.
#[derive(Debug, Clone)]
pub struct Entry {
    pub partition: TopicPartition,
    pub meta: EntryMeta,
    pub head: [u8; HEAD_BYTES],
    pub body: Bytes,
    /// CRC32C of `body`, already verified by the caller.
    pub body_crc: u32,
    /// Pays for the allocation that `body` is a slice of.
    pub permit: Permit,
}

impl Entry {
    /// Bytes that this entry takes in a fragment.
    pub fn len(&self) -> usize {
        HEAD_BYTES + self.body.len()
    }

    pub fn is_empty(&self) -> bool {
        false
    }

    /// The checksum kept in the index: CRC32C of the body followed by the head. In this order, because the body's is
    /// known and the head is short.
    pub fn checksum(&self) -> u32 {
        crc32c::crc32c_append(self.body_crc, &self.head)
    }
}

/// One entry in a fragment's index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexedEntry {
    pub meta: EntryMeta,
    /// From the fragment's first byte.
    pub position: u64,
    pub length: u32,
    /// See `Entry::checksum`.
    pub checksum: u32,
}

/// The entries of one partition in one fragment: they lie together, so that one ranged read gets them all. This is what
/// a broker keeps in memory of a fragment; the index of the single entries is read when needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub fragment: FragmentId,
    pub base_offset: i64,
    /// Exclusive.
    pub next_offset: i64,
    /// The highest timestamp of the run, -1 if there is none.
    pub max_timestamp: i64,
    pub leader_epoch: i32,
    /// Where the fragment begins in its file; 0 in object storage, where a fragment is an object of its own.
    pub file_position: u64,
    /// Of the run's first byte, from the fragment's first byte.
    pub position: u64,
    pub length: u32,
    /// Of the run's part of the index, from the fragment's first byte.
    pub index_position: u64,
    pub index_length: u32,
}

/// A run together with the index of its entries, as recovery reads it and as a writer hands it over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexedRun {
    pub partition: TopicPartition,
    pub run: Run,
    pub entries: Vec<IndexedEntry>,
}

/// A fragment's whole index, in the order of its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FragmentIndex {
    pub fragment: FragmentId,
    pub runs: Vec<IndexedRun>,
}
