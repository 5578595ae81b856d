//! Tests of reads within one run, the same from the tail and from storage; flipped bits; memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use meta::error::ErrorKind;
use meta::seams::Incarnation;
use parking_lot::Mutex;

use super::*;
use crate::entry::{Entry, FragmentId};
use crate::error::Error;
use crate::fragment::FragmentBuilder;
use crate::log::DurableFragment;
use crate::samples::{bytes_of as entry_bytes, entry, partition};
use crate::stand_in::Fragments;

mod remote;

/// Fragments' bytes in memory.
#[derive(Default)]
struct Kept {
    fragments: Mutex<BTreeMap<FragmentId, Vec<u8>>>,
    is_remote: bool,
    /// So many reads get flipped bits, different ones each time.
    damaged: AtomicUsize,
    /// The next read ends behind so many bytes, as if that were all.
    cut_to: Mutex<Option<usize>>,
    reads: AtomicUsize,
}

#[async_trait]
impl Fragments for Kept {
    fn are_remote(&self) -> bool {
        self.is_remote
    }

    async fn bytes(&self, fragment: FragmentId, range: Range<u64>) -> Result<Bytes> {
        let number = self.reads.fetch_add(1, Ordering::SeqCst);
        let fragments = self.fragments.lock();
        let stored = fragments.get(&fragment).ok_or_else(|| Error::Missing { key: self.key(fragment) })?;
        let (begin, end) = (range.start as usize, stored.len().min(range.end as usize));
        let mut bytes = stored[begin..end.max(begin)].to_vec();
        if self.damaged.load(Ordering::SeqCst) > 0 {
            self.damaged.fetch_sub(1, Ordering::SeqCst);
            bytes.iter_mut().for_each(|byte| *byte ^= 1 << (number % 8));
        }
        bytes.truncate(self.cut_to.lock().take().unwrap_or(usize::MAX));
        Ok(bytes.into())
    }
}

/// Where a fragment is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Tail,
    File,
    Remote,
}

fn options() -> ReaderOptions {
    let lane = LaneOptions { chunk_bytes: 128, get_chunks: 4, max_bytes: 64 * 128, gets: 4, ahead_gets: 4 };
    ReaderOptions { index_cache_bytes: 1 << 20, near: lane, cold: lane }
}

struct Fixture {
    reader: Reader,
    store: Arc<Kept>,
    budget: Budget,
    entries: Vec<Entry>,
    run: Run,
}

fn p() -> TopicPartition {
    partition(1, 0)
}

/// One run of four batches: offsets 10..12, 12..13, 13..20, 20..21, of 100 bytes each; between two other partitions.
fn fixture(place: Place, budget_bytes: usize) -> Fixture {
    let entries: Vec<_> = [(10, 2), (12, 1), (13, 7), (20, 1)]
        .into_iter()
        .map(|(base, records)| entry(p(), base, records, 100 - HEAD_BYTES))
        .collect();
    let others = [entry(partition(0, 9), 0, 1, 33), entry(partition(2, 0), 0, 1, 44)];
    let id = FragmentId { log: 4, segment: 2, fragment: 9 };
    let encoded = entries.iter().cloned().chain(others).collect::<FragmentBuilder>().finish(id, Incarnation(1), None);
    let run = encoded.index.runs.iter().find(|run| run.partition == p()).unwrap().run;
    let store = Arc::new(Kept { is_remote: place == Place::Remote, ..Kept::default() });
    store.fragments.lock().insert(id, encoded.parts.concat());
    let tail = Arc::new(Tail::new(if place == Place::Tail { 1 << 20 } else { 0 }));
    tail.push(DurableFragment { index: encoded.index, entries: encoded.entries });
    let budget = Budget::new(budget_bytes);
    let reader = Reader::new(tail, store.clone(), budget.clone(), options());
    Fixture { reader, store, budget, entries, run }
}

fn want(from_offset: i64, below_offset: i64, max_bytes: usize, at_least_one: bool) -> Want {
    Want { from_offset, below_offset, max_bytes, at_least_one, look_up: false }
}

impl Fixture {
    /// Reads, checks that exactly these entries came, and returns where to read on.
    async fn expect(&self, want: Want, entries: Range<usize>) -> i64 {
        let read = self.reader.read(p(), &self.run, &want).await.unwrap();
        let expected: Vec<u8> = self.entries[entries].iter().flat_map(entry_bytes).collect();
        assert_eq!(read.slices.concat(), expected, "{want:?}");
        assert_eq!(read.bytes, expected.len());
        assert_eq!(read.permits.is_empty(), expected.is_empty());
        read.next_offset
    }
}

