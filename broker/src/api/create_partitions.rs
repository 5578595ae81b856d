//! CreatePartitions (key 37): topics get more partitions, which are led at once. Durable in the metadata before anybody
//! sees them.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::TopicName;
use kafka_protocol::messages::create_partitions_request::{CreatePartitionsRequest, CreatePartitionsTopic};
use kafka_protocol::messages::create_partitions_response::{CreatePartitionsResponse, CreatePartitionsTopicResult};

use crate::api::resources::code_and_text;
use crate::broker::Broker;
use crate::request::RequestContext;
use crate::topics::edits::Refusal;
use crate::topics::{ChangeError, Topic, check_increase};

pub async fn handle(
    broker: Arc<Broker>,
    _context: RequestContext,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut counts: BTreeMap<TopicName, u32> = BTreeMap::new();
    for topic in &request.topics {
        *counts.entry(topic.name.clone()).or_insert(0) += 1;
    }
    let mut results = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let outcome = match counts.get(&asked.name) {
            Some(1) => one(&broker, &asked, request.validate_only).await,
            _ => Err((ResponseError::InvalidRequest, "Duplicate topic in request.".to_owned())),
        };
        let (code, text) = code_and_text(outcome);
        let result = CreatePartitionsTopicResult::default().with_name(asked.name);
        results.push(result.with_error_code(code).with_error_message(text));
    }
    CreatePartitionsResponse::default().with_results(results)
}

async fn one(broker: &Broker, asked: &CreatePartitionsTopic, check_only: bool) -> Result<(), Refusal> {
    let topic = broker.topics.by_name(&asked.name).ok_or_else(|| ChangeError::NoSuchTopic.refusal())?;
    if topic.is_internal() {
        // Which partition a group belongs to depends on how many there are.
        let text = format!("the number of partitions of {} cannot be changed", topic.name);
        return Err((ResponseError::InvalidRequest, text));
    }
    check_increase(&topic.name, topic.partitions, asked.count)?;
    check_assignments(broker, &topic, asked)?;
    if check_only {
        return Ok(());
    }
    let opened = |topic: &Arc<Topic>| broker.partitions.open_topic(topic.id, topic.partitions);
    broker.topics.add_partitions(&topic, asked.count, opened).await.map_err(|error| {
        if let ChangeError::Store(error) = &error {
            tracing::warn!(topic = topic.name, %error, "could not add partitions");
        }
        error.refusal()
    })
}

/// Each new partition can be assigned to this broker only.
fn check_assignments(broker: &Broker, topic: &Topic, asked: &CreatePartitionsTopic) -> Result<(), Refusal> {
    let Some(assignments) = &asked.assignments else { return Ok(()) };
    let refuse = |text: String| Err((ResponseError::InvalidReplicaAssignment, text));
    let added = usize::try_from(asked.count - topic.partitions).unwrap_or(0);
    if assignments.len() != added {
        let text = format!("Attempted to add {added} additional partition(s), but only {}", assignments.len());
        return refuse(format!("{text} assignment(s) were specified."));
    }
    let own = broker.config.broker_id;
    match assignments.iter().any(|one| one.broker_ids.len() != 1 || one.broker_ids.iter().any(|id| id.0 != own)) {
        true => refuse(format!("each new partition must be assigned to exactly one broker, this one, {own}")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
