//! The real `woodpecker` binary as a process that tests start, pause, kill and look at.
//!
//! Every process started here dies with the test process, however that one ends. A broker's output goes to a file in its
//! folder and is shown when the test that owns it fails.

use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::http;
use crate::wait::until;

/// Longer than any start takes on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);
/// A clock tick of /proc, on every Linux.
const TICKS_PER_SECOND: u64 = 100;

/// A port of 127.0.0.1 on which nothing listens. Below the ephemeral range: a client that retries a dead port inside
/// that range can connect to itself and occupy it.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(97);
    for _ in 0..20_000 {
        let port = 11_000 + (first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 21_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between 11000 and 32000");
}

/// Starts a process that the kernel kills when this one ends. That signal comes at the end of the *thread* that started
/// it, so one thread, which never ends, starts them all.
pub fn spawn(command: Command) -> Child {
    type Job = (Command, mpsc::Sender<std::io::Result<Child>>);
    static KEEPER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (jobs, inbox) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, reply) in inbox {
                let _ = reply.send(command.spawn());
            }
        });
        jobs
    });
    let what = format!("{command:?}");
    let (reply, started) = mpsc::channel();
    keeper.send((command, reply)).expect("the keeper thread never ends");
    let started = started.recv().expect("the keeper answers every job");
    started.unwrap_or_else(|error| panic!("cannot start {what}: {error}"))
}

/// Where a server of this test process keeps its data. That outlives the process, which has no last word; so what dead
/// ones left is cleared up first.
pub fn server_folder(name: &str) -> PathBuf {
    let prefix = format!("woodpecker-test-{name}-");
    for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let found = entry.file_name().to_string_lossy().into_owned();
        let pid = found.strip_prefix(&prefix).and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    std::env::temp_dir().join(format!("{prefix}{}", std::process::id()))
}

/// `program` as a command that takes the kernel's signal with it.
pub fn mortal(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// The built binary, which stands beside the folder of the test executables.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("WOODPECKER_BINARY") {
        return path.into();
    }
    let test = std::env::current_exe().expect("a process knows its executable");
    let path = test.ancestors().nth(2).expect("tests are built into a folder").join("woodpecker");
    assert!(path.exists(), "{} is not built: cargo build -p broker --bin woodpecker", path.display());
    path
}

