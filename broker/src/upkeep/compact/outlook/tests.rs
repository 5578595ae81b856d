//! When a partition is compacted, and when that becomes due by itself.

use storage::entry::{FragmentId, TopicPartition};
use uuid::Uuid;

use super::*;
use crate::config::BrokerConfig;
use crate::topics::Defaults;
use crate::topics::config::Configs;

/// Runs of ten offsets and 100 bytes each, with these highest timestamps.
fn index(timestamps: &[i64]) -> PartitionIndex {
    let mut index = PartitionIndex::new(TopicPartition { topic: Uuid::nil(), partition: 0 }, 0);
    for (number, timestamp) in (0_i64..).zip(timestamps) {
        let run = Run {
            fragment: FragmentId::tiered(1, number as u64),
            base_offset: number * 10,
            next_offset: number * 10 + 10,
            max_timestamp: *timestamp,
            leader_epoch: 1,
            file_position: 0,
            position: 80,
            length: 100,
            index_position: 180,
            index_length: 64,
        };
        index.append(run).unwrap();
    }
    index
}

fn outlook(
    timestamps: &[i64],
    cleaned_to: i64,
    end: i64,
    settings: &[(&str, &str)],
    now_ms: i64,
) -> (i64, Option<i64>) {
    let settings = settings.iter().chain(&[("cleanup.policy", "compact")]);
    let configs: Configs = settings.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let config = TopicConfig::resolve(&configs, &Defaults::new(&BrokerConfig::default())).unwrap();
    let found = Outlook::of(&index(timestamps), Committed { end, log_start: 0, cleaned_to }, &config, now_ms);
    (found.runs.last().map_or(0, |last| last.next_offset), found.next_ms)
}

#[test]
fn what_is_dirty_enough_is_compacted_and_nothing_is_due_by_itself() {
    let half = [("min.cleanable.dirty.ratio", "0.5")];
    assert_eq!(outlook(&[5, 5, 5, 5], 20, 40, &half, 10), (40, None));
    assert_eq!(outlook(&[5, 5, 5, 5], 30, 40, &half, i64::MAX / 2), (0, None));
    assert_eq!(outlook(&[5, 5, 5, 5], 20, 30, &half, 10), (0, None), "only what is in the manifest counts");
    assert_eq!(outlook(&[], 0, 0, &half, 10), (0, None));
}

#[test]
fn what_waits_too_long_becomes_due() {
    let lag = [("max.compaction.lag.ms", "1000")];
    assert_eq!(outlook(&[100, 300, 200], 10, 30, &lag, 300), (30, None), "most of it is dirty");
    let clean = [500, 500, 500, 300, 200];
    assert_eq!(outlook(&clean, 30, 50, &lag, 1_200), (0, Some(1_201)), "the oldest of them decides");
    assert_eq!(outlook(&clean, 30, 50, &lag, 1_201), (50, None));
    assert_eq!(outlook(&clean, 50, 50, &lag, 1_201), (0, None));
    assert_eq!(outlook(&[5, 5, 5, -1], 30, 40, &lag, 9_999), (0, None), "what has no time is never late");
}

#[test]
fn what_is_too_young_becomes_due() {
    let lag = [("min.compaction.lag.ms", "1000")];
    assert_eq!(outlook(&[100, 200], 0, 20, &lag, 1_099), (0, Some(1_100)));
    assert_eq!(outlook(&[100, 200], 0, 20, &lag, 1_100), (10, Some(1_200)));
    assert_eq!(outlook(&[100, 200], 0, 20, &lag, 1_200), (20, None));
    assert_eq!(outlook(&[100, 200], 10, 20, &lag, 1_100), (0, Some(1_200)), "what is clean does not count");
    let both = [("min.compaction.lag.ms", "1000"), ("max.compaction.lag.ms", "3000")];
    assert_eq!(outlook(&[1, 1, 100, 2_000], 20, 40, &both, 1_200), (0, Some(3_000)), "the younger is due first");
}
