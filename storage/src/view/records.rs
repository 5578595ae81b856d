//! The records of the metadata store, decoded, and checked against each other.

use std::collections::BTreeMap;

use meta::error::Error as MetaError;
use meta::frozen::Frozen;
use meta::keys::store as keys;
use meta::records::{
    BrokerConfigRecord, ClusterRecord, LogCounterRecord, LogRecord, LogState, ManifestRecord, ProducerIdRecord,
    StorageRecord, TopicRecord, decode,
};
use uuid::Uuid;

use super::{About, Problem};
use crate::entry::FragmentId;
use crate::error::{Error, Result};
use crate::registry;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    pub name: String,
    pub record: TopicRecord,
}

/// What the metadata says.
#[derive(Debug, Default)]
pub struct Records {
    pub cluster_id: Option<String>,
    pub storage_id: Option<String>,
    /// The number of the newest log; 0 if there is none.
    pub newest: u64,
    pub logs: BTreeMap<u64, LogRecord>,
    pub manifest: Option<ManifestRecord>,
    pub topics: BTreeMap<Uuid, Topic>,
    /// Keys that this program knows nothing of.
    pub unknown: Vec<String>,
}

impl Records {
    /// Also what is wrong with them. Fails only if a newer program wrote one.
    pub async fn decode(meta: &Frozen) -> Result<(Self, Vec<Problem>)> {
        let mut records = Self::default();
        let mut problems = Vec::new();
        for entry in meta.entries() {
            match records.take(meta, &entry.key, &entry.value).await {
                Err(Error::Corrupt { key, why } | Error::Meta(MetaError::Corrupt { key, why })) => {
                    problems.push(Problem { key, why, about: About::Metadata });
                }
                Err(error) => return Err(error),
                Ok(()) => {}
            }
        }
        problems.extend(records.contradictions());
        Ok((records, problems))
    }

    /// The first fragment that the manifest does not have.
    pub fn position(&self) -> FragmentId {
        match &self.manifest {
            Some(ManifestRecord { position, .. }) => {
                FragmentId { log: position.log, segment: position.segment, fragment: position.fragment }
            }
            None => FragmentId { log: 0, segment: 0, fragment: 0 },
        }
    }

    async fn take(&mut self, meta: &Frozen, key: &str, value: &[u8]) -> Result<()> {
        match key {
            keys::CLUSTER => self.cluster_id = Some(decode::<ClusterRecord>(key, value)?.id),
            keys::STORAGE => self.storage_id = Some(decode::<StorageRecord>(key, value)?.id),
            keys::PRODUCER_IDS => {
                decode::<ProducerIdRecord>(key, value)?;
            }
            keys::LOG_COUNTER => self.newest = decode::<LogCounterRecord>(key, value)?.newest,
            keys::MANIFEST => self.manifest = Some(decode(key, value)?),
            _ => match (keys::topic_name(key), key.strip_prefix(keys::LOGS)) {
                (Some(name), _) => self.take_topic(key, name, decode(key, value)?)?,
                (None, Some(number)) => {
                    let why = || "it does not end with a log's number".to_owned();
                    let number = number.parse().map_err(|_| Error::Corrupt { key: key.to_owned(), why: why() })?;
                    self.logs.insert(number, registry::load(meta, number).await?.0);
                }
                _ if key.starts_with("configs/brokers/") => {
                    decode::<BrokerConfigRecord>(key, value)?;
                }
                _ => self.unknown.push(key.to_owned()),
            },
        }
        Ok(())
    }

    fn take_topic(&mut self, key: &str, name: &str, record: TopicRecord) -> Result<()> {
        let id = record.id;
        match self.topics.insert(id, Topic { name: name.to_owned(), record }) {
            None => Ok(()),
            Some(other) => {
                Err(Error::Corrupt { key: key.to_owned(), why: format!("topic {} has the same id", other.name) })
            }
        }
    }

    /// What no transaction of a broker can have left.
    fn contradictions(&self) -> Vec<Problem> {
        let problem = |key: String, why: String| Problem { key, why, about: About::Metadata };
        let mut problems = Vec::new();
        let highest = self.logs.keys().next_back().copied().unwrap_or(0);
        if highest != self.newest {
            let why = format!("it says {}, but the newest log is {highest}", self.newest);
            problems.push(problem(keys::LOG_COUNTER.to_owned(), why));
        }
        for (number, record) in &self.logs {
            if *number < highest && record.state != LogState::Sealed {
                let why = format!("it is not sealed, although log {highest} was registered after it");
                problems.push(problem(keys::log(*number), why));
            }
        }
        let position = self.position();
        let is_known = self.logs.get(&position.log).is_some_and(|log| (position.segment as usize) < log.segments.len());
        if self.manifest.is_some() && !is_known && position.log > 0 {
            problems.push(problem(keys::MANIFEST.to_owned(), format!("its position {position} is in no log")));
        }
        problems
    }
}
