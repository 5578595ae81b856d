//! The APIs of groups, in every version, from a request's bytes to the response's.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{self as m, GroupId};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use tokio::time::sleep;

use crate::api::testing::{TestBroker, name};
use crate::api::{
    delete_groups, describe_groups, find_coordinator, heartbeat, join_group, leave_group, list_groups, metadata,
    offset_commit, offset_delete, offset_fetch, produce, sync_group, typed,
};
use crate::ownership::Loss;
use crate::topics::OFFSETS_TOPIC;

/// Calls an API: its module, a version and a request.
macro_rules! call {
    ($test:expr, $api:ident, $version:expr, $request:expr) => {
        live(&$test, |broker, context, body| typed(broker, context, body, $api::handle), $version, &$request).await
    };
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn group(version: i16) -> GroupId {
    GroupId(text(&format!("group-{version}")))
}

async fn broker() -> TestBroker {
    let test = TestBroker::new(64 << 20, 2).await;
    let found: m::FindCoordinatorResponse = call!(test, find_coordinator, 0, find("any"));
    assert_eq!(found.error_code, 0);
    test
}

/// Sends a request while everything that is appended becomes durable, as soon as time can pass.
async fn live<A: Decodable>(
    test: &TestBroker,
    handler: crate::api::Handler,
    version: i16,
    request: &impl Encodable,
) -> A {
    let mut call = std::pin::pin!(test.call(handler, version, request));
    loop {
        tokio::select! {
            biased;
            answer = &mut call => return answer,
            () = sleep(Duration::from_millis(1)) => test.rig.flush(),
        }
    }
}

fn find(key: &str) -> m::FindCoordinatorRequest {
    m::FindCoordinatorRequest::default().with_key(text(key))
}

fn join(version: i16, member_id: &StrBytes) -> m::JoinGroupRequest {
    use m::join_group_request::JoinGroupRequestProtocol;
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(Bytes::from_static(b"m"));
    let mut request = m::JoinGroupRequest::default()
        .with_group_id(group(version))
        .with_session_timeout_ms(10_000)
        .with_member_id(member_id.clone())
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    if version >= 1 {
        request.rebalance_timeout_ms = 20_000;
    }
    request
}

fn sync(version: i16, joined: &m::JoinGroupResponse) -> m::SyncGroupRequest {
    use m::sync_group_request::SyncGroupRequestAssignment;
    let assignment = SyncGroupRequestAssignment::default()
        .with_member_id(joined.member_id.clone())
        .with_assignment(Bytes::from_static(b"a"));
    let mut request = m::SyncGroupRequest::default()
        .with_group_id(group(version))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone())
        .with_assignments(vec![assignment]);
    if version >= 5 {
        request.protocol_type = Some(text("consumer"));
        request.protocol_name = Some(text("range"));
    }
    request
}

fn commit(group: GroupId, topic: &str, partition: i32, metadata: &str) -> m::OffsetCommitRequest {
    use m::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(42)
        .with_committed_metadata(Some(text(metadata)));
    let topic = OffsetCommitRequestTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
    m::OffsetCommitRequest::default()
        .with_group_id(group)
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic])
}

/// What a group has committed for both partitions of "t", or for all that it has: offsets, epochs and texts.
async fn fetch(test: &TestBroker, version: i16, group: GroupId, all: bool) -> Vec<(i64, i32, String)> {
    use m::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics};
    let texts = |text: &Option<StrBytes>| text.as_ref().map(ToString::to_string).unwrap_or_default();
    if version >= 8 {
        let topic = OffsetFetchRequestTopics::default().with_name(name("t")).with_partition_indexes(vec![0, 1]);
        let topics = (!all).then(|| vec![topic]);
        let asked = OffsetFetchRequestGroup::default().with_group_id(group).with_topics(topics);
        let request = m::OffsetFetchRequest::default().with_groups(vec![asked]);
        let answer: m::OffsetFetchResponse = call!(test, offset_fetch, version, request);
        assert_eq!(answer.groups[0].error_code, 0);
        let partitions = answer.groups[0].topics.iter().flat_map(|topic| &topic.partitions);
        return partitions.map(|p| (p.committed_offset, p.committed_leader_epoch, texts(&p.metadata))).collect();
    }
    let topic = OffsetFetchRequestTopic::default().with_name(name("t")).with_partition_indexes(vec![0, 1]);
    let topics = (!all).then(|| vec![topic]);
    let request = m::OffsetFetchRequest::default().with_group_id(group).with_topics(topics);
    let answer: m::OffsetFetchResponse = call!(test, offset_fetch, version, request);
    assert_eq!(answer.error_code, 0);
    let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|p| (p.committed_offset, p.committed_leader_epoch, texts(&p.metadata))).collect()
}

