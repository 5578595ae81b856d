//! One suite for every backend of `Log` and `LogStore`: their contract, as tests.
//!
//! A backend is tested by `run(|| backend)`: every case gets a fresh one. Cases panic with what they expected.

// A test suite: a failure shall say where it was.
#![allow(clippy::unwrap_used)]

mod sink;

mod cases;
mod recovery;

use std::future::Future;
use std::sync::Arc;

use meta::records::LogRecord;
use meta::seams::Incarnation;
use meta::store::MetaStore;

pub use self::sink::{Recorder, bytes_of_run};
use crate::entry::{Entry, FragmentIndex};
use crate::log::{Log, LogStore, Outcome, Pending};
use crate::registry;
use crate::samples::{entry, partition};

/// A fresh, empty storage with its metadata.
pub struct Backend {
    pub meta: Arc<dyn MetaStore>,
    /// A store on this storage as another process, or the same one after a restart, would open it.
    pub open: Box<dyn Fn() -> Arc<dyn LogStore> + Send + Sync>,
    /// Two processes can have it open at once, and one can fence the other.
    pub shared: bool,
}

/// Runs every case, each on a backend of its own.
pub async fn run<F: Future<Output = Backend>>(fresh: impl Fn() -> F) {
    cases::order_and_exact_contents(&fresh().await).await;
    cases::durable_in_the_order_of_enqueueing(&fresh().await).await;
    cases::closing_makes_durable_and_seals(&fresh().await).await;
    cases::rolling_goes_on_in_a_new_segment(&fresh().await).await;
    cases::many_partitions_share_fragments(&fresh().await).await;
    cases::a_large_entry(&fresh().await).await;
    cases::only_the_registered_writer_opens(&fresh().await).await;
    cases::reads_stay_within_their_run(&fresh().await).await;
    recovery::acknowledged_entries_survive_a_crash(&fresh().await).await;
    recovery::fencing_is_idempotent(&fresh().await).await;
    recovery::an_empty_log_is_sealed_at_zero(&fresh().await).await;
    recovery::a_fenced_writer_acknowledges_nothing_more(&fresh().await).await;
    recovery::logs_merge_by_offset(&fresh().await).await;
    recovery::indexes_from_the_middle(&fresh().await).await;
}

/// A log that was just opened, with the sink that listens to it.
pub(crate) struct Opened {
    pub number: u64,
    pub log: Arc<dyn Log>,
    pub sink: Arc<Recorder>,
}

impl Backend {
    /// Registers a log and opens it.
    pub(crate) async fn open_log(&self, store: &dyn LogStore, writer: Incarnation) -> Opened {
        let number = registry::register(&*self.meta, writer, &[]).await.unwrap();
        let sink = Arc::new(Recorder::default());
        let log = store.open(number, writer, sink.clone()).await.unwrap();
        assert_eq!(log.number(), number);
        Opened { number, log, sink }
    }

    /// Marks a log as being sealed, fences it and records its end, as a recovering process does.
    pub(crate) async fn recover(&self, store: &dyn LogStore, number: u64, sealer: Incarnation) -> LogRecord {
        let record = registry::begin_sealing(&*self.meta, number).await.unwrap();
        let end = store.fence(number, &record, sealer).await.unwrap();
        registry::seal(&*self.meta, number, end).await.unwrap()
    }
}

/// The indexes of a sealed log, in order.
pub(crate) async fn indexes(store: &dyn LogStore, number: u64, record: &LogRecord) -> Vec<FragmentIndex> {
    let mut indexes = Vec::new();
    for (segment, found) in record.segments.iter().enumerate() {
        let mut each = |index| {
            indexes.push(index);
            Ok(())
        };
        store.read_indexes(number, segment as u32, 0, found.end.unwrap(), &mut each).await.unwrap();
    }
    indexes
}

/// Entries of a few partitions in turn, with offsets that go on from `round` to `round`.
pub(crate) fn some_entries(round: i64, count: i64, partitions: i32) -> Vec<Entry> {
    let mut entries = Vec::new();
    for n in round * count..(round + 1) * count {
        for p in 0..partitions {
            entries.push(entry(partition(9, p), n * 3, 3, 40 + (n as usize * 7 + p as usize) % 300));
        }
    }
    entries
}

pub(crate) fn enqueue_all(log: &dyn Log, entries: &[Entry]) -> Vec<Pending> {
    entries.iter().map(|entry| log.enqueue(entry.clone())).collect()
}

pub(crate) async fn all_durable(pending: &[Pending]) {
    for pending in pending {
        assert_eq!(pending.resolved().await, Outcome::Durable);
    }
}

#[cfg(test)]
mod tests;
