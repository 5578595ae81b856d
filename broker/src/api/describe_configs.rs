//! DescribeConfigs (key 32): the configurations of topics and of this broker, with where each value comes from
//! (KIP-226) and what it means (KIP-569).

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::{DescribeConfigsRequest, DescribeConfigsResource};
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::protocol::StrBytes;

use crate::api::resources::{Resource, find};
use crate::broker::Broker;
use crate::request::RequestContext;
use crate::topics::Defaults;
use crate::topics::defaults::Layer;
use crate::topics::describe::{self, Described};
use crate::topics::edits::Refusal;

/// From here on types and documentation are shown.
const FIRST_VERSION_WITH_TYPES: i16 = 3;
/// So many bytes one response may take, or a request of a few megabytes would be answered with gigabytes.
const RESPONSE_MAX_BYTES: usize = 64 << 20;
/// What one configuration takes beside its texts.
const ENTRY_BYTES: usize = 160;

pub async fn handle(
    broker: Arc<Broker>,
    context: RequestContext,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let describing = Describing {
        broker: &broker,
        defaults: broker.topics.defaults(),
        synonyms: request.include_synonyms,
        types: context.api_version >= FIRST_VERSION_WITH_TYPES,
        documentation: request.include_documentation && context.api_version >= FIRST_VERSION_WITH_TYPES,
    };
    let mut left_bytes = RESPONSE_MAX_BYTES;
    let mut results = Vec::with_capacity(request.resources.len());
    for asked in request.resources {
        let result = DescribeConfigsResult::default()
            .with_resource_type(asked.resource_type)
            .with_resource_name(asked.resource_name.clone());
        results.push(match describing.one(&asked, &mut left_bytes) {
            Ok(configs) => result.with_error_message(None).with_configs(configs),
            Err((error, text)) => {
                result.with_error_code(error.code()).with_error_message(Some(StrBytes::from_string(text)))
            }
        });
        // Describing thousands of topics must not keep others from running.
        tokio::task::yield_now().await;
    }
    DescribeConfigsResponse::default().with_results(results)
}

struct Describing<'a> {
    broker: &'a Broker,
    defaults: Defaults,
    synonyms: bool,
    types: bool,
    documentation: bool,
}

impl Describing<'_> {
    fn one(
        &self,
        asked: &DescribeConfigsResource,
        left_bytes: &mut usize,
    ) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
        let mut all = match find(self.broker, asked.resource_type, &asked.resource_name)? {
            Resource::Topic(topic) => describe::topic(&topic.configs, &self.defaults),
            Resource::Broker => describe::broker(&self.defaults, &self.broker.config),
            Resource::AllBrokers => describe::all_brokers(&self.defaults),
        };
        if let Some(keys) = &asked.configuration_keys {
            all.retain(|described| keys.iter().any(|key| key.as_str() == described.name));
        }
        let bytes: usize = all.iter().map(|described| self.bytes(described)).sum();
        *left_bytes = left_bytes.checked_sub(bytes).ok_or_else(|| {
            (ResponseError::InvalidRequest, "too much for one response: describe fewer resources at a time".to_owned())
        })?;
        Ok(all.into_iter().map(|described| self.entry(described)).collect())
    }

    /// What this takes in memory, and on the wire at most.
    fn bytes(&self, described: &Described) -> usize {
        let layers = if self.synonyms { &described.layers[..] } else { &described.layers[..1] };
        let texts: usize = layers.iter().map(|layer| layer.name.len() + layer.value.len() + ENTRY_BYTES).sum();
        let documentation = if self.documentation { described.documentation.len() } else { 0 };
        ENTRY_BYTES + described.name.len() + texts + documentation
    }

    fn entry(&self, described: Described) -> DescribeConfigsResourceResult {
        let mut entry = DescribeConfigsResourceResult::default()
            .with_name(StrBytes::from_static_str(described.name))
            .with_value(Some(StrBytes::from_string(described.value().to_owned())))
            .with_read_only(described.read_only)
            .with_config_source(described.source() as i8);
        if self.types {
            entry.config_type = described.kind as i8;
        }
        if self.synonyms {
            let synonym = |layer: &Layer| {
                DescribeConfigsSynonym::default()
                    .with_name(StrBytes::from_string(layer.name.clone()))
                    .with_value(Some(StrBytes::from_string(layer.value.clone())))
                    .with_source(layer.source as i8)
            };
            entry.synonyms = described.synonyms().map(synonym).collect();
        }
        entry.documentation = self.documentation.then(|| StrBytes::from_string(described.documentation));
        entry
    }
}

#[cfg(test)]
mod tests;
