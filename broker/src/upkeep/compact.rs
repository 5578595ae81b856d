//! Compaction (`cleanup.policy=compact`): of the records with one key, the last one stays.
//!
//! A pass maps the keys of what was not compacted yet, then rewrites everything from the partition's beginning to where the
//! map reaches, as tiering does: into new objects, committed with the manifest. Only what is in the manifest is looked at.
//! Invariants: whatever ends a pass, it either happened or did not; a partition whose records cannot be read is not
//! compacted any more.

mod outlook;

use std::sync::Arc;
use std::time::Duration;

use meta::error::ErrorKind;
use storage::budget::Permit;
use storage::entry::Run;
use storage::error::{Error, Result};
use storage::manifest::{Change, Part, Stretch};
use tokio::time::Instant;

use super::filter::{Filter, joined, uncompactable};
use super::rewrite::Job;
use super::{Committed, Worker, at_ms};
use crate::compaction::{Added, FilterPolicy, KeyMap};
use crate::partition::Partition;
use crate::topics::TopicConfig;

use self::outlook::Outlook;

/// Share of the memory that a map of keys takes at most.
const MAP_SHARE: usize = 16;
/// What becomes due by itself is looked for so often at most.
const COMPACTIONS_APART: Duration = Duration::from_secs(1);

impl Worker {
    /// Compacts every partition that it is worth doing, and notes when it will be for others, though nothing comes.
    pub(super) async fn compact(&mut self) -> Result<()> {
        // Until it has been done.
        self.compaction_due = Some(Instant::now());
        let now_ms = self.parts.clock.now_ms();
        let mut next_ms = None;
        for partition in self.parts.partitions.all() {
            let id = partition.id();
            let Some(topic) = self.parts.topics.by_id(id.topic).filter(|topic| topic.config.compacted) else {
                continue;
            };
            let Some(known) = self.committed.get(&id).copied().filter(|_| !self.uncleanable.contains(&id)) else {
                continue;
            };
            let outlook = partition.inspect(|index| Outlook::of(index, known, &topic.config, now_ms));
            let mut due_ms = outlook.next_ms;
            if let Some(end) = outlook.runs.last().map(|last| last.next_offset) {
                match self.pass(&partition, &topic.config, known, outlook.runs).await {
                    Err(error) if error.kind() == ErrorKind::Corrupt || matches!(error, Error::Missing { .. }) => {
                        tracing::error!(partition = %id, %error, "a partition cannot be compacted, and is left as it is");
                        self.uncleanable.insert(id);
                    }
                    outcome => outcome?,
                }
                let cleaned_to = self.committed.get(&id).map_or(end, |now| now.cleaned_to);
                if known.cleaned_to < cleaned_to && cleaned_to < end {
                    // There was no room for more keys: others have their turn, then it goes on.
                    due_ms = Some(now_ms);
                }
            }
            next_ms = [next_ms, due_ms].into_iter().flatten().min();
        }
        self.compaction_due = next_ms.map(|next_ms| at_ms(next_ms, now_ms, COMPACTIONS_APART));
        Ok(())
    }

    async fn pass(
        &mut self,
        partition: &Arc<Partition>,
        config: &TopicConfig,
        known: Committed,
        mut runs: Vec<Run>,
    ) -> Result<()> {
        let began = Instant::now();
        let (keys, _paid) = self.map_keys(partition, &runs, known.cleaned_to).await?;
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
        let segment_bytes = self.run_bytes(config.segment_bytes);
        let job = Job { partition: id, runs, segment_bytes, span_ms: i64::MAX, filter };
        let mut rewritten = self.rewrite(std::slice::from_ref(&job)).await?;
        let runs = rewritten.runs.pop().unwrap_or_default();
        fail::fail_point!("upkeep::compacted");
        let mut part = Part::of(id, known.log_start, covered_to);
        part.stretches.push(Stretch { from: first.base_offset, to: last.next_offset, runs: runs.clone() });
        let change = Change { position: self.position, parts: vec![part] };
        self.commit_change(&change).await?;
        let after_bytes: u64 = runs.iter().map(|run| u64::from(run.length)).sum();
        let took_ms = began.elapsed().as_millis();
        tracing::debug!(partition = %id, covered_to, before_bytes, after_bytes, took_ms, "compacted");
        if let Err(error) = partition.replace_runs(first.base_offset, last.next_offset, &runs) {
            tracing::error!(partition = %id, %error, "runs that were compacted do not fit");
        }
        self.committed.insert(id, Committed { cleaned_to: covered_to, ..known });
        self.doom_unreferenced();
        Ok(())
    }

    /// The keys of what was not compacted yet, as far as there is room for them, and what pays for it.
    async fn map_keys(&self, partition: &Partition, runs: &[Run], cleaned_to: i64) -> Result<(KeyMap, Permit)> {
        let id = partition.id();
        let from = runs.first().map_or(cleaned_to, |first| first.base_offset.max(cleaned_to));
        let most_keys = runs.last().map_or(0, |last| last.next_offset - from);
        let most_bytes = self.parts.config.memory_bytes / MAP_SHARE;
        let secret = self.parts.random.next_u128().to_be_bytes();
        let mut keys = KeyMap::new(most_bytes, u64::try_from(most_keys).unwrap_or(0), from, secret);
        // At most this is ever waited for while something else is held, and it is far less than there is.
        let paid = self.parts.budget.take(keys.memory_bytes().min(self.parts.budget.total_bytes() / 4)).await;
        for run in runs.iter().filter(|run| run.next_offset > from) {
            let whole = self.parts.partitions.reader().read_whole(id, run).await?;
            for (entry, pieces) in whole.entries {
                let batch = joined(&pieces);
                if keys.add(&batch).map_err(|error| uncompactable(&entry, run, &error))? == Added::Full {
                    return Ok((keys, paid));
                }
                // Many batches must not keep others from running.
                tokio::task::yield_now().await;
            }
        }
        Ok((keys, paid))
    }
}
