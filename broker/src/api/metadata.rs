//! Metadata (key 3): who serves what; creates topics on the way if client and configuration allow it.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use kafka_protocol::messages::metadata_response::{
    MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, TopicName};
use kafka_protocol::protocol::StrBytes;
use meta::error::Result;
use std::collections::BTreeMap;
use uuid::Uuid;

use crate::broker::Broker;
use crate::request::RequestContext;
use crate::topics::{Created, OFFSETS_TOPIC, Topic, check_name};

/// What everybody may do, as Kafka says it without an authorizer (KIP-430): bit n is AclOperation n.
pub(super) const TOPIC_OPERATIONS: i32 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;
pub(super) const CLUSTER_OPERATIONS: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;

pub async fn handle(broker: Arc<Broker>, context: RequestContext, request: MetadataRequest) -> MetadataResponse {
    let operations = |asked: bool, granted: i32| if asked { granted } else { i32::MIN };
    broker.ownership.confirm_soon();
    let mut topics = Vec::new();
    match &request.topics {
        // Version 0 has no null: an empty list stands for all topics there.
        Some(wanted) if !(wanted.is_empty() && context.api_version == 0) => {
            for topic in wanted {
                topics.push(one_topic(&broker, &request, topic).await);
            }
        }
        _ => topics.extend(broker.topics.all().iter().map(|topic| describe(&broker, topic))),
    }
    for topic in &mut topics {
        topic.topic_authorized_operations = operations(request.include_topic_authorized_operations, TOPIC_OPERATIONS);
    }
    let node = MetadataResponseBroker::default()
        .with_node_id(BrokerId(broker.config.broker_id))
        .with_host(StrBytes::from_string(broker.config.advertised_host.clone()))
        .with_port(i32::from(broker.config.advertised_port));
    let mut response = MetadataResponse::default()
        .with_brokers(vec![node])
        .with_cluster_id(Some(StrBytes::from_string(broker.cluster_id.clone())))
        .with_controller_id(BrokerId(broker.config.broker_id))
        .with_topics(topics);
    if (8..=10).contains(&context.api_version) {
        response.cluster_authorized_operations =
            operations(request.include_cluster_authorized_operations, CLUSTER_OPERATIONS);
    }
    response
}

async fn one_topic(broker: &Broker, request: &MetadataRequest, wanted: &MetadataRequestTopic) -> MetadataResponseTopic {
    let Some(name) = &wanted.name else {
        return match broker.topics.by_id(wanted.topic_id) {
            Some(topic) => describe(broker, &topic),
            None => failed(None, wanted.topic_id, ResponseError::UnknownTopicId),
        };
    };
    let named = |error| failed(Some(name.clone()), Uuid::nil(), error);
    if let Some(topic) = broker.topics.by_name(name) {
        return describe(broker, &topic);
    }
    if check_name(name).is_err() {
        return named(ResponseError::InvalidTopicException);
    }
    if !(request.allow_auto_topic_creation && broker.config.auto_create_topics) {
        return named(ResponseError::UnknownTopicOrPartition);
    }
    match create(broker, name).await {
        Ok(Created::New(topic)) => {
            tracing::info!(topic = name.as_str(), id = %topic.id, partitions = topic.partitions, "created a topic on first use");
            describe(broker, &topic)
        }
        Ok(Created::Exists(topic)) => describe(broker, &topic),
        Err(error) => {
            tracing::warn!(topic = name.as_str(), %error, "could not create a topic on first use");
            // Retriable for every client, which admin codes are not in this response.
            named(ResponseError::LeaderNotAvailable)
        }
    }
}

/// With the broker's defaults; the coordinators' topic with theirs.
async fn create(broker: &Broker, name: &str) -> Result<Created> {
    if name == OFFSETS_TOPIC {
        return broker.coordinator.create_topic().await;
    }
    let opened = |topic: &Arc<Topic>| broker.partitions.open_topic(topic.id, topic.partitions);
    broker.topics.create(name, broker.config.num_partitions, BTreeMap::new(), opened).await
}

fn describe(broker: &Broker, topic: &Topic) -> MetadataResponseTopic {
    let id = BrokerId(broker.config.broker_id);
    let partitions = (0..topic.partitions).map(|partition| {
        MetadataResponsePartition::default()
            .with_partition_index(partition)
            .with_leader_id(id)
            .with_leader_epoch(broker.leader_epoch)
            .with_replica_nodes(vec![id])
            .with_isr_nodes(vec![id])
    });
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(topic.name.clone()))))
        .with_topic_id(topic.id)
        .with_is_internal(topic.is_internal())
        .with_partitions(partitions.collect())
}

fn failed(name: Option<TopicName>, id: Uuid, error: ResponseError) -> MetadataResponseTopic {
    MetadataResponseTopic::default().with_name(name).with_topic_id(id).with_error_code(error.code())
}
