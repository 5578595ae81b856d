//! The suite over logs in object storage, in memory and in a local folder. The file log runs it beside its own tests.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use meta::memory::MemoryStore;
use meta::settled::Settler;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;

use super::*;
use crate::object_log::{ObjectLogStore, WriterOptions};

fn backend(objects: Arc<dyn ObjectStore>) -> Backend {
    let meta: Arc<dyn MetaStore> = Arc::new(MemoryStore::new());
    let of_stores = meta.clone();
    let options = WriterOptions { flush_interval: Duration::from_millis(5), ..WriterOptions::default() };
    let open = move || -> Arc<dyn LogStore> {
        Arc::new(ObjectLogStore::new(Settler::new(objects.clone()), of_stores.clone(), options))
    };
    Backend { meta, open: Box::new(open), shared: true }
}

#[tokio::test]
async fn objects_in_memory() {
    run(async || backend(Arc::new(InMemory::new()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_in_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let number = AtomicUsize::new(0);
    run(async || {
        let root = dir.path().join(number.fetch_add(1, Ordering::SeqCst).to_string());
        std::fs::create_dir(&root).unwrap();
        backend(Arc::new(LocalFileSystem::new_with_prefix(&root).unwrap().with_fsync(true)))
    })
    .await;
}
