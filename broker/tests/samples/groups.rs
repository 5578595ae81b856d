//! Requests to group coordinators.

use broker::wire::shapes;
use kafka_protocol::messages as m;
use kafka_protocol::messages::GroupId;
use kafka_protocol::protocol::StrBytes;

use super::{Sample, add, name, text};

pub fn add_all(out: &mut Vec<Sample>) {
    add(out, &shapes::OFFSET_COMMIT, |version| vec![m::OffsetCommitRequest::default(), offset_commit(version)]);
    add(out, &shapes::OFFSET_FETCH, offset_fetch);
    add(out, &shapes::FIND_COORDINATOR, |version| vec![m::FindCoordinatorRequest::default(), find(version)]);
    add(out, &shapes::JOIN_GROUP, |version| vec![m::JoinGroupRequest::default(), join(version)]);
    add(out, &shapes::HEARTBEAT, |version| vec![m::HeartbeatRequest::default(), heartbeat(version)]);
    add(out, &shapes::LEAVE_GROUP, |version| vec![m::LeaveGroupRequest::default(), leave(version)]);
    add(out, &shapes::SYNC_GROUP, |version| vec![m::SyncGroupRequest::default(), sync(version)]);
    add(out, &shapes::DESCRIBE_GROUPS, |version| vec![m::DescribeGroupsRequest::default(), describe(version)]);
    add(out, &shapes::LIST_GROUPS, |version| vec![m::ListGroupsRequest::default(), list(version)]);
    add(out, &shapes::DELETE_GROUPS, |_| vec![m::DeleteGroupsRequest::default(), delete()]);
    add(out, &shapes::OFFSET_DELETE, |_| vec![m::OffsetDeleteRequest::default(), offset_delete()]);
}

fn group() -> GroupId {
    GroupId(text("group"))
}

fn instance(from: i16, version: i16) -> Option<StrBytes> {
    (version >= from).then(|| text("instance"))
}

fn offset_commit(version: i16) -> m::OffsetCommitRequest {
    use m::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
    let partition = |index, metadata| {
        let mut partition = OffsetCommitRequestPartition::default()
            .with_partition_index(index)
            .with_committed_offset(1000)
            .with_committed_metadata(metadata);
        if version >= 6 {
            partition.committed_leader_epoch = 4;
        }
        partition
    };
    let topic = OffsetCommitRequestTopic::default()
        .with_name(name("topic"))
        .with_partitions(vec![partition(0, Some(text("metadata"))), partition(1, None)]);
    let mut request = m::OffsetCommitRequest::default()
        .with_group_id(group())
        .with_generation_id_or_member_epoch(7)
        .with_member_id(text("member"))
        .with_group_instance_id(instance(7, version))
        .with_topics(vec![topic.clone(), topic]);
    if version <= 4 {
        request.retention_time_ms = 60_000;
    }
    request
}

fn offset_fetch(version: i16) -> Vec<m::OffsetFetchRequest> {
    use m::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics};
    let mut requests = vec![m::OffsetFetchRequest::default()];
    if version >= 8 {
        let topic = OffsetFetchRequestTopics::default().with_name(name("topic")).with_partition_indexes(vec![0, 1, 2]);
        let mut some = OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(Some(vec![topic]));
        if version >= 9 {
            some = some.with_member_id(Some(text("member"))).with_member_epoch(3);
        }
        let all = OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(None);
        requests.push(m::OffsetFetchRequest::default().with_groups(vec![some, all]).with_require_stable(true));
        return requests;
    }
    let topic = OffsetFetchRequestTopic::default().with_name(name("topic")).with_partition_indexes(vec![0, 1, 2]);
    let request = m::OffsetFetchRequest::default().with_group_id(group());
    requests.push(request.clone().with_topics(Some(vec![topic])).with_require_stable(version >= 7));
    if version >= 2 {
        requests.push(request.with_topics(None));
    }
    requests
}

fn find(version: i16) -> m::FindCoordinatorRequest {
    let request = m::FindCoordinatorRequest::default().with_key_type(i8::from(version >= 1));
    match version {
        4.. => request.with_coordinator_keys(vec![text("one"), text("two")]),
        _ => request.with_key(text("one")),
    }
}

fn join(version: i16) -> m::JoinGroupRequest {
    use m::join_group_request::JoinGroupRequestProtocol;
    let protocol =
        |name: &str| JoinGroupRequestProtocol::default().with_name(text(name)).with_metadata("some metadata".into());
    let mut request = m::JoinGroupRequest::default()
        .with_group_id(group())
        .with_session_timeout_ms(45_000)
        .with_member_id(text("member"))
        .with_group_instance_id(instance(5, version))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol("range"), protocol("roundrobin")]);
    if version >= 1 {
        request.rebalance_timeout_ms = 300_000;
    }
    if version >= 8 {
        request.reason = Some(text("because"));
    }
    request
}

fn heartbeat(version: i16) -> m::HeartbeatRequest {
    m::HeartbeatRequest::default()
        .with_group_id(group())
        .with_generation_id(7)
        .with_member_id(text("member"))
        .with_group_instance_id(instance(3, version))
}

fn leave(version: i16) -> m::LeaveGroupRequest {
    use m::leave_group_request::MemberIdentity;
    let request = m::LeaveGroupRequest::default().with_group_id(group());
    if version < 3 {
        return request.with_member_id(text("member"));
    }
    let member = MemberIdentity::default().with_member_id(text("member"));
    let reason = (version >= 5).then(|| text("because"));
    let instance = member.clone().with_group_instance_id(Some(text("instance"))).with_reason(reason);
    request.with_members(vec![member, instance])
}

fn sync(version: i16) -> m::SyncGroupRequest {
    use m::sync_group_request::SyncGroupRequestAssignment;
    let assignment =
        SyncGroupRequestAssignment::default().with_member_id(text("member")).with_assignment("some assignment".into());
    let mut request = m::SyncGroupRequest::default()
        .with_group_id(group())
        .with_generation_id(7)
        .with_member_id(text("member"))
        .with_group_instance_id(instance(3, version))
        .with_assignments(vec![assignment.clone(), assignment]);
    if version >= 5 {
        request.protocol_type = Some(text("consumer"));
        request.protocol_name = Some(text("range"));
    }
    request
}

fn describe(version: i16) -> m::DescribeGroupsRequest {
    let request = m::DescribeGroupsRequest::default().with_groups(vec![group(), GroupId(text("other"))]);
    request.with_include_authorized_operations(version >= 3)
}

fn list(version: i16) -> m::ListGroupsRequest {
    let mut request = m::ListGroupsRequest::default();
    if version >= 4 {
        request.states_filter = vec![text("Stable"), text("Empty")];
    }
    if version >= 5 {
        request.types_filter = vec![text("classic")];
    }
    request
}

fn delete() -> m::DeleteGroupsRequest {
    m::DeleteGroupsRequest::default().with_groups_names(vec![group(), GroupId(text("other"))])
}

fn offset_delete() -> m::OffsetDeleteRequest {
    use m::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
    let partition = |index| OffsetDeleteRequestPartition::default().with_partition_index(index);
    let topic =
        OffsetDeleteRequestTopic::default().with_name(name("topic")).with_partitions(vec![partition(0), partition(1)]);
    m::OffsetDeleteRequest::default().with_group_id(group()).with_topics(vec![topic])
}
