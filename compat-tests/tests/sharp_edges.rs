//! The sharp edges of Kafka's protocol, on which other implementations have cut themselves, each as a named test.
//!
//! These go through the wire to the real binary. Others are tested where they are decided: the fallback of ApiVersions
//! in `hostile.rs`; waiting, limits and whole batches of Fetch in `api/fetch`; the window of idempotence, sequences that
//! wrap and forgotten producers in `partition/producers`; times and their special values in `api/list_offsets` and
//! `clients.rs`; leader epochs in `api/offset_for_leader_epoch`; acks=0 in `api/produce`.

use bytes::Bytes;
use compat_tests::clients;
use compat_tests::process::{Broker, Launch};
use compat_tests::raw::{Raw, batch, produce};
use compat_tests::sim::wire::{BatchSpec, encode_batch, parse_batches};
use compat_tests::wait::until;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, BrokerId, CreateTopicsRequest, DeleteRecordsRequest, FetchRequest,
    FindCoordinatorRequest, GroupId, InitProducerIdRequest, JoinGroupRequest, ListOffsetsRequest, MetadataRequest,
    OffsetCommitRequest, OffsetFetchRequest, ProduceRequest, SyncGroupRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use tempfile::TempDir;
use uuid::Uuid;

const NONE: i16 = 0;

async fn broker() -> (TempDir, Broker, Raw) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let broker = Launch::new(folder.path()).set("group_initial_rebalance_delay_ms", 0).start().await;
    let raw = Raw::connect(broker.kafka()).await.expect("a connection");
    (folder, broker, raw)
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

async fn fetch(raw: &mut Raw, topic: &str, offset: i64, version: i16) -> PartitionData {
    let partition = FetchPartition::default().with_fetch_offset(offset).with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![partition]);
    let request = FetchRequest::default().with_replica_id(BrokerId(-1)).with_max_wait_ms(0).with_min_bytes(1);
    let request = request.with_max_bytes(1 << 20).with_session_epoch(-1).with_topics(vec![topic]);
    let mut answer = raw.call(version, &request).await;
    answer.responses.remove(0).partitions.remove(0)
}

/// The error and the offset with which a Produce request is answered.
fn produced(answer: kafka_protocol::messages::ProduceResponse) -> (i16, i64) {
    let partition = &answer.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

/// What Metadata says of a topic: its error and its id.
async fn described(raw: &mut Raw, topic: &str, may_create: bool) -> (i16, Uuid) {
    let asked = MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
    let request = MetadataRequest::default().with_topics(Some(vec![asked])).with_allow_auto_topic_creation(may_create);
    let answer = raw.call(12, &request).await;
    (answer.topics[0].error_code, answer.topics[0].topic_id)
}

/// librdkafka before 2.11.1 silently stops compressing where Produce begins above version 2, and finds no way to log in
/// with Kerberos where JoinGroup does not begin at 0.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn produce_is_offered_from_version_0_on() {
    let (_folder, _broker, mut raw) = broker().await;
    let answer = raw.call(0, &ApiVersionsRequest::default()).await;
    let produce = answer.api_keys.iter().find(|api| api.api_key == ApiKey::Produce as i16).expect("Produce is offered");
    assert_eq!(produce.min_version, 0);
    assert!(produce.max_version >= 7, "zstd needs version 7");
}

/// A length of -1 is "invalid MessageSetSize" to librdkafka.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_fetch_has_records_of_no_bytes_and_never_null() {
    let (_folder, broker, mut raw) = broker().await;
    clients::create_topic(broker.kafka(), "empty", 1).await;
    for version in [4, 11, 12] {
        let at_the_end = fetch(&mut raw, "empty", 0, version).await;
        assert_eq!((at_the_end.error_code, at_the_end.records), (NONE, Some(Bytes::new())), "v{version}");
        let beyond = fetch(&mut raw, "empty", 9, version).await;
        assert_eq!((beyond.error_code, beyond.records), (1, Some(Bytes::new())), "v{version}");
    }
}

/// Consumers with read_committed, librdkafka's default, stall where the last stable offset is not set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_stable_offset_is_the_high_watermark_without_transactions() {
    let (_folder, broker, mut raw) = broker().await;
    clients::create_topic(broker.kafka(), "stable", 1).await;
    assert_eq!(produced(raw.call(9, &produce("stable", 0, batch(&[1, 2, 3]))).await), (NONE, 0));
    let fetched = fetch(&mut raw, "stable", 0, 11).await;
    assert_eq!((fetched.high_watermark, fetched.last_stable_offset, fetched.log_start_offset), (3, 3, 0));
    assert!(fetched.aborted_transactions.is_none_or(|aborted| aborted.is_empty()));
}

