//! The coordinator of consumer groups: which partition of `__consumer_offsets` a group belongs to, and what this broker
//! knows of the groups in the partitions that it leads.
//!
//! One `Shard` per led partition of that topic owns its groups: loads them when the partition is led, unloads them when
//! it is given up, appends their records and runs their timers.
//!
//! Invariants:
//! - A change of a group is visible only after its record is durable, and changes become visible in the order of their
//!   records.
//! - Nothing is answered from a partition that was not read to its end since this broker leads it.
//! - Whoever shows what a shard said confirms afterwards that this broker still owns its log.

mod shard;

mod load;

mod membership;

mod offsets;

mod admin;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, btree_map};
use std::sync::{Arc, Weak};

use kafka_protocol::ResponseError;
use meta::error::Result;
use meta::seams::{Random, WallClock};
use parking_lot::RwLock;
use storage::budget::Budget;
use storage::entry::TopicPartition;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config::BrokerConfig;
use crate::groups::{Limits, Now};
use crate::partition::{Partition, Status};
use crate::partitions::{LeadershipListener, Partitions};
use crate::topics::{Created, OFFSETS_TOPIC, Topic, Topics};

pub use self::admin::Listed;
pub use self::offsets::{Commit, CommitOffset, DeletedOffsets};
pub use self::shard::Shard;

/// So many partitions are read at a time when many are led at once.
const LOADS_AT_A_TIME: usize = 4;

/// What a coordinator is made of.
pub struct CoordinatorParts {
    pub config: Arc<BrokerConfig>,
    pub topics: Topics,
    pub partitions: Arc<Partitions>,
    pub budget: Budget,
    pub clock: Arc<dyn WallClock>,
    pub random: Random,
}

pub struct Coordinator {
    shared: Arc<Shared>,
    shards: RwLock<Shards>,
}

#[derive(Default)]
struct Shards {
    /// By the number of the partition.
    open: BTreeMap<i32, Arc<Shard>>,
    /// None is opened any more.
    shut_down: bool,
}

/// What all shards use.
struct Shared {
    parts: CoordinatorParts,
    limits: Limits,
    loads: Semaphore,
}

impl Shared {
    fn now(&self) -> Now {
        Now { instant: Instant::now(), wall_ms: self.parts.clock.now_ms() }
    }
}

impl Coordinator {
    pub fn new(parts: CoordinatorParts) -> Arc<Self> {
        let groups = &parts.config.groups;
        let limits = Limits {
            min_session_timeout: groups.min_session_timeout,
            max_session_timeout: groups.max_session_timeout,
            initial_rebalance_delay: groups.initial_rebalance_delay,
            max_members: groups.max_members,
        };
        let shared = Arc::new(Shared { parts, limits, loads: Semaphore::new(LOADS_AT_A_TIME) });
        Arc::new(Self { shared, shards: RwLock::default() })
    }

    /// What tells this coordinator about partitions; register it before anything is led.
    pub fn listener(self: &Arc<Self>) -> Arc<dyn LeadershipListener> {
        Arc::new(Listener(Arc::downgrade(self)))
    }

    /// Creates `__consumer_offsets`, if it does not exist.
    pub async fn create_topic(&self) -> Result<Created> {
        let Shared { parts: CoordinatorParts { config, topics, partitions, .. }, .. } = &*self.shared;
        if let Some(topic) = topics.by_name(OFFSETS_TOPIC) {
            return Ok(Created::Exists(topic));
        }
        let configs = [("cleanup.policy", "compact"), ("segment.bytes", "104857600")];
        let configs = configs.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let opened = |topic: &Arc<Topic>| partitions.open_topic(topic.id, topic.partitions);
        topics.create(OFFSETS_TOPIC, config.groups.offsets_partitions, configs, opened).await
    }

    /// Who coordinates a group. The error is for its members.
    pub fn shard(&self, group: &str) -> Result<Arc<Shard>, ResponseError> {
        let topic = self.shared.parts.topics.by_name(OFFSETS_TOPIC).ok_or(ResponseError::NotCoordinator)?;
        self.shard_of(&topic, partition_of(group, topic.partitions))
    }

