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
    assert!(report.tables().contains("| 1 partition, 100 B records, 16 KiB batches | 50 | 150 | 1.00 | 1.00 | 1.0 |"));
    assert!(report.tables().contains("Medians of 3 rounds."));
    assert_eq!(report.json_lines().lines().count(), 6);
}

#[test]
fn figures_stand_beside_each_other() {
    let mut report = Report::default();
    for (round, kafka, woodpecker) in [(0, 100.0, 50.0), (1, 10.0, 20.0), (2, 50.0, 10.0)] {
        for (who, value) in [(Who::Kafka, kafka), (Who::Woodpecker, woodpecker)] {
            let name = "until stable, ms".to_owned();
            report.figures.0.push(Figure { table: Table::Groups, name, who, round, value });
        }
    }
    let tables = report.tables();
    assert!(tables.contains("| until stable, ms | 50.0 | 20.0 | 0.50 |"), "{tables}");
    assert!(tables.contains("| groups, ") && !tables.contains("| connections "), "{tables}");
    assert_eq!(report.json_lines().lines().count(), 6);
}

#[test]
fn rounds_that_were_left_out_are_told() {
    let mut report = Report::default();
    for (record_bytes, rounds) in [(100, 2), (1024, 3)] {
        let case = Case { kind: Kind::JavaFetch, partitions: 1, record_bytes, batch_bytes: 16 << 10 };
        for round in 0..rounds {
            let (who, nan) = (Who::Woodpecker, f64::NAN);
            let cpu_s_per_gb = 1.0;
            report.samples.push(Sample {
                case,
                who,
                round,
                mb_per_s: 1.0,
                cpu_s_per_gb,
                client_cpu_s_per_gb: nan,
                p50_ms: nan,
                p99_ms: nan,
            });
        }
    }
    assert!(report.tables().contains("Medians of 2 to 3 rounds."));
}

#[test]
fn a_sheet_has_a_row_for_each_way_and_says_its_circumstances() {
    let mut report = Report::default();
    for (round, plain, produced) in [(0, 200.0, 150.0), (1, 100.0, 90.0), (2, 300.0, 240.0)] {
        for (row, value) in [("plain", plain), ("produced", produced)] {
            let (row, column) = (row.to_owned(), "MB/s");
            report.sheets.entries.push(Entry { sheet: Sheet::Throughput, row, column, round, value });
        }
    }
    let (row, column) = ("produced".to_owned(), "of plain");
    report.sheets.entries.push(Entry { sheet: Sheet::Throughput, row, column, round: 0, value: 0.75 });
    report.sheets.captions.insert(Sheet::Throughput, "On a made-up server.".to_owned());
    let tables = report.tables();
    assert!(tables.contains("| produce on S3, as fast as it goes | MB/s | of plain |"), "{tables}");
    assert!(tables.contains("| plain | 200 | - |\n| produced | 150 | 0.75 |"), "{tables}");
    assert!(tables.contains("Medians of 3 rounds. On a made-up server."), "{tables}");
    assert_eq!(report.json_lines().lines().count(), 7);
}
