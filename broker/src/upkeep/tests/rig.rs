//! A whole broker over a bucket in memory, whose requests are counted, in time that passes as fast as it can.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use meta::faults::{FaultPlan, FaultStore};
use meta::seams::{Incarnation, Random, WallClock};
use object_store::memory::InMemory;
use storage::budget::Budget;
use storage::entry::{FragmentId, Run, TopicPartition};
use storage::error::Result;
use storage::log::Outcome;
use storage::metered::{Kind, MeteredStore, StoreCounters};
use tokio::time::{Instant, sleep};

use crate::batch::testing::{BatchSpec, RecordSpec};
use crate::config::BrokerConfig;
use crate::listener::{Listener, Stream};
use crate::metrics::Metrics;
use crate::node::{Ended, Metadata, Node, NodeParts};
use crate::partition::AppendResult;
use crate::partition::Partition;
use crate::partition::testing::valid_bytes;
use crate::topics::Created;
use crate::topics::config::Configs;

/// Nobody ever connects.
struct Silent;

#[async_trait]
impl Listener for Silent {
    async fn accept(&self) -> std::io::Result<(Stream, SocketAddr)> {
        std::future::pending().await
    }

    fn local_address(&self) -> std::io::Result<SocketAddr> {
        Ok((Ipv4Addr::LOCALHOST, 9092).into())
    }
}

/// The time of day goes with the runtime's.
struct Clock {
    began: Instant,
    shift_ms: AtomicI64,
}

impl WallClock for Clock {
    fn now_ms(&self) -> i64 {
        1_700_000_000_000 + self.began.elapsed().as_millis() as i64 + self.shift_ms.load(Ordering::Relaxed)
    }
}

pub struct Rig {
    pub bucket: FaultStore,
    pub config: BrokerConfig,
    pub random: Random,
    clock: Arc<Clock>,
}

pub struct Running {
    pub node: Node,
    pub counters: Arc<StoreCounters>,
    clock: Arc<Clock>,
}

impl Rig {
    pub fn new(seed: u64, config: BrokerConfig) -> Self {
        let random = Random::from_seed(seed);
        let bucket = FaultStore::new(Arc::new(InMemory::new()), random.clone(), FaultPlan::default());
        let clock = Arc::new(Clock { began: Instant::now(), shift_ms: AtomicI64::new(0) });
        Self { bucket, config, random, clock }
    }

    /// Another start, whatever became of the one before. It has a handle of its own onto the bucket.
    pub async fn start(&self) -> (Running, FaultStore) {
        let handle = self.bucket.handle();
        let (store, counters) = MeteredStore::new(Arc::new(handle.clone()));
        let parts = NodeParts {
            config: self.config.clone(),
            metadata: Metadata::Embedded,
            incarnation: Incarnation::generate(&self.random),
            store: Arc::new(store),
            counters: counters.clone(),
            folder: None,
            random: self.random.clone(),
            clock: self.clock.clone(),
            listener: Box::new(Silent),
            metrics: Arc::new(Metrics::new()),
        };
        let node = Node::start(parts).await.expect("a broker starts");
        (Running { node, counters, clock: self.clock.clone() }, handle)
    }
}

impl Running {
    pub async fn create(&self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> uuid::Uuid {
        let broker = self.node.broker();
        let configs: Configs = configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let opened = broker.partitions.clone();
        let created = broker.topics.create(name, partitions, configs, |topic| opened.open_topic(topic.id, partitions));
        match created.await.expect("it is created") {
            Created::New(topic) | Created::Exists(topic) => topic.id,
        }
    }

    pub fn partition(&self, topic: uuid::Uuid, partition: i32) -> Arc<Partition> {
        self.node.broker().partitions.get(TopicPartition { topic, partition }).expect("it is open")
    }

    /// Appends one batch of this many records; returns what they became part of when they are durable.
    pub async fn append(&self, partition: &Partition, records: usize, value_bytes: usize) -> Outcome {
        let spec = BatchSpec { base_timestamp: self.clock.now_ms(), value_bytes, ..BatchSpec::records(records) };
        self.append_batch(partition, spec.build()).await
    }

    /// The same with one record that has a key.
    pub async fn append_keyed(&self, partition: &Partition, key: &str, value_bytes: usize) -> Outcome {
        let spec = BatchSpec { base_timestamp: self.clock.now_ms(), ..BatchSpec::records(1) };
        let record = RecordSpec {
            key: Some(key.as_bytes().to_vec()),
            value: Some(vec![b'v'; value_bytes]),
            ..RecordSpec::default()
        };
        let mut raw = Vec::new();
        record.put(&mut raw);
        self.append_batch(partition, spec.build_with(&raw)).await
    }

    async fn append_batch(&self, partition: &Partition, bytes: Bytes) -> Outcome {
        let log = self.node.broker().partitions.log().expect("it leads");
        let batch = valid_bytes(&bytes);
        match partition.append(&*log, batch, Budget::new(bytes.len()).take_anyway(bytes.len())) {
            AppendResult::Appended { durability, .. } => durability.resolved().await,
            other => panic!("{other:?}"),
        }
    }

    /// Everything that a partition has, by offset of the batch: its bytes as they are read. What is moved meanwhile is
    /// looked for where it is now.
    pub async fn contents(&self, partition: &Partition) -> BTreeMap<i64, Vec<u8>> {
        for _ in 0..100 {
            if let Ok(found) = self.read(partition).await {
                return found;
            }
        }
        panic!("{} cannot be read", partition.id());
    }

    async fn read(&self, partition: &Partition) -> Result<BTreeMap<i64, Vec<u8>>> {
        let mut found = BTreeMap::new();
        for run in runs(partition) {
            let whole = self.node.broker().partitions.reader().read_whole(partition.id(), &run).await?;
            found.extend(whole.entries.iter().map(|(entry, pieces)| (entry.meta.base_offset, pieces.concat())));
        }
        Ok(found)
    }

    /// Stops it in good order.
    pub async fn stop(self) -> Ended {
        let (_stop, stopped) = tokio::sync::watch::channel(true);
        self.node.run(stopped).await
    }

    /// Everything that costs as much as a PUT.
    pub fn puts(&self) -> u64 {
        [Kind::Put, Kind::Part, Kind::Copy, Kind::List].into_iter().map(|kind| self.counters.requests(kind)).sum()
    }

    pub fn requests(&self) -> u64 {
        Kind::ALL.into_iter().map(|kind| self.counters.requests(kind)).sum()
    }

    /// Waits until nothing is asked of the bucket for a long time.
    pub async fn settled(&self) {
        loop {
            let before = self.requests();
            sleep(Duration::from_secs(1_500)).await;
            if self.requests() == before {
                return;
            }
        }
    }
}

pub fn runs(partition: &Partition) -> Vec<Run> {
    partition.inspect(|index| index.runs().copied().collect())
}

/// Objects that partitions have runs in.
pub fn objects(all: &[Arc<Partition>]) -> std::collections::BTreeSet<FragmentId> {
    all.iter().flat_map(|partition| runs(partition)).map(|run| run.fragment).collect()
}
