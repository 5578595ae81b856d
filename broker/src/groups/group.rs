//! One group of the classic protocol, as Kafka's coordinator runs it: what it is, and the requests that do not change
//! its members. In `group/`: `rebalance` moves it from one generation to the next, `join`, `sync` and `leave` are the
//! requests that do.
//!
//! Invariants:
//! - A generation's members all learn the same protocol and the same leader, and only the leader learns the others.
//! - An assignment is given to nobody before its record is durable.
//! - Who waits is answered exactly once: by its rebalance, by its removal, or by `unload`.
//! - A member that keeps to its timeouts is never told UNKNOWN_MEMBER_ID; a second process with the same
//!   `group.instance.id` gets the first one FENCED_INSTANCE_ID.
//! - At most one write comes out of one event, and its record is what the group was right then.

mod rebalance;

mod join;

mod sync;

mod leave;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::{Buf, Bytes};
use kafka_protocol::ResponseError;
use tokio::time::Instant;

use super::messages::{Description, Now, State, Step, Write, WriteId, WriteKind};
use super::offsets::Expiry;
use super::records::GroupMetadata;
use super::roster::{Member, Roster};

use self::join::Rejoin;

/// The protocol type of consumers, whose subscriptions the coordinator may read.
const CONSUMER: &str = "consumer";

/// A client id longer than this is cut in member ids, which have to fit into every response and record.
const MAX_ID_PREFIX_BYTES: usize = 1024;

/// The id of a new member, as Kafka forms it.
pub fn member_id_for(instance_id: Option<&str>, client_id: &str, random: uuid::Uuid) -> String {
    let prefix = instance_id.unwrap_or(client_id);
    let end = (0..=prefix.len().min(MAX_ID_PREFIX_BYTES)).rev().find(|at| prefix.is_char_boundary(*at));
    format!("{}-{random}", &prefix[..end.unwrap_or(0)])
}

/// One consumer group.
#[derive(Debug)]
pub struct Group {
    id: String,
    state: State,
    /// When it came into this state. None: restored from an old record.
    state_since_ms: Option<i64>,
    generation: i32,
    /// Kept while the group is empty.
    protocol_type: Option<String>,
    /// The current generation's.
    protocol: Option<String>,
    roster: Roster,
    /// Members that were told their id and have not come back with it, and until when they may.
    announced: BTreeMap<String, Instant>,
    /// In PreparingRebalance: when it ends without those that have not joined.
    join_deadline: Option<Instant>,
    /// In PreparingRebalance, from Empty: members are awaited until the deadline, even if all have joined.
    initial: Option<InitialDelay>,
    /// In CompletingRebalance and Stable: when those that have not asked for their assignment are removed.
    sync_deadline: Option<Instant>,
    next_write: u64,
    /// Handed out, outcome unknown.
    writes: BTreeMap<WriteId, Purpose>,
    recorded: bool,
}

/// The first rebalance of a group waits for members to arrive.
#[derive(Debug)]
struct InitialDelay {
    /// How long it goes on after a new one came.
    delay: Duration,
    /// It ends here, whoever comes.
    limit: Instant,
    /// One came since the last deadline.
    extended: bool,
}

/// What a write is for.
#[derive(Debug)]
enum Purpose {
    /// The generation that waits for it, and what its members get.
    Assignment {
        generation: i32,
        assignments: BTreeMap<String, Bytes>,
    },
    /// A static member came back in a stable group.
    Rejoin(Box<Rejoin>),
    /// The last member is gone. Nobody waits for it.
    Empty,
    Delete {
        empty_since_ms: Option<i64>,
    },
}

impl Purpose {
    fn assigns(&self, in_generation: i32) -> bool {
        matches!(self, Purpose::Assignment { generation, .. } if *generation == in_generation)
    }
}

impl Group {
    /// An empty group of which nothing is written yet.
    pub fn new(id: &str, now: Now) -> Self {
        Self {
            id: id.to_owned(),
            state: State::Empty,
            state_since_ms: Some(now.wall_ms),
            generation: 0,
            protocol_type: None,
            protocol: None,
            roster: Roster::default(),
            announced: BTreeMap::new(),
            join_deadline: None,
            initial: None,
            sync_deadline: None,
            next_write: 0,
            writes: BTreeMap::new(),
            recorded: false,
        }
    }

