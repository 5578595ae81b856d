//! The one place where error kinds become Kafka error codes.

use kafka_protocol::ResponseError;
use meta::error::ErrorKind;

/// What a client is told when the engine could not do what it asked for. `Fenced` is retriable for a client: it looks
/// for the new leader.
pub fn code_for(kind: ErrorKind) -> ResponseError {
    match kind {
        ErrorKind::Retriable => ResponseError::CoordinatorNotAvailable,
        ErrorKind::Fenced => ResponseError::NotLeaderOrFollower,
        ErrorKind::Invalid => ResponseError::InvalidRequest,
        ErrorKind::Corrupt => ResponseError::KafkaStorageError,
        ErrorKind::Unknown => ResponseError::NotEnoughReplicasAfterAppend,
        ErrorKind::Closed => ResponseError::NotLeaderOrFollower,
    }
}
