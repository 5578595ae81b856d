//! What is asked of a group and what it answers. Shapes are those of Kafka's requests and responses, without versions:
//! an API file fills and empties them.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;

use super::group::State;

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
