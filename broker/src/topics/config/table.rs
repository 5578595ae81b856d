//! The one table of topic configurations: all that Kafka 4 has.

use super::{Role, Row};
use crate::config::values::Values;

/// No limit, where a limit is in milliseconds, messages or bytes.
const NEVER: &str = "9223372036854775807";
const CODECS: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];

/// A whole number of 64 bits with a least value.
const fn long(min: i64) -> Values {
    Values::Long(min, i64::MAX)
}

/// A whole number of 32 bits with a least value.
const fn int(min: i32) -> Values {
    Values::Int(min, i32::MAX)
}

const fn row(
    name: &'static str,
    broker: Option<&'static str>,
    values: Values,
    default: &'static str,
    role: Role,
    help: &'static str,
) -> Row {
    Row { name, broker, values, default, role, help }
}

/// In the order of their names.
pub static TABLE: &[Row] = &[
    row(
        "cleanup.policy",
        Some("log.cleanup.policy"),
        Values::ListOf(&["delete", "compact"]),
        "delete",
        Role::Enforced,
        "How old records go. With compact, records without a key are refused; without delete, DeleteRecords is refused.",
    ),
    row(
        "compression.gzip.level",
        Some("compression.gzip.level"),
        Values::GzipLevel,
        "-1",
        Role::Enforced,
        "How hard gzip tries where compression.type is gzip: 1 is fastest, 9 smallest, -1 the library's choice.",
    ),
    row(
        "compression.lz4.level",
        Some("compression.lz4.level"),
        Values::Int(1, 17),
        "9",
        Role::Fulfilled,
        "How hard lz4 tries where compression.type is lz4. Batches are compressed as Kafka does at its default, 9, at \
         every level: fast.",
    ),
    row(
        "compression.type",
        Some("compression.type"),
        Values::OneOf(CODECS),
        "producer",
        Role::Enforced,
        "How record batches are compressed in storage. With producer they stay as they came; a batch with another codec \
         than the one named is compressed anew when it arrives.",
    ),
    row(
        "compression.zstd.level",
        Some("compression.zstd.level"),
        Values::Int(-131_072, 22),
        "3",
        Role::Enforced,
        "How hard zstd tries where compression.type is zstd: the higher, the slower and the smaller. No level looks \
         farther back than 2 MiB.",
    ),
    row(
        "delete.retention.ms",
        Some("log.cleaner.delete.retention.ms"),
        long(0),
        "86400000",
        Role::Enforced,
        "How long a record without a value outlives what it deletes, in a compacted topic.",
    ),
    row(
        "file.delete.delay.ms",
        Some("log.segment.delete.delay.ms"),
        long(0),
        "60000",
        Role::Fulfilled,
        "How long data that nothing refers to any more is kept. The broker's delete_delay_ms says it for all.",
    ),
    row(
        "flush.messages",
        Some("log.flush.interval.messages"),
        long(1),
        NEVER,
        Role::Fulfilled,
        "After how many records they must be on disk. Every record is, before it is acknowledged.",
    ),
    row(
        "flush.ms",
        Some("log.flush.interval.ms"),
        long(0),
        NEVER,
        Role::Fulfilled,
        "After what time a record must be on disk. Every record is, before it is acknowledged.",
    ),
    row(
        "follower.replication.throttled.replicas",
        None,
        Values::Replicas,
        "",
        Role::Fulfilled,
        "Replicas that copy slowly. Brokers do not copy from each other: the storage replicates.",
    ),
    row(
        "index.interval.bytes",
        Some("log.index.interval.bytes"),
        int(0),
        "4096",
        Role::Fulfilled,
        "How many bytes of records may lie between two entries of the offset index. Every batch is in the index.",
    ),
    row(
        "leader.replication.throttled.replicas",
        None,
        Values::Replicas,
        "",
        Role::Fulfilled,
        "Replicas that are copied from slowly. Brokers do not copy from each other: the storage replicates.",
    ),
    row(
        "local.retention.bytes",
        Some("log.local.retention.bytes"),
        long(-2),
        "-2",
        Role::Fulfilled,
        "Used where remote.storage.enable is true, so never.",
    ),
    row(
        "local.retention.ms",
        Some("log.local.retention.ms"),
        long(-2),
        "-2",
        Role::Fulfilled,
        "Used where remote.storage.enable is true, so never.",
    ),
    row(
        "max.compaction.lag.ms",
        Some("log.cleaner.max.compaction.lag.ms"),
        long(1),
        NEVER,
        Role::Enforced,
        "How long a record can stay uncompacted at most.",
    ),
    row(
        "max.message.bytes",
        Some("message.max.bytes"),
        int(0),
        "16777216",
        Role::Enforced,
        "Largest record batch that is accepted, compressed as it comes. Kafka's default is 1048588.",
    ),
    row(
        "message.timestamp.after.max.ms",
        Some("log.message.timestamp.after.max.ms"),
        long(0),
        "3600000",
        Role::Enforced,
        "How far a record's own timestamp may be ahead of the broker's clock. Batches with others are refused.",
    ),
    row(
        "message.timestamp.before.max.ms",
        Some("log.message.timestamp.before.max.ms"),
        long(0),
        NEVER,
        Role::Enforced,
        "How far a record's own timestamp may be behind the broker's clock. Batches with others are refused.",
    ),
    row(
        "message.timestamp.type",
        Some("log.message.timestamp.type"),
        Values::OneOf(&["CreateTime", "LogAppendTime"]),
        "CreateTime",
        Role::Enforced,
        "Whether a record's timestamp is the producer's, or that of its arrival at the broker.",
    ),
    row(
        "min.cleanable.dirty.ratio",
        Some("log.cleaner.min.cleanable.ratio"),
        Values::Double(0.0, 1.0),
        "0.5",
        Role::Enforced,
        "How much of a compacted topic must be uncompacted before it is worth compacting.",
    ),
    row(
        "min.compaction.lag.ms",
        Some("log.cleaner.min.compaction.lag.ms"),
        long(0),
        "0",
        Role::Enforced,
        "How long a record stays uncompacted at least.",
    ),
    row(
        "min.insync.replicas",
        Some("min.insync.replicas"),
        int(1),
        "1",
        Role::Fulfilled,
        "How many copies of a record there must be before it is acknowledged. It is acknowledged when the storage has \
         it, which keeps as many copies as it promises.",
    ),
    row(
        "preallocate",
        Some("log.preallocate"),
        Values::Boolean,
        "false",
        Role::Only(&["false"]),
        "Whether files get their full size when they are made.",
    ),
    row(
        "remote.log.copy.disable",
        None,
        Values::Boolean,
        "false",
        Role::Only(&["false"]),
        "Whether tiering stops. All data is in the storage from the beginning.",
    ),
    row(
        "remote.log.delete.on.disable",
        None,
        Values::Boolean,
        "false",
        Role::Only(&["false"]),
        "Whether tiered data goes when tiering is switched off.",
    ),
    row(
        "remote.storage.enable",
        None,
        Values::Boolean,
        "false",
        Role::Only(&["false"]),
        "Whether older data is tiered to another storage. All data is in the storage from the beginning.",
    ),
    row(
        "retention.bytes",
        Some("log.retention.bytes"),
        Values::Long(i64::MIN, i64::MAX),
        "-1",
        Role::Enforced,
        "How large a partition may grow before its oldest records go; -1 for no limit.",
    ),
    row(
        "retention.ms",
        Some("log.retention.ms"),
        long(-1),
        "604800000",
        Role::Enforced,
        "How old a record may get before it goes; -1 for no limit.",
    ),
    row(
        "segment.bytes",
        Some("log.segment.bytes"),
        int(1 << 20),
        "1073741824",
        Role::Enforced,
        "How much of a partition is deleted or compacted at a time.",
    ),
    row(
        "segment.index.bytes",
        Some("log.index.size.max.bytes"),
        int(4),
        "10485760",
        Role::Fulfilled,
        "How large the index file of a segment may grow. There are no index files.",
    ),
    row(
        "segment.jitter.ms",
        Some("log.roll.jitter.ms"),
        long(0),
        "0",
        Role::Fulfilled,
        "By how much segment.ms may be shortened at random.",
    ),
    row(
        "segment.ms",
        Some("log.roll.ms"),
        long(1),
        "604800000",
        Role::Fulfilled,
        "After what time data is ready to be deleted or compacted, however little it is.",
    ),
    row(
        "unclean.leader.election.enable",
        Some("unclean.leader.election.enable"),
        Values::Boolean,
        "false",
        Role::Only(&["false"]),
        "Whether acknowledged records may be given up to become available sooner. Never.",
    ),
];
