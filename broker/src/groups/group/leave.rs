//! LeaveGroup.

use kafka_protocol::ResponseError;

use super::Group;
use crate::groups::messages::{Leaver, Now, State, Step};

impl Group {
    /// One outcome for each leaver. Kafka does not wait for the record, if there is one: after a crash a member that
    /// left is there again until its session ends.
    pub fn leave(&mut self, leavers: &[Leaver], now: Now) -> (Vec<Result<(), ResponseError>>, Step) {
        let members = self.roster.len();
        let announced = self.announced.len();
        let outcomes = leavers.iter().map(|leaver| self.let_go(leaver)).collect();
        let members_gone = self.roster.len() < members;
        let changed = members_gone || self.announced.len() < announced;
        let step = if changed { self.after_removal(members_gone, now) } else { Step::default() };
        (outcomes, step)
    }

    fn let_go(&mut self, leaver: &Leaver) -> Result<(), ResponseError> {
        if self.state == State::Dead {
            return Err(ResponseError::CoordinatorNotAvailable);
        }
        let instance_id = leaver.instance_id.as_deref();
        let member_id = if leaver.member_id.is_empty() {
            // Administrators remove static members by name.
            let holder = instance_id.and_then(|instance_id| self.roster.static_id(instance_id));
            holder.ok_or(ResponseError::UnknownMemberId)?.to_owned()
        } else if self.announced.remove(&leaver.member_id).is_some() {
            return Ok(());
        } else {
            self.roster.check(&leaver.member_id, instance_id)?;
            leaver.member_id.clone()
        };
        tracing::info!(group = self.id, member = member_id, "a member leaves");
        self.dismiss(&member_id);
        Ok(())
    }
}
