//! The conformance suites of `meta` and `storage` against a real S3 server, which their own tests do not start.

use std::sync::Arc;

use compat_tests::s3;
use meta::embedded::{EmbeddedOptions, EmbeddedStore};
use meta::memory::MemoryStore;
use meta::seams::{Incarnation, Random};
use meta::settled::Settler;
use meta::store::MetaStore;
use storage::conformance::Backend;
use storage::log::LogStore;
use storage::object_log::{ObjectLogStore, WriterOptions};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_settled_write_and_the_probe() {
    meta::conformance::settled(s3::prefix().await.store(), &Random::from_seed(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_metadata() {
    meta::conformance::metastore(async || {
        let random = Random::from_seed(2);
        let options = EmbeddedOptions { snapshot_every: 4, ..EmbeddedOptions::default() };
        let store = s3::prefix().await.store();
        let opened = EmbeddedStore::open(store, Incarnation::generate(&random), &random, options).await;
        Arc::new(opened.expect("it opens")) as Arc<dyn MetaStore>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs() {
    storage::conformance::run(async || {
        let objects = s3::prefix().await.store();
        let meta: Arc<dyn MetaStore> = Arc::new(MemoryStore::new());
        let of_stores = Arc::clone(&meta);
        let open = move || -> Arc<dyn LogStore> {
            let settler = Settler::new(Arc::clone(&objects));
            Arc::new(ObjectLogStore::new(settler, Arc::clone(&of_stores), WriterOptions::default()))
        };
        Backend { meta, open: Box::new(open), shared: true }
    })
    .await;
}
