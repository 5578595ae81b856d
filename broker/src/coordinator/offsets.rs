//! Committing, reading and deleting offsets; forgetting those that nobody needs any more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::groups::Group;
use crate::groups::WriteId;
use crate::groups::offsets::{Committed, Offsets};
use crate::groups::records::{self, KeyValue};

use super::shard::{Answer, Cell, Change, Inner, Shard};

/// A commit that takes longer is answered so (`offsets.commit.timeout.ms`); it may still succeed.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Tombstones that are appended together.
const TOMBSTONES_AT_A_TIME: usize = 10_000;

/// OffsetCommit, with what was refused before already left out.
#[derive(Debug)]
pub struct Commit {
    pub group: String,
    /// -1: not a member.
    pub generation: i32,
    pub member_id: String,
    pub instance_id: Option<String>,
    pub offsets: Vec<CommitOffset>,
}

#[derive(Debug)]
pub struct CommitOffset {
    pub topic: String,
    pub partition: i32,
    pub committed: Committed,
}

/// OffsetDelete: what became of each partition that was asked for.
pub type DeletedOffsets = Vec<Result<(), ResponseError>>;

impl Shard {
    /// Returns when the offsets are durable and visible.
    pub async fn commit(self: &Arc<Self>, commit: Commit) -> Result<(), ResponseError> {
        let in_time = timeout(COMMIT_TIMEOUT, self.commit_durably(commit)).await;
        in_time.unwrap_or(Err(ResponseError::CoordinatorNotAvailable))
    }

    async fn commit_durably(self: &Arc<Self>, commit: Commit) -> Result<(), ResponseError> {
        let Commit { group, generation, member_id, instance_id, offsets } = commit;
        let too_large = |_| ResponseError::InvalidCommitOffsetSize;
        let records = offsets.iter().map(|offset| {
            let CommitOffset { topic, partition, committed } = offset;
            records::offset_record(&group, topic, *partition, Some(committed))
        });
        let records = records.collect::<Result<Vec<_>, _>>().map_err(too_large)?;
        let batch = self.batch(&records).map_err(|_| ResponseError::InvalidCommitOffsetSize)?;
        drop(records);
        let permit = self.shared.parts.budget.take(batch.len()).await;
        let (answer, durable) = oneshot::channel();
        {
            let mut inner = self.active()?;
            let now = self.shared.now();
            if !inner.groups.contains_key(&group) {
                if generation >= 0 {
                    return Err(ResponseError::IllegalGeneration);
                }
                inner.groups.insert(group.clone(), Cell::new(Group::new(&group, now), Offsets::default()));
            }
            let cell = inner.groups.get_mut(&group).ok_or(ResponseError::UnknownServerError)?;
            let checked = cell.group.check_commit(&member_id, instance_id.as_deref(), generation, now);
            let appended = checked.and_then(|()| {
                let offsets = offsets.into_iter().map(|offset| (offset.topic, offset.partition, offset.committed));
                let offsets = offsets.collect();
                let change = Change::Commit { group: group.clone(), offsets, answer: Some(answer) };
                self.append(&mut inner, batch, permit, change)
            });
            inner.drop_if_nothing(&group);
            appended?;
        }
        durable.await.unwrap_or(Err(ResponseError::NotCoordinator))
    }

    /// The offsets of some partitions of a topic, None where there is none.
    pub fn fetch_offsets(
        &self,
        name: &str,
        topic: &str,
        partitions: &[i32],
    ) -> Result<Vec<(i32, Option<Committed>)>, ResponseError> {
        let inner = self.active()?;
        let offsets = inner.groups.get(name).map(|cell| &cell.offsets);
        let committed = |partition| offsets.and_then(|offsets| offsets.get(topic, partition).cloned());
        Ok(partitions.iter().map(|partition| (*partition, committed(*partition))).collect())
    }

    /// Everything that the group has committed, by topic.
    pub fn fetch_all_offsets(&self, name: &str) -> Result<BTreeMap<String, Vec<(i32, Committed)>>, ResponseError> {
        let inner = self.active()?;
        let mut by_topic: BTreeMap<String, Vec<(i32, Committed)>> = BTreeMap::new();
        if let Some(cell) = inner.groups.get(name) {
            for (topic, partition, committed) in cell.offsets.all() {
                by_topic.entry(topic.to_owned()).or_default().push((partition, committed.clone()));
            }
        }
        Ok(by_topic)
    }

    /// OffsetDelete. Offsets of topics that the group reads are not deleted. Returns when the deletion is durable.
    pub async fn delete_offsets(
        self: &Arc<Self>,
        name: &str,
        wanted: Vec<(String, i32)>,
    ) -> Result<DeletedOffsets, ResponseError> {
        let (answer, durable) = oneshot::channel();
        let outcomes = {
            let mut inner = self.active()?;
            let cell = inner.groups.get(name).ok_or(ResponseError::GroupIdNotFound)?;
            cell.group.check_offset_delete()?;
            let check = |(topic, _): &(String, i32)| match cell.group.is_subscribed_to(topic) {
                true => Err(ResponseError::GroupSubscribedToTopic),
                false => Ok(()),
            };
            let outcomes: DeletedOffsets = wanted.iter().map(check).collect();
            let under_way = inner.commits_under_way(name);
            let is_there =
                |wanted: &(String, i32)| cell.offsets.get(&wanted.0, wanted.1).is_some() || under_way.contains(wanted);
            let gone =
                wanted.into_iter().zip(&outcomes).filter(|(wanted, outcome)| outcome.is_ok() && is_there(wanted));
            let gone: Vec<_> = gone.map(|(wanted, _)| wanted).collect();
            if gone.is_empty() {
                return Ok(outcomes);
            }
            self.append_forget(&mut inner, name, gone, None, Some(answer))?;
            outcomes
        };
        durable.await.unwrap_or(Err(ResponseError::NotCoordinator))?;
        Ok(outcomes)
    }

