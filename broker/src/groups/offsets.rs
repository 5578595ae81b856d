//! What one group has committed.
//!
//! Invariants: only durable commits are shown; an offset is replaced only by that of a later record, in whatever order
//! the outcomes become known; an offset with a record under way does not expire, since that record may be a commit that
//! its tombstone would undo.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::ResponseError;
use meta::planted;

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
    /// Set in records of version 1 only: a retention that the client chose.
    pub expire_timestamp_ms: Option<i64>,
}

/// OFFSET_METADATA_TOO_LARGE if it is longer than this. Kafka counts characters of Java.
pub fn check_metadata(metadata: &str, max: usize) -> Result<(), ResponseError> {
    // UTF-8 is never shorter than UTF-16 in these units.
    if metadata.len() <= max || metadata.encode_utf16().count() <= max {
        Ok(())
    } else {
        Err(ResponseError::OffsetMetadataTooLarge)
    }
}

/// From when on the offsets of a group age (KIP-211).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expiry {
    /// The group is at work, and what it consumes is not known.
    Never,
    /// From the commit on: there never was a member, or it is not known since when there is none.
    SinceCommit,
    /// From the time on at which the last member left.
    SinceEmpty { empty_since_ms: i64 },
    /// From the commit on, for topics that no member subscribes to.
    Unsubscribed { subscribed: BTreeSet<String> },
}

impl Expiry {
    fn is_over(&self, topic: &str, committed: &Committed, now_ms: i64, retention_ms: i64) -> bool {
        let since_ms = match self {
            Expiry::Never => return false,
            Expiry::Unsubscribed { subscribed } if subscribed.contains(topic) => return false,
            Expiry::SinceCommit | Expiry::Unsubscribed { .. } => committed.commit_timestamp_ms,
            Expiry::SinceEmpty { empty_since_ms } => *empty_since_ms,
        };
        match committed.expire_timestamp_ms {
            Some(expire_ms) => now_ms >= expire_ms,
            None => now_ms.saturating_sub(since_ms) >= retention_ms,
        }
    }
}

/// One partition's offset.
#[derive(Debug)]
struct Slot {
    /// None: deleted, or the first commit is under way.
    committed: Option<Committed>,
    /// Where the record stands that decided this.
    record_offset: i64,
    /// Records under way.
    pending: usize,
}

/// What a group has committed, by topic and partition.
#[derive(Debug, Default)]
pub struct Offsets {
    /// No topic without partitions, no slot with neither an offset nor a record under way.
    topics: BTreeMap<String, BTreeMap<i32, Slot>>,
}

impl Offsets {
    /// A record about this partition was enqueued (under the same lock as this call); `end` must follow. Meanwhile the
    /// offset does not expire, and outcomes may be applied in any order.
    pub fn begin(&mut self, topic: &str, partition: i32) {
        self.slot(topic, partition).pending += 1;
    }

    /// The record at `record_offset` is durable, or is being loaded. False, and no change, if that of a later one is
    /// known already.
    pub fn apply(&mut self, topic: &str, partition: i32, committed: Committed, record_offset: i64) -> bool {
        self.decide(topic, partition, Some(committed), record_offset)
    }

    /// The tombstone at `record_offset` is durable, or is being loaded.
    pub fn remove(&mut self, topic: &str, partition: i32, record_offset: i64) -> bool {
        let decided = self.decide(topic, partition, None, record_offset);
        self.tidy(topic, partition);
        decided
    }

    /// The outcome of what `begin` announced is known, and applied if it was good.
    pub fn end(&mut self, topic: &str, partition: i32) {
        if let Some(slot) = self.topics.get_mut(topic).and_then(|slots| slots.get_mut(&partition)) {
            slot.pending = slot.pending.saturating_sub(1);
            self.tidy(topic, partition);
        }
    }

    pub fn get(&self, topic: &str, partition: i32) -> Option<&Committed> {
        self.topics.get(topic)?.get(&partition)?.committed.as_ref()
    }

    /// Everything, by topic and partition.
    pub fn all(&self) -> impl Iterator<Item = (&str, i32, &Committed)> {
        self.slots().filter_map(|(topic, partition, slot)| Some((topic, partition, slot.committed.as_ref()?)))
    }

    /// The partitions of a topic that have an offset or a record under way: all that has to go with the topic.
    pub fn of_topic(&self, topic: &str) -> Vec<i32> {
        self.topics.get(topic).map(|slots| slots.keys().copied().collect()).unwrap_or_default()
    }

    /// No offsets, and no record under way.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// At most `max` offsets whose time is over, none with a record under way.
    pub fn expired(&self, expiry: &Expiry, now_ms: i64, retention_ms: i64, max: usize) -> Vec<(String, i32)> {
        let over = self.slots().filter(|(topic, _, slot)| {
            let over = |committed| expiry.is_over(topic, committed, now_ms, retention_ms);
            slot.pending == 0 && slot.committed.as_ref().is_some_and(over)
        });
        over.take(max).map(|(topic, partition, _)| (topic.to_owned(), partition)).collect()
    }

    fn slots(&self) -> impl Iterator<Item = (&str, i32, &Slot)> {
        let slots = |(topic, slots)| {
            let topic: &String = topic;
            let slots: &BTreeMap<i32, Slot> = slots;
            slots.iter().map(move |(partition, slot)| (topic.as_str(), *partition, slot))
        };
        self.topics.iter().flat_map(slots)
    }

    fn slot(&mut self, topic: &str, partition: i32) -> &mut Slot {
        if !self.topics.contains_key(topic) {
            self.topics.insert(topic.to_owned(), BTreeMap::new());
        }
        let slots = self.topics.get_mut(topic).expect("a missing topic was inserted above");
        slots.entry(partition).or_insert(Slot { committed: None, record_offset: -1, pending: 0 })
    }

    fn decide(&mut self, topic: &str, partition: i32, committed: Option<Committed>, record_offset: i64) -> bool {
        let slot = self.slot(topic, partition);
        if record_offset <= slot.record_offset && !planted::bug("commit-goes-back") {
            return false;
        }
        slot.committed = committed;
        slot.record_offset = record_offset;
        true
    }

    /// Forgets what says nothing. A deleted offset is remembered while records are under way, so that an older commit
    /// whose outcome becomes known later does not bring it back.
    fn tidy(&mut self, topic: &str, partition: i32) {
        let Some(slots) = self.topics.get_mut(topic) else { return };
        if slots.get(&partition).is_some_and(|slot| slot.committed.is_none() && slot.pending == 0) {
            slots.remove(&partition);
        }
        if slots.is_empty() {
            self.topics.remove(topic);
        }
    }
}

#[cfg(test)]
mod tests;
