//! JoinGroup.

use std::time::Duration;

use kafka_protocol::ResponseError;
use tokio::sync::oneshot;

use super::{Group, Purpose};
use crate::groups::messages::{Join, Joined, Limits, Now, State, Step};
use crate::groups::roster::Member;

/// How long a new member is waited for without a sign of life: it does not know its id yet, or cannot send heartbeats
/// while it waits. One that is still there tries again.
const NEW_MEMBER_JOIN_TIMEOUT: Duration = Duration::from_secs(300);

/// Ids that were given out and not used yet. Beyond it the one that would lapse first is taken back.
const MAX_ANNOUNCED: usize = 10_000;

/// A static member that came back while the group was stable, until the record with its new id is durable.
#[derive(Debug)]
pub(super) struct Rejoin {
    /// As it was, to be put back if the record cannot be written.
    former: Member,
    former_leader: String,
    member_id: String,
    generation: i32,
    can_skip_assignment: bool,
}

fn refuse(answer: oneshot::Sender<Joined>, error: ResponseError, member_id: String) -> Step {
    // Whoever asked may be gone.
    _ = answer.send(Joined::refused(error, member_id));
    Step::default()
}

impl Group {
    /// `new_member_id` (`member_id_for`) is taken if the member has none. `answer` is always answered, now or later.
    pub fn join(
        &mut self,
        limits: &Limits,
        join: Join,
        new_member_id: String,
        now: Now,
        answer: oneshot::Sender<Joined>,
    ) -> Step {
        let allowed = limits.min_session_timeout..=limits.max_session_timeout;
        if !allowed.contains(&join.session_timeout) {
            return refuse(answer, ResponseError::InvalidSessionTimeout, join.member_id);
        }
        if self.state == State::Dead {
            // It has just been deleted, or moves away: the client looks for the coordinator again.
            return refuse(answer, ResponseError::CoordinatorNotAvailable, join.member_id);
        }
        if !self.has_room_for(&join.member_id, limits) {
            let step = self.turn_away(&join.member_id, now);
            _ = refuse(answer, ResponseError::GroupMaxSizeReached, String::new());
            return step;
        }
        if !self.supports(&join) {
            return refuse(answer, ResponseError::InconsistentGroupProtocol, join.member_id);
        }
        if join.member_id.is_empty() {
            self.join_new(limits, join, new_member_id, now, answer)
        } else if self.announced.contains_key(&join.member_id) && join.instance_id.is_none() {
            let member_id = join.member_id.clone();
            self.add(limits, &join, member_id, now, answer)
        } else {
            self.join_again(limits, join, now, answer)
        }
    }

    /// In a rebalance those that have joined count, so that a group that has become too large shrinks to its limit.
    fn has_room_for(&self, member_id: &str, limits: &Limits) -> bool {
        match self.state {
            State::Empty | State::Dead => true,
            State::PreparingRebalance => {
                self.roster.get(member_id).is_some_and(Member::is_joining)
                    || self.roster.joining_count() < limits.max_members
            }
            State::CompletingRebalance | State::Stable => {
                self.roster.contains(member_id) || self.roster.len() < limits.max_members
            }
        }
    }

    fn turn_away(&mut self, member_id: &str, now: Now) -> Step {
        let was_announced = self.announced.remove(member_id).is_some();
        let was_member = self.roster.contains(member_id);
        self.dismiss(member_id);
        if was_announced || was_member { self.after_removal(was_member, now) } else { Step::default() }
    }

    /// Is there a protocol for this member and all others?
    fn supports(&self, join: &Join) -> bool {
        if join.protocol_type.is_empty() || join.protocols.is_empty() {
            return false;
        }
        self.state == State::Empty
            || (self.protocol_type() == join.protocol_type && self.roster.supports_any(&join.protocols))
    }

    fn join_new(
        &mut self,
        limits: &Limits,
        join: Join,
        new_member_id: String,
        now: Now,
        answer: oneshot::Sender<Joined>,
    ) -> Step {
        let holder = join.instance_id.as_deref().and_then(|instance_id| self.roster.static_id(instance_id));
        if let Some(holder) = holder.map(str::to_owned) {
            return self.replace(limits, &join, holder, new_member_id, now, answer);
        }
        if join.require_known_member_id && join.instance_id.is_none() {
            // KIP-394: a client that gives up before it knows its id must not leave a member behind each time.
            self.announced.insert(new_member_id.clone(), now.instant + join.session_timeout);
            self.bound_announced();
            return refuse(answer, ResponseError::MemberIdRequired, new_member_id);
        }
        self.add(limits, &join, new_member_id, now, answer)
    }

    fn bound_announced(&mut self) {
        if self.announced.len() > MAX_ANNOUNCED
            && let Some(first) = self.announced.iter().min_by_key(|(_, until)| **until).map(|(id, _)| id.clone())
        {
            self.announced.remove(&first);
        }
    }

