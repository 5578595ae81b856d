//! OffsetCommit (key 8): answered when the offsets are durable and visible to everybody.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequest, OffsetCommitRequestPartition};
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};

use crate::broker::Broker;
use crate::coordinator::{Commit, CommitOffset};
use crate::groups::Committed;
use crate::groups::offsets::check_metadata;
use crate::request::RequestContext;

/// A client that sets no retention of its own (up to version 4).
const NO_RETENTION: i64 = -1;

pub async fn handle(
    broker: Arc<Broker>,
    context: RequestContext,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let commit = Asked { broker: &broker, version: context.api_version, request: &request };
    let mut accepted = BTreeMap::new();
    let mut codes: Vec<Vec<Option<ResponseError>>> = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let partitions = topic.partitions.iter().map(|partition| match commit.check(&topic.name, partition) {
            Ok(committed) => {
                // Named twice, the last one counts, as when they are appended one after the other.
                accepted.insert((topic.name.to_string(), partition.partition_index), committed);
                None
            }
            Err(code) => Some(code),
        });
        codes.push(partitions.collect());
    }
    let outcome = commit.run(accepted).await;
    let topics = request.topics.iter().zip(codes).map(|(topic, codes)| {
        let partitions = topic.partitions.iter().zip(codes).map(|(partition, code)| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code.or(outcome.err()).map_or(0, |error| error.code()))
        });
        OffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

struct Asked<'a> {
    broker: &'a Broker,
    version: i16,
    request: &'a OffsetCommitRequest,
}

impl Asked<'_> {
    fn check(&self, topic: &str, partition: &OffsetCommitRequestPartition) -> Result<Committed, ResponseError> {
        let found = self.broker.topics.by_name(topic).ok_or(ResponseError::UnknownTopicOrPartition)?;
        if !(0..found.partitions).contains(&partition.partition_index) {
            return Err(ResponseError::UnknownTopicOrPartition);
        }
        let metadata = partition.committed_metadata.as_ref().map(ToString::to_string).unwrap_or_default();
        check_metadata(&metadata, self.broker.config.groups.max_metadata_bytes)?;
        let commit_timestamp_ms = self.broker.clock.now_ms();
        let retention_ms = self.request.retention_time_ms;
        let has_retention = self.version <= 4 && retention_ms != NO_RETENTION;
        Ok(Committed {
            offset: partition.committed_offset,
            leader_epoch: partition.committed_leader_epoch,
            metadata,
            commit_timestamp_ms,
            expire_timestamp_ms: has_retention.then(|| commit_timestamp_ms.saturating_add(retention_ms)),
        })
    }

    async fn run(&self, accepted: BTreeMap<(String, i32), Committed>) -> Result<(), ResponseError> {
        if accepted.is_empty() {
            return Ok(());
        }
        let request = self.request;
        let offsets = accepted.into_iter();
        let offsets = offsets.map(|((topic, partition), committed)| CommitOffset { topic, partition, committed });
        let commit = Commit {
            group: request.group_id.to_string(),
            generation: request.generation_id_or_member_epoch,
            member_id: request.member_id.to_string(),
            instance_id: request.group_instance_id.as_ref().map(ToString::to_string),
            offsets: offsets.collect(),
        };
        self.broker.coordinator.shard(&request.group_id)?.commit(commit).await?;
        super::confirm_coordinator(self.broker).await
    }
}
