//! Retention: where a partition begins after what is too old, or too much, has gone. Pure.
//!
//! Whole runs go, as whole segments do in Kafka, and only from the front.

use storage::entry::Run;
use storage::partition_index::PartitionIndex;

use crate::topics::TopicConfig;

/// Where the partition shall begin. `end`: only what lies below may go.
pub fn log_start(index: &PartitionIndex, end: i64, config: &TopicConfig, now_ms: i64) -> i64 {
    if !config.deletable {
        return index.log_start();
    }
    let mut start = index.log_start();
    let most_bytes = u64::try_from(config.retention_bytes).ok();
    let mut bytes: u64 = match most_bytes {
        Some(_) => index.runs().map(|run| u64::from(run.length)).sum(),
        None => 0,
    };
    for run in index.runs().take_while(|run| run.next_offset <= end) {
        let length = u64::from(run.length);
        let too_much = most_bytes.is_some_and(|most| bytes.saturating_sub(length) >= most);
        if !too_much && !is_too_old(run, config, now_ms) {
            break;
        }
        bytes = bytes.saturating_sub(length);
        start = run.next_offset;
    }
    start
}

/// Where the partition will begin when an eighth of what it keeps has gone by.
pub fn soon(index: &PartitionIndex, end: i64, config: &TopicConfig, now_ms: i64) -> i64 {
    let most = |of: i64| if of < 0 { of } else { of - of / 8 };
    let (retention_ms, retention_bytes) = (most(config.retention_ms), most(config.retention_bytes));
    log_start(index, end, &TopicConfig { retention_ms, retention_bytes, ..config.clone() }, now_ms)
}

/// Without timestamps records never grow old.
fn is_too_old(run: &Run, config: &TopicConfig, now_ms: i64) -> bool {
    let age_ms = now_ms.saturating_sub(run.max_timestamp);
    config.retention_ms >= 0 && run.max_timestamp >= 0 && age_ms > config.retention_ms
}

/// When, in milliseconds since the epoch, the first of the runs becomes too old. None if never.
pub fn next_ms(index: &PartitionIndex, start: i64, config: &TopicConfig) -> Option<i64> {
    if !config.deletable || config.retention_ms < 0 {
        return None;
    }
    let first = index.runs_from(start).next().filter(|run| run.max_timestamp >= 0)?;
    Some(first.max_timestamp.saturating_add(config.retention_ms).saturating_add(1))
}

#[cfg(test)]
mod tests;
