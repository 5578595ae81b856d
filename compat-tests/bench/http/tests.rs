//! Metrics are found by name and labels.

use super::*;

#[test]
fn lines_are_summed_by_their_labels() {
    let text = "# TYPE woodpecker_store_requests counter\n\
                woodpecker_store_requests_total{kind=\"put\",purpose=\"logs\"} 3\n\
                woodpecker_store_requests_total{kind=\"put\",purpose=\"tiered\"} 4\n\
                woodpecker_store_requests_total{kind=\"get\",purpose=\"logs\"} 5\n\
                woodpecker_store_requests_total_of_another 6\n";
    let metrics = Metrics(text.to_owned());
    let sum = |labels: &[(&str, &str)]| metrics.sum("woodpecker_store_requests_total", labels);
    assert_eq!(sum(&[]), 12.0);
    assert_eq!(sum(&[("kind", "put")]), 7.0);
    assert_eq!(sum(&[("kind", "put"), ("purpose", "logs")]), 3.0);
    assert_eq!(sum(&[("purpose", "meta")]), 0.0);
}

#[test]
fn an_answer_has_a_status_and_a_body() {
    assert_eq!(parse("HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\nnot yet\n"), Some((503, "not yet\n".to_owned())));
    assert_eq!(parse("nonsense"), None);
}
