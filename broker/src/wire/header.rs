//! Request and response headers, decoded and encoded here: the decoder of `kafka-protocol` panics on short ones.
//!
//! Request header 1 (2 in flexible versions): api key, api version, correlation id, client id (and tagged fields).
//! Response header 0 (1 in flexible versions): correlation id (and tagged fields). ApiVersions always answers with
//! response header 0, because a client that guessed a version too new must be able to read the answer (KIP-511).

use bytes::{BufMut, BytesMut};

use crate::wire::shape::{Malformed, Problem, Reader};
use crate::wire::shapes;

/// The fewest bytes a frame has: api key, api version, correlation id, and the length of a client id.
pub const LEAST_FRAME_BYTES: usize = 10;
/// More tagged fields than this in a header are refused; none is known to exist.
const MAX_TAGS: u32 = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader {
    pub api_key: i16,
    pub api_version: i16,
    pub correlation_id: i32,
    pub client_id: Option<String>,
}

/// Decodes the header of a frame and says where the body begins. `Ok(None)`: an API this broker does not know, so that
/// not even the header's version is known.
pub fn decode(frame: &[u8]) -> Result<Option<(RequestHeader, usize)>, Malformed> {
    let mut bytes = Reader::new(frame);
    let malformed = |field, bytes: &Reader<'_>, problem| Malformed { field, position: bytes.position(), problem };
    let fixed = |bytes: &mut Reader<'_>| Ok::<_, Problem>((bytes.int16()?, bytes.int16()?, bytes.int32()?));
    let (api_key, api_version, correlation_id) =
        fixed(&mut bytes).map_err(|problem| malformed("request header", &bytes, problem))?;
    let Some(shape) = shapes::by_key(api_key) else { return Ok(None) };
    // The client id keeps its two-byte length in header 2 too (KIP-482).
    let client_id = bytes.string(false).map_err(|problem| malformed("client_id", &bytes, problem))?.map(str::to_owned);
    if shape.is_flexible(api_version) {
        skip_tags(&mut bytes).map_err(|problem| malformed("header's tagged fields", &bytes, problem))?;
    }
    Ok(Some((RequestHeader { api_key, api_version, correlation_id, client_id }, bytes.position())))
}

fn skip_tags(bytes: &mut Reader<'_>) -> Result<(), Problem> {
    let count = bytes.varint()?;
    if count > MAX_TAGS {
        return Err(Problem::Count(u64::from(count)));
    }
    for _ in 0..count {
        bytes.varint()?;
        let size = bytes.varint()?;
        bytes.take(size as usize)?;
    }
    Ok(())
}

/// Does the response of this API and version have header 1?
pub fn response_is_flexible(api_key: i16, api_version: i16) -> bool {
    api_key != shapes::API_VERSIONS.api_key
        && shapes::by_key(api_key).is_some_and(|shape| shape.is_flexible(api_version))
}

/// The most bytes that length and header of a response take.
pub const RESPONSE_MAX_BYTES: usize = 9;

/// Puts the length and the header of a response whose body has so many bytes. False if no frame can be that long.
#[must_use]
pub fn put_response(out: &mut BytesMut, correlation_id: i32, flexible: bool, body_bytes: usize) -> bool {
    let Ok(length) = i32::try_from(4 + usize::from(flexible) + body_bytes) else { return false };
    out.put_i32(length);
    out.put_i32(correlation_id);
    if flexible {
        out.put_u8(0);
    }
    true
}

#[cfg(test)]
mod tests;
