//! Merging: tiered objects of one class are joined into one of the next, up to `merge_object_bytes`, so that neither
//! their number nor that of a partition's runs grows with the number of rounds.
//!
//! The work is done beside rounds, which do not wait for it, an object at a time; only the commit is made between them. It
//! waits for memory that is free, for a while, rather than take what others have cached.
//! What hardly anybody wants any more is written anew alone, for the space that it takes.
//! Invariants:
//! - What is merged is all that partitions want of the chosen objects, so that these are wanted by nobody afterwards.
//! - A stretch is merged only if it still consists of the runs that were read: what was deleted or compacted meanwhile,
//!   stays as it is.
//! - Whatever ends a merge leaves orphans at most.

mod choose;

use std::collections::{BTreeMap, BTreeSet};

use meta::planted;
use storage::budget::Permit;
use storage::entry::{FragmentId, Run};
use storage::error::{Error, Result};
use storage::fragment::{HEADER_BYTES, entries_of};
use storage::manifest::{Change, Part, Stretch};
use storage::partition_index::PartitionIndex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::join::Pace;
use super::rewrite::{self, Job, Rewritten};
use super::{PAUSE_MAX, Worker, retention};

use self::choose::{Candidate, Most, choose};

/// A run covers at most this share of the time, and of the bytes, that its partition keeps: retention takes whole runs.
const RETENTION_SHARE: i64 = 8;

/// A merge that is being done, or was.
pub struct Merge {
    sources: BTreeSet<FragmentId>,
    began: Instant,
    task: Task,
    joined: Option<Joined>,
}

/// The task in which runs are read and written. Dropping it stops it.
struct Task(JoinHandle<Joined>);

/// What has come of a task: what it was to do, every object that it has begun, and those that count.
struct Joined {
    jobs: Vec<Job>,
    begun: Vec<FragmentId>,
    outcome: Result<Rewritten>,
    /// For the jobs, and for what has come of them.
    paid: Option<Permit>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Merge {
    /// Returns when everything is written, or cannot be.
    pub async fn written(&mut self) {
        if self.joined.is_none() {
            let outcome = || Err(Error::Unknown { what: "a merge that was stopped".to_owned() });
            let lost = |_| Joined { jobs: Vec::new(), begun: Vec::new(), outcome: outcome(), paid: None };
            self.joined = Some((&mut self.task.0).await.unwrap_or_else(lost));
        }
    }

    /// Nobody has waited for its end yet.
    pub fn is_under_way(&self) -> bool {
        self.joined.is_none()
    }

    pub fn is_written(&self) -> bool {
        self.joined.is_some() || self.task.0.is_finished()
    }
}

impl Worker {
    /// Commits what was merged, and begins the next merge if one is worth it.
    pub(super) async fn merge(&mut self) -> Result<()> {
        if let Some(mut merge) = self.merging.take_if(|merge| merge.is_written()) {
            merge.written().await;
            self.merge_due = Some(Instant::now());
            if let Some(Joined { jobs, begun, outcome, paid: _paid }) = merge.joined.take() {
                // If nothing comes of them, they go.
                self.referenced.extend(begun);
                match outcome {
                    Ok(rewritten) => self.commit_merge(&merge, &jobs, rewritten).await?,
                    // Upkeep ends.
                    Err(error @ Error::Closed { .. }) => return Err(error),
                    Err(error) => self.merge_failed(&merge, &error),
                }
            }
        }
        if self.merging.is_none() && self.merge_due.is_some_and(|due| due <= Instant::now()) {
            self.merge_due = None;
            self.merging = self.begin_merge();
        }
        Ok(())
    }

