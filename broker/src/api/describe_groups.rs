//! DescribeGroups (key 15): state, protocol and members of groups.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::GroupId;
use kafka_protocol::messages::describe_groups_request::DescribeGroupsRequest;
use kafka_protocol::messages::describe_groups_response::{
    DescribeGroupsResponse, DescribedGroup, DescribedGroupMember,
};
use kafka_protocol::protocol::StrBytes;

use crate::broker::Broker;
use crate::groups::{DescribedMember, Description, State};
use crate::request::RequestContext;

/// From here on a group that does not exist is an error (KIP-1043). Before it was said to be dead.
const FIRST_VERSION_WITH_NOT_FOUND: i16 = 6;

/// What everybody may do to a group, as Kafka says it without an authorizer (KIP-430): bit n is AclOperation n.
const GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

pub async fn handle(
    broker: Arc<Broker>,
    context: RequestContext,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let mut groups = Vec::with_capacity(request.groups.len());
    for group in request.groups {
        let mut described = match describe(&broker, &group).await {
            Ok(Some(description)) => shown(group, description),
            Ok(None) if context.api_version >= FIRST_VERSION_WITH_NOT_FOUND => {
                let text = format!("Group {} not found.", group.as_str());
                dead(group)
                    .with_error_code(ResponseError::GroupIdNotFound.code())
                    .with_error_message(Some(StrBytes::from_string(text)))
            }
            Ok(None) => dead(group),
            Err(error) => DescribedGroup::default().with_group_id(group).with_error_code(error.code()),
        };
        if request.include_authorized_operations {
            described.authorized_operations = GROUP_OPERATIONS;
        }
        groups.push(described);
    }
    DescribeGroupsResponse::default().with_groups(groups)
}

async fn describe(broker: &Broker, group: &str) -> Result<Option<Description>, ResponseError> {
    let described = broker.coordinator.shard(group)?.describe(group)?;
    super::confirm_coordinator(broker).await?;
    Ok(described)
}

fn dead(group: GroupId) -> DescribedGroup {
    DescribedGroup::default().with_group_id(group).with_group_state(StrBytes::from_static_str(State::Dead.name()))
}

fn shown(group: GroupId, description: Description) -> DescribedGroup {
    let Description { state, protocol_type, protocol, members } = description;
    let members = members.into_iter().map(|member| {
        let DescribedMember { member_id, instance_id, client_id, client_host, metadata, assignment } = member;
        DescribedGroupMember::default()
            .with_member_id(StrBytes::from_string(member_id))
            .with_group_instance_id(instance_id.map(StrBytes::from_string))
            .with_client_id(StrBytes::from_string(client_id))
            .with_client_host(StrBytes::from_string(client_host))
            .with_member_metadata(metadata)
            .with_member_assignment(assignment)
    });
    DescribedGroup::default()
        .with_group_id(group)
        .with_group_state(StrBytes::from_static_str(state.name()))
        .with_protocol_type(StrBytes::from_string(protocol_type))
        .with_protocol_data(StrBytes::from_string(protocol))
        .with_members(members.collect())
}
