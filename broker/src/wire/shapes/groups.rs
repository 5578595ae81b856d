//! Requests to group coordinators.

use std::mem::size_of;

use kafka_protocol::messages as m;

use super::{BOOLEAN, INT8, INT32, INT64};
use crate::wire::shape::{Kind, RequestShape, Struct, field};

pub static OFFSET_COMMIT: RequestShape = RequestShape {
    api_key: 8,
    name: "OffsetCommit",
    flexible_from: 8,
    body: Struct {
        fields: &[
            field("group_id", Kind::String),
            field("generation_id", INT32),
            field("member_id", Kind::String),
            field("group_instance_id", Kind::NullableString).since(7),
            field("retention_time_ms", INT64).until(4),
            field("topics", Kind::Structs(&OFFSET_COMMIT_TOPIC)),
        ],
        tagged: &[],
        decoded_bytes: size_of::<m::OffsetCommitRequest>(),
    },
};

static OFFSET_COMMIT_TOPIC: Struct = Struct {
    fields: &[field("topics.name", Kind::String), field("topics.partitions", Kind::Structs(&OFFSET_COMMIT_PARTITION))],
    tagged: &[],
    decoded_bytes: size_of::<m::offset_commit_request::OffsetCommitRequestTopic>(),
};

static OFFSET_COMMIT_PARTITION: Struct = Struct {
    fields: &[
        field("partitions.partition_index", INT32),
        field("partitions.committed_offset", INT64),
        field("partitions.committed_leader_epoch", INT32).since(6),
        field("partitions.committed_metadata", Kind::NullableString),
    ],
    tagged: &[],
    decoded_bytes: size_of::<m::offset_commit_request::OffsetCommitRequestPartition>(),
};

pub static OFFSET_FETCH: RequestShape = RequestShape {
    api_key: 9,
    name: "OffsetFetch",
    flexible_from: 6,
    body: Struct {
        fields: &[
            field("group_id", Kind::String).until(7),
            field("topics", Kind::Structs(&OFFSET_FETCH_TOPIC)).until(1),
            field("topics", Kind::NullableStructs(&OFFSET_FETCH_TOPIC)).since(2).until(7),
            field("groups", Kind::Structs(&OFFSET_FETCH_GROUP)).since(8),
            field("require_stable", BOOLEAN).since(7),
        ],
        tagged: &[],
        decoded_bytes: size_of::<m::OffsetFetchRequest>(),
    },
};

static OFFSET_FETCH_TOPIC: Struct = Struct {
    fields: &[field("topics.name", Kind::String), field("topics.partition_indexes", Kind::FixedArray(4))],
    tagged: &[],
    decoded_bytes: size_of::<m::offset_fetch_request::OffsetFetchRequestTopic>(),
};

static OFFSET_FETCH_GROUP: Struct = Struct {
    fields: &[
        field("groups.group_id", Kind::String),
        field("groups.member_id", Kind::NullableString).since(9),
        field("groups.member_epoch", INT32).since(9),
        field("groups.topics", Kind::NullableStructs(&OFFSET_FETCH_GROUP_TOPIC)),
    ],
    tagged: &[],
    decoded_bytes: size_of::<m::offset_fetch_request::OffsetFetchRequestGroup>(),
};

static OFFSET_FETCH_GROUP_TOPIC: Struct = Struct {
    fields: &[field("groups.topics.name", Kind::String), field("groups.topics.partition_indexes", Kind::FixedArray(4))],
    tagged: &[],
    decoded_bytes: size_of::<m::offset_fetch_request::OffsetFetchRequestTopics>(),
};

pub static FIND_COORDINATOR: RequestShape = RequestShape {
    api_key: 10,
    name: "FindCoordinator",
    flexible_from: 3,
    body: Struct {
        fields: &[
            field("key", Kind::String).until(3),
            field("key_type", INT8).since(1),
            field("coordinator_keys", Kind::Strings).since(4),
        ],
        tagged: &[],
        decoded_bytes: size_of::<m::FindCoordinatorRequest>(),
    },
};

pub static JOIN_GROUP: RequestShape = RequestShape {
    api_key: 11,
    name: "JoinGroup",
    flexible_from: 6,
    body: Struct {
        fields: &[
            field("group_id", Kind::String),
            field("session_timeout_ms", INT32),
            field("rebalance_timeout_ms", INT32).since(1),
            field("member_id", Kind::String),
            field("group_instance_id", Kind::NullableString).since(5),
            field("protocol_type", Kind::String),
            field("protocols", Kind::Structs(&JOIN_GROUP_PROTOCOL)),
            field("reason", Kind::NullableString).since(8),
        ],
        tagged: &[],
        decoded_bytes: size_of::<m::JoinGroupRequest>(),
    },
};

