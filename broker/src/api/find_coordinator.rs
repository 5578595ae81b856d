//! FindCoordinator (key 10): who coordinates a group; for several groups at a time from version 4 on (KIP-699).
//!
//! The first one who asks has `__consumer_offsets` created.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::BrokerId;
use kafka_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use kafka_protocol::messages::find_coordinator_response::{Coordinator, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use crate::broker::Broker;
use crate::request::RequestContext;
use crate::topics::Created;

/// From here on for several keys at a time.
const FIRST_BATCHED_VERSION: i16 = 4;

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;

pub async fn handle(
    broker: Arc<Broker>,
    context: RequestContext,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    broker.ownership.confirm_soon();
    let found = find(&broker, request.key_type).await;
    if context.api_version >= FIRST_BATCHED_VERSION {
        let keys = request.coordinator_keys.into_iter();
        let coordinators = keys.map(|key| coordinator(&broker, &found).with_key(key)).collect();
        return FindCoordinatorResponse::default().with_coordinators(coordinators);
    }
    let Coordinator { node_id, host, port, error_code, error_message, .. } = coordinator(&broker, &found);
    FindCoordinatorResponse::default()
        .with_node_id(node_id)
        .with_host(host)
        .with_port(port)
        .with_error_code(error_code)
        .with_error_message(error_message)
}

async fn find(broker: &Broker, key_type: i8) -> Result<(), (ResponseError, String)> {
    match key_type {
        GROUP => {}
        TRANSACTION => return Err((ResponseError::UnsupportedVersion, "there are no transactions yet".to_owned())),
        SHARE => return Err((ResponseError::UnsupportedVersion, "there are no share groups".to_owned())),
        unknown => return Err((ResponseError::InvalidRequest, format!("there is no coordinator of type {unknown}"))),
    }
    match broker.coordinator.create_topic().await {
        Ok(Created::New(topic)) => {
            tracing::info!(
                topic = topic.name,
                partitions = topic.partitions,
                "created the topic of group coordinators"
            );
            Ok(())
        }
        Ok(Created::Exists(_)) => Ok(()),
        Err(error) => {
            tracing::warn!(%error, "could not create the topic of group coordinators");
            Err((ResponseError::CoordinatorNotAvailable, error.to_string()))
        }
    }
}

fn coordinator(broker: &Broker, found: &Result<(), (ResponseError, String)>) -> Coordinator {
    match found {
        Ok(()) => Coordinator::default()
            .with_node_id(BrokerId(broker.config.broker_id))
            .with_host(StrBytes::from_string(broker.config.advertised_host.clone()))
            .with_port(i32::from(broker.config.advertised_port))
            .with_error_message(Some(StrBytes::from_static_str(""))),
        Err((code, message)) => Coordinator::default()
            .with_node_id(BrokerId(-1))
            .with_port(-1)
            .with_error_code(code.code())
            .with_error_message(Some(StrBytes::from_string(message.clone()))),
    }
}
