//! One round: what has come since the last one is tiered or taken into the manifest as it lies, what has grown too old or
//! too much goes, and what was dropped is doomed.

use std::sync::Arc;

use bytes::Bytes;
use meta::keys::object;
use meta::planted;
use storage::budget::Permit;
use storage::entry::{FragmentId, Run, TopicPartition};
use storage::error::{Error, Result};
use storage::manifest::{Change, Commit, Part, Stretch};
use tokio::time::Instant;

use super::doomed::Garbage;
use super::retention;
use super::rewrite::{Job, RUN_MEMORY_BYTES};
use super::{Committed, Worker, at_ms};
use crate::partition::Partition;
use crate::partitions::{Most, Waiting};

/// In a folder, runs that are shorter than this on the average are moved.
const SHORT_RUN_BYTES: u64 = 64 << 10;
/// The share of the budget that is paid at most for what a round remembers of runs: those of a single fragment can be more.
const PAID_SHARE: usize = 8;

/// What a round does with one partition.
struct Plan {
    partition: Arc<Partition>,
    /// Durable before the round's position, and not in the manifest: where they are, and then where they are after the
    /// round. No more room than for these.
    runs: Vec<Run>,
    /// The offsets of what was moved.
    moved: Option<(i64, i64)>,
    /// The manifest has what lies below it, after the round.
    end: i64,
    log_start: i64,
    cleaned_to: i64,
    segment_bytes: u64,
    /// The manifest has it as it is.
    idle: bool,
}

impl Worker {
    /// Takes the oldest fragments, as `Backlog::oldest` chooses them. False if there were none.
    pub(super) async fn round(&mut self, keep_bytes: u64, max_bytes: u64) -> Result<bool> {
        let most = Most { bytes: max_bytes, runs: self.round_runs() };
        let taken = self.parts.partitions.backlog().oldest(keep_bytes, most);
        let next = |last: FragmentId| FragmentId { fragment: last.fragment + 1, ..last };
        let position = taken.last().map_or(self.position, |last| next(last.id));
        let _paid = self.pay(&taken).await;
        self.dropped |= self.parts.partitions.backlog().take_dropped();
        let mut plans = self.survey(position);
        let gone = self.gone();
        let is_long = self.parts.manifest.advice() == Commit::Base && !self.parts.manifest.named().is_empty();
        if taken.is_empty() && gone.is_empty() && !is_long && plans.iter().all(|plan| plan.idle) {
            self.dropped = false;
            return Ok(false);
        }
        self.place(&mut plans, taken.first().map(|first| first.id)).await?;
        fail::fail_point!("upkeep::tiered");
        let kind = self.parts.manifest.advice();
        if kind == Commit::Change {
            plans.retain(|plan| !plan.idle);
        }
        let change = self.change(position, kind, &plans, &gone);
        let unnamed = self.parts.manifest.commit(&change, kind).await?;
        fail::fail_point!("upkeep::committed");
        let old_parts = unnamed.iter().map(|part| object::manifest(part.log, part.number)).collect();
        self.settle(position, &taken, plans, &gone, old_parts);
        Ok(!taken.is_empty())
    }

    /// Pays for what is remembered of the runs in these fragments. It is held while more is waited for, but is little of what
    /// there is, and nobody who holds memory waits for a round.
    async fn pay(&self, taken: &[Waiting]) -> Option<Permit> {
        let bytes = taken.iter().map(|one| one.runs).sum::<usize>() * RUN_MEMORY_BYTES;
        let budget = &self.parts.budget;
        // Even nothing would have to wait while there is less than nothing.
        if bytes == 0 { None } else { Some(budget.take(bytes.min(budget.total_bytes() / PAID_SHARE)).await) }
    }

    /// What is to be done with every partition that is open.
    fn survey(&mut self, position: FragmentId) -> Vec<Plan> {
        let now_ms = self.parts.clock.now_ms();
        let mut next_ms = None;
        let mut plans = Vec::new();
        for partition in self.parts.partitions.all() {
            let Some(topic) = self.parts.topics.by_id(partition.id().topic) else { continue };
            let config = &topic.config;
            let committed = self.committed.get(&partition.id());
            let plan = partition.inspect(|index| {
                // Where the runs begin that are left: it may have moved beyond what the manifest has.
                let begin = index.runs().next().map_or(index.next_offset(), |run| run.base_offset);
                let from = committed.map_or(begin, |known| known.end.max(begin));
                let fresh = index.runs_from(from).skip_while(|run| run.base_offset < from);
                let mut runs: Vec<Run> = fresh.take_while(|run| run.fragment < position).copied().collect();
                let end = runs.last().map_or(from, |run| run.next_offset);
                // The manifest does not begin where it knows of nothing.
                let log_start = retention::log_start(index, end, config, now_ms).min(end);
                // Not worth the way.
                runs.retain(|run| run.next_offset > log_start);
                runs.shrink_to_fit();
                let due_ms = retention::next_ms(index, log_start, config);
                next_ms = [next_ms, due_ms].into_iter().flatten().min();
                Plan {
                    idle: runs.is_empty() && committed.map_or(0, |known| known.log_start) == log_start,
                    partition: partition.clone(),
                    runs,
                    moved: None,
                    end,
                    log_start,
                    cleaned_to: committed.map_or(0, |known| known.cleaned_to),
                    segment_bytes: config.segment_bytes,
                }
            });
            plans.push(plan);
        }
        let apart = self.parts.config.tier.retention_check_interval;
        self.retention_due = next_ms.map(|next_ms| at_ms(next_ms, now_ms, apart));
        plans
    }

