//! From a checked body to a request, and from a response to bytes.

use bytes::BytesMut;
use kafka_protocol::protocol::{Decodable, Encodable};

use crate::request::{CloseConnection, RequestBody, RequestContext, Response};
use crate::wire::shape::RequestShape;
use crate::wire::shapes;

/// Checks a body against its shape. Nothing is decoded before this.
pub fn check(
    shape: &'static RequestShape,
    context: &RequestContext,
    body: &RequestBody,
) -> Result<(), CloseConnection> {
    shape.check(context.api_version, &body.bytes).map_err(|malformed| {
        CloseConnection(format!("malformed {} v{} request: {malformed}", shape.name, context.api_version))
    })
}

/// Decodes a body that `check` has passed. Strings and record batches are slices of the body: who keeps them keeps a
/// clone of its permit.
pub fn decode<T: Decodable>(context: &RequestContext, body: &RequestBody) -> Result<T, CloseConnection> {
    T::decode(&mut body.bytes.clone(), context.api_version)
        .map_err(|error| CloseConnection(format!("{} cannot be decoded: {error}", describe(context))))
}

/// Encodes a response into one allocation of the right size.
pub fn encode<T: Encodable>(context: &RequestContext, response: &T) -> Result<Response, CloseConnection> {
    let failed = |error: &dyn std::fmt::Display| {
        CloseConnection(format!("the answer to {} cannot be encoded: {error}", describe(context)))
    };
    let size = response.compute_size(context.api_version).map_err(|error| failed(&error))?;
    let mut bytes = BytesMut::with_capacity(size);
    response.encode(&mut bytes, context.api_version).map_err(|error| failed(&error))?;
    Ok(bytes.into())
}

fn describe(context: &RequestContext) -> String {
    let name = shapes::by_key(context.api_key).map_or("unknown request", |shape| shape.name);
    format!("{name} v{}", context.api_version)
}
