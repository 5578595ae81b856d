//! DeleteGroups (key 42): empty groups and everything that they have committed.

use std::sync::Arc;

use futures::future::join_all;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::GroupId;
use kafka_protocol::messages::delete_groups_request::DeleteGroupsRequest;
use kafka_protocol::messages::delete_groups_response::{DeletableGroupResult, DeleteGroupsResponse};

use crate::broker::Broker;
use crate::request::RequestContext;

pub async fn handle(
    broker: Arc<Broker>,
    _context: RequestContext,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    // At the same time: each waits for its tombstones to be durable.
    let results = join_all(request.groups_names.into_iter().map(|group| delete(&broker, group))).await;
    DeleteGroupsResponse::default().with_results(results)
}

async fn delete(broker: &Broker, group: GroupId) -> DeletableGroupResult {
    let outcome = run(broker, &group).await;
    if let Err(error) = outcome {
        tracing::debug!(group = group.as_str(), ?error, "did not delete a group");
    } else {
        tracing::info!(group = group.as_str(), "deleted a group");
    }
    DeletableGroupResult::default().with_group_id(group).with_error_code(outcome.err().map_or(0, |error| error.code()))
}

async fn run(broker: &Broker, group: &str) -> Result<(), ResponseError> {
    broker.coordinator.shard(group)?.delete(group).await?;
    super::confirm_coordinator(broker).await
}
