//! The writing end of a log in object storage, as its callers see it. The work is done by the flusher's task.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use meta::seams::Incarnation;
use meta::store::MetaStore;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::AbortHandle;

use super::gets::Gets;
use super::unfenced::{self, Standing};
use crate::entry::{Entry, FragmentId};
use crate::error::{Error, Result};
use crate::fragment::FragmentBuilder;
use crate::log::{DurableSink, Fate, Log, Outcome, Pending};
use crate::registry;

/// Which log, and who writes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identified {
    pub number: u64,
    pub incarnation: Incarnation,
}

/// Entries that become one fragment, and share its fate.
#[derive(Debug)]
pub(super) struct Batch {
    pub entries: FragmentBuilder,
    pub fate: Arc<Fate>,
}

impl Batch {
    fn new() -> Self {
        Self { entries: FragmentBuilder::new(), fate: Fate::new() }
    }
}

/// Why a writer stopped for good.
#[derive(Debug, Clone)]
pub(super) struct Stop {
    pub outcome: Outcome,
    pub why: String,
}

impl Stop {
    pub fn error(&self, number: u64) -> Error {
        match self.outcome {
            Outcome::Fenced => Error::Fenced { what: format!("log {number}"), owner: self.why.clone() },
            _ => Error::Unknown { what: format!("log {number}: {}", self.why) },
        }
    }
}

/// What is shared between the callers of `enqueue` and the flusher's task.
pub(super) struct Shared {
    pub id: Identified,
    pub sink: Arc<dyn DurableSink>,
    pub flush_bytes: usize,
    pub queue: Mutex<Queue>,
    /// Something is there to flush, or it should be flushed sooner.
    pub wake: Notify,
    /// Somebody waits for memory that what is enqueued here may hold. Until the next flush begins.
    pub memory_is_short: AtomicBool,
}

pub(super) struct Queue {
    pub open: Batch,
    /// Batches that reached `flush_bytes`, oldest first. Their bytes are bounded by the callers' budget.
    pub full: VecDeque<Batch>,
    /// Enqueued and not yet durable, whether in this queue or in flight.
    pub pending_bytes: usize,
    pub durable_end: FragmentId,
    /// Above every fragment of the current segment that was ever sent: set before the first attempt.
    pub next_fragment: u64,
    /// A next segment is being registered: the current one may not be the last any more.
    pub rolling: bool,
    /// The fate of everything enqueued from now on, once the writer takes no more.
    pub ended: Option<Arc<Fate>>,
    pub stop: Option<Stop>,
    /// Where the writer stopped, after `close`.
    pub closed_at: Option<FragmentId>,
}

impl Shared {
    pub fn new(id: Identified, sink: Arc<dyn DurableSink>, flush_bytes: usize) -> Self {
        let queue = Queue {
            open: Batch::new(),
            full: VecDeque::new(),
            pending_bytes: 0,
            durable_end: FragmentId { log: id.number, segment: 0, fragment: 0 },
            next_fragment: 0,
            rolling: false,
            ended: None,
            stop: None,
            closed_at: None,
        };
        Self {
            id,
            sink,
            flush_bytes,
            queue: Mutex::new(queue),
            wake: Notify::new(),
            memory_is_short: AtomicBool::new(false),
        }
    }

    fn enqueue(&self, entry: Entry) -> Pending {
        let mut queue = self.queue.lock();
        if let Some(fate) = &queue.ended {
            return Pending::new(fate.clone());
        }
        let was_empty = queue.open.entries.is_empty();
        queue.pending_bytes += entry.len();
        queue.open.entries.push(entry);
        let pending = Pending::new(queue.open.fate.clone());
        let is_full = queue.open.entries.bytes() >= self.flush_bytes;
        if is_full {
            let open = queue.take_open();
            queue.full.push_back(open);
        }
        drop(queue);
        if was_empty || is_full {
            self.wake.notify_one();
        }
        pending
    }
}

impl Queue {
    pub fn take_open(&mut self) -> Batch {
        std::mem::replace(&mut self.open, Batch::new())
    }
}

pub(super) enum Command {
    /// Answered when the log goes on in a new segment.
    Roll(oneshot::Sender<Result<()>>),
    /// Answered with the log's end when everything enqueued is durable and the writer has stopped.
    Close(oneshot::Sender<Result<FragmentId>>),
}

pub(super) struct ObjectLog {
    pub shared: Arc<Shared>,
    pub meta: Arc<dyn MetaStore>,
    pub commands: mpsc::Sender<Command>,
    pub gets: Gets,
    /// Of a check that nobody has fenced the log.
    pub check_limit: Duration,
    pub flusher: AbortHandle,
}

impl ObjectLog {
    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<Result<T>>) -> Command) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let sent = self.commands.send(make(answer)).await.is_ok();
        match answered.await {
            Ok(answer) if sent => answer,
            _ => Err(match &self.shared.queue.lock().stop {
                Some(stop) => stop.error(self.number()),
                None => Error::Closed { what: "the log" },
            }),
        }
    }
}

#[async_trait]
impl Log for ObjectLog {
    fn number(&self) -> u64 {
        self.shared.id.number
    }

    fn enqueue(&self, entry: Entry) -> Pending {
        self.shared.enqueue(entry)
    }

    fn pending_bytes(&self) -> usize {
        self.shared.queue.lock().pending_bytes
    }

    fn memory_is_short(&self) {
        if !self.shared.memory_is_short.swap(true, Ordering::Relaxed) {
            self.shared.wake.notify_one();
        }
    }

    async fn roll(&self) -> Result<()> {
        self.ask(Command::Roll).await
    }

    async fn close(&self) -> Result<()> {
        {
            let mut queue = self.shared.queue.lock();
            if queue.ended.is_none() {
                let fate = Fate::new();
                fate.decide(Outcome::Unknown);
                queue.ended = Some(fate);
            }
        }
        let closed_at = self.shared.queue.lock().closed_at;
        let end = match closed_at {
            Some(end) => end,
            None => self.ask(Command::Close).await?,
        };
        fail::fail_point!("object_log::closed");
        let Identified { number, incarnation } = self.shared.id;
        registry::seal_own(self.meta.as_ref(), number, incarnation, end.segment, end.fragment).await?;
        Ok(())
    }

    fn durable_end(&self) -> FragmentId {
        self.shared.queue.lock().durable_end
    }

    async fn confirm_unfenced(&self) -> Result<()> {
        let Identified { number, incarnation } = self.shared.id;
        let standing = || {
            let queue = self.shared.queue.lock();
            if let Some(stop) = &queue.stop {
                return Err(stop.error(number));
            }
            if queue.closed_at.is_some() {
                return Err(Error::Closed { what: "the log" });
            }
            Ok(Standing { durable_end: queue.durable_end, next: queue.next_fragment, rolling: queue.rolling })
        };
        unfenced::confirm(&self.gets, incarnation, self.check_limit, standing).await
    }
}

impl Drop for ObjectLog {
    /// Nobody is left to append: like a crash, but for what was in flight already.
    fn drop(&mut self) {
        self.flusher.abort();
    }
}
