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
}

impl Who {
    pub fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Woodpecker => "woodpecker",
            Self::Sink => "sink",
        }
    }

    /// In tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Kafka => "Kafka",
            Self::Woodpecker => "Woodpecker",
            Self::Sink => "null sink",
        }
    }
}

#[derive(Debug)]
pub struct Server {
    pub who: Who,
    pub address: SocketAddr,
    pid: u32,
    /// Ours to kill; Kafka's script keeps its own.
    child: Option<Child>,
    kafka_script: Option<PathBuf>,
    folder: PathBuf,
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
        fs::create_dir_all(&folder)?;
        let log = fs::File::create(folder.join("log"))?;
        let mut command = Command::new(binary);
        command.arg("--listen").arg(local(port).to_string()).arg("--http").arg(local(port + 1).to_string());
        // As Kafka is started here: a group that somebody joins is not kept waiting for others.
        command.env("WOODPECKER_GROUP_INITIAL_REBALANCE_DELAY_MS", "0");
        command.arg("--storage").arg(folder.join("data")).stdout(log.try_clone()?).stderr(log);
        Self::of_child(Who::Woodpecker, command, folder, port)
    }

    pub fn sink(folder: PathBuf, port: u16, partitions: usize) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("sink").arg(port.to_string()).arg(partitions.to_string());
        Self::of_child(Who::Sink, command, folder, port)
    }

    fn of_child(who: Who, mut command: Command, folder: PathBuf, port: u16) -> io::Result<Self> {
        let child =
            command.stdin(Stdio::null()).spawn().map_err(|e| failed(format!("cannot start {command:?}: {e}")))?;
        let (pid, address) = (child.id(), local(port));
        let mut server = Self { who, address, pid, child: Some(child), kafka_script: None, folder };
        let deadline = now() + START_LIMIT;
        loop {
            let served = wait_until_served(address, START_POLL);
            // Somebody else's server on the same port would answer just as well.
            if let Some(status) = server.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                let log = fs::read_to_string(server.folder.join("log")).unwrap_or_default();
                return Err(failed(format!("{command:?} ended: {status}\n{log}")));
            }
            match served {
                Ok(()) => return Ok(server),
                Err(error) if now() > deadline => return Err(error),
                Err(_) => {}
            }
        }
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

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing to do about an error: the run is over, and what is left behind is named by the folder.
        if let Some(child) = &mut self.child {
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