fn idempotent(topic: &str, producer_id: i64, base_sequence: i32, values: &[u64]) -> ProduceRequest {
    let spec = BatchSpec {
        producer_id,
        producer_epoch: 0,
        base_sequence,
        attributes: 0,
        timestamp_ms: 1_700_000_000_000,
        values,
    };
    produce(topic, 0, encode_batch(&spec))
}

/// Sarama and librdkafka send the next batches before the first is answered, and all of them again after a disconnect.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_idempotent_batches_in_flight_keep_their_order_and_retries_their_offsets() {
    let (_folder, broker, mut raw) = broker().await;
    clients::create_topic(broker.kafka(), "idempotent", 1).await;
    let request = InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(1_000);
    let producer_id = raw.call(1, &request).await.producer_id.0;
    for round in 0..2 {
        let mut raw = Raw::connect(broker.kafka()).await.expect("a connection");
        for n in 0..5_i32 {
            let values = [n as u64 * 2, n as u64 * 2 + 1];
            raw.request(n, 9, &idempotent("idempotent", producer_id, 2 * n, &values)).await.expect("sent");
        }
        for n in 0..5_i32 {
            let (correlation, frame) = raw.receive().await.expect("an answer").expect("an answer");
            let answer = compat_tests::sim::wire::response::<ProduceRequest>(9, frame).expect("a response");
            assert_eq!((correlation, produced(answer)), (n, (NONE, i64::from(2 * n))), "round {round}");
        }
    }
    let fetched = fetch(&mut raw, "idempotent", 0, 11).await;
    let batches = parse_batches(fetched.records.expect("records")).expect("whole batches");
    let values: Vec<u64> = batches.iter().flat_map(|b| b.values.iter().copied()).collect();
    assert_eq!(values, (0..10).collect::<Vec<u64>>());
}

/// A topic made again under its name is another topic, and clients that know the old one by its id must learn that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_made_again_has_another_id_and_is_seen_at_once() {
    let (_folder, broker, mut raw) = broker().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        clients::create_topic(broker.kafka(), "again", 1).await;
        let (error, id) = described(&mut raw, "again", false).await;
        assert!(error == NONE && !id.is_nil(), "{error} {id}");
        assert!(!ids.contains(&id), "{id} is the id of an earlier topic");
        ids.push(id);
        let options = rdkafka::admin::AdminOptions::new().operation_timeout(Some(clients::LIMIT));
        clients::admin(broker.kafka()).delete_topics(&["again"], &options).await.expect("DeleteTopics is answered");
        assert_eq!(described(&mut raw, "again", false).await.0, 3, "UNKNOWN_TOPIC_OR_PARTITION at once");
    }
}

/// Clients give up on errors that are not retriable while a topic comes to be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asking_for_a_topic_creates_it_only_where_the_client_says_so() {
    let (_folder, _broker, mut raw) = broker().await;
    for _ in 0..2 {
        assert_eq!(described(&mut raw, "wanted", false).await.0, 3, "UNKNOWN_TOPIC_OR_PARTITION");
    }
    let (first, _) = described(&mut raw, "wanted", true).await;
    assert!([NONE, 3, 5].contains(&first), "there, or an error that clients retry: {first}");
    let (second, id) = described(&mut raw, "wanted", true).await;
    assert!(second == NONE && !id.is_nil(), "{second}");
}

// Consumer groups.

/// What a group committed for partition 0 of a topic: offset, leader epoch, metadata, error.
async fn committed(raw: &mut Raw, group: &str, topic: &str, version: i16) -> (i64, i32, String, i16) {
    let mut request = OffsetFetchRequest::default();
    if version >= 8 {
        let topic = OffsetFetchRequestTopics::default().with_name(topic_name(topic)).with_partition_indexes(vec![0]);
        let group = OffsetFetchRequestGroup::default().with_group_id(GroupId(text(group)));
        request = request.with_groups(vec![group.with_topics(Some(vec![topic]))]);
        let answer = raw.call(version, &request).await;
        assert_eq!(answer.groups[0].error_code, NONE, "a group that nobody knows has no offsets, which is no error");
        let found = &answer.groups[0].topics[0].partitions[0];
        let metadata = found.metadata.as_ref().map_or_else(String::new, ToString::to_string);
        return (found.committed_offset, found.committed_leader_epoch, metadata, found.error_code);
    }
    let topic = OffsetFetchRequestTopic::default().with_name(topic_name(topic)).with_partition_indexes(vec![0]);
    request = request.with_group_id(GroupId(text(group))).with_topics(Some(vec![topic]));
    let answer = raw.call(version, &request).await;
    assert_eq!(answer.error_code, NONE);
    let found = &answer.topics[0].partitions[0];
    let metadata = found.metadata.as_ref().map_or_else(String::new, ToString::to_string);
    (found.committed_offset, found.committed_leader_epoch, metadata, found.error_code)
}

