//! More partitions: what is refused, and that they are durable, visible and led.

use kafka_protocol::messages::BrokerId;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsAssignment;
use storage::entry::TopicPartition;

use super::*;
use crate::api::testing::{TestBroker, name};
use crate::api::typed;
use crate::partition::Status;
use crate::topics::{Configs, OFFSETS_TOPIC};

fn to(topic: &str, count: i32) -> CreatePartitionsTopic {
    CreatePartitionsTopic::default().with_name(name(topic)).with_count(count).with_assignments(None)
}

async fn ask(test: &TestBroker, version: i16, topics: Vec<CreatePartitionsTopic>, dry: bool) -> Vec<i16> {
    let request = CreatePartitionsRequest::default().with_topics(topics).with_validate_only(dry);
    let handler = |broker: &_, context, body| typed(broker, context, body, handle);
    let response: CreatePartitionsResponse = test.call(handler, version, &request).await;
    response.results.iter().map(|result| result.error_code).collect()
}

#[tokio::test]
async fn new_partitions_are_durable_and_led_at_once() {
    let test = TestBroker::new(1 << 20, 2).await;
    for version in 0..=3 {
        let count = 3 + i32::from(version);
        assert_eq!(ask(&test, version, vec![to("t", count)], true).await, [0]);
        assert_eq!(test.broker.topics.by_name("t").unwrap().partitions, count - 1);
        assert_eq!(ask(&test, version, vec![to("t", count)], false).await, [0]);
        assert_eq!(test.broker.topics.by_name("t").unwrap().partitions, count);
        let new = TopicPartition { topic: test.topic.id, partition: count - 1 };
        assert_eq!(test.broker.partitions.get(new).unwrap().status(), Status::Leading);
        assert_eq!(test.stored_topics().await.by_name("t").unwrap().partitions, count);
    }
}

#[tokio::test]
async fn what_is_no_increase_or_not_for_this_broker_is_refused() {
    let test = TestBroker::new(1 << 20, 2).await;
    let assigned = |brokers: &[&[i32]]| {
        let one = |ids: &&[i32]| {
            CreatePartitionsAssignment::default().with_broker_ids(ids.iter().map(|id| BrokerId(*id)).collect())
        };
        Some(brokers.iter().map(one).collect())
    };
    for (asked, code) in [
        (to("t", 2), ResponseError::InvalidPartitions),
        (to("t", 1), ResponseError::InvalidPartitions),
        (to("t", i32::MAX), ResponseError::InvalidPartitions),
        (to("nobody", 3), ResponseError::UnknownTopicOrPartition),
        (to("t", 4).with_assignments(assigned(&[&[0]])), ResponseError::InvalidReplicaAssignment),
        (to("t", 3).with_assignments(assigned(&[&[5]])), ResponseError::InvalidReplicaAssignment),
        (to("t", 3).with_assignments(assigned(&[&[0, 1]])), ResponseError::InvalidReplicaAssignment),
    ] {
        assert_eq!(ask(&test, 3, vec![asked], false).await, [code.code()]);
    }
    let twice = ask(&test, 3, vec![to("t", 5), to("t", 6)], false).await;
    assert_eq!(twice, [ResponseError::InvalidRequest.code(); 2]);
    assert_eq!(test.broker.topics.by_name("t").unwrap().partitions, 2);
    assert_eq!(ask(&test, 3, vec![to("t", 4).with_assignments(assigned(&[&[0], &[0]]))], false).await, [0]);
}

#[tokio::test]
async fn the_offsets_topic_keeps_its_partitions() {
    let test = TestBroker::new(1 << 20, 1).await;
    test.broker.topics.create(OFFSETS_TOPIC, 5, Configs::new(), |_| ()).await.unwrap();
    assert_eq!(ask(&test, 3, vec![to(OFFSETS_TOPIC, 6)], false).await, [ResponseError::InvalidRequest.code()]);
    assert_eq!(test.broker.topics.by_name(OFFSETS_TOPIC).unwrap().partitions, 5);
}
