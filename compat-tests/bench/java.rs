//! Kafka's own ProducerPerformance, the same command line for every broker: what its users see.

use std::{io, net::SocketAddr, path::Path, process::Command};

use crate::wire::failed;

/// In its steady state, after the warm-up records.
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

#[cfg(test)]
mod tests;