    fn begin_merge(&mut self) -> Option<Merge> {
        let mut joiner = self.joiner(Pace::LEISURE);
        let most = Most { bytes: joiner.limits.object_bytes, entries: joiner.limits.entries };
        if most.bytes == 0 {
            return None;
        }
        let found = self.candidates();
        self.ages.retain(|object, _| found.contains_key(object));
        let mut candidates: Vec<Candidate> = found.into_values().collect();
        candidates.sort_by_key(|candidate| (self.age(candidate.id), candidate.id));
        let sources: BTreeSet<FragmentId> = choose(&candidates, most).into_iter().collect();
        if sources.is_empty() {
            return None;
        }
        let jobs = self.jobs_of(&sources);
        let task = tokio::spawn(async move {
            let kept_bytes = rewrite::memory_bytes(&jobs);
            let (paid, mut begun) = (joiner.pay_patiently(&jobs, kept_bytes).await, Vec::new());
            let outcome = joiner.join(&jobs, &mut begun).await;
            let paid = paid.shrink(kept_bytes);
            Joined { jobs, begun, outcome, paid: Some(paid) }
        });
        let began = Instant::now();
        Some(Merge { sources, began, task: Task(task), joined: None })
    }

    /// All tiered objects that the manifest names, but for those that cannot be read.
    fn candidates(&self) -> BTreeMap<FragmentId, Candidate> {
        let mut found: BTreeMap<FragmentId, Candidate> = BTreeMap::new();
        let now_ms = self.parts.clock.now_ms();
        for partition in self.parts.partitions.all() {
            let id = partition.id();
            let (Some(topic), Some(known)) = (self.parts.topics.by_id(id.topic), self.committed.get(&id)) else {
                continue;
            };
            partition.inspect(|index| {
                let goes_below = retention::soon(index, known.end, &topic.config, now_ms);
                for run in index.runs().take_while(|run| run.next_offset <= known.end) {
                    if !run.fragment.is_tiered() || self.unmergeable.contains(&run.fragment) {
                        continue;
                    }
                    let candidate = found.entry(run.fragment).or_insert_with(|| Candidate::new(run.fragment));
                    // The index comes after all entries: behind the last of them, or a little more.
                    let end = run.index_position.saturating_sub(HEADER_BYTES as u64);
                    candidate.stored_bytes = candidate.stored_bytes.min(end);
                    candidate.bytes += u64::from(run.length);
                    candidate.entries += entries_of(run);
                    candidate.going_bytes += if run.next_offset <= goes_below { u64::from(run.length) } else { 0 };
                }
            });
        }
        found
    }

    /// All runs in these objects: those of one partition that follow each other are one job.
    fn jobs_of(&self, sources: &BTreeSet<FragmentId>) -> Vec<Job> {
        let mut jobs = Vec::new();
        for partition in self.parts.partitions.all() {
            let id = partition.id();
            let (Some(topic), Some(known)) = (self.parts.topics.by_id(id.topic), self.committed.get(&id)) else {
                continue;
            };
            let config = &topic.config;
            let share = |of: i64| if of >= 0 && config.deletable { of / RETENTION_SHARE } else { i64::MAX };
            let segment_bytes = u64::try_from(share(config.retention_bytes)).unwrap_or(0);
            let segment_bytes = segment_bytes.min(self.run_bytes(config.segment_bytes));
            let new_job = || Job {
                partition: id,
                runs: Vec::new(),
                segment_bytes,
                span_ms: share(config.retention_ms),
                filter: None,
            };
            let mut job = new_job();
            partition.inspect(|index| {
                for run in index.runs().take_while(|run| run.next_offset <= known.end) {
                    if sources.contains(&run.fragment) {
                        job.runs.push(*run);
                    } else if !job.runs.is_empty() && !planted::bug("merge-skips-a-run") {
                        jobs.push(std::mem::replace(&mut job, new_job()));
                    }
                }
            });
            jobs.push(job);
        }
        jobs.retain(|job| !job.runs.is_empty());
        jobs.iter_mut().for_each(|job| job.runs.shrink_to_fit());
        jobs
    }

    fn age(&self, object: FragmentId) -> FragmentId {
        self.ages.get(&object).copied().unwrap_or(object)
    }

