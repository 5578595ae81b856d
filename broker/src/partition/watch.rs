//! How a fetch that waits for data is woken: by the partitions it waits for, when enough bytes have become readable.
//!
//! A waiting fetch costs nothing but its place in the lists of its partitions; nothing polls. A partition takes what
//! became readable off the amount that is still missing, and only the one that completes it wakes the fetch, which then
//! plans anew. Waking too early is harmless, so amounts may be estimates from above; waking too late is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::Notify;

use super::Partition;

/// What one waiting fetch still misses.
#[derive(Debug, Default)]
pub struct Watch {
    missing_bytes: AtomicI64,
    enough: Notify,
}

impl Watch {
    /// Starts anew to wait for this many bytes. Call before planning, then `arrived` with what the plan found.
    pub fn expect(&self, bytes: usize) {
        self.missing_bytes.store(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::SeqCst);
    }

    /// Bytes have become readable.
    pub fn arrived(&self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        if self.missing_bytes.fetch_sub(bytes, Ordering::SeqCst) <= bytes {
            self.enough.notify_one();
        }
    }

    /// Something else happened that the fetch has to look at.
    pub fn fire(&self) {
        self.enough.notify_one();
    }

    /// Resolves when enough has arrived, also if that was before the call.
    pub async fn enough(&self) {
        self.enough.notified().await;
    }
}

/// A watch's registration with its partitions; ends when dropped.
pub struct Watching {
    watch: Arc<Watch>,
    partitions: Vec<Arc<Partition>>,
}

impl Watching {
    /// Registers with every partition. What happened before is not reported: plan after this, not before.
    pub fn start(partitions: Vec<Arc<Partition>>) -> Self {
        let watch = Arc::new(Watch::default());
        for partition in &partitions {
            partition.watch(watch.clone());
        }
        Self { watch, partitions }
    }

    pub fn watch(&self) -> &Watch {
        &self.watch
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        for partition in &self.partitions {
            partition.unwatch(&self.watch);
        }
    }
}
