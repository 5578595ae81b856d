//! The checker of histories: what producers were told and what readers saw, held against Kafka's promises.
//!
//! It is pure. A test records every send with its outcome and every polled record, in the order in which each client
//! observed them, then calls [`History::check`]. The names of the anomalies are those of Jepsen's Kafka tests.
//!
//! Values are numbers, unique over the whole history: a value says which send it came from. An outcome is one of three,
//! and the third stays what it is: a send whose fate is unknown may appear, once, or not at all.
//!
//! ```
//! use compat_tests::checker::{History, Outcome, Rules, partition};
//! let (mut history, p) = (History::default(), partition("t", 0));
//! let value = history.send(/* producer */ 1, &p);
//! history.sent(value, Outcome::Ok { offset: 0 });
//! history.polled(/* reader */ 7, &p, 0, value);
//! history.drained(&p, 1);
//! assert_eq!(history.check(&Rules::idempotent()), vec![]);
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    pub topic: String,
    pub index: i32,
}

/// Short for a [`Partition`].
pub fn partition(topic: &str, index: i32) -> Partition {
    Partition { topic: topic.to_owned(), index }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.index)
    }
}

/// How a send ended for the producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged, at this offset.
    Ok { offset: i64 },
    /// Acknowledged without an offset, as librdkafka does when a retry was recognized as a duplicate.
    OkSomewhere,
    /// Refused: the broker said that the record was not appended, and it must never be seen.
    Failed,
    /// It may or may not have been appended.
    Unknown,
}

/// What a history is held to, besides what always holds.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Every value at one offset at most. Off only for producers that retry without idempotence.
    pub no_duplicates: bool,
    /// A producer's acknowledged records of one partition have offsets in the order of its sends.
    pub sends_in_order: bool,
    /// Offsets have no holes, from the first to the drained end. Not so with compaction, transactions or deletion.
    pub contiguous: bool,
}

impl Rules {
    /// Idempotent producers on plain topics: everything holds.
    pub fn idempotent() -> Self {
        Self { no_duplicates: true, sends_in_order: true, contiguous: true }
    }

    /// Plain producers that never retry: the same, as nobody sends anything twice.
    pub fn plain_without_retries() -> Self {
        Self::idempotent()
    }

    /// Plain producers that retry: order and uniqueness are not promised.
    pub fn plain_with_retries() -> Self {
        Self { no_duplicates: false, sends_in_order: false, contiguous: true }
    }
}

/// A violation. The text of `Display` begins with the anomaly's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anomaly {
    /// Acknowledged, below the highest offset anybody polled, and never polled.
    LostWrite { partition: Partition, value: u64, offset: Option<i64> },
    /// Acknowledged, and not seen although the partition was drained to its end.
    Unseen { partition: Partition, value: u64, offset: Option<i64> },
    /// One value at several offsets.
    Duplicate { partition: Partition, value: u64, offsets: Vec<i64> },
    /// One offset with several values, be it told to a producer or seen by a reader.
    InconsistentOffsets { partition: Partition, offset: i64, values: Vec<u64> },
    /// A refused send was seen.
    FailedRead { partition: Partition, value: u64, offset: i64 },
    /// A value that was never sent to this partition was seen.
    Phantom { partition: Partition, value: u64, offset: i64 },
    /// A reader that did not seek went back, or stood still.
    NonmonotonicPoll { partition: Partition, reader: u32, from: i64, to: i64 },
    /// A reader that did not seek passed over a record that exists.
    PollSkip { partition: Partition, reader: u32, from: i64, to: i64, skipped: i64 },
    /// A producer's later record stands before its earlier one.
    NonmonotonicSend { partition: Partition, producer: u32, earlier: (u64, i64), later: (u64, i64) },
    /// Offsets without a record, below the drained end or the highest polled offset.
    OffsetGap { partition: Partition, first: i64, last: i64 },
    /// A record at or above the high watermark that came with it.
    ReadAboveHighWatermark { partition: Partition, reader: u32, offset: i64, high_watermark: i64 },
    /// A high watermark below an earlier one that the same reader was told.
    HighWatermarkRegress { partition: Partition, reader: u32, from: i64, to: i64 },
    /// A record at or above the drained end.
    BeyondEnd { partition: Partition, value: u64, offset: i64, end: i64 },
}

impl Anomaly {
    /// The anomaly's name, as facts and papers about Kafka use it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::LostWrite { .. } => "lost-write",
            Self::Unseen { .. } => "unseen",
            Self::Duplicate { .. } => "duplicate",
            Self::InconsistentOffsets { .. } => "inconsistent-offsets",
            Self::FailedRead { .. } => "failed-read",
            Self::Phantom { .. } => "phantom",
            Self::NonmonotonicPoll { .. } => "nonmonotonic-poll",
            Self::PollSkip { .. } => "poll-skip",
            Self::NonmonotonicSend { .. } => "nonmonotonic-send",
            Self::OffsetGap { .. } => "offset-gap",
            Self::ReadAboveHighWatermark { .. } => "read-above-high-watermark",
            Self::HighWatermarkRegress { .. } => "high-watermark-regress",
            Self::BeyondEnd { .. } => "beyond-end",
        }
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {self:?}", self.name())
    }
}