    /// All shards of this broker.
    pub fn shards(&self) -> Vec<Arc<Shard>> {
        let Some(topic) = self.shared.parts.topics.by_name(OFFSETS_TOPIC) else { return Vec::new() };
        (0..topic.partitions).filter_map(|partition| self.shard_of(&topic, partition).ok()).collect()
    }

    /// A topic was deleted: what groups had committed for it goes too.
    pub fn topic_deleted(&self, topic: &str) {
        let shards: Vec<_> = self.shards.read().open.values().cloned().collect();
        shards.iter().for_each(|shard| shard.forget_topic(topic));
    }

    /// Ends all groups here: everybody who waits is told to look for another coordinator. Commits that were begun end as
    /// the log decides.
    pub fn shut_down(&self) {
        let shards = std::mem::replace(&mut *self.shards.write(), Shards { shut_down: true, ..Shards::default() });
        shards.open.values().for_each(|shard| shard.close());
    }

    fn shard_of(&self, topic: &Topic, partition: i32) -> Result<Arc<Shard>, ResponseError> {
        let id = TopicPartition { topic: topic.id, partition };
        let partition = self.shared.parts.partitions.get(id).ok_or(ResponseError::NotCoordinator)?;
        self.open(&partition).ok_or(ResponseError::NotCoordinator)
    }

    /// The shard of a partition that is led; a new one begins to load. Usually that happened when the partition became
    /// led, but a topic that was just created is led before it is known.
    fn open(&self, partition: &Arc<Partition>) -> Option<Arc<Shard>> {
        let number = partition.id().partition;
        if let Some(shard) = self.shards.read().open.get(&number).filter(|shard| shard.is_of(partition)) {
            return Some(shard.clone());
        }
        let mut shards = self.shards.write();
        // Under the lock that `resigned` takes: it comes before this look, or finds what is put here.
        if shards.shut_down || partition.status() != Status::Leading {
            return None;
        }
        match shards.open.entry(number) {
            btree_map::Entry::Occupied(entry) if entry.get().is_of(partition) => Some(entry.get().clone()),
            btree_map::Entry::Occupied(mut entry) => {
                let shard = Shard::start(self.shared.clone(), partition.clone());
                entry.insert(shard.clone()).close();
                Some(shard)
            }
            btree_map::Entry::Vacant(entry) => {
                Some(entry.insert(Shard::start(self.shared.clone(), partition.clone())).clone())
            }
        }
    }

    fn is_ours(&self, partition: &Partition) -> bool {
        self.shared.parts.topics.by_id(partition.id().topic).is_some_and(|topic| topic.name == OFFSETS_TOPIC)
    }

    fn resigned(&self, partition: &Arc<Partition>) {
        let number = partition.id().partition;
        let shard = {
            let mut shards = self.shards.write();
            match shards.open.get(&number) {
                Some(shard) if shard.is_of(partition) => shards.open.remove(&number),
                _ => None,
            }
        };
        if let Some(shard) = shard {
            shard.close();
        }
    }
}

impl Drop for Coordinator {
    /// The tasks of the shards end.
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// Does not keep the coordinator alive: the partitions hold this, and the coordinator holds the partitions.
struct Listener(Weak<Coordinator>);

impl LeadershipListener for Listener {
    fn became_leader(&self, partition: &Arc<Partition>, _leader_epoch: i32) {
        if let Some(coordinator) = self.0.upgrade().filter(|coordinator| coordinator.is_ours(partition)) {
            coordinator.open(partition);
        }
    }

    fn resigned(&self, partition: &Arc<Partition>, _why: Status) {
        if let Some(coordinator) = self.0.upgrade() {
            coordinator.resigned(partition);
        }
    }
}

/// Kafka's rule: Java's hash of the group's name, without its sign.
fn partition_of(group: &str, partitions: i32) -> i32 {
    let hash = group.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    hash.checked_abs().unwrap_or(0) % partitions.max(1)
}
