//! `inspect` and `verify`: what is stored, shown and checked by one who owns nothing of it.
//!
//! Invariants: everything is opened read-only, storage (`meta::read_only`) and metadata (`meta::frozen`) alike; nothing is
//! locked, probed, claimed or written. What a running broker moves or deletes meanwhile is never taken for damage.

mod access;

/// Record batches against what the index says of them.
mod batches;

mod progress;

/// The documents that are printed, with stable names.
mod report;

mod text;

mod verify;

mod inspect;

use std::io::Write;

use crate::cli::{Task, Tool};
use crate::config::Settings;
use crate::storage_url::StorageError;

use self::access::{Access, Subject};
use self::progress::Progress;
use self::report::{Inspection, Unchecked, Verification};

/// What a tool has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Found {
    /// Nothing that is wrong.
    Nothing,
    /// Something could not be read, and so not be judged.
    Unreadable,
    Damage,
}

/// Why a tool has nothing to say. Never damage: that is told in a report.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Metadata(#[from] crate::metadata_store::ConnectError),
    #[error(transparent)]
    Binding(#[from] crate::node::StartError),
    #[error("{description}: nothing is stored here")]
    Empty { description: String },
    #[error("there is no partition {topic}-{partition}")]
    NoPartition { topic: String, partition: i32 },
    #[error(transparent)]
    Unreadable(#[from] storage::error::Error),
    #[error("could not print: {0}")]
    Output(#[from] std::io::Error),
}

impl ToolError {
    /// It is what was asked for that is wrong.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Storage(StorageError::Refused { .. }) | Self::NoPartition { .. })
    }
}

/// Runs a tool and prints what it has to say. A document is printed whatever happens.
pub async fn run(tool: &Tool, settings: &Settings) -> Result<Found, ToolError> {
    let progress = Progress::new(tool.progress);
    let (subject, looked) = match Access::open(settings).await {
        Ok(access) => {
            let looked = look(tool, &access, &progress).await;
            (access.subject, looked)
        }
        Err(error) => (Subject::given(settings), Err(error)),
    };
    progress.end();
    match looked {
        Ok((found, text)) => {
            print(&text)?;
            Ok(found)
        }
        Err(error) => {
            if tool.json {
                // If that fails as well: why it has failed is told on standard error all the same.
                let _untold = print(&failure(&tool.task, subject, &error));
            }
            Err(error)
        }
    }
}

async fn look(tool: &Tool, access: &Access, progress: &Progress) -> Result<(Found, String), ToolError> {
    Ok(match &tool.task {
        Task::Verify => {
            let report = verify::verify(access, progress).await?;
            (report.found(), if tool.json { as_json(&report) } else { text::verification(&report) })
        }
        Task::Inspect(what) => {
            let report = inspect::inspect(access, what, progress).await?;
            (report.found(), if tool.json { as_json(&report) } else { text::inspection(&report) })
        }
    })
}

/// The document of a tool that has found out nothing but why.
fn failure(task: &Task, subject: Subject, error: &ToolError) -> String {
    let unchecked = vec![Unchecked::everything(error)];
    match task {
        Task::Verify => as_json(&Verification { unchecked, ..Verification::nothing(subject) }),
        Task::Inspect(_) => as_json(&Inspection { unchecked, ..Inspection::nothing(subject) }),
    }
}

fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn as_json(report: &impl serde::Serialize) -> String {
    // Documents of numbers and text: there is nothing in them that JSON cannot hold.
    serde_json::to_string_pretty(report).unwrap_or_default() + "\n"
}
