//! Chunks of objects, as read from a store elsewhere: what readers of one lane share.
//!
//! An object is read in chunks of one size, aligned in it, so that whoever reads the same or what lies beside it finds it
//! here, in whatever partition. Missing neighbours come with one GET, each chunk in an allocation of its own and as soon as
//! it is there.
//!
//! Invariants:
//! - Single flight: however many readers want a chunk at once, one GET brings it. Its failure is told to all that wait, so
//!   that an outage does not hold them up one after the other; it is not kept: whoever comes next tries.
//! - A GET belongs to nobody: a reader that gives up holds up nobody who waits for the same.
//! - Every chunk, from before its GET until the last reader has dropped it, is paid for twice: from the lane's own pool and
//!   from the budget of all memory. So a lane never has more in memory than its pool, readers' answers included.
//! - Only `get` waits for memory, in a task of its own: who waits is never held up by a reader that is not polled, or that has
//!   given up. It then holds none but what it takes one by one, while nobody else waits. Whatever holds
//!   memory of a pool otherwise (a flight, an answer) comes to its end without more of it: no circle.
//! - Nothing is read ahead at the cost of what was read ahead for others, or of anything outside the pool.
//! - Deterministic: ordered maps and a counter, no clock, no hashing.

mod counters;
mod landing;
mod slots;

mod flight;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use meta::planted;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::apart::apart;
use crate::budget::{Budget, Permit};
use crate::entry::FragmentId;
use crate::error::{Error, Result};
use crate::log::LogStore;

use self::flight::Flight;
use self::landing::Landing;
use self::slots::{Claim, Seat, Slots};

pub use self::counters::ChunkCounters;

/// How a lane behaves.
#[derive(Debug, Clone, Copy)]
pub struct LaneOptions {
    pub chunk_bytes: usize,
    /// Chunks that come with one GET at most.
    pub get_chunks: usize,
    /// What chunks take in memory at most, those that are on their way or being sent included.
    pub max_bytes: usize,
    /// GETs under way for readers that wait.
    pub gets: usize,
    /// GETs under way for what will be read next.
    pub ahead_gets: usize,
}

impl LaneOptions {
    /// For so much memory: chunks of up to 128 KiB, 16 of them at least. Runs that several partitions share an object with
    /// are often no longer than a few of these; larger ones would bring more of the neighbours than anybody comes for.
    pub fn of(max_bytes: usize, gets: usize) -> Self {
        const LARGEST: usize = 128 << 10;
        const SMALLEST: usize = 4 << 10;
        let share = (max_bytes / 16).clamp(SMALLEST, LARGEST);
        // The largest power of two that is not above it.
        let chunk_bytes = 1 << share.ilog2();
        let max_bytes = max_bytes.max(16 * chunk_bytes);
        Self { chunk_bytes, get_chunks: 32, max_bytes, gets, ahead_gets: gets }
    }
}

/// A cheap handle.
#[derive(Clone)]
pub struct ChunkCache(Arc<Shared>);

/// A handle that keeps nothing alive.
pub struct WeakChunkCache(Weak<Shared>);

struct Shared {
    store: Arc<dyn LogStore>,
    options: LaneOptions,
    /// The lane's own.
    pool: Budget,
    /// Everybody's.
    budget: Budget,
    slots: Mutex<Slots>,
    /// Whoever waits for memory waits for this first.
    turn: tokio::sync::Mutex<()>,
    gets: Semaphore,
    ahead_gets: Semaphore,
    counters: ChunkCounters,
}

/// What pays for one chunk.
#[derive(Debug, Clone)]
struct Payment {
    pool: Permit,
    budget: Permit,
}

/// A chunk in memory. Shorter than others at its object's end.
#[derive(Debug, Clone)]
struct Chunk {
    bytes: Bytes,
    payment: Payment,
}

/// A stretch of an object whose chunks are here or on their way.
pub struct Stretch {
    fragment: FragmentId,
    range: Range<u64>,
    /// Of the first chunk.
    first: u64,
    chunk_bytes: usize,
    landings: Vec<Arc<Landing>>,
}

/// The bytes of a stretch, in pieces.
#[derive(Debug)]
pub struct Pieces {
    pub slices: Vec<Bytes>,
    /// Keep these while the slices live.
    pub permits: Vec<Permit>,
    /// What the slices keep in memory.
    pub pinned_bytes: usize,
}

