//! The runs of one partition, in the order of their offsets: what a broker keeps in memory of a partition's data.
//!
//! Invariants:
//! - Runs join without gap or overlap: each begins where the one before ends. `append` refuses anything else, naming the
//!   partition, and changes nothing.
//! - Leader epochs never fall along the chain.
//! - Only durable runs are in here, so `next_offset` is never above the high watermark.
//!
//! Runs of different logs alternate freely (a partition can move away and come back while a log is open), so neither
//! the number of the log nor that of the fragment says anything about the order.

use std::collections::VecDeque;

use meta::planted;

use crate::entry::{Run, TopicPartition};
use crate::error::{Error, Result};

/// Runs whose highest timestamp is summed up in one number, to find a timestamp without looking at every run.
const GROUP_RUNS: u64 = 64;

/// The chain of one partition's runs. About 100 bytes a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionIndex {
    partition: TopicPartition,
    log_start: i64,
    next_offset: i64,
    /// How many runs were dropped from the front: run i of `runs` is number `dropped + i`.
    dropped: u64,
    runs: VecDeque<Run>,
    /// The highest timestamp in each group of runs (numbers n * GROUP_RUNS on); the first belongs to `runs[0]`.
    group_max_timestamps: VecDeque<i64>,
    /// The first offset of every leader epoch that has data, in order of both.
    epochs: Vec<EpochStart>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct EpochStart {
    epoch: i32,
    start_offset: i64,
}

/// Where a leader epoch ended, as OffsetForLeaderEpoch answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEnd {
    /// The requested epoch, or the highest below it that has data.
    pub epoch: i32,
    /// Exclusive: the first offset of the next epoch, or the partition's end for the latest epoch.
    pub end_offset: i64,
}

impl PartitionIndex {
    /// An empty partition: its first run has to begin at `log_start`.
    pub fn new(partition: TopicPartition, log_start: i64) -> Self {
        Self {
            partition,
            log_start,
            next_offset: log_start,
            dropped: 0,
            runs: VecDeque::new(),
            group_max_timestamps: VecDeque::new(),
            epochs: Vec::new(),
        }
    }

    pub fn partition(&self) -> TopicPartition {
        self.partition
    }

    /// The first offset that a reader may ask for.
    pub fn log_start(&self) -> i64 {
        self.log_start
    }

    /// The offset after the last one here.
    pub fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// Number of runs.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The length of all runs. Looks at every one of them.
    pub fn stored_bytes(&self) -> u64 {
        self.runs.iter().map(|run| u64::from(run.length)).sum()
    }

    /// Adds a run at the end. Fails, changing nothing, if it does not begin exactly where the last one ended.
    pub fn append(&mut self, run: Run) -> Result<()> {
        self.check(&run)?;
        if self.epochs.last().is_none_or(|last| last.epoch < run.leader_epoch) {
            self.epochs.push(EpochStart { epoch: run.leader_epoch, start_offset: run.base_offset });
        }
        let number = self.dropped + self.runs.len() as u64;
        match self.group_max_timestamps.back_mut() {
            Some(max) if !number.is_multiple_of(GROUP_RUNS) => *max = (*max).max(run.max_timestamp),
            _ => self.group_max_timestamps.push_back(run.max_timestamp),
        }
        if self.runs.len() == self.runs.capacity() {
            // Grows by an eighth rather than doubling: this is most of an idle partition's memory.
            self.runs.reserve_exact((self.runs.len() / 8).max(4));
        }
        self.runs.push_back(run);
        self.next_offset = run.next_offset;
        Ok(())
    }

    fn check(&self, run: &Run) -> Result<()> {
        let refuse = |why: String| Err(Error::Corrupt { key: format!("partition {}", self.partition), why });
        if run.next_offset <= run.base_offset {
            return refuse(format!("fragment {} has offsets {}..{}", run.fragment, run.base_offset, run.next_offset));
        }
        let joins = run.base_offset == self.next_offset
            || (planted::bug("replay-skips-gap") && run.base_offset > self.next_offset);
        if !joins {
            let what = if run.base_offset > self.next_offset { "a gap" } else { "an overlap" };
            return refuse(format!(
                "{what}: fragment {} begins at offset {}, but the data before it ends at {}",
                run.fragment, run.base_offset, self.next_offset
            ));
        }
        if let Some(last) = self.epochs.last()
            && last.epoch > run.leader_epoch
        {
            return refuse(format!(
                "fragment {} has leader epoch {} at offset {}, after epoch {}",
                run.fragment, run.leader_epoch, run.base_offset, last.epoch
            ));
        }
        Ok(())
    }

    /// The run that holds an offset. None outside [log_start, next_offset).
    pub fn find(&self, offset: i64) -> Option<&Run> {
        if offset < self.log_start { None } else { self.runs.get(self.place(offset)) }
    }

    /// Runs in order, beginning with the one that holds `offset`.
    pub fn runs_from(&self, offset: i64) -> impl Iterator<Item = &Run> {
        self.runs.range(self.place(offset.max(self.log_start))..)
    }

