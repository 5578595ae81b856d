//! Where connections come from, and the loop that accepts and serves them.
//!
//! The listener is a seam: a simulation brings its own network. Invariants: a connection is accepted only when there is
//! room for it (the rest waits in the backlog); every connection's task belongs to the server, which ends with the last
//! of them; a failing accept (too many open files) is tried again, ever more slowly.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use storage::budget::Budget;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinHandle, JoinSet};

use crate::config::BrokerConfig;
use crate::connection::{self, Closed, ConnectionOptions, Service, Shared};
use crate::metrics::{Metrics, Sample, SampleKind};
use crate::stop::{self, Stop, Switch};
use crate::wire::memory::ReceiveMemory;

const ACCEPT_RETRY_MIN: Duration = Duration::from_millis(5);
const ACCEPT_RETRY_MAX: Duration = Duration::from_secs(1);

/// A connection's byte stream, whatever network it belongs to.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

pub type Stream = Box<dyn Socket>;

/// Where connections come from. `accept` may be dropped while it waits, without losing a connection.
#[async_trait]
pub trait Listener: Send + Sync + 'static {
    async fn accept(&self) -> io::Result<(Stream, SocketAddr)>;

    fn local_address(&self) -> io::Result<SocketAddr>;
}

/// The network of the machine.
#[derive(Debug)]
pub struct TcpSockets(TcpListener);

impl TcpSockets {
    /// Binds `host:port`; port 0 lets the system choose.
    pub async fn bind(address: &str) -> io::Result<Self> {
        TcpListener::bind(address).await.map(Self)
    }
}

#[async_trait]
impl Listener for TcpSockets {
    async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        // Answers are written whole: there is nothing that waiting for more could merge.
        stream.set_nodelay(true)?;
        Ok((Box::new(stream), peer))
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

#[derive(Debug, Clone)]
pub struct ServerOptions {
    pub max_connections: usize,
    pub connection: ConnectionOptions,
}

impl From<&BrokerConfig> for ServerOptions {
    fn from(config: &BrokerConfig) -> Self {
        Self {
            max_connections: config.max_connections,
            connection: ConnectionOptions {
                request_max_bytes: config.request_max_bytes,
                max_idle: config.connections_max_idle,
            },
        }
    }
}

/// The accept loop and all connections. Dropping it without `drain` ends them at some later time.
pub struct Server {
    shutdown: Switch,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Begins to accept. `budget` pays for record data, in receive buffers too; see `wire::memory` for its size.
    pub fn start<S: Service>(
        listener: Box<dyn Listener>,
        service: Arc<S>,
        budget: Budget,
        metrics: Arc<Metrics>,
        options: ServerOptions,
    ) -> Self {
        let reserve = Budget::new(ReceiveMemory::reserve_bytes(options.max_connections));
        show_memory(&metrics, [("main", budget.clone()), ("reserve", reserve.clone())]);
        let memory = ReceiveMemory::new(budget, reserve);
        let shared = Shared { service, memory, options: options.connection, metrics };
        let (shutdown, stop) = stop::switch();
        let acceptor = Acceptor {
            listener,
            shared: Arc::new(shared),
            room: Arc::new(Semaphore::new(options.max_connections.min(Semaphore::MAX_PERMITS))),
            connections: JoinSet::new(),
            stop,
        };
        Self { shutdown, accepting: tokio::spawn(acceptor.run()) }
    }

    /// Stops accepting and reading, waits until every connection has answered what it owes, and closes them.
    pub async fn drain(self) {
        self.shutdown.throw();
        if let Err(error) = self.accepting.await {
            tracing::error!(%error, "the accept loop failed");
        }
    }

