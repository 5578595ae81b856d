//! Tests of what readers share: bounds, single flight, failures, and who makes room for whom.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::join_all;
use meta::error::ErrorKind;
use proptest::prelude::*;
use tokio::task::yield_now;

use super::*;
use crate::stand_in::Fragments;

const CHUNK: usize = 1024;

/// Objects whose bytes follow from their place. Each GET takes a permit of the gate.
struct Objects {
    object_bytes: u64,
    gate: Semaphore,
    failures: AtomicUsize,
    gets: Mutex<Vec<Range<u64>>>,
}

fn byte(fragment: FragmentId, at: u64) -> u8 {
    (fragment.fragment as u8).wrapping_mul(101).wrapping_add((at % 251) as u8)
}

fn id(fragment: u64) -> FragmentId {
    FragmentId { log: 1, segment: 0, fragment }
}

#[async_trait]
impl Fragments for Objects {
    fn are_remote(&self) -> bool {
        true
    }

    async fn bytes(&self, fragment: FragmentId, range: Range<u64>) -> Result<Bytes> {
        self.gets.lock().push(range.clone());
        self.gate.acquire().await.unwrap().forget();
        if self.failures.load(Ordering::SeqCst) > 0 {
            self.failures.fetch_sub(1, Ordering::SeqCst);
            return Err(Error::Missing { key: fragment.key().to_string() });
        }
        Ok((range.start..range.end.min(self.object_bytes)).map(|at| byte(fragment, at)).collect())
    }
}

struct Lane {
    objects: Arc<Objects>,
    budget: Budget,
    cache: ChunkCache,
}

fn options(chunks: usize) -> LaneOptions {
    LaneOptions { chunk_bytes: CHUNK, get_chunks: 4, max_bytes: chunks * CHUNK, gets: 4, ahead_gets: 4 }
}

/// Room for so many chunks. Whether GETs are answered at once is said by `open`.
fn lane(chunks: usize, budget_bytes: usize, open: bool) -> Lane {
    let objects = Arc::new(Objects {
        object_bytes: 64 * CHUNK as u64 + 100,
        gate: Semaphore::new(if open { 1 << 20 } else { 0 }),
        failures: AtomicUsize::new(0),
        gets: Mutex::default(),
    });
    let budget = Budget::new(budget_bytes);
    let cache = ChunkCache::new(objects.clone(), budget.clone(), options(chunks));
    Lane { objects, budget, cache }
}

/// So many whole chunks.
fn chunks(first: u64, count: u64) -> Range<u64> {
    first * CHUNK as u64..(first + count) * CHUNK as u64
}

fn expected(fragment: FragmentId, range: Range<u64>) -> Vec<u8> {
    range.map(|at| byte(fragment, at)).collect()
}

impl Lane {
    fn gets(&self) -> usize {
        self.objects.gets.lock().len()
    }

    async fn read(&self, fragment: u64, range: Range<u64>) -> Result<Vec<u8>> {
        let pieces = self.cache.get(id(fragment), range).await?.pieces().await?;
        Ok(pieces.slices.concat())
    }

    /// Lets everything happen that can.
    async fn settle(&self) {
        for _ in 0..200 {
            yield_now().await;
        }
    }
}

#[tokio::test]
async fn what_is_read_is_what_is_stored_across_chunks_and_at_the_end() {
    let lane = lane(32, 1 << 20, true);
    let end = lane.objects.object_bytes;
    for range in [0..10, 1000..1030, 100..5000, 5 * 1024..6 * 1024, end - 2000..end, end - 1..end] {
        assert_eq!(lane.read(7, range.clone()).await.unwrap(), expected(id(7), range.clone()), "{range:?}");
    }
    let error = lane.read(7, end - 10..end + 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "it is not that long: {error}");
}

#[tokio::test]
async fn many_readers_cause_one_get_and_neighbours_come_together() {
    let lane = lane(32, 1 << 20, false);
    let readers = join_all((0..20).map(|n| lane.read(0, n * 100..n * 100 + 1500)));
    let open = async {
        yield_now().await;
        lane.objects.gate.add_permits(1000);
    };
    let (answers, ()) = tokio::join!(readers, open);
    for (n, answer) in (0..).zip(answers) {
        assert_eq!(answer.unwrap(), expected(id(0), n * 100..n * 100 + 1500));
    }
    let read: u64 = lane.objects.gets.lock().iter().map(|range| range.end - range.start).sum();
    assert_eq!(read, 4 * CHUNK as u64, "each chunk once: {:?}", lane.objects.gets.lock());
    let before = lane.gets();
    lane.read(0, 0..3000).await.unwrap();
    assert_eq!(lane.gets(), before, "they are kept");
    lane.read(1, chunks(0, 8)).await.unwrap();
    assert_eq!(lane.objects.gets.lock()[before..], [chunks(0, 4), chunks(4, 4)]);
}

