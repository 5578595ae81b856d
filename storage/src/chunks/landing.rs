//! Where those wait who want the same chunk.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::error::{Error, Result};

use super::Chunk;

#[derive(Debug, Default)]
pub(super) struct Landing {
    outcome: Mutex<Option<Outcome>>,
    landed: Notify,
}

#[derive(Debug)]
pub(super) enum Outcome {
    Here(Chunk),
    Failed(Arc<Error>),
    /// Whoever was reading it is no more.
    GivenUp,
}

impl Landing {
    /// How it ended. The first one counts.
    pub fn decide(&self, outcome: Outcome) {
        self.outcome.lock().get_or_insert(outcome);
        self.landed.notify_waiters();
    }

    pub async fn landed(&self) -> Result<Chunk> {
        loop {
            let mut landed = std::pin::pin!(self.landed.notified());
            landed.as_mut().enable();
            match &*self.outcome.lock() {
                Some(Outcome::Here(chunk)) => return Ok(chunk.clone()),
                Some(Outcome::Failed(error)) => return Err(error.shared()),
                Some(Outcome::GivenUp) => return Err(Error::Closed { what: "the reader of chunks" }),
                None => {}
            }
            landed.await;
        }
    }

    /// Is its chunk part of somebody's answer?
    pub fn is_in_use(&self) -> bool {
        match &*self.outcome.lock() {
            Some(Outcome::Here(chunk)) => chunk.payment.pool.is_shared(),
            _ => false,
        }
    }
}
