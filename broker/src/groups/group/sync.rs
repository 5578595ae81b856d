//! SyncGroup: the leader's assignment is recorded, and then handed out.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use meta::planted;
use tokio::sync::oneshot;

use super::{Group, Purpose};
use crate::groups::messages::{Now, State, Step, SyncAssignment, Synced};

impl Group {
    /// Members are answered after the record of the assignment is durable (`written`). `answer` is always answered.
    pub fn sync(&mut self, sync: SyncAssignment, now: Now, answer: oneshot::Sender<Synced>) -> Step {
        if let Err(error) = self.check_sync(&sync) {
            _ = answer.send(Synced::refused(error));
            return Step::default();
        }
        let Some(member) = self.roster.get_mut(&sync.member_id) else { return Step::default() };
        member.must_sync = false;
        member.renew(now.instant);
        member.wait_for_sync(answer);
        let step = match self.state {
            State::Stable => {
                self.answer_sync(&sync.member_id, now);
                Step::default()
            }
            _ if self.roster.is_leader(&sync.member_id) => self.assign(sync, now),
            _ => Step::default(),
        };
        self.forget_sync_deadline();
        step
    }

    fn check_sync(&self, sync: &SyncAssignment) -> Result<(), ResponseError> {
        self.check_member(&sync.member_id, sync.instance_id.as_deref(), sync.generation)?;
        let differs = |said: &Option<String>, own: &Option<String>| said.is_some() && said != own;
        if differs(&sync.protocol_type, &self.protocol_type) || differs(&sync.protocol, &self.protocol) {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        match self.state {
            State::PreparingRebalance => Err(ResponseError::RebalanceInProgress),
            State::CompletingRebalance | State::Stable => Ok(()),
            State::Empty | State::Dead => Err(ResponseError::UnknownMemberId),
        }
    }

    /// Has the leader's assignment recorded. What it says first counts: a repetition waits for the same record.
    fn assign(&mut self, sync: SyncAssignment, now: Now) -> Step {
        let own = self.generation;
        if self.writes.values().any(|purpose| purpose.assigns(own)) {
            return Step::default();
        }
        // Small, and kept for long: slices would keep the whole request.
        let said = sync.assignments.into_iter().filter(|(member_id, _)| self.roster.contains(member_id));
        let assignments: BTreeMap<String, Bytes> =
            said.map(|(member_id, assignment)| (member_id, Bytes::copy_from_slice(&assignment))).collect();
        let record = self.record(|member| assignments.get(&member.id).cloned().unwrap_or_default());
        let generation = self.generation;
        if planted::bug("sync-before-durable") {
            _ = self.assignment_written(generation, assignments.clone(), Ok(()), now);
        }
        self.write(Purpose::Assignment { generation, assignments }, record)
    }

    /// If the group has moved on meanwhile, its members know, and join again.
    pub(super) fn assignment_written(
        &mut self,
        generation: i32,
        assignments: BTreeMap<String, Bytes>,
        outcome: Result<(), ResponseError>,
        now: Now,
    ) -> Step {
        if self.state != State::CompletingRebalance || generation != self.generation {
            return Step::default();
        }
        if let Err(error) = outcome {
            self.refuse_syncs(error, now);
            return self.prepare(now);
        }
        self.become_state(State::Stable, now);
        for member_id in self.roster.ids(|_| true) {
            let Some(member) = self.roster.get_mut(&member_id) else { continue };
            member.assignment = assignments.get(&member_id).cloned().unwrap_or_default();
            self.answer_sync(&member_id, now);
        }
        Step::default()
    }

    /// Nothing if it does not wait.
    fn answer_sync(&mut self, member_id: &str, now: Now) {
        let (protocol_type, protocol) = (self.protocol_type.clone(), self.protocol.clone());
        if let Some(member) = self.roster.get_mut(member_id) {
            let assignment = member.assignment.clone();
            member.answer_sync(Synced { error: None, protocol_type, protocol, assignment }, now.instant);
        }
    }

    fn forget_sync_deadline(&mut self) {
        if self.roster.iter().all(|member| !member.must_sync) {
            self.sync_deadline = None;
        }
    }
}
