//! Reads a partition of `__consumer_offsets` from its start to its high watermark, and makes groups of what it says.
//!
//! Memory: what the groups need, and one chunk of records at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::ResponseError;
use meta::error::ErrorKind;
use storage::error::Error;
use storage::reader::Want;
use tokio::time::{Instant, sleep};

use crate::groups::offsets::Offsets;
use crate::groups::records::{self, Change, RecordError};
use crate::groups::{Group, GroupMetadata};
use crate::partition::FetchPlan;

use super::shard::{Cell, Shard};

/// So many bytes of records are read at a time (one batch at least).
const CHUNK_BYTES: usize = 1 << 20;

/// How long after a failed read it is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Bytes may be damaged on their way: what is read so often in a row is damaged where it is stored.
const MAX_DAMAGED_READS: u32 = 20;

#[derive(Debug, thiserror::Error)]
enum LoadError {
    /// Not to be led any more, or damaged: the partition says so.
    #[error("the partition answers {0:?}")]
    Partition(ResponseError),
    #[error(transparent)]
    Read(#[from] Error),
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// What was read so far.
#[derive(Default)]
struct Loaded {
    groups: BTreeMap<String, (Option<GroupMetadata>, Offsets)>,
    next_offset: i64,
    records: u64,
}

impl Shard {
    /// Returns when everything is read, or never can be.
    pub(super) async fn load(&self) {
        let Ok(_turn) = self.shared.loads.acquire().await else { return };
        let began = Instant::now();
        let mut loaded = Loaded::default();
        let mut damaged_reads = 0;
        while !self.is_closed() {
            match self.read_on(&mut loaded).await {
                Ok(true) => damaged_reads = 0,
                Ok(false) => return self.finish(loaded, began),
                Err(LoadError::Read(error)) if may_pass(&error, damaged_reads) => {
                    damaged_reads += u32::from(error.kind() == ErrorKind::Corrupt);
                    tracing::warn!(partition = %self.partition.id(), %error, "could not read groups, trying again");
                    sleep(RETRY_AFTER).await;
                }
                Err(LoadError::Partition(ResponseError::NotLeaderOrFollower)) => return self.fail(),
                Err(error) => {
                    let (partition, offset) = (self.partition.id(), loaded.next_offset);
                    tracing::error!(%partition, offset, %error, "groups cannot be loaded and are refused to clients");
                    return self.fail();
                }
            }
        }
    }

    /// Reads one chunk. False at the end.
    async fn read_on(&self, loaded: &mut Loaded) -> Result<bool, LoadError> {
        let bounds = self.partition.bounds(-1).map_err(LoadError::Partition)?;
        loaded.next_offset = loaded.next_offset.max(bounds.log_start_offset);
        let plan = self.partition.plan_fetch(loaded.next_offset, -1, CHUNK_BYTES).map_err(LoadError::Partition)?;
        let FetchPlan { bounds, runs, .. } = plan;
        if runs.is_empty() {
            return Ok(false);
        }
        let reader = self.shared.parts.partitions.reader();
        for run in &runs {
            let want = Want {
                from_offset: loaded.next_offset,
                below_offset: bounds.high_watermark,
                max_bytes: CHUNK_BYTES,
                at_least_one: true,
                look_up: false,
            };
            let read = reader.read(self.partition.id(), run, &want).await?;
            loaded.take(&read.slices.concat())?;
            loaded.next_offset = read.next_offset;
            if read.next_offset < run.next_offset {
                break;
            }
        }
        Ok(true)
    }

    fn finish(&self, loaded: Loaded, began: Instant) {
        let now = self.shared.now();
        let (records, found) = (loaded.records, loaded.groups.len());
        let groups = loaded.groups.into_iter().filter(|(_, (metadata, offsets))| {
            // What only has tombstones left is gone.
            metadata.is_some() || !offsets.is_empty()
        });
        let groups = groups.map(|(name, (metadata, offsets))| {
            let group = match metadata {
                Some(metadata) => Group::restore(&name, metadata, now),
                None => Group::new(&name, now),
            };
            (name, Cell::new(group, offsets))
        });
        self.activate(groups.collect());
        if records > 0 {
            let took_ms = began.elapsed().as_millis();
            tracing::info!(
                partition = self.partition.id().partition,
                records,
                groups = found,
                took_ms,
                "loaded groups"
            );
        }
    }
}

/// Is it worth another try?
fn may_pass(error: &Error, damaged_reads: u32) -> bool {
    match error.kind() {
        ErrorKind::Retriable => true,
        ErrorKind::Corrupt => damaged_reads + 1 < MAX_DAMAGED_READS,
        _ => false,
    }
}

impl Loaded {
    fn take(&mut self, batches: &[u8]) -> Result<(), RecordError> {
        records::read(batches, |record_offset, change| {
            // A batch is read whole, also if only its end was asked for.
            if record_offset < self.next_offset {
                return Ok(());
            }
            self.records += 1;
            match change {
                Change::Offset { group, topic, partition, value } => {
                    let offsets = &mut self.groups.entry(group).or_default().1;
                    match value {
                        Some(committed) => offsets.apply(&topic, partition, committed, record_offset),
                        None => offsets.remove(&topic, partition, record_offset),
                    };
                }
                Change::Group { group, value } => self.groups.entry(group).or_default().0 = value,
                Change::Unknown { key_version } => {
                    tracing::debug!(key_version, record_offset, "passed over a record of another kind of group");
                }
            }
            Ok(())
        })
    }
}
