//! A simulated network between clients and brokers: byte streams with latency, resets, cut and frozen hosts.
//!
//! A host is one incarnation of a broker. Its death is a stop of everything it does to the outside: its tasks are never
//! answered again and nothing of what they send arrives, which is all that anybody else can know of a killed process.
//! (Dropping its tasks instead would run destructors that a killed process does not run.)
//!
//! Invariants: bytes of one direction arrive in order and at most once; nothing arrives while its direction is cut, and
//! all of it arrives after, unless the connection was reset; a dead host sends nothing.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::dice::Dice;

/// Bytes in flight in one direction of a connection, as in a socket's buffer.
const WINDOW_BYTES: usize = 64 * 1024;

/// One incarnation of a broker.
pub type HostId = u32;

#[derive(Clone)]
pub struct Net(Arc<Mutex<State>>);

struct State {
    dice: Dice,
    /// Milliseconds, one way.
    latency_ms: (u64, u64),
    hosts: BTreeMap<HostId, Host>,
    /// Who accepts connections at an address: the newest, and once it is gone those before it.
    listening: BTreeMap<String, Vec<HostId>>,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    /// Wait for a host or a link to come back.
    waiters: Vec<Waker>,
}

#[derive(Default)]
struct Host {
    dead: bool,
    frozen: bool,
    /// Nothing arrives from clients.
    cut_in: bool,
    /// Nothing arrives at clients.
    cut_out: bool,
    incoming: VecDeque<u64>,
    accepting: Option<Waker>,
}

struct Connection {
    host: HostId,
    /// To the broker, to the client.
    pipes: [Pipe; 2],
    open_ends: u8,
}

#[derive(Default)]
struct Pipe {
    queue: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    /// When the last byte sent so far arrives.
    last: Option<Instant>,
    /// When the end of the stream arrives.
    fin: Option<Instant>,
    reset: Option<Instant>,
    /// Its reader is gone.
    abandoned: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Broker,
}

impl Side {
    /// The pipe that this side reads.
    fn reads(self) -> usize {
        usize::from(self == Side::Client)
    }

    fn writes(self) -> usize {
        1 - self.reads()
    }
}

/// One end of a connection.
pub struct SimStream {
    net: Net,
    connection: u64,
    side: Side,
    arrival: Option<Pin<Box<Sleep>>>,
}

impl Net {
    pub fn new(dice: Dice) -> Self {
        Self(Arc::new(Mutex::new(State {
            dice,
            latency_ms: (1, 3),
            hosts: BTreeMap::new(),
            listening: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_connection: 0,
            waiters: Vec::new(),
        })))
    }

    pub fn set_latency_ms(&self, least: u64, most: u64) {
        self.0.lock().latency_ms = (least, most);
    }

    /// A broker begins to listen at this address, in place of whoever does.
    pub fn listen(&self, host: HostId, address: &str) -> SimListener {
        let mut state = self.0.lock();
        state.hosts.insert(host, Host::default());
        state.listening.entry(address.to_owned()).or_default().push(host);
        SimListener { net: self.clone(), host }
    }

    /// From now on nothing that the host does is seen by anybody. `reset`: its kernel closes its connections;
    /// otherwise the machine is gone and its peers hear nothing.
    pub fn kill(&self, host: HostId, reset: bool) {
        let mut state = self.0.lock();
        let latency = state.latency();
        let arrives = Instant::now() + latency;
        let State { hosts, listening, connections, .. } = &mut *state;
        listening.values_mut().for_each(|listen| listen.retain(|listens| *listens != host));
        if let Some(host) = hosts.get_mut(&host) {
            host.dead = true;
        }
        for connection in connections.values_mut().filter(|connection| connection.host == host && reset) {
            for pipe in &mut connection.pipes {
                pipe.reset = Some(arrives);
            }
        }
        state.wake_everybody();
    }

    /// It stops accepting connections, as when the process has ended by itself.
    pub fn close(&self, host: HostId) {
        self.kill(host, true);
    }

    pub fn set_frozen(&self, host: HostId, frozen: bool) {
        self.change(host, |host| host.frozen = frozen);
    }

    pub fn set_cut(&self, host: HostId, cut_in: bool, cut_out: bool) {
        self.change(host, |host| (host.cut_in, host.cut_out) = (cut_in, cut_out));
    }

    fn change(&self, host: HostId, change: impl FnOnce(&mut Host)) {
        let mut state = self.0.lock();
        if let Some(host) = state.hosts.get_mut(&host) {
            change(host);
        }
        state.wake_everybody();
    }

