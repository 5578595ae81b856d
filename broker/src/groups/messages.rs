//! What is asked of a group, what it answers, and what it asks its caller to do. Requests and answers have the shapes
//! of Kafka's, without versions: an API file fills and empties them.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use tokio::time::Instant;

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

impl Default for Limits {
    /// Kafka's defaults.
    fn default() -> Self {
        Self {
            min_session_timeout: Duration::from_secs(6),
            max_session_timeout: Duration::from_secs(30 * 60),
            initial_rebalance_delay: Duration::from_secs(3),
            max_members: i32::MAX as usize,
        }
    }
}

/// Where a group is in its life.
///
/// ```text
///   Empty -> PreparingRebalance -> CompletingRebalance -> Stable
///     ^        |          ^                 |                |
///     +--------+          +-----------------+----------------+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No members; offsets perhaps.
    Empty,
    /// Members are to join (again); JoinGroup waits for the others.
    PreparingRebalance,
    /// Everybody knows the generation; SyncGroup waits for the leader's assignment, and until it is durable.
    CompletingRebalance,
    /// Everybody can have the assignment.
    Stable,
    /// Deleted, or the coordinator is elsewhere.
    Dead,
}

impl State {
    /// Kafka's name, as ListGroups and DescribeGroups have it.
    pub fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::PreparingRebalance => "PreparingRebalance",
            State::CompletingRebalance => "CompletingRebalance",
            State::Stable => "Stable",
            State::Dead => "Dead",
        }
    }
}

/// Numbers the writes of one `Group` value, in the order in which they must be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriteId(pub u64);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteKind {
    /// Append this group metadata record.
    Metadata(GroupMetadata),
    /// Append tombstones: of the group's metadata, and of all its offsets, which the caller knows.
    Tombstone,
}

/// To be appended before the group is used for anything else (under the same lock); then `Group::written` is told the
/// outcome.
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

/// One way of assigning partitions that a member offers, with what it tells the leader for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol {
    pub name: String,
    pub metadata: Bytes,
}

/// JoinGroup.
#[derive(Debug, Clone)]
pub struct Join {
    /// Empty: a new member, or a static one that was restarted.
    pub member_id: String,
    /// `group.instance.id` of a static member (KIP-345, v5).
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout: Duration,
    /// v0 has none: the session timeout.
    pub rebalance_timeout: Duration,
    pub protocol_type: String,
    /// In the member's order of preference.
    pub protocols: Vec<Protocol>,
    /// v4 and later: a dynamic member without an id is only told its id at first (KIP-394).
    pub require_known_member_id: bool,
    /// v9 and later: a static leader that comes back is told to keep the assignment (KIP-814).
    pub can_skip_assignment: bool,
}

/// Answer to JoinGroup. With an error, everything but `member_id` is unset (generation -1, empty texts).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    pub error: Option<ResponseError>,
    pub generation: i32,
    pub protocol_type: Option<String>,
    /// An empty string where a version cannot say null.
    pub protocol: Option<String>,
    pub leader: String,
    pub skip_assignment: bool,
    /// The id to go on with: with MEMBER_ID_REQUIRED the new one, with other errors the one that was sent or empty.
    pub member_id: String,
    /// Everybody, for the leader; empty for the others.
    pub members: Vec<JoinedMember>,
}

impl Joined {
    pub(super) fn refused(error: ResponseError, member_id: String) -> Self {
        Self {
            error: Some(error),
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: String::new(),
            skip_assignment: false,
            member_id,
            members: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub metadata: Bytes,
}

/// SyncGroup.
#[derive(Debug, Clone)]
pub struct SyncAssignment {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub generation: i32,
    /// v5 and later; None is not compared.
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    /// From the leader: what each member gets.
    pub assignments: Vec<(String, Bytes)>,
}

/// Answer to SyncGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    pub error: Option<ResponseError>,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub assignment: Bytes,
}

impl Synced {
    pub(super) fn refused(error: ResponseError) -> Self {
        Self { error: Some(error), protocol_type: None, protocol: None, assignment: Bytes::new() }
    }
}

/// One member in LeaveGroup. An empty member id with an instance id: an administrator removes a static member.
#[derive(Debug, Clone)]
pub struct Leaver {
    pub member_id: String,
    pub instance_id: Option<String>,
}

/// DescribeGroups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    pub state: State,
    pub protocol_type: String,
    /// Empty unless the group is stable.
    pub protocol: String,
    pub members: Vec<DescribedMember>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    /// Empty unless the group is stable, like the assignment.
    pub metadata: Bytes,
    pub assignment: Bytes,
}