#[tokio::test]
async fn a_failure_is_told_to_all_that_wait_and_the_next_one_tries() {
    let lane = lane(16, 1 << 20, false);
    lane.objects.failures.store(1, Ordering::SeqCst);
    let readers = join_all((0..3).map(|_| lane.read(0, 0..100)));
    let open = async { lane.objects.gate.add_permits(100) };
    let (answers, ()) = tokio::join!(biased; readers, open);
    assert!(answers.iter().all(|answer| matches!(answer, Err(Error::Missing { .. }))), "{answers:?}");
    assert_eq!(lane.gets(), 1);
    assert_eq!((lane.cache.bytes(), lane.budget.used_bytes()), (0, 0), "a failure keeps no memory");
    assert_eq!(lane.read(0, 0..100).await.unwrap(), expected(id(0), 0..100));
}

#[tokio::test]
async fn a_reader_that_gives_up_holds_up_nobody() {
    let lane = lane(16, 1 << 20, false);
    assert!(lane.read(0, 0..100).now_or_never().is_none(), "the gate is closed");
    let second = lane.read(0, 0..100);
    lane.objects.gate.add_permits(1);
    assert_eq!(second.await.unwrap(), expected(id(0), 0..100));
    assert_eq!(lane.gets(), 1);
}

#[tokio::test]
async fn least_recently_used_goes_first_and_the_pool_is_never_exceeded() {
    let lane = lane(8, 1 << 20, true);
    for number in [0, 1, 2, 3, 4, 5, 6, 0, 7, 8] {
        lane.read(0, chunks(number, 1)).await.unwrap();
        assert!(lane.cache.bytes() <= 8 * CHUNK);
    }
    let before = lane.gets();
    lane.read(0, chunks(0, 1)).await.unwrap();
    assert_eq!(lane.gets(), before, "used lately");
    lane.read(0, chunks(1, 1)).await.unwrap();
    assert_eq!(lane.gets(), before + 1, "least recently used");
}

#[tokio::test]
async fn answers_count_until_they_are_dropped_and_who_must_read_waits_for_them() {
    let lane = lane(8, 1 << 20, true);
    let mut answers = Vec::new();
    for number in 0..4 {
        answers.push(lane.cache.get(id(0), chunks(2 * number, 2)).await.unwrap().pieces().await.unwrap());
    }
    assert_eq!(lane.cache.bytes(), 8 * CHUNK);
    assert!(lane.cache.try_get(id(1), chunks(0, 1)).is_none(), "everything is part of an answer");
    let mut waiting = std::pin::pin!(lane.read(1, chunks(0, 2)));
    assert!(waiting.as_mut().now_or_never().is_none());
    answers.pop();
    assert_eq!(waiting.await.unwrap(), expected(id(1), chunks(0, 2)));
    drop(answers);
    while lane.cache.evict_oldest() {}
    assert_eq!((lane.cache.bytes(), lane.budget.used_bytes()), (0, 0), "to the byte");
}

#[tokio::test]
async fn who_waits_gets_what_lands_meanwhile() {
    let lane = lane(8, 1 << 20, false);
    lane.cache.read_ahead(id(0), chunks(0, 4));
    let mut held = vec![lane.cache.try_get(id(0), chunks(8, 4)).unwrap()];
    let mut waiting = std::pin::pin!(lane.read(1, chunks(0, 2)));
    assert!(waiting.as_mut().now_or_never().is_none(), "all is on its way");
    lane.objects.gate.add_permits(100);
    assert_eq!(waiting.await.unwrap(), expected(id(1), chunks(0, 2)), "what was read ahead is dropped for it");
    held.clear();
}

#[tokio::test]
async fn many_that_must_read_more_than_there_is_take_turns() {
    let lane = lane(8, 1 << 20, true);
    // Each needs two chunks, one of them shared with others: nobody holds one while he waits for the other.
    let readers = (0..40).map(|n| lane.read(n % 3, chunks(n % 7, 2)));
    let answers = join_all(readers).await;
    for (n, answer) in (0..).zip(answers) {
        assert_eq!(answer.unwrap(), expected(id(n % 3), chunks(n % 7, 2)));
    }
    assert!(lane.cache.bytes() <= 8 * CHUNK);
}