#[derive(Debug)]
struct Send {
    producer: u32,
    partition: Partition,
    outcome: Outcome,
}

#[derive(Debug, Default)]
struct Seen {
    /// Offset to the values that were seen there: one, in a sound history.
    values: BTreeMap<i64, BTreeSet<u64>>,
    /// Where each value was seen.
    offsets: BTreeMap<u64, BTreeSet<i64>>,
    /// Consecutive polls of one reader without a seek between them.
    steps: Vec<(u32, i64, i64)>,
    drained: Option<i64>,
}

/// Everything that was sent and seen. Values are handed out by `send`, so that they are unique.
#[derive(Debug, Default)]
pub struct History {
    /// Indexed by value: values are numbers from 0.
    sends: Vec<Send>,
    partitions: BTreeMap<Partition, Seen>,
    last_polls: BTreeMap<(u32, Partition), i64>,
    high_watermarks: BTreeMap<(u32, Partition), i64>,
    /// What can only be seen at the moment it happens.
    witnessed: Vec<Anomaly>,
}

impl History {
    /// A producer is about to send; the record must carry the returned value. Its outcome is unknown until told.
    /// Calls of one producer are in the order in which it hands its records to the client.
    pub fn send(&mut self, producer: u32, partition: &Partition) -> u64 {
        self.sends.push(Send { producer, partition: partition.clone(), outcome: Outcome::Unknown });
        self.sends.len() as u64 - 1
    }

    /// A send ended. May be told in any order, and not at all: then the outcome stays unknown.
    pub fn sent(&mut self, value: u64, outcome: Outcome) {
        self.sends[value as usize].outcome = outcome;
    }

    /// A reader was handed a record. A value that no send handed out is an anomaly of its own.
    pub fn polled(&mut self, reader: u32, partition: &Partition, offset: i64, value: u64) {
        let seen = self.partitions.entry(partition.clone()).or_default();
        seen.values.entry(offset).or_default().insert(value);
        seen.offsets.entry(value).or_default().insert(offset);
        if let Some(before) = self.last_polls.insert((reader, partition.clone()), offset) {
            seen.steps.push((reader, before, offset));
        }
    }

    /// A reader was (re)assigned or sought: its next poll of this partition may be anywhere.
    pub fn sought(&mut self, reader: u32, partition: &Partition) {
        self.last_polls.remove(&(reader, partition.clone()));
    }

    /// A reader was told this high watermark, in a reply whose last record is at `last_offset`, if it had any.
    pub fn high_watermark(
        &mut self,
        reader: u32,
        partition: &Partition,
        high_watermark: i64,
        last_offset: Option<i64>,
    ) {
        let partition = partition.clone();
        if let Some(offset) = last_offset.filter(|offset| *offset >= high_watermark) {
            let partition = partition.clone();
            self.witnessed.push(Anomaly::ReadAboveHighWatermark { partition, reader, offset, high_watermark });
        }
        if let Some(from) = self.high_watermarks.insert((reader, partition.clone()), high_watermark)
            && high_watermark < from
        {
            self.witnessed.push(Anomaly::HighWatermarkRegress { partition, reader, from, to: high_watermark });
        }
    }

    /// After all producers ended, a reader polled everything from the first offset up to `end`, the high watermark.
    pub fn drained(&mut self, partition: &Partition, end: i64) {
        self.partitions.entry(partition.clone()).or_default().drained = Some(end);
    }

