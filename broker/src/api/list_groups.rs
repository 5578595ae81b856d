//! ListGroups (key 16): all groups that this broker coordinates; by state from version 4 on, by type from version 5 on.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::GroupId;
use kafka_protocol::messages::list_groups_request::ListGroupsRequest;
use kafka_protocol::messages::list_groups_response::{ListGroupsResponse, ListedGroup};
use kafka_protocol::protocol::StrBytes;

use crate::broker::Broker;
use crate::coordinator::Listed;
use crate::request::RequestContext;

/// The only type of groups that there is.
const TYPE: &str = "classic";

pub async fn handle(broker: Arc<Broker>, _context: RequestContext, request: ListGroupsRequest) -> ListGroupsResponse {
    match run(&broker).await {
        Ok(groups) => {
            let wanted = |names: &[StrBytes], name: &str| {
                names.is_empty() || names.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))
            };
            let groups = groups.into_iter().filter(|group| wanted(&request.states_filter, group.state.name()));
            let groups = groups.filter(|_| wanted(&request.types_filter, TYPE));
            ListGroupsResponse::default().with_groups(groups.map(listed).collect())
        }
        Err(error) => ListGroupsResponse::default().with_error_code(error.code()),
    }
}

async fn run(broker: &Broker) -> Result<Vec<Listed>, ResponseError> {
    let mut all = Vec::new();
    for shard in broker.coordinator.shards() {
        all.extend(shard.list()?);
    }
    super::confirm_coordinator(broker).await?;
    Ok(all)
}

fn listed(group: Listed) -> ListedGroup {
    ListedGroup::default()
        .with_group_id(GroupId(StrBytes::from_string(group.group)))
        .with_protocol_type(StrBytes::from_string(group.protocol_type))
        .with_group_state(StrBytes::from_static_str(group.state.name()))
        .with_group_type(StrBytes::from_static_str(TYPE))
}
