//! OffsetFetch (key 9): what groups have committed; for several groups at a time from version 8 on (KIP-709).
//!
//! A group or partition of which nothing is known has no offset, which is no error. Nothing is ever unstable (KIP-447):
//! only durable commits are shown, and there are no transactions.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequest, OffsetFetchRequestGroup};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{GroupId, TopicName};
use kafka_protocol::protocol::StrBytes;

use crate::broker::Broker;
use crate::groups::Committed;
use crate::request::RequestContext;

/// From here on an error of the whole group has a place of its own.
const FIRST_VERSION_WITH_GROUP_ERROR: i16 = 2;
const FIRST_BATCHED_VERSION: i16 = 8;

/// What a partition without a committed offset is said to have.
const NO_OFFSET: i64 = -1;

/// One group's answer, in the order in which it was asked for.
type Fetched = Vec<(TopicName, Vec<(i32, Option<Committed>)>)>;

/// Topics and partitions; None: all there are.
type Wanted = Option<Vec<(TopicName, Vec<i32>)>>;

pub async fn handle(broker: Arc<Broker>, context: RequestContext, request: OffsetFetchRequest) -> OffsetFetchResponse {
    if context.api_version >= FIRST_BATCHED_VERSION {
        let mut groups = Vec::with_capacity(request.groups.len());
        for OffsetFetchRequestGroup { group_id, topics, .. } in request.groups {
            let wanted = topics.map(|topics| topics.into_iter().map(|t| (t.name, t.partition_indexes)).collect());
            let fetched = fetch(&broker, &group_id, &wanted).await;
            groups.push(group_answer(group_id, fetched));
        }
        return OffsetFetchResponse::default().with_groups(groups);
    }
    let wanted = request.topics.map(|topics| topics.into_iter().map(|t| (t.name, t.partition_indexes)).collect());
    match fetch(&broker, &request.group_id, &wanted).await {
        Ok(fetched) => OffsetFetchResponse::default().with_topics(topics_answer(fetched, None)),
        Err(code) if context.api_version >= FIRST_VERSION_WITH_GROUP_ERROR => {
            OffsetFetchResponse::default().with_error_code(code.code())
        }
        Err(code) => {
            let nothing = wanted.unwrap_or_default().into_iter();
            let nothing = nothing.map(|(name, partitions)| (name, partitions.into_iter().map(|p| (p, None)).collect()));
            OffsetFetchResponse::default().with_topics(topics_answer(nothing.collect(), Some(code)))
        }
    }
}

async fn fetch(broker: &Broker, group: &str, wanted: &Wanted) -> Result<Fetched, ResponseError> {
    let shard = broker.coordinator.shard(group)?;
    let fetched = match wanted {
        None => {
            let all = shard.fetch_all_offsets(group)?.into_iter();
            let named = |name: String| TopicName(StrBytes::from_string(name));
            let some = |partitions: Vec<(i32, Committed)>| partitions.into_iter().map(|(p, c)| (p, Some(c))).collect();
            all.map(|(name, partitions)| (named(name), some(partitions))).collect()
        }
        Some(topics) => {
            let mut fetched = Vec::with_capacity(topics.len());
            for (name, partitions) in topics {
                fetched.push((name.clone(), shard.fetch_offsets(group, name, partitions)?));
            }
            fetched
        }
    };
    super::confirm_coordinator(broker).await?;
    Ok(fetched)
}

fn group_answer(group: GroupId, fetched: Result<Fetched, ResponseError>) -> OffsetFetchResponseGroup {
    let answer = OffsetFetchResponseGroup::default().with_group_id(group);
    let fetched = match fetched {
        Ok(fetched) => fetched,
        Err(code) => return answer.with_error_code(code.code()),
    };
    let topics = fetched.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|(index, committed)| {
            let partition = OffsetFetchResponsePartitions::default().with_partition_index(index);
            match committed {
                None => partition.with_committed_offset(NO_OFFSET).with_metadata(Some(StrBytes::new())),
                Some(committed) => partition
                    .with_committed_offset(committed.offset)
                    .with_committed_leader_epoch(committed.leader_epoch)
                    .with_metadata(Some(StrBytes::from_string(committed.metadata))),
            }
        });
        OffsetFetchResponseTopics::default().with_name(name).with_partitions(partitions.collect())
    });
    answer.with_topics(topics.collect())
}

fn topics_answer(fetched: Fetched, error: Option<ResponseError>) -> Vec<OffsetFetchResponseTopic> {
    let topics = fetched.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|(index, committed)| {
            let partition = OffsetFetchResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(error.map_or(0, |error| error.code()));
            match committed {
                None => partition.with_committed_offset(NO_OFFSET).with_metadata(Some(StrBytes::new())),
                Some(committed) => partition
                    .with_committed_offset(committed.offset)
                    .with_committed_leader_epoch(committed.leader_epoch)
                    .with_metadata(Some(StrBytes::from_string(committed.metadata))),
            }
        });
        OffsetFetchResponseTopic::default().with_name(name).with_partitions(partitions.collect())
    });
    topics.collect()
}