fn nothing() -> (i64, i32, String) {
    (-1, -1, String::new())
}

#[tokio::test(start_paused = true)]
async fn a_members_life_in_every_version() {
    let test = broker().await;
    for version in 0..=9 {
        let none = StrBytes::new();
        let mut joined: m::JoinGroupResponse = call!(test, join_group, version, join(version, &none));
        if version >= 4 {
            assert_eq!(joined.error_code, ResponseError::MemberIdRequired.code());
            joined = call!(test, join_group, version, join(version, &joined.member_id));
        }
        assert_eq!((joined.error_code, joined.generation_id, &joined.leader), (0, 1, &joined.member_id), "v{version}");
        assert_eq!(joined.protocol_name, Some(text("range")));
        assert_eq!(joined.members.len(), 1);

        let of_sync = version.min(5);
        let mut request = sync(of_sync, &joined);
        request.group_id = group(version);
        let synced: m::SyncGroupResponse = call!(test, sync_group, of_sync, request);
        assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"a"[..]), "v{version}");

        let beat = m::HeartbeatRequest::default()
            .with_group_id(group(version))
            .with_generation_id(1)
            .with_member_id(joined.member_id.clone());
        let beat: m::HeartbeatResponse = call!(test, heartbeat, version.min(4), beat);
        assert_eq!(beat.error_code, 0);

        let of_commit = version.clamp(2, 9);
        let mut request = commit(group(version), "t", 1, "text");
        request.generation_id_or_member_epoch = 1;
        request.member_id = joined.member_id.clone();
        let done: m::OffsetCommitResponse = call!(test, offset_commit, of_commit, request);
        assert_eq!(done.topics[0].partitions[0].error_code, 0, "v{version}");
        let stored = (42, -1, "text".to_owned());
        let of_fetch = version.clamp(1, 9);
        assert_eq!(fetch(&test, of_fetch, group(version), false).await, [nothing(), stored.clone()]);
        if of_fetch >= 2 {
            assert_eq!(fetch(&test, of_fetch, group(version), true).await, [stored]);
        }

        let asked = m::DescribeGroupsRequest::default().with_groups(vec![group(version)]);
        let asked = asked.with_include_authorized_operations(version >= 3);
        let described: m::DescribeGroupsResponse = call!(test, describe_groups, version.min(6), asked);
        let described = &described.groups[0];
        assert_eq!((described.error_code, described.group_state.as_str()), (0, "Stable"));
        assert_eq!((described.members.len(), described.protocol_data.as_str()), (1, "range"));

        leave_and_delete(&test, version, joined.member_id).await;
    }
}

async fn leave_and_delete(test: &TestBroker, version: i16, member_id: StrBytes) {
    use m::leave_group_request::MemberIdentity;
    let delete = m::DeleteGroupsRequest::default().with_groups_names(vec![group(version)]);
    let refused: m::DeleteGroupsResponse = call!(test, delete_groups, version.min(2), delete);
    assert_eq!(refused.results[0].error_code, ResponseError::NonEmptyGroup.code());

    let of_leave = version.min(5);
    let request = m::LeaveGroupRequest::default().with_group_id(group(version));
    let request = match of_leave {
        3.. => request.with_members(vec![
            MemberIdentity::default().with_member_id(member_id),
            MemberIdentity::default().with_member_id(text("stranger")),
        ]),
        _ => request.with_member_id(member_id),
    };
    let left: m::LeaveGroupResponse = call!(test, leave_group, of_leave, request);
    let codes: Vec<_> = left.members.iter().map(|member| member.error_code).collect();
    assert_eq!(left.error_code, 0);
    assert_eq!(codes, if of_leave >= 3 { vec![0, ResponseError::UnknownMemberId.code()] } else { vec![] });

    let listed: m::ListGroupsResponse = call!(test, list_groups, version.min(5), m::ListGroupsRequest::default());
    assert_eq!((listed.error_code, listed.groups.len()), (0, 1));
    assert_eq!(listed.groups[0].protocol_type.as_str(), "consumer");
    let delete = m::DeleteGroupsRequest::default().with_groups_names(vec![group(version)]);
    let deleted: m::DeleteGroupsResponse = call!(test, delete_groups, version.min(2), delete);
    assert_eq!(deleted.results[0].error_code, 0);
    let listed: m::ListGroupsResponse = call!(test, list_groups, version.min(5), m::ListGroupsRequest::default());
    assert!(listed.groups.is_empty());
}