    /// Partitions of the manifest whose topics were deleted.
    fn gone(&self) -> Vec<TopicPartition> {
        let open = |id: &TopicPartition| self.parts.partitions.get(*id).is_some();
        self.committed.keys().filter(|id| !open(id)).copied().collect()
    }

    /// Tiers the fresh runs of all partitions, or of those where it is worth it. The objects count as referred to from here
    /// on, so that they go if nothing comes of them.
    async fn place(&mut self, plans: &mut [Plan], first: Option<FragmentId>) -> Result<()> {
        let mut places = Vec::new();
        let mut jobs = Vec::new();
        let in_place = self.parts.in_place;
        for (place, plan) in plans.iter_mut().enumerate() {
            let bytes: u64 = plan.runs.iter().map(|run| u64::from(run.length)).sum();
            let short = bytes < SHORT_RUN_BYTES * plan.runs.len() as u64;
            let is_moved = (short || !in_place) && !self.unmovable.contains(&plan.partition.id());
            if !plan.runs.is_empty() && is_moved {
                let (partition, runs) = (plan.partition.id(), std::mem::take(&mut plan.runs));
                places.push(place);
                let segment_bytes = self.run_bytes(plan.segment_bytes);
                jobs.push(Job { partition, runs, segment_bytes, span_ms: i64::MAX, filter: None });
            }
        }
        if jobs.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        // The oldest of them comes first.
        let in_memory = first.is_none_or(|first| self.parts.partitions.reader().tail().reaches_back_to(first));
        let moved = match in_memory || !self.joins_fragments() {
            true => self.rewrite(&jobs).await,
            false => {
                let (joiner, mut begun) = (self.joiner(self.pace()), Vec::new());
                let _paid = joiner.pay(&jobs, 0).await;
                let joined = joiner.join(&jobs, &mut begun).await;
                // If nothing comes of them, they go.
                self.referenced.extend(begun);
                joined
            }
        };
        let rewritten = moved.inspect_err(|error| self.leave_damaged(error, &jobs))?;
        let (runs, objects) = (jobs.iter().map(|job| job.runs.len()).sum::<usize>(), rewritten.objects.len());
        let into_runs = rewritten.runs.iter().map(Vec::len).sum::<usize>();
        tracing::debug!(runs, into_runs, objects, took_ms = began.elapsed().as_millis(), "tiered");
        for ((place, job), mut runs) in places.into_iter().zip(jobs).zip(rewritten.runs) {
            plans[place].moved = job.span();
            runs.shrink_to_fit();
            plans[place].runs = runs;
        }
        Ok(())
    }

    /// What cannot be read must not hold up everybody else: it stays where it is, and so does what its partitions have.
    fn leave_damaged(&mut self, error: &Error, jobs: &[Job]) {
        let (Error::Corrupt { key, .. } | Error::Missing { key }) = error else { return };
        let is_there = |run: &Run| self.parts.logs.key(run.fragment) == *key || run.fragment.key().as_ref() == key;
        for job in jobs.iter().filter(|job| job.runs.iter().any(is_there)) {
            tracing::error!(partition = %job.partition, %error, "a partition is not tiered any more");
            self.unmovable.insert(job.partition);
        }
    }

    /// Commits what is no round, and must not let the manifest grow without bound either.
    pub(super) async fn commit_change(&mut self, change: &Change) -> Result<()> {
        self.parts.manifest.commit(change, Commit::Change).await?;
        self.last_commit = Some(Instant::now());
        // The next round, if there is nothing else in it, writes the manifest anew.
        self.dropped |= self.parts.manifest.advice() == Commit::Base;
        Ok(())
    }

