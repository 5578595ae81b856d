//! Changes of what exists: configurations, more partitions, higher log start offsets.
//!
//! A change is a compare-and-swap of one record in the metadata store. Invariants: it is durable there before anybody
//! sees it here; it is made of what is stored, not of what is remembered, so that no other change is lost; a change of
//! unknown outcome is read back before anything is decided.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use meta::error::{Error, Result};
use meta::keys::store as keys;
use meta::planted;
use meta::records::{self, BrokerConfigRecord, TopicRecord};
use meta::store::Txn;

use super::config::Configs;
use super::defaults::{self, Defaults};
use super::edits::{Edits, Refusal, Scope};
use super::effective::TopicConfig;
use super::{Topic, Topics};
use crate::error::admin_code_for;

/// Somebody else changes the same record: so often it is tried anew.
const ATTEMPTS: u32 = 8;

/// Why a change was not made.
#[derive(Debug)]
pub enum ChangeError {
    Refused(Refusal),
    /// The topic is not, or no longer, there.
    NoSuchTopic,
    Store(Error),
}

impl From<Error> for ChangeError {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<Refusal> for ChangeError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl ChangeError {
    /// What an admin client is told.
    pub fn refusal(self) -> Refusal {
        match self {
            ChangeError::Refused(refusal) => refusal,
            ChangeError::NoSuchTopic => {
                (ResponseError::UnknownTopicOrPartition, "This server does not host this topic-partition.".to_owned())
            }
            ChangeError::Store(error) => (admin_code_for(error.kind()), error.to_string()),
        }
    }
}

impl Topics {
    /// Changes a topic's configuration, or only checks whether that could be done.
    pub async fn alter_topic(&self, topic: &Topic, edits: &Edits, check_only: bool) -> Result<(), ChangeError> {
        let defaults = self.defaults();
        let edit = |record: &mut TopicRecord| {
            edits.apply(Scope::Topic, &mut record.configs, &defaults)?;
            TopicConfig::resolve(&record.configs, &defaults)
                .map(drop)
                .map_err(|error| (ResponseError::InvalidConfig, error.to_string()))
        };
        if check_only {
            return Ok(edit(&mut topic.record())?);
        }
        let changed = self.change(topic, edit, |_| ()).await?;
        tracing::info!(topic = changed.name, configs = ?changed.configs, "changed a topic's configuration");
        Ok(())
    }

    /// Adds partitions up to `count`. `opened` runs once that is durable and before anybody can see it.
    pub async fn add_partitions(
        &self,
        topic: &Topic,
        count: i32,
        opened: impl FnOnce(&Arc<Topic>),
    ) -> Result<(), ChangeError> {
        let edit = |record: &mut TopicRecord| {
            check_increase(&topic.name, record.partitions, count)?;
            record.partitions = count;
            Ok(())
        };
        let changed = self.change(topic, edit, opened).await?;
        tracing::info!(topic = changed.name, partitions = count, "added partitions to a topic");
        Ok(())
    }

    /// Moves the beginning of partitions up; where it is higher already, it stays. `moved` runs once that is durable.
    pub async fn raise_log_starts(
        &self,
        topic: &Topic,
        starts: &BTreeMap<i32, i64>,
        moved: impl FnOnce(),
    ) -> Result<(), ChangeError> {
        let edit = |record: &mut TopicRecord| {
            for (partition, offset) in starts {
                let start = record.log_starts.entry(*partition).or_insert(0);
                *start = (*start).max(*offset);
            }
            Ok(())
        };
        self.change(topic, edit, |_| moved()).await.map(drop)
    }

