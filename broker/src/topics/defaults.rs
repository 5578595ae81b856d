//! Where the value of a configuration comes from if a topic says nothing: what was changed while the broker ran, what
//! it was started with, what is built in. The first of these that has a value counts.

use meta::error::{Error, Result};
use meta::keys::store as keys;
use meta::records::{self, BrokerConfigRecord};
use meta::store::MetaStore;

use super::config::{Configs, Row, find_by_broker_name};
use crate::config::BrokerConfig;

/// Where a value comes from, by the numbers of DescribeConfigs; the smaller ones count first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    Topic = 1,
    /// Changed for one broker while it ran.
    DynamicBroker = 2,
    /// Changed for all brokers while they ran.
    DynamicDefaultBroker = 3,
    /// The broker was started with it.
    StaticBroker = 4,
    Default = 5,
}

/// A value, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    pub name: String,
    pub value: String,
    pub source: Source,
}

/// What topics have if they say nothing.
#[derive(Debug, Clone)]
pub struct Defaults {
    broker_id: i32,
    message_max_bytes: usize,
    /// Changed for this broker.
    pub(super) own: Configs,
    /// Changed for all brokers.
    pub(super) all: Configs,
}

impl Defaults {
    /// Without anything that was changed while brokers ran.
    pub fn new(config: &BrokerConfig) -> Self {
        Self {
            broker_id: config.broker_id,
            message_max_bytes: config.message_max_bytes,
            own: Configs::new(),
            all: Configs::new(),
        }
    }

    pub(super) async fn load(store: &dyn MetaStore, config: &BrokerConfig) -> Result<Self> {
        let mut defaults = Self::new(config);
        for everyone in [true, false] {
            let key = defaults.key(everyone);
            let Some(entry) = store.get(&key).await? else { continue };
            let record: BrokerConfigRecord = records::decode(&key, &entry.value)?;
            check(&record.configs).map_err(|why| Error::Corrupt { key, why })?;
            *defaults.changed_mut(everyone) = record.configs;
        }
        Ok(defaults)
    }

    pub(super) fn key(&self, everyone: bool) -> String {
        keys::broker_configs((!everyone).then_some(self.broker_id))
    }

    /// What was changed for everyone, or for this broker.
    pub fn changed(&self, everyone: bool) -> &Configs {
        if everyone { &self.all } else { &self.own }
    }

    pub(super) fn changed_mut(&mut self, everyone: bool) -> &mut Configs {
        if everyone { &mut self.all } else { &mut self.own }
    }

    /// Every value that a configuration has here, the one that counts first.
    pub fn layers(&self, row: &Row) -> Vec<Layer> {
        let mut layers = Vec::with_capacity(2);
        let name = row.broker.unwrap_or(row.name);
        let mut add = |value: &str, source: Source| {
            layers.push(Layer { name: name.to_owned(), value: value.to_owned(), source });
        };
        for (changed, source) in [(&self.own, Source::DynamicBroker), (&self.all, Source::DynamicDefaultBroker)] {
            if let Some(value) = row.broker.and_then(|name| changed.get(name)) {
                add(value, source);
            }
        }
        if let Some(value) = self.static_value(row) {
            add(&value, Source::StaticBroker);
        }
        add(row.default, Source::Default);
        layers
    }

    /// What a topic has if it says nothing.
    pub fn value(&self, row: &Row) -> String {
        let changed = row.broker.and_then(|name| self.own.get(name).or_else(|| self.all.get(name)));
        changed.cloned().or_else(|| self.static_value(row)).unwrap_or_else(|| row.default.to_owned())
    }

    /// What the broker was started with, if that is not the default.
    fn static_value(&self, row: &Row) -> Option<String> {
        let value = (row.name == "max.message.bytes").then(|| self.message_max_bytes.to_string())?;
        (value != row.default).then_some(value)
    }
}

/// Are these values that brokers can be given while they run? The error says what is wrong.
pub fn check(configs: &Configs) -> std::result::Result<(), String> {
    for (name, value) in configs {
        let Some(row) = find_by_broker_name(name) else {
            return Err(format!("{name} cannot be changed while the broker runs"));
        };
        row.check(name, value).map_err(|error| error.to_string())?;
    }
    Ok(())
}
