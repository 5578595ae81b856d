//! CreateTopics (key 19). A topic is durable in the metadata before the answer, and visible to everybody with it.
//!
//! Any replication factor is accepted: how often data is stored is the object store's business, not a topic's. The
//! answer says 1.

use std::collections::BTreeSet;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult, CreateTopicsResponse,
};
use kafka_protocol::protocol::StrBytes;

use crate::broker::Broker;
use crate::error::admin_code_for;
use crate::request::RequestContext;
use crate::topics::edits::Refusal;
use crate::topics::{Configs, Created, MAX_PARTITIONS, TopicConfig, check_name, describe};

/// From here on the answer shows the whole configuration (KIP-525).
const FIRST_VERSION_WITH_CONFIGS: i16 = 5;
/// So many topics of a request are shown with their configuration, or a request of a few megabytes would be answered
/// with gigabytes. For the others it is as if that was not allowed.
const TOPICS_WITH_CONFIGS: usize = 2_000;

/// What will be created, once it is checked.
struct Plan {
    partitions: i32,
    configs: Configs,
}

/// What was created, or would be.
struct Outcome {
    id: uuid::Uuid,
    partitions: i32,
    configs: Configs,
}

pub async fn handle(
    broker: Arc<Broker>,
    context: RequestContext,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let mut seen = BTreeSet::new();
    let doubled: BTreeSet<_> =
        request.topics.iter().filter(|topic| !seen.insert(&topic.name)).map(|t| &t.name).collect();
    let mut results = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let outcome = if doubled.contains(&topic.name) {
            Err((ResponseError::InvalidRequest, "the request names this topic more than once".to_owned()))
        } else {
            create(&broker, topic, request.validate_only).await
        };
        let mut result = CreatableTopicResult::default().with_name(topic.name.clone()).with_topic_config_error_code(0);
        match outcome {
            Ok(outcome) => {
                let shown = context.api_version >= FIRST_VERSION_WITH_CONFIGS && results.len() < TOPICS_WITH_CONFIGS;
                result = result
                    .with_topic_id(outcome.id)
                    .with_num_partitions(outcome.partitions)
                    .with_replication_factor(1)
                    .with_configs(shown.then(|| show(&broker, &outcome.configs)));
            }
            Err((error, message)) => {
                result = result.with_error_code(error.code()).with_error_message(Some(StrBytes::from_string(message)));
            }
        }
        results.push(result);
    }
    CreateTopicsResponse::default().with_topics(results)
}

/// The whole configuration of a topic that sets these.
fn show(broker: &Broker, configs: &Configs) -> Vec<CreatableTopicConfigs> {
    let entry = |described: describe::Described| {
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_static_str(described.name))
            .with_value(Some(StrBytes::from_string(described.value().to_owned())))
            .with_read_only(described.read_only)
            .with_config_source(described.source() as i8)
    };
    describe::topic(configs, &broker.topics.defaults()).into_iter().map(entry).collect()
}

async fn create(broker: &Broker, topic: &CreatableTopic, validate_only: bool) -> Result<Outcome, Refusal> {
    let Plan { partitions, configs } = check(broker, topic)?;
    if validate_only {
        return Ok(Outcome { id: uuid::Uuid::nil(), partitions, configs });
    }
    let created = broker.topics.create(&topic.name, partitions, configs, |topic| {
        broker.partitions.open_topic(topic.id, topic.partitions);
    });
    match created.await {
        Ok(Created::New(topic)) => {
            tracing::info!(topic = topic.name, id = %topic.id, partitions = topic.partitions, "created a topic");
            Ok(Outcome { id: topic.id, partitions: topic.partitions, configs: topic.configs.clone() })
        }
        Ok(Created::Exists(topic)) => Err(exists(&topic.name)),
        Err(error) => {
            tracing::warn!(topic = topic.name.as_str(), %error, "could not create a topic");
            Err((admin_code_for(error.kind()), error.to_string()))
        }
    }
}

fn exists(name: &str) -> Refusal {
    (ResponseError::TopicAlreadyExists, format!("Topic '{name}' already exists."))
}

fn check(broker: &Broker, topic: &CreatableTopic) -> Result<Plan, Refusal> {
    check_name(&topic.name).map_err(|why| (ResponseError::InvalidTopicException, why))?;
    if broker.topics.by_name(&topic.name).is_some() {
        return Err(exists(&topic.name));
    }
    let partitions = partition_count(broker, topic)?;
    let mut configs = Configs::new();
    for config in &topic.configs {
        let Some(value) = &config.value else {
            let text = format!("Null value not supported for topic configs: {}", config.name.as_str());
            return Err((ResponseError::InvalidConfig, text));
        };
        configs.insert(config.name.to_string(), value.to_string());
    }
    TopicConfig::resolve(&configs, &broker.topics.defaults())
        .map_err(|error| (ResponseError::InvalidConfig, error.to_string()))?;
    Ok(Plan { partitions, configs })
}

fn partition_count(broker: &Broker, topic: &CreatableTopic) -> Result<i32, Refusal> {
    if !topic.assignments.is_empty() {
        if topic.num_partitions != -1 || topic.replication_factor != -1 {
            let text = "with a replica assignment, partitions and replication factor must both be -1".to_owned();
            return Err((ResponseError::InvalidRequest, text));
        }
        return assigned_count(broker, topic);
    }
    if topic.replication_factor == 0 || topic.replication_factor < -1 {
        let text = format!("replication factor {} must be larger than 0", topic.replication_factor);
        return Err((ResponseError::InvalidReplicationFactor, text));
    }
    match topic.num_partitions {
        -1 => Ok(broker.config.num_partitions),
        count if (1..=MAX_PARTITIONS).contains(&count) => Ok(count),
        count => {
            let text = format!("{count} partitions; allowed are 1 to {MAX_PARTITIONS}, or -1 for the broker's default");
            Err((ResponseError::InvalidPartitions, text))
        }
    }
}

fn assigned_count(broker: &Broker, topic: &CreatableTopic) -> Result<i32, Refusal> {
    let refuse = |text: String| Err((ResponseError::InvalidReplicaAssignment, text));
    let indexes: BTreeSet<i32> = topic.assignments.iter().map(|assignment| assignment.partition_index).collect();
    let count = i32::try_from(topic.assignments.len()).unwrap_or(i32::MAX);
    if count > MAX_PARTITIONS || !indexes.iter().copied().eq(0..count) {
        return refuse(format!("partitions must be numbered 0 to {} without gaps or doubles", count - 1));
    }
    for assignment in &topic.assignments {
        let known = assignment.broker_ids.iter().all(|id| id.0 == broker.config.broker_id);
        if assignment.broker_ids.len() != 1 || !known {
            let text = "must be assigned to exactly one broker, this one";
            return refuse(format!("partition {} {text}, {}", assignment.partition_index, broker.config.broker_id));
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests;
