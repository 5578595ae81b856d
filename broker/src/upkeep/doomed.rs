//! What nothing refers to any more, until readers who planned earlier are done with it.

use std::collections::VecDeque;
use std::time::Duration;

use object_store::path::Path;
use storage::entry::FragmentId;
use storage::error::Result;
use tokio::time::Instant;

use super::Worker;

/// Things to be deleted together.
#[derive(Debug, Default, Clone)]
pub struct Garbage {
    pub units: Vec<FragmentId>,
    /// Parts of manifests.
    pub parts: Vec<Path>,
}

#[derive(Debug, Default)]
pub struct Doomed {
    /// In the order of their times.
    waiting: VecDeque<(Instant, Garbage)>,
}

impl Garbage {
    pub fn is_empty(&self) -> bool {
        self.units.is_empty() && self.parts.is_empty()
    }
}

impl Doomed {
    pub fn push(&mut self, garbage: Garbage, delay: Duration) {
        if !garbage.is_empty() {
            let due = Instant::now() + delay;
            let place = self.waiting.partition_point(|(other, _)| *other <= due);
            self.waiting.insert(place, (due, garbage));
        }
    }

    pub fn due(&self) -> Option<Instant> {
        self.waiting.front().map(|(due, _)| *due)
    }

    pub fn take_due(&mut self, now: Instant) -> Vec<Garbage> {
        let count = self.waiting.iter().take_while(|(due, _)| *due <= now).count();
        self.waiting.drain(..count).map(|(_, garbage)| garbage).collect()
    }
}

impl Worker {
    /// Deletes what nobody can be reading any more.
    pub(super) async fn delete_due(&mut self) -> Result<()> {
        let gone = self.doomed.take_due(Instant::now());
        self.delete(gone).await
    }

    /// Deletes; what fails is tried again later.
    pub(super) async fn delete(&mut self, all: Vec<Garbage>) -> Result<()> {
        for (place, garbage) in all.iter().enumerate() {
            let logs = &self.parts.logs;
            garbage.units.iter().for_each(|unit| logs.forget(*unit));
            let units = garbage.units.iter().map(|unit| logs.unit_key(*unit));
            let keys: Vec<_> = units.chain(garbage.parts.iter().cloned()).collect();
            let count = keys.len();
            if let Err(error) = self.parts.objects.delete(keys).await {
                for left in &all[place..] {
                    self.doomed.push(left.clone(), super::PAUSE_MAX);
                }
                return Err(error);
            }
            tracing::debug!(count, "deleted what nothing refers to");
        }
        Ok(())
    }
}