    fn add(
        &mut self,
        limits: &Limits,
        join: &Join,
        member_id: String,
        now: Now,
        answer: oneshot::Sender<Joined>,
    ) -> Step {
        self.announced.remove(&member_id);
        if let Some(initial) = &mut self.initial {
            initial.extended = true;
        }
        if self.roster.is_empty() {
            self.protocol_type = Some(join.protocol_type.clone());
        }
        tracing::info!(group = self.id, member = member_id, instance = join.instance_id, "a member joins");
        let mut member = Member::new(member_id, join, now.instant + NEW_MEMBER_JOIN_TIMEOUT);
        member.wait_for_join(answer);
        self.roster.insert(member);
        self.after_join(limits, now)
    }

    fn join_again(&mut self, limits: &Limits, join: Join, now: Now, answer: oneshot::Sender<Joined>) -> Step {
        if let Err(error) = self.roster.check(&join.member_id, join.instance_id.as_deref()) {
            return refuse(answer, error, join.member_id);
        }
        let Some(member) = self.roster.get_mut(&join.member_id) else {
            return refuse(answer, ResponseError::UnknownMemberId, join.member_id);
        };
        let same = member.offers(&join.protocols);
        // Who comes again unchanged missed an answer. But if the leader of a stable group comes, what it assigns has
        // changed (topics got partitions), although it says the same.
        let knows_all = match self.state {
            State::CompletingRebalance => same,
            State::Stable => same && !self.roster.is_leader(&join.member_id),
            _ => false,
        };
        if knows_all {
            self.renew(&join.member_id, now);
            _ = answer.send(self.joined(&join.member_id));
            return Step::default();
        }
        self.roster.update(&join, answer);
        self.after_join(limits, now)
    }

    /// A static member was restarted: it takes over its own place under a new id, and the old id is fenced (KIP-345).
    fn replace(
        &mut self,
        limits: &Limits,
        join: &Join,
        holder: String,
        member_id: String,
        now: Now,
        answer: oneshot::Sender<Joined>,
    ) -> Step {
        let former_leader = self.roster.leader().unwrap_or_default().to_owned();
        let Some(mut former) = self.roster.remove(&holder) else {
            return refuse(answer, ResponseError::UnknownMemberId, String::new());
        };
        tracing::info!(group = self.id, member = member_id, former = holder, "a static member comes back");
        former.refuse(ResponseError::FencedInstanceId);
        let mut member = Member::new(member_id.clone(), join, now.instant + join.session_timeout);
        member.is_new = false;
        member.must_sync = former.must_sync;
        member.assignment = former.assignment.clone();
        member.wait_for_join(answer);
        self.roster.insert(member);
        if former_leader == holder {
            self.roster.lead(&member_id);
        }
        if self.state != State::Stable || self.roster.elect_protocol() != self.protocol {
            // In CompletingRebalance too: the leader may be assigning to the old id right now.
            return self.after_join(limits, now);
        }
        let record = self.record(|member| member.assignment.clone());
        let can_skip_assignment = join.can_skip_assignment;
        let rejoin = Rejoin { former, former_leader, member_id, generation: self.generation, can_skip_assignment };
        self.write(Purpose::Rejoin(Box::new(rejoin)), record)
    }

    /// If a rebalance began meanwhile, it answers, and its record has the new id.
    pub(super) fn rejoin_written(&mut self, rejoin: Rejoin, outcome: Result<(), ResponseError>, now: Now) {
        let current = self.state == State::Stable && self.generation == rejoin.generation;
        if !current || !self.roster.contains(&rejoin.member_id) {
            return;
        }
        if let Err(error) = outcome {
            return self.take_back(rejoin, error, now);
        }
        let mut joined = self.joined(&rejoin.member_id);
        joined.skip_assignment = rejoin.can_skip_assignment && self.roster.is_leader(&rejoin.member_id);
        if !rejoin.can_skip_assignment {
            // A leader that cannot be told to keep the assignment must not make one: it is told of another leader.
            joined.members.clear();
            joined.leader = rejoin.former_leader;
        }
        if let Some(member) = self.roster.get_mut(&rejoin.member_id) {
            member.answer_join(joined, now.instant);
        }
    }

    fn take_back(&mut self, rejoin: Rejoin, error: ResponseError, now: Now) {
        if let Some(mut member) = self.roster.remove(&rejoin.member_id) {
            member.answer_join(Joined::refused(error, String::new()), now.instant);
            member.refuse(error);
        }
        let mut former = rejoin.former;
        former.renew(now.instant);
        self.roster.insert(former);
        self.roster.lead(&rejoin.former_leader);
    }
}