    /// Changes what topics have that say nothing: for this broker or for all of them. Or only checks whether that could
    /// be done.
    pub async fn alter_broker(&self, everyone: bool, edits: &Edits, check_only: bool) -> Result<(), ChangeError> {
        let edit = |configs: &mut Configs, defaults: &Defaults| -> Result<Defaults, Refusal> {
            // The code that Kafka gives whatever is wrong with a broker's configuration (KAFKA-13609).
            let refuse = |why: String| (ResponseError::InvalidRequest, why);
            edits.apply(Scope::Broker, configs, defaults)?;
            defaults::check(configs).map_err(refuse)?;
            let mut changed = defaults.clone();
            changed.changed_mut(everyone).clone_from(configs);
            // Values that are right each for themselves may contradict each other, or what a topic sets.
            TopicConfig::resolve(&Configs::new(), &changed).map_err(|error| refuse(error.to_string()))?;
            for topic in self.all() {
                TopicConfig::resolve(&topic.configs, &changed)
                    .map_err(|error| refuse(format!("for topic {}: {error}", topic.name)))?;
            }
            Ok(changed)
        };
        let _turn = self.changes.lock().await;
        let defaults = self.defaults();
        let key = defaults.key(everyone);
        for _ in 0..ATTEMPTS {
            let found = self.store.get(&key).await?;
            let mut record: BrokerConfigRecord = match &found {
                Some(entry) => records::decode(&key, &entry.value)?,
                None => BrokerConfigRecord::default(),
            };
            let changed = edit(&mut record.configs, &defaults)?;
            if check_only {
                return Ok(());
            }
            let bytes = records::encode(&record);
            let revision = found.map_or(0, |entry| entry.mod_revision);
            let txn = Txn::new().if_revision(&key, revision).put(&key, bytes.clone());
            if self.settled(txn, &key, |found| found == Some(&bytes[..])).await? {
                self.redefine(changed);
                tracing::info!(everyone, configs = ?record.configs, "changed the configuration of brokers");
                return Ok(());
            }
        }
        Err(contended(key))
    }

    /// Every topic is completed from these defaults from now on.
    fn redefine(&self, defaults: Defaults) {
        let mut image = self.image.write();
        let topics: Vec<_> = image.by_name.values().cloned().collect();
        for topic in topics {
            match TopicConfig::resolve(&topic.configs, &defaults) {
                Ok(config) => image.insert(Arc::new(Topic { config, ..Topic::clone(&topic) })),
                // Cannot be: this was checked, and nothing has changed since.
                Err(error) => tracing::error!(topic = topic.name, %error, "a topic contradicts its defaults"),
            }
        }
        image.defaults = defaults;
    }

    /// Changes a topic's record. `applied` runs once that is durable and before anybody can see it.
    async fn change(
        &self,
        topic: &Topic,
        edit: impl Fn(&mut TopicRecord) -> Result<(), Refusal>,
        applied: impl FnOnce(&Arc<Topic>),
    ) -> Result<Arc<Topic>, ChangeError> {
        let _turn = self.changes.lock().await;
        let key = keys::topic(&topic.name);
        for _ in 0..ATTEMPTS {
            let found = self.store.get(&key).await?.ok_or(ChangeError::NoSuchTopic)?;
            let mut record: TopicRecord = records::decode(&key, &found.value)?;
            if record.id != topic.id || self.by_id(topic.id).is_none() {
                return Err(ChangeError::NoSuchTopic);
            }
            edit(&mut record)?;
            let changed = Arc::new(Topic::from_record(&topic.name, record.clone(), &self.defaults())?);
            let bytes = records::encode(&record);
            let txn = Txn::new().if_revision(&key, found.mod_revision).put(&key, bytes.clone());
            // Nothing to change is durable already.
            if bytes == found.value
                || planted::bug("topic-change-not-durable")
                || self.settled(txn, &key, |found| found == Some(&bytes[..])).await?
            {
                fail::fail_point!("topics::changed");
                applied(&changed);
                self.image.write().insert(changed.clone());
                return Ok(changed);
            }
        }
        Err(contended(key))
    }
}

/// Kafka's rule and words for more partitions.
pub fn check_increase(name: &str, current: i32, count: i32) -> Result<(), Refusal> {
    let refuse = |text: String| Err((ResponseError::InvalidPartitions, text));
    if count == current {
        return refuse(format!("Topic already has {current} partition(s)."));
    }
    if count < current {
        return refuse(format!(
            "The topic {name} currently has {current} partition(s); {count} would not be an increase."
        ));
    }
    if count > super::MAX_PARTITIONS {
        return refuse(format!("{count} partitions; the most allowed are {}", super::MAX_PARTITIONS));
    }
    Ok(())
}

fn contended(key: String) -> ChangeError {
    let source = format!("others changed it {ATTEMPTS} times meanwhile").into();
    ChangeError::Store(Error::Unavailable { what: key, source })
}
