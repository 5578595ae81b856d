//! One group of the classic protocol (skeleton).

use std::time::Duration;

use kafka_protocol::ResponseError;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::messages::{Description, Join, Joined, Leaver, SyncAssignment, Synced};
use super::offsets::Expiry;
use super::records::GroupMetadata;

/// The two clocks. The first decides, the second is only stored in records.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub instant: Instant,
    /// Milliseconds since the Unix epoch.
    pub wall_ms: i64,
}

/// What the broker allows its groups.
#[derive(Debug, Clone)]
pub struct Limits {
    /// `group.min.session.timeout.ms`
    pub min_session_timeout: Duration,
    /// `group.max.session.timeout.ms`
    pub max_session_timeout: Duration,
    /// `group.initial.rebalance.delay.ms`
    pub initial_rebalance_delay: Duration,
    /// `group.max.size`
    pub max_members: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
    Dead,
}

impl State {
    /// Kafka's name: `Empty`, `PreparingRebalance`, ...
    pub fn name(self) -> &'static str {
        unimplemented!()
    }
}

/// Numbers the writes of one `Group` value, in the order in which they must be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriteId(pub u64);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteKind {
    /// Append this group metadata record.
    Metadata(GroupMetadata),
    /// Append tombstones: of the group's metadata, and (the caller knows them) of all its offsets, in one batch.
    Tombstone,
}

/// Append this, in the order of ids, before the group is used for anything else (same lock), then call
/// `Group::written` with the outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub id: WriteId,
    pub kind: WriteKind,
}

/// What an event asks the caller to do. After every event `Group::next_deadline` may have changed.
#[derive(Debug, Default)]
#[must_use]
pub struct Step {
    pub write: Option<Write>,
}

/// One consumer group.
#[derive(Debug)]
pub struct Group {}

impl Group {
    /// An Empty group of which nothing is written yet.
    pub fn new(id: &str, now: Now) -> Self {
        unimplemented!()
    }

    /// The group as its last record describes it. Restored members get a fresh session.
    pub fn restore(id: &str, record: GroupMetadata, now: Now) -> Self {
        unimplemented!()
    }

    /// JoinGroup. `new_member_id` is used if the member has none (`member_id_for` builds one). `answer` is always
    /// answered, at once or later.
    pub fn join(
        &mut self,
        limits: &Limits,
        join: Join,
        new_member_id: String,
        now: Now,
        answer: oneshot::Sender<Joined>,
    ) -> Step {
        unimplemented!()
    }

    /// SyncGroup. Members are answered after the record of the assignment is durable (`written`).
    pub fn sync(&mut self, sync: SyncAssignment, now: Now, answer: oneshot::Sender<Synced>) -> Step {
        unimplemented!()
    }

    pub fn heartbeat(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        now: Now,
    ) -> Result<(), ResponseError> {
        unimplemented!()
    }

    /// LeaveGroup: one outcome for each leaver. Kafka answers before the record (if there is one) is durable: a group
    /// that comes back with a member that left loses it by its session timeout.
    pub fn leave(&mut self, leavers: &[Leaver], now: Now) -> (Vec<Result<(), ResponseError>>, Step) {
        unimplemented!()
    }

    /// Does what is due. To be called at `next_deadline`; too early or too late is harmless.
    pub fn elapse(&mut self, now: Now) -> Step {
        unimplemented!()
    }

    /// When `elapse` has something to do next. May move either way with every event. None: nothing is due, ever.
    pub fn next_deadline(&self) -> Option<Instant> {
        unimplemented!()
    }

    /// The outcome of a write. The error is what waiting members are told (Kafka's mapping: COORDINATOR_NOT_AVAILABLE,
    /// NOT_COORDINATOR, UNKNOWN_SERVER_ERROR); they join again.
    pub fn written(&mut self, id: WriteId, outcome: Result<(), ResponseError>, now: Now) -> Step {
        unimplemented!()
    }

    /// The coordinator moves away: everybody who waits is told `code`, the group is Dead.
    pub fn unload(&mut self, code: ResponseError) {
        unimplemented!()
    }

    /// May this commit (OffsetCommit) be appended? Simple consumers (generation -1, no member) may if the group is
    /// Empty. A commit counts as a heartbeat. A group that does not exist answers ILLEGAL_GENERATION for
    /// generation >= 0 (the caller's business); else the caller makes a new one.
    pub fn check_commit(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        now: Now,
    ) -> Result<(), ResponseError> {
        unimplemented!()
    }

    /// OffsetDelete: NON_EMPTY_GROUP for active groups that are not of type "consumer", GROUP_ID_NOT_FOUND for dead
    /// ones. A topic for which `is_subscribed_to` is true is refused with GROUP_SUBSCRIBED_TO_TOPIC by the caller.
    pub fn check_offset_delete(&self) -> Result<(), ResponseError> {
        unimplemented!()
    }

    /// Does a member of a group of type "consumer" subscribe to this topic? Also true if that cannot be told.
    pub fn is_subscribed_to(&self, topic: &str) -> bool {
        unimplemented!()
    }

    /// DeleteGroups and expiry: NON_EMPTY_GROUP, GROUP_ID_NOT_FOUND (dead), or the tombstones to be written. Meanwhile
    /// the group is Dead (joins are told COORDINATOR_NOT_AVAILABLE). After `written(Ok)` drop the group; after
    /// `written(Err)` it is Empty again.
    pub fn delete(&mut self, now: Now) -> Result<Step, ResponseError> {
        unimplemented!()
    }

    /// Which of this group's offsets may expire now (Kafka's rules).
    pub fn expiry(&self) -> Expiry<'_> {
        unimplemented!()
    }

    /// Empty, nobody about to join, no write under way: forgetting it loses nothing but its records.
    pub fn is_idle(&self) -> bool {
        unimplemented!()
    }

    /// Has a record of this group ever been written (or restored)? If not, no tombstone is needed to forget it.
    pub fn is_recorded(&self) -> bool {
        unimplemented!()
    }

    pub fn id(&self) -> &str {
        unimplemented!()
    }

    pub fn state(&self) -> State {
        unimplemented!()
    }

    pub fn generation(&self) -> i32 {
        unimplemented!()
    }

    /// Empty if the group never had members ("simple" consumers).
    pub fn protocol_type(&self) -> &str {
        unimplemented!()
    }

    pub fn describe(&self) -> Description {
        unimplemented!()
    }
}
