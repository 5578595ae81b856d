//! Upkeep: what happens to data after it was acknowledged. One task that moves it from shared fragments to tiered objects,
//! checkpoints what it did in the manifest, drops what nobody wants any more, and deletes what nothing refers to.
//!
//! Invariants:
//! - A round is: write tiered objects; commit the manifest; only then change partitions, and drop fragments. Whatever
//!   ends it, at any await, leaves orphans at most.
//! - Deleted is only what a committed manifest does not refer to and lies before its position, or what no current or future
//!   manifest can refer to: objects of incarnations before our own that ours does not name.
//! - All changes of the manifest are made here, one after another.
//! - While any partition is damaged nothing is checkpointed or deleted: what it consists of is not known.
//! - An orderly end leaves no upload in parts behind, unless the store does not answer in time.
//! - What is remembered of single runs, in a round and in a merge, is paid for, and so limited in number: of a round here
//!   (`round_runs`), of a merge with the entries of the object that they go into. What there is once a partition is not, nor
//!   is a manifest that is written anew: both are as long as what partitions remember all the time.
//! - Nothing is polled: the task sleeps until fragments have come, something was dropped, or a known time has come.

mod doomed;

mod retention;

mod filter;

mod rewrite;

mod uploads;

mod join;

mod round;

mod compact;

mod merge;

mod collect;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use meta::error::ErrorKind;
use meta::records::LogRecord;
use meta::seams::{Incarnation, Random, WallClock};
use storage::budget::Budget;
use storage::entry::{FragmentId, TopicPartition};
use storage::error::Result;
use storage::log::LogStore;
use storage::manifest::ManifestStore;
use storage::tiered::TieredObjects;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::config::BrokerConfig;
use crate::partition::Status;
use crate::partitions::Partitions;
use crate::topics::Topics;

use self::doomed::Doomed;
use self::join::{Joiner, Limits, Pace};
use self::merge::Merge;
use self::rewrite::RUN_MEMORY_BYTES;
use self::uploads::{End, Uploads, uploads};

/// Pause after a failure; doubles up to the other.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Commits that only drop something are so far apart.
const DROPS_APART: Duration = Duration::from_secs(1);
/// What is taken in one round at most, in rounds' lengths.
const LONGEST_ROUND: u64 = 4;
/// Rounds one behind the other, before everything else has its turn.
const MOST_ROUNDS: usize = 8;
/// The share of the memory that a run takes at most.
const RUN_SHARE: usize = 8;
/// The share of the memory that a round takes at most for what it remembers of runs; of the budget, which is smaller, it is
/// half as much again.
const ROUND_SHARE: usize = 32;
/// If fragments are no shorter on the average than a round's this part, they are gathered beyond what the tail holds:
/// reading them once more does not take many requests.
const MANY_FRAGMENTS: u64 = 256;

pub struct UpkeepParts {
    pub config: Arc<BrokerConfig>,
    pub topics: Topics,
    pub partitions: Arc<Partitions>,
    pub logs: Arc<dyn LogStore>,
    pub objects: TieredObjects,
    pub budget: Budget,
    pub manifest: ManifestStore,
    pub clock: Arc<dyn WallClock>,
    pub random: Random,
    /// Our own log, and who we are.
    pub log: u64,
    pub incarnation: Incarnation,
    /// Fragments lie in files that are long already: only what is worth it is moved.
    pub in_place: bool,
    pub found: Found,
}

/// What a start has found in the manifest.
#[derive(Debug, Default)]
pub struct Found {
    pub position: Option<FragmentId>,
    /// Units that its runs lie in.
    pub referenced: BTreeSet<FragmentId>,
    pub committed: BTreeMap<TopicPartition, Committed>,
    /// Logs before our own, sealed.
    pub history: Vec<(u64, LogRecord)>,
}

/// The running task. Dropping it stops it like a crash: that leaves orphans at most, and uploads in parts that nobody ends.
pub struct Upkeep {
    task: JoinHandle<()>,
    end: End,
}

impl Upkeep {
    pub fn start(parts: UpkeepParts) -> Self {
        let (end, uploads) = uploads();
        Self { task: tokio::spawn(Worker::new(parts, uploads).run()), end }
    }