#[tokio::test]
async fn who_has_its_turn_and_is_not_polled_holds_up_nobody() {
    let lane = lane(8, 1 << 20, true);
    let mut answers = Vec::new();
    for number in 0..4 {
        answers.push(lane.cache.get(id(0), chunks(2 * number, 2)).await.unwrap().pieces().await.unwrap());
    }
    let mut stalled = std::pin::pin!(lane.read(1, chunks(0, 2)));
    assert!(stalled.as_mut().now_or_never().is_none(), "everything is part of an answer");
    let mut other = std::pin::pin!(lane.read(2, chunks(0, 2)));
    lane.settle().await;
    assert!(other.as_mut().now_or_never().is_none(), "it waits for its turn");
    drop(answers);
    for _ in 0..200 {
        if let Some(answer) = other.as_mut().now_or_never() {
            assert_eq!(answer.unwrap(), expected(id(2), chunks(0, 2)));
            return;
        }
        yield_now().await;
    }
    panic!("it waits for who is not polled");
}

#[tokio::test]
async fn who_gives_up_waiting_leaves_memory_and_turn_to_others() {
    let lane = lane(8, 1 << 20, true);
    let held = lane.cache.0.pool.take_anyway(8 * CHUNK);
    for number in 0..3 {
        let mut waiting = Box::pin(lane.read(number, chunks(0, 2)));
        assert!(waiting.as_mut().now_or_never().is_none());
        lane.settle().await;
    }
    lane.settle().await;
    assert!(!lane.cache.0.pool.is_waited_for(), "nobody is left");
    drop(held);
    assert_eq!(lane.read(3, chunks(0, 2)).await.unwrap(), expected(id(3), chunks(0, 2)));
    assert!(lane.gets() == 1, "nothing was read for who has gone");
}

#[tokio::test]
async fn memory_is_given_up_when_it_is_short_and_nothing_else_is_dropped_for_it() {
    let lane = lane(16, 20 * CHUNK, true);
    let cache = lane.cache.clone();
    let asked = Arc::new(AtomicUsize::new(0));
    let asks = asked.clone();
    lane.budget.on_shortage(Arc::new(move || {
        asks.fetch_add(1, Ordering::Relaxed);
        cache.evict_oldest()
    }));
    for number in 0..4 {
        lane.read(0, chunks(4 * number, 4)).await.unwrap();
    }
    assert!(lane.budget.used_bytes() >= 16 * CHUNK);
    let producer = lane.budget.try_take(18 * CHUNK).expect("what is kept never stands in a producer's way");
    assert!(asked.load(Ordering::Relaxed) > 0 && lane.budget.used_bytes() <= 20 * CHUNK);
    let before = asked.load(Ordering::Relaxed);
    lane.read(1, chunks(0, 1)).await.unwrap();
    assert!(lane.cache.try_get(id(2), chunks(0, 3)).is_none());
    lane.cache.read_ahead(id(3), chunks(0, 4));
    assert_eq!(asked.load(Ordering::Relaxed), before, "others are not asked for what need not be");
    drop(producer);
}

#[tokio::test]
async fn nobody_passes_a_producer_that_waits_for_memory() {
    let lane = lane(16, 20 * CHUNK, true);
    let mut held = (0..20).map(|_| lane.budget.try_take(CHUNK).unwrap()).collect::<Vec<_>>();
    let mut producer = std::pin::pin!(lane.budget.take(5 * CHUNK));
    assert!(producer.as_mut().now_or_never().is_none());
    held.truncate(17);
    assert!(lane.cache.try_get(id(0), chunks(0, 1)).is_none(), "there would be room for it");
    lane.cache.read_ahead(id(0), chunks(0, 2));
    lane.settle().await;
    assert_eq!(lane.gets(), 0);
    held.truncate(15);
    let _produced = producer.await;
    held.truncate(10);
    assert_eq!(lane.read(0, chunks(0, 1)).await.unwrap(), expected(id(0), chunks(0, 1)));
}

#[tokio::test]
async fn what_was_read_ahead_is_there_is_bounded_and_yields_to_who_waits() {
    let lane = lane(16, 1 << 20, true);
    lane.cache.read_ahead(id(0), chunks(0, 16));
    lane.settle().await;
    assert_eq!(lane.gets(), 2, "half of the pool: {:?}", lane.objects.gets.lock());
    lane.read(0, chunks(0, 4)).await.unwrap();
    assert_eq!((lane.gets(), lane.cache.counters().hits.get()), (2, 4));
    lane.cache.read_ahead(id(0), chunks(0, 16));
    lane.settle().await;
    assert_eq!(lane.gets(), 3, "as much as was read");
    assert_eq!(lane.cache.counters().ahead_bytes.get(), 12 * CHUNK as u64);
    for number in 0..8 {
        lane.read(1, chunks(2 * number, 2)).await.unwrap();
    }
    let before = lane.gets();
    lane.read(0, chunks(4, 4)).await.unwrap();
    assert_eq!(lane.gets(), before, "what somebody has read goes before what nobody has");
}

