//! One check a second while asked, none while idle; a lost log is noticed and stays lost.

use meta::memory::MemoryStore;
use meta::records::SegmentRecord;
use meta::store::Txn;

use super::*;

const ME: Incarnation = Incarnation(1);

async fn put(store: &MemoryStore, state: LogState) {
    let record = LogRecord { writer: ME, state, segments: vec![SegmentRecord { end: None }], recover_from: 0 };
    store.commit(Txn::new().put(keys::log(5), records::encode(&record))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_sealed_log_is_noticed_within_a_second_and_for_good() {
    let store = Arc::new(MemoryStore::new());
    put(&store, LogState::Open).await;
    let ownership = Ownership::new(store.clone(), 5, ME, false);
    ownership.confirm().await.unwrap();
    put(&store, LogState::Sealing).await;
    tokio::time::advance(FRESH_FOR).await;
    assert!(matches!(ownership.confirm().await, Err(Error::Fenced { .. })));
    assert!(matches!(ownership.lost().await, Loss::Fenced(why) if why.contains("fenced")));
    put(&store, LogState::Open).await;
    assert!(ownership.confirm().await.is_err(), "what was lost stays lost");
}

#[tokio::test(start_paused = true)]
async fn an_exclusive_folder_is_never_checked() {
    // The store is empty: a check would fail.
    let ownership = Ownership::new(Arc::new(MemoryStore::new()), 5, ME, true);
    tokio::time::advance(FRESH_FOR * 10).await;
    ownership.confirm().await.unwrap();
    ownership.declare_lost(Loss::Failed("told so".to_owned()));
    assert!(ownership.confirm().await.is_err());
}
