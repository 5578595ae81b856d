//! What the tool prints is understood.

use super::*;

#[test]
fn the_last_line_is_read() {
    let line = "1500 steady state records sent, 16200.5 records/sec (15.82 MB/sec), 1454.52 ms avg latency, \
                2731.00 ms max latency, 1461 ms 50th, 1928 ms 95th, 2434 ms 99th, 2682 ms 99.9th.";
    let expected = Java { mb_per_s: 16.2005, p50_ms: 1461.0, p99_ms: 2434.0 };
    assert_eq!(parse(line, 1000), Some(expected));
    assert_eq!(parse("nothing", 1000), None);
}

#[test]
fn what_was_consumed_is_read() {
    let names = "start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, \
                 rebalance.time.ms, fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec";
    let values = "2026-01-02 03:04:05:678, 2026-01-02 03:04:07:678, 244.1406, 122.0703, 250000, 125000.0000, \
                  400, 1600, 152.5879, 156250.0000";
    assert_eq!(parse_consumed(&format!("a warning\n{names}\n{values}\n")), Some((250_000.0, 156_250.0)));
    assert_eq!(parse_consumed(names), None);
    assert_eq!(parse_consumed(values), None);
}
