//! SyncGroup (key 14): the leader brings the assignment, everybody gets their share of it once it is durable.
//!
//! What the group keeps is copied out of the request first, as in JoinGroup.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::sync_group_request::SyncGroupRequest;
use kafka_protocol::messages::sync_group_response::SyncGroupResponse;
use kafka_protocol::protocol::StrBytes;

use crate::broker::Broker;
use crate::groups::{SyncAssignment, Synced};
use crate::request::RequestContext;

/// From here on both sides name the protocol, and do not go on if they disagree (KIP-559).
const FIRST_VERSION_WITH_PROTOCOL: i16 = 5;

pub fn handle(
    broker: Arc<Broker>,
    context: RequestContext,
    request: SyncGroupRequest,
) -> impl Future<Output = SyncGroupResponse> {
    let group = request.group_id.to_string();
    let assignments = request.assignments.iter();
    let sync = SyncAssignment {
        member_id: request.member_id.to_string(),
        instance_id: request.group_instance_id.as_ref().map(ToString::to_string),
        generation: request.generation_id,
        protocol_type: request.protocol_type.as_ref().map(ToString::to_string),
        protocol: request.protocol_name.as_ref().map(ToString::to_string),
        assignments: assignments
            .map(|one| (one.member_id.to_string(), Bytes::copy_from_slice(&one.assignment)))
            .collect(),
    };
    drop(request);
    async move {
        match run(&broker, context.api_version, &group, sync).await {
            Ok(Synced { error, protocol_type, protocol, assignment }) => SyncGroupResponse::default()
                .with_error_code(error.map_or(0, |error| error.code()))
                .with_protocol_type(protocol_type.map(StrBytes::from_string))
                .with_protocol_name(protocol.map(StrBytes::from_string))
                .with_assignment(assignment),
            Err(code) => SyncGroupResponse::default().with_error_code(code.code()),
        }
    }
}

async fn run(broker: &Broker, version: i16, group: &str, sync: SyncAssignment) -> Result<Synced, ResponseError> {
    if version >= FIRST_VERSION_WITH_PROTOCOL && (sync.protocol_type.is_none() || sync.protocol.is_none()) {
        return Err(ResponseError::InconsistentGroupProtocol);
    }
    super::check_group_id(group)?;
    let synced = broker.coordinator.shard(group)?.sync(group, sync).await?;
    super::confirm_coordinator(broker).await?;
    Ok(synced)
}