    /// Ends it in good order: nothing is begun any more, uploads in parts are given up, and all else is dropped as it is.
    pub async fn end(mut self) {
        let none_left = self.end.given_up().await;
        if none_left.is_none() {
            tracing::warn!("the store does not answer: parts of an upload that was given up may stay behind");
        }
        self.task.abort();
        // The only errors there can be are the one just asked for, and a panic that was shown already.
        let _ended = (&mut self.task).await;
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Worker {
    parts: UpkeepParts,
    /// The manifest's.
    position: FragmentId,
    committed: BTreeMap<TopicPartition, Committed>,
    /// Units that the manifest refers to, and perhaps some that it does not any more.
    referenced: BTreeSet<FragmentId>,
    /// Partitions with records that cannot be read: they are not compacted.
    uncleanable: BTreeSet<TopicPartition>,
    /// Partitions with fragments that cannot be read: they are not moved.
    unmovable: BTreeSet<TopicPartition>,
    /// Objects that cannot be read: they are not merged.
    unmergeable: BTreeSet<FragmentId>,
    doomed: Doomed,
    /// The next number of a tiered object.
    numbers: Arc<AtomicU64>,
    merging: Option<Merge>,
    uploads: Uploads,
    /// Of what was merged since the start: the youngest of what it consists of. An object's number tells its age
    /// otherwise, and nearly so after the next start.
    ages: BTreeMap<FragmentId, FragmentId>,
    /// When it is to be looked for what is worth merging.
    merge_due: Option<Instant>,
    /// When a partition becomes worth compacting though nothing comes, as far as is known.
    compaction_due: Option<Instant>,
    /// When the first record becomes too old, as far as is known.
    retention_due: Option<Instant>,
    last_commit: Option<Instant>,
    dropped: bool,
    /// Objects of former incarnations that nothing refers to were not looked for yet.
    collection_due: bool,
    retry_at: Option<Instant>,
    pause: Duration,
}

/// One partition in the manifest.
#[derive(Debug, Clone, Copy)]
pub struct Committed {
    /// The manifest has what lies below.
    pub end: i64,
    pub log_start: i64,
    /// Offsets below it are compacted.
    pub cleaned_to: i64,
}

/// When it is so many milliseconds since the epoch, at the earliest after `least`. A year from now is as good as later.
fn at_ms(at_ms: i64, now_ms: i64, least: Duration) -> Instant {
    let wait_ms = u64::try_from(at_ms.saturating_sub(now_ms)).unwrap_or(0);
    Instant::now() + Duration::from_millis(wait_ms.min(365 * 86_400_000)).max(least)
}

impl Worker {
    fn new(mut parts: UpkeepParts, uploads: Uploads) -> Self {
        let found = std::mem::take(&mut parts.found);
        parts.found.history = found.history;
        let mut referenced = found.referenced;
        if let Some(position) = found.position.filter(|position| parts.in_place && position.log > 0) {
            // Its file was not complete yet when the manifest was written.
            referenced.insert(parts.logs.unit(position));
        }
        Self {
            position: found.position.unwrap_or(FragmentId { log: 0, segment: 0, fragment: 0 }),
            committed: found.committed,
            referenced,
            uncleanable: BTreeSet::new(),
            unmovable: BTreeSet::new(),
            unmergeable: BTreeSet::new(),
            doomed: Doomed::default(),
            numbers: Arc::default(),
            merging: None,
            uploads,
            ages: BTreeMap::new(),
            merge_due: Some(Instant::now()),
            compaction_due: Some(Instant::now()),
            retention_due: Some(Instant::now()),
            last_commit: None,
            dropped: true,
            collection_due: true,
            retry_at: None,
            pause: PAUSE,
            parts,
        }
    }

    async fn run(mut self) {
        loop {
            match self.work().await {
                Ok(()) => (self.retry_at, self.pause) = (None, PAUSE),
                Err(error) if matches!(error.kind(), ErrorKind::Fenced | ErrorKind::Closed) => {
                    tracing::info!(%error, "upkeep has ended");
                    return;
                }
                Err(error) => {
                    let again_ms = self.pause.as_millis();
                    tracing::warn!(%error, again_ms, "upkeep failed, trying again");
                    self.retry_at = Some(Instant::now() + self.pause);
                    self.pause = (self.pause * 2).min(PAUSE_MAX);
                }
            }
            self.rest().await;
        }
    }

    /// Sleeps until there is something to do.
    async fn rest(&mut self) {
        let due = self.retry_at.or_else(|| self.due());
        let (has_failed, wake_at_bytes) = (self.retry_at.is_some(), self.wake_at_bytes());
        let backlog = self.parts.partitions.backlog();
        // More of what has just failed is no reason to try earlier.
        let more = async {
            match has_failed {
                true => std::future::pending().await,
                false => backlog.more(wake_at_bytes).await,
            }
        };
        let merged = async {
            match self.merging.as_mut().filter(|merge| !has_failed && merge.is_under_way()) {
                Some(merge) => merge.written().await,
                None => std::future::pending().await,
            }
        };
        let time = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = more => {}
            () = time => {}
            () = merged => {}
        }
    }

    fn due(&self) -> Option<Instant> {
        if self.is_paused() {
            return None;
        }
        let tiering = self.parts.partitions.backlog().since().map(|since| since + self.parts.config.tier.interval);
        let drops = self.dropped.then(|| self.last_commit.map_or_else(Instant::now, |last| last + DROPS_APART));
        // One merge at a time: the end of one wakes by itself.
        let merge_due = self.merge_due.filter(|_| self.merging.is_none());
        let others = [self.retention_due, self.compaction_due, merge_due, self.doomed.due()];
        [tiering, drops].into_iter().chain(others).flatten().min()
    }

    /// What is not tiered yet, for readers at the end: they find it in memory.
    fn keep_bytes(&self) -> u64 {
        (self.parts.config.tail_bytes / 4).min(self.parts.config.tier.bytes) as u64
    }

    /// What is taken from memory in one go, or, where fragments are long, read once more in long pieces.
    fn round_bytes(&self) -> u64 {
        let (config, mean_bytes) = (&self.parts.config, self.parts.partitions.backlog().mean_bytes());
        let gathers = mean_bytes >= config.tier.bytes as u64 / MANY_FRAGMENTS && self.joins_fragments();
        let most = if gathers { usize::MAX } else { config.tail_bytes / 2 };
        config.tier.bytes.min(most).max(1) as u64
    }

    /// One that has fallen behind catches up in long rounds, unless they are long already: more objects at once would be
    /// read in shorter pieces.
    fn most_round_bytes(&self) -> u64 {
        let round_bytes = self.round_bytes();
        let from_memory = (self.parts.config.tail_bytes / 2) as u64;
        round_bytes.max(from_memory.min(LONGEST_ROUND * round_bytes))
    }

    /// A round has no more runs than it may remember, unless a single fragment has: then it has that one.
    fn round_runs(&self) -> usize {
        let of_budget = self.parts.budget.total_bytes() / ROUND_SHARE * 3 / 2;
        (self.parts.config.memory_bytes / ROUND_SHARE).min(of_budget) / RUN_MEMORY_BYTES
    }

    /// Runs are no longer than this: they are read whole, into a part of the memory that there is.
    fn run_bytes(&self, segment_bytes: u64) -> u64 {
        segment_bytes.min((self.parts.config.memory_bytes / RUN_SHARE) as u64)
    }

    /// In a folder fragments are pieces of files, and stay there but for the shortest.
    fn joins_fragments(&self) -> bool {
        !self.parts.in_place && self.parts.config.tier.merge_object_bytes > 0
    }

    fn joiner(&self, pace: Pace) -> Joiner {
        Joiner {
            objects: self.parts.objects.clone(),
            budget: self.parts.budget.clone(),
            numbers: self.numbers.clone(),
            uploads: self.uploads.clone(),
            log: self.parts.log,
            incarnation: self.parts.incarnation,
            limits: Limits::of(&self.parts.config, &self.parts.budget, self.parts.in_place, pace),
        }
    }

    fn wake_at_bytes(&self) -> u64 {
        self.keep_bytes() + self.round_bytes()
    }

    /// A round is late if much more is waiting than it takes: so much came while the one before was under way.
    fn pace(&self) -> Pace {
        let is_late = self.parts.partitions.backlog().bytes() > self.wake_at_bytes() + self.round_bytes() / 2;
        if is_late { Pace::HASTE } else { Pace::LEISURE }
    }

    fn is_paused(&self) -> bool {
        self.parts.partitions.all().iter().any(|partition| partition.status() == Status::Damaged)
    }

    /// Does what is due.
    async fn work(&mut self) -> Result<()> {
        if self.is_paused() {
            tracing::warn!("a partition is damaged: nothing is tiered or deleted until that has been looked into");
            return Ok(());
        }
        if self.collection_due {
            self.collect().await?;
            self.collection_due = false;
        }
        self.delete_due().await?;
        self.dropped |= self.parts.partitions.backlog().take_dropped();
        let tier = self.parts.config.tier.clone();
        let before = self.position;
        for _ in 0..MOST_ROUNDS {
            let is_due = self.parts.partitions.backlog().bytes() >= self.wake_at_bytes();
            if !is_due || !self.round(self.keep_bytes(), self.most_round_bytes()).await? {
                break;
            }
            // However long one goes on behind another: what they leave behind goes, and what was merged is committed.
            self.delete_due().await?;
            self.merge().await?;
        }
        let overdue = |since: Instant| since + tier.interval <= Instant::now();
        if self.parts.partitions.backlog().since().is_some_and(overdue) {
            // Of very many runs some are left, which are due at once, when everything else has had its turn.
            self.round(0, u64::MAX).await?;
        }
        let now = Instant::now();
        if self.position != before || self.compaction_due.is_some_and(|due| due <= now) {
            self.compact().await?;
        }
        self.merge().await?;
        let now = Instant::now();
        let rested = self.last_commit.is_none_or(|last| last + DROPS_APART <= now);
        if (self.dropped && rested) || self.retention_due.is_some_and(|due| due <= now) {
            self.round(u64::MAX, 0).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
