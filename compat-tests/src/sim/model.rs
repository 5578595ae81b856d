//! What the clients were promised and what they saw, and the invariants that follow. Each violation is named as in the
//! project's list of invariants (README, "What is proven").
//!
//! The order of sends and polls is judged by `checker::History`; what only record batches show (leader epochs, producer
//! sequences, their bytes never changing) is judged here.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

use super::trace::Trace;
use super::wire::Batch;
use crate::checker::{self, History, Outcome, Partition, Rules};

/// A broker may answer reads for so long after its last look at who owns the log, and a little more.
const FRESH_FOR: Duration = Duration::from_millis(1010);

/// A reader that starts over gets a new number from here on.
const FIRST_FINAL_READER: u32 = 100_000;

pub struct Model {
    pub trace: Arc<Trace>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    history: History,
    /// The ids of topics that are never deleted.
    topics: BTreeMap<String, uuid::Uuid>,
    producer_ids: BTreeMap<i64, u32>,
    batches: BTreeMap<(Partition, i64), Batch>,
    /// Acknowledged values: the epoch of the broker that acknowledged them, and whether it was the first to be asked.
    acks: BTreeMap<u64, Ack>,
    /// Highest acknowledged offset by partition, with the epoch of the broker that told.
    highest_acks: BTreeMap<Partition, (i64, i32)>,
    /// When each epoch was first seen to acknowledge anything.
    first_acks: BTreeMap<i32, Instant>,
    final_ends: BTreeMap<Partition, i64>,
    next_final_reader: u32,
}

/// Who acknowledged a batch.
#[derive(Debug, Clone, Copy)]
pub struct Ack {
    /// The leader epoch of the broker.
    pub epoch: i32,
    /// It may have been appended by an earlier attempt.
    pub retried: bool,
    /// When the request left.
    pub sent_at: Instant,
}

impl Model {
    pub fn new(trace: Arc<Trace>) -> Self {
        let state = State { next_final_reader: FIRST_FINAL_READER, ..State::default() };
        Self { trace, state: Mutex::new(state) }
    }

    /// Values for a batch that is about to be sent to a partition.
    pub fn send(&self, producer: u32, partition: &Partition, count: u64) -> Vec<u64> {
        let mut state = self.state.lock();
        (0..count).map(|_| state.history.send(producer, partition)).collect()
    }

    /// A batch was acknowledged.
    pub fn acked(&self, partition: &Partition, values: &[u64], base_offset: i64, ack: Ack) {
        let (first, epoch) = (values.first().copied().unwrap_or_default(), ack.epoch);
        self.trace.note(format_args!("acked {partition} {base_offset}+{} value {first} epoch {epoch}", values.len()));
        if base_offset < 0 {
            let how = format_args!("{partition}: value {first} acknowledged without an offset");
            self.trace.violation("acked-durable", how);
        }
        let mut state = self.state.lock();
        if let Some(later) = state.overtaken(epoch, ack.sent_at).filter(|_| !ack.retried) {
            let how = format_args!("{partition}: epoch {epoch} took {first} after epoch {later} had acknowledged");
            self.trace.violation("fenced-writer", how);
        }
        for (offset, value) in (base_offset..).zip(values) {
            state.history.sent(*value, Outcome::Ok { offset });
            state.acks.insert(*value, ack);
        }
        let last = base_offset + values.len() as i64 - 1;
        let highest = state.highest_acks.entry(partition.clone()).or_insert((last, epoch));
        *highest = (*highest).max((last, epoch));
        state.first_acks.entry(epoch).or_insert_with(Instant::now);
    }

    /// A broker answered a read that was asked for at this time: it must have looked who owns the log not long before.
    pub fn answered(&self, partition: &Partition, epoch: i32, asked_at: Instant) {
        let Some(fresh_from) = asked_at.checked_sub(FRESH_FOR) else { return };
        if let Some(later) = self.state.lock().overtaken(epoch, fresh_from) {
            let how = format_args!("{partition}: epoch {epoch} answers reads long after {later} acknowledged");
            self.trace.violation("fenced-writer", how);
        }
    }

    /// The batch must never be seen: it was refused, or is of a kind that has to be.
    pub fn refused(&self, values: &[u64]) {
        let mut state = self.state.lock();
        for value in values {
            state.history.sent(*value, Outcome::Failed);
        }
    }

    /// Metadata named a topic's id. Topics that are never deleted keep theirs.
    pub fn topic_id(&self, name: &str, id: uuid::Uuid) {
        let known = *self.state.lock().topics.entry(name.to_owned()).or_insert(id);
        if known != id || id.is_nil() {
            self.trace.violation("offset-immutable", format_args!("topic {name} was {known}, now {id}"));
        }
    }

    pub fn producer_id(&self, producer: u32, id: i64) {
        if let Some(other) = self.state.lock().producer_ids.insert(id, producer) {
            self.trace
                .violation("dedup-failover", format_args!("producer id {id} of {other} also given to {producer}"));
        }
    }

    /// ListOffsets told this end of the log: a broker of this epoch must know of every earlier acknowledgement.
    pub fn log_end(&self, partition: &Partition, end: i64, epoch: i32, highest_before: Option<(i64, i32)>) {
        let Some((offset, acked_epoch)) = highest_before else { return };
        if epoch >= acked_epoch && end <= offset {
            let how = format_args!("{partition}: end {end} of epoch {epoch}, but {offset} was acknowledged before");
            self.trace.violation("hwm-monotonic", how);
        }
    }

    /// The highest offset acknowledged so far, with the epoch of the broker that said so.
    pub fn highest_ack(&self, partition: &Partition) -> Option<(i64, i32)> {
        self.state.lock().highest_acks.get(partition).copied()
    }

