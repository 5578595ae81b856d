//! A real etcd, one node or several, that tests start, pause, kill and look into.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use meta::etcd::{EtcdConfig, EtcdStore, EtcdTarget, EtcdTiming, EtcdTls};
use meta::seams::Random;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::OnceCell;

use crate::http;
use crate::process::{free_port, mortal, server_folder, spawn};
use crate::wait::until;

const START_LIMIT: Duration = Duration::from_secs(60);

/// One member of a cluster.
#[derive(Debug)]
pub struct Node {
    /// HOST:PORT for clients.
    pub address: String,
    peer: String,
    /// Where /health and /metrics are, without TLS.
    status: String,
    folder: PathBuf,
    arguments: Vec<String>,
    child: Option<Child>,
}

/// A running cluster. Dropping it kills it.
#[derive(Debug)]
pub struct Etcd {
    pub nodes: Vec<Node>,
    tls: Option<PathBuf>,
}

/// The etcd of this test process, at a prefix that no other test uses.
pub async fn url() -> String {
    static SERVER: OnceCell<Etcd> = OnceCell::const_new();
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let server = SERVER.get_or_init(async || Etcd::start(&server_folder("etcd")).await).await;
    server.url(&format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed)))
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/etcd")
}

/// The command itself, so that signals meet it and not a shell.
fn binary() -> PathBuf {
    let installed = Command::new(script()).arg("install").output().expect("servers/etcd runs");
    assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
    PathBuf::from(String::from_utf8_lossy(&installed.stdout).trim())
}

impl Etcd {
    /// One node that keeps its data in `folder`.
    pub async fn start(folder: &Path) -> Self {
        Self::cluster(folder, 1).await
    }

    pub async fn cluster(folder: &Path, count: usize) -> Self {
        Self::launch(folder, count, None, &[]).await
    }

    /// One node that speaks TLS only, and only with clients whose certificate its authority has signed.
    pub async fn with_tls(folder: &Path, arguments: &[&str]) -> Self {
        let certificates = folder.join("certificates");
        let made = Command::new(script()).arg("certificates").arg(&certificates).status().expect("servers/etcd runs");
        assert!(made.success(), "servers/etcd makes certificates");
        Self::launch(folder, 1, Some(certificates), arguments).await
    }

    async fn launch(folder: &Path, count: usize, tls: Option<PathBuf>, more: &[&str]) -> Self {
        let local = || format!("127.0.0.1:{}", free_port());
        let mut nodes: Vec<Node> = (0..count)
            .map(|number| Node {
                address: local(),
                peer: local(),
                status: local(),
                folder: folder.join(format!("etcd-{number}")),
                arguments: Vec::new(),
                child: None,
            })
            .collect();
        let member = |(number, node): (usize, &Node)| format!("n{number}=http://{}", node.peer);
        let members = nodes.iter().enumerate().map(member).collect::<Vec<_>>().join(",");
        for (number, node) in nodes.iter_mut().enumerate() {
            node.arguments = node.command_line(number, &members, tls.as_deref());
            node.arguments.extend(more.iter().map(|&argument| argument.to_owned()));
            node.spawn();
        }
        let etcd = Self { nodes, tls };
        for number in 0..count {
            etcd.healthy(number).await;
        }
        etcd
    }

    pub async fn healthy(&self, number: usize) {
        let node = &self.nodes[number];
        until(&format!("etcd answers at {}", node.address), START_LIMIT, async || {
            matches!(http::get(&node.status, "/health").await, Ok((200, _)))
        })
        .await;
    }

    /// The node that leads now.
    pub async fn leader(&self) -> usize {
        let mut leader = None;
        until("etcd has a leader", START_LIMIT, async || {
            for (number, node) in self.nodes.iter().enumerate() {
                if let Ok((200, metrics)) = http::get(&node.status, "/metrics").await
                    && metrics.lines().any(|line| line == "etcd_server_is_leader 1")
                {
                    leader = Some(number);
                }
            }
            leader.is_some()
        })
        .await;
        leader.expect("it was just found")
    }

    /// What a store of this cluster is opened with. Keys of different prefixes never meet.
    pub fn config(&self, prefix: &str) -> EtcdConfig {
        let target = EtcdTarget::parse(&self.url(prefix)).expect("a URL");
        EtcdConfig { target, tls: self.tls.as_deref().map(certificates), timing: EtcdTiming::default() }
    }

    pub fn url(&self, prefix: &str) -> String {
        let addresses: Vec<&str> = self.nodes.iter().map(|node| node.address.as_str()).collect();
        format!("etcd://{}/{prefix}", addresses.join(","))
    }

    /// Where the certificates are, if it speaks TLS.
    pub fn certificates(&self) -> Option<&Path> {
        self.tls.as_deref()
    }

    pub async fn store(&self, prefix: &str) -> EtcdStore {
        open(self.config(prefix)).await
    }
}

pub async fn open(config: EtcdConfig) -> EtcdStore {
    EtcdStore::open(config, &Random::from_os()).await.expect("etcd is there")
}

fn certificates(folder: &Path) -> EtcdTls {
    let read = |name: &str| std::fs::read(folder.join(name)).expect("a file of the authority");
    EtcdTls { ca: read("ca.pem"), identity: Some((read("client.pem"), read("client.key"))) }
}

impl Node {
    fn command_line(&self, number: usize, members: &str, tls: Option<&Path>) -> Vec<String> {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (client, peer) = (format!("{scheme}://{}", self.address), format!("http://{}", self.peer));
        let mut arguments = vec![
            format!("--name=n{number}"),
            format!("--data-dir={}", self.folder.join("data").display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster={members}"),
            format!("--listen-metrics-urls=http://{}", self.status),
            "--log-level=warn".to_owned(),
            // What is killed here is the process, never its machine.
            "--unsafe-no-fsync".to_owned(),
        ];
        if let Some(folder) = tls {
            arguments.push("--client-cert-auth".to_owned());
            for (flag, name) in [("trusted-ca", "ca.pem"), ("cert", "server.pem"), ("key", "server.key")] {
                arguments.push(format!("--{flag}-file={}", folder.join(name).display()));
            }
        }
        arguments
    }

    fn spawn(&mut self) {
        std::fs::create_dir_all(&self.folder).expect("a folder for etcd");
        let log = self.folder.join("log");
        let output = OpenOptions::new().create(true).append(true).open(log).expect("etcd's log");
        let mut command = mortal(&binary());
        command.args(&self.arguments).stdin(Stdio::null());
        command.stdout(output.try_clone().expect("a file handle")).stderr(output);
        self.child = Some(spawn(command));
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("the node runs");
        kill_process(Pid::from_child(child), signal).expect("a child can be signalled");
    }

    /// kill -9, and gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a child can be killed");
            child.wait().expect("a child can be waited for");
        }
    }

    /// Starts it again, with its data. `Etcd::healthy` waits for it.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "the node runs");
        self.spawn();
    }

    /// SIGSTOP.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            let from = log.char_indices().rev().nth(3_000).map_or(0, |(at, _)| at);
            eprintln!("--- the end of the log of etcd at {} ---\n{}", self.address, &log[from..]);
        }
    }
}
