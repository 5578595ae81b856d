//! LeaveGroup (key 13): members go; several at a time, also by their instance ids, from version 3 on (KIP-345).

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::leave_group_request::LeaveGroupRequest;
use kafka_protocol::messages::leave_group_response::{LeaveGroupResponse, MemberResponse};

use crate::broker::Broker;
use crate::groups::Leaver;
use crate::request::RequestContext;

const FIRST_BATCHED_VERSION: i16 = 3;

pub async fn handle(broker: Arc<Broker>, context: RequestContext, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let batched = context.api_version >= FIRST_BATCHED_VERSION;
    let leavers = match batched {
        true => request
            .members
            .iter()
            .map(|member| Leaver {
                member_id: member.member_id.to_string(),
                instance_id: member.group_instance_id.as_ref().map(ToString::to_string),
            })
            .collect(),
        false => vec![Leaver { member_id: request.member_id.to_string(), instance_id: None }],
    };
    let code = |outcome: Result<(), ResponseError>| outcome.err().map_or(0, |error| error.code());
    match run(&broker, &request.group_id, &leavers).await {
        Err(error) => LeaveGroupResponse::default().with_error_code(error.code()),
        // One leaver: its error is the response's.
        Ok(outcomes) if !batched => {
            LeaveGroupResponse::default().with_error_code(outcomes.into_iter().map(code).next().unwrap_or(0))
        }
        Ok(outcomes) => {
            let members = request.members.into_iter().zip(outcomes).map(|(member, outcome)| {
                MemberResponse::default()
                    .with_member_id(member.member_id)
                    .with_group_instance_id(member.group_instance_id)
                    .with_error_code(code(outcome))
            });
            LeaveGroupResponse::default().with_members(members.collect())
        }
    }
}

async fn run(
    broker: &Broker,
    group: &str,
    leavers: &[Leaver],
) -> Result<Vec<Result<(), ResponseError>>, ResponseError> {
    super::check_group_id(group)?;
    let outcomes = broker.coordinator.shard(group)?.leave(group, leavers)?;
    super::confirm_coordinator(broker).await?;
    Ok(outcomes)
}
