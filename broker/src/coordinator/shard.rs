//! The groups of one partition of `__consumer_offsets`: their state, the records that are not durable yet, their timers.
//!
//! Invariants, all under one short lock:
//! - A record is appended under the same lock as the change that it describes is decided: the order of records is the
//!   order of changes.
//! - What was appended is applied when it is durable, in the order of the records.
//! - One task per shard waits: for the record at the head of the queue, for the next deadline. With nothing to wait for
//!   it sleeps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kafka_protocol::ResponseError;
use meta::planted;
use parking_lot::{Mutex, MutexGuard};
use storage::budget::Permit;
use storage::log::Outcome;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::batch::{self, BatchError, ValidBatch};
use crate::groups::offsets::{Committed, Offsets};
use crate::groups::records::{self, KeyValue};
use crate::groups::{Group, Step, Write, WriteId, WriteKind};
use crate::partition::{AppendResult, Durability, Partition};

use super::Shared;

/// What a client that waits for a record is told.
pub(super) type Answer = oneshot::Sender<Result<(), ResponseError>>;

pub struct Shard {
    pub(super) shared: Arc<Shared>,
    pub(super) partition: Arc<Partition>,
    inner: Mutex<Inner>,
    /// The task has something new to wait for.
    wake: Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Loading,
    Active,
    /// The partition's records cannot be read.
    Failed,
    /// Not this broker's any more.
    Closed,
}

pub(super) struct Inner {
    status: Status,
    pub(super) groups: BTreeMap<String, Cell>,
    deadlines: BTreeSet<(Instant, String)>,
    /// Appended and not yet durable, by the offset of the first record.
    appended: BTreeMap<i64, Appended>,
    next_sweep: Instant,
}

/// One group and what it has committed.
pub(super) struct Cell {
    pub(super) group: Group,
    pub(super) offsets: Offsets,
    /// Its place among the deadlines. Never later than the group's own.
    scheduled: Option<Instant>,
}

struct Appended {
    durability: Durability,
    change: Change,
}

/// What records say that were appended together.
pub(super) enum Change {
    Commit {
        group: String,
        /// In the order of the records.
        offsets: Vec<(String, i32, Committed)>,
        answer: Option<Answer>,
    },
    /// Tombstones, of these partitions' offsets and, with a write, of the group itself.
    Forget {
        group: String,
        offsets: Vec<(String, i32)>,
        write: Option<WriteId>,
        answer: Option<Answer>,
    },
    Group {
        group: String,
        write: WriteId,
    },
}

impl Cell {
    pub(super) fn new(group: Group, offsets: Offsets) -> Self {
        Self { group, offsets, scheduled: None }
    }

    /// Forgetting it loses nothing at all.
    fn is_nothing(&self) -> bool {
        self.group.is_idle() && !self.group.is_recorded() && self.offsets.is_empty()
    }
}

impl Shard {
    /// Begins to load.
    pub(super) fn start(shared: Arc<Shared>, partition: Arc<Partition>) -> Arc<Self> {
        let next_sweep = Instant::now() + shared.parts.config.groups.offsets_retention_check_interval;
        // Most partitions of a topic that was just created: the first member need not be told to come again.
        let empty = partition.bounds(-1).is_ok_and(|bounds| bounds.log_start_offset == bounds.high_watermark);
        let inner = Inner {
            status: if empty { Status::Active } else { Status::Loading },
            groups: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            appended: BTreeMap::new(),
            next_sweep,
        };
        let shard = Arc::new(Self { shared, partition, inner: Mutex::new(inner), wake: Notify::new() });
        let task = shard.clone();
        tokio::spawn(async move {
            if !empty {
                task.load().await;
            }
            task.run().await;
        });
        shard
    }

    pub(super) fn is_of(&self, partition: &Arc<Partition>) -> bool {
        Arc::ptr_eq(&self.partition, partition)
    }

