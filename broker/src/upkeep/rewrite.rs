//! Moves runs into tiered objects: those of one partition one after another, as few runs as possible.
//!
//! Nothing refers to the objects until the caller commits them; after an error they are orphans.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use storage::budget::Permit;
use storage::entry::{FragmentId, IndexedEntry, Run, TopicPartition};
use storage::error::{Error, Result};
use storage::fragment::{OpenRun, TieredBuilder};
use tokio::task::JoinSet;

use super::Worker;
use super::filter::{Filter, Kept};

/// Entries of a run at most: its part of the index is read whole.
const RUN_ENTRIES: usize = 4096;
/// Bytes of a run at most.
const RUN_BYTES: u64 = 64 << 20;
/// Objects that are being written at once.
const WRITES: usize = 4;

/// What a run takes that is to be moved, until that is committed: in its job, or where it has gone to; there twice while
/// others come after it, then in what is committed; and encoded.
pub const RUN_MEMORY_BYTES: usize = 3 * size_of::<Run>();

/// Runs of one partition that join.
pub struct Job {
    pub partition: TopicPartition,
    pub runs: Vec<Run>,
    pub segment_bytes: u64,
    /// Time from a run's first record to its last.
    pub span_ms: i64,
    /// What decides which records stay. None: all.
    pub filter: Option<Filter>,
}

/// Where the runs are now, in the order of the jobs.
#[derive(Debug, Default)]
pub struct Rewritten {
    pub runs: Vec<Vec<Run>>,
    pub objects: Vec<FragmentId>,
}

struct Rewriter<'a> {
    worker: &'a mut Worker,
    object_bytes: u64,
    filling: Option<Filling>,
    /// They go on by themselves, so that the memory that they hold comes back also while something waits for it.
    writes: JoinSet<Result<()>>,
    rewritten: Rewritten,
}

/// An object that is being filled.
struct Filling {
    builder: TieredBuilder,
    /// Which job each of its runs belongs to.
    owners: Vec<usize>,
    /// What pays for its bytes.
    permits: Vec<Permit>,
    /// Copies of the run that is being read, which still pays for them.
    unpaid_bytes: usize,
    /// The last run still takes entries: of the job that it belongs to.
    open: bool,
}

impl Worker {
    /// Jobs come in the order of their partitions. What is written counts as referred to from here on, so that it goes if
    /// nothing comes of it.
    pub(super) async fn rewrite(&mut self, jobs: &[Job]) -> Result<Rewritten> {
        // What is held in memory is far less than there is.
        let affordable = self.parts.config.memory_bytes / 8 / WRITES;
        let object_bytes = self.parts.config.tier.object_bytes.min(affordable).max(1) as u64;
        let rewritten = Rewritten { runs: vec![Vec::new(); jobs.len()], objects: Vec::new() };
        let mut rewriter = Rewriter { worker: self, object_bytes, filling: None, writes: JoinSet::new(), rewritten };
        for (place, job) in jobs.iter().enumerate() {
            rewriter.add(place, job).await?;
        }
        rewriter.finish_object().await?;
        while !rewriter.writes.is_empty() {
            rewriter.one_written().await?;
        }
        let rewritten = rewriter.rewritten;
        check(jobs, &rewritten)?;
        Ok(rewritten)
    }
}

