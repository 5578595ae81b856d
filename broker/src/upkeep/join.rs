//! Joins runs that lie scattered over many objects into few long ones, however long those get, in bounded memory.
//!
//! What comes in the order of partitions and offsets lies in this order in every object that it comes from. So each of
//! them is read from its beginning to its end, through a window that moves (`sources`), several at once, and the new
//! object is written in parts while they are read. Its index is made first, from theirs: an object's header tells how long everything is.
//!
//! Invariants:
//! - An entry's bytes are compared with its checksum before they are written anew, and the checksum goes with them.
//! - Memory: the parts that are being sent and the one that is being filled, the windows, the index of the object that is
//!   being written, whose entries are limited, and what is remembered of each run. All of it is paid for before anything is
//!   read (`pay`), but for the jobs themselves, which are the caller's.
//! - Nothing refers to what is written until the caller commits it; after an error it is an orphan, which the caller is
//!   told of.
//! - An upload that comes to nothing is given up, also when upkeep ends in good order.

mod sources;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use meta::seams::Incarnation;
use storage::budget::{Budget, Permit};
use storage::entry::{FragmentId, IndexedEntry, Run};
use storage::error::Result;
use storage::fragment::{DecodeError, TieredBuilder, TieredLayout, decode_run_index, entries_of, entry_checksum};
use storage::tiered::{Parts, TieredObjects, Upload};
use tokio::time::timeout;

use super::rewrite::{self, Job, Rewritten};
use super::uploads::Uploads;
use crate::config::{BrokerConfig, LEAST_PART_BYTES};

use self::sources::{Piece, Sources, window_bytes};

/// What an entry of the object that is being written takes: once as it is, once encoded.
const ENTRY_MEMORY_BYTES: usize = 160;
/// What a run takes beside its job: a reference to it in a list that grows, its pieces, and the stretches that those lie in.
const JOINED_RUN_BYTES: usize =
    2 * size_of::<(&Run, usize)>() + size_of::<(Piece, usize)>() + 2 * size_of::<Range<u64>>();
/// Of the memory, what a part takes at most; the windows take half as much again, and the index half of it.
const SHARE: usize = 20;
/// The same of the budget, which is smaller: one that joins in the background and one in a round leave enough to others.
const BUDGET_SHARE: usize = 16;
/// How long one that can wait does so for memory that nobody else has a use for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Afterwards it does with windows and parts that are so much shorter: it costs requests, and little of what is cached.
const LESS: usize = 4;
/// Of the windows' memory, the part that is for indexes.
const INDEX_SHARE: usize = 8;

/// Requests under way.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    parts: usize,
    reads: usize,
}

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of an object's entries. 0: nothing is joined.
    pub object_bytes: u64,
    /// In an object.
    pub entries: usize,
    pub parts: Parts,
    /// Under way.
    pub reads: usize,
    pub windows_bytes: usize,
}

/// Does it, and may do so beside everything else that upkeep does. Cheap to clone.
#[derive(Clone)]
pub struct Joiner {
    pub objects: TieredObjects,
    pub budget: Budget,
    /// The next number of a tiered object.
    pub numbers: Arc<AtomicU64>,
    pub uploads: Uploads,
    pub log: u64,
    pub incarnation: Incarnation,
    pub limits: Limits,
}

/// One object: what it will be, and where its entries are now.
struct Plan<'a> {
    layout: TieredLayout,
    /// Which job each of its runs belongs to.
    owners: Vec<usize>,
    /// Runs in the order in which their entries go into the object, with the number of them.
    from: Vec<(&'a Run, usize)>,
}

/// The runs of all jobs, one after another.
struct Todo<'a> {
    jobs: &'a [Job],
    owner: usize,
    run: usize,
}

impl<'a> Todo<'a> {
    /// Of all that is left.
    fn bytes(&self) -> u64 {
        let left = self.jobs.iter().enumerate().skip(self.owner).flat_map(|(owner, job)| {
            let taken = if owner == self.owner { self.run } else { 0 };
            job.runs.iter().skip(taken)
        });
        left.map(|run| u64::from(run.length)).sum()
    }

    /// The next run, and the job that it belongs to. It stays the next until `run` moves on.
    fn peek(&mut self) -> Option<(usize, &'a Job, &'a Run)> {
        loop {
            let job = self.jobs.get(self.owner)?;
            if let Some(run) = job.runs.get(self.run) {
                return Some((self.owner, job, run));
            }
            (self.owner, self.run) = (self.owner + 1, 0);
        }
    }
}

impl Pace {
    /// Where nobody waits: producers and readers have the network and the processors as well.
    pub const LEISURE: Self = Self { parts: 1, reads: 8 };
    /// Where more comes than moves at leisure: of one part a store takes some 50 to 90 MB a second, and a read it answers
    /// after 30 ms.
    pub const HASTE: Self = Self { parts: 3, reads: 16 };
}

