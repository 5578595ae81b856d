//! What request handlers see: the running broker.

use std::sync::Arc;

use meta::seams::{Random, WallClock};
use storage::budget::Budget;
use tokio::sync::Semaphore;

use crate::config::BrokerConfig;
use crate::coordinator::Coordinator;
use crate::cost::{TopicUsage, Usage};
use crate::metrics::Metrics;
use crate::ownership::Ownership;
use crate::partitions::Partitions;
use crate::producer_ids::ProducerIds;
use crate::topics::Topics;

/// How many large batches are compressed anew at the same time. Each may need some 100 MiB at worst, for a snappy batch
/// in one piece and zstd's highest levels; usually it is a few.
pub const RECOMPRESSIONS: usize = 2;

pub struct Broker {
    pub config: Arc<BrokerConfig>,
    /// As clients see it: 22 characters of URL-safe base64.
    pub cluster_id: String,
    /// Of every partition: the number of the log that this broker writes.
    pub leader_epoch: i32,
    pub topics: Topics,
    pub partitions: Arc<Partitions>,
    pub coordinator: Arc<Coordinator>,
    pub producer_ids: ProducerIds,
    pub ownership: Ownership,
    pub budget: Budget,
    pub clock: Arc<dyn WallClock>,
    pub random: Random,
    pub metrics: Arc<Metrics>,
    /// Large batches that may be compressed anew at the same time: codecs need memory that no budget pays for.
    pub recompressions: Semaphore,
}

impl Broker {
    /// What topics have used of the storage.
    pub fn usage(&self) -> Usage {
        let (produced_bytes, by_topic) = self.partitions.usage();
        let named = by_topic.into_iter().filter_map(|(id, (produced_bytes, stored_bytes))| {
            let name = self.topics.by_id(id)?.name.clone();
            Some(TopicUsage { name, produced_bytes, stored_bytes })
        });
        Usage { produced_bytes, topics: named.collect() }
    }
}
