//! The suites against every backend of this crate.

use std::time::Duration;

use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;

use super::*;
use crate::embedded::{EmbeddedOptions, EmbeddedStore};
use crate::faults::{FaultPlan, FaultStore};
use crate::memory::MemoryStore;
use crate::seams::Incarnation;
use crate::store::MetaStore;

async fn embedded(store: Arc<dyn ObjectStore>, exclusive: bool, snapshot_every: u64) -> Arc<dyn MetaStore> {
    let random = Random::from_seed(1);
    let options = EmbeddedOptions { exclusive, snapshot_every, ..EmbeddedOptions::default() };
    let opened = EmbeddedStore::open(store, Incarnation::generate(&random), &random, options).await;
    Arc::new(opened.expect("it opens"))
}

fn faulty(seed: u64) -> FaultStore {
    let plan = FaultPlan { latency: Duration::ZERO..=Duration::from_millis(20), ..FaultPlan::ambiguous(0.1) };
    FaultStore::new(Arc::new(InMemory::new()), Random::from_seed(seed), plan)
}

#[tokio::test(start_paused = true)]
async fn memory() {
    metastore(|| async { Arc::new(MemoryStore::new()) as Arc<dyn MetaStore> }).await;
}

#[tokio::test(start_paused = true)]
async fn embedded_in_memory() {
    for (exclusive, snapshot_every) in [(false, 1000), (true, 1000), (false, 1), (false, 3)] {
        metastore(|| embedded(Arc::new(InMemory::new()), exclusive, snapshot_every)).await;
    }
}

#[tokio::test]
async fn embedded_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let count = std::cell::Cell::new(0);
    metastore(|| {
        count.set(count.get() + 1);
        let path = folder.path().join(count.get().to_string());
        std::fs::create_dir(&path).unwrap();
        embedded(Arc::new(LocalFileSystem::new_with_prefix(path).unwrap().with_fsync(true)), true, 4)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn embedded_with_mild_faults() {
    for seed in 0..4 {
        metastore(|| embedded(Arc::new(faulty(seed)), false, 5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn settled_in_memory_and_with_mild_faults() {
    settled(Arc::new(InMemory::new()), &Random::from_seed(1)).await;
    let store = faulty(2);
    // The suite's own puts, lists and deletes are not settled writes: they must not fail.
    store.set_plan(FaultPlan::slow(Duration::ZERO..=Duration::from_millis(20)));
    settled(Arc::new(store), &Random::from_seed(2)).await;
}

#[tokio::test]
async fn settled_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalFileSystem::new_with_prefix(folder.path()).unwrap().with_fsync(true);
    settled(Arc::new(store), &Random::from_seed(1)).await;
}
