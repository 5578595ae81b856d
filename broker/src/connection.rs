//! One connection: requests are dispatched in the order in which they arrive, as soon as they have arrived; replies
//! leave in the same order.
//!
//! One task does both, reading and writing. Replies need no channel and no wake-up from one thread to another then,
//! which at tens of thousands of requests per second costs more than the work itself; reading and writing still go on
//! at the same time, because neither waits for the other.
//!
//! Invariants:
//! - a reply is written when all earlier ones have been;
//! - a request is dispatched when all earlier ones have begun;
//! - at most `MAX_IN_FLIGHT` requests and `MAX_UNPAID_BYTES` of finished replies wait; beyond that nothing is read;
//! - a connection that is owed an answer, or was active within `max_idle`, is not closed for being idle;
//! - what cannot be answered closes the connection, after the replies that are owed for earlier requests.

mod replies;

use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use crate::metrics::Metrics;
use crate::request::{CloseConnection, Principal, Reply, RequestBody, RequestContext};
use crate::stop::Stop;
use crate::wire::frame::{Frame, FrameError, FrameReader};
use crate::wire::header;
use crate::wire::memory::ReceiveMemory;

use self::replies::{Owed, Replies};

/// Requests of one connection that wait for their answers.
pub const MAX_IN_FLIGHT: usize = 128;
/// Bytes of answers that are finished, not paid from any budget, and wait for an earlier one.
const MAX_UNPAID_BYTES: usize = 1 << 20;
/// How long a peer may take nothing of what is sent to it while memory is short.
const SLOW_PEER_WHEN_SHORT: Duration = Duration::from_secs(30);
/// How long answers that are owed are waited for once the connection is to be closed.
const DRAIN: Duration = Duration::from_secs(10);
/// Time limits are checked this often at least.
const TICK_MAX: Duration = Duration::from_secs(10);

/// What answers requests.
pub trait Service: Send + Sync + 'static {
    /// Called in the order of arrival. Runs up to the request's first wait.
    fn call(&self, context: RequestContext, body: RequestBody) -> Result<Reply, CloseConnection>;

    /// Does anybody wait for memory that answers hold, beside what requests are read into?
    fn is_short(&self) -> bool {
        false
    }
}

#[derive(Debug, Clone)]
pub struct ConnectionOptions {
    pub request_max_bytes: usize,
    pub max_idle: Duration,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Closed {
    #[error("the peer closed it")]
    ByPeer,
    #[error("it was idle for {} s", .0.as_secs())]
    Idle(Duration),
    #[error("the broker is shutting down")]
    ShutDown,
    #[error("the peer took nothing of its answers for {} s", .0.as_secs())]
    SlowPeer(Duration),
    #[error("{0}")]
    Frame(FrameError),
    #[error("{0}")]
    Request(CloseConnection),
    #[error("{0}")]
    Io(io::Error),
}

impl Closed {
    /// One word for the metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::ByPeer => "peer",
            Self::Idle(_) => "idle",
            Self::ShutDown => "shutdown",
            Self::SlowPeer(_) => "slow_peer",
            Self::Frame(_) => "frame",
            Self::Request(_) => "request",
            Self::Io(_) => "io",
        }
    }
}

impl From<FrameError> for Closed {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(error) => Self::Io(error),
            other => Self::Frame(other),
        }
    }
}

/// What every connection of a listener shares.
pub struct Shared<S> {
    pub service: Arc<S>,
    pub memory: ReceiveMemory,
    pub options: ConnectionOptions,
    pub metrics: Arc<Metrics>,
}

struct Connection<R, W, S> {
    shared: Arc<Shared<S>>,
    peer: SocketAddr,
    reader: FrameReader<R>,
    replies: Replies<W>,
    /// The last request, as long as it has not begun: nothing is read meanwhile.
    beginning: Option<Owed>,
    /// Why nothing more is read, and until when owed answers are waited for.
    closing: Option<(Closed, Instant)>,
}

/// Serves one connection until it ends.
pub async fn serve<R, W, S>(
    (reader, writer): (R, W),
    peer: SocketAddr,
    shared: Arc<Shared<S>>,
    shutdown: Stop,
) -> Closed
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    S: Service,
{
    let reader = FrameReader::new(reader, shared.memory.clone(), shared.options.request_max_bytes);
    let replies = Replies::new(writer, Arc::clone(&shared.metrics));
    let mut connection = Connection { shared, peer, reader, replies, beginning: None, closing: None };
    let closed = connection.run(&shutdown).await;
    connection.count_read();
    closed
}