    /// Drops what groups have committed for a topic that is no more. If that fails, the next sweep does it.
    pub(super) fn forget_topic(&self, topic: &str) {
        let Ok(mut inner) = self.active() else { return };
        let found = inner.groups.iter().map(|(name, cell)| (name.clone(), cell.offsets.of_topic(topic)));
        let found: Vec<_> = found.filter(|(_, partitions)| !partitions.is_empty()).collect();
        for (name, partitions) in found {
            let offsets = partitions.into_iter().map(|partition| (topic.to_owned(), partition)).collect();
            self.forget(&mut inner, &name, offsets);
        }
    }

    /// Forgets offsets whose time is over or whose topic is gone, and groups of which nothing is left.
    pub(super) fn sweep(&self, inner: &mut Inner) {
        let parts = &self.shared.parts;
        let now = self.shared.now();
        let retention_ms = i64::try_from(parts.config.groups.offsets_retention.as_millis()).unwrap_or(i64::MAX);
        let names: Vec<_> = inner.groups.keys().cloned().collect();
        for name in names {
            let Some(cell) = inner.groups.get_mut(&name) else { continue };
            let expiry = cell.group.expiry();
            let mut gone = cell.offsets.expired(&expiry, now.wall_ms, retention_ms, TOMBSTONES_AT_A_TIME);
            let orphans = cell.offsets.all().filter(|(topic, _, _)| parts.topics.by_name(topic).is_none());
            gone.extend(orphans.map(|(topic, partition, _)| (topic.to_owned(), partition)));
            gone.sort();
            gone.dedup();
            let none_left = cell.offsets.is_empty() || gone.len() == cell.offsets.all().count();
            if none_left && cell.group.is_idle() && inner.commits_under_way(&name).is_empty() {
                self.delete_idle(inner, &name);
            } else if !gone.is_empty() {
                self.forget(inner, &name, gone);
            }
        }
    }

    fn delete_idle(&self, inner: &mut Inner, name: &str) {
        let Some(cell) = inner.groups.get_mut(name) else { return };
        if let Ok(step) = cell.group.delete(self.shared.now()) {
            tracing::info!(group = name, "forgetting a group that nobody uses");
            self.follow(inner, name, step);
        }
    }

    fn forget(&self, inner: &mut Inner, name: &str, offsets: Vec<(String, i32)>) {
        tracing::info!(group = name, offsets = offsets.len(), "forgetting committed offsets");
        if let Err(code) = self.append_forget(inner, name, offsets, None, None) {
            tracing::warn!(group = name, ?code, "could not forget committed offsets");
        }
    }

    /// The tombstones of a group and of everything that it has committed.
    pub(super) fn append_tombstones(
        &self,
        inner: &mut Inner,
        name: &str,
        write: WriteId,
        answer: Option<Answer>,
    ) -> Result<(), ResponseError> {
        let mut offsets = inner.commits_under_way(name);
        if let Some(cell) = inner.groups.get(name) {
            offsets.extend(cell.offsets.all().map(|(topic, partition, _)| (topic.to_owned(), partition)));
        }
        self.append_forget(inner, name, offsets.into_iter().collect(), Some(write), answer)
    }

    /// Appends tombstones. If they are many, in several batches; the last one carries the group's own and the answer.
    fn append_forget(
        &self,
        inner: &mut Inner,
        name: &str,
        mut offsets: Vec<(String, i32)>,
        write: Option<WriteId>,
        answer: Option<Answer>,
    ) -> Result<(), ResponseError> {
        while offsets.len() > TOMBSTONES_AT_A_TIME {
            let some = offsets.drain(..TOMBSTONES_AT_A_TIME).collect();
            self.append_some_tombstones(inner, name, some, None, None)?;
        }
        self.append_some_tombstones(inner, name, offsets, write, answer)
    }

    fn append_some_tombstones(
        &self,
        inner: &mut Inner,
        name: &str,
        offsets: Vec<(String, i32)>,
        write: Option<WriteId>,
        answer: Option<Answer>,
    ) -> Result<(), ResponseError> {
        let tombstones = offsets.iter().map(|(topic, partition)| records::offset_record(name, topic, *partition, None));
        let group = write.map(|_| records::group_record(name, None));
        let records = tombstones.chain(group).collect::<Result<Vec<KeyValue>, _>>();
        let records = records.map_err(|_| ResponseError::UnknownServerError)?;
        let change = Change::Forget { group: name.to_owned(), offsets, write, answer };
        self.append_now(inner, &records, change)
    }
}