    /// The state, if this shard may answer from it.
    pub(super) fn active(&self) -> Result<MutexGuard<'_, Inner>, ResponseError> {
        let inner = self.inner.lock();
        match inner.status {
            Status::Active => Ok(inner),
            Status::Loading if planted::bug("group-loaded-early") => Ok(inner),
            Status::Loading => Err(ResponseError::CoordinatorLoadInProgress),
            Status::Failed | Status::Closed => Err(ResponseError::NotCoordinator),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.inner.lock().status == Status::Closed
    }

    /// What was loaded is there to be used, unless the partition was given up meanwhile.
    pub(super) fn activate(&self, groups: BTreeMap<String, Cell>) {
        let mut inner = self.inner.lock();
        if inner.status != Status::Loading {
            return;
        }
        inner.status = Status::Active;
        let names: Vec<_> = groups.keys().cloned().collect();
        inner.groups = groups;
        names.iter().for_each(|name| self.schedule(&mut inner, name));
    }

    pub(super) fn fail(&self) {
        let mut inner = self.inner.lock();
        if inner.status == Status::Loading {
            inner.status = Status::Failed;
        }
    }

    /// The partition is given up: all groups end here. Records that were appended are still waited for.
    pub(super) fn close(&self) {
        let mut inner = self.inner.lock();
        inner.status = Status::Closed;
        inner.deadlines.clear();
        for cell in std::mem::take(&mut inner.groups).values_mut() {
            cell.group.unload(ResponseError::NotCoordinator);
        }
        self.wake.notify_one();
    }

