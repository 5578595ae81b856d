//! The topics that exist: an image in memory of what the metadata store holds, and the only code that changes it.
//!
//! Invariants: a topic is durable in the metadata store before it is visible here; a topic's id is never used again; a
//! name that is created anew gets a new id. Reads never touch the metadata store.

mod config;
mod names;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use meta::error::{Error, Result};
use meta::keys::store as keys;
use meta::records::{self, TopicRecord};
use meta::seams::Random;
use meta::store::{MetaStore, Txn, TxnOutcome};
use parking_lot::RwLock;
use uuid::Uuid;

pub use config::{ConfigError, TopicConfig};
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
    pub config: TopicConfig,
}

/// The image. Cheap to clone.
#[derive(Clone)]
pub struct Topics {
    store: Arc<dyn MetaStore>,
    random: Random,
    message_max_bytes: usize,
    image: Arc<RwLock<Image>>,
    /// Creations and deletions are applied to the image in the order in which they were committed.
    changes: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Image {
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
    /// Reads what the store holds. `message_max_bytes` is the default of `max.message.bytes`.
    pub async fn load(store: Arc<dyn MetaStore>, random: Random, message_max_bytes: usize) -> Result<Self> {
        let mut image = Image::default();
        for entry in store.list(keys::TOPICS).await?.entries {
            let record: TopicRecord = records::decode(&entry.key, &entry.value)?;
            let name = keys::topic_name(&entry.key).unwrap_or_default();
            image.insert(Arc::new(Topic::from_record(name, record, message_max_bytes)?));
        }
        let image = Arc::new(RwLock::new(image));
        Ok(Self { store, random, message_max_bytes, image, changes: Arc::default() })
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
        configs: BTreeMap<String, String>,
        opened: impl FnOnce(&Arc<Topic>),
    ) -> Result<Created> {
        let _turn = self.changes.lock().await;
        if let Some(topic) = self.by_name(name) {
            return Ok(Created::Exists(topic));
        }
        let record = TopicRecord { id: self.random.uuid(), partitions, configs };
        let topic = Arc::new(Topic::from_record(name, record.clone(), self.message_max_bytes)?);
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
        let topic = Arc::new(Topic::from_record(name, record, self.message_max_bytes)?);
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

    /// Commits, and where the outcome is unknown reads the key back and asks `is_ours`.
    async fn settled(&self, txn: Txn, key: &str, is_ours: impl FnOnce(Option<&[u8]>) -> bool) -> Result<bool> {
        match self.store.commit(txn).await {
            Ok(TxnOutcome::Committed { .. }) => Ok(true),
            Ok(TxnOutcome::Conflict { .. }) => Ok(false),
            Err(Error::Unknown { .. }) => {
                Ok(is_ours(self.store.get(key).await?.as_ref().map(|entry| &entry.value[..])))
            }
            Err(error) => Err(error),
        }
    }
}

impl Topic {
    /// Belongs to the broker: clients may read it, never write it.
    pub fn is_internal(&self) -> bool {
        self.name == OFFSETS_TOPIC
    }

    fn from_record(name: &str, record: TopicRecord, message_max_bytes: usize) -> Result<Self> {
        let config = TopicConfig::parse(&record.configs, message_max_bytes).map_err(|error| Error::Corrupt {
            key: keys::topic(name),
            why: format!("its configuration is not one this version knows: {error}"),
        })?;
        Ok(Self { name: name.to_owned(), id: record.id, partitions: record.partitions, config })
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