#[tokio::test]
async fn what_was_read_ahead_for_who_has_gone_is_dropped_in_the_end() {
    let lane = lane(16, 1 << 20, true);
    lane.cache.read_ahead(id(0), chunks(0, 8));
    lane.settle().await;
    lane.cache.read_ahead(id(2), chunks(0, 4));
    lane.settle().await;
    assert_eq!(lane.gets(), 2, "there is no room for more that nobody has wanted");
    for number in 0..80 {
        lane.read(1, chunks(number % 60, 1)).await.unwrap();
    }
    assert_eq!(lane.cache.0.slots.lock().unread(), 0);
    let before = lane.gets();
    lane.cache.read_ahead(id(2), chunks(0, 4));
    lane.settle().await;
    assert_eq!(lane.gets(), before + 1);
}

#[tokio::test]
async fn what_is_forgotten_is_read_again() {
    let lane = lane(16, 1 << 20, true);
    let stretch = lane.cache.get(id(0), chunks(0, 2)).await.unwrap();
    stretch.pieces().await.unwrap();
    lane.cache.forget(&stretch);
    let again = lane.cache.get(id(0), chunks(0, 2)).await.unwrap();
    again.pieces().await.unwrap();
    assert_eq!(lane.gets(), 2);
    lane.cache.forget(&stretch);
    lane.read(0, chunks(0, 2)).await.unwrap();
    assert_eq!(lane.gets(), 2, "what came since is another");
}

#[derive(Debug, Clone)]
enum Step {
    Read {
        fragment: u64,
        range: Range<u64>,
    },
    Ahead {
        fragment: u64,
        range: Range<u64>,
    },
    /// Drops the oldest answer.
    Drop,
    /// Lets so many GETs through.
    Open(usize),
    Fail,
    /// Somebody else takes memory, or gives it back.
    Others(usize),
    Evict,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let range = || (0..60_000_u64, 1..4_000_u64).prop_map(|(begin, length)| begin..begin + length);
    let step = prop_oneof![
        4 => (0..3_u64, range()).prop_map(|(fragment, range)| Step::Read { fragment, range }),
        2 => (0..3_u64, range()).prop_map(|(fragment, range)| Step::Ahead { fragment, range }),
        3 => Just(Step::Drop),
        4 => (0..6_usize).prop_map(Step::Open),
        1 => Just(Step::Fail),
        1 => (0..20 * CHUNK).prop_map(Step::Others),
        1 => Just(Step::Evict),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: bounds hold at every moment, what is answered is what is stored, and in the end
    /// no byte is missing.
    #[test]
    fn bounds_hold_and_answers_are_right(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(steps));
    }
}

async fn run(steps: Vec<Step>) {
    let lane = lane(16, 24 * CHUNK, false);
    let (mut answers, mut others, mut number) = (BTreeMap::new(), None, 0);
    for step in steps {
        match step {
            Step::Read { fragment, range } => {
                if let Some(stretch) = lane.cache.try_get(id(fragment), range.clone()) {
                    answers.insert(number, (fragment, range, stretch));
                    number += 1;
                }
            }
            Step::Ahead { fragment, range } => lane.cache.read_ahead(id(fragment), range),
            Step::Drop => drop(answers.pop_first()),
            Step::Open(gets) => lane.objects.gate.add_permits(gets),
            Step::Fail => drop(lane.objects.failures.fetch_add(1, Ordering::SeqCst)),
            Step::Others(bytes) => {
                others = None;
                others = lane.budget.take_if_free(bytes).or(others);
            }
            Step::Evict => drop(lane.cache.evict_oldest()),
        }
        for _ in 0..4 {
            yield_now().await;
        }
        assert!(lane.cache.bytes() <= 16 * CHUNK && lane.budget.used_bytes() <= 24 * CHUNK);
        assert!(lane.cache.0.slots.lock().unread() <= 8, "half of the pool");
    }
    lane.objects.gate.add_permits(1 << 20);
    for (fragment, range, stretch) in answers.into_values() {
        match stretch.pieces().await {
            Ok(pieces) => assert_eq!(pieces.slices.concat(), expected(id(fragment), range)),
            Err(error) => assert!(matches!(error, Error::Missing { .. }), "{error}"),
        }
    }
    drop(others);
    lane.settle().await;
    while lane.cache.evict_oldest() {}
    assert_eq!((lane.cache.bytes(), lane.budget.used_bytes()), (0, 0));
}