    /// Waits for records to become durable and for deadlines, until the shard is closed.
    async fn run(&self) {
        loop {
            let (head, due) = {
                let mut inner = self.inner.lock();
                self.elapse(&mut inner);
                let head = inner.appended.first_key_value();
                let head = head.map(|(offset, appended)| (*offset, appended.durability.clone()));
                if head.is_none() && inner.status == Status::Closed {
                    return;
                }
                (head, inner.next_due())
            };
            let resolved = async {
                match &head {
                    Some((offset, durability)) => (*offset, durability.resolved().await),
                    None => std::future::pending().await,
                }
            };
            let elapsed = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                (offset, outcome) = resolved => self.settle(offset, outcome),
                () = self.wake.notified() => {}
                () = elapsed => {}
            }
        }
    }

    /// Does what is due.
    fn elapse(&self, inner: &mut Inner) {
        let now = self.shared.now();
        while let Some((at, _)) = inner.deadlines.first()
            && *at <= now.instant
            && let Some((_, name)) = inner.deadlines.pop_first()
        {
            let Some(cell) = inner.groups.get_mut(&name) else { continue };
            cell.scheduled = None;
            let step = cell.group.elapse(now);
            self.follow(inner, &name, step);
        }
        if inner.next_sweep <= now.instant && inner.status == Status::Active {
            inner.next_sweep = now.instant + self.shared.parts.config.groups.offsets_retention_check_interval;
            self.sweep(inner);
        }
    }

    /// What became of the records at this offset. That they are durable says so of all before them.
    fn settle(&self, offset: i64, outcome: Outcome) {
        let mut inner = self.inner.lock();
        let code = match outcome {
            Outcome::Durable => {
                let later = inner.appended.split_off(&(offset + 1));
                let settled = std::mem::replace(&mut inner.appended, later);
                for (offset, appended) in settled {
                    self.apply(&mut inner, offset, appended.change, Ok(()));
                }
                return;
            }
            Outcome::Fenced => ResponseError::NotCoordinator,
            Outcome::Unknown => ResponseError::CoordinatorNotAvailable,
        };
        if let Some(appended) = inner.appended.remove(&offset) {
            tracing::warn!(partition = %self.partition.id(), offset, ?outcome, "a group's records may be lost");
            self.apply(&mut inner, offset, appended.change, Err(code));
        }
    }

    /// Makes visible what records say, if they are durable, and answers who waited for it.
    fn apply(&self, inner: &mut Inner, offset: i64, change: Change, outcome: Result<(), ResponseError>) {
        let answer = match change {
            Change::Commit { group, offsets, answer } => {
                if let Some(cell) = inner.groups.get_mut(&group) {
                    for ((topic, partition, committed), record_offset) in offsets.into_iter().zip(offset..) {
                        if outcome.is_ok() {
                            cell.offsets.apply(&topic, partition, committed, record_offset);
                        }
                        cell.offsets.end(&topic, partition);
                    }
                }
                inner.drop_if_nothing(&group);
                answer
            }
            Change::Forget { group, offsets, write, answer } => {
                if let Some(cell) = inner.groups.get_mut(&group) {
                    for ((topic, partition), record_offset) in offsets.iter().zip(offset..) {
                        if outcome.is_ok() {
                            cell.offsets.remove(topic, *partition, record_offset);
                        }
                        cell.offsets.end(topic, *partition);
                    }
                }
                if let Some(write) = write {
                    self.written(inner, &group, write, outcome);
                    if outcome.is_ok() {
                        inner.remove(&group);
                    }
                }
                answer
            }
            Change::Group { group, write } => {
                self.written(inner, &group, write, outcome);
                None
            }
        };
        if let Some(answer) = answer {
            // Whoever asked may have given up.
            let _ = answer.send(outcome);
        }
    }

    fn written(&self, inner: &mut Inner, name: &str, write: WriteId, outcome: Result<(), ResponseError>) {
        if let Some(cell) = inner.groups.get_mut(name) {
            let step = cell.group.written(write, outcome, self.shared.now());
            self.follow(inner, name, step);
        }
    }

    /// Does what an event of a group asks for, and keeps its deadline. To be called after every event.
    pub(super) fn follow(&self, inner: &mut Inner, name: &str, mut step: Step) {
        while let Some(write) = step.write.take() {
            let Err(code) = self.write(inner, name, &write, None) else { break };
            let Some(cell) = inner.groups.get_mut(name) else { return };
            step = cell.group.written(write.id, Err(code), self.shared.now());
        }
        self.schedule(inner, name);
        inner.drop_if_nothing(name);
    }

    /// Appends what a group wants written.
    pub(super) fn write(
        &self,
        inner: &mut Inner,
        name: &str,
        write: &Write,
        answer: Option<Answer>,
    ) -> Result<(), ResponseError> {
        match &write.kind {
            WriteKind::Metadata(metadata) => {
                let record = records::group_record(name, Some(metadata)).map_err(|error| {
                    tracing::warn!(group = name, %error, "a group cannot be written down");
                    ResponseError::UnknownServerError
                })?;
                let change = Change::Group { group: name.to_owned(), write: write.id };
                self.append_now(inner, &[record], change)
            }
            WriteKind::Tombstone => self.append_tombstones(inner, name, write.id, answer),
        }
    }

    /// Appends records for which no memory was reserved; fails rather than waits for it.
    pub(super) fn append_now(
        &self,
        inner: &mut Inner,
        records: &[KeyValue],
        change: Change,
    ) -> Result<(), ResponseError> {
        let batch = self.batch(records).map_err(|error| {
            tracing::warn!(partition = %self.partition.id(), %error, "a group's records cannot be appended");
            ResponseError::UnknownServerError
        })?;
        let permit = self.shared.parts.budget.try_take(batch.len()).ok_or(ResponseError::CoordinatorNotAvailable)?;
        self.append(inner, batch, permit, change)
    }

    /// One batch, as the partition takes it.
    pub(super) fn batch(&self, records: &[KeyValue]) -> Result<ValidBatch, BatchError> {
        let Shared { parts, .. } = &*self.shared;
        let topic = parts.topics.by_id(self.partition.id().topic);
        let max_bytes = topic.map_or(parts.config.message_max_bytes, |topic| topic.config.max_message_bytes);
        batch::validate(records::batch(records, parts.clock.now_ms()), batch::Limits { max_bytes, zstd: true })
    }

    /// Appends a batch; what it says is applied when it is durable.
    pub(super) fn append(
        &self,
        inner: &mut Inner,
        batch: ValidBatch,
        permit: Permit,
        change: Change,
    ) -> Result<(), ResponseError> {
        let log = self.shared.parts.partitions.log().ok_or(ResponseError::NotCoordinator)?;
        let (offset, durability) = match self.partition.append(&*log, batch, permit) {
            AppendResult::Appended { base_offset, durability, .. } => (base_offset, durability),
            // Without a producer id nothing is a duplicate.
            AppendResult::Duplicate { .. } | AppendResult::OldDuplicate { .. } => {
                return Err(ResponseError::UnknownServerError);
            }
            AppendResult::Rejected(_) => return Err(ResponseError::NotCoordinator),
        };
        change.announce(inner);
        if matches!(change, Change::Commit { .. }) && planted::bug("commit-before-durable") {
            self.apply(inner, offset, change, Ok(()));
            return Ok(());
        }
        if inner.appended.is_empty() {
            self.wake.notify_one();
        }
        inner.appended.insert(offset, Appended { durability, change });
        Ok(())
    }

    /// Keeps the group's place among the deadlines. A deadline that moved on is noticed when the old one is due.
    pub(super) fn schedule(&self, inner: &mut Inner, name: &str) {
        let Inner { groups, deadlines, .. } = inner;
        let Some(cell) = groups.get_mut(name) else { return };
        let Some(due) = cell.group.next_deadline() else { return };
        if cell.scheduled.is_some_and(|scheduled| scheduled <= due) {
            return;
        }
        if let Some(scheduled) = cell.scheduled.replace(due) {
            deadlines.remove(&(scheduled, name.to_owned()));
        }
        if deadlines.first().is_none_or(|(first, _)| due < *first) {
            self.wake.notify_one();
        }
        deadlines.insert((due, name.to_owned()));
    }
}

