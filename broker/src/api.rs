//! The one table of APIs: which requests are served, in which versions, and by whom. ApiVersions answers from it.

mod errors;
mod resources;

pub mod alter_configs;
pub mod api_versions;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_groups;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_configs;
pub mod describe_groups;
pub mod fetch;
pub mod find_coordinator;
pub mod heartbeat;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_groups;
pub mod list_offsets;
pub mod metadata;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod sync_group;

pub mod describe_cluster;
pub mod describe_topic_partitions;

use std::future::Future;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages as m;
use kafka_protocol::protocol::{Decodable, Encodable, Message, VersionRange};

use self::errors::Errors;
use crate::broker::Broker;
use crate::connection::Service;
use crate::error::coordinator_code_for;
use crate::request::{CloseConnection, Reply, RequestBody, RequestContext};
use crate::wire::codec;
use crate::wire::shape::RequestShape;
use crate::wire::shapes;

/// Runs up to the request's first wait, in the order of arrival. The body has passed the check against the shape.
pub type Handler = fn(&Arc<Broker>, RequestContext, RequestBody) -> Result<Reply, CloseConnection>;

/// One API.
pub struct Api {
    pub shape: &'static RequestShape,
    /// What is served, both ends included.
    pub accepted: VersionRange,
    /// The lowest version that ApiVersions names. Below `accepted.min` only where clients want to see it.
    pub advertised_min: i16,
    pub handler: Handler,
}

/// What the decoder can decode is the ceiling, and what is served.
const fn api<T: Message>(shape: &'static RequestShape, handler: Handler) -> Api {
    Api { shape, accepted: T::VERSIONS, advertised_min: T::VERSIONS.min, handler }
}

/// In the order of their keys.
pub static APIS: &[Api] = &[
    // Named from 0 on: librdkafka before 2.11.1 stops compressing where the lowest named version is above 2.
    Api { advertised_min: 0, ..api::<m::ProduceRequest>(&shapes::PRODUCE, produce::handle) },
    api::<m::FetchRequest>(&shapes::FETCH, fetch::handle),
    api::<m::ListOffsetsRequest>(&shapes::LIST_OFFSETS, |broker, context, body| {
        typed(broker, context, body, list_offsets::handle)
    }),
    api::<m::MetadataRequest>(&shapes::METADATA, |broker, context, body| {
        typed(broker, context, body, metadata::handle)
    }),
    api::<m::OffsetCommitRequest>(&shapes::OFFSET_COMMIT, |broker, context, body| {
        typed(broker, context, body, offset_commit::handle)
    }),
    api::<m::OffsetFetchRequest>(&shapes::OFFSET_FETCH, |broker, context, body| {
        typed(broker, context, body, offset_fetch::handle)
    }),
    api::<m::FindCoordinatorRequest>(&shapes::FIND_COORDINATOR, |broker, context, body| {
        typed(broker, context, body, find_coordinator::handle)
    }),
    api::<m::JoinGroupRequest>(&shapes::JOIN_GROUP, |broker, context, body| {
        typed(broker, context, body, join_group::handle)
    }),
    api::<m::HeartbeatRequest>(&shapes::HEARTBEAT, |broker, context, body| {
        typed(broker, context, body, heartbeat::handle)
    }),
    api::<m::LeaveGroupRequest>(&shapes::LEAVE_GROUP, |broker, context, body| {
        typed(broker, context, body, leave_group::handle)
    }),
    api::<m::SyncGroupRequest>(&shapes::SYNC_GROUP, |broker, context, body| {
        typed(broker, context, body, sync_group::handle)
    }),
    api::<m::DescribeGroupsRequest>(&shapes::DESCRIBE_GROUPS, |broker, context, body| {
        typed(broker, context, body, describe_groups::handle)
    }),
    api::<m::ListGroupsRequest>(&shapes::LIST_GROUPS, |broker, context, body| {
        typed(broker, context, body, list_groups::handle)
    }),
    api::<m::ApiVersionsRequest>(&shapes::API_VERSIONS, api_versions::handle),
    api::<m::CreateTopicsRequest>(&shapes::CREATE_TOPICS, |broker, context, body| {
        typed(broker, context, body, create_topics::handle)
    }),
    api::<m::DeleteTopicsRequest>(&shapes::DELETE_TOPICS, |broker, context, body| {
        typed(broker, context, body, delete_topics::handle)
    }),
    api::<m::DeleteRecordsRequest>(&shapes::DELETE_RECORDS, |broker, context, body| {
        typed(broker, context, body, delete_records::handle)
    }),
    api::<m::InitProducerIdRequest>(&shapes::INIT_PRODUCER_ID, |broker, context, body| {
        typed(broker, context, body, init_producer_id::handle)
    }),
    api::<m::OffsetForLeaderEpochRequest>(&shapes::OFFSET_FOR_LEADER_EPOCH, |broker, context, body| {
        typed(broker, context, body, offset_for_leader_epoch::handle)
    }),
    api::<m::DescribeConfigsRequest>(&shapes::DESCRIBE_CONFIGS, |broker, context, body| {
        typed(broker, context, body, describe_configs::handle)
    }),
    api::<m::AlterConfigsRequest>(&shapes::ALTER_CONFIGS, |broker, context, body| {
        typed(broker, context, body, alter_configs::handle)
    }),
    api::<m::CreatePartitionsRequest>(&shapes::CREATE_PARTITIONS, |broker, context, body| {
        typed(broker, context, body, create_partitions::handle)
    }),
    api::<m::DeleteGroupsRequest>(&shapes::DELETE_GROUPS, |broker, context, body| {
        typed(broker, context, body, delete_groups::handle)
    }),
    api::<m::IncrementalAlterConfigsRequest>(&shapes::INCREMENTAL_ALTER_CONFIGS, |broker, context, body| {
        typed(broker, context, body, incremental_alter_configs::handle)
    }),
    api::<m::OffsetDeleteRequest>(&shapes::OFFSET_DELETE, |broker, context, body| {
        typed(broker, context, body, offset_delete::handle)
    }),
    api::<m::DescribeClusterRequest>(&shapes::DESCRIBE_CLUSTER, |broker, context, body| {
        typed(broker, context, body, describe_cluster::handle)
    }),
    api::<m::DescribeTopicPartitionsRequest>(&shapes::DESCRIBE_TOPIC_PARTITIONS, |broker, context, body| {
        typed(broker, context, body, describe_topic_partitions::handle)
    }),
];

