//! Compaction (`cleanup.policy=compact`): of the records with one key, the last one stays.
//!
//! A pass maps the keys of what was not compacted yet, then rewrites everything from the partition's beginning to where the
//! map reaches, as tiering does: into new objects, committed with the manifest. Only what is in the manifest is looked at.
//! Invariants: whatever ends a pass, it either happened or did not; a partition whose records cannot be read is not
//! compacted any more.

use std::sync::Arc;

use meta::error::ErrorKind;
use storage::entry::Run;
use storage::error::Result;
use storage::manifest::{Change, Commit, Part, Stretch};
use tokio::time::Instant;

use super::doomed::Garbage;
use super::filter::{Filter, joined, uncompactable};
use super::rewrite::Job;
use super::{Committed, Worker};
use crate::compaction::{Added, FilterPolicy, KeyMap};
use crate::partition::Partition;
use crate::topics::TopicConfig;

/// Share of the memory that a map of keys takes at most.
const MAP_SHARE: usize = 16;

impl Worker {
    /// Compacts every partition that it is worth doing.
    pub(super) async fn compact(&mut self) -> Result<()> {
        for partition in self.parts.partitions.all() {
            let id = partition.id();
            let Some(topic) = self.parts.topics.by_id(id.topic).filter(|topic| topic.config.compacted) else {
                continue;
            };
            let Some(known) = self.committed.get(&id).copied() else { continue };
            let runs = self.runs_to_compact(&partition, &topic.config, known);
            if runs.is_empty() || self.uncleanable.contains(&id) {
                continue;
            }
            match self.pass(&partition, &topic.config, known, runs).await {
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    tracing::error!(partition = %id, %error, "a partition cannot be compacted, and is left as it is");
                    self.uncleanable.insert(id);
                }
                outcome => outcome?,
            }
        }
        Ok(())
    }

    /// All runs up to where a pass may reach. None if it is not worth it.
    fn runs_to_compact(&self, partition: &Partition, config: &TopicConfig, known: Committed) -> Vec<Run> {
        let now_ms = self.parts.clock.now_ms();
        let is_old_enough = |run: &Run| {
            run.next_offset <= known.cleaned_to
                || now_ms.saturating_sub(run.max_timestamp) >= config.min_compaction_lag_ms
        };
        let runs: Vec<Run> = partition.inspect(|index| {
            let committed = index.runs().take_while(|run| run.next_offset <= known.end);
            committed.take_while(|run| is_old_enough(run)).copied().collect()
        });
        let bytes = |runs: &mut dyn Iterator<Item = &Run>| runs.map(|run| u64::from(run.length)).sum::<u64>();
        let dirty = || runs.iter().filter(|run| run.next_offset > known.cleaned_to);
        let dirty_bytes = bytes(&mut dirty());
        let overdue = dirty().any(|run| {
            run.max_timestamp >= 0 && now_ms.saturating_sub(run.max_timestamp) > config.max_compaction_lag_ms
        });
        let share = u128::from(dirty_bytes) * 1_000_000 / u128::from(bytes(&mut runs.iter()).max(1));
        let worth_it = dirty_bytes > 0 && (overdue || share >= u128::from(config.min_dirty_millionths));
        if worth_it { runs } else { Vec::new() }
    }

    async fn pass(
        &mut self,
        partition: &Arc<Partition>,
        config: &TopicConfig,
        known: Committed,
        mut runs: Vec<Run>,
    ) -> Result<()> {
        let began = Instant::now();
        let keys = self.map_keys(partition, &runs, known.cleaned_to).await?;
        let covered_to = keys.covered_to();
        runs.retain(|run| run.base_offset < covered_to);
        let (Some(first), Some(last)) = (runs.first().copied(), runs.last().copied()) else { return Ok(()) };
        let policy = FilterPolicy {
            now_ms: self.parts.clock.now_ms(),
            delete_retention_ms: config.delete_retention_ms,
            keep_empty: false,
            levels: config.compression.levels,
        };
        let before_bytes: u64 = runs.iter().map(|run| u64::from(run.length)).sum();
        let id = partition.id();
        let filter = Some(Filter { keys, policy });
        let job = Job { partition: id, runs, segment_bytes: config.segment_bytes, filter };
        let mut rewritten = self.rewrite(std::slice::from_ref(&job)).await?;
        let runs = rewritten.runs.pop().unwrap_or_default();
        fail::fail_point!("upkeep::compacted");
        let mut part = Part::of(id, known.log_start, covered_to);
        part.stretches.push(Stretch { from: first.base_offset, to: last.next_offset, runs: runs.clone() });
        let change = Change { position: self.position, parts: vec![part] };
        self.parts.manifest.commit(&change, Commit::Change).await?;
        let after_bytes: u64 = runs.iter().map(|run| u64::from(run.length)).sum();
        let took_ms = began.elapsed().as_millis();
        tracing::debug!(partition = %id, covered_to, before_bytes, after_bytes, took_ms, "compacted");
        if let Err(error) = partition.replace_runs(first.base_offset, last.next_offset, &runs) {
            tracing::error!(partition = %id, %error, "runs that were compacted do not fit");
        }
        self.committed.insert(id, Committed { cleaned_to: covered_to, ..known });
        self.referenced.extend(rewritten.objects);
        let garbage = Garbage { units: self.unreferenced(), parts: Vec::new() };
        self.referenced.retain(|unit| garbage.units.binary_search(unit).is_err());
        self.doomed.push(garbage, self.parts.config.tier.delete_delay);
        self.last_commit = Some(Instant::now());
        Ok(())
    }

    /// The keys of what was not compacted yet, as far as there is room for them.
    async fn map_keys(&self, partition: &Partition, runs: &[Run], cleaned_to: i64) -> Result<KeyMap> {
        let id = partition.id();
        let from = runs.first().map_or(cleaned_to, |first| first.base_offset.max(cleaned_to));
        let most_keys = runs.last().map_or(0, |last| last.next_offset - from);
        let most_bytes = self.parts.config.memory_bytes / MAP_SHARE;
        let secret = self.parts.random.next_u128().to_be_bytes();
        let mut keys = KeyMap::new(most_bytes, u64::try_from(most_keys).unwrap_or(0), from, secret);
        for run in runs.iter().filter(|run| run.next_offset > from) {
            let whole = self.parts.partitions.reader().read_whole(id, run).await?;
            for (entry, pieces) in whole.entries {
                let batch = joined(&pieces);
                if keys.add(&batch).map_err(|error| uncompactable(&entry, run, &error))? == Added::Full {
                    return Ok(keys);
                }
                // Many batches must not keep others from running.
                tokio::task::yield_now().await;
            }
        }
        Ok(keys)
    }
}