    fn change(&self, position: FragmentId, kind: Commit, plans: &[Plan], gone: &[TopicPartition]) -> Change {
        let mut parts = Vec::new();
        for plan in plans {
            let id = plan.partition.id();
            let mut part = Part::of(id, plan.log_start, plan.cleaned_to);
            let mut runs = Vec::new();
            if kind == Commit::Base {
                let known = self.committed.get(&id).map_or(i64::MIN, |known| known.end);
                let kept = |run: &&Run| run.next_offset <= known && run.next_offset > plan.log_start;
                plan.partition.inspect(|index| runs.extend(index.runs().filter(kept)));
            }
            runs.extend(plan.runs.iter().copied());
            if let Some(first) = runs.first() {
                part.stretches.push(Stretch { from: first.base_offset, to: first.base_offset, runs });
            }
            let end_before = self.committed.get(&id).map(|known| known.end);
            // The end moves without runs as well: where what came was deleted before its fragments were taken. Its
            // producers must not be forgotten, for a replay leaves such fragments out.
            if kind == Commit::Base || end_before != Some(plan.end) {
                part.producers = Some(Bytes::from(plan.partition.producers_below(plan.end)));
            }
            parts.push(part);
        }
        if kind == Commit::Change {
            parts.extend(gone.iter().map(|id| Part { gone: true, ..Part::of(*id, 0, 0) }));
            parts.sort_by_key(|part| part.partition);
        }
        Change { position, parts }
    }

    /// The change is durable: it becomes what readers see, and what it left behind is doomed.
    fn settle(
        &mut self,
        position: FragmentId,
        taken: &[Waiting],
        plans: Vec<Plan>,
        gone: &[TopicPartition],
        old_parts: Vec<object_store::path::Path>,
    ) {
        let mut dropped = !gone.is_empty() || self.dropped;
        for plan in plans {
            let id = plan.partition.id();
            let before = self.committed.get(&id).map_or(0, |known| known.log_start);
            dropped |= plan.log_start > before;
            plan.partition.raise_log_start(plan.log_start);
            if let Some((from, to)) = plan.moved
                && let Err(error) = plan.partition.replace_runs(from, to, &plan.runs)
            {
                // Readers go on with the old runs, whose fragments must therefore stay.
                tracing::error!(partition = %id, %error, "runs that were moved do not fit");
            }
            let Plan { end, log_start, cleaned_to, .. } = plan;
            self.committed.insert(id, Committed { end, log_start, cleaned_to });
        }
        self.committed.retain(|id, _| gone.binary_search(id).is_err());
        let segment_ended = (position.log, position.segment) != (self.position.log, self.position.segment);
        self.position = position;
        self.parts.partitions.backlog().forget(taken.len());
        self.parts.partitions.reader().tail().forget_before(position);
        self.referenced.extend(taken.iter().map(|one| self.parts.logs.unit(one.id)));
        self.dropped = false;
        self.last_commit = Some(Instant::now());
        self.merge_due = Some(Instant::now());
        if dropped || segment_ended || !self.parts.in_place || planted::bug("unit-deleted-while-referenced") {
            self.doom_unreferenced();
        }
        let garbage = Garbage { units: Vec::new(), parts: old_parts };
        self.doomed.push(garbage, self.parts.config.tier.delete_delay);
    }

    /// Dooms what no partition has a run in. If the manifest still has what partitions have dropped since it was
    /// committed, the next round does: what is deleted was dropped from the manifest before.
    pub(super) fn doom_unreferenced(&mut self) {
        let units = self.unreferenced();
        if self.is_behind() {
            self.dropped = true;
            return;
        }
        self.referenced.retain(|unit| units.binary_search(unit).is_err());
        self.doomed.push(Garbage { units, parts: Vec::new() }, self.parts.config.tier.delete_delay);
    }

    /// Has something been deleted that the manifest still has?
    fn is_behind(&self) -> bool {
        self.committed.iter().any(|(id, known)| {
            let start = self.parts.partitions.get(*id).map(|open| open.inspect(|index| index.log_start()));
            start.is_none_or(|start| start.min(known.end) > known.log_start)
        })
    }

    /// Units before the position that no partition has a run in.
    fn unreferenced(&self) -> Vec<FragmentId> {
        let mut live = std::collections::BTreeSet::new();
        for partition in self.parts.partitions.all() {
            partition.inspect(|index| live.extend(index.runs().map(|run| self.parts.logs.unit(run.fragment))));
        }
        if planted::bug("unit-deleted-while-referenced") {
            live.pop_first();
        }
        let complete = |unit: &FragmentId| match (unit.is_tiered(), self.parts.in_place) {
            (true, _) => true,
            (false, true) => (unit.log, unit.segment) < (self.position.log, self.position.segment),
            (false, false) => *unit < self.position,
        };
        self.referenced.iter().filter(|unit| complete(unit) && !live.contains(unit)).copied().collect()
    }
}
