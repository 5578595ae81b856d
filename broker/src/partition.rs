//! One partition: who may append, at which offset, and up to where it can be read.
//!
//! ```text
//!   log start ............. high watermark ............. next offset
//!      |---- durable, readable ----|---- enqueued, pending ----|
//! ```
//!
//! Invariants, all under one short lock:
//! - The producer check, the assignment of offsets and the enqueueing into the log are one critical section: the log's
//!   order is the order of offsets.
//! - The high watermark is where the durable runs end. It moves only when the append at the head of the pending queue
//!   has become durable, whatever log it went to; a run that is durable too early waits.
//! - Nothing at or above the high watermark is read, listed or answered.
//! - Offsets and sequences that were given are never taken back.
//! - A retry of a pending batch waits for that batch; it is never answered from producer state alone.

mod pending;
pub mod producers;
mod watch;

#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kafka_protocol::ResponseError;
use meta::planted;
use parking_lot::Mutex;
use storage::budget::Permit;
use storage::entry::{Entry, IndexedRun, Run, TopicPartition};
use storage::error::{Error, Result};
use storage::log::Log;
use storage::manifest::Checkpoint;
use storage::partition_index::{EpochEnd, PartitionIndex};

use crate::batch::ValidBatch;

use self::pending::PendingQueue;
use self::producers::{ProducerBatch, Producers, Verdict};

pub use self::pending::Durability;
pub use self::watch::{Watch, Watching};

/// Runs that one plan reads at most: each can cost a request to the store.
const MAX_RUNS_PER_PLAN: usize = 64;

/// What this broker is to the partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Its past is being read.
    Opening,
    Leading,
    /// Given up in good order.
    Released,
    /// Taken away: somebody fenced the log, or its writer failed.
    Fenced,
    /// Its stored data contradicts itself. Served by nobody until somebody has looked.
    Damaged,
    /// Its topic was deleted.
    Deleted,
}

impl Status {
    /// What a client is told, unless the broker leads.
    pub fn refusal(self) -> Option<ResponseError> {
        match self {
            Status::Leading => None,
            Status::Opening | Status::Released | Status::Fenced => Some(ResponseError::NotLeaderOrFollower),
            Status::Damaged => Some(ResponseError::KafkaStorageError),
            Status::Deleted => Some(ResponseError::UnknownTopicOrPartition),
        }
    }
}

/// How an append began.
#[derive(Debug)]
pub enum AppendResult {
    Appended {
        base_offset: i64,
        log_start_offset: i64,
        durability: Durability,
    },
    /// It is here already: acknowledged like the first time, once that is durable (None: it is).
    Duplicate {
        base_offset: i64,
        log_start_offset: i64,
        durability: Option<Durability>,
    },
    /// It is here already, but it is no longer known where: the error says so, once it is durable.
    OldDuplicate {
        durability: Option<Durability>,
    },
    Rejected(ResponseError),
}

/// Up to where a partition can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub log_start_offset: i64,
    /// The last stable offset too, as long as there are no transactions.
    pub high_watermark: i64,
    pub leader_epoch: i32,
}

/// What a fetch is to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchPlan {
    pub bounds: Bounds,
    /// In order; the first holds the offset that was asked for. Empty at the high watermark.
    pub runs: Vec<Run>,
    /// The length of these runs: no less than what can be read from the offset on.
    pub available_bytes: usize,
}

pub struct Partition {
    id: TopicPartition,
    /// Made durable since the start.
    produced_bytes: AtomicU64,
    state: Mutex<State>,
}

struct State {
    status: Status,
    leader_epoch: i32,
    /// The offset that the next record gets.
    next_offset: i64,
    /// What is durable, without gaps.
    index: PartitionIndex,
    /// Durable runs whose turn has not come, by base offset.
    early: BTreeMap<i64, Run>,
    pending: PendingQueue,
    producers: Producers,
    watches: Vec<Arc<Watch>>,
}

impl Partition {
    /// Empty and opening: what it holds is told by `replay`.
    pub fn new(id: TopicPartition, max_producers: usize) -> Self {
        let state = State {
            status: Status::Opening,
            leader_epoch: -1,
            next_offset: 0,
            index: PartitionIndex::new(id, 0),
            early: BTreeMap::new(),
            pending: PendingQueue::default(),
            producers: Producers::new(max_producers),
            watches: Vec::new(),
        };
        Self { id, produced_bytes: AtomicU64::new(0), state: Mutex::new(state) }
    }

    pub fn id(&self) -> TopicPartition {
        self.id
    }

    /// So much of this partition has become durable.
    pub fn count_produced(&self, bytes: u32) {
        self.produced_bytes.fetch_add(u64::from(bytes), Ordering::Relaxed);
    }

