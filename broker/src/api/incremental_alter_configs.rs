//! IncrementalAlterConfigs (key 44, KIP-339): changes configurations one by one.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use kafka_protocol::messages::incremental_alter_configs_response::{
    AlterConfigsResourceResponse, IncrementalAlterConfigsResponse,
};

use crate::api::resources::{alter, code_and_text, doubled, doubled_refusal};
use crate::broker::Broker;
use crate::request::RequestContext;
use crate::topics::edits::{Edit, Edits, Operation, Refusal};

pub async fn handle(
    broker: Arc<Broker>,
    _context: RequestContext,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
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
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

async fn one(broker: &Broker, asked: &AlterConfigsResource, check_only: bool) -> Result<(), Refusal> {
    let edits = asked.configs.iter().map(edit).collect::<Result<_, _>>()?;
    alter(broker, asked.resource_type, &asked.resource_name, &Edits::OneByOne(edits), check_only).await
}

fn edit(config: &AlterableConfig) -> Result<Edit, Refusal> {
    let operation = match config.config_operation {
        0 => Operation::Set,
        1 => Operation::Delete,
        2 => Operation::Append,
        3 => Operation::Subtract,
        unknown => {
            let text = format!("Unknown operation type {unknown} for config {}", config.name.as_str());
            return Err((ResponseError::InvalidRequest, text));
        }
    };
    let value = config.value.as_ref().map(|value| value.to_string());
    Ok(Edit { name: config.name.to_string(), operation, value })
}
