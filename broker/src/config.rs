//! What can be set, its defaults and its limits. Every key can be set on the command line or in the file or in the
//! environment; an unknown key or a bad value is refused at start by its name.

use std::time::Duration;

/// Settings that the running broker reads. Validated before anything starts.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    pub broker_id: i32,
    /// What Metadata tells clients to connect to.
    pub advertised_host: String,
    pub advertised_port: u16,
    pub auto_create_topics: bool,
    /// Partitions of a topic that is created without saying how many.
    pub num_partitions: i32,
    /// Largest record batch accepted, unless the topic says otherwise (`max.message.bytes`).
    pub message_max_bytes: usize,
    /// Largest frame of a Produce request.
    pub request_max_bytes: usize,
    /// Record data in memory: receive buffers, what waits for durability, the memory tail, what is being sent.
    pub memory_bytes: usize,
    /// At most this much of `memory_bytes` holds recent data for readers.
    pub tail_bytes: usize,
    /// Largest Fetch response, whatever the client asks for (the first batch may exceed it).
    pub fetch_max_bytes: usize,
    pub connections_max_idle: Duration,
    pub max_connections: usize,
    /// Producer ids remembered per partition.
    pub max_producers_per_partition: usize,
    pub flush_interval: Duration,
    pub flush_bytes: usize,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            broker_id: 0,
            advertised_host: "127.0.0.1".to_owned(),
            advertised_port: 9092,
            auto_create_topics: true,
            num_partitions: 1,
            message_max_bytes: 16 << 20,
            request_max_bytes: 100 << 20,
            memory_bytes: 512 << 20,
            tail_bytes: 128 << 20,
            fetch_max_bytes: 55 << 20,
            connections_max_idle: Duration::from_secs(600),
            max_connections: 10_000,
            max_producers_per_partition: 10_000,
            flush_interval: Duration::from_millis(100),
            flush_bytes: 8 << 20,
        }
    }
}
