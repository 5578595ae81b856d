//! The one place where error kinds become Kafka error codes.

use kafka_protocol::ResponseError;
use meta::error::ErrorKind;

/// What a producer or consumer is told when the engine could not do what it asked for. All but `Invalid` make it look
/// for the leader anew and try again.
pub fn code_for(kind: ErrorKind) -> ResponseError {
    match kind {
        ErrorKind::Retriable | ErrorKind::Corrupt => ResponseError::KafkaStorageError,
        ErrorKind::Fenced | ErrorKind::Closed => ResponseError::NotLeaderOrFollower,
        ErrorKind::Invalid => ResponseError::InvalidRequest,
        ErrorKind::Unknown => ResponseError::NotEnoughReplicasAfterAppend,
    }
}

/// What an admin client is told when metadata could not be read or changed.
pub fn admin_code_for(kind: ErrorKind) -> ResponseError {
    match kind {
        ErrorKind::Retriable | ErrorKind::Unknown => ResponseError::RequestTimedOut,
        ErrorKind::Fenced | ErrorKind::Closed => ResponseError::NotController,
        ErrorKind::Invalid => ResponseError::InvalidRequest,
        ErrorKind::Corrupt => ResponseError::UnknownServerError,
    }
}

/// What members of groups are told when it could not be confirmed that this broker coordinates them. All make them look
/// for the coordinator anew.
pub fn coordinator_code_for(kind: ErrorKind) -> ResponseError {
    match kind {
        ErrorKind::Fenced | ErrorKind::Closed => ResponseError::NotCoordinator,
        ErrorKind::Retriable | ErrorKind::Unknown | ErrorKind::Invalid | ErrorKind::Corrupt => {
            ResponseError::CoordinatorNotAvailable
        }
    }
}
