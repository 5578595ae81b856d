//! Joining, staying and leaving: what members of a group ask for.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use tokio::sync::oneshot;

use crate::groups::offsets::Offsets;
use crate::groups::{Group, Join, Joined, Leaver, SyncAssignment, Synced, member_id_for};

use super::shard::{Cell, Shard};

impl Shard {
    /// JoinGroup: waits until the group is complete.
    pub async fn join(self: &Arc<Self>, name: &str, join: Join) -> Result<Joined, ResponseError> {
        let (answer, joined) = oneshot::channel();
        {
            let mut inner = self.active()?;
            let now = self.shared.now();
            if !join.member_id.is_empty() && !inner.groups.contains_key(name) {
                return Err(ResponseError::UnknownMemberId);
            }
            let random = self.shared.parts.random.uuid();
            let new_member_id = member_id_for(join.instance_id.as_deref(), &join.client_id, random);
            let cell = inner.groups.entry(name.to_owned());
            let cell = cell.or_insert_with(|| Cell::new(Group::new(name, now), Offsets::default()));
            let step = cell.group.join(&self.shared.limits, join, new_member_id, now, answer);
            self.follow(&mut inner, name, step);
        }
        joined.await.map_err(|_| ResponseError::NotCoordinator)
    }

    /// SyncGroup: waits for the leader's assignment and until it is durable.
    pub async fn sync(self: &Arc<Self>, name: &str, sync: SyncAssignment) -> Result<Synced, ResponseError> {
        let (answer, synced) = oneshot::channel();
        {
            let mut inner = self.active()?;
            let cell = inner.groups.get_mut(name).ok_or(ResponseError::UnknownMemberId)?;
            let step = cell.group.sync(sync, self.shared.now(), answer);
            self.follow(&mut inner, name, step);
        }
        synced.await.map_err(|_| ResponseError::NotCoordinator)
    }

    pub fn heartbeat(
        &self,
        name: &str,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), ResponseError> {
        let mut inner = self.active()?;
        let cell = inner.groups.get_mut(name).ok_or(ResponseError::UnknownMemberId)?;
        cell.group.heartbeat(member_id, instance_id, generation, self.shared.now())
    }

    /// LeaveGroup: one outcome for each leaver.
    pub fn leave(&self, name: &str, leavers: &[Leaver]) -> Result<Vec<Result<(), ResponseError>>, ResponseError> {
        let mut inner = self.active()?;
        let Some(cell) = inner.groups.get_mut(name) else {
            return Ok(vec![Err(ResponseError::UnknownMemberId); leavers.len()]);
        };
        let (outcomes, step) = cell.group.leave(leavers, self.shared.now());
        self.follow(&mut inner, name, step);
        Ok(outcomes)
    }
}
