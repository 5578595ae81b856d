//! Partitions over a log and a store that tests control.

use std::sync::Arc;

use storage::budget::Budget;
use storage::entry::TopicPartition;
use storage::log::{DurableSink, Log};
use storage::reader::{Reader, ReaderOptions};
use storage::tail::Tail;
use uuid::Uuid;

use crate::batch::testing::BatchSpec;
use crate::config::BrokerConfig;
use crate::ownership::Ownership;
use crate::partition::testing::{FakeLog, FakeStore, InFlight, permit, valid};
use crate::partition::{AppendResult, Durability};

use super::Partitions;

pub struct Rig {
    pub log: Arc<FakeLog>,
    pub store: Arc<FakeStore>,
    pub partitions: Arc<Partitions>,
    pub ownership: Ownership,
}

impl Rig {
    /// Nothing opened and nothing led yet. With a tail of 0 bytes everything is read from the store.
    pub fn new(tail_bytes: usize) -> Self {
        let store = Arc::new(FakeStore::default());
        let options = ReaderOptions::of_memory(16 << 20);
        let reader = Reader::new(Arc::new(Tail::new(tail_bytes)), store.clone(), Budget::new(1 << 30), options);
        let ownership = Ownership::new();
        let log = FakeLog::new(4);
        let guarded: Arc<dyn Log> = log.clone();
        ownership.guard(&guarded);
        let config = Arc::new(BrokerConfig::default());
        let partitions = Arc::new(Partitions::new(config, reader, ownership.clone()));
        Self { log, store, partitions, ownership }
    }

    pub fn leading(tail_bytes: usize, topic: Uuid, partitions: i32) -> Self {
        let rig = Self::new(tail_bytes);
        rig.partitions.open_topic(topic, partitions);
        rig.lead();
        rig
    }

    pub fn lead(&self) {
        self.partitions.become_leader(self.log.clone(), 4);
    }

    pub fn append(&self, id: TopicPartition, spec: &BatchSpec) -> Durability {
        match self.partitions.get(id).unwrap().append(&*self.log, valid(spec), permit()) {
            AppendResult::Appended { durability, .. } => durability,
            other => panic!("{other:?}"),
        }
    }

    pub fn cut(&self) -> InFlight {
        self.log.cut()
    }

    /// Makes everything appended so far durable.
    pub fn flush(&self) {
        let fragment = self.cut();
        self.store.keep(&fragment.fragment);
        fragment.durable(&*self.partitions as &dyn DurableSink);
    }
}
