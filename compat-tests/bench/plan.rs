//! The order of a run. Both brokers are up the whole time on the same disk, warmed up, and take turns, the one that
//! goes first changing from round to round; the disk is quiet before anything is measured.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    clock::{now, pause},
    folder, java,
    load::{self, Load, Outcome},
    report::{Case, FolderSample, Kind, Report, Sample},
    servers::{Server, Who, own_cpu_s},
    wire::Connection,
};

const CONNECTIONS: usize = 4;
/// As many as Java's producer.
const WINDOW: usize = 5;
const KAFKA_PORT: u16 = 21_092;
const WOODPECKER_PORT: u16 = 21_192;
const SINK_PORT: u16 = 21_292;
const LATENCY_RECORD_BYTES: usize = 1 << 10;
const LATENCY_GAP: Duration = Duration::from_millis(4);
/// Lets threads go idle that still tidy up after the previous measurement.
const SETTLE: Duration = Duration::from_millis(300);

#[derive(Debug, Clone)]
pub struct Plan {
    pub kafka_script: PathBuf,
    pub with_kafka: bool,
    pub woodpecker: Option<PathBuf>,
    pub folder: PathBuf,
    /// Partitions and record size.
    pub cells: Vec<(usize, usize)>,
    /// Sizes that producers fill their batches to.
    pub batches: Vec<usize>,
    pub rounds: usize,
    pub java_rounds: usize,
    /// Record values per measurement.
    pub bytes: u64,
    pub java_bytes: u64,
    /// Kafka's compiler needs this much before its figures stand still.
    pub kafka_warm_up_bytes: u64,
    pub latency_records: usize,
}

#[derive(Debug)]
pub struct Run {
    plan: Plan,
    report: Report,
    topics: usize,
}

impl Run {
    pub fn new(plan: Plan) -> Self {
        Self { plan, report: Report::default(), topics: 0 }
    }

    pub fn measure(mut self) -> io::Result<Report> {
        let plan = self.plan.clone();
        fs::create_dir_all(&plan.folder)?;
        let start = || Server::kafka(&plan.kafka_script, plan.folder.join("kafka"), KAFKA_PORT);
        let kafka = plan.with_kafka.then(start).transpose()?;
        if let Some(kafka) = &kafka {
            for batch in &plan.batches {
                self.warm_up(kafka, *batch, plan.kafka_warm_up_bytes / plan.batches.len() as u64)?;
            }
        }
        for &(partitions, record_bytes) in &plan.cells {
            // A fresh folder for every cell: the space of the one before is given back.
            let woodpecker = self.start_woodpecker()?;
            let sink = Server::sink(plan.folder.join("sink"), SINK_PORT, partitions)?;
            let servers: Vec<&Server> = kafka.iter().chain(&woodpecker).chain([&sink]).collect();
            self.cell(&servers, partitions, record_bytes)?;
            self.note_memory(&servers)?;
        }
        let woodpecker = self.start_woodpecker()?;
        let servers: Vec<&Server> = kafka.iter().chain(&woodpecker).collect();
        self.latency(&servers)?;
        self.note_memory(&servers)?;
        Ok(self.report)
    }

    fn start_woodpecker(&mut self) -> io::Result<Option<Server>> {
        let Some(binary) = self.plan.woodpecker.clone() else { return Ok(None) };
        let server = Server::woodpecker(&binary, self.plan.folder.join("woodpecker"), WOODPECKER_PORT)?;
        self.warm_up(&server, 64 << 10, 64 << 20)?;
        Ok(Some(server))
    }

    fn warm_up(&mut self, server: &Server, batch_bytes: usize, bytes: u64) -> io::Result<()> {
        progress(format_args!("warming up {} with {} MB", server.who.name(), bytes / 1_000_000));
        let load = self.load(Case { kind: Kind::Produce, partitions: 4, record_bytes: 1 << 10, batch_bytes }, bytes);
        Connection::open(server.address)?.create_topic(&load.topic, 4)?;
        load::produce(server.address, &load)?;
        load::drain(server.address, &load)?;
        Connection::open(server.address)?.delete_topic(&load.topic)
    }

    fn load(&mut self, case: Case, total_bytes: u64) -> Load {
        self.topics += 1;
        let topic = format!("bench-{}", self.topics);
        let Case { partitions, record_bytes, batch_bytes, .. } = case;
        Load { topic, partitions, record_bytes, batch_bytes, connections: CONNECTIONS, window: WINDOW, total_bytes }
    }

    fn cell(&mut self, servers: &[&Server], partitions: usize, record_bytes: usize) -> io::Result<()> {
        for round in 0..self.plan.rounds.max(self.plan.java_rounds) {
            for batch_bytes in self.plan.batches.clone() {
                let case = Case { kind: Kind::Produce, partitions, record_bytes, batch_bytes };
                for server in turns(servers, round) {
                    if round < self.plan.rounds {
                        self.own_client(server, case, round)?;
                    }
                    if round < self.plan.java_rounds {
                        self.java_client(server, Case { kind: Kind::Java, ..case }, round)?;
                    }
                }
            }
            self.folder_limits(round)?;
        }
        Ok(())
    }

    fn own_client(&mut self, server: &Server, case: Case, round: usize) -> io::Result<()> {
        let load = self.load(case, self.plan.bytes);
        Connection::open(server.address)?.create_topic(&load.topic, load.partitions)?;
        self.sample(server, case, round, || load::produce(server.address, &load))?;
        if server.who != Who::Sink {
            let case = Case { kind: Kind::Fetch, ..case };
            self.sample(server, case, round, || load::drain(server.address, &load))?;
        }
        Connection::open(server.address)?.delete_topic(&load.topic)
    }

