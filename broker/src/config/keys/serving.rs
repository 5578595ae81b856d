//! What the broker is to clients, and what it takes of them: topics, limits, memory.

use super::{GIB, Key, Kind, MIB, plain};

pub const KEYS: &[Key] = &[
    plain("broker_id", "The broker's number, as clients see it.", integer!(0, i32::MAX as u64, broker.broker_id: i32)),
    plain(
        "auto_create_topics",
        "Whether a topic is created when a client first asks for it.",
        Kind::Bool {
            get: |settings| settings.broker.auto_create_topics,
            set: |settings, value| settings.broker.auto_create_topics = value,
        },
    ),
    plain(
        "num_partitions",
        "Partitions of a topic that is created without saying how many.",
        integer!(1, 10_000, broker.num_partitions: i32),
    ),
    plain(
        "message_max_bytes",
        "Largest record batch accepted, unless the topic sets max.message.bytes.",
        integer!(1 << 10, GIB, broker.message_max_bytes: usize),
    ),
    plain(
        "request_max_bytes",
        "Largest Produce request accepted.",
        integer!(64 << 10, GIB, broker.request_max_bytes: usize),
    ),
    plain(
        "memory_bytes",
        "Record data in memory: received, waiting to be durable, kept for readers, being sent. When it is used \
         up, producers wait.",
        integer!(16 * MIB, 1 << 44, broker.memory_bytes: usize),
    ),
    plain(
        "tail_bytes",
        "At most this much of memory_bytes keeps recent records for readers.",
        integer!(0, 1 << 44, broker.tail_bytes: usize),
    ),
    plain(
        "fetch_max_bytes",
        "Largest Fetch response, whatever a client asks for.",
        integer!(MIB, GIB, broker.fetch_max_bytes: usize),
    ),
    plain(
        "connections_max_idle_ms",
        "A connection without any request for so long is closed.",
        millis!(1_000, 7 * 24 * 3_600_000, broker.connections_max_idle),
    ),
    plain(
        "max_connections",
        "Connections served at a time; more wait to be accepted.",
        integer!(1, 1_000_000, broker.max_connections: usize),
    ),
    plain(
        "max_producers_per_partition",
        "Idempotent producers remembered per partition.",
        integer!(1, 1_000_000, broker.max_producers_per_partition: usize),
    ),
];
