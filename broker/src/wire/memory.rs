//! Memory that receive buffers are paid from.
//!
//! Produce requests and large frames are paid from the broker's main budget: when it is short, they are not read, and
//! TCP holds the producers back. Small frames of anything else (fetches, heartbeats, metadata) fall back on a reserve
//! of their own, so that consumers and groups live on while producers wait.
//!
//! No deadlock: a frame takes memory as its bytes arrive, so several half-read frames could hold all of it and wait for
//! each other. Then one of them, the holder of the overdraft, may exceed the main budget by its own size and finish.
//! Invariant: the main budget is never exceeded by more than one frame; it is created that much smaller than what the
//! broker may use (`main_bytes`).

use std::sync::Arc;

use storage::budget::{Budget, Permit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What an idle connection reads into.
pub const SMALL_CHUNK_BYTES: usize = 512;
/// Frames larger than this are never paid from the reserve.
pub const RESERVE_FRAME_MAX_BYTES: usize = 64 << 10;

#[derive(Clone)]
pub struct ReceiveMemory {
    main: Budget,
    reserve: Budget,
    overdraft: Arc<Semaphore>,
}

/// The right to exceed the main budget, held while one frame is being finished.
#[derive(Debug)]
pub struct Overdraft(#[allow(dead_code)] OwnedSemaphorePermit);

/// Who pays for a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payer {
    Main,
    Reserve,
}

impl ReceiveMemory {
    /// `main` is shared with everything else that holds record data; see `main_bytes` and `reserve_bytes` for the sizes.
    pub fn new(main: Budget, reserve: Budget) -> Self {
        Self { main, reserve, overdraft: Arc::new(Semaphore::new(1)) }
    }

    /// The size of the main budget of a broker that may use so much memory: one frame less, for the overdraft.
    pub fn main_bytes(memory_bytes: usize, request_max_bytes: usize) -> usize {
        memory_bytes.saturating_sub(request_max_bytes)
    }

    /// The size of the reserve: a request in hand and one being read for every connection, and some larger ones.
    pub fn reserve_bytes(max_connections: usize) -> usize {
        max_connections * 2 * SMALL_CHUNK_BYTES + (8 << 20)
    }

    /// Is memory so short that whoever holds some without using it should give it back?
    pub fn is_short(&self) -> bool {
        self.used_share_above(7, 8)
    }

    /// How large a chunk may be that is larger than the frame at hand needs.
    pub fn generous_bytes(&self, wanted: usize) -> usize {
        match () {
            () if !self.used_share_above(1, 2) => wanted,
            () if !self.used_share_above(3, 4) => wanted.min(64 << 10),
            () => 0,
        }
    }

    fn used_share_above(&self, numerator: usize, denominator: usize) -> bool {
        self.main.used_bytes() >= self.main.total_bytes() / denominator * numerator
    }

    /// For a connection that waits for its next request.
    pub fn try_take_small(&self) -> Option<(Permit, Payer)> {
        let reserve = self.reserve.try_take(SMALL_CHUNK_BYTES).map(|permit| (permit, Payer::Reserve));
        reserve.or_else(|| self.try_take_main(SMALL_CHUNK_BYTES))
    }

    pub fn try_take_main(&self, bytes: usize) -> Option<(Permit, Payer)> {
        self.main.try_take(bytes).map(|permit| (permit, Payer::Main))
    }

    /// For a frame that is not Produce: the main budget if it has room, else the reserve.
    pub fn try_take_other(&self, bytes: usize) -> Option<(Permit, Payer)> {
        self.try_take_main(bytes).or_else(|| {
            let permit = (bytes <= RESERVE_FRAME_MAX_BYTES).then(|| self.reserve.try_take(bytes))??;
            Some((permit, Payer::Reserve))
        })
    }

    /// Waits for the main budget.
    pub async fn take_main(&self, bytes: usize) -> (Permit, Payer) {
        (self.main.take(bytes).await, Payer::Main)
    }

    /// Waits for whichever budget has room first.
    pub async fn take_other(&self, bytes: usize) -> (Permit, Payer) {
        if bytes > RESERVE_FRAME_MAX_BYTES {
            return self.take_main(bytes).await;
        }
        tokio::select! {
            biased;
            permit = self.reserve.take(bytes) => (permit, Payer::Reserve),
            permit = self.main.take(bytes) => (permit, Payer::Main),
        }
    }

    /// Waits for the right to exceed the main budget, then takes the bytes. At most one frame exceeds it at a time:
    /// the next one waits until what the previous one took too much has come back.
    pub async fn overdraw(&self, bytes: usize) -> (Permit, Overdraft) {
        let right = Arc::clone(&self.overdraft).acquire_owned().await;
        let right = right.expect("the semaphore is never closed: nothing calls close()");
        drop(self.main.take(0).await);
        (self.main.take_anyway(bytes), Overdraft(right))
    }
}
