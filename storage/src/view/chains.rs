//! What the manifest and the fragments after it come to for every partition: the same rules by which a start replays them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{About, Problem, Records};
use crate::entry::{FragmentIndex, Run, TopicPartition};
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::partition_index::PartitionIndex;

/// One partition, from its log start to the end of what is stored.
#[derive(Debug, Clone)]
pub struct Chain {
    pub index: PartitionIndex,
    /// The manifest has what lies below.
    pub manifest_end: i64,
    /// Offsets below it are compacted.
    pub cleaned_to: i64,
    /// The producers' state in the manifest, in the broker's own form.
    pub producers: Bytes,
}

pub(super) struct Chains<'a> {
    records: &'a Records,
    chains: BTreeMap<TopicPartition, Chain>,
    /// What does not join takes in nothing more.
    damaged: BTreeSet<TopicPartition>,
    problems: Vec<Problem>,
}

impl<'a> Chains<'a> {
    pub fn new(records: &'a Records, manifest: &Manifest) -> Self {
        let mut chains = BTreeMap::new();
        for (id, topic) in &records.topics {
            for partition in 0..topic.record.partitions {
                let id = TopicPartition { topic: *id, partition };
                let chain = match manifest.partitions.get(&id) {
                    Some(checkpoint) => Chain {
                        index: checkpoint.index.clone(),
                        manifest_end: checkpoint.index.next_offset(),
                        cleaned_to: checkpoint.cleaned_to,
                        producers: checkpoint.producers.clone(),
                    },
                    None => Chain {
                        index: PartitionIndex::new(id, 0),
                        manifest_end: 0,
                        cleaned_to: 0,
                        producers: Bytes::new(),
                    },
                };
                chains.insert(id, chain);
            }
        }
        Self { records, chains, damaged: BTreeSet::new(), problems: Vec::new() }
    }

    /// Takes in the next fragment.
    pub fn replay(&mut self, index: &FragmentIndex) {
        for indexed in &index.runs {
            let id = indexed.partition;
            let Some(chain) = self.chains.get_mut(&id).filter(|_| !self.damaged.contains(&id)) else { continue };
            if let Err(error) = chain.append(indexed.run) {
                self.damage(id, &error);
            }
        }
    }

    /// All partitions as clients see them, and which are damaged.
    pub fn finish(mut self) -> (BTreeMap<TopicPartition, Chain>, Vec<Problem>) {
        for (topic, found) in &self.records.topics {
            for (partition, offset) in &found.record.log_starts {
                let id = TopicPartition { topic: *topic, partition: *partition };
                let Some(chain) = self.chains.get_mut(&id) else { continue };
                let end = chain.index.next_offset();
                chain.index.advance_log_start(*offset);
                if end < *offset && !self.damaged.contains(&id) {
                    let why = format!("it begins at offset {offset}, but its data ends at {end}");
                    self.damage(id, &Error::Corrupt { key: String::new(), why });
                }
            }
        }
        (self.chains, self.problems)
    }

    fn damage(&mut self, id: TopicPartition, error: &Error) {
        self.damaged.insert(id);
        let name = self.records.topics.get(&id.topic).map_or("?", |topic| topic.name.as_str());
        let why = match error {
            Error::Corrupt { why, .. } => why.clone(),
            error => error.to_string(),
        };
        let key = format!("partition {name}-{}", id.partition);
        self.problems.push(Problem { key, why, about: About::Partition(id) });
    }
}

impl Chain {
    fn append(&mut self, run: Run) -> Result<()> {
        if self.index.is_empty() && run.next_offset <= self.index.log_start() {
            // It was deleted before upkeep came to its fragment.
            return Ok(());
        }
        self.index.append(run)
    }
}
