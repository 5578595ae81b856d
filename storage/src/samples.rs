//! What tests are made of: entries (small, distinguishable by their bytes, paid for by no particular budget), a sink that
//! keeps what it is told, and a metadata store that does not always say what it did.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use meta::error::{Error, Result};
use meta::memory::MemoryStore;
use meta::store::{KeyValue, LeaseId, Listing, MetaStore, Revision, Txn, TxnOutcome, Watch};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::budget::Budget;
use crate::entry::{Entry, EntryMeta, HEAD_BYTES, TopicPartition};
use crate::log::{DurableFragment, DurableSink, Outcome};

/// Partition `partition` of the topic with the id `topic`.
pub fn partition(topic: u128, partition: i32) -> TopicPartition {
    TopicPartition { topic: Uuid::from_u128(topic), partition }
}

/// A batch of `records` records at `base_offset`, with a body of `body_bytes` bytes that differ by offset.
pub fn entry(partition: TopicPartition, base_offset: i64, records: i64, body_bytes: usize) -> Entry {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(&base_offset.to_be_bytes());
    let seed = (base_offset as u8).wrapping_mul(31).wrapping_add(partition.partition as u8);
    let body: Bytes = (0..body_bytes).map(|i| seed.wrapping_add((i as u8).wrapping_mul(7))).collect::<Vec<u8>>().into();
    let meta = EntryMeta {
        base_offset,
        last_offset: base_offset + records - 1,
        max_timestamp: 1_000 + base_offset,
        leader_epoch: 3,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        attributes: 0,
    };
    let permit = Budget::new(body_bytes).take_anyway(body_bytes);
    let body_crc = crc32c::crc32c(&body);
    Entry { partition, meta, head, body, body_crc, permit }
}

/// An entry's bytes as they lie in a fragment.
pub fn bytes_of(entry: &Entry) -> Vec<u8> {
    [&entry.head[..], &entry.body[..]].concat()
}

/// Keeps what it is told.
#[derive(Debug, Default)]
pub struct RecordingSink {
    pub durable: Mutex<Vec<DurableFragment>>,
    pub ended: Mutex<Vec<(Outcome, String)>>,
}

impl RecordingSink {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Partition and base offset of every entry that became durable, in order.
    pub fn offsets(&self) -> Vec<(TopicPartition, i64)> {
        let durable = self.durable.lock();
        let entries = durable.iter().flat_map(|fragment| &fragment.entries);
        entries.map(|entry| (entry.partition, entry.meta.base_offset)).collect()
    }

    /// How the log ended, if it did.
    pub fn outcome(&self) -> Option<Outcome> {
        self.ended.lock().first().map(|(outcome, _)| *outcome)
    }
}

impl DurableSink for RecordingSink {
    fn fragment_durable(&self, fragment: DurableFragment) {
        assert!(self.ended.lock().is_empty(), "nothing becomes durable after the end");
        self.durable.lock().push(fragment);
    }

    fn log_ended(&self, outcome: Outcome, why: &str) {
        self.ended.lock().push((outcome, why.to_owned()));
    }
}

/// What happens to one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxnFault {
    None,
    /// It is applied, and nobody can tell.
    AppliedUnknown,
    /// It is not applied, and nobody can tell.
    LostUnknown,
    Unavailable,
    /// It is applied at once, and answered after this long.
    AppliedAnsweredLate(Duration),
}

/// A metadata store whose next transactions end as scripted.
#[derive(Debug, Clone, Default)]
pub struct UncertainMeta {
    pub inner: MemoryStore,
    faults: Arc<Mutex<VecDeque<TxnFault>>>,
}

impl UncertainMeta {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn script(&self, faults: impl IntoIterator<Item = TxnFault>) {
        self.faults.lock().extend(faults);
    }
}

#[async_trait]
impl MetaStore for UncertainMeta {
    async fn get(&self, key: &str) -> Result<Option<KeyValue>> {
        self.inner.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing> {
        self.inner.list(prefix).await
    }

    async fn commit(&self, txn: Txn) -> Result<TxnOutcome> {
        let unknown = || Err(Error::Unknown { what: "a scripted transaction".to_owned() });
        let fault = self.faults.lock().pop_front().unwrap_or(TxnFault::None);
        match fault {
            TxnFault::None => self.inner.commit(txn).await,
            TxnFault::AppliedUnknown => self.inner.commit(txn).await.and_then(|_| unknown()),
            TxnFault::LostUnknown => unknown(),
            TxnFault::AppliedAnsweredLate(after) => {
                let outcome = self.inner.commit(txn).await;
                tokio::time::sleep(after).await;
                outcome
            }
            TxnFault::Unavailable => {
                Err(Error::Unavailable { what: "metadata".to_owned(), source: "as scripted".into() })
            }
        }
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        self.inner.watch(prefix, from).await
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId> {
        self.inner.grant_lease(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<()> {
        self.inner.keep_alive(lease).await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<()> {
        self.inner.revoke_lease(lease).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