    /// Drops all connections as they are.
    pub async fn abort(self) {
        self.accepting.abort();
        // The only error there can be is the one just asked for.
        let _cancelled = self.accepting.await;
    }
}

/// Shows how much of each budget there is, and how much is used.
fn show_memory(metrics: &Metrics, budgets: [(&'static str, Budget); 2]) {
    let show = |name, help, bytes: fn(&Budget) -> usize| {
        let budgets = budgets.clone();
        metrics.sampled(name, help, SampleKind::Gauge, move || {
            let sample = |(name, budget): &(&str, Budget)| Sample {
                labels: vec![("budget", (*name).to_owned())],
                value: bytes(budget) as u64,
            };
            budgets.iter().map(sample).collect()
        });
    };
    show("memory_used_bytes", "Memory in use for record data and requests", Budget::used_bytes);
    show("memory_limit_bytes", "Memory that record data and requests may use", Budget::total_bytes);
}

struct Acceptor<S> {
    listener: Box<dyn Listener>,
    shared: Arc<Shared<S>>,
    room: Arc<Semaphore>,
    connections: JoinSet<(SocketAddr, Closed)>,
    stop: Stop,
}

impl<S: Service> Acceptor<S> {
    async fn run(mut self) {
        let mut retry = ACCEPT_RETRY_MIN;
        let stop = self.stop.clone();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.stopped() => break,
                Some(ended) = self.connections.join_next() => {
                    log_end(&self.shared.metrics, ended);
                    continue;
                }
                accepted = accept(self.listener.as_ref(), &self.room) => accepted,
            };
            match accepted {
                Ok((room, stream, peer)) => {
                    retry = ACCEPT_RETRY_MIN;
                    self.serve(room, stream, peer);
                }
                Err(error) => {
                    tracing::warn!(%error, retry_ms = retry.as_millis() as u64, "could not accept a connection");
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(ACCEPT_RETRY_MAX);
                }
            }
        }
        drop(self.listener);
        while let Some(ended) = self.connections.join_next().await {
            log_end(&self.shared.metrics, ended);
        }
    }

    fn serve(&mut self, room: OwnedSemaphorePermit, stream: Stream, peer: SocketAddr) {
        tracing::debug!(%peer, "connection accepted");
        let (shared, stop) = (Arc::clone(&self.shared), self.stop.clone());
        shared.metrics.connections_accepted.inc();
        self.connections.spawn(async move {
            let _room = room;
            let open = OpenConnection::count(&shared.metrics);
            let closed = connection::serve(tokio::io::split(stream), peer, shared, stop).await;
            drop(open);
            (peer, closed)
        });
    }
}

/// Counts a connection for as long as it lives, however it ends.
struct OpenConnection(Arc<Metrics>);

impl OpenConnection {
    fn count(metrics: &Arc<Metrics>) -> Self {
        metrics.connections.inc();
        Self(Arc::clone(metrics))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

/// Waits for room first: a connection that cannot be served stays in the backlog.
async fn accept(
    listener: &dyn Listener,
    room: &Arc<Semaphore>,
) -> io::Result<(OwnedSemaphorePermit, Stream, SocketAddr)> {
    let room = Arc::clone(room).acquire_owned().await;
    let room = room.expect("the semaphore is never closed: nothing calls close()");
    let (stream, peer) = listener.accept().await?;
    Ok((room, stream, peer))
}

fn log_end(metrics: &Metrics, ended: Result<(SocketAddr, Closed), JoinError>) {
    match ended {
        Ok((peer, closed)) => {
            metrics.closed(closed.reason());
            match closed {
                Closed::ByPeer | Closed::ShutDown | Closed::Io(_) | Closed::Idle(_) => {
                    tracing::debug!(%peer, why = %closed, "connection ended");
                }
                Closed::SlowPeer(_) | Closed::Frame(_) | Closed::Request(_) => {
                    tracing::warn!(%peer, why = %closed, "connection closed");
                }
            }
        }
        Err(error) => {
            metrics.closed("panic");
            tracing::error!(%error, "a connection's task failed");
        }
    }
}

#[cfg(test)]
mod tests;