impl ChunkCache {
    pub fn new(store: Arc<dyn LogStore>, budget: Budget, options: LaneOptions) -> Self {
        assert!(options.chunk_bytes > 0 && options.get_chunks > 0 && options.gets > 0 && options.ahead_gets > 0);
        assert!(options.max_bytes >= 8 * options.chunk_bytes, "a lane has room for more than one reader");
        let pool = Budget::new(options.max_bytes);
        let cache = Self(Arc::new(Shared {
            store,
            options,
            pool: pool.clone(),
            budget,
            slots: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            gets: Semaphore::new(options.gets),
            ahead_gets: Semaphore::new(options.ahead_gets),
            counters: ChunkCounters::default(),
        }));
        let dropping = Arc::downgrade(&cache.0);
        pool.on_shortage(Arc::new(move || dropping.upgrade().is_some_and(|shared| shared.evict(Slots::take_any))));
        cache
    }

    pub fn downgrade(&self) -> WeakChunkCache {
        WeakChunkCache(Arc::downgrade(&self.0))
    }

    pub fn counters(&self) -> &ChunkCounters {
        &self.0.counters
    }

    /// Bytes in memory: kept, on their way, or being sent.
    pub fn bytes(&self) -> usize {
        self.0.pool.used_bytes()
    }

    /// What one reader may ask for at a time.
    pub fn most_at_once(&self) -> usize {
        self.0.options.max_bytes / 4
    }

    /// What one read of a run returns at most, but for a single batch.
    pub fn most_of_run(&self) -> usize {
        self.most_at_once() / 2
    }

    /// Where the chunk ends that what ends here lies in.
    pub fn end_of_chunk(&self, position: u64) -> u64 {
        position.next_multiple_of(self.0.options.chunk_bytes as u64)
    }

    /// Does anybody wait for memory of this lane?
    pub fn is_waited_for(&self) -> bool {
        self.0.pool.is_waited_for()
    }

    /// What is read ahead for all readers together, as long as nobody has wanted it.
    pub fn most_ahead(&self) -> usize {
        self.0.options.max_bytes / 2
    }

    /// Drops one chunk. False if there is none.
    pub fn evict_oldest(&self) -> bool {
        self.0.evict(Slots::take_any)
    }

    /// A stretch, if there is memory for what of it is missing.
    pub fn try_get(&self, fragment: FragmentId, range: Range<u64>) -> Option<Stretch> {
        self.board(fragment, range, Vec::new())
    }

    /// A stretch of no more than `most_at_once`. Waits for memory if it has to: the caller holds none.
    pub async fn get(&self, fragment: FragmentId, range: Range<u64>) -> Result<Stretch> {
        assert!(range.end - range.start <= self.most_at_once() as u64, "more at once than a reader may have");
        match self.try_get(fragment, range.clone()) {
            Some(stretch) => Ok(stretch),
            None => apart(self.clone().wait(fragment, range)).await,
        }
    }

    async fn wait(self, fragment: FragmentId, range: Range<u64>) -> Stretch {
        loop {
            let payments = self.0.wait_for_memory(self.0.numbers(&range).count()).await;
            if let Some(stretch) = self.board(fragment, range.clone(), payments) {
                return stretch;
            }
        }
    }

    /// Begins to read what is missing of a stretch, as far as there is room for it. Nobody is told if that fails.
    pub fn read_ahead(&self, fragment: FragmentId, range: Range<u64>) {
        let shared = &self.0;
        let (missing, unread) = {
            let slots = shared.slots.lock();
            (slots.missing(fragment, shared.numbers(&range)), slots.unread())
        };
        let most = (self.most_ahead() / shared.options.chunk_bytes).saturating_sub(unread);
        let payments: Vec<_> = missing.iter().take(most).map_while(|_| shared.pay_for_ahead()).collect();
        let seats: Vec<_> = {
            let mut slots = shared.slots.lock();
            let seats = missing.into_iter().zip(payments);
            seats.filter_map(|(number, payment)| slots.seat(fragment, number, payment, true)).collect()
        };
        shared.counters.ahead_bytes.add((seats.len() * shared.options.chunk_bytes) as u64);
        self.fly(fragment, seats, true);
    }

    /// Is all of a stretch here or on its way?
    pub fn has(&self, fragment: FragmentId, range: Range<u64>) -> bool {
        self.0.slots.lock().missing(fragment, self.0.numbers(&range)).is_empty()
    }

    /// What was read of this stretch is damaged: whoever wants it next reads it again.
    pub fn forget(&self, stretch: &Stretch) {
        if planted::bug("damaged-chunk-kept") {
            return;
        }
        let mut slots = self.0.slots.lock();
        for (number, landing) in (stretch.first..).zip(&stretch.landings) {
            slots.forget(stretch.fragment, number, landing);
        }
    }

