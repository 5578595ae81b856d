//! DescribeCluster (key 60, KIP-700): which brokers there are, which one is the controller.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::BrokerId;
use kafka_protocol::messages::describe_cluster_request::DescribeClusterRequest;
use kafka_protocol::messages::describe_cluster_response::{DescribeClusterBroker, DescribeClusterResponse};
use kafka_protocol::protocol::StrBytes;

use crate::api::metadata::CLUSTER_OPERATIONS;
use crate::broker::Broker;
use crate::request::RequestContext;

/// What a client means by an endpoint (KIP-919).
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub async fn handle(
    broker: Arc<Broker>,
    _context: RequestContext,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    let refused = |error: ResponseError, text: &'static str| {
        DescribeClusterResponse::default()
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_static_str(text)))
    };
    match request.endpoint_type {
        BROKERS => {}
        CONTROLLERS => return refused(ResponseError::MismatchedEndpointType, "this endpoint is a broker's"),
        _ => return refused(ResponseError::UnsupportedEndpointType, "there is no such type of endpoint"),
    }
    broker.ownership.confirm_soon();
    let id = BrokerId(broker.config.broker_id);
    let own = DescribeClusterBroker::default()
        .with_broker_id(id)
        .with_host(StrBytes::from_string(broker.config.advertised_host.clone()))
        .with_port(i32::from(broker.config.advertised_port));
    let operations = if request.include_cluster_authorized_operations { CLUSTER_OPERATIONS } else { i32::MIN };
    DescribeClusterResponse::default()
        .with_cluster_id(StrBytes::from_string(broker.cluster_id.clone()))
        .with_controller_id(id)
        .with_brokers(vec![own])
        .with_cluster_authorized_operations(operations)
}

#[cfg(test)]
mod tests;