#[tokio::test]
async fn whole_batches_within_bounds_from_tail_and_storage() {
    for place in [Place::Tail, Place::File, Place::Remote] {
        let f = fixture(place, 1 << 20);
        assert_eq!(f.expect(want(10, 21, 1000, false), 0..4).await, 21);
        assert_eq!(f.expect(want(0, i64::MAX, 1000, false), 0..4).await, 21);
        assert_eq!(f.expect(want(11, 21, 1000, false), 0..4).await, 21, "begins with the batch that holds it");
        assert_eq!(f.expect(want(14, 21, 1000, false), 2..4).await, 21);
        assert_eq!(f.expect(want(12, 21, 250, false), 1..3).await, 20, "as many as fit");
        assert_eq!(f.expect(want(10, 20, 1000, false), 0..3).await, 20, "nothing at the bound");
        assert_eq!(f.expect(want(10, 19, 1000, false), 0..2).await, 13, "no batch that reaches the bound");
        assert_eq!(f.expect(want(10, 10, 1000, true), 0..0).await, 10);
        assert_eq!(f.expect(want(10, 21, 99, false), 0..0).await, 10, "no room");
        assert_eq!(f.expect(want(13, 21, 99, true), 2..3).await, 20, "the first batch, even so");
        assert_eq!(f.expect(want(13, 21, 0, true), 2..3).await, 20);
        assert_eq!(f.expect(want(21, 30, 1000, true), 0..0).await, 21, "nothing left");
    }
}

#[tokio::test]
async fn a_read_from_storage_is_paid_for() {
    let f = fixture(Place::File, 400);
    let read = f.reader.read(p(), &f.run, &want(10, 21, 1000, false)).await.unwrap();
    assert_eq!((read.bytes, f.budget.used_bytes()), (400, 400));
    let refused = f.reader.read(p(), &f.run, &want(10, 21, 1000, false)).await.unwrap();
    assert_eq!((refused.bytes, refused.next_offset), (0, 10), "does not wait while the caller may hold more");
    drop(read);
    assert_eq!(f.budget.used_bytes(), 0);
}

#[tokio::test]
async fn a_read_that_must_answer_waits_for_the_memory_of_one_batch() {
    let f = fixture(Place::File, 400);
    let held = f.budget.take_anyway(350);
    let wanted = want(10, 21, 1000, true);
    let mut reading = std::pin::pin!(f.reader.read(p(), &f.run, &wanted));
    tokio::select! {
        biased;
        _ = &mut reading => panic!("there is no memory"),
        () = tokio::time::sleep(std::time::Duration::from_millis(10)) => {}
    }
    let rest = f.budget.take_anyway(0);
    drop(held);
    let read = reading.await.unwrap();
    drop(rest);
    assert_eq!((read.bytes, read.next_offset, f.budget.used_bytes()), (100, 12, 100));
}

#[tokio::test]
async fn the_tail_keeps_its_permits_alive_in_the_answer() {
    let f = fixture(Place::Tail, 1 << 20);
    let read = f.reader.read(p(), &f.run, &want(10, 21, 1000, false)).await.unwrap();
    assert_eq!(read.permits.len(), 4, "one for each allocation");
    assert_eq!(f.budget.used_bytes(), 0, "they were paid for by whoever received them");
    assert_eq!(read.slices.len(), 8, "heads and bodies, uncopied");
}

#[tokio::test]
async fn flipped_bits_are_never_served() {
    let f = fixture(Place::File, 1 << 20);
    let position = f.run.position + 150; // in the second batch
    f.store.fragments.lock().get_mut(&f.run.fragment).unwrap()[position as usize] ^= 1;
    let error = f.reader.read(p(), &f.run, &want(10, 21, 1000, false)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let (text, begin) = (error.to_string(), f.run.position + 100);
    assert!(text.contains("logs/0000000004/000002/000000000009.frag"), "{text}");
    assert!(text.contains(&format!("position {begin}")) && text.contains("offset 12"), "{text}");
    assert_eq!(f.budget.used_bytes(), 0);
    assert_eq!(f.expect(want(10, 12, 1000, false), 0..1).await, 12, "what is intact is still served");
}

#[tokio::test]
async fn a_damaged_index_is_corrupt_and_a_missing_fragment_retriable() {
    let f = fixture(Place::File, 1 << 20);
    let position = f.run.index_position as usize + 3;
    f.store.fragments.lock().get_mut(&f.run.fragment).unwrap()[position] ^= 1;
    let error = f.reader.read(p(), &f.run, &want(10, 21, 1000, false)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    f.store.fragments.lock().clear();
    let error = f.reader.read(p(), &f.run, &want(10, 21, 1000, false)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retriable);
}

#[tokio::test]
async fn the_entry_index_is_the_same_from_both() {
    let (tail, stored) = (fixture(Place::Tail, 1 << 20), fixture(Place::File, 1 << 20));
    let from_tail = tail.reader.entry_index(p(), &tail.run).await.unwrap();
    let from_storage = stored.reader.entry_index(p(), &stored.run).await.unwrap();
    assert!(matches!(from_tail, EntryIndex::Tail(_)) && matches!(from_storage, EntryIndex::Stored(_)));
    assert_eq!(from_tail[..], from_storage[..]);
    assert_eq!(from_tail.len(), 4);
}
