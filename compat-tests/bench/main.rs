//! Woodpecker beside Apache Kafka: throughput, latency and CPU time of both, on one machine, in one run, with the same
//! clients, and beside them what the client and the folder could do without any broker.
//!
//! Two clients: our own, which costs so little that the broker is what is measured, and Kafka's ProducerPerformance,
//! which is what users see. Kafka acknowledges from the page cache and is not asked to sync; Woodpecker acknowledges
//! after fdatasync. Nothing evens that out here.
//!
//! Modules are listed bottom-up; none imports one that stands below it in this list.

mod clock;

mod batch;

mod wire;

mod load;

mod sink;

mod folder;

mod java;

mod servers;

mod report;

mod plan;

use std::{fs, io, path::PathBuf};

use clap::{Parser, Subcommand};

use crate::plan::Plan;

#[derive(Debug, Parser)]
#[command(about = "Woodpecker beside Apache Kafka: throughput, latency, CPU time")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Role>,
    /// About two minutes instead of fifteen: fewer cells, fewer rounds, less data.
    #[arg(long)]
    quick: bool,
    /// The broker to measure.
    #[arg(long, default_value = "target/release/woodpecker")]
    woodpecker: PathBuf,
    /// The script that installs, starts and stops Kafka.
    #[arg(long, default_value = "compat-tests/servers/kafka")]
    kafka: PathBuf,
    /// Measure only one of them: kafka or woodpecker.
    #[arg(long)]
    only: Option<String>,
    /// Where data goes, on a real disk (a RAM disk makes syncing free); removed afterwards.
    #[arg(long, default_value = "target")]
    folder: PathBuf,
    /// Every sample, one JSON object per line.
    #[arg(long, default_value = "target/bench.jsonl")]
    json: PathBuf,
    /// Rounds of our own client.
    #[arg(long)]
    rounds: Option<usize>,
    /// Rounds of Kafka's ProducerPerformance.
    #[arg(long)]
    java_rounds: Option<usize>,
    /// Record values per measurement with our own client, in MB.
    #[arg(long)]
    megabytes: Option<u64>,
    /// Only these cells, as PARTITIONS:RECORD_BYTES.
    #[arg(long, value_parser = cell)]
    cell: Vec<(usize, usize)>,
    /// Sizes that producers fill their batches to: Java's default, and what people set who want throughput.
    #[arg(long, default_values_t = [16 << 10, 256 << 10])]
    batch: Vec<usize>,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Be the broker that throws everything away.
    #[command(hide = true)]
    Sink { port: u16, partitions: usize },
}

fn cell(argument: &str) -> Result<(usize, usize), String> {
    let (partitions, record_bytes) = argument.split_once(':').ok_or("expected PARTITIONS:RECORD_BYTES")?;
    let parse = |number: &str| number.parse().map_err(|e| format!("{number}: {e}"));
    Ok((parse(partitions)?, parse(record_bytes)?))
}

impl Arguments {
    fn plan(&self, folder: PathBuf) -> Plan {
        let wanted = |name: &str| self.only.as_deref().is_none_or(|only| only == name);
        let all = [1, 16].into_iter().flat_map(|partitions| [100, 1 << 10, 16 << 10].map(|bytes| (partitions, bytes)));
        let cells = match (self.cell.is_empty(), self.quick) {
            (false, _) => self.cell.clone(),
            (true, true) => vec![(1, 1 << 10), (16, 1 << 10)],
            (true, false) => all.collect(),
        };
        let (rounds, java_rounds, megabytes, java_megabytes) =
            if self.quick { (3, 1, 256, 200) } else { (3, 3, 512, 300) };
        Plan {
            kafka_script: self.kafka.clone(),
            with_kafka: wanted("kafka"),
            woodpecker: wanted("woodpecker").then(|| self.woodpecker.clone()),
            folder,
            cells,
            batches: self.batch.clone(),
            rounds: self.rounds.unwrap_or(rounds),
            java_rounds: self.java_rounds.unwrap_or(java_rounds),
            bytes: self.megabytes.unwrap_or(megabytes) * 1_000_000,
            java_bytes: java_megabytes * 1_000_000,
            kafka_warm_up_bytes: if self.quick { 1_000_000_000 } else { 2_000_000_000 },
            latency_records: if self.quick { 300 } else { 600 },
        }
    }
}

fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    if let Some(Role::Sink { port, partitions }) = arguments.command {
        return sink::serve(port, partitions);
    }
    let scratch = plan::scratch(&arguments.folder);
    let report = plan::run(arguments.plan(scratch.0.clone()))?;
    fs::write(&arguments.json, report.json_lines())?;
    println!("{}", report.tables());
    Ok(())
}
