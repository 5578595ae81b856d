//! A small world: one object store with faults, one metadata store, and any number of processes that use them.

use std::collections::BTreeMap;
use std::time::Duration;

use meta::error::ErrorKind;
use meta::faults::{Fault, FaultPlan, FaultStore, Operation};
use meta::seams::Random;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::entry::TopicPartition;
use crate::fragment::{FragmentBuilder, entry_checksum};
use crate::log::{Outcome, Pending};
use crate::samples::{RecordingSink, TxnFault, UncertainMeta, entry, partition};

mod races;
mod reads;
mod recovery;
mod unfenced;
mod writing;

const WRITER: Incarnation = Incarnation(0x11);
const SEALER: Incarnation = Incarnation(0x22);
const OTHER_SEALER: Incarnation = Incarnation(0x33);

#[derive(Clone)]
struct World {
    store: FaultStore,
    meta: UncertainMeta,
    options: WriterOptions,
}

/// An open log, the connection that it alone uses, and what it told its sink.
struct Writer {
    log: Arc<dyn Log>,
    sink: Arc<RecordingSink>,
    connection: FaultStore,
}

impl World {
    fn new() -> Self {
        Self::over(FaultStore::in_memory())
    }

    fn over(store: FaultStore) -> Self {
        Self { store, meta: UncertainMeta::new(), options: WriterOptions::default() }
    }

    fn seeded(seed: u64, plan: FaultPlan) -> Self {
        let memory = Arc::new(object_store::memory::InMemory::new());
        Self::over(FaultStore::new(memory, Random::from_seed(seed), plan))
    }

    /// The log store as one process has it, over a connection of its own.
    fn logs(&self, connection: &FaultStore) -> ObjectLogStore {
        let meta: Arc<dyn MetaStore> = Arc::new(self.meta.clone());
        ObjectLogStore::new(Settler::new(Arc::new(connection.clone())), meta, self.options)
    }

    async fn writer(&self) -> Writer {
        let number = registry::register(&self.meta, WRITER, &[]).await.unwrap();
        let sink = RecordingSink::new();
        let connection = self.store.handle();
        let log = self.logs(&connection).open(number, WRITER, sink.clone()).await.unwrap();
        Writer { log, sink, connection }
    }

    /// Marks the log as sealing and finds its end; repeats what may be repeated.
    async fn fence(&self, number: u64, sealer: Incarnation) -> Result<u64> {
        let record = registry::begin_sealing(&self.meta, number).await?;
        let logs = self.logs(&self.store.handle());
        loop {
            match logs.fence(number, &record, sealer).await {
                Err(error) if error.kind() == ErrorKind::Retriable => sleep(Duration::from_millis(100)).await,
                ended => return ended,
            }
        }
    }

    async fn recover(&self, number: u64, sealer: Incarnation) -> LogRecord {
        let end = self.fence(number, sealer).await.unwrap();
        registry::seal(&self.meta, number, end).await.unwrap()
    }

    /// The base offsets in a sealed log, by partition, in the order of the log. Every byte is read and checked.
    async fn content(&self, number: u64) -> BTreeMap<TopicPartition, Vec<i64>> {
        let (record, _) = registry::load(&self.meta, number).await.unwrap();
        assert_eq!(record.state, LogState::Sealed);
        let logs = self.logs(&self.store.handle());
        let mut content: BTreeMap<TopicPartition, Vec<i64>> = BTreeMap::new();
        for (segment, ended) in record.segments.iter().enumerate() {
            let mut indexes = Vec::new();
            let mut keep = |index| {
                indexes.push(index);
                Ok(())
            };
            logs.read_indexes(number, segment as u32, 0, ended.end.unwrap(), &mut keep).await.unwrap();
            assert_eq!(indexes.len() as u64, ended.end.unwrap());
            for (fragment, index) in indexes.iter().enumerate() {
                assert_eq!(
                    index.fragment,
                    FragmentId { log: number, segment: segment as u32, fragment: fragment as u64 }
                );
                for indexed in &index.runs {
                    let bytes = logs.read(&indexed.run, indexed.run.position, indexed.run.length).await.unwrap();
                    for entry in &indexed.entries {
                        let begin = (entry.position - indexed.run.position) as usize;
                        let bytes = &bytes[begin..begin + entry.length as usize];
                        assert_eq!(entry_checksum(bytes), Some(entry.checksum));
                        content.entry(indexed.partition).or_default().push(entry.meta.base_offset);
                    }
                }
            }
        }
        content
    }
}

impl Writer {
    /// Appends entries of one record each, at these offsets of partition 0.
    fn append(&self, offsets: impl IntoIterator<Item = i64>) -> Vec<Pending> {
        offsets.into_iter().map(|offset| self.log.enqueue(entry(partition(1, 0), offset, 1, 100))).collect()
    }

    /// One fragment for each offset: waits until the flusher has taken it.
    async fn append_apart(&self, offsets: impl IntoIterator<Item = i64>) -> Vec<Pending> {
        let mut pending = Vec::new();
        for offset in offsets {
            pending.extend(self.append([offset]));
            sleep(Duration::from_millis(60)).await;
        }
        pending
    }

    fn number(&self) -> u64 {
        self.log.number()
    }
}

async fn all(pending: &[Pending]) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for pending in pending {
        outcomes
            .push(timeout(Duration::from_secs(3600), pending.resolved()).await.expect("it resolves within an hour"));
    }
    outcomes
}

fn all_are(outcome: Outcome, pending: &[Pending]) -> bool {
    pending.iter().all(|pending| pending.outcome() == Some(outcome))
}

fn offsets(offsets: impl IntoIterator<Item = i64>) -> BTreeMap<TopicPartition, Vec<i64>> {
    let offsets: Vec<i64> = offsets.into_iter().collect();
    if offsets.is_empty() { BTreeMap::new() } else { BTreeMap::from([(partition(1, 0), offsets)]) }
}

fn key(number: u64, segment: u32, fragment: u64) -> String {
    object::fragment(number, segment, fragment).to_string()
}
