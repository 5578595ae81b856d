//! When a flush may begin that nothing forces: the flush interval, and a budget of PUTs that widens it.
//!
//! The budget is an average over ten seconds. As long as fewer fragments are begun than it allows the interval counts
//! alone, so that short bursts wait for nothing; once it is used up, fragments begin as far apart as the budget says, and
//! when there is less to write the interval goes back by itself. It is never wider than what one PUT of the budget takes.
//!
//! What wins over what: full batches (`flush_bytes`) are flushed at once; else memory that is short ends the widening;
//! else the budget widens the interval. Whatever is flushed is paid for from the budget, so what was forced leaves less
//! of it for the rest; but no debt is kept, of which a later entry would have to wait for more than one PUT's time.
//! Attempts that are repeated because the store fails are not counted: they are rare, and paced by themselves.

use std::time::Duration;

use tokio::time::Instant;

#[cfg(test)]
mod tests;

/// What the budget is averaged over.
const WINDOW: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    /// What one PUT uses up of the budget; none without a budget.
    cost: Option<Duration>,
    last: Option<Instant>,
    /// The budget is used up as far as this, at most `WINDOW` and one PUT ahead of the last flush.
    spent_until: Option<Instant>,
}

impl Pace {
    /// A budget of 0 is none.
    pub fn new(interval: Duration, puts_per_s: u32) -> Self {
        let cost = (puts_per_s > 0).then(|| Duration::from_secs(1) / puts_per_s);
        Self { interval, cost, last: None, spent_until: None }
    }

    /// A flush has begun.
    pub fn began(&mut self, now: Instant) {
        self.last = Some(now);
        if let Some(cost) = self.cost {
            let spent = self.spent_until.map_or(now, |spent| spent.max(now)) + cost;
            self.spent_until = Some(spent.min(now + WINDOW + cost));
        }
    }

    /// When the next flush may begin that is not forced. None: at once.
    pub fn next(&self, memory_is_short: bool) -> Option<Instant> {
        let by_interval = self.last? + self.interval;
        let by_budget = self.spent_until.and_then(|spent| spent.checked_sub(WINDOW)).filter(|_| !memory_is_short);
        Some(by_budget.map_or(by_interval, |by_budget| by_budget.max(by_interval)))
    }
}