/// APIs whose handlers wait for other clients, and keep nothing of their request's body from their first wait on.
const WAITING: [i16; 2] = [shapes::JOIN_GROUP.api_key, shapes::SYNC_GROUP.api_key];

/// For an API that decodes, runs to its end when all earlier replies are out, and encodes. It runs in a task of its own:
/// a change of the metadata that was begun is seen through, in memory too, though its client hangs up meanwhile.
pub fn typed<Q, A, F>(
    broker: &Arc<Broker>,
    context: RequestContext,
    body: RequestBody,
    handle: fn(Arc<Broker>, RequestContext, Q) -> F,
) -> Result<Reply, CloseConnection>
where
    Q: Decodable + Send + 'static,
    A: Encodable + Errors + Send + 'static,
    F: Future<Output = A> + Send + 'static,
{
    let request: Q = codec::decode(&context, &body)?;
    let broker = Arc::clone(broker);
    Ok(Reply::Later(Box::pin(async move {
        let metrics = Arc::clone(&broker.metrics);
        let handling = handle(broker, context.clone(), request);
        // What may wait for minutes, for other clients, has copied what it keeps of the request. All others' strings are
        // slices of the body until they are done.
        let body = (!WAITING.contains(&context.api_key)).then_some(body);
        let handled = tokio::spawn(async move {
            let response = handling.await;
            drop(body);
            response
        });
        let response = handled.await.map_err(|error| CloseConnection(format!("the handler ended early: {error}")))?;
        errors::count(&metrics, context.api_key, &response);
        codec::encode(&context, &response)
    })))
}

/// Members need a group with a name.
fn check_group_id(group: &str) -> Result<(), ResponseError> {
    if group.is_empty() { Err(ResponseError::InvalidGroupId) } else { Ok(()) }
}

/// Precedes every answer that shows what this broker knows of a group: it was true if the broker still owns its log.
async fn confirm_coordinator(broker: &Broker) -> Result<(), ResponseError> {
    broker.ownership.confirm().await.map_err(|error| coordinator_code_for(error.kind()))
}

/// Finds the handler of every request.
pub struct Table {
    broker: Arc<Broker>,
}

impl Table {
    pub fn new(broker: Arc<Broker>) -> Self {
        Self { broker }
    }
}

impl Service for Table {
    fn call(&self, context: RequestContext, body: RequestBody) -> Result<Reply, CloseConnection> {
        let version = context.api_version;
        let Some(api) = APIS.iter().find(|api| api.shape.api_key == context.api_key) else {
            return Err(CloseConnection(format!("api key {} is not served", context.api_key)));
        };
        if !(api.accepted.min..=api.accepted.max).contains(&version) {
            if api.shape.api_key == shapes::API_VERSIONS.api_key {
                return api_versions::unsupported(context).map(Reply::Now);
            }
            let (name, min, max) = (api.shape.name, api.accepted.min, api.accepted.max);
            return Err(CloseConnection(format!("{name} v{version} is not served, only v{min} to v{max}")));
        }
        codec::check(api.shape, &context, &body)?;
        (api.handler)(&self.broker, context, body)
    }

    fn is_short(&self) -> bool {
        self.broker.partitions.reader().is_short()
    }
}

#[cfg(test)]
mod testing;

#[cfg(test)]
mod tests;