/// What a connection woke up for.
enum Event {
    Wrote,
    Frame(Option<Frame>),
    Begun(Reply),
    ShutDown,
    Tick,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin, S: Service> Connection<R, W, S> {
    async fn run(&mut self, shutdown: &Stop) -> Closed {
        let mut tick = std::pin::pin!(tokio::time::sleep(self.tick()));
        loop {
            if let Some((why, _)) = self.closing.take_if(|_| self.replies.is_empty() && self.beginning.is_none()) {
                return why;
            }
            if let Some((_, until)) = &self.closing
                && *until < tick.deadline()
            {
                tick.as_mut().reset(*until);
            }
            match self.event(shutdown, tick.as_mut()).await {
                Ok(Event::Wrote) => {}
                Ok(Event::Frame(Some(frame))) => self.dispatch_all(frame),
                Ok(Event::Frame(None)) => return Closed::ByPeer,
                Ok(Event::Begun(reply)) => {
                    if let Some(owed) = self.beginning.take() {
                        self.owe(Owed { reply, ..owed });
                    }
                }
                Ok(Event::ShutDown) => self.close(Closed::ShutDown),
                Ok(Event::Tick) => {
                    if let Some(why) = self.overdue() {
                        return why;
                    }
                    tick.as_mut().reset(Instant::now() + self.tick());
                }
                // What was asked before is still answered.
                Err(why @ (Closed::Frame(_) | Closed::Request(_))) if self.closing.is_none() => {
                    self.beginning = None;
                    self.close(why);
                }
                Err(why) => return why,
            }
        }
    }

    async fn event(&mut self, shutdown: &Stop, tick: std::pin::Pin<&mut Sleep>) -> Result<Event, Closed> {
        let open = self.closing.is_none();
        let begun = self.beginning.is_none();
        let room = self.replies.len() < MAX_IN_FLIGHT && self.replies.unpaid_bytes() < MAX_UNPAID_BYTES;
        let reads = open && begun && room;
        if !reads {
            self.reader.pause();
        }
        tokio::select! {
            biased;
            wrote = poll_fn(|cx| self.replies.poll_progress(cx)) => wrote.map(|()| Event::Wrote),
            reply = begin(&mut self.beginning), if !begun => reply.map(Event::Begun).map_err(Closed::Request),
            frame = self.reader.next(), if reads => Ok(Event::Frame(frame?)),
            () = shutdown.stopped(), if open => Ok(Event::ShutDown),
            () = tick => Ok(Event::Tick),
        }
    }

    /// Dispatches a frame and all others that have arrived with it.
    fn dispatch_all(&mut self, first: Frame) {
        self.count_read();
        let mut next = Some(first);
        while let Some(frame) = next.take() {
            if let Err(why) = self.dispatch(frame) {
                return self.close(Closed::Request(why));
            }
            if self.beginning.is_some() {
                return;
            }
            if self.replies.len() >= MAX_IN_FLIGHT || self.replies.unpaid_bytes() >= MAX_UNPAID_BYTES {
                return;
            }
            next = match self.reader.buffered() {
                Ok(frame) => frame,
                Err(why) => return self.close(why.into()),
            };
        }
    }

    fn dispatch(&mut self, frame: Frame) -> Result<(), CloseConnection> {
        let (header, body_at) = match header::decode(&frame.bytes) {
            Ok(Some(decoded)) => decoded,
            Ok(None) => {
                let api_key = i16::from_be_bytes([frame.bytes[0], frame.bytes[1]]);
                return Err(CloseConnection(format!("api key {api_key} is not served")));
            }
            Err(malformed) => return Err(CloseConnection(format!("malformed request header: {malformed}"))),
        };
        let (api_key, correlation_id) = (header.api_key, header.correlation_id);
        let flexible = header::response_is_flexible(api_key, header.api_version);
        let context = RequestContext {
            api_key,
            api_version: header.api_version,
            correlation_id,
            client_id: header.client_id,
            principal: Principal::Anonymous,
            peer: self.peer,
            received: frame.received,
        };
        let mut bytes = frame.bytes;
        let body = RequestBody { bytes: bytes.split_off(body_at), permit: frame.permit };
        let reply = self.shared.service.call(context, body)?;
        self.owe(Owed { api_key, correlation_id, flexible, received: frame.received, reply });
        Ok(())
    }

    fn owe(&mut self, owed: Owed) {
        match owed.reply {
            Reply::Never => self.shared.metrics.answered(owed.api_key, owed.received.elapsed()),
            Reply::Beginning(_) => self.beginning = Some(owed),
            Reply::Now(_) | Reply::Later(_) => self.replies.owe(owed),
        }
    }

    fn close(&mut self, why: Closed) {
        self.closing = Some((why, Instant::now() + DRAIN));
    }

    fn count_read(&mut self) {
        self.shared.metrics.received_bytes.inc_by(self.reader.take_read_bytes());
    }

    fn tick(&self) -> Duration {
        (self.shared.options.max_idle / 4).min(TICK_MAX)
    }

    /// Is a time limit over?
    fn overdue(&mut self) -> Option<Closed> {
        let now = Instant::now();
        if self.closing.as_ref().is_some_and(|(_, until)| *until <= now) {
            return self.closing.take().map(|(why, _)| why);
        }
        let max_idle = self.shared.options.max_idle;
        if let Some(since) = self.replies.stalled_since() {
            let short = self.shared.memory.is_short() || self.shared.service.is_short();
            let limit = if short { SLOW_PEER_WHEN_SHORT.min(max_idle) } else { max_idle };
            return (now - since >= limit).then(|| Closed::SlowPeer(now - since));
        }
        let last = self.reader.last_read().max(self.replies.last_written());
        let waits = self.replies.is_empty() && !self.reader.is_paused();
        (waits && now - last >= max_idle).then(|| Closed::Idle(now - last))
    }
}

/// Waits until a request has begun. Pending forever if there is none.
async fn begin(beginning: &mut Option<Owed>) -> Result<Reply, CloseConnection> {
    match beginning {
        Some(Owed { reply: Reply::Beginning(future), .. }) => future.await,
        _ => pending().await,
    }
}

#[cfg(test)]
mod tests;
