//! Drives one group in tests: members that ask, and what they were answered.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Group;
use crate::groups::messages::*;
use crate::groups::records::GroupMetadata;

pub fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A JoinGroup as consumers send it today.
pub fn join(member_id: &str) -> Join {
    Join {
        member_id: member_id.to_owned(),
        instance_id: None,
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_timeout: secs(10),
        rebalance_timeout: secs(60),
        protocol_type: "consumer".to_owned(),
        protocols: protocols(&["range"]),
        require_known_member_id: false,
        can_skip_assignment: false,
    }
}

pub fn static_join(member_id: &str, instance_id: &str) -> Join {
    Join { instance_id: Some(instance_id.to_owned()), ..join(member_id) }
}

/// Each with its own name as metadata.
pub fn protocols(names: &[&str]) -> Vec<Protocol> {
    let protocol =
        |name: &&str| Protocol { name: (*name).to_owned(), metadata: Bytes::copy_from_slice(name.as_bytes()) };
    names.iter().map(protocol).collect()
}

/// A group, its time, and its writes, which stay open until somebody says how they ended.
pub struct Bench {
    pub group: Group,
    pub limits: Limits,
    pub now: Now,
    pub writes: Vec<Write>,
    joins: u32,
}

impl Bench {
    pub fn new() -> Self {
        let now = Now { instant: Instant::now(), wall_ms: 1_000_000 };
        Self { group: Group::new("g", now), limits: Limits::default(), now, writes: Vec::new(), joins: 0 }
    }

    fn took(&mut self, step: Step) {
        self.writes.extend(step.write);
    }

    /// New members are `m1`, `m2` and so on, in the order of their first JoinGroup.
    pub fn join(&mut self, join: Join) -> oneshot::Receiver<Joined> {
        let (answer, receiver) = oneshot::channel();
        if join.member_id.is_empty() {
            self.joins += 1;
        }
        let step = self.group.join(&self.limits, join, format!("m{}", self.joins), self.now, answer);
        self.took(step);
        receiver
    }

    /// With `assignments` only the leader of the generation asks.
    pub fn sync(&mut self, member_id: &str, assignments: &[(&str, &str)]) -> oneshot::Receiver<Synced> {
        let sync = SyncAssignment {
            member_id: member_id.to_owned(),
            instance_id: None,
            generation: self.group.generation(),
            protocol_type: None,
            protocol: None,
            assignments: assignments
                .iter()
                .map(|(member_id, assignment)| ((*member_id).to_owned(), Bytes::copy_from_slice(assignment.as_bytes())))
                .collect(),
        };
        self.sync_with(sync)
    }

    pub fn sync_with(&mut self, sync: SyncAssignment) -> oneshot::Receiver<Synced> {
        let (answer, receiver) = oneshot::channel();
        let step = self.group.sync(sync, self.now, answer);
        self.took(step);
        receiver
    }

    pub fn heartbeat(&mut self, member_id: &str) -> Result<(), ResponseError> {
        self.group.heartbeat(member_id, None, self.group.generation(), self.now)
    }

    pub fn leave(&mut self, leavers: &[(&str, Option<&str>)]) -> Vec<Result<(), ResponseError>> {
        let leaver = |(member_id, instance_id): &(&str, Option<&str>)| Leaver {
            member_id: (*member_id).to_owned(),
            instance_id: instance_id.map(str::to_owned),
        };
        let leavers: Vec<Leaver> = leavers.iter().map(leaver).collect();
        let (outcomes, step) = self.group.leave(&leavers, self.now);
        self.took(step);
        outcomes
    }

    /// Time goes by, and nothing but time; deadlines on the way are kept.
    pub fn pass(&mut self, duration: Duration) {
        let end = self.now.instant + duration;
        while let Some(deadline) = self.group.next_deadline().filter(|deadline| *deadline <= end) {
            self.advance_to(deadline.max(self.now.instant));
            let step = self.group.elapse(self.now);
            self.took(step);
        }
        self.advance_to(end);
    }

    fn advance_to(&mut self, instant: Instant) {
        self.now.wall_ms += (instant - self.now.instant).as_millis() as i64;
        self.now.instant = instant;
    }

    /// The oldest open write ends.
    pub fn written(&mut self, outcome: Result<(), ResponseError>) -> Write {
        assert!(!self.writes.is_empty(), "nothing is being written");
        let write = self.writes.remove(0);
        let step = self.group.written(write.id, outcome, self.now);
        self.took(step);
        write
    }

    pub fn written_metadata(&mut self) -> GroupMetadata {
        match self.written(Ok(())).kind {
            WriteKind::Metadata(metadata) => metadata,
            WriteKind::Tombstone => panic!("a tombstone was written"),
        }
    }

    /// `count` members that all have joined, the first leads; everything is assigned and durable.
    pub fn stable(&mut self, joins: Vec<Join>) {
        let answers: Vec<_> = joins.into_iter().map(|join| self.join(join)).collect();
        self.pass(self.limits.initial_rebalance_delay * 3);
        let ids: Vec<String> = answers.into_iter().map(|answer| got(answer).member_id).collect();
        let assignments: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), id.as_str())).collect();
        let syncs: Vec<_> = ids.iter().map(|id| self.sync(id, &assignments)).collect();
        self.written(Ok(()));
        for (id, sync) in ids.iter().zip(syncs) {
            assert_eq!(got(sync).assignment, id.as_bytes());
        }
        assert_eq!(self.group.state(), State::Stable);
    }
}

/// What was answered; it must have been.
pub fn got<T>(mut answer: oneshot::Receiver<T>) -> T {
    answer.try_recv().expect("was answered")
}

/// It is still waited for.
pub fn waits<T>(answer: &mut oneshot::Receiver<T>) -> bool {
    matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Empty))
}

pub fn metadata_of(write: &Write) -> &GroupMetadata {
    match &write.kind {
        WriteKind::Metadata(metadata) => metadata,
        WriteKind::Tombstone => panic!("a tombstone is written"),
    }
}
