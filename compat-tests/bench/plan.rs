//! The order of a run. Both brokers are up the whole time on the same disk, Kafka warmed up, and take turns, the one
//! that goes first changing from round to round; the disk is quiet before anything is measured.
//!
//! What takes a fixed time comes first, then produce and fetch, round by round, as many rounds as there is time for; then,
//! with Kafka stopped, what is measured of Woodpecker alone.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    clock::{now, pause},
    crowd, folder,
    load::{self, Load, Outcome},
    report::{Case, FolderSample, Kind, Report, Sample},
    servers::{Server, Who, install, own_cpu_s},
    wire::Connection,
};

mod crowds;
mod throughput;

mod s3;

mod flat;
mod recovery;
mod replay;
mod tiering;

const CONNECTIONS: usize = 4;
/// As many as Java's producer.
const WINDOW: usize = 5;
const KAFKA_PORT: u16 = 21_092;
const WOODPECKER_PORT: u16 = 21_192;
const SINK_PORT: u16 = 21_292;
const SMALL_RECORD_BYTES: usize = 1 << 10;
const LATENCY_GAP: Duration = Duration::from_millis(4);
/// Lets threads go idle that still tidy up after the previous measurement.
const SETTLE: Duration = Duration::from_millis(300);

/// A part of the run that can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Section {
    /// Producers as fast as they can: our own, and Kafka's ProducerPerformance.
    Produce,
    /// Readers from start to end: our own, and Kafka's ConsumerPerformance.
    Fetch,
    /// One record at a time.
    Latency,
    /// Rebalances: one large group, and many small ones.
    Groups,
    /// Thousands of connections, idle and with little to say.
    Connections,
    /// Produce on S3, beside plain PUTs and with slow PUTs. Woodpecker alone.
    S3,
    /// The same load on few and on many partitions, on S3. Woodpecker alone.
    Flat,
    /// The same load while nothing is tiered and while everything is, on S3. Woodpecker alone.
    Tiering,
    /// Start after kill -9, in a folder and on S3. Woodpecker alone.
    Recovery,
    /// Old data read from S3, alone and while new data is produced and followed.
    Replay,
}

impl Section {
    /// Whether it is about Woodpecker only, on an S3 server.
    fn is_alone(self) -> bool {
        matches!(self, Self::S3 | Self::Flat | Self::Tiering | Self::Recovery | Self::Replay)
    }
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub sections: Vec<Section>,
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
    /// Record values per measurement; Kafka's consumer reads what our own producer wrote.
    pub bytes: u64,
    pub java_bytes: u64,
    /// Kafka's compiler needs this much before its figures stand still.
    pub kafka_warm_up_bytes: u64,
    pub latency_records: usize,
    pub latency_rounds: usize,
    pub groups: GroupPlan,
    pub connections: ConnectionPlan,
    /// Starts an S3 server.
    pub store_script: PathBuf,
    /// Of what takes long on S3; of the others there are `rounds`.
    pub store_rounds: usize,
    /// Record values per measurement of what S3 takes.
    pub store_bytes: u64,
    /// How long a fixed load on S3 is measured.
    pub store_window: Duration,
    /// Records sent one at a time to a slow S3 server, and plain PUTs to compare them with.
    pub lone_records: usize,
    /// No round is begun, but the first one of each client, that would hardly be finished by then.
    pub limit: Duration,
}

impl Plan {
    fn needs_kafka(&self) -> bool {
        self.with_kafka && self.sections.iter().any(|section| !section.is_alone())
    }

