//! DescribeTopicPartitions (key 75, KIP-966): topics with their partitions, page by page in the order of their names. A
//! cursor says where the next page begins.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_topic_partitions_request::DescribeTopicPartitionsRequest;
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponse, DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::{BrokerId, TopicName};
use kafka_protocol::protocol::StrBytes;

use crate::api::metadata::TOPIC_OPERATIONS;
use crate::broker::Broker;
use crate::request::RequestContext;
use crate::topics::{Topic, check_name};

/// Most partitions of one page, whatever the client asks for (Kafka's `max.request.partition.size.limit`).
const PAGE_MAX_PARTITIONS: i32 = 2_000;

pub async fn handle(
    broker: Arc<Broker>,
    _context: RequestContext,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    broker.ownership.confirm_soon();
    let (from_topic, from_partition) = match &request.cursor {
        Some(cursor) => (cursor.topic_name.to_string(), cursor.partition_index.max(0)),
        None => (String::new(), 0),
    };
    let mut names: Vec<String> = match request.topics.is_empty() {
        true => broker.topics.all().iter().map(|topic| topic.name.clone()).collect(),
        false => request.topics.iter().map(|topic| topic.name.to_string()).collect(),
    };
    names.retain(|name| *name >= from_topic);
    names.sort_unstable();
    names.dedup();
    let mut left = request.response_partition_limit.clamp(1, PAGE_MAX_PARTITIONS);
    let mut topics = Vec::new();
    let mut next = None;
    for name in names {
        if left <= 0 {
            next = Some((name, 0));
            break;
        }
        let Some(topic) = broker.topics.by_name(&name) else {
            // Of all topics, one that has just been deleted is none.
            if !request.topics.is_empty() {
                topics.push(missing(name));
                left -= 1;
            }
            continue;
        };
        let from = if name == from_topic { from_partition } else { 0 };
        let until = topic.partitions.min(from.saturating_add(left));
        topics.push(describe(&broker, &topic, from, until));
        left -= (until - from).max(1);
        if until < topic.partitions {
            next = Some((name, until));
            break;
        }
    }
    let next = next.map(|(topic, partition)| {
        Cursor::default().with_topic_name(TopicName(StrBytes::from_string(topic))).with_partition_index(partition)
    });
    DescribeTopicPartitionsResponse::default().with_topics(topics).with_next_cursor(next)
}

fn describe(broker: &Broker, topic: &Topic, from: i32, until: i32) -> DescribeTopicPartitionsResponseTopic {
    let id = BrokerId(broker.config.broker_id);
    let partitions = (from..until).map(|partition| {
        DescribeTopicPartitionsResponsePartition::default()
            .with_partition_index(partition)
            .with_leader_id(id)
            .with_leader_epoch(broker.leader_epoch)
            .with_replica_nodes(vec![id])
            .with_isr_nodes(vec![id])
            .with_eligible_leader_replicas(Some(Vec::new()))
            .with_last_known_elr(Some(Vec::new()))
    });
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(topic.name.clone()))))
        .with_topic_id(topic.id)
        .with_is_internal(topic.is_internal())
        .with_partitions(partitions.collect())
        .with_topic_authorized_operations(TOPIC_OPERATIONS)
}

fn missing(name: String) -> DescribeTopicPartitionsResponseTopic {
    let error = match check_name(&name) {
        Ok(()) => ResponseError::UnknownTopicOrPartition,
        Err(_) => ResponseError::InvalidTopicException,
    };
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(name))))
        .with_error_code(error.code())
}

#[cfg(test)]
mod tests;
