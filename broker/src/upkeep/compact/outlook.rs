//! Whether a partition is worth compacting, and when it will be though nothing comes. Pure.

use storage::entry::Run;
use storage::partition_index::PartitionIndex;

use super::super::Committed;
use crate::topics::TopicConfig;

/// What is to be done about one partition.
#[derive(Debug, PartialEq, Eq)]
pub struct Outlook {
    /// All runs up to where a pass may reach. None if it is not worth it now.
    pub runs: Vec<Run>,
    /// When to look again, in milliseconds since the epoch: something will be old enough to be compacted, or too old to
    /// wait any longer.
    pub next_ms: Option<i64>,
}

impl Outlook {
    /// Only what is in the manifest counts.
    pub fn of(index: &PartitionIndex, known: Committed, config: &TopicConfig, now_ms: i64) -> Self {
        let is_old_enough = |run: &Run| {
            run.next_offset <= known.cleaned_to
                || now_ms.saturating_sub(run.max_timestamp) >= config.min_compaction_lag_ms
        };
        let committed = || index.runs().take_while(|run| run.next_offset <= known.end);
        let runs: Vec<Run> = committed().take_while(|run| is_old_enough(run)).copied().collect();
        let young = committed().nth(runs.len());
        let old_enough_ms = young.and_then(|run| run.max_timestamp.checked_add(config.min_compaction_lag_ms));

        let dirty = || runs.iter().filter(|run| run.next_offset > known.cleaned_to);
        let bytes = |runs: &mut dyn Iterator<Item = &Run>| runs.map(|run| u64::from(run.length)).sum::<u64>();
        let dirty_bytes = bytes(&mut dirty());
        let first_ms = dirty().map(|run| run.max_timestamp).filter(|timestamp| *timestamp >= 0).min();
        // The limit is far beyond every time where there is none.
        let too_old_ms = first_ms.and_then(|first| first.checked_add(config.max_compaction_lag_ms)?.checked_add(1));
        let is_overdue = too_old_ms.is_some_and(|too_old| too_old <= now_ms);
        let share = u128::from(dirty_bytes) * 1_000_000 / u128::from(bytes(&mut runs.iter()).max(1));
        let is_worth_it = dirty_bytes > 0 && (is_overdue || share >= u128::from(config.min_dirty_millionths));
        let next_ms = [old_enough_ms, too_old_ms.filter(|_| !is_worth_it)].into_iter().flatten().min();
        Self { runs: if is_worth_it { runs } else { Vec::new() }, next_ms }
    }
}

#[cfg(test)]
mod tests;
