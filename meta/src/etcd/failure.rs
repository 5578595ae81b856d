//! What an error of etcd or of the way there says about the call that it ended.

use etcd_client::Error as EtcdError;

use crate::error::Error;

/// gRPC's status codes, by number: the client hands them on without naming their type.
mod code {
    pub const INVALID_ARGUMENT: i32 = 3;
    pub const NOT_FOUND: i32 = 5;
    pub const ALREADY_EXISTS: i32 = 6;
    pub const PERMISSION_DENIED: i32 = 7;
    pub const RESOURCE_EXHAUSTED: i32 = 8;
    pub const FAILED_PRECONDITION: i32 = 9;
    pub const OUT_OF_RANGE: i32 = 11;
    pub const UNIMPLEMENTED: i32 = 12;
    pub const UNAUTHENTICATED: i32 = 16;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// etcd refused it, and would again.
    Refused(String),
    /// etcd has no room or no time for it now. Nothing happened.
    Exhausted(String),
    /// The asked for revision is no longer kept.
    Compacted,
    /// Nothing happened, and this connection is of no use.
    NotDone(String),
    /// It may or may not have happened, and this connection is of no use.
    Unknown(String),
}

impl Failure {
    pub fn timed_out() -> Self {
        Self::Unknown("no answer in time".to_owned())
    }

    /// Trying again, on another connection, may help.
    pub fn is_of_the_connection(&self) -> bool {
        matches!(self, Self::NotDone(_) | Self::Unknown(_))
    }

    pub fn why(&self) -> &str {
        match self {
            Self::Refused(why) | Self::Exhausted(why) | Self::NotDone(why) | Self::Unknown(why) => why,
            Self::Compacted => "the revision was compacted",
        }
    }

    /// Of a call that may be made again without harm, for its caller.
    pub fn into_error(self, what: &str) -> Error {
        match self {
            Self::Refused(why) => Error::Invalid { what: format!("{what}: {why}") },
            other => unavailable(what, other.why()),
        }
    }
}

pub fn unavailable(what: &str, why: &str) -> Error {
    Error::Unavailable { what: what.to_owned(), source: why.into() }
}

impl From<EtcdError> for Failure {
    fn from(error: EtcdError) -> Self {
        match error {
            EtcdError::GRpcStatus(status) => {
                let mut why = status.message().to_owned();
                append_sources(&mut why, std::error::Error::source(&status));
                of_status(i32::from(status.code()), why)
            }
            EtcdError::TransportError(error) => {
                let mut why = error.to_string();
                append_sources(&mut why, std::error::Error::source(&error));
                Self::Unknown(why)
            }
            // The only refusal that reaches us through a stream: the lease is gone.
            EtcdError::LeaseKeepAliveError(why) | EtcdError::InvalidArgs(why) => Self::Refused(why),
            EtcdError::InvalidUri(error) => Self::Refused(error.to_string()),
            other => Self::Unknown(other.to_string()),
        }
    }
}

fn of_status(status: i32, why: String) -> Failure {
    match status {
        // The users were changed since we were let in, or our token is too old: in anew, and again.
        code::INVALID_ARGUMENT if why.contains("revision of auth store is old") => Failure::NotDone(why),
        code::UNAUTHENTICATED => Failure::NotDone(why),
        code::OUT_OF_RANGE if why.contains("compacted") => Failure::Compacted,
        code::RESOURCE_EXHAUSTED => Failure::Exhausted(why),
        code::INVALID_ARGUMENT
        | code::NOT_FOUND
        | code::ALREADY_EXISTS
        | code::PERMISSION_DENIED
        | code::FAILED_PRECONDITION
        | code::OUT_OF_RANGE
        | code::UNIMPLEMENTED => Failure::Refused(why),
        _ => Failure::Unknown(why),
    }
}

/// "transport error" alone helps nobody.
fn append_sources(text: &mut String, mut source: Option<&(dyn std::error::Error + 'static)>) {
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = error.source();
    }
}
