//! The one memory budget of a broker: every byte of record data in memory is paid for here, by allocation.
//!
//! A `Permit` pays for an allocation (typically a chunk that a connection reads into). Slices of that allocation share
//! the permit; the bytes come back when the last of them is dropped. So a small slice that pins a large allocation is
//! counted for what it really costs.
//!
//! Invariant: the sum of all live permits never exceeds the budget, except that `take_anyway` (used only to let a
//! started frame finish, by one holder at a time) may exceed it by the one amount that was reserved for it at start.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Asked for memory back when the budget is short: drops cached data. Returns false when it has nothing left to drop.
pub type Reclaim = dyn Fn() -> bool + Send + Sync;

#[derive(Clone)]
pub struct Budget(Arc<Shared>);

struct Shared {
    total_bytes: usize,
    used: Mutex<usize>,
    freed: Notify,
    /// How many wait for bytes.
    waiting: AtomicUsize,
    reclaim: Mutex<Option<Arc<Reclaim>>>,
}

/// Counts one who waits, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Shared ownership of some bytes of the budget; the bytes come back when the last clone is dropped.
#[derive(Clone)]
pub struct Permit(Arc<Lent>);

struct Lent {
    bytes: usize,
    budget: Budget,
}

impl Budget {
    pub fn new(total_bytes: usize) -> Self {
        Self(Arc::new(Shared {
            total_bytes,
            used: Mutex::new(0),
            freed: Notify::new(),
            waiting: AtomicUsize::new(0),
            reclaim: Mutex::new(None),
        }))
    }

    /// Registers what to call when memory is short. Called without any lock of the budget held.
    pub fn on_shortage(&self, reclaim: Arc<Reclaim>) {
        *self.0.reclaim.lock() = Some(reclaim);
    }

    pub fn total_bytes(&self) -> usize {
        self.0.total_bytes
    }

    pub fn used_bytes(&self) -> usize {
        *self.0.used.lock()
    }

    /// Takes the bytes if they are free, after asking for cached data to be dropped.
    pub fn try_take(&self, bytes: usize) -> Option<Permit> {
        loop {
            if let Some(permit) = self.take_if_free(bytes) {
                return Some(permit);
            }
            let reclaim = self.0.reclaim.lock().clone();
            if !reclaim.is_some_and(|reclaim| reclaim()) {
                return self.take_if_free(bytes);
            }
        }
    }

    /// Waits until the bytes are free. More than the whole budget is never granted: callers bound their requests first.
    pub async fn take(&self, bytes: usize) -> Permit {
        let _waiting = Waiting::begin(&self.0.waiting);
        loop {
            let mut freed = std::pin::pin!(self.0.freed.notified());
            freed.as_mut().enable();
            if let Some(permit) = self.try_take(bytes) {
                return permit;
            }
            freed.await;
        }
    }

    /// Waits until the bytes are free as it is, and nobody else waits for any: nothing is dropped for them. That may never be.
    pub async fn take_spare(&self, bytes: usize) -> Permit {
        loop {
            let mut freed = std::pin::pin!(self.0.freed.notified());
            freed.as_mut().enable();
            let spare = if self.is_waited_for() { None } else { self.take_if_free(bytes) };
            match spare {
                Some(permit) => return permit,
                None => freed.await,
            }
        }
    }

    /// Takes the bytes even if that exceeds the budget. See the module's invariant for who may.
    pub fn take_anyway(&self, bytes: usize) -> Permit {
        *self.0.used.lock() += bytes;
        self.lend(bytes)
    }

    /// Takes the bytes if they are free as it is: nothing is dropped for them.
    pub fn take_if_free(&self, bytes: usize) -> Option<Permit> {
        let mut used = self.0.used.lock();
        if used.saturating_add(bytes) > self.0.total_bytes {
            return None;
        }
        *used += bytes;
        drop(used);
        Some(self.lend(bytes))
    }

    /// Does anybody wait for bytes?
    pub fn is_waited_for(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed) > 0
    }

    /// Something that could be dropped has come in: whoever waits for memory is to look again.
    pub fn has_more_to_drop(&self) {
        self.0.freed.notify_waiters();
    }

    fn lend(&self, bytes: usize) -> Permit {
        Permit(Arc::new(Lent { bytes, budget: self.clone() }))
    }
}

impl Permit {
    /// What this permit, with all its clones, holds.
    pub fn bytes(&self) -> usize {
        self.0.bytes
    }

    /// Gives back what is more than `bytes`, if this is the only clone.
    pub fn shrink(mut self, bytes: usize) -> Self {
        if let Some(lent) = Arc::get_mut(&mut self.0) {
            let freed = lent.bytes.saturating_sub(bytes);
            lent.bytes -= freed;
            *lent.budget.0.used.lock() -= freed;
            lent.budget.0.freed.notify_waiters();
        }
        self
    }

    /// Does anybody else hold a clone?
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// The same for all clones, and for no other permit that is alive.
    pub fn id(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.budget.0.used.lock() -= self.bytes;
        self.budget.0.freed.notify_waiters();
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Permit({} bytes)", self.0.bytes)
    }
}

#[cfg(test)]
mod tests;
