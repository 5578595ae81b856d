//! What can be configured for one topic, under Kafka's names.
//!
//! Every name is either enforced, or checked and kept for the retention and compaction that are not there yet, or
//! refused: nothing is accepted and silently ignored. The table below says which.

use std::collections::BTreeMap;

/// A topic's configuration as the broker uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicConfig {
    /// Largest record batch (`max.message.bytes`).
    pub max_message_bytes: usize,
}

/// Why a configuration is refused; the text names the key and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// What a value must look like.
#[derive(Clone, Copy)]
enum Values {
    /// Whole numbers from .. to (inclusive).
    Number(i64, i64),
    OneOf(&'static [&'static str]),
    /// A comma-separated list of these.
    ListOf(&'static [&'static str]),
    /// Any decimal fraction between 0 and 1.
    Ratio,
}

/// Kafka's name, and what is allowed. Everything else is refused by name.
const KNOWN: &[(&str, Values)] = &[
    // Enforced.
    ("max.message.bytes", Values::Number(0, i32::MAX as i64)),
    ("compression.type", Values::OneOf(&["producer"])),
    ("message.timestamp.type", Values::OneOf(&["CreateTime"])),
    ("min.insync.replicas", Values::OneOf(&["1"])),
    ("unclean.leader.election.enable", Values::OneOf(&["false"])),
    // Kept for retention and compaction: until these exist, nothing is ever deleted.
    ("cleanup.policy", Values::ListOf(&["delete", "compact"])),
    ("retention.ms", Values::Number(-1, i64::MAX)),
    ("retention.bytes", Values::Number(-1, i64::MAX)),
    ("segment.bytes", Values::Number(14, i32::MAX as i64)),
    ("segment.ms", Values::Number(1, i64::MAX)),
    ("delete.retention.ms", Values::Number(0, i64::MAX)),
    ("file.delete.delay.ms", Values::Number(0, i64::MAX)),
    ("min.compaction.lag.ms", Values::Number(0, i64::MAX)),
    ("max.compaction.lag.ms", Values::Number(1, i64::MAX)),
    ("min.cleanable.dirty.ratio", Values::Ratio),
];

impl TopicConfig {
    /// Checks all keys and values. `message_max_bytes` is the broker's default.
    pub fn parse(configs: &BTreeMap<String, String>, message_max_bytes: usize) -> Result<Self, ConfigError> {
        let mut config = Self { max_message_bytes: message_max_bytes };
        for (key, value) in configs {
            let (_, values) = KNOWN.iter().find(|(known, _)| known == key).ok_or_else(|| {
                ConfigError(format!("{key} is not a topic configuration that this broker implements"))
            })?;
            values.check(key, value)?;
            if key == "max.message.bytes" {
                config.max_message_bytes = value.trim().parse().unwrap_or(message_max_bytes);
            }
        }
        Ok(config)
    }
}

impl Values {
    fn check(self, key: &str, value: &str) -> Result<(), ConfigError> {
        let refuse = |allowed: String| Err(ConfigError(format!("{key}={value} is refused: {allowed}")));
        match self {
            Values::Number(from, to) => match value.trim().parse::<i64>() {
                Ok(number) if (from..=to).contains(&number) => Ok(()),
                _ => refuse(format!("it must be a whole number from {from} to {to}")),
            },
            Values::OneOf(allowed) if allowed.contains(&value.trim()) => Ok(()),
            Values::OneOf(allowed) => refuse(format!("this broker implements only {}", allowed.join(", "))),
            Values::ListOf(allowed) if value.split(',').all(|item| allowed.contains(&item.trim())) => Ok(()),
            Values::ListOf(allowed) => refuse(format!("it must be a list of {}", allowed.join(", "))),
            Values::Ratio => match value.trim().parse::<f64>() {
                Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(()),
                _ => refuse("it must be a number between 0 and 1".to_owned()),
            },
        }
    }
}
