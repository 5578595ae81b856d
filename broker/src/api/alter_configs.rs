//! AlterConfigs (key 33): gives resources a whole new configuration; what is not named goes back to its default.

use std::sync::Arc;

use kafka_protocol::messages::alter_configs_request::{AlterConfigsRequest, AlterConfigsResource};
use kafka_protocol::messages::alter_configs_response::{AlterConfigsResourceResponse, AlterConfigsResponse};

use crate::api::resources::{alter, code_and_text, doubled, doubled_refusal};
use crate::broker::Broker;
use crate::request::RequestContext;
use crate::topics::edits::{Edits, Refusal};

pub async fn handle(
    broker: Arc<Broker>,
    _context: RequestContext,
    request: AlterConfigsRequest,
) -> AlterConfigsResponse {
    let doubled = doubled(request.resources.iter().map(|asked| (asked.resource_type, &asked.resource_name)));
    let mut responses = Vec::with_capacity(request.resources.len());
    for (asked, doubled) in request.resources.into_iter().zip(doubled) {
        let outcome = if doubled { Err(doubled_refusal()) } else { one(&broker, &asked, request.validate_only).await };
        let (code, text) = code_and_text(outcome);
        let response = AlterConfigsResourceResponse::default()
            .with_error_code(code)
            .with_error_message(text)
            .with_resource_type(asked.resource_type)
            .with_resource_name(asked.resource_name);
        responses.push(response);
    }
    AlterConfigsResponse::default().with_responses(responses)
}

async fn one(broker: &Broker, asked: &AlterConfigsResource, check_only: bool) -> Result<(), Refusal> {
    let configs =
        asked.configs.iter().map(|config| (config.name.to_string(), config.value.as_ref().map(|v| v.to_string())));
    alter(broker, asked.resource_type, &asked.resource_name, &Edits::Replace(configs.collect()), check_only).await
}