/// Waits until this broker coordinates the group.
async fn coordinated(raw: &mut Raw, group: &str) {
    until("the group has a coordinator", clients::LIMIT, async || {
        let request = FindCoordinatorRequest::default().with_key(text(group));
        raw.call(2, &request).await.error_code == NONE
    })
    .await;
    until("the coordinator has loaded", clients::LIMIT, async || committed(raw, group, "t", 5).await.3 == NONE).await;
}

/// GROUP_ID_NOT_FOUND here breaks consumers that begin.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_of_an_unknown_group_are_minus_one_and_no_error() {
    let (_folder, broker, mut raw) = broker().await;
    clients::create_topic(broker.kafka(), "t", 1).await;
    coordinated(&mut raw, "unknown").await;
    for version in [1, 5, 7, 8, 9] {
        let (offset, epoch, metadata, error) = committed(&mut raw, "unknown", "t", version).await;
        assert_eq!((offset, epoch, metadata.as_str(), error), (-1, -1, "", NONE), "v{version}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_and_leader_epoch_of_a_commit_come_back_also_after_a_restart() {
    let (_folder, mut broker, mut raw) = broker().await;
    clients::create_topic(broker.kafka(), "t", 1).await;
    coordinated(&mut raw, "g").await;
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(7).with_committed_leader_epoch(3);
    let partition = partition.with_committed_metadata(Some(text("a note \u{fc}")));
    let topic = OffsetCommitRequestTopic::default().with_name(topic_name("t")).with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default().with_group_id(GroupId(text("g")));
    let request = request.with_generation_id_or_member_epoch(-1).with_topics(vec![topic]);
    let answer = raw.call(8, &request).await;
    assert_eq!(answer.topics[0].partitions[0].error_code, NONE);
    let expected = (7, 3, "a note \u{fc}".to_owned(), NONE);
    assert_eq!(committed(&mut raw, "g", "t", 8).await, expected);
    broker.kill().await;
    let broker = broker.again().await;
    let mut raw = Raw::connect(broker.kafka()).await.expect("a connection");
    coordinated(&mut raw, "g").await;
    assert_eq!(committed(&mut raw, "g", "t", 8).await, expected);
}

fn join(group: &str, member: &str, metadata: &[u8]) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
    let protocol = protocol.with_metadata(Bytes::copy_from_slice(metadata));
    let request = JoinGroupRequest::default().with_group_id(GroupId(text(group))).with_member_id(text(member));
    let request = request.with_session_timeout_ms(10_000).with_rebalance_timeout_ms(10_000);
    request.with_protocol_type(text("consumer")).with_protocols(vec![protocol])
}

/// From version 4 on a member joins twice: clients that lose the first answer would leave dead members behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_member_is_given_its_id_before_it_joins() {
    let (_folder, _broker, mut raw) = broker().await;
    coordinated(&mut raw, "join").await;
    let told = raw.call(5, &join("join", "", b"m")).await;
    assert_eq!(told.error_code, 79, "MEMBER_ID_REQUIRED");
    assert!(!told.member_id.is_empty());
    let joined = raw.call(5, &join("join", &told.member_id, b"m")).await;
    assert_eq!((joined.error_code, joined.generation_id), (NONE, 1));
    assert_eq!((&joined.leader, joined.members.len()), (&told.member_id, 1));
    // Before version 4 one request does.
    coordinated(&mut raw, "old").await;
    for version in [0, 1, 3] {
        let group = format!("old-{version}");
        let joined = raw.call(version, &join(&group, "", b"m")).await;
        assert_eq!((joined.error_code, joined.members.len()), (NONE, 1), "v{version}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_assignment_of_a_megabyte_is_not_cut_short() {
    let (_folder, _broker, mut raw) = broker().await;
    coordinated(&mut raw, "large").await;
    let metadata: Vec<u8> = (0..300_000_u32).map(|i| (i % 251) as u8).collect();
    let member = raw.call(3, &join("large", "", &metadata)).await;
    assert_eq!(member.members[0].metadata, metadata);
    let assignment: Bytes = (0..1_000_000_u32).map(|i| (i % 241) as u8).collect::<Vec<u8>>().into();
    let given = SyncGroupRequestAssignment::default().with_member_id(member.member_id.clone());
    let request = SyncGroupRequest::default().with_group_id(GroupId(text("large"))).with_generation_id(1);
    let request =
        request.with_member_id(member.member_id).with_assignments(vec![given.with_assignment(assignment.clone())]);
    let answer = raw.call(3, &request).await;
    assert_eq!(answer.error_code, NONE);
    assert!(answer.assignment == assignment, "{} bytes came back", answer.assignment.len());
}

// Administration.

async fn create(raw: &mut Raw, topic: CreatableTopic) -> CreatableTopicResult {
    let request = CreateTopicsRequest::default().with_timeout_ms(30_000).with_topics(vec![topic]);
    raw.call(7, &request).await.topics.remove(0)
}

fn creatable(name: &str, configs: &[(&str, &str)]) -> CreatableTopic {
    let config = |(name, value): &(&str, &str)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
    };
    let topic =
        CreatableTopic::default().with_name(topic_name(name)).with_num_partitions(-1).with_replication_factor(-1);
    topic.with_configs(configs.iter().map(config).collect())
}

