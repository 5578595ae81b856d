//! What goes by age and by size, and what stays.

use storage::entry::{FragmentId, Run, TopicPartition};
use storage::partition_index::PartitionIndex;
use uuid::Uuid;

use super::{log_start, next_ms};
use crate::config::BrokerConfig;
use crate::topics::config::Configs;
use crate::topics::{Defaults, TopicConfig};

/// Runs of ten offsets and 100 bytes each, with these highest timestamps.
fn index(timestamps: &[i64]) -> PartitionIndex {
    let mut index = PartitionIndex::new(TopicPartition { topic: Uuid::nil(), partition: 0 }, 0);
    for (number, timestamp) in (0_i64..).zip(timestamps) {
        index
            .append(Run {
                fragment: FragmentId { log: 1, segment: 0, fragment: number as u64 },
                base_offset: number * 10,
                next_offset: number * 10 + 10,
                max_timestamp: *timestamp,
                leader_epoch: 1,
                file_position: 0,
                position: 80,
                length: 100,
                index_position: 180,
                index_length: 64,
            })
            .unwrap();
    }
    index
}

fn config(settings: &[(&str, &str)]) -> TopicConfig {
    let configs: Configs = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    TopicConfig::resolve(&configs, &Defaults::new(&BrokerConfig::default())).unwrap()
}

#[test]
fn what_is_too_old_goes_from_the_front_only() {
    let index = index(&[1_000, 5_000, 2_000, 9_000]);
    let config = config(&[("retention.ms", "3000")]);
    assert_eq!(log_start(&index, 40, &config, 4_000), 0, "the oldest is exactly as old as allowed");
    assert_eq!(log_start(&index, 40, &config, 4_001), 10);
    assert_eq!(log_start(&index, 40, &config, 7_000), 10, "behind a younger one, the older one stays");
    assert_eq!(log_start(&index, 40, &config, 8_001), 30);
    assert_eq!(log_start(&index, 20, &config, 1_000_000), 20, "not beyond what the manifest has");
    assert_eq!(next_ms(&index, 0, &config), Some(4_001));
    assert_eq!(next_ms(&index, 10, &config), Some(8_001));
}

#[test]
fn what_is_too_much_goes() {
    let index = index(&[1, 1, 1, 1]);
    let start = |most: &str| log_start(&index, 40, &config(&[("retention.bytes", most), ("retention.ms", "-1")]), 50);
    assert_eq!(start("-1"), 0);
    assert_eq!(start("400"), 0);
    assert_eq!(start("301"), 0, "a run goes only if enough is left without it, as a segment does");
    assert_eq!(start("300"), 10);
    assert_eq!(start("150"), 20);
    assert_eq!(start("0"), 40);
}

#[test]
fn what_has_no_time_or_must_not_be_deleted_stays() {
    let now = i64::MAX / 2;
    assert_eq!(log_start(&index(&[-1, 5]), 20, &config(&[("retention.ms", "10")]), now), 0);
    assert_eq!(next_ms(&index(&[-1, 5]), 0, &config(&[("retention.ms", "10")])), None);
    let compacted = config(&[("retention.ms", "10"), ("cleanup.policy", "compact")]);
    assert_eq!(log_start(&index(&[5, 5]), 20, &compacted, now), 0);
    assert_eq!(next_ms(&index(&[5, 5]), 0, &compacted), None);
    assert_eq!(log_start(&index(&[5, 5]), 20, &config(&[("retention.ms", "-1")]), now), 0);
    let both = config(&[("retention.ms", "10"), ("cleanup.policy", "compact,delete")]);
    assert_eq!(log_start(&index(&[5, 5]), 20, &both, now), 20);
}
