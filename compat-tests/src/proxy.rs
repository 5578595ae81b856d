//! A proxy before an S3 server that makes it slow, narrow or unreachable, and counts what passes.
//!
//! It takes one request per connection, whole, before it does anything, so that a fault is about a request and never
//! about half of one. The bytes of requests stay as signed.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

use crate::http::Message;

/// What the proxy does to requests, changed at any time, and what it saw.
#[derive(Debug, Default)]
pub struct Faults {
    /// Every PUT takes this much longer, side by side with others.
    pub put_delay_ms: AtomicU64,
    /// All PUTs together pass at this rate, one after the other; 0 for no limit.
    pub put_bytes_per_second: AtomicU64,
    /// Connections are closed without an answer before the request reaches the server.
    pub cut: AtomicBool,
    /// The answer to a PUT never reaches the client, although the server did its work.
    pub swallow_put_answers: AtomicBool,
    pub puts: AtomicU64,
    pub put_bytes: AtomicU64,
    pub other_requests: AtomicU64,
    /// Uploads in parts that the server was asked to begin, to complete, and to give up.
    pub uploads_begun: AtomicU64,
    pub uploads_completed: AtomicU64,
    pub uploads_given_up: AtomicU64,
    pub puts_in_flight: AtomicU64,
    pub most_puts_in_flight: AtomicU64,
    narrow: Mutex<()>,
}

impl Faults {
    fn count_upload(&self, request: &Message) {
        let query = request.target().split_once('?').map_or("", |(_, query)| query);
        let counter = match (request.method(), query) {
            ("POST", query) if query.starts_with("uploads") => &self.uploads_begun,
            ("POST", query) if query.contains("uploadId=") => &self.uploads_completed,
            ("DELETE", query) if query.contains("uploadId=") => &self.uploads_given_up,
            _ => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A listening proxy. It serves until the runtime ends.
#[derive(Debug)]
pub struct Proxy {
    pub address: String,
    pub faults: Arc<Faults>,
}

impl Proxy {
    /// Listens before this server.
    pub async fn before(upstream: &str) -> io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], crate::process::free_port()))).await?;
        let address = listener.local_addr()?.to_string();
        let faults = Arc::new(Faults::default());
        let (shared, upstream) = (Arc::clone(&faults), upstream.to_owned());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (faults, upstream) = (Arc::clone(&shared), upstream.clone());
                tokio::spawn(async move {
                    // A broken connection is what both sides must live with: nobody to tell.
                    let _ = exchange(stream, &upstream, &faults).await;
                });
            }
        });
        Ok(Self { address, faults })
    }
}

async fn exchange(mut client: TcpStream, upstream: &str, faults: &Faults) -> io::Result<()> {
    let Some(request) = Message::read(&mut client).await? else { return Ok(()) };
    if request.method() != "PUT" {
        faults.other_requests.fetch_add(1, Ordering::Relaxed);
        faults.count_upload(&request);
        return forward(client, upstream, &request, faults, false).await;
    }
    let now = faults.puts_in_flight.fetch_add(1, Ordering::Relaxed) + 1;
    faults.most_puts_in_flight.fetch_max(now, Ordering::Relaxed);
    faults.puts.fetch_add(1, Ordering::Relaxed);
    faults.put_bytes.fetch_add(request.body.len() as u64, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(faults.put_delay_ms.load(Ordering::Relaxed))).await;
    // A rate of 0 is no limit.
    let rate = faults.put_bytes_per_second.load(Ordering::Relaxed);
    if let Some(micros) = (request.body.len() as u64 * 1_000_000).checked_div(rate) {
        let _one_at_a_time = faults.narrow.lock().await;
        tokio::time::sleep(Duration::from_micros(micros)).await;
    }
    let done = forward(client, upstream, &request, faults, true).await;
    faults.puts_in_flight.fetch_sub(1, Ordering::Relaxed);
    done
}

async fn forward(
    mut client: TcpStream,
    upstream: &str,
    request: &Message,
    faults: &Faults,
    put: bool,
) -> io::Result<()> {
    if faults.cut.load(Ordering::Relaxed) {
        return Ok(());
    }
    let mut server = TcpStream::connect(upstream).await?;
    server.write_all(&request.encode()).await?;
    if put && faults.swallow_put_answers.load(Ordering::Relaxed) {
        tokio::io::copy(&mut server, &mut tokio::io::sink()).await?;
        return Ok(());
    }
    tokio::io::copy(&mut server, &mut client).await?;
    client.shutdown().await
}
