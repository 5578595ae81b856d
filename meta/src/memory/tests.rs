//! What the in-memory store does beyond the conformance suite.

use super::*;
use crate::store::Event;

#[tokio::test(start_paused = true)]
async fn a_watch_from_before_a_compaction_ends_with_compacted() {
    let store = MemoryStore::new();
    for n in 0..5 {
        store.commit(Txn::new().put("a", format!("{n}"))).await.unwrap();
    }
    store.compact(3);
    let mut watch = store.watch("", 3).await.unwrap();
    assert!(matches!(watch.recv().await, Some(Err(Error::Compacted { requested: 3, oldest: 4 }))));
    assert!(watch.recv().await.is_none());
    let mut watch = store.watch("", 4).await.unwrap();
    assert_eq!(watch.recv().await.unwrap().unwrap().revision, 4);
}

#[tokio::test(start_paused = true)]
async fn leases_expire_without_any_call() {
    let store = MemoryStore::new();
    let short = store.grant_lease(Duration::from_secs(5)).await.unwrap();
    let long = store.grant_lease(Duration::from_secs(9)).await.unwrap();
    store.commit(Txn::new().put_leased("a", "", short).put_leased("b", "", long)).await.unwrap();
    let mut watch = store.watch("", 2).await.unwrap();
    let began = tokio::time::Instant::now();
    for (key, after) in [("a", 5), ("b", 9)] {
        let batch = watch.recv().await.unwrap().unwrap();
        assert!(matches!(&batch.events[..], [Event::Delete { key: deleted, .. }] if deleted == key));
        assert_eq!(began.elapsed().as_secs(), after);
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_store_ends_its_watches() {
    let store = MemoryStore::new();
    let mut watch = store.watch("", 1).await.unwrap();
    drop(store);
    assert!(matches!(watch.recv().await, Some(Err(Error::Closed { .. }))));
}
