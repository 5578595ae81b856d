//! DeleteTopics (key 20): first the topic leaves the metadata, then its partitions are closed. By name or by id.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::TopicName;
use kafka_protocol::messages::delete_topics_request::DeleteTopicsRequest;
use kafka_protocol::messages::delete_topics_response::{DeletableTopicResult, DeleteTopicsResponse};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::broker::Broker;
use crate::error::admin_code_for;
use crate::request::RequestContext;

pub async fn handle(
    broker: Arc<Broker>,
    context: RequestContext,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let mut responses = Vec::new();
    if context.api_version < 6 {
        for name in request.topic_names {
            responses.push(delete(&broker, Some(name), Uuid::nil()).await);
        }
    } else {
        for topic in request.topics {
            responses.push(delete(&broker, topic.name, topic.topic_id).await);
        }
    }
    DeleteTopicsResponse::default().with_responses(responses)
}

async fn delete(broker: &Broker, name: Option<TopicName>, id: Uuid) -> DeletableTopicResult {
    let answer = |name: Option<TopicName>, id: Uuid, error: Option<(ResponseError, String)>| {
        let (code, text) = error.map_or((0, None), |(error, text)| (error.code(), Some(StrBytes::from_string(text))));
        DeletableTopicResult::default().with_name(name).with_topic_id(id).with_error_code(code).with_error_message(text)
    };
    if name.is_some() && !id.is_nil() {
        let text = "a topic is deleted by name or by id, not by both".to_owned();
        return answer(name, id, Some((ResponseError::InvalidRequest, text)));
    }
    let (found, missing) = match &name {
        Some(name) => (broker.topics.by_name(name), ResponseError::UnknownTopicOrPartition),
        None => (broker.topics.by_id(id), ResponseError::UnknownTopicId),
    };
    let Some(topic) = found else {
        return answer(name, id, Some((missing, "no such topic".to_owned())));
    };
    let deleted = broker.topics.delete(&topic, |topic| broker.partitions.close_topic(topic.id, topic.partitions)).await;
    let error = match deleted {
        Ok(true) => {
            tracing::info!(topic = topic.name, id = %topic.id, "deleted a topic");
            broker.coordinator.topic_deleted(&topic.name);
            None
        }
        Ok(false) => Some((missing, "no such topic".to_owned())),
        Err(error) => {
            tracing::warn!(topic = topic.name, %error, "could not delete a topic");
            Some((admin_code_for(error.kind()), error.to_string()))
        }
    };
    answer(Some(TopicName(StrBytes::from_string(topic.name.clone()))), topic.id, error)
}