    /// Bytes made durable since the start, and bytes stored.
    pub fn usage(&self) -> (u64, u64) {
        let stored = self.state.lock().index.stored_bytes();
        (self.produced_bytes.load(Ordering::Relaxed), stored)
    }

    pub fn status(&self) -> Status {
        self.state.lock().status
    }

    /// Takes in what a log of the past holds, in order. What does not join to what is there damages the partition, and
    /// only this one; the error names it. A damaged partition takes in nothing more.
    pub fn replay(&self, run: &IndexedRun) -> Result<()> {
        let mut state = self.state.lock();
        match state.status {
            Status::Opening => {}
            Status::Damaged => return Ok(()),
            _ => return Err(Error::Invalid { what: format!("partition {} is not being opened", self.id) }),
        }
        if state.index.is_empty() && run.run.next_offset <= state.index.log_start() {
            // It was deleted before upkeep came to its fragment: the manifest has the partition as it was after that.
            return Ok(());
        }
        if let Err(error) = check_entries(run).and_then(|()| state.index.append(run.run)) {
            state.status = Status::Damaged;
            return Err(error);
        }
        state.next_offset = run.run.next_offset;
        if planted::bug("dedup-not-rebuilt") {
            return Ok(());
        }
        for entry in run.entries.iter().filter(|entry| entry.meta.producer_id >= 0) {
            let batch = ProducerBatch {
                producer_id: entry.meta.producer_id,
                producer_epoch: entry.meta.producer_epoch,
                base_sequence: entry.meta.base_sequence,
                count: (entry.meta.last_offset - entry.meta.base_offset + 1) as i32,
            };
            state.producers.record(&batch, entry.meta.base_offset);
        }
        Ok(())
    }

    /// Takes in what the manifest holds, before anything is replayed. What cannot be read damages the partition, and only
    /// this one; the error names it.
    pub fn restore(&self, checkpoint: Checkpoint) -> Result<()> {
        let mut state = self.state.lock();
        if state.status != Status::Opening || state.next_offset != 0 {
            return Err(Error::Invalid { what: format!("partition {} is not being opened", self.id) });
        }
        state.next_offset = checkpoint.index.next_offset();
        state.index = checkpoint.index;
        if planted::bug("dedup-not-rebuilt") {
            return Ok(());
        }
        let restored = state.producers.restore(&checkpoint.producers);
        restored.map_err(|error| {
            state.status = Status::Damaged;
            Error::Corrupt { key: format!("the manifest of partition {}", self.id), why: error.to_string() }
        })
    }

    /// Where the partition begins, as was recorded when records were deleted. For a partition whose past was replayed: one
    /// that ends before its beginning has lost what was deleted and more, and is damaged.
    pub fn restore_log_start(&self, offset: i64) -> Result<()> {
        let mut state = self.state.lock();
        if state.status != Status::Opening {
            return Ok(());
        }
        let end = state.index.next_offset();
        if end < offset {
            state.status = Status::Damaged;
            return Err(Error::Corrupt {
                key: format!("partition {}", self.id),
                why: format!("it begins at offset {offset}, but its data ends at {end}"),
            });
        }
        if !planted::bug("log-start-not-restored") {
            state.index.advance_log_start(offset);
        }
        Ok(())
    }

    /// Nothing below this offset is read any more. The caller has made that durable, and the offset is not above the
    /// high watermark. Returns where the partition begins now: it never moves down.
    pub fn raise_log_start(&self, offset: i64) -> i64 {
        let mut state = self.state.lock();
        state.index.advance_log_start(offset);
        state.index.log_start()
    }

    /// What upkeep looks at: the durable runs, in order, and where they begin for readers.
    pub fn inspect<T>(&self, look: impl FnOnce(&PartitionIndex) -> T) -> T {
        look(&self.state.lock().index)
    }

    /// What producers have appended below this offset, for the manifest.
    pub fn producers_below(&self, offset: i64) -> Vec<u8> {
        self.state.lock().producers.snapshot(offset)
    }

    /// The same records are elsewhere now: see `PartitionIndex::replace`. The caller has made that durable.
    pub fn replace_runs(&self, from: i64, to: i64, runs: &[Run]) -> Result<()> {
        self.state.lock().index.replace(from, to, runs)
    }

    /// From now on appends are accepted, with this epoch. False if the partition cannot be led: it is damaged, deleted,
    /// or led already.
    pub fn become_leader(&self, leader_epoch: i32) -> bool {
        let mut state = self.state.lock();
        if !matches!(state.status, Status::Opening | Status::Released) || leader_epoch < state.leader_epoch {
            return false;
        }
        state.leader_epoch = leader_epoch;
        state.status = Status::Leading;
        true
    }

