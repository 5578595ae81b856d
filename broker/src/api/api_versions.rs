//! ApiVersions (key 18): what this broker can be asked, from the table of APIs.
//!
//! A client begins with the newest version that it knows. If that is newer than ours, the body is not looked at, and
//! the answer is one that every client can read: version 0, UNSUPPORTED_VERSION, and the versions of ApiVersions itself
//! (KIP-511). No finalized feature is named: without `transaction.version`, clients use the older transaction protocol.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::{ApiVersion, ApiVersionsResponse};

use crate::api::{APIS, Api};
use crate::broker::Broker;
use crate::request::{CloseConnection, Reply, RequestBody, RequestContext, Response};
use crate::wire::codec;
use crate::wire::shapes;

pub fn handle(_broker: &Arc<Broker>, context: RequestContext, _body: RequestBody) -> Result<Reply, CloseConnection> {
    codec::encode(&context, &answer()).map(Reply::Now)
}

pub(super) fn answer() -> ApiVersionsResponse {
    ApiVersionsResponse::default().with_api_keys(APIS.iter().map(versions).collect())
}

/// The answer to a version that is not served.
pub fn unsupported(mut context: RequestContext) -> Result<Response, CloseConnection> {
    context.api_version = 0;
    let own = APIS.iter().filter(|api| api.shape.api_key == shapes::API_VERSIONS.api_key);
    let response = ApiVersionsResponse::default()
        .with_error_code(ResponseError::UnsupportedVersion.code())
        .with_api_keys(own.map(versions).collect());
    codec::encode(&context, &response)
}

fn versions(api: &Api) -> ApiVersion {
    ApiVersion::default()
        .with_api_key(api.shape.api_key)
        .with_min_version(api.advertised_min)
        .with_max_version(api.accepted.max)
}
