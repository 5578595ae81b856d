//! Work that readers wait for and that must not depend on them.
//!
//! A future runs only while somebody polls it, and a connection does not poll the answer that comes next while its client
//! takes nothing of the one before. So whatever holds something that all readers share, a turn or the right to fill a
//! cache, runs in a task of its own.

use meta::planted;
use tokio::task::JoinHandle;

use crate::error::{Error, Result};

/// Ends the task when nobody waits for it any more.
struct Owned<T>(JoinHandle<T>);

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs this to its end also while the caller's future is not polled. When that is dropped it is given up.
pub async fn apart<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T> {
    if planted::bug("readers-hold-turns") {
        return Ok(work.await);
    }
    let mut task = Owned(tokio::spawn(work));
    // An error means that the runtime is shutting down, or that the work panicked: its panic was reported where it was.
    (&mut task.0).await.map_err(|_| Error::Closed { what: "a task that reads" })
}

#[cfg(test)]
mod tests;
