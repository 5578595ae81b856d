//! Errors, by what the caller must do about them.

/// What a caller must do about an error. Every error type of the workspace maps to one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Nothing happened, and trying again later may succeed.
    Retriable,
    /// Somebody else owns what this process believed to own. Stop; never try again.
    Fenced,
    /// The request itself is wrong; trying again cannot help.
    Invalid,
    /// Stored bytes are not what was written. Report by name; never serve.
    Corrupt,
    /// It may or may not have happened. Read back before deciding anything.
    Unknown,
    /// The component was shut down.
    Closed,
}

/// An error of the metadata layer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what} is unavailable: {source}")]
    Unavailable {
        what: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("fenced: {owner} has taken over ({what})")]
    Fenced { what: String, owner: String },
    #[error("{what}")]
    Invalid { what: String },
    #[error("{key} is corrupt: {why}")]
    Corrupt { key: String, why: String },
    #[error("outcome unknown: {what}")]
    Unknown { what: String },
    /// A watch asked for a revision that is no longer kept: list again, then watch from there.
    #[error("revision {requested} was compacted, the oldest kept is {oldest}")]
    Compacted { requested: u64, oldest: u64 },
    #[error("{what} is closed")]
    Closed { what: &'static str },
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Unavailable { .. } | Error::Compacted { .. } => ErrorKind::Retriable,
            Error::Fenced { .. } => ErrorKind::Fenced,
            Error::Invalid { .. } => ErrorKind::Invalid,
            Error::Corrupt { .. } => ErrorKind::Corrupt,
            Error::Unknown { .. } => ErrorKind::Unknown,
            Error::Closed { .. } => ErrorKind::Closed,
        }
    }
}