impl Inner {
    /// When the task has to look again. Offsets are not looked after where there are none.
    fn next_due(&self) -> Option<Instant> {
        let sweep = (!self.groups.is_empty()).then_some(self.next_sweep);
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        deadline.into_iter().chain(sweep).min()
    }

    /// Partitions whose offsets are on their way into the log.
    pub(super) fn commits_under_way(&self, name: &str) -> BTreeSet<(String, i32)> {
        let commits = self.appended.values().filter_map(|appended| match &appended.change {
            Change::Commit { group, offsets, .. } if group == name => Some(offsets),
            _ => None,
        });
        commits.flatten().map(|(topic, partition, _)| (topic.clone(), *partition)).collect()
    }

    pub(super) fn drop_if_nothing(&mut self, name: &str) {
        if self.groups.get(name).is_some_and(Cell::is_nothing) {
            self.remove(name);
        }
    }

    fn remove(&mut self, name: &str) {
        if let Some(scheduled) = self.groups.remove(name).and_then(|cell| cell.scheduled) {
            self.deadlines.remove(&(scheduled, name.to_owned()));
        }
    }
}

impl Change {
    /// Tells the group's offsets that records about them are under way.
    fn announce(&self, inner: &mut Inner) {
        match self {
            Change::Commit { group, offsets, .. } => {
                let Some(cell) = inner.groups.get_mut(group) else { return };
                offsets.iter().for_each(|(topic, partition, _)| cell.offsets.begin(topic, *partition));
            }
            Change::Forget { group, offsets, .. } => {
                let Some(cell) = inner.groups.get_mut(group) else { return };
                offsets.iter().for_each(|(topic, partition)| cell.offsets.begin(topic, *partition));
            }
            Change::Group { .. } => {}
        }
    }
}