    /// A reader begins anew at some position.
    pub fn sought(&self, reader: u32, partition: &Partition) {
        self.state.lock().history.sought(reader, partition);
    }

    /// What one Fetch said about one partition. `position` is what was asked for; returns the next one.
    pub fn fetched(
        &self,
        reader: u32,
        partition: &Partition,
        position: i64,
        high_watermark: i64,
        batches: Vec<Batch>,
    ) -> i64 {
        let last_offset = batches.last().map(|batch| batch.last_offset);
        let mut next = position;
        for batch in batches {
            // The first batch may begin before the position.
            let expected = if next == position { batch.base_offset.min(next) } else { next };
            if batch.base_offset != expected || batch.last_offset < next {
                let how = format_args!(
                    "{partition}: at {next} reader {reader} got {} to {}",
                    batch.base_offset, batch.last_offset
                );
                self.trace.violation("contiguous-log", how);
            }
            self.saw_batch(reader, partition, next, &batch);
            next = next.max(batch.last_offset + 1);
        }
        if next > position {
            self.trace.note(format_args!("reader {reader} {partition} {position}..{next} of {high_watermark}"));
        }
        self.state.lock().history.high_watermark(reader, partition, high_watermark, last_offset);
        next
    }

    fn saw_batch(&self, reader: u32, partition: &Partition, from: i64, batch: &Batch) {
        let mut state = self.state.lock();
        for (offset, value) in (batch.base_offset..).zip(&batch.values).filter(|(offset, _)| *offset >= from) {
            state.history.polled(reader, partition, offset, *value);
        }
        let key = (partition.clone(), batch.base_offset);
        let known = state.batches.entry(key).or_insert_with(|| batch.clone());
        if known != batch {
            self.trace.violation("offset-immutable", format_args!("{partition}: {known:?} became {batch:?}"));
        }
    }

    /// A number for a reader of the final read-back.
    pub fn final_reader(&self) -> u32 {
        let mut state = self.state.lock();
        state.next_final_reader += 1;
        state.next_final_reader
    }

    /// Everything up to `end` was read back after all producers had stopped. Every read-back finds the same end.
    pub fn drained(&self, partition: &Partition, end: i64) {
        self.trace.note(format_args!("drained {partition} to {end}"));
        let mut state = self.state.lock();
        state.history.drained(partition, end);
        let known = *state.final_ends.entry(partition.clone()).or_insert(end);
        if known != end {
            self.trace.violation("seal-immutable", format_args!("{partition} ended at {known}, now at {end}"));
        }
    }

    pub fn sent_partitions(&self) -> Vec<Partition> {
        self.state.lock().history.sent_partitions().into_iter().collect()
    }

    /// (acknowledged, unknown)
    pub fn counts(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.history.acknowledged(), state.history.unknown())
    }

    /// Judges the whole history. Call once, at the end.
    pub fn judge(&self) {
        let state = self.state.lock();
        for anomaly in state.history.check(&Rules::idempotent()) {
            self.trace.violation(invariant_of(&anomaly), format_args!("{anomaly}"));
        }
        let mut before: Option<(&Partition, &Batch)> = None;
        let mut sequences: BTreeMap<(&Partition, i64, i16), i32> = BTreeMap::new();
        for ((partition, _), batch) in &state.batches {
            self.judge_epochs(&state, partition, batch, before);
            before = Some((partition, batch));
            if batch.producer_id < 0 {
                continue;
            }
            let next = batch.base_sequence + batch.values.len() as i32;
            let expected = sequences.insert((partition, batch.producer_id, batch.producer_epoch), next).unwrap_or(0);
            if batch.base_sequence != expected {
                let name = if batch.base_sequence < expected { "dedup-failover" } else { "seq-gap-rejected" };
                self.trace.violation(name, format_args!("{partition}: sequence {expected} expected: {batch:?}"));
            }
        }
    }

    fn judge_epochs(&self, state: &State, partition: &Partition, batch: &Batch, before: Option<(&Partition, &Batch)>) {
        if let Some((_, earlier)) = before.filter(|(before, _)| *before == partition)
            && batch.leader_epoch < earlier.leader_epoch
        {
            let how = format_args!("{partition}: epochs fall from {earlier:?} to {batch:?}");
            self.trace.violation("fenced-writer", how);
        }
        let Some(ack) = batch.values.first().and_then(|value| state.acks.get(value)) else { return };
        let fits = if ack.retried { batch.leader_epoch <= ack.epoch } else { batch.leader_epoch == ack.epoch };
        if !fits {
            let how = format_args!("{partition}: {ack:?} for a batch of another epoch: {batch:?}");
            self.trace.violation("fenced-writer", how);
        }
    }
}

impl State {
    /// A later epoch that had acknowledged something by this time.
    fn overtaken(&self, epoch: i32, by: Instant) -> Option<i32> {
        self.first_acks.range(epoch + 1..).find(|(_, at)| **at < by).map(|(later, _)| *later)
    }
}

/// The invariant that an anomaly breaks.
fn invariant_of(anomaly: &checker::Anomaly) -> &'static str {
    match anomaly.name() {
        "lost-write" | "unseen" => "acked-durable",
        "duplicate" => "dedup-failover",
        "inconsistent-offsets" | "phantom" => "offset-immutable",
        "failed-read" => "seq-gap-rejected",
        "nonmonotonic-poll" | "poll-skip" | "nonmonotonic-send" => "offset-order",
        "offset-gap" => "contiguous-log",
        "high-watermark-regress" => "hwm-monotonic",
        _ => "no-dirty-read",
    }
}