    /// No more appends and reads: the new status says why. What is pending ends as its log decides. False if nothing
    /// changed.
    pub fn resign(&self, status: Status) -> bool {
        let mut state = self.state.lock();
        if state.status == status || matches!(state.status, Status::Deleted | Status::Damaged) {
            return false;
        }
        if planted::bug("offsets-reused-after-failure") && status == Status::Fenced {
            state.next_offset = state.index.next_offset();
            return false;
        }
        state.status = status;
        state.watches.iter().for_each(|watch| watch.fire());
        true
    }

    /// Assigns offsets to a batch and enqueues it.
    pub fn append(&self, log: &dyn Log, batch: ValidBatch, permit: Permit) -> AppendResult {
        let mut state = self.state.lock();
        if let Some(code) = state.status.refusal() {
            return AppendResult::Rejected(code);
        }
        let producer = ProducerBatch {
            producer_id: batch.header.producer_id,
            producer_epoch: batch.header.producer_epoch,
            base_sequence: batch.header.base_sequence,
            count: batch.header.record_count,
        };
        let idempotent = batch.header.is_idempotent();
        if idempotent {
            match state.producers.check(&producer) {
                Verdict::Append => {}
                Verdict::Duplicate { base_offset } => return state.duplicate(base_offset),
                Verdict::OldDuplicate { before_offset } => {
                    return AppendResult::OldDuplicate { durability: state.pending.find(before_offset).cloned() };
                }
                Verdict::Refuse(code) => return AppendResult::Rejected(code),
            }
        }
        let base_offset = state.next_offset;
        let next =
            batch.meta(base_offset, state.leader_epoch).and_then(|meta| Some((meta, meta.last_offset.checked_add(1)?)));
        let Some((meta, next_offset)) = next else {
            return AppendResult::Rejected(ResponseError::InvalidRecord);
        };
        if idempotent {
            state.producers.record(&producer, base_offset);
        }
        state.next_offset = next_offset;
        let head = batch.stamped_head(base_offset, state.leader_epoch);
        let entry = Entry { partition: self.id, meta, head, body: batch.body, body_crc: batch.header.crc, permit };
        let own = log.enqueue(entry);
        let durability = state.pending.push(base_offset, next_offset, log.number(), own);
        AppendResult::Appended { base_offset, log_start_offset: state.index.log_start(), durability }
    }

    /// A run has become durable. Fails if it is not what the partition waits for, and damages it: that cannot happen
    /// unless the log broke its contract.
    pub fn advance(&self, run: Run) -> Result<()> {
        let mut state = self.state.lock();
        if run.base_offset > state.index.next_offset() && run.next_offset <= state.next_offset {
            // It went to another log than what is before it, and was faster.
            state.early.insert(run.base_offset, run);
            return Ok(());
        }
        let mut readable_bytes = 0;
        let mut next = Some(run);
        while let Some(run) = next {
            if let Err(error) = state.index.append(run) {
                state.status = Status::Damaged;
                state.watches.iter().for_each(|watch| watch.fire());
                return Err(error);
            }
            readable_bytes += run.length as usize;
            let end = state.index.next_offset();
            next = state.early.remove(&end);
        }
        let end = state.index.next_offset();
        state.pending.forget_below(end);
        state.watches.iter().for_each(|watch| watch.arrived(readable_bytes));
        Ok(())
    }

    /// Where the partition begins and ends for readers. `leader_epoch` is what the client believes it to be, -1 if it
    /// does not say.
    pub fn bounds(&self, leader_epoch: i32) -> Result<Bounds, ResponseError> {
        self.state.lock().bounds(leader_epoch)
    }

    /// What to read from an offset on: enough runs for `max_bytes`, at least one if there is data.
    pub fn plan_fetch(&self, offset: i64, leader_epoch: i32, max_bytes: usize) -> Result<FetchPlan, ResponseError> {
        let state = self.state.lock();
        let bounds = state.bounds(leader_epoch)?;
        let end = if planted::bug("fetch-above-hw") { state.next_offset } else { bounds.high_watermark };
        if offset < bounds.log_start_offset || offset > end {
            return Err(ResponseError::OffsetOutOfRange);
        }
        let mut plan = FetchPlan { bounds, runs: Vec::new(), available_bytes: 0 };
        let mut behind_first_bytes = 0;
        for run in state.index.runs_from(offset).take(MAX_RUNS_PER_PLAN) {
            if !plan.runs.is_empty() {
                behind_first_bytes += run.length as usize;
            }
            plan.available_bytes += run.length as usize;
            plan.runs.push(*run);
            // The offset may lie anywhere in the first run, also behind all that compaction has left of it, so that does not
            // count, and there is always one more.
            if plan.runs.len() > 1 && behind_first_bytes >= max_bytes {
                break;
            }
        }
        Ok(plan)
    }