static JOIN_GROUP_PROTOCOL: Struct = Struct {
    fields: &[field("protocols.name", Kind::String), field("protocols.metadata", Kind::Bytes)],
    tagged: &[],
    decoded_bytes: size_of::<m::join_group_request::JoinGroupRequestProtocol>(),
};

pub static HEARTBEAT: RequestShape = RequestShape {
    api_key: 12,
    name: "Heartbeat",
    flexible_from: 4,
    body: Struct {
        fields: &[
            field("group_id", Kind::String),
            field("generation_id", INT32),
            field("member_id", Kind::String),
            field("group_instance_id", Kind::NullableString).since(3),
        ],
        tagged: &[],
        decoded_bytes: size_of::<m::HeartbeatRequest>(),
    },
};

pub static LEAVE_GROUP: RequestShape = RequestShape {
    api_key: 13,
    name: "LeaveGroup",
    flexible_from: 4,
    body: Struct {
        fields: &[
            field("group_id", Kind::String),
            field("member_id", Kind::String).until(2),
            field("members", Kind::Structs(&LEAVE_GROUP_MEMBER)).since(3),
        ],
        tagged: &[],
        decoded_bytes: size_of::<m::LeaveGroupRequest>(),
    },
};

static LEAVE_GROUP_MEMBER: Struct = Struct {
    fields: &[
        field("members.member_id", Kind::String),
        field("members.group_instance_id", Kind::NullableString),
        field("members.reason", Kind::NullableString).since(5),
    ],
    tagged: &[],
    decoded_bytes: size_of::<m::leave_group_request::MemberIdentity>(),
};

pub static SYNC_GROUP: RequestShape = RequestShape {
    api_key: 14,
    name: "SyncGroup",
    flexible_from: 4,
    body: Struct {
        fields: &[
            field("group_id", Kind::String),
            field("generation_id", INT32),
            field("member_id", Kind::String),
            field("group_instance_id", Kind::NullableString).since(3),
            field("protocol_type", Kind::NullableString).since(5),
            field("protocol_name", Kind::NullableString).since(5),
            field("assignments", Kind::Structs(&SYNC_GROUP_ASSIGNMENT)),
        ],
        tagged: &[],
        decoded_bytes: size_of::<m::SyncGroupRequest>(),
    },
};

static SYNC_GROUP_ASSIGNMENT: Struct = Struct {
    fields: &[field("assignments.member_id", Kind::String), field("assignments.assignment", Kind::Bytes)],
    tagged: &[],
    decoded_bytes: size_of::<m::sync_group_request::SyncGroupRequestAssignment>(),
};

pub static DESCRIBE_GROUPS: RequestShape = RequestShape {
    api_key: 15,
    name: "DescribeGroups",
    flexible_from: 5,
    body: Struct {
        fields: &[field("groups", Kind::Strings), field("include_authorized_operations", BOOLEAN).since(3)],
        tagged: &[],
        decoded_bytes: size_of::<m::DescribeGroupsRequest>(),
    },
};

pub static LIST_GROUPS: RequestShape = RequestShape {
    api_key: 16,
    name: "ListGroups",
    flexible_from: 3,
    body: Struct {
        fields: &[field("states_filter", Kind::Strings).since(4), field("types_filter", Kind::Strings).since(5)],
        tagged: &[],
        decoded_bytes: size_of::<m::ListGroupsRequest>(),
    },
};

pub static DELETE_GROUPS: RequestShape = RequestShape {
    api_key: 42,
    name: "DeleteGroups",
    flexible_from: 2,
    body: Struct {
        fields: &[field("groups_names", Kind::Strings)],
        tagged: &[],
        decoded_bytes: size_of::<m::DeleteGroupsRequest>(),
    },
};

pub static OFFSET_DELETE: RequestShape = RequestShape {
    api_key: 47,
    name: "OffsetDelete",
    flexible_from: i16::MAX,
    body: Struct {
        fields: &[field("group_id", Kind::String), field("topics", Kind::Structs(&OFFSET_DELETE_TOPIC))],
        tagged: &[],
        decoded_bytes: size_of::<m::OffsetDeleteRequest>(),
    },
};

static OFFSET_DELETE_TOPIC: Struct = Struct {
    fields: &[field("topics.name", Kind::String), field("topics.partitions", Kind::Structs(&OFFSET_DELETE_PARTITION))],
    tagged: &[],
    decoded_bytes: size_of::<m::offset_delete_request::OffsetDeleteRequestTopic>(),
};

static OFFSET_DELETE_PARTITION: Struct = Struct {
    fields: &[field("partitions.partition_index", INT32)],
    tagged: &[],
    decoded_bytes: size_of::<m::offset_delete_request::OffsetDeleteRequestPartition>(),
};