    /// Connects to whoever listens at the address. Waits for ever while the link is cut: callers limit their patience.
    pub async fn connect(&self, address: &str) -> io::Result<(SimStream, HostId)> {
        loop {
            let latency = self.0.lock().latency();
            sleep(latency).await;
            let found = self.try_connect(address)?;
            if let Some(found) = found {
                return Ok(found);
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    fn try_connect(&self, address: &str) -> io::Result<Option<(SimStream, HostId)>> {
        let mut state = self.0.lock();
        let Some(&id) = state.listening.get(address).and_then(|listen| listen.last()) else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let number = state.next_connection;
        let Some(host) = state.hosts.get_mut(&id) else { return Err(io::ErrorKind::ConnectionRefused.into()) };
        if host.cut_in || host.cut_out {
            return Ok(None);
        }
        host.incoming.push_back(number);
        if let Some(waker) = host.accepting.take() {
            waker.wake();
        }
        state.next_connection += 1;
        state.connections.insert(number, Connection { host: id, pipes: Default::default(), open_ends: 2 });
        drop(state);
        Ok(Some((self.end(number, Side::Client), id)))
    }

    fn end(&self, connection: u64, side: Side) -> SimStream {
        SimStream { net: self.clone(), connection, side, arrival: None }
    }
}

impl State {
    fn latency(&self) -> Duration {
        self.dice.ms(self.latency_ms.0..=self.latency_ms.1)
    }

    fn wake_everybody(&mut self) {
        for waker in self.waiters.drain(..) {
            waker.wake();
        }
        for connection in self.connections.values_mut() {
            for pipe in &mut connection.pipes {
                pipe.wake_both();
            }
        }
    }
}

impl Pipe {
    fn wake_both(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    /// When something that a reader must hear of arrives next.
    fn next_arrival(&self) -> Option<Instant> {
        let queued = self.queue.front().map(|(at, _)| *at).or(self.fin);
        match (queued, self.reset) {
            (Some(queued), Some(reset)) => Some(queued.min(reset)),
            (queued, reset) => queued.or(reset),
        }
    }
}

/// Where a broker accepts its clients.
pub struct SimListener {
    net: Net,
    host: HostId,
}

impl SimListener {
    pub async fn accept_stream(&self) -> SimStream {
        let number = std::future::poll_fn(|context| {
            let mut state = self.net.0.lock();
            let Some(host) = state.hosts.get_mut(&self.host) else { return Poll::Pending };
            if host.dead {
                return Poll::Pending;
            }
            if host.frozen {
                state.waiters.push(context.waker().clone());
                return Poll::Pending;
            }
            match host.incoming.pop_front() {
                Some(number) => Poll::Ready(number),
                None => {
                    host.accepting = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
        self.net.end(number, Side::Broker)
    }
}

impl SimStream {
    /// A dead host waits for ever; a frozen one, and a reader behind a cut link, until it comes back.
    fn held_back(&self, state: &mut State, reading: bool, context: &Context<'_>) -> bool {
        let Some(connection) = state.connections.get(&self.connection) else { return false };
        let Some(host) = state.hosts.get(&connection.host) else { return false };
        if self.side == Side::Broker && host.dead {
            return true;
        }
        let stopped = self.side == Side::Broker && host.frozen;
        let cut = reading && if self.side == Side::Broker { host.cut_in } else { host.cut_out };
        if stopped || cut {
            state.waiters.push(context.waker().clone());
        }
        stopped || cut
    }
}

impl AsyncRead for SimStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let arrival = {
                let mut state = this.net.0.lock();
                if this.held_back(&mut state, true, context) {
                    return Poll::Pending;
                }
                let Some(connection) = state.connections.get_mut(&this.connection) else { return Poll::Ready(Ok(())) };
                let pipe = &mut connection.pipes[this.side.reads()];
                let now = Instant::now();
                if pipe.reset.is_some_and(|at| at <= now) {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                if let Some((at, bytes)) = pipe.queue.front_mut()
                    && *at <= now
                {
                    let taken = bytes.len().min(buffer.remaining());
                    buffer.put_slice(&bytes[..taken]);
                    bytes.advance(taken);
                    if bytes.is_empty() {
                        pipe.queue.pop_front();
                    }
                    pipe.bytes -= taken;
                    if let Some(waker) = pipe.writer.take() {
                        waker.wake();
                    }
                    return Poll::Ready(Ok(()));
                }
                if pipe.queue.is_empty() && pipe.fin.is_some_and(|at| at <= now) {
                    return Poll::Ready(Ok(()));
                }
                pipe.reader = Some(context.waker().clone());
                pipe.next_arrival()
            };
            let Some(arrival) = arrival else { return Poll::Pending };
            let sleep = this.arrival.insert(Box::pin(sleep_until(arrival)));
            if sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut state = this.net.0.lock();
        if this.held_back(&mut state, false, context) {
            return Poll::Pending;
        }
        let latency = state.latency();
        let split = state.dice.chance(10);
        let Some(connection) = state.connections.get_mut(&this.connection) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let pipe = &mut connection.pipes[this.side.writes()];
        let now = Instant::now();
        if pipe.abandoned || pipe.reset.is_some_and(|at| at <= now) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = WINDOW_BYTES - pipe.bytes;
        if room == 0 && !data.is_empty() {
            pipe.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        // Now and then only a part arrives first.
        let taken = data.len().min(room);
        let taken = if split && taken > 1 { taken / 2 } else { taken };
        let arrives = pipe.last.map_or(now + latency, |last| last.max(now + latency));
        pipe.last = Some(arrives);
        pipe.bytes += taken;
        pipe.queue.push_back((arrives, Bytes::copy_from_slice(&data[..taken])));
        if let Some(waker) = pipe.reader.take() {
            waker.wake();
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut state = this.net.0.lock();
        if this.held_back(&mut state, false, context) {
            return Poll::Pending;
        }
        this.finish(&mut state);
        Poll::Ready(Ok(()))
    }
}

impl SimStream {
    fn finish(&self, state: &mut State) {
        let latency = state.latency();
        let Some(connection) = state.connections.get_mut(&self.connection) else { return };
        let pipe = &mut connection.pipes[self.side.writes()];
        let arrives = Instant::now() + latency;
        pipe.fin.get_or_insert(pipe.last.map_or(arrives, |last| last.max(arrives)));
        if let Some(waker) = pipe.reader.take() {
            waker.wake();
        }
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        let mut state = self.net.0.lock();
        self.finish(&mut state);
        let Some(connection) = state.connections.get_mut(&self.connection) else { return };
        let read = &mut connection.pipes[self.side.reads()];
        read.abandoned = true;
        if let Some(waker) = read.writer.take() {
            waker.wake();
        }
        connection.open_ends -= 1;
        if connection.open_ends == 0 {
            state.connections.remove(&self.connection);
        }
    }
}
