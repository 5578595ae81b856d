//! Requests as clients send them, of every API in every version, encoded by the protocol crate.

mod admin;
mod groups;

use broker::wire::shape::RequestShape;
use broker::wire::shapes;
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as m;
use kafka_protocol::messages::{BrokerId, ProducerId, TopicName, TransactionalId};
use kafka_protocol::protocol::{Decodable, Encodable, Message, StrBytes, VersionRange};
use uuid::Uuid;

pub struct Sample {
    pub shape: &'static RequestShape,
    pub version: i16,
    pub body: Bytes,
}

const ID: Uuid = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);

/// The versions that the decoder knows.
pub fn versions(api_key: i16) -> VersionRange {
    match api_key {
        0 => m::ProduceRequest::VERSIONS,
        1 => m::FetchRequest::VERSIONS,
        2 => m::ListOffsetsRequest::VERSIONS,
        3 => m::MetadataRequest::VERSIONS,
        8 => m::OffsetCommitRequest::VERSIONS,
        9 => m::OffsetFetchRequest::VERSIONS,
        10 => m::FindCoordinatorRequest::VERSIONS,
        11 => m::JoinGroupRequest::VERSIONS,
        12 => m::HeartbeatRequest::VERSIONS,
        13 => m::LeaveGroupRequest::VERSIONS,
        14 => m::SyncGroupRequest::VERSIONS,
        15 => m::DescribeGroupsRequest::VERSIONS,
        16 => m::ListGroupsRequest::VERSIONS,
        18 => m::ApiVersionsRequest::VERSIONS,
        19 => m::CreateTopicsRequest::VERSIONS,
        20 => m::DeleteTopicsRequest::VERSIONS,
        21 => m::DeleteRecordsRequest::VERSIONS,
        22 => m::InitProducerIdRequest::VERSIONS,
        23 => m::OffsetForLeaderEpochRequest::VERSIONS,
        32 => m::DescribeConfigsRequest::VERSIONS,
        33 => m::AlterConfigsRequest::VERSIONS,
        37 => m::CreatePartitionsRequest::VERSIONS,
        44 => m::IncrementalAlterConfigsRequest::VERSIONS,
        60 => m::DescribeClusterRequest::VERSIONS,
        75 => m::DescribeTopicPartitionsRequest::VERSIONS,
        42 => m::DeleteGroupsRequest::VERSIONS,
        47 => m::OffsetDeleteRequest::VERSIONS,
        _ => panic!("no samples of api key {api_key}"),
    }
}

/// What the decoder makes of a body: a word on success.
pub fn decode(api_key: i16, version: i16, body: &Bytes) -> Result<(), String> {
    fn as_type<T: Decodable>(version: i16, body: &Bytes) -> Result<(), String> {
        let mut rest = body.clone();
        T::decode(&mut rest, version).map_err(|error| error.to_string())?;
        let ignored = shapes::ALL.iter().map(|shape| shape.ignored_bytes()).max().unwrap_or(0);
        assert!(rest.len() <= ignored, "the decoder left {} bytes of what the check let through", rest.len());
        Ok(())
    }
    match api_key {
        0 => as_type::<m::ProduceRequest>(version, body),
        1 => as_type::<m::FetchRequest>(version, body),
        2 => as_type::<m::ListOffsetsRequest>(version, body),
        3 => as_type::<m::MetadataRequest>(version, body),
        8 => as_type::<m::OffsetCommitRequest>(version, body),
        9 => as_type::<m::OffsetFetchRequest>(version, body),
        10 => as_type::<m::FindCoordinatorRequest>(version, body),
        11 => as_type::<m::JoinGroupRequest>(version, body),
        12 => as_type::<m::HeartbeatRequest>(version, body),
        13 => as_type::<m::LeaveGroupRequest>(version, body),
        14 => as_type::<m::SyncGroupRequest>(version, body),
        15 => as_type::<m::DescribeGroupsRequest>(version, body),
        16 => as_type::<m::ListGroupsRequest>(version, body),
        18 => as_type::<m::ApiVersionsRequest>(version, body),
        19 => as_type::<m::CreateTopicsRequest>(version, body),
        20 => as_type::<m::DeleteTopicsRequest>(version, body),
        21 => as_type::<m::DeleteRecordsRequest>(version, body),
        22 => as_type::<m::InitProducerIdRequest>(version, body),
        23 => as_type::<m::OffsetForLeaderEpochRequest>(version, body),
        32 => as_type::<m::DescribeConfigsRequest>(version, body),
        33 => as_type::<m::AlterConfigsRequest>(version, body),
        37 => as_type::<m::CreatePartitionsRequest>(version, body),
        44 => as_type::<m::IncrementalAlterConfigsRequest>(version, body),
        60 => as_type::<m::DescribeClusterRequest>(version, body),
        75 => as_type::<m::DescribeTopicPartitionsRequest>(version, body),
        42 => as_type::<m::DeleteGroupsRequest>(version, body),
        47 => as_type::<m::OffsetDeleteRequest>(version, body),
        _ => panic!("no samples of api key {api_key}"),
    }
}

