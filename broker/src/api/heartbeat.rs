//! Heartbeat (key 12): a member is alive, and learns whether it has to join again.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::heartbeat_request::HeartbeatRequest;
use kafka_protocol::messages::heartbeat_response::HeartbeatResponse;

use crate::broker::Broker;
use crate::request::RequestContext;

pub async fn handle(broker: Arc<Broker>, _context: RequestContext, request: HeartbeatRequest) -> HeartbeatResponse {
    let outcome = run(&broker, &request).await;
    HeartbeatResponse::default().with_error_code(outcome.err().map_or(0, |error| error.code()))
}

async fn run(broker: &Broker, request: &HeartbeatRequest) -> Result<(), ResponseError> {
    let HeartbeatRequest { group_id, generation_id, member_id, group_instance_id, .. } = request;
    super::check_group_id(group_id)?;
    let shard = broker.coordinator.shard(group_id)?;
    shard.heartbeat(group_id, member_id, group_instance_id.as_deref(), *generation_id)?;
    super::confirm_coordinator(broker).await
}
