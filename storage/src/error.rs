//! Errors of the log, by what the caller must do about them.

use std::sync::Arc;

use meta::error::ErrorKind;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what} is unavailable: {source}")]
    Unavailable {
        what: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{what} was fenced by {owner}")]
    Fenced { what: String, owner: String },
    #[error("{what}")]
    Invalid { what: String },
    #[error("{key} is corrupt: {why}")]
    Corrupt { key: String, why: String },
    /// A reader's 404: plan again from the current references; never end of data.
    #[error("{key} does not exist")]
    Missing { key: String },
    #[error("outcome unknown: {what}")]
    Unknown { what: String },
    #[error("{what} is closed")]
    Closed { what: &'static str },
    #[error(transparent)]
    Meta(#[from] meta::error::Error),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Unavailable { .. } | Error::Missing { .. } => ErrorKind::Retriable,
            Error::Fenced { .. } => ErrorKind::Fenced,
            Error::Invalid { .. } => ErrorKind::Invalid,
            Error::Corrupt { .. } => ErrorKind::Corrupt,
            Error::Unknown { .. } => ErrorKind::Unknown,
            Error::Closed { .. } => ErrorKind::Closed,
            Error::Meta(error) => error.kind(),
        }
    }

    /// What one more of those is told who waited for the same thing.
    pub fn shared(self: &Arc<Self>) -> Self {
        match &**self {
            Error::Corrupt { key, why } => Error::Corrupt { key: key.clone(), why: why.clone() },
            Error::Missing { key } => Error::Missing { key: key.clone() },
            Error::Invalid { what } => Error::Invalid { what: what.clone() },
            Error::Closed { what } => Error::Closed { what },
            _ => Error::Unavailable { what: "what others are reading too".to_owned(), source: Box::new(self.clone()) },
        }
    }
}
