//! Work that readers wait for and that must not depend on them.
//!
//! A future runs only while somebody polls it, and a connection does not poll the answer that comes next while its client
//! takes nothing of the one before. So whatever holds something that all readers share, a turn or the right to fill a
//! cache, runs in a task of its own.

use std::pin::Pin;
use std::task::{Context, Poll};

use meta::planted;
use tokio::task::JoinHandle;

use crate::error::{Error, Result};

/// A task that goes on by itself, and ends when nobody waits for it any more.
#[derive(Debug)]
pub struct Begun<T>(JoinHandle<T>);

impl<T> Drop for Begun<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T> Future for Begun<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        // An error means that the runtime is shutting down, or that the work panicked: its panic was reported where it was.
        let ended = Pin::new(&mut self.0).poll(context);
        ended.map(|ended| ended.map_err(|_| Error::Closed { what: "a task that reads" }))
    }
}

/// Begins with it at once.
pub fn begin<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Begun<T> {
    Begun(tokio::spawn(work))
}

/// Runs this to its end also while the caller's future is not polled. When that is dropped it is given up.
pub async fn apart<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T> {
    if planted::bug("readers-hold-turns") {
        return Ok(work.await);
    }
    begin(work).await
}

#[cfg(test)]
mod tests;
