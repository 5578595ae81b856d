//! The two seams of the engine: `Log`, into which one writer appends, and `LogStore`, for everything else.
//!
//! ```text
//!   fragments of a log:   0 ......... d ......... f ........ open
//!                         |- durable -|- in flight -|- being filled -|
//!                                     ^ durable_end
//! ```
//!
//! Contract, for every backend (`conformance` tests it):
//! - `enqueue` never blocks and never fails for want of space: the caller paid with a permit first. Entries become part
//!   of fragments in the order of the calls, and fragments become durable in the order of their numbers: no entry is
//!   reported durable before every entry enqueued earlier is.
//! - A fragment is handed to the `DurableSink` once, in order, before any `Pending` in it resolves.
//! - `Pending` resolves to `Durable` only when the entry survives the loss of this process (and, in a folder, of power).
//!   `Fenced`: somebody sealed the log below it; it is not and never will be part of the log. `Unknown`: the writer was
//!   stopped before it could be known. It never resolves to anything retriable.
//! - After `Fenced` or a failure, every later entry of the log has the same fate.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use meta::keys;
use meta::records::LogRecord;
use meta::seams::Incarnation;
use object_store::path::Path;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::entry::{Entry, FragmentId, FragmentIndex, Run};
use crate::error::{Error, Result};

/// How an append ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Durable,
    Fenced,
    Unknown,
}

/// The fate of one fragment, shared by all entries in it: one allocation a fragment, not one an entry.
#[derive(Debug, Default)]
pub struct Fate {
    outcome: Mutex<Option<Outcome>>,
    decided: Notify,
}

impl Fate {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Decides it, once; later calls change nothing.
    pub fn decide(&self, outcome: Outcome) {
        self.outcome.lock().get_or_insert(outcome);
        self.decided.notify_waiters();
    }
}

/// An append that waits for durability.
#[derive(Debug, Clone)]
pub struct Pending(Arc<Fate>);

impl Pending {
    pub fn new(fate: Arc<Fate>) -> Self {
        Self(fate)
    }

    pub fn outcome(&self) -> Option<Outcome> {
        *self.0.outcome.lock()
    }

    pub async fn resolved(&self) -> Outcome {
        loop {
            let mut decided = std::pin::pin!(self.0.decided.notified());
            decided.as_mut().enable();
            if let Some(outcome) = self.outcome() {
                return outcome;
            }
            decided.await;
        }
    }
}

/// A fragment that has just become durable, with its entries still in memory.
#[derive(Debug)]
pub struct DurableFragment {
    pub index: FragmentIndex,
    /// The entries, in the order in which they lie in the fragment (that of `index`).
    pub entries: Vec<Entry>,
}

/// Told about durable fragments, in order, before the appends in them resolve. Must not block.
pub trait DurableSink: Send + Sync {
    fn fragment_durable(&self, fragment: DurableFragment);

    /// The writer was fenced or has failed for good: nothing later will become durable. Called once, before the
    /// appends that share this fate resolve.
    fn log_ended(&self, outcome: Outcome, why: &str);
}

/// The writing end of one log.
#[async_trait]
pub trait Log: Send + Sync {
    fn number(&self) -> u64;

    /// Appends an entry to the open fragment. Synchronous, so that offset assignment and this call can be one critical
    /// section.
    fn enqueue(&self, entry: Entry) -> Pending;

    /// Bytes enqueued and not yet durable.
    fn pending_bytes(&self) -> usize;

    /// Somebody waits for memory that is in use: what was enqueued is not held back to save requests. Cheap, may be
    /// called from anywhere.
    fn memory_is_short(&self) {}

    /// Ends the current segment at its durable end and goes on in a new one.
    async fn roll(&self) -> Result<()>;

    /// Makes durable what was enqueued, stops the writer and seals the log. Later appends resolve to `Unknown`.
    async fn close(&self) -> Result<()>;

    /// The first fragment that is not known to be durable.
    fn durable_end(&self) -> FragmentId;

    /// Succeeds only if nobody else had fenced this log when the call began. Whoever takes over serves nothing before its
    /// fence is in place, so then this process was still the owner, whatever the metadata store says or does not say.
    /// `Fenced` if somebody has; `Retriable` if it cannot be known now; `Closed` once the log is.
    async fn confirm_unfenced(&self) -> Result<()>;
}

/// Everything about logs but appending: opening, sealing, recovery, reads.
#[async_trait]
pub trait LogStore: Send + Sync {
    /// Starts writing a log whose record (open, with one empty segment) is already durable in the metadata store.
    async fn open(&self, number: u64, writer: Incarnation, sink: Arc<dyn DurableSink>) -> Result<Arc<dyn Log>>;

    /// Fences the last segment of a log that is marked `Sealing` in the metadata and finds its end. Idempotent: however
    /// often it runs, by whomever, the answer is the same. `sealer` names this process in the fence.
    async fn fence(&self, number: u64, record: &LogRecord, sealer: Incarnation) -> Result<u64>;

    /// The indexes of fragments [from, end) of one segment, read in parallel and delivered in order.
    async fn read_indexes(
        &self,
        number: u64,
        segment: u32,
        from: u64,
        end: u64,
        each: &mut (dyn FnMut(FragmentIndex) -> Result<()> + Send),
    ) -> Result<()>;

    /// The index of one run.
    async fn read_run_index(&self, run: &Run) -> Result<Vec<crate::entry::IndexedEntry>>;

    /// What holds a fragment, by name, for errors: the key of an object, or the path of a file.
    fn key(&self, fragment: FragmentId) -> String {
        keys::object::fragment(fragment.log, fragment.segment, fragment.fragment).to_string()
    }

    /// What is deleted together: the fragment itself, or the first one of its file.
    fn unit(&self, fragment: FragmentId) -> FragmentId {
        fragment
    }

    /// Where a unit is, relative to the root of the storage.
    fn unit_key(&self, unit: FragmentId) -> Path {
        unit.key()
    }

    /// A unit is about to be deleted: nothing of it is kept open.
    fn forget(&self, _unit: FragmentId) {}

    /// Bytes of a fragment: `position` counts from the fragment's first byte. Never returns fewer bytes than asked for.
    async fn read(&self, run: &Run, position: u64, length: u32) -> Result<Bytes>;

    /// Reads are requests to a store elsewhere: what was read is worth keeping, neighbours are worth reading together, and
    /// what will be wanted next is worth asking for ahead. For files the page cache does all that.
    fn is_remote(&self) -> bool {
        false
    }

    /// Bytes of a fragment, beyond any run: handed over piece by piece, each of `piece_bytes` but for the last. Ends early,
    /// without an error, where the fragment ends. Only if `is_remote`.
    async fn read_pieces(
        &self,
        fragment: FragmentId,
        _range: Range<u64>,
        _piece_bytes: usize,
        _each: &mut (dyn FnMut(Bytes) + Send),
    ) -> Result<()> {
        Err(Error::Invalid { what: format!("fragment {fragment} is not read in pieces") })
    }
}