    /// The group as its last record describes it: empty, or stable. Its members get a fresh session.
    pub fn restore(id: &str, record: GroupMetadata, now: Now) -> Self {
        let mut group = Self::new(id, now);
        group.recorded = true;
        group.state_since_ms = record.state_timestamp_ms;
        group.generation = record.generation;
        group.protocol_type = Some(record.protocol_type).filter(|protocol_type| !protocol_type.is_empty());
        let Some(protocol) = record.protocol.filter(|_| !record.members.is_empty()) else { return group };
        for member in record.members {
            group.roster.insert(Member::restore(member, &protocol, now.instant));
        }
        if let Some(leader) = record.leader {
            group.roster.lead(&leader);
        }
        group.protocol = Some(protocol);
        group.state = State::Stable;
        group
    }

    pub fn heartbeat(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        now: Now,
    ) -> Result<(), ResponseError> {
        self.check_member(member_id, instance_id, generation)?;
        self.renew(member_id, now);
        match self.state {
            State::PreparingRebalance => Err(ResponseError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// May this commit be appended? Simple consumers (generation -1, no member) may commit while the group is empty. A
    /// commit counts as a heartbeat. For a group that does not exist the caller answers ILLEGAL_GENERATION to a
    /// generation of 0 or more, and else makes a new one.
    pub fn check_commit(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        now: Now,
    ) -> Result<(), ResponseError> {
        if self.state == State::Dead {
            return Err(ResponseError::CoordinatorNotAvailable);
        }
        if generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        if generation < 0 && member_id.is_empty() && instance_id.is_none() {
            return Err(ResponseError::UnknownMemberId);
        }
        self.check_member(member_id, instance_id, generation)?;
        if self.state == State::CompletingRebalance {
            // It knows of the new generation, so it commits what it had in the one before.
            return Err(ResponseError::RebalanceInProgress);
        }
        self.renew(member_id, now);
        Ok(())
    }

    /// May offsets be deleted at all (OffsetDelete)? A topic for which `is_subscribed_to` is true may not:
    /// GROUP_SUBSCRIBED_TO_TOPIC.
    pub fn check_offset_delete(&self) -> Result<(), ResponseError> {
        match self.state {
            State::Dead => Err(ResponseError::GroupIdNotFound),
            State::Empty => Ok(()),
            _ if self.protocol_type() == CONSUMER => Ok(()),
            _ => Err(ResponseError::NonEmptyGroup),
        }
    }

    /// Does a consumer of this group subscribe to the topic? Also if that cannot be told.
    pub fn is_subscribed_to(&self, topic: &str) -> bool {
        match self.subscribed_topics() {
            Some(topics) => topics.contains(topic),
            None => self.protocol_type() == CONSUMER,
        }
    }

    /// DeleteGroups, and expiry: NON_EMPTY_GROUP, GROUP_ID_NOT_FOUND, or the tombstones to be written. Meanwhile the
    /// group is dead, and who joins is told to try again. Drop it after `written(Ok)`; after an error it is empty as
    /// before.
    pub fn delete(&mut self, now: Now) -> Result<Step, ResponseError> {
        match self.state {
            State::Dead => Err(ResponseError::GroupIdNotFound),
            State::Empty => {
                let empty_since_ms = self.state_since_ms;
                self.announced.clear();
                self.become_state(State::Dead, now);
                Ok(self.write(Purpose::Delete { empty_since_ms }, WriteKind::Tombstone))
            }
            _ => Err(ResponseError::NonEmptyGroup),
        }
    }

    /// Which of the group's offsets may expire now, by Kafka's rules.
    pub fn expiry(&self) -> Expiry {
        match (self.state, self.protocol_type.as_deref()) {
            (State::Dead, _) => Expiry::Never,
            (_, None) => Expiry::SinceCommit,
            (State::Empty, _) => {
                self.state_since_ms.map_or(Expiry::SinceCommit, |empty_since_ms| Expiry::SinceEmpty { empty_since_ms })
            }
            (State::Stable, _) => {
                self.subscribed_topics().map_or(Expiry::Never, |subscribed| Expiry::Unsubscribed { subscribed })
            }
            _ => Expiry::Never,
        }
    }

    /// Empty, nobody about to join and no write under way: without offsets there is no reason to keep it.
    pub fn is_idle(&self) -> bool {
        self.state == State::Empty && self.announced.is_empty() && self.writes.is_empty()
    }

    /// Was a record of it ever handed out, or restored? If not, it can be forgotten without a tombstone.
    pub fn is_recorded(&self) -> bool {
        self.recorded
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// Empty if the group never had a member: its consumers are "simple" ones.
    pub fn protocol_type(&self) -> &str {
        self.protocol_type.as_deref().unwrap_or_default()
    }

    pub fn describe(&self) -> Description {
        let protocol = self.protocol.as_deref().filter(|_| self.state == State::Stable);
        Description {
            state: self.state,
            protocol_type: self.protocol_type().to_owned(),
            protocol: protocol.unwrap_or_default().to_owned(),
            members: self.roster.iter().map(|member| member.described(protocol)).collect(),
        }
    }

    /// The coordinator is elsewhere from now on: everybody who waits is told so, and the group is dead.
    pub fn unload(&mut self, code: ResponseError) {
        for member in self.roster.iter_mut() {
            member.refuse(code);
        }
        self.state = State::Dead;
        self.announced.clear();
        self.writes.clear();
    }

    /// The outcome of a write. Whoever waits for it is told `Err`'s code, and has to join again. A write that is not
    /// known (any more) changes nothing.
    pub fn written(&mut self, id: WriteId, outcome: Result<(), ResponseError>, now: Now) -> Step {
        match self.writes.remove(&id) {
            Some(Purpose::Assignment { generation, assignments }) => {
                self.assignment_written(generation, assignments, outcome, now)
            }
            Some(Purpose::Rejoin(rejoin)) => {
                self.rejoin_written(*rejoin, outcome, now);
                Step::default()
            }
            Some(Purpose::Delete { empty_since_ms }) => {
                if outcome.is_err() && self.state == State::Dead {
                    self.state = State::Empty;
                    self.state_since_ms = empty_since_ms;
                }
                Step::default()
            }
            Some(Purpose::Empty) | None => Step::default(),
        }
    }

    fn write(&mut self, purpose: Purpose, kind: WriteKind) -> Step {
        let id = WriteId(self.next_write);
        self.next_write += 1;
        self.writes.insert(id, purpose);
        self.recorded = true;
        Step { write: Some(Write { id, kind }) }
    }

    /// The group as it is, with these assignments.
    fn record(&self, assignment: impl Fn(&Member) -> Bytes) -> WriteKind {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        WriteKind::Metadata(GroupMetadata {
            protocol_type: self.protocol_type().to_owned(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.roster.leader().map(str::to_owned),
            state_timestamp_ms: self.state_since_ms,
            members: self.roster.iter().map(|member| member.record(protocol, assignment(member))).collect(),
        })
    }

    fn become_state(&mut self, state: State, now: Now) {
        self.state = state;
        self.state_since_ms = Some(now.wall_ms);
    }

    fn renew(&mut self, member_id: &str, now: Now) {
        if let Some(member) = self.roster.get_mut(member_id) {
            member.renew(now.instant);
        }
    }

    /// Is this a member of the current generation?
    fn check_member(&self, member_id: &str, instance_id: Option<&str>, generation: i32) -> Result<(), ResponseError> {
        if self.state == State::Dead {
            return Err(ResponseError::CoordinatorNotAvailable);
        }
        self.roster.check(member_id, instance_id)?;
        if generation == self.generation { Ok(()) } else { Err(ResponseError::IllegalGeneration) }
    }

    /// What the members consume; None if that cannot be told.
    fn subscribed_topics(&self) -> Option<BTreeSet<String>> {
        if self.protocol_type() != CONSUMER {
            return None;
        }
        if self.roster.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol.as_deref()?;
        let mut topics = BTreeSet::new();
        for member in self.roster.iter() {
            read_subscription(member.metadata(protocol), &mut topics)?;
        }
        Some(topics)
    }
}

/// Adds the topics of a consumer's subscription: what version 0 of it has, which all later ones begin with.
fn read_subscription(mut bytes: Bytes, topics: &mut BTreeSet<String>) -> Option<()> {
    let version = bytes.try_get_i16().ok()?;
    if version < 0 {
        return None;
    }
    for _ in 0..bytes.try_get_i32().ok()? {
        let length = usize::try_from(bytes.try_get_i16().ok()?).ok()?;
        if bytes.len() < length {
            return None;
        }
        topics.insert(str::from_utf8(&bytes.split_to(length)).ok()?.to_owned());
    }
    Some(())
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
