//! Many connections on one thread: each asks one thing at a time, and epoll tells whose answer is there.
//!
//! A thread per connection would cost more than what is measured. Invariants: a connection has at most one request in
//! flight; its answer stays readable until it asks again; a connection that the broker closes fails the run.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use crate::{
    clock::{now, pause},
    wire::{API_VERSIONS, Connection, Decoder, Encoder, METADATA, METADATA_VERSION, failed},
};

/// Connections on their way at a time: fewer than Kafka's backlog of 50, beyond which the kernel makes clients wait
/// for a second.
const OPENING: usize = 32;
const OPEN_LIMIT: Duration = Duration::from_secs(120);
/// Grows when an answer is longer.
const INBOX_BYTES: usize = 512;
const EVENTS: usize = 512;
/// Files that a process has open beside its connections.
const OTHER_FILES: u64 = 200;

#[derive(Debug)]
struct Peer {
    stream: TcpStream,
    /// The frame with its length, as far as it has arrived.
    inbox: Vec<u8>,
    filled: usize,
    /// Of the last request; how many there were.
    correlation: i32,
    asking: bool,
}

impl Peer {
    /// Takes what has arrived; whether the answer is whole.
    fn fill(&mut self) -> io::Result<bool> {
        match self.stream.read(&mut self.inbox[self.filled..]) {
            Ok(0) => return Err(failed("the broker closed a connection")),
            Ok(count) => self.filled += count,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return Ok(false),
            Err(e) => return Err(e),
        }
        let length = self.inbox[..self.filled].first_chunk().map(|length| i32::from_be_bytes(*length));
        let Some(length) = length else { return Ok(false) };
        let due = length.max(0) as usize + 4;
        if !self.asking || self.filled > due {
            return Err(failed("an answer to no request"));
        }
        if self.inbox.len() < due {
            self.inbox.resize(due, 0);
        }
        self.asking = self.filled < due;
        Ok(!self.asking)
    }
}

/// Connections are known by the order in which they were opened, from 0 on. Dropping a crowd closes them all.
pub struct Crowd {
    epoll: OwnedFd,
    peers: Vec<Peer>,
    events: Vec<epoll::Event>,
}

impl std::fmt::Debug for Crowd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crowd").field("connections", &self.peers.len()).finish_non_exhaustive()
    }
}

impl Crowd {
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, peers: Vec::new(), events: Vec::with_capacity(EVENTS) })
    }

    fn connect(&mut self, address: SocketAddr) -> io::Result<usize> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let who = self.peers.len();
        epoll::add(&self.epoll, &stream, epoll::EventData::new_u64(who as u64), epoll::EventFlags::IN)?;
        self.peers.push(Peer { stream, inbox: vec![0; INBOX_BYTES], filled: 0, correlation: 0, asking: false });
        Ok(who)
    }

    /// Opens `count` more connections. When this returns, each has been told what the broker speaks (ApiVersions) and
    /// where `topic` is (Metadata), as a client asks before it does anything else.
    pub fn open(&mut self, address: SocketAddr, count: usize, topic: &str) -> io::Result<()> {
        let limit = now() + OPEN_LIMIT;
        let (mut unopened, mut opening) = (count, 0);
        while unopened + opening > 0 {
            while unopened > 0 && opening < OPENING {
                let who = self.connect(address)?;
                self.ask(who, Encoder::request(API_VERSIONS, 0))?;
                (unopened, opening) = (unopened - 1, opening + 1);
            }
            for who in self.answered(limit)? {
                if self.peers[who].correlation == 1 {
                    check_versions(self.answer(who)?)?;
                    let mut request = Encoder::request(METADATA, METADATA_VERSION);
                    request.count(1).string(topic).i8(0);
                    self.ask(who, request)?;
                } else {
                    check_metadata(self.answer(who)?)?;
                    opening -= 1;
                }
            }
            if now() > limit {
                return Err(failed(format!(
                    "{} of {count} connections are open after {OPEN_LIMIT:?}",
                    count - unopened
                )));
            }
        }
        Ok(())
    }

    pub fn ask(&mut self, who: usize, request: Encoder) -> io::Result<()> {
        self.ask_frame(who, &mut request.frame())
    }

    /// Sends a frame whose correlation id is filled in here.
    pub fn ask_frame(&mut self, who: usize, frame: &mut [u8]) -> io::Result<()> {
        let peer = &mut self.peers[who];
        if peer.asking {
            return Err(failed("a second request before the answer to the first"));
        }
        (peer.correlation, peer.filled, peer.asking) = (peer.correlation + 1, 0, true);
        frame[8..12].copy_from_slice(&peer.correlation.to_be_bytes());
        // One small request at a time fits into the socket's buffer whatever the broker does.
        peer.stream.write_all(frame)
    }

    /// Whether an answer is outstanding.
    pub fn is_asking(&self, who: usize) -> bool {
        self.peers[who].asking
    }

    /// Who has been answered; nobody if nothing came in time.
    pub fn answered(&mut self, until: Instant) -> io::Result<Vec<usize>> {
        let left = Timespec::try_from(until.saturating_duration_since(now())).map_err(io::Error::other)?;
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut answered = Vec::new();
        for event in &self.events {
            let data = event.data;
            let who = data.u64() as usize;
            if self.peers[who].fill()? {
                answered.push(who);
            }
        }
        Ok(answered)
    }

    /// The answer to the last request of somebody who has been answered, without the header.
    pub fn answer(&self, who: usize) -> io::Result<Decoder<'_>> {
        let peer = &self.peers[who];
        let mut decoder = Decoder(peer.inbox.get(4..peer.filled).unwrap_or_default());
        let answered = decoder.i32()?;
        if peer.asking || answered != peer.correlation {
            return Err(failed(format!("answer to request {answered}, expected the one to {}", peer.correlation)));
        }
        Ok(decoder)
    }
}

fn check_versions(mut answer: Decoder<'_>) -> io::Result<()> {
    match answer.i16()? {
        0 => Ok(()),
        error => Err(failed(format!("ApiVersions: Kafka error {error}"))),
    }
}

fn check_metadata(mut answer: Decoder<'_>) -> io::Result<()> {
    answer.i32()?;
    match answer.i32()? {
        1.. => Ok(()),
        _ => Err(failed("Metadata lists no broker")),
    }
}

/// Waits until a broker coordinates `group`; the first time it creates the topic that groups are kept in.
pub fn find_coordinator(address: SocketAddr, group: &str) -> io::Result<()> {
    let limit = now() + OPEN_LIMIT;
    let mut connection = Connection::open(address)?;
    loop {
        match connection.find_coordinator(group)? {
            0 => return Ok(()),
            error if now() > limit => return Err(failed(format!("no coordinator of {group}: Kafka error {error}"))),
            _ => pause(Duration::from_millis(50)),
        }
    }
}

/// Lets this process, and the brokers that it starts, open as many files as the system allows; fails if `connections`
/// are too many even so.
pub fn raise_file_limit(connections: usize) -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    let needed = connections as u64 + OTHER_FILES;
    match maximum {
        Some(maximum) if maximum < needed => {
            Err(failed(format!("{connections} connections need {needed} open files, the hard limit is {maximum}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
