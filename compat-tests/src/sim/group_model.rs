//! What consumer groups were promised, and the invariants that follow:
//! - `commit-durable`: what OffsetFetch shows was sent by a member and not refused, and nothing that was acknowledged
//!   before the question has replaced it.
//! - `one-owner`: in one generation no partition belongs to two members, and a member's assignment stays what it is.
//! - `generation-monotonic`: no generation begins below one that members have been told an assignment of.
//!
//! Two commits of one partition are in a certain order if different brokers took them (by leader epochs), if they are of
//! different generations (a broker takes only commits of the one that runs), or if one was acknowledged before the other
//! was sent. Those of one generation of which the first was never answered are in no order: both may count.
//!
//! A broker must know what it and all earlier ones have acknowledged, not what a later one has: whoever was overtaken
//! may answer for a moment (`Model::answered` says for how long).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;

use super::trace::Trace;
use crate::checker::Partition;

/// A moment in the order of everything that clients sent and were told.
pub type Moment = u64;

/// Which commit: clients send it along as metadata.
pub type CommitId = usize;

pub struct GroupModel {
    trace: Arc<Trace>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    now: Moment,
    commits: Vec<Commit>,
    by_partition: BTreeMap<(String, Partition), Vec<CommitId>>,
    /// By group: assignments that members were told.
    told: BTreeMap<String, Vec<Told>>,
    /// By group and generation: who has what.
    owners: BTreeMap<(String, i32), BTreeMap<String, BTreeSet<Partition>>>,
    /// By group and number: the members that there are.
    standings: BTreeMap<(String, u32), Standing>,
    /// What each partition's offset was when nobody committed any more.
    finals: BTreeMap<(String, Partition), Option<CommitId>>,
}

struct Commit {
    group: String,
    partition: Partition,
    offset: i64,
    generation: i32,
    epoch: i32,
    sent: Moment,
    end: End,
}

/// How a commit ended for whoever sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Acked(Moment),
    /// It was not even appended, and must never be seen.
    Refused,
    Unknown,
}

struct Told {
    at: Moment,
    epoch: i32,
    generation: i32,
}

#[derive(Debug, Default)]
struct Standing {
    /// The generation that it is in, as far as it knows, and what it has to read.
    holds: Option<(i32, BTreeSet<Partition>)>,
    /// It has committed something since the faults stopped.
    proved: bool,
}

/// What a member was told in answer to SyncGroup.
#[derive(Debug)]
pub struct Assignment<'a> {
    pub group: &'a str,
    /// The instance id of a static member, which keeps its place under another member id; else the member id.
    pub holder: &'a str,
    pub generation: i32,
    pub epoch: i32,
    pub partitions: &'a BTreeSet<Partition>,
}

/// An offset as OffsetFetch shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub partition: Partition,
    /// -1: none.
    pub offset: i64,
    pub metadata: String,
}

impl Commit {
    /// It is certain that this one is older.
    fn precedes(&self, other: &Commit) -> bool {
        if self.epoch != other.epoch {
            return self.epoch < other.epoch;
        }
        self.generation < other.generation || matches!(self.end, End::Acked(at) if at < other.sent)
    }

    fn acked_before(&self, moment: Moment) -> bool {
        matches!(self.end, End::Acked(at) if at < moment)
    }
}

impl State {
    fn tick(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    /// Why this must not be shown to somebody who asked a broker of this epoch at this moment.
    fn wrong(&self, group: &str, shown: &Shown, epoch: i32, asked: Moment) -> Option<String> {
        let of_partition = self.by_partition.get(&(group.to_owned(), shown.partition.clone()));
        let acked = of_partition.into_iter().flatten().filter(|id| {
            let commit = &self.commits[**id];
            commit.epoch <= epoch && commit.acked_before(asked)
        });
        if shown.offset < 0 {
            let lost = acked.max().map(|id| self.commits[*id].offset)?;
            return Some(format!("nothing is committed, but {lost} was"));
        }
        let found = shown.metadata.parse::<CommitId>().ok().and_then(|id| Some((id, self.commits.get(id)?)));
        let Some((id, commit)) = found else { return Some("nobody committed that".to_owned()) };
        if (commit.group.as_str(), &commit.partition, commit.offset) != (group, &shown.partition, shown.offset) {
            return Some(format!("commit {id} was another one"));
        }
        if commit.epoch > epoch {
            return Some(format!("commit {id} was sent to epoch {}", commit.epoch));
        }
        if commit.end == End::Refused {
            return Some(format!("commit {id} was refused"));
        }
        let newer = acked.into_iter().find(|acked| commit.precedes(&self.commits[**acked]))?;
        Some(format!("commit {newer} of {} was acknowledged after that", self.commits[*newer].offset))
    }
}

impl GroupModel {
    pub fn new(trace: Arc<Trace>) -> Self {
        Self { trace, state: Mutex::default() }
    }

    /// The moment at which something is asked for.
    pub fn now(&self) -> Moment {
        self.state.lock().tick()
    }

    /// A commit is about to be sent.
    pub fn committing(&self, group: &str, partition: &Partition, offset: i64, generation: i32, epoch: i32) -> CommitId {
        let mut state = self.state.lock();
        let (group, partition, sent) = (group.to_owned(), partition.clone(), state.tick());
        let id = state.commits.len();
        state.by_partition.entry((group.clone(), partition.clone())).or_default().push(id);
        state.commits.push(Commit { group, partition, offset, generation, epoch, sent, end: End::Unknown });
        id
    }