impl Limits {
    /// `in_place`: the storage is a folder.
    pub fn of(config: &BrokerConfig, budget: &Budget, in_place: bool, pace: Pace) -> Self {
        let share = (config.memory_bytes / SHARE).min(budget.total_bytes() / BUDGET_SHARE).max(1);
        let bytes = config.tier.merge_part_bytes.min(share).max(1);
        // Where memory is too small for what stores take as a part, an object is one piece.
        let allowed = bytes >= config.tier.merge_part_bytes.min(LEAST_PART_BYTES);
        let most = config.tier.merge_object_bytes;
        Self {
            object_bytes: if allowed { most } else { most.min(bytes) } as u64,
            entries: (share / 2 / ENTRY_MEMORY_BYTES).max(1),
            parts: Parts { bytes, at_once: pace.parts, allowed, reads_back: !in_place },
            reads: pace.reads,
            windows_bytes: share * 3 / 2,
        }
    }

    /// The same objects in less memory, but for their indexes: shorter windows, and shorter parts if the store takes them.
    fn less(self) -> Self {
        let least = self.parts.bytes.min(LEAST_PART_BYTES);
        let bytes = if self.parts.allowed { (self.parts.bytes / LESS).max(least) } else { self.parts.bytes };
        Self { parts: Parts { bytes, ..self.parts }, windows_bytes: self.windows_bytes / LESS, ..self }
    }

    /// What it takes to join these, which may be less than what it takes at most.
    fn memory_bytes(&self, jobs: &[Job]) -> usize {
        let runs = || jobs.iter().flat_map(|job| &job.runs);
        let bytes: usize = runs().map(|run| run.length as usize + run.index_length as usize).sum();
        let entries: usize = runs().map(entries_of).sum();
        let entries_bytes = self.entries.min(entries) * ENTRY_MEMORY_BYTES + runs().count() * JOINED_RUN_BYTES;
        (self.parts.at_once + 1) * self.parts.bytes.min(bytes) + self.windows_bytes.min(2 * bytes) + entries_bytes
    }
}

impl Joiner {
    /// Pays for joining these, and for so much that the caller keeps.
    pub async fn pay(&self, jobs: &[Job], kept_bytes: usize) -> Permit {
        self.budget.take(self.cost_bytes(jobs, kept_bytes)).await
    }

    /// The same for one that can wait, and must not cost others what they have cached.
    ///
    /// By default it never would: of 412 MiB of budget the tail has 128 at most, the lanes of readers 144, and a merge takes
    /// 98. All else is in use only for as long as something is under way. But a tail of half the memory, which may be
    /// configured, leaves a merge no room for as long as the tail is full, and that may be always. So after a while it does
    /// with about a third, for which cached data goes if it must: it has to come to an end.
    pub async fn pay_patiently(&mut self, jobs: &[Job], kept_bytes: usize) -> Permit {
        let spare = self.budget.take_spare(self.cost_bytes(jobs, kept_bytes));
        if let Ok(paid) = timeout(PATIENCE, spare).await {
            return paid;
        }
        self.limits = self.limits.less();
        self.pay(jobs, kept_bytes).await
    }

    fn cost_bytes(&self, jobs: &[Job], kept_bytes: usize) -> usize {
        (self.limits.memory_bytes(jobs) + kept_bytes).min(self.budget.total_bytes())
    }

    /// Jobs come in the order of their partitions, have no filter, and are paid for. `begun`: every object that was begun,
    /// also if it comes to nothing.
    pub async fn join(&self, jobs: &[Job], begun: &mut Vec<FragmentId>) -> Result<Rewritten> {
        let mut rewritten = Rewritten { runs: vec![Vec::new(); jobs.len()], objects: Vec::new() };
        let mut todo = Todo { jobs, owner: 0, run: 0 };
        let pieces = jobs.iter().flat_map(|job| &job.runs).map(index_piece);
        let mut indexes = self.sources(pieces, self.limits.windows_bytes / INDEX_SHARE);
        while todo.peek().is_some() {
            let plan = self.plan(&mut todo, &mut indexes).await?;
            begun.push(plan.layout.index.fragment);
            self.write(&plan).await?;
            for (owner, indexed) in plan.owners.iter().zip(&plan.layout.index.runs) {
                rewritten.add(*owner, indexed.run);
            }
            rewritten.objects.push(plan.layout.index.fragment);
        }
        rewrite::check(jobs, &rewritten)?;
        Ok(rewritten)
    }

    fn sources(&self, wanted: impl Iterator<Item = Piece> + Clone, memory_bytes: usize) -> Sources {
        let objects = wanted.clone().map(|piece| piece.fragment).collect();
        let window_bytes = window_bytes(&objects, self.limits.reads, memory_bytes);
        Sources::new(self.objects.clone(), wanted, window_bytes, self.limits.reads)
    }

