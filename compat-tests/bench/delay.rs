//! A proxy before an S3 server that makes every PUT take longer, side by side with others, and counts them; GETs too, if
//! asked to, and with what all of them bring at a limited rate, as a network does.
//!
//! It takes one request per connection, whole, and passes on the bytes as they were signed. That costs a connection
//! for each request, which is little beside the delay; without a delay nothing is measured through it.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    clock::{now, pause},
    wire::failed,
};

/// No head of a request that an S3 client sends is longer.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// Passed on at a time.
const COPY_BYTES: usize = 64 << 10;

/// What is slow about a store.
#[derive(Debug, Clone, Copy, Default)]
pub struct Slowness {
    pub put_delay: Duration,
    pub get_delay: Duration,
    /// Of all answers to GETs together; 0 for no limit. What goes the other way does not wait for it.
    pub bytes_per_s: u64,
}

/// A listening proxy, which serves until the process ends.
#[derive(Debug)]
pub struct SlowPuts {
    pub address: SocketAddr,
    puts: Arc<AtomicU64>,
}

impl SlowPuts {
    pub fn before(upstream: SocketAddr, delay: Duration) -> io::Result<Self> {
        Self::slow(upstream, Slowness { put_delay: delay, ..Slowness::default() })
    }

    pub fn slow(upstream: SocketAddr, slowness: Slowness) -> io::Result<Self> {
        let line = Arc::new(Line { bytes_per_s: slowness.bytes_per_s, free_at: Mutex::new(now()) });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (address, puts) = (listener.local_addr()?, Arc::new(AtomicU64::new(0)));
        let counter = Arc::clone(&puts);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (counter, line) = (Arc::clone(&counter), Arc::clone(&line));
                // A client that goes away ends its thread with an error that nobody needs.
                thread::spawn(move || exchange(client, upstream, slowness, &line, &counter));
            }
        });
        Ok(Self { address, puts })
    }

    /// PUTs that have arrived so far, of whatever purpose.
    pub fn puts(&self) -> u64 {
        self.puts.load(Ordering::Relaxed)
    }
}

/// What all answers to GETs share: one byte after the other.
struct Line {
    bytes_per_s: u64,
    free_at: Mutex<Instant>,
}

impl Line {
    /// Waits for the time that so many bytes take.
    fn pass(&self, bytes: usize) {
        let Some(nanos) = (bytes as u64 * 1_000_000_000).checked_div(self.bytes_per_s) else { return };
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        *free_at = now().max(*free_at) + Duration::from_nanos(nanos);
        let until = *free_at;
        drop(free_at);
        pause(until.saturating_duration_since(now()));
    }
}

fn exchange(
    mut client: TcpStream,
    upstream: SocketAddr,
    slowness: Slowness,
    line: &Line,
    puts: &AtomicU64,
) -> io::Result<()> {
    let mut request = Vec::with_capacity(16 << 10);
    let Some(head_bytes) = read_head(&mut client, &mut request)? else { return Ok(()) };
    let (head, body_bytes) = closing_head(&request[..head_bytes])?;
    let have = request.len() - head_bytes;
    request.resize(head_bytes + body_bytes, 0);
    client.read_exact(&mut request[head_bytes + have..])?;
    let is_get = head.starts_with(b"GET ");
    if head.starts_with(b"PUT ") {
        puts.fetch_add(1, Ordering::Relaxed);
        pause(slowness.put_delay);
    } else if is_get {
        pause(slowness.get_delay);
    }
    let mut server = TcpStream::connect(upstream)?;
    server.set_nodelay(true)?;
    client.set_nodelay(true)?;
    server.write_all(&head)?;
    server.write_all(&request[head_bytes..])?;
    let mut chunk = vec![0; COPY_BYTES];
    loop {
        match server.read(&mut chunk)? {
            0 => return Ok(()),
            count => {
                if is_get {
                    line.pass(count);
                }
                client.write_all(&chunk[..count])?;
            }
        }
    }
}

/// Reads until the head is there as a whole; its length. None if the client closed before it began.
fn read_head(client: &mut TcpStream, request: &mut Vec<u8>) -> io::Result<Option<usize>> {
    let mut chunk = [0; 16 << 10];
    loop {
        if let Some(at) = request.windows(4).position(|four| four == b"\r\n\r\n") {
            return Ok(Some(at + 4));
        }
        match client.read(&mut chunk)? {
            0 if request.is_empty() => return Ok(None),
            0 => return Err(failed("a request ends too early")),
            count => request.extend_from_slice(&chunk[..count]),
        }
        if request.len() > MAX_HEAD_BYTES + chunk.len() {
            return Err(failed("a request without an end of its head"));
        }
    }
}

/// The same head, asking for the connection to be closed after the answer, and how long the body is.
fn closing_head(head: &[u8]) -> io::Result<(Vec<u8>, usize)> {
    let text = str::from_utf8(head).map_err(|_| failed("a head that is no text"))?;
    let named = |line: &str, name: &str| {
        line.split_once(':')
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
    };
    let length = text.lines().find_map(|line| named(line, "content-length"));
    let length = length.map_or(Ok(0), |length| length.parse()).map_err(|_| failed("a body of no length"))?;
    let kept = text.lines().filter(|line| !line.is_empty() && named(line, "connection").is_none());
    let lines: Vec<&str> = kept.chain(["Connection: close", "", ""]).collect();
    Ok((lines.join("\r\n").into_bytes(), length))
}

#[cfg(test)]
mod tests;
