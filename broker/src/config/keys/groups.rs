//! Consumer groups and the offsets that they commit.

use std::time::Duration;

use super::{DAY_MS, Key, Kind, plain};

pub const KEYS: &[Key] = &[
    plain(
        "offsets_topic_num_partitions",
        "Partitions of __consumer_offsets, which is created when the first group needs it.",
        integer!(1, 10_000, broker.groups.offsets_partitions: i32),
    ),
    plain(
        "group_initial_rebalance_delay_ms",
        "How long the first member of an empty group waits for others.",
        millis!(0, 600_000, broker.groups.initial_rebalance_delay),
    ),
    plain(
        "group_min_session_timeout_ms",
        "Shortest session timeout that a member of a group may ask for.",
        millis!(1, DAY_MS, broker.groups.min_session_timeout),
    ),
    plain(
        "group_max_session_timeout_ms",
        "Longest session timeout that a member of a group may ask for.",
        millis!(1, DAY_MS, broker.groups.max_session_timeout),
    ),
    plain("group_max_size", "Most members of one group.", integer!(1, 1 << 32, broker.groups.max_members: usize)),
    plain(
        "offset_metadata_max_bytes",
        "Longest text that a client may store with a committed offset.",
        integer!(0, 32_767, broker.groups.max_metadata_bytes: usize),
    ),
    plain(
        "offsets_retention_minutes",
        "Committed offsets are forgotten so long after their group became empty, or stopped reading the topic.",
        Kind::Integer {
            min: 1,
            max: i32::MAX as u64,
            get: |settings| settings.broker.groups.offsets_retention.as_secs() / 60,
            set: |settings, value| settings.broker.groups.offsets_retention = Duration::from_secs(value * 60),
        },
    ),
    plain(
        "offsets_retention_check_interval_ms",
        "How often it is looked for committed offsets to forget.",
        millis!(1, DAY_MS, broker.groups.offsets_retention_check_interval),
    ),
];
