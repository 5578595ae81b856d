//! The partitions of this broker, and what happens to all of them: the log they append to, durable fragments, the end of
//! the log.
//!
//! Invariants: a fragment enters the memory tail before any partition moves its high watermark over it; a partition of
//! a topic that was deleted is not in here, while its pending appends end in peace.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use storage::entry::{IndexedRun, TopicPartition};
use storage::error::Result;
use storage::log::{DurableFragment, DurableSink, Log, Outcome};
use storage::reader::Reader;
use uuid::Uuid;

use crate::config::BrokerConfig;
use crate::ownership::{Loss, Ownership};
use crate::partition::{Partition, Status};

#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;

mod backlog;

pub use backlog::{Backlog, Most, Waiting};

/// Told when this broker begins or ceases to lead a partition: coordinators load and unload on it. Must not block.
pub trait LeadershipListener: Send + Sync {
    fn became_leader(&self, partition: &Arc<Partition>, leader_epoch: i32);
    fn resigned(&self, partition: &Arc<Partition>, why: Status);
}

pub struct Partitions {
    config: Arc<BrokerConfig>,
    reader: Reader,
    ownership: Ownership,
    open: RwLock<BTreeMap<TopicPartition, Arc<Partition>>>,
    leadership: RwLock<Leadership>,
    backlog: Backlog,
    listeners: RwLock<Vec<Arc<dyn LeadershipListener>>>,
    /// Made durable since the start, of whatever partition.
    produced_bytes: AtomicU64,
}

/// What every partition that is opened becomes.
#[derive(Clone)]
enum Leadership {
    /// The past is being read.
    Opening,
    Leading {
        log: Arc<dyn Log>,
        leader_epoch: i32,
    },
    Resigned(Status),
}

impl Partitions {
    pub fn new(config: Arc<BrokerConfig>, reader: Reader, ownership: Ownership) -> Self {
        Self {
            config,
            reader,
            ownership,
            open: RwLock::default(),
            leadership: RwLock::new(Leadership::Opening),
            backlog: Backlog::default(),
            listeners: RwLock::default(),
            produced_bytes: AtomicU64::new(0),
        }
    }

    /// Reads what partitions plan.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// What upkeep has to do.
    pub fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// Register before `become_leader`, so that no event is missed.
    pub fn add_listener(&self, listener: Arc<dyn LeadershipListener>) {
        self.listeners.write().push(listener);
    }

    pub fn get(&self, id: TopicPartition) -> Option<Arc<Partition>> {
        self.open.read().get(&id).cloned()
    }

    /// Where appends go. None while nothing is led.
    pub fn log(&self) -> Option<Arc<dyn Log>> {
        match &*self.leadership.read() {
            Leadership::Leading { log, .. } => Some(log.clone()),
            Leadership::Opening | Leadership::Resigned(_) => None,
        }
    }

    /// How many partitions are open.
    pub fn len(&self) -> usize {
        self.open.read().len()
    }

    pub fn is_empty(&self) -> bool {
        self.open.read().is_empty()
    }

    /// Adds a topic's partitions. Before `become_leader` they wait for replay; afterwards they are new and led at once.
    pub fn open_topic(&self, topic: Uuid, partitions: i32) {
        let mut opened = Vec::new();
        {
            let mut open = self.open.write();
            for partition in 0..partitions {
                let id = TopicPartition { topic, partition };
                open.entry(id).or_insert_with(|| {
                    let partition = Arc::new(Partition::new(id, self.config.max_producers_per_partition));
                    opened.push(partition.clone());
                    partition
                });
            }
        }
        self.adopt(&opened);
    }

    /// The topic was deleted: pending appends end as the log decides, everything later is refused.
    pub fn close_topic(&self, topic: Uuid, partitions: i32) {
        let closed: Vec<_> = {
            let mut open = self.open.write();
            (0..partitions).filter_map(|partition| open.remove(&TopicPartition { topic, partition })).collect()
        };
        closed.iter().for_each(|partition| self.resign_one(partition, Status::Deleted));
        self.backlog.dropped();
    }

    /// Takes in what a log of the past holds, in the order of the logs. Partitions that no longer exist are passed over.
    /// An error names the partition and concerns only that one, which is refused to clients from then on.
    pub fn replay(&self, run: &IndexedRun) -> Result<()> {
        match self.get(run.partition) {
            Some(partition) => partition.replay(run),
            None => Ok(()),
        }
    }