#[tokio::test(start_paused = true)]
async fn coordinators_are_found_in_every_version_for_groups_only() {
    let test = broker().await;
    for version in 0..=6 {
        let mut request = m::FindCoordinatorRequest::default();
        match version {
            4.. => request.coordinator_keys = vec![text("one"), text("two")],
            _ => request.key = text("one"),
        }
        let found: m::FindCoordinatorResponse = call!(test, find_coordinator, version, request.clone());
        match version {
            4.. => {
                assert_eq!(found.coordinators.iter().map(|c| c.key.as_str()).collect::<Vec<_>>(), ["one", "two"]);
                assert!(found.coordinators.iter().all(|c| (c.error_code, c.node_id.0, c.port) == (0, 0, 9092)));
            }
            _ => assert_eq!((found.error_code, found.node_id.0, found.port), (0, 0, 9092)),
        }
        if version == 0 {
            continue;
        }
        for (key_type, code) in [
            (1, ResponseError::UnsupportedVersion),
            (2, ResponseError::UnsupportedVersion),
            (3, ResponseError::InvalidRequest),
        ] {
            request.key_type = key_type;
            let refused: m::FindCoordinatorResponse = call!(test, find_coordinator, version, request.clone());
            let said = refused.coordinators.first().map_or(refused.error_code, |c| c.error_code);
            assert_eq!(said, code.code(), "v{version}, type {key_type}");
        }
    }
    let topic = test.broker.topics.by_name(OFFSETS_TOPIC).unwrap();
    assert_eq!(topic.partitions, 50);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_group_has_no_offsets_and_is_dead_or_not_found() {
    let test = broker().await;
    for version in 1..=9 {
        assert_eq!(fetch(&test, version, group(version), false).await, [nothing(), nothing()]);
    }
    for version in 0..=6 {
        let asked = m::DescribeGroupsRequest::default().with_groups(vec![group(version)]);
        let described: m::DescribeGroupsResponse = call!(test, describe_groups, version, asked);
        let code = if version >= 6 { ResponseError::GroupIdNotFound.code() } else { 0 };
        let described = &described.groups[0];
        assert_eq!((described.error_code, described.group_state.as_str()), (code, "Dead"), "v{version}");
    }
    let delete = m::DeleteGroupsRequest::default().with_groups_names(vec![group(1)]);
    let deleted: m::DeleteGroupsResponse = call!(test, delete_groups, 2, delete);
    assert_eq!(deleted.results[0].error_code, ResponseError::GroupIdNotFound.code());
    let delete = m::OffsetDeleteRequest::default().with_group_id(group(1));
    let deleted: m::OffsetDeleteResponse = call!(test, offset_delete, 0, delete);
    assert_eq!(deleted.error_code, ResponseError::GroupIdNotFound.code());
}

#[tokio::test(start_paused = true)]
async fn a_member_needs_a_group_with_a_name() {
    let test = broker().await;
    let none = GroupId(StrBytes::new());
    let invalid = ResponseError::InvalidGroupId.code();
    let joined: m::JoinGroupResponse =
        call!(test, join_group, 9, join(9, &StrBytes::new()).with_group_id(none.clone()));
    let synced: m::SyncGroupResponse =
        call!(test, sync_group, 0, m::SyncGroupRequest::default().with_group_id(none.clone()));
    let beat: m::HeartbeatResponse =
        call!(test, heartbeat, 0, m::HeartbeatRequest::default().with_group_id(none.clone()));
    let left: m::LeaveGroupResponse =
        call!(test, leave_group, 0, m::LeaveGroupRequest::default().with_group_id(none.clone()));
    assert_eq!([joined.error_code, synced.error_code, beat.error_code, left.error_code], [invalid; 4]);
    // Who only commits does not, in Kafka.
    let done: m::OffsetCommitResponse = call!(test, offset_commit, 9, commit(none.clone(), "t", 0, ""));
    assert_eq!(done.topics[0].partitions[0].error_code, 0);
    assert_eq!(fetch(&test, 8, none, false).await[0].0, 42);
}

#[tokio::test(start_paused = true)]
async fn a_commit_is_refused_partition_by_partition() {
    let test = broker().await;
    let long = "x".repeat(4097);
    let mut request = commit(group(0), "t", 0, "fits");
    for (topic, partition, metadata) in [("nowhere", 0, ""), ("t", 2, ""), ("t", -1, ""), ("t", 1, long.as_str())] {
        request.topics.extend(commit(group(0), topic, partition, metadata).topics);
    }
    let done: m::OffsetCommitResponse = call!(test, offset_commit, 9, request);
    let codes: Vec<_> = done.topics.iter().map(|topic| topic.partitions[0].error_code).collect();
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(codes, [0, unknown, unknown, unknown, ResponseError::OffsetMetadataTooLarge.code()]);
    assert_eq!(fetch(&test, 9, group(0), true).await, [(42, -1, "fits".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn groups_are_listed_by_state_and_type() {
    let test = broker().await;
    let _: m::OffsetCommitResponse = call!(test, offset_commit, 9, commit(group(0), "t", 0, ""));
    for (states, types, count) in
        [(&[][..], &[][..], 1), (&["empty", "Stable"], &["Classic"], 1), (&["Stable"], &[], 0), (&[], &["consumer"], 0)]
    {
        let texts = |names: &[&str]| names.iter().map(|name| text(name)).collect();
        let request = m::ListGroupsRequest::default().with_states_filter(texts(states)).with_types_filter(texts(types));
        let listed: m::ListGroupsResponse = call!(test, list_groups, 5, request);
        assert_eq!(listed.groups.len(), count, "{states:?} {types:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_topic_of_coordinators_is_internal() {
    use m::metadata_request::MetadataRequestTopic;
    use m::produce_request::{PartitionProduceData, TopicProduceData};
    let test = TestBroker::new(0, 1).await;
    let asked = MetadataRequestTopic::default().with_name(Some(name(OFFSETS_TOPIC)));
    let request = m::MetadataRequest::default().with_topics(Some(vec![asked]));
    let answer: m::MetadataResponse = call!(test, metadata, 9, request);
    assert_eq!((answer.topics[0].partitions.len(), answer.topics[0].is_internal), (50, true));
    let data = PartitionProduceData::default().with_records(Some(Bytes::from_static(b"x")));
    let topic = TopicProduceData::default().with_name(name(OFFSETS_TOPIC)).with_partition_data(vec![data]);
    let request = m::ProduceRequest::default().with_acks(-1).with_topic_data(vec![topic]);
    let answer: m::ProduceResponse = live(&test, produce::handle, 9, &request).await;
    let code = answer.responses[0].partition_responses[0].error_code;
    assert_eq!(code, ResponseError::InvalidTopicException.code());
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_lost_its_log_says_nothing_about_groups() {
    let test = broker().await;
    let _: m::OffsetCommitResponse = call!(test, offset_commit, 9, commit(group(0), "t", 0, ""));
    test.broker.ownership.declare_lost(Loss::Fenced("a test".to_owned()));
    let lost = ResponseError::NotCoordinator.code();
    let listed: m::ListGroupsResponse = call!(test, list_groups, 5, m::ListGroupsRequest::default());
    assert_eq!((listed.error_code, listed.groups.len()), (lost, 0));
    let asked = m::DescribeGroupsRequest::default().with_groups(vec![group(0)]);
    let described: m::DescribeGroupsResponse = call!(test, describe_groups, 5, asked);
    assert_eq!((described.groups[0].error_code, described.groups[0].group_state.as_str()), (lost, ""));
    let asked = m::offset_fetch_request::OffsetFetchRequestGroup::default().with_group_id(group(0)).with_topics(None);
    let request = m::OffsetFetchRequest::default().with_groups(vec![asked]);
    let fetched: m::OffsetFetchResponse = call!(test, offset_fetch, 8, request);
    assert_eq!((fetched.groups[0].error_code, fetched.groups[0].topics.len()), (lost, 0));
}