    /// All runs, in order.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter()
    }

    /// Place of the first run that ends after `offset`.
    fn place(&self, offset: i64) -> usize {
        self.runs.partition_point(|run| run.next_offset <= offset)
    }

    /// The first run with offsets at or above `from_offset` whose highest timestamp is at least `timestamp`. Timestamps
    /// need not rise with offsets: this is the first by offset, and an earlier run certainly holds no such timestamp.
    /// If the entries that carry it lie below `from_offset`, the caller goes on after this run.
    pub fn find_timestamp(&self, timestamp: i64, from_offset: i64) -> Option<&Run> {
        let mut place = self.place(from_offset.max(self.log_start));
        while place < self.runs.len() {
            let (group, end) = self.group_of(place);
            if self.group_max_timestamps[group] >= timestamp {
                let found = self.runs.range(place..end).find(|run| run.max_timestamp >= timestamp);
                if found.is_some() {
                    return found;
                }
            }
            place = end;
        }
        None
    }

    /// Of the runs from the one that holds `from_offset` on, the first that has their highest timestamp.
    pub fn max_timestamp_run(&self, from_offset: i64) -> Option<&Run> {
        let place = self.place(from_offset.max(self.log_start));
        if place == self.runs.len() {
            return None;
        }
        let (group, end) = self.group_of(place);
        let in_group = self.runs.range(place..end).map(|run| run.max_timestamp).max();
        let behind = self.group_max_timestamps.iter().skip(group + 1).copied().max();
        self.find_timestamp(in_group.max(behind)?, from_offset)
    }

    /// The group that a place in `runs` belongs to, and the place where that group ends.
    fn group_of(&self, place: usize) -> (usize, usize) {
        let number = self.dropped + place as u64;
        let group = number / GROUP_RUNS - self.dropped / GROUP_RUNS;
        let end = (number / GROUP_RUNS + 1) * GROUP_RUNS - self.dropped;
        (group as usize, (end as usize).min(self.runs.len()))
    }

    /// The newest epoch that has data.
    pub fn latest_epoch(&self) -> Option<i32> {
        self.epochs.last().map(|last| last.epoch)
    }

    /// Where an epoch ended, by KIP-101's rules. None for an epoch newer than all data here.
    pub fn epoch_end(&self, epoch: i32) -> Option<EpochEnd> {
        let after = self.epochs.partition_point(|start| start.epoch <= epoch);
        let known = after.checked_sub(1).map(|last| self.epochs[last].epoch);
        match self.epochs.get(after) {
            // Older than all data here: it ended where the oldest epoch that is left begins.
            Some(next) => Some(EpochEnd { epoch: known.unwrap_or(epoch), end_offset: next.start_offset }),
            None => known.filter(|known| *known == epoch).map(|epoch| EpochEnd { epoch, end_offset: self.next_offset }),
        }
    }

    /// Puts other runs in the place of those that begin at or after `from` and end at or before `to`: the same records, or
    /// what compaction left of them, elsewhere. They must stand for the same offsets as what they replace. Whatever lies
    /// below the log start by now is left out.
    pub fn replace(&mut self, from: i64, to: i64, runs: &[Run]) -> Result<()> {
        let refuse = |why: String| Err(Error::Corrupt { key: format!("partition {}", self.partition), why });
        let begin = self.runs.partition_point(|run| run.base_offset < from);
        let end = self.runs.partition_point(|run| run.next_offset <= to).max(begin);
        let old = || self.runs.range(begin..end);
        let kept: Vec<Run> = runs.iter().filter(|run| run.next_offset > self.log_start).copied().collect();
        let joined = kept.windows(2).all(|pair| pair[0].next_offset == pair[1].base_offset);
        let span = |first: Option<i64>, last: Option<i64>| first.zip(last);
        // What begins below the log start begins wherever it did; it is cut there.
        let wanted =
            span(old().next().map(|run| run.base_offset.max(self.log_start)), old().last().map(|run| run.next_offset));
        let given =
            span(kept.first().map(|run| run.base_offset.max(self.log_start)), kept.last().map(|run| run.next_offset));
        if !joined || wanted != given {
            return refuse(format!("runs of offsets {given:?} are to replace those of {wanted:?}"));
        }
        let after = self.runs.split_off(end);
        self.runs.truncate(begin);
        self.runs.extend(kept);
        self.runs.extend(after);
        self.runs.shrink_to(self.runs.len() + self.runs.len() / 8 + 4);
        self.sum_up_all();
        Ok(())
    }

    fn sum_up_all(&mut self) {
        self.dropped = 0;
        self.group_max_timestamps.clear();
        for (number, run) in (0_u64..).zip(&self.runs) {
            match self.group_max_timestamps.back_mut() {
                Some(max) if !number.is_multiple_of(GROUP_RUNS) => *max = (*max).max(run.max_timestamp),
                _ => self.group_max_timestamps.push_back(run.max_timestamp),
            }
        }
    }

    /// Moves the log start offset up; runs that lie wholly below it are forgotten. Never moves down, and never beyond
    /// the end.
    pub fn advance_log_start(&mut self, offset: i64) {
        let offset = offset.min(self.next_offset);
        if offset <= self.log_start {
            return;
        }
        self.log_start = offset;
        let gone = self.place(offset);
        if gone > 0 {
            let groups_before = self.dropped / GROUP_RUNS;
            self.runs.drain(..gone);
            self.dropped += gone as u64;
            let groups_gone = (self.dropped / GROUP_RUNS - groups_before) as usize;
            self.group_max_timestamps.drain(..groups_gone.min(self.group_max_timestamps.len()));
            self.sum_up_first_group();
        }
        let epochs_gone = self.epochs.partition_point(|start| start.start_offset <= offset).saturating_sub(1);
        self.epochs.drain(..epochs_gone);
        if let Some(first) = self.epochs.first_mut() {
            first.start_offset = first.start_offset.max(offset);
        }
    }

    fn sum_up_first_group(&mut self) {
        if self.runs.is_empty() {
            // The next run must open a group, whatever its number.
            self.group_max_timestamps.clear();
            self.dropped = 0;
            return;
        }
        let (_, end) = self.group_of(0);
        let max = self.runs.range(..end).map(|run| run.max_timestamp).max();
        if let (Some(first), Some(max)) = (self.group_max_timestamps.front_mut(), max) {
            *first = max;
        }
    }
}

#[cfg(test)]
mod tests;
