//! OffsetDelete (key 47): forgets what a group has committed for some partitions (KIP-496).

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_delete_request::OffsetDeleteRequest;
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponse, OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};

use crate::broker::Broker;
use crate::coordinator::DeletedOffsets;
use crate::request::RequestContext;

pub async fn handle(
    broker: Arc<Broker>,
    _context: RequestContext,
    request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let known = |name: &str, partition: i32| {
        broker.topics.by_name(name).is_some_and(|topic| (0..topic.partitions).contains(&partition))
    };
    let mut topics = Vec::with_capacity(request.topics.len());
    let mut wanted = Vec::new();
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for index in topic.partitions.iter().map(|partition| partition.partition_index) {
            let answer = OffsetDeleteResponsePartition::default().with_partition_index(index);
            if known(&topic.name, index) {
                wanted.push((topic.name.to_string(), index));
                partitions.push(answer);
            } else {
                partitions.push(answer.with_error_code(ResponseError::UnknownTopicOrPartition.code()));
            }
        }
        topics.push(OffsetDeleteResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions));
    }
    let outcomes = match run(&broker, &request.group_id, wanted).await {
        Ok(outcomes) => outcomes,
        Err(error) => return OffsetDeleteResponse::default().with_error_code(error.code()),
    };
    let accepted = topics.iter_mut().flat_map(|topic| &mut topic.partitions).filter(|answer| answer.error_code == 0);
    for (answer, outcome) in accepted.zip(outcomes) {
        answer.error_code = outcome.err().map_or(0, |error| error.code());
    }
    OffsetDeleteResponse::default().with_topics(topics)
}

async fn run(broker: &Broker, group: &str, wanted: Vec<(String, i32)>) -> Result<DeletedOffsets, ResponseError> {
    let outcomes = broker.coordinator.shard(group)?.delete_offsets(group, wanted).await?;
    super::confirm_coordinator(broker).await?;
    Ok(outcomes)
}