/// -1 asks for the broker's defaults, and the answer says what they are, with every configuration of the topic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creating_with_minus_one_takes_the_defaults_and_tells_them() {
    let (_folder, _broker, mut raw) = broker().await;
    let made = create(&mut raw, creatable("made", &[("max.message.bytes", "50000")])).await;
    assert_eq!((made.error_code, made.num_partitions, made.replication_factor), (NONE, 1, 1));
    assert!(!made.topic_id.is_nil());
    let configs = made.configs.expect("from version 5 on");
    let value = |name: &str| configs.iter().find(|c| &*c.name == name).and_then(|c| c.value.clone());
    assert_eq!(value("max.message.bytes"), Some(text("50000")));
    assert_eq!(value("compression.type"), Some(text("producer")), "of {} configurations", configs.len());
}

/// With LogAppendTime the broker's time is the record's, for readers and for lookups, whatever the producer said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_append_time_is_what_readers_and_lookups_see() {
    let (_folder, broker, mut raw) = broker().await;
    create(&mut raw, creatable("times", &[("message.timestamp.type", "LogAppendTime")])).await;
    let answer = raw.call(9, &produce("times", 0, batch(&[1, 2]))).await;
    let appended = &answer.responses[0].partition_responses[0];
    assert_eq!((appended.error_code, appended.base_offset), (NONE, 0));
    let time = appended.log_append_time_ms;
    assert!(time > 1_700_000_000_000 + 86_400_000, "the broker's time, not the producer's: {time}");
    let records = clients::read_all(broker.kafka(), "times", 0).await;
    let times: Vec<_> = records.iter().map(rdkafka::Message::timestamp).collect();
    assert_eq!(times, vec![rdkafka::Timestamp::LogAppendTime(time); 2]);
    for (asked, found) in [(time, 0), (time + 1, -1), (-3, 0)] {
        let partition = ListOffsetsPartition::default().with_timestamp(asked);
        let topic = ListOffsetsTopic::default().with_name(topic_name("times")).with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        let answer = raw.call(7, &request).await;
        let offset = answer.topics[0].partitions[0].offset;
        // Both records have the highest timestamp, and either may be named.
        assert!(offset == found || (asked == -3 && offset == 1), "at {asked}: {offset}");
    }
}

/// A compacted topic takes no record without a key, and says which ones of a batch were wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_without_keys_are_refused_one_by_one_where_keys_matter() {
    let (_folder, _broker, mut raw) = broker().await;
    create(&mut raw, creatable("compacted", &[("cleanup.policy", "compact")])).await;
    let answer = raw.call(9, &produce("compacted", 0, batch(&[1, 2]))).await;
    let refused = &answer.responses[0].partition_responses[0];
    assert_eq!((refused.error_code, refused.base_offset), (87, -1), "INVALID_RECORD");
    let wrong: Vec<i32> = refused.record_errors.iter().map(|e| e.batch_index).collect();
    assert_eq!(wrong, [0, 1]);
    assert!(fetch(&mut raw, "compacted", 0, 11).await.high_watermark == 0, "nothing was appended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_below_deleted_records_are_out_of_range() {
    let (_folder, mut broker, mut raw) = broker().await;
    clients::create_topic(broker.kafka(), "deleted", 1).await;
    for n in 0..4 {
        assert_eq!(produced(raw.call(9, &produce("deleted", 0, batch(&[n]))).await), (NONE, n as i64));
    }
    let partition = DeleteRecordsPartition::default().with_offset(2);
    let topic = DeleteRecordsTopic::default().with_name(topic_name("deleted")).with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default().with_timeout_ms(30_000).with_topics(vec![topic]);
    let answer = raw.call(2, &request).await;
    let partition = &answer.topics[0].partitions[0];
    assert_eq!((partition.error_code, partition.low_watermark), (NONE, 2));
    for _ in 0..2 {
        for offset in [0, 1] {
            let below = fetch(&mut raw, "deleted", offset, 11).await;
            assert_eq!(below.error_code, 1, "OFFSET_OUT_OF_RANGE at {offset}");
        }
        assert_eq!(fetch(&mut raw, "deleted", 2, 11).await.error_code, NONE);
        broker.kill().await;
        broker = broker.again().await;
        raw = Raw::connect(broker.kafka()).await.expect("a connection");
    }
}
