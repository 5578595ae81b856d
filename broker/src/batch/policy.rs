//! What a topic's configuration demands of a batch that is valid by itself: timestamps in range, keys where the topic is
//! compacted, and the time of the append where the topic keeps that.
//!
//! The records are looked at only if the configuration demands something that the header does not tell.

use super::seal::{BODY_HEADER_BYTES, seal};
use super::{BatchError, LOG_APPEND_TIME, ValidBatch, records_of};
use crate::records::survey;

/// What is demanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How far timestamps may lie behind the clock.
    pub before_max_ms: i64,
    /// How far timestamps may lie ahead of the clock.
    pub after_max_ms: i64,
    /// Every record needs a key.
    pub keys: bool,
}

/// Checks a batch whose records keep their timestamps. Records without a timestamp have none that could be wrong.
pub fn check_policy(batch: &ValidBatch, policy: &Policy, now_ms: i64) -> Result<(), BatchError> {
    let latest = now_ms.saturating_add(policy.after_max_ms);
    if batch.max_timestamp > latest {
        return Err(BatchError::TimestampRange { timestamp: batch.max_timestamp, now: now_ms });
    }
    let earliest = now_ms.saturating_sub(policy.before_max_ms);
    if earliest <= 0 && !policy.keys {
        return Ok(());
    }
    let survey = survey(records_of(&batch.header, &batch.body[BODY_HEADER_BYTES..])?)?;
    if policy.keys && !survey.keyless.is_empty() {
        return Err(BatchError::Keyless { records: survey.keyless });
    }
    match survey.min_timestamp {
        Some(timestamp) if timestamp < earliest => Err(BatchError::TimestampRange { timestamp, now: now_ms }),
        _ => Ok(()),
    }
}

/// The same batch with the time of its append: a copy, because these fields are under the CRC.
pub fn at_append_time(batch: ValidBatch, now_ms: i64) -> ValidBatch {
    let mut header = batch.header;
    header.attributes |= LOG_APPEND_TIME;
    header.max_timestamp = now_ms;
    let (header, head, body) = seal(header, batch.body.to_vec());
    ValidBatch { header, max_timestamp: now_ms, head, body }
}

#[cfg(test)]
mod tests;
