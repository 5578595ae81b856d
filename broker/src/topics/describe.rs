//! Configurations as DescribeConfigs and CreateTopics show them: every one of a topic or of a broker, where its value
//! comes from, and what it would be otherwise.

use super::config::{Configs, table::TABLE};
use super::defaults::{Defaults, Layer, Source};
use crate::config::BrokerConfig;
use crate::config::kafka;
use crate::config::values::Type;

/// Kafka's brokers have the defaults of these in other units or nowhere, so that they are no synonyms.
const WITHOUT_BROKER_DEFAULT: &[&str] = &["flush.ms", "retention.ms", "segment.jitter.ms", "segment.ms"];

/// One configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    pub name: &'static str,
    pub kind: Type,
    /// It cannot be changed while the broker runs.
    pub read_only: bool,
    pub documentation: String,
    /// The first counts; there is at least one.
    pub layers: Vec<Layer>,
    /// What is built in is one of the layers that clients are told of.
    pub tells_default: bool,
}

impl Described {
    /// The layers that clients are told of.
    pub fn synonyms(&self) -> impl Iterator<Item = &Layer> {
        self.layers.iter().filter(|layer| self.tells_default || layer.source != Source::Default)
    }

    pub fn value(&self) -> &str {
        self.layers.first().map_or("", |layer| &layer.value)
    }

    pub fn source(&self) -> Source {
        self.layers.first().map_or(Source::Default, |layer| layer.source)
    }
}

/// Every configuration of a topic that sets these itself.
pub fn topic(own: &Configs, defaults: &Defaults) -> Vec<Described> {
    let described = TABLE.iter().map(|row| {
        let mut layers = defaults.layers(row);
        if let Some(value) = own.get(row.name) {
            layers.insert(0, Layer { name: row.name.to_owned(), value: value.clone(), source: Source::Topic });
        }
        Described {
            name: row.name,
            kind: row.values.kind(),
            read_only: false,
            documentation: row.documentation(),
            layers,
            tells_default: row.broker.is_some() && !WITHOUT_BROKER_DEFAULT.contains(&row.name),
        }
    });
    described.collect()
}

/// Every configuration of this broker.
pub fn broker(defaults: &Defaults, config: &BrokerConfig) -> Vec<Described> {
    let mut all = changeable(|row| defaults.layers(row));
    for shown in kafka::shown(config) {
        if all.iter().any(|known| known.name == shown.name) {
            continue;
        }
        let layer = |value: String, source: Source| Layer { name: shown.name.to_owned(), value, source };
        let layers = match shown.default {
            None => vec![layer(shown.value, Source::Default)],
            Some(default) if default.is_empty() => vec![layer(shown.value, Source::StaticBroker)],
            Some(default) => vec![layer(shown.value, Source::StaticBroker), layer(default, Source::Default)],
        };
        let documentation = shown.help.to_owned();
        let kind = shown.kind;
        all.push(Described { name: shown.name, kind, read_only: true, documentation, layers, tells_default: true });
    }
    all.sort_by_key(|described| described.name);
    all
}

/// What was changed for all brokers while they ran.
pub fn all_brokers(defaults: &Defaults) -> Vec<Described> {
    let mut all = changeable(|row| {
        let mut layers = defaults.layers(row);
        layers.retain(|layer| layer.source == Source::DynamicDefaultBroker);
        layers
    });
    all.sort_by_key(|described| described.name);
    all
}

/// What a broker can be given while it runs: the defaults of topics. Only those that have any of these values.
fn changeable(layers: impl Fn(&super::config::Row) -> Vec<Layer>) -> Vec<Described> {
    let described = TABLE.iter().filter_map(|row| {
        let name = row.broker?;
        let layers = layers(row);
        let documentation = format!("The default of {} for topics. {}", row.name, row.documentation());
        let kind = row.values.kind();
        let described = Described { name, kind, read_only: false, documentation, layers, tells_default: true };
        (!described.layers.is_empty()).then_some(described)
    });
    described.collect()
}
