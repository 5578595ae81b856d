//! Tests of the index cache: single flight, failures, and its bound in bytes.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;
use meta::seams::Incarnation;
use tokio::sync::Semaphore;

use super::*;
use crate::fragment::FragmentBuilder;
use crate::samples::{entry, partition};

/// Answers index reads, one for each permit of the semaphore.
struct Slow {
    reads: AtomicUsize,
    failures: AtomicUsize,
    gate: Semaphore,
}

impl Slow {
    fn new(permits: usize, failures: usize) -> Self {
        Self { reads: AtomicUsize::new(0), failures: AtomicUsize::new(failures), gate: Semaphore::new(permits) }
    }

    async fn read(&self, run: &Run) -> Result<Vec<IndexedEntry>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        if self.failures.load(Ordering::SeqCst) > 0 {
            self.failures.fetch_sub(1, Ordering::SeqCst);
            return Err(crate::error::Error::Missing { key: "gone".to_owned() });
        }
        Ok(sample(run.fragment.fragment).1)
    }
}

async fn get(cache: &IndexCache, store: &Arc<Slow>, run: &Run) -> Result<Index> {
    let load = || {
        let (store, run) = (store.clone(), *run);
        async move { store.read(&run).await }
    };
    cache.get(run, load).await
}

fn sample(number: u64) -> (Run, Vec<IndexedEntry>) {
    let entries = (0..10).map(|offset| entry(partition(1, 0), offset, 1, 50));
    let id = FragmentId { log: 1, segment: 0, fragment: number };
    let mut index = entries.collect::<FragmentBuilder>().finish(id, Incarnation(1), None).index;
    let run = index.runs.remove(0);
    (run.run, run.entries)
}

#[tokio::test]
async fn many_readers_cause_one_read() {
    let (store, cache) = (Arc::new(Slow::new(0, 0)), IndexCache::new(1 << 20));
    let (run, index) = sample(0);
    let readers = futures::future::join_all((0..20).map(|_| get(&cache, &store, &run)));
    let open = async { store.gate.add_permits(100) };
    let (answers, ()) = tokio::join!(biased; readers, open);
    assert!(answers.into_iter().all(|answer| *answer.unwrap() == index));
    assert_eq!(store.reads.load(Ordering::SeqCst), 1);
    get(&cache, &store, &run).await.unwrap();
    assert_eq!(store.reads.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_failure_is_not_kept_and_the_next_reader_tries() {
    let (store, cache) = (Arc::new(Slow::new(100, 1)), IndexCache::new(1 << 20));
    let (run, _) = sample(0);
    let answers = futures::future::join_all((0..3).map(|_| get(&cache, &store, &run))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_err()).count(), 1, "only the one that read is told");
    assert_eq!(store.reads.load(Ordering::SeqCst), 2);
    store.failures.store(1, Ordering::SeqCst);
    let (other, _) = sample(1);
    assert!(get(&cache, &store, &other).await.is_err());
    assert!(get(&cache, &store, &other).await.is_ok());
}

#[tokio::test]
async fn a_reader_that_gives_up_leaves_the_next_one_its_turn() {
    let (store, cache) = (Arc::new(Slow::new(0, 0)), IndexCache::new(1 << 20));
    let (run, _) = sample(0);
    tokio::select! {
        biased;
        _ = get(&cache, &store, &run) => panic!("the gate is closed"),
        () = tokio::task::yield_now() => {}
    }
    store.gate.add_permits(1);
    assert!(get(&cache, &store, &run).await.is_ok());
}

#[tokio::test]
async fn a_reader_that_is_not_polled_holds_up_nobody() {
    let (store, cache) = (Arc::new(Slow::new(0, 0)), IndexCache::new(1 << 20));
    let (run, index) = sample(0);
    let mut stalled = std::pin::pin!(get(&cache, &store, &run));
    assert!(stalled.as_mut().now_or_never().is_none(), "the gate is closed");
    store.gate.add_permits(1);
    let mut other = std::pin::pin!(get(&cache, &store, &run));
    for _ in 0..50 {
        if let Some(answer) = other.as_mut().now_or_never() {
            assert_eq!(*answer.unwrap(), index);
            assert_eq!(store.reads.load(Ordering::SeqCst), 1);
            assert!(cache.bytes() > OVERHEAD_BYTES, "it is counted, whoever comes for it");
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it waits for who is not polled");
}

#[tokio::test]
async fn bounded_in_bytes_and_least_recently_used_first() {
    let one = OVERHEAD_BYTES + 10 * size_of::<IndexedEntry>();
    let (store, cache) = (Arc::new(Slow::new(100, 0)), IndexCache::new(3 * one));
    for number in [0, 1, 2, 0, 3] {
        get(&cache, &store, &sample(number).0).await.unwrap();
        assert!(cache.bytes() <= 3 * one);
    }
    assert_eq!(store.reads.load(Ordering::SeqCst), 4);
    get(&cache, &store, &sample(0).0).await.unwrap();
    assert_eq!(store.reads.load(Ordering::SeqCst), 4, "used lately");
    get(&cache, &store, &sample(1).0).await.unwrap();
    assert_eq!(store.reads.load(Ordering::SeqCst), 5, "least recently used");
    let nothing = IndexCache::new(0);
    get(&nothing, &store, &sample(0).0).await.unwrap();
    assert_eq!(nothing.bytes(), 0);
}
