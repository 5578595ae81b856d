//! What was asked for and by whom, and how it is answered: the types between a connection and an API.
//!
//! A handler runs up to its first wait in the order in which requests arrived on the connection (for Produce that
//! includes assigning offsets and enqueueing); what it waits for goes on in the future of `Reply::Later`, which the
//! connection polls once all earlier replies are out. A handler that has much to compute before its first wait does so in
//! `Reply::Beginning`, and lets others run in between. Replies leave in the order of their requests.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use storage::budget::Permit;
use tokio::time::Instant;

/// Who asks. Everybody is anonymous until authentication exists; every handler is given it all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    Anonymous,
}

/// One request, with its header already decoded. Carried through every call from the first day, also what nothing
/// checks yet.
#[derive(Debug, Clone)]
pub struct RequestContext {
    pub api_key: i16,
    pub api_version: i16,
    pub correlation_id: i32,
    pub client_id: Option<String>,
    pub principal: Principal,
    pub peer: SocketAddr,
    /// When the frame was complete.
    pub received: Instant,
}

/// A request's body: a slice of the receive buffer, and what pays for that buffer. Whoever keeps a slice of `bytes`
/// keeps a clone of `permit` with it.
#[derive(Debug, Clone)]
pub struct RequestBody {
    pub bytes: Bytes,
    pub permit: Permit,
}

/// A response's body as pieces that are written one after another (gathered, never copied together). Length and header
/// are put in front by the connection.
#[derive(Debug, Default)]
pub struct Response {
    pub parts: Vec<Bytes>,
    /// Pay for memory that the parts pin; dropped when the response has been written.
    pub permits: Vec<Permit>,
}

impl Response {
    pub fn len(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(Bytes::is_empty)
    }
}

impl From<BytesMut> for Response {
    fn from(bytes: BytesMut) -> Self {
        Self { parts: vec![bytes.freeze()], permits: Vec::new() }
    }
}

/// How a request is answered.
pub enum Reply {
    /// Not at all: Produce with acks=0.
    Never,
    Now(Response),
    Later(BoxFuture<'static, Result<Response, CloseConnection>>),
    /// The request has work to do before it has run up to its first wait. The connection takes no other request until it
    /// has, so that the order of arrival is kept.
    Beginning(BoxFuture<'static, Result<Reply, CloseConnection>>),
}

/// The request cannot be answered within the protocol: the connection is closed, and the reason logged.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CloseConnection(pub String);