    pub fn committed(&self, id: CommitId) {
        let mut state = self.state.lock();
        let at = state.tick();
        let Commit { group, partition, offset, .. } = &state.commits[id];
        self.trace.note(format_args!("{group}: commit {id} of {partition} at {offset}"));
        state.commits[id].end = End::Acked(at);
    }

    /// Refused before it was appended.
    pub fn commit_refused(&self, id: CommitId) {
        self.state.lock().commits[id].end = End::Refused;
    }

    /// OffsetFetch, of a broker of this epoch.
    pub fn shown(&self, group: &str, shown: &Shown, epoch: i32, asked: Moment) {
        if let Some(why) = self.state.lock().wrong(group, shown, epoch, asked) {
            let Shown { partition, offset, metadata } = shown;
            let how = format_args!("{group}: epoch {epoch} shows {partition} at {offset} ({metadata:?}): {why}");
            self.trace.violation("commit-durable", how);
        }
    }

    /// The same when nobody commits any more: all brokers show the same.
    pub fn shown_finally(&self, group: &str, shown: &Shown) {
        let id = shown.metadata.parse::<CommitId>().ok();
        let key = (group.to_owned(), shown.partition.clone());
        let known = *self.state.lock().finals.entry(key).or_insert(id);
        if known != id {
            let how = format_args!("{group}: {} was at commit {known:?}, now {shown:?}", shown.partition);
            self.trace.violation("commit-durable", how);
        }
    }

    /// JoinGroup was answered with a generation.
    pub fn joined(&self, group: &str, generation: i32, epoch: i32, asked: Moment) {
        let state = self.state.lock();
        let told = state.told.get(group).into_iter().flatten();
        let before = told.filter(|told| told.epoch <= epoch && told.at < asked).map(|told| told.generation).max();
        if let Some(before) = before.filter(|before| generation < *before) {
            let how = format_args!("{group}: generation {generation} of epoch {epoch} after {before}");
            self.trace.violation("generation-monotonic", how);
        }
    }

    /// SyncGroup was answered with an assignment.
    pub fn assigned(&self, assignment: &Assignment<'_>) {
        let Assignment { group, holder, generation, epoch, partitions } = assignment;
        let list: Vec<String> = partitions.iter().map(ToString::to_string).collect();
        self.trace.note(format_args!("{group}: {holder} has {list:?} in generation {generation}"));
        let mut state = self.state.lock();
        let at = state.tick();
        let told = Told { at, epoch: *epoch, generation: *generation };
        state.told.entry((*group).to_owned()).or_default().push(told);
        let owners = state.owners.entry(((*group).to_owned(), *generation)).or_default();
        for (other, theirs) in owners.iter() {
            let wrong = if other == holder { theirs != *partitions } else { !theirs.is_disjoint(partitions) };
            if wrong {
                let how = format_args!(
                    "{group}: in generation {generation} {other} was given {theirs:?}, {holder} is given {partitions:?}"
                );
                self.trace.violation("one-owner", how);
            }
        }
        owners.insert((*holder).to_owned(), (*partitions).clone());
    }

    /// There is this member, and it holds nothing.
    pub fn holds_nothing(&self, group: &str, member: u32) {
        self.state.lock().standings.entry((group.to_owned(), member)).or_default().holds = None;
    }

    pub fn holds(&self, group: &str, member: u32, generation: i32, partitions: &BTreeSet<Partition>) {
        let mut state = self.state.lock();
        let standing = state.standings.entry((group.to_owned(), member)).or_default();
        standing.holds = Some((generation, partitions.clone()));
    }

    /// The member has committed something since the faults stopped.
    pub fn proved(&self, group: &str, member: u32) {
        self.state.lock().standings.entry((group.to_owned(), member)).or_default().proved = true;
    }

    /// Are all members in one generation, with all these partitions, and has everybody who has one committed?
    pub fn is_settled(&self, group: &str, partitions: &[Partition]) -> bool {
        let state = self.state.lock();
        let mut generations = BTreeSet::new();
        let mut covered = BTreeSet::new();
        for (_, standing) in state.standings.iter().filter(|((of, _), _)| of == group) {
            let Some((generation, own)) = &standing.holds else { return false };
            if !(standing.proved || own.is_empty()) {
                return false;
            }
            generations.insert(*generation);
            covered.extend(own.iter());
        }
        generations.len() == 1 && partitions.iter().all(|partition| covered.contains(partition))
    }

    /// The members of a group as they see themselves.
    pub fn describe(&self, group: &str) -> String {
        let state = self.state.lock();
        let standings = state.standings.iter().filter(|((of, _), _)| of == group);
        standings.map(|((_, member), standing)| format!("{member}: {standing:?}; ")).collect()
    }

    /// (acknowledged commits, assignments that members were told)
    pub fn counts(&self) -> (usize, usize) {
        let state = self.state.lock();
        let acked = state.commits.iter().filter(|commit| matches!(commit.end, End::Acked(_))).count();
        (acked, state.told.values().map(Vec::len).sum())
    }
}

#[cfg(test)]
mod tests;