    fn install(&self) -> io::Result<()> {
        if self.needs_kafka() {
            install(&self.kafka_script)?;
        }
        if self.sections.iter().any(|section| section.is_alone()) {
            install(&self.store_script)?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
pub struct GroupPlan {
    pub rounds: usize,
    /// Of the large group.
    pub members: usize,
    /// Of one member each.
    pub groups: usize,
}

#[derive(Debug, Clone)]
pub struct ConnectionPlan {
    pub rounds: usize,
    pub idle: usize,
    /// Beside the idle ones.
    pub active: usize,
    pub records_per_s: usize,
    /// Of each measurement: idle, then active.
    pub window: Duration,
}

#[derive(Debug)]
pub struct Run {
    plan: Plan,
    report: Report,
    topics: usize,
    deadline: Instant,
}

impl Run {
    pub fn new(plan: Plan) -> Self {
        let deadline = now() + plan.limit;
        Self { plan, report: Report { machine: machine(), ..Report::default() }, topics: 0, deadline }
    }

    pub fn measure(mut self) -> io::Result<Report> {
        let plan = self.plan.clone();
        let wants = |section| plan.sections.contains(&section);
        // Kafka inherits the limit, so it is raised before anything is started.
        let many = if wants(Section::Connections) { plan.connections.idle + plan.connections.active } else { 0 };
        crowd::raise_file_limit(many.max(plan.groups.groups))?;
        fs::create_dir_all(&plan.folder)?;
        let start = || Server::kafka(&plan.kafka_script, plan.folder.join("kafka"), KAFKA_PORT);
        let kafka = plan.needs_kafka().then(start).transpose()?;
        if let Some(kafka) = &kafka {
            for batch in &plan.batches {
                self.warm_up(kafka, *batch, plan.kafka_warm_up_bytes / plan.batches.len() as u64)?;
            }
        }
        self.beside_kafka(kafka.as_ref())?;
        // What follows has the machine to itself.
        drop(kafka);
        let wants = |section| plan.woodpecker.is_some() && wants(section);
        if wants(Section::S3) {
            self.s3()?;
        }
        if wants(Section::Flat) {
            self.flat()?;
        }
        if wants(Section::Tiering) {
            self.tiering()?;
        }
        if wants(Section::Recovery) {
            self.recovery()?;
        }
        if wants(Section::Replay) {
            self.replay()?;
        }
        Ok(self.report)
    }

    fn beside_kafka(&mut self, kafka: Option<&Server>) -> io::Result<()> {
        let sections = self.plan.sections.clone();
        let wants = |section| sections.contains(&section);
        // A fresh folder for each section: what it holds in memory is of that section.
        if wants(Section::Groups) {
            let woodpecker = self.start_woodpecker(0)?;
            self.groups(&pair(kafka, woodpecker.as_ref()))?;
        }
        if wants(Section::Connections) {
            let woodpecker = self.start_woodpecker(0)?;
            self.connections(&pair(kafka, woodpecker.as_ref()))?;
        }
        if wants(Section::Latency) {
            let woodpecker = self.start_woodpecker(64 << 20)?;
            let servers = pair(kafka, woodpecker.as_ref());
            self.latency(&servers)?;
            self.note_memory(&servers)?;
        }
        if wants(Section::Produce) || wants(Section::Fetch) {
            self.throughput(kafka)?;
        }
        Ok(())
    }

    fn start_woodpecker(&mut self, warm_up_bytes: u64) -> io::Result<Option<Server>> {
        let Some(binary) = self.plan.woodpecker.clone() else { return Ok(None) };
        let server = Server::woodpecker(&binary, self.plan.folder.join("woodpecker"), WOODPECKER_PORT)?;
        if warm_up_bytes > 0 {
            self.warm_up(&server, 64 << 10, warm_up_bytes)?;
        }
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

    fn topic(&mut self) -> String {
        self.topics += 1;
        format!("bench-{}", self.topics)
    }

    fn load(&mut self, case: Case, total_bytes: u64) -> Load {
        let topic = self.topic();
        let Case { partitions, record_bytes, batch_bytes, .. } = case;
        Load { topic, partitions, record_bytes, batch_bytes, connections: CONNECTIONS, window: WINDOW, total_bytes }
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

    fn push_folder(&mut self, round: usize, chunk_bytes: usize, outcome: &Outcome) {
        let (mb_per_s, p50_ms, p99_ms) = (outcome.mb_per_s(), outcome.latency_ms(50), outcome.latency_ms(99));
        progress(format_args!("folder, {chunk_bytes} B at a time: {mb_per_s:.0} MB/s, p50 {p50_ms:.2} ms"));
        self.report.folder.push(FolderSample { round, chunk_bytes, mb_per_s, p50_ms, p99_ms });
    }

    fn latency(&mut self, servers: &[&Server]) -> io::Result<()> {
        let record_bytes = SMALL_RECORD_BYTES;
        let case = Case { kind: Kind::Latency, partitions: 1, record_bytes, batch_bytes: 0 };
        let load = self.load(case, 0);
        for server in servers {
            Connection::open(server.address)?.create_topic(&load.topic, 1)?;
        }
        let count = self.plan.latency_records;
        for round in 0..self.plan.latency_rounds {
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

fn pair<'a>(kafka: Option<&'a Server>, woodpecker: Option<&'a Server>) -> Vec<&'a Server> {
    kafka.into_iter().chain(woodpecker).collect()
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

/// A figure is worth little without it.
fn machine() -> String {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!("{cpus} CPUs, load average {} before the run.", load.split(' ').next().unwrap_or_default())
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
    plan.install()?;
    let since = now();
    let report = Run::new(plan).measure()?;
    progress(format_args!("measured in {:.0} s", (now() - since).as_secs_f64()));
    Ok(report)
}