    /// The first run at or after `from_offset` that has a record with this timestamp or a later one.
    pub fn find_timestamp(&self, timestamp: i64, from_offset: i64) -> Option<Run> {
        self.state.lock().index.find_timestamp(timestamp, from_offset).copied()
    }

    /// Of the runs from the one that holds `from_offset` on, the first that has their highest timestamp.
    pub fn max_timestamp_run(&self, from_offset: i64) -> Option<Run> {
        self.state.lock().index.max_timestamp_run(from_offset).copied()
    }

    /// The run that the log start offset lies in, behind its beginning: some of its records are deleted.
    pub fn cut_run(&self) -> Option<Run> {
        let state = self.state.lock();
        let log_start = state.index.log_start();
        state.index.find(log_start).filter(|run| run.base_offset < log_start).copied()
    }

    /// The leader epoch of the data at an offset or, at the end, of the last data; -1 without any data. Never an epoch that
    /// has no data: a consumer that was told so would ask a later start where it ended, which does not know of it.
    pub fn epoch_at(&self, offset: i64) -> i32 {
        let state = self.state.lock();
        let found = state.index.find(offset).map(|run| run.leader_epoch);
        found.or_else(|| state.index.latest_epoch()).unwrap_or(-1)
    }

    /// Where a leader epoch ended (KIP-320): the epoch itself or the highest one below it, and the offset behind its
    /// last record. None if there is no such epoch.
    pub fn epoch_end(&self, current_leader_epoch: i32, epoch: i32) -> Result<Option<EpochEnd>, ResponseError> {
        let state = self.state.lock();
        let bounds = state.bounds(current_leader_epoch)?;
        if epoch == bounds.leader_epoch {
            return Ok(Some(EpochEnd { epoch, end_offset: bounds.high_watermark }));
        }
        if epoch > bounds.leader_epoch || epoch < 0 {
            return Ok(None);
        }
        let ended_at_end = || {
            let epoch = state.index.latest_epoch().unwrap_or(epoch);
            EpochEnd { epoch, end_offset: bounds.high_watermark }
        };
        Ok(Some(state.index.epoch_end(epoch).unwrap_or_else(ended_at_end)))
    }

    fn watch(&self, watch: Arc<Watch>) {
        self.state.lock().watches.push(watch);
    }

    fn unwatch(&self, watch: &Arc<Watch>) {
        let watches = &mut self.state.lock().watches;
        if let Some(place) = watches.iter().position(|known| Arc::ptr_eq(known, watch)) {
            watches.swap_remove(place);
        }
    }
}

impl State {
    fn bounds(&self, leader_epoch: i32) -> Result<Bounds, ResponseError> {
        if let Some(code) = self.status.refusal() {
            return Err(code);
        }
        let bounds = Bounds {
            log_start_offset: self.index.log_start(),
            high_watermark: if planted::bug("hw-before-durable") { self.next_offset } else { self.index.next_offset() },
            leader_epoch: self.leader_epoch,
        };
        match leader_epoch {
            -1 => Ok(bounds),
            older if older < self.leader_epoch => Err(ResponseError::FencedLeaderEpoch),
            newer if newer > self.leader_epoch => Err(ResponseError::UnknownLeaderEpoch),
            _ => Ok(bounds),
        }
    }

    fn duplicate(&self, base_offset: i64) -> AppendResult {
        let durability = self.pending.find(base_offset).cloned();
        let durability = if planted::bug("reply-from-producer-state-alone") { None } else { durability };
        AppendResult::Duplicate { base_offset, log_start_offset: self.index.log_start(), durability }
    }
}

/// The index of a run must cover exactly the run's offsets, or producer state built from it would be wrong.
fn check_entries(run: &IndexedRun) -> Result<()> {
    let mut next = run.run.base_offset;
    for entry in &run.entries {
        let meta = &entry.meta;
        if meta.base_offset != next || meta.last_offset < next || meta.last_offset - next >= i64::from(i32::MAX) {
            break;
        }
        next = meta.last_offset + 1;
    }
    if next == run.run.next_offset && !run.entries.is_empty() {
        return Ok(());
    }
    Err(Error::Corrupt {
        key: format!("partition {}", run.partition),
        why: format!(
            "the index of fragment {} does not cover offsets {}..{}",
            run.run.fragment, run.run.base_offset, run.run.next_offset
        ),
    })
}
