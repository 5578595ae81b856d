//! The settled conditional write: create an object exactly once and know whether it was us.
//!
//! Every ownership decision of the system is a create-if-absent of fixed bytes at a fixed key. Object stores answer it
//! ambiguously (a lost reply, a landed 5xx, a 409 where nothing landed), so an answer other than success is never
//! believed: the object is read back and its identity compared.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::{ObjectStore, PutPayload, path::Path};

/// How a create-if-absent ended, once it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// Our bytes are durable at the key, by this or an earlier attempt.
    Ours,
    /// Somebody else's object is there. `found` holds its bytes within the identity range.
    Theirs { found: Bytes },
    /// Neither could be established before the deadline. Our bytes may still land at any later time.
    Unknown { why: String },
}

/// Which bytes of an object tell one writer's attempt from any other's: they must hold a put-id (writer incarnation and
/// a checksum of the content, or a random number), so that two different attempts never share them.
#[derive(Debug, Clone)]
pub struct Identity {
    pub range: Range<u64>,
    pub bytes: Bytes,
}

/// Retries and time limits of one settled write.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Gives up, with `Unknown` if any attempt may have landed, once this much time has passed.
    pub deadline: Duration,
    /// Pause after the first failed attempt; doubles up to `backoff_max`.
    pub backoff: Duration,
    pub backoff_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(15),
            backoff: Duration::from_millis(20),
            backoff_max: Duration::from_secs(1),
        }
    }
}
