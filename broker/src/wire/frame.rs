//! Frames, read from a connection into shared and paid-for chunks.
//!
//! A frame is a length of four bytes and so many bytes of request. A connection reads into a chunk; complete frames are
//! sliced from it without copying, and share the permit that paid for it. An idle connection holds a small chunk only;
//! a busy one is given larger ones, as far as memory is plentiful.
//!
//! Invariants:
//! - a frame's length is checked before anything is allocated for it: Produce may be as long as `produce_max_bytes`,
//!   everything else `OTHER_MAX_BYTES`;
//! - memory is taken before it is allocated, and grows with the bytes that have arrived (at most doubling, or up to
//!   twice the largest frame that this connection has completed before);
//! - the bytes of a Produce request are always paid by the main budget;
//! - a frame that has begun makes progress, or the connection is closed. Time in which this side does not read (memory
//!   is short, too many requests are in flight) does not count;
//! - `next` may be dropped at any of its waits and called again: nothing is lost.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use storage::budget::Permit;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

use crate::wire::header::LEAST_FRAME_BYTES;
use crate::wire::memory::{Overdraft, Payer, ReceiveMemory, SMALL_CHUNK_BYTES};
use crate::wire::shapes;

/// Longest frame of any request but Produce.
pub const OTHER_MAX_BYTES: usize = 8 << 20;

const LENGTH_BYTES: usize = 4;
/// Length and API key: what decides how a frame may be read.
const PEEK_BYTES: usize = LENGTH_BYTES + 2;
const FIRST_CHUNK_BYTES: usize = 4 << 10;
const CHUNK_MAX_BYTES: usize = 256 << 10;
/// What a frame of a connection that has shown nothing yet is given at once.
const UNTRUSTED_BYTES: usize = 16 << 10;
/// How long a connection without a request keeps a chunk larger than the smallest.
const LINGER: Duration = Duration::from_millis(500);
/// A frame that has begun may pause this long.
const STALL: Duration = Duration::from_secs(10);
/// A frame has to be complete after this time plus its size at the slowest rate.
const FRAME_GRACE: Duration = Duration::from_secs(30);
const SLOWEST_BYTES_PER_SECOND: usize = 16 << 10;
/// The same for a frame that has been lent memory beyond the budget, because others wait for it.
const OVERDRAFT_GRACE: Duration = Duration::from_secs(10);
const OVERDRAFT_BYTES_PER_SECOND: usize = 1 << 20;

/// A request without its length, and what pays for the memory it lies in.
#[derive(Debug)]
pub struct Frame {
    pub bytes: Bytes,
    pub permit: Permit,
    /// When its last byte arrived.
    pub received: Instant,
}

/// Why no further frame can be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {length} bytes (api key {api_key:?}; allowed are {LEAST_FRAME_BYTES} to {max})")]
    Length { length: i32, api_key: Option<i16>, max: usize },
    #[error("the peer closed the connection inside a frame")]
    Truncated,
    #[error("a frame stopped arriving after {arrived} bytes")]
    Stalled { arrived: usize },
    #[error("a frame arrives too slowly: {arrived} bytes in {} s", elapsed.as_secs())]
    TooSlow { arrived: usize, elapsed: Duration },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What is known about the frame at the head of the chunk.
#[derive(Debug, Clone, Copy)]
struct Head {
    /// With its length.
    total_bytes: usize,
    /// Not known before it has arrived.
    api_key: Option<i16>,
}

/// The clock of a frame that has begun.
#[derive(Debug, Clone, Copy)]
struct Progress {
    begun: Instant,
    last_byte: Instant,
}

pub struct FrameReader<R> {
    io: R,
    memory: ReceiveMemory,
    produce_max_bytes: usize,
    /// What has been read and not yet handed out; its allocation is what `paid` pays for.
    chunk: BytesMut,
    paid: Option<(Permit, Payer)>,
    /// Size of the next chunk, if memory is plentiful.
    next_chunk_bytes: usize,
    largest_frame: usize,
    /// Largest of the last few frames.
    recent_frame: usize,
    /// Did the last read fill the chunk? Then more was probably waiting.
    filled: bool,
    progress: Option<Progress>,
    overdraft: Option<(Overdraft, Instant)>,
    /// Since when this side has not been reading.
    paused: Option<Instant>,
    last_read: Instant,
    read_bytes: u64,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub fn new(io: R, memory: ReceiveMemory, produce_max_bytes: usize) -> Self {
        Self {
            io,
            memory,
            produce_max_bytes,
            chunk: BytesMut::new(),
            paid: None,
            next_chunk_bytes: FIRST_CHUNK_BYTES,
            largest_frame: 0,
            recent_frame: 0,
            filled: false,
            progress: None,
            overdraft: None,
            paused: None,
            last_read: Instant::now(),
            read_bytes: 0,
        }
    }

    /// When bytes last arrived.
    pub fn last_read(&self) -> Instant {
        self.last_read
    }

