//! The bill of a broker on a bucket, as its operator sees it, and a budget of PUTs that is kept.

use std::time::Duration;

use compat_tests::clients;
use compat_tests::http;
use compat_tests::process::Launch;
use compat_tests::s3::{self, Backend};
use compat_tests::wait::alone;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::Value;
use tokio::time::Instant;

async fn send(producer: &FutureProducer, topic: &str, bytes: usize) {
    let payload = "x".repeat(bytes);
    let record = FutureRecord::<(), str>::to(topic).partition(0).payload(&payload);
    producer.send(record, clients::LIMIT).await.expect("it is acknowledged");
}

async fn bill(launch: &Launch) -> Value {
    let (status, body) = http::get(&launch.http, "/cost").await.expect("/cost answers");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("it is JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_bucket_costs_is_shown_by_topic() {
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let launch = Backend::S3.launch(folder.path()).await.set("price_thousand_puts_usd", "10");
    let broker = launch.start().await;
    let producer = clients::producer(&launch.kafka, &[]);
    for (topic, bytes) in [("small", 1_000), ("large", 3_000)] {
        clients::create_topic(&launch.kafka, topic, 2).await;
        send(&producer, topic, bytes).await;
    }
    let bill = bill(&launch).await;
    let puts: u64 = ["logs", "meta"]
        .iter()
        .map(|purpose| &bill["since_start"]["requests"][purpose]["put"])
        .map(|n| n.as_u64().expect("a number"))
        .sum();
    assert!(puts >= 4, "two fragments, two topics: {bill:#}");
    assert!(bill["since_start"]["dollars"].as_f64() >= Some(puts as f64 * 0.01), "{bill:#}");
    assert!(bill["since_start"]["dollars_per_produced_gib"].as_f64() > Some(0.0), "{bill:#}");
    let topics = bill["topics"].as_array().expect("a list");
    let names: Vec<&Value> = topics.iter().map(|topic| &topic["topic"]).collect();
    assert_eq!(names, ["large", "small"], "{bill:#}");
    let shares: Vec<f64> = topics.iter().filter_map(|topic| topic["share"].as_f64()).collect();
    assert!(shares[0] > 2.0 * shares[1] && (shares[0] + shares[1] - 1.0).abs() < 0.01, "{bill:#}");
    assert!(topics[0]["stored_bytes"].as_u64() >= Some(3_000), "{bill:#}");
    assert!(broker.metric("woodpecker_storage_cost_dollars_total").await > Some(0.0));
    assert!(broker.metric("woodpecker_store_latency_seconds_count").await > Some(0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_costs_nothing() {
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let launch = Launch::new(folder.path());
    let broker = launch.start().await;
    assert_eq!(http::get(&launch.http, "/cost").await.expect("it answers").0, 404);
    assert!(broker.metric("woodpecker_storage_cost_dollars_total").await.is_none());
    assert!(broker.metric("woodpecker_store_requests_total").await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_of_puts_is_kept() {
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let launch = s3::prefix().await.on(Launch::new(folder.path()));
    let launch = launch.set("flush_interval_ms", 10).set("put_budget_per_s", 5);
    let broker = launch.start().await;
    clients::create_topic(&launch.kafka, "frugal", 1).await;
    let producer = clients::producer(&launch.kafka, &[("linger.ms", "0")]);
    // What ten seconds allow is used up first.
    for _ in 0..60 {
        send(&producer, "frugal", 10).await;
    }
    let puts = async || broker.metric("woodpecker_store_requests_total{kind=\"put\",purpose=\"logs\"}").await;
    let (before, began) = (puts().await.expect("a number"), Instant::now());
    for _ in 0..15 {
        send(&producer, "frugal", 10).await;
    }
    let (made, took) = (puts().await.expect("a number") - before, began.elapsed());
    assert!((14.0..=16.0).contains(&made), "one record waits for another: {made} PUTs");
    assert!(took >= Duration::from_millis(2_500), "15 records at 5 PUTs per second: {took:?}");
}
