//! Tests of the estimate and of what is shown of it.

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use storage::metered::MeteredStore;

use super::*;

const PRICES: Prices = Prices { thousand_puts: 5.0, thousand_gets: 0.5, gib_month: 8.0 };

/// A store that was asked for three PUTs, one of metadata, and two reads; and half a GiB produced.
async fn used() -> (Arc<Metrics>, Arc<StoreCounters>, Arc<Costs>) {
    let (store, counters) = MeteredStore::new(Arc::new(InMemory::new()));
    let (one, other) = (Path::from("logs/1/0/0.frag"), Path::from("meta/journal/1"));
    for path in [&one, &one, &other] {
        store.put(path, PutPayload::from_static(b"12345")).await.unwrap();
    }
    store.get(&one).await.unwrap();
    store.head(&other).await.unwrap();
    store.delete(&other).await.unwrap();
    let metrics = Arc::new(Metrics::new());
    metrics.produced_bytes.inc_by(1 << 29);
    let costs = Arc::new(Costs::new(counters.clone(), PRICES, metrics.clone()));
    (metrics, counters, costs)
}

fn topic(name: &str, produced_bytes: u64, stored_bytes: u64) -> TopicUsage {
    TopicUsage { name: name.to_owned(), produced_bytes, stored_bytes }
}

#[tokio::test]
async fn the_bill_counts_requests_and_shares_them_by_bytes() {
    let (_, _, costs) = used().await;
    let shown = serde_json::to_value(costs.bill(10)).unwrap();
    assert_eq!(shown["topics"].as_array().unwrap().len(), 0, "the broker has not recovered");
    let topics = vec![topic("idle", 0, 1 << 30), topic("a quarter", 250, 1 << 28), topic("half", 500, 0)];
    costs.set_usage(move || Usage { produced_bytes: 1_000, topics: topics.clone() });
    let shown = serde_json::to_value(costs.bill(2)).unwrap();
    let since_start = &shown["since_start"];
    let near = |shown: &serde_json::Value, expected: f64| {
        let found = shown.as_f64().unwrap();
        assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
    };
    // Three PUTs at 0.005, a GET and a HEAD at 0.0005; a delete is free.
    near(&since_start["dollars"], 0.016);
    near(&since_start["dollars_by_purpose"]["logs"], 0.0105);
    near(&since_start["dollars_by_purpose"]["meta"], 0.0055);
    near(&since_start["dollars_per_produced_gib"], 0.032);
    assert_eq!(since_start["requests"]["logs"]["put"], 2);
    assert_eq!(since_start["requests"]["meta"]["delete"], 1);
    assert_eq!(since_start["written_bytes"], 15);
    assert_eq!(since_start["read_bytes"], 5);
    assert_eq!(since_start["produced_bytes"], 1_000);
    near(&shown["stored"]["dollars_per_month"], 10.0);
    let names: Vec<_> = shown["topics"].as_array().unwrap().iter().map(|topic| topic["topic"].clone()).collect();
    assert_eq!(names, ["half", "a quarter"], "the costliest first");
    assert_eq!(shown["other_topics"], 1);
    near(&shown["topics"][1]["share"], 0.25);
    near(&shown["topics"][1]["dollars"], 0.004);
    near(&shown["topics"][1]["stored_dollars_per_month"], 2.0);
    near(&shown["prices_usd"]["thousand_puts"], 5.0);
}

#[tokio::test]
async fn prometheus_is_shown_requests_and_dollars() {
    let (metrics, counters, costs) = used().await;
    show_store(&metrics, &counters, Some(&costs));
    let text = metrics.render().unwrap();
    for line in [
        "woodpecker_store_requests_total{kind=\"put\",purpose=\"logs\"} 2",
        "woodpecker_store_requests_total{kind=\"head\",purpose=\"meta\"} 1",
        "woodpecker_store_requests_total{kind=\"part\",purpose=\"tiered\"} 0",
        "woodpecker_store_failures_total{kind=\"get\",purpose=\"logs\"} 0",
        "woodpecker_store_bytes_total{direction=\"written\",purpose=\"logs\"} 10",
        "woodpecker_store_bytes_total{direction=\"read\",purpose=\"logs\"} 5",
        "woodpecker_store_latency_seconds_count{kind=\"put\"} 3",
        "woodpecker_store_latency_seconds_bucket{le=\"10.0\",kind=\"put\"} 3",
        "woodpecker_store_latency_seconds_bucket{le=\"+Inf\",kind=\"get\"} 1",
        "woodpecker_storage_cost_dollars_total{class=\"put\"} 0.015",
        "woodpecker_storage_cost_dollars_total{class=\"get\"} 0.001",
        "woodpecker_storage_cost_dollars_per_produced_gib 0.032",
    ] {
        assert!(text.lines().any(|shown| shown == line), "no {line} in\n{text}");
    }
}

#[tokio::test]
async fn where_nothing_is_billed_there_are_no_dollars() {
    let (metrics, counters, _) = used().await;
    show_store(&metrics, &counters, None);
    let text = metrics.render().unwrap();
    assert!(text.contains("woodpecker_store_requests_total{"), "{text}");
    assert!(!text.contains("dollars"), "{text}");
}

#[tokio::test]
async fn before_anything_was_produced_there_is_no_price_of_it() {
    let (_, counters, _) = used().await;
    let metrics = Arc::new(Metrics::new());
    let costs = Arc::new(Costs::new(counters.clone(), PRICES, metrics.clone()));
    show_store(&metrics, &counters, Some(&costs));
    assert!(!metrics.render().unwrap().contains("per_produced_gib"));
    assert!(serde_json::to_value(costs.bill(0)).unwrap()["since_start"]["dollars_per_produced_gib"].is_null());
}
