//! The settings of the running broker under Kafka's names, as DescribeConfigs shows them. They cannot be changed while
//! it runs; what can is in the table of topic configurations.

use super::keys;
use super::values::Type;
use super::{BrokerConfig, Settings};

/// A setting, and what Kafka calls it; what Kafka does not know begins with `woodpecker.`.
const SETTINGS: &[(&str, &str, Type)] = &[
    ("auto.create.topics.enable", "auto_create_topics", Type::Boolean),
    ("broker.id", "broker_id", Type::Int),
    ("connections.max.idle.ms", "connections_max_idle_ms", Type::Long),
    ("fetch.max.bytes", "fetch_max_bytes", Type::Int),
    ("group.initial.rebalance.delay.ms", "group_initial_rebalance_delay_ms", Type::Int),
    ("group.max.session.timeout.ms", "group_max_session_timeout_ms", Type::Int),
    ("group.max.size", "group_max_size", Type::Int),
    ("group.min.session.timeout.ms", "group_min_session_timeout_ms", Type::Int),
    ("log.retention.check.interval.ms", "retention_check_interval_ms", Type::Long),
    ("max.connections", "max_connections", Type::Int),
    ("message.max.bytes", "message_max_bytes", Type::Int),
    ("node.id", "broker_id", Type::Int),
    ("num.partitions", "num_partitions", Type::Int),
    ("offset.metadata.max.bytes", "offset_metadata_max_bytes", Type::Int),
    ("offsets.retention.check.interval.ms", "offsets_retention_check_interval_ms", Type::Long),
    ("offsets.retention.minutes", "offsets_retention_minutes", Type::Int),
    ("offsets.topic.num.partitions", "offsets_topic_num_partitions", Type::Int),
    ("socket.request.max.bytes", "request_max_bytes", Type::Int),
    ("woodpecker.delete.delay.ms", "delete_delay_ms", Type::Long),
    ("woodpecker.flush.bytes", "flush_bytes", Type::Long),
    ("woodpecker.flush.interval.ms", "flush_interval_ms", Type::Long),
    ("woodpecker.max.producers.per.partition", "max_producers_per_partition", Type::Int),
    ("woodpecker.memory.bytes", "memory_bytes", Type::Long),
    ("woodpecker.merge.object.bytes", "merge_object_bytes", Type::Long),
    ("woodpecker.merge.part.bytes", "merge_part_bytes", Type::Long),
    ("woodpecker.put.budget.per.s", "put_budget_per_s", Type::Int),
    ("woodpecker.tail.bytes", "tail_bytes", Type::Long),
    ("woodpecker.tier.bytes", "tier_bytes", Type::Long),
    ("woodpecker.tier.interval.ms", "tier_interval_ms", Type::Long),
    ("woodpecker.tier.object.bytes", "tier_object_bytes", Type::Long),
];

/// What holds for every broker of this version, whatever its settings.
const FIXED: &[(&str, &str, Type, &str)] = &[
    (
        "default.replication.factor",
        "1",
        Type::Int,
        "Copies that brokers keep of a partition. The storage keeps the others.",
    ),
    ("delete.topic.enable", "true", Type::Boolean, "Whether topics can be deleted."),
];

/// One setting as DescribeConfigs shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub name: &'static str,
    pub value: String,
    /// None: the value is the default.
    pub default: Option<String>,
    pub kind: Type,
    pub help: &'static str,
}

/// What Kafka calls a setting, if it is one of the running broker's.
pub fn name_of(setting: &str) -> Option<&'static str> {
    SETTINGS.iter().find(|(_, key, _)| *key == setting).map(|(name, ..)| *name)
}

/// Everything that cannot be changed while the broker runs.
pub fn shown(config: &BrokerConfig) -> Vec<Shown> {
    let settings = Settings { broker: config.clone(), ..Settings::default() };
    let defaults = Settings::default();
    let mut all: Vec<Shown> = Vec::new();
    for (name, key, kind) in SETTINGS {
        let Some(key) = keys::find(key) else { continue };
        let (value, default) = (key.value(&settings), key.value(&defaults));
        let default = (value != default).then_some(default);
        all.push(Shown { name, value, default, kind: *kind, help: key.help });
    }
    for (name, value, kind, help) in FIXED {
        all.push(Shown { name, value: (*value).to_owned(), default: None, kind: *kind, help });
    }
    all.push(Shown {
        name: "advertised.listeners",
        value: format!("PLAINTEXT://{}:{}", config.advertised_host, config.advertised_port),
        default: Some(String::new()),
        kind: Type::List,
        help: "What clients are told to connect to.",
    });
    all
}

#[cfg(test)]
mod tests;
