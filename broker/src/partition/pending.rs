//! The appends of one partition that are not yet durable, in the order of their offsets, over all logs they went to.
//!
//! An append is acknowledged when it is durable AND every append before it is. Within a log that is one thing, by the
//! log's contract; where the log changed in between, the append also waits for the last one in the log before.

use std::collections::VecDeque;

use storage::log::{Outcome, Pending};

/// What an acknowledgement waits for.
#[derive(Debug, Clone)]
pub struct Durability {
    own: Pending,
    /// The last append that went to another log, if it was not durable when this one was made.
    before: Option<Pending>,
}

impl Durability {
    /// How the append ended. `Durable` only if everything before it in the partition is durable too.
    pub async fn resolved(&self) -> Outcome {
        if let Some(before) = &self.before
            && before.resolved().await != Outcome::Durable
        {
            return Outcome::Unknown;
        }
        self.own.resolved().await
    }
}

#[derive(Debug)]
struct PendingAppend {
    base_offset: i64,
    next_offset: i64,
    log: u64,
    durability: Durability,
}

#[derive(Debug, Default)]
pub struct PendingQueue(VecDeque<PendingAppend>);

impl PendingQueue {
    pub fn push(&mut self, base_offset: i64, next_offset: i64, log: u64, own: Pending) -> Durability {
        let before = self.0.back().and_then(|last| match last.log == log {
            true => last.durability.before.clone(),
            false => Some(last.durability.own.clone()),
        });
        let before = before.filter(|before| before.outcome() != Some(Outcome::Durable));
        let durability = Durability { own, before };
        self.0.push_back(PendingAppend { base_offset, next_offset, log, durability: durability.clone() });
        durability
    }

    /// The append that holds an offset, if it is still pending.
    pub fn find(&self, offset: i64) -> Option<&Durability> {
        let place = self.0.partition_point(|append| append.next_offset <= offset);
        self.0.get(place).filter(|append| append.base_offset <= offset).map(|append| &append.durability)
    }

    /// Forgets appends that lie wholly below an offset.
    pub fn forget_below(&mut self, offset: i64) {
        while self.0.front().is_some_and(|append| append.next_offset <= offset) {
            self.0.pop_front();
        }
    }
}
