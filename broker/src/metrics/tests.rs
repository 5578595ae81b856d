//! Tests of the metrics as Prometheus reads them.

use std::sync::Arc;

use super::*;

#[test]
fn what_happened_is_shown() {
    let metrics = Metrics::new();
    metrics.answered(0, Duration::from_millis(3));
    metrics.answered(0, Duration::from_millis(300));
    metrics.answered(9999, Duration::ZERO);
    metrics.error(1, "OFFSET_OUT_OF_RANGE");
    metrics.closed("idle");
    metrics.connections.inc();
    metrics.sent_bytes.inc_by(7);
    metrics.recompression.count(100, 1_000, 80);
    metrics.recompression.count(100, 1_000, 1_000);
    let text = metrics.render().unwrap();
    for line in [
        "woodpecker_requests_total{api=\"Produce\"} 2",
        "woodpecker_requests_total{api=\"Fetch\"} 0",
        "woodpecker_request_latency_seconds_count{api=\"Produce\"} 2",
        "woodpecker_request_latency_seconds_bucket{le=\"0.005\",api=\"Produce\"} 1",
        "woodpecker_request_errors_total{api=\"Fetch\",error=\"OFFSET_OUT_OF_RANGE\"} 1",
        "woodpecker_connections_closed_total{reason=\"idle\"} 1",
        "woodpecker_connections 1",
        "woodpecker_sent_bytes_total 7",
        "woodpecker_recompressed_batches_total 2",
        "woodpecker_recompressed_received_bytes_total 200",
        "woodpecker_recompressed_inflated_bytes_total 2000",
        "woodpecker_recompressed_stored_bytes_total 1080",
        "woodpecker_recompressed_saved_bytes -880",
    ] {
        assert!(text.lines().any(|shown| shown == line), "no {line} in\n{text}");
    }
}

#[test]
fn sampled_numbers_are_asked_for_at_every_rendering() {
    let metrics = Metrics::new();
    let puts = Arc::new(AtomicU64::new(1));
    let asked = Arc::clone(&puts);
    metrics.sampled("store_requests", "Requests", SampleKind::Counter, move || {
        let value = asked.load(std::sync::atomic::Ordering::Relaxed);
        vec![Sample { labels: vec![("kind", "put".to_owned())], value }]
    });
    metrics.sampled("memory_used_bytes", "Memory", SampleKind::Gauge, || vec![Sample { labels: vec![], value: 5 }]);
    puts.store(42, std::sync::atomic::Ordering::Relaxed);
    let text = metrics.render().unwrap();
    for line in ["woodpecker_store_requests_total{kind=\"put\"} 42", "woodpecker_memory_used_bytes 5"] {
        assert!(text.lines().any(|shown| shown == line), "no {line} in\n{text}");
    }
}
