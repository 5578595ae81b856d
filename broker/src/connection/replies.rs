//! The answers that a connection owes, in the order of its requests, and how they are written: all that are ready
//! together, gathered and not copied together.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use storage::budget::Permit;
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use super::Closed;
use crate::metrics::Metrics;
use crate::request::{CloseConnection, Reply, Response};
use crate::wire::header;

/// Once so many bytes are gathered they are written before more is gathered.
const GATHER_BYTES: usize = 256 << 10;
/// Pieces up to this size are copied together with the headers around them: cheaper than a slice of their own.
const COPY_BYTES: usize = 1 << 10;
const MAX_SLICES: usize = 64;
/// What headers and small pieces are copied into, so much at a time.
const COPY_CHUNK_BYTES: usize = 4 << 10;

/// An answer that is owed.
pub struct Owed {
    pub api_key: i16,
    pub correlation_id: i32,
    pub flexible: bool,
    pub received: Instant,
    pub reply: Reply,
}

pub struct Replies<W> {
    io: W,
    metrics: Arc<Metrics>,
    owed: VecDeque<Owed>,
    unpaid_bytes: usize,
    out: Out,
    stalled_since: Option<Instant>,
    last_written: Instant,
    unflushed: bool,
}

/// What is being written.
#[derive(Default)]
struct Out {
    pieces: VecDeque<Bytes>,
    /// The last piece, still growing.
    copied: BytesMut,
    bytes: usize,
    /// Pay for what the pieces pin; let go when all of it is written.
    permits: Vec<Permit>,
}

impl<W: AsyncWrite + Unpin> Replies<W> {
    pub fn new(io: W, metrics: Arc<Metrics>) -> Self {
        Self {
            io,
            metrics,
            owed: VecDeque::new(),
            unpaid_bytes: 0,
            out: Out::default(),
            stalled_since: None,
            last_written: Instant::now(),
            unflushed: false,
        }
    }

    /// Requests that have no answer yet.
    pub fn len(&self) -> usize {
        self.owed.len()
    }

    /// Is nothing owed, and everything written?
    pub fn is_empty(&self) -> bool {
        self.owed.is_empty() && self.out.bytes == 0 && !self.unflushed
    }

    /// Bytes of finished answers that wait and that no permit pays for.
    pub fn unpaid_bytes(&self) -> usize {
        self.unpaid_bytes
    }

    /// Since when the peer has taken nothing, if something is waiting to be taken.
    pub fn stalled_since(&self) -> Option<Instant> {
        self.stalled_since
    }

    pub fn last_written(&self) -> Instant {
        self.last_written
    }

    pub fn owe(&mut self, owed: Owed) {
        self.unpaid_bytes += unpaid_bytes(&owed.reply);
        self.owed.push_back(owed);
    }

    /// Gathers what is ready and writes it. Ready when all that was gathered has been written.
    pub fn poll_progress(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        if self.out.bytes == 0 && !self.unflushed {
            self.poll_gather(cx)?;
            if self.out.bytes == 0 {
                return Poll::Pending;
            }
        }
        while self.out.bytes > 0 {
            match self.poll_write(cx) {
                Poll::Ready(written) => written.map_err(Closed::Io)?,
                Poll::Pending => {
                    self.stalled_since.get_or_insert_with(Instant::now);
                    return Poll::Pending;
                }
            }
        }
        ready!(Pin::new(&mut self.io).poll_flush(cx)).map_err(Closed::Io)?;
        self.unflushed = false;
        self.last_written = Instant::now();
        Poll::Ready(Ok(()))
    }

    /// Takes over the answers at the head of the queue that are ready.
    fn poll_gather(&mut self, cx: &mut Context<'_>) -> Result<(), Closed> {
        while self.out.bytes < GATHER_BYTES {
            let Some(head) = self.owed.front_mut() else { break };
            if let Reply::Later(future) = &mut head.reply {
                match future.as_mut().poll(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(response)) => head.reply = Reply::Now(response),
                    Poll::Ready(Err(why)) => {
                        self.owed.clear();
                        self.out.finish_copied();
                        return Err(Closed::Request(why));
                    }
                }
            } else {
                self.unpaid_bytes -= unpaid_bytes(&head.reply);
            }
            let Some(owed) = self.owed.pop_front() else { break };
            self.metrics.answered(owed.api_key, owed.received.elapsed());
            if let Reply::Now(response) = owed.reply
                && let Err(why) = self.out.put(owed.correlation_id, owed.flexible, response)
            {
                self.owed.clear();
                self.out.finish_copied();
                return Err(Closed::Request(why));
            }
        }
        self.out.finish_copied();
        Ok(())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let mut used = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.out.pieces) {
            *slice = IoSlice::new(piece);
            used += 1;
        }
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &slices[..used]))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.metrics.sent_bytes.inc_by(written as u64);
        self.stalled_since = None;
        self.unflushed = true;
        self.out.advance(written);
        Poll::Ready(Ok(()))
    }
}

/// What an answer that is ready holds without a permit. One with permits pays for itself.
fn unpaid_bytes(reply: &Reply) -> usize {
    match reply {
        Reply::Now(response) if response.permits.is_empty() => response.len(),
        _ => 0,
    }
}

impl Out {
    fn put(&mut self, correlation_id: i32, flexible: bool, response: Response) -> Result<(), CloseConnection> {
        self.reserve_copied(header::RESPONSE_MAX_BYTES);
        let before = self.copied.len();
        if !header::put_response(&mut self.copied, correlation_id, flexible, response.len()) {
            return Err(CloseConnection(format!("a response of {} bytes cannot be sent", response.len())));
        }
        self.bytes += self.copied.len() - before;
        for part in response.parts {
            self.bytes += part.len();
            if part.len() <= COPY_BYTES {
                self.reserve_copied(part.len());
                self.copied.extend_from_slice(&part);
            } else {
                self.finish_copied();
                self.pieces.push_back(part);
            }
        }
        self.permits.extend(response.permits);
        Ok(())
    }

    fn reserve_copied(&mut self, bytes: usize) {
        if self.copied.capacity() - self.copied.len() < bytes {
            self.finish_copied();
            self.copied.reserve(COPY_CHUNK_BYTES);
        }
    }

    fn finish_copied(&mut self) {
        if !self.copied.is_empty() {
            self.pieces.push_back(self.copied.split().freeze());
        }
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(piece) = self.pieces.front_mut() {
            if written < piece.len() {
                piece.advance(written);
                return;
            }
            written -= piece.len();
            self.pieces.pop_front();
        }
        self.permits.clear();
        // An idle connection keeps no memory.
        self.copied = BytesMut::new();
    }
}
