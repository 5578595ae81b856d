//! A sink that keeps and checks everything it is told, and the comparison of what is stored with it.

use parking_lot::Mutex;

use crate::entry::{Entry, FragmentId, FragmentIndex, IndexedRun};
use crate::log::{DurableFragment, DurableSink, LogStore, Outcome};
use crate::samples::bytes_of;

#[derive(Default)]
pub struct Recorder {
    fragments: Mutex<Vec<DurableFragment>>,
    ended: Mutex<Vec<(Outcome, String)>>,
}

impl DurableSink for Recorder {
    fn fragment_durable(&self, fragment: DurableFragment) {
        let mut fragments = self.fragments.lock();
        assert!(self.ended.lock().is_empty(), "nothing becomes durable after the end");
        let id = fragment.index.fragment;
        let expected = match fragments.last().map(|last| last.index.fragment) {
            None => FragmentId { fragment: 0, ..id },
            Some(last) if last.segment == id.segment => FragmentId { fragment: last.fragment + 1, ..last },
            Some(last) => FragmentId { segment: id.segment.max(last.segment + 1), fragment: 0, ..last },
        };
        assert_eq!(id, expected, "fragments come once, in order");
        let indexed: Vec<_> = fragment
            .index
            .runs
            .iter()
            .flat_map(|run| run.entries.iter().map(|entry| (run.partition, entry.meta)))
            .collect();
        let entries: Vec<_> = fragment.entries.iter().map(|entry| (entry.partition, entry.meta)).collect();
        assert_eq!(indexed, entries, "the entries lie in the order of the index");
        fragments.push(fragment);
    }

    fn log_ended(&self, outcome: Outcome, why: &str) {
        assert_ne!(outcome, Outcome::Durable);
        let mut ended = self.ended.lock();
        assert!(ended.is_empty(), "a log ends once");
        ended.push((outcome, why.to_owned()));
    }
}

impl Recorder {
    pub fn indexes(&self) -> Vec<FragmentIndex> {
        self.fragments.lock().iter().map(|fragment| fragment.index.clone()).collect()
    }

    /// All entries, in the order in which they became durable.
    pub fn entries(&self) -> Vec<Entry> {
        self.fragments.lock().iter().flat_map(|fragment| fragment.entries.clone()).collect()
    }

    pub fn ended(&self) -> Option<Outcome> {
        self.ended.lock().first().map(|(outcome, _)| *outcome)
    }

    /// Everything that became durable is in the store, byte for byte, by index and by ranged reads.
    pub async fn matches(&self, store: &dyn LogStore) {
        let entries = self.entries();
        let mut entries = entries.iter();
        for index in self.indexes() {
            for indexed in &index.runs {
                assert_eq!(store.read_run_index(&indexed.run).await.expect("a run's index"), indexed.entries);
                let expected: Vec<_> = entries.by_ref().take(indexed.entries.len()).collect();
                let bytes: Vec<u8> = expected.iter().flat_map(|entry| bytes_of(entry)).collect();
                assert_eq!(bytes_of_run(store, indexed).await, bytes);
                let last = indexed.entries.last().expect("a run has entries");
                let read = store.read(&indexed.run, last.position, last.length).await.expect("one entry");
                assert_eq!(read, bytes_of(expected[expected.len() - 1]));
            }
        }
        assert!(entries.next().is_none());
    }
}

/// Reads a whole run.
pub async fn bytes_of_run(store: &dyn LogStore, indexed: &IndexedRun) -> Vec<u8> {
    store.read(&indexed.run, indexed.run.position, indexed.run.length).await.expect("a run's data").to_vec()
}
