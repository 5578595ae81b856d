//! InitProducerId (key 22): a producer id for an idempotent producer (KIP-98, KIP-360).
//!
//! Without a transactional id there is nothing to fence: a producer that asks to go on with an epoch of its own (KIP-360)
//! gets a new id with epoch 0, as from Kafka.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ProducerId;
use kafka_protocol::messages::init_producer_id_request::InitProducerIdRequest;
use kafka_protocol::messages::init_producer_id_response::InitProducerIdResponse;

use crate::broker::Broker;
use crate::error::admin_code_for;
use crate::request::RequestContext;

pub async fn handle(
    broker: Arc<Broker>,
    _context: RequestContext,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let refused = |error: ResponseError| {
        InitProducerIdResponse::default()
            .with_error_code(error.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1)
    };
    if let Some(id) = &request.transactional_id {
        tracing::warn!(transactional_id = id.as_str(), "refused a transactional producer: not supported yet");
        return refused(ResponseError::UnsupportedVersion);
    }
    match broker.producer_ids.next().await {
        Ok(id) => InitProducerIdResponse::default().with_producer_id(ProducerId(id)).with_producer_epoch(0),
        Err(error) => {
            tracing::warn!(%error, "could not allocate producer ids");
            refused(admin_code_for(error.kind()))
        }
    }
}