pub fn samples() -> Vec<Sample> {
    let mut out = Vec::new();
    add(&mut out, &shapes::PRODUCE, |version| vec![m::ProduceRequest::default(), produce(version)]);
    add(&mut out, &shapes::FETCH, |version| vec![m::FetchRequest::default(), fetch(version)]);
    add(&mut out, &shapes::LIST_OFFSETS, |version| vec![m::ListOffsetsRequest::default(), list_offsets(version)]);
    add(&mut out, &shapes::METADATA, metadata);
    add(&mut out, &shapes::API_VERSIONS, |version| vec![m::ApiVersionsRequest::default(), api_versions(version)]);
    add(&mut out, &shapes::CREATE_TOPICS, |version| vec![m::CreateTopicsRequest::default(), create_topics(version)]);
    add(&mut out, &shapes::DELETE_TOPICS, |version| vec![m::DeleteTopicsRequest::default(), delete_topics(version)]);
    add(&mut out, &shapes::INIT_PRODUCER_ID, |version| {
        vec![m::InitProducerIdRequest::default(), init_producer_id(version)]
    });
    add(&mut out, &shapes::OFFSET_FOR_LEADER_EPOCH, |version| {
        vec![m::OffsetForLeaderEpochRequest::default(), leader_epoch(version)]
    });
    admin::add_all(&mut out);
    groups::add_all(&mut out);
    out
}

fn add<T: Encodable + Message>(out: &mut Vec<Sample>, shape: &'static RequestShape, build: impl Fn(i16) -> Vec<T>) {
    for version in T::VERSIONS.min..=T::VERSIONS.max {
        for request in build(version) {
            let mut body = BytesMut::new();
            request.encode(&mut body, version).expect("samples have only what their version has");
            out.push(Sample { shape, version, body: body.freeze() });
        }
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn name(name: &str) -> TopicName {
    TopicName(text(name))
}

fn produce(version: i16) -> m::ProduceRequest {
    use m::produce_request::{PartitionProduceData, TopicProduceData};
    let partition = |index| PartitionProduceData::default().with_index(index).with_records(Some("some records".into()));
    let mut topic = TopicProduceData::default().with_partition_data(vec![partition(0), partition(7)]);
    match version {
        13.. => topic.topic_id = ID,
        _ => topic.name = name("topic"),
    }
    let null = PartitionProduceData::default().with_records(None);
    m::ProduceRequest::default()
        .with_transactional_id(Some(TransactionalId(text("transaction"))))
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![topic.clone(), topic.with_partition_data(vec![null])])
}

fn fetch(version: i16) -> m::FetchRequest {
    use m::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState};
    let mut partition =
        FetchPartition::default().with_partition(3).with_fetch_offset(17).with_partition_max_bytes(1 << 20);
    if version >= 9 {
        partition.current_leader_epoch = 5;
    }
    if version >= 17 {
        partition.replica_directory_id = ID;
    }
    if version >= 18 {
        partition.high_watermark = 99;
    }
    let mut topic = FetchTopic::default().with_partitions(vec![partition.clone(), partition]);
    let mut forgotten = ForgottenTopic::default().with_partitions(vec![1, 2, 3]);
    match version {
        13.. => (topic.topic_id, forgotten.topic_id) = (ID, ID),
        _ => (topic.topic, forgotten.topic) = (name("topic"), name("forgotten")),
    }
    let mut request = m::FetchRequest::default().with_max_wait_ms(500).with_min_bytes(1).with_topics(vec![topic]);
    if version >= 7 {
        request.session_epoch = 0;
        request.forgotten_topics_data = vec![forgotten];
    }
    if version >= 11 {
        request.rack_id = text("rack");
    }
    if version >= 12 {
        request.cluster_id = Some(text("cluster"));
    }
    if version >= 15 {
        request.replica_state = ReplicaState::default().with_replica_id(BrokerId(4)).with_replica_epoch(12);
    }
    if version >= 12 {
        request.unknown_tagged_fields.insert(9, "from the future".into());
    }
    request
}

