//! Batches whose codec is not their topic's: compressed anew before they are appended.
//!
//! Invariants: no partition's lock is held meanwhile; a small batch is done at once, a large one in steps that let others
//! run in between, only so many of them at a time; the new batch is paid for before it is made, and what it does not need
//! is given back. When memory is short a large batch is waited for, but not for long: what it came in is held meanwhile,
//! and several that wait for each other would wait forever.

use std::sync::Arc;
use std::time::Duration;

use storage::budget::Permit;
use tokio::time::{Instant, timeout_at};

use super::{Checked, SlotState, Topic};
use crate::batch::{BatchError, Recompressed, Recompression, ValidBatch};
use crate::broker::Broker;
use crate::compression::{Codec, Levels};
use crate::partition::Partition;

/// How long memory, and a turn, is waited for. Then the producer is told to try again.
const PATIENCE: Duration = Duration::from_secs(10);

/// A batch and what is to become of it.
pub struct Task {
    pub partition: Arc<Partition>,
    pub batch: ValidBatch,
    pub codec: Codec,
    pub levels: Levels,
    /// Of the new batch.
    pub max_bytes: usize,
    pub append_time_ms: Option<i64>,
}

/// Does a small batch at once. What is not done is left to `finish`.
pub fn begin(broker: &Broker, task: Task) -> SlotState {
    let max_bytes = task.max_bytes.min(Recompression::SMALL_OUTPUT_BYTES);
    let Some(permit) = broker.budget.try_take(max_bytes) else { return SlotState::Large(task) };
    match Recompression::small(&task.batch, task.codec, task.levels, max_bytes, task.append_time_ms) {
        Ok(Some(done)) => checked(broker, task, done, permit),
        Ok(None) => SlotState::Large(task),
        Err(error) => SlotState::refused(&task.partition, &error),
    }
}

/// Does what `begin` has left.
pub async fn finish(broker: &Broker, topics: &mut [Topic], received: Instant) {
    let deadline = received + PATIENCE;
    for slot in topics.iter_mut().flat_map(|topic| &mut topic.slots) {
        // What is put in its place is never seen.
        slot.state = match std::mem::replace(&mut slot.state, SlotState::short_of_memory()) {
            SlotState::Large(task) => large(broker, task, deadline).await,
            other => other,
        };
    }
}

async fn large(broker: &Broker, task: Task, deadline: Instant) -> SlotState {
    let begin = async {
        let turn = broker.recompressions.acquire().await.ok();
        (turn, broker.budget.take(task.max_bytes).await)
    };
    let Ok((_turn, permit)) = timeout_at(deadline, begin).await else { return SlotState::short_of_memory() };
    match work(&task).await {
        Ok(done) => checked(broker, task, done, permit),
        Err(error) => SlotState::refused(&task.partition, &error),
    }
}

async fn work(task: &Task) -> Result<Recompressed, BatchError> {
    let mut recompression = Recompression::begin(&task.batch, task.codec, task.levels, task.max_bytes)?;
    while !recompression.step()? {
        tokio::task::yield_now().await;
    }
    recompression.finish(task.append_time_ms)
}

fn checked(broker: &Broker, task: Task, done: Recompressed, permit: Permit) -> SlotState {
    let Recompressed { batch, inflated_bytes } = done;
    broker.metrics.recompression.count(task.batch.len(), inflated_bytes, batch.len());
    let permit = permit.shrink(batch.body.len());
    SlotState::Checked(Checked { partition: task.partition, batch, rewritten: Some(permit) })
}

#[cfg(test)]
mod tests;
