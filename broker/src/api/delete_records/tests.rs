//! Where partitions begin afterwards, what is refused, and that it is durable before it is answered.

use kafka_protocol::messages::delete_records_request::DeleteRecordsTopic;

use super::*;
use crate::api::testing::{TestBroker, name};
use crate::api::typed;
use crate::batch::testing::BatchSpec;
use crate::topics::edits::{Edit, Edits, Operation};
use crate::topics::{Configs, OFFSETS_TOPIC};

/// What becomes of partitions of "t": error code and low watermark.
async fn ask(test: &TestBroker, version: i16, topic: &str, asked: &[(i32, i64)]) -> Vec<(i16, i64)> {
    let partition = |(index, offset): &(i32, i64)| {
        DeleteRecordsPartition::default().with_partition_index(*index).with_offset(*offset)
    };
    let topic =
        DeleteRecordsTopic::default().with_name(name(topic)).with_partitions(asked.iter().map(partition).collect());
    let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(1_000);
    let handler = |broker: &_, context, body| typed(broker, context, body, handle);
    let response: DeleteRecordsResponse = test.call(handler, version, &request).await;
    let partitions = &response.topics[0].partitions;
    partitions.iter().map(|partition| (partition.error_code, partition.low_watermark)).collect()
}

async fn filled() -> TestBroker {
    let test = TestBroker::new(1 << 20, 2).await;
    for partition in [0, 1] {
        test.rig.append(test.id(partition), &BatchSpec::records(5));
    }
    test.rig.flush();
    // Not durable: nobody may delete up to here.
    test.rig.append(test.id(0), &BatchSpec::records(5));
    test
}

// Catches the planted bug topic-change-not-durable.
#[tokio::test]
async fn partitions_begin_where_they_were_told_to_and_stay_there() {
    for version in 0..=2 {
        let test = filled().await;
        assert_eq!(ask(&test, version, "t", &[(0, 2), (1, ALL)]).await, [(0, 2), (0, 5)]);
        assert_eq!(ask(&test, version, "t", &[(0, 2), (1, 0)]).await, [(0, 2), (0, 5)], "once more is no more");
        assert_eq!(ask(&test, version, "t", &[(0, 5)]).await, [(0, 5)]);
        let start = |partition| test.broker.partitions.get(test.id(partition)).unwrap().bounds(-1).unwrap();
        assert_eq!((start(0).log_start_offset, start(1).log_start_offset), (5, 5));
        let stored = test.stored_topics().await;
        assert_eq!(stored.by_name("t").unwrap().log_starts, [(0, 5), (1, 5)].into());
    }
}

#[tokio::test]
async fn what_is_not_there_cannot_be_deleted() {
    let test = filled().await;
    let out = ResponseError::OffsetOutOfRange.code();
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    let asked = [(0, 6), (0, -2), (7, 0), (1, 3)];
    assert_eq!(ask(&test, 2, "t", &asked).await, [(out, -1), (out, -1), (unknown, -1), (0, 3)]);
    assert_eq!(ask(&test, 2, "nobody", &[(0, 0)]).await, [(unknown, -1)]);
    test.broker.partitions.resign("test");
    assert_eq!(ask(&test, 2, "t", &[(0, 1)]).await, [(ResponseError::NotLeaderOrFollower.code(), -1)]);
}

#[tokio::test]
async fn a_topic_that_is_only_compacted_keeps_its_records() {
    let test = filled().await;
    let policy = |value: &str| {
        let (name, operation) = ("cleanup.policy".to_owned(), Operation::Set);
        Edits::OneByOne(vec![Edit { name, operation, value: Some(value.to_owned()) }])
    };
    test.broker.topics.alter_topic(&test.topic, &policy("compact"), false).await.unwrap();
    assert_eq!(ask(&test, 2, "t", &[(0, 1)]).await, [(ResponseError::PolicyViolation.code(), -1)]);
    test.broker.topics.alter_topic(&test.topic, &policy("compact,delete"), false).await.unwrap();
    assert_eq!(ask(&test, 2, "t", &[(0, 1)]).await, [(0, 1)]);
}

#[tokio::test]
async fn what_groups_have_committed_cannot_be_deleted() {
    let test = TestBroker::new(1 << 20, 1).await;
    test.broker.topics.create(OFFSETS_TOPIC, 5, Configs::new(), |_| ()).await.unwrap();
    assert_eq!(ask(&test, 2, OFFSETS_TOPIC, &[(0, 0)]).await, [(ResponseError::InvalidTopicException.code(), -1)]);
}
