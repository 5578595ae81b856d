//! A topic's configuration as the broker acts on it: what the topic sets, completed from the defaults, as numbers.

use super::config::{ConfigError, Configs, find};
use super::defaults::Defaults;
use crate::compression::{Codec, Compression, Levels};
use crate::config::values::items;

/// A topic's configuration as the broker acts on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicConfig {
    /// Largest record batch (`max.message.bytes`).
    pub max_message_bytes: usize,
    /// `compression.type` and the levels.
    pub compression: Compression,
    /// Records get the time of their append instead of their own (`message.timestamp.type`).
    pub log_append_time: bool,
    /// How far a record's own timestamp may lie behind the broker's clock.
    pub timestamp_before_max_ms: i64,
    /// How far a record's own timestamp may lie ahead of the broker's clock.
    pub timestamp_after_max_ms: i64,
    /// `cleanup.policy` has `compact`: every record needs a key.
    pub compacted: bool,
    /// `cleanup.policy` has `delete`: records may be deleted by their offset.
    pub deletable: bool,
    /// Records older than this go (`retention.ms`); negative: no limit.
    pub retention_ms: i64,
    /// What a partition has beyond this goes, the oldest first (`retention.bytes`); negative: no limit.
    pub retention_bytes: i64,
    /// How much is deleted or compacted at a time (`segment.bytes`).
    pub segment_bytes: u64,
    /// How long a record without a value outlives what it deletes (`delete.retention.ms`).
    pub delete_retention_ms: i64,
    /// Younger records are not compacted (`min.compaction.lag.ms`).
    pub min_compaction_lag_ms: i64,
    /// Older ones are, however few they are (`max.compaction.lag.ms`).
    pub max_compaction_lag_ms: i64,
    /// How much must not be compacted yet for it to be worth it (`min.cleanable.dirty.ratio`), in millionths of all.
    pub min_dirty_millionths: u32,
}

impl TopicConfig {
    /// Checks what a topic sets, and completes it from the defaults.
    pub fn resolve(own: &Configs, defaults: &Defaults) -> Result<Self, ConfigError> {
        for (name, value) in own {
            let row = find(name).ok_or_else(|| ConfigError(format!("Unknown topic config name: {name}")))?;
            row.check(name, value)?;
        }
        let text = |name: &str| match (own.get(name), find(name)) {
            (Some(value), _) => value.trim().to_owned(),
            (None, Some(row)) => defaults.value(row).trim().to_owned(),
            (None, None) => String::new(),
        };
        // All that can be in a layer has passed its row's check.
        let number = |name: &str| text(name).parse::<i64>().unwrap_or(i64::MAX);
        if number("min.compaction.lag.ms") > number("max.compaction.lag.ms") {
            return Err(ConfigError(format!(
                "conflict: min.compaction.lag.ms ({}) is more than max.compaction.lag.ms ({})",
                number("min.compaction.lag.ms"),
                number("max.compaction.lag.ms")
            )));
        }
        let policy = text("cleanup.policy");
        let level = |name: &str, default: i32| text(name).parse().unwrap_or(default);
        let Levels { gzip, zstd } = Levels::default();
        let levels =
            Levels { gzip: level("compression.gzip.level", gzip), zstd: level("compression.zstd.level", zstd) };
        Ok(Self {
            max_message_bytes: usize::try_from(number("max.message.bytes")).unwrap_or(0),
            compression: Compression { codec: Codec::from_name(&text("compression.type")), levels },
            log_append_time: text("message.timestamp.type") == "LogAppendTime",
            timestamp_before_max_ms: number("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: number("message.timestamp.after.max.ms"),
            compacted: items(&policy).any(|item| item == "compact"),
            deletable: items(&policy).any(|item| item == "delete"),
            retention_ms: number("retention.ms"),
            retention_bytes: number("retention.bytes"),
            delete_retention_ms: number("delete.retention.ms"),
            min_compaction_lag_ms: number("min.compaction.lag.ms"),
            max_compaction_lag_ms: number("max.compaction.lag.ms"),
            min_dirty_millionths: millionths(&text("min.cleanable.dirty.ratio")),
            segment_bytes: u64::try_from(number("segment.bytes")).unwrap_or(u64::MAX),
        })
    }
}

/// A share as text, which has passed its row's check.
fn millionths(share: &str) -> u32 {
    (share.parse::<f64>().unwrap_or(1.0) * 1e6) as u32
}

#[cfg(test)]
mod tests;
