//! What upkeep does with what was written: tiering, merging, retention, deletion.

use super::{DAY_MS, GIB, Key, Kind, plain};

pub const KEYS: &[Key] = &[
    plain(
        "tier_bytes",
        "As soon as so much has been written, it moves from what all partitions share to where each partition's data lies together.",
        integer!(1, GIB, broker.tier.bytes: usize),
    ),
    plain(
        "tier_interval_ms",
        "After this time it moves, however little it is: until then retention does not see it.",
        millis!(1, DAY_MS, broker.tier.interval),
    ),
    plain(
        "tier_object_bytes",
        "Length of the objects that it moves to; less if memory_bytes is small.",
        integer!(1, GIB, broker.tier.object_bytes: usize),
    ),
    plain(
        "merge_object_bytes",
        "What it moved to is merged, in the background, into objects of this length. 0 for no merging.",
        integer!(0, 64 * GIB, broker.tier.merge_object_bytes: usize),
    ),
    plain(
        "merge_part_bytes",
        "Objects that are longer are written in parts of this length, each of which costs as much as a PUT; up to four \
         of them are in memory. Less if memory_bytes is small. S3 takes none under 5 MiB.",
        integer!(1, GIB, broker.tier.merge_part_bytes: usize),
    ),
    plain(
        "retention_check_interval_ms",
        "Records that have become too old go within this time.",
        millis!(1, DAY_MS, broker.tier.retention_check_interval),
    ),
    plain(
        "delete_delay_ms",
        "What nothing refers to any more is deleted so much later, so that readers who are at it can finish.",
        millis!(0, DAY_MS, broker.tier.delete_delay),
    ),
];
