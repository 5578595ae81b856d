//! A frozen image: what it answers, and that it stays as it is.

use super::*;
use crate::memory::MemoryStore;

#[tokio::test]
async fn an_image_answers_as_its_store_did_and_refuses_changes() {
    let store = MemoryStore::new();
    for (key, value) in [("a", "0"), ("logs/1", "1"), ("logs/2", "2"), ("m", "3")] {
        store.commit(Txn::new().put(key, value)).await.unwrap();
    }
    let frozen = store.freeze().await.unwrap();
    let before = (store.list("logs/").await.unwrap(), store.get("m").await.unwrap());
    store.commit(Txn::new().delete("m").put("logs/3", "4")).await.unwrap();
    assert_eq!((frozen.list("logs/").await.unwrap(), frozen.get("m").await.unwrap()), before);
    assert_eq!((frozen.get("n").await.unwrap(), frozen.value("a")), (None, Some(&b"0"[..])));
    assert_eq!((frozen.revision(), frozen.entries().count()), (4, 4));
    let commit = frozen.commit(Txn::new().put("m", "5")).await;
    assert!(matches!(commit, Err(Error::Invalid { .. })), "{commit:?}");
    assert!(frozen.grant_lease(Duration::from_secs(1)).await.is_err() && frozen.watch("", 1).await.is_err());
}