    /// A stretch, with these payments and what can be paid at once.
    fn board(&self, fragment: FragmentId, range: Range<u64>, mut payments: Vec<Payment>) -> Option<Stretch> {
        let shared = &self.0;
        let numbers = shared.numbers(&range);
        let Claim { landings, seats } = loop {
            let claimed = shared.slots.lock().claim(fragment, numbers.clone(), &mut payments);
            match claimed {
                Ok(claim) => break claim,
                Err(short_of) => {
                    for _ in 0..short_of {
                        payments.push(shared.pay()?);
                    }
                }
            }
        };
        shared.counters.misses.add(seats.len() as u64);
        shared.counters.hits.add((landings.len() - seats.len()) as u64);
        self.fly(fragment, seats, false);
        let chunk_bytes = shared.options.chunk_bytes;
        Some(Stretch { fragment, range, first: numbers.start, chunk_bytes, landings })
    }

    /// Reads chunks: neighbours with one GET.
    fn fly(&self, fragment: FragmentId, seats: Vec<Seat>, ahead: bool) {
        let mut seats = seats.into_iter().peekable();
        while let Some(first) = seats.next() {
            let mut together = VecDeque::from([first]);
            while let Some(next) = seats.next_if(|next| {
                let last = together.back().map_or(0, |last| last.number);
                next.number == last + 1 && together.len() < self.0.options.get_chunks
            }) {
                together.push_back(next);
            }
            tokio::spawn(Flight { shared: self.0.clone(), fragment, seats: together }.run(ahead));
        }
    }
}

impl WeakChunkCache {
    pub fn upgrade(&self) -> Option<ChunkCache> {
        self.0.upgrade().map(ChunkCache)
    }
}

impl Shared {
    /// The chunks that a stretch lies in.
    fn numbers(&self, range: &Range<u64>) -> Range<u64> {
        let chunk_bytes = self.options.chunk_bytes as u64;
        range.start / chunk_bytes..range.end.div_ceil(chunk_bytes).max(range.start / chunk_bytes)
    }

    fn evict(&self, take: fn(&mut Slots) -> Option<Arc<Landing>>) -> bool {
        // Dropped with the lock released: that gives memory back to the budgets, which have their own.
        let dropped = take(&mut self.slots.lock());
        dropped.is_some()
    }

    /// Memory for a chunk that somebody waits for, if it can be had without waiting. Drops what is kept here, and nothing
    /// else: what others keep is worth more than what a reader of old data wants.
    fn pay(&self) -> Option<Payment> {
        self.take(Slots::take_any)
    }

    fn pay_for_ahead(&self) -> Option<Payment> {
        self.take(Slots::take_idle)
    }

    fn take(&self, evict: fn(&mut Slots) -> Option<Arc<Landing>>) -> Option<Payment> {
        // Nobody passes those who wait: for the lane's own memory, or producers for everybody's.
        if self.pool.is_waited_for() || self.budget.is_waited_for() {
            return None;
        }
        let bytes = self.options.chunk_bytes;
        let take = |budget: &Budget| loop {
            let taken = budget.take_if_free(bytes);
            if taken.is_some() || !self.evict(evict) {
                return taken;
            }
        };
        Some(Payment { pool: take(&self.pool)?, budget: take(&self.budget)? })
    }

    /// Memory for so many chunks. Of the budget it may cost what others keep: somebody waits for an answer, and those who
    /// wait come one after the other.
    async fn wait_for_memory(&self, chunks: usize) -> Vec<Payment> {
        let _turn = self.turn.lock().await;
        let bytes = self.options.chunk_bytes;
        let mut payments = Vec::with_capacity(chunks);
        for _ in 0..chunks {
            let pool = self.pool.take(bytes).await;
            payments.push(Payment { pool, budget: self.budget.take(bytes).await });
        }
        payments
    }
}

impl Stretch {
    /// Waits until it is here.
    pub async fn pieces(&self) -> Result<Pieces> {
        let count = self.landings.len();
        let mut pieces =
            Pieces { slices: Vec::with_capacity(count), permits: Vec::with_capacity(2 * count), pinned_bytes: 0 };
        for (number, landing) in (self.first..).zip(&self.landings) {
            let Chunk { bytes, payment } = landing.landed().await?;
            let begin = number * self.chunk_bytes as u64;
            let from = self.range.start.saturating_sub(begin) as usize;
            let to = (self.range.end - begin).min(self.chunk_bytes as u64) as usize;
            if bytes.len() < to {
                let why = format!("it ends within the data at {}", self.range.start);
                return Err(Error::Corrupt { key: self.fragment.key().to_string(), why });
            }
            pieces.pinned_bytes += bytes.len();
            pieces.slices.push(bytes.slice(from..to));
            pieces.permits.extend([payment.pool, payment.budget]);
        }
        Ok(pieces)
    }
}

#[cfg(test)]
mod tests;
