//! The outermost layer: from bytes that anybody may send to a request that the decoder of the protocol crate can be
//! trusted with.

/// How a request is laid out, and the check of a body against it.
pub mod shape;

/// The shapes of all requests that this broker answers.
pub mod shapes;

/// Request and response headers.
pub mod header;

/// Memory that receive buffers are paid from.
pub mod memory;

/// Frames, read from a connection into shared and paid-for chunks.
pub mod frame;

/// From a checked body to a request, and from a response to bytes.
pub mod codec;
