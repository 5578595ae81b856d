//! DeleteRecords (key 21, KIP-107): moves the beginning of partitions up. It is durable in the metadata before the
//! answer, and before any reader sees it; it never moves down, so asking twice is asking once.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::TopicName;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsRequest};
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsResponse, DeleteRecordsTopicResult,
};
use meta::error::ErrorKind;
use storage::entry::TopicPartition;

use crate::broker::Broker;
use crate::error::{admin_code_for, code_for};
use crate::partition::Partition;
use crate::request::RequestContext;
use crate::topics::{ChangeError, Topic};

/// Stands for the high watermark.
const ALL: i64 = -1;
const NOWHERE: i64 = -1;

pub async fn handle(
    broker: Arc<Broker>,
    _context: RequestContext,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let answers = one_topic(&broker, &asked.name, &asked.partitions).await;
        let partitions = asked.partitions.iter().zip(answers).map(|(asked, answer)| {
            let (start, code) = answer.map_or_else(|error| (NOWHERE, error.code()), |start| (start, 0));
            DeleteRecordsPartitionResult::default()
                .with_partition_index(asked.partition_index)
                .with_low_watermark(start)
                .with_error_code(code)
        });
        let partitions = partitions.collect();
        topics.push(DeleteRecordsTopicResult::default().with_name(asked.name).with_partitions(partitions));
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

/// What becomes of each partition: where it begins now, or why not.
async fn one_topic(
    broker: &Broker,
    name: &TopicName,
    asked: &[DeleteRecordsPartition],
) -> Vec<Result<i64, ResponseError>> {
    let all = |error: ResponseError| vec![Err(error); asked.len()];
    let Some(topic) = broker.topics.by_name(name) else { return all(ResponseError::UnknownTopicOrPartition) };
    if topic.is_internal() {
        return all(ResponseError::InvalidTopicException);
    }
    if !topic.config.deletable {
        return all(ResponseError::PolicyViolation);
    }
    // The high watermarks below are those of the owner only.
    if let Err(error) = broker.ownership.confirm().await {
        return all(code_for(error.kind()));
    }
    let targets: Vec<_> = asked.iter().map(|asked| target(broker, &topic, asked)).collect();
    match raise(broker, &topic, &targets).await {
        Ok(()) => {}
        Err(ChangeError::NoSuchTopic) => return all(ResponseError::UnknownTopicOrPartition),
        Err(ChangeError::Refused((error, _))) => return all(error),
        Err(ChangeError::Store(error)) => {
            tracing::warn!(topic = topic.name, %error, "could not delete records");
            return all(match error.kind() {
                ErrorKind::Fenced | ErrorKind::Closed => ResponseError::NotLeaderOrFollower,
                kind => admin_code_for(kind),
            });
        }
    }
    let start = |target: Target| target.partition.bounds(-1).map(|bounds| bounds.log_start_offset);
    targets.into_iter().map(|target| target.and_then(start)).collect()
}

struct Target {
    partition: Arc<Partition>,
    index: i32,
    offset: i64,
}

/// Up to where records of a partition are to be deleted.
fn target(broker: &Broker, topic: &Topic, asked: &DeleteRecordsPartition) -> Result<Target, ResponseError> {
    let index = asked.partition_index;
    let id = TopicPartition { topic: topic.id, partition: index };
    let partition = broker.partitions.get(id).ok_or(ResponseError::UnknownTopicOrPartition)?;
    let bounds = partition.bounds(-1)?;
    let offset = if asked.offset == ALL { bounds.high_watermark } else { asked.offset };
    match (0..=bounds.high_watermark).contains(&offset) {
        true => Ok(Target { partition, index, offset }),
        false => Err(ResponseError::OffsetOutOfRange),
    }
}

async fn raise(broker: &Broker, topic: &Topic, targets: &[Result<Target, ResponseError>]) -> Result<(), ChangeError> {
    let mut starts: BTreeMap<i32, i64> = BTreeMap::new();
    for target in targets.iter().flatten() {
        let start = starts.entry(target.index).or_insert(0);
        *start = (*start).max(target.offset);
    }
    if starts.is_empty() {
        return Ok(());
    }
    let moved = || {
        for target in targets.iter().flatten() {
            let start = target.partition.raise_log_start(target.offset);
            tracing::info!(topic = topic.name, partition = target.index, start, "deleted records");
        }
        broker.partitions.backlog().dropped();
    };
    broker.topics.raise_log_starts(topic, &starts, moved).await
}

#[cfg(test)]
mod tests;
