//! JoinGroup (key 11): becomes a member of the group's next generation; waits until that is complete.
//!
//! What the group keeps is copied out of the request first: the wait may take minutes, and the receive buffer is shared.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::join_group_request::JoinGroupRequest;
use kafka_protocol::messages::join_group_response::{JoinGroupResponse, JoinGroupResponseMember};
use kafka_protocol::protocol::StrBytes;

use crate::broker::Broker;
use crate::groups::{Join, Joined, Protocol};
use crate::request::RequestContext;

/// The rebalance timeout came with this version (KIP-62); before it was the session timeout.
const FIRST_VERSION_WITH_REBALANCE_TIMEOUT: i16 = 1;
/// From here on a member is told its id before it joins (KIP-394).
const FIRST_VERSION_WITH_KNOWN_IDS: i16 = 4;
/// From here on there may be no protocol (KIP-559).
const FIRST_VERSION_WITH_NULL_PROTOCOL: i16 = 7;
/// From here on a static leader can be told to leave the assignment as it is (KIP-814).
const FIRST_VERSION_WITH_SKIPPED_ASSIGNMENT: i16 = 9;

pub fn handle(
    broker: Arc<Broker>,
    context: RequestContext,
    request: JoinGroupRequest,
) -> impl Future<Output = JoinGroupResponse> {
    let version = context.api_version;
    let group = request.group_id.to_string();
    let join = join_of(&context, &request);
    drop(request);
    async move {
        let member_id = join.member_id.clone();
        match run(&broker, &group, join).await {
            Ok(joined) => answer(version, joined),
            Err(code) => refused(version, code, member_id),
        }
    }
}

async fn run(broker: &Broker, group: &str, join: Join) -> Result<Joined, ResponseError> {
    super::check_group_id(group)?;
    let joined = broker.coordinator.shard(group)?.join(group, join).await?;
    super::confirm_coordinator(broker).await?;
    Ok(joined)
}

fn join_of(context: &RequestContext, request: &JoinGroupRequest) -> Join {
    let version = context.api_version;
    let session_timeout = millis(request.session_timeout_ms);
    let rebalance_timeout = match version {
        FIRST_VERSION_WITH_REBALANCE_TIMEOUT.. => millis(request.rebalance_timeout_ms),
        _ => session_timeout,
    };
    let protocols = request.protocols.iter().map(|protocol| Protocol {
        name: protocol.name.to_string(),
        metadata: Bytes::copy_from_slice(&protocol.metadata),
    });
    Join {
        member_id: request.member_id.to_string(),
        instance_id: request.group_instance_id.as_ref().map(ToString::to_string),
        client_id: context.client_id.clone().unwrap_or_default(),
        client_host: format!("/{}", context.peer.ip()),
        session_timeout,
        rebalance_timeout,
        protocol_type: request.protocol_type.to_string(),
        protocols: protocols.collect(),
        require_known_member_id: version >= FIRST_VERSION_WITH_KNOWN_IDS,
        can_skip_assignment: version >= FIRST_VERSION_WITH_SKIPPED_ASSIGNMENT,
    }
}

fn millis(value: i32) -> Duration {
    Duration::from_millis(u64::try_from(value).unwrap_or(0))
}

fn answer(version: i16, joined: Joined) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|member| {
        JoinGroupResponseMember::default()
            .with_member_id(StrBytes::from_string(member.member_id))
            .with_group_instance_id(member.instance_id.map(StrBytes::from_string))
            .with_metadata(member.metadata)
    });
    JoinGroupResponse::default()
        .with_error_code(joined.error.map_or(0, |error| error.code()))
        .with_generation_id(joined.generation)
        .with_protocol_type(joined.protocol_type.map(StrBytes::from_string))
        .with_protocol_name(protocol_name(version, joined.protocol))
        .with_leader(StrBytes::from_string(joined.leader))
        .with_skip_assignment(joined.skip_assignment)
        .with_member_id(StrBytes::from_string(joined.member_id))
        .with_members(members.collect())
}

fn refused(version: i16, code: ResponseError, member_id: String) -> JoinGroupResponse {
    JoinGroupResponse::default()
        .with_error_code(code.code())
        .with_protocol_name(protocol_name(version, None))
        .with_member_id(StrBytes::from_string(member_id))
}

fn protocol_name(version: i16, name: Option<String>) -> Option<StrBytes> {
    let nullable = version >= FIRST_VERSION_WITH_NULL_PROTOCOL;
    name.or_else(|| (!nullable).then(String::new)).map(StrBytes::from_string)
}
