//! The manifest: a checkpoint of every partition's runs, so that a start reads what came after it and nothing else, and
//! the only thing that refers to tiered objects.
//!
//! ```text
//!   metadata store: "manifest" -> position, [ base, change, change, ... ]
//!                                             |      |
//!   objects: manifests/{log}/{number}.mf  <---+------+      immutable, written before they are named
//! ```
//!
//! Invariants:
//! - What the record names is durable, and never changes or goes while it is named.
//! - Every fragment before `position` (in its log, and in all logs before) is in the manifest: each run of it is named, or
//!   was moved to a tiered object that is named, or is not wanted any more. Fragments at or after it are not.
//! - Position, objects and the log's `recover_from` move in one transaction, which fails for everybody but the owner of
//!   the newest log (`meta::owned`, or the embedded journal): so nobody overwrites what they have not seen, and no
//!   conditional replacement of objects is needed.
//! - What is deleted was dropped from the manifest before. What was dropped never returns.

mod codec;

mod store;

use std::collections::BTreeMap;

use bytes::Bytes;

pub use codec::{Encoded, decode, encode};
pub use store::{Commit, ManifestStore, load};

use crate::entry::{FragmentId, Run, TopicPartition};
use crate::error::{Error, Result};
use crate::partition_index::PartitionIndex;

/// All that is known of all partitions, up to a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The first fragment that is not in it.
    pub position: FragmentId,
    pub partitions: BTreeMap<TopicPartition, Checkpoint>,
}

/// One partition, up to the manifest's position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    pub index: PartitionIndex,
    /// Offsets below it are compacted.
    pub cleaned_to: i64,
    /// The producers' state, in the broker's own form.
    pub producers: Bytes,
}

/// What changes, or all that there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub position: FragmentId,
    /// In the order of partitions.
    pub parts: Vec<Part>,
}

/// What changes of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub partition: TopicPartition,
    /// The topic was deleted: nothing of it is wanted any more.
    pub gone: bool,
    pub log_start: i64,
    pub cleaned_to: i64,
    pub stretches: Vec<Stretch>,
    /// None: as before.
    pub producers: Option<Bytes>,
}

/// Runs that come in the place of those that lie within [from, to), or after all others if `from` equals `to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    pub from: i64,
    pub to: i64,
    pub runs: Vec<Run>,
}

impl Part {
    /// A part that changes nothing yet.
    pub fn of(partition: TopicPartition, log_start: i64, cleaned_to: i64) -> Self {
        Self { partition, gone: false, log_start, cleaned_to, stretches: Vec::new(), producers: None }
    }
}

impl Manifest {
    /// Before anything was checkpointed.
    pub fn empty() -> Self {
        Self { position: FragmentId { log: 0, segment: 0, fragment: 0 }, partitions: BTreeMap::new() }
    }

    /// Fails, naming the partition, if the change does not join to what is there.
    pub fn apply(&mut self, change: Change) -> Result<()> {
        if change.position < self.position {
            return Err(Error::Corrupt {
                key: "the manifest".to_owned(),
                why: format!("its position moves back from {} to {}", self.position, change.position),
            });
        }
        self.position = change.position;
        for part in change.parts {
            if part.gone {
                self.partitions.remove(&part.partition);
                continue;
            }
            match self.partitions.get_mut(&part.partition) {
                Some(checkpoint) => checkpoint.apply(part)?,
                None => {
                    let begin = part.stretches.first().map_or(part.log_start, |stretch| stretch.from);
                    let index = PartitionIndex::new(part.partition, begin);
                    let mut checkpoint = Checkpoint { index, cleaned_to: 0, producers: Bytes::new() };
                    let partition = part.partition;
                    checkpoint.apply(part)?;
                    self.partitions.insert(partition, checkpoint);
                }
            }
        }
        Ok(())
    }
}

impl Checkpoint {
    fn apply(&mut self, part: Part) -> Result<()> {
        // Everything that was here is below the log start now, and perhaps more that never came here.
        let begin = part.stretches.first().map_or(part.log_start, |stretch| stretch.from);
        if begin > self.index.next_offset() && part.log_start >= begin {
            self.index = PartitionIndex::new(part.partition, begin);
        }
        for stretch in &part.stretches {
            if stretch.from == stretch.to {
                stretch.runs.iter().try_for_each(|run| self.index.append(*run))?;
            } else {
                self.index.replace(stretch.from, stretch.to, &stretch.runs)?;
            }
        }
        if part.log_start > self.index.next_offset() {
            return Err(Error::Corrupt {
                key: format!("the manifest of partition {}", part.partition),
                why: format!("it begins at {}, but its data ends at {}", part.log_start, self.index.next_offset()),
            });
        }
        self.index.advance_log_start(part.log_start);
        self.cleaned_to = self.cleaned_to.max(part.cleaned_to);
        if let Some(producers) = part.producers {
            self.producers = producers;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
