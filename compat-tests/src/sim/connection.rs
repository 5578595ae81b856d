//! A client's connection: pipelined requests, replies in order.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::Request;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::net::{HostId, Net, SimStream};
use super::trace::Trace;
use super::wire;

/// Why there is no reply. Whatever was asked for may have happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoReply {
    Closed,
    TimedOut,
}

/// Requests without a reply, in order. None once no reply can come any more.
type Waiting = Arc<Mutex<Option<VecDeque<(i32, oneshot::Sender<Bytes>)>>>>;

pub struct Connection {
    pub host: HostId,
    trace: Arc<Trace>,
    correlation: AtomicI32,
    outgoing: mpsc::UnboundedSender<Bytes>,
    waiting: Waiting,
    tasks: [AbortHandle; 2],
}

/// A reply that has not arrived yet.
pub struct Expected<R> {
    version: i16,
    trace: Arc<Trace>,
    reply: oneshot::Receiver<Bytes>,
    request: PhantomData<fn() -> R>,
}

impl Connection {
    pub async fn open(net: &Net, trace: &Arc<Trace>, address: &str, patience: Duration) -> Result<Self, NoReply> {
        let (stream, host) = timeout(patience, net.connect(address))
            .await
            .map_err(|_| NoReply::TimedOut)?
            .map_err(|_| NoReply::Closed)?;
        let (read, write) = tokio::io::split(stream);
        let (outgoing, frames) = mpsc::unbounded_channel();
        let waiting = Arc::new(Mutex::new(Some(VecDeque::new())));
        let reader = tokio::spawn(read_replies(read, Arc::clone(&waiting), Arc::clone(trace)));
        let writer = tokio::spawn(write_frames(write, frames));
        let tasks = [reader.abort_handle(), writer.abort_handle()];
        let correlation = AtomicI32::new(1);
        Ok(Self { host, trace: Arc::clone(trace), correlation, outgoing, waiting, tasks })
    }

    /// Sends a request without waiting for anything.
    pub fn send<R: Request>(&self, version: i16, request: &R) -> Expected<R> {
        let correlation = self.correlation.fetch_add(1, Ordering::Relaxed);
        let (sender, reply) = oneshot::channel();
        match wire::frame(correlation, version, request) {
            Ok(frame) => {
                let mut waiting = self.waiting.lock();
                if let Some(queue) = waiting.as_mut() {
                    queue.push_back((correlation, sender));
                    // The writer ends at the first error: nothing that is waited for can be told any more.
                    if self.outgoing.send(frame).is_err() {
                        *waiting = None;
                    }
                }
            }
            Err(why) => self.trace.violation("harness", format_args!("cannot encode {} v{version}: {why}", R::KEY)),
        }
        Expected { version, trace: Arc::clone(&self.trace), reply, request: PhantomData }
    }

    pub async fn call<R: Request>(
        &self,
        version: i16,
        request: &R,
        patience: Duration,
    ) -> Result<R::Response, NoReply> {
        self.send(version, request).reply(patience).await
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl<R: Request> Expected<R> {
    pub async fn reply(self, patience: Duration) -> Result<R::Response, NoReply> {
        let frame = timeout(patience, self.reply).await.map_err(|_| NoReply::TimedOut)?.map_err(|_| NoReply::Closed)?;
        wire::response::<R>(self.version, frame).map_err(|why| {
            self.trace.violation("protocol", format_args!("bad reply to {} v{}: {why}", R::KEY, self.version));
            NoReply::Closed
        })
    }
}

async fn write_frames(mut write: WriteHalf<SimStream>, mut frames: mpsc::UnboundedReceiver<Bytes>) {
    while let Some(frame) = frames.recv().await {
        if write.write_all(&frame).await.is_err() {
            return;
        }
    }
}

async fn read_replies(mut read: ReadHalf<SimStream>, waiting: Waiting, trace: Arc<Trace>) {
    while let Some(frame) = read_frame(&mut read).await {
        let correlation = i32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]);
        let head = waiting.lock().as_mut().and_then(VecDeque::pop_front);
        match head {
            Some((expected, sender)) if expected == correlation => {
                let _ = sender.send(frame);
            }
            other => {
                let expected = other.map(|(expected, _)| expected);
                trace.violation("protocol", format_args!("reply {correlation} where {expected:?} was next"));
                break;
            }
        }
    }
    *waiting.lock() = None;
}

async fn read_frame(read: &mut ReadHalf<SimStream>) -> Option<Bytes> {
    let length = read.read_i32().await.ok()?;
    if !(4..1 << 26).contains(&length) {
        return None;
    }
    let mut frame = BytesMut::zeroed(length as usize);
    read.read_exact(&mut frame).await.ok()?;
    Some(frame.freeze())
}
