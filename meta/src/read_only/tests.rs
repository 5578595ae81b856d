//! What may be asked of a store that is only looked at, and what is refused.

use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, PutPayload};

use super::*;

#[tokio::test]
async fn reads_pass_and_nothing_that_changes_anything_does() {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let path = Path::from("a/b");
    inner.put(&path, PutPayload::from_static(b"content")).await.unwrap();
    let store = ReadOnlyStore::new(inner.clone());
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "content");
    assert_eq!(store.list(None).count().await, 1);
    assert_eq!(store.list_with_delimiter(None).await.unwrap().common_prefixes, vec![Path::from("a")]);

    let refused = |result: Result<()>| assert!(matches!(result, Err(Error::PermissionDenied { .. })), "{result:?}");
    refused(store.put(&path, PutPayload::from_static(b"other")).await.map(|_| ()));
    refused(store.put_multipart(&path).await.map(|_| ()));
    refused(store.delete(&path).await);
    refused(store.copy(&path, &Path::from("c")).await);
    refused(store.copy_if_not_exists(&path, &Path::from("c")).await);
    refused(store.rename(&path, &Path::from("c")).await);
    assert_eq!(inner.get(&path).await.unwrap().bytes().await.unwrap(), "content");
    assert_eq!(inner.list(None).count().await, 1);
}
