//! Reads what a fetch has planned, within the limits of the request.
//!
//! Invariants: the sum over all partitions stays within the request's limit, except that the first batch of the first
//! partition that has one is returned whatever its size; of what is stored no more than one reader may have; what is returned of a partition is contiguous and begins with
//! the batch that holds the offset asked for; a partition that cannot be read fails alone.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use kafka_protocol::ResponseError;
use meta::error::ErrorKind;
use storage::budget::Permit;
use storage::entry::Run;
use storage::error::Error;
use storage::reader::{Reader, RunRead, StoredRoom, Want};

use crate::error::code_for;
use crate::partition::{FetchPlan, Partition};

/// Runs that are read ahead at most: each can cost a request to the store.
const MAX_RUNS_AHEAD: usize = 64;

/// One partition that has data to be read.
pub struct ReadJob {
    pub partition: Arc<Partition>,
    pub offset: i64,
    pub plan: FetchPlan,
    /// The client's limit for this partition.
    pub max_bytes: usize,
}

/// What was read of a partition.
#[derive(Debug, Default)]
pub struct ReadResult {
    pub records: Vec<Bytes>,
    pub bytes: usize,
    pub permits: Vec<Permit>,
    pub error: Option<ResponseError>,
    /// Some of it did not come from the memory tail.
    pub stored: bool,
    /// It is not where the plan says: it was moved since, and is to be planned anew.
    pub moved: bool,
}

/// Reads the jobs, at most `max_bytes` together; those in front come first. Results are in the order of the jobs.
pub async fn read_all(reader: &Reader, jobs: &[ReadJob], max_bytes: usize) -> Vec<ReadResult> {
    let mut results = Vec::with_capacity(jobs.len());
    let mut left = max_bytes;
    // However long its client takes to receive it, it must not hold all the memory of those who read old data.
    let mut room = reader.stored_room();
    // One batch is returned whatever it takes, also if memory has to be waited for: so it is read before anything else,
    // while this response holds no memory.
    while results.iter().all(|result: &ReadResult| result.bytes == 0)
        && let Some(job) = jobs.get(results.len())
    {
        let result = job.read(reader, job.max_bytes.min(left), &mut room, true).await;
        left = left.saturating_sub(result.bytes);
        results.push(result);
    }
    // The others share what is left, as far as their plans can use it, and are read at the same time.
    let rest = jobs[results.len()..].iter().map(|job| {
        let share = job.max_bytes.min(left);
        left -= share.min(job.plan.available_bytes);
        let mut aside = reader.set_aside(&mut room, job.partition.id(), &job.plan.runs, share);
        async move { job.read(reader, share, &mut aside, false).await }
    });
    let rest = join_all(rest.collect::<Vec<_>>()).await;
    results.extend(rest);
    results
}

impl ReadJob {
    async fn read(&self, reader: &Reader, max_bytes: usize, room: &mut StoredRoom, at_least_one: bool) -> ReadResult {
        let mut result = ReadResult::default();
        let id = self.partition.id();
        let mut next_offset = self.offset;
        let mut runs = self.plan.runs.iter();
        let mut whole = true;
        // Compaction leaves gaps: then nothing is left of the run that the offset lies in, and the next one is the first.
        while whole && result.bytes == 0 {
            let Some(run) = runs.next() else { break };
            let share = reader.share(id, run, max_bytes, *room);
            if share.max_bytes == 0 && !at_least_one {
                return result;
            }
            match reader.read(id, run, &self.want(next_offset, share.max_bytes, at_least_one)).await {
                Ok(read) => next_offset = result.take(read),
                Err(error) => {
                    result.moved = matches!(error, Error::Missing { .. });
                    result.error = Some(self.report(&error));
                    return result;
                }
            }
            room.take(share.lane, result.bytes);
            whole = next_offset >= run.next_offset;
        }
        let behind = if whole { runs.as_slice() } else { &[] };
        let wants = self.wants(reader, behind, max_bytes.saturating_sub(result.bytes), room);
        let reads = wants.iter().map(|(run, want)| reader.read(id, run, want));
        let reads = join_all(reads.collect::<Vec<_>>()).await;
        for ((run, _), read) in wants.iter().zip(reads) {
            if next_offset != run.base_offset {
                break;
            }
            match read {
                Ok(read) => next_offset = result.take(read),
                Err(error) => {
                    // What was read before it is good; the client asks again, from here, and is then told.
                    self.report(&error);
                    break;
                }
            }
        }
        if result.stored {
            self.read_ahead(reader, next_offset);
        }
        result
    }

    /// What to read of the runs behind the first: all of each, but for the last. At the same time, for each may cost a
    /// request to the store; and nothing behind one of which only a part comes, which would be thrown away.
    fn wants<'a>(
        &self,
        reader: &Reader,
        runs: &'a [Run],
        mut left: usize,
        room: &mut StoredRoom,
    ) -> Vec<(&'a Run, Want)> {
        let mut wants = Vec::new();
        for run in runs {
            let share = reader.share(self.partition.id(), run, left, *room);
            if share.max_bytes == 0 {
                break;
            }
            wants.push((run, self.want(run.base_offset, share.max_bytes, false)));
            let length = run.length as usize;
            room.take(share.lane, length);
            left = left.saturating_sub(length);
            if length > share.max_bytes {
                break;
            }
        }
        wants
    }

    /// Whoever reads on where he ended finds what comes next in memory.
    fn read_ahead(&self, reader: &Reader, next_offset: i64) {
        let id = self.partition.id();
        let bytes = reader.went_on(id, self.offset..next_offset);
        if bytes == 0 || next_offset >= self.plan.bounds.high_watermark {
            return;
        }
        let runs = self.partition.inspect(|index| {
            let mut found = 0;
            let enough = |run: &&Run| {
                let wanted = found < bytes;
                found += run.length as usize;
                wanted
            };
            index.runs_from(next_offset).take(MAX_RUNS_AHEAD).take_while(enough).copied().collect()
        });
        reader.read_ahead(id, runs, next_offset, bytes);
    }

    fn want(&self, from_offset: i64, max_bytes: usize, at_least_one: bool) -> Want {
        Want { from_offset, below_offset: self.plan.bounds.high_watermark, max_bytes, at_least_one, look_up: false }
    }

    fn report(&self, error: &Error) -> ResponseError {
        let (partition, offset) = (self.partition.id(), self.offset);
        match error.kind() {
            ErrorKind::Corrupt => tracing::error!(%partition, offset, %error, "stored data is damaged"),
            _ => tracing::warn!(%partition, offset, %error, "could not read"),
        }
        code_for(error.kind())
    }
}

impl ReadResult {
    /// Adds what was read of one run, and says where it goes on.
    fn take(&mut self, read: RunRead) -> i64 {
        self.records.extend(read.slices);
        self.permits.extend(read.permits);
        self.bytes += read.bytes;
        self.stored |= read.stored;
        read.next_offset
    }
}
