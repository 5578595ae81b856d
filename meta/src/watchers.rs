//! Watches: the recent transactions, and who wants to hear of the next.
//!
//! Bounded on both sides. The history keeps a number of transactions and of bytes; a watch from before it ends with
//! `Compacted`. A receiver's queue holds a fixed number of batches beyond what it starts with (whose values are shared
//! with the history); when it is full the watch ends with `Compacted`, for which one place is always kept free.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use crate::error::{Error, Result};
use crate::store::{Event, Revision, Watch, WatchBatch};

#[cfg(test)]
mod tests;

const HISTORY_MAX: usize = 4096;
const HISTORY_BYTES_MAX: usize = 8 << 20;
/// Batches that a receiver may be behind.
const QUEUE_MAX: usize = 256;

#[derive(Debug)]
struct Watcher {
    prefix: String,
    from: Revision,
    queue: mpsc::Sender<Result<WatchBatch>>,
}

#[derive(Debug)]
pub struct Watchers {
    history: VecDeque<WatchBatch>,
    history_bytes: usize,
    /// The oldest revision that a watch can begin at.
    oldest: Revision,
    watchers: Vec<Watcher>,
}

impl Watchers {
    /// Nothing up to `revision` is kept.
    pub fn after(revision: Revision) -> Self {
        Self { history: VecDeque::new(), history_bytes: 0, oldest: revision + 1, watchers: Vec::new() }
    }

    pub fn watch(&mut self, prefix: &str, from: Revision) -> Watch {
        let backlog: Vec<WatchBatch> = self
            .history
            .iter()
            .filter(|batch| batch.revision >= from)
            .filter_map(|batch| concerning(batch, prefix))
            .collect();
        // The place that is kept free, and the backlog, come on top.
        let (queue, watch) = mpsc::channel(QUEUE_MAX + 1 + backlog.len());
        let watcher = Watcher { prefix: prefix.to_owned(), from, queue };
        // Revision 0 is before the first: from there on everything is asked for.
        if from.max(1) < self.oldest {
            watcher.end(Error::Compacted { requested: from, oldest: self.oldest });
            return watch;
        }
        if backlog.into_iter().all(|batch| watcher.send(batch)) {
            self.watchers.push(watcher);
        }
        watch
    }

    /// Tells everybody of one more transaction.
    pub fn publish(&mut self, batch: WatchBatch) {
        if batch.events.is_empty() {
            return;
        }
        self.watchers.retain(|watcher| {
            if batch.revision < watcher.from {
                return !watcher.queue.is_closed();
            }
            concerning(&batch, &watcher.prefix).is_none_or(|batch| watcher.send(batch)) && !watcher.queue.is_closed()
        });
        self.history_bytes += size(&batch);
        self.history.push_back(batch);
        while self.history.len() > HISTORY_MAX || self.history_bytes > HISTORY_BYTES_MAX {
            let Some(dropped) = self.history.pop_front() else { break };
            self.history_bytes -= size(&dropped);
            self.oldest = dropped.revision + 1;
        }
    }

    /// Ends every watch.
    pub fn end(&mut self, why: impl Fn() -> Error) {
        for watcher in self.watchers.drain(..) {
            watcher.end(why());
        }
    }

    /// Forgets what happened up to `revision`, as etcd's compaction does.
    pub fn compact(&mut self, revision: Revision) {
        while self.history.front().is_some_and(|batch| batch.revision <= revision) {
            if let Some(dropped) = self.history.pop_front() {
                self.history_bytes -= size(&dropped);
                self.oldest = dropped.revision + 1;
            }
        }
    }
}

impl Watcher {
    /// False once the watch has ended.
    fn send(&self, batch: WatchBatch) -> bool {
        if self.queue.capacity() <= 1 {
            self.end(Error::Compacted { requested: batch.revision, oldest: batch.revision + 1 });
            return false;
        }
        self.queue.try_send(Ok(batch)).is_ok()
    }

    fn end(&self, why: Error) {
        // Fails only if the receiver is gone: one place is always free.
        let _ = self.queue.try_send(Err(why));
    }
}

fn concerning(batch: &WatchBatch, prefix: &str) -> Option<WatchBatch> {
    let events: Vec<Event> = batch.events.iter().filter(|event| key(event).starts_with(prefix)).cloned().collect();
    (!events.is_empty()).then_some(WatchBatch { revision: batch.revision, events })
}

fn key(event: &Event) -> &str {
    match event {
        Event::Put(entry) => &entry.key,
        Event::Delete { key, .. } => key,
    }
}

/// Memory that a batch pins, roughly.
fn size(batch: &WatchBatch) -> usize {
    let of = |event: &Event| match event {
        Event::Put(entry) => entry.key.len() + entry.value.len(),
        Event::Delete { key, .. } => key.len(),
    };
    batch.events.iter().map(|event| of(event) + size_of::<Event>()).sum()
}
