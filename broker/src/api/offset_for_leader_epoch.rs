//! OffsetForLeaderEpoch (key 23): where a leader epoch ended, so that a consumer notices if what it read was cut off
//! (KIP-320).

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition,
};
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};
use storage::entry::TopicPartition;

use crate::broker::Broker;
use crate::error::code_for;
use crate::request::RequestContext;
use crate::topics::Topic;

#[cfg(test)]
mod tests;

pub async fn handle(
    broker: Arc<Broker>,
    _context: RequestContext,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let mut results = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let topic = broker.topics.by_name(&asked.topic);
        let partitions = asked.partitions.iter().map(|asked| one_partition(&broker, topic.as_deref(), asked)).collect();
        results.push(OffsetForLeaderTopicResult::default().with_topic(asked.topic).with_partitions(partitions));
    }
    // Only now: what was looked up above was true if this broker still owns its log.
    if let Err(error) = broker.ownership.confirm().await {
        let code = code_for(error.kind());
        for answer in results.iter_mut().flat_map(|topic| &mut topic.partitions) {
            *answer = failed(answer.partition, code);
        }
    }
    OffsetForLeaderEpochResponse::default().with_topics(results)
}

fn one_partition(broker: &Broker, topic: Option<&Topic>, asked: &OffsetForLeaderPartition) -> EpochEndOffset {
    let partition =
        topic.and_then(|topic| broker.partitions.get(TopicPartition { topic: topic.id, partition: asked.partition }));
    let Some(partition) = partition else { return failed(asked.partition, ResponseError::UnknownTopicOrPartition) };
    match partition.epoch_end(asked.current_leader_epoch, asked.leader_epoch) {
        Err(code) => failed(asked.partition, code),
        Ok(None) => undefined(asked.partition),
        Ok(Some(end)) => undefined(asked.partition).with_leader_epoch(end.epoch).with_end_offset(end.end_offset),
    }
}

fn undefined(partition: i32) -> EpochEndOffset {
    EpochEndOffset::default().with_partition(partition).with_leader_epoch(-1).with_end_offset(-1)
}

fn failed(partition: i32, code: ResponseError) -> EpochEndOffset {
    undefined(partition).with_error_code(code.code())
}
