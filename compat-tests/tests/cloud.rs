//! GCS and Azure Blob, by their emulators: what the conformance suites and the probe ask, a broker's death with real clients
//! on it, and what the tools say of what a broker has left there.

use std::sync::Arc;
use std::time::Duration;

use compat_tests::checker::Rules;
use compat_tests::clients;
use compat_tests::cloud::Cloud;
use compat_tests::looking::{INTACT, bytes, damage, json, left_behind, put, verify};
use compat_tests::process::Launch;
use compat_tests::wait::alone;
use compat_tests::workload::{Load, Workload};
use meta::embedded::{EmbeddedOptions, EmbeddedStore};
use meta::memory::MemoryStore;
use meta::probe;
use meta::seams::{Incarnation, Random};
use meta::settled::Settler;
use meta::store::MetaStore;
use rdkafka::producer::FutureRecord;
use storage::conformance::Backend;
use storage::log::LogStore;
use storage::object_log::{ObjectLogStore, WriterOptions};

async fn settled_writes_and_the_probe(cloud: Cloud) {
    meta::conformance::settled(cloud.place().await.store(), &Random::from_seed(1)).await;
}

async fn embedded_metadata(cloud: Cloud) {
    meta::conformance::metastore(async || {
        let random = Random::from_seed(2);
        let options = EmbeddedOptions { snapshot_every: 4, ..EmbeddedOptions::default() };
        let store = cloud.place().await.store();
        let opened = EmbeddedStore::open(store, Incarnation::generate(&random), &random, options).await;
        Arc::new(opened.expect("it opens")) as Arc<dyn MetaStore>
    })
    .await;
}

async fn logs(cloud: Cloud) {
    storage::conformance::run(async || {
        let objects = cloud.place().await.store();
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

/// Killed in the middle of a load, and again while it recovers: what was acknowledged is there, once, at its offset.
async fn kills(cloud: Cloud) {
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let launch = cloud.place().await.on(Launch::new(folder.path()));
    let mut broker = launch.start().await;
    let load = Load::small("kills", true);
    clients::create_topic(&launch.kafka, &load.topic, load.partitions).await;
    let workload = Workload::start(&launch.kafka, load);
    workload.progress(1_000).await;
    broker.kill().await;
    let mut starting = launch.spawn();
    tokio::time::sleep(Duration::from_millis(100)).await;
    starting.kill().await;
    let _broker = launch.start().await;
    workload.progress(1_000).await;
    let history = workload.finish(&launch.kafka).await;
    history.assert_sound(&Rules::idempotent(), &format!("after kills on {cloud:?}"));
    assert_eq!(history.unknown(), 0, "an idempotent producer learns the fate of everything it sent");
}

/// Fragments longer than what recovery guesses of their ends, which Azure can only be asked for by position.
async fn long_fragments(cloud: Cloud) {
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let launch = cloud.place().await.on(Launch::new(folder.path()));
    let mut broker = launch.start().await;
    clients::create_topic(&launch.kafka, "long", 1).await;
    let producer = clients::producer(&launch.kafka, &[("message.max.bytes", "2000000")]);
    let payload = "long ".repeat(200_000);
    for expected in 0..3 {
        let record = FutureRecord::<(), str>::to("long").partition(0).payload(&payload);
        let delivered = producer.send(record, clients::LIMIT).await.expect("it is acknowledged");
        assert_eq!(delivered.offset, expected);
    }
    broker.kill().await;
    let _broker = launch.start().await;
    let read = clients::read_all(&launch.kafka, "long", 0).await;
    assert_eq!(read.len(), 3);
    for record in read {
        assert_eq!(rdkafka::Message::payload(&record), Some(payload.as_bytes()));
    }
}

/// `inspect` shows what a broker has left, `verify` finds nothing wrong with it, until a byte is another one.
async fn looked_at(cloud: Cloud) {
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = cloud.place().await;
    let store = place.store();
    let (launch, _) = left_behind(place.on(Launch::new(folder.path())), &*store).await;
    let (ran, shown) = json(&launch, &["inspect", "partition", "t", "1"]);
    assert_eq!(ran.code, INTACT, "{ran:?}");
    let runs = shown["partitions"][0]["chain"].as_array().expect("a chain");
    let (ran, shown) = json(&launch, &["inspect", "fragments"]);
    assert_eq!(ran.code, INTACT, "{ran:?}");
    let objects = shown["objects"].as_array().expect("a list");
    for is_tiered in [true, false] {
        let run = runs.iter().rfind(|run| run["tiered"] == is_tiered).expect("some of both kinds");
        let key = run["key"].as_str().expect("a key");
        assert!(objects.iter().any(|object| object["key"] == key && object["role"] == "data"), "{key}: {shown}");
        let original = bytes(&*store, key).await;
        let mut flipped = original.clone();
        flipped[run["position"].as_u64().expect("a position") as usize + 70] ^= 1;
        put(&*store, key, flipped).await;
        assert_eq!(damage(&launch).into_keys().collect::<Vec<_>>(), vec![key]);
        put(&*store, key, original).await;
    }
    assert_eq!(verify(&launch)["strange"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settled_writes_and_the_probe_on_gcs() {
    settled_writes_and_the_probe(Cloud::Gcs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settled_writes_and_the_probe_on_azure() {
    settled_writes_and_the_probe(Cloud::Azure).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_metadata_on_gcs() {
    embedded_metadata(Cloud::Gcs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_metadata_on_azure() {
    embedded_metadata(Cloud::Azure).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_on_gcs() {
    logs(Cloud::Gcs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_on_azure() {
    logs(Cloud::Azure).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_on_gcs() {
    kills(Cloud::Gcs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_on_azure() {
    kills(Cloud::Azure).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_fragments_on_gcs() {
    long_fragments(Cloud::Gcs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_fragments_on_azure() {
    long_fragments(Cloud::Azure).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looked_at_on_gcs() {
    looked_at(Cloud::Gcs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looked_at_on_azure() {
    looked_at(Cloud::Azure).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_ignores_preconditions_is_refused() {
    let place = Cloud::CarelessGcs.place().await;
    let failure = probe::probe(&place.store(), &Random::from_seed(3)).await.expect_err("the probe finds out");
    assert_eq!(failure.kind(), meta::error::ErrorKind::Invalid, "for good: {failure}");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut broker = place.on(Launch::new(folder.path())).spawn();
    assert_eq!(broker.wait(Duration::from_secs(60)).await, Some(1));
    for expected in [&place.url, "conditional write"] {
        assert!(broker.log().contains(expected), "{expected} is not mentioned:\n{}", broker.log());
    }
}

#[tokio::test]
async fn missing_credentials_are_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut broker = Launch::new(folder.path()).storage("az://container/prefix").spawn();
    assert_eq!(broker.wait(Duration::from_secs(60)).await, Some(1));
    for expected in ["az://container/prefix", "AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY"] {
        assert!(broker.log().contains(expected), "{expected} is not mentioned:\n{}", broker.log());
    }
}
