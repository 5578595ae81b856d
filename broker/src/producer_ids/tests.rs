//! Producer ids are unique across restarts and rivals, and cost one metadata write a thousand.

use std::collections::BTreeSet;

use meta::memory::MemoryStore;

use super::*;

#[tokio::test]
async fn ids_are_unique_across_brokers_and_restarts() {
    let store = Arc::new(MemoryStore::new());
    let rivals = [ProducerIds::new(store.clone()), ProducerIds::new(store.clone()), ProducerIds::new(store)];
    let mut seen = BTreeSet::new();
    for turn in 0..3000 {
        assert!(seen.insert(rivals[turn % 3].next().await.unwrap()));
    }
}

#[tokio::test]
async fn a_thousand_ids_cost_one_write() {
    let store = Arc::new(MemoryStore::new());
    let ids = ProducerIds::new(store.clone());
    for _ in 0..1000 {
        ids.next().await.unwrap();
    }
    assert_eq!(store.list("").await.unwrap().revision, 1);
}