    fn merge_failed(&mut self, merge: &Merge, error: &Error) {
        let named = |key: &str| merge.sources.iter().copied().find(|source| source.key().as_ref() == key);
        match error {
            Error::Corrupt { key, .. } => {
                tracing::error!(%error, "what cannot be read is not merged, and stays as it is");
                match named(key) {
                    Some(source) => _ = self.unmergeable.insert(source),
                    None => self.unmergeable.extend(&merge.sources),
                }
            }
            Error::Missing { key } if named(key).is_some_and(|source| self.is_wanted(source)) => {
                tracing::error!(%error, "an object that the manifest names is lost");
                self.unmergeable.extend(named(key));
            }
            // Perhaps something was faster: a compaction, retention, a deletion. Then there is something else to merge now.
            _ => {
                let again_ms = PAUSE_MAX.as_millis();
                tracing::warn!(%error, again_ms, "merging failed, trying again");
                self.merge_due = Some(Instant::now() + PAUSE_MAX);
            }
        }
    }

    fn is_wanted(&self, object: FragmentId) -> bool {
        let has_run = |index: &PartitionIndex| index.runs().any(|run| run.fragment == object);
        self.parts.partitions.all().iter().any(|partition| partition.inspect(has_run))
    }

    async fn commit_merge(&mut self, merge: &Merge, jobs: &[Job], rewritten: Rewritten) -> Result<()> {
        let mut parts: Vec<Part> = Vec::new();
        let mut placed = Vec::new();
        for (job, runs) in jobs.iter().zip(rewritten.runs) {
            let (Some(known), Some(partition)) =
                (self.committed.get(&job.partition), self.parts.partitions.get(job.partition))
            else {
                continue;
            };
            let Some(stretch) = partition.inspect(|index| stretch(index, &job.runs, runs)) else { continue };
            if parts.last().is_none_or(|last| last.partition != job.partition) {
                parts.push(Part::of(job.partition, known.log_start, known.cleaned_to));
            }
            if let Some(part) = parts.last_mut() {
                part.stretches.push(stretch.clone());
            }
            placed.push((partition, stretch));
        }
        let youngest = merge.sources.iter().map(|source| self.age(*source)).max();
        self.ages.retain(|object, _| !merge.sources.contains(object));
        if let Some(age) = youngest {
            self.ages.extend(rewritten.objects.iter().map(|object| (*object, age)));
        }
        fail::fail_point!("upkeep::merged");
        if !parts.is_empty() {
            let change = Change { position: self.position, parts };
            self.commit_change(&change).await?;
            fail::fail_point!("upkeep::merge_committed");
        }
        let (objects, into, stretches) = (merge.sources.len(), rewritten.objects.len(), placed.len());
        let took_ms = merge.began.elapsed().as_millis();
        tracing::debug!(objects, into, stretches, took_ms, "merged");
        for (partition, Stretch { from, to, runs }) in placed {
            if let Err(error) = partition.replace_runs(from, to, &runs) {
                // Readers go on with the old runs, whose objects must therefore stay: they are still referred to.
                tracing::error!(partition = %partition.id(), %error, "runs that were merged do not fit");
            }
        }
        self.doom_unreferenced();
        Ok(())
    }
}

/// What is to be changed of a partition, if the runs that were read are still what it consists of there.
fn stretch(index: &PartitionIndex, read: &[Run], merged: Vec<Run>) -> Option<Stretch> {
    let (from, to) = (read.first()?.base_offset, read.last()?.next_offset);
    let begin = index.log_start();
    let now = index.runs_from(from).take_while(|run| run.next_offset <= to);
    let is_there = now.eq(read.iter().filter(|run| run.next_offset > begin));
    let ignored = planted::bug("merge-ignores-what-changed") || planted::bug("merge-skips-a-run");
    (to > begin && (is_there || ignored)).then_some(Stretch { from, to, runs: merged })
}

#[cfg(test)]
mod tests;
