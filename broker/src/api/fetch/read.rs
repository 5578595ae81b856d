//! Reads what a fetch has planned, within the limits of the request.
//!
//! Invariants: the sum over all partitions stays within the request's limit, except that the first batch of the first
//! partition that has one is returned whatever its size; what is returned of a partition is contiguous and begins with
//! the batch that holds the offset asked for; a partition that cannot be read fails alone.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use kafka_protocol::ResponseError;
use meta::error::ErrorKind;
use storage::budget::Permit;
use storage::entry::Run;
use storage::error::Error;
use storage::reader::{Reader, RunRead, Want};

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
    // One batch is returned whatever it takes, also if memory has to be waited for: so it is read before anything else,
    // while this response holds no memory.
    while results.iter().all(|result: &ReadResult| result.bytes == 0)
        && let Some(job) = jobs.get(results.len())
    {
        let result = job.read(reader, job.max_bytes.min(left), true).await;
        left = left.saturating_sub(result.bytes);
        if result.stored {
            // However long its client takes to receive it, it must not hold all the memory of those who read old data.
            left = left.min(reader.most_stored_bytes());
        }
        results.push(result);
    }
    // The others share what is left, as far as their plans can use it, and are read at the same time.
    let rest = jobs[results.len()..].iter().map(|job| {
        let share = job.max_bytes.min(left);
        left -= share.min(job.plan.available_bytes);
        job.read(reader, share, false)
    });
    let rest = join_all(rest.collect::<Vec<_>>()).await;
    results.extend(rest);
    results
}

impl ReadJob {
    async fn read(&self, reader: &Reader, max_bytes: usize, at_least_one: bool) -> ReadResult {
        let mut result = ReadResult::default();
        let Some((first, others)) = self.plan.runs.split_first() else { return result };
        if max_bytes == 0 && !at_least_one {
            return result;
        }
        let want = self.want(self.offset, max_bytes, at_least_one);
        let mut next_offset = match reader.read(self.partition.id(), first, &want).await {
            Ok(read) => result.take(read),
            Err(error) => {
                result.moved = matches!(error, Error::Missing { .. });
                result.error = Some(self.report(&error));
                return result;
            }
        };
        // The runs behind it are read whole, but for the last; at the same time, each may cost a request to the store.
        let mut room = max_bytes.saturating_sub(result.bytes);
        let mut wants: Vec<(&Run, Want)> = Vec::new();
        if next_offset == first.next_offset {
            for run in others {
                if room == 0 {
                    break;
                }
                wants.push((run, self.want(run.base_offset, room, false)));
                room = room.saturating_sub(run.length as usize);
            }
        }
        let reads = wants.iter().map(|(run, want)| reader.read(self.partition.id(), run, want));
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
        Want { from_offset, below_offset: self.plan.bounds.high_watermark, max_bytes, at_least_one }
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