    /// Bytes read since this was last asked.
    pub fn take_read_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.read_bytes)
    }

    /// Is it this side that keeps the peer waiting?
    pub fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// Stops the clock of a frame that has begun, until `next` is called again.
    pub fn pause(&mut self) {
        self.paused.get_or_insert_with(Instant::now);
    }

    /// The next frame; `None` when the peer has closed the connection between two frames.
    pub async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(Some(frame));
            }
            if self.make_room().await? {
                // It may be complete already, and have waited for memory that may hold it.
                continue;
            }
            match self.read().await? {
                Some(0) if self.chunk.is_empty() => return Ok(None),
                Some(0) => return Err(FrameError::Truncated),
                Some(_) => {}
                None => self.release_chunk(),
            }
        }
    }

    /// The next frame, if it has been read already.
    pub fn buffered(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(head) = self.head()? else { return Ok(None) };
        let Some((permit, payer)) = &self.paid else { return Ok(None) };
        if self.chunk.len() < head.total_bytes || !may_pay(*payer, head) {
            return Ok(None);
        }
        let permit = permit.clone();
        self.chunk.advance(LENGTH_BYTES);
        let bytes = self.chunk.split_to(head.total_bytes - LENGTH_BYTES).freeze();
        self.largest_frame = self.largest_frame.max(head.total_bytes);
        self.recent_frame = head.total_bytes.max(self.recent_frame / 4 * 3);
        self.overdraft = None;
        let progress = Progress { begun: self.last_read, last_byte: self.last_read };
        self.progress = (!self.chunk.is_empty()).then_some(progress);
        Ok(Some(Frame { bytes, permit, received: self.last_read }))
    }

    /// What the first bytes of the chunk say, once the length is there.
    fn head(&self) -> Result<Option<Head>, FrameError> {
        let Some(length) = self.chunk.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = i32::from_be_bytes(*length);
        let api_key = match self.chunk.get(LENGTH_BYTES..PEEK_BYTES) {
            Some(&[high, low]) => Some(i16::from_be_bytes([high, low])),
            _ => None,
        };
        let max = match api_key {
            Some(key) if key != shapes::PRODUCE.api_key => OTHER_MAX_BYTES,
            Some(_) => self.produce_max_bytes,
            None => self.produce_max_bytes.max(OTHER_MAX_BYTES),
        };
        match usize::try_from(length) {
            Ok(bytes) if (LEAST_FRAME_BYTES..=max).contains(&bytes) => {
                Ok(Some(Head { total_bytes: LENGTH_BYTES + bytes, api_key }))
            }
            _ => Err(FrameError::Length { length, api_key, max }),
        }
    }

    /// Sees to it that the chunk has room for some bytes of the frame at its head. True if it is another chunk now.
    async fn make_room(&mut self) -> Result<bool, FrameError> {
        let head = self.head()?;
        // Until the API is known, only so much is read.
        let known = head.filter(|head| head.api_key.is_some());
        let needed = known.map_or(PEEK_BYTES, |head| head.total_bytes);
        if let Some((permit, payer)) = &self.paid {
            let (capacity, paid_bytes) = (self.chunk.capacity(), permit.bytes());
            let enough = match self.chunk.is_empty() {
                true => SMALL_CHUNK_BYTES.min(paid_bytes).max(self.largest_frame.min(paid_bytes / 4)),
                false => needed,
            };
            let payable = head.is_none_or(|head| may_pay(*payer, head));
            // A large frame with a chunk of its own stays there until that is full.
            let own = capacity == paid_bytes && paid_bytes > SMALL_CHUNK_BYTES && capacity > self.chunk.len();
            if payable && (capacity >= enough || own || self.chunk.try_reclaim(enough - self.chunk.len())) {
                self.resume();
                return Ok(false);
            }
            if self.chunk.is_empty() {
                self.paid = None;
                self.chunk = BytesMut::new();
            }
        }
        let (permit, payer) = match head.and_then(|head| head.api_key.map(|api_key| (head.total_bytes, api_key))) {
            Some((total_bytes, api_key)) => self.room_for_frame(total_bytes, api_key).await,
            None => self.room_for_peek().await,
        };
        let mut chunk = BytesMut::with_capacity(permit.bytes());
        chunk.extend_from_slice(&self.chunk);
        self.chunk = chunk;
        self.paid = Some((permit, payer));
        self.resume();
        Ok(true)
    }

    /// Nothing is known about the next frame. A busy connection gets a chunk like its last one, if that is easy.
    async fn room_for_peek(&mut self) -> (Permit, Payer) {
        let many_or_large = self.filled || self.recent_frame > SMALL_CHUNK_BYTES / 2;
        let busy = many_or_large && self.last_read.elapsed() < LINGER;
        let generous = self.memory.generous_bytes(self.next_chunk_bytes);
        if busy
            && generous > SMALL_CHUNK_BYTES
            && let Some(taken) = self.memory.try_take_main(generous)
        {
            self.next_chunk_bytes = (self.next_chunk_bytes * 2).min(CHUNK_MAX_BYTES);
            return taken;
        }
        match self.memory.try_take_small() {
            Some(taken) => taken,
            None => {
                self.pause();
                self.memory.take_other(SMALL_CHUNK_BYTES).await
            }
        }
    }

    /// Takes memory for a frame, of which as much has arrived as the chunk holds.
    async fn room_for_frame(&mut self, total_bytes: usize, api_key: i16) -> (Permit, Payer) {
        let arrived = self.chunk.len();
        let trusted = UNTRUSTED_BYTES.max(2 * self.largest_frame).max(2 * arrived).min(total_bytes);
        let wanted = trusted.max(self.memory.generous_bytes(self.next_chunk_bytes));
        self.next_chunk_bytes = (self.next_chunk_bytes * 2).min(CHUNK_MAX_BYTES);
        let produces = api_key == shapes::PRODUCE.api_key;
        let taken = match produces {
            true => self.memory.try_take_main(wanted),
            false => self.memory.try_take_other(wanted),
        };
        if let Some(taken) = taken {
            return taken;
        }
        // Memory is short: no more than doubling, and in the end by overdraft if the frame itself holds some of it.
        self.pause();
        let modest = (2 * arrived).max(FIRST_CHUNK_BYTES).min(total_bytes);
        let holds_main = matches!(self.paid, Some((_, Payer::Main)));
        if !holds_main {
            return match produces {
                true => self.memory.take_main(modest).await,
                false => self.memory.take_other(modest).await,
            };
        }
        tokio::select! {
            biased;
            taken = self.memory.take_main(modest) => taken,
            (permit, overdraft) = self.memory.overdraw(total_bytes) => {
                let grace = OVERDRAFT_GRACE + at_rate(total_bytes, OVERDRAFT_BYTES_PER_SECOND);
                self.overdraft = Some((overdraft, Instant::now() + grace));
                (permit, Payer::Main)
            }
        }
    }

    /// The time since `pause` does not count against the peer.
    fn resume(&mut self) {
        let Some(since) = self.paused.take() else { return };
        let now = Instant::now();
        if let Some(progress) = &mut self.progress {
            progress.begun += now - since;
            progress.last_byte = now;
        }
    }

    /// Reads once. `None`: the connection is idle and holds more memory than it needs for that.
    async fn read(&mut self) -> Result<Option<usize>, FrameError> {
        let large = self.paid.as_ref().is_some_and(|(permit, _)| permit.bytes() > SMALL_CHUNK_BYTES);
        let deadline = match self.progress {
            Some(progress) => Some(self.frame_deadline(progress)),
            None => large.then(|| Instant::now() + LINGER),
        };
        debug_assert!(self.chunk.capacity() > self.chunk.len(), "read_buf would grow a full chunk unpaid");
        let read = self.io.read_buf(&mut self.chunk);
        let count = match deadline {
            None => read.await?,
            Some(deadline) => match tokio::time::timeout_at(deadline, read).await {
                Ok(count) => count?,
                Err(_) if self.progress.is_none() => return Ok(None),
                Err(_) => return Err(self.too_slow()),
            },
        };
        let now = Instant::now();
        if count > 0 {
            self.last_read = now;
            self.read_bytes += count as u64;
            self.filled = self.chunk.len() == self.chunk.capacity();
            let progress = Progress { begun: self.progress.map_or(now, |progress| progress.begun), last_byte: now };
            self.progress = Some(progress);
            if now > self.frame_deadline(progress) {
                return Err(self.too_slow());
            }
        }
        Ok(Some(count))
    }

    /// When the frame has to have made progress or be complete.
    fn frame_deadline(&self, progress: Progress) -> Instant {
        let total_bytes = self.head().ok().flatten().map_or(PEEK_BYTES, |head| head.total_bytes);
        let whole = progress.begun + FRAME_GRACE + at_rate(total_bytes, SLOWEST_BYTES_PER_SECOND);
        let overdraft = self.overdraft.as_ref().map_or(whole, |(_, deadline)| *deadline);
        whole.min(overdraft).min(progress.last_byte + STALL)
    }

    fn too_slow(&self) -> FrameError {
        let arrived = self.chunk.len();
        match self.progress {
            Some(progress) if progress.last_byte.elapsed() < STALL => {
                FrameError::TooSlow { arrived, elapsed: progress.begun.elapsed() }
            }
            _ => FrameError::Stalled { arrived },
        }
    }

    /// Gives the chunk of an idle connection back.
    fn release_chunk(&mut self) {
        debug_assert!(self.chunk.is_empty(), "only a connection without a request lets go of its chunk");
        self.chunk = BytesMut::new();
        self.paid = None;
        self.next_chunk_bytes = (self.next_chunk_bytes / 2).max(FIRST_CHUNK_BYTES);
    }
}

/// Produce is paid by the main budget only: that is what holds producers back when memory is short.
fn may_pay(payer: Payer, head: Head) -> bool {
    payer == Payer::Main || head.api_key != Some(shapes::PRODUCE.api_key)
}

fn at_rate(bytes: usize, bytes_per_second: usize) -> Duration {
    Duration::from_millis((bytes as u64).saturating_mul(1000) / bytes_per_second as u64)
}

#[cfg(test)]
mod tests;