    /// Lays out the next object.
    async fn plan<'a>(&self, todo: &mut Todo<'a>, indexes: &mut Sources) -> Result<Plan<'a>> {
        let mut builder = TieredBuilder::new(self.log, self.numbers.fetch_add(1, Ordering::Relaxed));
        let mut owners: Vec<usize> = Vec::new();
        let mut from = Vec::new();
        let mut open: Option<usize> = None;
        // A little too much is no reason for another object.
        let left_bytes = todo.bytes();
        let fits_bytes = match left_bytes <= self.limits.object_bytes + self.limits.object_bytes / 8 {
            true => left_bytes,
            false => self.limits.object_bytes,
        };
        while let Some((owner, job, run)) = todo.peek() {
            let part = indexes.next(index_piece(run)).await?;
            let entries = match decode_run_index(run, &part) {
                Ok(entries) => entries,
                Err(_) => self.objects.read_run_index(run).await?,
            };
            let too_long = builder.bytes() + u64::from(run.length) > fits_bytes
                || builder.entries() + entries.len() > self.limits.entries;
            if !builder.is_empty() && too_long {
                break;
            }
            todo.run += 1;
            // Where a run begins that does not go on with the one before.
            let mut begin = run.base_offset;
            for entry in &entries {
                if open == Some(owner) && job.must_end_run(builder.open_run(), entry) {
                    builder.end_run(entry.meta.base_offset);
                    (open, begin) = (None, entry.meta.base_offset);
                }
                if open != Some(owner) {
                    builder.begin_run(job.partition, begin, entry.meta.leader_epoch);
                    owners.push(owner);
                    open = Some(owner);
                }
                builder.push(entry, []);
            }
            builder.end_run(run.next_offset);
            from.push((run, entries.len()));
            tokio::task::yield_now().await;
        }
        Ok(Plan { layout: builder.lay_out(self.incarnation), owners, from })
    }

    async fn write(&self, plan: &Plan<'_>) -> Result<()> {
        let _under_way = self.uploads.begin().await?;
        // Once the store was asked for it, it must be known by which name it can be given up.
        let mut upload = self.objects.begin(&plan.layout, self.limits.parts).await?;
        let whole = async {
            self.copy(plan, &mut upload).await?;
            upload.finish(&plan.layout).await
        };
        let written = self.uploads.unless_ended(whole).await;
        if written.is_err() {
            upload.abort().await;
        }
        written
    }

    /// Copies the entries, several at a time.
    async fn copy(&self, plan: &Plan<'_>, upload: &mut Upload) -> Result<()> {
        let all: Vec<&IndexedEntry> = plan.layout.index.runs.iter().flat_map(|run| &run.entries).collect();
        let memory_bytes = self.limits.windows_bytes - self.limits.windows_bytes / INDEX_SHARE;
        let objects = plan.from.iter().map(|(run, _)| run.fragment).collect();
        let steps = steps(&plan.from, &all, window_bytes(&objects, self.limits.reads, memory_bytes));
        let mut sources = self.sources(steps.iter().map(|(piece, _)| *piece), memory_bytes);
        let mut rest = &all[..];
        for (piece, count) in steps {
            let (entries, after) = rest.split_at(count);
            rest = after;
            let mut data = sources.next(piece).await?;
            if verify(&data, entries).is_err() {
                let decode = |data: Bytes| verify(&data, entries).map(|()| data);
                data = self.objects.read_decoded(piece.fragment, piece.position, piece.length, decode).await?;
            }
            upload.push(&data).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

fn index_piece(run: &Run) -> Piece {
    Piece { fragment: run.fragment, position: run.index_position, length: run.index_length }
}

/// What is copied at once, of each run one part after another, with the number of entries in it.
fn steps(from: &[(&Run, usize)], mut entries: &[&IndexedEntry], most_bytes: usize) -> Vec<(Piece, usize)> {
    let mut steps = Vec::with_capacity(from.len());
    for (run, count) in from {
        let (mut of_run, after) = entries.split_at(*count);
        entries = after;
        let mut position = run.position;
        while !of_run.is_empty() {
            let (taken, length) = some_of(of_run, most_bytes);
            steps.push((Piece { fragment: run.fragment, position, length }, taken));
            position += u64::from(length);
            of_run = &of_run[taken..];
        }
    }
    steps
}

/// How many of the entries are copied at once, at least one, and their bytes.
fn some_of(entries: &[&IndexedEntry], most_bytes: usize) -> (usize, u32) {
    let (mut taken, mut bytes) = (0, 0_u32);
    for entry in entries {
        let with = bytes.saturating_add(entry.length);
        if taken > 0 && with as usize > most_bytes {
            break;
        }
        (taken, bytes) = (taken + 1, with);
    }
    (taken, bytes)
}

fn verify(data: &[u8], entries: &[&IndexedEntry]) -> Result<(), DecodeError> {
    let mut rest = data;
    for entry in entries {
        let (bytes, after) = rest.split_at_checked(entry.length as usize).unwrap_or((&[], &[]));
        rest = after;
        if entry_checksum(bytes) != Some(entry.checksum) {
            return Err(DecodeError::Damaged("a batch fails its checksum"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
