//! The topics that exist: an image in memory of what the metadata store holds, and the only code that changes it.
//!
//! Invariants: a topic is durable in the metadata store before it is visible here; a topic's id is never used again; a
//! name that is created anew gets a new id. Reads never touch the metadata store.

pub mod config;
mod names;

/// What topics have that say nothing.
pub mod defaults;

/// What the broker acts on.
mod effective;

pub mod describe;

/// Changes as clients ask for them.
pub mod edits;

mod changes;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use meta::error::{Error, Result};
use meta::keys::store as keys;
use meta::records::{self, TopicRecord};
use meta::seams::Random;
use meta::store::{Compare, MetaStore, Txn, TxnOutcome};
use parking_lot::RwLock;
use uuid::Uuid;

use crate::config::BrokerConfig;

pub use changes::{ChangeError, check_increase};
pub use config::{ConfigError, Configs};
pub use defaults::Defaults;
pub use effective::TopicConfig;
pub use names::check_name;

/// Largest number of partitions of one topic.
pub const MAX_PARTITIONS: i32 = 100_000;

/// Where group coordinators keep their state. Written by them only.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// One topic. Immutable: a change makes a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    pub name: String,
    pub id: Uuid,
    pub partitions: i32,
    /// What it sets itself.
    pub configs: Configs,
    /// What holds for it.
    pub config: TopicConfig,
    /// Where partitions begin that had records deleted, as far as that is recorded.
    pub log_starts: BTreeMap<i32, i64>,
}

/// The image. Cheap to clone.
#[derive(Clone)]
pub struct Topics {
    store: Arc<dyn MetaStore>,
    random: Random,
    image: Arc<RwLock<Image>>,
    /// Creations, changes and deletions are applied to the image in the order in which they were committed.
    changes: Arc<tokio::sync::Mutex<()>>,
}

struct Image {
    defaults: Defaults,
    by_name: BTreeMap<String, Arc<Topic>>,
    by_id: BTreeMap<Uuid, Arc<Topic>>,
}

/// How a creation ended.
#[derive(Debug, Clone)]
pub enum Created {
    New(Arc<Topic>),
    /// Somebody was faster, or it was there all along.
    Exists(Arc<Topic>),
}

impl Topics {
    /// Reads what the store holds.
    pub async fn load(store: Arc<dyn MetaStore>, random: Random, config: &BrokerConfig) -> Result<Self> {
        let defaults = Defaults::load(&*store, config).await?;
        let mut image = Image { defaults, by_name: BTreeMap::new(), by_id: BTreeMap::new() };
        for entry in store.list(keys::TOPICS).await?.entries {
            let record: TopicRecord = records::decode(&entry.key, &entry.value)?;
            let name = keys::topic_name(&entry.key).unwrap_or_default();
            let topic = Arc::new(Topic::from_record(name, record, &image.defaults)?);
            image.insert(topic);
        }
        let image = Arc::new(RwLock::new(image));
        Ok(Self { store, random, image, changes: Arc::default() })
    }

    /// What topics have now that say nothing.
    pub fn defaults(&self) -> Defaults {
        self.image.read().defaults.clone()
    }

    pub fn by_name(&self, name: &str) -> Option<Arc<Topic>> {
        self.image.read().by_name.get(name).cloned()
    }

