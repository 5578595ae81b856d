//! Medians and ratios of a few made-up samples.

use super::*;

#[test]
fn ratios_are_taken_within_a_round() {
    let case = Case { kind: Kind::Produce, partitions: 1, record_bytes: 100, batch_bytes: 16 << 10 };
    let sample = |who, round, mb_per_s| Sample {
        case,
        who,
        round,
        mb_per_s,
        cpu_s_per_gb: 1.0,
        client_cpu_s_per_gb: 1.0,
        p50_ms: 1.0,
        p99_ms: f64::NAN,
    };
    let mut report = Report::default();
    for (round, kafka, woodpecker) in [(0, 100.0, 200.0), (1, 10.0, 50.0), (2, 50.0, 150.0)] {
        report.samples.push(sample(Who::Kafka, round, kafka));
        report.samples.push(sample(Who::Woodpecker, round, woodpecker));
    }
    assert!((report.ratio(case, |s| s.mb_per_s) - 3.0).abs() < 1e-9);
    assert!((report.median_of(case, Who::Kafka, |s| s.mb_per_s) - 50.0).abs() < 1e-9);
    assert!(report.tables().contains("| 1 | 100 B | 16 KiB | 50 | 150 | - |"));
    assert_eq!(report.json_lines().lines().count(), 6);
}