/// How to start a broker, as often as wanted: on the same ports, in the same folder, with the same log file.
#[derive(Debug, Clone)]
pub struct Launch {
    folder: PathBuf,
    pub kafka: String,
    pub http: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Launch {
    /// A broker that runs in `folder` on two free ports. Without more it keeps its data in `folder/data`.
    pub fn new(folder: &Path) -> Self {
        let kafka = format!("127.0.0.1:{}", free_port());
        let http = format!("127.0.0.1:{}", free_port());
        Self { folder: folder.to_owned(), kafka, http, arguments: Vec::new(), environment: Vec::new() }
    }

    /// The same broker on two other ports: what another machine would run.
    pub fn elsewhere(&self, folder: &Path) -> Self {
        Self { arguments: self.arguments.clone(), environment: self.environment.clone(), ..Self::new(folder) }
    }

    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub fn storage(self, storage: impl Into<String>) -> Self {
        self.arg("--storage").arg(storage)
    }

    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Sets a key of the configuration, through its environment variable.
    pub fn set(self, key: &str, value: impl ToString) -> Self {
        self.env(format!("WOODPECKER_{}", key.to_uppercase()), value.to_string())
    }

    /// Lets data be tiered, checkpointed and deleted all the time: what takes hours elsewhere happens within a test.
    pub fn busy_upkeep(self) -> Self {
        self.set("tier_bytes", 100_000)
            .set("tier_interval_ms", 200)
            .set("tier_object_bytes", 60_000)
            .set("merge_object_bytes", 1_000_000)
            .set("retention_check_interval_ms", 200)
            .set("delete_delay_ms", 200)
    }

    /// Starts the process and does not wait for anything.
    pub fn spawn(&self) -> Broker {
        let arguments = ["--listen", &self.kafka, "--http", &self.http].map(str::to_owned);
        self.spawn_with(arguments.into_iter().chain(self.arguments.iter().cloned()).collect())
    }

    /// Starts the process with exactly these arguments.
    pub fn spawn_with(&self, arguments: Vec<String>) -> Broker {
        std::fs::create_dir_all(&self.folder).expect("the broker's folder can be made");
        let output = self.open_log();
        let mut command = self.command(arguments);
        command.stdout(output.try_clone().expect("a file handle")).stderr(output);
        Broker { launch: self.clone(), child: spawn(command), exited: None }
    }

    fn command(&self, arguments: Vec<String>) -> Command {
        let mut command = mortal(&binary());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if ["WOODPECKER_", "AWS_", "GOOGLE_", "AZURE_"].iter().any(|prefix| name.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command.args(arguments).envs(self.environment.iter().cloned()).current_dir(&self.folder);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a tool, with these arguments, on what this broker keeps, to its end.
    pub fn tool(&self, arguments: &[&str]) -> Ran {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).chain(self.arguments.iter().cloned());
        let mut command = self.command(arguments.collect());
        let output = tokio::task::block_in_place(|| command.output()).expect("the binary runs");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Starts the process and waits until it is ready to serve.
    pub async fn start(&self) -> Broker {
        let mut broker = self.spawn();
        broker.ready().await;
        broker
    }

    pub fn log_path(&self) -> PathBuf {
        self.folder.join("broker.log")
    }

    fn open_log(&self) -> File {
        let opened = OpenOptions::new().create(true).append(true).open(self.log_path());
        opened.unwrap_or_else(|error| panic!("{}: {error}", self.log_path().display()))
    }
}

/// How a tool has ended, and what it said.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// A running (or ended) broker. Dropping it kills it.
#[derive(Debug)]
pub struct Broker {
    launch: Launch,
    child: Child,
    exited: Option<ExitStatus>,
}

impl Broker {
    /// Where clients connect to.
    pub fn kafka(&self) -> &str {
        &self.launch.kafka
    }

    /// Starts it again after it ended.
    pub async fn again(self) -> Self {
        assert!(self.exited.is_some(), "the broker still runs");
        self.launch.clone().start().await
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub async fn ready(&mut self) {
        let http = self.launch.http.clone();
        until(&format!("{http}/readyz answers 200"), START_LIMIT, async || {
            assert!(self.exited().is_none(), "the broker ended while starting: {:?}", self.exited);
            matches!(http::get(&http, "/readyz").await, Ok((200, _)))
        })
        .await;
    }

    /// Everything this broker, and its predecessors on the same launch, wrote.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.launch.log_path()).unwrap_or_default()
    }

    /// The status with which it ended, if it did.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.exited.is_none() {
            self.exited = self.child.try_wait().expect("a child can be waited for");
        }
        self.exited
    }

    pub fn signal(&mut self, signal: Signal) {
        assert!(self.exited().is_none(), "the broker ended by itself: {:?}", self.exited);
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("a child can be signalled");
    }

    /// kill -9, and gone.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait(Duration::from_secs(30)).await;
    }

    /// SIGSTOP.
    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    /// SIGTERM.
    pub fn terminate(&mut self) {
        self.signal(Signal::TERM);
    }

    /// Waits for the end; the exit code, or none after a signal.
    pub async fn wait(&mut self, limit: Duration) -> Option<i32> {
        until("the broker ends", limit, async || self.exited().is_some()).await;
        self.exited.and_then(|status| status.code())
    }

    pub fn rss_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a live process");
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("a live process has VmRSS");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("VmRSS is a number");
        kib * 1024
    }

    /// Processor time used so far, by all threads.
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("a live process");
        let after_name = stat.rsplit_once(')').expect("the name is in brackets").1;
        let ticks = after_name.split_whitespace().skip(11).take(2).map(|t| t.parse::<u64>().expect("ticks"));
        Duration::from_millis(ticks.sum::<u64>() * 1000 / TICKS_PER_SECOND)
    }

    /// A metric's value, summed over its labels; none if it is not there.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let (_, body) = http::get(&self.launch.http, "/metrics").await.expect("/metrics answers");
        let of_name = |l: &&str| l.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        let values = body.lines().filter(of_name).filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok());
        values.reduce(|a, b| a + b)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.exited.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let from = log.char_indices().rev().nth(6_000).map_or(0, |(at, _)| at);
            eprintln!("--- the end of {} ---\n{}", self.launch.log_path().display(), &log[from..]);
        }
    }
}
