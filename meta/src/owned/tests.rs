//! Two owners, one after the other, on one store.

use crate::error::ErrorKind;
use crate::memory::MemoryStore;

use super::*;

async fn register(store: &MemoryStore, newest: u64) {
    let record = records::encode(&LogCounterRecord { newest });
    store.commit(Txn::new().put(keys::LOG_COUNTER, record)).await.unwrap();
}

#[tokio::test]
async fn a_former_owner_changes_nothing_and_learns_why() {
    let store = MemoryStore::new();
    register(&store, 4).await;
    let former = OwnedStore::new(Arc::new(store.clone()), 4);
    let outcome = former.commit(Txn::new().if_absent("topics/a").put("topics/a", "1")).await.unwrap();
    assert!(matches!(outcome, TxnOutcome::Committed { .. }));
    register(&store, 5).await;
    let owner = OwnedStore::new(Arc::new(store.clone()), 5);
    for txn in [Txn::new().put("topics/b", "1"), Txn::new().delete("topics/a"), Txn::new()] {
        let refused = former.commit(txn.clone()).await;
        assert!(matches!(&refused, Err(error) if error.kind() == ErrorKind::Fenced), "{txn:?}: {refused:?}");
        assert!(*former.fenced().borrow());
        assert!(matches!(owner.commit(txn).await, Ok(TxnOutcome::Committed { .. })));
    }
    assert!(!*owner.fenced().borrow());
}

#[tokio::test]
async fn a_conflict_of_the_owner_is_a_conflict() {
    let store = MemoryStore::new();
    register(&store, 4).await;
    let owner = OwnedStore::new(Arc::new(store.clone()), 4);
    owner.commit(Txn::new().put("topics/a", "1")).await.unwrap();
    let outcome = owner.commit(Txn::new().if_absent("topics/a").put("topics/a", "2")).await.unwrap();
    assert!(matches!(outcome, TxnOutcome::Conflict { .. }));
    assert_eq!(store.get("topics/a").await.unwrap().unwrap().value, "1");
    assert!(!*owner.fenced().borrow());
}

/// A store that nobody has registered a log in is nobody's.
#[tokio::test]
async fn without_a_registered_log_nothing_is_committed() {
    let store = MemoryStore::new();
    let nobody = OwnedStore::new(Arc::new(store.clone()), 1);
    let refused = nobody.commit(Txn::new().put("topics/a", "1")).await;
    assert!(matches!(refused, Err(error) if error.kind() == ErrorKind::Fenced));
    assert_eq!(store.list("").await.unwrap().revision, 0);
}