impl Rewriter<'_> {
    async fn add(&mut self, place: usize, job: &Job) -> Result<()> {
        // Where the next run of the job begins.
        let mut begin = job.runs.first().map(|first| first.base_offset);
        for (number, run) in (1..).zip(&job.runs) {
            let mut whole = self.worker.parts.partitions.reader().read_whole(job.partition, run).await?;
            let mut left = whole.entries.len();
            for (entry, pieces) in std::mem::take(&mut whole.entries) {
                left -= 1;
                let Some(Kept { entry, pieces }) =
                    job.keep(run, entry, pieces, left == 0 && number == job.runs.len())?
                else {
                    continue;
                };
                if self.make_room(job, &entry) {
                    // The object holds part of this run: its memory is paid for until it is written.
                    self.filling().permits.extend(whole.permits.iter().cloned());
                    self.finish_object().await?;
                }
                let filling = self.filling();
                if !filling.open {
                    let begin = begin.take().unwrap_or(entry.meta.base_offset);
                    filling.builder.begin_run(job.partition, begin, entry.meta.leader_epoch);
                    filling.owners.push(place);
                    filling.open = true;
                }
                if job.filter.is_none() {
                    filling.builder.push(&entry, pieces);
                    continue;
                }
                // A copy: what it comes from goes when the run has been read, however little of that is left.
                let copy = Bytes::from(pieces.concat());
                filling.unpaid_bytes += copy.len();
                filling.builder.push(&entry, [copy]);
                // What decides may take its time: others must not wait for it.
                tokio::task::yield_now().await;
            }
            if let Some(filling) = self.filling.as_mut().filter(|filling| filling.open) {
                filling.builder.end_run(run.next_offset);
            }
            self.pay(job, std::mem::take(&mut whole.permits)).await;
        }
        if let Some(filling) = &mut self.filling {
            filling.open = false;
        }
        Ok(())
    }

    /// What a run leaves behind is paid for until it is written: with what paid for the run or, where most of it may have
    /// gone, with what its copies take.
    async fn pay(&mut self, job: &Job, permits: Vec<Permit>) {
        let Some(filling) = &mut self.filling else { return };
        if job.filter.is_none() {
            filling.permits.extend(permits);
            return;
        }
        drop(permits);
        let bytes = std::mem::take(&mut filling.unpaid_bytes);
        if bytes > 0 {
            filling.permits.push(self.worker.parts.budget.take(bytes).await);
        }
    }

    /// Ends the run if this entry must not be in it. True if the object is full.
    fn make_room(&mut self, job: &Job, entry: &IndexedEntry) -> bool {
        let Some(filling) = &mut self.filling else { return false };
        let full = filling.builder.bytes() >= self.object_bytes;
        if filling.open && (full || job.must_end_run(filling.builder.open_run(), entry)) {
            filling.builder.end_run(entry.meta.base_offset);
            filling.open = false;
        }
        full
    }

    /// The object that takes the next entry.
    fn filling(&mut self) -> &mut Filling {
        let worker = &mut *self.worker;
        self.filling.get_or_insert_with(|| {
            let number = worker.numbers.fetch_add(1, Ordering::Relaxed);
            let builder = TieredBuilder::new(worker.parts.log, number);
            worker.referenced.insert(builder.id());
            Filling { builder, owners: Vec::new(), permits: Vec::new(), unpaid_bytes: 0, open: false }
        })
    }

    /// Begins to write the object, as soon as not too many are being written.
    async fn finish_object(&mut self) -> Result<()> {
        let Some(Filling { builder, owners, permits, .. }) = self.filling.take() else { return Ok(()) };
        let object = builder.finish(self.worker.parts.incarnation);
        for (owner, indexed) in owners.into_iter().zip(&object.index.runs) {
            self.rewritten.add(owner, indexed.run);
        }
        self.rewritten.objects.push(object.index.fragment);
        if self.writes.len() >= WRITES {
            self.one_written().await?;
        }
        let objects = self.worker.parts.objects.clone();
        self.writes.spawn(async move {
            let written = objects.write(object).await;
            drop(permits);
            written
        });
        Ok(())
    }

    async fn one_written(&mut self) -> Result<()> {
        let lost = |_| Err(Error::Unknown { what: "a write that was stopped".to_owned() });
        self.writes.join_next().await.map_or(Ok(()), |written| written.unwrap_or_else(lost))
    }
}

impl Rewritten {
    /// Another run of a job. Of most jobs there is one, which has no room for others beside it.
    pub fn add(&mut self, owner: usize, run: Run) {
        let runs = &mut self.runs[owner];
        if runs.is_empty() {
            runs.reserve_exact(1);
        }
        runs.push(run);
    }
}

impl Job {
    /// The offsets from the first run to the last.
    pub fn span(&self) -> Option<(i64, i64)> {
        span(&self.runs)
    }

    fn keep(&self, run: &Run, entry: IndexedEntry, pieces: Vec<Bytes>, last: bool) -> Result<Option<Kept>> {
        match &self.filter {
            None => Ok(Some(Kept { entry, pieces })),
            Some(filter) => filter.apply(run, entry, pieces, last),
        }
    }

    /// Is the run that was begun as long as it gets, so that this entry has to go to another?
    pub fn must_end_run(&self, open: OpenRun, entry: &IndexedEntry) -> bool {
        let bytes = open.bytes + u64::from(entry.length);
        // What has no time counts as of any.
        let is_timed = open.first_timestamp >= 0 && entry.meta.max_timestamp >= 0;
        let span_ms = entry.meta.max_timestamp.saturating_sub(open.first_timestamp);
        open.leader_epoch != entry.meta.leader_epoch
            || open.entries >= RUN_ENTRIES
            || bytes > RUN_BYTES.min(self.segment_bytes)
            || (is_timed && span_ms > self.span_ms)
    }
}

fn span(runs: &[Run]) -> Option<(i64, i64)> {
    Some((runs.first()?.base_offset, runs.last()?.next_offset))
}

/// What jobs take, and what comes of them, until that is committed.
pub fn memory_bytes(jobs: &[Job]) -> usize {
    let runs: usize = jobs.iter().map(|job| job.runs.len()).sum();
    // They come one by one, into a list that grows.
    runs * RUN_MEMORY_BYTES + 2 * size_of_val(jobs)
}

/// What was written stands for exactly the offsets that it was made of.
pub fn check(jobs: &[Job], rewritten: &Rewritten) -> Result<()> {
    for (job, runs) in jobs.iter().zip(&rewritten.runs) {
        let joined = |runs: &[Run]| runs.windows(2).all(|pair| pair[0].next_offset == pair[1].base_offset);
        if span(&job.runs) != span(runs) || !joined(&job.runs) || !joined(runs) {
            return Err(Error::Corrupt {
                key: format!("partition {}", job.partition),
                why: format!("runs of {:?} became runs of {:?} when they were moved", span(&job.runs), span(runs)),
            });
        }
    }
    Ok(())
}
