//! The processes under test: started on a fresh folder, measured from outside, stopped and wiped when dropped.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    clock::now,
    http,
    wire::{failed, wait_until_served},
};

const START_LIMIT: Duration = Duration::from_secs(60);
/// Whether it has ended meanwhile is looked at so often.
const START_POLL: Duration = Duration::from_millis(500);

/// Which server a figure is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Kafka,
    Woodpecker,
    Sink,
    /// The S3 server below a broker.
    Store,
}

impl Who {
    pub fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Woodpecker => "woodpecker",
            Self::Sink => "sink",
            Self::Store => "store",
        }
    }

    /// In tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Kafka => "Kafka",
            Self::Woodpecker => "Woodpecker",
            Self::Sink => "null sink",
            Self::Store => "S3 server",
        }
    }
}

#[derive(Debug)]
pub struct Server {
    pub who: Who,
    pub address: SocketAddr,
    pid: u32,
    /// Ours to kill, and how to start it again; Kafka's script keeps its own.
    child: Option<(Command, Child)>,
    kafka_script: Option<PathBuf>,
    folder: PathBuf,
}

/// What a script starts is fetched or built before anything is measured.
pub fn install(script: &Path) -> io::Result<()> {
    let installed = Command::new(script).arg("install").output()?;
    if installed.status.success() {
        return Ok(());
    }
    Err(failed(format!("{} install: {}", script.display(), String::from_utf8_lossy(&installed.stderr))))
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl Server {
    pub fn kafka(script: &Path, folder: PathBuf, port: u16) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let status = Command::new(script).arg("start").arg(port.to_string()).arg(&folder).status()?;
        if !status.success() {
            return Err(failed("Kafka did not start"));
        }
        let pid = fs::read_to_string(folder.join("pid"))?;
        let pid = pid.trim().parse().map_err(|_| failed("no pid of Kafka"))?;
        let kafka_script = Some(script.to_owned());
        Ok(Self { who: Who::Kafka, address: local(port), pid, child: None, kafka_script, folder })
    }

    pub fn woodpecker(binary: &Path, folder: PathBuf, port: u16) -> io::Result<Self> {
        let storage = folder.join("data").to_string_lossy().into_owned();
        Self::woodpecker_on(binary, folder, port, &storage, &[])
    }

    /// A broker with its data elsewhere, and with settings as environment variables.
    pub fn woodpecker_on(
        binary: &Path,
        folder: PathBuf,
        port: u16,
        storage: &str,
        environment: &[(String, String)],
    ) -> io::Result<Self> {
        let mut command = Command::new(binary);
        command.arg("--listen").arg(local(port).to_string()).arg("--http").arg(local(port + 1).to_string());
        // As Kafka is started here: a group that somebody joins is not kept waiting for others.
        command.env("WOODPECKER_GROUP_INITIAL_REBALANCE_DELAY_MS", "0");
        command.arg("--storage").arg(storage).envs(environment.iter().cloned());
        Self::of_child(Who::Woodpecker, command, folder, port, wait_until_served)
    }

    /// A real S3 server, of which every folder in `folder` is a bucket.
    pub fn store(script: &Path, folder: PathBuf, port: u16) -> io::Result<Self> {
        let health = Command::new(script).arg("health").output()?;
        let health = String::from_utf8_lossy(&health.stdout).trim().to_owned();
        let mut command = Command::new(script);
        command.arg("run").arg(port.to_string()).arg(folder.join("data"));
        Self::of_child(Who::Store, command, folder, port, |address, limit| http::wait_for_ok(address, &health, limit))
    }

    pub fn sink(folder: PathBuf, port: u16, partitions: usize) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("sink").arg(port.to_string()).arg(partitions.to_string());
        Self::of_child(Who::Sink, command, folder, port, wait_until_served)
    }

    /// Starts a process whose output goes to a file in its folder, and waits until it is up.
    fn of_child(
        who: Who,
        mut command: Command,
        folder: PathBuf,
        port: u16,
        is_up: impl Fn(SocketAddr, Duration) -> io::Result<()>,
    ) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let log = fs::File::create(folder.join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = spawn(&mut command)?;
        let (pid, address) = (child.id(), local(port));
        let mut server = Self { who, address, pid, child: Some((command, child)), kafka_script: None, folder };
        let deadline = now() + START_LIMIT;
        loop {
            let served = is_up(address, START_POLL);
            server.check_alive()?;
            match served {
                Ok(()) => return Ok(server),
                Err(error) if now() > deadline => return Err(error),
                Err(_) => {}
            }
        }
    }

    /// Somebody else's server on the same port would answer just as well.
    pub fn check_alive(&mut self) -> io::Result<()> {
        let Some((command, child)) = &mut self.child else { return Ok(()) };
        let Some(status) = child.try_wait()? else { return Ok(()) };
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        Err(failed(format!("{command:?} ended: {status}\n{log}")))
    }

    /// kill -9, and gone.
    pub fn kill(&mut self) -> io::Result<()> {
        let Some((_, child)) = &mut self.child else { return Err(failed("not ours to kill")) };
        child.kill()?;
        child.wait().map(|_| ())
    }

    /// The same once more, after it was killed. Does not wait for anything.
    pub fn start_again(&mut self) -> io::Result<()> {
        let Some((command, child)) = &mut self.child else { return Err(failed("not ours to start")) };
        *child = spawn(command)?;
        self.pid = child.id();
        Ok(())
    }

    /// Where a broker of ours shows its metrics and whether it is ready.
    pub fn http(&self) -> SocketAddr {
        local(self.address.port() + 1)
    }

    /// CPU time of all its threads so far, in seconds.
    pub fn cpu_s(&self) -> io::Result<f64> {
        cpu_s(&format!("/proc/{}/stat", self.pid))
    }

    /// Largest resident set so far, in bytes.
    pub fn peak_memory_bytes(&self) -> io::Result<u64> {
        self.status_bytes("VmHWM:")
    }

    /// Resident set now, in bytes.
    pub fn memory_bytes(&self) -> io::Result<u64> {
        self.status_bytes("VmRSS:")
    }

    fn status_bytes(&self, name: &str) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.map(|kib| kib << 10).ok_or_else(|| failed(format!("no {name} of the process")))
    }
}

fn spawn(command: &mut Command) -> io::Result<Child> {
    command.spawn().map_err(|error| failed(format!("cannot start {command:?}: {error}")))
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing to do about an error: the run is over, and what is left behind is named by the folder.
        if let Some((_, child)) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(script) = &self.kafka_script {
            let _ = Command::new(script).arg("stop").arg(&self.folder).status();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// CPU time of this process, the client, in seconds.
pub fn own_cpu_s() -> io::Result<f64> {
    cpu_s("/proc/self/stat")
}

/// User and system time, fields 14 and 15; the name before them may contain spaces.
fn cpu_s(stat: &str) -> io::Result<f64> {
    let stat = fs::read_to_string(stat)?;
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace()).ok_or_else(|| failed("bad stat"))?;
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}
