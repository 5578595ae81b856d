//! What `woodpecker inspect` and `verify` say of a storage, and storages for them to look at.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use futures::future::join_all;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use rdkafka::producer::FutureRecord;
use serde_json::Value;

use crate::clients::{self, LIMIT};
use crate::process::{Launch, Ran};
use crate::wait::until;

pub const INTACT: Option<i32> = Some(0);
pub const FAILED: Option<i32> = Some(1);
pub const REFUSED: Option<i32> = Some(2);
pub const DAMAGED: Option<i32> = Some(4);

/// Runs a tool with JSON output.
pub fn json(launch: &Launch, arguments: &[&str]) -> (Ran, Value) {
    let ran = launch.tool(&[arguments, &["--json"]].concat());
    let document = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
    (ran, document)
}

pub fn verify(launch: &Launch) -> Value {
    let (ran, report) = json(launch, &["verify"]);
    assert_eq!(ran.code, INTACT, "{}\n{}", ran.out, ran.err);
    assert_eq!(report["result"], "intact");
    report
}

/// Keys of the damage that is found, after the exit code was checked.
pub fn damage(launch: &Launch) -> BTreeMap<String, String> {
    let (ran, report) = json(launch, &["verify"]);
    assert_eq!(ran.code, DAMAGED, "{}\n{}", ran.out, ran.err);
    assert_eq!(report["result"], "damaged");
    let found = report["damage"].as_array().expect("a list").iter();
    found.map(|damage| (damage["key"].as_str().expect("a key").to_owned(), damage["why"].to_string())).collect()
}

/// Everything in a storage, with its length and the time of its last change.
pub async fn listing(store: &dyn ObjectStore) -> Vec<(String, u64, String)> {
    let listed: Vec<_> = store.list(None).try_collect().await.expect("a listing");
    let shown = listed.into_iter().map(|object| {
        let changed = object.last_modified.to_rfc3339();
        (object.location.to_string(), object.size, changed)
    });
    let mut all: Vec<_> = shown.collect();
    all.sort();
    all
}

/// Leaves a stopped broker's storage with something of everything: tiered objects, what is not tiered yet, a manifest of
/// several parts. Returns how to launch another one on it, and what `verify` says of it.
pub async fn left_behind(launch: Launch, store: &dyn ObjectStore) -> (Launch, Value) {
    let launch = launch.busy_upkeep().set("tier_interval_ms", 600_000).set("flush_interval_ms", 5);
    let mut broker = launch.start().await;
    clients::create_topic(&launch.kafka, "t", 2).await;
    let producer = clients::producer(&launch.kafka, &[("linger.ms", "1")]);
    let send = async |number: i32| {
        let payload = format!("{number:08}{}", "x".repeat(1_000));
        let record = FutureRecord::<(), _>::to("t").partition(number % 2).payload(&payload);
        producer.send(record, LIMIT).await.expect("acknowledged");
    };
    let mut listed = Vec::new();
    until("something of everything is stored", LIMIT, async || {
        // Not one after the other: what is stored is many batches all the same.
        join_all((0..50).map(&send)).await;
        listed = listing(store).await;
        count(&listed, "/tiered/") >= 3 && count(&listed, ".mf") >= 2
    })
    .await;
    // Too little to be tiered.
    join_all((0..2).map(&send)).await;
    broker.terminate();
    assert_eq!(broker.wait(LIMIT).await, Some(0));
    let report = verify(&launch);
    (launch, report)
}

fn count(listed: &[(String, u64, String)], part: &str) -> usize {
    listed.iter().filter(|(key, ..)| key.contains(part)).count()
}

pub async fn bytes(store: &dyn ObjectStore, key: &str) -> Vec<u8> {
    let found = store.get(&Key::from(key)).await.expect("it is there");
    found.bytes().await.expect("it can be read").to_vec()
}

pub async fn put(store: &dyn ObjectStore, key: &str, bytes: Vec<u8>) {
    store.put(&Key::from(key), PutPayload::from(bytes)).await.expect("it can be written");
}
