//! The conformance suites of `meta` and `storage` against a real S3 server, which their own tests do not start.

use std::sync::Arc;

use compat_tests::s3;
use meta::embedded::{EmbeddedOptions, EmbeddedStore};
use meta::seams::{Incarnation, Random};
use meta::store::MetaStore;

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