    pub fn by_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        self.image.read().by_id.get(&id).cloned()
    }

    /// All topics, by name.
    pub fn all(&self) -> Vec<Arc<Topic>> {
        self.image.read().by_name.values().cloned().collect()
    }

    /// Creates a topic with checked arguments. `opened` runs once it is durable and before anybody can see it.
    pub async fn create(
        &self,
        name: &str,
        partitions: i32,
        configs: Configs,
        opened: impl FnOnce(&Arc<Topic>),
    ) -> Result<Created> {
        let _turn = self.changes.lock().await;
        if let Some(topic) = self.by_name(name) {
            return Ok(Created::Exists(topic));
        }
        let record = TopicRecord { id: self.random.uuid(), partitions, configs, log_starts: BTreeMap::new() };
        let topic = Arc::new(Topic::from_record(name, record.clone(), &self.defaults())?);
        let key = keys::topic(name);
        let txn = Txn::new().if_absent(&key).put(&key, records::encode(&record));
        match self.settled(txn, &key, |found| found == Some(&records::encode(&record)[..])).await? {
            true => {
                opened(&topic);
                self.image.write().insert(topic.clone());
                Ok(Created::New(topic))
            }
            false => self.adopt(&key, name, opened).await,
        }
    }

    /// The topic is durable and the image does not know it: an earlier attempt was committed, but ended before it was
    /// told so.
    async fn adopt(&self, key: &str, name: &str, opened: impl FnOnce(&Arc<Topic>)) -> Result<Created> {
        let Some(found) = self.store.get(key).await? else {
            return Err(Error::Unknown { what: format!("topic {name} was there and is gone") });
        };
        let record = records::decode(key, &found.value)?;
        let topic = Arc::new(Topic::from_record(name, record, &self.defaults())?);
        opened(&topic);
        self.image.write().insert(topic.clone());
        Ok(Created::Exists(topic))
    }

    /// Deletes a topic: first the reference, then, through `closed`, what it referred to. False if it does not exist.
    pub async fn delete(&self, topic: &Topic, closed: impl FnOnce(&Topic)) -> Result<bool> {
        let _turn = self.changes.lock().await;
        if self.by_id(topic.id).is_none() {
            return Ok(false);
        }
        let key = keys::topic(&topic.name);
        let gone = match self.store.get(&key).await? {
            Some(found) => {
                let txn = Txn::new().if_revision(&key, found.mod_revision).delete(&key);
                self.settled(txn, &key, |found| found.is_none()).await?
            }
            // By an earlier attempt, which ended before it was told so.
            None => true,
        };
        if gone {
            self.image.write().remove(topic);
            closed(topic);
        }
        Ok(gone)
    }

    /// Commits a transaction that compares the key's revision; false if somebody else changed it first. Where the outcome
    /// is unknown the key is read back, and `is_ours` asked about its value. A key that is still at the compared revision
    /// proves nothing, for the transaction may yet be applied: then the outcome stays unknown.
    async fn settled(&self, txn: Txn, key: &str, is_ours: impl FnOnce(Option<&[u8]>) -> bool) -> Result<bool> {
        let compared = txn.compares.iter().find_map(|compare| match compare {
            Compare::ModRevision { key: compared, revision } if compared == key => Some(*revision),
            _ => None,
        });
        let unknown = match self.store.commit(txn).await {
            Ok(TxnOutcome::Committed { .. }) => return Ok(true),
            Ok(TxnOutcome::Conflict { .. }) => return Ok(false),
            Err(error @ Error::Unknown { .. }) => error,
            Err(error) => return Err(error),
        };
        let found = self.store.get(key).await?;
        let revision = found.as_ref().map_or(0, |entry| entry.mod_revision);
        match is_ours(found.as_ref().map(|entry| &entry.value[..])) {
            true => Ok(true),
            false if compared == Some(revision) => Err(unknown),
            false => Ok(false),
        }
    }
}

impl Topic {
    /// Belongs to the broker: clients may read it, never write it.
    pub fn is_internal(&self) -> bool {
        self.name == OFFSETS_TOPIC
    }

    fn from_record(name: &str, record: TopicRecord, defaults: &Defaults) -> Result<Self> {
        let config = TopicConfig::resolve(&record.configs, defaults).map_err(|error| Error::Corrupt {
            key: keys::topic(name),
            why: format!("its configuration is not one this version knows: {error}"),
        })?;
        let TopicRecord { id, partitions, configs, log_starts } = record;
        Ok(Self { name: name.to_owned(), id, partitions, configs, config, log_starts })
    }

    fn record(&self) -> TopicRecord {
        TopicRecord {
            id: self.id,
            partitions: self.partitions,
            configs: self.configs.clone(),
            log_starts: self.log_starts.clone(),
        }
    }
}

impl Image {
    fn insert(&mut self, topic: Arc<Topic>) {
        self.by_id.insert(topic.id, topic.clone());
        self.by_name.insert(topic.name.clone(), topic);
    }

    fn remove(&mut self, topic: &Topic) {
        self.by_id.remove(&topic.id);
        if self.by_name.get(&topic.name).is_some_and(|found| found.id == topic.id) {
            self.by_name.remove(&topic.name);
        }
    }
}