fn list_offsets(version: i16) -> m::ListOffsetsRequest {
    use m::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
    let mut partition = ListOffsetsPartition::default().with_partition_index(1).with_timestamp(-2);
    if version >= 4 {
        partition.current_leader_epoch = 2;
    }
    let topic =
        ListOffsetsTopic::default().with_name(name("topic")).with_partitions(vec![partition.clone(), partition]);
    let mut request = m::ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
    if version >= 10 {
        request.timeout_ms = 1000;
    }
    request
}

fn metadata(version: i16) -> Vec<m::MetadataRequest> {
    use m::metadata_request::MetadataRequestTopic;
    let topic = |topic: &str| MetadataRequestTopic::default().with_name(Some(name(topic)));
    let mut all = vec![m::MetadataRequest::default().with_topics(Some(vec![topic("one"), topic("")]))];
    if version >= 1 {
        all.push(m::MetadataRequest::default().with_topics(None));
    }
    if version >= 10 {
        let by_id = MetadataRequestTopic::default().with_name(None).with_topic_id(ID);
        all.push(m::MetadataRequest::default().with_topics(Some(vec![by_id])));
    }
    if version >= 8 {
        all.push(m::MetadataRequest::default().with_topics(None).with_include_topic_authorized_operations(true));
    }
    if version >= 4 {
        all.push(m::MetadataRequest::default().with_topics(None).with_allow_auto_topic_creation(false));
    }
    all
}

/// A request for so many topics, in version 12.
pub fn many_topics(count: usize) -> Bytes {
    use m::metadata_request::MetadataRequestTopic;
    let topics = (0..count).map(|n| MetadataRequestTopic::default().with_name(Some(name(&format!("orders-{n}")))));
    let mut body = BytesMut::new();
    m::MetadataRequest::default()
        .with_topics(Some(topics.collect()))
        .encode(&mut body, 12)
        .expect("a request for topics can be encoded");
    body.freeze()
}

fn api_versions(version: i16) -> m::ApiVersionsRequest {
    let mut request = m::ApiVersionsRequest::default();
    if version >= 3 {
        request.client_software_name = text("client");
        request.client_software_version = text("1.0");
    }
    request
}

fn create_topics(version: i16) -> m::CreateTopicsRequest {
    use m::create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig};
    let assignment =
        CreatableReplicaAssignment::default().with_partition_index(0).with_broker_ids(vec![BrokerId(0), BrokerId(1)]);
    let config = |key: &str, value: Option<&str>| {
        CreatableTopicConfig::default().with_name(text(key)).with_value(value.map(text))
    };
    let topic = CreatableTopic::default()
        .with_name(name("topic"))
        .with_num_partitions(3)
        .with_replication_factor(1)
        .with_assignments(vec![assignment])
        .with_configs(vec![config("retention.ms", Some("-1")), config("cleanup.policy", None)]);
    let mut request =
        m::CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(1000).with_validate_only(true);
    if version >= 5 {
        request.unknown_tagged_fields.insert(0, Bytes::new());
    }
    request
}

fn delete_topics(version: i16) -> m::DeleteTopicsRequest {
    use m::delete_topics_request::DeleteTopicState;
    let request = m::DeleteTopicsRequest::default().with_timeout_ms(1000);
    match version {
        6.. => request.with_topics(vec![
            DeleteTopicState::default().with_name(Some(name("topic"))),
            DeleteTopicState::default().with_name(None).with_topic_id(ID),
        ]),
        _ => request.with_topic_names(vec![name("one"), name("two")]),
    }
}

fn init_producer_id(version: i16) -> m::InitProducerIdRequest {
    let mut request = m::InitProducerIdRequest::default()
        .with_transactional_id(Some(TransactionalId(text("transaction"))))
        .with_transaction_timeout_ms(60_000);
    if version >= 3 {
        request.producer_id = ProducerId(1000);
        request.producer_epoch = 3;
    }
    request
}

fn leader_epoch(version: i16) -> m::OffsetForLeaderEpochRequest {
    use m::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
    let partition =
        OffsetForLeaderPartition::default().with_partition(1).with_current_leader_epoch(4).with_leader_epoch(3);
    let topic = OffsetForLeaderTopic::default().with_topic(name("topic")).with_partitions(vec![partition]);
    let mut request = m::OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
    if version >= 3 {
        request.replica_id = BrokerId(-1);
    }
    request
}
