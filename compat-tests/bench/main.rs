//! Woodpecker beside Apache Kafka: throughput, latency, rebalances, connections and CPU time of both, on one machine, in
//! one run, with the same clients, and beside them what the client and the folder could do without any broker. And
//! Woodpecker alone on an S3 server, beside what that could do without a broker.
//!
//! Two clients: our own, which costs so little that the broker is what is measured, and Kafka's ProducerPerformance and
//! ConsumerPerformance, which are what users see. Kafka acknowledges from the page cache and is not asked to sync; Woodpecker acknowledges
//! after fdatasync. Nothing evens that out here.
//!
//! Modules are listed bottom-up; none imports one that stands below it in this list.

mod clock;

mod batch;

mod wire;

mod http;

mod crowd;

mod load;

mod groups;

mod connections;

mod sink;

mod folder;

mod java;

mod servers;

mod delay;

mod bucket;

mod report;

mod plan;

use std::{fs, io, path::PathBuf, time::Duration};

use clap::{Parser, Subcommand, ValueEnum};

use crate::plan::{ConnectionPlan, GroupPlan, Plan, Section};

#[derive(Debug, Parser)]
#[command(about = "Woodpecker beside Apache Kafka: throughput, latency, CPU time")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Role>,
    /// A third of the time: fewer cells, fewer rounds, less data.
    #[arg(long)]
    quick: bool,
    /// Only these sections, separated by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Section>,
    /// Rounds of produce and fetch are left out that would not be finished by then; the first ones never are.
    #[arg(long)]
    minutes: Option<u64>,
    /// The broker to measure.
    #[arg(long, default_value = "target/release/woodpecker")]
    woodpecker: PathBuf,
    /// The script that installs, starts and stops Kafka.
    #[arg(long, default_value = "compat-tests/servers/kafka")]
    kafka: PathBuf,
    /// The script that starts an S3 server.
    #[arg(long, default_value = "compat-tests/servers/s3")]
    s3: PathBuf,
    /// The brokers to measure, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "kafka,woodpecker")]
    servers: Vec<Broker>,
    /// Where data goes, on a real disk (a RAM disk makes syncing free); removed afterwards.
    #[arg(long, default_value = "target")]
    folder: PathBuf,
    /// Every sample, one JSON object per line.
    #[arg(long, default_value = "target/bench.jsonl")]
    json: PathBuf,
    /// Rounds of our own client.
    #[arg(long)]
    rounds: Option<usize>,
    /// Rounds of Kafka's ProducerPerformance and ConsumerPerformance.
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
    /// Members of the large group.
    #[arg(long, default_value_t = 100)]
    members: usize,
    /// Groups of one member each.
    #[arg(long, default_value_t = 1000)]
    groups: usize,
    /// Connections that say nothing after their first two requests.
    #[arg(long, default_value_t = 5000)]
    idle: usize,
    /// Connections beside them that produce.
    #[arg(long, default_value_t = 500)]
    active: usize,
    /// Records per second of all active connections together.
    #[arg(long, default_value_t = 2000)]
    active_per_s: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Broker {
    Kafka,
    Woodpecker,
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
        let quick = self.quick;
        // What people use most comes first, and goes last when time runs short.
        let all = [1 << 10, 100, 16 << 10].into_iter().flat_map(|bytes| [1, 16].map(|partitions| (partitions, bytes)));
        let cells = match (self.cell.is_empty(), quick) {
            (false, _) => self.cell.clone(),
            (true, true) => vec![(1, 1 << 10), (16, 1 << 10)],
            (true, false) => all.collect(),
        };
        let (rounds, java_rounds, megabytes, java_megabytes) = if quick { (2, 1, 256, 200) } else { (3, 3, 400, 200) };
        let rounds = self.rounds.unwrap_or(rounds);
        Plan {
            sections: if self.only.is_empty() { Section::value_variants().to_vec() } else { self.only.clone() },
            kafka_script: self.kafka.clone(),
            with_kafka: self.servers.contains(&Broker::Kafka),
            woodpecker: self.servers.contains(&Broker::Woodpecker).then(|| self.woodpecker.clone()),
            folder,
            cells,
            batches: self.batch.clone(),
            rounds,
            java_rounds: self.java_rounds.unwrap_or(java_rounds),
            bytes: self.megabytes.unwrap_or(megabytes) * 1_000_000,
            java_bytes: java_megabytes * 1_000_000,
            kafka_warm_up_bytes: if quick { 1_000_000_000 } else { 2_000_000_000 },
            latency_records: if quick { 300 } else { 600 },
            latency_rounds: rounds,
            groups: GroupPlan {
                rounds: if quick { 3 } else { 5 },
                members: self.members.max(2),
                groups: self.groups.max(1),
            },
            connections: ConnectionPlan {
                rounds: if quick { 1 } else { 2 },
                idle: self.idle.max(1),
                active: self.active.max(1),
                records_per_s: self.active_per_s.max(1),
                window: Duration::from_secs(if quick { 10 } else { 20 }),
            },
            store_script: self.s3.clone(),
            store_rounds: self.rounds.unwrap_or(if quick { 1 } else { 2 }),
            store_bytes: if quick { 500_000_000 } else { 1_200_000_000 },
            store_window: Duration::from_secs(if quick { 6 } else { 15 }),
            lone_records: if quick { 12 } else { 30 },
            limit: Duration::from_secs(60 * self.minutes.unwrap_or(if quick { 4 } else { 14 })),
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
