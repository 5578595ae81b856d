//! From one generation to the next: who is waited for and until when, and what ends the wait.

use std::time::Duration;

use kafka_protocol::ResponseError;
use tokio::time::Instant;

use super::{Group, InitialDelay, Purpose};
use crate::groups::messages::{Joined, Limits, Now, State, Step, Synced};
use crate::groups::roster::Member;

/// A rebalance that nobody joined goes on at least this long, whatever its members allow.
const MIN_POSTPONEMENT: Duration = Duration::from_secs(1);

impl Group {
    /// Does what is due. Too early or too late is harmless.
    pub fn elapse(&mut self, now: Now) -> Step {
        if self.state == State::Dead {
            return Step::default();
        }
        let due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now.instant);
        let announced = self.announced.len();
        self.announced.retain(|_, until| *until > now.instant);
        let gone = self.roster.ids(|member| due(member.deadline()));
        for member_id in &gone {
            tracing::info!(group = self.id, member = member_id, "a member's session ended");
            self.dismiss(member_id);
        }
        let mut step = Step::default();
        if !gone.is_empty() || self.announced.len() < announced {
            step = self.after_removal(!gone.is_empty(), now);
        }
        if due(self.join_deadline) {
            step = self.join_time_over(now);
        } else if due(self.sync_deadline) {
            step = self.sync_time_over(now);
        }
        step
    }

    /// When `elapse` has something to do next; None: nothing is due, ever. May move either way with every event.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.state == State::Dead {
            return None;
        }
        let announced = self.announced.values().min().copied();
        let deadlines = [announced, self.roster.next_deadline(), self.join_deadline, self.sync_deadline];
        deadlines.into_iter().flatten().min()
    }

    /// A member joined, or joined again with something new.
    pub(super) fn after_join(&mut self, limits: &Limits, now: Now) -> Step {
        match self.state {
            State::Empty => self.begin_initial(limits, now),
            State::Stable | State::CompletingRebalance => self.prepare(now),
            State::PreparingRebalance => self.complete_if_all_joined(now),
            State::Dead => Step::default(),
        }
    }

    /// Members are gone, or only one that was about to join.
    pub(super) fn after_removal(&mut self, members_gone: bool, now: Now) -> Step {
        match self.state {
            State::Stable | State::CompletingRebalance if members_gone => self.prepare(now),
            State::PreparingRebalance => self.complete_if_all_joined(now),
            _ => Step::default(),
        }
    }

    /// Removes a member that did not ask for it.
    pub(super) fn dismiss(&mut self, member_id: &str) {
        if let Some(mut member) = self.roster.remove(member_id) {
            member.refuse(ResponseError::UnknownMemberId);
        }
    }

    fn begin_initial(&mut self, limits: &Limits, now: Now) -> Step {
        let delay = limits.initial_rebalance_delay;
        self.become_state(State::PreparingRebalance, now);
        let limit = now.instant + self.roster.rebalance_timeout().max(delay);
        self.initial = Some(InitialDelay { delay, limit, extended: false });
        self.join_deadline = Some(now.instant + delay);
        if delay.is_zero() { self.join_time_over(now) } else { Step::default() }
    }

    /// Everybody has to join again.
    pub(super) fn prepare(&mut self, now: Now) -> Step {
        if self.state == State::CompletingRebalance {
            self.refuse_syncs(ResponseError::RebalanceInProgress, now);
        }
        self.sync_deadline = None;
        self.become_state(State::PreparingRebalance, now);
        tracing::info!(group = self.id, generation = self.generation, members = self.roster.len(), "rebalance begins");
        self.join_deadline = Some(now.instant + self.roster.rebalance_timeout());
        self.complete_if_all_joined(now)
    }

    /// Nobody has an assignment in this generation any more.
    pub(super) fn refuse_syncs(&mut self, code: ResponseError, now: Now) {
        for member in self.roster.iter_mut() {
            member.assignment.clear();
            member.answer_sync(Synced::refused(code), now.instant);
        }
    }

    pub(super) fn complete_if_all_joined(&mut self, now: Now) -> Step {
        let preparing = self.state == State::PreparingRebalance && self.initial.is_none();
        if preparing && self.announced.is_empty() && self.roster.all_joining() {
            self.complete_join(now)
        } else {
            Step::default()
        }
    }

    fn join_time_over(&mut self, now: Now) -> Step {
        if let Some(initial) = &mut self.initial
            && initial.extended
            && now.instant < initial.limit
        {
            initial.extended = false;
            self.join_deadline = Some((now.instant + initial.delay).min(initial.limit));
            return Step::default();
        }
        self.complete_join(now)
    }

    /// The next generation: all that have joined, and static members that have not (they may come back).
    fn complete_join(&mut self, now: Now) -> Step {
        self.initial = None;
        for member_id in self.roster.ids(|member| !member.is_joining() && !member.is_static()) {
            tracing::info!(group = self.id, member = member_id, "a member did not join in time");
            self.dismiss(&member_id);
        }
        if !self.elect_leader() {
            // Only static members are left, and none has joined: their sessions decide.
            self.join_deadline = Some(now.instant + self.roster.rebalance_timeout().max(MIN_POSTPONEMENT));
            return Step::default();
        }
        self.join_deadline = None;
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.protocol = self.roster.elect_protocol();
        let (generation, members) = (self.generation, self.roster.len());
        tracing::info!(group = self.id, generation, members, protocol = self.protocol, "a generation begins");
        if self.roster.is_empty() {
            self.become_state(State::Empty, now);
            let record = self.record(|member| member.assignment.clone());
            return self.write(Purpose::Empty, record);
        }
        self.become_state(State::CompletingRebalance, now);
        self.sync_deadline = Some(now.instant + self.roster.rebalance_timeout());
        self.answer_joins(now);
        Step::default()
    }

    /// The leader stays, unless it has not joined and another member has. False if there are members, but none has.
    fn elect_leader(&mut self) -> bool {
        let joining = |member: &Member| member.is_joining();
        if self.roster.leader().and_then(|leader| self.roster.get(leader)).is_none_or(joining) {
            return true;
        }
        let next = self.roster.iter().find(|member| member.is_joining()).map(|member| member.id.clone());
        if let Some(next) = &next {
            self.roster.lead(next);
        }
        next.is_some()
    }

    fn answer_joins(&mut self, now: Now) {
        let mut answers: Vec<Joined> = Vec::with_capacity(self.roster.joining_count());
        for member in self.roster.iter().filter(|member| member.is_joining()) {
            answers.push(self.joined(&member.id));
        }
        for joined in answers {
            let Some(member) = self.roster.get_mut(&joined.member_id) else { continue };
            member.is_new = false;
            member.answer_join(joined, now.instant);
        }
        for member in self.roster.iter_mut() {
            member.must_sync = true;
        }
    }

    /// The current generation, as this member learns of it.
    pub(super) fn joined(&self, member_id: &str) -> Joined {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let is_leader = self.roster.is_leader(member_id);
        let everybody = self.roster.iter().filter(|_| is_leader);
        Joined {
            error: None,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.roster.leader().unwrap_or_default().to_owned(),
            skip_assignment: false,
            member_id: member_id.to_owned(),
            members: everybody.map(|member| member.joined(protocol)).collect(),
        }
    }

    fn sync_time_over(&mut self, now: Now) -> Step {
        self.sync_deadline = None;
        let silent = self.roster.ids(|member| member.must_sync);
        if silent.is_empty() {
            return Step::default();
        }
        for member_id in &silent {
            tracing::info!(group = self.id, member = member_id, "a member did not ask for its assignment in time");
            self.dismiss(member_id);
        }
        self.prepare(now)
    }
}