    /// How many sends were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.sends.iter().filter(|s| matches!(s.outcome, Outcome::Ok { .. } | Outcome::OkSomewhere)).count()
    }

    /// How many sends are of unknown outcome.
    pub fn unknown(&self) -> usize {
        self.sends.iter().filter(|s| s.outcome == Outcome::Unknown).count()
    }

    /// Every partition that was sent to, for the final drain.
    pub fn sent_partitions(&self) -> BTreeSet<Partition> {
        self.sends.iter().map(|s| s.partition.clone()).collect()
    }

    /// Every violation, in a fixed order.
    pub fn check(&self, rules: &Rules) -> Vec<Anomaly> {
        let mut found = self.witnessed.clone();
        let nothing = Seen::default();
        let partitions: BTreeSet<&Partition> =
            self.partitions.keys().chain(self.sends.iter().map(|s| &s.partition)).collect();
        for partition in partitions {
            let seen = self.partitions.get(partition).unwrap_or(&nothing);
            self.check_sends(partition, seen, &mut found);
            self.check_values(partition, seen, rules, &mut found);
            self.check_offsets(partition, seen, &mut found);
            check_polls(partition, seen, &mut found);
            if rules.contiguous {
                check_contiguous(partition, seen, &mut found);
            }
        }
        if rules.sends_in_order {
            self.check_send_order(&mut found);
        }
        found
    }

    /// Panics with every violation, and with `context`, unless there is none.
    pub fn assert_sound(&self, rules: &Rules, context: &str) {
        let found = self.check(rules);
        let shown: Vec<String> = found.iter().take(20).map(ToString::to_string).collect();
        assert!(found.is_empty(), "{context}: {} anomalies:\n{}", found.len(), shown.join("\n"));
    }

    fn sends_to<'a>(&'a self, partition: &'a Partition) -> impl Iterator<Item = (u64, &'a Send)> {
        self.sends.iter().enumerate().filter(move |(_, s)| s.partition == *partition).map(|(v, s)| (v as u64, s))
    }

    /// Acknowledged sends that nobody saw.
    fn check_sends(&self, partition: &Partition, seen: &Seen, found: &mut Vec<Anomaly>) {
        let highest = seen.values.keys().next_back().copied().unwrap_or(-1);
        for (value, send) in self.sends_to(partition) {
            let offset = match send.outcome {
                Outcome::Ok { offset } => Some(offset),
                Outcome::OkSomewhere => None,
                Outcome::Failed | Outcome::Unknown => continue,
            };
            if seen.offsets.contains_key(&value) {
                continue;
            }
            let partition = partition.clone();
            if offset.is_some_and(|offset| offset < highest) {
                found.push(Anomaly::LostWrite { partition, value, offset });
            } else if seen.drained.is_some() {
                found.push(Anomaly::Unseen { partition, value, offset });
            }
        }
    }

    /// Values seen too often, or that should not exist.
    fn check_values(&self, partition: &Partition, seen: &Seen, rules: &Rules, found: &mut Vec<Anomaly>) {
        for (&value, offsets) in &seen.offsets {
            let offset = offsets.iter().next().copied().unwrap_or(-1);
            match self.sends.get(value as usize) {
                Some(send) if send.partition == *partition => {
                    if send.outcome == Outcome::Failed {
                        found.push(Anomaly::FailedRead { partition: partition.clone(), value, offset });
                    }
                }
                _ => found.push(Anomaly::Phantom { partition: partition.clone(), value, offset }),
            }
            if rules.no_duplicates && offsets.len() > 1 {
                let offsets = offsets.iter().copied().collect();
                found.push(Anomaly::Duplicate { partition: partition.clone(), value, offsets });
            }
        }
    }

    /// Offsets with more than one value, seen or acknowledged; and records where the log should have ended.
    fn check_offsets(&self, partition: &Partition, seen: &Seen, found: &mut Vec<Anomaly>) {
        let mut values = seen.values.clone();
        for (value, send) in self.sends_to(partition) {
            if let Outcome::Ok { offset } = send.outcome {
                values.entry(offset).or_default().insert(value);
            }
        }
        for (offset, values) in values {
            if values.len() > 1 {
                let values = values.into_iter().collect();
                found.push(Anomaly::InconsistentOffsets { partition: partition.clone(), offset, values });
            }
        }
        let Some(end) = seen.drained else { return };
        for (&offset, values) in seen.values.range(end..) {
            let value = values.iter().next().copied().unwrap_or(u64::MAX);
            found.push(Anomaly::BeyondEnd { partition: partition.clone(), value, offset, end });
        }
    }

    fn check_send_order(&self, found: &mut Vec<Anomaly>) {
        let mut last: BTreeMap<(u32, &Partition), (u64, i64)> = BTreeMap::new();
        for (value, send) in self.sends.iter().enumerate() {
            let Outcome::Ok { offset } = send.outcome else { continue };
            let later = (value as u64, offset);
            if let Some(earlier) = last.insert((send.producer, &send.partition), later)
                && earlier.1 >= offset
            {
                let (partition, producer) = (send.partition.clone(), send.producer);
                found.push(Anomaly::NonmonotonicSend { partition, producer, earlier, later });
            }
        }
    }
}

/// Steps of readers backwards, or over records that exist.
fn check_polls(partition: &Partition, seen: &Seen, found: &mut Vec<Anomaly>) {
    for &(reader, from, to) in &seen.steps {
        let partition = partition.clone();
        if to <= from {
            found.push(Anomaly::NonmonotonicPoll { partition, reader, from, to });
        } else if let Some((&skipped, _)) = seen.values.range(from + 1..to).next() {
            found.push(Anomaly::PollSkip { partition, reader, from, to, skipped });
        }
    }
}

/// Holes between offset 0 and the drained end, or the highest offset that was seen.
fn check_contiguous(partition: &Partition, seen: &Seen, found: &mut Vec<Anomaly>) {
    let mut next = 0;
    for &offset in seen.values.keys() {
        if offset > next {
            found.push(Anomaly::OffsetGap { partition: partition.clone(), first: next, last: offset - 1 });
        }
        next = offset + 1;
    }
    if let Some(end) = seen.drained.filter(|end| *end > next) {
        found.push(Anomaly::OffsetGap { partition: partition.clone(), first: next, last: end - 1 });
    }
}

#[cfg(test)]
mod tests;
