//! Tests of the listener: accepting, limits, closing.

use std::collections::VecDeque;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Notify;

use super::*;
use crate::request::{CloseConnection, Reply, RequestBody, RequestContext};

struct Silent;

impl Service for Silent {
    fn call(&self, _context: RequestContext, _body: RequestBody) -> Result<Reply, CloseConnection> {
        Ok(Reply::Now(BytesMut::new().into()))
    }
}

/// Hands out what a test has put in.
#[derive(Clone, Default)]
struct Backlog(Arc<(Mutex<VecDeque<io::Result<Stream>>>, Notify)>);

impl Backlog {
    fn push(&self, accepted: io::Result<Stream>) {
        self.0.0.lock().push_back(accepted);
        self.0.1.notify_one();
    }

    fn connect(&self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(1024);
        self.push(Ok(Box::new(theirs)));
        ours
    }

    fn waiting(&self) -> usize {
        self.0.0.lock().len()
    }
}

#[async_trait]
impl Listener for Backlog {
    async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        loop {
            let next = self.0.0.lock().pop_front();
            match next {
                Some(accepted) => return accepted.map(|stream| (stream, SocketAddr::from(([10, 0, 0, 1], 1)))),
                None => self.0.1.notified().await,
            }
        }
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([10, 0, 0, 1], 9092)))
    }
}

fn start(max_connections: usize) -> (Backlog, Server, Arc<Metrics>) {
    let (backlog, metrics) = (Backlog::default(), Arc::new(Metrics::new()));
    let connection = ConnectionOptions { request_max_bytes: 1 << 20, max_idle: Duration::from_secs(600) };
    let options = ServerOptions { max_connections, connection };
    let budget = Budget::new(16 << 20);
    let server = Server::start(Box::new(backlog.clone()), Arc::new(Silent), budget, metrics.clone(), options);
    (backlog, server, metrics)
}

async fn settle() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

/// ApiVersions v0, answered with nothing but a header.
async fn is_served(connection: &mut DuplexStream) -> bool {
    connection.write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff]).await.unwrap();
    let mut answer = [0; 8];
    let read = tokio::time::timeout(Duration::from_secs(1), connection.read_exact(&mut answer)).await;
    read.is_ok_and(|read| read.is_ok()) && answer == [0, 0, 0, 4, 0, 0, 0, 7]
}

#[tokio::test(start_paused = true)]
async fn connections_beyond_the_limit_wait_in_the_backlog() {
    let (backlog, server, metrics) = start(2);
    let (mut one, mut two) = (backlog.connect(), backlog.connect());
    assert!(is_served(&mut one).await && is_served(&mut two).await);
    let mut three = backlog.connect();
    settle().await;
    assert_eq!((backlog.waiting(), metrics.connections.get()), (1, 2));
    drop(one);
    assert!(is_served(&mut three).await);
    assert_eq!(metrics.connections.get(), 2);
    server.drain().await;
    assert_eq!(metrics.connections.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn failing_accepts_are_tried_again() {
    let (backlog, server, _metrics) = start(2);
    for _ in 0..10 {
        backlog.push(Err(io::Error::other("too many open files")));
    }
    let mut one = backlog.connect();
    tokio::time::sleep(ACCEPT_RETRY_MAX * 10).await;
    assert!(is_served(&mut one).await);
    server.drain().await;
}

#[tokio::test(start_paused = true)]
async fn draining_closes_connections_and_stops_accepting() {
    let (backlog, server, _metrics) = start(10);
    let mut one = backlog.connect();
    assert!(is_served(&mut one).await);
    server.drain().await;
    assert_eq!(one.read(&mut [0]).await.unwrap(), 0);
    backlog.connect();
    settle().await;
    assert_eq!(backlog.waiting(), 1);
}

#[tokio::test(start_paused = true)]
async fn aborting_drops_connections_at_once() {
    let (backlog, server, metrics) = start(10);
    let mut one = backlog.connect();
    assert!(is_served(&mut one).await);
    server.abort().await;
    settle().await;
    assert_eq!(one.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(metrics.connections.get(), 0);
}

#[tokio::test]
async fn real_sockets_are_served() {
    let sockets = TcpSockets::bind("127.0.0.1:0").await.unwrap();
    let address = sockets.local_address().unwrap();
    let connection = ConnectionOptions { request_max_bytes: 1 << 20, max_idle: Duration::from_secs(600) };
    let options = ServerOptions { max_connections: 10, connection };
    let server =
        Server::start(Box::new(sockets), Arc::new(Silent), Budget::new(16 << 20), Arc::new(Metrics::new()), options);
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    client.write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff]).await.unwrap();
    let mut answer = [0; 8];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [0, 0, 0, 4, 0, 0, 0, 7]);
    server.drain().await;
}