    fn java_client(&mut self, server: &Server, case: Case, round: usize) -> io::Result<()> {
        let script = self.plan.kafka_script.clone();
        let load = self.load(case, self.plan.java_bytes);
        Connection::open(server.address)?.create_topic(&load.topic, load.partitions)?;
        let records = load.total_bytes / load.record_bytes as u64;
        let mut printed = None;
        self.sample(server, case, round, || {
            let since = now();
            let java =
                java::produce(&script, server.address, &load.topic, load.record_bytes, load.batch_bytes, records)?;
            printed = Some(java);
            Ok(Outcome { bytes: load.total_bytes, records, elapsed: now() - since, ..Outcome::default() })
        })?;
        // The CPU time is of all records; rate and latency are what the tool prints of its steady state.
        if let (Some(java), Some(sample)) = (printed, self.report.samples.last_mut()) {
            sample.mb_per_s = java.mb_per_s;
            (sample.p50_ms, sample.p99_ms) = (java.p50_ms, java.p99_ms);
            progress(format_args!("        the tool says {:.0} MB/s, p50 {} ms", java.mb_per_s, java.p50_ms));
        }
        Connection::open(server.address)?.delete_topic(&load.topic)
    }

    fn sample(
        &mut self,
        server: &Server,
        case: Case,
        round: usize,
        work: impl FnOnce() -> io::Result<Outcome>,
    ) -> io::Result<()> {
        quiet_disk();
        let (cpu, own_cpu) = (server.cpu_s()?, own_cpu_s()?);
        let outcome = work()?;
        let gigabytes = outcome.bytes as f64 / 1e9;
        let sample = Sample {
            case,
            who: server.who,
            round,
            mb_per_s: outcome.mb_per_s(),
            cpu_s_per_gb: (server.cpu_s()? - cpu) / gigabytes,
            client_cpu_s_per_gb: (own_cpu_s()? - own_cpu) / gigabytes,
            p50_ms: outcome.latency_ms(50),
            p99_ms: outcome.latency_ms(99),
        };
        progress(format_args!(
            "{:?} x{} {} B in {} B, round {}: {:10} {:5.0} MB/s, {:.2} broker and {:.2} client CPU-s/GB, p50 {:.2} ms",
            case.kind,
            case.partitions,
            case.record_bytes,
            case.batch_bytes,
            round + 1,
            server.who.name(),
            sample.mb_per_s,
            sample.cpu_s_per_gb,
            sample.client_cpu_s_per_gb,
            sample.p50_ms,
        ));
        self.report.samples.push(sample);
        Ok(())
    }

    fn folder_limits(&mut self, round: usize) -> io::Result<()> {
        for chunk_bytes in [1 << 20, 8 << 20] {
            quiet_disk();
            let outcome = folder::sequential(&self.plan.folder, chunk_bytes, self.plan.bytes)?;
            self.push_folder(round, chunk_bytes, &outcome);
        }
        Ok(())
    }

    fn push_folder(&mut self, round: usize, chunk_bytes: usize, outcome: &Outcome) {
        let (mb_per_s, p50_ms, p99_ms) = (outcome.mb_per_s(), outcome.latency_ms(50), outcome.latency_ms(99));
        progress(format_args!("folder, {chunk_bytes} B at a time: {mb_per_s:.0} MB/s, p50 {p50_ms:.2} ms"));
        self.report.folder.push(FolderSample { round, chunk_bytes, mb_per_s, p50_ms, p99_ms });
    }

    fn latency(&mut self, servers: &[&Server]) -> io::Result<()> {
        let record_bytes = LATENCY_RECORD_BYTES;
        let case = Case { kind: Kind::Latency, partitions: 1, record_bytes, batch_bytes: 0 };
        let load = self.load(case, 0);
        for server in servers {
            Connection::open(server.address)?.create_topic(&load.topic, 1)?;
        }
        let count = self.plan.latency_records;
        for round in 0..self.plan.rounds {
            quiet_disk();
            let small = folder::small_appends(&self.plan.folder, count, LATENCY_GAP)?;
            self.push_folder(round, 4 << 10, &small);
            for server in turns(servers, round) {
                self.sample(server, case, round, || {
                    load::single_records(server.address, &load.topic, record_bytes, count, LATENCY_GAP)
                })?;
            }
        }
        Ok(())
    }

    fn note_memory(&mut self, servers: &[&Server]) -> io::Result<()> {
        for server in servers.iter().filter(|server| server.who != Who::Sink) {
            let peak = server.peak_memory_bytes()?;
            let known = self.report.peak_memory_bytes.entry(server.who).or_default();
            *known = peak.max(*known);
        }
        Ok(())
    }
}

/// A B, then B A, and so on.
fn turns<'a>(servers: &[&'a Server], round: usize) -> Vec<&'a Server> {
    let mut turns = servers.to_vec();
    if round % 2 == 1 {
        turns.reverse();
    }
    turns
}

/// What one measurement left in the page cache is not written back during the next one.
fn quiet_disk() {
    rustix::fs::sync();
    pause(SETTLE);
}

fn progress(line: std::fmt::Arguments<'_>) {
    eprintln!("{line}");
}

/// Removes the folder when the run ends, however it ends.
#[derive(Debug)]
pub struct Scratch(pub PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A folder for one run inside `parent`.
pub fn scratch(parent: &Path) -> Scratch {
    Scratch(parent.join(format!("woodpecker-bench-{}", std::process::id())))
}

/// Runs the plan, and says how long it took.
pub fn run(plan: Plan) -> io::Result<Report> {
    let since = now();
    let report = Run::new(plan).measure()?;
    progress(format_args!("measured in {:.0} s", (now() - since).as_secs_f64()));
    Ok(report)
}
