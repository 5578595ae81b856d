//! Kafka's own ProducerPerformance and ConsumerPerformance, the same command lines for every broker: what its users see.

use std::{io, net::SocketAddr, path::Path, process::Command};

use crate::wire::failed;

/// What a tool prints: of the producer in its steady state, after the warm-up records; of the consumer from its first
/// assignment on, without latencies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Java {
    pub mb_per_s: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

pub fn produce(
    script: &Path,
    address: SocketAddr,
    topic: &str,
    record_bytes: usize,
    batch_bytes: usize,
    records: u64,
) -> io::Result<Java> {
    let output = Command::new(script)
        .args(["java", "org.apache.kafka.tools.ProducerPerformance", "--topic", topic, "--throughput", "-1"])
        .args(["--num-records", &records.to_string(), "--warmup-records", &(records / 3).to_string()])
        .args(["--record-size", &record_bytes.to_string()])
        .args(["--bootstrap-server", &address.to_string(), "--command-property", "acks=all"])
        .arg(format!("batch.size={batch_bytes}"))
        .output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let steady = printed.lines().rev().find(|line| line.contains("steady state records sent"));
    steady.filter(|_| output.status.success()).and_then(|line| parse(line, record_bytes)).ok_or_else(|| {
        let errors = String::from_utf8_lossy(&output.stderr);
        failed(format!("ProducerPerformance failed:\n{printed}{}", errors.lines().take(20).collect::<String>()))
    })
}

/// `N steady state records sent, R records/sec (M MB/sec), ... ms avg latency, ... ms max latency, A ms 50th, ...`.
/// Its MB are MiB, so the records per second are what counts.
fn parse(line: &str, record_bytes: usize) -> Option<Java> {
    let number_before = |unit: &str| line.split(unit).next()?.rsplit([' ', '(']).next()?.parse::<f64>().ok();
    Some(Java {
        mb_per_s: number_before(" records/sec")? * record_bytes as f64 / 1e6,
        p50_ms: number_before(" ms 50th")?,
        p99_ms: number_before(" ms 99th")?,
    })
}

/// Reads `records` records from the start of every partition, as one group of one member.
pub fn consume(script: &Path, address: SocketAddr, topic: &str, record_bytes: usize, records: u64) -> io::Result<Java> {
    let output = Command::new(script)
        .args(["java", "org.apache.kafka.tools.ConsumerPerformance", "--topic", topic])
        .args(["--num-records", &records.to_string(), "--bootstrap-server", &address.to_string()])
        .args(["--group", &format!("{topic}-readers")])
        .output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let consumed = Some(&printed).filter(|_| output.status.success()).and_then(|text| parse_consumed(text));
    match consumed {
        Some((consumed, per_s)) if consumed >= records as f64 => {
            Ok(Java { mb_per_s: per_s * record_bytes as f64 / 1e6, p50_ms: f64::NAN, p99_ms: f64::NAN })
        }
        _ => {
            let errors = String::from_utf8_lossy(&output.stderr);
            let errors: String = errors.lines().take(20).collect();
            Err(failed(format!("ConsumerPerformance did not read {records} records:\n{printed}{errors}")))
        }
    }
}

/// Records, and records per second without the time that joining the group took. A line of names, then one of values,
/// separated by commas; no value contains one.
fn parse_consumed(printed: &str) -> Option<(f64, f64)> {
    let mut lines = printed.lines().skip_while(|line| !line.starts_with("start.time"));
    let names = lines.next()?.split(", ");
    let values: Vec<&str> = lines.next()?.split(", ").collect();
    let value_of = |name: &str| {
        let position = names.clone().position(|known| known.trim() == name)?;
        values.get(position)?.trim().parse::<f64>().ok()
    };
    Some((value_of("data.consumed.in.nMsg")?, value_of("fetch.nMsg.sec")?))
}

#[cfg(test)]
mod tests;