    /// Where a partition begins whose past was replayed. Like `replay`, an error concerns only that partition.
    pub fn restore_log_start(&self, id: TopicPartition, offset: i64) -> Result<()> {
        self.get(id).map_or(Ok(()), |partition| partition.restore_log_start(offset))
    }

    /// Appends go to this log from now on; all partitions are led, with this epoch.
    pub fn become_leader(&self, log: Arc<dyn Log>, leader_epoch: i32) {
        {
            let mut leadership = self.leadership.write();
            if let Leadership::Resigned(Status::Fenced) = *leadership {
                return;
            }
            *leadership = Leadership::Leading { log, leader_epoch };
        }
        self.adopt(&self.all());
    }

    /// Gives everything up in good order: nothing more is appended or read.
    pub fn resign(&self, why: &str) {
        tracing::info!(why, "giving up all partitions");
        self.resign_all(Status::Released);
    }

    /// Bytes made durable since the start, and of each topic what its open partitions made durable and what they store.
    pub fn usage(&self) -> (u64, BTreeMap<Uuid, (u64, u64)>) {
        let mut topics: BTreeMap<Uuid, (u64, u64)> = BTreeMap::new();
        for partition in self.all() {
            let (produced, stored) = partition.usage();
            let topic = topics.entry(partition.id().topic).or_default();
            *topic = (topic.0 + produced, topic.1 + stored);
        }
        (self.produced_bytes.load(Ordering::Relaxed), topics)
    }

    /// All that are open, in order.
    pub fn all(&self) -> Vec<Arc<Partition>> {
        self.open.read().values().cloned().collect()
    }

    fn resign_all(&self, status: Status) {
        *self.leadership.write() = Leadership::Resigned(status);
        self.adopt(&self.all());
    }

    /// Brings partitions to what all of them are. Looks again afterwards, for that may have changed meanwhile, and
    /// whoever changed it may not have seen these partitions yet.
    fn adopt(&self, partitions: &[Arc<Partition>]) {
        loop {
            let leadership = self.leadership.read().clone();
            match &leadership {
                Leadership::Opening => {}
                Leadership::Leading { leader_epoch, .. } => {
                    partitions.iter().for_each(|partition| self.lead_one(partition, *leader_epoch));
                }
                Leadership::Resigned(status) => {
                    partitions.iter().for_each(|partition| self.resign_one(partition, *status));
                }
            }
            if leadership.is_same(&self.leadership.read()) {
                return;
            }
        }
    }

    fn lead_one(&self, partition: &Arc<Partition>, leader_epoch: i32) {
        if partition.become_leader(leader_epoch) {
            let listeners = self.listeners.read().clone();
            listeners.iter().for_each(|listener| listener.became_leader(partition, leader_epoch));
        }
    }

    fn resign_one(&self, partition: &Arc<Partition>, why: Status) {
        if partition.resign(why) {
            let listeners = self.listeners.read().clone();
            listeners.iter().for_each(|listener| listener.resigned(partition, why));
        }
    }
}

impl Leadership {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Opening, Self::Opening) => true,
            (Self::Leading { log, .. }, Self::Leading { log: other, .. }) => log.number() == other.number(),
            (Self::Resigned(status), Self::Resigned(other)) => status == other,
            _ => false,
        }
    }
}

impl DurableSink for Partitions {
    fn fragment_durable(&self, fragment: DurableFragment) {
        let id = fragment.index.fragment;
        let bytes = fragment.index.runs.iter().map(|run| u64::from(run.run.length)).sum();
        let runs: Vec<_> = fragment.index.runs.iter().map(|run| (run.partition, run.run)).collect();
        self.reader.tail().push(fragment);
        let count = runs.len();
        for (id, run) in runs {
            self.produced_bytes.fetch_add(u64::from(run.length), Ordering::Relaxed);
            let Some(partition) = self.get(id) else { continue };
            partition.count_produced(run.length);
            if let Err(error) = partition.advance(run) {
                tracing::error!(partition = %id, fragment = %run.fragment, %error, "the log broke its order");
            }
        }
        // Last: who takes it from there finds its runs in the partitions.
        self.backlog.push(id, bytes, count);
    }

    fn log_ended(&self, outcome: Outcome, why: &str) {
        tracing::warn!(?outcome, why, "the log has ended");
        self.resign_all(Status::Fenced);
        let why = why.to_owned();
        self.ownership.declare_lost(if outcome == Outcome::Fenced { Loss::Fenced(why) } else { Loss::Failed(why) });
    }
}
